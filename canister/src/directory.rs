//! Which model files lie in which slot, and what the present upload is. Small, in one stable cell.
//! Knows nothing of how files get there or what is done with them.

use candid::CandidType;
use ic_stable_structures::Memory;
use serde::{Deserialize, Serialize};

use crate::api::{Error, RejectedModel, StoredModel};
use crate::memory::{CandidCell, Region};

/// A verified file in a slot.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// 0 or 1.
    pub slot: u8,
    /// The file.
    pub file: StoredModel,
}

/// An upload that goes on.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub upload_id: u64,
    /// Where the bytes go, and what they should be.
    pub placed: Placed,
    /// Whether `upload_commit` was called: verification goes on by itself.
    pub committed: bool,
    /// Whether the last verification found another hash.
    pub mismatch: bool,
}

/// What is where. At most two of `current`, `candidate` and `upload` are present, in different slots.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// The file that is loaded after an upgrade.
    pub current: Option<Placed>,
    /// A verified file that becomes `current` once it has been loaded.
    pub candidate: Option<Placed>,
    /// The last candidate that could not be loaded.
    pub rejected: Option<RejectedModel>,
    /// The present upload.
    pub upload: Option<Upload>,
    /// The last upload that was verified, so that a repeated commit is answered.
    pub last_committed: Option<u64>,
}

impl Directory {
    /// A slot that nothing needs.
    pub fn free_slot(&self) -> Option<u8> {
        let upload = self.upload.as_ref().map(|upload| &upload.placed);
        let taken = [self.current.as_ref(), self.candidate.as_ref(), upload];
        (0..2).find(|slot| !taken.iter().flatten().any(|placed| placed.slot == *slot))
    }

    /// The upload called `upload_id`.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`].
    pub fn upload(&self, upload_id: u64) -> Result<&Upload, Error> {
        self.upload.as_ref().filter(|upload| upload.upload_id == upload_id).ok_or(Error::UploadNotFound { upload_id })
    }
}

/// The directory in its cell, with a copy in the heap.
pub struct DirectoryCell<M: Memory> {
    cell: CandidCell<Directory, M>,
    value: Directory,
}

impl<M: Memory> DirectoryCell<M> {
    /// Opens the directory as it was left.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn open(region: Region<M>) -> Result<Self, Error> {
        let cell = CandidCell::open(region);
        let value = cell.get()?.unwrap_or_default();
        Ok(Self { cell, value })
    }

    /// What is where.
    pub fn get(&self) -> &Directory {
        &self.value
    }

    /// Changes and stores the directory.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn change(&mut self, change: impl FnOnce(&mut Directory)) -> Result<(), Error> {
        change(&mut self.value);
        self.cell.set(&self.value)
    }
}
