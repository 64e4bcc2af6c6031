//! Everything that can be refused, in one documented variant.

use candid::CandidType;
use serde::{Deserialize, Serialize};

use super::ByteRange;

/// What a caller has to be.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A controller of the canister.
    Controller,
    /// A controller, or a principal on the operator list.
    Operator,
    /// Whoever the setting `generate_access` admits.
    User,
}

/// Why a method refused. The canister never traps on input; each variant says what to do.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The caller lacks the role.
    #[error("the caller needs the role {role:?}; ask a controller, or call with another identity")]
    NotAuthorized {
        /// The role that is needed.
        role: Role,
    },
    /// A field of the argument is not acceptable.
    #[error("field {field} is not acceptable: {reason}")]
    InvalidArgument {
        /// Name of the field.
        field: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A limit would be passed. Limits are listed by `config_get` and `version`.
    #[error("limit {limit} is {max}, the call needs {needed}; ask for less, or have an operator raise it")]
    LimitExceeded {
        /// Name of the limit.
        limit: String,
        /// Its present value.
        max: u64,
        /// What the call would need.
        needed: u64,
    },
    /// What one principal may use is used up; `quota_status` tells.
    #[error("quota {quota} is {max} for each principal, of which {used} are used; {}", renewal(ends_ns))]
    QuotaExceeded {
        /// Name of the quota: the setting.
        quota: String,
        /// Its present value.
        max: u64,
        /// What the caller has used.
        used: u64,
        /// When it begins anew, in nanoseconds since 1970: at midnight, UTC. Absent if the caller has to end something.
        ends_ns: Option<u64>,
    },
    /// The canister has few cycles left and computes nothing more; what is stored can be read, and operators can do all
    /// they do.
    #[error(
        "the canister has {available} cycles above its freezing threshold and keeps {floor} of them for its data and its \
         operators; top it up, or have an operator lower the setting cycles_floor"
    )]
    CyclesLow {
        /// Its balance above what the freezing threshold reserves.
        available: u128,
        /// The setting.
        floor: u64,
    },
    /// There is no upload with this id (never begun, aborted, or already committed).
    #[error("there is no upload {upload_id}; begin one, or ask upload_status for the present one")]
    UploadNotFound {
        /// The id asked for.
        upload_id: u64,
    },
    /// Another upload is going on.
    #[error("upload {upload_id} of {name} is going on; finish it, or abort it first")]
    UploadInProgress {
        /// Its id.
        upload_id: u64,
        /// Its model name.
        name: String,
        /// Its size in bytes.
        total_bytes: u64,
        /// Its SHA-256.
        #[serde(with = "serde_bytes")]
        sha256: Vec<u8>,
    },
    /// The upload cannot be committed yet.
    #[error("{missing_bytes} bytes are missing, first at offset {}; send them, then commit again", first_missing.offset)]
    UploadIncomplete {
        /// How many bytes have not arrived.
        missing_bytes: u64,
        /// The first gap.
        first_missing: ByteRange,
    },
    /// All bytes arrived, but they are not the announced ones. The upload stays open.
    #[error("the bytes have another SHA-256 than announced; send the damaged chunks again and commit, or abort")]
    HashMismatch {
        /// Announced at `upload_begin`.
        #[serde(with = "serde_bytes")]
        expected: Vec<u8>,
        /// Of the bytes that arrived.
        #[serde(with = "serde_bytes")]
        actual: Vec<u8>,
    },
    /// No model has been uploaded.
    #[error("no model is stored; upload one first")]
    ModelMissing,
    /// The model is being loaded from stable memory into the heap; this goes on by itself.
    #[error("the model is loading ({done_bytes} of {total_bytes} bytes); call again later")]
    ModelLoading {
        /// Bytes already loaded.
        done_bytes: u64,
        /// Bytes to load.
        total_bytes: u64,
    },
    /// The stored model could not be loaded.
    #[error("the stored model cannot be loaded: {message}")]
    ModelRejected {
        /// What is wrong with the file.
        message: String,
    },
    /// The session was made for a model that is no longer the loaded one.
    #[error("the session belongs to another model; its output can still be read, but create a new session to go on")]
    ModelChanged,
    /// The model has no chat template and no built-in one fits it, so messages cannot be turned into a prompt.
    #[error(
        "the model has no chat template, and it is not seen which built-in one fits; name one in the setting chat_template, or send text or tokens"
    )]
    NoChatTemplate,
    /// There is no such session, or it belongs to another principal: the two are not told apart. It may have been deleted,
    /// or have been left alone for longer than the setting `session_ttl_seconds` allows.
    #[error("there is no session {session_id} of this caller; if there was, it was deleted or left alone for too long")]
    SessionNotFound {
        /// The id asked for.
        session_id: u64,
    },
    /// Something was to be appended before the answer was over.
    #[error("session {session_id} is still generating; advance it until it is finished, or cancel it")]
    SessionNotFinished {
        /// The session.
        session_id: u64,
    },
    /// The session has no logits in the heap (nothing computed since creation, eviction or upgrade).
    #[error("session {session_id} has no logits at hand; advance it first")]
    LogitsUnavailable {
        /// The session.
        session_id: u64,
    },
    /// The caches of sessions that were advanced in the last minute leave no room in the heap. Nothing is lost.
    #[error(
        "the caches of sessions in use reserve {reserved_bytes} of {cache_heap_bytes} bytes, this one needs \
         {needed_bytes}; try again in a minute, or let the canister take turns with session_run"
    )]
    HeapBusy {
        /// The setting.
        cache_heap_bytes: u64,
        /// What sessions in use can come to take.
        reserved_bytes: u64,
        /// What this session can come to take.
        needed_bytes: u64,
    },
    /// Stable memory could not grow.
    #[error(
        "stable memory cannot grow by {needed_bytes} bytes; raise the canister's memory allowance or top up cycles"
    )]
    StableMemoryFull {
        /// How much was needed.
        needed_bytes: u64,
    },
    /// Tokenizing, templating or computing failed: the prompt does not suit the model, or the model
    /// produces numbers that are not finite.
    #[error("{stage}: {message}")]
    Model {
        /// Which stage failed.
        stage: String,
        /// Its message.
        message: String,
    },
    /// Data in stable memory does not have the expected form: a fault of this canister.
    #[error("stored data is damaged: {message}; please report this")]
    Damaged {
        /// What was found where.
        message: String,
    },
}

fn renewal(ends_ns: &Option<u64>) -> &'static str {
    match ends_ns {
        Some(_) => "it begins anew at midnight (UTC)",
        None => "wait until one of them ends, or end one",
    }
}
