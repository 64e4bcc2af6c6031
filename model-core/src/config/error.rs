//! What can be wrong with a model's description.

use super::{EMBEDDING, SUPPORTED_ARCHITECTURES};
use crate::gguf::KeyError;

/// Why a model's description cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A key is missing or has the wrong type.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The architecture is not supported.
    #[error("architecture {found:?} is not supported; supported are: {}", SUPPORTED_ARCHITECTURES.join(", "))]
    UnsupportedArchitecture {
        /// What the file says.
        found: String,
    },
    /// A number is too small or too large to be true.
    #[error("{key} is {found}; it must be {min} to {max}, so the file is damaged or needs another program")]
    OutOfRange {
        /// The key, or the tensor whose shape has the number.
        key: String,
        /// The number found.
        found: u64,
        /// Smallest that would do.
        min: u64,
        /// Largest that would do.
        max: u64,
    },
    /// A float is not what it must be.
    #[error("{key} is {found}; it must be {expected}")]
    BadFloat {
        /// The key.
        key: String,
        /// The value found.
        found: f32,
        /// What would do.
        expected: &'static str,
    },
    /// Two numbers contradict each other.
    #[error("{key} is {found}, but {rule} {other}; the file is damaged")]
    Contradiction {
        /// The key.
        key: String,
        /// Its value.
        found: u64,
        /// What must hold between the two.
        rule: &'static str,
        /// The other value.
        other: u64,
    },
    /// The context extension is not supported.
    #[error("{key} is {found:?}; supported are: none, linear, yarn and longrope")]
    UnsupportedRopeScaling {
        /// The key.
        key: String,
        /// What the file says.
        found: String,
    },
    /// The feed-forward network is a mixture of experts.
    #[error("{key} is {found}: mixtures of experts are not supported; use a dense model")]
    MixtureOfExperts {
        /// The key.
        key: String,
        /// Number of experts.
        found: u64,
    },
    /// A list has not one entry for each layer.
    #[error("{key} has {found} entries for {layers} layers; the file is damaged")]
    LayerCount {
        /// The key.
        key: String,
        /// Number of entries.
        found: usize,
        /// Number of layers.
        layers: usize,
    },
    /// There is no embedding matrix.
    #[error("the file has no matrix {EMBEDDING}; it is no complete language model")]
    NoEmbedding,
    /// The key-value cache would not be addressable.
    #[error("32 positions of key-value cache would take {bytes} bytes, at most {max} are possible")]
    CacheTooLarge {
        /// Bytes of one segment of the cache.
        bytes: u64,
        /// The most accepted.
        max: u64,
    },
}
