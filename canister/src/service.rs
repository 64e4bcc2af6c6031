//! The canister's state machine: who may call, what a call does, what goes on by itself. Pure: the memory
//! and the platform are parameters, so all of it is tested natively. Knows nothing of `ic_cdk`.

mod expiry;
mod http;
pub mod llm;
mod models;
mod quotas;
mod reading;
mod sessions;
mod uploads;

use ic_stable_structures::Memory;

use crate::access::{CHAT_STEP, role_needed};
use crate::api::{CanisterInfo, Config, ConfigUpdate, Error, InitArg, MAX_CHUNK_BYTES, Role};
use crate::directory::DirectoryCell;
use crate::env::Env;
use crate::generate::Sessions;
use crate::http::{Counters, certified_root};
use crate::load::Models;
use crate::memory::{CONFIG, CandidCell, DIRECTORY, HEADER, Header, LAYOUT_VERSION, Memories};
use crate::upload::Uploader;

/// A timer that has not done its work for this long is taken for lost: its message trapped, which undid
/// everything it did and left no trace.
const TIMER_LOST_NS: u64 = 60_000_000_000;
/// Work that was lost this often in a row is given up.
const MAX_LOST: u32 = 3;

/// Everything the canister is.
pub struct Service<M: Memory, E: Env> {
    env: E,
    stable: M,
    header: Header<M>,
    config: Config,
    config_cell: CandidCell<ConfigUpdate, M>,
    directory: DirectoryCell<M>,
    uploader: Uploader<M>,
    models: Models<M>,
    sessions: Sessions<M>,
    timer_set_ns: Option<u64>,
    watched: bool,
    /// When the timer for sessions that expire is due, if one is set.
    expiry_timer_ns: Option<u64>,
    /// Whether the last background work was a verification.
    verified_last: bool,
    /// Timers lost since the last that did its work.
    lost: u32,
    counters: Counters,
}

/// What goes on by itself. A model that can answer comes first; then sessions that run take turns with a verification,
/// so that the old model answers while the new one is examined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Verify,
    Load,
    Run,
    /// Only what every message does besides its work.
    Expire,
}

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Opens the service over `memory` as it was left, or lays it out in an empty memory; `arg` changes
    /// settings. Nothing heavy happens: the model is loaded later, in bounded steps.
    ///
    /// # Errors
    /// A memory of another layout, or settings out of range.
    pub fn open(memory: M, env: E, arg: Option<InitArg>) -> Result<Self, Error> {
        let memories = Memories::open(memory.clone());
        let header = Header::open(memories.region(HEADER))?;
        let config_cell = CandidCell::open(memories.region(CONFIG));
        let config = Config::default().updated(&config_cell.get()?.unwrap_or_default())?;
        env.certify(&certified_root(&env.own_id()));
        let started_ns = env.time_ns();
        let mut service = Self {
            env,
            stable: memory,
            header,
            config,
            config_cell,
            directory: DirectoryCell::open(memories.region(DIRECTORY))?,
            uploader: Uploader::open(&memories),
            models: Models::open(&memories),
            sessions: Sessions::open(&memories, started_ns)?,
            timer_set_ns: None,
            watched: false,
            expiry_timer_ns: None,
            verified_last: false,
            lost: 0,
            counters: Counters { started_ns, ..Counters::default() },
        };
        if let Some(update) = arg.and_then(|arg| arg.config) {
            service.store_config(&update)?;
        }
        service.schedule();
        Ok(service)
    }

    /// Whether a message to `method` is worth executing: false only if the method would refuse the caller.
    pub fn admits_call(&self, method: &str) -> bool {
        // The canister's own step, whose calls are not inspected, is for nobody who sends messages.
        method != CHAT_STEP && role_needed(method).is_none_or(|role| self.require(role).is_ok())
    }

    /// The settings. For operators.
    ///
    /// # Errors
    /// [`Error::NotAuthorized`].
    pub fn config_get(&self) -> Result<Config, Error> {
        self.require(Role::Operator)?;
        Ok(self.config.clone())
    }

    /// Changes settings. For operators; the operator list is for controllers.
    ///
    /// # Errors
    /// [`Error::NotAuthorized`], or a setting out of range: then nothing is changed.
    pub fn config_set(&mut self, update: &ConfigUpdate) -> Result<Config, Error> {
        self.require(if update.operators.is_some() { Role::Controller } else { Role::Operator })?;
        self.store_config(update)?;
        Ok(self.config.clone())
    }

    /// What runs here.
    pub fn version(&self) -> CanisterInfo {
        CanisterInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            layout_version: LAYOUT_VERSION,
            max_chunk_bytes: MAX_CHUNK_BYTES,
            max_input_bytes: self.config.max_input_bytes,
            max_session_tokens: self.config.max_session_tokens,
            max_instructions: self.config.max_instructions,
        }
    }

    /// Does one message's worth of what goes on by itself: verifying, loading, running sessions; and deletes some that
    /// expired.
    pub fn background(&mut self) {
        self.delete_expired();
        let work = self.pending();
        match work {
            Some(Work::Verify) => self.verify_in_background(),
            Some(Work::Load) => self.load_in_background(),
            Some(Work::Run) => self.run_in_background(),
            Some(Work::Expire) | None => {}
        }
        self.verified_last = work == Some(Work::Verify);
        (self.timer_set_ns, self.lost) = (None, 0);
        self.count_background();
        self.schedule();
    }

    /// Finds out that background work traps, and ends it after some attempts, so that it cannot block the rest
    /// for ever. The only cause known is a heap that may not grow far enough.
    pub fn watchdog(&mut self) {
        self.watched = false;
        if self.timer_set_ns.is_some_and(|at| at.saturating_add(TIMER_LOST_NS) <= self.env.time_ns()) {
            (self.timer_set_ns, self.lost) = (None, self.lost + 1);
            if self.lost >= MAX_LOST {
                self.lost = 0;
                self.give_up();
            }
        }
        self.schedule();
    }

    fn give_up(&mut self) {
        let reason = format!("the canister trapped {MAX_LOST} times at this; raise its memory limit and try again");
        let ended = match self.pending() {
            Some(Work::Verify) => self.uploader.withdraw_commit(&mut self.directory),
            Some(Work::Load) => self.models.give_up(&mut self.directory, reason.clone()),
            Some(Work::Run) => self.stop_session_in_turn(reason.clone()),
            Some(Work::Expire) | None => Ok(()),
        };
        self.env.log(&format!("background work was given up: {reason} {ended:?}"));
    }

    /// Sets a timer if there is something to do in the background. Called after every update.
    pub fn schedule(&mut self) {
        self.schedule_expiry();
        if self.pending().is_none() {
            return;
        }
        let now = self.env.time_ns();
        if self.timer_set_ns.is_some_and(|at| at.saturating_add(2 * TIMER_LOST_NS) <= now) {
            // The watchdog was lost too: for a while the platform ran no timers, as it does without cycles.
            (self.timer_set_ns, self.watched) = (None, false);
        }
        if self.timer_set_ns.is_none() {
            self.timer_set_ns = Some(now);
            self.env.wake_soon();
        }
        if !self.watched {
            self.watched = true;
            self.env.watch_after(TIMER_LOST_NS);
        }
    }

    fn pending(&self) -> Option<Work> {
        let directory = self.directory.get();
        let verify = directory.upload.as_ref().is_some_and(|upload| upload.committed);
        let load = self.models.load_pending(directory);
        let serving = self.models.serving().is_some();
        let run = self.sessions.queue().any_run() && serving;
        if load && !serving {
            Some(Work::Load)
        } else if verify && !(run && self.verified_last) {
            Some(Work::Verify)
        } else if load {
            Some(Work::Load)
        } else if run {
            Some(Work::Run)
        } else if self.any_expired() {
            Some(Work::Expire)
        } else {
            None
        }
    }

    fn store_config(&mut self, update: &ConfigUpdate) -> Result<(), Error> {
        let config = self.config.updated(update)?;
        self.config_cell.set(&config.to_update())?;
        self.config = config;
        self.models.configure(&self.config);
        Ok(())
    }

    fn require(&self, role: Role) -> Result<(), Error> {
        let caller = self.env.caller();
        let admitted = self.config.admits(role, &caller, self.env.is_controller(&caller));
        if admitted { Ok(()) } else { Err(Error::NotAuthorized { role }) }
    }
}

#[cfg(test)]
mod tests;
