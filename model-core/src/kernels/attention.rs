//! The two integer products of attention, over one segment of 32 cached positions of one KV head, for up to four query
//! heads that share it: every code loaded serves all of them. The cache's layout is that of
//! [`crate::model::kv_cache`].

use super::isa::{Isa, Rows, for_16};
use crate::pack::layout::ROWS;

/// Positions of a cache segment: as many value products as stay exact in `i32`.
pub(crate) const SEGMENT: usize = 32;
/// Most query heads that share loads.
pub(crate) const QUERIES: usize = 4;
/// Pairs of codes that are unrolled: all position pairs of a segment, or as many pairs of dimensions.
const RUN: usize = SEGMENT / 2;
/// Pairs of codes that are unrolled where fewer are left; dimensions come in multiples of eight.
const SHORT_RUN: usize = 4;

/// Codes of the cache, in one of its precisions. Both take the same time: narrow ones are widened as they are loaded.
#[derive(Clone, Copy)]
pub(crate) enum Codes<'a> {
    Wide(&'a [i16]),
    Narrow(&'a [i8]),
}

impl Codes<'_> {
    fn len(self) -> usize {
        match self {
            Codes::Wide(codes) => codes.len(),
            Codes::Narrow(codes) => codes.len(),
        }
    }
}

/// One code of the cache.
trait Code: Copy {
    /// Loads 16 codes as 16-bit integers: at `from`, and where a register has 16 lanes, as many `next` codes further on.
    unsafe fn load<I: Isa>(from: *const Self, next: usize) -> I::Codes;
}

impl Code for i16 {
    #[inline(always)]
    unsafe fn load<I: Isa>(from: *const Self, next: usize) -> I::Codes {
        // SAFETY: passed on.
        unsafe { I::row_codes16(Rows { at: from.cast(), next: 2 * next }) }
    }
}

impl Code for i8 {
    #[inline(always)]
    unsafe fn load<I: Isa>(from: *const Self, next: usize) -> I::Codes {
        // SAFETY: passed on.
        unsafe { I::row_codes8(Rows { at: from.cast(), next }) }
    }
}

/// Cached keys of a segment: `[4][dim / 2][8 positions][2]` codes and a scale per position.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub codes: Codes<'a>,
    pub scales: &'a [f32; SEGMENT],
}

/// Cached values of a segment: `[dim / 8][16 position pairs][8 dimensions][2]` codes; their scales are in the weights.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub codes: Codes<'a>,
}

/// The weights of one query head for a segment's values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    pub codes: [i16; SEGMENT],
    pub scale: f32,
}

/// Repeats a block for each of `$count` (at most 4) query heads or tiles, with constants for indices.
macro_rules! for_4 {
    ($i:ident < $count:ident, $body:block) => {
        for_16!(@ $i, { if $i < $count { $body } }, 0 1 2 3)
    };
}

/// `scores[q][p] = f32(Σ query_q * key_p) * key_scale_p` for the first `used` positions, and those after them that share a
/// register with one.
/// `queries` has `dim` codes for each of the `scores`, of which there are at most [`QUERIES`].
#[inline(always)]
pub(super) unsafe fn scores<I: Isa>(keys: Keys<'_>, queries: &[i16], used: usize, scores: &mut [[f32; SEGMENT]]) {
    assert!(keys.codes.len() * scores.len() == queries.len() * SEGMENT && used <= SEGMENT, "shapes of scores");
    let part = Part { key_scales: keys.scales, queries, tiles: used.div_ceil(I::LANES) };
    // SAFETY: the caller's machine has the instructions; the assertion holds the lengths.
    unsafe {
        match keys.codes {
            Codes::Wide(codes) => scores_in::<I, i16>(codes, part, scores),
            Codes::Narrow(codes) => scores_in::<I, i8>(codes, part, scores),
        }
    }
}

/// What [`scores`] are computed from besides the codes.
#[derive(Clone, Copy)]
struct Part<'a> {
    key_scales: &'a [f32; SEGMENT],
    queries: &'a [i16],
    /// Registers of positions.
    tiles: usize,
}

/// [`scores`] with codes of one precision.
#[inline(always)]
unsafe fn scores_in<I: Isa, C: Code>(codes: &[C], part: Part<'_>, scores: &mut [[f32; SEGMENT]]) {
    // SAFETY: passed on.
    unsafe {
        match scores.len() {
            1 => scores_of::<I, C, 1>(codes, part, scores),
            2 => scores_of::<I, C, 2>(codes, part, scores),
            3 => scores_of::<I, C, 3>(codes, part, scores),
            4 => scores_of::<I, C, 4>(codes, part, scores),
            _ => {}
        }
    }
}

/// [`scores`] of the first `tiles` registers of positions. Where activations are held in registers, the four tiles of a
/// whole segment go together, so that a query code loaded serves them all.
#[inline(always)]
unsafe fn scores_of<I: Isa, C: Code, const Q: usize>(codes: &[C], part: Part<'_>, scores: &mut [[f32; SEGMENT]]) {
    let scores = scores.as_mut_ptr().cast();
    let mut tile = 0;
    // SAFETY: passed on; there are at most four tiles.
    unsafe {
        if I::HOLDS_ACTIVATIONS && part.tiles == 4 {
            return some_tiles::<I, C, Q, 4>(codes, part, 0, scores);
        }
        while !I::HOLDS_ACTIVATIONS && tile + 2 <= part.tiles {
            some_tiles::<I, C, Q, 2>(codes, part, tile, scores);
            tile += 2;
        }
        while tile < part.tiles {
            some_tiles::<I, C, Q, 1>(codes, part, tile, scores);
            tile += 1;
        }
    }
}

/// [`scores`] of N tiles from `first` on.
#[inline(always)]
unsafe fn some_tiles<I: Isa, C: Code, const Q: usize, const N: usize>(
    codes: &[C],
    part: Part<'_>,
    first: usize,
    scores: *mut f32,
) {
    let (codes, queries, dim) = (codes.as_ptr(), part.queries.as_ptr(), part.queries.len() / Q);
    let mut tiles = [codes; N];
    let mut at = 0;
    // SAFETY: `codes` holds four eights of `dim` pairs by eight, `queries` Q times `dim` codes, `scores` Q segments.
    unsafe {
        let mut ints = [[I::zero(); N]; Q];
        for_4!(TILE < N, {
            tiles[TILE] = codes.add((first + TILE) * I::LANES * dim);
        });
        while at + 2 * RUN <= dim {
            run::<I, C, Q, N, RUN>(&mut ints, tiles, queries.add(at), dim, at);
            at += 2 * RUN;
        }
        while at < dim {
            run::<I, C, Q, N, SHORT_RUN>(&mut ints, tiles, queries.add(at), dim, at);
            at += 2 * SHORT_RUN;
        }
        for_4!(TILE < N, {
            let scale = I::load(part.key_scales.as_ptr().add((first + TILE) * I::LANES));
            for_4!(QUERY < Q, {
                let to = scores.add(QUERY * SEGMENT + (first + TILE) * I::LANES);
                I::store(to, I::mul(I::to_floats(ints[QUERY][TILE]), scale));
            });
        });
    }
}

/// P pairs of dimensions, from dimension `at` on, of Q queries times N tiles.
#[inline(always)]
unsafe fn run<I: Isa, C: Code, const Q: usize, const N: usize, const P: usize>(
    ints: &mut [[I::Ints; N]; Q],
    tiles: [*const C; N],
    queries: *const i16,
    dim: usize,
    at: usize,
) {
    // SAFETY: the caller's tiles and queries hold `at + 2 * P` dimensions.
    unsafe {
        let mut pairs = [[I::pair(queries); P]; Q];
        for_4!(QUERY < Q, {
            let query = queries.add(QUERY * dim);
            for_16!(PAIR, {
                if PAIR < P {
                    pairs[QUERY][PAIR] = I::pair(query.add(2 * PAIR));
                }
            });
        });
        let codes =
            |tile: usize, pair: usize| C::load::<I>(tiles[tile].add(at * ROWS).add(pair * 2 * ROWS), ROWS * dim);
        if I::HOLDS_ACTIVATIONS {
            for_4!(TILE < N, {
                for_16!(PAIR, {
                    if PAIR < P {
                        let codes = codes(TILE, PAIR);
                        for_4!(QUERY < Q, {
                            ints[QUERY][TILE] = I::dot_add(ints[QUERY][TILE], codes, pairs[QUERY][PAIR]);
                        });
                    }
                });
            });
            return;
        }
        for_16!(PAIR, {
            if PAIR < P {
                for_4!(TILE < N, {
                    let codes = codes(TILE, PAIR);
                    for_4!(QUERY < Q, {
                        ints[QUERY][TILE] = I::dot_add(ints[QUERY][TILE], codes, pairs[QUERY][PAIR]);
                    });
                });
            }
        });
    }
}

/// `out[q][d] += f32(Σ weight_q_p * value_p[d]) * weight_scale_q` over the segment's first `used` positions; weights of
/// others must be 0. `out` has `dim` values, whole registers, for each of the `weights`, of which there are at most
/// [`QUERIES`].
#[inline(always)]
pub(super) unsafe fn mix<I: Isa>(values: Values<'_>, weights: &[Weights], used: usize, out: &mut [f32]) {
    assert!(values.codes.len() * weights.len() == out.len() * SEGMENT && used <= SEGMENT, "shapes of a mix");
    let runs = used.div_ceil(2 * SHORT_RUN);
    // SAFETY: the caller's machine has the instructions; the assertion holds the lengths.
    unsafe {
        match values.codes {
            Codes::Wide(codes) => mix_in::<I, i16>(codes, weights, runs, out),
            Codes::Narrow(codes) => mix_in::<I, i8>(codes, weights, runs, out),
        }
    }
}

/// [`mix`] with codes of one precision.
#[inline(always)]
unsafe fn mix_in<I: Isa, C: Code>(codes: &[C], weights: &[Weights], runs: usize, out: &mut [f32]) {
    // SAFETY: passed on.
    unsafe {
        match weights.len() {
            1 => mix_of::<I, C, 1>(codes, weights, runs, out),
            2 => mix_of::<I, C, 2>(codes, weights, runs, out),
            3 => mix_of::<I, C, 3>(codes, weights, runs, out),
            4 => mix_of::<I, C, 4>(codes, weights, runs, out),
            _ => {}
        }
    }
}

/// [`mix`] of the first `runs` eights of positions. Where activations are held in registers, those are the weights of a whole
/// segment; elsewhere the loads of weights serve two registers of dimensions.
#[inline(always)]
unsafe fn mix_of<I: Isa, C: Code, const Q: usize>(codes: &[C], weights: &[Weights], runs: usize, out: &mut [f32]) {
    let (dim, out) = (out.len() / Q, out.as_mut_ptr());
    // SAFETY: each chunk of `codes` holds 16 pairs of eight dimensions, `weights` Q entries and `out` Q times `dim`.
    unsafe {
        if I::HOLDS_ACTIVATIONS && runs * SHORT_RUN == RUN {
            let mut pairs = [[I::pair(weights[0].codes.as_ptr()); RUN]; Q];
            hold_weights::<I, Q, RUN>(weights, 0, &mut pairs);
            for (i, codes) in codes.chunks_exact(RUN * 2 * ROWS).enumerate() {
                let mut ints = [[I::zero()]; Q];
                mix_run::<I, C, Q, 1, RUN>(&mut ints, codes.as_ptr(), &pairs);
                add_mix::<I, Q, 1>(ints, weights, out.add(i * ROWS), dim);
            }
            return;
        }
        let mut at = 0;
        while !I::HOLDS_ACTIVATIONS && at + 2 * I::LANES <= dim {
            mix_dimensions::<I, C, Q, 2>(codes.as_ptr().add(at * SEGMENT), weights, runs, out.add(at), dim);
            at += 2 * I::LANES;
        }
        while at < dim {
            mix_dimensions::<I, C, Q, 1>(codes.as_ptr().add(at * SEGMENT), weights, runs, out.add(at), dim);
            at += I::LANES;
        }
    }
}

/// [`mix`] of N registers of dimensions.
#[inline(always)]
unsafe fn mix_dimensions<I: Isa, C: Code, const Q: usize, const N: usize>(
    codes: *const C,
    weights: &[Weights],
    runs: usize,
    out: *mut f32,
    dim: usize,
) {
    // SAFETY: passed on; a segment has at most four runs.
    unsafe {
        let mut ints = [[I::zero(); N]; Q];
        for run in 0..runs {
            let mut pairs = [[I::pair(weights[0].codes.as_ptr()); SHORT_RUN]; Q];
            hold_weights::<I, Q, SHORT_RUN>(weights, run * 2 * SHORT_RUN, &mut pairs);
            mix_run::<I, C, Q, N, SHORT_RUN>(&mut ints, codes.add(run * SHORT_RUN * 2 * ROWS), &pairs);
        }
        add_mix::<I, Q, N>(ints, weights, out, dim);
    }
}

/// Loads the weights of P pairs of positions from position `at` on.
#[inline(always)]
unsafe fn hold_weights<I: Isa, const Q: usize, const P: usize>(
    weights: &[Weights],
    at: usize,
    pairs: &mut [[I::Pair; P]; Q],
) {
    // SAFETY: the caller's `weights` are Q, and `at + 2 * P` lies within a segment.
    unsafe {
        for_4!(QUERY < Q, {
            let codes = weights.get_unchecked(QUERY).codes.as_ptr().add(at);
            for_16!(PAIR, {
                if PAIR < P {
                    pairs[QUERY][PAIR] = I::pair(codes.add(2 * PAIR));
                }
            });
        });
    }
}

/// P pairs of positions of N registers of dimensions.
#[inline(always)]
unsafe fn mix_run<I: Isa, C: Code, const Q: usize, const N: usize, const P: usize>(
    ints: &mut [[I::Ints; N]; Q],
    codes: *const C,
    pairs: &[[I::Pair; P]; Q],
) {
    // SAFETY: the caller's `codes` lead to P pairs of each of the dimensions.
    unsafe {
        for_16!(PAIR, {
            if PAIR < P {
                for_4!(PART < N, {
                    let place = codes.add(PART * I::LANES * SEGMENT + PAIR * 2 * ROWS);
                    let codes = C::load::<I>(place, ROWS * SEGMENT);
                    for_4!(QUERY < Q, {
                        ints[QUERY][PART] = I::dot_add(ints[QUERY][PART], codes, pairs[QUERY][PAIR]);
                    });
                });
            }
        });
    }
}

/// Adds the mix of N registers of dimensions to each query's output.
#[inline(always)]
unsafe fn add_mix<I: Isa, const Q: usize, const N: usize>(
    ints: [[I::Ints; N]; Q],
    weights: &[Weights],
    out: *mut f32,
    dim: usize,
) {
    // SAFETY: the caller's `weights` are Q, and `out` leads to as many values in each of Q rows of `dim`.
    unsafe {
        for_4!(QUERY < Q, {
            let scale = I::splat(weights.get_unchecked(QUERY).scale);
            for_4!(PART < N, {
                let out = out.add(QUERY * dim + PART * I::LANES);
                I::store(out, I::add(I::load(out), I::mul(I::to_floats(ints[QUERY][PART]), scale)));
            });
        });
    }
}
