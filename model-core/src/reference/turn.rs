//! Rotary positions of the plain evaluation, written down from the definitions.

use crate::math::{Pairing, Rotation};

/// Turns heads by their positions.
#[derive(Debug)]
pub(super) struct Turn {
    pairing: Pairing,
    /// Radians per position and pair.
    frequencies: Vec<f64>,
    magnitude: f64,
}

impl Turn {
    pub fn new(rotation: &Rotation, factors: Option<&[f32]>) -> Self {
        let (theta, dim, scale) = (f64::from(rotation.theta), rotation.dim as f64, f64::from(rotation.scale));
        let own = |i: usize| {
            libm::exp(-2.0 * i as f64 / dim * libm::log(theta)) / factors.map_or(1.0, |factors| f64::from(factors[i]))
        };
        let Some(context) = rotation.yarn_context else {
            let frequencies = (0..rotation.dim / 2).map(|i| own(i) / scale).collect();
            return Self { pairing: rotation.pairing, frequencies, magnitude: f64::from(rotation.magnitude) };
        };
        // YaRN (Peng et al. 2023): the pair that turns `rotations` times in the context.
        let pair = |rotations: f64| {
            dim * libm::log(context as f64 / (rotations * std::f64::consts::TAU)) / (2.0 * libm::log(theta))
        };
        let low = libm::fmax(0.0, libm::floor(pair(32.0)));
        let high = libm::fmin(dim - 1.0, libm::ceil(pair(1.0)));
        let mixed = |i: usize| {
            let slow = libm::fmax(0.0, libm::fmin(1.0, (i as f64 - low) / libm::fmax(0.001, high - low)));
            own(i) * (slow / scale + 1.0 - slow)
        };
        let stretched = if scale > 1.0 { 0.1 * libm::log(scale) + 1.0 } else { 1.0 };
        Self {
            pairing: rotation.pairing,
            frequencies: (0..rotation.dim / 2).map(mixed).collect(),
            magnitude: f64::from(rotation.magnitude) * stretched,
        }
    }

    /// Turns `x` (`[tokens, heads, head_dim]`), whose first token stands at `start`.
    pub fn apply(&self, x: &mut [f32], heads: usize, head_dim: usize, start: usize) {
        for (i, head) in x.chunks_exact_mut(head_dim).enumerate() {
            let position = (start + i / heads) as f64;
            for (pair, frequency) in self.frequencies.iter().enumerate() {
                let (first, second) = match self.pairing {
                    Pairing::Neighbours => (2 * pair, 2 * pair + 1),
                    Pairing::Halves => (pair, pair + self.frequencies.len()),
                };
                let (sin, cos) = libm::sincos(position * frequency);
                let (a, b) = (f64::from(head[first]), f64::from(head[second]));
                head[first] = ((a * cos - b * sin) * self.magnitude) as f32;
                head[second] = ((a * sin + b * cos) * self.magnitude) as f32;
            }
        }
    }
}
