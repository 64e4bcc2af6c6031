//! Installing, reinstalling and upgrading a canister: all or nothing.

use candid::Principal;
use serde::{Deserialize, Serialize};

use super::super::canister::{Canister, Code};
use super::super::cycles::Usage;
use super::super::engine::Entry;
use super::super::execution::Input;
use super::super::history::{Author, Change};
use super::super::message::{Job, Outcome, World};
use super::super::mode::Mode;
use super::super::reject::{Reject, error_code};
use super::super::report::{CallReport, MessageReport};
use super::super::stable::StableMemory;
use super::super::trap::Trap;
use super::Replica;

/// What happens to what the canister holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallMode {
    /// Into an empty canister.
    Install,
    /// Drops code and state first.
    Reinstall,
    /// Keeps stable memory.
    Upgrade {
        /// Do not run `canister_pre_upgrade` of the old module.
        skip_pre_upgrade: bool,
    },
}

impl InstallMode {
    /// An upgrade with all its hooks.
    pub const UPGRADE: Self = Self::Upgrade { skip_pre_upgrade: false };
}

/// The parts of a canister that a failed install has to restore.
struct Before {
    code: Option<Code>,
    stable: Option<StableMemory>,
    certified_data: Vec<u8>,
    timer_ns: u64,
    balance: u128,
    version: u64,
}

impl Before {
    /// Everything but code and stable memory, which move in when they are replaced.
    fn of(canister: &Canister) -> Self {
        Self {
            code: None,
            stable: None,
            certified_data: canister.certified_data.clone(),
            timer_ns: canister.timer_ns,
            balance: canister.balance,
            version: canister.version,
        }
    }
}

/// The steps of one install, which share one instruction limit.
struct Steps<'a> {
    world: &'a World,
    canister: &'a mut Canister,
    sender: Principal,
    left: u64,
    reports: Vec<MessageReport>,
}

impl Replica {
    /// Installs a module, gzipped or not, in the name of `sender`, who must control the canister.
    ///
    /// The result is an empty reply or the reason why nothing changed. A module of any size is accepted here; the
    /// message limits hold for `install_code` calls to the management canister.
    pub fn install(
        &mut self,
        canister: Principal,
        mode: InstallMode,
        module: &[u8],
        arg: &[u8],
        sender: Principal,
    ) -> CallReport {
        self.begin_report();
        let result = self.install_code(canister, mode, module, arg, Author::User(sender));
        self.finish_report(result.map(|()| Vec::new()), Usage::default())
    }

    /// Installs a module and leaves its reports with the replica.
    pub(crate) fn install_code(
        &mut self,
        id: Principal,
        mode: InstallMode,
        module: &[u8],
        arg: &[u8],
        author: Author,
    ) -> Result<(), Reject> {
        let sender = author.principal();
        let world = self.world.clone();
        let canister = self.canisters.get_mut(&id).ok_or_else(|| Reject::not_found(id))?;
        canister.check_controller(sender)?;
        check_mode(canister, mode)?;
        let code = Code::load(&self.engine, &self.linker, module).map_err(|error| {
            let text = format!("Canister's Wasm module is not valid: {error}");
            Reject::from_canister(id, error_code::CANISTER_INVALID_WASM, &text)
        })?;
        let module_hash = code.hash;
        let compile = code.module.compile_cost();
        let limit = world.config.limits.instructions.install;
        let left =
            limit.checked_sub(compile).ok_or_else(|| Reject::from_trap(id, &Trap::InstructionLimit { limit }))?;
        self.compile_instructions += compile;
        let mut steps = Steps { world: &world, canister, sender, left, reports: Vec::new() };
        let result = match mode {
            InstallMode::Upgrade { skip_pre_upgrade } => steps.upgrade(code, arg, skip_pre_upgrade),
            InstallMode::Install | InstallMode::Reinstall => steps.install(code, arg),
        };
        let Steps { left, reports, .. } = steps;
        let usage = Usage { instructions: limit - left, executions: 1, ..Usage::default() };
        canister.charge(&world, &usage);
        self.reports.extend(reports);
        result.map_err(|trap| Reject::from_trap(id, &trap))?;
        canister.record(world.time_ns, author, Change::Installed { mode, module_hash });
        Ok(())
    }
}

fn check_mode(canister: &Canister, mode: InstallMode) -> Result<(), Reject> {
    let id = canister.id;
    match (mode, &canister.code) {
        (InstallMode::Install, Some(_)) => Err(Reject::new(
            error_code::CANISTER_NOT_EMPTY,
            format!(
                "Canister {id} cannot be installed because the canister is not empty. Try installing with \
                 mode='reinstall' instead."
            ),
        )),
        (InstallMode::Upgrade { .. }, None) => Err(Reject::no_module(id)),
        _ => Ok(()),
    }
}

impl Steps<'_> {
    /// Start function and `canister_init` on fresh memories.
    fn install(&mut self, code: Code, arg: &[u8]) -> Result<(), Trap> {
        let mut before = Before::of(self.canister);
        before.code = self.canister.code.replace(code);
        before.stable = Some(std::mem::take(&mut self.canister.stable));
        self.canister.certified_data.clear();
        self.canister.timer_ns = 0;
        self.canister.version += 1;
        let result = self.enter_new_code(Mode::Init, "canister_init", arg);
        self.finish(before, result)
    }

    /// `canister_pre_upgrade` of the old module; start function and `canister_post_upgrade` of the new one.
    fn upgrade(&mut self, code: Code, arg: &[u8], skip_pre_upgrade: bool) -> Result<(), Trap> {
        let mut before = Before::of(self.canister);
        let result = if skip_pre_upgrade { Ok(()) } else { self.hook(Mode::PreUpgrade, "canister_pre_upgrade", &[]) };
        before.code = self.canister.code.replace(code);
        self.canister.timer_ns = 0;
        self.canister.version += 1;
        let result = result.and_then(|()| self.enter_new_code(Mode::PostUpgrade, "canister_post_upgrade", arg));
        self.finish(before, result)
    }

    fn enter_new_code(&mut self, mode: Mode, export: &str, arg: &[u8]) -> Result<(), Trap> {
        if self.canister.code.as_ref().is_some_and(|code| code.info().has_start) {
            self.run(Mode::Start, Entry::Start, &[])?;
        }
        self.hook(mode, export, arg)
    }

    /// Runs an entry point if the module has it.
    fn hook(&mut self, mode: Mode, export: &str, arg: &[u8]) -> Result<(), Trap> {
        if !self.canister.code.as_ref().is_some_and(|code| code.exports(export)) {
            return Ok(());
        }
        self.run(mode, Entry::Export(export), arg)
    }

    /// Runs one step on what the steps before it left, without committing.
    fn run(&mut self, mode: Mode, entry: Entry<'_>, arg: &[u8]) -> Result<(), Trap> {
        let input = Input { caller: self.sender, arg: arg.to_vec(), ..Input::default() };
        let job = Job { entry, input, instructions: self.left, ..Job::system(self.world, mode, "") };
        let Some(outcome) = self.canister.execute(self.world, job) else { return Ok(()) };
        let Outcome { result, effects, balance, report } = outcome;
        self.left = self.left.saturating_sub(report.instructions);
        self.reports.push(report);
        let limit = self.world.config.limits.instructions.install;
        result.map_err(|trap| match trap {
            // Steps run with what is left; the limit that was exceeded is that of all steps together.
            Trap::InstructionLimit { .. } => Trap::InstructionLimit { limit },
            other => other,
        })?;
        self.canister.apply(&effects, balance);
        Ok(())
    }

    /// Commits a success; restores everything after a failure.
    fn finish(&mut self, before: Before, result: Result<(), Trap>) -> Result<(), Trap> {
        let Err(trap) = result.and_then(|()| self.canister.commit()) else { return Ok(()) };
        let canister = &mut *self.canister;
        canister.code = before.code;
        canister.certified_data = before.certified_data;
        canister.timer_ns = before.timer_ns;
        canister.balance = before.balance;
        canister.version = before.version;
        if let Some(stable) = before.stable {
            canister.stable = stable;
        }
        canister.rollback()?;
        Err(trap)
    }
}
