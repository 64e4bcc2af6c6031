//! One layer: attention and feed-forward network, each behind a norm and added to the residual stream. Written once;
//! what differs between architectures is data in the weights and the config.

use super::attention::{AttentionInput, attend};
use super::forward::Scratch;
use super::kv_cache::KvCache;
use super::weights::Block;
use super::{Error, Model, Part, ffn};
use crate::kernels::{Forms, NonFinite, matmul};
use crate::math::{add_assign, all_finite, rms_norm_into};
use crate::profile::Stage;

/// Which layer, and where its batch begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub layer: usize,
    pub start: usize,
}

/// Numbers that are not finite, somewhere in a layer.
pub(super) struct NonFiniteIn(pub Part);

impl Part {
    /// Names this part in an error.
    pub(super) fn err(self) -> impl Fn(NonFinite) -> NonFiniteIn {
        move |NonFinite| NonFiniteIn(self)
    }
}

/// Sends `x` (`[tokens, dim]`) through one layer.
///
/// # Errors
/// [`Error::NonFinite`] with the layer and its part.
pub(super) fn forward(
    model: &Model,
    place: Place,
    cache: &mut KvCache,
    x: &mut [f32],
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let error = |NonFiniteIn(part)| Error::NonFinite { layer: place.layer, part };
    let Some(weights) = model.weights.blocks.get(place.layer) else { return Ok(()) };
    attention(model, weights, place, cache, x, scratch).map_err(error)?;
    ffn::forward(model, weights, x, scratch).map_err(error)?;
    let finite = all_finite(x);
    scratch.profile.mark(Stage::Residual);
    if finite { Ok(()) } else { Err(error(NonFiniteIn(Part::Residual))) }
}

fn attention(
    model: &Model,
    weights: &Block,
    place: Place,
    cache: &mut KvCache,
    x: &mut [f32],
    scratch: &mut Scratch,
) -> Result<(), NonFiniteIn> {
    let (config, kernel) = (&model.config, model.kernel);
    let (dim, query_dim, kv_dim) = (config.dim, config.query_dim(), config.kv_dim());
    let tokens = x.len() / dim;
    let Scratch { profile, angles, activations, normed, query, key, value, mixed, .. } = scratch;

    norm(x, &weights.attention_norm, config.norm_epsilon, normed);
    profile.mark(Stage::Norm);
    activations
        .quantize(normed, dim, Forms::of(&[&weights.query, &weights.key, &weights.value]))
        .map_err(Part::AttentionInput.err())?;
    profile.mark(Stage::Quantize);
    query.resize(tokens * query_dim, 0.0);
    key.resize(tokens * kv_dim, 0.0);
    value.resize(tokens * kv_dim, 0.0);
    matmul(kernel, &weights.query, activations, query);
    profile.mark(Stage::Query);
    matmul(kernel, &weights.key, activations, key);
    profile.mark(Stage::Key);
    matmul(kernel, &weights.value, activations, value);
    profile.mark(Stage::Value);
    angles.apply(query, config.head_dim);
    angles.apply(key, config.head_dim);
    profile.mark(Stage::Rope);

    mixed.resize(tokens * query_dim, 0.0);
    let scale = config.attention_scale;
    let input =
        AttentionInput { kernel, layer: place.layer, start: place.start, scale, q: query, k: key, v: value, profile };
    attend(cache, input, mixed).map_err(Part::Attention.err())?;
    profile.mark(Stage::Attention);
    activations
        .quantize(mixed, query_dim, Forms::of(&[&weights.attention_output]))
        .map_err(Part::AttentionOutput.err())?;
    profile.mark(Stage::Quantize);
    // The norm is spent; its buffer takes the output.
    matmul(kernel, &weights.attention_output, activations, normed);
    profile.mark(Stage::AttentionOutput);
    add_assign(x, normed);
    profile.mark(Stage::Residual);
    Ok(())
}

/// Normalises every row of `x`, `[tokens, dim]`.
pub(super) fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut Vec<f32>) {
    out.resize(x.len(), 0.0);
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        rms_norm_into(x, weight, epsilon, out);
    }
}
