//! Decoded rows to the order of [`super::layout`].

use super::layout::{COLUMNS, Layout, OFFSET_LIMIT, ROWS, SECTION, Section};
#[cfg(any(test, feature = "fixtures"))]
use super::{Matrix, matrix::Data};
use crate::kernels::{NonFinite, quantize_into};

/// Decoded rows, row-major.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub codes: &'a [i8],
    pub scales: &'a [f32],
    pub offsets: &'a [f32],
}

/// Appends whole row groups; the last one is filled up with zeros.
///
/// # Errors
/// An offset is infinite or NaN.
pub(super) fn interleave_codes(packed: &mut Vec<u8>, layout: Layout, rows: Rows<'_>) -> Result<(), NonFinite> {
    let groups = layout.groups;
    for first in (0..rows.scales.len()).step_by(ROWS * groups) {
        let last = rows.scales.len().min(first + ROWS * groups);
        for section in layout.sections() {
            interleave_offsets(packed, &rows.offsets[first..last], groups, section)?;
        }
        for at in first..first + groups {
            interleave_block(packed, &rows.codes[at * COLUMNS..last * COLUMNS], groups * COLUMNS);
            interleave_values(packed, &rows.scales[at..last], groups);
        }
    }
    Ok(())
}

/// Appends a section of the offset strip; `offsets` are those of the row group's rows, each of `groups`.
fn interleave_offsets(packed: &mut Vec<u8>, offsets: &[f32], groups: usize, section: Section) -> Result<(), NonFinite> {
    let (mut codes, mut scales) = ([[[0i16; 2]; ROWS]; SECTION / 2], [0.0; ROWS]);
    for (lane, (offsets, scale)) in offsets.chunks_exact(groups).zip(&mut scales).enumerate() {
        let offsets = &offsets[section.first..groups.min(section.first + SECTION)];
        let mut row = [0; SECTION];
        *scale = quantize_into(offsets, OFFSET_LIMIT, &mut row)?;
        for (pair, row) in codes.iter_mut().zip(row.as_chunks().0) {
            pair[lane] = *row;
        }
    }
    let codes = &codes[..section.pairs];
    packed.extend(codes.as_flattened().as_flattened().iter().flat_map(|code| code.to_le_bytes()));
    interleave_values(packed, &scales, 1);
    Ok(())
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
        let layout = Layout { groups: columns / COLUMNS, has_offsets: !offsets.is_empty() };
        let finite = interleave_codes(&mut bytes, layout, Rows { codes, scales, offsets });
        assert_eq!(finite, Ok(()), "offsets of a test matrix");
        Self { rows: codes.len() / columns, columns, data: Data::Coded { bytes, layout } }
    }

    /// A float matrix from row-major values.
    pub(crate) fn from_values(columns: usize, values: &[f32]) -> Self {
        let mut data = Vec::new();
        interleave_floats(&mut data, columns, values);
        Self { rows: values.len() / columns, columns, data: Data::Float(data) }
    }
}
