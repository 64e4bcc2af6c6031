//! Tokens computed for each principal on the present day (UTC). The heap has the sums; in stable memory every head has the
//! tokens of its session, and a map those of sessions that were deleted since. Knows nothing of quotas.

use std::collections::BTreeMap;

use candid::Principal;
use ic_stable_structures::{Memory, StableBTreeMap};

use crate::memory::{Headroom, Memories, Region, USAGE};
use crate::session_head::Usage;

/// Nanoseconds of a day.
const DAY_NS: u64 = 86_400_000_000_000;
/// Sums of an earlier day that are dropped with every addition.
const DROPPED_AT_ONCE: usize = 4;
/// Stable memory that must be free for a sum to be kept.
const ROOM_BYTES: u64 = 64 << 10;

/// Day (big endian), then the owner: length, 29 bytes padded with zeros.
type DayKey = [u8; 34];

/// The day of a time in nanoseconds since 1970, counted from 1970 in UTC.
pub fn day_of(now_ns: u64) -> u32 {
    (now_ns / DAY_NS) as u32
}

/// When `day` ends, in nanoseconds since 1970.
pub fn end_of(day: u32) -> u64 {
    (u64::from(day) + 1).saturating_mul(DAY_NS)
}

/// The sums.
pub struct TokenUsage<M: Memory> {
    day: u32,
    sums: BTreeMap<Principal, u64>,
    /// Of an earlier day, dropped bit by bit.
    old: BTreeMap<Principal, u64>,
    deleted: StableBTreeMap<DayKey, u64, Region<M>>,
    headroom: Headroom<M>,
}

impl<M: Memory + Clone> TokenUsage<M> {
    /// Opens what was kept of sessions that are deleted; the others are to be added.
    pub fn open(memories: &Memories<M>, today: u32) -> Self {
        let deleted = StableBTreeMap::init(memories.region(USAGE));
        let sums = entries_of(&deleted, today).collect();
        Self { day: today, sums, old: BTreeMap::new(), deleted, headroom: memories.headroom() }
    }
}

impl<M: Memory> TokenUsage<M> {
    /// Tokens of `owner` on day `today`.
    pub fn used(&self, owner: &Principal, today: u32) -> u64 {
        if self.day == today { self.sums.get(owner).copied().unwrap_or(0) } else { 0 }
    }

    /// Adds tokens of `owner` on day `today`.
    pub fn add(&mut self, owner: Principal, today: u32, tokens: u64) {
        if self.day != today {
            (self.day, self.old) = (today, std::mem::take(&mut self.sums));
        }
        for _ in 0..DROPPED_AT_ONCE {
            self.old.pop_first();
        }
        if tokens > 0 {
            let sum = self.sums.entry(owner).or_default();
            *sum = sum.saturating_add(tokens);
        }
    }

    /// Keeps the tokens of a session that is deleted. If stable memory is full they are kept until the next upgrade.
    pub fn keep(&mut self, owner: &Principal, usage: Usage, today: u32) {
        for _ in 0..2 {
            if self.deleted.first_key_value().is_some_and(|(key, _)| !key.starts_with(&today.to_be_bytes())) {
                self.deleted.pop_first();
            }
        }
        if usage.day == today && usage.tokens > 0 && self.headroom.ensure(ROOM_BYTES).is_ok() {
            let key = day_key(today, owner);
            let before = self.deleted.get(&key).unwrap_or(0);
            self.deleted.insert(key, before.saturating_add(usage.tokens.into()));
        }
    }
}

/// The entries of a day.
fn entries_of<M: Memory>(
    deleted: &StableBTreeMap<DayKey, u64, Region<M>>,
    day: u32,
) -> impl Iterator<Item = (Principal, u64)> {
    let [mut first, mut last] = [[0; 34], [0xff; 34]];
    for key in [&mut first, &mut last] {
        key.iter_mut().zip(day.to_be_bytes()).for_each(|(to, from)| *to = from);
    }
    deleted.range(first..=last).map(|entry| entry.into_pair()).filter_map(|(key, tokens)| {
        let owner = key.get(5..5 + usize::from(*key.get(4)?))?;
        Some((Principal::try_from_slice(owner).ok()?, tokens))
    })
}

fn day_key(day: u32, owner: &Principal) -> DayKey {
    let owner = owner.as_slice();
    let mut key = [0; 34];
    let bytes = day.to_be_bytes().into_iter().chain([owner.len() as u8]).chain(owner.iter().copied());
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_stable_structures::VectorMemory;

    const A: Principal = Principal::anonymous();

    #[test]
    fn sums_begin_anew_with_the_day() {
        let mut usage = TokenUsage::open(&Memories::open(VectorMemory::default()), 5);
        let b = Principal::from_slice(&[7; 29]);
        usage.add(A, 5, 3);
        usage.add(b, 5, 4);
        usage.add(A, 5, 5);
        assert_eq!((usage.used(&A, 5), usage.used(&b, 5), usage.used(&A, 6)), (8, 4, 0));
        usage.add(A, 6, 1);
        assert_eq!((usage.used(&A, 6), usage.used(&b, 6), usage.used(&A, 5)), (1, 0, 0));
        assert!(usage.old.is_empty());
        assert_eq!((day_of(end_of(5) - 1), day_of(end_of(5))), (5, 6));
    }

    #[test]
    fn what_deleted_sessions_used_survives_and_old_days_do_not_pile_up() {
        let memory = VectorMemory::default();
        let mut usage = TokenUsage::open(&Memories::open(memory.clone()), 5);
        let owners: Vec<_> = (1..30).map(|len| Principal::from_slice(&[9; 29][..len])).collect();
        for owner in &owners {
            usage.keep(owner, Usage { day: 5, tokens: 2 }, 5);
            usage.keep(owner, Usage { day: 5, tokens: 1 }, 5);
            usage.keep(owner, Usage { day: 4, tokens: 100 }, 5);
        }
        let mut usage = TokenUsage::open(&Memories::open(memory.clone()), 5);
        assert!(owners.iter().all(|owner| usage.used(owner, 5) == 3));
        assert_eq!(TokenUsage::open(&Memories::open(memory), 6).used(&owners[0], 6), 0);
        (0..20).for_each(|_| usage.keep(&A, Usage { day: 6, tokens: 1 }, 6));
        assert_eq!(usage.deleted.iter().map(|entry| entry.into_pair().1).collect::<Vec<_>>(), [20]);
    }
}
