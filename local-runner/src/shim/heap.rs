//! A canister's linear memory, which outlives the WebAssembly instances that run on it.
//!
//! Every execution gets a fresh instance over the same bytes. Accesses are tracked per 64 KiB page by page protection:
//! the first read and the first write of a page fault once, the fault handler notes them, and old bytes are saved so
//! that the execution can be undone, growth included. Nothing here knows what pages cost.

use std::cell::UnsafeCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;

mod map;
#[cfg(test)]
mod tests;
mod tracker;

use map::{Mapping, Protection};
use tracker::Tracker;

/// Bytes of a WebAssembly page.
pub(super) const PAGE: usize = 65_536;

/// Most pages a 32-bit memory can have: 4 GiB.
pub const MAX_PAGES: u32 = 65_536;

/// Address space behind the memory that always faults; covers small constant offsets of loads and stores.
pub(super) const GUARD_BYTES: usize = 32 << 20;

/// Address space that compiled code may reach without a bounds check, guard excluded.
pub(super) const RESERVED_BYTES: usize = MAX_PAGES as usize * PAGE;

/// 64 KiB pages that one execution touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Pages read or written.
    pub accessed: u64,
    /// Pages written.
    pub written: u64,
}

/// A range of addresses that does not lie inside the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("heap range src={offset} + length={len} exceeds the heap size={size}")]
pub struct HeapRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
    /// Size of the memory in bytes.
    pub size: u64,
}

/// Failures of the operating system while managing a memory.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// Address space could not be reserved.
    #[error("cannot reserve {bytes} bytes of address space for a canister's heap; raise `ulimit -v`: {source}")]
    Reserve {
        /// Bytes asked for.
        bytes: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// The protection of pages could not be changed or memory could not be given back.
    #[error("cannot manage the pages of a canister's heap; raise `vm.max_map_count`: {0}")]
    Pages(#[from] io::Error),
    /// The memory would start larger than it may ever be.
    #[error("a heap of {pages} pages exceeds its maximum of {max_pages}; correct the module's memory section")]
    TooLarge {
        /// Initial size in 64 KiB pages.
        pages: u32,
        /// Maximum in 64 KiB pages.
        max_pages: u32,
    },
}

/// Memory and bookkeeping shared by the owner, the instance that runs and the fault handler.
///
/// Exactly one of them acts at a time, on one thread: [`Heap`]'s owner cannot be used while an execution borrows it,
/// and the fault handler runs inside an access of the executing thread, when no method of the tracker is active
/// (tracker methods open a page before they touch its bytes).
pub(super) struct Region {
    tracker: UnsafeCell<Tracker>,
}

// SAFETY: see the type's description: uses never overlap, so moving between threads is all that happens.
unsafe impl Send for Region {}
// SAFETY: as above; the engine hands out references to one executing thread only.
unsafe impl Sync for Region {}

impl Region {
    /// Runs `f` on the bookkeeping.
    fn with<R>(&self, f: impl FnOnce(&mut Tracker) -> R) -> R {
        // SAFETY: uses never overlap (type description), and `f` cannot reach this region again: tracker methods call
        // nothing outside their module.
        f(unsafe { &mut *self.tracker.get() })
    }

    /// First byte of the memory; stays valid as long as the region.
    pub(super) fn base(&self) -> *mut u8 {
        self.with(|tracker| tracker.memory().base())
    }

    /// Size in bytes.
    pub(super) fn size(&self) -> usize {
        self.with(|tracker| tracker.pages() * PAGE)
    }

    /// Grows to `size` bytes; false if that is more than the maximum.
    pub(super) fn grow_to(&self, size: usize) -> bool {
        size.is_multiple_of(PAGE) && self.with(|tracker| tracker.grow_to(size / PAGE))
    }

    /// Pages touched since the execution began.
    pub(super) fn counts(&self) -> PageCounts {
        self.with(|tracker| tracker.counts())
    }

    /// True if a page fault could not be served.
    pub(super) fn failed(&self) -> bool {
        self.with(|tracker| tracker.failed())
    }

    /// Serves a fault at `address`; false if the address is not inside the memory. Async-signal-safe.
    ///
    /// `write` says whether the access was a write, if the platform tells.
    pub(super) fn handle_fault(&self, address: usize, write: Option<bool>) -> bool {
        self.with(|tracker| {
            let Some(offset) = address.checked_sub(tracker.memory().base() as usize) else { return false };
            let page = offset / PAGE;
            if page >= tracker.pages() {
                return false;
            }
            let write = write.unwrap_or_else(|| tracker.faults_on_write(page));
            // A fault on a page that is open already is not ours to serve: retrying would never end.
            !tracker.is_open(page..page + 1, write) && tracker.touch(page..page + 1, write).is_ok()
        })
    }

    /// Checks that `len` bytes at `offset` lie inside the memory.
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<Range<usize>, HeapRange> {
        let size = self.size() as u64;
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(offset as usize..end as usize),
            _ => Err(HeapRange { offset, len, size }),
        }
    }

    /// Runs `f` on `len` bytes at `offset`, opened for reading.
    pub(super) fn with_bytes<R>(&self, offset: u64, len: u64, f: impl FnOnce(&[u8]) -> R) -> Result<R, HeapRange> {
        let range = self.check(offset, len)?;
        self.open(&range, false).ok_or(HeapRange { offset, len, size: self.size() as u64 })?;
        // SAFETY: the range lies inside the memory and its pages are open for reading; no code that writes to the
        // memory runs during `f`, which has no way to reach this region.
        Ok(f(unsafe { std::slice::from_raw_parts(self.base().add(range.start), range.len()) }))
    }

    /// Runs `f` on `len` bytes at `offset`, opened for writing.
    pub(super) fn with_bytes_mut<R>(
        &self,
        offset: u64,
        len: u64,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, HeapRange> {
        let range = self.check(offset, len)?;
        self.open(&range, true).ok_or(HeapRange { offset, len, size: self.size() as u64 })?;
        // SAFETY: the range lies inside the memory and its pages are open for writing; nothing else reaches the
        // memory during `f`, which has no way to reach this region.
        Ok(f(unsafe { std::slice::from_raw_parts_mut(self.base().add(range.start), range.len()) }))
    }

    /// Opens the pages of a byte range; `None` if the system refuses, which the tracker remembers as its failure.
    fn open(&self, range: &Range<usize>, write: bool) -> Option<()> {
        if range.is_empty() {
            return Some(());
        }
        let pages = range.start / PAGE..(range.end - 1) / PAGE + 1;
        self.with(|tracker| {
            tracker.touch(pages.clone(), write).ok()?;
            if !tracker.is_open(pages.clone(), write) {
                // The first pass ran out of mappings and closed what it had opened; now there are enough.
                tracker.touch(pages.clone(), write).ok()?;
            }
            tracker.is_open(pages, write).then_some(())
        })
    }
}

/// Owner of a canister's linear memory.
pub struct Heap {
    region: Arc<Region>,
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Heap {
    /// A zeroed memory of `pages` pages that may grow to `max_pages`.
    ///
    /// # Errors
    /// If `pages` exceeds the maximum, or the address space (4 GiB for the memory and twice the maximum for undo)
    /// cannot be reserved.
    pub fn new(pages: u32, max_pages: u32) -> Result<Self, HeapError> {
        let max_pages = max_pages.min(MAX_PAGES);
        if pages > max_pages {
            return Err(HeapError::TooLarge { pages, max_pages });
        }
        let bytes = RESERVED_BYTES + GUARD_BYTES;
        let reserve = |source| HeapError::Reserve { bytes, source };
        let memory = Mapping::reserve(bytes, Protection::Closed).map_err(reserve)?;
        let tracker = Tracker::new(memory, max_pages as usize, pages as usize).map_err(reserve)?;
        Ok(Self { region: Arc::new(Region { tracker: UnsafeCell::new(tracker) }) })
    }

    /// Another handle for the engine; the caller keeps the rule of [`Region`].
    pub(super) fn region(&self) -> Arc<Region> {
        Arc::clone(&self.region)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.region.size() as u64
    }

    /// Copies `out.len()` bytes at `offset` out of the memory.
    ///
    /// # Errors
    /// If the range leaves the memory.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), HeapRange> {
        self.region.with_bytes(offset, out.len() as u64, |bytes| out.copy_from_slice(bytes))
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// If the range leaves the memory.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), HeapRange> {
        self.region.with_bytes_mut(offset, bytes.len() as u64, |out| out.copy_from_slice(bytes))
    }

    /// The numbers of the pages that may hold other bytes than zeros.
    pub(super) fn filled_pages(&self) -> Vec<u32> {
        self.region.with(|tracker| tracker.filled_pages())
    }

    /// The numbers of the pages that were committed since [`Heap::mark_saved`].
    pub(super) fn unsaved_pages(&self) -> Vec<u32> {
        self.region.with(|tracker| tracker.unsaved_pages())
    }

    /// Notes that all that is committed was kept elsewhere.
    pub(super) fn mark_saved(&mut self) {
        self.region.with(Tracker::mark_saved);
    }

    /// Starts an execution: page counts are zero.
    pub(super) fn begin(&mut self) -> Result<(), HeapError> {
        Ok(self.region.with(Tracker::begin)?)
    }

    /// Ends an execution, keeping or undoing what it wrote and grew.
    pub(super) fn end(&mut self, keep: bool) -> Result<(), HeapError> {
        Ok(self.region.with(|tracker| if keep { tracker.finish() } else { tracker.undo_run() })?)
    }

    /// Makes everything since the last commit permanent. Costs nothing per page.
    pub(super) fn commit(&mut self) -> Result<(), HeapError> {
        Ok(self.region.with(Tracker::commit)?)
    }

    /// Takes back everything since the last commit, growth included.
    pub(super) fn rollback(&mut self) -> Result<(), HeapError> {
        Ok(self.region.with(Tracker::rollback)?)
    }
}
