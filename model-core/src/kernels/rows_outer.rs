//! A product row group by row group, each at once over all columns, with activations from memory.

use super::isa::{Isa, Rows};
use super::product::{Product, group_step, section_step};
use super::source::{InMemory, Source};
use crate::pack::layout::ROWS;

/// Computes row groups `first..last` for the first T tokens.
///
/// # Safety
/// As [`super::product::multiply`]; T tokens are left.
#[inline(always)]
pub(super) unsafe fn multiply<I: Isa, S: Source, const T: usize>(product: Product, first: usize, last: usize) {
    let (layout, sums_stride) = (product.layout, product.sums_stride());
    // SAFETY: row groups `first..last` lie inside the matrix and inside `y`; sums are there if sections are.
    unsafe {
        let next = layout.row_group_bytes();
        for row_group in (first..last).step_by(I::ROW_GROUPS) {
            let weights = Rows { at: product.row_groups.add(row_group * next), next };
            let mut acc = [I::splat(0.0); T];
            for section in layout.sections() {
                let x = InMemory { codes: product.sum_codes.add(section.first), stride: sums_stride };
                section_step::<I, T>(&mut acc, weights.add(section.at), section.pairs, x, product.sum_scales);
            }
            let mut group = weights.add(layout.strip_bytes());
            for at in 0..layout.groups {
                let x = InMemory { codes: product.codes.add(at * S::INPUT_CODES), stride: product.codes_stride };
                // Also for a batch, which finds its own weights in the cache and calls for those of the next pass.
                I::prefetch_next(group, S::GROUP_BYTES);
                let inputs = |token: usize| S::group::<I>(product, token * layout.groups + at);
                group_step::<I, S, T>(&mut acc, group, x, inputs);
                group = group.add(S::GROUP_BYTES);
            }
            for (t, acc) in acc.into_iter().enumerate() {
                let y = product.y.add(t * product.y_stride + row_group * ROWS);
                I::store(y, if S::SCALES_GROUPS { acc } else { I::mul(acc, I::splat(*product.scales.add(t))) });
            }
        }
    }
}
