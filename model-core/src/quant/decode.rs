//! Block bytes to codes and to f32. Lengths have been checked by the caller. Here are the plain blocks of 32, in
//! neighbouring modules the others.
//!
//! ```text
//! Q8_0  d f16 | 32 codes i8                       code as stored
//! Q4_0  d f16 | 16 bytes                          low nibbles are weights 0..16, high ones 16..32; minus 8
//! Q4_1  d f16 | m f16 | 16 bytes                  same, minus 8; offset m + 8 d
//! Q5_0  d f16 | h u32 | 16 bytes                  same, bit i of h is bit 4 of weight i; minus 16
//! Q5_1  d f16 | m f16 | h u32 | 16 bytes          same, minus 16; offset m + 16 d
//! ```
//!
//! GGML defines the affine formats by unsigned codes and the minimum m. Centred codes have half the range, and offsets
//! that are small where weights lie around zero.
//!
//! Loading a model on the IC decodes every weight, so the bodies work on fixed-size arrays: no bounds checks, no
//! branches, nothing that wasm vectors lack. The compiled loops take, per weight, 1.9 (Q8_0), 2.2 (Q4_0),
//! 3.3 (Q4_1), 4.0 (Q5_0) and 5.6 (Q5_1) wasm instructions, of which each half-precision number is one.

use super::i_quants::{Iq4Nl, Iq4Xs};
use super::k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K, Q8K};
use super::super_blocks::{super_codes, super_values};
use super::ternary::{Tq1, Tq2};
use super::{Error, GROUP, Operation};
use crate::gguf::GgmlType;
use crate::math::vectorize::Work;

/// The 32 codes of a block.
pub(super) type Codes = [i8; GROUP];

/// A block format of `N` bytes for 32 weights.
pub(super) trait Format<const N: usize> {
    /// What GGML's codes have more than these; 0 for formats without a minimum.
    const CENTRE: i8 = 0;

    /// Writes the codes; returns the scale and GGML's minimum, which is 0 for formats without one.
    fn decode(block: &[u8; N], codes: &mut Codes) -> (f32, f32);
}

/// [`super::decode_codes`] for checked lengths.
pub(super) struct Decode<'a> {
    pub(super) ty: GgmlType,
    pub(super) bytes: &'a [u8],
    pub(super) codes: &'a mut [i8],
    pub(super) scales: &'a mut [f32],
    pub(super) offsets: &'a mut [f32],
}

impl Work for Decode<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { ty, bytes, codes, scales, offsets } = self;
        match ty {
            GgmlType::Q8_0 => linear_codes::<_, Q8_0>(bytes, codes, scales),
            GgmlType::Q4_0 => linear_codes::<_, Q4_0>(bytes, codes, scales),
            GgmlType::Q4_1 => affine_codes::<_, Q4_1>(bytes, codes, scales, offsets),
            GgmlType::Q5_0 => linear_codes::<_, Q5_0>(bytes, codes, scales),
            GgmlType::Q5_1 => affine_codes::<_, Q5_1>(bytes, codes, scales, offsets),
            GgmlType::IQ4_NL => linear_codes::<_, Iq4Nl>(bytes, codes, scales),
            GgmlType::Q2_K => super_codes::<_, _, Q2K>(bytes, codes, scales, offsets),
            GgmlType::Q3_K => super_codes::<_, _, Q3K>(bytes, codes, scales, offsets),
            GgmlType::Q4_K => super_codes::<_, _, Q4K>(bytes, codes, scales, offsets),
            GgmlType::Q5_K => super_codes::<_, _, Q5K>(bytes, codes, scales, offsets),
            GgmlType::Q6_K => super_codes::<_, _, Q6K>(bytes, codes, scales, offsets),
            GgmlType::Q8_K => super_codes::<_, _, Q8K>(bytes, codes, scales, offsets),
            GgmlType::IQ4_XS => super_codes::<_, _, Iq4Xs>(bytes, codes, scales, offsets),
            GgmlType::TQ1_0 => super_codes::<_, _, Tq1>(bytes, codes, scales, offsets),
            GgmlType::TQ2_0 => super_codes::<_, _, Tq2>(bytes, codes, scales, offsets),
            _ => return Err(Error::Unsupported { ty, operation: Operation::DecodeCodes }),
        }
        Ok(())
    }
}

/// [`super::dequantize`] for checked lengths.
pub(super) fn values(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    match ty {
        GgmlType::F32 => floats(bytes, out, f32::from_le_bytes),
        GgmlType::F16 => floats(bytes, out, half_value),
        GgmlType::BF16 => floats(bytes, out, |[low, high]| f32::from_le_bytes([0, 0, low, high])),
        GgmlType::Q8_0 => linear_values::<_, Q8_0>(bytes, out),
        GgmlType::Q4_0 => linear_values::<_, Q4_0>(bytes, out),
        GgmlType::Q4_1 => affine_values::<_, Q4_1>(bytes, out),
        GgmlType::Q5_0 => linear_values::<_, Q5_0>(bytes, out),
        GgmlType::Q5_1 => affine_values::<_, Q5_1>(bytes, out),
        GgmlType::IQ4_NL => linear_values::<_, Iq4Nl>(bytes, out),
        GgmlType::Q2_K => super_values::<_, _, Q2K>(bytes, out),
        GgmlType::Q3_K => super_values::<_, _, Q3K>(bytes, out),
        GgmlType::Q4_K => super_values::<_, _, Q4K>(bytes, out),
        GgmlType::Q5_K => super_values::<_, _, Q5K>(bytes, out),
        GgmlType::Q6_K => super_values::<_, _, Q6K>(bytes, out),
        GgmlType::Q8_K => super_values::<_, _, Q8K>(bytes, out),
        GgmlType::IQ4_XS => super_values::<_, _, Iq4Xs>(bytes, out),
        GgmlType::TQ1_0 => super_values::<_, _, Tq1>(bytes, out),
        GgmlType::TQ2_0 => super_values::<_, _, Tq2>(bytes, out),
        _ => return Err(Error::Unsupported { ty, operation: Operation::Decode }),
    }
    Ok(())
}

#[inline(always)]
fn linear_codes<const N: usize, F: Format<N>>(bytes: &[u8], codes: &mut [i8], scales: &mut [f32]) {
    let blocks = bytes.as_chunks::<N>().0.iter();
    for ((block, codes), scale) in blocks.zip(codes.as_chunks_mut().0).zip(scales) {
        (*scale, _) = F::decode(block, codes);
    }
}

#[inline(always)]
fn affine_codes<const N: usize, F: Format<N>>(bytes: &[u8], codes: &mut [i8], scales: &mut [f32], offsets: &mut [f32]) {
    let blocks = bytes.as_chunks::<N>().0.iter();
    for ((block, codes), (scale, offset)) in blocks.zip(codes.as_chunks_mut().0).zip(scales.iter_mut().zip(offsets)) {
        let minimum;
        (*scale, minimum) = F::decode(block, codes);
        *offset = minimum + f32::from(F::CENTRE) * *scale;
    }
}

fn floats<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (bytes, out) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *out = value(*bytes);
    }
}

fn linear_values<const N: usize, F: Format<N>>(bytes: &[u8], out: &mut [f32]) {
    let mut codes = [0; GROUP];
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<GROUP>().0) {
        let (scale, _) = F::decode(block, &mut codes);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code);
        }
    }
}

fn affine_values<const N: usize, F: Format<N>>(bytes: &[u8], out: &mut [f32]) {
    let mut codes = [0; GROUP];
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<GROUP>().0) {
        let (scale, minimum) = F::decode(block, &mut codes);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code + F::CENTRE) + minimum;
        }
    }
}

/// A half-precision number, exactly; without the branches of a conversion by cases.
#[inline(always)]
pub(super) fn half_value(bytes: [u8; 2]) -> f32 {
    const EXPONENT: u32 = 0x7c00;
    let half = u32::from(u16::from_le_bytes(bytes));
    let (sign, magnitude) = ((half & 0x8000) << 16, half & 0x7fff);
    // Read as f32, the magnitude is too small by the difference of the exponent biases, 127 - 15. The product is
    // exact, for subnormals too.
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 127 - 15) << 23);
    let special = if magnitude >= EXPONENT { f32::INFINITY.to_bits() } else { 0 };
    f32::from_bits(value.to_bits() | special | sign)
}

/// Q8_0.
struct Q8_0;

impl Format<34> for Q8_0 {
    #[inline(always)]
    fn decode([d0, d1, q @ ..]: &[u8; 34], codes: &mut Codes) -> (f32, f32) {
        *codes = q.map(|byte| byte as i8);
        (half_value([*d0, *d1]), 0.0)
    }
}

/// Q4_0.
struct Q4_0;

impl Format<18> for Q4_0 {
    #[inline(always)]
    fn decode([d0, d1, q @ ..]: &[u8; 18], codes: &mut Codes) -> (f32, f32) {
        nibbles(q, codes);
        (half_value([*d0, *d1]), 0.0)
    }
}

/// Q4_1.
struct Q4_1;

impl Format<20> for Q4_1 {
    const CENTRE: i8 = 8;

    #[inline(always)]
    fn decode([d0, d1, m0, m1, q @ ..]: &[u8; 20], codes: &mut Codes) -> (f32, f32) {
        nibbles(q, codes);
        (half_value([*d0, *d1]), half_value([*m0, *m1]))
    }
}

/// Q5_0.
struct Q5_0;

impl Format<22> for Q5_0 {
    #[inline(always)]
    fn decode([d0, d1, h0, h1, h2, h3, q @ ..]: &[u8; 22], codes: &mut Codes) -> (f32, f32) {
        nibbles_and_bits(q, [*h0, *h1, *h2, *h3], codes);
        (half_value([*d0, *d1]), 0.0)
    }
}

/// Q5_1.
struct Q5_1;

impl Format<24> for Q5_1 {
    const CENTRE: i8 = 16;

    #[inline(always)]
    fn decode([d0, d1, m0, m1, h0, h1, h2, h3, q @ ..]: &[u8; 24], codes: &mut Codes) -> (f32, f32) {
        nibbles_and_bits(q, [*h0, *h1, *h2, *h3], codes);
        (half_value([*d0, *d1]), half_value([*m0, *m1]))
    }
}

/// `codes = nibble - 8`; low nibbles are the first 16 weights, high nibbles the last 16.
#[inline(always)]
fn nibbles(packed: &[u8; GROUP / 2], codes: &mut Codes) {
    for i in 0..GROUP / 2 {
        codes[i] = (packed[i] & 0x0f) as i8 - 8;
        codes[i + GROUP / 2] = (packed[i] >> 4) as i8 - 8;
    }
}

/// A byte in each byte of a u64.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Five-bit codes minus 16: nibbles as in [`nibbles`], bit i of `high` (little-endian) is the fifth bit of weight i.
///
/// Eight codes at a time in a u64. That beats byte vectors on wasm, which cannot shift lanes by different counts.
#[inline(always)]
fn nibbles_and_bits(packed: &[u8; GROUP / 2], high: [u8; 4], codes: &mut Codes) {
    let (halves, _) = packed.as_chunks::<8>();
    let words = [0, 4].into_iter().flat_map(|shift| halves.iter().map(move |half| u64::from_le_bytes(*half) >> shift));
    for ((word, high), codes) in words.zip(high).zip(codes.as_chunks_mut::<8>().0) {
        // Byte j keeps bit j of `high`; adding 0x7f carries it to bit 7 of its own byte.
        let kept = (u64::from(high) * each(1)) & 0x8040_2010_0804_0201;
        let carried = kept + each(0x7f);
        // Less 16, a set bit vanishes, and a clear one leaves the nibble with a negative sign.
        let fifth = ((!carried >> 7) & each(1)) * 0xf0;
        *codes = ((word & each(0x0f)) | fifth).to_le_bytes().map(|code| code as i8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::SplitMix64;
    use crate::math::vectorize::vectorize;
    use crate::quant;
    use crate::quant::super_blocks::SUPER_BLOCK;

    #[test]
    fn each_fifth_bit_belongs_to_its_own_weight() {
        let packed = [0x21; GROUP / 2];
        for bit in 0..GROUP {
            let high = (1u32 << bit).to_le_bytes();
            let mut codes = [0; GROUP];
            nibbles_and_bits(&packed, high, &mut codes);
            let nibble = |i: usize| if i < 16 { 1 } else { 2 };
            assert_eq!(codes, std::array::from_fn(|i| nibble(i) - if i == bit { 0 } else { 16 }));
        }
    }

    #[test]
    fn longer_vectors_change_no_bit() {
        for ty in GgmlType::ALL.iter().copied().filter(|ty| quant::supports_codes(*ty)) {
            let groups = 8 * SUPER_BLOCK / quant::group_len(ty);
            let mut random = SplitMix64::new(7);
            let len = 8 * SUPER_BLOCK / ty.block_elements() * ty.block_bytes();
            let bytes: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
            let decoded = |decode: fn(Decode<'_>) -> Result<(), Error>| {
                let (mut codes, mut scales) = (vec![0; 8 * SUPER_BLOCK], vec![0.0; groups]);
                let mut offsets = vec![0.0; if quant::has_offset(ty) { groups } else { 0 }];
                let (codes_out, scales_out, offsets_out) = (&mut codes, &mut scales, &mut offsets);
                decode(Decode { ty, bytes: &bytes, codes: codes_out, scales: scales_out, offsets: offsets_out })
                    .unwrap();
                let bits = |floats: Vec<f32>| floats.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                (codes, bits(scales), bits(offsets))
            };
            assert_eq!(decoded(|work| vectorize(work)), decoded(|work| work.run()), "{ty}");
        }
    }

    #[test]
    fn all_half_precision_numbers_are_converted_exactly() {
        for bits in 0..=u16::MAX {
            let (expected, found) = (half::f16::from_bits(bits).to_f32(), half_value(bits.to_le_bytes()));
            assert!(expected.to_bits() == found.to_bits() || (expected.is_nan() && found.is_nan()), "{bits:#06x}");
        }
    }
}
