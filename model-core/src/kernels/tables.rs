//! Activations in the form that codes of three values read: for every four columns the sums of all subsets of them.
//!
//! Codes are as in [`super::activations`], but of at most 8159. A sum is kept as two signed bytes, `low + 256 * high`, each in a
//! table of 16 that a byte shuffle can look up.

use super::NonFinite;
use super::activations::{group_sum, quantize_into};
use crate::pack::layout::{QUAD, TERNARY_COLUMNS};

/// Largest code: the nearest multiple of 256 to the sum of four of them is at most 127 times as much.
const LIMIT: f32 = 8159.0;
/// Subsets of four columns.
const SUBSETS: usize = 1 << QUAD;
/// Bytes of the tables of two column quads: the low bytes of both, then the high bytes of both.
pub(super) const TABLES_BYTES: usize = 4 * SUBSETS;
/// Columns that such tables are for.
const TABLES_COLUMNS: usize = 2 * QUAD;
/// Bytes of the tables of a group of columns.
pub(super) const GROUP_TABLES_BYTES: usize = TERNARY_COLUMNS / TABLES_COLUMNS * TABLES_BYTES;

/// The tables of a batch. Buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Whether they belong to the batch.
    pub are_there: bool,
    /// `[tokens, columns / 8, 64]`
    pub bytes: Vec<u8>,
    /// Sum of the codes of each group of 256 columns, exactly, `[tokens, groups]`
    pub sums: Vec<i32>,
    /// `[tokens]`
    pub scales: Vec<f32>,
    /// Codes of one token
    codes: Vec<i16>,
}

impl Tables {
    /// Computes the tables of `x` (`[tokens, columns]`), whose columns are whole groups of 256.
    ///
    /// # Errors
    /// [`NonFinite`] if a value is infinite or NaN.
    pub fn compute(&mut self, x: &[f32], columns: usize) -> Result<(), NonFinite> {
        let token_bytes = columns / TERNARY_COLUMNS * GROUP_TABLES_BYTES;
        self.codes.resize(columns, 0);
        self.bytes.resize(x.len() / columns * token_bytes, 0);
        self.sums.clear();
        self.scales.clear();
        for (x, bytes) in x.chunks_exact(columns).zip(self.bytes.chunks_exact_mut(token_bytes)) {
            self.scales.push(quantize_into(x, LIMIT, &mut self.codes)?);
            self.sums.extend(self.codes.as_chunks::<TERNARY_COLUMNS>().0.iter().map(group_sum));
            for (codes, tables) in self.codes.as_chunks().0.iter().zip(bytes.as_chunks_mut().0) {
                write_tables(codes, tables);
            }
        }
        Ok(())
    }
}

/// The tables of eight codes.
fn write_tables(codes: &[i16; TABLES_COLUMNS], tables: &mut [u8; TABLES_BYTES]) {
    let (low, high) = tables.split_at_mut(2 * SUBSETS);
    let tables = low.as_chunks_mut::<SUBSETS>().0.iter_mut().zip(high.as_chunks_mut::<SUBSETS>().0);
    for (codes, (low, high)) in codes.as_chunks().0.iter().zip(tables) {
        let sums = subset_sums(codes);
        *low = sums.map(|sum| sum as u8);
        *high = sums.map(|sum| ((sum + 128) >> 8) as u8);
    }
}

/// The sum of the codes whose bits are set in the index.
#[inline(always)]
fn subset_sums(codes: &[i16; QUAD]) -> [i16; SUBSETS] {
    let mut sums = [0; SUBSETS];
    for (bit, code) in codes.iter().enumerate() {
        let (known, next) = sums.split_at_mut(1 << bit);
        for (next, known) in next.iter_mut().zip(known) {
            *next = *known + code;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_sums_of_all_subsets_up_to_the_largest() {
        let mut x = vec![-1.0; TERNARY_COLUMNS];
        x[..8].copy_from_slice(&[1.0, 1.0, 1.0, 1.0, 0.5, -0.25, 0.0, 0.125]);
        let mut tables = Tables::default();
        tables.compute(&x, TERNARY_COLUMNS).unwrap();
        let codes: Vec<i32> = x.iter().map(|x| (x * 8159.0).round_ties_even() as i32).collect();
        assert_eq!((tables.scales[0], tables.sums[0]), (1.0 / 8159.0, codes.iter().sum()));
        for (quad, codes) in codes.chunks_exact(QUAD).enumerate() {
            let at = quad / 2 * TABLES_BYTES + quad % 2 * SUBSETS;
            for subset in 0..SUBSETS {
                let (low, high) = (tables.bytes[at + subset], tables.bytes[at + 2 * SUBSETS + subset]);
                let sum: i32 = (0..QUAD).filter(|bit| subset >> bit & 1 == 1).map(|bit| codes[bit]).sum();
                assert_eq!(i32::from(low as i8) + 256 * i32::from(high as i8), sum, "quad {quad}, subset {subset:04b}");
            }
        }
    }

    #[test]
    fn refuses_what_is_not_finite() {
        let x = [f32::NAN; TERNARY_COLUMNS];
        assert_eq!(Tables::default().compute(&x, TERNARY_COLUMNS), Err(NonFinite));
    }
}
