//! Compiles canister modules and runs their entry points, one fresh instance per execution, as the platform does.
//!
//! The engine knows instructions, heap and globals; what system calls do is the business of the host functions that
//! its user puts into a [`Linker`]. Results equal the platform's bit for bit: NaNs are canonical, relaxed SIMD is off.
//! Compiled code is optimised for speed, which the platform leaves off; that changes no result and no charge.
//!
//! Where it deviates from the platform:
//! - page charges are exact in sum but subtracted at the next system call and at the end, not at the access;
//! - executions are not sliced: an operation too large for a slice passes, but is reported
//!   ([`Execution::largest_operation`]);
//! - calls may nest as deep as 5 MiB of native stack allow; the platform's depth differs with its compiler settings;
//! - 64-bit memories and `externref` are refused;
//! - the cost of compiling leaves out the platform's few helper functions.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::{Config, OptLevel, Val};

mod cache;
mod host;
mod memory;
mod run;
#[cfg(test)]
mod tests;

pub use cache::default_cache_directory;
pub use host::{Context, HostCall};
pub use run::{Entry, Execution, RunOptions};

use super::heap::{GUARD_BYTES, Heap, HeapError, RESERVED_BYTES};
use super::meter::{self, Instrumented};
use super::module::{self, ModuleError, ModuleInfo};

/// Native stack that WebAssembly code may use before it traps.
pub(super) const WASM_STACK_BYTES: usize = 5 << 20;

/// Frames kept of a backtrace.
const BACKTRACE_FRAMES: usize = 20;

/// Host functions for canisters; define them with `func_wrap("ic0", name, ..)`.
pub type Linker<T> = wasmtime::Linker<Context<T>>;

/// First parameter of a host function; see [`HostCall`].
pub type Caller<'a, T> = wasmtime::Caller<'a, Context<T>>;

/// Why a module cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The platform would refuse it.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// It imports a system function that the host does not offer.
    #[error("the shim does not offer `ic0.{0}`, which the module imports")]
    MissingImport(String),
    /// Its memory cannot be made.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// The engine failed.
    #[error("the engine cannot run the module: {0}")]
    Engine(String),
}

impl From<wasmtime::Error> for LoadError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Engine(format!("{error:#}"))
    }
}

/// Compiles modules; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    cache: cache::Cache,
    /// Modules in use, by the hash of their bytes as given.
    loaded: Arc<Mutex<HashMap<[u8; 32], Weak<Loaded>>>>,
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .generate_address_map(false)
        .macos_use_mach_ports(false)
        .memory_guard_size(GUARD_BYTES as u64)
        .memory_init_cow(false)
        .memory_may_move(false)
        .memory_reservation(RESERVED_BYTES as u64)
        .max_wasm_stack(WASM_STACK_BYTES)
        // Unused, but must not be smaller.
        .async_stack_size(WASM_STACK_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES))
        .wasm_bulk_memory(true)
        .wasm_extended_const(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_multi_value(true)
        .wasm_relaxed_simd(false)
        .wasm_simd(true)
        .wasm_tail_call(true)
        .with_host_memory(Arc::new(memory::HeapCreator));
    config
}

impl Engine {
    /// An engine that keeps compiled modules in `cache`, or compiles always if there is none.
    ///
    /// # Errors
    /// If the processor is not supported.
    pub fn new(cache: Option<PathBuf>) -> Result<Self, LoadError> {
        let engine = wasmtime::Engine::new(&config())?;
        Ok(Self { engine, cache: cache::Cache::new(cache), loaded: Arc::default() })
    }

    /// Decodes, checks, instruments and compiles a module, gzipped or not.
    ///
    /// # Errors
    /// If the platform would refuse it or it cannot be compiled.
    pub fn load(&self, bytes: &[u8]) -> Result<CanisterModule, LoadError> {
        let hash = Sha256::digest(bytes).into();
        let in_use = |modules: &HashMap<_, Weak<Loaded>>| modules.get(&hash).and_then(Weak::upgrade);
        if let Some(module) = in_use(&self.modules()) {
            return Ok(CanisterModule(module));
        }
        let module = Arc::new(self.build(bytes)?);
        let mut modules = self.modules();
        modules.retain(|_, module| module.strong_count() > 0);
        modules.insert(hash, Arc::downgrade(&module));
        Ok(CanisterModule(module))
    }

    fn modules(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<Loaded>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self, bytes: &[u8]) -> Result<Loaded, LoadError> {
        let wasm = module::decode(bytes)?;
        let valid = module::validate(&wasm)?;
        let Instrumented { wasm, image, mutable_globals, operators } = meter::instrument(&valid)?;
        let compiled = match self.cache.load(&self.engine, &wasm) {
            Some(compiled) => compiled,
            None => {
                let compiled = wasmtime::Module::new(&self.engine, &wasm)?;
                self.cache.store(&wasm, &compiled);
                compiled
            }
        };
        let info = valid.info;
        Ok(Loaded { engine: self.engine.clone(), compiled, info, image, mutable_globals, operators })
    }

    /// An empty linker for host functions.
    pub fn linker<T: 'static>(&self) -> Linker<T> {
        Linker::new(&self.engine)
    }
}

struct Loaded {
    engine: wasmtime::Engine,
    compiled: wasmtime::Module,
    info: ModuleInfo,
    image: Vec<(u32, Vec<u8>)>,
    mutable_globals: usize,
    operators: u64,
}

/// A compiled module; cheap to clone.
#[derive(Clone)]
pub struct CanisterModule(Arc<Loaded>);

impl CanisterModule {
    /// What the module declares.
    pub fn info(&self) -> &ModuleInfo {
        &self.0.info
    }

    /// Instructions charged for compiling the module at install.
    pub fn compile_cost(&self) -> u64 {
        self.0.operators.saturating_mul(super::costs::COMPILE_COST_PER_OPERATOR)
    }

    /// Connects the module to host functions.
    ///
    /// # Errors
    /// If it imports functions that `linker` does not define.
    pub fn prepare<T: 'static>(&self, linker: &Linker<T>) -> Result<Prepared<T>, LoadError> {
        let unknown = |error: wasmtime::Error| match error.downcast_ref::<wasmtime::UnknownImportError>() {
            Some(import) => LoadError::MissingImport(import.name().to_string()),
            None => error.into(),
        };
        let instance = linker.instantiate_pre(&self.0.compiled).map_err(unknown)?;
        Ok(Prepared { instance, module: Arc::clone(&self.0) })
    }
}

/// A module connected to host functions whose state is `T`.
pub struct Prepared<T: 'static> {
    instance: wasmtime::InstancePre<Context<T>>,
    module: Arc<Loaded>,
}

impl<T: 'static> Clone for Prepared<T> {
    fn clone(&self) -> Self {
        Self { instance: self.instance.clone(), module: Arc::clone(&self.module) }
    }
}

/// Value of a global between two instances; floats as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GlobalValue {
    /// A 32-bit integer.
    I32(i32),
    /// A 64-bit integer.
    I64(i64),
    /// Bits of a 32-bit float.
    F32(u32),
    /// Bits of a 64-bit float.
    F64(u64),
    /// A vector.
    V128(u128),
}

impl TryFrom<Val> for GlobalValue {
    type Error = wasmtime::Error;

    fn try_from(value: Val) -> wasmtime::Result<Self> {
        match value {
            Val::I32(value) => Ok(Self::I32(value)),
            Val::I64(value) => Ok(Self::I64(value)),
            Val::F32(bits) => Ok(Self::F32(bits)),
            Val::F64(bits) => Ok(Self::F64(bits)),
            Val::V128(value) => Ok(Self::V128(value.as_u128())),
            _ => Err(wasmtime::format_err!("a global holds a reference, which validation excludes")),
        }
    }
}

impl From<&GlobalValue> for Val {
    fn from(value: &GlobalValue) -> Self {
        match *value {
            GlobalValue::I32(value) => Self::I32(value),
            GlobalValue::I64(value) => Self::I64(value),
            GlobalValue::F32(bits) => Self::F32(bits),
            GlobalValue::F64(bits) => Self::F64(bits),
            GlobalValue::V128(value) => Self::V128(value.into()),
        }
    }
}

/// Heap and globals of one installed module: what outlives its instances.
#[derive(Debug)]
pub struct WasmState {
    heap: Heap,
    /// Values of the mutable globals; none before the first success, when an instance's initial values hold.
    globals: Option<Vec<GlobalValue>>,
    committed_globals: Option<Vec<GlobalValue>>,
    /// The heap was kept elsewhere; only some of its pages changed since.
    saved: bool,
}

impl WasmState {
    /// The state of a module before any of its code ran: the heap holds the data segments.
    ///
    /// # Errors
    /// If the heap's address space cannot be reserved.
    pub fn new(module: &CanisterModule) -> Result<Self, LoadError> {
        let (pages, max_pages) = module.0.info.memory_pages.unwrap_or_default();
        let mut heap = Heap::new(pages, max_pages)?;
        for (offset, bytes) in &module.0.image {
            let written = heap.write(u64::from(*offset), bytes);
            written.map_err(|range| LoadError::Engine(format!("a data segment does not fit: {range}")))?;
        }
        heap.commit()?;
        Ok(Self { heap, globals: None, committed_globals: None, saved: false })
    }

    /// The state that [`WasmState::globals`] and the heap's pages described; everything else in the heap is zero.
    ///
    /// # Errors
    /// If the globals are not those of this module, or the heap cannot be made.
    pub fn restored(
        module: &CanisterModule,
        heap_bytes: u64,
        globals: Option<Vec<GlobalValue>>,
    ) -> Result<Self, LoadError> {
        let (_, max_pages) = module.0.info.memory_pages.unwrap_or_default();
        let found = globals.as_ref().map_or(module.0.mutable_globals, Vec::len);
        if found != module.0.mutable_globals {
            let text = format!("{found} values for the module's {} mutable globals", module.0.mutable_globals);
            return Err(LoadError::Engine(text));
        }
        let pages = u32::try_from(heap_bytes / super::costs::WASM_PAGE_BYTES).unwrap_or(u32::MAX);
        let mut heap = Heap::new(pages, max_pages)?;
        heap.commit()?;
        Ok(Self { heap, globals: globals.clone(), committed_globals: globals, saved: false })
    }

    /// Values of the mutable globals as committed; none before the module's code ran for the first time.
    pub fn globals(&self) -> Option<&[GlobalValue]> {
        self.committed_globals.as_deref()
    }

    /// Size of the heap in bytes.
    pub fn heap_bytes(&self) -> u64 {
        self.heap.size()
    }

    /// Makes everything since the last commit permanent.
    ///
    /// # Errors
    /// If the system refuses to manage the heap's pages.
    pub fn commit(&mut self) -> Result<(), HeapError> {
        self.committed_globals.clone_from(&self.globals);
        self.heap.commit()
    }

    /// Takes back everything since the last commit: heap contents, growth and globals.
    ///
    /// # Errors
    /// If the system refuses to manage the heap's pages.
    pub fn rollback(&mut self) -> Result<(), HeapError> {
        self.globals.clone_from(&self.committed_globals);
        self.heap.rollback()
    }

    /// Whether the heap was kept elsewhere.
    pub fn was_saved(&self) -> bool {
        self.saved
    }

    /// Notes that the heap as committed was kept elsewhere.
    pub fn mark_saved(&mut self) {
        self.saved = true;
        self.heap.mark_saved();
    }

    /// The pages of the heap that were committed since it was kept elsewhere, or all that may not be zero.
    pub fn pages_to_save(&self, all: bool) -> Vec<u32> {
        if all { self.heap.filled_pages() } else { self.heap.unsaved_pages() }
    }

    /// The heap, for inspection between executions.
    pub fn heap(&mut self) -> &mut Heap {
        &mut self.heap
    }
}
