//! The two integer products of attention, over one segment of 32 cached positions of one KV head. The cache's layout
//! is that of [`crate::model::kv_cache`].

use super::isa::Isa;
use crate::pack::layout::ROWS;

/// Positions of a cache segment: as many value products as stay exact in `i32`.
pub(crate) const SEGMENT: usize = 32;

/// Cached keys of a segment: `[4][head_dim / 2][8 positions][2]` codes and a scale per position.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub codes: &'a [i16],
    pub scales: &'a [f32; SEGMENT],
}

/// Cached values of a segment: `[16 position pairs][head_dim][2]` codes; their scales are in the weights.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub codes: &'a [i16],
}

/// `scores[p] = f32(Σ query * key_p) * (key_scale_p * factor)` for the first `scores.len()` positions, rounded up to a
/// multiple of 8 by the caller. `query` has `head_dim` codes.
#[inline(always)]
pub(super) unsafe fn scores<I: Isa>(keys: Keys<'_>, query: &[i16], factor: f32, scores: &mut [f32]) {
    let tile = ROWS * query.len();
    let tiles = keys.codes.chunks_exact(tile).zip(keys.scales.chunks_exact(ROWS)).zip(scores.chunks_exact_mut(ROWS));
    for ((codes, scales), scores) in tiles {
        // SAFETY: `codes` holds 16 per pair of the query; `scales` and `scores` hold eight values.
        unsafe {
            let mut ints = I::zero();
            for (pair, x) in codes.chunks_exact(2 * ROWS).zip(query.chunks_exact(2)) {
                ints = I::dot_add(ints, I::codes16(pair.as_ptr()), I::pair(x.as_ptr()));
            }
            let scale = I::mul(I::load(scales.as_ptr()), I::splat(factor));
            I::store(scores.as_mut_ptr(), I::mul(I::to_floats(ints), scale));
        }
    }
}

/// `out[d] += f32(Σ weight_p * value_p[d]) * factor` over the segment's 32 positions. `out` has `head_dim` values, a
/// multiple of 8.
#[inline(always)]
pub(super) unsafe fn mix<I: Isa>(values: Values<'_>, weights: &[i16], factor: f32, out: &mut [f32]) {
    let stride = 2 * out.len();
    for (lane_group, out) in out.chunks_exact_mut(ROWS).enumerate() {
        let column = &values.codes[lane_group * 2 * ROWS..];
        // SAFETY: a chunk of `stride` codes, or the last one cut short by `lane_group`, has at least 16.
        unsafe {
            let mut ints = I::zero();
            for (codes, x) in column.chunks(stride).zip(weights.chunks_exact(2)) {
                ints = I::dot_add(ints, I::codes16(codes.as_ptr()), I::pair(x.as_ptr()));
            }
            let sum = I::mul(I::to_floats(ints), I::splat(factor));
            I::store(out.as_mut_ptr(), I::add(I::load(out.as_ptr()), sum));
        }
    }
}
