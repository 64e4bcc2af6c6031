//! Activations in the form that the products read: 16-bit codes with one scale per vector.
//!
//! `code = nearest(x * (limit / max|x|))`, ties to even, and `x ≈ code * scale` with `scale = max|x| / limit`.
//! Everything here is exact or a single IEEE operation per step, so all targets agree; the loops are plain Rust that
//! compilers vectorise.

use super::activations8::Activations8;
use super::tables::Tables;
use crate::math::lanes::{F32x4, I32x4, ROUND, store_rounded};
use crate::math::{all_finite, max_abs};
use crate::pack::layout::{COLUMNS, HALF_COLUMNS, OFFSET_LIMIT};
use crate::parallel::{self, Rows};

/// A vector to be quantised holds a NaN or an infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an activation is infinite or not a number; the model's weights are damaged")]
pub struct NonFinite;

/// Largest code of matrix activations: 32 products with 8-bit codes stay below 2^31.
const LIMIT: f32 = 32767.0;
/// Below this magnitude a vector counts as zero, since the reciprocal of its scale would overflow.
const SMALLEST: f32 = 1e-30;
/// Values that are quantised at a time.
const BLOCK: usize = 32;

/// Quantised activations of a batch, `[tokens, columns]`, beside the values they came from. Buffers are reused.
#[derive(Debug, Default)]
pub struct Activations {
    pub(super) columns: usize,
    pub(super) tokens: usize,
    /// `[tokens, columns]`
    pub(super) codes: Vec<i16>,
    /// `[tokens]`
    pub(super) scales: Vec<f32>,
    /// Of groups of 32 columns
    pub(super) sums: Sums,
    /// Of groups of 16 columns
    pub(super) half_sums: Sums,
    /// For codes in fields
    pub(super) eight: Activations8,
    /// For codes of three values
    pub(super) tables: Tables,
    /// `[tokens, columns]`, only where a float matrix asks for them
    pub(super) values: Vec<f32>,
}

/// The sums of the groups of a batch's codes, in which a group is so many columns. Buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Whether they belong to the batch.
    pub are_there: bool,
    /// Exactly, `[tokens, groups]`
    pub sums: Vec<i32>,
    /// The sums as codes again, with a zero where their number is odd: `[tokens, 2 * ceil(groups / 2)]`
    pub codes: Vec<i16>,
    /// `[tokens]`; in units of the codes that were summed
    pub scales: Vec<f32>,
    /// The sums of one token as floats, exactly: `[groups]`
    floats: Vec<f32>,
}

/// Which forms of the activations the matrices that will read them need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forms {
    /// Some matrix has codes of more than three values.
    pub codes: bool,
    /// Some coded matrix has offsets or nibbles, for which the sums of groups are needed.
    pub sums: bool,
    /// Some coded matrix has offsets of groups of 16 columns.
    pub half_sums: bool,
    /// Some coded matrix has codes in fields, which need codes of 8 bits.
    pub eight: bool,
    /// Some such matrix has offsets.
    pub eight_sums: bool,
    /// Some such matrix is packed, on a machine that multiplies bytes.
    pub eight_bytes: bool,
    /// Some coded matrix has codes of three values, which needs tables instead of codes.
    pub tables: bool,
    /// Some matrix is float.
    pub values: bool,
}

impl Forms {
    /// What these matrices need.
    pub fn of(matrices: &[&crate::pack::Matrix]) -> Self {
        Self {
            codes: matrices.iter().any(|matrix| matrix.is_coded() && !matrix.is_ternary() && !matrix.is_fields()),
            sums: matrices.iter().any(|matrix| matrix.summed_columns() == Some(COLUMNS)),
            half_sums: matrices.iter().any(|matrix| matrix.summed_columns() == Some(HALF_COLUMNS)),
            eight: matrices.iter().any(|matrix| matrix.is_fields()),
            eight_sums: matrices.iter().any(|matrix| matrix.is_fields() && matrix.has_offsets()),
            eight_bytes: cfg!(target_arch = "x86_64") && matrices.iter().any(|matrix| matrix.is_packed_fields()),
            tables: matrices.iter().any(|matrix| matrix.is_ternary()),
            values: matrices.iter().any(|matrix| !matrix.is_coded()),
        }
    }
}

impl Sums {
    /// Sums `codes` (`[tokens, groups, C]`).
    fn compute<const C: usize>(&mut self, codes: &[i16], groups: usize) -> Result<(), NonFinite> {
        let padded = groups.next_multiple_of(2);
        let tokens = codes.len() / (groups * C);
        self.sums.resize(tokens * groups, 0);
        parallel::rows(Rows { values: &mut self.sums, columns: groups }, tokens, parallel::TOKENS, |first, sums| {
            let codes = &codes.as_chunks::<C>().0[first * groups..];
            sums.values.iter_mut().zip(codes).for_each(|(sum, codes)| *sum = group_sum(codes));
        });
        self.codes.resize(tokens * padded, 0);
        self.scales.resize(tokens, 0.0);
        let tokens = self.sums.chunks_exact(groups).zip(self.codes.chunks_exact_mut(padded));
        for ((sums, codes), scale) in tokens.zip(&mut self.scales) {
            self.floats.clear();
            self.floats.extend(sums.iter().map(|sum| *sum as f32));
            *scale = quantize_into(&self.floats, OFFSET_LIMIT, codes)?;
            codes[groups..].fill(0);
        }
        Ok(())
    }
}

impl Activations {
    /// Takes over the batch `x` (`[tokens, columns]`) in the given forms.
    ///
    /// # Errors
    /// [`NonFinite`] if a value is infinite or NaN.
    pub fn quantize(&mut self, x: &[f32], columns: usize, forms: Forms) -> Result<(), NonFinite> {
        self.columns = columns;
        self.tokens = x.len() / columns.max(1);
        self.values.clear();
        if forms.values {
            self.values.extend_from_slice(x);
        }
        self.tables.are_there = forms.tables;
        if forms.tables {
            self.tables.compute(x, columns)?;
        }
        self.eight.are_there = forms.eight;
        if forms.eight {
            self.eight.compute(x, columns, forms)?;
        }
        self.sums.are_there = forms.sums;
        self.half_sums.are_there = forms.half_sums;
        if !forms.codes {
            self.codes.clear();
            return if forms.tables || forms.eight || all_finite(x) { Ok(()) } else { Err(NonFinite) };
        }
        self.codes.resize(x.len(), 0);
        self.scales.resize(self.tokens, 0.0);
        let tables = (Rows { values: &mut self.codes, columns }, Rows { values: &mut self.scales, columns: 1 });
        parallel::try_rows(tables, self.tokens, parallel::TOKENS, |first, (codes, scales)| {
            let tokens = x[first * columns..].chunks_exact(columns).zip(codes.values.chunks_exact_mut(columns));
            tokens.zip(scales.values).try_for_each(|((x, codes), scale)| {
                *scale = quantize_into(x, LIMIT, codes)?;
                Ok(())
            })
        })?;
        if forms.sums {
            self.sums.compute::<COLUMNS>(&self.codes, columns / COLUMNS)?;
        }
        if forms.half_sums {
            self.half_sums.compute::<HALF_COLUMNS>(&self.codes, columns / HALF_COLUMNS)?;
        }
        Ok(())
    }

    /// Number of vectors in the batch.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Length of each vector.
    pub fn columns(&self) -> usize {
        self.columns
    }
}

/// Sum of the codes of a group, below 2^24 and so exact in `f32` too.
pub(super) fn group_sum<const C: usize>(codes: &[i16; C]) -> i32 {
    let pairs = codes.as_chunks::<8>().0.iter().map(I32x4::pair_sums);
    pairs.fold(I32x4::splat(0), I32x4::plus).total()
}

/// Quantises one vector to as many codes of at most `limit` (below 2^15) in magnitude, the first of `codes`; returns the
/// scale.
pub(crate) fn quantize_into(x: &[f32], limit: f32, codes: &mut [i16]) -> Result<f32, NonFinite> {
    let max = max_abs(x);
    if !max.is_finite() {
        return Err(NonFinite);
    }
    if max < SMALLEST {
        codes.fill(0);
        return Ok(0.0);
    }
    let (inverse, codes) = (limit / max, &mut codes[..x.len()]);
    let ((blocks, rest), (codes, codes_rest)) = (x.as_chunks::<BLOCK>(), codes.as_chunks_mut::<BLOCK>());
    for (x, codes) in blocks.iter().zip(codes) {
        round_block(x, F32x4::splat(inverse), codes);
    }
    for (code, x) in codes_rest.iter_mut().zip(rest) {
        *code = (x * inverse + ROUND).to_bits() as i16;
    }
    Ok(max / limit)
}

/// `codes = nearest(x * inverse)`
#[inline(always)]
fn round_block(x: &[f32; BLOCK], inverse: F32x4, codes: &mut [i16; BLOCK]) {
    let (eights, codes) = (x.as_chunks::<8>().0, codes.as_chunks_mut::<8>().0);
    for (eight, codes) in eights.iter().zip(codes) {
        let fours = eight.as_chunks().0;
        let rounded = |four| F32x4::load(four) * inverse + F32x4::splat(ROUND);
        store_rounded([rounded(&fours[0]), rounded(&fours[1])], codes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_nearest_ties_to_even_and_reach_the_limit() {
        let mut codes = [0; 6];
        let scale = quantize_into(&[4.0, -4.0, 0.5, 1.5, -2.5, 0.0], 4.0, &mut codes).unwrap();
        assert_eq!((scale, codes), (1.0, [4, -4, 0, 2, -2, 0]));
        quantize_into(&[1.0, -1.0, 0.0, 0.0, 0.0, 0.0], LIMIT, &mut codes).unwrap();
        assert_eq!(codes[..2], [32767, -32767]);
    }

    #[test]
    fn zero_and_vanishing_vectors_have_zero_codes() {
        let mut codes = [7; 2];
        assert_eq!(quantize_into(&[0.0, -0.0], LIMIT, &mut codes), Ok(0.0));
        assert_eq!(codes, [0; 2]);
        assert_eq!(quantize_into(&[1e-40, -1e-35], LIMIT, &mut codes), Ok(0.0));
    }

    #[test]
    fn refuses_what_is_not_finite() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let forms = Forms { codes: true, ..Forms::default() };
            let mut x = vec![1.0; 32];
            x[17] = bad;
            assert_eq!(Activations::default().quantize(&x, 32, forms), Err(NonFinite));
            assert_eq!(
                Activations::default().quantize(&x, 32, Forms { values: true, ..Forms::default() }),
                Err(NonFinite)
            );
        }
    }
}
