//! The canister's methods as typed calls through the shim, each call with its cost. Knows the candid
//! interface and nothing of generating text.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use candid::{CandidType, Principal};
use canister::api;
use local_runner::shim::costs::PageCharges;
use local_runner::shim::mode::Mode;
use local_runner::shim::{CallReport, Config, InstallMode, MessageReport, Replica};
use model_core::TokenId;
use model_core::sample::TokenLogprob;
use model_core::source::ByteSource;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::cost::CallCost;
use super::millis;
use crate::progress::Progress;

/// An installed icllama canister.
pub struct Client {
    replica: Replica,
    canister: Principal,
    owner: Principal,
    wasm: Vec<u8>,
}

/// What an update call answered, and its cost (its token counts are the caller's to fill in).
pub type Answer<T> = Result<(T, CallCost)>;

/// Receives the cost of each call of a longer piece of work, with the name of its phase.
pub type Spent<'a> = &'a mut dyn FnMut(&'static str, &CallCost);

impl Client {
    /// Installs the wasm with settings in a fresh shim; returns the cost of the installation.
    ///
    /// # Errors
    /// If the module is not accepted or its init traps.
    pub fn install(wasm: Vec<u8>, config: api::ConfigUpdate) -> Answer<Self> {
        let mut replica = Replica::new(Config::default())?;
        let owner = Principal::self_authenticating(b"the owner of the canister");
        let canister = replica.create_canister([owner]);
        let mut client = Self { replica, canister, owner, wasm };
        let arg = api::InitArg { config: Some(config) };
        let cost = client.install_code(InstallMode::Install, Some(arg))?;
        Ok((client, cost))
    }

    /// Upgrades the canister to the same wasm.
    ///
    /// # Errors
    /// If a hook traps.
    pub fn upgrade(&mut self) -> Result<CallCost> {
        self.install_code(InstallMode::UPGRADE, None)
    }

    fn install_code(&mut self, mode: InstallMode, arg: Option<api::InitArg>) -> Result<CallCost> {
        let start = Instant::now();
        let arg = candid::encode_one(arg).context("cannot encode the installation's argument")?;
        let report = self.replica.install(self.canister, mode, &self.wasm, &arg, self.owner);
        let cost = self.cost("install_code", &report, start);
        report.result.map_err(|reject| anyhow!("the installation was rejected: {reject}"))?;
        Ok(cost)
    }

    /// Calls an update method that takes one record.
    ///
    /// # Errors
    /// If the call is rejected, or the canister answers `Err`.
    pub fn update<A: CandidType, R: CandidType + DeserializeOwned>(
        &mut self,
        method: &'static str,
        arg: &A,
    ) -> Answer<R> {
        let arg = candid::encode_one(arg).with_context(|| format!("cannot encode the argument of {method}"))?;
        let start = Instant::now();
        let report = self.replica.update(self.canister, self.owner, method, &arg);
        let cost = self.cost(method, &report, start);
        Ok((decode(method, report)?, cost))
    }

    /// Calls a query method that takes one record.
    ///
    /// # Errors
    /// If the call is rejected, or the canister answers `Err`.
    pub fn query<A: CandidType, R: CandidType + DeserializeOwned>(&mut self, method: &str, arg: &A) -> Result<R> {
        let arg = candid::encode_one(arg).with_context(|| format!("cannot encode the argument of {method}"))?;
        decode(method, self.replica.query(self.canister, self.owner, method, &arg))
    }

    /// Calls a query method that takes nothing and refuses nothing.
    fn read<R: CandidType + DeserializeOwned>(&mut self, method: &str) -> Result<R> {
        let arg = candid::encode_args(()).with_context(|| format!("cannot encode the argument of {method}"))?;
        open(method, self.replica.query(self.canister, self.owner, method, &arg))
    }

    fn cost(&self, method: &'static str, report: &CallReport, start: Instant) -> CallCost {
        CallCost {
            method,
            prompt_tokens: 0,
            generated_tokens: 0,
            instructions: report.instructions(),
            page_instructions: report.page_instructions(),
            admission_instructions: report.messages.iter().filter(is_admission).map(computing).sum(),
            cycles: report.cycles(self.replica.config().nodes),
            wall_ms: millis(start.elapsed()),
        }
    }

    /// Changes what pages cost from now on.
    pub fn change_page_charges(&mut self, charges: PageCharges) {
        self.replica.change_page_charges(charges);
    }

    /// Uploads a file in chunks and has the canister check its hash.
    ///
    /// # Errors
    /// If a call fails, or the canister computes another hash.
    pub fn upload(&mut self, name: &str, source: &dyn ByteSource, spent: Spent<'_>) -> Result<()> {
        let total_bytes = source.len();
        let arg = api::UploadBeginArg { name: name.to_owned(), total_bytes, sha256: sha256(source)? };
        let (begun, cost): (api::UploadBeginOk, _) = self.update("upload_begin", &arg)?;
        spent("upload", &cost);
        let upload_id = begun.upload_id;
        let progress = Progress::bytes("uploading", total_bytes);
        for_chunks(source, begun.max_chunk_bytes, &mut |offset, chunk| {
            let arg = api::UploadChunk { upload_id, offset, bytes: chunk };
            let (_, cost): (api::UploadChunkOk, _) = self.update("upload_chunk", &arg)?;
            spent("upload", &cost);
            progress.set(offset + chunk.len() as u64);
            Ok(())
        })?;
        drop(progress);
        self.commit(upload_id, spent)
    }

    fn commit(&mut self, upload_id: u64, spent: Spent<'_>) -> Result<()> {
        let progress = Progress::bytes("checking the hash", 0);
        loop {
            let arg = api::UploadCommitArg { upload_id, max_instructions: None };
            let (ok, cost): (api::UploadCommitOk, _) = self.update("upload_commit", &arg)?;
            spent("verify", &cost);
            progress.set_total(ok.total_bytes);
            progress.set(ok.hashed_bytes);
            if ok.done {
                return Ok(());
            }
        }
    }

    /// Has the canister load the stored model in steps and returns what it then knows of it.
    ///
    /// # Errors
    /// If a call fails, or the canister cannot load the model.
    pub fn load(&mut self, spent: Spent<'_>) -> Result<api::ModelInfo> {
        let progress = Progress::bytes("loading", 0);
        loop {
            let arg = api::ModelLoadStepArg { max_instructions: None };
            let (ok, cost): (api::ModelLoadStepOk, _) = self.update("model_load_step", &arg)?;
            spent("load", &cost);
            progress.set_total(ok.total_bytes);
            progress.set(ok.done_bytes);
            if ok.ready {
                return self.model_info();
            }
        }
    }

    /// What the canister says of the model that answers.
    ///
    /// # Errors
    /// If the call fails, or no model answers.
    pub fn model_info(&mut self) -> Result<api::ModelInfo> {
        let status: api::ModelStatus = self.read("model_status")?;
        status.serving.context("the canister serves no model")
    }

    /// All tokens of a session.
    ///
    /// # Errors
    /// If a call fails.
    pub fn session_tokens(&mut self, session_id: u64) -> Result<Vec<TokenId>> {
        self.pages(session_id, "session_tokens", |page: api::SessionTokensOk| (page.tokens, page.total))
    }

    /// All digests of a session.
    ///
    /// # Errors
    /// If a call fails.
    pub fn session_digests(&mut self, session_id: u64) -> Result<Vec<u64>> {
        self.pages(session_id, "session_digests", |page: api::SessionDigestsOk| (page.digests, page.total))
    }

    /// All log probabilities of a session: each token's own, then those of the likeliest in its place.
    ///
    /// # Errors
    /// If a call fails.
    pub fn session_logprobs(&mut self, session_id: u64) -> Result<Vec<Vec<TokenLogprob>>> {
        let pages =
            self.pages(session_id, "session_logprobs", |page: api::SessionLogprobsOk| (page.logprobs, page.total))?;
        let token = |of: &api::TokenLogprob| TokenLogprob { id: of.token, logprob: of.logprob };
        let entry = |of: &api::TokenLogprobs| [&of.chosen].into_iter().chain(&of.likeliest).map(token).collect();
        Ok(pages.iter().map(entry).collect())
    }

    fn pages<P: CandidType + DeserializeOwned, T>(
        &mut self,
        session_id: u64,
        method: &str,
        unpack: impl Fn(P) -> (Vec<T>, u32),
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        loop {
            let from = u32::try_from(all.len()).context("too many items for one session")?;
            let (page, total) =
                unpack(self.query(method, &api::SessionPageArg { session_id, from: Some(from), limit: None })?);
            let is_last = page.is_empty() || all.len() + page.len() >= total as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Counts and state of a session.
    ///
    /// # Errors
    /// If the call fails.
    pub fn session_status(&mut self, session_id: u64) -> Result<api::SessionStatus> {
        let arg = api::SessionOutputArg { session_id, from: 0 };
        let output: api::SessionOutputOk = self.query("session_output", &arg)?;
        Ok(output.status)
    }

    /// Logits of the last computed position.
    ///
    /// # Errors
    /// If the call fails, or nothing has been computed.
    pub fn session_logits(&mut self, session_id: u64) -> Result<Vec<f32>> {
        let ok: api::SessionLogitsOk = self.query("session_logits", &api::SessionIdArg { session_id })?;
        let (floats, rest) = ok.logits.as_chunks::<4>();
        if !rest.is_empty() {
            bail!("session_logits answered {} bytes, which are no whole floats", ok.logits.len());
        }
        Ok(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

fn is_admission(message: &&MessageReport) -> bool {
    message.mode == Mode::InspectMessage
}

/// Instructions besides those for pages.
fn computing(message: &MessageReport) -> u64 {
    message.instructions - message.heap.instructions() - message.stable.instructions()
}

/// Bytes read at a time for the hash of a file.
const HASH_CHUNK_BYTES: u64 = 8 << 20;

fn sha256(source: &dyn ByteSource) -> Result<Vec<u8>> {
    let mut hasher = Sha256::new();
    for_chunks(source, HASH_CHUNK_BYTES, &mut |_, chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    Ok(hasher.finalize().to_vec())
}

/// Gives all bytes to `take`, at most `chunk_bytes` at a time, with their offsets.
fn for_chunks(source: &dyn ByteSource, chunk_bytes: u64, take: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut chunk = Vec::new();
    for offset in (0..source.len()).step_by(usize::try_from(chunk_bytes.max(1))?) {
        let len = chunk_bytes.max(1).min(source.len() - offset);
        chunk.resize(usize::try_from(len)?, 0);
        source.read_at(offset, &mut chunk)?;
        take(offset, &chunk)?;
    }
    Ok(())
}

/// The record in a reply, or why the canister gave none.
fn decode<R: CandidType + DeserializeOwned>(method: &str, report: CallReport) -> Result<R> {
    let answer: Result<R, api::Error> = open(method, report)?;
    answer.with_context(|| format!("{method} refused"))
}

/// The value in a reply, or why there is none.
fn open<R: CandidType + DeserializeOwned>(method: &str, report: CallReport) -> Result<R> {
    let reply = report.result.map_err(|reject| anyhow!("{method} was rejected: {reject}"))?;
    candid::decode_one(&reply).map_err(|_| {
        anyhow!(
            "the canister's {method} replies with another type than this command knows; build both from one version"
        )
    })
}
