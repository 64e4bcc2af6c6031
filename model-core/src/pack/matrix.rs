//! A packed matrix and its rows. Its layout is in [`super::layout`].

use super::layout::{Layout, OFFSET_PAIR_BYTES, QUAD, QUAD_BYTES, ROWS, SECTION, Section, Width};
use super::memory::Bytes;

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
    /// Row groups of blocks and perhaps offset strips.
    Coded { bytes: Bytes, layout: Layout },
    /// `[row group][column][8 rows]`.
    Float(Vec<f32>),
}

/// Borrowed packed weights, as the kernels see them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View<'a> {
    /// Coded row groups.
    Coded {
        /// All row groups.
        bytes: &'a [u8],
        /// The shape of each.
        layout: Layout,
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

    /// Whether its codes are -1, 0 and 1, whose products read tables of sums of activations.
    pub(crate) fn is_ternary(&self) -> bool {
        matches!(&self.data, Data::Coded { layout, .. } if layout.width.is_ternary())
    }

    /// Whether products with this matrix read activations of 8 bits.
    pub(crate) fn is_fields(&self) -> bool {
        matches!(&self.data, Data::Coded { layout, .. } if layout.width.is_fields())
    }

    /// Whether these are packed.
    pub(crate) fn is_packed_fields(&self) -> bool {
        matches!(&self.data, Data::Coded { layout, .. } if layout.width == Width::PackedFields)
    }

    /// Whether it has an offset strip.
    pub(crate) fn has_offsets(&self) -> bool {
        matches!(&self.data, Data::Coded { layout, .. } if layout.has_offsets)
    }

    /// Columns of the groups of activations whose sums are read by products with this matrix, if any are.
    pub(crate) fn summed_columns(&self) -> Option<usize> {
        match &self.data {
            Data::Coded { layout, .. } if layout.width.is_fields() => None,
            Data::Coded { layout, .. } if layout.has_offsets || layout.width == Width::Nibble => {
                Some(layout.group_columns)
            }
            _ => None,
        }
    }

    pub(crate) fn view(&self) -> View<'_> {
        match &self.data {
            Data::Coded { bytes, layout } => View::Coded { bytes, layout: *layout },
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
            View::Coded { bytes, layout } => coded_row(bytes, layout, row, out),
            View::Float(values) => {
                let group = &values[row / ROWS * ROWS * self.columns..];
                for (out, column) in out.iter_mut().zip(group.chunks_exact(ROWS)) {
                    *out = column[row % ROWS];
                }
            }
        }
        true
    }
}

fn coded_row(bytes: &[u8], layout: Layout, row: usize, out: &mut [f32]) {
    let lane = row % ROWS;
    let row_group = &bytes[row / ROWS * layout.row_group_bytes()..][..layout.row_group_bytes()];
    let (width, columns) = (layout.width, layout.group_columns);
    let groups = row_group[layout.strip_bytes()..].chunks_exact(layout.group_bytes());
    for (out, group) in out.chunks_exact_mut(columns).zip(groups) {
        let stored = float_at(group, width.code_bytes(columns) + 4 * lane);
        let scale = if is_high(width, lane) { stored / width.high_scale() } else { stored };
        match width {
            Width::Byte => write_row::<{ 2 * ROWS }>(group, lane, out, |byte| scale * f32::from(byte)),
            Width::Nibble if is_high(width, lane) => {
                write_row::<ROWS>(group, lane - ROWS / 2, out, |byte| scale * f32::from(byte >> 4));
            }
            Width::Nibble => write_row::<ROWS>(group, lane, out, |byte| scale * f32::from((byte & 0x0f) - 8)),
            Width::Fields | Width::PackedFields => write_field_row(width, group, lane, out, scale),
            Width::Trits => write_trits::<1>(group, lane, out, scale),
            Width::PackedTrits => write_trits::<2>(group, lane, out, scale),
        }
    }
    for section in layout.sections() {
        let out = out[section.first * columns..].chunks_exact_mut(columns);
        add_offsets(row_group, section, lane, out);
    }
}

/// Whether the codes of a row stand in the upper halves of bytes.
fn is_high(width: Width, lane: usize) -> bool {
    width.is_shared() && lane >= ROWS / 2
}

/// The values of one row of a group of fields.
fn write_field_row(width: Width, group: &[u8], lane: usize, out: &mut [f32], scale: f32) {
    let is_packed = width == Width::PackedFields;
    for (column, out) in out.iter_mut().enumerate() {
        let (pair, place) = (column / 2, 2 * (lane % (ROWS / 2)) + column % 2);
        let at = if is_packed { pair / 2 * QUAD_BYTES + 2 * place + pair % 2 } else { pair * QUAD_BYTES + 2 * place };
        let code = if is_high(width, lane) { group[at + 1] as i8 >> 4 } else { (group[at] & 0x0f) as i8 - 8 };
        *out = scale * f32::from(code);
    }
}

/// The values of one row of a group, in which each pair of columns has B bytes.
#[inline(always)]
fn write_row<const B: usize>(group: &[u8], lane: usize, out: &mut [f32], value: impl Fn(i8) -> f32) {
    for (out, pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(group.as_chunks::<B>().0) {
        *out = [pair[2 * lane], pair[2 * lane + 1]].map(|byte| value(byte as i8));
    }
}

/// The values of one row of a group of codes of three values, whose column quads have their indices N to 16 bytes.
fn write_trits<const N: usize>(group: &[u8], lane: usize, out: &mut [f32], scale: f32) {
    for (i, out) in out.as_chunks_mut::<QUAD>().0.iter_mut().enumerate() {
        let at = i / N * QUAD_BYTES + 2 * lane;
        let [first, second] = [group[at], group[at + 1]].map(|index| index >> (i % N * 4));
        let code = |bit: usize| (first >> bit & 1) as i8 + (second >> bit & 1) as i8 - 1;
        *out = core::array::from_fn(|bit| scale * f32::from(code(bit)));
    }
}

/// Adds a section's offsets to the values of one row: `out` are its groups from the section's first on.
fn add_offsets<'a>(row_group: &[u8], section: Section, lane: usize, out: impl Iterator<Item = &'a mut [f32]>) {
    let scale = float_at(row_group, section.scales_at() + 4 * lane);
    for (i, out) in out.take(SECTION).enumerate() {
        let at = section.at + i / 2 * OFFSET_PAIR_BYTES + 4 * lane + i % 2 * 2;
        let offset = scale * f32::from(i16::from_le_bytes([row_group[at], row_group[at + 1]]));
        for out in out {
            *out += offset;
        }
    }
}

fn float_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
