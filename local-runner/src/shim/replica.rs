//! A replica of one subnet without consensus: canisters, one queue of messages, and a clock that only its user moves.
//!
//! Everything happens in [`Replica::step`], one message at a time in the order of the queue, so that equal calls give
//! equal results.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use candid::Principal;

use super::call_context::{CallId, Origin};
use super::canister::{Canister, Settings};
use super::config::Config;
use super::costs::PageCharges;
use super::cycles::Usage;
use super::engine::{Engine, Linker, LoadError};
use super::execution::Execution;
use super::history::{Author, Change};
use super::ic0;
use super::limits::Limits;
use super::message::World;
use super::mode::Mode;
use super::queue::{Message, Request, task_export};
use super::reject::{Reject, error_code};
use super::report::{CallReport, MessageReport};

mod deliver;
mod fees;
mod fork;
mod ingress;
mod install;
mod lifecycle;
mod query;
mod snapshot;

pub use install::InstallMode;
pub use snapshot::{CanisterSnapshot, Memories, Memory, Progress, RestoreError, Visit};

/// Canister ids are eight bytes of number and two bytes that say "canister of this kind".
const CANISTER_ID_SUFFIX: [u8; 2] = [1, 1];

/// A replica of one subnet.
///
/// ```
/// use candid::Principal;
/// use local_runner::shim::{Config, InstallMode, Replica};
///
/// let wasm = wat::parse_str(
///     r#"(module
///         (import "ic0" "msg_reply" (func $reply))
///         (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
///         (memory (export "memory") 1)
///         (data (i32.const 0) "hello")
///         (func (export "canister_query greet") (call $append (i32.const 0) (i32.const 5)) (call $reply)))"#,
/// )?;
/// let me = Principal::anonymous();
/// let mut replica = Replica::new(Config { module_cache: None, ..Config::default() })?;
/// let canister = replica.create_canister([me]);
/// assert!(replica.install(canister, InstallMode::Install, &wasm, b"", me).result.is_ok());
/// let report = replica.query(canister, me, "greet", b"");
/// assert_eq!(report.result, Ok(b"hello".to_vec()));
/// // Two calls with their system charges, and a heap page that is read for the reply.
/// assert_eq!(report.instructions(), 13 + (500 + 50 * 5) + 500 + 16 * 5_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Replica {
    pub(super) world: World,
    pub(super) engine: Engine,
    pub(super) linker: Linker<Execution>,
    pub(super) canisters: BTreeMap<Principal, Canister>,
    pub(super) queue: VecDeque<Message>,
    pub(super) answers: BTreeMap<CallId, Result<Vec<u8>, Reject>>,
    /// What has a price in calls from users that are not reported yet.
    pub(super) ingress_usage: BTreeMap<CallId, Usage>,
    /// Executions that were not reported yet.
    pub(super) reports: Vec<MessageReport>,
    /// Instructions for compiling modules that were not reported yet.
    pub(super) compile_instructions: u64,
    pub(super) next_call: CallId,
    pub(super) next_canister: u64,
    pub(super) random_blocks: u64,
    /// Makes certificates of certified data for queries, if somebody can sign them.
    pub(super) certifier: Option<Certifier>,
}

/// Makes the certificate of a canister's certified data.
pub type Certifier = Box<dyn Fn(&Canister) -> Vec<u8> + Send>;

impl Replica {
    /// An empty replica.
    ///
    /// # Errors
    /// If the engine does not support this processor.
    pub fn new(config: Config) -> Result<Self, LoadError> {
        let engine = Engine::new(config.module_cache.clone())?;
        let mut linker = engine.linker();
        ic0::link(&mut linker)?;
        let world = World {
            subnet: config.subnet(),
            root_key: config.root_key.as_slice().into(),
            time_ns: config.start_time_ns,
            config: Arc::new(config),
        };
        Ok(Self {
            world,
            engine,
            linker,
            canisters: BTreeMap::new(),
            queue: VecDeque::new(),
            answers: BTreeMap::new(),
            ingress_usage: BTreeMap::new(),
            reports: Vec::new(),
            compile_instructions: 0,
            next_call: 0,
            // The first id is that of the platform's first application canister, rrkah-fqaaa-aaaaa-aaaaq-cai.
            next_canister: 1,
            random_blocks: 0,
            certifier: None,
        })
    }

    /// Has queries see certificates that `certifier` makes; by default they see what nobody signed.
    pub fn set_certifier(&mut self, certifier: Certifier) {
        self.certifier = Some(certifier);
    }

    /// How the replica was set up.
    pub fn config(&self) -> &Config {
        &self.world.config
    }

    /// Changes the ceilings of all messages to come.
    pub fn change_limits(&mut self, change: impl FnOnce(&mut Limits)) {
        change(&mut Arc::make_mut(&mut self.world.config).limits);
    }

    /// Changes what pages cost all messages to come.
    pub fn change_page_charges(&mut self, charges: PageCharges) {
        Arc::make_mut(&mut self.world.config).pages = charges;
    }

    /// Time in nanoseconds since 1970.
    pub fn time_ns(&self) -> u64 {
        self.world.time_ns
    }

    /// A canister.
    pub fn canister(&self, id: Principal) -> Option<&Canister> {
        self.canisters.get(&id)
    }

    /// All canisters, in the order of their ids.
    pub fn canisters(&self) -> impl Iterator<Item = &Canister> {
        self.canisters.values()
    }

    /// Creates an empty canister with the configured balance.
    pub fn create_canister(&mut self, controllers: impl IntoIterator<Item = Principal>) -> Principal {
        let controllers: BTreeSet<_> = controllers.into_iter().collect();
        let author = Author::User(controllers.first().copied().unwrap_or(Principal::anonymous()));
        let settings = Settings::new(controllers, &self.world.config);
        self.add_canister(settings, self.world.config.initial_cycles, author)
    }

    /// Creates an empty canister with the next free id.
    pub(super) fn add_canister(&mut self, settings: Settings, balance: u128, author: Author) -> Principal {
        loop {
            let id = canister_id(self.next_canister);
            self.next_canister += 1;
            if !self.canisters.contains_key(&id) {
                self.insert(Canister::new(id, settings, balance), author);
                return id;
            }
        }
    }

    fn insert(&mut self, mut canister: Canister, author: Author) {
        let controllers = canister.settings.controllers.iter().copied().collect();
        canister.record(self.world.time_ns, author, Change::Created { controllers });
        self.canisters.insert(canister.id, canister);
    }

    /// Creates an empty canister with an id that its creator chose.
    pub(super) fn add_canister_with_id(
        &mut self,
        id: Principal,
        settings: Settings,
        balance: u128,
        author: Author,
    ) -> Result<Principal, Reject> {
        if self.canisters.contains_key(&id) {
            let text = format!("Canister {id} already exists");
            return Err(Reject::new(error_code::CANISTER_ID_ALREADY_EXISTS, text));
        }
        self.insert(Canister::new(id, settings, balance), author);
        Ok(id)
    }

    /// Executes the next message of the queue; false if there is none.
    pub fn step(&mut self) -> bool {
        let Some(message) = self.queue.pop_front() else { return false };
        match message {
            Message::Request(request) => self.deliver_request(request),
            Message::Response(response) => self.deliver_response(response),
            Message::Task { canister, mode } => self.deliver_task(canister, mode),
        }
        true
    }

    /// Messages waiting to be executed.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Executes messages until the queue is empty, at most the configured number; answers what was executed.
    pub fn process(&mut self) -> Vec<MessageReport> {
        for _ in 0..self.world.config.messages_per_run {
            if !self.step() {
                break;
            }
        }
        self.take_reports()
    }

    /// Executions since the last report.
    pub fn take_reports(&mut self) -> Vec<MessageReport> {
        std::mem::take(&mut self.reports)
    }

    /// Moves the clock. Deadlines that pass take effect; timers wait for the next [`Replica::tick`].
    pub fn advance_time(&mut self, by_ns: u64) {
        self.world.time_ns = self.world.time_ns.saturating_add(by_ns);
        self.charge_idle_time(by_ns);
        self.expire_calls();
        self.expire_stop_requests();
    }

    /// One round: moves the clock by the configured step, runs due timers and heartbeats, and processes the queue.
    pub fn tick(&mut self) -> Vec<MessageReport> {
        self.begin_round(self.world.config.tick_ns);
        self.process()
    }

    /// Moves the clock, and queues due timers and heartbeats without executing them.
    pub fn begin_round(&mut self, by_ns: u64) {
        self.advance_time(by_ns);
        self.schedule_tasks();
    }

    /// Runs timers that are due without moving the clock, and processes the queue.
    pub fn run_timers(&mut self) -> Vec<MessageReport> {
        self.schedule(|canister, now| due_timer(canister, now).then_some(Mode::GlobalTimer));
        self.process()
    }

    /// Queues heartbeats and due timers.
    fn schedule_tasks(&mut self) {
        self.schedule(|canister, now| due_timer(canister, now).then_some(Mode::GlobalTimer));
        let waiting: BTreeSet<_> = self.queue.iter().filter_map(queued_heartbeat).collect();
        self.schedule(|canister, _| {
            let due = canister.code().is_some_and(|code| code.exports(task_export(Mode::Heartbeat)));
            (due && !waiting.contains(&canister.id)).then_some(Mode::Heartbeat)
        });
    }

    /// Queues a task for each running canister for which `task` names one.
    fn schedule(&mut self, task: impl Fn(&Canister, u64) -> Option<Mode>) {
        for canister in self.canisters.values_mut() {
            if canister.check_accepts_calls().is_err() {
                continue;
            }
            let Some(mode) = task(canister, self.world.time_ns) else { continue };
            if mode == Mode::GlobalTimer {
                canister.timer_ns = 0;
            }
            if canister.code().is_some_and(|code| code.exports(task_export(mode))) {
                self.queue.push_back(Message::Task { canister: canister.id, mode });
            }
        }
    }

    /// Calls an update method as `sender` and executes messages until it is answered.
    ///
    /// Messages that are left in the queue after the answer stay there: see [`Replica::process`]. If the queue runs
    /// empty without an answer, time passes tick by tick (timers and heartbeats run) as far as the configuration
    /// allows.
    pub fn update(&mut self, canister: Principal, sender: Principal, method: &str, arg: &[u8]) -> CallReport {
        self.begin_report();
        match self.submit(canister, sender, method, arg) {
            Ok(call) => self.wait(call),
            Err(reject) => self.finish_report(Err(reject), Usage::default()),
        }
    }

    /// Forgets executions that nobody asked about.
    pub(super) fn begin_report(&mut self) {
        self.reports.clear();
        self.compile_instructions = 0;
    }

    /// Everything executed since the last report, as the report of one call.
    pub(super) fn finish_report(&mut self, result: Result<Vec<u8>, Reject>, ingress: Usage) -> CallReport {
        let messages = self.take_reports();
        let compile_instructions = std::mem::take(&mut self.compile_instructions);
        let mut usage = ingress;
        usage.instructions += compile_instructions;
        for message in &messages {
            usage += message.usage;
        }
        CallReport { result, messages, compile_instructions, usage }
    }

    /// Executes messages until the call is answered.
    ///
    /// Executions since the last report are part of the result.
    pub fn wait(&mut self, call: CallId) -> CallReport {
        let mut ticks = 0;
        let mut messages = 0;
        let result = loop {
            if let Some(answer) = self.answers.remove(&call) {
                break answer;
            }
            if messages >= self.world.config.messages_per_run || ticks >= self.world.config.patience_ticks {
                break Err(Reject::new(
                    error_code::RESPONSE_DROPPED,
                    format!("the call was not answered within {messages} messages and {ticks} ticks; it goes on"),
                ));
            }
            if self.step() {
                messages += 1;
            } else {
                ticks += 1;
                self.begin_round(self.world.config.tick_ns);
            }
        };
        let ingress = self.ingress_usage.remove(&call).unwrap_or_default();
        self.finish_report(result, ingress)
    }

    /// The answer to a submitted call, once there is one.
    pub fn answer(&mut self, call: CallId) -> Option<Result<Vec<u8>, Reject>> {
        let answer = self.answers.remove(&call)?;
        self.ingress_usage.remove(&call);
        Some(answer)
    }

    /// The call of a user that the next step executes, if it does.
    pub fn next_ingress(&self) -> Option<CallId> {
        match self.queue.front()? {
            Message::Request(Request { origin: Origin::Ingress(call), .. }) => Some(*call),
            _ => None,
        }
    }

    /// Whether nothing is queued and no canister waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.canisters.values().all(|canister| canister.calls.is_empty())
    }
}

/// The id of the canister with this number.
pub fn canister_id(number: u64) -> Principal {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    let [kind, class] = CANISTER_ID_SUFFIX;
    Principal::from_slice(&[a, b, c, d, e, f, g, h, kind, class])
}

fn due_timer(canister: &Canister, now_ns: u64) -> bool {
    canister.timer_ns().is_some_and(|deadline| deadline <= now_ns)
}

fn queued_heartbeat(message: &Message) -> Option<Principal> {
    match message {
        Message::Task { canister, mode: Mode::Heartbeat } => Some(*canister),
        _ => None,
    }
}
