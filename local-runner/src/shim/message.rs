//! One message: builds what the canister sees, runs it, and collects what it did.
//!
//! Nothing here commits: a trap undoes the message at once, a success stays open until the caller commits or rolls
//! back. Everything the platform keeps after a trap (log, instructions) is kept here too.

use std::sync::Arc;
use std::time::Instant;

use candid::Principal;

use super::canister::Canister;
use super::config::Config;
use super::costs::{PageCharges, WASM_PAGE_BYTES};
use super::cycles::{Tariff, Usage};
use super::engine::{Entry, RunOptions};
use super::execution::{Ceilings, Effects, Execution, Facts, Input, OutgoingCall};
use super::mode::Mode;
use super::report::{MessageReport, PageReport};
use super::stable::{OS_PAGE_BYTES, Touch};
use super::trap::Trap;

/// What the replica adds to every execution.
#[derive(Debug, Clone)]
pub struct World {
    /// Set-up.
    pub config: Arc<Config>,
    /// The subnet's id.
    pub subnet: Principal,
    /// The subnet's public key.
    pub root_key: Arc<[u8]>,
    /// Time in nanoseconds since 1970.
    pub time_ns: u64,
}

impl World {
    /// Prices of this subnet.
    pub fn tariff(&self) -> Tariff {
        Tariff::for_nodes(self.config.nodes)
    }

    /// Cycles that a canister must keep.
    pub fn frozen_cycles(&self, canister: &Canister) -> u128 {
        const DAY_SECONDS: u128 = 86_400;
        if !self.config.enforce_cycles {
            return 0;
        }
        let settings = &canister.settings;
        let bytes = canister.memory_bytes().max(settings.memory_allocation);
        let day = self.tariff().idle_day(bytes, settings.compute_allocation);
        day.saturating_mul(settings.freezing_threshold.into()) / DAY_SECONDS
    }

    /// Ceilings of an execution in this mode.
    fn ceilings(&self, mode: Mode, instructions: u64) -> Ceilings {
        let limits = &self.config.limits;
        let memory = &limits.memory;
        let query = mode.discards_changes();
        let stable_access_bytes = match mode {
            mode if mode.is_install() => memory.stable_access_install,
            _ if query => memory.stable_access_query,
            _ => memory.stable_access_update,
        };
        let replicated_reply = mode.is_replicated();
        Ceilings {
            callback_instructions: limits.instructions.update,
            stable_access_bytes,
            stable_access_kinds: [
                memory.stable_access_update,
                memory.stable_access_install,
                memory.stable_access_query,
            ],
            stable_bytes: memory.stable_bytes,
            reply_bytes: if replicated_reply { limits.messages.reply_bytes } else { limits.messages.query_reply_bytes },
            call_reply_bytes: limits.messages.reply_bytes,
            request_bytes: limits.messages.request_bytes,
            method_name_bytes: limits.messages.method_name_bytes,
            queue_messages: limits.messages.queue_messages,
            best_effort_seconds: limits.messages.best_effort_seconds,
            pages: self.config.pages,
            enforce_cycles: self.config.enforce_cycles,
            instructions,
        }
    }

    /// The ceiling for one ordinary execution in this mode.
    pub fn instruction_limit(&self, mode: Mode) -> u64 {
        let limits = &self.config.limits.instructions;
        match mode {
            Mode::InspectMessage => limits.inspect_message,
            Mode::Cleanup | Mode::CompositeCleanup => limits.cleanup,
            Mode::ReplicatedQuery => limits.update,
            mode if mode.is_install() => limits.install,
            mode if mode.discards_changes() => limits.query,
            _ => limits.update,
        }
    }
}

/// What to execute.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// Where to enter the module.
    pub entry: Entry<'a>,
    /// What for.
    pub mode: Mode,
    /// Method name for the report.
    pub method: &'a str,
    /// What the message brings.
    pub input: Input,
    /// Most instructions.
    pub instructions: u64,
    /// Certificate for the canister, in queries.
    pub certificate: Option<Vec<u8>>,
}

impl<'a> Job<'a> {
    /// An entry point that nobody called.
    pub fn system(world: &World, mode: Mode, export: &'a str) -> Self {
        let instructions = world.instruction_limit(mode);
        Self {
            entry: Entry::Export(export),
            mode,
            method: "",
            input: Input::default(),
            instructions,
            certificate: None,
        }
    }
}

/// What came of an execution.
#[derive(Debug)]
pub struct Outcome {
    /// Success, or why everything was undone.
    pub result: Result<(), Trap>,
    /// What it did; empty after a trap.
    pub effects: Effects,
    /// The balance it left; to be applied with the effects.
    pub balance: u128,
    /// Numbers.
    pub report: MessageReport,
}

/// 4 KiB pages in a 64 KiB page.
const OS_PAGES: u64 = WASM_PAGE_BYTES / OS_PAGE_BYTES;

impl Canister {
    /// Executes a job. After a success heap, globals and stable memory are changed but not committed.
    ///
    /// Answers `None` if the canister has no module.
    pub(super) fn execute(&mut self, world: &World, job: Job<'_>) -> Option<Outcome> {
        let started = Instant::now();
        let (mode, entry, method) = (job.mode, job.entry, job.method.to_owned());
        let reply_bytes = if is_callback(mode) { job.input.arg.len() as u64 } else { 0 };
        let options = self.run_options(world, &job);
        let mut code = self.code.take()?;
        let state = self.lend(world, job);
        let ran = code.prepared.run(&mut code.wasm, state, entry, &options);
        self.code = Some(code);
        let mut state = ran.state;
        if let Err(trap) = &ran.result {
            log_trap(&mut state, trap, &ran.backtrace);
        }
        let [accessed, written] = [ran.pages.accessed, ran.pages.written].map(|pages| pages * OS_PAGES);
        let report = MessageReport {
            canister: self.id,
            mode,
            method,
            instructions: ran.instructions,
            system_instructions: state.system_instructions,
            heap: PageReport::new(accessed, written, options.charges.heap, options.query),
            stable: stable_report(state.stable.touched(), &options.charges, options.query),
            // The engine knows heap pages; stable pages of one call are charged apart from its bytes.
            largest_operation: ran.largest_operation.saturating_add(state.largest_stable_pages),
            usage: usage(mode, ran.instructions, reply_bytes, &state.effects),
            trap: ran.result.as_ref().err().cloned(),
            printed: std::mem::take(&mut state.printed),
            wall: started.elapsed(),
        };
        Some(self.take_back(state, ran.result, report))
    }

    fn run_options(&self, world: &World, job: &Job<'_>) -> RunOptions {
        let limit = self.settings.wasm_memory_limit;
        RunOptions {
            instructions: job.instructions,
            query: job.mode.discards_changes(),
            charges: world.config.pages,
            wasm_memory_limit: (limit > 0 && job.mode.enforces_wasm_memory_limit()).then_some(limit),
        }
    }

    /// The state of an execution; stable memory and log move into it.
    fn lend(&mut self, world: &World, job: Job<'_>) -> Execution {
        self.stable.begin_message();
        let facts = Facts {
            canister: self.id,
            status: self.status.number(),
            version: self.version,
            controllers: self.settings.controllers.clone(),
            environment: self.settings.environment.clone(),
            time_ns: world.time_ns,
            subnet: world.subnet,
            root_key: Arc::clone(&world.root_key),
            certificate: job.certificate,
            frozen_cycles: world.frozen_cycles(self),
            tariff: world.tariff(),
            open_calls: self.calls.open_by_callee(),
        };
        Execution {
            mode: job.mode,
            input: job.input,
            facts,
            ceilings: world.ceilings(job.mode, job.instructions),
            balance: self.balance,
            timer_ns: self.timer_ns,
            stable: std::mem::take(&mut self.stable),
            // The platform keeps what replicated executions print, and nothing of queries.
            log: if job.mode.is_replicated() { std::mem::take(&mut self.log) } else { self.log.clone() },
            logged_bytes: 0,
            printed: Vec::new(),
            effects: Effects::default(),
            system_instructions: 0,
            largest_stable_pages: 0,
        }
    }

    /// Takes stable memory and log back; undoes a failed execution, and a call that was built but not made.
    fn take_back(&mut self, state: Execution, result: Result<(), Trap>, report: MessageReport) -> Outcome {
        let Execution { mode, stable, log, mut effects, mut balance, .. } = state;
        self.stable = stable;
        if mode.is_replicated() {
            self.log = log;
        }
        if result.is_err() {
            self.stable.undo_message();
            (effects, balance) = (Effects::default(), self.balance);
        }
        if let Some(call) = effects.pending_call.take() {
            balance = balance.saturating_add(call.cycles);
        }
        Outcome { result, effects, balance, report }
    }

    /// Makes permanent what executions since the last commit did to heap, globals and stable memory.
    pub(super) fn commit(&mut self) -> Result<(), Trap> {
        if let Some(code) = &mut self.code {
            code.wasm.commit().map_err(|error| Trap::Shim(error.to_string()))?;
        }
        self.stable.commit();
        Ok(())
    }

    /// Undoes what executions since the last commit did to heap, globals and stable memory.
    pub(super) fn rollback(&mut self) -> Result<(), Trap> {
        self.stable.rollback();
        match &mut self.code {
            Some(code) => code.wasm.rollback().map_err(|error| Trap::Shim(error.to_string())),
            None => Ok(()),
        }
    }
}

fn is_callback(mode: Mode) -> bool {
    matches!(mode, Mode::ReplyCallback | Mode::RejectCallback)
}

/// Writes the trap to the log, as the platform does, with the functions that were active.
fn log_trap(state: &mut Execution, trap: &Trap, backtrace: &[String]) {
    let reason = match trap {
        Trap::Called(message) => message.clone(),
        Trap::Wasm(trap) => trap.to_string(),
        other => other.to_string(),
    };
    let mut text = format!("[TRAP]: {reason}");
    if !backtrace.is_empty() {
        text.push_str("\nCanister Backtrace:");
        for function in backtrace {
            text.push('\n');
            text.push_str(function);
        }
    }
    let time_ns = state.facts.time_ns;
    state.log.push(time_ns, text.as_bytes());
}

/// Stable memory pages as they were charged.
fn stable_report(touched: Touch, charges: &PageCharges, query: bool) -> PageReport {
    let (accessed, written) = touched.charged_pages(charges.unit);
    PageReport::new(accessed, written, charges.stable, query)
}

/// What has a price in an execution; queries are free.
fn usage(mode: Mode, instructions: u64, reply_bytes: u64, effects: &Effects) -> Usage {
    if mode.discards_changes() && mode != Mode::ReplicatedQuery {
        return Usage::default();
    }
    let request_bytes: u64 = effects.calls.iter().map(OutgoingCall::bytes).sum();
    Usage {
        executions: 1,
        instructions,
        calls: effects.calls.len() as u64,
        call_bytes: request_bytes + reply_bytes,
        ..Usage::default()
    }
}
