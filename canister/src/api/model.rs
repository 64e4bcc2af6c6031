//! Types of the `model_*` methods.

use candid::CandidType;
use serde::{Deserialize, Serialize};

use super::UploadStatus;

/// A verified file in stable memory.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// As announced at the upload.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    #[serde(with = "serde_bytes")]
    pub sha256: Vec<u8>,
}

/// The last verified file that turned out not to be loadable.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RejectedModel {
    /// The file; its memory is free for the next upload.
    pub model: StoredModel,
    /// What is wrong with it.
    pub message: String,
}

/// A model in the heap, ready to answer.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The file it came from.
    pub file: StoredModel,
    /// `general.architecture`.
    pub architecture: String,
    /// Positions the model was trained for.
    pub context_length: u32,
    /// Number of tokens in the vocabulary.
    pub vocab_size: u32,
    /// Number of blocks.
    pub layers: u32,
    /// Width of the residual stream.
    pub dim: u32,
    /// Weights multiplied for each generated token.
    pub weights_per_token: u64,
    /// Heap bytes of the packed weights.
    pub packed_bytes: u64,
    /// Bits of keys and values of sessions that do not choose themselves, 16 or 8.
    pub kv_cache_bits: u8,
    /// `wide` or `compact`: how the codes of the weights are kept in the heap.
    pub residency: String,
    /// Bits of the activations that four-bit weights are multiplied with, 16 or 8.
    pub activation_bits: u8,
    /// Name of the kernel set.
    pub kernel: String,
    /// Whether chat messages can be sent.
    pub has_chat_template: bool,
    /// Name of the built-in chat template that was taken because the file has none.
    pub guessed_chat_template: Option<String>,
}

/// What the loader is doing.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum LoadState {
    /// No model is stored.
    Empty,
    /// Going on by itself, or by `model_load_step`.
    Loading {
        /// Name of the model being loaded.
        name: String,
        /// Bytes done.
        done_bytes: u64,
        /// Bytes to do.
        total_bytes: u64,
    },
    /// The stored model answers.
    Ready,
    /// The stored model cannot be loaded.
    Failed {
        /// What is wrong.
        message: String,
    },
}

/// Everything about models: what answers, what is stored, what is on its way.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct ModelStatus {
    /// What answers now.
    pub serving: Option<ModelInfo>,
    /// The verified file that is loaded after an upgrade.
    pub stored: Option<StoredModel>,
    /// A verified file that is about to replace `stored` and is being loaded.
    pub candidate: Option<StoredModel>,
    /// The last file that could not be loaded.
    pub rejected: Option<RejectedModel>,
    /// What the loader is doing.
    pub load: LoadState,
    /// The upload that is going on (without its gaps; see `upload_status`).
    pub upload: Option<UploadStatus>,
    /// Size of the heap in bytes.
    pub heap_bytes: u64,
    /// Size of stable memory in bytes.
    pub stable_bytes: u64,
}

/// Drives loading by hand instead of waiting for the canister's timer.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelLoadStepArg {
    /// Stop after about this many instructions; the canister's own ceiling if absent.
    pub max_instructions: Option<u64>,
}

/// How far loading is.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelLoadStepOk {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do.
    pub total_bytes: u64,
    /// Whether the model answers.
    pub ready: bool,
    /// Instructions this call used.
    pub instructions: u64,
}
