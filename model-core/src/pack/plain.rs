//! Matrices from plain row-major numbers, for tests.

use super::Matrix;
use super::float::interleave_floats;
use super::layout::{Layout, ROWS, Width};
use super::matrix::Data;
use super::memory::Bytes;
use super::row_group::Rows;

impl Matrix {
    /// A coded matrix from row-major codes, scales (of 16 or 32 columns each) and offsets (none: not affine).
    ///
    /// # Panics
    /// If a scale or an offset is not finite, or there is no memory.
    #[expect(clippy::unwrap_used, reason = "tests end without memory")]
    pub(crate) fn from_codes(columns: usize, width: Width, codes: &[i8], scales: &[f32], offsets: &[f32]) -> Self {
        let rows = codes.len() / columns;
        let groups = scales.len() / rows;
        let layout = Layout { groups, group_columns: columns / groups, has_offsets: !offsets.is_empty(), width };
        let mut group = Rows::default();
        let mut bytes = Bytes::with_capacity(rows.div_ceil(ROWS) * layout.row_group_bytes()).unwrap();
        for first in (0..rows).step_by(ROWS) {
            let last = rows.min(first + ROWS);
            let (group_codes, group_scales, group_offsets) = group.first(layout, last - first);
            group_codes.copy_from_slice(&codes[first * columns..last * columns]);
            group_scales.copy_from_slice(&scales[first * groups..last * groups]);
            group_offsets.copy_from_slice(offsets.get(first * groups..last * groups).unwrap_or_default());
            assert_eq!(group.append_to(&mut bytes, layout), Ok(()), "scales and offsets of a test matrix");
        }
        Self { rows, columns, data: Data::Coded { bytes, layout } }
    }

    /// A float matrix from row-major values.
    pub(crate) fn from_values(columns: usize, values: &[f32]) -> Self {
        let mut data = Vec::new();
        interleave_floats(&mut data, columns, values);
        Self { rows: values.len() / columns, columns, data: Data::Float(data) }
    }
}
