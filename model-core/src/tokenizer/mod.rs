//! Text to token ids and back, from the vocabulary in a GGUF file or from a Hugging Face tokenizer.json.
//! Knows nothing of models, prompts or chat.
//!
//! # Special tokens in text
//! Control tokens have power over a model: they begin and end turns. [`Tokenizer::encode`] takes their spelling
//! in the text as plain text unless [`EncodeOptions::parse_special`] is set. Prompts that a chat template makes are
//! made of both: [`chat::Prompt`](crate::chat::Prompt) obeys the template and not the messages.
//! User-defined tokens are always taken whole.
//!
//! # Characters that the vocabulary lacks
//! A byte-level vocabulary may lack single bytes (SmolLM2 has no token for 21 of them). Such a byte is left out of
//! the tokens, and its neighbours do not merge across it, as in llama.cpp. SentencePiece-style vocabularies use their
//! byte tokens, else one unknown token for a run of characters; only where there is neither, or the unknown token is a
//! control token, is it an error.
//!
//! # The space in front
//! SentencePiece-style vocabularies put a space in front of text at the beginning and after special tokens. When
//! [`Tokenizer::decode`] decodes a whole text it drops one space from its first token. [`Tokenizer::token_bytes`],
//! and with it the stream of generated tokens, keeps it: what is generated continues a prompt.
//!
//! # Whose ids
//! Those of the tokenizer that the model was trained with: Hugging Face's `tokenizers` with the model's pattern for
//! byte-level vocabularies, `sentencepiece` for others. llama.cpp gives the same, except that it leaves decomposed
//! characters as they are for `qwen2`, and takes letters beyond ASCII for both upper and lower case in `tekken` and `gpt-4o`.
//! Where a file's vocabulary needs a rule that GGUF has no key for, the rule is llama.cpp's: names of pre-tokenizers, white
//! space after Phi-3's special tokens, spellings that end an answer.

mod alphabet;
mod ascii;
mod bpe;
mod error;
mod from_gguf;
mod from_json;
mod merge;
mod pre;
mod special;
mod spm;
mod stream;
mod trie;
mod vocab;

use std::borrow::Cow;

use crate::TokenId;
use crate::gguf::Metadata;

pub use error::Error;
pub use stream::TextStream;
pub use vocab::TokenKind;

use special::{Fragment, SpecialTokens};
use vocab::Vocabulary;

/// What [`Tokenizer::encode`] adds and obeys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the bos token in front if the model wants one and the text does not begin with it already
    /// (templates often write it), and the eos token at the end if the model wants that.
    pub add_bos: bool,
    /// Take the spelling of control tokens in the text as those tokens. Only for text you trust.
    pub parse_special: bool,
}

/// How text is cut into tokens.
enum Engine {
    ByteLevel(bpe::Bpe),
    SentencePiece(spm::SentencePiece),
    Json(Box<from_json::JsonEngine>),
}

/// A vocabulary with its rules for cutting text.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    special: SpecialTokens,
    engine: Engine,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    add_bos: bool,
    add_eos: bool,
    end_of_generation: Vec<TokenId>,
    drops_space: bool,
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata of a GGUF file describes: byte-level BPE
    /// (`tokenizer.ggml.model` = `gpt2`) or SentencePiece-style (`llama`).
    ///
    /// # Errors
    /// Anything missing, contradictory or unsupported, one [`Error`] variant each.
    pub fn from_gguf(meta: &Metadata) -> Result<Self, Error> {
        from_gguf::build(meta)
    }

    /// Every kind that [`from_gguf`](Self::from_gguf) reads: the value of `tokenizer.ggml.model`, and the names of
    /// `tokenizer.ggml.pre` that mean the same there, the usual one first; none where the file's value does not matter.
    pub fn supported() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
        from_gguf::supported()
    }

    /// Builds the tokenizer of a Hugging Face `tokenizer.json`; the ids of special tokens, and whether bos and eos
    /// are added, still come from `meta`.
    ///
    /// # Errors
    /// [`Error::Json`] if the file is malformed; ids in `meta` beyond its vocabulary.
    pub fn from_json(json: &[u8], meta: &Metadata) -> Result<Self, Error> {
        from_json::build(json, meta)
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// [`Error::Unspellable`] for a character that a SentencePiece-style vocabulary has no way to spell.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, Error> {
        self.encode_guarded(text, options, None)
    }

    /// As [`encode`](Self::encode), taking the character `guard` out of the text after control tokens were found.
    pub(crate) fn encode_guarded(
        &self,
        text: &str,
        options: EncodeOptions,
        guard: Option<char>,
    ) -> Result<Vec<TokenId>, Error> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        let vocabulary = &self.vocabulary;
        let (parse, out) = (options.parse_special, &mut ids);
        match &self.engine {
            Engine::Json(engine) => engine.encode(text, parse, guard, out)?,
            Engine::ByteLevel(bpe) => {
                self.encode_fragments(text, parse, guard, out, |text, _, out| bpe.encode(vocabulary, text, out))?;
            }
            Engine::SentencePiece(pieces) => self.encode_fragments(text, parse, guard, out, |text, begins, out| {
                pieces.encode(vocabulary, text, begins, out)
            })?,
        }
        if options.add_bos && self.add_bos && ids.first().copied() != self.bos {
            ids.splice(0..0, self.bos);
        }
        if options.add_bos && self.add_eos && ids.last().copied() != self.eos {
            ids.extend(self.eos);
        }
        Ok(ids)
    }

    /// Cuts special tokens out and gives the text between them to `encode`, with whether it begins the text or follows
    /// a special token.
    fn encode_fragments(
        &self,
        text: &str,
        parse_special: bool,
        guard: Option<char>,
        ids: &mut Vec<TokenId>,
        encode: impl Fn(&str, bool, &mut Vec<TokenId>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut begins = true;
        for fragment in self.special.split(&self.vocabulary, text, parse_special) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => encode(&without(text, guard), begins, ids)?,
            }
            begins = matches!(fragment, Fragment::Token(_));
        }
        Ok(())
    }

    /// Text in which `guard` keeps apart the spelling of control tokens, for
    /// [`encode_guarded`](Self::encode_guarded). A control token of one character cannot be kept apart.
    pub(crate) fn guard<'t>(&self, text: &'t str, guard: char) -> Cow<'t, str> {
        self.special.guard(&self.vocabulary, text, guard)
    }

    /// The bytes that a token stands for, not always whole UTF-8 characters (see [`TextStream`]). Control, unknown
    /// and unused tokens have none; [`token_text`](Self::token_text) gives their spelling.
    ///
    /// # Errors
    /// [`Error::IdOutOfRange`] for ids beyond the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> Result<&[u8], Error> {
        self.check(id)?;
        Ok(self.vocabulary.bytes(id))
    }

    /// The token as the vocabulary spells it, in the byte-level alphabet or with U+2581 for spaces.
    ///
    /// # Errors
    /// [`Error::IdOutOfRange`] for ids beyond the vocabulary.
    pub fn token_text(&self, id: TokenId) -> Result<&str, Error> {
        self.check(id)?;
        Ok(self.vocabulary.text(id))
    }

    /// What a token is for.
    ///
    /// # Errors
    /// [`Error::IdOutOfRange`] for ids beyond the vocabulary.
    pub fn token_kind(&self, id: TokenId) -> Result<TokenKind, Error> {
        self.vocabulary.kind(id).ok_or(Error::IdOutOfRange { id, vocab_size: self.vocab_size() })
    }

    fn check(&self, id: TokenId) -> Result<(), Error> {
        self.token_kind(id).map(drop)
    }

    /// The bytes of a whole text, without the space that encoding put in front of it.
    ///
    /// # Errors
    /// [`Error::IdOutOfRange`] for ids beyond the vocabulary.
    pub fn decode(&self, ids: &[TokenId]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id)?);
        }
        if self.drops_space && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        Ok(bytes)
    }

    /// Number of tokens; ids lie below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// Whether the model wants texts to begin with [`bos`](Self::bos).
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether the token is a control token: structure without text. `false` beyond the vocabulary.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.vocabulary.kind(id) == Some(TokenKind::Control)
    }

    /// All tokens after which a generation is over, in ascending order: the file's eos, end of turn and end of
    /// message, and special tokens with a well-known spelling such as `<|im_end|>`.
    pub fn end_of_generation(&self) -> &[TokenId] {
        &self.end_of_generation
    }
}

fn without(text: &str, guard: Option<char>) -> Cow<'_, str> {
    match guard {
        Some(guard) if text.contains(guard) => Cow::Owned(text.replace(guard, "")),
        _ => Cow::Borrowed(text),
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.engine {
            Engine::ByteLevel(_) => "byte level",
            Engine::SentencePiece(_) => "SentencePiece",
            Engine::Json(_) => "tokenizer.json",
        };
        formatter.debug_struct("Tokenizer").field("kind", &kind).field("vocab_size", &self.vocab_size()).finish()
    }
}
