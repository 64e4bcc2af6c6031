//! The shape of a model, read from the metadata and validated once. The only reader of the architecture's keys; after
//! this nothing asks the file what the model looks like.

mod architecture;
mod error;
mod reader;
mod rotation;
mod window;

pub use architecture::{Activation, SUPPORTED_ARCHITECTURES};
pub use error::Error;
pub use window::Local;

use crate::gguf::{File, keys};
use crate::math::Rotation;
use reader::{MAX_WIDTH, Reader};

/// Name of the embedding, whose rows are the vocabulary.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// Tensors with divisors of the rotary frequencies, of which one is used.
pub(crate) const LONG_AND_SHORT_FACTORS: [&str; 2] = ["rope_factors_long.weight", "rope_factors_short.weight"];

/// Most layers accepted; known models have fewer than 200.
const MAX_LAYERS: u64 = 1 << 12;
/// Longest context accepted. Nothing is allocated by it.
const MAX_CONTEXT: u64 = 1 << 30;
/// Most bytes that 32 positions of the key-value cache may take.
const MAX_CACHE_SEGMENT_BYTES: u64 = 1 << 30;

/// The shape of a model. All numbers are checked against each other and against sane limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the architecture, such as `llama`.
    pub architecture: String,
    /// Name of the model for people, if the file has one.
    pub name: Option<String>,
    /// Tokens in the vocabulary: rows of the embedding.
    pub vocab: usize,
    /// Longest context that the model was made for, in tokens.
    pub context_length: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key and value heads per layer; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward network.
    pub hidden: usize,
    /// Epsilon of the norms.
    pub norm_epsilon: f32,
    /// Factor of the attention scores.
    pub attention_scale: f32,
    /// How positions turn queries and keys.
    pub rotation: Rotation,
    /// The tensor whose values divide the rotary frequencies, if the file has it.
    pub rope_factors: Option<&'static str>,
    /// Layers that see only the last positions, if there are any.
    pub local: Option<Local>,
    /// The function inside the feed-forward network.
    pub activation: Activation,
    /// Whether each head of queries and keys is normalised before it turns.
    pub normalizes_heads: bool,
    /// Whether the outputs of attention and feed-forward network are normalised before they join the residual stream.
    pub normalizes_outputs: bool,
    /// Whether one tensor of the file holds the rows of the gate and, behind them, those of `up`.
    pub fuses_gate_and_up: bool,
    /// Factor of the embeddings.
    pub embedding_scale: Option<f32>,
    /// Logits `x` become `cap * tanh(x / cap)`.
    pub logit_cap: Option<f32>,
}

impl Config {
    /// Reads and validates the description in the metadata; the size of the vocabulary comes from the embedding.
    ///
    /// # Errors
    /// [`Error`] names the key that is missing, absurd or not supported.
    pub fn from_gguf(file: &File) -> Result<Self, Error> {
        let meta = file.metadata();
        let arch = meta.str(keys::ARCHITECTURE)?;
        let Some(architecture) = architecture::named(arch) else {
            return Err(Error::UnsupportedArchitecture { found: arch.to_owned() });
        };
        let reader = Reader { meta, arch };
        reader.refuse_experts()?;
        let dim = reader.size(keys::embedding_length, MAX_WIDTH)?;
        let heads = reader.size(keys::head_count, MAX_WIDTH)?;
        let head_dim = reader.head_dim(dim, heads)?;
        let layers = reader.size(keys::block_count, MAX_LAYERS)?;
        let context_length = reader.size(keys::context_length, MAX_CONTEXT)?;
        let rotation = rotation::read(&reader, architecture.pairing, head_dim, context_length)?;
        let config = Self {
            architecture: arch.to_owned(),
            name: meta.opt_str(keys::NAME)?.map(str::to_owned),
            vocab: reader::vocab(file)?,
            context_length,
            dim,
            layers,
            heads,
            kv_heads: reader.kv_heads(heads)?,
            head_dim,
            hidden: reader.size(keys::feed_forward_length, MAX_WIDTH)?,
            norm_epsilon: reader.float(keys::rms_epsilon, |x| x >= 0.0, "finite and at least 0")?,
            attention_scale: reader.positive(keys::attention_scale)?.unwrap_or_else(|| {
                let width = if architecture.scales_by_width_at == Some(layers) { dim / heads } else { head_dim };
                1.0 / (width.max(1) as f32).sqrt()
            }),
            rope_factors: rotation::factor_tensor(&reader, architecture.factors, context_length)?,
            local: window::read(&reader, architecture.windows, layers, &rotation)?,
            rotation,
            activation: architecture.activation,
            normalizes_heads: architecture.normalizes_heads,
            normalizes_outputs: architecture.normalizes_outputs,
            fuses_gate_and_up: architecture.fuses_gate_and_up,
            embedding_scale: architecture.scales_embedding.then(|| (dim as f32).sqrt()),
            logit_cap: reader.nonzero(keys::final_logit_softcapping)?,
        };
        config.check_products(arch)?;
        Ok(config)
    }

    /// Width of all query heads.
    pub fn query_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// What applies to `layer` if it sees only the last positions.
    pub fn local(&self, layer: usize) -> Option<&Local> {
        self.local.as_ref().filter(|local| local.layers.get(layer) == Some(&true))
    }

    fn check_products(&self, arch: &str) -> Result<(), Error> {
        let width = self.heads as u64 * self.head_dim as u64;
        if width > MAX_WIDTH {
            return Err(Error::OutOfRange { key: keys::key_length(arch), found: width, min: 1, max: MAX_WIDTH });
        }
        let heads = 2 * self.layers as u64 * self.kv_heads as u64;
        let bytes = heads.saturating_mul(32 * (2 * self.head_dim as u64 + 20));
        if bytes > MAX_CACHE_SEGMENT_BYTES {
            return Err(Error::CacheTooLarge { bytes, max: MAX_CACHE_SEGMENT_BYTES });
        }
        Ok(())
    }
}
