//! Formats of 256 weights per block: what they have in common. Each block has a scale (and some a second one for
//! offsets) in half precision and small integer scales for its groups of 16 or 32 weights.

/// Weights of a super-block.
pub(super) const SUPER_BLOCK: usize = 256;

/// A format of `N` bytes for 256 weights in `GROUPS` groups.
pub(super) trait SuperBlock<const N: usize, const GROUPS: usize> {
    /// What GGML's codes have more than these; 0 for formats without a minimum.
    const CENTRE: i8 = 0;

    /// Writes the codes; returns the groups' scales and GGML's minima, which are 0 for formats without them.
    fn decode(block: &[u8; N], codes: &mut [i8; SUPER_BLOCK]) -> ([f32; GROUPS], [f32; GROUPS]);
}

/// [`super::decode_codes`] for checked lengths; `offsets` is empty for formats without them.
#[inline(always)]
pub(super) fn super_codes<const N: usize, const GROUPS: usize, F: SuperBlock<N, GROUPS>>(
    bytes: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [f32],
) {
    let blocks = bytes.as_chunks::<N>().0.iter().zip(codes.as_chunks_mut().0);
    let mut offsets = offsets.as_chunks_mut::<GROUPS>().0.iter_mut();
    for ((block, codes), scales) in blocks.zip(scales.as_chunks_mut::<GROUPS>().0) {
        let minima;
        (*scales, minima) = F::decode(block, codes);
        if let Some(offsets) = offsets.next() {
            *offsets = std::array::from_fn(|group| minima[group] + f32::from(F::CENTRE) * scales[group]);
        }
    }
}

/// [`super::dequantize`] for checked lengths.
pub(super) fn super_values<const N: usize, const GROUPS: usize, F: SuperBlock<N, GROUPS>>(
    bytes: &[u8],
    out: &mut [f32],
) {
    let mut codes = [0; SUPER_BLOCK];
    for (block, out) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<SUPER_BLOCK>().0) {
        let (scales, minima) = F::decode(block, &mut codes);
        let groups = out.chunks_exact_mut(SUPER_BLOCK / GROUPS).zip(codes.chunks_exact(SUPER_BLOCK / GROUPS));
        for ((out, codes), (scale, minimum)) in groups.zip(scales.into_iter().zip(minima)) {
            for (out, code) in out.iter_mut().zip(codes) {
                let value = scale * f32::from(code + F::CENTRE);
                *out = if F::CENTRE == 0 { value } else { value + minimum };
            }
        }
    }
}
