//! Rotary position embedding (Su et al. 2021) with its context extensions. Angles are computed in `f64` with the `libm`
//! crate, so that all targets get the same bits.

use super::elementwise::{rotate_halves, update_by_two};
use crate::parallel::{self, Rows};

/// Rotations over the original context above which a pair keeps its frequency, and below which it is interpolated
/// (`beta_fast` and `beta_slow` of YaRN, Peng et al. 2023).
const YARN_ROTATIONS: [f64; 2] = [32.0, 1.0];

/// Which dimensions of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pairing {
    /// Neighbours: 0 and 1, 2 and 3, ... (GGUF's order of the rows of `llama` models).
    #[default]
    Neighbours,
    /// The first of the first half and the first of the second, and so on (`NEOX` in GGML).
    Halves,
}

/// How positions become angles.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// Which dimensions turn together.
    pub pairing: Pairing,
    /// Leading dimensions of a head that turn; even.
    pub dim: usize,
    /// Base of the frequencies.
    pub theta: f32,
    /// Divides the frequencies, all of them without YaRN; 1 for none.
    pub scale: f32,
    /// With YaRN, the context in tokens that the model was first trained for: pairs that turn often in it keep their
    /// frequency.
    pub yarn_context: Option<usize>,
    /// Factor of what has been turned, besides YaRN's own.
    pub magnitude: f32,
}

/// The rotation frequencies of a model.
#[derive(Debug, Clone)]
pub struct Rope {
    pairing: Pairing,
    /// Radians per position for each pair, `[dim / 2]`.
    frequencies: Vec<f64>,
    magnitude: f64,
}

/// Cosines and sines of the positions of one batch, shared by all layers that turn alike, and by all heads.
#[derive(Debug, Clone, Default)]
pub struct Angles {
    pairing: Pairing,
    rotary_dim: usize,
    /// Neighbours: `[tokens, rotary_dim]`, the cosine of each pair, twice. Halves: `[tokens, rotary_dim / 2]`.
    cosines: Vec<f32>,
    /// Neighbours: `[tokens, rotary_dim]`, the sine of each pair, negative first. Halves: `[tokens, rotary_dim / 2]`.
    sines: Vec<f32>,
}

impl Rope {
    /// Frequencies `theta^(-2i / dim) / factor_i`, divided by the scale; `factors` (`[dim / 2]`) are 1 where there are
    /// none.
    pub fn new(rotation: &Rotation, factors: Option<&[f32]>) -> Self {
        let (theta, scale) = (f64::from(rotation.theta), f64::from(rotation.scale));
        let factor = |i| factors.and_then(|factors| factors.get(i)).map_or(1.0, |&factor| f64::from(factor));
        let frequency = |i| {
            let power = libm::pow(theta, -2.0 * i as f64 / rotation.dim as f64);
            let interpolated = power / (scale * factor(i));
            match rotation.yarn_context {
                Some(context) => {
                    let kept = yarn_kept(rotation.dim, theta, context, i);
                    interpolated * (1.0 - kept) + power / factor(i) * kept
                }
                None => interpolated,
            }
        };
        let yarn_magnitude = if rotation.yarn_context.is_some() { 1.0 + 0.1 * libm::log(scale.max(1.0)) } else { 1.0 };
        Self {
            pairing: rotation.pairing,
            frequencies: (0..rotation.dim / 2).map(frequency).collect(),
            magnitude: f64::from(rotation.magnitude) * yarn_magnitude,
        }
    }

    /// Writes the angles of positions `start..start + tokens` to `angles`, whose buffer is reused.
    pub fn angles_into(&self, start: usize, tokens: usize, angles: &mut Angles) {
        angles.pairing = self.pairing;
        angles.rotary_dim = 2 * self.frequencies.len();
        angles.cosines.clear();
        angles.sines.clear();
        for position in start..start + tokens {
            for frequency in &self.frequencies {
                let angle = position as f64 * frequency;
                let cosine = (libm::cos(angle) * self.magnitude) as f32;
                let sine = (libm::sin(angle) * self.magnitude) as f32;
                match self.pairing {
                    Pairing::Neighbours => {
                        angles.cosines.extend([cosine, cosine]);
                        angles.sines.extend([-sine, sine]);
                    }
                    Pairing::Halves => {
                        angles.cosines.push(cosine);
                        angles.sines.push(sine);
                    }
                }
            }
        }
    }
}

/// The share of pair `i`'s own frequency in YaRN, from 1 for pairs that turn often in `context` to 0 for those that do
/// not turn once.
fn yarn_kept(dim: usize, theta: f64, context: usize, i: usize) -> f64 {
    let pair_with = |rotations: f64| {
        dim as f64 * libm::log(context as f64 / (rotations * std::f64::consts::TAU)) / (2.0 * libm::log(theta))
    };
    let [fast, slow] = YARN_ROTATIONS.map(pair_with);
    let (low, high) = (libm::floor(fast).max(0.0), libm::ceil(slow).min(dim as f64 - 1.0));
    1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
}

impl Angles {
    /// Rotates the leading rotary dimensions of every head in `x` (`[tokens, heads, head_dim]`): a pair `(a, b)` becomes
    /// `(a cos - b sin, b cos + a sin)`.
    pub fn apply(&self, x: &mut [f32], head_dim: usize) {
        let row = match self.pairing {
            Pairing::Neighbours => self.rotary_dim,
            Pairing::Halves => self.rotary_dim / 2,
        };
        let tokens = self.cosines.len() / row.max(1);
        if tokens == 0 {
            return;
        }
        let columns = x.len() / tokens;
        parallel::rows(Rows { values: x, columns }, tokens, parallel::TOKENS, |first, x| {
            let turns = self.cosines.chunks_exact(row).zip(self.sines.chunks_exact(row)).skip(first);
            for (x, (cosines, sines)) in x.values.chunks_exact_mut(columns).zip(turns) {
                for head in x.chunks_exact_mut(head_dim) {
                    self.turn(&mut head[..self.rotary_dim], cosines, sines);
                }
            }
        });
    }

    #[inline(always)]
    fn turn(&self, head: &mut [f32], cosines: &[f32], sines: &[f32]) {
        match self.pairing {
            Pairing::Neighbours => {
                update_by_two(head, cosines, sines, |x, cosine, sine| x * cosine + x.swap_pairs() * sine);
            }
            Pairing::Halves => {
                let (first, second) = head.split_at_mut(cosines.len());
                rotate_halves(first, second, cosines, sines);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(dim: usize, theta: f32) -> Rotation {
        Rotation { pairing: Pairing::Neighbours, dim, theta, scale: 1.0, yarn_context: None, magnitude: 1.0 }
    }

    fn rotated(rope: &Rope, start: usize, x: &[f32], head_dim: usize) -> Vec<f32> {
        let (mut angles, mut x) = (Angles::default(), x.to_vec());
        rope.angles_into(start, 1, &mut angles);
        angles.apply(&mut x, head_dim);
        x
    }

    #[test]
    fn rotates_the_pairs_of_its_kind_and_leaves_the_rest() {
        let neighbours = plain(4, 10000.0);
        let halves = Rotation { pairing: Pairing::Halves, ..neighbours.clone() };
        let turned = [libm::cos(3.0), libm::sin(3.0), libm::cos(0.03), libm::sin(0.03)];
        let cases = [
            (neighbours, [1.0, 0.0, 1.0, 0.0], turned),
            (halves, [1.0, 1.0, 0.0, 0.0], [turned[0], turned[2], turned[1], turned[3]]),
        ];
        for (rotation, [a, b, c, d], expected) in cases {
            let x = rotated(&Rope::new(&rotation, None), 3, &[a, b, c, d, 5.0, 6.0], 6);
            for (x, expected) in x.into_iter().zip(expected.into_iter().chain([5.0, 6.0])) {
                assert!((f64::from(x) - expected).abs() < 1e-6, "{rotation:?}");
            }
        }
    }

    #[test]
    fn both_pairings_turn_alike() {
        for dim in [2, 12, 64, 96, 256] {
            let neighbours = plain(dim, 500.0);
            let halves = Rotation { pairing: Pairing::Halves, ..neighbours.clone() };
            let x: Vec<f32> = (0..dim).map(|i| (i * 37 % 23) as f32 - 11.0).collect();
            let sorted: Vec<f32> = (0..dim).map(|i| x[i % (dim / 2) * 2 + i / (dim / 2)]).collect();
            let turned = rotated(&Rope::new(&neighbours, None), 9, &x, dim);
            let halves = rotated(&Rope::new(&halves, None), 9, &sorted, dim);
            for (i, half) in halves.iter().enumerate() {
                assert_eq!(half.to_bits(), turned[i % (dim / 2) * 2 + i / (dim / 2)].to_bits(), "{dim}");
            }
        }
    }

    #[test]
    fn scores_depend_on_the_distance_only() {
        let rotation = Rotation { scale: 2.0, ..plain(8, 500.0) };
        let rope = Rope::new(&rotation, Some(&[1.0, 2.0, 3.0, 4.0]));
        let (q, k) = ([0.3, -1.0, 0.5, 0.2, 0.9, -0.4, 0.1, 0.7], [1.0, 0.2, -0.3, 0.8, 0.5, 0.5, -0.9, 0.4]);
        let score = |at: usize, distance: usize| -> f32 {
            rotated(&rope, at + distance, &q, 8).iter().zip(rotated(&rope, at, &k, 8)).map(|(q, k)| q * k).sum()
        };
        assert!((score(0, 5) - score(100, 5)).abs() < 1e-5);
        assert!((score(0, 5) - score(0, 6)).abs() > 1e-3);
    }

    #[test]
    fn factors_and_scale_divide_the_frequencies() {
        let one = Rope::new(&plain(4, 100.0), None);
        let scaled = Rope::new(&Rotation { scale: 2.0, ..plain(4, 100.0) }, Some(&[1.0, 5.0]));
        assert_eq!(scaled.frequencies, [one.frequencies[0] / 2.0, one.frequencies[1] / 10.0]);
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_interpolates_slow_ones() {
        let one = Rope::new(&plain(64, 10000.0), None);
        let yarn = Rope::new(&Rotation { scale: 4.0, yarn_context: Some(2048), ..plain(64, 10000.0) }, None);
        assert_eq!(yarn.frequencies[0], one.frequencies[0]);
        assert_eq!(yarn.frequencies[31], one.frequencies[31] / 4.0);
        let ratios: Vec<f64> = yarn.frequencies.iter().zip(&one.frequencies).map(|(a, b)| a / b).collect();
        assert!(ratios.windows(2).all(|pair| pair[0] >= pair[1]), "{ratios:?}");
        assert!((yarn.magnitude - 1.138_629).abs() < 1e-6, "{}", yarn.magnitude);
    }

    #[test]
    fn the_magnitude_is_a_factor_of_what_turns() {
        let rope = Rope::new(&Rotation { magnitude: 3.0, ..plain(2, 100.0) }, None);
        assert_eq!(rotated(&rope, 0, &[1.0, -2.0, 5.0], 3), [3.0, -6.0, 5.0]);
    }
}
