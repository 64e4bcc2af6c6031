//! One canister: its code, memories, settings and open calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candid::Principal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::call_context::{OpenCalls, Origin};
use super::config::Config;
use super::engine::{CanisterModule, Engine, Linker, LoadError, Prepared, WasmState};
use super::execution::{Effects, Execution};
use super::history::{Author, Change, Entry, History};
use super::log::{CanisterLog, LogRecord};
use super::module::{MethodKind, ModuleInfo};
use super::reject::{Reject, error_code};
use super::stable::StableMemory;

/// What controllers decide about a canister.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Who controls the canister.
    pub controllers: BTreeSet<Principal>,
    /// Guaranteed share of a core in percent; only its price is modelled.
    pub compute_allocation: u64,
    /// Reserved memory in bytes; only its price is modelled.
    pub memory_allocation: u64,
    /// Seconds of idle cost that the balance must keep.
    pub freezing_threshold: u64,
    /// Most cycles that may be reserved for memory; kept, not enforced.
    pub reserved_cycles_limit: u128,
    /// Who may read the log.
    pub log_visibility: LogVisibility,
    /// Size of the log in bytes.
    pub log_memory_limit: u64,
    /// Size above which the heap may not grow, in bytes; 0 for none.
    pub wasm_memory_limit: u64,
    /// Free heap in bytes below which `canister_on_low_wasm_memory` runs; 0 for never.
    pub wasm_memory_threshold: u64,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
}

/// Who may read a canister's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogVisibility {
    /// Its controllers.
    Controllers,
    /// Anyone.
    Public,
    /// Its controllers and these principals.
    AllowedViewers(BTreeSet<Principal>),
}

/// Whether a canister accepts calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Accepts calls.
    Running,
    /// Finishes what it began; these calls wait for it to stop.
    Stopping(Vec<StopRequest>),
    /// Does nothing.
    Stopped,
}

/// A `stop_canister` call that is not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRequest {
    /// Who waits.
    pub origin: Origin,
    /// Cycles that came with the call.
    pub cycles: u128,
    /// When the wait ends, in nanoseconds.
    pub deadline_ns: u64,
}

impl Status {
    /// The number that `ic0.canister_status` returns.
    pub fn number(&self) -> u32 {
        match self {
            Self::Running => 1,
            Self::Stopping(_) => 2,
            Self::Stopped => 3,
        }
    }
}

impl Settings {
    /// The settings of a new canister.
    pub fn new(controllers: BTreeSet<Principal>, config: &Config) -> Self {
        const THIRTY_DAYS: u64 = 2_592_000;
        Self {
            controllers,
            compute_allocation: 0,
            memory_allocation: 0,
            freezing_threshold: THIRTY_DAYS,
            reserved_cycles_limit: 5_000_000_000_000,
            log_visibility: LogVisibility::Controllers,
            log_memory_limit: config.limits.memory.log_bytes,
            wasm_memory_limit: config.limits.memory.wasm_memory_limit,
            wasm_memory_threshold: 0,
            environment: BTreeMap::new(),
        }
    }
}

/// An installed module with its heap and globals.
pub struct Code {
    /// SHA-256 of the bytes that were uploaded, gzip included.
    pub hash: [u8; 32],
    /// Those bytes.
    pub(super) uploaded: Arc<[u8]>,
    pub(super) module: CanisterModule,
    pub(super) prepared: Prepared<Execution>,
    pub(super) wasm: WasmState,
}

impl Code {
    /// Checks, instruments and compiles a module; its heap holds the data segments.
    ///
    /// # Errors
    /// If the platform would refuse the module.
    pub(super) fn load(engine: &Engine, linker: &Linker<Execution>, bytes: &[u8]) -> Result<Self, LoadError> {
        let module = engine.load(bytes)?;
        let prepared = module.prepare(linker)?;
        let wasm = WasmState::new(&module)?;
        let hash = Sha256::digest(bytes).into();
        Ok(Self { hash, uploaded: bytes.into(), module, prepared, wasm })
    }

    /// What the module declares.
    pub fn info(&self) -> &ModuleInfo {
        self.module.info()
    }

    /// The module as it was uploaded, gzipped or not.
    pub fn uploaded(&self) -> &Arc<[u8]> {
        &self.uploaded
    }

    /// Size of the module as it was uploaded.
    pub fn uploaded_bytes(&self) -> u64 {
        self.uploaded.len() as u64
    }

    /// Whether the module exports a system entry point such as `canister_heartbeat`.
    pub fn exports(&self, entry_point: &str) -> bool {
        self.info().entry_points.contains(entry_point)
    }
}

/// A canister of the replica.
pub struct Canister {
    pub(super) id: Principal,
    pub(super) settings: Settings,
    pub(super) status: Status,
    pub(super) version: u64,
    pub(super) balance: u128,
    pub(super) code: Option<Code>,
    pub(super) stable: StableMemory,
    pub(super) certified_data: Vec<u8>,
    pub(super) timer_ns: u64,
    pub(super) log: CanisterLog,
    pub(super) chunks: BTreeMap<[u8; 32], Vec<u8>>,
    pub(super) calls: OpenCalls,
    pub(super) history: History,
    /// The low-memory hook ran and the heap has not shrunk below the threshold since.
    pub(super) low_memory_reported: bool,
}

impl Canister {
    /// An empty canister.
    pub(super) fn new(id: Principal, settings: Settings, balance: u128) -> Self {
        let log = CanisterLog::new(settings.log_memory_limit);
        Self {
            id,
            settings,
            status: Status::Running,
            version: 0,
            balance,
            code: None,
            stable: StableMemory::default(),
            certified_data: Vec::new(),
            timer_ns: 0,
            log,
            chunks: BTreeMap::new(),
            calls: OpenCalls::default(),
            history: History::default(),
            low_memory_reported: false,
        }
    }

    /// The canister's id.
    pub fn id(&self) -> Principal {
        self.id
    }

    /// What its controllers decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it accepts calls.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Grows with every change of the canister.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Cycles.
    pub fn balance(&self) -> u128 {
        self.balance
    }

    /// The installed module.
    pub fn code(&self) -> Option<&Code> {
        self.code.as_ref()
    }

    /// SHA-256 of the installed module as uploaded.
    pub fn module_hash(&self) -> Option<[u8; 32]> {
        self.code.as_ref().map(|code| code.hash)
    }

    /// Size of the heap in bytes.
    pub fn heap_bytes(&self) -> u64 {
        self.code.as_ref().map_or(0, |code| code.wasm.heap_bytes())
    }

    /// Stable memory.
    pub fn stable(&self) -> &StableMemory {
        &self.stable
    }

    /// What the canister wants certified; at most 32 bytes.
    pub fn certified_data(&self) -> &[u8] {
        &self.certified_data
    }

    /// When the global timer is due, in nanoseconds since 1970.
    pub fn timer_ns(&self) -> Option<u64> {
        Some(self.timer_ns).filter(|deadline| *deadline != 0)
    }

    /// The log, oldest record first.
    pub fn log(&self) -> impl Iterator<Item = &LogRecord> {
        self.log.records()
    }

    /// The `candid:service` metadata of the module.
    pub fn candid_service(&self) -> Option<String> {
        let section = self.code.as_ref()?.info().metadata.get("candid:service")?;
        Some(String::from_utf8_lossy(&section.bytes).into_owned())
    }

    /// What was changed about the canister.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Chunks waiting for an install.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.values().map(Vec::as_slice)
    }

    /// Keeps a chunk; answers its hash.
    pub(super) fn store_chunk(&mut self, chunk: Vec<u8>) -> [u8; 32] {
        let hash = Sha256::digest(&chunk).into();
        self.chunks.insert(hash, chunk);
        hash
    }

    /// Notes a change that has just been made.
    pub(super) fn record(&mut self, time_ns: u64, author: Author, change: Change) {
        self.history.push(Entry { time_ns, version: self.version, author, change });
    }

    /// Memory that storage is paid for, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let module = self.code.as_ref().map_or(0, Code::uploaded_bytes);
        let chunks: u64 = self.chunks.values().map(|chunk| chunk.len() as u64).sum();
        self.heap_bytes() + self.stable.bytes() + module + chunks
    }

    /// How `method` is exported.
    pub(super) fn method(&self, method: &str) -> Option<MethodKind> {
        self.code.as_ref()?.info().methods.get(method).copied()
    }

    /// Refuses a call to a canister that is not there to execute it.
    pub(super) fn check_accepts_calls(&self) -> Result<(), Reject> {
        let refuse = |code, state| Err(Reject::new(code, format!("Canister {} is {state}", self.id)));
        match self.status {
            Status::Stopped => refuse(error_code::CANISTER_STOPPED, "stopped"),
            Status::Stopping(_) => refuse(error_code::CANISTER_STOPPING, "stopping"),
            Status::Running if self.code.is_none() => Err(Reject::no_module(self.id)),
            Status::Running => Ok(()),
        }
    }

    /// Refuses what only controllers may do.
    pub(super) fn check_controller(&self, sender: Principal) -> Result<(), Reject> {
        if self.settings.controllers.contains(&sender) {
            return Ok(());
        }
        let controllers: Vec<_> = self.settings.controllers.iter().map(Principal::to_text).collect();
        Err(Reject::new(
            error_code::CANISTER_INVALID_CONTROLLER,
            format!(
                "Only the controllers of the canister {} can control it.\nCanister's controllers: {}\nSender's ID: \
                 {sender}",
                self.id,
                controllers.join(" ")
            ),
        ))
    }

    /// Refuses who may not read the log.
    pub(super) fn check_may_read_log(&self, sender: Principal) -> Result<(), Reject> {
        let viewer = match &self.settings.log_visibility {
            LogVisibility::Public => true,
            LogVisibility::Controllers => false,
            LogVisibility::AllowedViewers(viewers) => viewers.contains(&sender),
        };
        if viewer || self.settings.controllers.contains(&sender) {
            return Ok(());
        }
        let text = format!("Caller {sender} is not allowed to access canister logs");
        Err(Reject::new(error_code::CANISTER_REJECTED_MESSAGE, text))
    }

    /// Applies what a successful execution did to the canister itself; its calls and answer are the replica's.
    pub(super) fn apply(&mut self, effects: &Effects, balance: u128) {
        self.balance = balance;
        if let Some(timer_ns) = effects.timer {
            self.timer_ns = timer_ns;
        }
        if let Some(data) = &effects.certified_data {
            self.certified_data.clone_from(data);
        }
    }
}
