//! Decodes a tensor of the file into a [`Matrix`], a bounded number of rows at a step.

use std::sync::Arc;

use super::float::interleave_floats;
use super::layout::{Layout, ROWS, Width};
use super::matrix::Data;
use super::memory::{Bytes, Region};
use super::row_group::Rows;
use super::{Error, Matrix};
use crate::gguf::{GgmlType, TensorInfo};
use crate::math::all_finite;
use crate::quant;
use crate::source::ByteSource;

/// Most source bytes that one step reads (at least one row group is read in any case).
const STEP_BYTES: usize = 128 * 1024;

/// What becomes of quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Codes stay codes: the exact values of the file, with integer products.
    #[default]
    Quantized,
    /// The same, but four-bit codes with a scale per 32 meet activations of 8 bits instead of 16, whose scales are per 32 too:
    /// fewer instructions, and about as precise as llama.cpp.
    Activations8,
    /// Every weight becomes an `f32`: the same values, with float products. Larger and slower.
    F32,
}

impl Precision {
    /// That of activations of 16 or 8 bits; `None` for any other number.
    pub fn with_activation_bits(bits: u8) -> Option<Self> {
        match bits {
            16 => Some(Self::Quantized),
            8 => Some(Self::Activations8),
            _ => None,
        }
    }

    /// Bits of the activations that meet four-bit weights.
    pub fn activation_bits(self) -> u8 {
        match self {
            Self::Quantized => 16,
            Self::Activations8 => 8,
            Self::F32 => 32,
        }
    }
}

/// How codes are kept in memory. Products have the same bits either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// A byte for each code (half of one where it has three values): fewest instructions per product.
    Wide,
    /// Half a byte for each code of the four-bit formats, a quarter where it has three values, a byte for the others: less
    /// memory to hold and to read.
    Compact,
}

impl Residency {
    /// `wide` or `compact`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Compact => "compact",
        }
    }
}

/// A resumable walk over the rows of one tensor.
#[derive(Debug)]
pub struct Packer {
    tensor: TensorInfo,
    row_bytes: usize,
    next_row: usize,
    matrix: Matrix,
    scratch: Scratch,
}

/// Buffers that every step uses again.
#[derive(Debug, Default)]
struct Scratch {
    /// Bytes of the file.
    source: Vec<u8>,
    /// Decoded rows of a coded matrix.
    rows: Rows,
    /// Decoded rows of a float matrix, row-major.
    values: Vec<f32>,
}

impl Packer {
    /// Prepares the packing of `tensor`, whose GGUF shape is `[columns, rows]`.
    ///
    /// # Errors
    /// The tensor is no matrix, its format has no decoder, or memory does not suffice.
    pub fn new(tensor: &TensorInfo, precision: Precision, residency: Residency) -> Result<Self, Error> {
        Self::with_memory(tensor, precision, residency, Bytes::with_capacity)
    }

    /// The same, with codes in the next bytes of `region`, which [`Packer::region`] has made for this tensor too.
    ///
    /// # Errors
    /// As [`Packer::new`].
    pub(crate) fn in_region(
        tensor: &TensorInfo,
        precision: Precision,
        residency: Residency,
        region: &Arc<Region>,
    ) -> Result<Self, Error> {
        Self::with_memory(tensor, precision, residency, |bytes| region.take(bytes))
    }

    fn with_memory(
        tensor: &TensorInfo,
        precision: Precision,
        residency: Residency,
        memory: impl Fn(usize) -> Option<Bytes>,
    ) -> Result<Self, Error> {
        let Shape { rows, columns, row_bytes, bytes, layout } = Shape::of(tensor, precision, residency)?;
        let no_memory = || Error::OutOfMemory { tensor: tensor.name.clone(), bytes };
        let data = if let Some(layout) = layout {
            Data::Coded { bytes: memory(bytes).ok_or_else(no_memory)?, layout }
        } else {
            let mut data = Vec::new();
            data.try_reserve_exact(bytes / 4).map_err(|_| no_memory())?;
            Data::Float(data)
        };
        let matrix = Matrix { rows, columns, data };
        Ok(Self { tensor: tensor.clone(), row_bytes, next_row: 0, matrix, scratch: Scratch::default() })
    }

    /// Memory for the codes of all these tensors. `None` if no allocation is that large, though smaller ones may be.
    ///
    /// # Errors
    /// As [`Packer::new`], but for the memory.
    pub(crate) fn region<'t>(
        tensors: impl Iterator<Item = &'t TensorInfo>,
        precision: Precision,
        residency: Residency,
    ) -> Result<Option<Region>, Error> {
        let mut total = 0usize;
        for tensor in tensors {
            let shape = Shape::of(tensor, precision, residency)?;
            total = total.saturating_add(if shape.layout.is_some() { shape.bytes } else { 0 });
        }
        Ok(Region::new(total))
    }

    /// Bytes that the packed matrix will take.
    ///
    /// # Errors
    /// As [`Packer::new`], but for the memory.
    pub fn packed_bytes(tensor: &TensorInfo, precision: Precision, residency: Residency) -> Result<u64, Error> {
        Ok(Shape::of(tensor, precision, residency)?.bytes as u64)
    }

    /// Packs the next rows; `true` once all are packed.
    ///
    /// # Errors
    /// The source fails, or a weight is not finite.
    pub fn step(&mut self, source: &dyn ByteSource) -> Result<bool, Error> {
        let first = self.next_row;
        let left = self.matrix.rows - first;
        let rows = (STEP_BYTES / self.row_bytes.max(1) / ROWS).max(1) * ROWS;
        let rows = rows.min(left);
        if rows > 0 {
            self.pack(source, rows)?;
            self.next_row += rows;
        }
        Ok(self.next_row == self.matrix.rows)
    }

    /// Bytes of the source packed so far.
    pub fn source_bytes(&self) -> u64 {
        (self.next_row * self.row_bytes) as u64
    }

    /// The matrix, once [`Packer::step`] has said that it is whole.
    pub fn finish(self) -> Option<Matrix> {
        (self.next_row == self.matrix.rows).then_some(self.matrix)
    }

    fn pack(&mut self, source: &dyn ByteSource, rows: usize) -> Result<(), Error> {
        let (tensor, columns, first) = (&self.tensor, self.matrix.columns, self.next_row);
        let (offset, len) = (tensor.offset + (first * self.row_bytes) as u64, rows * self.row_bytes);
        let Scratch { source: buffer, rows: decoded, values } = &mut self.scratch;
        let bytes = match source.as_slice().and_then(|all| all.get(offset as usize..)?.get(..len)) {
            Some(bytes) => bytes,
            None => {
                buffer.resize(len, 0);
                source
                    .read_at(offset, buffer)
                    .map_err(|source| Error::Source { tensor: tensor.name.clone(), source })?;
                buffer.as_slice()
            }
        };
        let format = |source| Error::Format { tensor: tensor.name.clone(), source };
        let mut finite = true;
        match &mut self.matrix.data {
            Data::Coded { bytes: packed, layout } => {
                for bytes in bytes.chunks((ROWS * self.row_bytes).max(1)) {
                    let count = bytes.len() / self.row_bytes;
                    let (codes, scales, offsets) = decoded.first(*layout, count);
                    quant::decode_codes(tensor.ty, bytes, codes, scales, offsets).map_err(format)?;
                    if layout.width.is_ternary() && !is_ternary(codes) {
                        return Err(Error::NotTernary { tensor: tensor.name.clone(), row: first });
                    }
                    finite &= decoded.append_to(packed, *layout).is_ok();
                }
            }
            Data::Float(packed) => {
                values.resize(rows * columns, 0.0);
                quant::dequantize(tensor.ty, bytes, values).map_err(format)?;
                interleave_floats(packed, columns, values);
                finite = all_finite(values);
            }
        }
        if finite { Ok(()) } else { Err(Error::NotFinite { tensor: tensor.name.clone(), row: first }) }
    }
}

/// What follows from a tensor's shape and type.
struct Shape {
    rows: usize,
    columns: usize,
    /// Of the source.
    row_bytes: usize,
    /// Of the packed matrix.
    bytes: usize,
    /// Of a coded matrix.
    layout: Option<Layout>,
}

impl Shape {
    fn of(tensor: &TensorInfo, precision: Precision, residency: Residency) -> Result<Self, Error> {
        let name = || tensor.name.clone();
        let &[columns, rows] = tensor.shape.as_slice() else {
            return Err(Error::NotAMatrix { tensor: name(), dimensions: tensor.shape.len() });
        };
        if !quant::supports(tensor.ty) {
            return Err(Error::Unsupported { tensor: name(), ty: tensor.ty });
        }
        let coded = quant::supports_codes(tensor.ty) && precision != Precision::F32;
        let shape = || {
            let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
            let layout = coded.then(|| layout(tensor.ty, columns, precision, residency));
            let row_group = match layout {
                Some(layout) => layout.row_group_bytes(),
                None => columns.checked_mul(4 * ROWS)?,
            };
            let row_bytes = (columns / tensor.ty.block_elements()).checked_mul(tensor.ty.block_bytes())?;
            let bytes = rows.div_ceil(ROWS).checked_mul(row_group)?;
            (bytes <= isize::MAX as usize).then_some(Self { rows, columns, row_bytes, bytes, layout })
        };
        shape().ok_or_else(|| Error::TooLarge { tensor: name(), rows, columns })
    }
}

/// Whether no code is above 1; below -1 there is none.
fn is_ternary(codes: &[i8]) -> bool {
    codes.iter().fold(i8::MIN, |most, code| most.max(*code)) <= 1
}

fn layout(ty: GgmlType, columns: usize, precision: Precision, residency: Residency) -> Layout {
    let has_fields = precision == Precision::Activations8 && quant::has_four_bit_codes(ty);
    let width = match residency {
        Residency::Wide if has_fields => Width::Fields,
        Residency::Compact if has_fields => Width::PackedFields,
        Residency::Wide if quant::is_ternary(ty) => Width::Trits,
        Residency::Compact if quant::is_ternary(ty) => Width::PackedTrits,
        Residency::Compact if quant::has_four_bit_codes(ty) => Width::Nibble,
        _ => Width::Byte,
    };
    let group_columns = quant::group_len(ty);
    Layout { groups: columns / group_columns, group_columns, has_offsets: quant::has_offset(ty), width }
}
