//! Where the integers of a product come from: codes of weights on one side, activations on the other.

use super::columns_outer::{Groups, Held, Kept, add_blocks};
use super::isa::{Isa, Rows, for_16, for_tokens};
use super::product::Product;
use crate::pack::layout::{COLUMNS, OFFSET_PAIR_BYTES, ROWS, SCALES_BYTES, Width};

/// Column pairs of a block, and group pairs of a section.
pub(super) const PAIRS: usize = COLUMNS / 2;

/// Up to 16 pairs of codes for each of some tokens: the activations of one group, or the sums of a section's groups.
pub(super) trait Inputs<I: Isa>: Copy {
    /// One pair of one token, repeated for every row.
    ///
    /// # Safety
    /// As [`Isa`]; the token and the pair exist.
    unsafe fn pair(self, token: usize, pair: usize) -> I::Pair;
}

/// Inputs that are read where they are needed.
#[derive(Clone, Copy)]
pub(super) struct InMemory {
    /// The first token's.
    pub codes: *const i16,
    /// Codes between neighbouring tokens.
    pub stride: usize,
}

impl<I: Isa> Inputs<I> for InMemory {
    #[inline(always)]
    unsafe fn pair(self, token: usize, pair: usize) -> I::Pair {
        // SAFETY: the caller names a token and a pair that exist.
        unsafe { I::pair(self.codes.add(token * self.stride + 2 * pair)) }
    }
}

/// How the codes of a block stand in memory, and their product with activations.
pub(super) trait Source {
    /// Columns that share a scale: all of a block, or half of them.
    const GROUP_COLUMNS: usize;
    /// Bytes of a group's codes. Its scales follow them.
    const CODE_BYTES: usize;
    /// Bytes of a group.
    const GROUP_BYTES: usize = Self::CODE_BYTES + SCALES_BYTES;
    /// Groups of a block.
    const GROUPS: usize = COLUMNS / Self::GROUP_COLUMNS;
    /// Bytes of a block.
    const BLOCK_BYTES: usize = Self::GROUPS * Self::GROUP_BYTES;
    /// Codes from the activations of a group to those of the next one.
    const INPUT_CODES: usize = Self::GROUP_COLUMNS;
    /// Whether activations have a scale for each group instead of one in all.
    const SCALES_GROUPS: bool = false;

    /// What the activations of a group have besides codes, in registers.
    type Group<I: Isa>: Copy;

    /// Loads it for a group of the first token, or, after the last one, for the groups of the others.
    ///
    /// # Safety
    /// As [`Isa`]; the group exists, and what the source reads of the activations is there.
    unsafe fn group<I: Isa>(product: Product, group: usize) -> Self::Group<I>;

    /// The products of a group with the scale of its activations, if it has one.
    ///
    /// # Safety
    /// As [`Isa`].
    #[inline(always)]
    unsafe fn scale<I: Isa>(products: I::Floats, _group: Self::Group<I>) -> I::Floats {
        products
    }

    /// The scales of the rows of a group, which stand at `scales`.
    ///
    /// # Safety
    /// As [`Isa`].
    #[inline(always)]
    unsafe fn row_scales<I: Isa>(scales: Rows) -> I::Floats {
        // SAFETY: passed on.
        unsafe { I::row_floats(scales) }
    }

    /// [`add_blocks`], as a method of the source: the compiler knows which one only when all parameters are known, and so does not
    /// copy its hundreds of steps into each caller before it has left out those that do nothing, which took it 10 GB of memory.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn add_blocks<I: Isa, const T: usize, const G: usize>(
        acc: I::Floats,
        blocks: *const u8,
        x: (&Held<I, T, G>, &Groups<I, Self, T, G>),
        kept: &mut Kept<I, Self, G>,
        token: usize,
        part: usize,
    ) -> I::Floats
    where
        Self: Sized,
    {
        // SAFETY: passed on.
        unsafe { add_blocks::<I, Self, T, G>(acc, blocks, x, kept, token, part) }
    }

    /// Multiplies one group of columns of each row group: for T tokens, the exact `Σ code * x_code` of every row.
    ///
    /// # Safety
    /// As [`Isa`]; a group's codes stand at `codes`, and `x` has T tokens and its pairs.
    unsafe fn multiply<I: Isa, const T: usize>(codes: Rows, x: impl Inputs<I>) -> [I::Ints; T];

    /// What the parts and tokens of a group share in [`Source::multiply_part`].
    type Kept<I: Isa>;

    /// The same for one token and one part of the rows, as many as the `Isa` has lanes. Loads are `kept` if this is the
    /// first token, else they come from there. `x` gives the activation pairs, `group` what else they have.
    ///
    /// # Safety
    /// As [`Isa`]; a group's codes stand at `codes`. Before, in this order: the parts before this one for the first
    /// token, and for others this part for the first token.
    unsafe fn multiply_part<I: Isa>(
        codes: *const u8,
        part: usize,
        first: bool,
        kept: *mut Self::Kept<I>,
        x: impl Fn(usize) -> I::Pair,
        group: Self::Group<I>,
    ) -> I::Ints;
}

/// A byte per code, C columns to a scale.
pub(super) struct Wide<const C: usize>;

impl<const C: usize> Source for Wide<C> {
    const GROUP_COLUMNS: usize = C;
    const CODE_BYTES: usize = Width::Byte.code_bytes(C);

    type Group<I: Isa> = ();

    #[inline(always)]
    unsafe fn group<I: Isa>(_product: Product, _group: usize) -> Self::Group<I> {}

    #[inline(always)]
    unsafe fn multiply<I: Isa, const T: usize>(codes: Rows, x: impl Inputs<I>) -> [I::Ints; T] {
        // SAFETY: 16 bytes stand at `codes` for each pair.
        unsafe { multiply_pairs::<I, T>(C / 2, x, |pair| I::row_codes8(codes.add(2 * ROWS * pair))) }
    }

    type Kept<I: Isa> = [[I::Codes; PAIRS]; 2];

    #[inline(always)]
    unsafe fn multiply_part<I: Isa>(
        codes: *const u8,
        part: usize,
        first: bool,
        kept: *mut Self::Kept<I>,
        x: impl Fn(usize) -> I::Pair,
        (): Self::Group<I>,
    ) -> I::Ints {
        // SAFETY: 16 bytes stand at `codes` for each pair; codes are read after they were kept.
        unsafe {
            let mut sums = I::zero();
            for_16!(PAIR, {
                if 2 * PAIR < C {
                    let kept = &raw mut (*kept)[part][PAIR];
                    if first {
                        kept.write(I::codes8(codes.add(2 * ROWS * PAIR + 2 * I::LANES * part).cast()));
                    }
                    sums = I::dot_add(sums, kept.read(), x(PAIR));
                }
            });
            sums
        }
    }
}

/// Multiplies a section of the offset strip: for T tokens, the exact `Σ offset_code * sum_code` of every row.
///
/// # Safety
/// As [`Isa`]; `pairs` pairs of offset codes stand at `codes`, and `x` has T tokens and as many pairs.
#[inline(always)]
pub(super) unsafe fn multiply_offsets<I: Isa, const T: usize>(
    codes: Rows,
    pairs: usize,
    x: impl Inputs<I>,
) -> [I::Ints; T] {
    // SAFETY: 32 bytes stand at `codes` for each pair.
    unsafe { multiply_pairs::<I, T>(pairs, x, |pair| I::row_codes16(codes.add(OFFSET_PAIR_BYTES * pair))) }
}

/// For T tokens, `Σ code * x_code` of every row over `pairs` pairs of columns, whose codes `codes` gives.
///
/// # Safety
/// As [`Isa`]; `x` has T tokens and as many pairs.
#[inline(always)]
unsafe fn multiply_pairs<I: Isa, const T: usize>(
    pairs: usize,
    x: impl Inputs<I>,
    codes: impl Fn(usize) -> I::Codes,
) -> [I::Ints; T] {
    // SAFETY: passed on.
    unsafe {
        let mut sums = [I::zero(); T];
        for_16!(PAIR, {
            if PAIR < pairs {
                let codes = codes(PAIR);
                for_tokens!(TOKEN < T, {
                    sums[TOKEN] = I::dot_add(sums[TOKEN], codes, x.pair(TOKEN, PAIR));
                });
            }
        });
        sums
    }
}

/// The same over a block whose codes stand two to a lane, for eight lanes or more: `shared` gives the codes of pairs `2 * step`
/// and `2 * step + 1` as [`Isa::unpack`] takes them.
///
/// # Safety
/// As [`Isa`]; `x` has T tokens and all pairs.
#[inline(always)]
pub(super) unsafe fn multiply_shared<I: Isa, const T: usize>(
    x: impl Inputs<I>,
    shared: impl Fn(usize) -> I::Codes,
) -> [I::Ints; T] {
    // SAFETY: passed on.
    unsafe {
        let mut sums = [I::zero(); T];
        for_16!(@ STEP, {
            let [one, two] = I::unpack(shared(STEP));
            for_tokens!(TOKEN < T, {
                sums[TOKEN] = I::dot_add(sums[TOKEN], one, x.pair(TOKEN, 2 * STEP));
                sums[TOKEN] = I::dot_add(sums[TOKEN], two, x.pair(TOKEN, 2 * STEP + 1));
            });
        }, 0 1 2 3 4 5 6 7);
        sums
    }
}

/// The same for one token and one part of the rows; see [`Source::multiply_part`].
///
/// # Safety
/// As there and here.
#[inline(always)]
pub(super) unsafe fn multiply_offsets_part<I: Isa>(
    codes: *const u8,
    pairs: usize,
    part: usize,
    first: bool,
    kept: *mut [[I::Codes; PAIRS]; 2],
    x: impl Fn(usize) -> I::Pair,
) -> I::Ints {
    // SAFETY: 32 bytes stand at `codes` for each pair; codes are read after they were kept.
    unsafe {
        let mut sums = I::zero();
        for_16!(PAIR, {
            if PAIR < pairs {
                let kept = &raw mut (*kept)[part][PAIR];
                if first {
                    kept.write(I::codes16(codes.add(OFFSET_PAIR_BYTES * PAIR + 4 * I::LANES * part).cast()));
                }
                sums = I::dot_add(sums, kept.read(), x(PAIR));
            }
        });
        sums
    }
}
