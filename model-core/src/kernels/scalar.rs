//! The reference instance of [`Isa`]: plain Rust, on every target.

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::isa::Rows;
use super::ternary::Lookup;

#[derive(Clone, Copy)]
pub(super) struct Scalar;

impl Isa for Scalar {
    const LANES: usize = 8;

    type Ints = [i32; 8];
    type Floats = [f32; 8];
    type Pair = [i16; 2];
    type Codes = [[i16; 2]; 8];

    const HOLDS_ACTIVATIONS: bool = false;
    /// Nothing is gained by more, but much that compiles slowly.
    const BATCH: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn pair(x: *const i16) -> Self::Pair {
        // SAFETY: the caller vouches for two values at `x`.
        unsafe { x.cast::<[i16; 2]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn codes8(codes: *const i8) -> Self::Codes {
        // SAFETY: the caller vouches for 16 codes at `codes`.
        let codes = unsafe { codes.cast::<[[i8; 2]; 8]>().read_unaligned() };
        codes.map(|pair| pair.map(i16::from))
    }

    #[inline(always)]
    unsafe fn codes16(codes: *const i16) -> Self::Codes {
        // SAFETY: the caller vouches for 16 codes at `codes`.
        unsafe { codes.cast::<[[i16; 2]; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn dot_add(mut sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        for (sum, code) in sum.iter_mut().zip(codes) {
            *sum += i32::from(code[0]) * i32::from(x[0]) + i32::from(code[1]) * i32::from(x[1]);
        }
        sum
    }

    #[inline(always)]
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes {
        codes.map(|pair| pair.map(|code| code & 0x0f))
    }

    #[inline(always)]
    unsafe fn unpack(shared: Self::Codes) -> [Self::Codes; 2] {
        [0, 4].map(|first| {
            std::array::from_fn(|i| {
                shared[first + i % 4].map(|both| if i < 4 { (both & 0x0f) - 8 } else { both & !0x0f })
            })
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    unsafe fn packed_fields(at: *const u8) -> Self::Codes {
        // SAFETY: the caller vouches for 17 bytes at `at`.
        let [one, two] = [0, 1].map(|i| unsafe { at.add(i).cast::<[[i16; 2]; 4]>().read_unaligned() });
        let lanes = |i: usize| if i < 4 { one[i] } else { two[i - 4] };
        std::array::from_fn(|i| lanes(i).map(|lane| lane & !0x0ff0))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn row_quads(rows: Rows) -> [Self::Codes; 2] {
        // SAFETY: the caller vouches for 33 bytes at `rows`.
        let [low, high] = [0, 1].map(|i| unsafe { rows.at.add(i).cast::<[[[u8; 4]; 4]; 2]>().read_unaligned() });
        let pairs = |[a, b, c, d]: [u8; 4]| [[a, b], [c, d]].map(i16::from_le_bytes);
        [0, 1].map(|quad| {
            std::array::from_fn(|row| match row.checked_sub(4) {
                None => pairs(low[quad][row].map(|byte| byte & 0x0f)),
                Some(row) => pairs(high[quad][row].map(|byte| byte >> 4 ^ 8)),
            })
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn dot_add_quads(mut sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        for (sum, codes) in sum.iter_mut().zip(codes) {
            for (codes, x) in codes.into_iter().zip(x) {
                let products = codes.to_le_bytes().into_iter().zip(x.to_le_bytes());
                *sum += products.map(|(code, x)| i32::from(code) * i32::from(x as i8)).sum::<i32>();
            }
        }
        sum
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn ints([low, high]: Self::Pair) -> Self::Ints {
        [i32::from(high) << 16 | i32::from(low as u16); 8]
    }

    #[inline(always)]
    unsafe fn low_fields(ints: Self::Ints) -> Self::Ints {
        ints.map(|ints| ints & 0xfff)
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::Ints {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn add_int(mut a: Self::Ints, b: Self::Ints) -> Self::Ints {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    }

    #[inline(always)]
    unsafe fn sub_int(mut a: Self::Ints, b: Self::Ints) -> Self::Ints {
        a.iter_mut().zip(b).for_each(|(a, b)| *a -= b);
        a
    }

    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        ints.map(|v| v as f32)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: the caller vouches for eight values at `from`.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, floats: Self::Floats) {
        // SAFETY: the caller vouches for room for eight values at `to`.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(floats) }
    }

    #[inline(always)]
    unsafe fn mul(mut a: Self::Floats, b: Self::Floats) -> Self::Floats {
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
        a
    }

    #[inline(always)]
    unsafe fn add(mut a: Self::Floats, b: Self::Floats) -> Self::Floats {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    }
}

impl Lookup for Scalar {
    type Indices = [[[u8; 2]; 8]; 2];
    type Table = [[i8; 16]; 2];
    type Shorts = [i16; 8];

    #[inline(always)]
    unsafe fn no_shorts() -> Self::Shorts {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn indices(at: *const u8) -> Self::Indices {
        // SAFETY: the caller vouches for 32 bytes at `at`.
        unsafe { at.cast::<Self::Indices>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn packed_indices(at: *const u8) -> Self::Indices {
        // SAFETY: the caller vouches for 16 bytes at `at`.
        let both = unsafe { at.cast::<[[u8; 2]; 8]>().read_unaligned() };
        [both.map(|row| row.map(|byte| byte & 0x0f)), both.map(|row| row.map(|byte| byte >> 4))]
    }

    #[inline(always)]
    unsafe fn table(at: *const u8) -> Self::Table {
        // SAFETY: the caller vouches for 32 bytes at `at`.
        unsafe { at.cast::<Self::Table>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn look_up_add(mut sums: Self::Shorts, tables: Self::Table, indices: Self::Indices) -> Self::Shorts {
        for (table, indices) in tables.iter().zip(indices) {
            for (sum, row) in sums.iter_mut().zip(indices) {
                *sum += row.into_iter().map(|index| i16::from(table[usize::from(index & 0x0f)])).sum::<i16>();
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn total(low: Self::Shorts, high: Self::Shorts, _part: usize) -> Self::Ints {
        core::array::from_fn(|row| i32::from(low[row]) + 256 * i32::from(high[row]))
    }
}
