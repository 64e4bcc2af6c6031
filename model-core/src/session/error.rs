//! What a session refuses.

use super::RecordError;
use crate::TokenId;

/// Why a session cannot be made, continued or restored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is nothing to continue.
    #[error("there are no tokens to continue; give a prompt (a model without a bos token cannot start from nothing)")]
    EmptyPrompt,
    /// A token beyond the vocabulary.
    #[error("token {id} at index {index} is not in the vocabulary of {vocab}")]
    UnknownToken {
        /// Its index in the session.
        index: usize,
        /// The token.
        id: TokenId,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// The tokens, and one more to be generated, do not fit the context.
    #[error("{positions} positions are needed, the model's context has {context_length}; shorten the prompt")]
    ContextTooShort {
        /// Tokens of the session and one to be generated.
        positions: usize,
        /// Positions of the context.
        context_length: usize,
    },
    /// A sampling option has no meaning.
    #[error(transparent)]
    Sampling(#[from] crate::sample::Error),
    /// The grammar is wrong, or no token follows it.
    #[error(transparent)]
    Grammar(#[from] crate::grammar::Error),
    /// The batch width is out of range.
    #[error("prefill_batch is {found}; it must be 1 to {max}")]
    PrefillBatch {
        /// The value given.
        found: usize,
        /// The largest accepted.
        max: usize,
    },
    /// More alternatives to each token are asked for than are kept.
    #[error("logprobs is {found}; at most {max} alternatives to each token are kept")]
    TooManyLogprobs {
        /// The number given.
        found: u32,
        /// The largest accepted.
        max: u32,
    },
    /// Too many stop strings.
    #[error("there are {found} stop strings; at most {max} are accepted")]
    TooManyStopStrings {
        /// How many were given.
        found: usize,
        /// The most accepted.
        max: usize,
    },
    /// A stop string is empty or too long.
    #[error("stop string {index} has {bytes} bytes; it must have 1 to {max}")]
    StopStringLength {
        /// Its index.
        index: usize,
        /// Its length.
        bytes: usize,
        /// The longest accepted.
        max: usize,
    },
    /// Something was to be appended before the answer was over.
    #[error("the session is still generating; step it until it is finished, or cancel it")]
    StillGenerating,
    /// The session was made for a model of another shape.
    #[error("the session belongs to another model; make a new one")]
    OtherModel,
    /// The bytes of a record are wrong.
    #[error("the session record cannot be read: {0}")]
    Record(#[from] RecordError),
}
