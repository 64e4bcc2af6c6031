//! The transformer: packed weights, their loading, and the computation of logits. Knows nothing of text, sampling and
//! sessions.

pub mod attention;
mod block;
mod error;
mod evaluate;
mod ffn;
mod forward;
pub mod kv_cache;
mod linear;
mod loader;
mod plan;
mod residency;
mod traffic;
mod weights;

pub use error::{Error, Part};
pub(crate) use forward::Forward;
pub use loader::{LoadOptions, LoadProgress, Loader};
pub use residency::Place;

use std::sync::OnceLock;

use crate::chat::ChatTemplate;
use crate::config::Config;
use crate::grammar::TokenOrder;
use crate::kernels::Kernel;
use crate::math::Rope;
use crate::pack::{Precision, Residency};
use crate::tokenizer::Tokenizer;
pub use kv_cache::CachePrecision;
use kv_cache::KvCache;
use weights::Weights;

/// A loaded model; shared by any number of sessions.
#[derive(Debug)]
pub struct Model {
    /// Its shape.
    pub config: Config,
    /// Its vocabulary.
    pub tokenizer: Tokenizer,
    /// Its chat template, if the file has one.
    pub chat: Option<ChatTemplate>,
    weights: Weights,
    weights_per_token: u64,
    precision: Precision,
    residency: Residency,
    rope: Rope,
    /// Of layers with a sliding window, if they turn otherwise.
    local_rope: Option<Rope>,
    kernel: Kernel,
    /// Made when a grammar first needs it.
    token_order: OnceLock<TokenOrder>,
}

impl Model {
    /// What the quantised weights became. It decides bits of results.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// How the codes of the weights are kept in memory. Results do not depend on it.
    pub fn residency(&self) -> Residency {
        self.residency
    }

    /// The kernel path that multiplies.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Multiplies by another path from now on. Results do not change.
    pub fn set_kernel(&mut self, kernel: Kernel) {
        self.kernel = kernel;
    }

    /// Bytes of memory that the weights take.
    pub fn packed_bytes(&self) -> u64 {
        self.weights.bytes()
    }

    /// Multiply-accumulates with weights that a generated token takes, output head included, attention not.
    pub fn weights_per_token(&self) -> u64 {
        self.weights_per_token
    }

    /// Bytes of packed weights that a generated token reads.
    pub fn bytes_per_token(&self) -> u64 {
        self.weights.multiplied().map(|matrix| matrix.bytes() as u64).sum()
    }

    /// Reads, on all threads of the current pool, the weights that a generated token reads, and does nothing else with
    /// them: how long this takes is the least that a token can take on this machine. Returns their exclusive or.
    pub fn read_weights(&self) -> u64 {
        self.weights.multiplied().fold(0, |all, matrix| all ^ traffic::read(matrix))
    }

    /// The tokens in the order of their bytes.
    pub fn token_order(&self) -> &TokenOrder {
        self.token_order.get_or_init(|| TokenOrder::new(&self.tokenizer))
    }

    /// Bytes that the cache of a session takes for `positions` tokens.
    pub fn cache_bytes(&self, positions: usize, precision: CachePrecision) -> u64 {
        self.new_cache(precision).bytes_for(positions) as u64
    }

    /// An empty cache of the right shape.
    pub(crate) fn new_cache(&self, precision: CachePrecision) -> KvCache {
        KvCache::new(self.config.layers, self.config.kv_heads, self.config.head_dim, precision)
    }
}
