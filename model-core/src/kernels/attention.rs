//! The two integer products of attention, over one segment of 32 cached positions of one KV head. The cache's layout
//! is that of [`crate::model::kv_cache`].

use super::isa::{Isa, for_16};
use crate::pack::layout::ROWS;

/// Positions of a cache segment: as many value products as stay exact in `i32`.
pub(crate) const SEGMENT: usize = 32;
/// Pairs that are unrolled: all position pairs of a segment.
const RUN: usize = SEGMENT / 2;

/// Cached keys of a segment: `[4][head_dim / 2][8 positions][2]` codes and a scale per position.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub codes: &'a [i16],
    pub scales: &'a [f32; SEGMENT],
}

/// Cached values of a segment: `[head_dim / 8][16 position pairs][8 dimensions][2]` codes; their scales are in the weights.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub codes: &'a [i16],
}

/// `scores[p] = f32(Σ query * key_p) * (key_scale_p * factor)` for the first `scores.len()` positions, rounded up to a
/// multiple of 8 by the caller. `query` has `head_dim` codes.
#[inline(always)]
pub(super) unsafe fn scores<I: Isa>(keys: Keys<'_>, query: &[i16], factor: f32, scores: &mut [f32]) {
    let tiles = keys.codes.chunks_exact(ROWS * query.len());
    for ((codes, scales), scores) in tiles.zip(keys.scales.chunks_exact(ROWS)).zip(scores.chunks_exact_mut(ROWS)) {
        // SAFETY: `codes` holds 16 per pair of the query; `scales` and `scores` hold eight values.
        unsafe {
            let scale = I::mul(I::load(scales.as_ptr()), I::splat(factor));
            let ints = key_product::<I>(codes, query);
            I::store(scores.as_mut_ptr(), I::mul(I::to_floats(ints), scale));
        }
    }
}

/// Query times eight keys. Whole runs of 16 pairs are unrolled, so that wasm loads need no address arithmetic.
///
/// # Safety
/// As [`Isa`]; `codes` holds 16 codes per pair of `query`.
#[inline(always)]
unsafe fn key_product<I: Isa>(codes: &[i16], query: &[i16]) -> I::Ints {
    // SAFETY: see above.
    unsafe {
        let mut ints = I::zero();
        let (runs, rest) = (query.chunks_exact(2 * RUN), query.len() / (2 * RUN) * RUN);
        let (whole, tail) = codes.split_at(rest * 2 * ROWS);
        let remainder = runs.remainder();
        for (codes, query) in whole.chunks_exact(RUN * 2 * ROWS).zip(runs) {
            let (codes, query) = (codes.as_ptr(), query.as_ptr());
            for_16!(PAIR, {
                ints = I::dot_add(ints, I::codes16(codes.add(PAIR * 2 * ROWS)), I::pair(query.add(2 * PAIR)));
            });
        }
        for (codes, x) in tail.chunks_exact(2 * ROWS).zip(remainder.chunks_exact(2)) {
            ints = I::dot_add(ints, I::codes16(codes.as_ptr()), I::pair(x.as_ptr()));
        }
        ints
    }
}

/// `out[d] += f32(Σ weight_p * value_p[d]) * factor` over the segment's 32 positions. `out` has `head_dim` values, a
/// multiple of 8.
#[inline(always)]
pub(super) unsafe fn mix<I: Isa>(values: Values<'_>, weights: &[i16; SEGMENT], factor: f32, out: &mut [f32]) {
    // SAFETY: each chunk of `values` holds 16 pairs of eight dimensions.
    unsafe {
        let mut pairs = [I::pair(weights.as_ptr()); RUN];
        for_16!(PAIR, {
            pairs[PAIR] = I::pair(weights.as_ptr().add(2 * PAIR));
        });
        let factor = I::splat(factor);
        for (codes, out) in values.codes.chunks_exact(RUN * 2 * ROWS).zip(out.chunks_exact_mut(ROWS)) {
            let codes = codes.as_ptr();
            let mut ints = I::zero();
            for_16!(PAIR, {
                ints = I::dot_add(ints, I::codes16(codes.add(PAIR * 2 * ROWS)), pairs[PAIR]);
            });
            let sum = I::mul(I::to_floats(ints), factor);
            I::store(out.as_mut_ptr(), I::add(I::load(out.as_ptr()), sum));
        }
    }
}
