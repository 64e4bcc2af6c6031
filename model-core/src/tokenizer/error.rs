//! What can be wrong with a vocabulary, a tokenizer.json or a token id.

use crate::TokenId;

/// Why a tokenizer cannot be built or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key is missing or has the wrong type.
    #[error("the file's tokenizer metadata cannot be read: {0}")]
    Metadata(#[from] crate::gguf::KeyError),
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not supported.
    #[error("tokenizer model `{found}` is not supported; supported are: {supported}; use a GGUF with one of them")]
    UnsupportedModel {
        /// The file's value.
        found: String,
        /// All supported values.
        supported: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not supported.
    #[error(
        "pre-tokenizer `{found}` is not supported; supported are: {supported}; \
         override `tokenizer.ggml.pre` if the file's is equivalent to one of them, or give a tokenizer.json"
    )]
    UnsupportedPreTokenizer {
        /// The file's value.
        found: String,
        /// All supported values.
        supported: String,
    },
    /// There is no token at all.
    #[error("the vocabulary is empty; the file is not a language model or is damaged")]
    NoTokens,
    /// More tokens than ids.
    #[error("the vocabulary has {found} tokens, at most {max} are possible; the file is damaged")]
    TooManyTokens {
        /// Number of tokens, or the highest id.
        found: usize,
        /// Largest number accepted.
        max: usize,
    },
    /// An array that goes with the tokens has another length.
    #[error("`{key}` has {found} entries for {expected} tokens; the file is damaged, convert it again")]
    LengthMismatch {
        /// Key of the array.
        key: &'static str,
        /// Number of tokens.
        expected: usize,
        /// Entries of the array.
        found: usize,
    },
    /// A token's spelling is not UTF-8.
    #[error("token {id} is not valid UTF-8; the file is damaged, convert it again")]
    TokenNotUtf8 {
        /// The token.
        id: TokenId,
    },
    /// Two tokens have one spelling.
    #[error("tokens {first} and {second} are both spelled `{text}`; the file is damaged, convert it again")]
    DuplicateToken {
        /// The lower id.
        first: TokenId,
        /// The higher id.
        second: TokenId,
        /// Their spelling, shortened.
        text: String,
    },
    /// `tokenizer.ggml.token_type` has a number without meaning.
    #[error("token {id} has type {found}; types go from 0 to 6, so the file is damaged or newer than this program")]
    UnknownTokenType {
        /// The token.
        id: TokenId,
        /// The number found.
        found: i32,
    },
    /// A byte token is not spelled `<0xNN>`.
    #[error("byte token {id} is spelled `{text}`; expected <0x00> to <0xFF>")]
    BadByteToken {
        /// The token.
        id: TokenId,
        /// Its spelling, shortened.
        text: String,
    },
    /// A score is not a number.
    #[error("the score of token {id} is not a number; the file is damaged, convert it again")]
    ScoreNotANumber {
        /// The token.
        id: TokenId,
    },
    /// A merge is not two pieces with a space between.
    #[error("merge {rank} is `{text}`; expected two pieces with a space between")]
    MalformedMerge {
        /// Position in the list of merges.
        rank: usize,
        /// The merge, shortened.
        text: String,
    },
    /// A merge names or makes a piece that no token spells.
    #[error("merge {rank} needs a token spelled `{piece}`, which the vocabulary lacks; the file is damaged")]
    UnknownMergePiece {
        /// Position in the list of merges.
        rank: usize,
        /// The piece, shortened.
        piece: String,
    },
    /// The id of a special token lies outside the vocabulary.
    #[error("`{key}` is {id}, but the vocabulary has {vocab_size} tokens; correct it with an override")]
    SpecialOutOfRange {
        /// Key of the id.
        key: &'static str,
        /// The id found.
        id: u32,
        /// Number of tokens.
        vocab_size: usize,
    },
    /// A token is to be added to every text but the file does not name it.
    #[error("`{flag}` is true but `{key}` is missing; set one of them with an override")]
    MissingSpecial {
        /// Key of the flag.
        flag: &'static str,
        /// Key of the id.
        key: &'static str,
    },
    /// A token id beyond the vocabulary.
    #[error("there is no token {id}: ids end at {vocab_size}")]
    IdOutOfRange {
        /// The id asked for.
        id: TokenId,
        /// Number of tokens.
        vocab_size: usize,
    },
    /// The vocabulary has neither the character, nor its bytes, nor an unknown token that is no control token.
    #[error("the vocabulary cannot spell {character:?} (U+{:04X}); remove it from the text", *character as u32)]
    Unspellable {
        /// The character.
        character: char,
    },
    /// The tokenizer.json cannot be used.
    #[error("tokenizer.json cannot be used: {reason}")]
    Json {
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizers library refused a text.
    #[error("the text cannot be tokenized: {reason}")]
    Encode {
        /// What the library said.
        reason: String,
    },
}

/// A spelling for an error message: a file may hold spellings of any length.
pub(super) fn shorten(text: &str) -> String {
    const LIMIT: usize = 40;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
