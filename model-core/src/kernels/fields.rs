//! Codes of four bits, two of which are multiplied at once.
//!
//! A lane of 16 bits is `code + 8 + 4096 * code'`, with a row's code and that of the fourth row after it. Over eight columns,
//!
//! ```text
//! Σ lane * x  +  2048 - 8 Σ x   =   (Σ code * x + 2048)  +  4096 * Σ code' * x
//! ```
//!
//! where the first term is from 0 to 4095, as activations of 8 bits guarantee: it is what the low 12 bits hold. Elsewhere than in
//! WebAssembly, lanes are taken apart to `code` and `4096 * code'`, and multiplied one after the other. All sums are exact. The
//! factor 4096 goes into the scale, which stands in memory divided by it. So every way gives the same bits.

use core::marker::PhantomData;

use super::activations8::FIELD_BIAS;
use super::isa::{Isa, Rows, for_16};
use super::product::Product;
use super::source::{Inputs, PAIRS, Source, multiply_shared};
use crate::pack::layout::{COLUMNS, FIELD_COLUMNS, QUAD_BYTES, Width};

/// How lanes stand in memory.
pub(super) trait Lanes {
    const WIDTH: Width;

    /// The lanes of a column pair, for four lanes.
    ///
    /// # Safety
    /// As [`Isa`]; the pair belongs to the group at `codes`.
    unsafe fn pair<I: Isa>(codes: *const u8, pair: usize) -> I::Codes;

    /// The lanes of pairs `2 * step` and `2 * step + 1` of each row group, for eight lanes or more.
    ///
    /// # Safety
    /// As [`Isa`]; the pairs belong to the groups at `codes`.
    unsafe fn two_pairs<I: Isa>(codes: Rows, step: usize) -> I::Codes;
}

/// Side by side.
pub(super) struct Wide;

impl Lanes for Wide {
    const WIDTH: Width = Width::Fields;

    #[inline(always)]
    unsafe fn pair<I: Isa>(codes: *const u8, pair: usize) -> I::Codes {
        // SAFETY: passed on.
        unsafe { I::codes16(codes.add(pair * QUAD_BYTES).cast()) }
    }

    #[inline(always)]
    unsafe fn two_pairs<I: Isa>(codes: Rows, step: usize) -> I::Codes {
        // SAFETY: passed on.
        unsafe { I::row_codes16(codes.add(2 * QUAD_BYTES * step)) }
    }
}

/// A byte apart; x86 has something better, see [`super::bytes`].
#[cfg(not(target_arch = "x86_64"))]
pub(super) struct Packed;

#[cfg(not(target_arch = "x86_64"))]
impl Lanes for Packed {
    const WIDTH: Width = Width::PackedFields;

    #[inline(always)]
    unsafe fn pair<I: Isa>(codes: *const u8, pair: usize) -> I::Codes {
        // SAFETY: passed on.
        unsafe { I::packed_fields(codes.add(pair / 2 * QUAD_BYTES + pair % 2)) }
    }

    #[inline(always)]
    unsafe fn two_pairs<I: Isa>(codes: Rows, step: usize) -> I::Codes {
        // SAFETY: passed on; row groups share registers on x86 only.
        unsafe { I::packed_fields(codes.add(QUAD_BYTES * step).at) }
    }
}

/// Two rows to a lane.
pub(super) struct Fields<L>(PhantomData<L>);

pub(super) type WideFields = Fields<Wide>;
#[cfg(not(target_arch = "x86_64"))]
pub(super) type PackedFields = Fields<Packed>;

/// Fields of a block.
const EIGHTHS: usize = COLUMNS / FIELD_COLUMNS;
/// Column pairs of a field.
const FIELD_PAIRS: usize = FIELD_COLUMNS / 2;

/// What [`Fields`] keeps: lanes, and of the last token the sums of the rows in the high fields.
pub(super) struct Kept<I: Isa> {
    lanes: [I::Codes; PAIRS],
    high: I::Ints,
}

/// What the activations of a block have besides codes.
#[derive(Clone, Copy)]
pub(super) struct Block<I: Isa> {
    /// What the sums of fields begin with.
    biases: [I::Ints; EIGHTHS],
    scale: I::Floats,
}

impl<L: Lanes> Fields<L> {
    /// The sums of the low rows and, in `high`, of the high rows.
    #[inline(always)]
    unsafe fn multiply_fields<I: Isa>(
        codes: *const u8,
        first: bool,
        kept: *mut Kept<I>,
        x: impl Fn(usize) -> I::Pair,
        block: Block<I>,
    ) -> I::Ints {
        // SAFETY: as `multiply_part`.
        unsafe {
            let (mut low, mut all) = (I::zero(), I::zero());
            for_16!(@ EIGHTH, {
                let mut sums = block.biases[EIGHTH];
                for_16!(@ STEP, {
                    const PAIR: usize = EIGHTH * FIELD_PAIRS + STEP;
                    let lanes = &raw mut (*kept).lanes[PAIR];
                    if first {
                        lanes.write(L::pair::<I>(codes, PAIR));
                    }
                    sums = I::dot_add(sums, lanes.read(), x(PAIR));
                }, 0 1 2 3);
                let fields = I::low_fields(sums);
                (low, all) = if EIGHTH == 0 { (fields, sums) } else { (I::add_int(low, fields), I::add_int(all, sums)) };
            }, 0 1 2 3);
            (*kept).high = I::sub_int(all, low);
            I::sub_int(low, I::splat_int(EIGHTHS as i32 * FIELD_BIAS))
        }
    }
}

impl<L: Lanes> Source for Fields<L> {
    const GROUP_COLUMNS: usize = COLUMNS;
    const CODE_BYTES: usize = L::WIDTH.code_bytes(COLUMNS);
    const SCALES_GROUPS: bool = true;

    type Group<I: Isa> = Block<I>;

    #[inline(always)]
    unsafe fn group<I: Isa>(product: Product, group: usize) -> Self::Group<I> {
        // SAFETY: the caller names a group that exists, and activations of 8 bits are there.
        unsafe {
            let bias = |eighth: usize| I::splat_int(*product.sums.add(group * EIGHTHS + eighth));
            let biases = [bias(0), bias(1), bias(2), bias(3)];
            Block { biases, scale: I::splat(*product.block_scales.add(group)) }
        }
    }

    #[inline(always)]
    unsafe fn scale<I: Isa>(products: I::Floats, block: Self::Group<I>) -> I::Floats {
        // SAFETY: passed on.
        unsafe { I::mul(products, block.scale) }
    }

    /// For eight lanes or more.
    #[inline(always)]
    unsafe fn multiply<I: Isa, const T: usize>(codes: Rows, x: impl Inputs<I>) -> [I::Ints; T] {
        // SAFETY: the lanes of two pairs stand in 32 bytes at `codes`, or packed in 17.
        unsafe { multiply_shared::<I, T>(x, |step| L::two_pairs::<I>(codes, step)) }
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
        block: Self::Group<I>,
    ) -> I::Ints {
        // SAFETY: passed on; what is kept is read after it was written.
        unsafe { if part == 0 { Self::multiply_fields::<I>(codes, first, kept, x, block) } else { (*kept).high } }
    }
}
