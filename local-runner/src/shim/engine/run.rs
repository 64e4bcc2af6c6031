//! Runs one entry point of one canister in a fresh instance.

use wasmtime::{AsContextMut, Global, Instance, Store, Val};

use super::host::{Context, GrowthLimit, Meter, charge};
use super::memory::{handle_faults, with_heap};
use super::{GlobalValue, Prepared, WasmState};
use crate::shim::costs::PageCharges;
use crate::shim::heap::PageCounts;
use crate::shim::meter::{COUNTER, EXHAUSTED, GLOBAL_PREFIX, LARGEST, START, TABLE};
use crate::shim::trap::Trap;

/// Stack of the thread an execution runs on: the engine's limit for WebAssembly and room for host functions.
const THREAD_STACK_BYTES: usize = super::WASM_STACK_BYTES + (4 << 20);

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The start function, if the module has one.
    Start,
    /// An exported function without parameters and results.
    Export(&'a str),
    /// A callback: a function of the table that takes one i32.
    Callback {
        /// Index in the table.
        index: u32,
        /// The argument.
        env: u32,
    },
}

/// Limits and charges of one execution.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// Most instructions, page charges included.
    pub instructions: u64,
    /// Modifications will be discarded, so that written pages cost no more than read ones.
    pub query: bool,
    /// What page accesses cost.
    pub charges: PageCharges,
    /// The canister's setting, where it applies to this kind of message; growing beyond it traps.
    pub wasm_memory_limit: Option<u64>,
}

/// What an execution did.
#[derive(Debug)]
pub struct Execution<T> {
    /// The host's state, as host functions left it.
    pub state: T,
    /// Why it failed, if it did; its changes are undone then.
    pub result: Result<(), Trap>,
    /// Instructions used: operators, system calls and page charges.
    pub instructions: u64,
    /// Part of `instructions` charged for heap pages.
    pub page_charge: u64,
    /// Upper bound for the instructions of the largest operation that cannot be interrupted: a bulk operator or a
    /// system call, heap pages included. From [`SLICE_INSTRUCTIONS`](crate::shim::costs::SLICE_INSTRUCTIONS) on the
    /// platform may refuse it with error IC0522 (slice overrun) in replicated execution, from twice that it always
    /// does; here it passes.
    pub largest_operation: u64,
    /// Heap pages touched.
    pub pages: PageCounts,
    /// Names of the functions that were active at a WebAssembly trap, innermost first; empty without name section.
    pub backtrace: Vec<String>,
}

impl<T: Send + 'static> Prepared<T> {
    /// Runs `entry` with a fresh instance on `wasm` and waits for its end.
    ///
    /// After a failure heap (growth included) and globals are as they were before. After a success the changes are
    /// kept, but open: the caller ends with [`WasmState::commit`] or [`WasmState::rollback`], possibly after further
    /// runs.
    ///
    /// Page charges are exact in sum, but subtracted at the next system call and at the end, not at the access: an
    /// execution that page charges drive over its limit may run on until then.
    pub fn run(&self, wasm: &mut WasmState, state: T, entry: Entry<'_>, options: &RunOptions) -> Execution<T> {
        let mut store = self.store(wasm, state, options);
        // The thread's stack is part of the semantics: WebAssembly must reach its own limit first.
        let finished = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("canister".into()).stack_size(THREAD_STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || self.execute(&mut store, wasm, entry));
            thread.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let no_thread = |error| Trap::Shim(format!("cannot start its thread: {error}"));
        let Context { state, meter, heap, .. } = store.into_data();
        let finished = finished.unwrap_or_else(|error| Finished::failed(no_thread(error), meter.limit));
        Execution {
            state,
            result: finished.result,
            instructions: meter.limit.saturating_sub(finished.left),
            page_charge: meter.page_charge,
            largest_operation: meter.largest_operation(finished.largest_operand),
            pages: heap.counts(),
            backtrace: finished.backtrace,
        }
    }

    fn store(&self, wasm: &WasmState, state: T, options: &RunOptions) -> Store<Context<T>> {
        let heap = wasm.heap.region();
        let meter = Meter {
            counter: None,
            // The counter is signed.
            limit: options.instructions.min(i64::MAX as u64),
            charges: options.charges,
            query: options.query,
            page_charge: 0,
            largest_call: 0,
        };
        let growth = GrowthLimit { bytes: options.wasm_memory_limit, active: false };
        let mut store = Store::new(&self.module.engine, Context { state, heap: heap.clone(), meter, growth });
        store.limiter(|context| &mut context.growth);
        handle_faults(&mut store, heap);
        store
    }

    /// Runs the entry and settles the heap and the globals.
    fn execute(&self, store: &mut Store<Context<T>>, wasm: &mut WasmState, entry: Entry<'_>) -> Finished {
        let limit = store.data().meter.limit;
        if let Err(error) = wasm.heap.begin() {
            return Finished::failed(Trap::Shim(error.to_string()), limit);
        }
        let globals = wasm.globals.clone();
        let mut finished = self.enter(store, wasm, entry);
        if store.data().heap.failed() {
            finished.result = Err(Trap::Shim("its heap's page protection could not be changed".into()));
        }
        if let Err(error) = wasm.heap.end(finished.result.is_ok()) {
            finished.result = Err(Trap::Shim(error.to_string()));
        }
        if finished.result.is_err() {
            wasm.globals = globals;
        }
        finished
    }

    fn enter(&self, store: &mut Store<Context<T>>, wasm: &mut WasmState, entry: Entry<'_>) -> Finished {
        let limit = store.data().meter.limit;
        let heap = wasm.heap.region();
        let instance = match with_heap(heap, || self.instance.instantiate(&mut *store)) {
            Ok(instance) => instance,
            Err(error) => return Finished::failed(trap_of(&error, false, limit), limit),
        };
        let result = self.prepare(store, instance, wasm).and_then(|()| call(store, instance, entry));
        self.settle(store, instance, wasm, result)
    }

    /// Puts limit and globals into a new instance.
    fn prepare(&self, store: &mut Store<Context<T>>, instance: Instance, wasm: &WasmState) -> wasmtime::Result<()> {
        let counter = global(store, instance, COUNTER)?;
        let limit = store.data().meter.limit;
        counter.set(&mut *store, Val::I64(limit as i64))?;
        let context = store.data_mut();
        context.meter.counter = Some(counter);
        context.growth.active = true;
        for (index, value) in wasm.globals.iter().flatten().enumerate() {
            global(store, instance, &format!("{GLOBAL_PREFIX}{index}"))?.set(&mut *store, value.into())?;
        }
        Ok(())
    }

    /// Classifies the result, settles page charges, and keeps the globals of a success.
    fn settle(
        &self,
        store: &mut Store<Context<T>>,
        instance: Instance,
        wasm: &mut WasmState,
        result: wasmtime::Result<()>,
    ) -> Finished {
        let Meter { limit, page_charge: settled, .. } = store.data().meter;
        let left = charge(store.as_context_mut(), 0);
        let overdrawn_by_pages = left < 0 && store.data().meter.page_charge > settled;
        let mut read = |name| global(store, instance, name).ok().and_then(|global| global.get(&mut *store).i32());
        let exhausted = read(EXHAUSTED) == Some(1);
        let largest_operand = read(LARGEST).unwrap_or(0) as u32;
        let backtrace = result.as_ref().err().map(backtrace).unwrap_or_default();
        let result = match result {
            Err(error) => Err(trap_of(&error, exhausted, limit)),
            Ok(()) if overdrawn_by_pages => Err(Trap::InstructionLimit { limit }),
            Ok(()) => keep_globals(store, instance, wasm, self.module.mutable_globals),
        };
        Finished { result, left: left.max(0) as u64, largest_operand: largest_operand.into(), backtrace }
    }
}

/// How an execution ended.
struct Finished {
    result: Result<(), Trap>,
    /// Instructions left.
    left: u64,
    /// Largest size operand of a bulk operator.
    largest_operand: u64,
    backtrace: Vec<String>,
}

impl Finished {
    /// An execution that never started.
    fn failed(trap: Trap, limit: u64) -> Self {
        Self { result: Err(trap), left: limit, largest_operand: 0, backtrace: Vec::new() }
    }
}

fn global<T>(store: &mut Store<T>, instance: Instance, name: &str) -> wasmtime::Result<Global> {
    instance.get_global(store, name).ok_or_else(|| wasmtime::format_err!("the module lost its global `{name}`"))
}

fn call<T>(store: &mut Store<T>, instance: Instance, entry: Entry<'_>) -> wasmtime::Result<()> {
    let name = match entry {
        Entry::Start => START,
        Entry::Export(name) => name,
        Entry::Callback { index, env } => return call_table(store, instance, index, env),
    };
    match instance.get_func(&mut *store, name) {
        Some(function) => function.typed::<(), ()>(&mut *store)?.call(store, ()),
        None if entry == Entry::Start => Ok(()),
        None => Err(Trap::Shim(format!("the module exports no function `{name}`")).into()),
    }
}

fn call_table<T>(store: &mut Store<T>, instance: Instance, index: u32, env: u32) -> wasmtime::Result<()> {
    let table = instance.get_table(&mut *store, TABLE);
    let entry = table.and_then(|table| table.get(&mut *store, index.into()));
    let Some(Some(function)) = entry.as_ref().map(|entry| entry.as_func().flatten()) else {
        return Err(Trap::NoSuchFunction { index }.into());
    };
    match function.typed::<u32, ()>(&mut *store) {
        Ok(function) => function.call(store, env),
        Err(_) => Err(Trap::NoSuchFunction { index }.into()),
    }
}

/// Carries the mutable globals over to the next instance.
fn keep_globals<T>(store: &mut Store<T>, instance: Instance, wasm: &mut WasmState, count: usize) -> Result<(), Trap> {
    let mut read = |index| {
        let value = global(store, instance, &format!("{GLOBAL_PREFIX}{index}"))?.get(&mut *store);
        GlobalValue::try_from(value)
    };
    let values = (0..count).map(&mut read).collect::<wasmtime::Result<Vec<_>>>();
    wasm.globals = Some(values.map_err(|error| Trap::Shim(error.to_string()))?);
    Ok(())
}

/// The reason behind an error that ended an execution.
fn trap_of(error: &wasmtime::Error, exhausted: bool, limit: u64) -> Trap {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return trap.clone();
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::UnreachableCodeReached) if exhausted => Trap::InstructionLimit { limit },
        Some(trap) => Trap::Wasm((*trap).into()),
        None => Trap::Shim(format!("{error:#}")),
    }
}

fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let frames = error.downcast_ref::<wasmtime::WasmBacktrace>().map(wasmtime::WasmBacktrace::frames);
    let names = frames.unwrap_or_default().iter().filter_map(wasmtime::FrameInfo::func_name);
    names.map(ToString::to_string).collect()
}
