//! The canister's methods as typed calls, each with its cost. How calls get there is a [`Transport`]'s affair. Knows the
//! candid interface and nothing of generating text.

use anyhow::{Context, Result, anyhow, bail};
use candid::CandidType;
use canister::api;
use model_core::TokenId;
use model_core::sample::TokenLogprob;
use model_core::source::ByteSource;
use serde::de::DeserializeOwned;

use super::cost::CallCost;
use crate::digest::{for_chunks, sha256};
use crate::exit_code::NotReady;
use crate::progress::Progress;

/// What an update call answered, and its cost (its token counts are the caller's to fill in).
pub type Answer<T> = Result<(T, CallCost)>;

/// A way to make a call that changes nothing: as a query, or [`Transport::read`].
type Ask<T> = fn(&mut T, &'static str, Vec<u8>) -> Result<Vec<u8>>;

/// Receives the cost of each call of a longer piece of work, with the name of its phase.
pub type Spent<'a> = &'a mut dyn FnMut(&'static str, &CallCost);

/// How calls reach a canister.
pub trait Transport {
    /// What the user calls a backend with it.
    const NAME: &'static str;
    /// Whether answers are shown as they come; otherwise a line for each call is.
    const IS_STREAMING: bool;
    /// Whether the canister is there for others, too, and goes on existing.
    const IS_ELSEWHERE: bool;

    /// Makes an update call; answers the reply's bytes and what is known of the cost.
    ///
    /// # Errors
    /// If the call is rejected, or cannot be made.
    fn update(&mut self, method: &'static str, arg: Vec<u8>) -> Answer<Vec<u8>>;

    /// Makes a query call.
    ///
    /// # Errors
    /// If the call is rejected, or cannot be made.
    fn query(&mut self, method: &str, arg: Vec<u8>) -> Result<Vec<u8>>;

    /// Makes a call that changes nothing, and of which the answer takes all earlier calls into account. A query of a network
    /// with several nodes may be answered by one that is a little behind.
    ///
    /// # Errors
    /// If the call is rejected, or cannot be made.
    fn read(&mut self, method: &'static str, arg: Vec<u8>) -> Result<Vec<u8>>;

    /// Adds what the canister itself says of the call's instructions, where nothing better is known.
    fn complete(&self, _cost: &mut CallCost, _instructions: u64) {}

    /// Upgrades the canister to the same module.
    ///
    /// # Errors
    /// If it cannot be upgraded from here, or a hook traps.
    fn upgrade(&mut self) -> Result<CallCost>;
}

/// An icllama canister.
pub struct Client<T> {
    transport: T,
}

impl<T: Transport> Client<T> {
    /// The canister at the other end.
    pub fn new(transport: T) -> Self {
        Self { transport }
    }

    /// How its calls get there.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
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
        let (reply, cost) = self.transport.update(method, arg)?;
        Ok((result(method, &reply)?, cost))
    }

    /// Calls a query method that takes one record, by `ask`.
    fn ask<A: CandidType, R: CandidType + DeserializeOwned>(
        &mut self,
        ask: Ask<T>,
        method: &'static str,
        arg: &A,
    ) -> Result<R> {
        let arg = candid::encode_one(arg).with_context(|| format!("cannot encode the argument of {method}"))?;
        result(method, &ask(&mut self.transport, method, arg)?)
    }

    /// Calls a query method that takes nothing and refuses nothing.
    ///
    /// # Errors
    /// If the call is rejected.
    pub fn read<R: CandidType + DeserializeOwned>(&mut self, method: &str) -> Result<R> {
        value(method, &self.transport.query(method, no_argument()?)?)
    }

    /// Advances a session.
    ///
    /// # Errors
    /// If the call fails.
    pub fn advance(&mut self, arg: &api::SessionAdvanceArg) -> Answer<api::SessionProgress> {
        let (progress, mut cost): (api::SessionProgress, _) = self.update("session_advance", arg)?;
        self.transport.complete(&mut cost, progress.instructions);
        Ok((progress, cost))
    }

    /// Uploads a file in chunks and has the canister check its hash.
    ///
    /// # Errors
    /// If a call fails, or the canister computes another hash.
    pub fn upload(&mut self, name: &str, source: &dyn ByteSource, spent: Spent<'_>) -> Result<()> {
        let total_bytes = source.len();
        let arg = api::UploadBeginArg { name: name.to_owned(), total_bytes, sha256: sha256(source, |_| ())? };
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
        status.serving.ok_or_else(|| NotReady(unready(&status.load)).into())
    }

    /// All tokens of a session, of which there are `expected`.
    ///
    /// # Errors
    /// If a call fails.
    pub fn session_tokens(&mut self, session_id: u64, expected: usize) -> Result<Vec<TokenId>> {
        let page = |page: api::SessionTokensOk| (page.tokens, page.total);
        self.pages(session_id, "session_tokens", expected, page)
    }

    /// All digests of a session, of which there are `expected`.
    ///
    /// # Errors
    /// If a call fails.
    pub fn session_digests(&mut self, session_id: u64, expected: usize) -> Result<Vec<u64>> {
        let page = |page: api::SessionDigestsOk| (page.digests, page.total);
        self.pages(session_id, "session_digests", expected, page)
    }

    /// All log probabilities of a session, of which there are `expected`: each token's own, then those of the likeliest in its
    /// place.
    ///
    /// # Errors
    /// If a call fails.
    pub fn session_logprobs(&mut self, session_id: u64, expected: usize) -> Result<Vec<Vec<TokenLogprob>>> {
        let page = |page: api::SessionLogprobsOk| (page.logprobs, page.total);
        let pages = self.pages(session_id, "session_logprobs", expected, page)?;
        let token = |of: &api::TokenLogprob| TokenLogprob { id: of.token, logprob: of.logprob };
        let entry = |of: &api::TokenLogprobs| [&of.chosen].into_iter().chain(&of.likeliest).map(token).collect();
        Ok(pages.iter().map(entry).collect())
    }

    /// Asks by queries, which cost nothing, and by calls if the queries do not know of all that is there.
    fn pages<P: CandidType + DeserializeOwned, Item>(
        &mut self,
        session_id: u64,
        method: &'static str,
        expected: usize,
        unpack: impl Fn(P) -> (Vec<Item>, u32),
    ) -> Result<Vec<Item>> {
        match self.pages_by(|to, method, arg| to.query(method, arg), session_id, method, &unpack) {
            Ok(items) if items.len() >= expected => Ok(items),
            _ => self.pages_by(T::read, session_id, method, &unpack),
        }
    }

    fn pages_by<P: CandidType + DeserializeOwned, Item>(
        &mut self,
        ask: Ask<T>,
        session_id: u64,
        method: &'static str,
        unpack: &impl Fn(P) -> (Vec<Item>, u32),
    ) -> Result<Vec<Item>> {
        let mut all = Vec::new();
        loop {
            let from = u32::try_from(all.len()).context("too many items for one session")?;
            let arg = api::SessionPageArg { session_id, from: Some(from), limit: None };
            let (page, total) = unpack(self.ask(ask, method, &arg)?);
            let is_last = page.is_empty() || all.len() + page.len() >= total as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Logits of the last computed position.
    ///
    /// # Errors
    /// If the call fails, or nothing has been computed.
    pub fn session_logits(&mut self, session_id: u64) -> Result<Vec<f32>> {
        let ok: api::SessionLogitsOk = self.ask(T::read, "session_logits", &api::SessionIdArg { session_id })?;
        let (floats, rest) = ok.logits.as_chunks::<4>();
        if !rest.is_empty() {
            bail!("session_logits answered {} bytes, which are no whole floats", ok.logits.len());
        }
        Ok(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// Why no model answers.
pub fn unready(load: &api::LoadState) -> String {
    match load {
        api::LoadState::Loading { name, done_bytes, total_bytes } => {
            format!("the canister is loading {name} ({done_bytes} of {total_bytes} bytes); try again later")
        }
        api::LoadState::Failed { message } => format!("the canister's model cannot be loaded: {message}"),
        api::LoadState::Empty | api::LoadState::Ready => {
            "the canister has no model; send it one with `icllama upload`".to_owned()
        }
    }
}

/// The argument of a method that takes nothing.
///
/// # Errors
/// Never; the encoder is fallible.
pub fn no_argument() -> Result<Vec<u8>> {
    candid::encode_args(()).context("cannot encode no arguments")
}

/// The record in a reply, or why the canister gave none.
///
/// # Errors
/// What the canister answered, or that the reply is of another type.
pub fn result<R: CandidType + DeserializeOwned>(method: &str, reply: &[u8]) -> Result<R> {
    let answer: Result<R, api::Error> = value(method, reply)?;
    answer.with_context(|| format!("{method} refused"))
}

/// The value in a reply.
///
/// # Errors
/// If it is of another type.
pub fn value<R: CandidType + DeserializeOwned>(method: &str, reply: &[u8]) -> Result<R> {
    candid::decode_one(reply).map_err(|_| {
        anyhow!(
            "the canister's {method} replies with another type than this command knows; build both from one version"
        )
    })
}
