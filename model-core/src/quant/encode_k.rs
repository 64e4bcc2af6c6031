//! GGML's reference quantizers of the K-formats (`quantize_row_q4_K_ref` and its sisters in `ggml-quants.c`): a search for
//! the scale, and offset, with the least weighted error, in the same order of the same `f32` operations, so that the blocks
//! are the same. Knows nothing of importance matrices.

use half::f16;

/// Weights of a super-block.
pub(super) const SUPER_BLOCK: usize = 256;
/// Weights that share a scale and an offset in Q4_K and Q5_K.
const RUN: usize = 32;
/// Runs of a super-block.
const RUNS: usize = SUPER_BLOCK / RUN;
/// Weights that share a scale in Q6_K.
const SHORT_RUN: usize = 16;
/// A run without a greater magnitude counts as zeros.
const NOTHING: f32 = 1e-15;
/// Largest six-bit scale.
const MOST_SCALE: f32 = 63.0;

/// How the scale of a run is searched.
struct Search {
    /// Largest code.
    most: u8,
    /// First widening of the range of codes; each further one is a tenth wider.
    first: f32,
    /// How many widenings follow the first.
    steps: u8,
}

/// A run with its codes: each weight is about `scale * code - minimum`.
struct Run {
    codes: [u8; RUN],
    scale: f32,
    minimum: f32,
}

/// Codes, six-bit scales and minima, and what those are multiplied with.
struct SuperBlock {
    codes: [u8; SUPER_BLOCK],
    scales: [u8; RUNS],
    minima: [u8; RUNS],
    scale: f16,
    minimum: f16,
}

pub(super) fn q4_k(x: &[f32; SUPER_BLOCK], out: &mut Vec<u8>) {
    let block = SuperBlock::quantize(x, &Search { most: 15, first: -1.0, steps: 20 });
    block.put_scales(out);
    block.put_nibbles(out);
}

pub(super) fn q5_k(x: &[f32; SUPER_BLOCK], out: &mut Vec<u8>) {
    let block = SuperBlock::quantize(x, &Search { most: 31, first: -0.5, steps: 15 });
    block.put_scales(out);
    let fifth = |column: usize| {
        let bits = block.codes.iter().skip(column).step_by(RUN).map(|code| code >> 4).enumerate();
        bits.fold(0, |byte, (run, bit)| byte | (bit << run))
    };
    out.extend((0..RUN).map(fifth));
    block.put_nibbles(out);
}

pub(super) fn q6_k(x: &[f32; SUPER_BLOCK], out: &mut Vec<u8>) {
    let (mut codes, mut scales) = ([0u8; SUPER_BLOCK], [0f32; SUPER_BLOCK / SHORT_RUN]);
    let runs = x.as_chunks::<SHORT_RUN>().0;
    for ((x, codes), scale) in runs.iter().zip(codes.as_chunks_mut().0).zip(&mut scales) {
        *scale = symmetric_search(x, codes);
    }
    let extreme = scales.iter().fold(0f32, |extreme, scale| if scale.abs() > extreme.abs() { *scale } else { extreme });
    if extreme.abs() < NOTHING {
        out.extend([0; 210]);
        return;
    }
    let inverse = -128.0 / extreme;
    let whole = f16::from_f32(1.0 / inverse);
    let scales = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
    for ((x, codes), scale) in runs.iter().zip(codes.as_chunks_mut::<SHORT_RUN>().0).zip(scales) {
        let scale = whole.to_f32() * f32::from(scale);
        if scale != 0.0 {
            *codes = x.map(|value| (nearest(value / scale).clamp(-32, 31) + 32) as u8);
        }
    }
    put_six_bits(&codes, out);
    out.extend(scales.map(|scale| scale as u8));
    out.extend(whole.to_le_bytes());
}

/// Low four bits, then the high two, of each half of a super-block.
fn put_six_bits(codes: &[u8; SUPER_BLOCK], out: &mut Vec<u8>) {
    let halves = codes.as_chunks::<{ SUPER_BLOCK / 2 }>().0;
    for half in halves {
        let (first, second) = half.split_at(2 * RUN);
        out.extend(first.iter().zip(second).map(|(low, high)| (low & 0x0f) | (high << 4)));
    }
    for half in halves {
        let high = |at: usize| (0..4).fold(0, |byte, run| byte | (half[run * RUN + at] >> 4) << (2 * run));
        out.extend((0..RUN).map(high));
    }
}

impl SuperBlock {
    fn quantize(x: &[f32; SUPER_BLOCK], search: &Search) -> Self {
        let inputs = x.as_chunks::<RUN>().0;
        let runs: [Run; RUNS] = std::array::from_fn(|run| search.run(&inputs[run]));
        let greatest =
            |of: fn(&Run) -> f32| runs.iter().map(of).fold(0f32, |most, next| if next > most { next } else { most });
        let (most_scale, most_minimum) = (greatest(|run| run.scale), greatest(|run| run.minimum));
        let inverse = |most: f32| if most > 0.0 { MOST_SCALE / most } else { 0.0 };
        let six_bits = |value: f32| (nearest(value) as u8).min(MOST_SCALE as u8);
        let mut block = Self {
            codes: [0; SUPER_BLOCK],
            scales: std::array::from_fn(|run| six_bits(inverse(most_scale) * runs[run].scale)),
            minima: std::array::from_fn(|run| six_bits(inverse(most_minimum) * runs[run].minimum)),
            scale: f16::from_f32(most_scale / MOST_SCALE),
            minimum: f16::from_f32(most_minimum / MOST_SCALE),
        };
        for (run, codes) in block.codes.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
            let scale = block.scale.to_f32() * f32::from(block.scales[run]);
            let minimum = block.minimum.to_f32() * f32::from(block.minima[run]);
            *codes = if scale == 0.0 {
                runs[run].codes
            } else {
                inputs[run].map(|value| search.code((value + minimum) / scale))
            };
        }
        block
    }

    /// Both scales, then twelve bytes of six-bit numbers: of the first four runs in the low bits of eight bytes; of the last
    /// four in the nibbles of the other bytes, with their upper two bits above the first.
    fn put_scales(&self, out: &mut Vec<u8>) {
        out.extend(self.scale.to_le_bytes());
        out.extend(self.minimum.to_le_bytes());
        let first = self.scales[..4].iter().zip(&self.scales[4..]);
        let second = self.minima[..4].iter().zip(&self.minima[4..]);
        out.extend(first.chain(second).map(|(low, high)| low | (high >> 4) << 6));
        let last = self.scales[4..].iter().zip(&self.minima[4..]);
        out.extend(last.map(|(scale, minimum)| (scale & 0x0f) | (minimum & 0x0f) << 4));
    }

    /// Low four bits: of two runs together, the first in the low nibbles.
    fn put_nibbles(&self, out: &mut Vec<u8>) {
        for pair in self.codes.as_chunks::<{ 2 * RUN }>().0 {
            let (low, high) = pair.split_at(RUN);
            out.extend(low.iter().zip(high).map(|(low, high)| (low & 0x0f) | (high << 4)));
        }
    }
}

impl Search {
    fn code(&self, value: f32) -> u8 {
        nearest(value).clamp(0, self.most.into()) as u8
    }

    /// Codes, scale and minimum of a run with the least squared error, in which large weights count more.
    fn run(&self, x: &[f32; RUN]) -> Run {
        let mean = (x.iter().fold(0f32, |sum, value| sum + value * value) / RUN as f32).sqrt();
        let weights = x.map(|value| mean + value.abs());
        let least = x.iter().copied().fold(x[0], f32::min).min(0.0);
        let greatest = x.iter().copied().fold(x[0], f32::max);
        if greatest == least {
            return Run { codes: [0; RUN], scale: 0.0, minimum: -least };
        }
        let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
        for (value, weight) in x.iter().zip(weights).skip(1) {
            sum_w += weight;
            sum_x += weight * value;
        }
        let most = f32::from(self.most);
        let inverse = most / (greatest - least);
        let codes = x.map(|value| self.code(inverse * (value - least)));
        let mut best = Run { codes, scale: 1.0 / inverse, minimum: -least };
        let mut best_error = error(x, &weights, &best);
        for step in 0..=self.steps {
            // GGML goes on from the best offset so far.
            let least = -best.minimum;
            let inverse = (self.first + 0.1 * f32::from(step) + most) / (greatest - least);
            let codes = x.map(|value| self.code(inverse * (value - least)));
            let Some(run) = fit(x, &weights, (sum_w, sum_x), codes) else { continue };
            let error = error(x, &weights, &run);
            if error < best_error {
                (best, best_error) = (run, error);
            }
        }
        best
    }
}

/// The scale and minimum that suit the codes best; none if all codes are the same.
fn fit(x: &[f32; RUN], weights: &[f32; RUN], (sum_w, sum_x): (f32, f32), codes: [u8; RUN]) -> Option<Run> {
    let (mut sum_l, mut sum_l2, mut sum_xl) = (0f32, 0f32, 0f32);
    for ((value, weight), code) in x.iter().zip(weights).zip(codes) {
        let code = f32::from(code);
        sum_l += weight * code;
        sum_l2 += weight * code * code;
        sum_xl += weight * code * value;
    }
    let determinant = sum_w * sum_l2 - sum_l * sum_l;
    if determinant <= 0.0 || determinant.is_nan() {
        return None;
    }
    let least = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    Some(if least > 0.0 {
        Run { codes, scale: sum_xl / sum_l2, minimum: 0.0 }
    } else {
        Run { codes, scale: (sum_w * sum_xl - sum_x * sum_l) / determinant, minimum: -least }
    })
}

fn error(x: &[f32; RUN], weights: &[f32; RUN], run: &Run) -> f32 {
    let terms = x.iter().zip(weights).zip(run.codes);
    terms.fold(0f32, |sum, ((value, weight), code)| {
        let difference = run.scale * f32::from(code) - run.minimum - value;
        sum + weight * (difference * difference)
    })
}

/// The scale of a run with the least squared error, in which weights count by their square, and the codes (from 0 to 63, 32
/// being zero).
fn symmetric_search(x: &[f32; SHORT_RUN], codes: &mut [u8; SHORT_RUN]) -> f32 {
    let extreme = x.iter().fold(0f32, |extreme, &value| if value.abs() > extreme.abs() { value } else { extreme });
    if extreme.abs() < NOTHING {
        return 0.0;
    }
    let code = |inverse: f32, value: f32| nearest(inverse * value).clamp(-32, 31);
    let sums = |inverse: f32| {
        x.iter().fold((0f32, 0f32), |(sum_lx, sum_l2), &value| {
            let (weight, code) = (value * value, code(inverse, value) as f32);
            (sum_lx + weight * value * code, sum_l2 + weight * code * code)
        })
    };
    let mut inverse = -32.0 / extreme;
    let (sum_lx, sum_l2) = sums(inverse);
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_lx / sum_l2 };
    let mut best = scale * sum_lx;
    for step in (-9i8..=9).filter(|&step| step != 0) {
        let other = -(32.0 + 0.1 * f32::from(step)) / extreme;
        let (sum_lx, sum_l2) = sums(other);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            (inverse, scale) = (other, sum_lx / sum_l2);
            best = scale * sum_lx;
        }
    }
    *codes = x.map(|value| (code(inverse, value) + 32) as u8);
    scale
}

/// To the nearest integer, ties to even.
fn nearest(value: f32) -> i32 {
    value.round_ties_even() as i32
}
