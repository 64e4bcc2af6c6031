//! The reference quantizers of GGML (`quantize_row_*_ref`), for models that are made here. Knows nothing of
//! importance matrices.

use half::{bf16, f16};

use super::encode_k::{q4_k, q5_k, q6_k};
use super::{Error, GROUP, Operation, check_support, supports_codes};
use crate::gguf::GgmlType;

/// Encodes `x` as blocks of `ty`, byte for byte as GGML's reference quantizer does.
///
/// # Errors
/// [`Error::Unsupported`]; [`Error::PartialBlock`] unless `x` is a whole number of blocks;
/// [`Error::NotFinite`] for the block formats (F32, F16 and BF16 keep such values).
pub fn quantize(ty: GgmlType, x: &[f32]) -> Result<Vec<u8>, Error> {
    check_support(ty, Operation::Encode)?;
    let block = ty.block_elements();
    if !x.len().is_multiple_of(block) {
        return Err(Error::PartialBlock { ty, len: x.len(), block, unit: "elements" });
    }
    if let Some(index) = x.iter().position(|value| supports_codes(ty) && !value.is_finite()) {
        return Err(Error::NotFinite { ty, index });
    }
    let mut out = Vec::with_capacity(x.len() / block * ty.block_bytes());
    match ty {
        GgmlType::F32 => out.extend(x.iter().flat_map(|value| value.to_le_bytes())),
        GgmlType::F16 => out.extend(x.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes())),
        GgmlType::BF16 => out.extend(x.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
        GgmlType::Q8_0 => blocks(x, q8_0, &mut out),
        GgmlType::Q4_0 => blocks(x, symmetric::<4>, &mut out),
        GgmlType::Q4_1 => blocks(x, affine::<4>, &mut out),
        GgmlType::Q5_0 => blocks(x, symmetric::<5>, &mut out),
        GgmlType::Q5_1 => blocks(x, affine::<5>, &mut out),
        GgmlType::Q4_K => blocks(x, q4_k, &mut out),
        GgmlType::Q5_K => blocks(x, q5_k, &mut out),
        GgmlType::Q6_K => blocks(x, q6_k, &mut out),
        _ => return Err(Error::Unsupported { ty, operation: Operation::Encode }),
    }
    Ok(out)
}

fn blocks<const LEN: usize>(x: &[f32], encode: fn(&[f32; LEN], &mut Vec<u8>), out: &mut Vec<u8>) {
    x.as_chunks().0.iter().for_each(|block| encode(block, out));
}

/// 1 / d, and 0 for a group of equal (or all zero) weights.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn half_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

fn q8_0(x: &[f32; GROUP], out: &mut Vec<u8>) {
    let d = x.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0;
    let inverse = inverse(d);
    out.extend(half_bytes(d));
    out.extend(x.map(|value| (value * inverse).round() as i8 as u8)); // round: ties away from zero, as roundf
}

/// Q4_0, Q5_0: the value of greatest magnitude gets the code `-2^(BITS-1)`.
fn symmetric<const BITS: u32>(x: &[f32; GROUP], out: &mut Vec<u8>) {
    let bias = (1 << (BITS - 1)) as f32;
    let extreme = x.iter().fold(0f32, |extreme, &value| if value.abs() > extreme.abs() { value } else { extreme });
    let d = extreme / -bias;
    let inverse = inverse(d);
    let codes = x.map(|value| code::<BITS>(value * inverse + (bias + 0.5)));
    out.extend(half_bytes(d));
    put_codes::<BITS>(&codes, out);
}

/// Q4_1, Q5_1: the codes span the range from the least to the greatest value.
fn affine<const BITS: u32>(x: &[f32; GROUP], out: &mut Vec<u8>) {
    let least = x.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let d = (greatest - least) / ((1 << BITS) - 1) as f32;
    let inverse = inverse(d);
    let codes = x.map(|value| code::<BITS>((value - least) * inverse + 0.5));
    out.extend(half_bytes(d));
    out.extend(half_bytes(least));
    put_codes::<BITS>(&codes, out);
}

/// Truncates to an integer of `BITS` bits.
fn code<const BITS: u32>(value: f32) -> u8 {
    (value as u8).min((1 << BITS) - 1)
}

/// With five bits, bit 4 of each code in one little-endian number. Then the low four bits of the codes: the first 16 in
/// the low nibbles, the last 16 in the high ones.
fn put_codes<const BITS: u32>(codes: &[u8; GROUP], out: &mut Vec<u8>) {
    if BITS == 5 {
        let bits = codes.iter().enumerate().fold(0u32, |bits, (i, code)| bits | (u32::from(code >> 4) << i));
        out.extend(bits.to_le_bytes());
    }
    let (low, high) = codes.split_at(GROUP / 2);
    out.extend(low.iter().zip(high).map(|(low, high)| (low & 0x0f) | (high << 4)));
}
