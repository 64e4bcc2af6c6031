//! Normalisation, activation and residual: one value in, one value out, plus one fixed-order reduction.

use super::{LANES, exp, sum_lanes};

/// `out = x / sqrt(mean(x²) + epsilon) * weight`, all of the same length (Zhang and Sennrich 2019, RMSNorm).
pub fn rms_norm_into(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += x * x;
    }
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    let inverse = 1.0 / (sum_lanes(lanes) / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * weight;
    }
}

/// `gate = gate * sigmoid(gate) * up` (Shazeer 2020, SwiGLU).
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// `x += y`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Largest magnitude; not finite if any value is not. The bits of non-negative floats order as integers do, and
/// integer maxima are cheap and do not depend on the order.
pub(crate) fn max_abs(x: &[f32]) -> f32 {
    let most = x.iter().fold(0, |most, x| most.max((x.to_bits() & 0x7fff_ffff) as i32));
    f32::from_bits(most as u32)
}

/// Whether no value is infinite or NaN.
pub(crate) fn all_finite(x: &[f32]) -> bool {
    max_abs(x).is_finite()
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
    fn silu_of_known_values() {
        let mut gate = [0.0, 1.0, -1.0, 100.0, -100.0];
        silu_mul(&mut gate, &[3.0, 1.0, 1.0, 2.0, 1.0]);
        for (got, expected) in gate.into_iter().zip([0.0, 0.731_058_6, -0.268_941_43, 200.0, 0.0]) {
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
    }
}
