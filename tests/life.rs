//! Random lives of the real canister: calls, time, upgrades and killed messages in any order, beside a
//! naive model of what must be true. Only the shim can kill messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use canister::api::*;
use end_to_end::{CallKind, Generation, Host, Icllama, Native, Outcome, ShimHost, ask, audited, chat, full, tiny};
use local_runner::shim::limits::Limits;
use model_core::fixtures::{SplitMix64, TinyLlama};
use model_core::kernels::Kernel;

/// Bytes of the file that is uploaded beside everything else and never becomes a model.
const UPLOAD_BYTES: usize = 700_000;

fn questions() -> Vec<SessionCreateArg> {
    let random = |seed| SessionOptions {
        temperature: Some(1.3),
        seed: Some(seed),
        repeat_penalty: Some(1.2),
        prefill_batch: Some(3),
        ..audited(17)
    };
    vec![
        ask("hello world", 25),
        SessionCreateArg { input: chat("Be random.", "the world in a"), options: random(1) },
        SessionCreateArg { input: SessionInput::Text("a b c".into()), options: random(2) },
        SessionCreateArg { input: SessionInput::Tokens((40..75).collect()), options: audited(1) },
    ]
}

/// The canister and what is known about it.
struct Life {
    icllama: Icllama<ShimHost>,
    random: SplitMix64,
    questions: Vec<SessionCreateArg>,
    /// What each question's answer will be.
    answers: Vec<Generation>,
    /// Session id to its question and the tokens it has at least.
    sessions: BTreeMap<u64, (usize, usize)>,
    /// The upload and which of its bytes have arrived.
    upload: Option<(u64, Vec<bool>)>,
    /// What happened, and how often.
    seen: BTreeMap<&'static str, u32>,
}

impl Life {
    fn begin(seed: u64) -> Self {
        // Keys and values: 4 layers × 4 heads × 128 × 2 × 2 bytes = 8 KiB for each position.
        let file = TinyLlama { layers: 4, kv_heads: 4, head_dim: 128, ..tiny(seed) }.build();
        let native = Native::load(&file, Kernel::detect(), 1);
        let questions = questions();
        let answers = questions.iter().map(|question| native.generate(question).0).collect();
        let config = ConfigUpdate {
            max_instructions: Some(20_000_000),
            // Room for one or two of the sessions at a time.
            cache_heap_bytes: Some(1 << 20),
            kv_cache_bits: Some(KvCacheBits::Bits16),
            max_sessions: Some(6),
            ..ConfigUpdate::default()
        };
        let mut icllama = Icllama::install(Box::new(ShimHost::new()), config);
        icllama.serve("model", &file);
        let random = SplitMix64::new(seed);
        Self { icllama, random, questions, answers, sessions: BTreeMap::new(), upload: None, seen: BTreeMap::new() }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn any_session(&mut self) -> Option<u64> {
        let index = self.below(self.sessions.len().max(1) as u64) as usize;
        self.sessions.keys().nth(index).copied()
    }

    /// One thing happens.
    fn event(&mut self) {
        match self.below(20) {
            0..8 => self.advance(),
            8..10 => self.create(),
            10 => self.run(),
            11 => self.delete(),
            12..15 => {
                let seconds = 1 << self.below(7);
                for _ in 0..self.below(10) {
                    self.icllama.host.advance(Duration::from_secs(seconds));
                }
            }
            15 => self.icllama.upgrade(),
            16..18 => self.chunk(),
            18 => self.commit(),
            _ => self.killed(),
        }
    }

    fn loaded(&mut self) -> bool {
        self.icllama.model_status().load == LoadState::Ready
    }

    fn create(&mut self) {
        let question = self.below(self.questions.len() as u64) as usize;
        let loaded = self.loaded();
        match self.icllama.session_create(self.questions[question].clone()) {
            Ok(created) => {
                assert!(loaded && self.sessions.len() < 6);
                self.sessions.insert(created.session_id, (question, 0));
            }
            Err(Error::LimitExceeded { limit, .. }) => {
                assert_eq!((limit.as_str(), self.sessions.len()), ("max_sessions", 6));
                self.note("too many sessions");
            }
            Err(Error::ModelLoading { .. }) => {
                assert!(!loaded);
                self.note("created too early");
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn advance(&mut self) {
        let Some(session_id) = self.any_session() else { return };
        let budget = 1 << self.below(26);
        let loaded = self.loaded();
        let max_tokens = self.below(9) as u32 + 1;
        let arg = SessionAdvanceArg {
            session_id,
            max_instructions: Some(budget),
            max_tokens: Some(max_tokens),
            profile: None,
        };
        match self.icllama.session_advance(arg) {
            Ok(progress) => assert!(progress.tokens.len() <= max_tokens as usize, "{progress:?}"),
            Err(Error::ModelLoading { .. }) => {
                assert!(!loaded);
                self.note("advanced too early");
            }
            Err(Error::HeapBusy { .. }) => self.note("no room for the cache"),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn run(&mut self) {
        if let Some(session_id) = self.any_session() {
            self.icllama.session_run(SessionIdArg { session_id }).unwrap();
        }
    }

    fn delete(&mut self) {
        if let Some(session_id) = self.any_session() {
            self.icllama.session_delete(SessionIdArg { session_id }).unwrap();
            self.sessions.remove(&session_id);
        }
    }

    fn chunk(&mut self) {
        if self.upload.is_none() {
            let arg = UploadBeginArg { name: "noise".into(), total_bytes: UPLOAD_BYTES as u64, sha256: vec![9; 32] };
            match self.icllama.upload_begin(arg) {
                Ok(begun) => self.upload = Some((begun.upload_id, vec![false; UPLOAD_BYTES])),
                // Its slot holds the model that is being loaded.
                Err(Error::ModelLoading { .. }) => return,
                Err(error) => panic!("{error:?}"),
            }
        }
        let offset = self.below(7) as usize * UPLOAD_BYTES / 7;
        let bytes = (self.below(4) as usize * UPLOAD_BYTES / 7).min(UPLOAD_BYTES - offset);
        let (upload_id, arrived) = self.upload.as_mut().unwrap();
        let arg = UploadChunkArg { upload_id: *upload_id, offset: offset as u64, bytes: vec![3; bytes] };
        let answer = self.icllama.upload_chunk(arg).unwrap();
        arrived[offset..offset + bytes].fill(true);
        assert_eq!(answer.received_bytes, received(arrived));
    }

    fn commit(&mut self) {
        let whole = self.below(2) == 0;
        let Some((upload_id, arrived)) = &mut self.upload else { return };
        if whole {
            let arg = UploadChunkArg { upload_id: *upload_id, offset: 0, bytes: vec![3; UPLOAD_BYTES] };
            self.icllama.upload_chunk(arg).unwrap();
            arrived.fill(true);
        }
        let missing = arrived.len() as u64 - received(arrived);
        match self.icllama.verify(*upload_id, None) {
            Ok(()) => panic!("noise was verified"),
            Err(Error::UploadIncomplete { missing_bytes, .. }) => {
                assert_eq!(missing_bytes, missing);
                self.note("committed too early");
            }
            Err(Error::HashMismatch { .. }) => {
                assert_eq!(missing, 0);
                self.icllama.upload_abort(UploadIdArg { upload_id: *upload_id }).unwrap();
                self.upload = None;
                self.note("hash mismatch");
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// A call that may be killed in the middle.
    fn killed(&mut self) {
        let Some(session_id) = self.any_session() else { return };
        let limit = 10_000 << self.below(14);
        let before = self.icllama.host.stable_digest(self.icllama.canister);
        self.icllama.host.set_limits(|limits| limits.instructions.update = limit);
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
        let outcome = self.icllama.call::<SessionProgress>(CallKind::Update, "session_advance", (arg,));
        self.icllama.host.set_limits(|limits| *limits = Limits::default());
        if let Outcome::Rejected(reject) = outcome {
            assert_eq!(reject.error_code, 522, "{reject:?}");
            assert_eq!(self.icllama.host.stable_digest(self.icllama.canister), before);
            self.note("killed");
        }
    }

    /// What must always be true.
    fn check(&mut self) {
        let listed = self.icllama.session_list(SessionListArg::default()).unwrap().sessions;
        let ids: Vec<u64> = listed.iter().map(|session| session.status.session_id).collect();
        assert_eq!(ids, self.sessions.keys().copied().collect::<Vec<_>>());
        for (id, (question, at_least)) in &mut self.sessions {
            let now = self.icllama.generation(*id);
            let finished = now.finish.is_some() as u32;
            let whole = &self.answers[*question];
            assert!(whole.tokens.starts_with(&now.tokens), "{now:?} is no beginning of {whole:?}");
            assert!(whole.digests.starts_with(&now.digests), "{now:?} is no beginning of {whole:?}");
            assert!(whole.text.starts_with(&now.text), "{now:?} is no beginning of {whole:?}");
            assert!(now.finish.is_none() || now == *whole, "{now:?} ended otherwise than {whole:?}");
            assert!(now.tokens.len() >= *at_least, "session {id} lost tokens");
            *at_least = now.tokens.len();
            *self.seen.entry("seen finished").or_default() += finished;
        }
        let status = self.icllama.upload_status(UploadStatusArg::default()).ok();
        let expected = self.upload.as_ref().map(|(_, arrived)| received(arrived));
        assert_eq!(status.map(|status| status.received_bytes), expected);
    }

    /// All sessions are brought to their end.
    fn end(&mut self) {
        self.icllama.wait_until_ready();
        for (id, (question, _)) in std::mem::take(&mut self.sessions) {
            self.icllama.host.advance(Duration::from_secs(60));
            self.icllama.finish(id, &mut full);
            assert_eq!(self.icllama.generation(id), self.answers[question]);
        }
    }
}

fn received(arrived: &[bool]) -> u64 {
    arrived.iter().filter(|arrived| **arrived).count() as u64
}

#[test]
fn whatever_happens_answers_are_what_they_would_have_been() {
    let mut seen = BTreeMap::new();
    for seed in 1..=6 {
        let mut life = Life::begin(seed);
        for _ in 0..150 {
            life.event();
            life.check();
        }
        life.end();
        life.seen.iter().for_each(|(what, times)| *seen.entry(*what).or_insert(0) += times);
    }
    // The lives were eventful.
    assert!(seen.len() == 8 && seen.values().all(|times| *times > 2), "{seen:?}");
}
