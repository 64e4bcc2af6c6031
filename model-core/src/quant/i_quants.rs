//! The formats whose codes are the values of a table, denser around zero. Lengths have been checked by the caller.
//!
//! ```text
//! IQ4_NL  d f16 | 16 bytes                        32 weights; low nibbles are weights 0..16, high ones 16..32
//! IQ4_XS  d f16 | h u16 | l [4] | q [128]         256 weights; group g of 32: scale d (four bits of l, two of h - 32)
//! ```

use super::GROUP;
use super::decode::{Codes, Format, half_value};
use super::super_blocks::{SUPER_BLOCK, SuperBlock};

/// What the nibbles stand for (`kvalues_iq4nl` of ggml).
const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// IQ4_NL.
pub(super) struct Iq4Nl;
/// IQ4_XS.
pub(super) struct Iq4Xs;

impl Format<18> for Iq4Nl {
    #[inline(always)]
    fn decode([d0, d1, q @ ..]: &[u8; 18], codes: &mut Codes) -> (f32, f32) {
        table_values(q, codes);
        (half_value([*d0, *d1]), 0.0)
    }
}

impl SuperBlock<136, 8> for Iq4Xs {
    #[inline(always)]
    fn decode(block: &[u8; 136], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; 8], [f32; 8]) {
        for (codes, q) in codes.as_chunks_mut().0.iter_mut().zip(block[8..].as_chunks().0) {
            table_values(q, codes);
        }
        let d = half_value([block[0], block[1]]);
        let high = u16::from_le_bytes([block[2], block[3]]);
        let low = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        let scale = |group: usize| ((low >> (4 * group)) & 0x0f) as i8 | (((high >> (2 * group)) & 3) << 4) as i8;
        (std::array::from_fn(|group| d * f32::from(scale(group) - 32)), [0.0; 8])
    }
}

#[inline(always)]
fn table_values(packed: &[u8; GROUP / 2], codes: &mut Codes) {
    for (i, byte) in packed.iter().enumerate() {
        codes[i] = VALUES[usize::from(byte & 0x0f)];
        codes[i + GROUP / 2] = VALUES[usize::from(byte >> 4)];
    }
}
