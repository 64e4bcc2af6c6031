//! Random calls to the real canister, and the same calls to a naive model of what it promises: the same answers, compared in
//! full, and after every call everything that can be seen from outside. What only the canister knows, ids of sessions and
//! costs, is taken over or left out. A sequence that tells both apart is shrunk to the shortest.
//!
//! `ICLLAMA_MODEL_CASES=500 cargo test -p end-to-end model_based::` tries more sequences.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::Duration;

use candid::CandidType;
use canister::api::*;
use end_to_end::{CallKind, Host, Icllama, Native, Outcome, ShimHost, tiny};
use model_core::fixtures::TinyLlama;
use model_core::kernels::Kernel;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

mod action;
mod model;
mod uploads;

use action::{Action, CALLERS, actions, caller, question};
use model::Model;

/// A file that is uploaded, and the engine that it makes if it is a model.
pub struct File {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub sha256: Vec<u8>,
    pub native: Option<Native>,
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Two models and something else.
pub fn files() -> &'static [File; 3] {
    static FILES: OnceLock<[File; 3]> = OnceLock::new();
    FILES.get_or_init(|| {
        let small = |seed| TinyLlama { layers: 1, ..tiny(seed) }.build();
        [("one", small(1)), ("two", small(2)), ("junk", vec![7; 10_000])].map(|(name, bytes)| {
            let native = (name != "junk").then(|| Native::load(&bytes, Kernel::detect(), 1));
            File { name, sha256: sha256(&bytes), bytes, native }
        })
    })
}

/// The canister beside the model.
struct Pair {
    icllama: Icllama<ShimHost>,
    model: Model,
}

impl Pair {
    /// A canister with the first model.
    fn first() -> Icllama<ShimHost> {
        let config = ConfigUpdate {
            generate_access: Some(GenerateAccess::AllowList),
            operators: Some(vec![caller(1)]),
            users: Some(vec![caller(2)]),
            ..ConfigUpdate::default()
        };
        let mut icllama = Icllama::install(Box::new(ShimHost::new()), config);
        icllama.serve(files()[0].name, &files()[0].bytes);
        icllama
    }

    /// Another pair in the state of a new one.
    fn fresh() -> Self {
        thread_local! {
            static FIRST: RefCell<Icllama<ShimHost>> = RefCell::new(Pair::first());
        }
        let mut icllama = FIRST.with_borrow_mut(|first| {
            let host = Box::new(first.host.fork());
            Icllama { host, canister: first.canister, sender: first.sender }
        });
        let config = icllama.config_get().unwrap();
        let now_ns = icllama.host.replica().time_ns();
        let mut model = Model::new(config, now_ns);
        (model.next_upload, model.last_committed) = (2, Some(1));
        (model.current, model.serving) = (Some(0), Some(0));
        Self { icllama, model }
    }

    /// Calls an update method; `expected` is none if the caller lacks the role. Answers what both said.
    fn call<T>(
        &mut self,
        who: usize,
        method: &str,
        arg: impl CandidType,
        level: impl FnOnce(&mut T),
        expected: Option<Result<T, Error>>,
    ) -> Option<T>
    where
        T: CandidType + DeserializeOwned + Debug + PartialEq,
    {
        let outcome = self.icllama.as_sender(caller(who), |icllama| icllama.call(CallKind::Update, method, (arg,)));
        match (outcome, expected) {
            (Outcome::Rejected(reject), None) => assert_eq!(reject.error_code, 406, "{method}: {reject:?}"),
            (Outcome::Ok(mut answer), Some(Ok(expected))) => {
                level(&mut answer);
                assert_eq!(answer, expected, "{method}");
                return Some(answer);
            }
            // The text says where the file is broken.
            (Outcome::Refused(Error::ModelRejected { .. }), Some(Err(Error::ModelRejected { .. }))) => {}
            (Outcome::Refused(error), Some(Err(expected))) => assert_eq!(error, expected, "{method}"),
            (outcome, expected) => panic!("{method}: {outcome:?} instead of {expected:?}"),
        }
        None
    }

    fn happen(&mut self, who: usize, action: Action) {
        match action {
            Action::Announce(_) | Action::Chunk(..) | Action::Commit | Action::Abort | Action::LoadStep => {
                self.operate(who, action);
            }
            Action::Configure(change) => self.configure(who, change.update()),
            Action::Upgrade => {
                self.icllama.upgrade();
                self.model.upgrade();
            }
            Action::StopAndStart => {
                let (canister, sender) = (self.icllama.canister, self.icllama.sender);
                self.icllama.host.stop(canister, sender);
                self.icllama.host.start(canister, sender);
            }
            Action::Pass(seconds) => {
                self.icllama.host.advance(Duration::from_secs(seconds));
                let replica = self.icllama.host.replica();
                while !replica.run_timers().is_empty() {}
                self.model.pass(seconds);
            }
            _ => self.generate(who, action),
        }
    }

    fn operate(&mut self, who: usize, action: Action) {
        let operates = self.model.operates(caller(who));
        let upload_id = self.model.upload.as_ref().map_or(self.model.next_upload - 1, |upload| upload.id);
        match action {
            Action::Announce(file) => {
                let File { name, bytes, sha256, .. } = &files()[file];
                let (name, total_bytes, sha256) = ((*name).into(), bytes.len() as u64, sha256.clone());
                let expected = operates.then(|| self.model.announce(file));
                self.call(who, "upload_begin", UploadBeginArg { name, total_bytes, sha256 }, |_| (), expected);
            }
            Action::Chunk(offset, bytes, spoilt) => {
                let file = &files()[self.model.upload.as_ref().map_or(0, |upload| upload.file)].bytes;
                let at = |thousandths: u64| file.len() * thousandths as usize / 1000;
                let offset = at(offset);
                let mut bytes = file[offset..(offset + at(bytes)).min(file.len())].to_vec();
                if spoilt && let Some(first) = bytes.first_mut() {
                    *first ^= 1;
                }
                let expected = operates.then(|| self.model.chunk(upload_id, offset, &bytes));
                let arg = UploadChunkArg { upload_id, offset: offset as u64, bytes };
                self.call(who, "upload_chunk", arg, |_| (), expected);
            }
            Action::Commit => {
                let expected = operates.then(|| self.model.commit(upload_id));
                let level = |answer: &mut UploadCommitOk| answer.instructions = 0;
                self.call(who, "upload_commit", UploadCommitArg { upload_id, max_instructions: None }, level, expected);
            }
            Action::Abort => {
                let expected = operates.then(|| self.model.abort(upload_id));
                self.call(who, "upload_abort", UploadIdArg { upload_id }, |_| (), expected);
            }
            _ => {
                let expected = operates.then(|| self.model.load());
                let ready = |ready| ModelLoadStepOk { done_bytes: 0, total_bytes: 0, ready, instructions: 0 };
                let level = |answer: &mut ModelLoadStepOk| *answer = ready(answer.ready);
                let expected = expected.map(|loaded| loaded.map(ready));
                self.call(who, "model_load_step", ModelLoadStepArg::default(), level, expected);
            }
        }
    }

    fn configure(&mut self, who: usize, update: ConfigUpdate) {
        let expected = self.model.operates(caller(who)).then(|| {
            let config = self.model.config.updated(&update)?;
            self.model.config = config.clone();
            Ok(config)
        });
        self.call(who, "config_set", update, |_| (), expected);
    }

    /// The id of any session that was ever made; one that never was if there is none.
    fn id(&self, number: usize) -> u64 {
        let sessions = &self.model.sessions;
        if sessions.is_empty() { 12_345 } else { sessions[number % sessions.len()].id }
    }

    fn generate(&mut self, who: usize, action: Action) {
        let (caller, uses) = (caller(who), self.model.uses(caller(who)));
        let model = &mut self.model;
        match action {
            Action::Create(asked) => {
                let expected = uses.then(|| model.create(caller, asked));
                let expected =
                    expected.map(|made| made.map(|prompt_tokens| SessionCreateOk { session_id: 0, prompt_tokens }));
                let mut session_id = 0;
                let level = |made: &mut SessionCreateOk| session_id = std::mem::take(&mut made.session_id);
                if self.call(who, "session_create", question(asked), level, expected).is_some() {
                    self.model.sessions.last_mut().unwrap().id = session_id;
                }
            }
            Action::Advance(session, max_tokens) => {
                let session_id = self.id(session);
                let expected = uses.then(|| self.model.advance(caller, session_id, max_tokens));
                let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens, profile: None };
                let level = |progress: &mut SessionProgress| progress.instructions = 0;
                self.call(who, "session_advance", arg, level, expected);
            }
            Action::Run(session) => {
                let session_id = self.id(session);
                let expected = uses.then(|| self.model.run(caller, session_id));
                self.call(who, "session_run", SessionIdArg { session_id }, |_| (), expected);
            }
            Action::Append(session) => {
                let (session_id, tokens, max_tokens) = (self.id(session), vec![50, 51, 52], 3);
                let expected = uses.then(|| self.model.append(caller, session_id, &tokens, max_tokens));
                let input = SessionInput::Tokens(tokens);
                let arg = SessionAppendArg { session_id, input, max_tokens: Some(max_tokens) };
                self.call(who, "session_append", arg, |_| (), expected);
            }
            Action::Cancel(session) => {
                let session_id = self.id(session);
                let expected = self.model.cancel(caller, session_id);
                self.call(who, "session_cancel", SessionIdArg { session_id }, |_| (), Some(expected));
            }
            Action::Delete(session) => {
                let session_id = self.id(session);
                let expected = self.model.delete(caller, session_id);
                self.call(who, "session_delete", SessionIdArg { session_id }, |_| (), Some(expected));
            }
            other => panic!("{other:?} is not about sessions"),
        }
    }

    /// Everything that can be seen from outside.
    fn check(&mut self) {
        self.check_model();
        let upload = self.icllama.upload_status(UploadStatusArg { from: None, limit: Some(10_000) });
        let expected = self.model.upload.as_ref().map(|upload| upload.status());
        let upload_id = self.model.last_committed.unwrap_or(0);
        assert_eq!(upload, expected.ok_or(Error::UploadNotFound { upload_id }));
        for who in 0..CALLERS {
            self.icllama.sender = caller(who);
            self.check_caller();
        }
        self.icllama.sender = caller(0);
        self.check_answers();
    }

    fn check_model(&mut self) {
        let (status, model) = (self.icllama.model_status(), &self.model);
        let name = |file: Option<usize>| file.map(|file| files()[file].name.to_owned());
        assert_eq!(status.load, model.load_state());
        assert_eq!(status.serving.map(|serving| serving.file.name), name(model.serving));
        assert_eq!(status.stored.map(|stored| stored.name), name(model.current));
        assert_eq!(status.candidate.map(|stored| stored.name), name(model.candidate));
        assert_eq!(status.rejected.map(|rejected| rejected.model.name), name(model.rejected));
    }

    /// Sessions and quotas of whoever calls, and the settings.
    fn check_caller(&mut self) {
        let caller = self.icllama.sender;
        let model = &self.model;
        let mut expected: Vec<SessionSummary> = Vec::new();
        for kept in model.sessions.iter().filter(|kept| kept.owner == caller && !model.is_expired(kept)) {
            let (created_ns, updated_ns) = (kept.created_ns, kept.updated_ns);
            expected.push(SessionSummary { owner: caller, created_ns, updated_ns, status: kept.status() });
        }
        expected.sort_by_key(|summary| summary.status.session_id);
        let listed = self.icllama.session_list(SessionListArg::default()).unwrap();
        assert_eq!(listed, SessionListOk { sessions: expected, next: None });
        let model = &self.model;
        let quotas = QuotaStatus {
            unlimited: model.operates(caller),
            tokens_today: model.used(caller),
            max_tokens_per_day: model.config.max_tokens_per_day,
            day_ends_ns: model.day_ends_ns(),
            sessions: model.sessions.iter().filter(|kept| kept.owner == caller).count() as u32,
            max_sessions: model.config.max_sessions_per_principal,
            runs: model.runs_of(caller) as u32,
            max_runs: model.config.max_runs_per_principal,
        };
        assert_eq!(self.icllama.quota_status(), quotas);
        let config = self.icllama.config_get();
        let expected = if self.model.operates(caller) {
            Ok(self.model.config.clone())
        } else {
            Err(Error::NotAuthorized { role: Role::Operator })
        };
        assert_eq!(config, expected);
    }

    /// Tokens, digests and text of all sessions, which nobody but their owners can read.
    fn check_answers(&mut self) {
        for index in 0..self.model.sessions.len() {
            let (id, owner) = (self.model.sessions[index].id, self.model.sessions[index].owner);
            let stranger = (0..CALLERS).map(caller).find(|other| *other != owner).unwrap();
            let page = SessionPageArg { session_id: id, from: None, limit: None };
            let refused = self.icllama.as_sender(stranger, |icllama| icllama.session_tokens(page));
            assert_eq!(refused, Err(Error::SessionNotFound { session_id: id }));
            let visible = self.model.owned(owner, id).is_ok();
            let tokens = self.icllama.as_sender(owner, |icllama| icllama.session_tokens(page));
            assert_eq!(tokens.is_ok(), visible);
            if !visible {
                continue;
            }
            let given = self.icllama.as_sender(owner, |icllama| icllama.generation(id));
            let session = &self.model.sessions[index].session;
            assert_eq!((given.tokens.as_slice(), given.digests.as_slice()), (session.tokens(), session.digests()));
            let logprobs: Vec<TokenLogprobs> = session.logprobs().map(Into::into).collect();
            assert_eq!((given.text.as_str(), given.logprobs), (session.full_text(), logprobs));
        }
    }
}

/// Sequences that are tried.
fn cases() -> u32 {
    std::env::var("ICLLAMA_MODEL_CASES").map_or(10, |cases| cases.parse().unwrap())
}

#[test]
fn the_canister_answers_as_the_model_does() {
    let runs = Runs { cases: cases(), failure_persistence: None, max_shrink_iters: 300, ..Runs::default() };
    TestRunner::new_with_rng(runs, rng())
        .run(&actions(), |actions| {
            let mut pair = Pair::fresh();
            for (who, action) in actions {
                pair.happen(who, action);
                pair.check();
            }
            Ok(())
        })
        .unwrap();
}

/// The same sequences every time, unless more are asked for.
fn rng() -> proptest::test_runner::TestRng {
    use proptest::test_runner::{RngAlgorithm, TestRng};
    let seed = std::env::var("ICLLAMA_MODEL_SEED").map_or(1u8, |seed| seed.parse().unwrap());
    TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])
}
