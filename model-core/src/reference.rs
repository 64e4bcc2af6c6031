//! A plain `f32` evaluation of a llama model: an oracle for tests and for perplexity, sharing neither kernels nor
//! packing nor attention with the real one. Written to be read; fast enough for a few thousand tokens.

use crate::TokenId;
use crate::config::{self, Config};
use crate::gguf::{self, File};
use crate::parallel;
use crate::quant;
use crate::source::{ByteSource, SourceError};

/// Tokens evaluated together, so that weights are read once for all of them.
const BATCH: usize = 32;
/// Partial sums of a dot product; compilers make vectors of them.
const PARTS: usize = 16;

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
    /// Radians per position and pair.
    frequencies: Vec<f64>,
}

#[derive(Debug)]
struct Block {
    attention_norm: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    output: Vec<f32>,
    ffn_norm: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

/// Keys and values of one block, `[positions, kv_heads, head_dim]`.
#[derive(Default, Clone)]
struct Memory {
    keys: Vec<f32>,
    values: Vec<f32>,
}

struct Tensors<'a> {
    file: &'a File,
    source: &'a dyn ByteSource,
}

impl Tensors<'_> {
    fn optional(&self, name: &str, expected: usize) -> Result<Option<Vec<f32>>, Error> {
        let Some(info) = self.file.tensor(name) else { return Ok(None) };
        let tensor = || name.to_owned();
        if info.elements() != expected as u64 {
            return Err(Error::Tensor { tensor: tensor(), expected, found: info.elements() });
        }
        let mut bytes = vec![0; info.bytes as usize];
        self.source.read_at(info.offset, &mut bytes)?;
        let mut values = vec![0.0; expected];
        quant::dequantize(info.ty, &bytes, &mut values).map_err(|source| Error::Format { tensor: tensor(), source })?;
        Ok(Some(values))
    }

    fn required(&self, name: &str, expected: usize) -> Result<Vec<f32>, Error> {
        let missing = || Error::Tensor { tensor: name.to_owned(), expected, found: 0 };
        self.optional(name, expected)?.ok_or_else(missing)
    }
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
        let factors = tensors.optional("rope_freqs.weight", config.rotary_dim / 2)?;
        let blocks = (0..config.layers).map(|layer| Block::load(&tensors, &config, layer)).collect::<Result<_, _>>()?;
        Ok(Self {
            embedding: tensors.required("token_embd.weight", table)?,
            blocks,
            norm: tensors.required("output_norm.weight", config.dim)?,
            head: tensors.optional("output.weight", table)?,
            frequencies: frequencies(&config, factors.as_deref()),
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
            for (block, memory) in self.blocks.iter().zip(&mut memories) {
                self.block(block, memory, batch * BATCH, &mut x);
            }
            let x = self.normed(&x, &self.norm);
            let logits = product(self.head.as_ref().unwrap_or(&self.embedding), &x, self.config.dim);
            for (i, logits) in logits.chunks_exact(self.config.vocab).enumerate() {
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
        Ok(x)
    }

    fn normed(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let norm = |x: &[f32]| {
            let mean = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / x.len() as f64;
            let inverse = 1.0 / (mean + f64::from(self.config.norm_epsilon)).sqrt();
            x.iter().zip(weight).map(|(&x, &w)| (f64::from(x) * inverse) as f32 * w).collect::<Vec<f32>>()
        };
        x.chunks_exact(self.config.dim).flat_map(norm).collect()
    }

    fn block(&self, block: &Block, memory: &mut Memory, start: usize, x: &mut [f32]) {
        let (dim, hidden) = (self.config.dim, self.config.hidden);
        let h = self.normed(x, &block.attention_norm);
        let (mut q, mut k) = (product(&block.query, &h, dim), product(&block.key, &h, dim));
        self.rotate(&mut q, self.config.heads, start);
        self.rotate(&mut k, self.config.kv_heads, start);
        memory.keys.extend(k);
        memory.values.extend(product(&block.value, &h, dim));
        let mixed = self.attention(memory, &q, start);
        add(x, &product(&block.output, &mixed, self.config.query_dim()));
        let h = self.normed(x, &block.ffn_norm);
        let mut gate = product(&block.gate, &h, dim);
        for (gate, up) in gate.iter_mut().zip(product(&block.up, &h, dim)) {
            let g = f64::from(*gate);
            *gate = (g / (1.0 + libm::exp(-g))) as f32 * up;
        }
        add(x, &product(&block.down, &gate, hidden));
    }

    fn rotate(&self, x: &mut [f32], heads: usize, start: usize) {
        for (i, head) in x.chunks_exact_mut(self.config.head_dim).enumerate() {
            let position = (start + i / heads) as f64;
            for (pair, frequency) in head.chunks_exact_mut(2).zip(&self.frequencies) {
                let (sin, cos) = libm::sincos(position * frequency);
                let (a, b) = (f64::from(pair[0]), f64::from(pair[1]));
                (pair[0], pair[1]) = ((a * cos - b * sin) as f32, (a * sin + b * cos) as f32);
            }
        }
    }

    fn attention(&self, memory: &Memory, q: &[f32], start: usize) -> Vec<f32> {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let mut out = vec![0.0; q.len()];
        parallel::chunks(&mut out, head_dim, Vec::new, |weights: &mut Vec<f64>, i, out| {
            let (kv_head, count) = (i % heads * kv_heads / heads, start + i / heads + 1);
            let row = |x: &'_ [f32], p: usize| (p * kv_heads + kv_head) * head_dim..x.len();
            let query = &q[i * head_dim..][..head_dim];
            let score = |p| f64::from(dot(query, &memory.keys[row(&memory.keys, p)][..head_dim]));
            weights.clear();
            weights.extend((0..count).map(|p| score(p) * f64::from(self.config.attention_scale)));
            let most = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            weights.iter_mut().for_each(|weight| *weight = libm::exp(*weight - most));
            let sum: f64 = weights.iter().sum();
            for (p, weight) in weights.iter().enumerate() {
                let value = &memory.values[row(&memory.values, p)][..head_dim];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += (weight / sum) as f32 * value);
            }
        });
        out
    }
}

impl Block {
    fn load(tensors: &Tensors<'_>, config: &Config, layer: usize) -> Result<Self, Error> {
        let get = |name: &str, size: usize| tensors.required(&format!("blk.{layer}.{name}.weight"), size);
        let Config { dim, hidden, .. } = *config;
        Ok(Self {
            attention_norm: get("attn_norm", dim)?,
            query: get("attn_q", config.query_dim() * dim)?,
            key: get("attn_k", config.kv_dim() * dim)?,
            value: get("attn_v", config.kv_dim() * dim)?,
            output: get("attn_output", dim * config.query_dim())?,
            ffn_norm: get("ffn_norm", dim)?,
            gate: get("ffn_gate", hidden * dim)?,
            up: get("ffn_up", hidden * dim)?,
            down: get("ffn_down", dim * hidden)?,
        })
    }
}

fn frequencies(config: &Config, factors: Option<&[f32]>) -> Vec<f64> {
    let (dim, theta) = (config.rotary_dim, f64::from(config.rope_theta));
    let factor = |i: usize| factors.map_or(1.0, |factors| f64::from(factors[i])) * f64::from(config.rope_scale);
    (0..dim / 2).map(|i| libm::pow(theta, -2.0 * i as f64 / dim as f64) / factor(i)).collect()
}

/// `x` times the transpose of `w` (`[outputs, inputs]`): `[tokens, outputs]`.
fn product(w: &[f32], x: &[f32], inputs: usize) -> Vec<f32> {
    let (outputs, tokens) = (w.len() / inputs, x.len() / inputs);
    // [outputs, tokens] first, so that threads get whole rows of weights; then transposed.
    let mut columns = vec![0.0; outputs * tokens];
    parallel::chunks(
        &mut columns,
        tokens,
        || (),
        |(), row, out| {
            let w = &w[row * inputs..][..inputs];
            out.iter_mut().zip(x.chunks_exact(inputs)).for_each(|(out, x)| *out = dot(w, x));
        },
    );
    let mut y = vec![0.0; outputs * tokens];
    for (row, column) in columns.chunks_exact(tokens).enumerate() {
        column.iter().enumerate().for_each(|(t, value)| y[t * outputs + row] = *value);
    }
    y
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0.0f32; PARTS];
    let (a_chunks, b_chunks) = (a.chunks_exact(PARTS), b.chunks_exact(PARTS));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        parts.iter_mut().zip(a.iter().zip(b)).for_each(|(part, (a, b))| *part += a * b);
    }
    parts.iter().sum::<f32>() + rest
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
