//! Decoded rows to the row groups of [`super::layout`].

use core::mem::MaybeUninit;

use super::layout::{
    COLUMNS, HALF_COLUMNS, Layout, OFFSET_LIMIT, OFFSET_PAIR_BYTES, QUAD, QUAD_BYTES, ROWS, SECTION, Section,
    TERNARY_COLUMNS, Width,
};
use super::memory::Bytes;
use crate::kernels::{NonFinite, quantize_into};
use crate::math::all_finite;
use crate::math::lanes::{field_lanes, half_bytes, swap_middles, turn};
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
    #[inline(always)]
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
                _ if layout.width.is_fields() => self.write_field_group(out, layout, group),
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
            _ => write_codes(write_scales::<C>(out, Width::Byte, scales), codes),
        }
    }

    /// Writes all bytes of a group of fields.
    #[inline(always)]
    fn write_field_group(&self, out: &mut [MaybeUninit<u8>], layout: Layout, group: usize) {
        let (codes, scales) = self.group::<COLUMNS>(layout, group);
        if layout.width == Width::PackedFields {
            write_packed_fields(write_scales::<COLUMNS>(out, Width::PackedFields, scales), codes);
        } else {
            write_fields(write_scales::<COLUMNS>(out, Width::Fields, scales), codes);
        }
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
    write_units::<2, N>(out, rows.map(|row| row.as_chunks().0));
}

/// Writes `[unit][row][UNIT]`.
#[inline(always)]
fn write_units<const UNIT: usize, const N: usize>(out: &mut [MaybeUninit<u8>], rows: [&[[i8; 16]]; N]) {
    for (i, out) in out.as_chunks_mut::<16>().0.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        let turned = turn::<UNIT, N>(rows.map(|row| &row[i]));
        for (out, turned) in out.iter_mut().zip(turned) {
            *out = turned.map(|byte| MaybeUninit::new(byte as u8));
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

/// Writes `[column pair][row of the first half][2]`: `code + 8 + 4096 * code'` of the row and its partner.
#[inline(always)]
fn write_fields(out: &mut [MaybeUninit<u8>], codes: [&[i8; COLUMNS]; ROWS]) {
    // Never zeros first: filling is charged by the byte in a canister.
    let lanes: [[[i8; 16]; COLUMNS / 8]; HALF] = core::array::from_fn(|row| {
        let (low, high) = (codes[row].as_chunks().0, codes[row + HALF].as_chunks().0);
        let ([a, b], [c, d]) = (field_lanes(&low[0], &high[0]), field_lanes(&low[1], &high[1]));
        [a, b, c, d]
    });
    write_units::<4, HALF>(out, lanes.each_ref().map(|row| row.as_slice()));
}

/// Writes the same codes in lanes that overlap, and what stands behind them.
#[inline(always)]
fn write_packed_fields(out: &mut [MaybeUninit<u8>], codes: [&[i8; COLUMNS]; ROWS]) {
    const BYTES: usize = HALF * COLUMNS;
    let bytes = two_to_a_byte(codes);
    let rows = bytes.each_ref().map(|row| row.as_chunks::<16>().0);
    let (lanes, spare) = out.split_at_mut(BYTES);
    let mut before = [0; 16];
    for (i, out) in lanes.as_chunks_mut::<16>().0.as_chunks_mut::<HALF>().0.iter_mut().enumerate() {
        for (out, quads) in out.iter_mut().zip(turn::<QUAD, HALF>(rows.map(|row| &row[i]))) {
            let at = swap_middles(&quads);
            *out = half_bytes(&before, &at).map(|byte| MaybeUninit::new(byte as u8));
            before = at;
        }
    }
    for (out, byte) in spare.iter_mut().zip([before[15] & !0x0f, 0, 0, 0]) {
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
