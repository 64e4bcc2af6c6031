//! The matrix product of codes of three values, by looking up sums of activations instead of multiplying.
//!
//! A code plus 1 is the sum of two bits. Four columns' first (or second) bits are an index into the 16 sums of subsets of
//! these columns' activations, so one byte shuffle does the work of 64 products. For every output row, over the groups of 256
//! columns in order:
//!
//! ```text
//! acc = acc + f32(Σ (bit + bit') * x_code  -  Σ x_code) * scale        with the sum of 256 columns exactly
//! y   = acc * x_scale                                                   once, at the end
//! ```
//!
//! Sums of four codes of at most 8159 fit two signed bytes, `low + 256 * high`. These are looked up and summed apart: 128
//! bytes (two for each four columns) stay within 16 bits, whatever they are.

use core::mem::MaybeUninit;

use super::isa::{Isa, for_16, for_parts, for_tokens};
use super::product::Product;
use super::tables::{GROUP_TABLES_BYTES, TABLES_BYTES};
use crate::pack::layout::{QUAD, QUAD_BYTES, ROWS, SCALES_BYTES, TERNARY_COLUMNS, Width};

/// Pairs of column quads of a group.
const PAIRS: usize = TERNARY_COLUMNS / QUAD / 2;
/// Tokens that share the loads of indices.
const BATCH: usize = 4;

/// What [`Isa`] has not: look-ups for the eight rows of a row group.
///
/// # Safety
/// As [`Isa`].
pub(super) trait Lookup: Isa {
    /// Indices of two column quads, `[quad][row][2]`.
    type Indices: Copy;
    /// 16 bytes for each of two column quads.
    type Table: Copy;
    /// Sums of 16 bits for each row.
    type Shorts: Copy;

    /// Zeros.
    unsafe fn no_shorts() -> Self::Shorts;
    /// Loads 32 indices.
    unsafe fn indices(at: *const u8) -> Self::Indices;
    /// Loads 32 indices from 16 bytes, the first quad's from their low halves.
    unsafe fn packed_indices(at: *const u8) -> Self::Indices;
    /// Loads the low or the high bytes of two quads' sums.
    unsafe fn table(at: *const u8) -> Self::Table;
    /// Adds the bytes looked up, as numbers from -128 to 127.
    unsafe fn look_up_add(sums: Self::Shorts, table: Self::Table, indices: Self::Indices) -> Self::Shorts;
    /// `low + 256 * high` of one part of the rows, as many as there are lanes.
    unsafe fn total(low: Self::Shorts, high: Self::Shorts, part: usize) -> Self::Ints;
}

/// Computes row groups `first..last` for all tokens.
///
/// # Safety
/// As [`Isa`]; the row groups exist.
#[inline(always)]
pub(super) unsafe fn multiply<I: Lookup>(product: Product, first: usize, last: usize) {
    // SAFETY: passed on.
    unsafe {
        if product.layout.width == Width::PackedTrits {
            batches::<I, true>(product, first, last);
        } else {
            batches::<I, false>(product, first, last);
        }
    }
}

#[inline(always)]
unsafe fn batches<I: Lookup, const PACKED: bool>(product: Product, first: usize, last: usize) {
    let mut rest = product;
    // SAFETY: passed on.
    unsafe {
        while rest.tokens >= BATCH {
            tokens::<I, PACKED, BATCH>(rest, first, last);
            rest = rest.skip_tokens(BATCH);
        }
        while rest.tokens > 0 {
            tokens::<I, PACKED, 1>(rest, first, last);
            rest = rest.skip_tokens(1);
        }
    }
}

/// The first T tokens. Walks the groups outside, with their tables in registers, or the rows, as memory has them.
#[inline(always)]
unsafe fn tokens<I: Lookup, const PACKED: bool, const T: usize>(product: Product, first: usize, last: usize) {
    let groups = product.layout.groups;
    // SAFETY: passed on.
    unsafe {
        if I::HOLDS_ACTIVATIONS {
            for group in 0..groups {
                pass::<I, PACKED, T>(product, group, first, last);
            }
        } else {
            for row_group in first..last {
                for group in 0..groups {
                    let tables = product.tables.add(group * GROUP_TABLES_BYTES);
                    let table = |token: usize, pair: usize, half: usize| {
                        I::table(tables.add(token * product.tables_stride() + table_at(pair, half)))
                    };
                    let place = Place::of::<PACKED>(product, group, row_group);
                    Step::<I, T>::of(product, group).take::<PACKED>(place, table);
                }
            }
        }
    }
}

/// Place of a table among those of a group: `half` 0 has the low bytes.
const fn table_at(pair: usize, half: usize) -> usize {
    pair * TABLES_BYTES + half * (TABLES_BYTES / 2)
}

/// Bytes of a group's indices. Its scales follow them.
const fn index_bytes(packed: bool) -> usize {
    let width = if packed { Width::PackedTrits } else { Width::Trits };
    width.code_bytes(TERNARY_COLUMNS)
}

/// Repeats a block for each pair of column quads of a group.
macro_rules! for_pairs {
    ($pair:ident, $body:block) => {
        for_16!(LOW, {
            for_16!(@ HIGH, {
                const $pair: usize = 2 * LOW + HIGH;
                $body
            }, 0 1);
        })
    };
}

/// One group of the columns for all rows.
#[inline(never)]
unsafe fn pass<I: Lookup, const PACKED: bool, const T: usize>(
    product: Product,
    group: usize,
    first: usize,
    last: usize,
) {
    if first == last {
        return;
    }
    let mut held = MaybeUninit::<[[[I::Table; 2]; PAIRS]; T]>::uninit();
    let held = held.as_mut_ptr();
    // SAFETY: group and row groups lie inside the matrix; all tables are loaded before they are read.
    unsafe {
        for_tokens!(TOKEN < T, {
            let tables = product.tables.add(TOKEN * product.tables_stride() + group * GROUP_TABLES_BYTES);
            for_pairs!(PAIR, {
                (&raw mut (*held)[TOKEN][PAIR]).write([0, 1].map(|half| I::table(tables.add(table_at(PAIR, half)))));
            });
        });
        let table = |token: usize, pair: usize, half: usize| (&raw const (*held)[token][pair][half]).read();
        let step = Step::<I, T>::of(product, group);
        let mut place = Place::of::<PACKED>(product, group, first);
        let end = product.y.add(last * ROWS);
        loop {
            step.take::<PACKED>(place, table);
            place.weights = place.weights.wrapping_add(product.layout.row_group_bytes());
            place.y = place.y.wrapping_add(ROWS);
            if place.y == end {
                return;
            }
        }
    }
}

/// A group of a row group, and the outputs of the first token.
#[derive(Clone, Copy)]
struct Place {
    weights: *const u8,
    y: *mut f32,
}

impl Place {
    #[inline(always)]
    unsafe fn of<const PACKED: bool>(product: Product, group: usize, row_group: usize) -> Self {
        let at = row_group * product.layout.row_group_bytes() + group * (index_bytes(PACKED) + SCALES_BYTES);
        // SAFETY: the caller names a group that exists.
        unsafe { Self { weights: product.row_groups.add(at), y: product.y.add(row_group * ROWS) } }
    }
}

/// The step of a group, but for its weights.
#[derive(Clone, Copy)]
struct Step<I: Isa, const T: usize> {
    is_first: bool,
    is_last: bool,
    /// Sum of the activations
    sums: [I::Ints; T],
    x_scales: [I::Floats; T],
    y_stride: usize,
}

impl<I: Lookup, const T: usize> Step<I, T> {
    #[inline(always)]
    unsafe fn of(product: Product, group: usize) -> Self {
        let groups = product.layout.groups;
        // SAFETY: the caller names a group that exists, and T tokens are left.
        unsafe {
            let mut step = Self {
                is_first: group == 0,
                is_last: group + 1 == groups,
                sums: [I::zero(); T],
                x_scales: [I::splat(0.0); T],
                y_stride: product.y_stride,
            };
            for_tokens!(TOKEN < T, {
                step.sums[TOKEN] = I::splat_int(*product.sums.add(TOKEN * groups + group));
                step.x_scales[TOKEN] = I::splat(*product.scales.add(TOKEN));
            });
            step
        }
    }

    /// Takes it for one row group.
    #[inline(always)]
    unsafe fn take<const PACKED: bool>(self, place: Place, table: impl Fn(usize, usize, usize) -> I::Table) {
        let mut kept = MaybeUninit::<[I::Indices; PAIRS]>::uninit();
        let kept = kept.as_mut_ptr();
        // SAFETY: group and row group exist; indices are read after they were kept.
        unsafe {
            for_tokens!(TOKEN < T, {
                let mut sums = [I::no_shorts(); 2];
                if I::HOLDS_ACTIVATIONS {
                    for_pairs!(PAIR, {
                        let table = |half| table(TOKEN, PAIR, half);
                        look_up::<I, PACKED>(&mut sums, place.weights, kept, PAIR, TOKEN == 0, table);
                    });
                } else {
                    for pair in 0..PAIRS {
                        let table = |half| table(TOKEN, pair, half);
                        look_up::<I, PACKED>(&mut sums, place.weights, kept, pair, TOKEN == 0, table);
                    }
                }
                for_parts!(I, PART, {
                    let y = place.y.add(TOKEN * self.y_stride + PART * I::LANES);
                    let sums = I::to_floats(I::sub_int(I::total(sums[0], sums[1], PART), self.sums[TOKEN]));
                    let scale = I::load(place.weights.add(index_bytes(PACKED) + 4 * PART * I::LANES).cast());
                    let acc = if self.is_first { I::splat(0.0) } else { I::load(y) };
                    let acc = I::add(acc, I::mul(sums, scale));
                    I::store(y, if self.is_last { I::mul(acc, self.x_scales[TOKEN]) } else { acc });
                });
            });
        }
    }
}

/// Adds what two column quads come to for one token, whose indices are `kept` for the others if it is the `first`.
#[inline(always)]
unsafe fn look_up<I: Lookup, const PACKED: bool>(
    [low, high]: &mut [I::Shorts; 2],
    weights: *const u8,
    kept: *mut [I::Indices; PAIRS],
    pair: usize,
    first: bool,
    table: impl Fn(usize) -> I::Table,
) {
    // SAFETY: the caller's pair exists, and its indices were kept if this is not the first token.
    unsafe {
        let kept = &raw mut (*kept)[pair];
        if first {
            kept.write(if PACKED {
                I::packed_indices(weights.add(pair * QUAD_BYTES))
            } else {
                I::indices(weights.add(2 * pair * QUAD_BYTES))
            });
        }
        *low = I::look_up_add(*low, table(0), kept.read());
        *high = I::look_up_add(*high, table(1), kept.read());
    }
}
