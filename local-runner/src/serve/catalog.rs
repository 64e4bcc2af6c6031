//! The one model that is served, as clients see it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use canister::api;
use model_core::tokenizer::Tokenizer;
use serde_json::{Value as Json, json};

use crate::backend::native::Loaded;

/// The model.
#[derive(Debug)]
pub struct Catalog {
    /// What clients call it.
    pub id: String,
    created: u64,
    /// What is known of it, in the words of llama.cpp's server.
    meta: Json,
    vocabulary: Vocabulary,
}

/// What names tokens.
#[derive(Debug)]
enum Vocabulary {
    /// That of a model in this process.
    Loaded(Arc<Loaded>),
    /// That of a file.
    Read(Box<Tokenizer>),
    /// Nothing.
    Absent,
}

impl Catalog {
    /// A model in this process.
    pub fn native(id: String, loaded: Arc<Loaded>) -> Self {
        let config = &loaded.model().config;
        let meta = json!({
            "n_ctx": config.context_length,
            "n_ctx_train": config.context_length,
            "n_embd": config.dim,
            "n_vocab": config.vocab,
        });
        Self { id, created: now(), meta, vocabulary: Vocabulary::Loaded(loaded) }
    }

    /// The model of a canister; with its vocabulary, if there is a file of it.
    pub fn deployed(id: String, info: &api::ModelInfo, tokenizer: Option<Tokenizer>) -> Self {
        let meta = json!({
            "n_ctx": info.context_length,
            "n_ctx_train": info.context_length,
            "n_embd": info.dim,
            "n_vocab": info.vocab_size,
        });
        let vocabulary = tokenizer.map_or(Vocabulary::Absent, |tokenizer| Vocabulary::Read(Box::new(tokenizer)));
        Self { id, created: now(), meta, vocabulary }
    }

    /// Names tokens, where the vocabulary is at hand.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match &self.vocabulary {
            Vocabulary::Loaded(loaded) => Some(&loaded.model().tokenizer),
            Vocabulary::Read(tokenizer) => Some(tokenizer),
            Vocabulary::Absent => None,
        }
    }

    /// The entry of the model.
    pub fn entry(&self) -> Json {
        json!({ "id": self.id, "object": "model", "created": self.created, "owned_by": "icllama", "meta": self.meta })
    }

    /// All entries.
    pub fn list(&self) -> Json {
        json!({ "object": "list", "data": [self.entry()] })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
