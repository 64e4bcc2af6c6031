//! The lanes as arrays: plain Rust, which compilers vectorise.

use std::array::from_fn;

#[cfg(target_arch = "x86_64")]
pub(super) use super::sse2::{code_totals, totals};

pub(super) type Floats = [f32; 4];
pub(super) type Ints = [i32; 4];

#[inline(always)]
pub(super) fn splat(value: f32) -> Floats {
    [value; 4]
}

#[inline(always)]
pub(super) fn splat_ints(value: i32) -> Ints {
    [value; 4]
}

#[inline(always)]
pub(super) fn load(from: &[f32; 4]) -> Floats {
    *from
}

#[inline(always)]
pub(super) fn store(x: Floats, to: &mut [f32; 4]) {
    *to = x;
}

#[inline(always)]
pub(super) fn add(a: Floats, b: Floats) -> Floats {
    from_fn(|i| a[i] + b[i])
}

#[inline(always)]
pub(super) fn sub(a: Floats, b: Floats) -> Floats {
    from_fn(|i| a[i] - b[i])
}

#[inline(always)]
pub(super) fn mul(a: Floats, b: Floats) -> Floats {
    from_fn(|i| a[i] * b[i])
}

#[inline(always)]
pub(super) fn div(a: Floats, b: Floats) -> Floats {
    from_fn(|i| a[i] / b[i])
}

#[inline(always)]
pub(super) fn or_larger(a: Floats, b: Floats) -> Floats {
    from_fn(|i| if a[i] < b[i] { b[i] } else { a[i] })
}

#[inline(always)]
pub(super) fn or_smaller(a: Floats, b: Floats) -> Floats {
    from_fn(|i| if b[i] < a[i] { b[i] } else { a[i] })
}

#[inline(always)]
pub(super) fn add_exponent(x: Floats, exponent: Floats) -> Floats {
    from_fn(|i| f32::from_bits(x[i].to_bits().wrapping_add(exponent[i].to_bits() << 23)))
}

#[inline(always)]
pub(super) fn magnitude(x: Floats) -> Floats {
    x.map(f32::abs)
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn totals(fours: [Floats; 4]) -> Floats {
    // Column by column, which the compiler turns into vectors.
    let column = |column: usize| from_fn(|i| fours[i][column]);
    add(add(column(0), column(2)), add(column(1), column(3)))
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn code_totals(eights: [&[i16; 8]; 4]) -> Ints {
    eights.map(|codes| i32::from(codes.iter().sum::<i16>()))
}

#[inline(always)]
pub(super) fn eightfold(x: Ints) -> Ints {
    x.map(|x| 8 * x)
}

#[inline(always)]
pub(super) fn sub_ints(a: Ints, b: Ints) -> Ints {
    from_fn(|i| a[i] - b[i])
}

#[inline(always)]
pub(super) fn store_ints(x: Ints, to: &mut [i32; 4]) {
    *to = x;
}

#[inline(always)]
pub(super) fn swap_pairs(x: Floats) -> Floats {
    [x[1], x[0], x[3], x[2]]
}

#[inline(always)]
pub(super) fn bits(x: Floats) -> Ints {
    x.map(|x| x.to_bits() as i32)
}

#[inline(always)]
pub(super) fn magnitude_bits(x: Floats) -> Ints {
    x.map(|x| (x.to_bits() & 0x7fff_ffff) as i32)
}

#[inline(always)]
pub(super) fn max(a: Ints, b: Ints) -> Ints {
    from_fn(|i| a[i].max(b[i]))
}

#[inline(always)]
pub(super) fn most(x: Floats) -> f32 {
    let larger = |a: f32, b: f32| if a < b { b } else { a };
    larger(larger(x[0], x[2]), larger(x[1], x[3]))
}

#[inline(always)]
pub(super) fn most_int(x: Ints) -> i32 {
    x[0].max(x[1]).max(x[2]).max(x[3])
}

#[inline(always)]
pub(super) fn store_low_halves(a: Floats, b: Floats, to: &mut [i16; 8]) {
    *to = from_fn(|i| if i < 4 { a[i].to_bits() as i16 } else { b[i - 4].to_bits() as i16 });
}

#[inline(always)]
pub(super) fn pair_sums(codes: &[i16; 8]) -> Ints {
    from_fn(|i| i32::from(codes[2 * i]) + i32::from(codes[2 * i + 1]))
}

#[inline(always)]
pub(super) fn add_ints(a: Ints, b: Ints) -> Ints {
    from_fn(|i| a[i].wrapping_add(b[i]))
}

#[inline(always)]
pub(super) fn total(x: Ints) -> i32 {
    x.into_iter().fold(0, i32::wrapping_add)
}

#[inline(always)]
pub(super) fn field_lanes(low: &[i8; 16], high: &[i8; 16]) -> [[i8; 16]; 2] {
    let lane = |i: usize| [low[i] + 8, high[i] << 4];
    [0, 8].map(|first| from_fn(|i| lane(first + i / 2)[i % 2]))
}

#[inline(always)]
pub(super) fn swap_middles(quads: &[i8; 16]) -> [i8; 16] {
    from_fn(|i| quads[i / 4 * 4 + [0, 2, 1, 3][i % 4]])
}

#[inline(always)]
pub(super) fn half_bytes(before: &[i8; 16], at: &[i8; 16]) -> [i8; 16] {
    from_fn(|i| at[i] & 0x0f | if i == 0 { before[15] } else { at[i - 1] } & !0x0f)
}

#[inline(always)]
pub(super) fn turn<const UNIT: usize, const N: usize>(rows: [&[i8; 16]; N]) -> [[i8; 16]; N] {
    let mut turned = [[0; 16]; N];
    let units = turned.as_flattened_mut().as_chunks_mut::<UNIT>().0.as_chunks_mut::<N>().0;
    for (unit, to) in units.iter_mut().enumerate() {
        for (to, row) in to.iter_mut().zip(rows) {
            *to = row.as_chunks().0[unit];
        }
    }
    turned
}
