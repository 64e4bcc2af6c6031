//! Keys and values of all past positions, as 16-bit or 8-bit codes with a scale per position and head.
//!
//! The cache grows by segments of 32 positions, so that nothing is ever moved, cleared or copied whole. A segment holds
//! for every layer and KV head:
//!
//! ```text
//! keys     [4 tiles][dim / 2][8 positions][2]      codes   one load feeds eight positions' scores
//! values   [dim / 8][16 position pairs][8 dims][2] codes   one load feeds eight dimensions of the mix
//! scales   [32] of keys, [32] of values            f32
//! ```
//!
//! `dim` is the head dimension filled up with zeros to a multiple of 8. Codes are limited so that every integer sum is
//! exact: a key product sums `dim` terms, a value product 32.

use std::collections::TryReserveError;

use serde::{Deserialize, Serialize};

use crate::kernels::{Codes, Keys, NonFinite, SEGMENT, Values, quantize_into};

/// Positions whose keys, and dimensions whose values, share a load.
const TILE: usize = 8;

/// How exactly keys and values are kept. It decides the bits of all results after the first position, so it belongs to
/// a session and its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CachePrecision {
    /// 16-bit codes.
    #[default]
    Bits16,
    /// 8-bit codes: about half the memory, and the same time.
    Bits8,
}

impl CachePrecision {
    /// Bits per code.
    pub fn bits(self) -> u8 {
        match self {
            Self::Bits16 => 16,
            Self::Bits8 => 8,
        }
    }

    /// The precision with codes of that many bits, if there is one.
    pub fn from_bits(bits: u8) -> Option<Self> {
        [Self::Bits16, Self::Bits8].into_iter().find(|precision| precision.bits() == bits)
    }
}

/// Largest magnitudes of codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of cached keys.
    key: f32,
    /// Of queries: `dim` products with keys stay below 2^31.
    pub query: f32,
    /// Of cached values.
    value: f32,
    /// Of the values' weights: 32 products stay below 2^31.
    pub weight: f32,
}

impl Limits {
    fn new(precision: CachePrecision, dim: usize) -> Self {
        let most_dot = i32::MAX as usize / dim;
        let most = |limit: usize| limit.min(i16::MAX as usize) as f32;
        match precision {
            CachePrecision::Bits16 => {
                let key = most(most_dot.isqrt());
                Self { key, query: key, value: 8191.0, weight: 8191.0 }
            }
            CachePrecision::Bits8 => Self { key: 127.0, query: most(most_dot / 127), value: 127.0, weight: 32767.0 },
        }
    }
}

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
    precision: CachePrecision,
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
    codes: Store,
    /// `[layer][kv_head][keys, values][32]`
    scales: Vec<[f32; SEGMENT]>,
}

#[derive(Debug)]
enum Store {
    Wide(Vec<i16>),
    Narrow(Vec<i8>),
}

impl Store {
    fn zeroed(precision: CachePrecision, len: usize) -> Result<Self, TryReserveError> {
        Ok(match precision {
            CachePrecision::Bits16 => Self::Wide(zeroed(len)?),
            CachePrecision::Bits8 => Self::Narrow(zeroed(len)?),
        })
    }
}

fn zeroed<T: Copy + Default>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut values = Vec::new();
    values.try_reserve_exact(len)?;
    values.resize(len, T::default());
    Ok(values)
}

impl KvCache {
    /// An empty cache; memory is taken as positions come.
    pub fn new(layers: usize, kv_heads: usize, head_dim: usize, precision: CachePrecision) -> Self {
        let dim = head_dim.next_multiple_of(TILE);
        Self { precision, layers, kv_heads, head_dim, dim, segments: Vec::new(), len: 0 }
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
        self.layers * self.kv_heads * 2 * SEGMENT * (usize::from(self.precision.bits()) / 8 * self.dim + 4)
    }

    /// Makes room for `positions` positions in all.
    ///
    /// # Errors
    /// [`CacheOutOfMemory`]; what was cached stays.
    pub fn reserve(&mut self, positions: usize) -> Result<(), CacheOutOfMemory> {
        let heads = self.layers * self.kv_heads * 2;
        while self.segments.len() * SEGMENT < positions {
            let no_memory = |_| CacheOutOfMemory { bytes: self.segment_bytes() };
            let codes = Store::zeroed(self.precision, heads * SEGMENT * self.dim).map_err(no_memory)?;
            let scales = zeroed(heads).map_err(no_memory)?;
            self.segments.push(Segment { codes, scales });
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

    /// Largest codes of what is multiplied.
    pub(super) fn limits(&self) -> Limits {
        Limits::new(self.precision, self.dim)
    }

    /// Stores the key and value (`[head_dim]` each) of one position. `codes` is scratch of `[2, padded_dim]` codes, zero
    /// where the head dimension was filled up.
    pub(super) fn store(
        &mut self,
        place: Place,
        key: &[f32],
        value: &[f32],
        codes: &mut [i16],
    ) -> Result<(), NonFinite> {
        let (limits, at) = (self.limits(), place.position % SEGMENT);
        let (key_codes, value_codes) = codes.split_at_mut(self.dim);
        let key_scale = quantize_into(key, limits.key, &mut key_codes[..self.head_dim])?;
        let value_scale = quantize_into(value, limits.value, &mut value_codes[..self.head_dim])?;
        let (head, size) = (place.layer * self.kv_heads + place.kv_head, 2 * SEGMENT * self.dim);
        let segment = &mut self.segments[place.position / SEGMENT];
        segment.scales[2 * head][at] = key_scale;
        segment.scales[2 * head + 1][at] = value_scale;
        match &mut segment.codes {
            Store::Wide(store) => put(&mut store[head * size..][..size], at, codes, |code| code),
            Store::Narrow(store) => put(&mut store[head * size..][..size], at, codes, |code| code as i8),
        }
        Ok(())
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
        let (keys, values) = match &segment.codes {
            Store::Wide(store) => {
                let (keys, values) = store[head * size..][..size].split_at(size / 2);
                (Codes::Wide(keys), Codes::Wide(values))
            }
            Store::Narrow(store) => {
                let (keys, values) = store[head * size..][..size].split_at(size / 2);
                (Codes::Narrow(keys), Codes::Narrow(values))
            }
        };
        let keys = Keys { codes: keys, scales: &segment.scales[2 * head] };
        (keys, Values { codes: values }, &segment.scales[2 * head + 1])
    }
}

/// Puts the codes of a key and a value (`[2, dim]`) in place `at` of one head's keys and values.
#[inline(always)]
fn put<C: Copy>(head: &mut [C], at: usize, codes: &[i16], narrow: impl Fn(i16) -> C) {
    let (keys, values) = head.split_at_mut(head.len() / 2);
    let (key, value) = codes.split_at(codes.len() / 2);
    let tile = keys.len() / (SEGMENT / TILE);
    store_key(key, at % TILE, &mut keys[at / TILE * tile..][..tile], &narrow);
    store_value(value, at, values, &narrow);
}

/// Puts a key's codes (`[dim]`) in place `at` of a tile (`[dim / 2][8 positions][2]`).
fn store_key<C: Copy>(codes: &[i16], at: usize, tile: &mut [C], narrow: impl Fn(i16) -> C) {
    let eights = codes.as_chunks::<TILE>().0;
    for (codes, places) in eights.iter().zip(tile.as_chunks_mut::<{ TILE * TILE }>().0) {
        for (pair, places) in codes.as_chunks::<2>().0.iter().zip(places.as_chunks_mut::<{ 2 * TILE }>().0) {
            places.as_chunks_mut::<2>().0[at % TILE] = pair.map(&narrow);
        }
    }
}

/// Puts a value's codes (`[dim]`) in place `at` of a segment (`[dim / 8][16 position pairs][8 dims][2]`).
fn store_value<C: Copy>(codes: &[i16], at: usize, segment: &mut [C], narrow: impl Fn(i16) -> C) {
    let groups = segment.as_chunks_mut::<{ SEGMENT * TILE }>().0;
    for (codes, group) in codes.as_chunks::<TILE>().0.iter().zip(groups) {
        let pairs = &mut group.as_chunks_mut::<{ 2 * TILE }>().0[at % SEGMENT / 2];
        for (code, pair) in codes.iter().zip(pairs.as_chunks_mut::<2>().0) {
            pair[at % 2] = narrow(*code);
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
