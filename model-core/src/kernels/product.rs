//! The matrix product of coded weights, written once over [`Isa`].
//!
//! For every output row, in the order of the groups of 32 columns:
//!
//! ```text
//! acc = acc + f32(Σ code * x_code) * scale          the sum is exact in i32
//! acc = acc + offset * f32(Σ x_code)                affine formats only
//! y   = acc * x_scale                               once, at the end
//! ```
//!
//! No step depends on how many rows, columns or tokens are walked at a time, so [`rows_outer`] and [`columns_outer`],
//! and any split of the rows over threads, give the same bits.

use super::isa::{Isa, for_16};
use crate::pack::layout::{COLUMNS, OFFSETS_AT, ROWS, SCALES_AT, block_bytes};

/// Tokens that share each loaded weight in a batch.
pub(super) const TOKENS: usize = 4;

/// One coded product over a range of row groups. All pointers are valid for the shapes given; ranges of different
/// calls that run at the same time are disjoint.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// `[row groups, groups]` blocks.
    pub blocks: *const u8,
    /// Groups of 32 columns.
    pub groups: usize,
    /// `[tokens, 32 * groups]`
    pub codes: *const i16,
    /// `[tokens, groups]`
    pub sums: *const f32,
    /// `[tokens]`
    pub scales: *const f32,
    /// Number of activation vectors.
    pub tokens: usize,
    /// `[tokens, y_stride]`
    pub y: *mut f32,
    /// Distance of the outputs of neighbouring tokens.
    pub y_stride: usize,
}

impl Product {
    /// The same product for the tokens from `token` on.
    #[inline(always)]
    unsafe fn at_token(self, token: usize) -> Self {
        // SAFETY: the caller keeps `token` within the batch.
        unsafe {
            Self {
                codes: self.codes.add(token * self.groups * COLUMNS),
                sums: self.sums.add(token * self.groups),
                scales: self.scales.add(token),
                y: self.y.add(token * self.y_stride),
                tokens: self.tokens - token,
                ..self
            }
        }
    }
}

/// Repeats a block for each of `$count` (at most [`TOKENS`]) tokens, for the same reason.
macro_rules! for_tokens {
    ($t:ident < $count:ident, $body:block) => {
        for_16!(@ $t, { if $t < $count { $body } }, 0 1 2 3)
    };
}

/// Computes row groups `first..last` for all tokens. Walks the rows outside where activations come from memory, the
/// columns outside where they are held in registers.
#[inline(always)]
pub(super) unsafe fn multiply<I: Isa, const OFFSETS: bool>(product: Product, first: usize, last: usize) {
    // SAFETY: the caller's promises about `product` are passed on unchanged.
    unsafe {
        let mut token = 0;
        while token + TOKENS <= product.tokens {
            let part = product.at_token(token);
            if I::GROUPS_HELD == 0 {
                rows_outer::<I, TOKENS, OFFSETS>(part, first, last);
            } else {
                columns_outer_batch::<I, OFFSETS>(part, first, last);
            }
            token += TOKENS;
        }
        while token < product.tokens {
            let part = product.at_token(token);
            if I::GROUPS_HELD == 0 {
                rows_outer::<I, 1, OFFSETS>(part, first, last);
            } else {
                columns_outer_single::<I, OFFSETS>(part, first, last);
            }
            token += 1;
        }
    }
}

/// Each row group at once over all columns.
#[inline(always)]
unsafe fn rows_outer<I: Isa, const T: usize, const OFFSETS: bool>(product: Product, first: usize, last: usize) {
    let row_bytes = product.groups * block_bytes(OFFSETS);
    // SAFETY: row groups `first..last` lie inside the matrix and inside `y`; T tokens are left.
    unsafe {
        for row_group in first..last {
            let mut acc = [I::splat(0.0); T];
            let mut block = product.blocks.add(row_group * row_bytes);
            for group in 0..product.groups {
                let x = product.codes.add(group * COLUMNS);
                let mut ints = [I::zero(); T];
                for_16!(PAIR, {
                    let codes = I::codes8(block.add(2 * ROWS * PAIR).cast());
                    for (t, ints) in ints.iter_mut().enumerate() {
                        let pair = I::pair(x.add(t * product.groups * COLUMNS + 2 * PAIR));
                        *ints = I::dot_add(*ints, codes, pair);
                    }
                });
                for t in 0..T {
                    let sum = || *product.sums.add(t * product.groups + group);
                    acc[t] = accumulate::<I, OFFSETS>(acc[t], ints[t], block, || I::splat(sum()));
                }
                block = block.add(block_bytes(OFFSETS));
            }
            for (t, acc) in acc.into_iter().enumerate() {
                let y = product.y.add(t * product.y_stride + row_group * ROWS);
                I::store(y, I::mul(acc, I::splat(*product.scales.add(t))));
            }
        }
    }
}

/// One group's step of the contract.
#[inline(always)]
unsafe fn accumulate<I: Isa, const OFFSETS: bool>(
    acc: I::Floats,
    ints: I::Ints,
    block: *const u8,
    sum: impl FnOnce() -> I::Floats,
) -> I::Floats {
    // SAFETY: `block` points to a whole block.
    unsafe {
        let acc = I::add(acc, I::mul(I::to_floats(ints), I::load(block.add(SCALES_AT).cast())));
        if OFFSETS { I::add(acc, I::mul(I::load(block.add(OFFSETS_AT).cast()), sum())) } else { acc }
    }
}

/// One token, in column blocks of 8 or 6 groups where the width allows, and smaller ones for the rest.
#[inline(always)]
unsafe fn columns_outer_single<I: Isa, const OFFSETS: bool>(product: Product, first: usize, last: usize) {
    let groups = product.groups;
    let mut at = 0;
    // SAFETY: passed on.
    unsafe {
        while groups - at >= 8 && !groups.is_multiple_of(6) {
            columns_outer::<I, 1, 8, OFFSETS>(product, at, first, last);
            at += 8;
        }
        while groups - at >= 6 {
            columns_outer::<I, 1, 6, OFFSETS>(product, at, first, last);
            at += 6;
        }
        while groups - at >= 2 {
            columns_outer::<I, 1, 2, OFFSETS>(product, at, first, last);
            at += 2;
        }
        if groups > at {
            columns_outer::<I, 1, 1, OFFSETS>(product, at, first, last);
        }
    }
}

/// [`TOKENS`] tokens, in column blocks of 3 or 4 groups, and smaller ones for the rest.
#[inline(always)]
unsafe fn columns_outer_batch<I: Isa, const OFFSETS: bool>(product: Product, first: usize, last: usize) {
    let groups = product.groups;
    let mut at = 0;
    // SAFETY: passed on.
    unsafe {
        while groups.is_multiple_of(3) && groups > at {
            columns_outer::<I, TOKENS, 3, OFFSETS>(product, at, first, last);
            at += 3;
        }
        while groups - at >= 4 {
            columns_outer::<I, TOKENS, 4, OFFSETS>(product, at, first, last);
            at += 4;
        }
        while groups - at >= 2 {
            columns_outer::<I, TOKENS, 2, OFFSETS>(product, at, first, last);
            at += 2;
        }
        if groups > at {
            columns_outer::<I, TOKENS, 1, OFFSETS>(product, at, first, last);
        }
    }
}

/// Groups `at..at + G` of the columns for all rows; their activations stay in registers while the rows pass, and `y`
/// holds the accumulators between column blocks.
#[inline(always)]
unsafe fn columns_outer<I: Isa, const T: usize, const G: usize, const OFFSETS: bool>(
    product: Product,
    at: usize,
    first: usize,
    last: usize,
) {
    let row_bytes = product.groups * block_bytes(OFFSETS);
    let (begin, end) = (at == 0, at + G == product.groups);
    // SAFETY: groups and row groups lie inside the matrix and inside `y`; T tokens are left.
    unsafe {
        let mut pairs = [[[I::pair(product.codes); 16]; G]; T];
        let mut sums = [[I::splat(0.0); G]; T];
        for_tokens!(TOKEN < T, {
            hold::<I, G, OFFSETS>(product.at_token(TOKEN), at, &mut pairs[TOKEN], &mut sums[TOKEN]);
        });
        for row_group in first..last {
            let blocks = product.blocks.add(row_group * row_bytes + at * block_bytes(OFFSETS));
            let y = product.y.add(row_group * ROWS);
            let mut acc = [I::splat(0.0); T];
            if !begin {
                for_tokens!(TOKEN < T, {
                    acc[TOKEN] = I::load(y.add(TOKEN * product.y_stride));
                });
            }
            for_16!(GROUP, {
                if GROUP < G {
                    group_step::<I, T, G, GROUP, OFFSETS>(&mut acc, blocks, &pairs, &sums);
                }
            });
            for_tokens!(TOKEN < T, {
                if end {
                    acc[TOKEN] = I::mul(acc[TOKEN], I::splat(*product.scales.add(TOKEN)));
                }
                I::store(y.add(TOKEN * product.y_stride), acc[TOKEN]);
            });
        }
    }
}

/// Loads the activations of one token's column block.
#[inline(always)]
unsafe fn hold<I: Isa, const G: usize, const OFFSETS: bool>(
    product: Product,
    at: usize,
    pairs: &mut [[I::Pair; 16]; G],
    sums: &mut [I::Floats; G],
) {
    // SAFETY: groups `at..at + G` lie inside the activations.
    unsafe {
        for_16!(GROUP, {
            if GROUP < G {
                let x = product.codes.add((at + GROUP) * COLUMNS);
                for_16!(PAIR, {
                    pairs[GROUP][PAIR] = I::pair(x.add(2 * PAIR));
                });
                if OFFSETS {
                    sums[GROUP] = I::splat(*product.sums.add(at + GROUP));
                }
            }
        });
    }
}

/// One group of one row group, for T tokens whose activations are held.
#[inline(always)]
unsafe fn group_step<I: Isa, const T: usize, const G: usize, const GROUP: usize, const OFFSETS: bool>(
    acc: &mut [I::Floats; T],
    blocks: *const u8,
    pairs: &[[[I::Pair; 16]; G]; T],
    sums: &[[I::Floats; G]; T],
) {
    // SAFETY: the caller's blocks hold at least G groups.
    unsafe {
        let block = blocks.add(GROUP * block_bytes(OFFSETS));
        let mut ints = [I::zero(); T];
        for_16!(PAIR, {
            let codes = I::codes8(block.add(2 * ROWS * PAIR).cast());
            for_tokens!(TOKEN < T, {
                ints[TOKEN] = I::dot_add(ints[TOKEN], codes, pairs[TOKEN][GROUP][PAIR]);
            });
        });
        for_tokens!(TOKEN < T, {
            acc[TOKEN] = accumulate::<I, OFFSETS>(acc[TOKEN], ints[TOKEN], block, || sums[TOKEN][GROUP]);
        });
    }
}
