//! A typed client of the canister on any [`Host`], and the sequences of calls that tests share.

use std::time::Duration;

use candid::utils::ArgumentEncoder;
use candid::{CandidType, Principal};
use canister::api::*;
use model_core::fixtures::SplitMix64;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::{CallKind, Chunk, Host, InstallMode, Reject, canister_module, chunks};

/// What a call came to: its answer, the canister's refusal, or a reject by the platform.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// The answer.
    Ok(T),
    /// The canister refused, with the reason.
    Refused(Error),
    /// The platform rejected the call: it trapped, or `canister_inspect_message` did not accept it.
    Rejected(Reject),
}

impl<T> Outcome<T> {
    /// The answer or the refusal.
    ///
    /// # Panics
    /// If the platform rejected the call.
    pub fn answered(self) -> Result<T, Error> {
        match self {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Refused(error) => Err(error),
            Outcome::Rejected(reject) => panic!("rejected: {reject:?}"),
        }
    }
}

/// A principal of an identity, one per number.
pub fn principal(number: u8) -> Principal {
    Principal::self_authenticating([number])
}

/// The controller of every canister in these tests.
pub fn controller() -> Principal {
    principal(1)
}

/// One canister with the service on it.
pub struct Icllama<H: Host + ?Sized = dyn Host> {
    /// The platform it lives on.
    pub host: Box<H>,
    /// The canister.
    pub canister: Principal,
    /// Who calls.
    pub sender: Principal,
}

/// Longest time that anything that goes on by itself takes in these tests, in timer rounds.
const PATIENCE: usize = 20_000;

impl Icllama {
    /// Installs the service on a new host of every kind.
    pub fn everywhere(config: ConfigUpdate) -> Vec<Self> {
        crate::hosts().into_iter().map(|host| Self::install(host, config.clone())).collect()
    }
}

impl<H: Host + ?Sized> Icllama<H> {
    /// Installs the service with default settings but `config`; its controller calls.
    pub fn install(mut host: Box<H>, config: ConfigUpdate) -> Self {
        let canister = host.create(&[controller()]);
        let arg = candid::encode_one(Some(InitArg { config: Some(config) })).unwrap();
        host.install(canister, InstallMode::Install, canister_module(), &arg, controller()).unwrap();
        Self { host, canister, sender: controller() }
    }

    /// Installs the same module again, keeping stable memory only.
    pub fn upgrade(&mut self) {
        self.try_upgrade().unwrap();
    }

    /// Installs the same module again, keeping stable memory only.
    ///
    /// # Errors
    /// What trapped.
    pub fn try_upgrade(&mut self) -> Result<(), Reject> {
        let arg = candid::encode_one(None::<InitArg>).unwrap();
        self.host.install(self.canister, InstallMode::Upgrade, canister_module(), &arg, controller())
    }

    /// Installs the same module again, keeping nothing.
    pub fn reinstall(&mut self) {
        let arg = candid::encode_one(None::<InitArg>).unwrap();
        self.host.install(self.canister, InstallMode::Reinstall, canister_module(), &arg, controller()).unwrap();
    }

    /// The same client, calling as somebody else for the length of `calls`.
    pub fn as_sender<T>(&mut self, sender: Principal, calls: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.sender, sender);
        let result = calls(self);
        self.sender = before;
        result
    }

    /// Calls any method whose answer is a `Result`.
    pub fn call<T: CandidType + DeserializeOwned>(
        &mut self,
        kind: CallKind,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> Outcome<T> {
        let args = candid::encode_args(args).unwrap();
        match self.host.call(kind, self.canister, self.sender, method, &args) {
            Err(reject) => Outcome::Rejected(reject),
            Ok(reply) => match candid::decode_one::<Result<T, Error>>(&reply).unwrap() {
                Ok(answer) => Outcome::Ok(answer),
                Err(error) => Outcome::Refused(error),
            },
        }
    }

    /// Sends chunks of an upload.
    pub fn send(&mut self, upload_id: u64, chunks: &[Chunk<'_>]) {
        for chunk in chunks {
            let bytes = chunk.bytes.to_vec();
            self.upload_chunk(UploadChunkArg { upload_id, offset: chunk.offset as u64, bytes }).unwrap();
        }
    }

    /// Announces `file` under `name`.
    pub fn announce(&mut self, name: &str, file: &[u8]) -> UploadBeginOk {
        let sha256 = Sha256::digest(file).to_vec();
        self.upload_begin(UploadBeginArg { name: name.into(), total_bytes: file.len() as u64, sha256 }).unwrap()
    }

    /// Commits, call by call, until the file is verified.
    ///
    /// # Errors
    /// The refusal.
    pub fn verify(&mut self, upload_id: u64, max_instructions: Option<u64>) -> Result<(), Error> {
        let mut hashed = 0;
        for _ in 0..PATIENCE {
            let answer = self.upload_commit(UploadCommitArg { upload_id, max_instructions })?;
            if answer.done {
                return Ok(());
            }
            assert!(answer.hashed_bytes > hashed, "a call without progress: {answer:?}");
            hashed = answer.hashed_bytes;
        }
        panic!("verifying did not end");
    }

    /// Uploads `file` in chunks of the largest size and verifies it.
    pub fn store(&mut self, name: &str, file: &[u8]) {
        let upload_id = self.announce(name, file).upload_id;
        self.send(upload_id, &chunks(file, MAX_CHUNK_BYTES as usize));
        self.verify(upload_id, None).unwrap();
    }

    /// Loads the stored model, call by call.
    pub fn load(&mut self, max_instructions: Option<u64>) {
        for _ in 0..PATIENCE {
            if self.model_load_step(ModelLoadStepArg { max_instructions }).unwrap().ready {
                return;
            }
        }
        panic!("loading did not end");
    }

    /// Uploads `file` and loads it.
    pub fn serve(&mut self, name: &str, file: &[u8]) {
        self.store(name, file);
        self.load(None);
        assert_eq!(self.model_status().serving.unwrap().file.name, name);
    }

    /// Lets time pass until `done` says so.
    pub fn wait_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..PATIENCE {
            if done(self) {
                return;
            }
            self.host.advance(Duration::from_secs(1));
        }
        let status = self.model_status();
        panic!("waited in vain until {what}: {status:?}");
    }

    /// Lets time pass until the model answers.
    pub fn wait_until_ready(&mut self) {
        self.wait_until("the model is loaded", |icllama| icllama.model_status().load == LoadState::Ready);
    }

    /// One session from prompt to end, each call with the next of `budgets`.
    pub fn generate(&mut self, arg: &SessionCreateArg, budgets: &mut dyn FnMut() -> Option<u64>) -> Generation {
        let session_id = self.session_create(arg.clone()).unwrap().session_id;
        self.finish(session_id, budgets);
        self.generation(session_id)
    }

    /// Advances a session to its end, each call with the next of `budgets`.
    pub fn finish(&mut self, session_id: u64, budgets: &mut dyn FnMut() -> Option<u64>) {
        for _ in 0..PATIENCE {
            let arg = SessionAdvanceArg { session_id, max_instructions: budgets(), max_tokens: None, profile: None };
            if is_finished(&self.session_advance(arg).unwrap().status) {
                return;
            }
        }
        panic!("the session did not end");
    }

    /// All that a session gave.
    pub fn generation(&mut self, session_id: u64) -> Generation {
        let page = SessionPageArg { session_id, from: None, limit: Some(50_000) };
        let output = self.session_output(SessionOutputArg { session_id, from: 0 }).unwrap();
        assert_eq!(output.next, output.status.text_bytes);
        let finish = match output.status.state {
            SessionState::Finished(reason) => Some(reason),
            _ => None,
        };
        let tokens = self.session_tokens(page).unwrap().tokens;
        let digests = self.session_digests(page).unwrap().digests;
        let logprobs = self.session_logprobs(page).unwrap().logprobs;
        let prompt_tokens = output.status.prompt_tokens;
        Generation { prompt_tokens, tokens, digests, logprobs, text: output.text, finish }
    }

    /// The logits of the last position.
    pub fn logits(&mut self, session_id: u64) -> Vec<f32> {
        let bytes = self.session_logits(SessionIdArg { session_id }).unwrap().logits;
        assert!(bytes.len().is_multiple_of(4));
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

/// Whether nothing more will be generated.
pub fn is_finished(status: &SessionStatus) -> bool {
    matches!(status.state, SessionState::Finished(_))
}

/// What a session gave, in the canister or natively.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// How many of the tokens were given.
    pub prompt_tokens: u32,
    /// Given and generated tokens.
    pub tokens: Vec<u32>,
    /// Digests of the logits, one per generated token.
    pub digests: Vec<u64>,
    /// Log probabilities, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Generated text.
    pub text: String,
    /// Why it ended.
    pub finish: Option<FinishReason>,
}

/// Budgets for calls: always the canister's own ceiling.
pub fn full() -> Option<u64> {
    None
}

/// Budgets for calls: random numbers, spread evenly over the orders of magnitude below `max`.
pub fn random_budgets(seed: u64, max: u64) -> impl FnMut() -> Option<u64> {
    let mut random = SplitMix64::new(seed);
    move || Some(max >> (random.next_u64() % u64::from(max.ilog2())))
}

macro_rules! methods {
    ($($kind:ident $name:ident($($arg:ident: $type:ty)?) -> $ok:ty;)*) => {
        impl<H: Host + ?Sized> Icllama<H> {$(
            #[doc = concat!("Calls `", stringify!($name), "`.\n\n# Errors\nThe refusal.\n\n# Panics\nIf the platform rejects.")]
            pub fn $name(&mut self $(, $arg: $type)?) -> Result<$ok, Error> {
                self.call(CallKind::$kind, stringify!($name), ($($arg,)?)).answered()
            }
        )*}

        /// Every method whose answer is a `Result`.
        pub const METHODS: &[(CallKind, &str)] = &[$((CallKind::$kind, stringify!($name)),)*];
    };
}

methods! {
    Update upload_begin(arg: UploadBeginArg) -> UploadBeginOk;
    Update upload_chunk(arg: UploadChunkArg) -> UploadChunkOk;
    Query upload_status(arg: UploadStatusArg) -> UploadStatus;
    Update upload_commit(arg: UploadCommitArg) -> UploadCommitOk;
    Update upload_abort(arg: UploadIdArg) -> ();
    Update model_load_step(arg: ModelLoadStepArg) -> ModelLoadStepOk;
    Update session_create(arg: SessionCreateArg) -> SessionCreateOk;
    Update session_advance(arg: SessionAdvanceArg) -> SessionProgress;
    Update session_run(arg: SessionIdArg) -> SessionStatus;
    Query session_output(arg: SessionOutputArg) -> SessionOutputOk;
    Update session_append(arg: SessionAppendArg) -> SessionAppendOk;
    Update session_restart(arg: SessionRestartArg) -> SessionRestartOk;
    Query session_logits(arg: SessionIdArg) -> SessionLogitsOk;
    Query session_tokens(arg: SessionPageArg) -> SessionTokensOk;
    Query session_digests(arg: SessionPageArg) -> SessionDigestsOk;
    Query session_logprobs(arg: SessionPageArg) -> SessionLogprobsOk;
    Update session_cancel(arg: SessionIdArg) -> SessionStatus;
    Update session_delete(arg: SessionIdArg) -> ();
    Query session_list(arg: SessionListArg) -> SessionListOk;
    Query config_get() -> Config;
    Update config_set(arg: ConfigUpdate) -> Config;
}

/// The queries that answer everybody.
impl<H: Host + ?Sized> Icllama<H> {
    /// Calls `model_status`.
    ///
    /// # Panics
    /// If the platform rejects.
    pub fn model_status(&mut self) -> ModelStatus {
        self.query("model_status")
    }

    /// Calls `version`.
    ///
    /// # Panics
    /// If the platform rejects.
    pub fn version(&mut self) -> CanisterInfo {
        self.query("version")
    }

    /// Calls `quota_status`.
    ///
    /// # Panics
    /// If the platform rejects.
    pub fn quota_status(&mut self) -> QuotaStatus {
        self.query("quota_status")
    }

    fn query<T: CandidType + DeserializeOwned>(&mut self, method: &str) -> T {
        let args = candid::encode_args(()).unwrap();
        let reply = self.host.call(CallKind::Query, self.canister, self.sender, method, &args).unwrap();
        candid::decode_one(&reply).unwrap()
    }
}
