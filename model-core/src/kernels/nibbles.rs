//! Codes of half a byte, multiplied without being unpacked.
//!
//! A byte holds `code + 8` of a row in its low half and `code'` of the fourth row after it in its high half, so as a
//! signed number it is `16 * code' + (code + 8)`. Where instructions count, bytes are multiplied without being unpacked:
//!
//! ```text
//! Σ code * x        = Σ (byte & 15) * x  -  8 * Σ x
//! 16 * Σ code' * x  = Σ byte * x  -  Σ (byte & 15) * x
//! ```
//!
//! and elsewhere unpacked to `code` and `16 * code'`. All sums are exact in `i32`. The factor 16 goes into the scale, which
//! stands in memory divided by it; both are powers of two, so that every product has the bits that it has with a byte for
//! each code.

use super::isa::{Isa, Rows, for_16};
use super::product::Product;
use super::source::{Inputs, PAIRS, Source, multiply_shared};
use crate::pack::layout::{COLUMNS, ROWS, Width};

/// Two rows to a byte.
pub(super) struct Nibbles;

/// Bytes of a column pair.
const PAIR_BYTES: usize = ROWS;

/// What [`Nibbles`] keeps: bytes and their low halves, and of the last token the product of the latter.
pub(super) struct Kept<I: Isa> {
    bytes: [I::Codes; PAIRS],
    halves: [I::Codes; PAIRS],
    low: I::Ints,
}

impl Source for Nibbles {
    const GROUP_COLUMNS: usize = COLUMNS;
    const CODE_BYTES: usize = Width::Nibble.code_bytes(COLUMNS);

    /// `8 Σ x`
    type Group<I: Isa> = I::Ints;

    #[inline(always)]
    unsafe fn group<I: Isa>(product: Product, group: usize) -> Self::Group<I> {
        // SAFETY: the caller names a group that exists, and sums are there.
        unsafe { I::splat_int(8 * *product.sums.add(group)) }
    }

    /// For eight lanes or more.
    #[inline(always)]
    unsafe fn multiply<I: Isa, const T: usize>(codes: Rows, x: impl Inputs<I>) -> [I::Ints; T] {
        // SAFETY: 8 bytes stand at `codes` for each pair.
        unsafe { multiply_shared::<I, T>(x, |step| I::row_codes8(codes.add(2 * PAIR_BYTES * step))) }
    }

    type Kept<I: Isa> = Kept<I>;

    /// For four lanes: part 0 has the low codes, part 1 the high ones.
    #[inline(always)]
    unsafe fn multiply_part<I: Isa>(
        codes: *const u8,
        part: usize,
        first: bool,
        kept: *mut Self::Kept<I>,
        x: impl Fn(usize) -> I::Pair,
        eightfold_sum: Self::Group<I>,
    ) -> I::Ints {
        // SAFETY: 8 bytes stand at `codes` for each pair; what is kept is read after it was written.
        unsafe {
            let mut sums = I::zero();
            for_16!(PAIR, {
                let (bytes, halves) = (&raw mut (*kept).bytes[PAIR], &raw mut (*kept).halves[PAIR]);
                if first && part == 0 {
                    bytes.write(I::codes8(codes.add(PAIR_BYTES * PAIR).cast()));
                    halves.write(I::low_nibbles(bytes.read()));
                }
                sums = I::dot_add(sums, if part == 0 { halves.read() } else { bytes.read() }, x(PAIR));
            });
            let low = &raw mut (*kept).low;
            if part == 0 {
                low.write(sums);
                I::sub_int(sums, eightfold_sum)
            } else {
                I::sub_int(sums, low.read())
            }
        }
    }
}
