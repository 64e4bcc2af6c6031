//! The thread that owns the canisters: executes messages one after the other, lets time pass, and saves.
//!
//! Others hand it work through a channel and read what became of it from [`State`]. Between two messages it takes all
//! that arrived, so that a query waits for one message and not for the whole queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use candid::Principal;
use ic_transport_types::RequestId;
use tokio::sync::oneshot;

use super::requests::{Call, Status};
use super::state::State;
use super::store::{Store, StoreError};
use crate::shim::call_context::CallId;
use crate::shim::{MessageReport, Reject, Replica};

/// How long the messages that are open at the end may take.
const LAST_MESSAGES: Duration = Duration::from_secs(10);

/// Receives a line about what happens.
pub type Log = Arc<dyn Fn(String) + Send + Sync>;

/// How often things happen.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one round, with timers and heartbeats, to the next.
    pub round: Duration,
    /// From one save to the next, if something changed.
    pub save: Option<Duration>,
}

/// The answer to a query.
pub type Answer = Result<Vec<u8>, Reject>;

/// A query as it arrived.
#[derive(Debug)]
pub struct Query {
    /// Who sent it.
    pub sender: Principal,
    /// Canister that is asked.
    pub canister: Principal,
    /// Method that is asked.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
}

/// What the executor is told to do.
enum Command {
    Call(RequestId, Call),
    Query(Query, oneshot::Sender<Answer>),
    Stop,
}

/// Hands work to the executor.
#[derive(Clone)]
pub struct Handle(Sender<Command>);

/// The executor does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the replica is being shut down")]
pub struct Stopped;

impl Handle {
    /// Has a registered call executed; its status tells what becomes of it.
    ///
    /// # Errors
    /// If the executor has stopped.
    pub fn call(&self, id: RequestId, call: Call) -> Result<(), Stopped> {
        self.0.send(Command::Call(id, call)).map_err(|_| Stopped)
    }

    /// Executes a query.
    ///
    /// # Errors
    /// If the executor has stopped.
    pub async fn query(&self, query: Query) -> Result<Answer, Stopped> {
        let (sender, answer) = oneshot::channel();
        self.0.send(Command::Query(query, sender)).map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Has it finish what is open, save and end.
    pub fn stop(&self) {
        // It may have ended already.
        self.0.send(Command::Stop).ok();
    }
}

/// What a running executor consists of.
pub struct Executor {
    replica: Replica,
    state: Arc<State>,
    store: Option<Store>,
    pace: Pace,
    log: Log,
    /// Calls of users that are not answered.
    open: BTreeMap<CallId, RequestId>,
    /// Something happened that is not saved.
    changed: bool,
    next_round: Instant,
    next_save: Option<Instant>,
}

impl Executor {
    /// Takes over a replica, which has the state's time and canisters from now on.
    pub fn new(mut replica: Replica, state: Arc<State>, store: Option<Store>, pace: Pace, log: Log) -> Self {
        let certifying = Arc::clone(&state);
        replica.set_certifier(Box::new(move |canister| {
            let path = [b"canister".to_vec(), canister.id().as_slice().to_vec(), b"certified_data".to_vec()];
            certifying.certificate(&[&path])
        }));
        state.publish(replica.canisters());
        let now = Instant::now();
        Self {
            replica,
            state,
            store,
            pace,
            log,
            open: BTreeMap::new(),
            // What happened before the first round, such as an installation, has to be saved too.
            changed: true,
            next_round: now,
            next_save: pace.save.map(|_| now),
        }
    }

    /// Starts the thread, which ends with the result of the last save.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(self) -> std::io::Result<(Handle, JoinHandle<Result<(), StoreError>>)> {
        let (sender, commands) = mpsc::channel();
        let thread = std::thread::Builder::new().name("replica".into()).spawn(move || self.run(&commands))?;
        Ok((Handle(sender), thread))
    }

    fn run(mut self, commands: &Receiver<Command>) -> Result<(), StoreError> {
        while self.take_commands(commands) {
            self.round_if_due();
            self.save_if_due();
            self.step();
        }
        self.finish();
        self.save()
    }

    /// Does what arrived; waits for the next round if there is nothing else to do. False if the executor has to stop.
    fn take_commands(&mut self, commands: &Receiver<Command>) -> bool {
        let mut wait = if self.replica.queued() > 0 { Duration::ZERO } else { self.until_round() };
        loop {
            match commands.recv_timeout(wait) {
                Ok(Command::Call(id, call)) => self.submit(id, &call),
                Ok(Command::Query(query, answer)) => self.query(&query, answer),
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            }
            wait = Duration::ZERO;
        }
    }

    fn until_round(&self) -> Duration {
        self.next_round.saturating_duration_since(Instant::now())
    }

    /// Moves the canisters' clock to now.
    fn follow_clock(&mut self) {
        let elapsed_ns = self.state.clock.now_ns().saturating_sub(self.replica.time_ns());
        self.replica.advance_time(elapsed_ns);
    }

    fn submit(&mut self, id: RequestId, call: &Call) {
        self.follow_clock();
        let submitted = self.replica.submit(call.canister, call.sender, &call.method, &call.arg);
        let status = match submitted {
            Ok(number) => {
                self.open.insert(number, id);
                Status::Accepted
            }
            Err(reject) => {
                (self.log)(format!("{} {}: refused: {reject}", call.canister, call.method));
                Status::Refused(reject)
            }
        };
        self.state.requests.set(id, status, self.state.clock.now_ns());
    }

    fn query(&mut self, query: &Query, answer: oneshot::Sender<Answer>) {
        self.follow_clock();
        let report = self.replica.query(query.canister, query.sender, &query.method, &query.arg);
        report.messages.iter().for_each(|message| self.log_message(message));
        // Whoever asked may have gone.
        answer.send(report.result).ok();
    }

    fn round_if_due(&mut self) {
        let now = Instant::now();
        if now >= self.next_round {
            self.next_round = now + self.pace.round;
            self.follow_clock();
            self.replica.begin_round(0);
        }
    }

    /// Executes one message, if there is one, and tells everyone what came of it.
    fn step(&mut self) {
        if let Some(id) = self.replica.next_ingress().and_then(|call| self.open.get(&call)) {
            self.state.requests.set(*id, Status::Processing, self.state.clock.now_ns());
        }
        self.follow_clock();
        if !self.replica.step() {
            return;
        }
        self.changed = true;
        for report in self.replica.take_reports() {
            self.log_message(&report);
        }
        self.state.publish(self.replica.canisters());
        let now_ns = self.state.clock.now_ns();
        let Self { open, replica, state, .. } = self;
        open.retain(|call, id| {
            let Some(answer) = replica.answer(*call) else { return true };
            state.requests.set(*id, answer.map_or_else(Status::Rejected, Status::Replied), now_ns);
            false
        });
    }

    fn log_message(&self, report: &MessageReport) {
        let MessageReport { canister, mode, method, instructions, trap, wall, .. } = report;
        let outcome = trap.as_ref().map_or(String::new(), |trap| format!(": {trap}"));
        let millis = wall.as_millis();
        (self.log)(format!("{canister} {mode} {method}: {instructions} instructions, {millis} ms{outcome}"));
        for line in &report.printed {
            (self.log)(format!("{canister} prints: {line}"));
        }
    }

    /// Executes what is open; rejects what is still open after a while.
    fn finish(&mut self) {
        let end = Instant::now() + LAST_MESSAGES;
        while self.replica.queued() > 0 && Instant::now() < end {
            self.step();
        }
        let end = Instant::now() + LAST_MESSAGES;
        while !self.replica.is_idle() && Instant::now() < end {
            self.replica.reject_open_calls();
            self.step();
        }
    }

    /// Saves if it is time and there is something to save. Only an idle replica can be saved.
    fn save_if_due(&mut self) {
        let due = self.next_save.is_some_and(|next| Instant::now() >= next);
        if !due || !self.changed || !self.replica.is_idle() {
            return;
        }
        if let Err(error) = self.save() {
            (self.log)(format!("could not save: {error}"));
        }
        self.next_save = self.pace.save.map(|interval| Instant::now() + interval);
    }

    fn save(&mut self) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        if !self.replica.is_idle() {
            return Err(StoreError::Busy);
        }
        store.ended = self.state.requests.ended(self.state.clock.now_ns());
        store.save(&mut self.replica)?;
        self.changed = false;
        Ok(())
    }
}
