//! Reads what a token's products read, and does nothing else with it: how long this takes is the least that a token can
//! take on a machine.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pack::Matrix;
use crate::pack::matrix::View;
use crate::parallel;

/// Bytes that are worth a thread of their own.
const THREAD_BYTES: usize = 1 << 17;

/// The exclusive or of a matrix's words, read on all threads of the current pool.
pub(super) fn read(matrix: &Matrix) -> u64 {
    let all = AtomicU64::new(0);
    let add = |words| {
        all.fetch_xor(words, Ordering::Relaxed);
    };
    match matrix.view() {
        View::Coded { bytes, .. } => {
            let words = bytes.as_chunks().0;
            parallel::ranges(words.len(), THREAD_BYTES / 8, |range| add(of_words(&words[range])));
        }
        View::Float(values) => parallel::ranges(values.len(), THREAD_BYTES / 4, |range| add(of_floats(&values[range]))),
    }
    all.into_inner()
}

/// In as many lanes as keep the memory busy.
fn of_words(words: &[[u8; 8]]) -> u64 {
    const LANES: usize = 32;
    let mut lanes = [0; LANES];
    let (blocks, rest) = words.as_chunks::<LANES>();
    for words in blocks {
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane ^= u64::from_le_bytes(*word);
        }
    }
    rest.iter().chain(&lanes.map(u64::to_le_bytes)).fold(0, |all, word| all ^ u64::from_le_bytes(*word))
}

fn of_floats(values: &[f32]) -> u64 {
    values.iter().fold(0, |all, value| all ^ value.to_bits()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::layout::Width;

    #[test]
    fn every_byte_counts_once() {
        let codes: Vec<i8> = (0..40 * 64).map(|i| (i * 37 % 251) as u8 as i8).collect();
        let scales: Vec<f32> = (0..40 * 2).map(|i| i as f32 * 0.25).collect();
        let mut matrix = Matrix::from_codes(64, Width::Byte, &codes, &scales, &[]);
        let all = read(&matrix);
        let words = |matrix: &Matrix| match matrix.view() {
            View::Coded { bytes, .. } => {
                bytes.as_chunks().0.iter().fold(0, |all, word| all ^ u64::from_le_bytes(*word))
            }
            View::Float(values) => values.iter().fold(0, |all, value| all ^ u64::from(value.to_bits())),
        };
        assert_eq!(all, words(&matrix));
        matrix = Matrix::from_values(64, &scales[..64]);
        assert_eq!(read(&matrix), words(&matrix));
    }
}
