//! One batch of tokens on its way through the layers. It can stop at any layer: the residual stream is all there is to
//! keep, and [`Forward::layer`] goes on from there.

use super::kv_cache::KvCache;
use super::{Error as ModelError, Model, block};
use crate::kernels::{Activations, Forms, matmul};
use crate::math::{Angles, add_assign, all_finite, cap_softly, rms_norm_into, scale};
use crate::profile::{Profile, Stage};
use crate::{Error, TokenId};

/// A batch and its buffers, which are kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Forward {
    /// Position of the first token.
    start: usize,
    tokens: usize,
    next_layer: usize,
    /// The residual stream, `[tokens, dim]`.
    x: Vec<f32>,
    scratch: Scratch,
}

/// What one layer computes with; nothing in it outlives the layer but the angles and the profile.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Where the work goes, if somebody wants to know.
    pub profile: Profile,
    /// Of the batch's positions, the same in all layers.
    pub angles: Angles,
    /// In place of `angles` in layers with a sliding window that turn otherwise.
    pub local_angles: Angles,
    pub activations: Activations,
    /// `[tokens, dim]`
    pub normed: Vec<f32>,
    /// `[tokens, query_dim]`
    pub query: Vec<f32>,
    /// `[tokens, kv_dim]`
    pub key: Vec<f32>,
    /// `[tokens, kv_dim]`
    pub value: Vec<f32>,
    /// `[tokens, query_dim]`
    pub mixed: Vec<f32>,
    /// `[tokens, hidden]`
    pub gate: Vec<f32>,
    /// `[tokens, hidden]`
    pub up: Vec<f32>,
}

impl Forward {
    /// Puts the embeddings of `tokens` in, which stand at positions `start..`, and makes room in the cache.
    ///
    /// # Errors
    /// A token beyond the vocabulary, or no memory for the cache.
    pub fn begin(&mut self, model: &Model, cache: &mut KvCache, start: usize, tokens: &[TokenId]) -> Result<(), Error> {
        cache.reserve(start + tokens.len())?;
        let (dim, vocab) = (model.config.dim, model.config.vocab);
        self.x.resize(tokens.len() * dim, 0.0);
        for (i, (&id, x)) in tokens.iter().zip(self.x.chunks_exact_mut(dim)).enumerate() {
            if !model.weights.embedding.row_into(id as usize, x) {
                return Err(ModelError::UnknownToken { index: start + i, id, vocab }.into());
            }
        }
        if let Some(factor) = model.config.embedding_scale {
            scale(&mut self.x, factor);
        }
        model.rope.angles_into(start, tokens.len(), &mut self.scratch.angles);
        if let Some(rope) = &model.local_rope {
            rope.angles_into(start, tokens.len(), &mut self.scratch.local_angles);
        }
        (self.start, self.tokens, self.next_layer) = (start, tokens.len(), 0);
        self.scratch.profile.mark(Stage::Embedding);
        Ok(())
    }

    /// Where the work goes.
    pub fn profile(&self) -> &Profile {
        &self.scratch.profile
    }

    /// The same, to switch it on and off.
    pub fn profile_mut(&mut self) -> &mut Profile {
        &mut self.scratch.profile
    }

    /// Number of tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Computes the next layer; `true` if it was the last.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] names the layer.
    pub fn layer(&mut self, model: &Model, cache: &mut KvCache) -> Result<bool, Error> {
        let place = block::Place { layer: self.next_layer, start: self.start };
        self.scratch.profile.enter(Some(self.next_layer));
        block::forward(model, place, cache, &mut self.x, &mut self.scratch)?;
        self.scratch.profile.enter(None);
        self.next_layer += 1;
        Ok(self.next_layer == model.config.layers)
    }

    /// Writes the logits of `count` tokens of the batch from `first` on to `logits` (`[count, vocab]`).
    ///
    /// # Errors
    /// [`ModelError::NonFiniteLogits`].
    pub fn logits_into(
        &mut self,
        model: &Model,
        first: usize,
        count: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let (config, head, scratch) = (&model.config, model.weights.head(), &mut self.scratch);
        let rows = &self.x[first * config.dim..(first + count) * config.dim];
        scratch.normed.resize(rows.len(), 0.0);
        for (x, normed) in rows.chunks_exact(config.dim).zip(scratch.normed.chunks_exact_mut(config.dim)) {
            rms_norm_into(x, &model.weights.output_norm, config.norm_epsilon, normed);
        }
        scratch.profile.mark(Stage::Norm);
        scratch
            .activations
            .quantize(&scratch.normed, config.dim, Forms::of(&[head]))
            .map_err(|_| ModelError::NonFiniteLogits)?;
        scratch.profile.mark(Stage::Quantize);
        logits.resize(count * config.vocab, 0.0);
        matmul(model.kernel, head, &scratch.activations, logits);
        if let Some(bias) = &model.weights.output_bias {
            logits.chunks_exact_mut(config.vocab).for_each(|logits| add_assign(logits, bias));
        }
        let finite = all_finite(logits);
        if let Some(cap) = config.logit_cap {
            cap_softly(logits, cap);
        }
        scratch.profile.mark(Stage::Head);
        if finite { Ok(()) } else { Err(ModelError::NonFiniteLogits) }
    }
}
