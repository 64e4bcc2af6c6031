//! What was changed about a canister, by whom and when: the newest changes, and how many there were.

use std::collections::VecDeque;

use candid::Principal;
use serde::{Deserialize, Serialize};

use super::replica::InstallMode;

/// Changes that are kept; older ones are only counted.
const KEPT_CHANGES: usize = 20;

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The canister was created.
    Created {
        /// Its first controllers.
        controllers: Vec<Principal>,
    },
    /// A module was installed.
    Installed {
        /// How.
        mode: InstallMode,
        /// SHA-256 of the module as uploaded.
        module_hash: [u8; 32],
    },
    /// Module and state were removed.
    Uninstalled,
    /// Other principals control the canister.
    Controllers {
        /// The controllers since then.
        controllers: Vec<Principal>,
    },
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The canister's version after the change.
    pub version: u64,
    /// Who did it.
    pub author: Author,
    /// What.
    pub change: Change,
}

/// Who changed a canister.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Author {
    /// A user.
    User(Principal),
    /// A canister.
    Canister(Principal),
}

impl Author {
    /// The user or canister.
    pub fn principal(self) -> Principal {
        match self {
            Self::User(principal) | Self::Canister(principal) => principal,
        }
    }
}

/// Changes of one canister.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    entries: VecDeque<Entry>,
    total: u64,
}

impl History {
    /// Adds a change.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        self.total += 1;
        if self.entries.len() > KEPT_CHANGES {
            self.entries.pop_front();
        }
    }

    /// How many changes there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The newest `count` changes that are kept, oldest first.
    pub fn newest(&self, count: u64) -> impl Iterator<Item = &Entry> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.entries.iter().skip(self.entries.len().saturating_sub(count))
    }
}
