//! The block formats of GGML: exact decode to integer codes with f32 scales (and offsets), exact f32 values,
//! and the reference quantizers. Knows blocks, not tensors, files or the packed layout.
//!
//! A weight of the code formats is `scale * code + offset`, each operation rounded to f32. Source: the
//! `dequantize_row_*` and `quantize_row_*_ref` functions of ggml, the PyPI package `gguf` as the independent check.

mod decode;
mod encode;

pub use encode::quantize;

use crate::gguf::GgmlType;

/// Weights per group: one scale (and offset) for each run of 32 along the input dimension.
pub const GROUP: usize = 32;

/// Why blocks could not be decoded or encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no codec for this type, or not of this kind.
    #[error("tensor type {ty} cannot be {operation}; use a file with F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0")]
    Unsupported {
        /// The type.
        ty: GgmlType,
        /// What was asked for.
        operation: &'static str,
    },
    /// The input is no whole number of blocks.
    #[error("{len} {unit} are no whole number of {ty} blocks of {block} {unit}")]
    PartialBlock {
        /// The type.
        ty: GgmlType,
        /// Length of the input.
        len: usize,
        /// Length of one block.
        block: usize,
        /// What is counted: bytes or elements.
        unit: &'static str,
    },
    /// An output buffer does not have the length that the input asks for.
    #[error("the buffer for {what} has {found} elements, {expected} are needed")]
    BufferLength {
        /// Which buffer.
        what: &'static str,
        /// Elements needed.
        expected: usize,
        /// Elements it has.
        found: usize,
    },
    /// A value to be quantized is infinite or not a number.
    #[error("the value at index {index} is not finite, it cannot be quantized to {ty}")]
    NotFinite {
        /// The type asked for.
        ty: GgmlType,
        /// Index of the value.
        index: usize,
    },
}

/// Whether [`decode_codes`] knows the type: the block formats with one integer code per weight.
pub fn supports_codes(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::Q8_0 | GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1)
}

/// Whether [`dequantize`] and [`quantize`] know the type: the code formats, F32, F16 and BF16.
pub fn supports(ty: GgmlType) -> bool {
    supports_codes(ty) || matches!(ty, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
}

/// Whether groups of this type have an offset besides their scale.
pub fn has_offset(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1)
}

/// Decodes blocks to codes, scales and offsets, exactly.
///
/// `bytes` holds n whole blocks; `codes` takes 32 n codes in the order of the weights, `scales` n scales,
/// `offsets` n offsets if the type has them ([`has_offset`]) and is empty otherwise. Scales and offsets are the
/// file's, be they finite or not.
///
/// # Errors
/// [`Error::Unsupported`] unless [`supports_codes`]; [`Error::PartialBlock`], [`Error::BufferLength`] for lengths.
pub fn decode_codes(
    ty: GgmlType,
    bytes: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [f32],
) -> Result<(), Error> {
    if !supports_codes(ty) {
        return Err(Error::Unsupported { ty, operation: "decoded to codes" });
    }
    let blocks = whole_blocks(ty, bytes.len())?;
    check_buffer("codes", blocks * GROUP, codes.len())?;
    check_buffer("scales", blocks, scales.len())?;
    check_buffer("offsets", if has_offset(ty) { blocks } else { 0 }, offsets.len())?;
    decode::codes(ty, bytes, codes, scales, offsets)
}

/// Decodes a tensor of any supported type (the code formats and F32, F16, BF16) to f32, as GGML does.
///
/// `bytes` holds whole blocks, `out` takes one f32 per element.
///
/// # Errors
/// [`Error::Unsupported`], or [`Error::PartialBlock`] and [`Error::BufferLength`] for lengths.
pub fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    if !supports(ty) {
        return Err(Error::Unsupported { ty, operation: "decoded" });
    }
    let blocks = whole_blocks(ty, bytes.len())?;
    check_buffer("values", blocks * ty.block_elements(), out.len())?;
    decode::values(ty, bytes, out)
}

fn whole_blocks(ty: GgmlType, len: usize) -> Result<usize, Error> {
    let block = ty.block_bytes();
    if len.is_multiple_of(block) { Ok(len / block) } else { Err(Error::PartialBlock { ty, len, block, unit: "bytes" }) }
}

fn check_buffer(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::BufferLength { what, expected, found }) }
}
