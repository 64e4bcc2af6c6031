//! How a file says that positions become angles, as llama.cpp reads it.

use super::architecture::FactorTensors;
use super::reader::{MAX_WIDTH, Reader};
use super::{Error, LONG_AND_SHORT_FACTORS, MAX_CONTEXT};
use crate::gguf::keys;
use crate::math::{Pairing, Rotation};

/// `{arch}.rope.freq_base` if the file does not say (Su et al. 2021).
pub(super) const DEFAULT_THETA: f32 = 10_000.0;
/// The divisors of Llama 3.1.
const FACTORS: &str = "rope_freqs.weight";

/// What `{arch}.rope.scaling.type` may be.
const NONE: &str = "none";
const LINEAR: &str = "linear";
const YARN: &str = "yarn";
const LONG: &str = "longrope";

/// The rotation of the layers that see everything.
pub(super) fn read(
    reader: &Reader<'_>,
    pairing: Pairing,
    head_dim: usize,
    context_length: usize,
) -> Result<Rotation, Error> {
    let kind = kind(reader)?;
    Ok(Rotation {
        pairing,
        dim: dim(reader, head_dim)?,
        theta: reader.positive(keys::rope_freq_base)?.unwrap_or(DEFAULT_THETA),
        scale: if kind == NONE { 1.0 } else { scale(reader)? },
        yarn_context: if kind == YARN { Some(original_context(reader, context_length)?) } else { None },
        magnitude: reader.positive(keys::rope_scaling_attn_factor)?.unwrap_or(1.0),
    })
}

/// The tensor whose values divide the frequencies: those for long contexts where the model's context is longer than the
/// one it was first trained for.
pub(super) fn factor_tensor(
    reader: &Reader<'_>,
    tensors: FactorTensors,
    context_length: usize,
) -> Result<Option<&'static str>, Error> {
    let [long, short] = LONG_AND_SHORT_FACTORS;
    match tensors {
        FactorTensors::None => Ok(None),
        FactorTensors::ByScaling if kind(reader)? != LONG => Ok(Some(FACTORS)),
        _ if context_length > original_context(reader, context_length)? => Ok(Some(long)),
        _ => Ok(Some(short)),
    }
}

fn kind<'a>(reader: &Reader<'a>) -> Result<&'a str, Error> {
    let key = keys::rope_scaling_type(reader.arch);
    match reader.meta.opt_str(&key)?.unwrap_or(LINEAR) {
        kind @ (NONE | LINEAR | YARN | LONG) => Ok(kind),
        found => Err(Error::UnsupportedRopeScaling { key, found: found.to_owned() }),
    }
}

fn scale(reader: &Reader<'_>) -> Result<f32, Error> {
    let key = if reader.meta.get(&keys::rope_scaling_factor(reader.arch)).is_some() {
        keys::rope_scaling_factor
    } else {
        keys::rope_scale_linear
    };
    Ok(reader.nonzero(key)?.unwrap_or(1.0))
}

fn original_context(reader: &Reader<'_>, context_length: usize) -> Result<usize, Error> {
    Ok(reader.opt_size(keys::rope_scaling_original_context_length, MAX_CONTEXT)?.unwrap_or(context_length))
}

fn dim(reader: &Reader<'_>, head_dim: usize) -> Result<usize, Error> {
    let dim = reader.opt_size(keys::rope_dimension_count, MAX_WIDTH)?.unwrap_or(head_dim);
    if dim.is_multiple_of(2) && dim <= head_dim {
        return Ok(dim);
    }
    let (key, found, other) = (keys::rope_dimension_count(reader.arch), dim as u64, head_dim as u64);
    Err(Error::Contradiction { key, found, rule: "it must be even and at most the width of a head,", other })
}
