//! The block formats of GGML: decode to integer codes with f32 scales (and offsets), exact f32 values, and the
//! reference quantizers. Knows blocks, not tensors, files or the packed layout.
//!
//! A weight of the code formats is `scale * code`, or `scale * code + offset` with codes that are centred at zero and
//! an offset that is rounded to f32 once. Source: the `dequantize_row_*` and `quantize_row_*_ref` functions of ggml, the
//! PyPI package `gguf` as the independent check.

mod decode;
mod encode;
mod encode_k;
mod i_quants;
mod k_quants;
mod super_blocks;
mod ternary;

pub use encode::quantize;

use crate::gguf::GgmlType;
use crate::math::vectorize::vectorize;

/// Weights per group of most formats: one scale (and offset) for each run of 32 along the input dimension.
pub const GROUP: usize = 32;
/// Weights per group of those that [`group_len`] names.
pub const HALF_GROUP: usize = 16;
/// Weights per group of the formats of three values.
pub const TERNARY_GROUP: usize = super_blocks::SUPER_BLOCK;

/// What can be done with a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`dequantize`].
    Decode,
    /// [`decode_codes`].
    DecodeCodes,
    /// [`quantize`].
    Encode,
}

impl Operation {
    /// Whether it is there for this type.
    pub fn supports(self, ty: GgmlType) -> bool {
        use GgmlType::*;
        let plain = matches!(ty, F32 | F16 | BF16);
        let simple = matches!(ty, Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1);
        let coded = simple || matches!(ty, Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | Q8_K | IQ4_NL | IQ4_XS | TQ1_0 | TQ2_0);
        match self {
            Self::Decode => plain || coded,
            Self::DecodeCodes => coded,
            Self::Encode => plain || simple || matches!(ty, Q4_K | Q5_K | Q6_K),
        }
    }

    /// Names of the types that it is there for, separated by commas.
    pub fn types(self) -> String {
        let supported = GgmlType::ALL.iter().filter(|ty| self.supports(**ty));
        supported.map(|ty| ty.name()).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Decode => "decoded",
            Self::DecodeCodes => "decoded to codes",
            Self::Encode => "encoded",
        })
    }
}

/// Why blocks could not be decoded or encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no codec for this type, or not of this kind.
    #[error("tensor type {ty} cannot be {operation}; these can: {known}", known = operation.types())]
    Unsupported {
        /// The type.
        ty: GgmlType,
        /// What was asked for.
        operation: Operation,
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
    Operation::DecodeCodes.supports(ty)
}

/// Whether [`dequantize`] knows the type: the code formats, F32, F16 and BF16.
pub fn supports(ty: GgmlType) -> bool {
    Operation::Decode.supports(ty)
}

/// Whether groups of this type have an offset besides their scale.
pub fn has_offset(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q2_K | GgmlType::Q4_K | GgmlType::Q5_K)
}

/// Weights that share a scale in [`decode_codes`].
pub fn group_len(ty: GgmlType) -> usize {
    match ty {
        GgmlType::Q2_K | GgmlType::Q3_K | GgmlType::Q6_K => HALF_GROUP,
        _ if is_ternary(ty) => TERNARY_GROUP,
        _ => GROUP,
    }
}

/// Whether all codes of this type are from -8 to 7.
pub fn has_four_bit_codes(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4_K)
}

/// Whether the codes of this type are -1, 0 and 1. (Blocks of TQ2_0 can hold a 2, which no quantizer writes.)
pub fn is_ternary(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::TQ1_0 | GgmlType::TQ2_0)
}

/// Decodes blocks to centred codes, scales and offsets.
///
/// `bytes` holds whole blocks; `codes` takes one code per weight in their order, `scales` one scale for each
/// [`group_len`] of them, `offsets` as many if the type has them ([`has_offset`]) and is empty otherwise. Scales and
/// offsets are what the file gives, be they finite or not.
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
    check_support(ty, Operation::DecodeCodes)?;
    let weights = whole_blocks(ty, bytes.len())? * ty.block_elements();
    let groups = weights / group_len(ty);
    check_buffer("codes", weights, codes.len())?;
    check_buffer("scales", groups, scales.len())?;
    check_buffer("offsets", if has_offset(ty) { groups } else { 0 }, offsets.len())?;
    vectorize(decode::Decode { ty, bytes, codes, scales, offsets })
}

/// Decodes a tensor of any supported type (the code formats and F32, F16, BF16) to f32, as GGML does.
///
/// `bytes` holds whole blocks, `out` takes one f32 per element.
///
/// # Errors
/// [`Error::Unsupported`], or [`Error::PartialBlock`] and [`Error::BufferLength`] for lengths.
pub fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    check_support(ty, Operation::Decode)?;
    let blocks = whole_blocks(ty, bytes.len())?;
    check_buffer("values", blocks * ty.block_elements(), out.len())?;
    decode::values(ty, bytes, out)
}

fn check_support(ty: GgmlType, operation: Operation) -> Result<(), Error> {
    if operation.supports(ty) { Ok(()) } else { Err(Error::Unsupported { ty, operation }) }
}

fn whole_blocks(ty: GgmlType, len: usize) -> Result<usize, Error> {
    let block = ty.block_bytes();
    if len.is_multiple_of(block) { Ok(len / block) } else { Err(Error::PartialBlock { ty, len, block, unit: "bytes" }) }
}

fn check_buffer(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::BufferLength { what, expected, found }) }
}
