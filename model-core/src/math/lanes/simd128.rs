//! The lanes as WebAssembly vectors: intrinsics only. Minima and maxima are the pseudo ones, which cost a quarter.

use core::arch::wasm32::*;

pub(super) type Floats = v128;
pub(super) type Ints = v128;

#[inline(always)]
pub(super) fn splat(value: f32) -> Floats {
    f32x4_splat(value)
}

#[inline(always)]
pub(super) fn splat_ints(value: i32) -> Ints {
    i32x4_splat(value)
}

#[inline(always)]
pub(super) fn load(from: &[f32; 4]) -> Floats {
    // SAFETY: the reference is valid for 16 bytes; wasm loads accept any alignment.
    unsafe { v128_load(from.as_ptr().cast()) }
}

#[inline(always)]
pub(super) fn store(x: Floats, to: &mut [f32; 4]) {
    // SAFETY: the reference is valid for 16 bytes; wasm stores accept any alignment.
    unsafe { v128_store(to.as_mut_ptr().cast(), x) }
}

#[inline(always)]
pub(super) fn add(a: Floats, b: Floats) -> Floats {
    f32x4_add(a, b)
}

#[inline(always)]
pub(super) fn sub(a: Floats, b: Floats) -> Floats {
    f32x4_sub(a, b)
}

#[inline(always)]
pub(super) fn mul(a: Floats, b: Floats) -> Floats {
    f32x4_mul(a, b)
}

#[inline(always)]
pub(super) fn div(a: Floats, b: Floats) -> Floats {
    f32x4_div(a, b)
}

#[inline(always)]
pub(super) fn or_larger(a: Floats, b: Floats) -> Floats {
    f32x4_pmax(a, b)
}

#[inline(always)]
pub(super) fn or_smaller(a: Floats, b: Floats) -> Floats {
    f32x4_pmin(a, b)
}

#[inline(always)]
pub(super) fn add_exponent(x: Floats, exponent: Floats) -> Floats {
    i32x4_add(x, i32x4_shl(exponent, 23))
}

#[inline(always)]
pub(super) fn magnitude(x: Floats) -> Floats {
    f32x4_abs(x)
}

#[inline(always)]
pub(super) fn totals([a, b, c, d]: [Floats; 4]) -> Floats {
    let halves = |a, b| f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b));
    let (ab, cd) = (halves(a, b), halves(c, d));
    f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd))
}

#[inline(always)]
pub(super) fn code_totals(eights: [&[i16; 8]; 4]) -> Ints {
    // Sums of codes of 8 bits stay far from the ends of 16, so that narrowing does not change them.
    let pairs = |a, b| i32x4_extadd_pairwise_i16x8(i16x8_narrow_i32x4(a, b));
    let [a, b, c, d] = eights.map(pair_sums);
    pairs(pairs(a, b), pairs(c, d))
}

#[inline(always)]
pub(super) fn eightfold(x: Ints) -> Ints {
    i32x4_shl(x, 3)
}

#[inline(always)]
pub(super) fn sub_ints(a: Ints, b: Ints) -> Ints {
    i32x4_sub(a, b)
}

#[inline(always)]
pub(super) fn store_ints(x: Ints, to: &mut [i32; 4]) {
    // SAFETY: the reference is valid for 16 bytes; wasm stores accept any alignment.
    unsafe { v128_store(to.as_mut_ptr().cast(), x) }
}

#[inline(always)]
pub(super) fn swap_pairs(x: Floats) -> Floats {
    i32x4_shuffle::<1, 0, 3, 2>(x, x)
}

#[inline(always)]
pub(super) fn bits(x: Floats) -> Ints {
    x
}

#[inline(always)]
pub(super) fn magnitude_bits(x: Floats) -> Ints {
    v128_and(x, i32x4_splat(0x7fff_ffff))
}

#[inline(always)]
pub(super) fn max(a: Ints, b: Ints) -> Ints {
    i32x4_max(a, b)
}

#[inline(always)]
pub(super) fn most(x: Floats) -> f32 {
    let pairs = f32x4_pmax(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
    f32x4_extract_lane::<0>(f32x4_pmax(pairs, i32x4_shuffle::<1, 0, 3, 2>(pairs, pairs)))
}

#[inline(always)]
pub(super) fn most_int(x: Ints) -> i32 {
    let pairs = i32x4_max(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
    i32x4_extract_lane::<0>(i32x4_max(pairs, i32x4_shuffle::<1, 0, 3, 2>(pairs, pairs)))
}

#[inline(always)]
pub(super) fn store_low_halves(a: Floats, b: Floats, to: &mut [i16; 8]) {
    let halves = i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(a, b);
    // SAFETY: the reference is valid for 16 bytes; wasm stores accept any alignment.
    unsafe { v128_store(to.as_mut_ptr().cast(), halves) }
}

#[inline(always)]
pub(super) fn pair_sums(codes: &[i16; 8]) -> Ints {
    // SAFETY: the reference is valid for 16 bytes; wasm loads accept any alignment.
    i32x4_extadd_pairwise_i16x8(unsafe { v128_load(codes.as_ptr().cast()) })
}

#[inline(always)]
pub(super) fn add_ints(a: Ints, b: Ints) -> Ints {
    i32x4_add(a, b)
}

#[inline(always)]
pub(super) fn total(x: Ints) -> i32 {
    let pairs = i32x4_add(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
    i32x4_extract_lane::<0>(pairs) + i32x4_extract_lane::<1>(pairs)
}

#[inline(always)]
fn load_bytes(from: &[i8; 16]) -> v128 {
    // SAFETY: the reference is valid for 16 bytes; wasm loads accept any alignment.
    unsafe { v128_load(from.as_ptr().cast()) }
}

#[inline(always)]
fn stored(x: v128) -> [i8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: the array has 16 bytes; wasm stores accept any alignment.
    unsafe { v128_store(bytes.as_mut_ptr().cast(), x) };
    bytes
}

#[inline(always)]
pub(super) fn field_lanes(low: &[i8; 16], high: &[i8; 16]) -> [[i8; 16]; 2] {
    let (low, high) = (i8x16_add(load_bytes(low), i8x16_splat(8)), i8x16_shl(load_bytes(high), 4));
    interleave::<1>(low, high).map(stored)
}

#[inline(always)]
pub(super) fn swap_middles(quads: &[i8; 16]) -> [i8; 16] {
    let quads = load_bytes(quads);
    stored(i8x16_shuffle::<0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15>(quads, quads))
}

#[inline(always)]
pub(super) fn half_bytes(before: &[i8; 16], at: &[i8; 16]) -> [i8; 16] {
    let at = load_bytes(at);
    let high = i8x16_shuffle::<15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30>(load_bytes(before), at);
    stored(v128_bitselect(at, high, i8x16_splat(0x0f)))
}

#[inline(always)]
pub(super) fn turn<const UNIT: usize, const N: usize>(rows: [&[i8; 16]; N]) -> [[i8; 16]; N] {
    let mut turned = rows.map(load_bytes);
    // As riffling a deck of N rows deals them out: after log2 N times, those that were a row apart are neighbours.
    for _ in 0..N.ilog2() {
        let before = turned;
        for i in 0..N / 2 {
            [turned[2 * i], turned[2 * i + 1]] = interleave::<UNIT>(before[i], before[i + N / 2]);
        }
    }
    turned.map(stored)
}

#[inline(always)]
fn interleave<const UNIT: usize>(a: v128, b: v128) -> [v128; 2] {
    match UNIT {
        1 => [
            i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b),
            i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b),
        ],
        2 => [i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b), i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b)],
        _ => [i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b)],
    }
}
