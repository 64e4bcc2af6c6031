//! The matrix product of coded weights, written once over [`Isa`] and [`Source`].
//!
//! For every output row, over the sections of the offset strip in order (affine formats only), then over the groups of
//! 32 or 16 columns in order:
//!
//! ```text
//! acc = acc + f32(Σ offset_code * sum_code) * (offset_scale * sum_scale)
//! acc = acc + f32(Σ code * x_code) * scale
//! y   = acc * x_scale                               once, at the end
//! ```
//!
//! With activations of 8 bits, which have a scale for each group and are summed as values:
//!
//! ```text
//! acc = acc + f32(Σ offset_code * sum_code) * (offset_scale * sum_scale)
//! acc = acc + f32(Σ code * x_code) * scale * x_scale
//! y   = acc
//! ```
//!
//! The integer sums are exact. No step depends on how many rows, columns or tokens are walked at a time, so
//! [`rows_outer`] and [`columns_outer`], and any split of the rows over threads, give the same bits.

use super::isa::{Isa, Rows, TOKENS, for_tokens};
use super::source::{Inputs, Source, multiply_offsets};
use super::tables::GROUP_TABLES_BYTES;
use super::{columns_outer, rows_outer};
use crate::pack::layout::{Layout, OFFSET_PAIR_BYTES};

/// One coded product over a range of row groups. All pointers are valid for the shapes given; ranges of different
/// calls that run at the same time are disjoint.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Row groups of the layout, one after the other.
    pub row_groups: *const u8,
    /// Of the row groups.
    pub layout: Layout,
    /// `[tokens, codes_stride]`, read unless codes have three values
    pub codes: *const i16,
    /// Activation codes of a token: columns, or what else stands for them, see [`Source::INPUT_CODES`].
    pub codes_stride: usize,
    /// `[tokens, groups, 32, 64]`, read only if codes have three values
    pub tables: *const u8,
    /// `[tokens]`, read unless each block has its own scale
    pub scales: *const f32,
    /// `[tokens, groups]`, read only if each block has its own scale
    pub block_scales: *const f32,
    /// Of each group of codes, `[tokens, groups, sums_per_group]`, read only with nibbles, fields or three values; see
    /// [`Source::multiply_part`]
    pub sums: *const i32,
    /// `[tokens, 2 * ceil(groups / 2)]`, read only if there are offsets
    pub sum_codes: *const i16,
    /// `[tokens]`, read only if there are offsets
    pub sum_scales: *const f32,
    /// Number of activation vectors.
    pub tokens: usize,
    /// `[tokens, y_stride]`
    pub y: *mut f32,
    /// Distance of the outputs of neighbouring tokens.
    pub y_stride: usize,
}

impl Product {
    /// Bytes of a token's tables.
    pub(super) fn tables_stride(self) -> usize {
        self.layout.groups * GROUP_TABLES_BYTES
    }

    /// Sum codes of a token.
    pub(super) fn sums_stride(self) -> usize {
        self.layout.groups.next_multiple_of(2)
    }

    /// The same product for the tokens from `token` on.
    ///
    /// # Safety
    /// There are as many.
    #[inline(always)]
    pub(super) unsafe fn skip_tokens(self, token: usize) -> Self {
        // SAFETY: the caller keeps `token` within the batch. What need not be there only wraps.
        unsafe {
            Self {
                codes: self.codes.wrapping_add(token * self.codes_stride),
                tables: self.tables.wrapping_add(token * self.tables_stride()),
                scales: self.scales.wrapping_add(token),
                block_scales: self.block_scales.wrapping_add(token * self.layout.groups),
                sums: self.sums.wrapping_add(token * self.layout.groups * self.layout.width.sums_per_group()),
                sum_codes: self.sum_codes.wrapping_add(token * self.sums_stride()),
                sum_scales: self.sum_scales.wrapping_add(token),
                y: self.y.add(token * self.y_stride),
                tokens: self.tokens - token,
                ..self
            }
        }
    }
}

/// Computes row groups `first..last`, a multiple of [`Isa::ROW_GROUPS`], for all tokens. Walks the rows outside where
/// activations come from memory, the columns outside where they are held in registers.
///
/// # Safety
/// As [`Isa`]; the row groups exist, in the layout of `S`.
#[inline(always)]
pub(super) unsafe fn multiply<I: Isa, S: Source>(product: Product, first: usize, last: usize) {
    // SAFETY: passed on.
    unsafe {
        let mut rest = product;
        while I::BATCH == TOKENS && S::GROUPS == 1 && rest.tokens >= TOKENS {
            tokens::<I, S, TOKENS>(rest, first, last);
            rest = rest.skip_tokens(TOKENS);
        }
        while I::BATCH >= TOKENS / 2 && rest.tokens >= TOKENS / 2 {
            tokens::<I, S, { TOKENS / 2 }>(rest, first, last);
            rest = rest.skip_tokens(TOKENS / 2);
        }
        while rest.tokens > 0 {
            tokens::<I, S, 1>(rest, first, last);
            rest = rest.skip_tokens(1);
        }
    }
}

/// The first T tokens.
#[inline(always)]
unsafe fn tokens<I: Isa, S: Source, const T: usize>(product: Product, first: usize, last: usize) {
    // SAFETY: passed on.
    unsafe {
        if I::HOLDS_ACTIVATIONS {
            columns_outer::multiply::<I, S, T>(product, first, last);
        } else {
            rows_outer::multiply::<I, S, T>(product, first, last);
        }
    }
}

/// The step of a group: `group` holds its codes and scales, `x` its activations, and `inputs` gives what else they
/// have for a token.
///
/// # Safety
/// As [`Isa`]; a whole group stands there, and `x` has T tokens.
#[inline(always)]
pub(super) unsafe fn group_step<I: Isa, S: Source, const T: usize>(
    acc: &mut [I::Floats; T],
    group: Rows,
    x: impl Inputs<I>,
    inputs: impl Fn(usize) -> S::Group<I>,
) {
    // SAFETY: as above.
    unsafe {
        let sums = S::multiply::<I, T>(group, x);
        let scale = S::row_scales::<I>(group.add(S::CODE_BYTES));
        for_tokens!(TOKEN < T, {
            acc[TOKEN] = add_group::<I, S>(acc[TOKEN], sums[TOKEN], scale, inputs(TOKEN));
        });
    }
}

/// `acc` with the sums of a group.
///
/// # Safety
/// As [`Isa`].
#[inline(always)]
pub(super) unsafe fn add_group<I: Isa, S: Source>(
    acc: I::Floats,
    sums: I::Ints,
    scale: I::Floats,
    inputs: S::Group<I>,
) -> I::Floats {
    // SAFETY: as above.
    unsafe { I::add(acc, S::scale::<I>(I::mul(I::to_floats(sums), scale), inputs)) }
}

/// The step of a section of `pairs` group pairs: `section` holds offset codes and scales, `x` the sum codes, and
/// `sum_scales` T tokens' scales of these.
///
/// # Safety
/// As [`Isa`]; all of this stands there.
#[inline(always)]
pub(super) unsafe fn section_step<I: Isa, const T: usize>(
    acc: &mut [I::Floats; T],
    section: Rows,
    pairs: usize,
    x: impl Inputs<I>,
    sum_scales: *const f32,
) {
    // SAFETY: as above.
    unsafe {
        let sums = multiply_offsets::<I, T>(section, pairs, x);
        let scale = I::row_floats(section.add(pairs * OFFSET_PAIR_BYTES));
        for_tokens!(TOKEN < T, {
            let scale = I::mul(scale, I::splat(*sum_scales.add(TOKEN)));
            acc[TOKEN] = I::add(acc[TOKEN], I::mul(I::to_floats(sums[TOKEN]), scale));
        });
    }
}
