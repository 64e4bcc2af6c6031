//! Which pages of one linear memory an execution touched, and how to undo what it wrote.
//!
//! Pages are 64 KiB. Between executions all are closed; the first access opens a page for reading, the first write
//! saves the page's old bytes and opens it for writing. Methods called from the fault path ([`Tracker::touch`]) use
//! only memory that was reserved beforehand, so they may run in a signal handler.
//!
//! Time line: `begin`, accesses, then `finish` (keep) or `undo_run`; any number of those; then `commit` or
//! `rollback`, which concern everything since the last commit.

use std::io;
use std::ops::Range;

use super::map::{Mapping, Protection};
use super::{PAGE, PageCounts};

const ACCESSED: u8 = 1;
const WRITTEN: u8 = 2;
/// The page may hold other bytes than zeros.
const FILLED: u8 = 4;
/// An entry of an earlier run restores the page as it was at the last commit.
const SAVED: u8 = 8;
const OPEN: u8 = 16;
const WRITABLE: u8 = 32;
/// The page was committed since it was kept elsewhere.
const UNSAVED: u8 = 64;

/// Slot number of a page that held only zeros and needs no copy.
const ZEROS: u32 = u32::MAX;

/// Saved pages whose memory is kept after a commit for the next execution, the rest goes back to the system: 64 MiB.
const WARM_SLOTS: u32 = 1024;

/// More runs of open pages than this are closed with one call over the whole memory.
const SINGLE_CLOSES: usize = 64;

struct Saved {
    page: u32,
    slot: u32,
}

pub(super) struct Tracker {
    memory: Mapping,
    /// Room for old pages: two per page of memory, see `fold`.
    arena: Mapping,
    max_pages: usize,
    /// Current size in pages.
    pages: usize,
    committed_pages: usize,
    run_pages: usize,
    flags: Vec<u8>,
    /// Pages with the ACCESSED flag, in order of first access until `close_all` sorts them.
    touched: Vec<u32>,
    counts: PageCounts,
    log: Vec<Saved>,
    /// Entries of `log` that are older than the current run.
    run_mark: usize,
    free_slots: Vec<u32>,
    next_slot: u32,
    failed: bool,
}

fn bytes(pages: Range<usize>) -> Range<usize> {
    pages.start * PAGE..pages.end * PAGE
}

impl Tracker {
    /// Tracks `memory`, of which the first `max_pages` pages may come into use.
    pub(super) fn new(memory: Mapping, max_pages: usize, pages: usize) -> io::Result<Self> {
        let slots = max_pages * 2;
        let arena = Mapping::reserve((slots * PAGE).max(PAGE), Protection::ReadWrite)?;
        arena.prefer_large_pages();
        Ok(Self {
            memory,
            arena,
            max_pages,
            pages,
            committed_pages: pages,
            run_pages: pages,
            flags: vec![0; max_pages],
            touched: Vec::with_capacity(max_pages),
            counts: PageCounts::default(),
            log: Vec::with_capacity(slots),
            run_mark: 0,
            free_slots: Vec::with_capacity(slots),
            next_slot: 0,
            failed: false,
        })
    }

    pub(super) fn memory(&self) -> &Mapping {
        &self.memory
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Pages that may hold other bytes than zeros.
    pub(super) fn filled_pages(&self) -> Vec<u32> {
        self.pages_with(FILLED)
    }

    /// Pages that were committed since [`Tracker::mark_saved`].
    pub(super) fn unsaved_pages(&self) -> Vec<u32> {
        self.pages_with(UNSAVED)
    }

    fn pages_with(&self, flag: u8) -> Vec<u32> {
        (0..self.pages as u32).filter(|&page| self.flags[page as usize] & flag != 0).collect()
    }

    /// Notes that all that is committed was kept elsewhere.
    pub(super) fn mark_saved(&mut self) {
        self.flags.iter_mut().for_each(|flags| *flags &= !UNSAVED);
    }

    pub(super) fn counts(&self) -> PageCounts {
        self.counts
    }

    /// True after a fault that could not be served; the execution's result is then worthless.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Makes the memory `pages` long; false if that is beyond its maximum or shorter than now.
    pub(super) fn grow_to(&mut self, pages: usize) -> bool {
        let fits = (self.pages..=self.max_pages).contains(&pages);
        if fits {
            self.pages = pages;
        }
        fits
    }

    /// Starts an execution: nothing is accessed yet.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.counts = PageCounts::default();
        self.failed = false;
        self.settle()
    }

    /// Closes all pages and forgets who accessed them, so that the next access faults and is counted and saved.
    fn settle(&mut self) -> io::Result<()> {
        self.close_all()?;
        for &page in &self.touched {
            self.flags[page as usize] &= !(ACCESSED | WRITTEN);
        }
        self.touched.clear();
        self.fold();
        self.run_pages = self.pages;
        Ok(())
    }

    /// Merges the last run's saved pages into those of earlier runs since the commit.
    ///
    /// Afterwards each page is saved at most once, so that the next run, which saves each page at most once too,
    /// always finds a slot.
    fn fold(&mut self) {
        let mut kept = self.run_mark;
        for index in self.run_mark..self.log.len() {
            let Saved { page, slot } = self.log[index];
            let flags = &mut self.flags[page as usize];
            if *flags & SAVED == 0 {
                *flags |= SAVED;
                self.log.swap(kept, index);
                kept += 1;
            } else if slot != ZEROS {
                self.free_slots.push(slot);
            }
        }
        self.log.truncate(kept);
        self.run_mark = kept;
    }

    /// Ends an execution and keeps what it wrote.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.settle()
    }

    /// Ends an execution and takes back what it wrote and grew.
    pub(super) fn undo_run(&mut self) -> io::Result<()> {
        self.restore_from(self.run_mark)?;
        self.shrink_to(self.run_pages)?;
        self.settle()
    }

    /// Makes everything since the last commit permanent.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        self.settle()?;
        self.committed_pages = self.pages;
        for saved in &self.log {
            self.flags[saved.page as usize] |= UNSAVED;
        }
        self.forget_log()
    }

    /// Takes back everything since the last commit.
    pub(super) fn rollback(&mut self) -> io::Result<()> {
        self.restore_from(0)?;
        self.shrink_to(self.committed_pages)?;
        self.settle()?;
        self.forget_log()
    }

    fn forget_log(&mut self) -> io::Result<()> {
        for saved in &self.log {
            self.flags[saved.page as usize] &= !SAVED;
        }
        self.log.clear();
        self.run_mark = 0;
        self.free_slots.clear();
        let used = std::mem::take(&mut self.next_slot);
        self.arena.discard(bytes(WARM_SLOTS.min(used) as usize..used as usize), Protection::ReadWrite)
    }

    /// Restores saved pages, newest first, down to entry `mark`.
    fn restore_from(&mut self, mark: usize) -> io::Result<()> {
        while self.log.len() > mark {
            let Some(Saved { page, slot }) = self.log.pop() else { break };
            let page = page as usize;
            if slot == ZEROS {
                self.memory.discard(bytes(page..page + 1), Protection::Closed)?;
                self.flags[page] &= !(FILLED | SAVED | OPEN | WRITABLE);
                continue;
            }
            self.mark_accessed(page);
            self.open(page..page + 1, Protection::ReadWrite)?;
            // SAFETY: the page was just opened for writing, the slot lies inside the arena, and the two mappings are
            // distinct.
            unsafe { std::ptr::copy_nonoverlapping(self.slot(slot), self.memory.at(page * PAGE), PAGE) };
            self.flags[page] &= !SAVED;
            self.free_slots.push(slot);
        }
        self.run_mark = self.run_mark.min(mark);
        Ok(())
    }

    fn shrink_to(&mut self, pages: usize) -> io::Result<()> {
        let gone = pages..self.pages;
        if gone.is_empty() {
            return Ok(());
        }
        self.memory.discard(bytes(gone.clone()), Protection::Closed)?;
        self.flags[gone].fill(0);
        self.touched.retain(|&page| (page as usize) < pages);
        self.pages = pages;
        Ok(())
    }

    /// Opens `pages` for reading or writing, counting first accesses and saving what a first write will change.
    ///
    /// Async-signal-safe. If the system has no more mappings to give, everything is closed and opened again on
    /// demand, so pages opened early in a long range may be closed again: see [`Tracker::is_open`].
    pub(super) fn touch(&mut self, pages: Range<usize>, write: bool) -> io::Result<()> {
        let result = self.try_touch(pages, write);
        self.failed |= result.is_err();
        result
    }

    fn try_touch(&mut self, pages: Range<usize>, write: bool) -> io::Result<()> {
        let mut start = pages.start;
        while start < pages.end {
            let wanted = self.wanted(start, write);
            let end = (start + 1..pages.end).find(|&page| self.wanted(page, write) != wanted).unwrap_or(pages.end);
            if let Some(protection) = wanted {
                self.open(start..end, protection)?;
            }
            for page in start..end {
                self.count(page, write)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Whether an access to all of `pages` would not fault.
    pub(super) fn is_open(&self, pages: Range<usize>, write: bool) -> bool {
        pages.into_iter().all(|page| self.wanted(page, write).is_none())
    }

    /// For a fault on `page` of which the kind is unknown: a page open for reading can fault only on a write.
    pub(super) fn faults_on_write(&self, page: usize) -> bool {
        self.flags[page] & OPEN != 0
    }

    /// Protection that `page` needs and does not have.
    fn wanted(&self, page: usize, write: bool) -> Option<Protection> {
        let flags = self.flags[page];
        let writable = write || flags & WRITTEN != 0;
        match (writable, flags & OPEN != 0, flags & WRITABLE != 0) {
            (true, _, true) | (false, true, _) => None,
            (true, ..) => Some(Protection::ReadWrite),
            (false, ..) => Some(Protection::Read),
        }
    }

    fn open(&mut self, pages: Range<usize>, protection: Protection) -> io::Result<()> {
        let range = bytes(pages.clone());
        if self.memory.protect(range.clone(), protection).is_err() {
            // Each change of protection inside the memory costs a mapping, and a process has some 65,000: give all
            // back and go on.
            self.close_whole()?;
            self.memory.protect(range, protection)?;
        }
        let opened = if protection == Protection::ReadWrite { OPEN | WRITABLE } else { OPEN };
        self.flags[pages].iter_mut().for_each(|flags| *flags |= opened);
        Ok(())
    }

    fn mark_accessed(&mut self, page: usize) -> bool {
        let first = self.flags[page] & ACCESSED == 0;
        if first {
            self.flags[page] |= ACCESSED;
            self.touched.push(page as u32);
        }
        first
    }

    fn count(&mut self, page: usize, write: bool) -> io::Result<()> {
        if self.mark_accessed(page) {
            self.counts.accessed += 1;
        }
        if write && self.flags[page] & WRITTEN == 0 {
            self.save(page)?;
            self.flags[page] |= WRITTEN | FILLED;
            self.counts.written += 1;
        }
        Ok(())
    }

    /// Keeps the bytes of an open page for undo.
    fn save(&mut self, page: usize) -> io::Result<()> {
        if self.log.len() == self.log.capacity() {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        let slot = if self.flags[page] & FILLED == 0 { ZEROS } else { self.take_slot()? };
        if slot != ZEROS {
            // SAFETY: the caller opened the page, the slot lies inside the arena, and the two mappings are distinct.
            unsafe { std::ptr::copy_nonoverlapping(self.memory.at(page * PAGE), self.slot(slot), PAGE) };
        }
        self.log.push(Saved { page: page as u32, slot });
        Ok(())
    }

    fn take_slot(&mut self) -> io::Result<u32> {
        if let Some(slot) = self.free_slots.pop() {
            return Ok(slot);
        }
        if (self.next_slot as usize + 1) * PAGE > self.arena.len() {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        self.next_slot += 1;
        Ok(self.next_slot - 1)
    }

    fn slot(&self, slot: u32) -> *mut u8 {
        self.arena.at(slot as usize * PAGE)
    }

    /// Closes all pages, run by run.
    fn close_all(&mut self) -> io::Result<()> {
        self.touched.sort_unstable();
        let open = |page: &&u32| self.flags[**page as usize] & OPEN != 0;
        let mut runs: Vec<Range<usize>> = Vec::new();
        for &page in self.touched.iter().filter(open) {
            let page = page as usize;
            match runs.last_mut() {
                Some(run) if run.end == page => run.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        if runs.len() > SINGLE_CLOSES {
            return self.close_whole();
        }
        for run in runs {
            self.memory.protect(bytes(run.clone()), Protection::Closed)?;
            self.flags[run].iter_mut().for_each(|flags| *flags &= !(OPEN | WRITABLE));
        }
        Ok(())
    }

    /// Closes all pages with one call. Async-signal-safe.
    pub(super) fn close_whole(&mut self) -> io::Result<()> {
        self.memory.protect(0..self.memory.len(), Protection::Closed)?;
        for &page in &self.touched {
            self.flags[page as usize] &= !(OPEN | WRITABLE);
        }
        Ok(())
    }
}
