//! The gated feed-forward network of one layer.

use super::block::{NonFiniteIn, norm};
use super::forward::Scratch;
use super::weights::Block;
use super::{Model, Part};
use crate::kernels::{Forms, matmul};
use crate::math::{add_assign, silu_mul};
use crate::profile::Stage;

/// `x += down(silu(gate(norm x)) * up(norm x))` for every row of `x`, `[tokens, dim]`.
pub(super) fn forward(model: &Model, weights: &Block, x: &mut [f32], scratch: &mut Scratch) -> Result<(), NonFiniteIn> {
    let (config, kernel) = (&model.config, model.kernel);
    let tokens = x.len() / config.dim;
    let Scratch { profile, activations, normed, gate, up, .. } = scratch;
    norm(x, &weights.ffn_norm, config.norm_epsilon, normed);
    profile.mark(Stage::Norm);
    activations
        .quantize(normed, config.dim, Forms::of(&[&weights.gate, &weights.up]))
        .map_err(Part::FeedForwardInput.err())?;
    profile.mark(Stage::Quantize);
    gate.resize(tokens * config.hidden, 0.0);
    up.resize(tokens * config.hidden, 0.0);
    matmul(kernel, &weights.gate, activations, gate);
    profile.mark(Stage::Gate);
    matmul(kernel, &weights.up, activations, up);
    profile.mark(Stage::Up);
    silu_mul(gate, up);
    profile.mark(Stage::Swiglu);
    activations.quantize(gate, config.hidden, Forms::of(&[&weights.down])).map_err(Part::FeedForward.err())?;
    profile.mark(Stage::Quantize);
    // The norm is spent; its buffer takes the output.
    matmul(kernel, &weights.down, activations, normed);
    profile.mark(Stage::Down);
    add_assign(x, normed);
    Ok(())
}
