//! The softmax of attention, and its weights as integer codes.

use super::lanes::{F32x4, ROUND, store_rounded, sum};
use super::vectorize::{Work, vectorize};

/// Positions that share a scale.
const SEGMENT: usize = crate::kernels::SEGMENT;
/// Below this magnitude a segment's weights count as zero, since the reciprocal of their scale would overflow.
const SMALLEST: f32 = 1e-30;

/// The softmax of one query head over all its positions, whose exponentials are taken segment by segment.
#[derive(Clone, Copy)]
pub(crate) struct Softmax {
    most: F32x4,
    factor: F32x4,
    sums: [F32x4; 2],
}

impl Default for Softmax {
    fn default() -> Self {
        let zero = F32x4::splat(0.0);
        Self { most: zero, factor: zero, sums: [zero; 2] }
    }
}

impl Softmax {
    /// The softmax of `scores * factor`, with `factor` not below 0. `None` if the largest score is not finite.
    pub fn new<'a>(scores: impl Iterator<Item = &'a [f32; SEGMENT]>, factor: f32) -> Option<Self> {
        let mut most = F32x4::splat(f32::NEG_INFINITY);
        for scores in scores {
            for four in scores.as_chunks().0 {
                most = most.or_larger(F32x4::load(four));
            }
        }
        let most = most.most();
        let factor = F32x4::splat(factor * std::f32::consts::LOG2_E);
        most.is_finite().then(|| Self { most: F32x4::splat(most), factor, ..Self::default() })
    }

    /// Takes the exponentials of one segment's scores into the sum and writes the codes of their products with
    /// `scales`, which are not negative: `code = nearest(weight * (limit / largest))`. Returns the codes' scale.
    pub fn weigh(
        &mut self,
        scores: &[f32; SEGMENT],
        scales: &[f32; SEGMENT],
        limit: f32,
        codes: &mut [i16; SEGMENT],
    ) -> f32 {
        vectorize(Weigh { softmax: self, scores, scales, limit, codes })
    }

    /// The products of eight exponentials with their scales.
    #[inline(always)]
    fn eight(&mut self, scores: &[f32; 8], scales: &[f32; 8]) -> [F32x4; 2] {
        let (scores, scales) = (scores.as_chunks().0, scales.as_chunks().0);
        let powers = [self.power(&scores[0]), self.power(&scores[1])];
        self.sums = [self.sums[0] + powers[0], self.sums[1] + powers[1]];
        [powers[0] * F32x4::load(&scales[0]), powers[1] * F32x4::load(&scales[1])]
    }

    #[inline(always)]
    fn power(&self, scores: &[f32; 4]) -> F32x4 {
        ((F32x4::load(scores) - self.most) * self.factor).exp2_below_limit()
    }

    /// The sum of all exponentials so far.
    pub fn sum(&self) -> f32 {
        sum(self.sums)
    }
}

/// [`Softmax::weigh`] by its arguments.
struct Weigh<'a> {
    softmax: &'a mut Softmax,
    scores: &'a [f32; SEGMENT],
    scales: &'a [f32; SEGMENT],
    limit: f32,
    codes: &'a mut [i16; SEGMENT],
}

impl Work for Weigh<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let Self { softmax, scores, scales, limit, codes } = self;
        let (scores, scales) = (scores.as_chunks::<8>().0, scales.as_chunks::<8>().0);
        // Written out, so that the weights stay in registers.
        let weights = [
            softmax.eight(&scores[0], &scales[0]),
            softmax.eight(&scores[1], &scales[1]),
            softmax.eight(&scores[2], &scales[2]),
            softmax.eight(&scores[3], &scales[3]),
        ];
        let larger = |a: [F32x4; 2], b: [F32x4; 2]| [a[0].or_larger(b[0]), a[1].or_larger(b[1])];
        let [a, b] = larger(larger(weights[0], weights[1]), larger(weights[2], weights[3]));
        let largest = a.or_larger(b).most();
        if largest < SMALLEST {
            codes.fill(0);
            return 0.0;
        }
        let inverse = F32x4::splat(limit / largest);
        for (codes, weights) in codes.as_chunks_mut().0.iter_mut().zip(weights) {
            store_rounded(weights.map(|weight| weight * inverse + F32x4::splat(ROUND)), codes);
        }
        largest / limit
    }
}
