//! Which chunks bring what is missing of a file.

use canister::api::ByteRange;

/// Bytes that are sent in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl Chunk {
    /// The chunks of at most `most` bytes that fill the gaps, in their order.
    pub fn filling(gaps: &[ByteRange], most: u64) -> Vec<Self> {
        let most = most.max(1);
        let mut chunks = Vec::new();
        for gap in gaps {
            let end = gap.offset.saturating_add(gap.bytes);
            let mut offset = gap.offset;
            while offset < end {
                let bytes = most.min(end - offset);
                chunks.push(Self { offset, bytes });
                offset += bytes;
            }
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_exactly_and_no_chunk_is_too_large() {
        let gaps = [ByteRange { offset: 5, bytes: 25 }, ByteRange { offset: 40, bytes: 10 }];
        let chunks: Vec<_> = Chunk::filling(&gaps, 10).iter().map(|chunk| (chunk.offset, chunk.bytes)).collect();
        assert_eq!(chunks, [(5, 10), (15, 10), (25, 5), (40, 10)]);
        assert!(Chunk::filling(&[], 10).is_empty());
        assert_eq!(Chunk::filling(&[ByteRange { offset: 0, bytes: 2 }], 0).len(), 2);
    }
}
