//! Block bytes to codes and to f32. Lengths have been checked by the caller.
//!
//! ```text
//! Q8_0  d f16 | 32 codes i8                       code as stored
//! Q4_0  d f16 | 16 bytes                          low nibbles are weights 0..16, high ones 16..32; minus 8
//! Q4_1  d f16 | m f16 | 16 bytes                  same, no bias, offset m
//! Q5_0  d f16 | h u32 | 16 bytes                  same, bit i of h is bit 4 of weight i; minus 16
//! Q5_1  d f16 | m f16 | h u32 | 16 bytes          same, no bias, offset m
//! ```
//!
//! Loading a model on the IC decodes every weight, so the bodies work on fixed-size arrays: no bounds checks,
//! no branches, and eight weights per u64 where bits have to be spread.

use half::f16;

use super::{Error, GROUP};
use crate::gguf::GgmlType;

/// The 32 codes of a block.
type Codes = [i8; GROUP];

/// [`super::decode_codes`] for checked lengths.
pub(super) fn codes(
    ty: GgmlType,
    bytes: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [f32],
) -> Result<(), Error> {
    match ty {
        GgmlType::Q8_0 => linear_codes(bytes, codes, scales, q8_0),
        GgmlType::Q4_0 => linear_codes(bytes, codes, scales, q4_0),
        GgmlType::Q4_1 => affine_codes(bytes, codes, scales, offsets, q4_1),
        GgmlType::Q5_0 => linear_codes(bytes, codes, scales, q5_0),
        GgmlType::Q5_1 => affine_codes(bytes, codes, scales, offsets, q5_1),
        _ => return Err(Error::Unsupported { ty, operation: "decoded to codes" }),
    }
    Ok(())
}

/// [`super::dequantize`] for checked lengths.
pub(super) fn values(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    match ty {
        GgmlType::F32 => floats(bytes, out, f32::from_le_bytes),
        GgmlType::F16 => floats(bytes, out, half_value),
        GgmlType::BF16 => floats(bytes, out, |[low, high]| f32::from_le_bytes([0, 0, low, high])),
        GgmlType::Q8_0 => linear_values(bytes, out, q8_0),
        GgmlType::Q4_0 => linear_values(bytes, out, q4_0),
        GgmlType::Q4_1 => affine_values(bytes, out, q4_1),
        GgmlType::Q5_0 => linear_values(bytes, out, q5_0),
        GgmlType::Q5_1 => affine_values(bytes, out, q5_1),
        _ => return Err(Error::Unsupported { ty, operation: "decoded" }),
    }
    Ok(())
}

fn linear_codes<const N: usize>(
    bytes: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    decode: impl Fn(&[u8; N], &mut Codes) -> f32,
) {
    let blocks = bytes.as_chunks::<N>().0.iter();
    for ((block, codes), scale) in blocks.zip(codes.as_chunks_mut().0).zip(scales) {
        *scale = decode(block, codes);
    }
}

fn affine_codes<const N: usize>(
    bytes: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [f32],
    decode: impl Fn(&[u8; N], &mut Codes) -> (f32, f32),
) {
    let blocks = bytes.as_chunks::<N>().0.iter();
    for ((block, codes), (scale, offset)) in blocks.zip(codes.as_chunks_mut().0).zip(scales.iter_mut().zip(offsets)) {
        (*scale, *offset) = decode(block, codes);
    }
}

fn floats<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (bytes, out) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *out = value(*bytes);
    }
}

fn linear_values<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn(&[u8; N], &mut Codes) -> f32) {
    let mut codes = [0; GROUP];
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<GROUP>().0) {
        let scale = decode(block, &mut codes);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code);
        }
    }
}

fn affine_values<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn(&[u8; N], &mut Codes) -> (f32, f32)) {
    let mut codes = [0; GROUP];
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<GROUP>().0) {
        let (scale, offset) = decode(block, &mut codes);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code) + offset;
        }
    }
}

fn half_value(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

#[inline(always)]
fn q8_0(block: &[u8; 34], codes: &mut Codes) -> f32 {
    let [d0, d1, q @ ..] = block;
    *codes = q.map(|byte| byte as i8);
    half_value([*d0, *d1])
}

#[inline(always)]
fn q4_0(block: &[u8; 18], codes: &mut Codes) -> f32 {
    let [d0, d1, q @ ..] = block;
    nibbles(q, &[0; GROUP], 8, codes);
    half_value([*d0, *d1])
}

#[inline(always)]
fn q4_1(block: &[u8; 20], codes: &mut Codes) -> (f32, f32) {
    let [d0, d1, m0, m1, q @ ..] = block;
    nibbles(q, &[0; GROUP], 0, codes);
    (half_value([*d0, *d1]), half_value([*m0, *m1]))
}

#[inline(always)]
fn q5_0(block: &[u8; 22], codes: &mut Codes) -> f32 {
    let [d0, d1, h0, h1, h2, h3, q @ ..] = block;
    nibbles(q, &fifth_bits([*h0, *h1, *h2, *h3]), 16, codes);
    half_value([*d0, *d1])
}

#[inline(always)]
fn q5_1(block: &[u8; 24], codes: &mut Codes) -> (f32, f32) {
    let [d0, d1, m0, m1, h0, h1, h2, h3, q @ ..] = block;
    nibbles(q, &fifth_bits([*h0, *h1, *h2, *h3]), 0, codes);
    (half_value([*d0, *d1]), half_value([*m0, *m1]))
}

/// `codes = (nibble | high) - bias`; low nibbles are the first 16 weights, high nibbles the last 16.
#[inline(always)]
fn nibbles(packed: &[u8; GROUP / 2], high: &[u8; GROUP], bias: i8, codes: &mut Codes) {
    for i in 0..GROUP / 2 {
        codes[i] = ((packed[i] & 0x0f) | high[i]) as i8 - bias;
        codes[i + GROUP / 2] = ((packed[i] >> 4) | high[i + GROUP / 2]) as i8 - bias;
    }
}

/// Bit i of the little-endian number as the byte 16 (set) or 0 at index i.
#[inline(always)]
fn fifth_bits(bits: [u8; 4]) -> [u8; GROUP] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const ONE_BIT_PER_BYTE: u64 = 0x8040_2010_0804_0201;
    let mut spread = [0; GROUP];
    for (bits, spread) in bits.iter().zip(spread.as_chunks_mut::<8>().0) {
        // Byte j keeps bit j; adding 0x7f carries any set bit to bit 7 of its own byte, which moves to bit 4.
        let kept = (u64::from(*bits) * EACH) & ONE_BIT_PER_BYTE;
        *spread = (((kept + EACH * 0x7f) >> 3) & (EACH * 0x10)).to_le_bytes();
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifth_bits_spread_each_bit_to_its_own_byte() {
        for bit in 0..32 {
            let spread = fifth_bits((1u32 << bit).to_le_bytes());
            assert!(spread.iter().enumerate().all(|(i, &byte)| byte == if i == bit { 16 } else { 0 }), "bit {bit}");
        }
        assert_eq!(fifth_bits([0xff; 4]), [16; GROUP]);
    }
}
