//! The matrix product of float weights: per output row `acc = acc + w * x` along the columns, one accumulator, no FMA.
//! Plain Rust over eight rows at a time; a lane is a row, so any vector width gives the same bits.

use crate::pack::layout::ROWS;

/// The eight outputs of one row group (`[column][8 rows]`) for one token's activations (`[columns]`).
pub(super) fn row_group(weights: &[f32], x: &[f32]) -> [f32; ROWS] {
    let mut acc = [0.0f32; ROWS];
    for (column, &x) in weights.chunks_exact(ROWS).zip(x) {
        for (acc, &w) in acc.iter_mut().zip(column) {
            *acc += w * x;
        }
    }
    acc
}
