//! Names of tensors to packed weights, checked against the [`Config`].

use std::collections::BTreeMap;

use super::Error;
use crate::config::{Config, EMBEDDING};
use crate::gguf::{File, TensorInfo};
use crate::pack::{self, Matrix};
use crate::quant;

const OUTPUT_NORM: &str = "output_norm.weight";
const OUTPUT: &str = "output.weight";
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Tensors that old converters wrote and nobody reads: the rotary frequencies follow from the metadata.
const HARMLESS_SUFFIX: &str = ".attn_rot_embd.weight";

/// A tensor in memory.
#[derive(Debug)]
pub(super) enum Loaded {
    Matrix(Matrix),
    Vector(Vec<f32>),
}

/// What becomes of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Packed for products.
    Matrix,
    /// Kept as `f32`.
    Vector,
}

/// A tensor to be loaded.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub info: TensorInfo,
    pub kind: Kind,
}

/// Everything the layers read.
#[derive(Debug)]
pub(super) struct Weights {
    /// `[vocab, dim]`
    pub embedding: Matrix,
    pub blocks: Vec<Block>,
    /// `[dim]`
    pub output_norm: Vec<f32>,
    /// `[vocab, dim]`; the embedding serves where there is none.
    output: Option<Matrix>,
    /// `[rotary_dim / 2]`
    rope_factors: Option<Vec<f32>>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct Block {
    /// `[dim]`
    pub attention_norm: Vec<f32>,
    /// `[query_dim, dim]`
    pub query: Matrix,
    /// `[kv_dim, dim]`
    pub key: Matrix,
    /// `[kv_dim, dim]`
    pub value: Matrix,
    /// `[dim, query_dim]`
    pub attention_output: Matrix,
    /// `[dim]`
    pub ffn_norm: Vec<f32>,
    /// `[hidden, dim]`
    pub gate: Matrix,
    /// `[hidden, dim]`
    pub up: Matrix,
    /// `[dim, hidden]`
    pub down: Matrix,
}

impl Block {
    fn matrices(&self) -> [&Matrix; 7] {
        [&self.query, &self.key, &self.value, &self.attention_output, &self.gate, &self.up, &self.down]
    }
}

impl Weights {
    /// The output head.
    pub fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    pub fn rope_factors(&self) -> Option<&[f32]> {
        self.rope_factors.as_deref()
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.blocks.iter().flat_map(Block::matrices).chain([&self.embedding]).chain(&self.output)
    }

    /// Bytes of all matrices; norms are negligible.
    pub fn bytes(&self) -> u64 {
        self.matrices().map(|matrix| matrix.bytes() as u64).sum()
    }

    /// What a token is multiplied with: all matrices, but the embedding only where it is the head.
    pub fn multiplied(&self) -> impl Iterator<Item = &Matrix> {
        self.blocks.iter().flat_map(Block::matrices).chain([self.head()])
    }

    /// Puts loaded tensors in their places.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn assemble(config: &Config, loaded: BTreeMap<String, Loaded>) -> Result<Self, Error> {
        let mut parts = Parts(loaded);
        let blocks = (0..config.layers).map(|layer| parts.block(layer)).collect::<Result<_, _>>()?;
        Ok(Self {
            embedding: parts.matrix(EMBEDDING)?,
            blocks,
            output_norm: parts.vector(OUTPUT_NORM)?,
            output: parts.matrix(OUTPUT).ok(),
            rope_factors: parts.vector(ROPE_FACTORS).ok(),
        })
    }
}

struct Parts(BTreeMap<String, Loaded>);

impl Parts {
    fn matrix(&mut self, name: &str) -> Result<Matrix, Error> {
        match self.0.remove(name) {
            Some(Loaded::Matrix(matrix)) => Ok(matrix),
            _ => Err(Error::MissingTensor { tensor: name.to_owned() }),
        }
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        match self.0.remove(name) {
            Some(Loaded::Vector(vector)) => Ok(vector),
            _ => Err(Error::MissingTensor { tensor: name.to_owned() }),
        }
    }

    fn block(&mut self, layer: usize) -> Result<Block, Error> {
        let name = |part| block_name(layer, part);
        Ok(Block {
            attention_norm: self.vector(&name("attn_norm"))?,
            query: self.matrix(&name("attn_q"))?,
            key: self.matrix(&name("attn_k"))?,
            value: self.matrix(&name("attn_v"))?,
            attention_output: self.matrix(&name("attn_output"))?,
            ffn_norm: self.vector(&name("ffn_norm"))?,
            gate: self.matrix(&name("ffn_gate"))?,
            up: self.matrix(&name("ffn_up"))?,
            down: self.matrix(&name("ffn_down"))?,
        })
    }
}

/// Name of a tensor of a layer.
pub(crate) fn block_name(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}.weight")
}

/// A tensor that the architecture has.
struct Expected {
    name: String,
    /// GGUF order, fastest first.
    shape: Vec<usize>,
    required: bool,
}

fn expected(config: &Config) -> impl Iterator<Item = Expected> {
    let &Config { dim, vocab, rotary_dim, .. } = config;
    let tensor = |name: &str, shape: &[usize], required| Expected { name: name.into(), shape: shape.into(), required };
    let global = [
        tensor(EMBEDDING, &[dim, vocab], true),
        tensor(OUTPUT_NORM, &[dim], true),
        tensor(OUTPUT, &[dim, vocab], false),
        tensor(ROPE_FACTORS, &[rotary_dim / 2], false),
    ];
    (0..config.layers).flat_map(|layer| expected_in_block(config, layer)).chain(global)
}

fn expected_in_block(config: &Config, layer: usize) -> impl Iterator<Item = Expected> {
    let (dim, hidden, query, kv) = (config.dim, config.hidden, config.query_dim(), config.kv_dim());
    let tensors: [(&str, &[usize]); 9] = [
        ("attn_norm", &[dim]),
        ("attn_q", &[dim, query]),
        ("attn_k", &[dim, kv]),
        ("attn_v", &[dim, kv]),
        ("attn_output", &[query, dim]),
        ("ffn_norm", &[dim]),
        ("ffn_gate", &[dim, hidden]),
        ("ffn_up", &[dim, hidden]),
        ("ffn_down", &[hidden, dim]),
    ];
    tensors
        .map(|(part, shape)| Expected { name: block_name(layer, part), shape: shape.to_vec(), required: true })
        .into_iter()
}

/// What to load, in the order of the file's layers. Every tensor of the file is accounted for.
///
/// # Errors
/// The first tensor that is missing, misshapen, of an unsupported type, or not part of the architecture.
pub(super) fn plan(config: &Config, file: &File) -> Result<Vec<Planned>, crate::Error> {
    let mut plan = Vec::new();
    let mut unread: BTreeMap<&str, &TensorInfo> =
        file.tensors().iter().map(|info| (info.name.as_str(), info)).collect();
    for Expected { name, shape, required } in expected(config) {
        let Some(info) = unread.remove(name.as_str()) else {
            if required {
                return Err(Error::MissingTensor { tensor: name }.into());
            }
            continue;
        };
        let kind = if shape.len() == 2 { Kind::Matrix } else { Kind::Vector };
        let shape: Vec<u64> = shape.into_iter().map(|len| len as u64).collect();
        if info.shape != shape {
            return Err(Error::Misshapen { tensor: name, expected: shape, found: info.shape.clone() }.into());
        }
        if !quant::supports(info.ty) {
            return Err(pack::Error::Unsupported { tensor: name, ty: info.ty }.into());
        }
        plan.push(Planned { info: info.clone(), kind });
    }
    match unread.into_keys().find(|name| !name.ends_with(HARMLESS_SUFFIX)) {
        Some(name) => Err(Error::UnexpectedTensor { tensor: name.to_owned() }.into()),
        None => Ok(plan),
    }
}

/// Weights multiplied per token by the tensors of a plan: all matrices, but the embedding only where it is the head.
pub(super) fn weights_per_token(plan: &[Planned]) -> u64 {
    let has_head = plan.iter().any(|planned| planned.info.name == OUTPUT);
    let multiplied = |planned: &&Planned| planned.kind == Kind::Matrix && !(has_head && planned.info.name == EMBEDDING);
    plan.iter().filter(multiplied).map(|planned| planned.info.elements()).fold(0, u64::saturating_add)
}

/// Checks the numbers of a small tensor.
///
/// # Errors
/// [`Error::BadValue`] for the first that is not finite, or a rotary factor that is not above 0.
pub(super) fn check_vector(name: &str, values: &[f32]) -> Result<(), Error> {
    let bad = |value: f32| !value.is_finite() || (name == ROPE_FACTORS && value <= 0.0);
    match values.iter().position(|&value| bad(value)) {
        Some(index) => Err(Error::BadValue { tensor: name.to_owned(), index, found: format!("{:?}", values[index]) }),
        None => Ok(()),
    }
}
