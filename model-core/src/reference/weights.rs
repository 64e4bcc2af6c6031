//! The weights of the plain evaluation, decoded to `f32` and taken apart where a file fuses them.

use std::ops::Range;

use super::Error;
use crate::config::Config;
use crate::gguf::File;
use crate::parallel;
use crate::quant;
use crate::source::ByteSource;

/// Partial sums of a dot product; compilers make vectors of them.
const PARTS: usize = 16;

/// `y = weight * x + bias`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[outputs, inputs]`
    weight: Vec<f32>,
    /// `[outputs]`
    bias: Option<Vec<f32>>,
    inputs: usize,
}

/// The weights of one layer; norms that the architecture does not have are `None`.
#[derive(Debug)]
pub(super) struct Block {
    pub attention_norm: Vec<f32>,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub query_norm: Option<Vec<f32>>,
    pub key_norm: Option<Vec<f32>>,
    pub output: Linear,
    pub output_norm: Option<Vec<f32>>,
    pub ffn_norm: Vec<f32>,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub ffn_output_norm: Option<Vec<f32>>,
}

/// Decodes tensors by name.
pub(super) struct Tensors<'a> {
    pub file: &'a File,
    pub source: &'a dyn ByteSource,
}

impl Tensors<'_> {
    /// Some of a tensor's `all` rows of `inputs` values; `None` if there is no such tensor.
    fn rows(&self, name: &str, inputs: usize, all: usize, rows: Range<usize>) -> Result<Option<Vec<f32>>, Error> {
        let Some(info) = self.file.tensor(name) else { return Ok(None) };
        let (tensor, expected) = (|| name.to_owned(), all * inputs);
        if info.elements() != expected as u64 {
            return Err(Error::Tensor { tensor: tensor(), expected, found: info.elements() });
        }
        let place = |row: usize| (u128::from(info.bytes) * row as u128 / all.max(1) as u128) as u64;
        let mut bytes = vec![0; (place(rows.end) - place(rows.start)) as usize];
        self.source.read_at(info.offset + place(rows.start), &mut bytes)?;
        let mut values = vec![0.0; rows.len() * inputs];
        quant::dequantize(info.ty, &bytes, &mut values).map_err(|source| Error::Format { tensor: tensor(), source })?;
        Ok(Some(values))
    }

    pub fn optional(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        self.rows(name, len, 1, 0..1)
    }

    pub fn required(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.optional(name, len)?.ok_or_else(|| missing(name, len))
    }

    fn norm_if(&self, wanted: bool, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        if wanted { self.required(name, len).map(Some) } else { Ok(None) }
    }

    fn linear(&self, name: &str, inputs: usize, all: usize, rows: Range<usize>) -> Result<Linear, Error> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Ok(Linear {
            weight: self.rows(&weight, inputs, all, rows.clone())?.ok_or_else(|| missing(&weight, inputs * all))?,
            bias: self.rows(&bias, 1, all, rows)?,
            inputs,
        })
    }
}

fn missing(name: &str, expected: usize) -> Error {
    Error::Tensor { tensor: name.to_owned(), expected, found: 0 }
}

impl Block {
    pub fn load(tensors: &Tensors<'_>, config: &Config, layer: usize) -> Result<Self, Error> {
        let Config { dim, hidden, head_dim, .. } = *config;
        let (query, kv) = (config.query_dim(), config.kv_dim());
        let name = |part: &str| format!("blk.{layer}.{part}");
        let fuses_qkv = tensors.file.tensor(&name("attn_qkv.weight")).is_some();
        // Parts of a fused tensor lie one behind the other.
        let qkv = |part: &str, first: usize, rows: usize| {
            let (part, all, first) = if fuses_qkv { ("attn_qkv", query + 2 * kv, first) } else { (part, rows, 0) };
            tensors.linear(&name(part), dim, all, first..first + rows)
        };
        let up = if config.fuses_gate_and_up { hidden } else { 0 };
        let gate = if config.fuses_gate_and_up { "ffn_up" } else { "ffn_gate" };
        Ok(Self {
            attention_norm: tensors.required(&name("attn_norm.weight"), dim)?,
            query: qkv("attn_q", 0, query)?,
            key: qkv("attn_k", query, kv)?,
            value: qkv("attn_v", query + kv, kv)?,
            query_norm: tensors.norm_if(config.normalizes_heads, &name("attn_q_norm.weight"), head_dim)?,
            key_norm: tensors.norm_if(config.normalizes_heads, &name("attn_k_norm.weight"), head_dim)?,
            output: tensors.linear(&name("attn_output"), query, dim, 0..dim)?,
            output_norm: tensors.norm_if(config.normalizes_outputs, &name("post_attention_norm.weight"), dim)?,
            ffn_norm: tensors.required(&name("ffn_norm.weight"), dim)?,
            gate: tensors.linear(&name(gate), dim, hidden + up, 0..hidden)?,
            up: tensors.linear(&name("ffn_up"), dim, hidden + up, up..up + hidden)?,
            down: tensors.linear(&name("ffn_down"), hidden, dim, 0..dim)?,
            ffn_output_norm: tensors.norm_if(config.normalizes_outputs, &name("post_ffw_norm.weight"), dim)?,
        })
    }
}

impl Linear {
    /// The outputs for every row of `x`: `[tokens, outputs]`.
    pub fn of(&self, x: &[f32]) -> Vec<f32> {
        let mut y = product(&self.weight, x, self.inputs);
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(bias.len()).for_each(|y| add(y, bias));
        }
        y
    }
}

/// `x` times the transpose of `w` (`[outputs, inputs]`): `[tokens, outputs]`.
pub(super) fn product(w: &[f32], x: &[f32], inputs: usize) -> Vec<f32> {
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

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0.0f32; PARTS];
    let (a_chunks, b_chunks) = (a.chunks_exact(PARTS), b.chunks_exact(PARTS));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        parts.iter_mut().zip(a.iter().zip(b)).for_each(|(part, (a, b))| *part += a * b);
    }
    parts.iter().sum::<f32>() + rest
}

pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
