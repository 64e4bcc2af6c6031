//! Grouped-query attention of a batch of tokens in one layer, over the quantised cache.
//!
//! For one query head: scores over all positions that it sees, up to its own, softmax with the exact maximum and a sum in eight
//! virtual lanes, then for each cache segment of 32 positions the weights `probability * value scale` become 16-bit codes
//! with a scale of the segment, and the segments' exact integer sums are added up in order. Query heads that share a KV
//! head share the loads of its codes, nothing else: each head of each token has the bits it would have alone, so batches
//! and threads cannot change one.

use std::ops::Range;

use super::kv_cache::{KvCache, Place};
use crate::kernels::{Kernel, NonFinite, QUERIES, SEGMENT, Weights, quantize_into};
use crate::math::softmax::Softmax;
use crate::parallel;
use crate::profile::{Profile, Stage};

/// What one layer hands to attention. All are row-major.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInput<'a> {
    /// The kernel path.
    pub kernel: Kernel,
    /// Index of the layer.
    pub layer: usize,
    /// Position of the batch's first token.
    pub start: usize,
    /// Last positions that a token sees, its own included; above 0.
    pub window: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`; above 0.
    pub scale: f32,
    /// Rotated queries, `[tokens, heads, head_dim]`.
    pub q: &'a [f32],
    /// Rotated keys, `[tokens, kv_heads, head_dim]`.
    pub k: &'a [f32],
    /// Values, `[tokens, kv_heads, head_dim]`.
    pub v: &'a [f32],
    /// Where the work goes.
    pub profile: &'a Profile,
}

/// Buffers of one thread, for query heads that go together.
#[derive(Debug, Default)]
struct Scratch {
    /// `[queries, padded_dim]`
    queries: Vec<i16>,
    /// `[segments, queries]`
    scores: Vec<[f32; SEGMENT]>,
    /// `[segments, queries]`
    weights: Vec<Weights>,
    /// `[queries, padded_dim]`
    mixed: Vec<f32>,
}

/// Stores the batch's keys and values in the cache (which has room for them: [`KvCache::reserve`]) and writes the mixed
/// values to `out` (`[tokens, heads, head_dim]`).
///
/// # Errors
/// [`NonFinite`] if a key or value is not finite. A query that is not finite yields NaN, which the next product refuses.
pub fn attend(cache: &mut KvCache, input: AttentionInput<'_>, out: &mut [f32]) -> Result<(), NonFinite> {
    store(cache, input)?;
    input.profile.mark(Stage::Store);
    let (cache, kv_heads, head_dim) = (&*cache, cache.kv_heads(), cache.head_dim());
    let shared = input.q.len() / input.k.len().max(1);
    let together = shared.div_ceil(shared.div_ceil(QUERIES).max(1)) * head_dim;
    parallel::chunks(out, shared * head_dim, Scratch::default, |scratch, i, out| {
        let positions = input.start + i / kv_heads + 1;
        let first = positions.saturating_sub(input.window);
        let view = Head { cache, input, kv_head: i % kv_heads, first, positions };
        let queries = &input.q[i * shared * head_dim..][..shared * head_dim];
        for (queries, out) in queries.chunks(together).zip(out.chunks_mut(together)) {
            if view.attend(queries, scratch, out).is_err() {
                out.fill(f32::NAN);
            }
        }
    });
    Ok(())
}

fn store(cache: &mut KvCache, input: AttentionInput<'_>) -> Result<(), NonFinite> {
    let (kv_heads, head_dim) = (cache.kv_heads(), cache.head_dim());
    let mut codes = vec![0; 2 * cache.padded_dim()];
    for (i, (key, value)) in input.k.chunks_exact(head_dim).zip(input.v.chunks_exact(head_dim)).enumerate() {
        let place = Place { layer: input.layer, kv_head: i % kv_heads, position: input.start + i / kv_heads };
        cache.store(place, key, value, &mut codes)?;
    }
    Ok(())
}

/// What a token sees of one KV head of one layer.
#[derive(Clone, Copy)]
struct Head<'a> {
    cache: &'a KvCache,
    input: AttentionInput<'a>,
    kv_head: usize,
    /// The first position that counts.
    first: usize,
    /// The last position that counts, and one.
    positions: usize,
}

impl Head<'_> {
    /// Mixes the values for some of the query heads (`[queries, head_dim]`, at most [`QUERIES`]).
    fn attend(self, queries: &[f32], scratch: &mut Scratch, out: &mut [f32]) -> Result<(), NonFinite> {
        let mut laps = self.input.profile.laps();
        let count = queries.len() / self.cache.head_dim();
        let factors = self.quantize(queries, scratch)?;
        self.scores(count, scratch);
        laps.mark(Stage::Scores);
        let mut softmaxes = [Softmax::default(); QUERIES];
        for (i, softmax) in softmaxes.iter_mut().enumerate().take(count) {
            *softmax = Softmax::new(scratch.scores.iter().skip(i).step_by(count), factors[i]).ok_or(NonFinite)?;
        }
        self.weigh(&mut softmaxes[..count], scratch);
        laps.mark(Stage::Softmax);
        self.mix(count, scratch);
        let (head_dim, dim) = (self.cache.head_dim(), self.cache.padded_dim());
        for ((out, mixed), softmax) in
            out.chunks_exact_mut(head_dim).zip(scratch.mixed.chunks_exact(dim)).zip(softmaxes)
        {
            let inverse = 1.0 / softmax.sum();
            out.iter_mut().zip(mixed).for_each(|(out, mixed)| *out = mixed * inverse);
        }
        laps.mark(Stage::Mix);
        Ok(())
    }

    /// Fills `scratch.queries` and returns what scores are to be multiplied with.
    fn quantize(self, queries: &[f32], scratch: &mut Scratch) -> Result<[f32; QUERIES], NonFinite> {
        let (head_dim, dim) = (self.cache.head_dim(), self.cache.padded_dim());
        let mut factors = [0.0; QUERIES];
        scratch.queries.resize(queries.len() / head_dim * dim, 0);
        let heads = queries.chunks_exact(head_dim).zip(scratch.queries.chunks_exact_mut(dim));
        for ((query, codes), factor) in heads.zip(&mut factors) {
            let scale = quantize_into(query, self.cache.limits().query, &mut codes[..head_dim])?;
            *factor = scale * self.input.scale;
        }
        Ok(factors)
    }

    /// Segments with positions that count.
    fn segments(self) -> Range<usize> {
        self.first / SEGMENT..self.positions.div_ceil(SEGMENT)
    }

    /// Positions of a segment before those that count.
    fn hidden(self, segment: usize) -> usize {
        self.first.saturating_sub(segment * SEGMENT)
    }

    /// Positions of a segment up to the last that counts.
    fn used(self, segment: usize) -> usize {
        (self.positions - segment * SEGMENT).min(SEGMENT)
    }

    /// Fills `scratch.scores`, with minus infinity for positions that do not count.
    fn scores(self, count: usize, scratch: &mut Scratch) {
        scratch.scores.resize(self.segments().len() * count, [0.0; SEGMENT]);
        for (segment, scores) in self.segments().zip(scratch.scores.chunks_exact_mut(count)) {
            let (keys, ..) = self.cache.segment(segment, self.input.layer, self.kv_head);
            let (hidden, used) = (self.hidden(segment), self.used(segment));
            self.input.kernel.scores(keys, &scratch.queries, used, scores);
            for scores in scores {
                scores[..hidden].fill(f32::NEG_INFINITY);
                scores[used..].fill(f32::NEG_INFINITY);
            }
        }
    }

    /// Fills `scratch.weights`, which are not divided by their sum yet.
    fn weigh(self, softmaxes: &mut [Softmax], scratch: &mut Scratch) {
        let Scratch { scores, weights, .. } = scratch;
        let limit = self.cache.limits().weight;
        weights.resize(scores.len(), Weights { codes: [0; SEGMENT], scale: 0.0 });
        let segments = scores.chunks_exact(softmaxes.len()).zip(weights.chunks_exact_mut(softmaxes.len()));
        for (segment, (scores, weights)) in self.segments().zip(segments) {
            let (_, _, scales) = self.cache.segment(segment, self.input.layer, self.kv_head);
            // What lies behind the last position may be of another batch, and must not even be seen.
            let mut scales = *scales;
            scales[..self.hidden(segment)].fill(0.0);
            scales[self.used(segment)..].fill(0.0);
            for ((weights, softmax), scores) in weights.iter_mut().zip(softmaxes.iter_mut()).zip(scores) {
                weights.scale = softmax.weigh(scores, &scales, limit, &mut weights.codes);
            }
        }
    }

    /// Fills `scratch.mixed` with the values mixed by the weights.
    fn mix(self, count: usize, scratch: &mut Scratch) {
        scratch.mixed.clear();
        scratch.mixed.resize(count * self.cache.padded_dim(), 0.0);
        for (segment, weights) in self.segments().zip(scratch.weights.chunks_exact(count)) {
            let (_, values, _) = self.cache.segment(segment, self.input.layer, self.kv_head);
            self.input.kernel.mix(values, weights, self.used(segment), &mut scratch.mixed);
        }
    }
}

#[cfg(test)]
mod tests;
