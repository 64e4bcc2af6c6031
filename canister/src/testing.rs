//! A platform and a canister on it for native tests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use std::ops::Range;

use candid::Principal;
use ic_stable_structures::VectorMemory;
use model_core::fixtures::TinyLlama;
use model_core::profile::Counter;
use sha2::{Digest, Sha256};

use crate::api::*;
use crate::env::Env;
use crate::service::Service;

/// Everything settable; clones share their state, as messages share the platform.
#[derive(Clone, Default)]
pub struct FakeEnv(Rc<State>);

struct State {
    caller: Cell<Principal>,
    controllers: RefCell<Vec<Principal>>,
    time_ns: Cell<u64>,
    timers: Cell<u32>,
    watches: Cell<u32>,
    expiry_ns: Cell<Option<u64>>,
    liquid_cycles: Cell<u128>,
    log: RefCell<Vec<String>>,
    certified: RefCell<Vec<u8>>,
    certificate: RefCell<Option<Vec<u8>>>,
}

thread_local! {
    /// The counter is a plain function, as on the platform, so its state belongs to the thread: one platform per test.
    static INSTRUCTIONS: Cell<u64> = const { Cell::new(0) };
    /// Each look at the counter costs this much, so that budgets run out without real work being counted.
    static PER_LOOK: Cell<u64> = const { Cell::new(0) };
}

fn look() -> u64 {
    INSTRUCTIONS.set(INSTRUCTIONS.get() + PER_LOOK.get());
    INSTRUCTIONS.get()
}

impl Default for State {
    fn default() -> Self {
        INSTRUCTIONS.set(0);
        PER_LOOK.set(0);
        Self {
            caller: Cell::new(Principal::anonymous()),
            controllers: RefCell::default(),
            time_ns: Cell::new(1_000_000_000),
            timers: Cell::new(0),
            watches: Cell::new(0),
            expiry_ns: Cell::new(None),
            liquid_cycles: Cell::new(2_000_000_000_000),
            log: RefCell::default(),
            certified: RefCell::default(),
            certificate: RefCell::default(),
        }
    }
}

impl FakeEnv {
    pub fn set_caller(&self, who: Principal) {
        self.0.caller.set(who);
    }

    pub fn add_controller(&self, who: Principal) {
        self.0.controllers.borrow_mut().push(who);
    }

    pub fn spend(&self, instructions: u64) {
        INSTRUCTIONS.set(INSTRUCTIONS.get() + instructions);
    }

    pub fn set_cost_per_look(&self, instructions: u64) {
        PER_LOOK.set(instructions);
    }

    /// A new message begins.
    pub fn next_message(&self) {
        INSTRUCTIONS.set(0);
        self.advance_ns(1_000_000_000);
    }

    pub fn advance_ns(&self, ns: u64) {
        self.0.time_ns.set(self.0.time_ns.get() + ns);
    }

    /// Timers set and not yet taken; takes them.
    pub fn take_timers(&self) -> u32 {
        self.0.timers.take()
    }

    /// Watchdog timers set and not yet taken; takes them.
    pub fn take_watches(&self) -> u32 {
        self.0.watches.take()
    }

    /// When the last expiry timer is due, if one was set and not yet taken; takes it.
    pub fn take_expiry(&self) -> Option<u64> {
        self.0.expiry_ns.take()
    }

    pub fn set_liquid_cycles(&self, cycles: u128) {
        self.0.liquid_cycles.set(cycles);
    }

    /// What the canister asked to be certified last.
    pub fn certified(&self) -> Vec<u8> {
        self.0.certified.borrow().clone()
    }

    /// The certificate that messages see from now on.
    pub fn set_certificate(&self, certificate: Option<Vec<u8>>) {
        self.0.certificate.replace(certificate);
    }

    pub fn log_lines(&self) -> Vec<String> {
        self.0.log.borrow().clone()
    }
}

impl Env for FakeEnv {
    fn caller(&self) -> Principal {
        self.0.caller.get()
    }

    fn is_controller(&self, who: &Principal) -> bool {
        self.0.controllers.borrow().contains(who)
    }

    fn time_ns(&self) -> u64 {
        self.0.time_ns.get()
    }

    fn instructions(&self) -> u64 {
        look()
    }

    fn counter(&self) -> Counter {
        look
    }

    fn heap_bytes(&self) -> u64 {
        0
    }

    fn own_id(&self) -> Principal {
        OWN_ID
    }

    fn cycles(&self) -> u128 {
        3_000_000_000_000
    }

    fn liquid_cycles(&self) -> u128 {
        self.0.liquid_cycles.get()
    }

    fn certify(&self, root: &[u8; 32]) {
        self.0.certified.replace(root.to_vec());
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        self.0.certificate.borrow().clone()
    }

    fn wake_soon(&self) {
        self.0.timers.set(self.0.timers.get() + 1);
    }

    fn watch_after(&self, _: u64) {
        self.0.watches.set(self.0.watches.get() + 1);
    }

    fn expire_after(&self, delay_ns: u64) {
        self.0.expiry_ns.set(Some(self.time_ns() + delay_ns));
    }

    fn log(&self, line: &str) {
        self.0.log.borrow_mut().push(line.into());
    }
}

pub type TestService = Service<VectorMemory, FakeEnv>;

pub const OWN_ID: Principal = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
pub const CONTROLLER: Principal = Principal::from_slice(&[1, 1]);
pub const OPERATOR: Principal = Principal::from_slice(&[2, 2]);
pub const USER: Principal = Principal::from_slice(&[3, 3]);
pub const OTHER: Principal = Principal::from_slice(&[4, 4]);

/// A service with its memory and platform, so that it can be upgraded. Every call is a message of its own.
pub struct Canister {
    pub memory: VectorMemory,
    pub env: FakeEnv,
    pub service: TestService,
}

impl Canister {
    /// Freshly installed; operators and users are listed.
    pub fn new() -> Self {
        let env = FakeEnv::default();
        env.add_controller(CONTROLLER);
        let config = ConfigUpdate {
            operators: Some(vec![OPERATOR]),
            users: Some(vec![USER, OTHER]),
            generate_access: Some(GenerateAccess::AllowList),
            ..ConfigUpdate::default()
        };
        let memory = VectorMemory::default();
        let service = Service::open(memory.clone(), env.clone(), Some(InitArg { config: Some(config) })).unwrap();
        Self { memory, env, service }
    }

    /// One with `model` uploaded and loaded.
    pub fn serving(model: &[u8]) -> Self {
        let mut canister = Self::new();
        canister.upload(model);
        canister.settle();
        canister
    }

    /// What an upgrade leaves: stable memory.
    pub fn upgrade(&mut self) {
        self.env.next_message();
        self.env.take_timers();
        self.env.take_watches();
        self.service = Service::open(self.memory.clone(), self.env.clone(), None).unwrap();
    }

    /// An update call.
    pub fn call<R>(&mut self, caller: Principal, method: impl FnOnce(&mut TestService) -> R) -> R {
        self.env.next_message();
        self.env.set_caller(caller);
        let answer = method(&mut self.service);
        self.service.schedule();
        answer
    }

    /// Runs one timer if one is set.
    pub fn tick(&mut self) -> bool {
        let due = self.env.take_timers() > 0;
        if due {
            self.env.next_message();
            self.env.set_caller(Principal::management_canister());
            self.service.background();
        }
        due
    }

    /// Loses the timer that is set, as a trap in its message does, and lets the watchdog find out.
    pub fn lose_timer(&mut self) {
        assert_eq!(self.env.take_timers(), 1);
        self.env.advance_ns(60_000_000_000);
        assert_eq!(self.env.take_watches(), 1);
        self.call(Principal::management_canister(), Service::watchdog);
    }

    /// Runs timers until none is set.
    pub fn settle(&mut self) {
        let mut ticks = 0;
        while self.tick() {
            ticks += 1;
            assert!(ticks < 100_000, "the background work does not end");
        }
    }

    pub fn begin(&mut self, model: &[u8]) -> u64 {
        let arg = begin_arg(model);
        self.call(OPERATOR, |service| service.upload_begin(arg)).unwrap().upload_id
    }

    pub fn send(&mut self, upload_id: u64, model: &[u8], range: Range<usize>) -> Result<UploadChunkOk, Error> {
        let chunk = UploadChunk { upload_id, offset: range.start as u64, bytes: &model[range] };
        self.call(OPERATOR, |service| service.upload_chunk(chunk))
    }

    pub fn commit(&mut self, upload_id: u64) -> Result<UploadCommitOk, Error> {
        let arg = UploadCommitArg { upload_id, max_instructions: None };
        self.call(OPERATOR, |service| service.upload_commit(arg))
    }

    /// Uploads and commits in one go.
    pub fn upload(&mut self, model: &[u8]) {
        let upload_id = self.begin(model);
        self.send(upload_id, model, 0..model.len()).unwrap();
        assert!(self.commit(upload_id).unwrap().done);
    }

    pub fn create(&mut self, caller: Principal, input: SessionInput, options: SessionOptions) -> Result<u64, Error> {
        let arg = SessionCreateArg { input, options };
        self.call(caller, |service| service.session_create(arg)).map(|ok| ok.session_id)
    }

    pub fn advance(&mut self, caller: Principal, session_id: u64) -> Result<SessionProgress, Error> {
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
        self.call(caller, |service| service.session_advance(arg))
    }

    /// Advances to the end; all the text that came.
    pub fn finish(&mut self, caller: Principal, session_id: u64) -> String {
        let mut text = String::new();
        loop {
            let progress = self.advance(caller, session_id).unwrap();
            assert_eq!(progress.text_from, text.len() as u64);
            text.push_str(&progress.text);
            if matches!(progress.status.state, SessionState::Finished(_)) {
                return text;
            }
        }
    }

    /// Everything about a session that an answer consists of: tokens, digests, text.
    pub fn answer(&mut self, caller: Principal, session_id: u64) -> Answer {
        let page = SessionPageArg { session_id, from: None, limit: None };
        let output = SessionOutputArg { session_id, from: 0 };
        self.call(caller, |service| Answer {
            tokens: service.session_tokens(page).unwrap().tokens,
            digests: service.session_digests(page).unwrap().digests,
            text: service.session_output(output).unwrap().text,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub digests: Vec<u64>,
    pub text: String,
}

pub fn begin_arg(model: &[u8]) -> UploadBeginArg {
    let sha256 = Sha256::digest(model).to_vec();
    UploadBeginArg { name: "tiny".into(), total_bytes: model.len() as u64, sha256 }
}

pub fn model(seed: u64) -> Vec<u8> {
    TinyLlama { seed, ..TinyLlama::default() }.build()
}

pub fn text(text: &str) -> SessionInput {
    SessionInput::Text(text.into())
}

/// An audited answer of 24 tokens, with chance.
pub fn options(seed: u64) -> SessionOptions {
    SessionOptions {
        max_tokens: Some(24),
        seed: Some(seed),
        ignore_eos: Some(true),
        audit: Some(true),
        ..SessionOptions::default()
    }
}
