//! The queries about sessions. They answer from stable memory, so they need no model; only logits are in the heap.

use ic_stable_structures::Memory;

use super::Service;
use crate::api::{
    Error, Role, SessionDigestsOk, SessionIdArg, SessionListArg, SessionListOk, SessionLogitsOk, SessionLogprobsOk,
    SessionOutputArg, SessionOutputOk, SessionPageArg, SessionSummary, SessionTokensOk,
};
use crate::env::Env;

const MAX_TEXT_BYTES: usize = 500_000;
const DEFAULT_PAGE: u32 = 10_000;
const MAX_PAGE: u32 = 50_000;
/// With 20 alternatives an entry has 170 bytes, and a reply at most 2 MB.
const MAX_LOGPROBS_PAGE: u32 = 10_000;
const DEFAULT_LIST: u32 = 100;
const MAX_LIST: u32 = 1_000;

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Generated text from a byte index on.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], or an index that is not between two characters.
    pub fn session_output(&self, arg: SessionOutputArg) -> Result<SessionOutputOk, Error> {
        let head = self.owned(arg.session_id)?;
        let record = self.sessions.store().record(arg.session_id)?;
        let text = record.full_text();
        let rest = usize::try_from(arg.from).ok().and_then(|from| text.get(from..));
        let rest = rest.ok_or_else(|| Error::InvalidArgument {
            field: "from".into(),
            reason: format!("{} is not an index between characters of {} bytes of text", arg.from, text.len()),
        })?;
        let text = rest.get(..rest.floor_char_boundary(MAX_TEXT_BYTES)).unwrap_or_default().to_owned();
        let next = arg.from + text.len() as u64;
        Ok(SessionOutputOk { status: self.status_of(arg.session_id, &head), text, next })
    }

    /// Token ids of a session.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn session_tokens(&self, arg: SessionPageArg) -> Result<SessionTokensOk, Error> {
        self.owned(arg.session_id)?;
        let record = self.sessions.store().record(arg.session_id)?;
        Ok(SessionTokensOk { tokens: page(record.tokens(), arg), total: record.tokens().len() as u32 })
    }

    /// Digests of the logits behind every generated token.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn session_digests(&self, arg: SessionPageArg) -> Result<SessionDigestsOk, Error> {
        self.owned(arg.session_id)?;
        let record = self.sessions.store().record(arg.session_id)?;
        Ok(SessionDigestsOk { digests: page(record.digests(), arg), total: record.digests().len() as u32 })
    }

    /// Log probabilities of every generated token and its alternatives.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn session_logprobs(&self, arg: SessionPageArg) -> Result<SessionLogprobsOk, Error> {
        self.owned(arg.session_id)?;
        let record = self.sessions.store().record(arg.session_id)?;
        let limit = arg.limit.unwrap_or(DEFAULT_PAGE).min(MAX_LOGPROBS_PAGE);
        let asked = record.logprobs().skip(arg.from.unwrap_or(0) as usize).take(limit as usize);
        Ok(SessionLogprobsOk { logprobs: asked.map(Into::into).collect(), total: record.logprobs().len() as u32 })
    }

    /// The logits behind the last token.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::LogitsUnavailable`] if they are not in the heap.
    pub fn session_logits(&self, arg: SessionIdArg) -> Result<SessionLogitsOk, Error> {
        self.owned(arg.session_id)?;
        let logits = self.sessions.logits(arg.session_id);
        let logits = logits.ok_or(Error::LogitsUnavailable { session_id: arg.session_id })?;
        Ok(SessionLogitsOk { logits: logits.iter().flat_map(|logit| logit.to_le_bytes()).collect() })
    }

    /// The caller's sessions, or everybody's for a controller who asks for `all`.
    ///
    /// # Errors
    /// [`Error::NotAuthorized`] for `all`.
    pub fn session_list(&self, arg: SessionListArg) -> Result<SessionListOk, Error> {
        let all = arg.all.unwrap_or(false);
        if all {
            self.require(Role::Controller)?;
        }
        let caller = self.env.caller();
        let limit = arg.limit.unwrap_or(DEFAULT_LIST).clamp(1, MAX_LIST) as usize;
        let store = self.sessions.store();
        let mut ids = store.ids((!all).then_some(&caller), arg.after.unwrap_or(0), limit + 1);
        let more = ids.len() > limit;
        ids.truncate(limit);
        let mut sessions = Vec::with_capacity(ids.len());
        for id in &ids {
            let Some(head) = store.head(*id)?.filter(|head| !self.is_expired(head.updated_ns)) else { continue };
            let status = self.status_of(*id, &head);
            let (owner, created_ns, updated_ns) = (head.owner, head.created_ns, head.updated_ns);
            sessions.push(SessionSummary { owner, created_ns, updated_ns, status });
        }
        Ok(SessionListOk { sessions, next: ids.last().copied().filter(|_| more) })
    }
}

fn page<T: Copy>(items: &[T], arg: SessionPageArg) -> Vec<T> {
    let limit = arg.limit.unwrap_or(DEFAULT_PAGE).min(MAX_PAGE);
    items.iter().skip(arg.from.unwrap_or(0) as usize).take(limit as usize).copied().collect()
}
