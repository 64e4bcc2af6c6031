//! A replica in a folder: keys, canisters, modules and memories, so that the next run goes on where this one ended.
//!
//! ```text
//! lock            held while a replica uses the folder
//! keys.json       secrets of subnet and node, readable for the owner only
//! replica.json    what is there: the clock, and each canister with the names of its files
//! blobs/HASH      modules and stored chunks, by their SHA-256
//! memory/NAME     pages of a heap or stable memory: number (8 bytes, little-endian), 64 KiB
//! ```
//!
//! `replica.json` is replaced last and at once, and names only files that are whole: an interrupted save leaves the one
//! before it. A memory is a first file with all its pages that are not zero, and files with those that changed later; when
//! these outgrow the first, all pages are written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use candid::Principal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::encoding::hex;
use super::keys::SubnetKeys;
use super::requests::Ended;
use crate::shim::replica::{CanisterSnapshot, Memories, Memory, Progress, RestoreError, Visit};
use crate::shim::{Canister, Replica};

mod secrets;

/// The form of the folder.
const FORMAT: u32 = 1;
const PAGE_BYTES: usize = 65_536;
const BUFFER_BYTES: usize = 1 << 20;
/// Most files of one memory: each is opened at the next start.
const MEMORY_FILES: usize = 64;
/// How long a process that was killed may take to give its memory, and then its lock, back.
const LOCK_TIME: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why a replica cannot be kept or restored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused an operation.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Another replica uses the folder.
    #[error("another replica uses {}; stop it, or take another folder", .0.display())]
    Locked(PathBuf),
    /// A file does not hold what it should.
    #[error("{} is damaged: {reason}; restore it, or begin with an empty folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file was written by another version of this program.
    #[error("{} has format {found}, this program reads format {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A canister cannot be restored.
    #[error("cannot restore canister {canister}: {reason}")]
    Canister {
        /// Which one.
        canister: Principal,
        /// Why not.
        reason: RestoreError,
    },
    /// Calls are open, which cannot be kept.
    #[error("canisters are still waiting for answers; the folder keeps what was saved before")]
    Busy,
}

/// What is kept of the replica.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// Counts saves; part of the names of memory files.
    serial: u64,
    progress: Progress,
    canisters: Vec<Kept>,
    /// Folders of earlier versions have none.
    #[serde(default)]
    ended: Vec<Ended>,
}

/// What is kept of a canister.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    snapshot: CanisterSnapshot,
    /// Blob of the module.
    module: Option<String>,
    /// Blobs of the stored chunks.
    chunks: Vec<String>,
    heap: Vec<Pages>,
    stable: Vec<Pages>,
}

impl Kept {
    fn pages(&self, memory: Memory) -> &[Pages] {
        match memory {
            Memory::Heap => &self.heap,
            Memory::Stable => &self.stable,
        }
    }
}

/// A memory file; later ones replace pages of earlier ones.
#[derive(Clone, Serialize, Deserialize)]
struct Pages {
    file: String,
    pages: u64,
}

/// Whether changes make up less than the first file, and are not too many.
fn is_worth_extending(files: &[Pages]) -> bool {
    let [first, changes @ ..] = files else { return false };
    files.len() < MEMORY_FILES && changes.iter().map(|file| file.pages).sum::<u64>() <= first.pages
}

/// A folder that a replica is kept in, locked for others.
pub struct Store {
    folder: PathBuf,
    serial: u64,
    /// What the folder holds.
    kept: BTreeMap<Principal, Kept>,
    /// The calls that have ended and have not expired, as of the last save, or of the next.
    pub(super) ended: Vec<Ended>,
    /// Held until the end.
    _lock: File,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |reason| StoreError::Io { action, path, reason }
}

fn damaged(path: &Path, reason: impl ToString) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

impl Store {
    /// Opens or makes a folder; answers the keys that are kept there, new ones if there were none.
    ///
    /// # Errors
    /// If another replica uses it, or it cannot be read or written.
    pub fn open(folder: &Path) -> Result<(Self, SubnetKeys), StoreError> {
        for part in [folder.to_owned(), folder.join("blobs"), folder.join("memory")] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&part).map_err(io_error("make", &part))?;
        }
        let lock = lock(folder)?;
        let keys = secrets::keys(&folder.join("keys.json"))?;
        Ok((Self { folder: folder.to_owned(), serial: 0, kept: BTreeMap::new(), ended: Vec::new(), _lock: lock }, keys))
    }

    /// Puts what is kept into an empty replica; answers the number of canisters.
    ///
    /// # Errors
    /// If a file is damaged, or a module is refused.
    pub fn restore(&mut self, replica: &mut Replica) -> Result<usize, StoreError> {
        let path = self.folder.join("replica.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        check_format(&path, &text)?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(&path, error))?;
        self.serial = manifest.serial;
        self.ended = manifest.ended;
        for kept in manifest.canisters {
            self.restore_canister(replica, &kept)?;
            self.kept.insert(kept.snapshot.id, kept);
        }
        replica.restore_progress(manifest.progress);
        replica.mark_saved();
        Ok(self.kept.len())
    }

    fn restore_canister(&self, replica: &mut Replica, kept: &Kept) -> Result<(), StoreError> {
        let module = kept.module.as_deref().map(|name| self.read_blob(name)).transpose()?;
        let chunks = kept.chunks.iter().map(|name| self.read_blob(name)).collect::<Result<_, _>>()?;
        let memories = Memories {
            module: module.as_deref(),
            chunks,
            heap: &mut self.read_pages(&kept.heap)?,
            stable: &mut self.read_pages(&kept.stable)?,
        };
        let canister = kept.snapshot.id;
        let restored = replica.restore_canister(kept.snapshot.clone(), memories);
        restored.map_err(|reason| StoreError::Canister { canister, reason })
    }

    /// Keeps a replica, which must be idle.
    ///
    /// # Errors
    /// If the folder cannot be written; it holds what it held before then.
    pub fn save(&mut self, replica: &mut Replica) -> Result<(), StoreError> {
        let saved = self.write(replica);
        // Of a save that failed, what was written serves nobody: it is removed like what the save before had.
        self.remove_unused();
        saved
    }

    fn write(&mut self, replica: &mut Replica) -> Result<(), StoreError> {
        self.serial += 1;
        let ids: Vec<_> = replica.canisters().map(Canister::id).collect();
        let mut kept = BTreeMap::new();
        for id in ids {
            if let Some(canister) = self.save_canister(replica, id)? {
                kept.insert(id, canister);
            }
        }
        let progress = replica.progress();
        let (canisters, ended) = (kept.values().cloned().collect(), self.ended.clone());
        let manifest = Manifest { format: FORMAT, serial: self.serial, progress, canisters, ended };
        let path = self.folder.join("replica.json");
        let text = serde_json::to_vec(&manifest).map_err(|error| damaged(&path, error))?;
        replace(&path, &text)?;
        replica.mark_saved();
        self.kept = kept;
        Ok(())
    }

    fn save_canister(&self, replica: &mut Replica, id: Principal) -> Result<Option<Kept>, StoreError> {
        let Some(canister) = replica.canister(id) else { return Ok(None) };
        let snapshot = canister.snapshot();
        let module = canister.code().map(|code| self.write_blob(code.uploaded())).transpose()?;
        let chunks = canister.chunks().map(|chunk| self.write_blob(chunk)).collect::<Result<_, _>>()?;
        let before = self.kept.get(&id);
        let unchanged = before.filter(|kept| kept.snapshot == snapshot && kept.module == module);
        let [heap, stable] = match unchanged {
            Some(kept) => [kept.heap.clone(), kept.stable.clone()],
            None => {
                let heap = self.save_memory(replica, id, Memory::Heap, before)?;
                [heap, self.save_memory(replica, id, Memory::Stable, before)?]
            }
        };
        Ok(Some(Kept { snapshot, module, chunks, heap, stable }))
    }

    /// Writes what changed of a memory, or all of it.
    fn save_memory(
        &self,
        replica: &mut Replica,
        id: Principal,
        memory: Memory,
        before: Option<&Kept>,
    ) -> Result<Vec<Pages>, StoreError> {
        let was_saved = replica.canister(id).is_some_and(|canister| canister.was_saved(memory));
        let before = before.map_or(&[][..], |kept| kept.pages(memory));
        let extend = was_saved && is_worth_extending(before);
        let kind = if memory == Memory::Heap { "heap" } else { "stable" };
        let name = format!("{id}-{}.{kind}", self.serial);
        let written = self.write_pages(name, |visit| replica.visit_pages(id, memory, !extend, visit))?;
        let kept = if extend { before } else { &[] };
        Ok(kept.iter().cloned().chain([written]).collect())
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.folder.join("blobs").join(name)
    }

    fn memory(&self, name: &str) -> PathBuf {
        self.folder.join("memory").join(name)
    }

    /// Writes a blob unless it is there; answers its name.
    fn write_blob(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let name = hex(&Sha256::digest(bytes));
        let path = self.blob(&name);
        if !path.exists() {
            replace(&path, bytes)?;
        }
        Ok(name)
    }

    fn read_blob(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.blob(name);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        if hex(&Sha256::digest(&bytes)) != name {
            return Err(damaged(&path, "its content does not have the hash that is its name"));
        }
        Ok(bytes)
    }

    fn write_pages(&self, file: String, source: impl FnOnce(Visit<'_>) -> io::Result<()>) -> Result<Pages, StoreError> {
        let path = self.memory(&file);
        let write = || {
            let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&path)?);
            let mut pages = 0;
            source(&mut |page, bytes| {
                file.write_all(&page.to_le_bytes())?;
                file.write_all(bytes)?;
                pages += 1;
                Ok(())
            })?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            Ok(pages)
        };
        let pages = write().map_err(io_error("write", &path))?;
        Ok(Pages { file, pages })
    }

    /// The pages of all files of a memory, in order.
    fn read_pages(
        &self,
        files: &[Pages],
    ) -> Result<impl Iterator<Item = io::Result<(u64, Vec<u8>)>> + use<>, StoreError> {
        let mut parts = Vec::new();
        for Pages { file, pages } in files {
            let path = self.memory(file);
            let file = File::open(&path).map_err(io_error("read", &path))?;
            let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
            parts.push((0..*pages).map(move |_| {
                let mut number = [0; 8];
                file.read_exact(&mut number)?;
                let mut bytes = vec![0; PAGE_BYTES];
                file.read_exact(&mut bytes)?;
                Ok((u64::from_le_bytes(number), bytes))
            }));
        }
        Ok(parts.into_iter().flatten())
    }

    /// Removes files that nothing names any more. What cannot be removed does no harm.
    fn remove_unused(&self) {
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for kept in self.kept.values() {
            used.extend(kept.module.iter().chain(&kept.chunks).map(String::as_str));
            used.extend(kept.heap.iter().chain(&kept.stable).map(|pages| pages.file.as_str()));
        }
        for part in ["blobs", "memory"] {
            let entries = fs::read_dir(self.folder.join(part)).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| !entry.file_name().to_str().is_some_and(|name| used.contains(name))) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}

/// Takes the folder for this process.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io_error("open", &path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_TIME => sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(folder.to_owned())),
            Err(TryLockError::Error(reason)) => return Err(io_error("lock", &path)(reason)),
        }
    }
}

/// Refuses a manifest of another format before its other parts are looked at.
fn check_format(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let Head { format } = serde_json::from_slice(text).map_err(|error| damaged(path, error))?;
    if format == FORMAT { Ok(()) } else { Err(StoreError::Format { path: path.to_owned(), found: format }) }
}

/// Writes a file, for its owner only, that appears whole in place of the one before.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let part = path.with_extension("part");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|reason| {
        fs::remove_file(&part).ok();
        io_error("write", path)(reason)
    })
}

#[cfg(test)]
mod tests;
