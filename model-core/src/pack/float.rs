//! Rows of `f32` to the order of [`super::layout`].

use super::layout::ROWS;

/// Appends whole row groups of a float matrix.
pub(super) fn interleave_floats(packed: &mut Vec<f32>, columns: usize, values: &[f32]) {
    for rows in values.chunks(ROWS * columns) {
        for column in 0..columns {
            let mut lanes = [0.0; ROWS];
            for (lane, value) in lanes.iter_mut().zip(rows[column..].iter().step_by(columns)) {
                *lane = *value;
            }
            packed.extend_from_slice(&lanes);
        }
    }
}
