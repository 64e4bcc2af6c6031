//! Which tensors of a file are loaded, and as what: every tensor is accounted for, and those that hold several matrices
//! are taken apart by their rows.

use std::collections::BTreeMap;
use std::slice::from_ref;

use super::Error;
use crate::config::{Config, EMBEDDING, LONG_AND_SHORT_FACTORS};
use crate::gguf::{File, TensorInfo};
use crate::{pack, quant};

pub(super) const OUTPUT_NORM: &str = "output_norm.weight";
pub(super) const OUTPUT: &str = "output";
/// Where the rotary factors are put, whatever tensor they come from.
pub(super) const ROPE_FACTORS: &str = "rope_factors";
/// Tensors that old converters wrote and nobody reads: the rotary frequencies follow from the metadata.
const HARMLESS_SUFFIX: &str = ".attn_rot_embd.weight";

/// What becomes of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Packed for products.
    Matrix,
    /// Kept as `f32`.
    Vector,
    /// As a vector, of divisors that must be above 0.
    Divisors,
}

/// A tensor to be loaded, or some rows of one.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// Its name in the file, and its place.
    pub info: TensorInfo,
    /// Its name among the weights.
    pub slot: String,
    pub kind: Kind,
}

/// Name of a tensor of a layer.
pub(super) fn in_block(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}")
}

/// A tensor that the architecture has.
struct Expected {
    /// Name in the file.
    name: String,
    /// GGUF order, fastest first.
    shape: Vec<usize>,
    required: bool,
    kind: Kind,
    /// Names among the weights and numbers of rows of what it holds; nothing of a tensor that is not read.
    parts: Vec<(String, usize)>,
}

impl Expected {
    fn new(name: String, shape: &[usize], required: bool) -> Self {
        let kind = if shape.len() == 2 { Kind::Matrix } else { Kind::Vector };
        let rows = shape.last().copied().unwrap_or(0);
        Self { parts: vec![(name.clone(), rows)], name, shape: shape.to_vec(), required, kind }
    }
}

/// What a file may have. Its own tensors decide whether matrices are fused.
struct Layout<'a> {
    config: &'a Config,
    file: &'a File,
}

impl Layout<'_> {
    fn expected(&self) -> impl Iterator<Item = Expected> {
        let &Config { dim, vocab, .. } = self.config;
        let global = [
            Expected::new(EMBEDDING.to_owned(), &[dim, vocab], true),
            Expected::new(OUTPUT_NORM.to_owned(), &[dim], true),
        ];
        let head = projection(OUTPUT.to_owned(), dim, &[(OUTPUT.to_owned(), vocab)], false);
        let blocks = (0..self.config.layers).flat_map(|layer| self.block(layer));
        blocks.chain(global).chain(head).chain(self.rope_factors())
    }

    fn rope_factors(&self) -> impl Iterator<Item = Expected> {
        let pairs = self.config.rotation.dim / 2;
        let read = self.config.rope_factors;
        let unread = LONG_AND_SHORT_FACTORS
            .into_iter()
            .filter(move |name| Some(*name) != read && read.is_some_and(|read| LONG_AND_SHORT_FACTORS.contains(&read)));
        let tensor = move |name: &str, parts: Vec<(String, usize)>| Expected {
            kind: Kind::Divisors,
            parts,
            ..Expected::new(name.to_owned(), &[pairs], false)
        };
        read.map(|name| tensor(name, vec![(ROPE_FACTORS.to_owned(), pairs)]))
            .into_iter()
            .chain(unread.map(move |name| tensor(name, Vec::new())))
    }

    fn block(&self, layer: usize) -> Vec<Expected> {
        let config = self.config;
        let (dim, hidden, query, kv) = (config.dim, config.hidden, config.query_dim(), config.kv_dim());
        let norm = |part: &str, len| Expected::new(in_block(layer, part) + ".weight", &[len], true);
        let projections = |fused: Option<&str>, columns, parts: &[(&str, usize)]| {
            let parts: Vec<_> = parts.iter().map(|&(part, rows)| (in_block(layer, part), rows)).collect();
            let projections: Vec<_> = match fused {
                Some(name) => projection(in_block(layer, name), columns, &parts, true).into(),
                None => {
                    let one = |part: &(String, usize)| projection(part.0.clone(), columns, from_ref(part), true);
                    parts.iter().flat_map(one).collect()
                }
            };
            projections
        };
        let has_qkv = self.file.tensor(&(in_block(layer, "attn_qkv") + ".weight")).is_some();
        let mut expected = vec![norm("attn_norm", dim), norm("ffn_norm", dim)];
        let fused = has_qkv.then_some("attn_qkv");
        expected.extend(projections(fused, dim, &[("attn_q", query), ("attn_k", kv), ("attn_v", kv)]));
        expected.extend(projections(None, query, &[("attn_output", dim)]));
        let fused = config.fuses_gate_and_up.then_some("ffn_up");
        expected.extend(projections(fused, dim, &[("ffn_gate", hidden), ("ffn_up", hidden)]));
        expected.extend(projections(None, hidden, &[("ffn_down", dim)]));
        if config.normalizes_heads {
            expected.extend([norm("attn_q_norm", config.head_dim), norm("attn_k_norm", config.head_dim)]);
        }
        if config.normalizes_outputs {
            expected.extend([norm("post_attention_norm", dim), norm("post_ffw_norm", dim)]);
        }
        expected
    }
}

/// A matrix with the rows of `parts`, and the bias that it may have.
fn projection(name: String, columns: usize, parts: &[(String, usize)], required: bool) -> [Expected; 2] {
    let rows = parts.iter().map(|(_, rows)| rows).sum();
    let tensor = |suffix: &str, shape: &[usize], required| {
        let parts = parts.iter().map(|(slot, rows)| (format!("{slot}.{suffix}"), *rows)).collect();
        Expected { parts, ..Expected::new(format!("{name}.{suffix}"), shape, required) }
    };
    [tensor("weight", &[columns, rows], required), tensor("bias", &[rows], false)]
}

/// What to load, in the order of the file's layers. Every tensor of the file is accounted for.
///
/// # Errors
/// The first tensor that is missing, misshapen, of an unsupported type, or not part of the architecture.
pub(super) fn plan(config: &Config, file: &File) -> Result<Vec<Planned>, crate::Error> {
    let mut plan = Vec::new();
    let mut unread: BTreeMap<&str, &TensorInfo> =
        file.tensors().iter().map(|info| (info.name.as_str(), info)).collect();
    for expected in (Layout { config, file }).expected() {
        match unread.remove(expected.name.as_str()) {
            Some(info) => take_apart(expected, info, &mut plan)?,
            None if expected.required => return Err(Error::MissingTensor { tensor: expected.name }.into()),
            None => {}
        }
    }
    match unread.into_keys().find(|name| !name.ends_with(HARMLESS_SUFFIX)) {
        Some(name) => {
            let (tensor, architecture) = (name.to_owned(), config.architecture.clone());
            Err(Error::UnexpectedTensor { tensor, architecture }.into())
        }
        None => Ok(plan),
    }
}

/// Plans the parts of a tensor, one after the other.
fn take_apart(expected: Expected, info: &TensorInfo, plan: &mut Vec<Planned>) -> Result<(), crate::Error> {
    let Expected { name, shape, kind, parts, .. } = expected;
    let shape: Vec<u64> = shape.into_iter().map(|len| len as u64).collect();
    if info.shape != shape {
        return Err(Error::Misshapen { tensor: name, expected: shape, found: info.shape.clone() }.into());
    }
    // Rows of a matrix are whole blocks; the elements of a vector need not be.
    let divisible = kind == Kind::Matrix || parts.len() < 2 || info.ty.block_elements() == 1;
    if !quant::supports(info.ty) || !divisible {
        return Err(pack::Error::Unsupported { tensor: name, ty: info.ty }.into());
    }
    let all_rows = u128::from(shape.last().copied().unwrap_or(0).max(1));
    let mut offset = info.offset;
    for (slot, rows) in parts {
        let bytes = (u128::from(info.bytes) * rows as u128 / all_rows) as u64;
        let mut shape = shape.clone();
        shape.pop();
        shape.push(rows as u64);
        plan.push(Planned {
            info: TensorInfo { name: name.clone(), shape, offset, bytes, ..info.clone() },
            slot,
            kind,
        });
        offset += bytes;
    }
    Ok(())
}

/// Weights multiplied per token by the tensors of a plan: all matrices, but the embedding only where it is the head.
pub(super) fn weights_per_token(plan: &[Planned]) -> u64 {
    let has_head = plan.iter().any(|planned| planned.slot.strip_suffix(".weight") == Some(OUTPUT));
    let multiplied = |planned: &&Planned| planned.kind == Kind::Matrix && !(has_head && planned.slot == EMBEDDING);
    plan.iter().filter(multiplied).map(|planned| planned.info.elements()).fold(0, u64::saturating_add)
}

/// Checks the numbers of a small tensor.
///
/// # Errors
/// [`Error::BadValue`] for the first that is not finite, or a divisor that is not above 0.
pub(super) fn check_vector(planned: &Planned, values: &[f32]) -> Result<(), Error> {
    let bad = |value: f32| !value.is_finite() || (planned.kind == Kind::Divisors && value <= 0.0);
    match values.iter().position(|&value| bad(value)) {
        Some(index) => {
            let (tensor, found) = (planned.info.name.clone(), format!("{:?}", values[index]));
            Err(Error::BadValue { tensor, index, found })
        }
        None => Ok(()),
    }
}
