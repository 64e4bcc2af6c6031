//! Activations of 8 bits with a scale for every 32 columns, for weights in fields (see [`super::fields`]).
//!
//! `scale = max(8 * A / 2015, max|x| / 127)` of the block's 32 values, in which A is the largest sum of magnitudes of eight
//! neighbours, and `code = nearest(x * (1 / scale))`, ties to even. So a code fits a signed byte, and eight products with codes
//! from -8 to 7 fit the 12 bits of a field: `8 * (2015 / 8 + 8 * 0.5) = 2047`.

use super::NonFinite;
use super::activations::{Forms, quantize_into};
#[cfg(target_arch = "x86_64")]
use super::bytes;
use crate::math::lanes::{F32x4, I32x4, ROUND, store_rounded};
use crate::math::vectorize::{Work, vectorize};
use crate::pack::layout::{COLUMNS, FIELD_COLUMNS, OFFSET_LIMIT};
use crate::parallel::{self, Rows};

/// Sums of eight products in a field before their codes are rounded, and what a field's sums begin with.
const FIELD_LIMIT: f32 = 2015.0;
/// Added to the sum of a field, so that it is positive.
pub(super) const FIELD_BIAS: i32 = 2048;
/// Largest code.
const LIMIT: f32 = 127.0;
/// Below this scale a block counts as zero, since its reciprocal would overflow.
const SMALLEST: f32 = 1e-30;
/// Fields of a block.
const EIGHTHS: usize = COLUMNS / FIELD_COLUMNS;

/// A batch of activations. Buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Activations8 {
    /// Whether they belong to the batch.
    pub are_there: bool,
    /// Whether the sums of blocks do.
    pub has_sums: bool,
    /// `[tokens, columns]`
    pub codes: Vec<i16>,
    /// The same as bytes, `[tokens, blocks]`, only where a matrix in packed fields asks for them
    #[cfg(target_arch = "x86_64")]
    pub bytes: Vec<bytes::Block>,
    /// `[tokens, blocks]`
    pub scales: Vec<f32>,
    /// What the sums of fields begin with, `2048 - 8 * Σ code`: `[tokens, blocks, 4]`
    pub biases: Vec<i32>,
    /// The sums of the blocks' values as codes, with a zero where their number is odd: `[tokens, 2 * ceil(blocks / 2)]`
    pub sum_codes: Vec<i16>,
    /// `[tokens]`
    pub sum_scales: Vec<f32>,
    /// The sums of one token: `[blocks]`
    sums: Vec<f32>,
}

impl Activations8 {
    /// Takes over the batch `x` (`[tokens, columns]`, whole blocks) in the forms for fields.
    ///
    /// # Errors
    /// [`NonFinite`] if a value is infinite or NaN.
    pub fn compute(&mut self, x: &[f32], columns: usize, forms: Forms) -> Result<(), NonFinite> {
        self.codes.resize(x.len(), 0);
        self.scales.resize(x.len() / COLUMNS, 0.0);
        self.biases.resize(x.len() / FIELD_COLUMNS, 0);
        let codes = Rows { values: &mut self.codes, columns };
        let scales = Rows { values: &mut self.scales, columns: columns / COLUMNS };
        let biases = Rows { values: &mut self.biases, columns: columns / FIELD_COLUMNS };
        let tokens = x.len() / columns.max(1);
        parallel::try_rows((codes, (scales, biases)), tokens, parallel::TOKENS, |first, (codes, (scales, biases))| {
            let x = &x[first * columns..][..codes.values.len()];
            vectorize(Quantize { x, codes: codes.values, scales: scales.values, biases: biases.values })
        })?;
        #[cfg(target_arch = "x86_64")]
        self.compute_bytes(if forms.eight_bytes { columns / COLUMNS } else { 0 }, tokens);
        self.has_sums = forms.eight_sums;
        if forms.eight_sums { self.compute_sums(columns) } else { Ok(()) }
    }

    /// The codes of so many blocks a token as bytes.
    #[cfg(target_arch = "x86_64")]
    fn compute_bytes(&mut self, blocks: usize, tokens: usize) {
        self.bytes.resize(blocks * tokens, bytes::Block::default());
        let (codes, biases) = (self.codes.as_chunks().0, self.biases.as_chunks().0);
        parallel::rows(Rows { values: &mut self.bytes, columns: blocks }, tokens, parallel::TOKENS, |first, bytes| {
            let (codes, biases) = (&codes[first * blocks..], &biases[first * blocks..]);
            vectorize(ToBytes { codes, biases, bytes: bytes.values });
        });
    }

    /// The sums of blocks of `columns` columns a token.
    fn compute_sums(&mut self, columns: usize) -> Result<(), NonFinite> {
        let blocks = columns / COLUMNS;
        let (tokens, padded) = (self.codes.len() / columns.max(1), blocks.next_multiple_of(2));
        self.sum_codes.resize(tokens * padded, 0);
        self.sum_scales.resize(tokens, 0.0);
        let values = self.scales.chunks_exact(blocks).zip(self.biases.chunks_exact(blocks * EIGHTHS));
        for ((scales, biases), (codes, sum_scale)) in
            values.zip(self.sum_codes.chunks_exact_mut(padded).zip(&mut self.sum_scales))
        {
            self.sums.clear();
            let sums = scales.iter().zip(biases.as_chunks().0).map(|(scale, biases)| block_sum(biases) as f32 * scale);
            self.sums.extend(sums);
            *sum_scale = quantize_into(&self.sums, OFFSET_LIMIT, codes)?;
            codes[blocks..].fill(0);
        }
        Ok(())
    }
}

/// The sum of a block's codes.
fn block_sum(biases: &[i32; EIGHTHS]) -> i32 {
    (EIGHTHS as i32 * FIELD_BIAS - biases.iter().sum::<i32>()) / 8
}

/// The blocks of a batch.
struct Quantize<'a> {
    x: &'a [f32],
    codes: &'a mut [i16],
    scales: &'a mut [f32],
    biases: &'a mut [i32],
}

impl Work for Quantize<'_> {
    type Output = Result<(), NonFinite>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let codes = self.codes.as_chunks_mut().0.iter_mut().zip(self.biases.as_chunks_mut().0);
        for ((x, scale), (codes, biases)) in self.x.as_chunks().0.iter().zip(self.scales).zip(codes) {
            *scale = block_scale(x)?;
            quantize_block(x, if *scale == 0.0 { 0.0 } else { 1.0 / *scale }, codes, biases);
        }
        Ok(())
    }
}

/// The bytes of the blocks of a batch.
#[cfg(target_arch = "x86_64")]
struct ToBytes<'a> {
    codes: &'a [[i16; COLUMNS]],
    biases: &'a [[i32; EIGHTHS]],
    bytes: &'a mut [bytes::Block],
}

#[cfg(target_arch = "x86_64")]
impl Work for ToBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (bytes, (codes, biases)) in self.bytes.iter_mut().zip(self.codes.iter().zip(self.biases)) {
            *bytes = bytes::block(codes, block_sum(biases));
        }
    }
}

/// The scale of a block; 0 if it counts as zero.
#[inline(always)]
fn block_scale(x: &[f32; COLUMNS]) -> Result<f32, NonFinite> {
    let mut most = F32x4::splat(0.0);
    let mut eights = [most; EIGHTHS];
    for (sums, x) in eights.iter_mut().zip(x.as_chunks::<FIELD_COLUMNS>().0) {
        let [low, high] = [&x.as_chunks().0[0], &x.as_chunks().0[1]].map(|four| F32x4::load(four).magnitude());
        most = most.or_larger(low).or_larger(high);
        *sums = low + high;
    }
    // A NaN comes through the sums.
    let scales = (F32x4::totals(eights) * F32x4::splat(8.0 / FIELD_LIMIT)).or_larger(most * F32x4::splat(1.0 / LIMIT));
    let scale = f32::from_bits(scales.magnitude_bits().most() as u32);
    if !scale.is_finite() {
        return Err(NonFinite);
    }
    Ok(if scale < SMALLEST { 0.0 } else { scale })
}

#[inline(always)]
fn quantize_block(x: &[f32; COLUMNS], inverse: f32, codes: &mut [i16; COLUMNS], biases: &mut [i32; EIGHTHS]) {
    let codes = codes.as_chunks_mut().0;
    for (x, codes) in x.as_chunks::<FIELD_COLUMNS>().0.iter().zip(&mut *codes) {
        let rounded = |half: usize| F32x4::load(&x.as_chunks().0[half]) * F32x4::splat(inverse) + F32x4::splat(ROUND);
        store_rounded([rounded(0), rounded(1)], codes);
    }
    let eighths = [&codes[0], &codes[1], &codes[2], &codes[3]];
    I32x4::code_totals(eighths).subtracted_eightfold_from(FIELD_BIAS, biases);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::SplitMix64;

    fn quantized(x: &[f32]) -> Result<Activations8, NonFinite> {
        let mut activations = Activations8::default();
        activations.compute(x, x.len(), Forms { eight_sums: true, ..Forms::default() }).map(|()| activations)
    }

    #[test]
    fn any_block_fits_fields_and_bytes_and_is_near() {
        let mut random = SplitMix64::new(5);
        for case in 0..2000 {
            let mut x: Vec<f32> = (0..COLUMNS).map(|_| (random.next_u64() >> 40) as f32 / 8_388_608.0 - 1.0).collect();
            match case % 4 {
                0 => x[(case / 4) % COLUMNS] *= 1e4,
                1 => x.iter_mut().for_each(|x| *x = x.signum()),
                2 => x.iter_mut().for_each(|x| *x = if *x > 0.9 { *x } else { 1e-3 }),
                _ => {}
            }
            let q = quantized(&x).unwrap();
            for (codes, bias) in q.codes.as_chunks::<FIELD_COLUMNS>().0.iter().zip(&q.biases) {
                let (plus, minus) = codes.iter().fold((0, 0), |(plus, minus), code| {
                    (plus + i32::from(*code).max(0), minus - i32::from(*code).min(0))
                });
                let most = (7 * plus + 8 * minus).max(8 * plus + 7 * minus);
                assert!(most < FIELD_BIAS, "{most} of {codes:?}");
                assert_eq!(*bias, FIELD_BIAS - 8 * (plus - minus));
            }
            assert!(q.codes.iter().all(|code| code.abs() <= 127));
            let near = |(x, code): (&f32, &i16)| (x - f32::from(*code) * q.scales[0]).abs() <= 0.5001 * q.scales[0];
            assert!(x.iter().zip(&q.codes).all(near));
        }
    }

    #[test]
    fn blocks_of_vanishing_values_are_zero_and_what_is_not_finite_is_refused() {
        let q = quantized(&[1e-33; 64]).unwrap();
        assert_eq!((q.scales, q.codes, q.biases), (vec![0.0; 2], vec![0; 64], vec![FIELD_BIAS; 8]));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 63] {
                let mut x = [1.0; 64];
                x[at] = bad;
                assert!(quantized(&x).is_err(), "{bad} at {at}");
            }
        }
    }
}
