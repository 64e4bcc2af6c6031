//! What the heap knows of all sessions: whose they are. So questions of ownership and number need no look at stable
//! memory, and cost the same whether or not somebody else has a session. Made from the heads when the canister starts.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;

/// Sessions by their owners.
#[derive(Debug, Default)]
pub struct SessionIndex {
    owners: BTreeMap<Principal, BTreeSet<u64>>,
}

impl SessionIndex {
    /// Notes a session; nothing happens if it is noted.
    pub fn insert(&mut self, id: u64, owner: Principal) {
        self.owners.entry(owner).or_default().insert(id);
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: u64, owner: &Principal) {
        if let Some(ids) = self.owners.get_mut(owner) {
            ids.remove(&id);
            if ids.is_empty() {
                self.owners.remove(owner);
            }
        }
    }

    /// Whether `owner` has the session. What others have is not looked at.
    pub fn owns(&self, owner: &Principal, id: u64) -> bool {
        self.owners.get(owner).is_some_and(|ids| ids.contains(&id))
    }

    /// Sessions of `owner`.
    pub fn len_of(&self, owner: &Principal) -> u64 {
        self.owners.get(owner).map_or(0, |ids| ids.len() as u64)
    }

    /// At most `limit` ids of `owner` from `first` on, ascending.
    pub fn ids_of(&self, owner: &Principal, first: u64, limit: usize) -> Vec<u64> {
        self.owners.get(owner).into_iter().flat_map(|ids| ids.range(first..)).take(limit).copied().collect()
    }
}
