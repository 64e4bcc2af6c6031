//! The K-quants: super-blocks of 256 weights whose groups have integer scales. Lengths have been checked by the caller.
//!
//! ```text
//! Q2_K  s [16] | q [64] | d f16 | dmin f16        group g of 16: scale d (s & 15), offset -dmin (s >> 4)
//! Q3_K  h [32] | q [64] | s [12] | d f16          group g of 16: scale d (six bits of s - 32)
//! Q4_K  d f16 | dmin f16 | s [12] | q [128]       group g of 32: scale d (six bits of s), offset -dmin (six bits)
//! Q5_K  d f16 | dmin f16 | s [12] | h [32] | q [128]
//! Q6_K  q [128] | h [64] | s i8 [16] | d f16      group g of 16: scale d s
//! Q8_K  d f32 | 256 codes i8 | 16 sums i16        one scale; the sums only serve GGML's products
//! ```
//!
//! Codes stand in runs of 32 bytes that are read several times, each time with the next bits: low ones first. `h` has the
//! high bits of the codes, in runs of 32 bytes too. Offsets are those of uncentred codes (GGML's minima).

use super::decode::half_value;
use super::super_blocks::{SUPER_BLOCK, SuperBlock};

/// Q2_K.
pub(super) struct Q2K;
/// Q3_K.
pub(super) struct Q3K;
/// Q4_K.
pub(super) struct Q4K;
/// Q5_K.
pub(super) struct Q5K;
/// Q6_K.
pub(super) struct Q6K;
/// Q8_K.
pub(super) struct Q8K;

impl SuperBlock<84, 16> for Q2K {
    const CENTRE: i8 = 2;

    #[inline(always)]
    fn decode(block: &[u8; 84], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 16], [f32; 16]) {
        for (codes, q) in codes.as_chunks_mut::<128>().0.iter_mut().zip(block[16..].as_chunks::<32>().0) {
            for (shift, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (code, byte) in codes.iter_mut().zip(q) {
                    *code = ((byte >> (2 * shift)) & 3) as i8 - Self::CENTRE;
                }
            }
        }
        let (d, offset) = (half_value([block[80], block[81]]), half_value([block[82], block[83]]));
        let scales = std::array::from_fn(|group| d * f32::from(block[group] & 0x0f));
        (scales, std::array::from_fn(|group| -(offset * f32::from(block[group] >> 4))))
    }
}

impl SuperBlock<110, 16> for Q3K {
    #[inline(always)]
    fn decode(block: &[u8; 110], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 16], [f32; 16]) {
        let runs = codes.as_chunks_mut::<32>().0.iter_mut().enumerate();
        for (run, codes) in runs {
            let q = &block[32 + 32 * (run / 4)..][..32];
            for (code, (byte, high)) in codes.iter_mut().zip(q.iter().zip(&block[..32])) {
                *code = (((byte >> (2 * (run % 4))) & 3) | (((high >> run) & 1) << 2)) as i8 - 4;
            }
        }
        let [a, b, high] = words(block, 96);
        let word = |low: u32, shift: u32| ((low & 0x0f0f_0f0f) | (((high >> shift) & 0x0303_0303) << 4)).to_le_bytes();
        let six = [word(a, 0), word(b, 2), word(a >> 4, 4), word(b >> 4, 6)];
        let d = half_value([block[108], block[109]]);
        (std::array::from_fn(|group| d * f32::from(six.as_flattened()[group] as i8 - 32)), [0.0; 16])
    }
}

impl SuperBlock<144, 8> for Q4K {
    const CENTRE: i8 = 8;

    #[inline(always)]
    fn decode(block: &[u8; 144], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 8], [f32; 8]) {
        for (codes, q) in codes.as_chunks_mut::<64>().0.iter_mut().zip(block[16..].as_chunks::<32>().0) {
            for (i, byte) in q.iter().enumerate() {
                codes[i] = (byte & 0x0f) as i8 - Self::CENTRE;
                codes[i + 32] = (byte >> 4) as i8 - Self::CENTRE;
            }
        }
        scales_and_offsets(block)
    }
}

impl SuperBlock<176, 8> for Q5K {
    const CENTRE: i8 = 16;

    #[inline(always)]
    fn decode(block: &[u8; 176], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 8], [f32; 8]) {
        let runs = codes.as_chunks_mut::<64>().0.iter_mut().zip(block[48..].as_chunks::<32>().0);
        for (run, (codes, q)) in runs.enumerate() {
            for (i, (byte, high)) in q.iter().zip(&block[16..48]).enumerate() {
                let fifth = high >> (2 * run);
                codes[i] = ((byte & 0x0f) | ((fifth & 1) << 4)) as i8 - Self::CENTRE;
                codes[i + 32] = ((byte >> 4) | ((fifth & 2) << 3)) as i8 - Self::CENTRE;
            }
        }
        scales_and_offsets(block)
    }
}

impl SuperBlock<210, 16> for Q6K {
    #[inline(always)]
    fn decode(block: &[u8; 210], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 16], [f32; 16]) {
        let halves = block[..128].as_chunks::<64>().0.iter().zip(block[128..192].as_chunks::<32>().0);
        for (codes, (q, high)) in codes.as_chunks_mut::<128>().0.iter_mut().zip(halves) {
            for (i, high) in high.iter().enumerate() {
                codes[i] = ((q[i] & 0x0f) | ((high & 0x03) << 4)) as i8 - 32;
                codes[i + 32] = ((q[i + 32] & 0x0f) | ((high & 0x0c) << 2)) as i8 - 32;
                codes[i + 64] = ((q[i] >> 4) | (high & 0x30)) as i8 - 32;
                codes[i + 96] = ((q[i + 32] >> 4) | ((high & 0xc0) >> 2)) as i8 - 32;
            }
        }
        let d = half_value([block[208], block[209]]);
        (std::array::from_fn(|group| d * f32::from(block[192 + group] as i8)), [0.0; 16])
    }
}

impl SuperBlock<292, 8> for Q8K {
    #[inline(always)]
    fn decode(block: &[u8; 292], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 8], [f32; 8]) {
        for (code, byte) in codes.iter_mut().zip(&block[4..260]) {
            *code = *byte as i8;
        }
        ([f32::from_le_bytes([block[0], block[1], block[2], block[3]]); 8], [0.0; 8])
    }
}

/// Three little-endian words from byte `at` on.
#[inline(always)]
fn words<const N: usize>(block: &[u8; N], at: usize) -> [u32; 3] {
    std::array::from_fn(|i| {
        let at = at + 4 * i;
        u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
    })
}

/// Scales and offsets of Q4_K and Q5_K, from the first 16 bytes: four groups have their six bits in one byte, the other
/// four their low bits in a nibble and the high ones on top of the former.
#[inline(always)]
fn scales_and_offsets<const N: usize>(block: &[u8; N]) -> ([f32; 8], [f32; 8]) {
    const SIX: u32 = 0x3f3f_3f3f;
    const LOW: u32 = 0x0f0f_0f0f;
    const HIGH: u32 = 0x3030_3030;
    let [a, b, c] = words(block, 4);
    let scales = [(a & SIX).to_le_bytes(), ((c & LOW) | ((a >> 2) & HIGH)).to_le_bytes()];
    let offsets = [(b & SIX).to_le_bytes(), (((c >> 4) & LOW) | ((b >> 2) & HIGH)).to_le_bytes()];
    let (d, offset) = (half_value([block[0], block[1]]), half_value([block[2], block[3]]));
    let scales = std::array::from_fn(|group| d * f32::from(scales.as_flattened()[group]));
    (scales, std::array::from_fn(|group| -(offset * f32::from(offsets.as_flattened()[group]))))
}
