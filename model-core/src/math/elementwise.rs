//! Normalisation, activation and residual: one value in, one value out, plus reductions whose order is fixed or free.
//!
//! Loops walk blocks of 32, so that wasm addresses are constants behind one pointer; what is left over is filled up with
//! zeros and goes the same way.

use super::lanes::{F32x4, I32x4, sum};
use super::vectorize::{Work, vectorize};

/// Values of a block.
const BLOCK: usize = 32;

/// `out = x / sqrt(mean(x²) + epsilon) * weight`, all of the same length (Zhang and Sennrich 2019, RMSNorm).
pub fn rms_norm_into(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let inverse = inverse_root_mean_square(x, epsilon);
    write(out, x, weight, |x, weight| x * inverse * weight);
}

/// [`rms_norm_into`] in place.
pub fn rms_norm(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let inverse = inverse_root_mean_square(x, epsilon);
    update(x, weight, |x, weight| x * inverse * weight);
}

fn inverse_root_mean_square(x: &[f32], epsilon: f32) -> F32x4 {
    F32x4::splat(1.0 / (sum_of_squares(x) / x.len() as f32 + epsilon).sqrt())
}

fn sum_of_squares(x: &[f32]) -> f32 {
    let mut sums = [F32x4::splat(0.0); 2];
    each_block(x, |four, x| sums[four % 2] = sums[four % 2] + x * x);
    sum(sums)
}

/// `gate = gate * sigmoid(gate) * up` (Shazeer 2020, SwiGLU), with the fast exponential: relative error below 4e-6.
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    vectorize(SiluMul(gate, up));
}

struct SiluMul<'a>(&'a mut [f32], &'a [f32]);

impl Work for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (one, factor) = (F32x4::splat(1.0), F32x4::splat(-std::f32::consts::LOG2_E));
        update(self.0, self.1, |gate, up| gate / (one + (gate * factor).exp2()) * up);
    }
}

/// `gate = gelu(gate) * up`, with the Gaussian error linear unit (Hendrycks and Gimpel 2016) in its approximation by a
/// hyperbolic tangent, which is `x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x³))`, and the fast exponential.
pub fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    const FACTOR: f32 =
        -2.0 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * std::f32::consts::LOG2_E;
    let [one, factor, cubic] = [1.0, FACTOR, 0.044_715].map(F32x4::splat);
    update(gate, up, |gate, up| {
        let inner = gate + cubic * (gate * gate * gate);
        gate / (one + (inner * factor).exp2()) * up
    });
}

/// `x = x * factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    let factor = F32x4::splat(factor);
    map(x, |x| x * factor);
}

/// `x = cap * tanh(x / cap)` for finite `x` and a `cap` above 0, with the fast exponential.
pub fn cap_softly(x: &mut [f32], cap: f32) {
    let [one, two] = [1.0, 2.0].map(F32x4::splat);
    let (cap, factor) = (F32x4::splat(cap), F32x4::splat(2.0 * std::f32::consts::LOG2_E / cap));
    map(x, |x| cap * (one - two / (one + (x * factor).exp2())));
}

/// `x += y`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    update(x, y, |x, y| x + y);
}

/// Largest magnitude; not finite if any value is not. The bits of magnitudes order as they do, and integer maxima are
/// cheap and do not depend on the order.
pub(crate) fn max_abs(x: &[f32]) -> f32 {
    vectorize(MaxAbs(x))
}

struct MaxAbs<'a>(&'a [f32]);

impl Work for MaxAbs<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let mut most = I32x4::splat(0);
        each_block(self.0, |_, x| most = most.max(x.magnitude_bits()));
        f32::from_bits(most.most() as u32)
    }
}

/// Whether no value is infinite or NaN.
pub(crate) fn all_finite(x: &[f32]) -> bool {
    max_abs(x).is_finite()
}

/// `x = f(x, y, z)` value by value.
#[inline(always)]
pub(super) fn update_by_two(x: &mut [f32], y: &[f32], z: &[f32], f: impl Fn(F32x4, F32x4, F32x4) -> F32x4) {
    let ((blocks, rest), (y, y_rest), (z, z_rest)) = (x.as_chunks_mut(), y.as_chunks(), z.as_chunks());
    let turn = |x: &mut [f32; BLOCK], y: &[f32; BLOCK], z: &[f32; BLOCK]| {
        for ((x, y), z) in fours_mut(x).iter_mut().zip(fours(y)).zip(fours(z)) {
            f(F32x4::load(x), F32x4::load(y), F32x4::load(z)).store(x);
        }
    };
    for ((x, y), z) in blocks.iter_mut().zip(y).zip(z) {
        turn(x, y, z);
    }
    if !rest.is_empty() {
        let mut last = padded(rest);
        turn(&mut last, &padded(y_rest), &padded(z_rest));
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `(a, b) = (a cosine - b sine, b cosine + a sine)` value by value, all of the same length.
pub(super) fn rotate_halves(a: &mut [f32], b: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks_mut(), b.as_chunks_mut());
    let ((cosines, cosines_rest), (sines, sines_rest)) = (cosines.as_chunks(), sines.as_chunks());
    for (((a, b), cosines), sines) in a.iter_mut().zip(b).zip(cosines).zip(sines) {
        rotate_block(a, b, cosines, sines);
    }
    if !a_rest.is_empty() {
        let (mut last_a, mut last_b) = (padded(a_rest), padded(b_rest));
        rotate_block(&mut last_a, &mut last_b, &padded(cosines_rest), &padded(sines_rest));
        a_rest.copy_from_slice(&last_a[..a_rest.len()]);
        b_rest.copy_from_slice(&last_b[..b_rest.len()]);
    }
}

#[inline(always)]
fn rotate_block(a: &mut [f32; BLOCK], b: &mut [f32; BLOCK], cosines: &[f32; BLOCK], sines: &[f32; BLOCK]) {
    let pairs = fours_mut(a).iter_mut().zip(fours_mut(b));
    for (((a, b), cosines), sines) in pairs.zip(fours(cosines)).zip(fours(sines)) {
        let (x, y, cosine, sine) = (F32x4::load(a), F32x4::load(b), F32x4::load(cosines), F32x4::load(sines));
        (x * cosine - y * sine).store(a);
        (y * cosine + x * sine).store(b);
    }
}

/// Calls `work` with the index within its block and the value of each four.
#[inline(always)]
fn each_block(x: &[f32], mut work: impl FnMut(usize, F32x4)) {
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for block in blocks {
        fours(block).iter().enumerate().for_each(|(i, four)| work(i, F32x4::load(four)));
    }
    if !rest.is_empty() {
        fours(&padded(rest)).iter().enumerate().for_each(|(i, four)| work(i, F32x4::load(four)));
    }
}

/// `out = f(x, y)` value by value.
#[inline(always)]
fn write(out: &mut [f32], x: &[f32], y: &[f32], f: impl Fn(F32x4, F32x4) -> F32x4) {
    let ((blocks, rest), (x, x_rest), (y, y_rest)) = (out.as_chunks_mut(), x.as_chunks(), y.as_chunks());
    for ((out, x), y) in blocks.iter_mut().zip(x).zip(y) {
        write_block(out, x, y, &f);
    }
    if !rest.is_empty() {
        let mut last = [0.0; BLOCK];
        write_block(&mut last, &padded(x_rest), &padded(y_rest), &f);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `x = f(x)` value by value.
#[inline(always)]
fn map(x: &mut [f32], f: impl Fn(F32x4) -> F32x4) {
    let (blocks, rest) = x.as_chunks_mut::<BLOCK>();
    let map_block = |x: &mut [f32; BLOCK]| fours_mut(x).iter_mut().for_each(|x| f(F32x4::load(x)).store(x));
    blocks.iter_mut().for_each(map_block);
    if !rest.is_empty() {
        let mut last = padded(rest);
        map_block(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `x = f(x, y)` value by value.
#[inline(always)]
fn update(x: &mut [f32], y: &[f32], f: impl Fn(F32x4, F32x4) -> F32x4) {
    let ((blocks, rest), (y, y_rest)) = (x.as_chunks_mut(), y.as_chunks());
    for (x, y) in blocks.iter_mut().zip(y) {
        update_block(x, y, &f);
    }
    if !rest.is_empty() {
        let mut last = padded(rest);
        update_block(&mut last, &padded(y_rest), &f);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[inline(always)]
fn write_block(out: &mut [f32; BLOCK], x: &[f32; BLOCK], y: &[f32; BLOCK], f: &impl Fn(F32x4, F32x4) -> F32x4) {
    for ((out, x), y) in fours_mut(out).iter_mut().zip(fours(x)).zip(fours(y)) {
        f(F32x4::load(x), F32x4::load(y)).store(out);
    }
}

#[inline(always)]
fn update_block(x: &mut [f32; BLOCK], y: &[f32; BLOCK], f: &impl Fn(F32x4, F32x4) -> F32x4) {
    for (x, y) in fours_mut(x).iter_mut().zip(fours(y)) {
        f(F32x4::load(x), F32x4::load(y)).store(x);
    }
}

/// A block that begins with `rest`, which is shorter.
fn padded(rest: &[f32]) -> [f32; BLOCK] {
    let mut block = [0.0; BLOCK];
    block.iter_mut().zip(rest).for_each(|(block, rest)| *block = *rest);
    block
}

#[inline(always)]
fn fours(block: &[f32; BLOCK]) -> &[[f32; 4]] {
    block.as_chunks().0
}

#[inline(always)]
fn fours_mut(block: &mut [f32; BLOCK]) -> &mut [[f32; 4]] {
    block.as_chunks_mut().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rms_norm_has_unit_mean_square_for_any_length() {
        for len in [1, 7, 8, 9, 64, 576] {
            let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7 - 3.0) * 1.5).collect();
            let mut out = vec![0.0; len];
            rms_norm_into(&x, &vec![2.0; len], 1e-6, &mut out);
            let mean = out.iter().map(|v| v * v).sum::<f32>() / len as f32;
            assert!((mean - 4.0).abs() < 1e-4, "{len}: {mean}");
        }
    }

    #[test]
    fn rms_norm_in_place_has_the_same_bits() {
        let x: Vec<f32> = (0..77).map(|i| (i as f32 * 0.7 - 3.0) * 1.5).collect();
        let (weight, mut out) = ([0.3; 77], [0.0; 77]);
        rms_norm_into(&x, &weight, 1e-6, &mut out);
        let mut in_place = x;
        rms_norm(&mut in_place, &weight, 1e-6);
        assert_eq!(in_place, out);
    }

    #[test]
    fn gelu_agrees_with_its_definition_in_double_precision() {
        for i in -200..=200 {
            let x = f64::from(i) * 0.05;
            let inner = libm::sqrt(2.0 / std::f64::consts::PI) * (x + 0.044_715 * x * x * x);
            let (mut gate, expected) = ([x as f32], 0.5 * x * (1.0 + libm::tanh(inner)) * 3.0);
            gelu_mul(&mut gate, &[3.0]);
            assert!((f64::from(gate[0]) - expected).abs() < 1e-5 * x.abs().max(1e-3), "{x}: {} {expected}", gate[0]);
        }
        let mut ends = [1e20, -1e20, f32::NAN];
        gelu_mul(&mut ends, &[1.0; 3]);
        assert!(ends[0] == 1e20 && ends[1].abs() < 1e-15 && ends[2].is_nan(), "{ends:?}");
    }

    #[test]
    fn a_soft_cap_bounds_and_keeps_small_values() {
        for i in -300..=300 {
            let x = f64::from(i);
            let mut capped = [x as f32; 2];
            cap_softly(&mut capped, 30.0);
            let expected = 30.0 * libm::tanh(x / 30.0);
            assert!((f64::from(capped[0]) - expected).abs() < 2e-4, "{x}: {} {expected}", capped[0]);
        }
    }

    #[test]
    fn silu_of_known_values() {
        let mut gate = [0.0, 1.0, -1.0, 100.0, -100.0];
        silu_mul(&mut gate, &[3.0, 1.0, 1.0, 2.0, 1.0]);
        for (got, expected) in gate.into_iter().zip([0.0, 0.731_058_6, -0.268_941_43, 200.0, 0.0]) {
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
    }
}
