//! Ids of sessions: the second in which a session is made, and a hash of it with its owner. So an id follows from nothing but
//! what its owner knows, and tells nothing of the sessions of others, how many there are or when they were made. Ids
//! ascend with time and fit the 53 bits that JSON's numbers have, until 2106.

use std::collections::BTreeSet;

use candid::Principal;
use sha2::{Digest, Sha256};

use crate::session_index::OwnerMap;

/// Bits of an id that are not the second.
const HASH_BITS: u32 = 21;

/// Gives ids, none of them twice.
#[derive(Debug)]
pub struct SessionIds {
    /// The second of the ids given last.
    second: u64,
    /// What was given in it: second and id.
    given: BTreeSet<(u64, u64)>,
    /// How many hashes each owner had in it.
    hashes: OwnerMap,
}

impl SessionIds {
    /// Gives ids from `next` on.
    pub fn new(next: u64) -> Self {
        Self { second: next.div_ceil(1 << HASH_BITS), given: BTreeSet::new(), hashes: OwnerMap::new() }
    }

    /// Above all ids that were ever given.
    pub fn next(&self) -> u64 {
        (self.second + 1) << HASH_BITS
    }

    /// An id for a session that `owner` makes at `now_ns`.
    pub fn take(&mut self, owner: Principal, now_ns: u64) -> u64 {
        let second = now_ns / 1_000_000_000;
        if second > self.second {
            *self = Self { second, given: BTreeSet::new(), hashes: OwnerMap::new() };
        }
        let key = (owner, self.second);
        let mut count = self.hashes.get(&key).copied().unwrap_or(0);
        loop {
            let id = self.second << HASH_BITS | hash(&owner, self.second, count);
            count += 1;
            if self.given.insert((self.second, id)) {
                self.hashes.insert(key, count);
                return id;
            }
        }
    }
}

fn hash(owner: &Principal, second: u64, count: u64) -> u64 {
    let hasher = Sha256::new().chain_update(second.to_le_bytes()).chain_update(count.to_le_bytes());
    let digest = hasher.chain_update(owner.as_slice()).finalize();
    digest.iter().take(4).fold(0, |hash, byte| hash << 8 | u64::from(*byte)) >> (32 - HASH_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn what_others_do_leaves_no_trace_in_an_id() {
        let [a, b] = [Principal::from_slice(&[1]), Principal::from_slice(&[2])];
        let alone: Vec<_> = (0..20u64).map(|at| SessionIds::new(1).take(a, at / 4 * SECOND_NS)).collect();
        assert_eq!(alone[0], alone[1]);
        let ids = |others: u64| {
            let mut ids = SessionIds::new(1);
            let mut mine = Vec::new();
            for at in 1..20 {
                for _ in 0..others * at {
                    ids.take(b, at / 4 * SECOND_NS);
                }
                mine.push(ids.take(a, at / 4 * SECOND_NS));
            }
            mine
        };
        assert_eq!(ids(0), ids(1));
        assert_eq!(ids(0), ids(7));
    }

    #[test]
    fn no_id_is_given_twice_also_after_reopening_while_the_clock_stands_still() {
        let mut all = BTreeSet::new();
        let mut ids = SessionIds::new(78);
        for round in 0..5 {
            for number in 0..2_000u32 {
                let id = ids.take(Principal::from_slice(&[number as u8 % 3]), 1_700_000_000 * SECOND_NS);
                assert!(all.insert(id), "{id} in round {round}");
                assert!(id >= 78 && id < ids.next() && id < 1 << 53);
            }
            ids = SessionIds::new(ids.next());
        }
        let later = ids.take(Principal::anonymous(), 1_700_000_100 * SECOND_NS);
        assert!(later > *all.last().unwrap());
    }
}
