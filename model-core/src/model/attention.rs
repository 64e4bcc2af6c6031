//! Grouped-query attention of a batch of tokens in one layer, over the quantised cache.
//!
//! For one query head: scores over all positions up to its own, softmax in eight virtual lanes, then for each cache
//! segment of 32 positions the weights `probability * value scale` become 16-bit codes with a scale of the segment, and
//! the segments' exact integer sums are added up in order. Each head of each token is computed alone, so batches and
//! threads cannot change a bit.

use super::kv_cache::{KvCache, Place, VALUE_LIMIT};
use crate::kernels::{Kernel, NonFinite, SEGMENT, quantize_into};
use crate::math::{LANES, exp, sum_lanes};
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
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
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

/// Buffers of one thread.
#[derive(Debug, Default)]
struct Scratch {
    query: Vec<i16>,
    scores: Vec<f32>,
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
    let (cache, head_dim) = (&*cache, cache.head_dim());
    let tokens = input.k.len() / (cache.kv_heads() * head_dim);
    let heads = input.q.len() / (tokens.max(1) * head_dim);
    parallel::chunks(out, head_dim, Scratch::default, |scratch, i, out| {
        let (token, head) = (i / heads, i % heads);
        let query = &input.q[i * head_dim..][..head_dim];
        let view = Head { cache, layer: input.layer, kv_head: head * cache.kv_heads() / heads };
        view.attend(input, query, input.start + token + 1, scratch, out);
    });
    Ok(())
}

fn store(cache: &mut KvCache, input: AttentionInput<'_>) -> Result<(), NonFinite> {
    let (kv_heads, head_dim) = (cache.kv_heads(), cache.head_dim());
    let mut codes = vec![0; cache.padded_dim()];
    for (i, (key, value)) in input.k.chunks_exact(head_dim).zip(input.v.chunks_exact(head_dim)).enumerate() {
        let place = Place { layer: input.layer, kv_head: i % kv_heads, position: input.start + i / kv_heads };
        cache.store(place, key, value, &mut codes)?;
    }
    Ok(())
}

/// One KV head of one layer.
#[derive(Clone, Copy)]
struct Head<'a> {
    cache: &'a KvCache,
    layer: usize,
    kv_head: usize,
}

impl Head<'_> {
    /// Mixes the values of the first `positions` positions for one query head.
    fn attend(
        self,
        input: AttentionInput<'_>,
        query: &[f32],
        positions: usize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let mut laps = input.profile.laps();
        if self.scores(input, query, positions, scratch).is_err() {
            out.fill(f32::NAN);
            return;
        }
        laps.mark(Stage::Scores);
        let sum = softmax(&mut scratch.scores);
        laps.mark(Stage::Softmax);
        scratch.mixed.clear();
        scratch.mixed.resize(self.cache.padded_dim(), 0.0);
        for (segment, probabilities) in scratch.scores.chunks_exact_mut(SEGMENT).enumerate() {
            let (_, values, scales) = self.cache.segment(segment, self.layer, self.kv_head);
            for (weight, scale) in probabilities.iter_mut().zip(scales) {
                *weight *= scale;
            }
            let mut weights = [0; SEGMENT];
            match quantize_into(probabilities, VALUE_LIMIT, &mut weights) {
                Ok(scale) => input.kernel.mix(values, &weights, scale, &mut scratch.mixed),
                Err(NonFinite) => return out.fill(f32::NAN),
            }
        }
        let inverse = 1.0 / sum;
        for (out, mixed) in out.iter_mut().zip(&scratch.mixed) {
            *out = mixed * inverse;
        }
        laps.mark(Stage::Mix);
    }

    /// Fills `scratch.scores`, padded with minus infinity to whole segments.
    fn scores(
        self,
        input: AttentionInput<'_>,
        query: &[f32],
        positions: usize,
        scratch: &mut Scratch,
    ) -> Result<(), NonFinite> {
        scratch.query.clear();
        scratch.query.resize(self.cache.padded_dim(), 0);
        let scale = quantize_into(query, self.cache.key_limit(), &mut scratch.query[..query.len()])?;
        scratch.scores.resize(positions.next_multiple_of(SEGMENT), 0.0);
        for (segment, scores) in scratch.scores.chunks_exact_mut(SEGMENT).enumerate() {
            let (keys, ..) = self.cache.segment(segment, self.layer, self.kv_head);
            let used = (positions - segment * SEGMENT).min(SEGMENT).next_multiple_of(LANES);
            input.kernel.scores(keys, &scratch.query, scale * input.scale, &mut scores[..used]);
        }
        scratch.scores[positions..].fill(f32::NEG_INFINITY);
        Ok(())
    }
}

/// Replaces scores (a multiple of 8) by `exp(score - max)` and returns their sum.
fn softmax(scores: &mut [f32]) -> f32 {
    let most = maximum(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - most);
    }
    let mut sums = [0.0; LANES];
    for chunk in scores.chunks_exact(LANES) {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *sum += score;
        }
    }
    sum_lanes(sums)
}

/// The largest value, by the integer order of the bits: exact in any order, and compilers vectorise it.
fn maximum(values: &[f32]) -> f32 {
    let ordered = |bits: i32| bits ^ ((bits >> 31) & i32::MAX);
    let most = values.iter().fold(i32::MIN, |most, value| most.max(ordered(value.to_bits() as i32)));
    f32::from_bits(ordered(most) as u32)
}

#[cfg(test)]
mod tests;
