//! Keys and values of all past positions, as 16-bit codes with a scale per position and head.
//!
//! The cache grows by segments of 32 positions, so that nothing is ever moved, cleared or copied whole. A segment holds
//! for every layer and KV head:
//!
//! ```text
//! keys     [4 tiles][dim / 2][8 positions][2]      i16   one load feeds eight positions' scores
//! values   [dim / 8][16 position pairs][8 dims][2] i16   one load feeds eight dimensions of the mix
//! scales   [32] of keys, [32] of values            f32
//! ```
//!
//! `dim` is the head dimension filled up with zeros to a multiple of 8. Codes are limited so that every integer sum is
//! exact: a key product sums `dim` terms, a value product 32.

use crate::kernels::{Keys, NonFinite, SEGMENT, Values, quantize_into};

/// Positions whose keys, and dimensions whose values, share a load.
const TILE: usize = 8;
/// Largest code of a value and of its weight: 32 products stay below 2^31.
pub(super) const VALUE_LIMIT: f32 = 8191.0;

/// No memory is left for the next segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {bytes} more bytes of key-value cache; use a shorter context or raise the memory limit")]
pub struct CacheOutOfMemory {
    /// Bytes asked for.
    pub bytes: usize,
}

/// The attention memory of one session.
#[derive(Debug)]
pub struct KvCache {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    /// `head_dim` filled up to a multiple of 8.
    dim: usize,
    segments: Vec<Segment>,
    len: usize,
}

#[derive(Debug)]
struct Segment {
    /// `[layer][kv_head][keys, values]`
    codes: Vec<i16>,
    /// `[layer][kv_head][keys, values][32]`
    scales: Vec<[f32; SEGMENT]>,
}

impl KvCache {
    /// An empty cache; memory is taken as positions come.
    pub fn new(layers: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self { layers, kv_heads, head_dim, dim: head_dim.next_multiple_of(TILE), segments: Vec::new(), len: 0 }
    }

    /// Positions that all layers have.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is cached.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.bytes_for(self.segments.len() * SEGMENT)
    }

    /// Bytes of memory that `positions` positions take.
    pub fn bytes_for(&self, positions: usize) -> usize {
        positions.div_ceil(SEGMENT).saturating_mul(self.segment_bytes())
    }

    fn segment_bytes(&self) -> usize {
        self.layers * self.kv_heads * 2 * SEGMENT * (2 * self.dim + 4)
    }

    /// Makes room for `positions` positions in all.
    ///
    /// # Errors
    /// [`CacheOutOfMemory`]; what was cached stays.
    pub fn reserve(&mut self, positions: usize) -> Result<(), CacheOutOfMemory> {
        let heads = self.layers * self.kv_heads * 2;
        while self.segments.len() * SEGMENT < positions {
            let no_memory = |_| CacheOutOfMemory { bytes: self.segment_bytes() };
            let mut segment = Segment { codes: Vec::new(), scales: Vec::new() };
            segment.codes.try_reserve_exact(heads * SEGMENT * self.dim).map_err(no_memory)?;
            segment.scales.try_reserve_exact(heads).map_err(no_memory)?;
            segment.codes.resize(heads * SEGMENT * self.dim, 0);
            segment.scales.resize(heads, [0.0; SEGMENT]);
            self.segments.push(segment);
        }
        Ok(())
    }

    /// Declares the first `len` positions complete in all layers; at most what is reserved.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.segments.len() * SEGMENT);
    }

    /// Forgets all positions from `len` on and gives whole segments back.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.segments.truncate(self.len.div_ceil(SEGMENT));
    }

    pub(super) fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    pub(super) fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// `head_dim` filled up with zeros to a multiple of 8.
    pub(super) fn padded_dim(&self) -> usize {
        self.dim
    }

    /// Largest code of keys and queries: `dim` products stay below 2^31.
    pub(super) fn key_limit(&self) -> f32 {
        let limit = (i32::MAX as usize / self.dim).isqrt().min(i16::MAX as usize);
        limit as f32
    }

    /// Stores the key and value (`[head_dim]` each) of one position. `codes` is scratch of `padded_dim` codes.
    pub(super) fn store(
        &mut self,
        place: Place,
        key: &[f32],
        value: &[f32],
        codes: &mut [i16],
    ) -> Result<(), NonFinite> {
        let (limit, dim, head_dim) = (self.key_limit(), self.dim, self.head_dim);
        let at = place.position % SEGMENT;
        let (head, scales) = self.head_mut(place);
        let (keys, values) = head.split_at_mut(SEGMENT * dim);
        scales[0][at] = quantize_into(key, limit, &mut codes[..head_dim])?;
        store_key(codes, at % TILE, &mut keys[at / TILE * TILE * dim..][..TILE * dim]);
        scales[1][at] = quantize_into(value, VALUE_LIMIT, &mut codes[..head_dim])?;
        store_value(codes, at, values);
        Ok(())
    }

    fn head_mut(&mut self, place: Place) -> (&mut [i16], &mut [[f32; SEGMENT]]) {
        let (head, size) = (place.layer * self.kv_heads + place.kv_head, 2 * SEGMENT * self.dim);
        let segment = &mut self.segments[place.position / SEGMENT];
        (&mut segment.codes[head * size..][..size], &mut segment.scales[2 * head..][..2])
    }

    /// Keys, values and value scales of one segment for one head.
    pub(super) fn segment(
        &self,
        segment: usize,
        layer: usize,
        kv_head: usize,
    ) -> (Keys<'_>, Values<'_>, &[f32; SEGMENT]) {
        let (head, size) = (layer * self.kv_heads + kv_head, 2 * SEGMENT * self.dim);
        let segment = &self.segments[segment];
        let (keys, values) = segment.codes[head * size..][..size].split_at(size / 2);
        let keys = Keys { codes: keys, scales: &segment.scales[2 * head] };
        (keys, Values { codes: values }, &segment.scales[2 * head + 1])
    }
}

/// Puts a key's codes (`[dim]`) in place `at` of a tile (`[dim / 2][8 positions][2]`).
fn store_key(codes: &[i16], at: usize, tile: &mut [i16]) {
    let eights = codes.as_chunks::<TILE>().0;
    for (codes, places) in eights.iter().zip(tile.as_chunks_mut::<{ TILE * TILE }>().0) {
        for (pair, places) in codes.as_chunks::<2>().0.iter().zip(places.as_chunks_mut::<{ 2 * TILE }>().0) {
            places.as_chunks_mut::<2>().0[at % TILE] = *pair;
        }
    }
}

/// Puts a value's codes (`[dim]`) in place `at` of a segment (`[dim / 8][16 position pairs][8 dims][2]`).
fn store_value(codes: &[i16], at: usize, segment: &mut [i16]) {
    let groups = segment.as_chunks_mut::<{ SEGMENT * TILE }>().0;
    for (codes, group) in codes.as_chunks::<TILE>().0.iter().zip(groups) {
        let pairs = &mut group.as_chunks_mut::<{ 2 * TILE }>().0[at % SEGMENT / 2];
        for (code, pair) in codes.iter().zip(pairs.as_chunks_mut::<2>().0) {
            pair[at % 2] = *code;
        }
    }
}

/// One position of one head of one layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub layer: usize,
    pub kv_head: usize,
    pub position: usize,
}
