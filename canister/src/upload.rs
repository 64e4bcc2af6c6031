//! Uploading a model file: chunks to a slot, the ledger of what arrived, verification of the hash in
//! bounded steps. Knows nothing of callers, and nothing of what the file means.

use ic_stable_structures::Memory;
use model_core::budget::Budget;
use sha2::{Digest, Sha256};

use crate::api::{
    Error, MAX_CHUNK_BYTES, StoredModel, UploadBeginArg, UploadBeginOk, UploadChunk, UploadChunkOk, UploadState,
    UploadStatus, UploadStatusArg,
};
use crate::directory::{Directory, DirectoryCell, Placed, Upload};
use crate::ledger::Ledger;
use crate::memory::{Memories, Region, ensure_size};

/// More could never be loaded: packed weights have to fit a heap of 4 GiB.
const MAX_MODEL_BYTES: u64 = 8 << 30;
const MAX_NAME_BYTES: usize = 200;
/// Bytes hashed between two looks at the budget.
const HASH_STEP_BYTES: u64 = 256 << 10;
const DEFAULT_GAPS: u32 = 1_000;
const MAX_GAPS: u32 = 10_000;

/// The hash so far. Kept in the heap only: after an upgrade hashing starts again.
struct Hashing {
    upload_id: u64,
    done: u64,
    state: Sha256,
}

/// How far verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Bytes hashed.
    pub hashed_bytes: u64,
    /// Size of the file.
    pub total_bytes: u64,
    /// Whether the hash was right and the file became a candidate.
    pub done: bool,
}

/// The upload side of the model store.
pub struct Uploader<M: Memory> {
    stable: M,
    slots: [Region<M>; 2],
    ledger: Ledger<M>,
    hashing: Option<Hashing>,
}

impl<M: Memory + Clone> Uploader<M> {
    /// Opens the uploader as it was left.
    pub fn open(memories: &Memories<M>) -> Self {
        let slots = [memories.slot(0), memories.slot(1)];
        Self { stable: memories.stable(), slots, ledger: Ledger::open(memories), hashing: None }
    }

    /// Begins an upload, or returns the present one if it is of the same file. `new_id` is called for a new
    /// one only; `no_slot` is the answer if both slots are needed.
    ///
    /// # Errors
    /// An argument out of range, another upload going on, or no stable memory.
    pub fn begin(
        &mut self,
        directory: &mut DirectoryCell<M>,
        arg: UploadBeginArg,
        new_id: impl FnOnce() -> u64,
        no_slot: Error,
    ) -> Result<UploadBeginOk, Error> {
        check_begin(&arg)?;
        if let Some(upload) = &directory.get().upload {
            let file = &upload.placed.file;
            if file.sha256 != arg.sha256 || file.bytes != arg.total_bytes {
                return Err(in_progress(upload));
            }
            return Ok(self.begin_ok(upload.upload_id));
        }
        let slot = directory.get().free_slot().ok_or(no_slot)?;
        ensure_size(self.slot(slot), &self.stable, arg.total_bytes)?;
        self.forget();
        let file = StoredModel { name: arg.name, bytes: arg.total_bytes, sha256: arg.sha256 };
        let upload_id = new_id();
        let upload = Upload { upload_id, placed: Placed { slot, file }, committed: false, mismatch: false };
        directory.change(|directory| directory.upload = Some(upload))?;
        Ok(self.begin_ok(upload_id))
    }

    fn begin_ok(&self, upload_id: u64) -> UploadBeginOk {
        UploadBeginOk { upload_id, received_bytes: self.ledger.received(), max_chunk_bytes: MAX_CHUNK_BYTES }
    }

    /// Writes a chunk to its place.
    ///
    /// # Errors
    /// An unknown upload, or a chunk that is too large or leaves the file.
    pub fn chunk(&mut self, directory: &mut DirectoryCell<M>, chunk: UploadChunk<'_>) -> Result<UploadChunkOk, Error> {
        let upload = directory.get().upload(chunk.upload_id)?;
        let Placed { slot, file } = &upload.placed;
        let (slot, total_bytes) = (*slot, file.bytes);
        let (committed, mismatch) = (upload.committed, upload.mismatch);
        let end = check_chunk(&chunk, total_bytes)?;
        self.ledger.insert(chunk.offset..end)?;
        self.slot(slot).write(chunk.offset, chunk.bytes);
        if self.hashing.as_ref().is_some_and(|hashing| chunk.offset < hashing.done) {
            self.hashing = None;
        }
        if mismatch {
            directory.change(|directory| set_state(directory, committed, false))?;
        }
        Ok(UploadChunkOk { received_bytes: self.ledger.received(), total_bytes })
    }

    /// What the present upload is doing; none if there is none.
    pub fn status(&self, directory: &Directory, arg: UploadStatusArg) -> Option<UploadStatus> {
        let upload = directory.upload.as_ref()?;
        let file = upload.placed.file.clone();
        let limit = arg.limit.unwrap_or(DEFAULT_GAPS).min(MAX_GAPS);
        let (missing, missing_next) = self.ledger.missing(arg.from.unwrap_or(0), file.bytes, limit as usize);
        Some(UploadStatus {
            upload_id: upload.upload_id,
            name: file.name,
            total_bytes: file.bytes,
            sha256: file.sha256,
            received_bytes: self.ledger.received(),
            state: self.state(upload),
            missing,
            missing_next,
        })
    }

    fn state(&self, upload: &Upload) -> UploadState {
        match upload {
            Upload { committed: true, .. } => UploadState::Verifying { hashed_bytes: self.hashed(upload.upload_id) },
            Upload { mismatch: true, .. } => UploadState::HashMismatch,
            _ => UploadState::Receiving,
        }
    }

    fn hashed(&self, upload_id: u64) -> u64 {
        self.hashing.as_ref().filter(|hashing| hashing.upload_id == upload_id).map_or(0, |hashing| hashing.done)
    }

    /// Notes that all chunks were sent; [`Self::verify_step`] does the rest.
    ///
    /// # Errors
    /// An unknown upload, or missing bytes.
    pub fn commit(&mut self, directory: &mut DirectoryCell<M>, upload_id: u64) -> Result<(), Error> {
        let total = directory.get().upload(upload_id)?.placed.file.bytes;
        if let Some(first_missing) = self.ledger.missing(0, total, 1).0.first().copied() {
            let missing_bytes = total - self.ledger.received();
            return Err(Error::UploadIncomplete { missing_bytes, first_missing });
        }
        directory.change(|directory| set_state(directory, true, false))
    }

    /// Hashes on until the budget is exhausted, and at the end makes the upload the candidate.
    ///
    /// # Errors
    /// [`Error::HashMismatch`], after which the upload waits for chunks again.
    pub fn verify_step(
        &mut self,
        directory: &mut DirectoryCell<M>,
        budget: &mut dyn Budget,
    ) -> Result<Verified, Error> {
        let Some(upload) = directory.get().upload.clone() else {
            return Err(Error::UploadNotFound { upload_id: 0 });
        };
        let Placed { slot, file } = &upload.placed;
        let total_bytes = file.bytes;
        let hashed_bytes = self.hash_on(upload.upload_id, *slot, total_bytes, budget);
        if hashed_bytes < total_bytes {
            return Ok(Verified { hashed_bytes, total_bytes, done: false });
        }
        let actual = self.hashing.take().map(|hashing| hashing.state.finalize().to_vec()).unwrap_or_default();
        if actual != file.sha256 {
            let expected = file.sha256.clone();
            directory.change(|directory| set_state(directory, false, true))?;
            return Err(Error::HashMismatch { expected, actual });
        }
        self.forget();
        directory.change(|directory| {
            directory.last_committed = Some(upload.upload_id);
            directory.upload = None;
            directory.candidate = Some(upload.placed);
        })?;
        Ok(Verified { hashed_bytes, total_bytes, done: true })
    }

    fn hash_on(&mut self, upload_id: u64, slot: u8, total: u64, budget: &mut dyn Budget) -> u64 {
        let mut hashing = match self.hashing.take() {
            Some(hashing) if hashing.upload_id == upload_id => hashing,
            _ => Hashing { upload_id, done: 0, state: Sha256::new() },
        };
        let mut buf = vec![0; total.min(HASH_STEP_BYTES) as usize];
        while hashing.done < total {
            let len = (total - hashing.done).min(HASH_STEP_BYTES);
            buf.truncate(len as usize);
            self.slot(slot).read(hashing.done, &mut buf);
            hashing.state.update(&buf);
            hashing.done += len;
            if budget.exhausted() {
                break;
            }
        }
        let done = hashing.done;
        self.hashing = Some(hashing);
        done
    }

    /// Lets the upload wait for another commit.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn withdraw_commit(&mut self, directory: &mut DirectoryCell<M>) -> Result<(), Error> {
        self.hashing = None;
        directory.change(|directory| set_state(directory, false, false))
    }

    /// Gives the upload up; its slot is free again.
    ///
    /// # Errors
    /// An unknown upload.
    pub fn abort(&mut self, directory: &mut DirectoryCell<M>, upload_id: u64) -> Result<(), Error> {
        directory.get().upload(upload_id)?;
        self.forget();
        directory.change(|directory| directory.upload = None)
    }

    fn forget(&mut self) {
        self.ledger.clear();
        self.hashing = None;
    }

    fn slot(&self, slot: u8) -> &Region<M> {
        let [a, b] = &self.slots;
        if slot == 0 { a } else { b }
    }
}

fn check_begin(arg: &UploadBeginArg) -> Result<(), Error> {
    let refuse = |field: &str, reason: String| Err(Error::InvalidArgument { field: field.into(), reason });
    if arg.name.len() > MAX_NAME_BYTES {
        return refuse("name", format!("{} bytes are more than {MAX_NAME_BYTES}", arg.name.len()));
    }
    if arg.sha256.len() != 32 {
        return refuse("sha256", format!("{} bytes are not the 32 of a SHA-256", arg.sha256.len()));
    }
    if arg.total_bytes == 0 {
        return refuse("total_bytes", "an empty file is not a model".into());
    }
    check_limit("model_bytes", MAX_MODEL_BYTES, arg.total_bytes)
}

/// The end of the chunk in the file.
fn check_chunk(chunk: &UploadChunk<'_>, total_bytes: u64) -> Result<u64, Error> {
    let len = chunk.bytes.len() as u64;
    check_limit("max_chunk_bytes", MAX_CHUNK_BYTES, len)?;
    let end = chunk.offset.checked_add(len).filter(|end| *end <= total_bytes);
    end.ok_or_else(|| Error::InvalidArgument {
        field: "offset".into(),
        reason: format!("{len} bytes at {} leave the file of {total_bytes} bytes", chunk.offset),
    })
}

/// Refuses `needed` above `max`.
///
/// # Errors
/// [`Error::LimitExceeded`].
pub fn check_limit(limit: &str, max: u64, needed: u64) -> Result<(), Error> {
    if needed <= max { Ok(()) } else { Err(Error::LimitExceeded { limit: limit.into(), max, needed }) }
}

fn set_state(directory: &mut Directory, committed: bool, mismatch: bool) {
    if let Some(upload) = &mut directory.upload {
        (upload.committed, upload.mismatch) = (committed, mismatch);
    }
}

fn in_progress(upload: &Upload) -> Error {
    let StoredModel { name, bytes: total_bytes, sha256 } = upload.placed.file.clone();
    Error::UploadInProgress { upload_id: upload.upload_id, name, total_bytes, sha256 }
}
