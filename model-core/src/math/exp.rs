//! The exponential function, ours on every target.

/// Below this the result is 0.
const LOWEST: f32 = -87.0;
/// Above this the result is `exp(HIGHEST)`, which is finite.
const HIGHEST: f32 = 88.0;
/// `v + ROUND - ROUND` is the nearest integer to `v`, and the low bits of `v + ROUND` hold it.
const ROUND: f32 = 12_582_912.0;

/// `e^x` with a relative error below 2e-7; 0 below -87, `exp(88)` above 88.
///
/// Argument reduction by multiples of ln 2 in two parts and a polynomial of degree 6; coefficients from Cephes
/// (`expf`, S. Moshier). Multiplications and additions only.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the constants are quoted as published")]
pub fn exp(x: f32) -> f32 {
    let clamped = if x > HIGHEST { HIGHEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_375 - n * -2.121_944_40e-4;
    let p = 1.987_569_15e-4_f32 * r + 1.398_199_950_7e-3;
    let p = p * r + 8.333_451_907_3e-3;
    let p = p * r + 4.166_579_589_4e-2;
    let p = p * r + 1.666_666_545_9e-1;
    let p = p * r + 5.000_000_120_1e-1;
    let p = p * (r * r) + r + 1.0;
    // n lies in -126..=127, so adding it to the exponent of p (in 0.7..1.5) stays in range.
    let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < LOWEST { 0.0 } else { scaled }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn agrees_with_a_double_precision_exponential() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let exact = libm::exp(f64::from(x));
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "relative error {worst}");
    }

    #[test]
    fn has_defined_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-87.1), 0.0);
        assert_eq!(exp(f32::INFINITY), exp(88.0));
        assert!(exp(88.0).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }
}
