//! Which byte ranges of an upload have arrived, whatever the order, merged where they touch. Lives in
//! stable memory. Knows nothing of the bytes themselves.

use std::ops::Range;

use ic_stable_structures::{Memory, StableBTreeMap};

use crate::api::{ByteRange, Error};
use crate::memory::{Headroom, LEDGER, Memories, Region};

/// Separate ranges kept at most; a file of 8 GiB in chunks of 1.9 MB has 4,500.
const MAX_RANGES: u64 = 65_536;
/// Stable memory that must be free for another range.
const ROOM_BYTES: u64 = 64 << 10;

/// Ranges by their start, never empty, overlapping or touching.
pub struct Ledger<M: Memory> {
    ranges: StableBTreeMap<u64, u64, Region<M>>,
    headroom: Headroom<M>,
    received: u64,
}

impl<M: Memory + Clone> Ledger<M> {
    /// Opens the ledger as it was left.
    pub fn open(memories: &Memories<M>) -> Self {
        let ranges = StableBTreeMap::init(memories.region(LEDGER));
        let received = ranges.iter().map(|entry| entry.value() - entry.key()).sum();
        Self { ranges, headroom: memories.headroom(), received }
    }
}

impl<M: Memory> Ledger<M> {
    /// Distinct bytes that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Forgets all ranges.
    pub fn clear(&mut self) {
        self.ranges.clear_new();
        self.received = 0;
    }

    /// Notes that `range` has arrived.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] if the ranges are scattered beyond measure, or [`Error::StableMemoryFull`].
    pub fn insert(&mut self, range: Range<u64>) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let touching = self.touching(&range);
        if touching.is_empty() && self.ranges.len() >= MAX_RANGES {
            return Err(Error::LimitExceeded {
                limit: "upload_ranges".into(),
                max: MAX_RANGES,
                needed: MAX_RANGES + 1,
            });
        }
        self.headroom.ensure(ROOM_BYTES)?;
        let mut merged = range;
        for (start, end) in touching {
            self.ranges.remove(&start);
            self.received -= end - start;
            merged = merged.start.min(start)..merged.end.max(end);
        }
        self.received += merged.end - merged.start;
        self.ranges.insert(merged.start, merged.end);
        Ok(())
    }

    fn touching(&self, range: &Range<u64>) -> Vec<(u64, u64)> {
        let before = self.ranges.range(..range.start).next_back().map(|entry| entry.into_pair());
        let inside = self.ranges.range(range.start..=range.end).map(|entry| entry.into_pair());
        before.filter(|(_, end)| *end >= range.start).into_iter().chain(inside).collect()
    }

    /// The first `limit` gaps that end after `from` and begin before `total`, cut to that window, and where
    /// to go on if there are more.
    pub fn missing(&self, from: u64, total: u64, limit: usize) -> (Vec<ByteRange>, Option<u64>) {
        let before = self.ranges.range(..=from).next_back().map(|entry| entry.value());
        let mut position = before.map_or(from, |end| end.max(from));
        let mut gaps = Vec::new();
        let after = self.ranges.range((std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded));
        for (start, end) in after.map(|entry| entry.into_pair()).chain([(total, total)]) {
            let start = start.min(total);
            if position < start {
                if gaps.len() == limit {
                    return (gaps, Some(position));
                }
                gaps.push(ByteRange { offset: position, bytes: start - position });
            }
            position = position.max(end);
        }
        (gaps, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_stable_structures::VectorMemory;
    use proptest::prelude::*;

    const TOTAL: usize = 64;

    /// Gaps of a bitmap, the naive way.
    fn gaps(arrived: &[bool], from: usize) -> Vec<ByteRange> {
        let mut gaps: Vec<ByteRange> = Vec::new();
        for at in (from..arrived.len()).filter(|at| !arrived[*at]) {
            match gaps.last_mut() {
                Some(gap) if gap.offset + gap.bytes == at as u64 => gap.bytes += 1,
                _ => gaps.push(ByteRange { offset: at as u64, bytes: 1 }),
            }
        }
        gaps
    }

    proptest! {
        #[test]
        fn equals_a_bitmap_for_any_ranges_and_after_reopening(
            ranges in proptest::collection::vec((0..TOTAL, 0..20usize), 0..40), from in 0..TOTAL, limit in 1..6usize,
        ) {
            let memory = VectorMemory::default();
            let mut ledger = Ledger::open(&Memories::open(memory.clone()));
            let mut bitmap = vec![false; TOTAL];
            for (start, len) in ranges {
                let end = (start + len).min(TOTAL);
                ledger.insert(start as u64..end as u64).unwrap();
                bitmap[start..end].fill(true);
            }
            for ledger in [ledger, Ledger::open(&Memories::open(memory))] {
                prop_assert_eq!(ledger.received(), bitmap.iter().filter(|arrived| **arrived).count() as u64);
                let expected = gaps(&bitmap, from);
                let (missing, next) = ledger.missing(from as u64, TOTAL as u64, limit);
                prop_assert_eq!(&missing[..], &expected[..expected.len().min(limit)]);
                prop_assert_eq!(next, expected.get(limit).map(|gap| gap.offset));
            }
        }
    }

    #[test]
    fn refuses_ranges_scattered_beyond_measure() {
        let mut ledger = Ledger::open(&Memories::open(VectorMemory::default()));
        for index in 0..MAX_RANGES {
            ledger.insert(index * 2..index * 2 + 1).unwrap();
        }
        let beyond = MAX_RANGES * 2..MAX_RANGES * 2 + 1;
        assert!(matches!(ledger.insert(beyond.clone()), Err(Error::LimitExceeded { .. })));
        ledger.insert(1..2).unwrap();
        ledger.insert(beyond).unwrap();
        ledger.clear();
        assert_eq!(ledger.missing(0, 5, 9), (vec![ByteRange { offset: 0, bytes: 5 }], None));
    }
}
