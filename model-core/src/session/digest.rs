//! A fingerprint of logits that can be compared between machines.

/// Offset basis and prime of FNV-1a (Fowler, Noll, Vo), 64 bits.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// 64-bit FNV-1a over the bits of `values`, each taken as one 32-bit word: for every word `hash = (hash ^ word) * prime`.
/// Any change of any bit of any value changes the digest of almost all inputs.
pub fn digest(values: &[f32]) -> u64 {
    values.iter().fold(BASIS, |hash, value| (hash ^ u64::from(value.to_bits())).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn of_known_values() {
        assert_eq!(digest(&[]), 0xcbf2_9ce4_8422_2325);
        // Computed with Python: h = ((h ^ word) * prime) % 2**64 for 0x3f800000 and 0xc0200000.
        assert_eq!(digest(&[1.0]), 0x2f63_bdaa_d481_b7df);
        assert_eq!(digest(&[1.0, -2.5]), 0x2833_2701_0ecb_6fed);
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
        assert_ne!(digest(&[1.0, 2.0]), digest(&[2.0, 1.0]));
    }
}
