//! One layer: attention and feed-forward network, each behind a norm and added to the residual stream. Written once;
//! what differs between architectures is data in the weights and the config.

use super::attention::{AttentionInput, attend};
use super::forward::Scratch;
use super::kv_cache::KvCache;
use super::weights::Block;
use super::{Error, Model, Part, ffn};
use crate::kernels::{Forms, NonFinite};
use crate::math::{add_assign, all_finite, rms_norm, rms_norm_into};
use crate::parallel::{self, Rows};
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
    let (dim, query_dim) = (config.dim, config.query_dim());
    let Scratch { profile, activations, normed, .. } = scratch;

    norm(x, &weights.attention_norm, config.norm_epsilon, normed);
    profile.mark(Stage::Norm);
    activations
        .quantize(normed, dim, Forms::of(&[&weights.query.weight, &weights.key.weight, &weights.value.weight]))
        .map_err(Part::AttentionInput.err())?;
    profile.mark(Stage::Quantize);
    project(model, weights, place.layer, scratch);

    let Scratch { profile, activations, normed, query, key, value, mixed, .. } = scratch;
    mixed.resize(query.len(), 0.0);
    let input = AttentionInput {
        kernel,
        layer: place.layer,
        start: place.start,
        window: config.local(place.layer).map_or(usize::MAX, |local| local.window),
        scale: config.attention_scale,
        q: query,
        k: key,
        v: value,
        profile,
    };
    attend(cache, input, mixed).map_err(Part::Attention.err())?;
    profile.mark(Stage::Attention);
    activations
        .quantize(mixed, query_dim, Forms::of(&[&weights.attention_output.weight]))
        .map_err(Part::AttentionOutput.err())?;
    profile.mark(Stage::Quantize);
    // The norm is spent; its buffer takes the output.
    weights.attention_output.multiply(kernel, activations, normed);
    profile.mark(Stage::AttentionOutput);
    if let Some(weight) = &weights.attention_output_norm {
        norm_in_place(normed, weight, config.norm_epsilon);
        profile.mark(Stage::Norm);
    }
    by_tokens(x, normed, dim, add_assign);
    profile.mark(Stage::Residual);
    Ok(())
}

/// Turned queries and keys, and values, of the activations in `scratch`.
fn project(model: &Model, weights: &Block, layer: usize, scratch: &mut Scratch) {
    let (config, kernel) = (&model.config, model.kernel);
    let Scratch { profile, angles, local_angles, activations, query, key, value, .. } = scratch;
    let tokens = activations.tokens();
    query.resize(tokens * config.query_dim(), 0.0);
    key.resize(tokens * config.kv_dim(), 0.0);
    value.resize(tokens * config.kv_dim(), 0.0);
    weights.query.multiply(kernel, activations, query);
    profile.mark(Stage::Query);
    weights.key.multiply(kernel, activations, key);
    profile.mark(Stage::Key);
    weights.value.multiply(kernel, activations, value);
    profile.mark(Stage::Value);
    if let (Some(query_norm), Some(key_norm)) = (&weights.query_norm, &weights.key_norm) {
        norm_in_place(query, query_norm, config.norm_epsilon);
        norm_in_place(key, key_norm, config.norm_epsilon);
        profile.mark(Stage::Norm);
    }
    let turns_otherwise = config.local(layer).is_some_and(|local| local.rotation.is_some());
    let angles = if turns_otherwise { local_angles } else { angles };
    angles.apply(query, config.head_dim);
    angles.apply(key, config.head_dim);
    profile.mark(Stage::Rope);
}

/// Normalises every row of `x`, `[rows, weight.len()]`.
pub(super) fn norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let (columns, rows) = (weight.len(), x.len() / weight.len());
    parallel::rows(Rows { values: x, columns }, rows, parallel::TOKENS, |_, x| {
        x.values.chunks_exact_mut(columns).for_each(|x| rms_norm(x, weight, epsilon));
    });
}

/// Normalises every row of `x`, `[tokens, dim]`.
pub(super) fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut Vec<f32>) {
    out.resize(x.len(), 0.0);
    let (columns, rows) = (weight.len(), x.len() / weight.len());
    parallel::rows(Rows { values: out, columns }, rows, parallel::TOKENS, |first, out| {
        let rows = x[first * columns..].chunks_exact(columns).zip(out.values.chunks_exact_mut(columns));
        rows.for_each(|(x, out)| rms_norm_into(x, weight, epsilon, out));
    });
}

/// `work(x, y)` with as many rows of both, `[tokens, columns]`.
pub(super) fn by_tokens(x: &mut [f32], y: &[f32], columns: usize, work: impl Fn(&mut [f32], &[f32]) + Sync) {
    let tokens = x.len() / columns;
    parallel::rows(Rows { values: x, columns }, tokens, parallel::TOKENS, |first, x| {
        work(x.values, &y[first * columns..][..x.values.len()]);
    });
}
