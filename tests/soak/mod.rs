//! A soak: a hundred users at once, each with sessions that are advanced, run, read, cancelled and deleted at random, and
//! upgrades in between. Nothing may fail but what has to be refused, no session may be lost, and every token and every
//! digest has to be the native one. `scripts/soak.sh` runs it for a quarter of an hour, the tests for some seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

mod agents;
mod endpoint;
mod shim;
mod tally;
mod user;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use canister::api::*;
use end_to_end::{Host, Icllama, Native, ask, audited, chat, principal, tiny};
use model_core::kernels::Kernel;
use tally::Tally;
use user::{Question, SESSIONS, User};

/// How long a soak is, and how dense.
#[derive(Debug, Clone, Copy)]
struct Plan {
    users: u8,
    /// Without the end, when all sessions are finished.
    length: Duration,
    /// From one upgrade to the next.
    upgrades: Duration,
    /// Heap bytes for the sessions' caches.
    cache_heap_bytes: u64,
}

impl Plan {
    /// Some seconds.
    const SHORT: Self = Self {
        users: 24,
        length: Duration::from_secs(2),
        upgrades: Duration::from_millis(600),
        cache_heap_bytes: 64 << 20,
    };

    /// As long as `ICLLAMA_SOAK_SECONDS` says, with an upgrade every minute and caches that are too small for all.
    fn long() -> Self {
        let seconds = std::env::var("ICLLAMA_SOAK_SECONDS").map_or(900, |seconds| seconds.parse().unwrap());
        let length = Duration::from_secs(seconds);
        Self { length, upgrades: Duration::from_secs(60), cache_heap_bytes: 2 << 20, users: 100 }
    }

    fn config(&self) -> ConfigUpdate {
        ConfigUpdate {
            generate_access: Some(GenerateAccess::Authenticated),
            cache_heap_bytes: Some(self.cache_heap_bytes),
            max_sessions: Some(1_000),
            max_sessions_per_principal: Some(SESSIONS),
            max_runs_per_principal: Some(SESSIONS),
            max_tokens_per_day: Some(u64::MAX),
            ..ConfigUpdate::default()
        }
    }

    fn users(&self, questions: &Arc<Vec<Question>>) -> Vec<User> {
        let user = |number: u8| User::new(principal(100 + number), Arc::clone(questions), number.into());
        (0..self.users).map(user).collect()
    }
}

fn model() -> Vec<u8> {
    tiny(77).build()
}

fn questions() -> Arc<Vec<Question>> {
    let native = Native::load(&model(), Kernel::detect(), 1);
    let random = |seed| SessionOptions { temperature: Some(1.2), seed: Some(seed), ..audited(30) };
    let arg = |input, options| SessionCreateArg { input, options };
    let json = SessionOptions { grammar: Some(Grammar::Json), ..random(5) };
    let args = [
        ask("hello world", 40),
        arg(chat("Be random.", "the world in a"), random(1)),
        arg(SessionInput::Text("a b c".into()), SessionOptions { logprobs: Some(2), ..random(2) }),
        arg(SessionInput::Tokens((40..75).collect()), audited(12)),
        arg(SessionInput::Text("hello".into()), SessionOptions { kv_cache_bits: Some(8), ..random(4) }),
        arg(SessionInput::Text("the".into()), json),
    ];
    Arc::new(args.map(|arg| Question::new(arg, &native)).into())
}

/// The canister at one time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    sessions: usize,
    open: usize,
    stable_bytes: u64,
    heap_bytes: u64,
}

impl Sample {
    fn take<H: Host>(icllama: &mut Icllama<H>, at: Duration) -> Self {
        let all = SessionListArg { all: Some(true), limit: Some(1_000), ..SessionListArg::default() };
        let sessions = icllama.session_list(all).unwrap().sessions;
        let status = icllama.model_status();
        Self {
            at,
            sessions: sessions.len(),
            open: sessions.iter().filter(|session| !end_to_end::is_finished(&session.status)).count(),
            stable_bytes: status.stable_bytes,
            heap_bytes: status.heap_bytes,
        }
    }
}

/// What a soak came to.
struct Report {
    tally: Tally,
    upgrades: u32,
    /// Before each upgrade.
    samples: Vec<Sample>,
    /// After everything was finished and deleted.
    end: Sample,
}

impl Report {
    fn new<H: Host>(icllama: &mut Icllama<H>, users: Vec<User>, samples: Vec<Sample>, at: Duration) -> Self {
        let mut tally = Tally::default();
        users.into_iter().for_each(|user| tally.add(user.tally));
        Self { tally, upgrades: samples.len() as u32, samples, end: Sample::take(icllama, at) }
    }

    /// Fails if a number is not as it must be. In some seconds on a busy machine not everything happens.
    fn check(&self, plan: Plan) {
        let Tally { created, finished, cancelled, abandoned, lost, unexpected, .. } = self.tally;
        assert_eq!((lost, unexpected), (0, 0));
        assert_eq!(created, finished + cancelled + abandoned, "each session has its end");
        assert!(finished > 0 && self.upgrades > 0);
        assert_eq!(self.end.sessions, 0);
        let settled = self.samples[self.samples.len() / 3];
        if plan.length >= Duration::from_secs(60) {
            let all_open = |sample: &Sample| sample.open >= usize::from(plan.users);
            assert!(cancelled > 0 && abandoned > 0 && self.samples.iter().all(all_open), "too little happened");
        }
        let bound = 16 << 20;
        assert!(self.end.stable_bytes <= settled.stable_bytes + bound, "stable memory grows");
        assert!(self.end.heap_bytes <= settled.heap_bytes + bound, "the heap grows");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.tally)?;
        writeln!(f, "upgrades   {}", self.upgrades)?;
        writeln!(f, "{:>10} {:>9} {:>6} {:>14} {:>14}", "second", "sessions", "open", "stable bytes", "heap bytes")?;
        for Sample { at, sessions, open, stable_bytes, heap_bytes } in self.samples.iter().chain([&self.end]) {
            writeln!(f, "{:>10} {sessions:>9} {open:>6} {stable_bytes:>14} {heap_bytes:>14}", at.as_secs())?;
        }
        Ok(())
    }
}

/// Runs a soak, prints its numbers, then looks at them.
fn check(name: &str, plan: Plan, soak: fn(Plan) -> Report) {
    let report = soak(plan);
    println!("soak: {name}, {} users, {} s\n{report}", plan.users, plan.length.as_secs());
    report.check(plan);
}

#[test]
fn some_users_in_the_shim_for_seconds() {
    check("in the shim", Plan::SHORT, shim::soak);
}

#[test]
fn some_users_of_the_endpoint_for_seconds() {
    check("through the endpoint", Plan::SHORT, endpoint::soak);
}

#[test]
#[ignore = "takes a quarter of an hour; scripts/soak.sh"]
fn a_hundred_users_in_the_shim_for_long() {
    check("in the shim", Plan::long(), shim::soak);
}

#[test]
#[ignore = "takes a quarter of an hour; scripts/soak.sh"]
fn a_hundred_users_of_the_endpoint_for_long() {
    check("through the endpoint", Plan::long(), endpoint::soak);
}
