//! What the heap knows of all sessions: whose they are, and when they changed last. So questions of ownership, number and
//! age need no look at stable memory, and cost the same whether or not somebody else has a session. Made from the heads
//! when the canister starts.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;

/// Numbers of principals and something of theirs. Wherever the heap has to find such, it has them in this form: every form
/// of a map is some kilobytes of the module.
pub type OwnerMap = BTreeMap<(Principal, u64), u64>;

/// Sessions by their owners and by age. Times are nanoseconds since 1970.
#[derive(Debug, Default)]
pub struct SessionIndex {
    /// Owner and id to the time of the last change.
    owners: OwnerMap,
    /// Time of the last change, and id.
    by_age: BTreeSet<(u64, u64)>,
}

impl SessionIndex {
    /// Notes a session, new or changed.
    pub fn insert(&mut self, id: u64, owner: Principal, changed_ns: u64) {
        if let Some(before) = self.owners.insert((owner, id), changed_ns) {
            self.by_age.remove(&(before, id));
        }
        self.by_age.insert((changed_ns, id));
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: u64, owner: &Principal) {
        if let Some(changed_ns) = self.owners.remove(&(*owner, id)) {
            self.by_age.remove(&(changed_ns, id));
        }
    }

    /// Whether `owner` has the session. Whether another has it makes no difference to how this is found out.
    pub fn owns(&self, owner: &Principal, id: u64) -> bool {
        self.owners.contains_key(&(*owner, id))
    }

    /// Sessions of `owner`.
    pub fn len_of(&self, owner: &Principal) -> u64 {
        self.owners.range((*owner, 0)..=(*owner, u64::MAX)).count() as u64
    }

    /// At most `limit` ids of `owner` from `first` on, ascending.
    pub fn ids_of(&self, owner: &Principal, first: u64, limit: usize) -> Vec<u64> {
        self.owners.range((*owner, first)..=(*owner, u64::MAX)).take(limit).map(|((_, id), _)| *id).collect()
    }

    /// Time of the last change and id of the session that was left alone for longest.
    pub fn oldest(&self) -> Option<(u64, u64)> {
        self.by_age.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_one_that_was_left_alone_for_longest() {
        let mut index = SessionIndex::default();
        let [a, b] = [Principal::from_slice(&[1]), Principal::from_slice(&[2])];
        assert_eq!(index.oldest(), None);
        (1..5).for_each(|id| index.insert(id, if id % 2 == 0 { a } else { b }, 10 * id));
        assert_eq!(index.oldest(), Some((10, 1)));
        index.insert(1, b, 25);
        index.insert(2, a, 20);
        assert_eq!(index.oldest(), Some((20, 2)));
        index.remove(2, &a);
        index.remove(2, &a);
        index.remove(9, &Principal::anonymous());
        assert_eq!((index.oldest(), index.by_age.len()), (Some((25, 1)), 3));
        [(1, b), (3, b), (4, a)].iter().for_each(|(id, owner)| index.remove(*id, owner));
        assert!(index.by_age.is_empty() && index.owners.is_empty());
    }
}
