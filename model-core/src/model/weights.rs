//! The weights of a model, each in its place.

use std::collections::BTreeMap;

use super::Error;
use super::linear::Linear;
use super::plan::{OUTPUT, OUTPUT_NORM, ROPE_FACTORS, in_block};
use crate::config::{Config, EMBEDDING};
use crate::pack::Matrix;

/// A tensor in memory.
#[derive(Debug)]
pub(super) enum Loaded {
    Matrix(Matrix),
    Vector(Vec<f32>),
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
    /// `[vocab]`
    pub output_bias: Option<Vec<f32>>,
    /// `[rotary_dim / 2]`
    rope_factors: Option<Vec<f32>>,
}

/// The weights of one layer. Norms that not every architecture has are absent where it does not.
#[derive(Debug)]
pub(super) struct Block {
    /// `[dim]`
    pub attention_norm: Vec<f32>,
    /// `[query_dim, dim]`
    pub query: Linear,
    /// `[kv_dim, dim]`
    pub key: Linear,
    /// `[kv_dim, dim]`
    pub value: Linear,
    /// `[head_dim]`, for each head of the query.
    pub query_norm: Option<Vec<f32>>,
    /// `[head_dim]`, for each head of the key.
    pub key_norm: Option<Vec<f32>>,
    /// `[dim, query_dim]`
    pub attention_output: Linear,
    /// `[dim]`, of the output of attention.
    pub attention_output_norm: Option<Vec<f32>>,
    /// `[dim]`
    pub ffn_norm: Vec<f32>,
    /// `[hidden, dim]`
    pub gate: Linear,
    /// `[hidden, dim]`
    pub up: Linear,
    /// `[dim, hidden]`
    pub down: Linear,
    /// `[dim]`, of the output of the feed-forward network.
    pub ffn_output_norm: Option<Vec<f32>>,
}

impl Block {
    fn matrices(&self) -> [&Matrix; 7] {
        [&self.query, &self.key, &self.value, &self.attention_output, &self.gate, &self.up, &self.down]
            .map(|linear| &linear.weight)
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
            output: parts.matrix(&format!("{OUTPUT}.weight")).ok(),
            output_bias: parts.vector(&format!("{OUTPUT}.bias")).ok(),
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

    fn linear(&mut self, name: &str) -> Result<Linear, Error> {
        let weight = self.matrix(&format!("{name}.weight"))?;
        Ok(Linear { weight, bias: self.vector(&format!("{name}.bias")).ok() })
    }

    fn norm(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        self.vector(&format!("{name}.weight"))
    }

    /// The plan has seen to it that what is absent is not part of the architecture.
    fn block(&mut self, layer: usize) -> Result<Block, Error> {
        let name = |part| in_block(layer, part);
        Ok(Block {
            attention_norm: self.norm(&name("attn_norm"))?,
            query: self.linear(&name("attn_q"))?,
            key: self.linear(&name("attn_k"))?,
            value: self.linear(&name("attn_v"))?,
            query_norm: self.norm(&name("attn_q_norm")).ok(),
            key_norm: self.norm(&name("attn_k_norm")).ok(),
            attention_output: self.linear(&name("attn_output"))?,
            attention_output_norm: self.norm(&name("post_attention_norm")).ok(),
            ffn_norm: self.norm(&name("ffn_norm"))?,
            gate: self.linear(&name("ffn_gate"))?,
            up: self.linear(&name("ffn_up"))?,
            down: self.linear(&name("ffn_down"))?,
            ffn_output_norm: self.norm(&name("post_ffw_norm")).ok(),
        })
    }
}
