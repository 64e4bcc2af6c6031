//! Rotary position embedding (Su et al. 2021) over adjacent pairs, as GGUF stores the query and key rows of `llama`
//! models. Angles are computed in `f64` with the `libm` crate, so that all targets get the same bits.

use super::elementwise::update_by_two;

/// The rotation frequencies of a model.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Radians per position for each pair, `[rotary_dim / 2]`.
    frequencies: Vec<f64>,
}

/// Cosines and sines of the positions of one batch, shared by all layers and heads.
#[derive(Debug, Clone, Default)]
pub struct Angles {
    rotary_dim: usize,
    /// `[tokens, rotary_dim]`: the cosine of each pair, twice.
    cosines: Vec<f32>,
    /// `[tokens, rotary_dim]`: the sine of each pair, negative first.
    sines: Vec<f32>,
}

impl Rope {
    /// Frequencies `theta^(-2i / rotary_dim) / (scale * factor_i)`; `factors` (`rope_freqs.weight`, `[rotary_dim / 2]`)
    /// are 1 where there are none.
    pub fn new(rotary_dim: usize, theta: f64, scale: f64, factors: Option<&[f32]>) -> Self {
        let factor = |i| factors.and_then(|factors| factors.get(i)).map_or(1.0, |&factor| f64::from(factor));
        let frequency = |i| libm::pow(theta, -2.0 * i as f64 / rotary_dim as f64) / (scale * factor(i));
        Self { frequencies: (0..rotary_dim / 2).map(frequency).collect() }
    }

    /// Writes the angles of positions `start..start + tokens` to `angles`, whose buffer is reused.
    pub fn angles_into(&self, start: usize, tokens: usize, angles: &mut Angles) {
        angles.rotary_dim = 2 * self.frequencies.len();
        angles.cosines.clear();
        angles.sines.clear();
        for position in start..start + tokens {
            for frequency in &self.frequencies {
                let angle = position as f64 * frequency;
                let (cosine, sine) = (libm::cos(angle) as f32, libm::sin(angle) as f32);
                angles.cosines.extend([cosine, cosine]);
                angles.sines.extend([-sine, sine]);
            }
        }
    }
}

impl Angles {
    /// Rotates the leading rotary dimensions of every head in `x` (`[tokens, heads, head_dim]`): a pair `(a, b)` becomes
    /// `(a cos - b sin, b cos + a sin)`.
    pub fn apply(&self, x: &mut [f32], head_dim: usize) {
        let tokens = self.cosines.len() / self.rotary_dim.max(1);
        if tokens == 0 {
            return;
        }
        let width = x.len() / tokens;
        let turns = self.cosines.chunks_exact(self.rotary_dim).zip(self.sines.chunks_exact(self.rotary_dim));
        for (x, (cosines, sines)) in x.chunks_exact_mut(width).zip(turns) {
            for head in x.chunks_exact_mut(head_dim) {
                let turned = &mut head[..self.rotary_dim];
                update_by_two(turned, cosines, sines, |x, cosine, sine| x * cosine + x.swap_pairs() * sine);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(rope: &Rope, start: usize, x: &[f32], head_dim: usize) -> Vec<f32> {
        let (mut angles, mut x) = (Angles::default(), x.to_vec());
        rope.angles_into(start, 1, &mut angles);
        angles.apply(&mut x, head_dim);
        x
    }

    #[test]
    fn rotates_adjacent_pairs_and_leaves_the_rest() {
        let rope = Rope::new(4, 10000.0, 1.0, None);
        let x = rotated(&rope, 3, &[1.0, 0.0, 1.0, 0.0, 5.0, 6.0], 6);
        let expected = [libm::cos(3.0), libm::sin(3.0), libm::cos(0.03), libm::sin(0.03), 5.0, 6.0];
        for (x, expected) in x.into_iter().zip(expected) {
            assert!((f64::from(x) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn scores_depend_on_the_distance_only() {
        let rope = Rope::new(8, 500.0, 2.0, Some(&[1.0, 2.0, 3.0, 4.0]));
        let (q, k) = ([0.3, -1.0, 0.5, 0.2, 0.9, -0.4, 0.1, 0.7], [1.0, 0.2, -0.3, 0.8, 0.5, 0.5, -0.9, 0.4]);
        let score = |at: usize, distance: usize| -> f32 {
            rotated(&rope, at + distance, &q, 8).iter().zip(rotated(&rope, at, &k, 8)).map(|(q, k)| q * k).sum()
        };
        assert!((score(0, 5) - score(100, 5)).abs() < 1e-5);
        assert!((score(0, 5) - score(0, 6)).abs() > 1e-3);
    }

    #[test]
    fn factors_and_scale_divide_the_frequencies() {
        let plain = Rope::new(4, 100.0, 1.0, None);
        let scaled = Rope::new(4, 100.0, 2.0, Some(&[1.0, 5.0]));
        assert_eq!(scaled.frequencies, [plain.frequencies[0] / 2.0, plain.frequencies[1] / 10.0]);
    }
}
