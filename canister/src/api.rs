//! The candid types of the canister's methods, shared with every Rust client. One record goes in, a
//! `Result` of one record and [`Error`] comes out; fields added later are `opt`.
//! Knows nothing of how the service works.

mod config;
mod convert;
mod error;
mod http;
mod llm;
mod model;
mod session;
mod upload;

pub use config::{
    ActivationBits, CanisterInfo, Config, ConfigUpdate, GenerateAccess, InitArg, KvCacheBits, QuotaStatus, Residency,
};
pub use error::{Error, Role};
pub use http::{HttpRequest, HttpResponse};
pub use llm::{
    LlmArgument, LlmAssistantMessage, LlmFunction, LlmFunctionCall, LlmMessage, LlmMessageV0, LlmParameters,
    LlmProperty, LlmRequest, LlmRequestV0, LlmResponse, LlmRole, LlmTool, LlmToolCall,
};
pub use model::{LoadState, ModelInfo, ModelLoadStepArg, ModelLoadStepOk, ModelStatus, RejectedModel, StoredModel};
pub use session::{
    ChatMessage, FinishReason, Grammar, MessageText, ProfilePart, SessionAdvanceArg, SessionAppendArg, SessionAppendOk,
    SessionCreateArg, SessionCreateOk, SessionDigestsOk, SessionIdArg, SessionInput, SessionListArg, SessionListOk,
    SessionLogitsOk, SessionLogprobsOk, SessionOptions, SessionOutputArg, SessionOutputOk, SessionPageArg,
    SessionProgress, SessionRestartArg, SessionRestartOk, SessionState, SessionStatus, SessionSummary, SessionTokensOk,
    TokenLogprob, TokenLogprobs, ToolAnswer, ToolCalls,
};
pub use upload::{
    ByteRange, UploadBeginArg, UploadBeginOk, UploadChunk, UploadChunkArg, UploadChunkOk, UploadCommitArg,
    UploadCommitOk, UploadIdArg, UploadState, UploadStatus, UploadStatusArg,
};

/// Largest chunk that [`UploadChunkArg`] accepts: an ingress message holds 2 MiB, the envelope and the
/// candid header need the rest.
pub const MAX_CHUNK_BYTES: u64 = 2_000_000;
