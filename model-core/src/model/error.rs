//! What can be wrong with tensors, and with the numbers they yield.

use crate::config::SUPPORTED_ARCHITECTURES;

/// Where in a layer a number appeared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The normalised input of attention.
    AttentionInput,
    /// Queries, keys or values.
    Attention,
    /// The mixed values, input of the attention's output matrix.
    AttentionOutput,
    /// The normalised input of the feed-forward network.
    FeedForwardInput,
    /// The gated product inside the feed-forward network.
    FeedForward,
    /// The sum that leaves the layer.
    Residual,
}

impl std::fmt::Display for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Part::AttentionInput => "the input of attention",
            Part::Attention => "queries, keys or values",
            Part::AttentionOutput => "the output of attention",
            Part::FeedForwardInput => "the input of the feed-forward network",
            Part::FeedForward => "the feed-forward network",
            Part::Residual => "the residual stream",
        })
    }
}

/// Why a model cannot be loaded or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A tensor that the architecture needs is not there.
    #[error("tensor `{tensor}` is missing; the file is incomplete or its metadata describes another model")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape than the metadata asks for.
    #[error("tensor `{tensor}` has shape {found:?}, the metadata asks for {expected:?} (fastest dimension first)")]
    Misshapen {
        /// Its name.
        tensor: String,
        /// Shape by the metadata.
        expected: Vec<u64>,
        /// Shape in the file.
        found: Vec<u64>,
    },
    /// A tensor that the supported architecture does not have and that would change the result.
    #[error(
        "tensor `{tensor}` is not part of a {architecture} model as it is supported (architectures: {known}); this kind of \
         model needs another program",
        known = SUPPORTED_ARCHITECTURES.join(", ")
    )]
    UnexpectedTensor {
        /// Its name.
        tensor: String,
        /// The file's architecture.
        architecture: String,
    },
    /// There is not enough memory for the weights.
    #[error(
        "the weights take {wide_bytes} bytes wide and {compact_bytes} bytes compact ({wanted} was asked for), and may take \
         {limit_bytes}; use a smaller model, a smaller quantisation, or allow more memory"
    )]
    TooLarge {
        /// `wide`, `compact` or `either`.
        wanted: &'static str,
        /// Bytes of the weights with a byte per code.
        wide_bytes: u64,
        /// Bytes of the weights with half a byte per code where codes have four bits.
        compact_bytes: u64,
        /// Bytes that they may take.
        limit_bytes: u64,
    },
    /// A small tensor (a norm, a bias, rotary factors) holds an infinite or undefined number, or a factor that is not positive.
    #[error("tensor `{tensor}` holds {found} at index {index}; the file is damaged")]
    BadValue {
        /// Its name.
        tensor: String,
        /// Index of the number.
        index: usize,
        /// The number as text.
        found: String,
    },
    /// The tokenizer knows more tokens than the embedding has rows.
    #[error("the tokenizer has {tokens} tokens, the embedding {rows} rows; the tokenizer belongs to another model")]
    VocabularyMismatch {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// [`super::Loader::finish`] was called before everything was loaded.
    #[error("the model is not loaded yet ({done_bytes} of {total_bytes} bytes); step the loader until it is ready")]
    NotReady {
        /// Bytes of tensors packed.
        done_bytes: u64,
        /// Bytes of tensors to pack; 0 while the header is unread.
        total_bytes: u64,
    },
    /// An activation is infinite or undefined.
    #[error("layer {layer} gave numbers that are not finite in {part}; the model's weights are damaged")]
    NonFinite {
        /// Index of the layer.
        layer: usize,
        /// Where in the layer.
        part: Part,
    },
    /// The logits are infinite or undefined.
    #[error("the output head gave logits that are not finite; the model's weights are damaged")]
    NonFiniteLogits,
    /// A token beyond the vocabulary.
    #[error("token {id} at index {index} is not in the vocabulary of {vocab}")]
    UnknownToken {
        /// Its index in the input.
        index: usize,
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// More tokens than the context has.
    #[error("{tokens} tokens do not fit the model's context of {context_length}; use a shorter text")]
    ContextTooShort {
        /// Tokens given.
        tokens: usize,
        /// Positions of the context.
        context_length: usize,
    },
}
