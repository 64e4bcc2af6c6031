//! What has to be kept of a replica so that another one can go on with its canisters.
//!
//! A snapshot knows no calls: take it when the replica [is idle](Replica::is_idle). Memories are not part of it, since
//! they are large: they are read and written page by page, and only what changed has to be read again.

use std::io;

use candid::Principal;
use serde::{Deserialize, Serialize};

use super::super::canister::{Canister, Code, Settings, Status};
use super::super::costs::WASM_PAGE_BYTES;
use super::super::engine::{GlobalValue, LoadError, WasmState};
use super::super::history::History;
use super::super::log::CanisterLog;
use super::Replica;

/// Everything about a canister but its module, its memories and the chunks it stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanisterSnapshot {
    /// Its id.
    pub id: Principal,
    /// What its controllers decided.
    pub settings: Settings,
    /// It does not accept calls.
    pub stopped: bool,
    /// Its version.
    pub version: u64,
    /// Its cycles.
    pub balance: u128,
    /// What it wants certified.
    pub certified_data: Vec<u8>,
    /// When its timer is due; 0 if none.
    pub timer_ns: u64,
    /// Its log.
    pub log: CanisterLog,
    /// What was changed about it.
    pub history: History,
    /// The low-memory hook ran, and there is no more memory since.
    pub low_memory_reported: bool,
    /// Size of its heap in bytes.
    pub heap_bytes: u64,
    /// Size of its stable memory in bytes.
    pub stable_bytes: u64,
    /// Mutable globals of its module.
    pub globals: Option<Vec<GlobalValue>>,
}

/// What belongs to no canister.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Time in nanoseconds since 1970.
    pub time_ns: u64,
    /// Number of the next canister.
    pub next_canister: u64,
    /// How often randomness was asked for.
    pub random_blocks: u64,
}

/// One of the two memories of a canister.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The heap of its module.
    Heap,
    /// Stable memory.
    Stable,
}

/// Takes the number and the bytes of a page.
pub type Visit<'a> = &'a mut dyn FnMut(u64, &[u8]) -> io::Result<()>;

/// Module, chunks and memories of a canister that is restored.
pub struct Memories<'a> {
    /// The module as uploaded, if one is installed.
    pub module: Option<&'a [u8]>,
    /// Chunks waiting for an install.
    pub chunks: Vec<Vec<u8>>,
    /// Pages of the heap that are not zero: number and 64 KiB.
    pub heap: &'a mut dyn Iterator<Item = io::Result<(u64, Vec<u8>)>>,
    /// Pages of stable memory that are not zero: number and 64 KiB.
    pub stable: &'a mut dyn Iterator<Item = io::Result<(u64, Vec<u8>)>>,
}

/// Why a canister cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The engine refuses the module or its state.
    #[error("its module cannot be loaded: {0}")]
    Load(#[from] LoadError),
    /// Its memories cannot be read.
    #[error("its memory cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A page lies outside its memory.
    #[error("page {page} is outside of a memory of {bytes} bytes")]
    Page {
        /// Number of the page.
        page: u64,
        /// Size of the memory.
        bytes: u64,
    },
    /// The system does not give a heap.
    #[error(transparent)]
    Heap(#[from] super::super::heap::HeapError),
}

impl Replica {
    /// What belongs to no canister.
    pub fn progress(&self) -> Progress {
        Progress { time_ns: self.world.time_ns, next_canister: self.next_canister, random_blocks: self.random_blocks }
    }

    /// Goes on from there.
    pub fn restore_progress(&mut self, progress: Progress) {
        self.world.time_ns = progress.time_ns;
        self.next_canister = progress.next_canister;
        self.random_blocks = progress.random_blocks;
    }

    /// Calls `visit` with the number and the bytes of each page of a memory that changed since
    /// [`Replica::mark_saved`]; with `all` of each that may not be zero.
    ///
    /// # Errors
    /// The first of `visit`, or if the memory cannot be read.
    pub fn visit_pages(&mut self, id: Principal, memory: Memory, all: bool, visit: Visit<'_>) -> io::Result<()> {
        let Some(canister) = self.canisters.get_mut(&id) else { return Ok(()) };
        match (memory, canister.stable.unsaved_pages(), canister.code.as_mut()) {
            (Memory::Stable, Some(mut pages), _) if !all => pages.try_for_each(|(page, bytes)| visit(page, bytes)),
            (Memory::Stable, ..) => canister.stable.filled_pages().try_for_each(|(page, bytes)| visit(page, bytes)),
            (Memory::Heap, _, Some(code)) => visit_heap(code, all, visit),
            (Memory::Heap, _, None) => Ok(()),
        }
    }

    /// Notes that modules and memories of all canisters were kept elsewhere.
    pub fn mark_saved(&mut self) {
        for canister in self.canisters.values_mut() {
            canister.stable.mark_saved();
            if let Some(code) = &mut canister.code {
                code.wasm.mark_saved();
            }
        }
    }

    /// Puts a canister back; one with the same id is replaced.
    ///
    /// # Errors
    /// If the engine refuses the module, or the parts do not fit together. Nothing changes then.
    pub fn restore_canister(&mut self, snapshot: CanisterSnapshot, memories: Memories<'_>) -> Result<(), RestoreError> {
        let code = match memories.module {
            None => None,
            Some(module) => {
                let mut code = Code::load(&self.engine, &self.linker, module)?;
                code.wasm = WasmState::restored(&code.module, snapshot.heap_bytes, snapshot.globals)?;
                for page in memories.heap {
                    let (page, bytes) = page?;
                    let written = code.wasm.heap().write(offset(page), &bytes);
                    written.map_err(|range| RestoreError::Page { page, bytes: range.size })?;
                }
                code.wasm.commit()?;
                Some(code)
            }
        };
        let mut canister = Canister::new(snapshot.id, snapshot.settings, snapshot.balance);
        let stable_pages = snapshot.stable_bytes / WASM_PAGE_BYTES;
        canister.stable.grow(stable_pages, stable_pages);
        for page in memories.stable {
            let (page, bytes) = page?;
            let written = canister.stable.write(offset(page), &bytes);
            written.map_err(|range| RestoreError::Page { page, bytes: range.size })?;
        }
        canister.stable.commit();
        canister.code = code;
        for chunk in memories.chunks {
            canister.store_chunk(chunk);
        }
        canister.status = if snapshot.stopped { Status::Stopped } else { Status::Running };
        canister.version = snapshot.version;
        canister.certified_data = snapshot.certified_data;
        canister.timer_ns = snapshot.timer_ns;
        canister.log = snapshot.log;
        canister.history = snapshot.history;
        canister.low_memory_reported = snapshot.low_memory_reported;
        self.canisters.insert(canister.id, canister);
        Ok(())
    }
}

fn visit_heap(code: &mut Code, all: bool, visit: Visit<'_>) -> io::Result<()> {
    let mut bytes = vec![0; WASM_PAGE_BYTES as usize];
    for page in code.wasm.pages_to_save(all) {
        code.wasm.heap().read(u64::from(page) * WASM_PAGE_BYTES, &mut bytes).map_err(io::Error::other)?;
        visit(page.into(), &bytes)?;
    }
    Ok(())
}

/// Where a page begins; beyond every memory if the number is too large.
fn offset(page: u64) -> u64 {
    page.saturating_mul(WASM_PAGE_BYTES)
}

impl Canister {
    /// Whether a memory was kept elsewhere since it was made, so that only its changes have to be kept.
    pub fn was_saved(&self, memory: Memory) -> bool {
        match memory {
            Memory::Heap => self.code.as_ref().is_some_and(|code| code.wasm.was_saved()),
            Memory::Stable => self.stable.unsaved_pages().is_some(),
        }
    }

    /// Everything but module, memories and chunks.
    pub fn snapshot(&self) -> CanisterSnapshot {
        CanisterSnapshot {
            id: self.id,
            settings: self.settings.clone(),
            stopped: self.status != Status::Running,
            version: self.version,
            balance: self.balance,
            certified_data: self.certified_data.clone(),
            timer_ns: self.timer_ns,
            log: self.log.clone(),
            history: self.history.clone(),
            low_memory_reported: self.low_memory_reported,
            heap_bytes: self.heap_bytes(),
            stable_bytes: self.stable.bytes(),
            globals: self.code.as_ref().and_then(|code| code.wasm.globals()).map(<[_]>::to_vec),
        }
    }
}
