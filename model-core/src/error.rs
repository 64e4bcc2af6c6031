//! The error of the whole crate: one variant per stage, wrapping that stage's own enum.

use crate::model::kv_cache::CacheOutOfMemory;
use crate::{chat, config, gguf, model, pack, session, tokenizer};

/// Why a model could not be loaded or a session not be advanced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container is wrong.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The description of the model is wrong or not supported.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The vocabulary is wrong or not supported.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The chat template is wrong.
    #[error(transparent)]
    Chat(#[from] chat::Error),
    /// A tensor could not be packed.
    #[error(transparent)]
    Pack(#[from] pack::Error),
    /// The tensors do not make a model, or not a healthy one.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// No memory is left for the cache.
    #[error(transparent)]
    CacheOutOfMemory(#[from] CacheOutOfMemory),
    /// A session was asked for something it cannot do.
    #[error(transparent)]
    Session(#[from] session::Error),
}
