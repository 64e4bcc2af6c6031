//! The matrix product of float weights: per output row `acc = acc + w * x` along the columns, one accumulator, no FMA.
//! Plain Rust over eight rows at a time; a lane is a row, so any vector width gives the same bits.

use crate::pack::layout::ROWS;

/// `y[t][row]` for the rows of the groups in `weights` (`[row group][column][8]`), where `y` yields the eight outputs
/// of one token.
pub(super) fn row_group(weights: &[f32], x: &[f32]) -> [f32; ROWS] {
    let mut acc = [0.0f32; ROWS];
    for (column, &x) in weights.chunks_exact(ROWS).zip(x) {
        for (acc, &w) in acc.iter_mut().zip(column) {
            *acc += w * x;
        }
    }
    acc
}
