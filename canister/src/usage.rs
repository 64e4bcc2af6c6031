//! Tokens computed for each principal on the present day (UTC). The heap has the sums; in stable memory every head has the
//! tokens of its session, and a map those of sessions that were deleted since. Knows nothing of quotas.

use candid::Principal;
use ic_stable_structures::{Memory, StableBTreeMap};

use crate::memory::{Headroom, Memories, Region, USAGE};
use crate::session_head::Usage;
use crate::session_index::OwnerMap;

/// Nanoseconds of a day.
const DAY_NS: u64 = 86_400_000_000_000;
/// Sums of an earlier day that are dropped with every addition.
const DROPPED_AT_ONCE: usize = 4;
/// Stable memory that must be free for a sum to be kept.
const ROOM_BYTES: u64 = 64 << 10;
/// Length of a principal, 29 bytes padded with zeros, tokens.
const SUM_BYTES: usize = 38;

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
    /// Owner and day to tokens.
    sums: OwnerMap,
    /// Of an earlier day, dropped bit by bit.
    old: OwnerMap,
    /// Day, and 32 bits of a hash of the owner, to the sums of all owners with this hash.
    deleted: StableBTreeMap<u64, Vec<u8>, Region<M>>,
    headroom: Headroom<M>,
}

impl<M: Memory + Clone> TokenUsage<M> {
    /// Opens what was kept of sessions that are deleted; the others are to be added.
    pub fn open(memories: &Memories<M>, today: u32) -> Self {
        let deleted = StableBTreeMap::<u64, Vec<u8>, _>::init(memories.region(USAGE));
        let mut sums = OwnerMap::new();
        for key in deleted.keys_range(key_of(today, 0)..) {
            for (owner, tokens) in sums_in(&deleted.get(&key).unwrap_or_default()) {
                sums.insert((owner, today.into()), tokens);
            }
        }
        Self { day: today, sums, old: OwnerMap::new(), deleted, headroom: memories.headroom() }
    }
}

impl<M: Memory> TokenUsage<M> {
    /// Tokens of `owner` on day `today`.
    pub fn used(&self, owner: &Principal, today: u32) -> u64 {
        self.sums.get(&(*owner, today.into())).copied().unwrap_or(0)
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
            let sum = self.used(&owner, today).saturating_add(tokens);
            self.sums.insert((owner, today.into()), sum);
        }
    }

    /// Keeps the tokens of a session that is deleted. If stable memory is full they are kept until the next upgrade.
    pub fn keep(&mut self, owner: &Principal, usage: Usage, today: u32) {
        for _ in 0..2 {
            if let Some(key) = self.deleted.keys_range(..key_of(today, 0)).next() {
                self.deleted.remove(&key);
            }
        }
        if usage.day != today || usage.tokens == 0 || self.headroom.ensure(ROOM_BYTES).is_err() {
            return;
        }
        let key = key_of(today, hash(owner));
        let bytes = self.deleted.get(&key).unwrap_or_default();
        let (same, others): (Vec<_>, Vec<_>) = sums_in(&bytes).partition(|(other, _)| other == owner);
        let before = same.first().map_or(0, |(_, tokens)| *tokens);
        let sums = others.into_iter().chain([(*owner, before.saturating_add(usage.tokens.into()))]);
        self.deleted.insert(key, sums.flat_map(|(owner, tokens)| sum_bytes(&owner, tokens)).collect());
    }
}

fn key_of(day: u32, hash: u32) -> u64 {
    u64::from(day) << 32 | u64::from(hash)
}

/// FNV-1a: it only spreads the keys.
fn hash(owner: &Principal) -> u32 {
    owner.as_slice().iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn sum_bytes(owner: &Principal, tokens: u64) -> [u8; SUM_BYTES] {
    let owner = owner.as_slice();
    let mut bytes = [0; SUM_BYTES];
    let fields = [owner.len() as u8].into_iter().chain(owner.iter().copied());
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    bytes.iter_mut().skip(30).zip(tokens.to_le_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn sums_in(bytes: &[u8]) -> impl Iterator<Item = (Principal, u64)> {
    bytes.as_chunks::<SUM_BYTES>().0.iter().filter_map(|sum| {
        let owner = sum.get(1..1 + usize::from(*sum.first()?))?;
        Some((Principal::try_from_slice(owner).ok()?, u64::from_le_bytes(*sum.last_chunk()?)))
    })
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
        assert_eq!(usage.deleted.len(), 1);
        assert_eq!(sums_in(&usage.deleted.first_key_value().unwrap().1).collect::<Vec<_>>(), [(A, 20)]);
    }

    #[test]
    fn owners_with_the_same_hash_have_sums_of_their_own() {
        let mut usage = TokenUsage::open(&Memories::open(VectorMemory::default()), 5);
        // Two of these numbers have the same hash (the birthdays of 2^32 days).
        let mut seen = std::collections::BTreeMap::new();
        let numbered = |number: u64| Principal::from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let pair =
            (0..400_000u64).find_map(|number| seen.insert(hash(&numbered(number)), number).map(|same| [same, number]));
        let [a, b] = pair.unwrap().map(numbered);
        for (owner, tokens) in [(a, 1), (b, 10), (a, 2), (b, 20)] {
            usage.keep(&owner, Usage { day: 5, tokens }, 5);
        }
        assert_eq!(usage.deleted.len(), 1);
        let sums: Vec<_> = sums_in(&usage.deleted.first_key_value().unwrap().1).collect();
        assert_eq!(sums, [(a, 3), (b, 30)]);
    }
}
