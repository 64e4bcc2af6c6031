//! A plain `f32` evaluation of any supported model: an oracle for tests and for perplexity, sharing neither kernels nor
//! packing, attention or rotation with the real one. Written to be read; fast enough for a few thousand tokens.

mod turn;
mod weights;

use crate::TokenId;
use crate::config::{self, Activation, Config};
use crate::gguf::{self, File};
use crate::parallel;
use crate::quant;
use crate::source::{ByteSource, SourceError};
use turn::Turn;
use weights::{Block, Tensors, add, dot, product};

/// Tokens evaluated together, so that weights are read once for all of them.
const BATCH: usize = 32;

/// Why a model cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no GGUF.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The model's description cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A tensor's format has no decoder.
    #[error("tensor `{tensor}`: {source}")]
    Format {
        /// Name of the tensor.
        tensor: String,
        /// What the decoder said.
        source: quant::Error,
    },
    /// A tensor is missing or has another size.
    #[error("tensor `{tensor}` has {found} weights where {expected} are needed; the file is incomplete")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// Weights needed.
        expected: usize,
        /// Weights found; 0 if there is no such tensor.
        found: u64,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: TokenId,
        /// Size of the vocabulary.
        vocab: usize,
    },
}

/// All weights as `f32`, each matrix `[outputs, inputs]`.
#[derive(Debug)]
pub struct Reference {
    config: Config,
    embedding: Vec<f32>,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    /// `None`: tied to the embedding.
    head: Option<Vec<f32>>,
    head_bias: Option<Vec<f32>>,
    turn: Turn,
    /// Of layers with a sliding window that turn otherwise.
    local_turn: Option<Turn>,
}

/// Keys and values of one block, `[positions, kv_heads, head_dim]`.
#[derive(Default, Clone)]
struct Memory {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Reference {
    /// Decodes every weight of the file.
    ///
    /// # Errors
    /// The file cannot be read, is not a supported model, or lacks a tensor.
    pub fn load(source: &dyn ByteSource) -> Result<Self, Error> {
        let file = File::read(source)?;
        let config = Config::from_gguf(&file)?;
        let tensors = Tensors { file: &file, source };
        let table = config.vocab * config.dim;
        let factors = match config.rope_factors {
            Some(name) => tensors.optional(name, config.rotation.dim / 2)?,
            None => None,
        };
        let local = config.local.as_ref().and_then(|local| local.rotation.as_ref());
        let blocks = (0..config.layers).map(|layer| Block::load(&tensors, &config, layer)).collect::<Result<_, _>>()?;
        Ok(Self {
            embedding: tensors.required("token_embd.weight", table)?,
            blocks,
            norm: tensors.required("output_norm.weight", config.dim)?,
            head: tensors.optional("output.weight", table)?,
            head_bias: tensors.optional("output.bias", config.vocab)?,
            turn: Turn::new(&config.rotation, factors.as_deref()),
            local_turn: local.map(|rotation| Turn::new(rotation, None)),
            config,
        })
    }

    /// Size of the vocabulary: the length of the logits.
    pub fn vocab(&self) -> usize {
        self.config.vocab
    }

    /// Evaluates `tokens` from position 0 and calls `each(position, logits)` for every position in order.
    ///
    /// # Errors
    /// A token is not in the vocabulary.
    pub fn logits_of(&self, tokens: &[TokenId], mut each: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        let mut memories = vec![Memory::default(); self.blocks.len()];
        for (batch, tokens) in tokens.chunks(BATCH).enumerate() {
            let mut x = self.embed(tokens)?;
            for (layer, memory) in memories.iter_mut().enumerate() {
                self.block(layer, memory, batch * BATCH, &mut x);
            }
            for (i, logits) in self.head(&x).chunks_exact(self.config.vocab).enumerate() {
                each(batch * BATCH + i, logits);
            }
        }
        Ok(())
    }

    fn embed(&self, tokens: &[TokenId]) -> Result<Vec<f32>, Error> {
        let dim = self.config.dim;
        let mut x = Vec::with_capacity(tokens.len() * dim);
        for &token in tokens {
            let row = self.embedding.chunks_exact(dim).nth(token as usize);
            x.extend_from_slice(row.ok_or(Error::Token { token, vocab: self.config.vocab })?);
        }
        if let Some(scale) = self.config.embedding_scale {
            x.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(x)
    }

    /// Logits of every row of the residual stream.
    fn head(&self, x: &[f32]) -> Vec<f32> {
        let x = self.normed(x, &self.norm);
        let mut logits = product(self.head.as_ref().unwrap_or(&self.embedding), &x, self.config.dim);
        if let Some(bias) = &self.head_bias {
            logits.chunks_exact_mut(bias.len()).for_each(|logits| add(logits, bias));
        }
        if let Some(cap) = self.config.logit_cap.map(f64::from) {
            logits.iter_mut().for_each(|logit| *logit = (cap * libm::tanh(f64::from(*logit) / cap)) as f32);
        }
        logits
    }

    fn normed(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let norm = |x: &[f32]| {
            let mean = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / x.len() as f64;
            let inverse = 1.0 / (mean + f64::from(self.config.norm_epsilon)).sqrt();
            x.iter().zip(weight).map(|(&x, &w)| (f64::from(x) * inverse) as f32 * w).collect::<Vec<f32>>()
        };
        x.chunks_exact(weight.len()).flat_map(norm).collect()
    }

    /// [`Reference::normed`] where the architecture has the norm.
    fn normed_if(&self, x: Vec<f32>, weight: Option<&Vec<f32>>) -> Vec<f32> {
        match weight {
            Some(weight) => self.normed(&x, weight),
            None => x,
        }
    }

    fn block(&self, layer: usize, memory: &mut Memory, start: usize, x: &mut [f32]) {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let (block, local) = (&self.blocks[layer], self.config.local(layer));
        let h = self.normed(x, &block.attention_norm);
        let mut q = self.normed_if(block.query.of(&h), block.query_norm.as_ref());
        let mut k = self.normed_if(block.key.of(&h), block.key_norm.as_ref());
        let turn = local.and(self.local_turn.as_ref()).unwrap_or(&self.turn);
        turn.apply(&mut q, heads, head_dim, start);
        turn.apply(&mut k, kv_heads, head_dim, start);
        memory.keys.extend(k);
        memory.values.extend(block.value.of(&h));
        let mixed = self.attention(memory, &q, start, local.map_or(usize::MAX, |local| local.window));
        add(x, &self.normed_if(block.output.of(&mixed), block.output_norm.as_ref()));
        let h = self.normed(x, &block.ffn_norm);
        let mut gate = block.gate.of(&h);
        for (gate, up) in gate.iter_mut().zip(block.up.of(&h)) {
            *gate = activated(self.config.activation, f64::from(*gate)) as f32 * up;
        }
        add(x, &self.normed_if(block.down.of(&gate), block.ffn_output_norm.as_ref()));
    }

    fn attention(&self, memory: &Memory, q: &[f32], start: usize, window: usize) -> Vec<f32> {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let mut out = vec![0.0; q.len()];
        parallel::chunks(&mut out, head_dim, Vec::new, |weights: &mut Vec<f64>, i, out| {
            let (kv_head, count) = (i % heads * kv_heads / heads, start + i / heads + 1);
            let row = |x: &'_ [f32], p: usize| (p * kv_heads + kv_head) * head_dim..x.len();
            let query = &q[i * head_dim..][..head_dim];
            let score = |p| f64::from(dot(query, &memory.keys[row(&memory.keys, p)][..head_dim]));
            let first = count.saturating_sub(window);
            weights.clear();
            weights.extend((first..count).map(|p| score(p) * f64::from(self.config.attention_scale)));
            let most = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            weights.iter_mut().for_each(|weight| *weight = libm::exp(*weight - most));
            let sum: f64 = weights.iter().sum();
            for (p, weight) in (first..).zip(weights.iter()) {
                let value = &memory.values[row(&memory.values, p)][..head_dim];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += (weight / sum) as f32 * value);
            }
        });
        out
    }
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + libm::exp(-x)),
        Activation::Gelu => {
            let inner = libm::sqrt(2.0 / std::f64::consts::PI) * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + libm::tanh(inner))
        }
    }
}
