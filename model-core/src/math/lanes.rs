//! Four floats at a time, for the loops between the products. An operation is one IEEE operation per lane, so the
//! vector instructions of WebAssembly and the plain arrays of every other target give the same bits.

#[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), path = "lanes/simd128.rs")]
#[cfg_attr(not(all(target_arch = "wasm32", target_feature = "simd128")), path = "lanes/array.rs")]
mod backend;
#[cfg(target_arch = "x86_64")]
#[path = "lanes/sse2.rs"]
mod sse2;

use std::ops::{Add, Div, Mul, Sub};

use backend::{Floats, Ints};

/// `v + ROUND` has the nearest integer to `v`, ties to even, in its low mantissa bits, for `|v| < 2^22`.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// Exponents beyond which [`F32x4::exp2`] stops: the result and what its polynomial is multiplied with stay normal.
const MOST_EXPONENT: f32 = 125.0;
/// Minimax polynomial of `2^r` on -0.5..=0.5, lowest power first: relative error 2.6e-6, of the Remez algorithm.
const EXP2: [f32; 5] = [0.999_999_3, 0.693_121_8, 0.240_247_44, 0.055_917_86, 0.009_570_102];

/// Four floats.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(Floats);

/// Four integers, for maxima over the bits of floats and for sums of codes.
#[derive(Clone, Copy)]
pub(crate) struct I32x4(Ints);

impl F32x4 {
    /// Four copies.
    #[inline(always)]
    pub fn splat(value: f32) -> Self {
        Self(backend::splat(value))
    }

    #[inline(always)]
    pub fn load(from: &[f32; 4]) -> Self {
        Self(backend::load(from))
    }

    #[inline(always)]
    pub fn store(self, to: &mut [f32; 4]) {
        backend::store(self.0, to);
    }

    /// `other` where `self < other`, else `self`: the larger one where neither is NaN.
    #[inline(always)]
    pub fn or_larger(self, other: Self) -> Self {
        Self(backend::or_larger(self.0, other.0))
    }

    /// `other` where `other < self`, else `self`: the smaller one where neither is NaN.
    #[inline(always)]
    pub fn or_smaller(self, other: Self) -> Self {
        Self(backend::or_smaller(self.0, other.0))
    }

    /// `2^x` with a relative error below 3e-6 for `x` in -125..=125. What lies outside counts as the nearest end, NaN
    /// as the lower one.
    #[inline(always)]
    pub fn exp2(self) -> Self {
        let x = Self::splat(-MOST_EXPONENT).or_larger(self);
        let x = x.or_smaller(Self::splat(MOST_EXPONENT));
        x.exp2_in_range()
    }

    /// [`F32x4::exp2`] of numbers that are not above 125.
    #[inline(always)]
    pub fn exp2_below_limit(self) -> Self {
        Self::splat(-MOST_EXPONENT).or_larger(self).exp2_in_range()
    }

    #[inline(always)]
    fn exp2_in_range(self) -> Self {
        let shifted = self + Self::splat(ROUND);
        let rest = self - (shifted - Self::splat(ROUND));
        let [c0, c1, c2, c3, c4] = EXP2.map(Self::splat);
        let power = (((c4 * rest + c3) * rest + c2) * rest + c1) * rest + c0;
        // The low bits of `shifted` are the integer part; it goes into the exponent of `power`, which is in 0.7..1.5.
        Self(backend::add_exponent(power.0, shifted.0))
    }

    /// The magnitudes.
    #[inline(always)]
    pub fn magnitude(self) -> Self {
        Self(backend::magnitude(self.0))
    }

    /// Lane i is the sum `(0 + 2) + (1 + 3)` of the lanes of `fours[i]`.
    #[inline(always)]
    pub fn totals(fours: [Self; 4]) -> Self {
        Self(backend::totals(fours.map(|four| four.0)))
    }

    /// Lanes 1, 0, 3, 2.
    #[inline(always)]
    pub fn swap_pairs(self) -> Self {
        Self(backend::swap_pairs(self.0))
    }

    /// The bits of the magnitudes. They order as the magnitudes do, with infinity and NaN above all numbers.
    #[inline(always)]
    pub fn magnitude_bits(self) -> I32x4 {
        I32x4(backend::magnitude_bits(self.0))
    }

    /// The bits. Those of positive numbers order as the numbers do and lie above those of negative numbers.
    #[inline(always)]
    pub fn bits(self) -> I32x4 {
        I32x4(backend::bits(self.0))
    }

    /// The largest lane; none may be NaN.
    #[inline(always)]
    pub fn most(self) -> f32 {
        backend::most(self.0)
    }

    /// Lanes 0 to 3.
    #[inline(always)]
    pub fn to_array(self) -> [f32; 4] {
        let mut lanes = [0.0; 4];
        self.store(&mut lanes);
        lanes
    }
}

impl I32x4 {
    /// Four copies.
    #[inline(always)]
    pub fn splat(value: i32) -> Self {
        Self(backend::splat_ints(value))
    }

    /// The sums of neighbouring pairs.
    #[inline(always)]
    pub fn pair_sums(codes: &[i16; 8]) -> Self {
        Self(backend::pair_sums(codes))
    }

    /// Lane i is the sum of `eights[i]`, whose codes are of 8 bits.
    #[inline(always)]
    pub fn code_totals(eights: [&[i16; 8]; 4]) -> Self {
        Self(backend::code_totals(eights))
    }

    /// `to[i] = value - 8 * lane i`; nothing may overflow.
    #[inline(always)]
    pub fn subtracted_eightfold_from(self, value: i32, to: &mut [i32; 4]) {
        backend::store_ints(backend::sub_ints(backend::splat_ints(value), backend::eightfold(self.0)), to);
    }

    /// Lane by lane; nothing may overflow.
    #[inline(always)]
    pub fn plus(self, other: Self) -> Self {
        Self(backend::add_ints(self.0, other.0))
    }

    /// The sum of the lanes, which may not overflow.
    #[inline(always)]
    pub fn total(self) -> i32 {
        backend::total(self.0)
    }

    /// Lane by lane.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self(backend::max(self.0, other.0))
    }

    /// The largest lane.
    #[inline(always)]
    pub fn most(self) -> i32 {
        backend::most_int(self.0)
    }
}

/// Writes the nearest integers to eight numbers that [`ROUND`] was added to; they must lie within 16 bits.
#[inline(always)]
pub(crate) fn store_rounded(numbers: [F32x4; 2], to: &mut [i16; 8]) {
    backend::store_low_halves(numbers[0].0, numbers[1].0, to);
}

/// The sum of eight virtual lanes in their fixed order, `(0+4 + 2+6) + (1+5 + 3+7)`.
#[inline(always)]
pub(crate) fn sum(lanes: [F32x4; 2]) -> f32 {
    let [a, b, c, d] = (lanes[0] + lanes[1]).to_array();
    (a + c) + (b + d)
}

macro_rules! operator {
    ($($trait:ident $method:ident)*) => { $(
        impl $trait for F32x4 {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(backend::$method(self.0, other.0))
            }
        }
    )* };
}
operator!(Add add Sub sub Mul mul Div div);

/// The 16-bit lanes `code + 8 + 4096 * code'` of sixteen codes of a row and its partner's, little-endian.
#[inline(always)]
pub(crate) fn field_lanes(low: &[i8; 16], high: &[i8; 16]) -> [[i8; 16]; 2] {
    backend::field_lanes(low, high)
}

/// Of each four bytes the first and the third, then the second and the fourth.
#[inline(always)]
pub(crate) fn swap_middles(quads: &[i8; 16]) -> [i8; 16] {
    backend::swap_middles(quads)
}

/// The low half of each byte of `at`, and the high half of the byte before it, which is for the first the last of `before`.
#[inline(always)]
pub(crate) fn half_bytes(before: &[i8; 16], at: &[i8; 16]) -> [i8; 16] {
    backend::half_bytes(before, at)
}

/// The units of 2 or 4 bytes of N rows, N a power of two: the first of each row, then the second of each, and so on.
#[inline(always)]
pub(crate) fn turn<const UNIT: usize, const N: usize>(rows: [&[i8; 16]; N]) -> [[i8; 16]; N] {
    backend::turn::<UNIT, N>(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_agrees_with_a_double_precision_one() {
        let mut worst = 0.0f64;
        for i in -1_250_000..=1_250_000 {
            let x = i as f32 * 1e-4;
            let exact = libm::exp2(f64::from(x));
            let [one, below, ..] = [F32x4::splat(x).exp2(), F32x4::splat(x).exp2_below_limit()].map(F32x4::most);
            assert_eq!(one.to_bits(), below.to_bits());
            worst = worst.max((f64::from(one) - exact).abs() / exact);
        }
        // A weight's 16-bit code is off by up to 1 / 16382 of the largest, 6.1e-5.
        assert!(worst < 3e-6, "relative error {worst}");
    }

    #[test]
    fn exp2_has_defined_ends() {
        let exp2 = |x| F32x4::splat(x).exp2().most();
        assert_eq!(exp2(f32::NEG_INFINITY), exp2(-125.0));
        assert_eq!(exp2(f32::NAN), exp2(-125.0));
        assert_eq!(exp2(f32::INFINITY), exp2(125.0));
        assert!(exp2(-125.0) >= f32::MIN_POSITIVE && exp2(125.0) < f32::INFINITY);
    }

    #[test]
    fn maxima_and_magnitudes() {
        let lanes = F32x4::load(&[-3.0, 2.0, -0.0, 1.5]);
        assert_eq!(lanes.most(), 2.0);
        assert_eq!(lanes.magnitude_bits().most(), 3.0f32.to_bits() as i32);
        assert_eq!(lanes.bits().most(), 2.0f32.to_bits() as i32);
        assert_eq!(lanes.or_larger(F32x4::splat(0.5)).to_array(), [0.5, 2.0, 0.5, 1.5]);
        assert_eq!(lanes.or_smaller(F32x4::splat(0.5)).to_array(), [-3.0, 0.5, -0.0, 0.5]);
        assert_eq!(lanes.swap_pairs().to_array(), [2.0, -3.0, 1.5, -0.0]);
        let with_nan = F32x4::load(&[1.0, f32::NAN, f32::INFINITY, 0.0]).magnitude_bits();
        assert!(I32x4::splat(0).max(with_nan).most() > f32::INFINITY.to_bits() as i32);
    }

    #[test]
    fn codes_are_summed_exactly() {
        let codes = [32767, 32767, -32767, -32767, 1, -2, 3, 4];
        assert_eq!(I32x4::pair_sums(&codes).total(), 6);
        assert_eq!(I32x4::pair_sums(&[i16::MAX; 8]).plus(I32x4::pair_sums(&[i16::MAX; 8])).total(), 16 * 32767);
        assert_eq!(I32x4::pair_sums(&codes).most(), 65534);
    }

    #[test]
    fn rounded_codes_are_nearest_ties_to_even() {
        let numbers = [[0.5, 1.5, -2.5, 32767.0], [-32767.0, 0.49, -0.51, -0.5]];
        let mut codes = [0; 8];
        store_rounded(numbers.map(|four| F32x4::load(&four) + F32x4::splat(ROUND)), &mut codes);
        assert_eq!(codes, [0, 2, -2, 32767, -32767, 0, -1, 0]);
    }
}
