//! Packed fields where bytes are multiplied four at a time, which x86 can: products with activations of 8 bits.
//!
//! The low halves of 16 bytes are the codes plus 8 of four columns and four rows, and the high halves of the 16 bytes that begin
//! one further on, with their sign turned over, those of the four other rows (see [`crate::pack::layout`]). So
//!
//! ```text
//! Σ code * x  =  Σ (code + 8) * x  -  8 Σ x
//! ```
//!
//! where sums begin with the last term, which stands with the activations. All sums are exact, and those of [`super::fields`]. The
//! factor 4096 that is missing from the second four rows goes into their scales; it is a power of two.

use super::isa::{Isa, Rows, for_16, for_tokens};
use super::product::Product;
use super::source::{Inputs, Source};
use crate::math::lanes::swap_middles;
use crate::pack::layout::{COLUMNS, QUAD, QUAD_BYTES, ROWS, Width};

/// The activations of a block as pairs of bytes: its columns, in each quad the first and the third, then the second and the
/// fourth; and `-8 Σ x`, an `i32`, little-endian.
pub(super) type Block = [i16; BLOCK_CODES];

/// Of a block's activations.
pub(super) const BLOCK_CODES: usize = COLUMNS / 2 + 2;
/// Column quads of a block.
const QUADS: usize = COLUMNS / QUAD;

/// The activations of a block.
#[inline(always)]
pub(super) fn block(codes: &[i16; COLUMNS], sum: i32) -> Block {
    let mut bytes = [0; COLUMNS];
    for (byte, code) in bytes.iter_mut().zip(codes) {
        *byte = *code as i8;
    }
    let mut block = [0; BLOCK_CODES];
    let (columns, bias) = block.split_at_mut(COLUMNS / 2);
    for (pairs, quads) in columns.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks().0) {
        let quads = swap_middles(quads);
        for (pair, bytes) in pairs.iter_mut().zip(quads.as_chunks::<2>().0) {
            *pair = i16::from_le_bytes([bytes[0] as u8, bytes[1] as u8]);
        }
    }
    bias.copy_from_slice(&[-8 * sum, (-8 * sum) >> 16].map(|half| half as i16));
    block
}

/// Two rows to a byte.
pub(super) struct Bytes;

impl Bytes {
    /// What the scales of a row group lack.
    const FACTORS: [f32; 2 * ROWS] = {
        let mut factors = [1.0; 2 * ROWS];
        let mut row = 0;
        while row < factors.len() {
            if row % ROWS >= ROWS / 2 {
                factors[row] = 1.0 / Width::PackedFields.high_scale();
            }
            row += 1;
        }
        factors
    };

    /// The sums of all rows for T tokens, whose activations `x` gives as four bytes each.
    #[inline(always)]
    unsafe fn sums<I: Isa, const T: usize>(codes: Rows, x: impl Fn(usize, usize) -> I::Pair) -> [I::Ints; T] {
        // SAFETY: a byte follows the 16 of each quad.
        unsafe {
            let mut sums = [I::zero(); T];
            for_tokens!(TOKEN < T, {
                sums[TOKEN] = I::ints(x(TOKEN, QUADS));
            });
            for_16!(@ STEP, {
                let [one, two] = I::row_quads(codes.add(2 * QUAD_BYTES * STEP));
                for_tokens!(TOKEN < T, {
                    sums[TOKEN] = I::dot_add_quads(sums[TOKEN], one, x(TOKEN, 2 * STEP));
                    sums[TOKEN] = I::dot_add_quads(sums[TOKEN], two, x(TOKEN, 2 * STEP + 1));
                });
            }, 0 1 2 3);
            sums
        }
    }
}

impl Source for Bytes {
    const GROUP_COLUMNS: usize = COLUMNS;
    const CODE_BYTES: usize = Width::PackedFields.code_bytes(COLUMNS);
    const INPUT_CODES: usize = BLOCK_CODES;
    const SCALES_GROUPS: bool = true;

    /// The scale.
    type Group<I: Isa> = I::Floats;

    #[inline(always)]
    unsafe fn group<I: Isa>(product: Product, group: usize) -> Self::Group<I> {
        // SAFETY: the caller names a group that exists, and activations of 8 bits are there.
        unsafe { I::splat(*product.block_scales.add(group)) }
    }

    #[inline(always)]
    unsafe fn scale<I: Isa>(products: I::Floats, scale: Self::Group<I>) -> I::Floats {
        // SAFETY: passed on.
        unsafe { I::mul(products, scale) }
    }

    #[inline(always)]
    unsafe fn row_scales<I: Isa>(scales: Rows) -> I::Floats {
        // SAFETY: passed on; there are factors for 16 lanes.
        unsafe { I::mul(I::row_floats(scales), I::load(Self::FACTORS.as_ptr())) }
    }

    #[inline(always)]
    unsafe fn multiply<I: Isa, const T: usize>(codes: Rows, x: impl Inputs<I>) -> [I::Ints; T] {
        // SAFETY: passed on.
        unsafe { Self::sums::<I, T>(codes, |token, pair| x.pair(token, pair)) }
    }

    type Kept<I: Isa> = ();

    /// For eight lanes, whose only part has all rows.
    #[inline(always)]
    unsafe fn multiply_part<I: Isa>(
        codes: *const u8,
        _part: usize,
        _first: bool,
        _kept: *mut Self::Kept<I>,
        x: impl Fn(usize) -> I::Pair,
        _scale: Self::Group<I>,
    ) -> I::Ints {
        // SAFETY: passed on.
        let [sums] = unsafe { Self::sums::<I, 1>(Rows { at: codes, next: 0 }, |_, pair| x(pair)) };
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_the_low_bytes_of_its_codes_and_eight_times_their_sum() {
        let codes: [i16; COLUMNS] = core::array::from_fn(|i| if i % 3 == 0 { -127 + i as i16 } else { 127 - i as i16 });
        let sum = codes.iter().map(|code| i32::from(*code)).sum();
        let bytes: Vec<u8> = block(&codes, sum).into_iter().flat_map(i16::to_le_bytes).collect();
        let (columns, bias) = bytes.split_at(COLUMNS);
        for (i, byte) in columns.iter().enumerate() {
            assert_eq!(i16::from(*byte as i8), codes[i / QUAD * QUAD + [0, 2, 1, 3][i % QUAD]]);
        }
        assert_eq!(i32::from_le_bytes(bias.try_into().unwrap()), -8 * sum);
    }
}
