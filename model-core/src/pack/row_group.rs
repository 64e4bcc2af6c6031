//! Decoded rows to the row groups of [`super::layout`].

use core::mem::MaybeUninit;

use super::layout::{
    COLUMNS, HALF_COLUMNS, Layout, OFFSET_LIMIT, OFFSET_PAIR_BYTES, QUAD, QUAD_BYTES, ROWS, SECTION, Section,
    TERNARY_COLUMNS, Width,
};
use super::memory::Bytes;
use crate::kernels::{NonFinite, quantize_into};
use crate::math::all_finite;
use crate::math::vectorize::{Work, vectorize};

/// Rows in half a row group: as many pairs of rows share bytes in blocks of nibbles.
const HALF: usize = ROWS / 2;

/// Eight decoded rows, row-major.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// `[8][group_columns * groups]`
    codes: Vec<i8>,
    /// `[8][groups]`
    scales: Vec<f32>,
    /// `[8][groups]`, empty for formats without offsets.
    offsets: Vec<f32>,
}

impl Rows {
    /// Codes, scales and offsets of the first `rows` rows, to be written. The others are zero.
    pub fn first(&mut self, layout: Layout, rows: usize) -> (&mut [i8], &mut [f32], &mut [f32]) {
        let groups = layout.groups;
        let offset_groups = if layout.has_offsets { groups } else { 0 };
        (
            first_rows(&mut self.codes, layout.group_columns * groups, rows),
            first_rows(&mut self.scales, groups, rows),
            first_rows(&mut self.offsets, offset_groups, rows),
        )
    }

    /// Appends the rows as a row group to `packed`, which has room for it.
    ///
    /// # Errors
    /// A scale or an offset is infinite or NaN.
    pub fn append_to(&self, packed: &mut Bytes, layout: Layout) -> Result<(), NonFinite> {
        let size = layout.row_group_bytes();
        let (strip, blocks) = packed.spare()[..size].split_at_mut(layout.strip_bytes());
        vectorize(WriteBlocks { rows: self, layout, out: blocks });
        for section in layout.sections() {
            self.write_section(&mut strip[section.at..section.end()], layout.groups, section)?;
        }
        // SAFETY: the room was there, and the blocks and sections, of which a row group consists, have been written.
        unsafe { packed.advance(size) };
        if all_finite(&self.scales) { Ok(()) } else { Err(NonFinite) }
    }

    #[inline(always)]
    fn write_blocks(&self, out: &mut [MaybeUninit<u8>], layout: Layout) {
        for (group, out) in out.chunks_exact_mut(layout.group_bytes()).enumerate() {
            match layout.group_columns {
                _ if layout.width == Width::PackedFields => self.write_packed_group(out, layout, group),
                HALF_COLUMNS => self.write_group::<HALF_COLUMNS>(out, layout, group),
                TERNARY_COLUMNS => self.write_ternary_group(out, layout, group),
                _ => self.write_group::<COLUMNS>(out, layout, group),
            }
        }
    }

    /// Writes all bytes of a group of C columns.
    #[inline(always)]
    fn write_group<const C: usize>(&self, out: &mut [MaybeUninit<u8>], layout: Layout, group: usize) {
        let (codes, scales) = self.group::<C>(layout, group);
        // Widths are constants where they decide lengths, so that the compiler knows these.
        match layout.width {
            Width::Nibble => {
                let codes_out = write_scales::<C>(out, Width::Nibble, scales);
                write_codes(codes_out, two_to_a_byte(codes).each_ref());
            }
            Width::Fields => {
                let codes_out = write_scales::<C>(out, Width::Fields, scales);
                let lanes = two_to_a_lane(codes);
                write_units::<4, HALF>(codes_out, lanes.each_ref().map(|row| row.as_flattened().as_chunks().0));
            }
            _ => write_codes(write_scales::<C>(out, Width::Byte, scales), codes),
        }
    }

    /// Writes all bytes of a group of packed fields.
    #[inline(always)]
    fn write_packed_group(&self, out: &mut [MaybeUninit<u8>], layout: Layout, group: usize) {
        let (codes, scales) = self.group::<COLUMNS>(layout, group);
        write_packed_fields(write_scales::<COLUMNS>(out, Width::PackedFields, scales), codes);
    }

    /// Writes all bytes of a group of codes of three values.
    #[inline(always)]
    fn write_ternary_group(&self, out: &mut [MaybeUninit<u8>], layout: Layout, group: usize) {
        let (codes, scales) = self.group::<TERNARY_COLUMNS>(layout, group);
        let (codes_out, scales_out) = out.split_at_mut(layout.width.code_bytes(TERNARY_COLUMNS));
        let quads = codes.map(|codes| codes.as_chunks::<QUAD>().0);
        let is_packed = layout.width == Width::PackedTrits;
        for (i, out) in codes_out.as_chunks_mut::<QUAD_BYTES>().0.iter_mut().enumerate() {
            for (out, quads) in out.as_chunks_mut::<2>().0.iter_mut().zip(&quads) {
                *out = if is_packed {
                    let (low, high) = (indices(quads[2 * i]), indices(quads[2 * i + 1]));
                    [low[0] | high[0] << 4, low[1] | high[1] << 4]
                } else {
                    indices(quads[i])
                }
                .map(MaybeUninit::new);
            }
        }
        write_floats(scales_out, scales);
    }

    /// Codes and scales of the rows of a group of C columns.
    #[inline(always)]
    fn group<const C: usize>(&self, layout: Layout, group: usize) -> ([&[i8; C]; ROWS], [f32; ROWS]) {
        let codes = self.codes.as_chunks::<C>().0;
        (
            core::array::from_fn(|row| &codes[row * layout.groups + group]),
            core::array::from_fn(|row| self.scales[row * layout.groups + group]),
        )
    }

    /// Writes all bytes of a section of the offset strip.
    fn write_section(&self, out: &mut [MaybeUninit<u8>], groups: usize, section: Section) -> Result<(), NonFinite> {
        let (codes_out, scales_out) = out.split_at_mut(section.pairs * OFFSET_PAIR_BYTES);
        let mut scales = [0.0; ROWS];
        for (lane, (offsets, scale)) in self.offsets.chunks_exact(groups).zip(&mut scales).enumerate() {
            let mut codes = [0; SECTION];
            let offsets = &offsets[section.first..groups.min(section.first + SECTION)];
            *scale = quantize_into(offsets, OFFSET_LIMIT, &mut codes)?;
            let pairs = codes_out.as_chunks_mut::<4>().0.chunks_exact_mut(ROWS);
            for (pair, codes) in pairs.zip(codes.as_chunks::<2>().0) {
                let [[a, b], [c, d]] = codes.map(i16::to_le_bytes);
                pair[lane] = [a, b, c, d].map(MaybeUninit::new);
            }
        }
        write_floats(scales_out, scales);
        Ok(())
    }
}

/// [`Rows::write_blocks`] by its arguments.
struct WriteBlocks<'a> {
    rows: &'a Rows,
    layout: Layout,
    out: &'a mut [MaybeUninit<u8>],
}

impl Work for WriteBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.rows.write_blocks(self.out, self.layout);
    }
}

/// Gives `buffer` eight rows of `len` values and returns the first `rows` of them; the others are zero.
fn first_rows<T: Clone + Default>(buffer: &mut Vec<T>, len: usize, rows: usize) -> &mut [T] {
    buffer.resize(ROWS * len, T::default());
    let (first, rest) = buffer.split_at_mut(rows * len);
    rest.fill(T::default());
    first
}

/// Writes `[column pair][row][2]`.
#[inline(always)]
fn write_codes<const C: usize, const N: usize>(out: &mut [MaybeUninit<u8>], rows: [&[i8; C]; N]) {
    write_units(out, rows.map(|row| row.as_chunks::<2>().0));
}

/// Writes `[unit][row][UNIT]`.
#[inline(always)]
fn write_units<const UNIT: usize, const N: usize>(out: &mut [MaybeUninit<u8>], rows: [&[[i8; UNIT]]; N]) {
    for (unit, out) in out.as_chunks_mut::<UNIT>().0.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        for (out, row) in out.iter_mut().zip(rows) {
            *out = row[unit].map(|byte| MaybeUninit::new(byte as u8));
        }
    }
}

/// `(code + 8) | code' << 4` of each row of the first half and its partner in the second.
#[inline(always)]
fn two_to_a_byte<const C: usize>(codes: [&[i8; C]; ROWS]) -> [[i8; C]; HALF] {
    let mut bytes = [[0; C]; HALF];
    for (row, bytes) in bytes.iter_mut().enumerate() {
        for (column, byte) in bytes.iter_mut().enumerate() {
            *byte = (codes[row][column] + 8) | codes[row + HALF][column] << 4;
        }
    }
    bytes
}

/// `code + 8 + 4096 * code'` of each row of the first half and its partner in the second, little-endian.
#[inline(always)]
fn two_to_a_lane<const C: usize>(codes: [&[i8; C]; ROWS]) -> [[[i8; 2]; C]; HALF] {
    let mut lanes = [[[0; 2]; C]; HALF];
    for (row, lanes) in lanes.iter_mut().enumerate() {
        for (column, lane) in lanes.iter_mut().enumerate() {
            *lane = [codes[row][column] + 8, codes[row + HALF][column] << 4];
        }
    }
    lanes
}

/// Writes the same codes in lanes that overlap, and what stands behind them.
#[inline(always)]
fn write_packed_fields(out: &mut [MaybeUninit<u8>], codes: [&[i8; COLUMNS]; ROWS]) {
    const BYTES: usize = HALF * COLUMNS;
    let bytes = two_to_a_byte(codes);
    let rows = bytes.each_ref().map(|row| row.as_chunks::<QUAD>().0);
    // Behind a zero, since high halves move to the next byte.
    let mut turned = [0; 1 + BYTES];
    for (quad, out) in turned[1..].as_chunks_mut::<QUAD>().0.as_chunks_mut::<HALF>().0.iter_mut().enumerate() {
        for (out, row) in out.iter_mut().zip(rows) {
            *out = [0, 2, 1, 3].map(|column| row[quad][column]);
        }
    }
    let (lanes, spare) = out.split_at_mut(BYTES);
    for (out, (high, low)) in lanes.iter_mut().zip(turned.iter().zip(&turned[1..])) {
        out.write((low & 0x0f | high & !0x0f) as u8);
    }
    for (out, byte) in spare.iter_mut().zip([turned[BYTES] & !0x0f, 0, 0, 0]) {
        out.write(byte as u8);
    }
}

/// The indices of four codes of three values: bit i of the first says that code i is above -1, of the second, above 0.
#[inline(always)]
fn indices(codes: [i8; QUAD]) -> [u8; 2] {
    // Bit 7 of a byte is its sign. The product moves the low bits of the bytes next to each other.
    let codes = u32::from_le_bytes(codes.map(|code| code as u8));
    let not_negative = !(codes >> 7);
    [not_negative, codes & not_negative].map(|bits| ((bits & 0x0101_0101).wrapping_mul(0x0102_0408) >> 24) as u8)
}

/// Writes the scales of C columns behind the place of their codes, which is returned.
#[inline(always)]
fn write_scales<const C: usize>(
    out: &mut [MaybeUninit<u8>],
    width: Width,
    scales: [f32; ROWS],
) -> &mut [MaybeUninit<u8>] {
    let (codes_out, scales_out) = out.split_at_mut(width.code_bytes(C));
    let factor = |row| if row < HALF { 1.0 } else { width.high_scale() };
    write_floats(scales_out, core::array::from_fn(|row| scales[row] * factor(row)));
    codes_out
}

#[inline(always)]
fn write_floats(out: &mut [MaybeUninit<u8>], values: [f32; ROWS]) {
    for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *out = value.to_le_bytes().map(MaybeUninit::new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::SplitMix64;

    #[test]
    fn longer_vectors_change_no_bit() {
        let kinds = [
            (COLUMNS, Width::Byte),
            (HALF_COLUMNS, Width::Byte),
            (COLUMNS, Width::Nibble),
            (COLUMNS, Width::Fields),
            (COLUMNS, Width::PackedFields),
            (TERNARY_COLUMNS, Width::Trits),
            (TERNARY_COLUMNS, Width::PackedTrits),
        ];
        for (group_columns, width) in kinds {
            let layout = Layout { groups: 3, group_columns, has_offsets: false, width };
            let (mut rows, mut random) = (Rows::default(), SplitMix64::new(7));
            let (codes, scales, _) = rows.first(layout, ROWS);
            codes.fill_with(|| width.code(random.next_u64() as i8));
            scales.fill_with(|| random.next_u64() as f32);
            let written = |write: fn(WriteBlocks<'_>)| {
                let mut out = vec![MaybeUninit::new(0); layout.row_group_bytes()];
                write(WriteBlocks { rows: &rows, layout, out: &mut out });
                // SAFETY: all bytes had a value from the beginning.
                out.into_iter().map(|byte| unsafe { byte.assume_init() }).collect::<Vec<u8>>()
            };
            assert_eq!(written(|work| vectorize(work)), written(|work| work.run()), "{layout:?}");
        }
    }
}
