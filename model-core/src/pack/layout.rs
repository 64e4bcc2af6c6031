//! The packed form of a matrix: what the kernels read and the packer writes.
//!
//! Rows stand in groups of 8 (the last group is filled up with zero rows). In a coded matrix a row group is an offset
//! strip (affine formats only), and one block for every 32 columns.
//!
//! ```text
//! block   0 ..  16   column pair 0: row 0 (2 codes), row 1, … row 7        i8
//!        16 ..  32   column pair 1
//!           …
//!       240 .. 256   column pair 15
//!       256 .. 288   scale of row 0, … row 7                               f32, little-endian
//! ```
//!
//! Codes from -8 to 7 may stand two to a byte, which holds `(code + 8) | code' << 4` of a row and the fourth row after it:
//!
//! ```text
//! block   0 ..   8   column pair 0: rows 0 and 4 (2 bytes), rows 1 and 5, … rows 3 and 7
//!         8 ..  16   column pair 1
//!           …
//!       120 .. 128   column pair 15
//!       128 .. 160   scale of row 0, … row 3, a 16th of the scale of row 4, … row 7   f32, little-endian
//! ```
//!
//! Where 16 columns share a scale, as in Q6_K, a block has two halves that are built alike, each with its scales behind its
//! codes:
//!
//! ```text
//! block   0 .. 128   column pairs 0 to 7
//!       128 .. 160   scales of columns 0 to 15
//!       160 .. 288   column pairs 8 to 15
//!       288 .. 320   scales of columns 16 to 31
//! ```
//!
//! Codes from -8 to 7 that meet activations of 8 bits stand in the fields of 16-bit lanes, `code + 8 + 4096 * code'` of a row and
//! the fourth row after it:
//!
//! ```text
//! block   0 ..  16   column pair 0: rows 0 and 4 (2 lanes), rows 1 and 5, … rows 3 and 7     u16, little-endian
//!        16 ..  32   column pair 1
//!           …
//!       240 .. 256   column pair 15
//!       256 .. 288   scale of row 0, … row 3, a 4096th of the scale of row 4, … row 7       f32, little-endian
//! ```
//!
//! or packed, so that the 16 bits at byte k, without the middle 8, are lane k: byte k holds `code + 8` of lane k in its low half
//! and `code'` of lane k - 1 in its high half. A column quad has 16 lanes; those with even numbers are its first pair:
//!
//! ```text
//! block   0 ..  16   column quad 0: lanes 0, 2, … 14 of columns 0 and 1, lanes 1, 3, … 15 of columns 2 and 3
//!           …
//!       112 .. 128   column quad 7
//!       128 .. 132   code' of lane 127, zeros
//!       132 .. 164   scales as above
//! ```
//!
//! Codes of three values, 256 of which share a scale, stand as two bits whose sum is the code plus 1, and four columns of
//! a bit at a time are an index into a table of the sums of four activations:
//!
//! ```text
//! block   0 ..  16   column quad 0: row 0 (index of the first bits, of the second), … row 7     a byte each
//!        16 ..  32   column quad 1
//!           …
//!      1008 .. 1024  column quad 63
//!      1024 .. 1056  scale of row 0, … row 7                                                    f32, little-endian
//! ```
//!
//! or two quads in the halves of bytes, the first one in the low halves:
//!
//! ```text
//! block   0 ..  16   column quads 0 and 1: row 0 (indices of the first bits, of the second), … row 7
//!           …
//!       496 .. 512   column quads 62 and 63
//!       512 .. 544   scales
//! ```
//!
//! One vector load of a column pair therefore feeds eight outputs, and the scales of eight outputs are applied at once.
//! The strip has a section for every 32 groups (columns that share a scale), or what is left of them, and is built like
//! the blocks, with a column for each group:
//!
//! ```text
//! section 0 ..  32   groups 0 and 1: row 0 (2 offset codes), … row 7       i16, little-endian
//!        32 ..  64   groups 2 and 3
//!           …                                    (a missing last group of a pair has zeros)
//!       then 32 bytes: offset scale of row 0, … row 7                      f32, little-endian
//! ```
//!
//! A weight is `scale * code + offset scale * offset code`. A float matrix stands as `[row group][column][8 rows]` of
//! `f32`.

/// Rows that share a group.
pub(crate) const ROWS: usize = 8;
/// Columns of a block, and most that share a scale.
pub(crate) const COLUMNS: usize = 32;
/// Fewest columns that share a scale.
pub(crate) const HALF_COLUMNS: usize = COLUMNS / 2;
/// Columns that share a scale in codes of three values.
pub(crate) const TERNARY_COLUMNS: usize = 256;
/// Columns whose bits are an index.
pub(crate) const QUAD: usize = 4;
/// Bytes of the indices of a column quad where each has a byte, and of two where each has half of one.
pub(crate) const QUAD_BYTES: usize = 2 * ROWS;
/// Groups that share a section of the offset strip: as many products as stay exact in `i32`.
pub(crate) const SECTION: usize = 32;
/// Largest offset code, and largest code of the activation sums that meet it: `SECTION` products stay below 2^31.
pub(crate) const OFFSET_LIMIT: f32 = 8191.0;
/// Bytes of the eight scales of a group or a section.
pub(crate) const SCALES_BYTES: usize = 4 * ROWS;
/// Bytes of the offset codes of two groups.
pub(crate) const OFFSET_PAIR_BYTES: usize = 2 * 2 * ROWS;
/// Bytes behind packed fields, of which the first is read with the last lane.
const SPARE_BYTES: usize = 4;
/// Columns whose sum of products the low field of a lane holds.
pub(crate) const FIELD_COLUMNS: usize = 8;

/// Memory of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// A byte.
    Byte,
    /// Half a byte.
    Nibble,
    /// A field of a lane of 16 bits, for activations of 8 bits.
    Fields,
    /// Half a byte, in lanes that overlap, for activations of 8 bits.
    PackedFields,
    /// Half a byte of a code of three values: a byte for each index.
    Trits,
    /// A quarter of a byte of a code of three values: half a byte for each index.
    PackedTrits,
}

impl Width {
    /// Bytes of the codes of so many columns, and so the place of their scales.
    pub const fn code_bytes(self, columns: usize) -> usize {
        match self {
            Self::Byte | Self::Fields => ROWS * columns,
            Self::Nibble | Self::Trits => ROWS * columns / 2,
            Self::PackedFields => ROWS * columns / 2 + SPARE_BYTES,
            Self::PackedTrits => ROWS * columns / 4,
        }
    }

    /// A code that can be held, of any byte.
    pub fn code(self, byte: i8) -> i8 {
        match self {
            Self::Byte => byte,
            Self::Nibble | Self::Fields | Self::PackedFields => byte >> 4,
            Self::Trits | Self::PackedTrits => (byte / 43).clamp(-1, 1),
        }
    }

    /// What the scales of rows 4 to 7 are multiplied by: a power of two, so nothing is rounded (scales come from
    /// half-precision numbers, far above the least `f32`).
    pub const fn high_scale(self) -> f32 {
        match self {
            Self::Nibble => 1.0 / 16.0,
            Self::Fields | Self::PackedFields => 1.0 / 4096.0,
            Self::Byte | Self::Trits | Self::PackedTrits => 1.0,
        }
    }

    /// Whether two rows share bytes or lanes, so that their codes are from -8 to 7.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Nibble | Self::Fields | Self::PackedFields)
    }

    /// Whether codes are in fields, which meet activations of 8 bits.
    pub const fn is_fields(self) -> bool {
        matches!(self, Self::Fields | Self::PackedFields)
    }

    /// Sums of activations of a group that products read, if they read any.
    pub const fn sums_per_group(self) -> usize {
        if self.is_fields() { COLUMNS / FIELD_COLUMNS } else { 1 }
    }

    /// Whether codes are -1, 0 and 1, in the forms of tables of sums.
    pub const fn is_ternary(self) -> bool {
        matches!(self, Self::Trits | Self::PackedTrits)
    }

    /// Bytes of a group of so many columns.
    pub const fn group_bytes(self, columns: usize) -> usize {
        self.code_bytes(columns) + SCALES_BYTES
    }
}

/// The shape of a coded row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Groups of columns that share a scale.
    pub groups: usize,
    /// Columns of a group: [`COLUMNS`], [`HALF_COLUMNS`] or, of three values, [`TERNARY_COLUMNS`].
    pub group_columns: usize,
    /// Whether there is an offset strip.
    pub has_offsets: bool,
    /// Of the blocks' codes.
    pub width: Width,
}

/// A section of the offset strip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    /// Where it begins in the row group, in bytes.
    pub at: usize,
    /// First group that it is for.
    pub first: usize,
    /// Pairs of groups, the last one perhaps with one group only.
    pub pairs: usize,
}

impl Section {
    /// Where its scales stand in the row group, in bytes.
    pub const fn scales_at(self) -> usize {
        self.at + self.pairs * OFFSET_PAIR_BYTES
    }

    /// Where it ends in the row group, in bytes.
    pub const fn end(self) -> usize {
        self.scales_at() + SCALES_BYTES
    }
}

impl Layout {
    /// The sections of the offset strip, in order.
    pub fn sections(self) -> impl Iterator<Item = Section> {
        let groups = if self.has_offsets { self.groups } else { 0 };
        (0..groups).step_by(SECTION).map(move |first| Section {
            at: first / SECTION * (SECTION / 2 * OFFSET_PAIR_BYTES + SCALES_BYTES),
            first,
            pairs: (groups - first).min(SECTION).div_ceil(2),
        })
    }

    /// Bytes of the offset strip, and so the place of the first block.
    pub const fn strip_bytes(self) -> usize {
        if !self.has_offsets {
            return 0;
        }
        self.groups.div_ceil(2) * OFFSET_PAIR_BYTES + self.groups.div_ceil(SECTION) * SCALES_BYTES
    }

    /// Blocks of 32 columns.
    pub const fn blocks(self) -> usize {
        self.groups * self.group_columns / COLUMNS
    }

    /// Bytes of a group.
    pub const fn group_bytes(self) -> usize {
        self.width.group_bytes(self.group_columns)
    }

    /// Bytes of a row group.
    pub const fn row_group_bytes(self) -> usize {
        self.strip_bytes() + self.groups * self.group_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_follow_each_other_up_to_the_first_block() {
        for groups in [1, 2, 18, 31, 32, 33, 48, 64, 344] {
            let layout = Layout { groups, group_columns: COLUMNS, has_offsets: true, width: Width::Byte };
            let (mut at, mut first) = (0, 0);
            for section in layout.sections() {
                assert_eq!((section.at, section.first), (at, first));
                at = section.end();
                first += 2 * section.pairs;
            }
            assert_eq!((layout.strip_bytes(), groups.next_multiple_of(2)), (at, first));
            let plain = Layout { has_offsets: false, ..layout };
            assert_eq!((plain.sections().count(), plain.strip_bytes()), (0, 0));
            assert_eq!(layout.row_group_bytes() - plain.row_group_bytes(), at);
        }
    }

    #[test]
    fn a_section_of_largest_codes_does_not_overflow() {
        let limit = OFFSET_LIMIT as i64;
        assert!(SECTION as i64 * limit * limit <= i64::from(i32::MAX));
    }
}
