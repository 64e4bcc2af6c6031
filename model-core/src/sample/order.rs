//! The order of candidates: higher logit first, among equals the lower token id. One integer compare decides, so the
//! order is total and costs little in loops over the vocabulary (scalar float compares are dear on the IC).

use crate::TokenId;
use crate::math::lanes::{F32x4, I32x4};

/// Logits that one vectorised maximum covers before the scan looks closer.
const CHUNK: usize = 128;

/// An integer that orders as the float does (-0 below +0).
#[inline(always)]
fn ordered(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The largest of a chunk, as [`ordered`], if it is above `floor`. The bits of positive floats order as they are and
/// beat those of all others, so that only chunks without any, among others of that kind, need a second pass.
#[inline(always)]
fn largest_above(floor: i32, chunk: &[f32]) -> Option<i32> {
    let (whole, rest) = chunk.as_chunks::<CHUNK>();
    let mut most = I32x4::splat(i32::MIN);
    for whole in whole {
        for four in whole.as_chunks().0 {
            most = most.max(F32x4::load(four).bits());
        }
    }
    let mut most = rest.iter().fold(most.most(), |most, x| most.max(x.to_bits() as i32));
    if most < 0 && floor < 0 {
        most = chunk.iter().fold(i32::MIN, |most, &x| most.max(ordered(x)));
    }
    (most > floor).then_some(most)
}

/// A token and its logit as one number; the better candidate is the larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate(u64);

impl Candidate {
    pub(super) fn new(id: usize, logit: f32) -> Self {
        let high = (ordered(logit) ^ i32::MIN) as u32;
        Self(u64::from(high) << 32 | u64::from(!(id as u32)))
    }

    pub(super) fn id(self) -> TokenId {
        !(self.0 as u32)
    }

    pub(super) fn logit(self) -> f32 {
        let ordered = (self.0 >> 32) as i32 ^ i32::MIN;
        f32::from_bits((ordered ^ ((ordered >> 31) as u32 >> 1) as i32) as u32)
    }
}

/// The best candidate; token 0 where there is none.
pub(super) fn best(logits: &[f32]) -> TokenId {
    let (mut most, mut start) = (i32::MIN, 0);
    for (i, chunk) in logits.chunks(CHUNK).enumerate() {
        if let Some(here) = largest_above(most, chunk) {
            (most, start) = (here, i * CHUNK);
        }
    }
    let within = logits.iter().skip(start).position(|&x| ordered(x) == most);
    (start + within.unwrap_or(0)) as TokenId
}

/// Writes the `k` best candidates to `out`, the best first.
pub(super) fn select(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    // What does not beat the floor is not among the k best. It rises whenever the buffer has been thinned out.
    let mut floor: Option<Candidate> = None;
    for (i, chunk) in logits.chunks(CHUNK).enumerate() {
        if floor.is_some_and(|floor| largest_above(ordered(floor.logit()), chunk).is_none()) {
            continue;
        }
        let candidates = chunk.iter().enumerate().map(|(j, &logit)| Candidate::new(i * CHUNK + j, logit));
        out.extend(candidates.filter(|&candidate| floor.is_none_or(|floor| candidate > floor)));
        if out.len() >= 2 * k + CHUNK {
            thin_out(out, k);
            floor = out.get(k - 1).copied();
        }
    }
    thin_out(out, k);
    out.sort_unstable_by(|a, b| b.cmp(a));
}

/// Keeps the `k` best, the worst of them last.
fn thin_out(candidates: &mut Vec<Candidate>, k: usize) {
    if candidates.len() > k && k > 0 {
        candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        candidates.truncate(k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::rng::Pcg32;

    fn logits(seed: u64, count: usize, distinct: u32) -> Vec<f32> {
        let mut rng = Pcg32::new(seed);
        (0..count).map(|_| (rng.next_u32() % distinct) as f32 - distinct as f32 / 2.0).collect()
    }

    #[test]
    fn candidates_keep_id_and_logit() {
        for logit in [0.0, -0.0, 1.5, -3.25, f32::MAX, f32::MIN, f32::INFINITY, 1e-40] {
            let candidate = Candidate::new(77, logit);
            assert_eq!((candidate.id(), candidate.logit().to_bits()), (77, logit.to_bits()));
        }
        assert!(Candidate::new(5, 1.0) > Candidate::new(4, 0.5));
        assert!(Candidate::new(4, -1.0) > Candidate::new(5, -1.0), "among equals the lower id is better");
        assert!(Candidate::new(0, -1.0) > Candidate::new(0, -2.0));
    }

    #[test]
    fn best_is_the_first_of_the_largest() {
        assert_eq!(best(&[]), 0);
        assert_eq!(best(&[-5.0]), 0);
        for seed in 0..20 {
            let shift = if seed % 2 == 0 { 0.0 } else { 100.0 };
            let logits: Vec<f32> = logits(seed, 1000, 50).into_iter().map(|logit| logit - shift).collect();
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(best(&logits) as usize, logits.iter().position(|&x| x == most).unwrap());
        }
    }

    #[test]
    fn selection_equals_a_full_sort() {
        for (seed, distinct) in [(1, 10), (2, 1000), (3, u32::MAX), (4, 1)] {
            let mut logits = logits(seed, 2000, distinct);
            if seed == 3 {
                logits.sort_by(f32::total_cmp);
            }
            if seed == 2 {
                logits.iter_mut().for_each(|logit| *logit -= 1000.0);
            }
            let mut all: Vec<_> = logits.iter().enumerate().map(|(id, &logit)| Candidate::new(id, logit)).collect();
            all.sort_by(|a, b| b.cmp(a));
            let mut out = Vec::new();
            for k in [1, 2, 40, 1999, 2000, 5000] {
                select(&logits, k, &mut out);
                assert_eq!(out, all[..k.min(2000)], "seed {seed}, k {k}");
            }
        }
    }
}
