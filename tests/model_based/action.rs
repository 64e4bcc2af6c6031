//! What can be called, and how proptest chooses of it.

use candid::Principal;
use canister::api::*;
use end_to_end::{ask, audited, controller, principal};
use proptest::prelude::*;

/// Who calls: the controller, an operator, a listed user, somebody.
pub const CALLERS: usize = 4;

pub fn caller(index: usize) -> Principal {
    if index == 0 { controller() } else { principal(index as u8 + 1) }
}

/// What is asked of sessions.
pub fn question(index: usize) -> SessionCreateArg {
    let random = SessionOptions { temperature: Some(1.2), seed: Some(5), repeat_penalty: Some(1.2), ..audited(9) };
    match index {
        0 => ask("hello world", 7),
        1 => SessionCreateArg { input: SessionInput::Tokens((40..75).collect()), options: random },
        _ => SessionCreateArg {
            input: SessionInput::Text("the".into()),
            options: SessionOptions { logprobs: Some(1), ..audited(4) },
        },
    }
}

/// A setting that is changed.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Access(GenerateAccess),
    Sessions(u32),
    SessionsOfOne(u32),
    TokensPerDay(u64),
    Runs(u32),
    Ttl(u64),
}

impl Change {
    pub fn update(self) -> ConfigUpdate {
        let none = ConfigUpdate::default();
        match self {
            Self::Access(access) => ConfigUpdate { generate_access: Some(access), ..none },
            Self::Sessions(max) => ConfigUpdate { max_sessions: Some(max), ..none },
            Self::SessionsOfOne(max) => ConfigUpdate { max_sessions_per_principal: Some(max), ..none },
            Self::TokensPerDay(max) => ConfigUpdate { max_tokens_per_day: Some(max), ..none },
            Self::Runs(max) => ConfigUpdate { max_runs_per_principal: Some(max), ..none },
            Self::Ttl(seconds) => ConfigUpdate { session_ttl_seconds: Some(seconds), ..none },
        }
    }
}

/// One thing that happens. Sessions are named by a number of which the remainder counts.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    Announce(usize),
    /// Offset and length in thousandths of the file, and whether a byte is changed.
    Chunk(u64, u64, bool),
    Commit,
    Abort,
    LoadStep,
    Create(usize),
    Advance(usize, Option<u32>),
    Run(usize),
    Append(usize),
    Cancel(usize),
    Delete(usize),
    Configure(Change),
    Upgrade,
    StopAndStart,
    /// Seconds.
    Pass(u64),
}

fn change() -> impl Strategy<Value = Change> {
    use GenerateAccess::*;
    prop_oneof![
        prop::sample::select(vec![Controllers, AllowList, Authenticated, Anyone]).prop_map(Change::Access),
        (0u32..7).prop_map(Change::Sessions),
        (1u32..5).prop_map(Change::SessionsOfOne),
        prop::sample::select(vec![3, 30, 60, 100_000]).prop_map(Change::TokensPerDay),
        (0u32..3).prop_map(Change::Runs),
        prop::sample::select(vec![0, 59, 60, 4_000, 604_800]).prop_map(Change::Ttl),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let session = 0usize..6;
    prop_oneof![
        3 => (0usize..3).prop_map(Action::Announce),
        6 => (0u64..1000, 0u64..1000, prop::bool::weighted(0.1)).prop_map(|(offset, bytes, spoilt)| Action::Chunk(offset, bytes, spoilt)),
        2 => Just(Action::Chunk(0, 1000, false)),
        3 => Just(Action::Commit),
        1 => Just(Action::Abort),
        2 => Just(Action::LoadStep),
        6 => (0usize..3).prop_map(Action::Create),
        8 => (session.clone(), prop::option::of(1u32..5)).prop_map(|(session, tokens)| Action::Advance(session, tokens)),
        4 => session.clone().prop_map(Action::Run),
        3 => session.clone().prop_map(Action::Append),
        1 => session.clone().prop_map(Action::Cancel),
        2 => session.prop_map(Action::Delete),
        3 => change().prop_map(Action::Configure),
        2 => Just(Action::Upgrade),
        1 => Just(Action::StopAndStart),
        4 => prop::sample::select(vec![1, 30, 61, 3_000, 50_000]).prop_map(Action::Pass),
    ]
}

/// Who does what, one after the other.
pub fn actions() -> impl Strategy<Value = Vec<(usize, Action)>> {
    prop::collection::vec((0..CALLERS, action()), 1..45)
}
