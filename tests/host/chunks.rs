//! A file cut into chunks, in any order.

use model_core::fixtures::SplitMix64;

/// Some bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Offset of the first byte in the file.
    pub offset: usize,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// `file` in chunks of `size` bytes, in order; the last may be shorter.
pub fn chunks(file: &[u8], size: usize) -> Vec<Chunk<'_>> {
    file.chunks(size).enumerate().map(|(index, bytes)| Chunk { offset: index * size, bytes }).collect()
}

/// Puts `items` in a random order (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T], random: &mut SplitMix64) {
    for last in (1..items.len()).rev() {
        items.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
}
