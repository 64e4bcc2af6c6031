//! The gated feed-forward network of one layer.

use super::block::{NonFiniteIn, by_tokens, norm, norm_in_place};
use super::forward::Scratch;
use super::weights::Block;
use super::{Model, Part};
use crate::config::Activation;
use crate::kernels::Forms;
use crate::math::{add_assign, gelu_mul, silu_mul};
use crate::profile::Stage;

/// `x += down(activation(gate(norm x)) * up(norm x))` for every row of `x`, `[tokens, dim]`.
pub(super) fn forward(model: &Model, weights: &Block, x: &mut [f32], scratch: &mut Scratch) -> Result<(), NonFiniteIn> {
    let (config, kernel) = (&model.config, model.kernel);
    let tokens = x.len() / config.dim;
    let Scratch { profile, activations, normed, gate, up, .. } = scratch;
    norm(x, &weights.ffn_norm, config.norm_epsilon, normed);
    profile.mark(Stage::Norm);
    activations
        .quantize(normed, config.dim, Forms::of(&[&weights.gate.weight, &weights.up.weight]))
        .map_err(Part::FeedForwardInput.err())?;
    profile.mark(Stage::Quantize);
    gate.resize(tokens * config.hidden, 0.0);
    up.resize(tokens * config.hidden, 0.0);
    weights.gate.multiply(kernel, activations, gate);
    profile.mark(Stage::Gate);
    weights.up.multiply(kernel, activations, up);
    profile.mark(Stage::Up);
    by_tokens(
        gate,
        up,
        config.hidden,
        match config.activation {
            Activation::Silu => silu_mul,
            Activation::Gelu => gelu_mul,
        },
    );
    profile.mark(Stage::Swiglu);
    activations.quantize(gate, config.hidden, Forms::of(&[&weights.down.weight])).map_err(Part::FeedForward.err())?;
    profile.mark(Stage::Quantize);
    // The norm is spent; its buffer takes the output.
    weights.down.multiply(kernel, activations, normed);
    profile.mark(Stage::Down);
    if let Some(weight) = &weights.ffn_output_norm {
        norm_in_place(normed, weight, config.norm_epsilon);
        profile.mark(Stage::Norm);
    }
    by_tokens(x, normed, config.dim, add_assign);
    Ok(())
}
