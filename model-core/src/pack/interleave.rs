//! Decoded rows to the order of [`super::layout`].

use super::layout::{COLUMNS, ROWS};
#[cfg(any(test, feature = "fixtures"))]
use super::{Matrix, matrix::Data};

/// Decoded rows, row-major.
pub(super) struct Rows<'a> {
    pub columns: usize,
    pub codes: &'a [i8],
    pub scales: &'a [f32],
    pub offsets: &'a [f32],
}

/// Appends whole row groups; the last one is filled up with zeros.
pub(super) fn interleave_codes(packed: &mut Vec<u8>, rows: Rows<'_>) {
    let groups = rows.columns / COLUMNS;
    let row_groups = rows.scales.len().div_ceil(groups * ROWS);
    for row_group in 0..row_groups {
        let first = row_group * ROWS * groups;
        let last = rows.scales.len().min(first + ROWS * groups);
        for group in 0..groups {
            let at = first + group;
            interleave_block(packed, &rows.codes[at * COLUMNS..last * COLUMNS], rows.columns);
            interleave_values(packed, &rows.scales[at..last], groups);
            if !rows.offsets.is_empty() {
                interleave_values(packed, &rows.offsets[at..last], groups);
            }
        }
    }
}

/// Appends the codes of one block: `codes` begins with the block's first row, rows follow at `stride`.
fn interleave_block(packed: &mut Vec<u8>, codes: &[i8], stride: usize) {
    let mut block = [[[0u8; 2]; ROWS]; COLUMNS / 2];
    for (lane, row) in codes.chunks(stride).enumerate() {
        for (pair, codes) in block.iter_mut().zip(row.chunks_exact(2)) {
            pair[lane] = [codes[0] as u8, codes[1] as u8];
        }
    }
    packed.extend_from_slice(block.as_flattened().as_flattened());
}

/// Appends one value of each of the 8 rows: `values` begins with the first row's, the others follow at `stride`.
fn interleave_values(packed: &mut Vec<u8>, values: &[f32], stride: usize) {
    let mut lanes = [[0u8; 4]; ROWS];
    for (lane, value) in lanes.iter_mut().zip(values.iter().step_by(stride)) {
        *lane = value.to_le_bytes();
    }
    packed.extend_from_slice(lanes.as_flattened());
}

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

#[cfg(any(test, feature = "fixtures"))]
impl Matrix {
    /// A coded matrix from row-major codes, scales and offsets (none: not affine).
    pub(crate) fn from_codes(columns: usize, codes: &[i8], scales: &[f32], offsets: &[f32]) -> Self {
        let mut bytes = Vec::new();
        interleave_codes(&mut bytes, Rows { columns, codes, scales, offsets });
        let data = Data::Coded { bytes, has_offsets: !offsets.is_empty() };
        Self { rows: codes.len() / columns, columns, data }
    }

    /// A float matrix from row-major values.
    pub(crate) fn from_values(columns: usize, values: &[f32]) -> Self {
        let mut data = Vec::new();
        interleave_floats(&mut data, columns, values);
        Self { rows: values.len() / columns, columns, data: Data::Float(data) }
    }
}
