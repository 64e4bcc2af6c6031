//! A packed matrix and its rows. Its layout is in [`super::layout`].

use super::layout::{COLUMNS, OFFSETS_AT, ROWS, SCALES_AT, block_bytes};

/// A weight matrix of shape `[rows, columns]` (outputs, inputs) in packed form.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) data: Data,
}

/// The packed weights.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// Blocks of codes, scales and perhaps offsets.
    Coded { bytes: Vec<u8>, has_offsets: bool },
    /// `[row group][column][8 rows]`.
    Float(Vec<f32>),
}

/// Borrowed packed weights, as the kernels see them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View<'a> {
    /// Blocks in the coded layout.
    Coded {
        /// `row_groups * groups` blocks.
        bytes: &'a [u8],
        /// Whether blocks carry offsets.
        has_offsets: bool,
    },
    /// `[row group][column][8 rows]`.
    Float(&'a [f32]),
}

impl Matrix {
    /// Output dimension.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input dimension.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Coded { bytes, .. } => bytes.len(),
            Data::Float(values) => 4 * values.len(),
        }
    }

    /// Whether products with this matrix read the quantised form of their activations (else the `f32` values).
    pub fn is_coded(&self) -> bool {
        matches!(self.data, Data::Coded { .. })
    }

    pub(crate) fn view(&self) -> View<'_> {
        match &self.data {
            Data::Coded { bytes, has_offsets } => View::Coded { bytes, has_offsets: *has_offsets },
            Data::Float(values) => View::Float(values),
        }
    }

    /// Writes the `f32` values of one row (an embedding) to `out` (`[columns]`). A row beyond the matrix, or an `out` of
    /// another length, is left as it is and `false` returned.
    pub fn row_into(&self, row: usize, out: &mut [f32]) -> bool {
        if row >= self.rows || out.len() != self.columns {
            return false;
        }
        match self.view() {
            View::Coded { bytes, has_offsets } => self.coded_row(bytes, has_offsets, row, out),
            View::Float(values) => {
                let group = &values[row / ROWS * ROWS * self.columns..];
                for (out, column) in out.iter_mut().zip(group.chunks_exact(ROWS)) {
                    *out = column[row % ROWS];
                }
            }
        }
        true
    }

    fn coded_row(&self, bytes: &[u8], has_offsets: bool, row: usize, out: &mut [f32]) {
        let (block, lane) = (block_bytes(has_offsets), row % ROWS);
        let row_group = &bytes[row / ROWS * (self.columns / COLUMNS) * block..];
        for (out, block) in out.chunks_exact_mut(COLUMNS).zip(row_group.chunks_exact(block)) {
            let scale = float_at(block, SCALES_AT + 4 * lane);
            let offset = if has_offsets { float_at(block, OFFSETS_AT + 4 * lane) } else { 0.0 };
            for (pair, out) in out.chunks_exact_mut(2).enumerate() {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = scale * f32::from(block[2 * ROWS * pair + 2 * lane + i] as i8) + offset;
                }
            }
        }
    }
}

fn float_at(block: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
