//! Types of `config_get`, `config_set`, `version` and of the installation argument.

use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};

/// Who may create sessions. Controllers and operators always may.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerateAccess {
    /// Nobody else.
    Controllers,
    /// Principals on the list `users`.
    AllowList,
    /// Anybody with an identity.
    Authenticated,
    /// Anybody, anonymous callers included. All anonymous callers are one principal: they see each
    /// other's sessions.
    Anyone,
}

/// How the weights are kept in the heap. Answers have the same bits either way.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Wide if there is room and calls are not very short, else compact.
    Auto,
    /// A byte for each code: fewest instructions per token.
    Wide,
    /// Half a byte for each code of the four-bit formats: less heap, fewer pages to be charged for in each call.
    Compact,
}

/// How exactly keys and values are kept. It decides bits of the answers.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvCacheBits {
    /// 16 bits if the longest session that the settings and the model admit fits `cache_heap_bytes` with them, else 8.
    Auto,
    /// 16 bits.
    Bits16,
    /// 8 bits: half the heap, and a little of the accuracy.
    Bits8,
}

/// How exactly activations are kept that four-bit weights are multiplied with. It decides bits of the answers.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationBits {
    /// 16 bits.
    Bits16,
    /// 8 bits: fewer instructions per token, about as precise as llama.cpp.
    Bits8,
}

/// The settings.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who may generate.
    pub generate_access: GenerateAccess,
    /// Who may upload, load and configure besides the controllers.
    pub operators: Vec<Principal>,
    /// Who may generate under `AllowList`.
    pub users: Vec<Principal>,
    /// Instructions at which a call stops computing; the platform's limit is 40e9, the rest is for
    /// saving and replying.
    pub max_instructions: u64,
    /// Heap bytes for the keys and values of sessions; the least recently used are dropped and
    /// computed again when needed.
    pub cache_heap_bytes: u64,
    /// Bits of keys and values of sessions that do not choose themselves.
    pub kv_cache_bits: KvCacheBits,
    /// Heap bytes in all, which the weights are fitted into beside the caches.
    pub max_heap_bytes: u64,
    /// How the weights are kept in the heap, from the next load on.
    pub residency: Residency,
    /// Bits of the activations that four-bit weights are multiplied with, from the next load on. Sessions made with others are
    /// refused then, as those of another model.
    pub activation_bits: ActivationBits,
    /// Sessions in all.
    pub max_sessions: u32,
    /// Sessions of one principal.
    pub max_sessions_per_principal: u32,
    /// Tokens that are computed for one principal on one day (UTC), prompts and answers together. Operators have no limit.
    pub max_tokens_per_day: u64,
    /// Sessions of one principal that run by themselves at the same time. Operators have no limit.
    pub max_runs_per_principal: u32,
    /// Seconds after which a session that nothing changed is deleted; 0 for never. Reading is no change.
    pub session_ttl_seconds: u64,
    /// Cycles above the freezing threshold that are not spent on sessions, but kept for the canister's data and its operators.
    pub cycles_floor: u64,
    /// Bytes of text in one input, all messages together.
    pub max_input_bytes: u32,
    /// Tokens of one session, prompt and answers together. The model's context is a limit too.
    pub max_session_tokens: u32,
    /// Chats are rendered by this template instead of the model's own: the name of a built-in one, or Jinja.
    pub chat_template: Option<String>,
}

/// Changes the fields that are present and leaves the others. Only controllers may change `operators`.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigUpdate {
    /// Who may generate.
    pub generate_access: Option<GenerateAccess>,
    /// Who may upload, load and configure besides the controllers.
    pub operators: Option<Vec<Principal>>,
    /// Who may generate under `AllowList`.
    pub users: Option<Vec<Principal>>,
    /// Instructions at which a call stops computing; at most 38e9.
    pub max_instructions: Option<u64>,
    /// Heap bytes for caches; 1 MiB to 3 GiB.
    pub cache_heap_bytes: Option<u64>,
    /// Bits of keys and values of later sessions that do not choose themselves.
    pub kv_cache_bits: Option<KvCacheBits>,
    /// Heap bytes in all; 64 MiB to 4 GiB.
    pub max_heap_bytes: Option<u64>,
    /// How the weights are kept in the heap, from the next load on.
    pub residency: Option<Residency>,
    /// Bits of activations, from the next load on.
    pub activation_bits: Option<ActivationBits>,
    /// Sessions in all; at most 100,000.
    pub max_sessions: Option<u32>,
    /// Sessions of one principal; at most 100,000.
    pub max_sessions_per_principal: Option<u32>,
    /// Tokens that are computed for one principal on one day (UTC).
    pub max_tokens_per_day: Option<u64>,
    /// Sessions of one principal that run by themselves at the same time; at most 100,000.
    pub max_runs_per_principal: Option<u32>,
    /// Seconds after which a session that nothing changed is deleted; 60 to 3e9, or 0 for never.
    pub session_ttl_seconds: Option<u64>,
    /// Cycles above the freezing threshold that are not spent on sessions.
    pub cycles_floor: Option<u64>,
    /// Bytes of text in one input; at most 2 MiB.
    pub max_input_bytes: Option<u32>,
    /// Tokens of one session; at most 1,048,576.
    pub max_session_tokens: Option<u32>,
    /// Chats are rendered by this template from now on: the name of a built-in one, or Jinja of at most 64 KiB; empty for
    /// the model's own.
    pub chat_template: Option<String>,
}

/// Argument of installation; may be absent.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct InitArg {
    /// Settings that differ from the defaults.
    pub config: Option<ConfigUpdate>,
}

/// What the caller has used of its quotas.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Whether the caller is an operator, for whom only the number of sessions is limited.
    pub unlimited: bool,
    /// Tokens computed today (UTC): every position of a prompt or an answer whose keys and values were computed, also
    /// again.
    pub tokens_today: u64,
    /// The setting.
    pub max_tokens_per_day: u64,
    /// When today ends, in nanoseconds since 1970.
    pub day_ends_ns: u64,
    /// Sessions.
    pub sessions: u32,
    /// The setting `max_sessions_per_principal`.
    pub max_sessions: u32,
    /// Sessions that run by themselves.
    pub runs: u32,
    /// The setting `max_runs_per_principal`.
    pub max_runs: u32,
}

/// What runs here.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct CanisterInfo {
    /// Version of icllama.
    pub version: String,
    /// Version of the stable memory layout.
    pub layout_version: u32,
    /// Largest chunk of an upload.
    pub max_chunk_bytes: u64,
    /// Bytes of text in one input.
    pub max_input_bytes: u32,
    /// Tokens of one session.
    pub max_session_tokens: u32,
    /// Instructions at which a call stops computing.
    pub max_instructions: u64,
}
