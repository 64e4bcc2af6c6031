//! Decodes a tensor of the file into a [`Matrix`], a bounded number of rows at a step.

use super::interleave::{Rows, interleave_codes, interleave_floats};
use super::layout::{COLUMNS, Layout, ROWS};
use super::matrix::Data;
use super::{Error, Matrix};
use crate::gguf::TensorInfo;
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
    /// Every weight becomes an `f32`: the same values, with float products. Larger and slower.
    F32,
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

/// Decoded rows of one step, row-major.
#[derive(Debug, Default)]
struct Scratch {
    source: Vec<u8>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
    values: Vec<f32>,
}

impl Packer {
    /// Prepares the packing of `tensor`, whose GGUF shape is `[columns, rows]`.
    ///
    /// # Errors
    /// The tensor is no matrix, its format has no decoder, or memory does not suffice.
    pub fn new(tensor: &TensorInfo, precision: Precision) -> Result<Self, Error> {
        let name = || tensor.name.clone();
        let &[columns, rows] = tensor.shape.as_slice() else {
            return Err(Error::NotAMatrix { tensor: name(), dimensions: tensor.shape.len() });
        };
        if !quant::supports(tensor.ty) {
            return Err(Error::Unsupported { tensor: name(), ty: tensor.ty });
        }
        let coded = quant::supports_codes(tensor.ty)
            && quant::group_len(tensor.ty) == COLUMNS
            && precision == Precision::Quantized;
        let has_offsets = quant::has_offset(tensor.ty);
        let sizes = || {
            let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
            let layout = Layout { groups: columns / COLUMNS, has_offsets };
            let row_group = if coded { layout.row_group_bytes() } else { columns.checked_mul(4 * ROWS)? };
            let row_bytes = (columns / tensor.ty.block_elements()).checked_mul(tensor.ty.block_bytes())?;
            let bytes = rows.div_ceil(ROWS).checked_mul(row_group)?;
            (bytes <= isize::MAX as usize).then_some((rows, columns, row_bytes, bytes))
        };
        let (rows, columns, row_bytes, bytes) =
            sizes().ok_or_else(|| Error::TooLarge { tensor: name(), rows, columns })?;
        let no_memory = |_| Error::OutOfMemory { tensor: name(), bytes };
        let data = if coded {
            let mut data = Vec::new();
            data.try_reserve_exact(bytes).map_err(no_memory)?;
            Data::Coded { bytes: data, layout: Layout { groups: columns / COLUMNS, has_offsets } }
        } else {
            let mut data = Vec::new();
            data.try_reserve_exact(bytes / 4).map_err(no_memory)?;
            Data::Float(data)
        };
        let matrix = Matrix { rows, columns, data };
        Ok(Self { tensor: tensor.clone(), row_bytes, next_row: 0, matrix, scratch: Scratch::default() })
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
        let Scratch { source: buffer, codes, scales, offsets, values } = &mut self.scratch;
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
        let finite = match &mut self.matrix.data {
            Data::Coded { bytes: packed, layout } => {
                let groups = rows * columns / COLUMNS;
                codes.resize(groups * COLUMNS, 0);
                scales.resize(groups, 0.0);
                offsets.resize(if layout.has_offsets { groups } else { 0 }, 0.0);
                quant::decode_codes(tensor.ty, bytes, codes, scales, offsets).map_err(format)?;
                all_finite(scales) && interleave_codes(packed, *layout, Rows { codes, scales, offsets }).is_ok()
            }
            Data::Float(packed) => {
                values.resize(rows * columns, 0.0);
                quant::dequantize(tensor.ty, bytes, values).map_err(format)?;
                interleave_floats(packed, columns, values);
                all_finite(values)
            }
        };
        source.release(offset, len);
        if finite { Ok(()) } else { Err(Error::NotFinite { tensor: tensor.name.clone(), row: first }) }
    }
}
