//! Layers that see only the last positions, by the file and the architecture.

use super::Error;
use super::architecture::Windows;
use super::reader::Reader;
use super::{MAX_CONTEXT, rotation};
use crate::gguf::{Array, Value, keys};
use crate::math::Rotation;

/// What differs in layers with a sliding window.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// Positions that such a layer sees, a token's own included.
    pub window: usize,
    /// Which layers have it, `[layers]`.
    pub layers: Vec<bool>,
    /// How positions turn queries and keys there, if otherwise than in the other layers.
    pub rotation: Option<Rotation>,
}

/// What the file says of sliding windows; a window of 0 is none.
pub(super) fn read(
    reader: &Reader<'_>,
    windows: Windows,
    layers: usize,
    rotation: &Rotation,
) -> Result<Option<Local>, Error> {
    let window = reader.meta.opt_u64(&keys::sliding_window(reader.arch))?.unwrap_or(0);
    if window == 0 || windows == Windows::Ignored {
        return Ok(None);
    }
    let Some(window) = reader.opt_size(keys::sliding_window, MAX_CONTEXT)? else { return Ok(None) };
    Ok(Some(match windows {
        Windows::AllBut(every) => Local {
            window,
            layers: pattern(reader, layers, every)?,
            rotation: Some(Rotation {
                theta: reader.positive(keys::rope_freq_base_swa)?.unwrap_or(rotation::DEFAULT_THETA),
                scale: 1.0,
                yarn_context: None,
                ..rotation.clone()
            }),
        },
        _ => Local { window, layers: vec![true; layers], rotation: None },
    }))
}

/// Which layers have a window: the file has a list, or the number of layers of which the last sees everything.
fn pattern(reader: &Reader<'_>, layers: usize, every: usize) -> Result<Vec<bool>, Error> {
    let key = keys::sliding_window_pattern(reader.arch);
    let list = match reader.meta.get(&key) {
        Some(Value::Array(Array::Bool(list))) => list.clone(),
        Some(Value::Array(_)) => reader.meta.i32s(&key)?.iter().map(|&one| one != 0).collect(),
        _ => {
            let every = reader.opt_size(keys::sliding_window_pattern, MAX_CONTEXT)?.unwrap_or(every);
            (1..=layers).map(|layer| !layer.is_multiple_of(every)).collect()
        }
    };
    if list.len() == layers { Ok(list) } else { Err(Error::LayerCount { key, found: list.len(), layers }) }
}
