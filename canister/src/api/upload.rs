//! Types of the `upload_*` methods.

use candid::CandidType;
use serde::{Deserialize, Serialize};

/// A range of bytes of the file.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// Announces a model file. Repeating it while the same file is being uploaded returns the same upload.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UploadBeginArg {
    /// A name for people, at most 200 bytes.
    pub name: String,
    /// Size of the file in bytes.
    pub total_bytes: u64,
    /// SHA-256 of the file, 32 bytes.
    #[serde(with = "serde_bytes")]
    pub sha256: Vec<u8>,
}

/// Where to send the chunks.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UploadBeginOk {
    /// Names the upload in the other calls.
    pub upload_id: u64,
    /// Bytes that arrived in an earlier, interrupted run; `upload_status` lists what is missing.
    pub received_bytes: u64,
    /// Largest chunk accepted.
    pub max_chunk_bytes: u64,
}

/// Names an upload.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadIdArg {
    /// From `upload_begin`.
    pub upload_id: u64,
}

/// Some bytes of the file: any offset, any order, repeated or overlapping as one likes.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UploadChunkArg {
    /// From `upload_begin`.
    pub upload_id: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The bytes, at most `max_chunk_bytes`.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// [`UploadChunkArg`] with the bytes borrowed from the message, so that nothing is copied.
#[derive(CandidType, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadChunk<'a> {
    /// From `upload_begin`.
    pub upload_id: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The bytes.
    #[serde(with = "serde_bytes", borrow)]
    pub bytes: &'a [u8],
}

/// What has arrived so far.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UploadChunkOk {
    /// Distinct bytes of the file that have arrived.
    pub received_bytes: u64,
    /// Size of the file.
    pub total_bytes: u64,
}

/// Which gaps to list.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadStatusArg {
    /// Gaps from this offset on; from the start if absent.
    pub from: Option<u64>,
    /// At most this many gaps; 1,000 if absent, never more than 10,000.
    pub limit: Option<u32>,
}

/// What an upload is doing.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// Waiting for chunks, or for the commit.
    Receiving,
    /// Committed; the hash is being computed, by itself or by further `upload_commit` calls.
    Verifying {
        /// Bytes hashed so far.
        hashed_bytes: u64,
    },
    /// Verified bytes had another hash than announced.
    HashMismatch,
}

/// The present upload.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Its id.
    pub upload_id: u64,
    /// As announced.
    pub name: String,
    /// As announced.
    pub total_bytes: u64,
    /// As announced.
    #[serde(with = "serde_bytes")]
    pub sha256: Vec<u8>,
    /// Distinct bytes that have arrived.
    pub received_bytes: u64,
    /// What it is doing.
    pub state: UploadState,
    /// Gaps, ascending.
    pub missing: Vec<ByteRange>,
    /// Offset to ask from for further gaps; absent if all are listed.
    pub missing_next: Option<u64>,
}

/// Declares that all chunks were sent. Repeat until `done`; repeating it after that does no harm.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadCommitArg {
    /// From `upload_begin`.
    pub upload_id: u64,
    /// Stop after about this many instructions; the canister's own ceiling if absent.
    pub max_instructions: Option<u64>,
}

/// How far verification is.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadCommitOk {
    /// Bytes hashed so far.
    pub hashed_bytes: u64,
    /// Size of the file.
    pub total_bytes: u64,
    /// The hash was right: the model is stored and loads by itself.
    pub done: bool,
    /// Instructions this call used.
    pub instructions: u64,
}
