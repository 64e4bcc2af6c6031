//! The packed form of a matrix: what the kernels read and the packer writes.
//!
//! Rows stand in groups of 8 (the last group is filled up with zero rows). In a coded matrix a row group holds, for
//! every 32 columns, one block:
//!
//! ```text
//! byte    0 ..  16   column pair 0: row 0 (2 codes), row 1, … row 7        i8
//!        16 ..  32   column pair 1
//!           …
//!       240 .. 256   column pair 15
//!       256 .. 288   scale of row 0, … row 7                               f32, little-endian
//!       288 .. 320   offset of row 0, … row 7 (affine formats only)        f32, little-endian
//! ```
//!
//! A weight is `scale * code + offset`. One vector load of a column pair therefore feeds eight outputs, and the scales
//! of eight outputs are applied at once. A float matrix stands as `[row group][column][8 rows]` of `f32`.

/// Rows that share a group.
pub(crate) const ROWS: usize = 8;
/// Columns that share a scale.
pub(crate) const COLUMNS: usize = 32;
/// Where the scales of a block stand, in bytes.
pub(crate) const SCALES_AT: usize = ROWS * COLUMNS;
/// Where the offsets of a block stand, in bytes.
pub(crate) const OFFSETS_AT: usize = SCALES_AT + 4 * ROWS;

/// Bytes of one block.
pub(crate) const fn block_bytes(has_offsets: bool) -> usize {
    if has_offsets { OFFSETS_AT + 4 * ROWS } else { OFFSETS_AT }
}
