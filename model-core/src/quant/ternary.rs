//! The formats with three values. Lengths have been checked by the caller.
//!
//! ```text
//! TQ1_0  q [48] | h [4] | d f16                   five weights (in h: four) in the base-3 digits of a byte / 256
//! TQ2_0  q [64] | d f16                           four weights in the bits of a byte, low ones first
//! ```
//!
//! A code is the digit less 1. Weights run along the bytes of a run (32, 16 and 4 bytes in TQ1_0, 32 in TQ2_0), then
//! along the digits. TQ2_0 can also express 2, which GGML decodes as any other code.

use super::decode::half_value;
use super::super_blocks::{SUPER_BLOCK, SuperBlock};

/// TQ1_0.
pub(super) struct Tq1;
/// TQ2_0.
pub(super) struct Tq2;

impl SuperBlock<54, 1> for Tq1 {
    #[inline(always)]
    fn decode(block: &[u8; 54], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 1], [f32; 1]) {
        let (long, rest) = codes.split_at_mut(5 * 32);
        let (short, last) = rest.split_at_mut(5 * 16);
        digits::<32>(&block[..32], long);
        digits::<16>(&block[32..48], short);
        digits::<4>(&block[48..52], last);
        ([half_value([block[52], block[53]])], [0.0])
    }
}

/// The digits of a run of `RUN` bytes, most significant first: that of `256 * fraction` is the integer part of
/// three times the fraction, and what remains of it are the other digits.
#[inline(always)]
fn digits<const RUN: usize>(bytes: &[u8], codes: &mut [i8]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    for (codes, power) in codes.as_chunks_mut::<RUN>().0.iter_mut().zip(POWERS) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1;
        }
    }
}

impl SuperBlock<66, 1> for Tq2 {
    #[inline(always)]
    fn decode(block: &[u8; 66], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 1], [f32; 1]) {
        for (codes, q) in codes.as_chunks_mut::<128>().0.iter_mut().zip(block[..64].as_chunks::<32>().0) {
            for (digit, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (code, byte) in codes.iter_mut().zip(q) {
                    *code = ((byte >> (2 * digit)) & 3) as i8 - 1;
                }
            }
        }
        ([half_value([block[64], block[65]])], [0.0])
    }
}
