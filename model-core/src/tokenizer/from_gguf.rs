//! GGUF metadata to a tokenizer. Checks everything the file says: lengths, ids, kinds, merges.

use std::borrow::Cow;

use super::bpe::Bpe;
use super::pre::PreTokenizer;
use super::special::{SpecialTokens, end_of_generation, must_be_control};
use super::spm::SentencePiece;
use super::vocab::{Spelling, TokenKind, VISIBLE_SPACE, Vocabulary, parse_byte};
use super::{Engine, Error, Tokenizer};
use crate::TokenId;
use crate::gguf::{Metadata, keys};

/// Tokens accepted: far above any real vocabulary, far below what ids could not number.
pub(super) const MAX_TOKENS: usize = 1 << 24;

/// Values of `tokenizer.ggml.model`.
const BYTE_LEVEL: &str = "gpt2";
const SENTENCE_PIECE: &str = "llama";

/// Special tokens of Phi-3 after which white space stays.
const PHI3_KEEPING: &[&str] = &["<unk>", "<s>", "<|endoftext|>"];

pub(super) fn build(meta: &Metadata) -> Result<Tokenizer, Error> {
    match meta.str(keys::TOKENIZER_MODEL)? {
        BYTE_LEVEL => byte_level(meta),
        SENTENCE_PIECE => sentence_piece(meta),
        other => Err(Error::UnsupportedModel {
            found: super::error::shorten(other),
            supported: format!("{BYTE_LEVEL}, {SENTENCE_PIECE}"),
        }),
    }
}

/// Every kind of tokenizer that a GGUF file can name: the value of `tokenizer.ggml.model`, and those of
/// `tokenizer.ggml.pre` that mean the same there (none where it does not matter).
pub(super) fn supported() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    super::pre::names().map(|names| (BYTE_LEVEL, names)).chain([(SENTENCE_PIECE, &[][..])])
}

fn byte_level(meta: &Metadata) -> Result<Tokenizer, Error> {
    let pre = PreTokenizer::named(meta.opt_str(keys::TOKENIZER_PRE)?.unwrap_or("default"))?;
    let add_bos = pre.profile.add_bos;
    let ids = SpecialIds::read(meta, vocab_size(meta)?)?;
    let vocabulary = read_vocabulary(meta, Spelling::ByteLevel, &ids)?;
    let special = SpecialTokens::new(&vocabulary)?;
    let merges = meta.strings(keys::MERGES)?;
    let engine = Bpe::new(pre, &vocabulary, &special, (0..merges.len()).map(|i| merges.get(i).unwrap_or_default()))?;
    assemble(meta, ids, add_bos, Parts { vocabulary, special, engine: Engine::ByteLevel(engine), drops_space: false })
}

fn sentence_piece(meta: &Metadata) -> Result<Tokenizer, Error> {
    let vocab_size = vocab_size(meta)?;
    let ids = SpecialIds::read(meta, vocab_size)?.or_sentence_piece_defaults(vocab_size);
    let vocabulary = read_vocabulary(meta, Spelling::SentencePiece, &ids)?;
    let mut special = SpecialTokens::new(&vocabulary)?;
    if is_phi3(meta)? {
        special.swallow_space(&vocabulary, PHI3_KEEPING);
    }
    let scores = meta.f32s(keys::SCORES)?;
    check_length(keys::SCORES, vocab_size, scores.len())?;
    let space_prefix = meta.opt_bool(keys::ADD_SPACE_PREFIX)?.unwrap_or(true);
    let engine = SentencePiece::new(&vocabulary, scores, ids.powerless_unknown(&vocabulary), space_prefix)?;
    let engine = Engine::SentencePiece(engine);
    assemble(meta, ids, true, Parts { vocabulary, special, engine, drops_space: space_prefix })
}

/// Whether the vocabulary is Phi-3's, whose special tokens swallow white space (`rstrip` in its `tokenizer.json`). GGUF has no
/// key for that: llama.cpp goes by the model's name, which leaves Phi-3.5 out, hence the architecture too.
fn is_phi3(meta: &Metadata) -> Result<bool, Error> {
    // A name that cannot be read is no reason to refuse the file.
    let name = meta.opt_str(keys::NAME).ok().flatten().unwrap_or_default().to_lowercase();
    let architecture = meta.opt_str(keys::ARCHITECTURE)?.unwrap_or_default();
    Ok(architecture == "phi3" || name.contains("phi-3") || name.contains("phi3"))
}

/// What a tokenizer is made of, whatever it was read from.
pub(super) struct Parts {
    pub(super) vocabulary: Vocabulary,
    pub(super) special: SpecialTokens,
    pub(super) engine: Engine,
    /// Whether decoding drops the space that encoding put in front.
    pub(super) drops_space: bool,
}

/// Joins the parts with the special ids; `add_bos` counts where the file does not say.
pub(super) fn assemble(meta: &Metadata, ids: SpecialIds, add_bos: bool, parts: Parts) -> Result<Tokenizer, Error> {
    let bos_asked = meta.opt_bool(keys::ADD_BOS)?;
    if bos_asked == Some(true) && ids.bos.is_none() {
        return Err(Error::MissingSpecial { flag: keys::ADD_BOS, key: keys::BOS_ID });
    }
    let add_eos = meta.opt_bool(keys::ADD_EOS)?.unwrap_or(false);
    if add_eos && ids.eos.is_none() {
        return Err(Error::MissingSpecial { flag: keys::ADD_EOS, key: keys::EOS_ID });
    }
    let mut end = end_of_generation(&parts.vocabulary, &parts.special);
    end.extend([ids.eos, ids.eot, ids.eom].into_iter().flatten());
    end.sort_unstable();
    end.dedup();
    Ok(Tokenizer {
        vocabulary: parts.vocabulary,
        special: parts.special,
        engine: parts.engine,
        bos: ids.bos,
        eos: ids.eos,
        add_bos: bos_asked.unwrap_or(add_bos) && ids.bos.is_some(),
        add_eos,
        end_of_generation: end,
        drops_space: parts.drops_space,
    })
}

/// Ids of tokens with a role.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<TokenId>,
    eos: Option<TokenId>,
    eot: Option<TokenId>,
    eom: Option<TokenId>,
    unknown: Option<TokenId>,
}

impl SpecialIds {
    /// Reads the ids, each of which must lie below `vocab_size`.
    pub(super) fn read(meta: &Metadata, vocab_size: usize) -> Result<Self, Error> {
        let read = |key: &'static str| match meta.opt_u32(key)? {
            Some(id) if id as usize >= vocab_size => Err(Error::SpecialOutOfRange { key, id, vocab_size }),
            id => Ok(id),
        };
        Ok(Self {
            bos: read(keys::BOS_ID)?,
            eos: read(keys::EOS_ID)?,
            eot: read(keys::EOT_ID)?,
            eom: read(keys::EOM_ID)?,
            unknown: read(keys::UNKNOWN_ID)?,
        })
    }

    /// SentencePiece's own numbering, for files that leave it out.
    fn or_sentence_piece_defaults(self, vocab_size: usize) -> Self {
        let or = |id: Option<TokenId>, default| id.or((vocab_size > 2).then_some(default));
        Self { unknown: or(self.unknown, 0), bos: or(self.bos, 1), eos: or(self.eos, 2), ..self }
    }

    /// The unknown token, if text may turn into it: where a file takes a control token for it, nothing else can be spelled.
    fn powerless_unknown(&self, vocabulary: &Vocabulary) -> Option<TokenId> {
        let is_turn = |id| [self.bos, self.eos, self.eot, self.eom].contains(&Some(id));
        self.unknown.filter(|&id| vocabulary.kind(id) != Some(TokenKind::Control) && !is_turn(id))
    }

    /// The kind of a token in a file without token types.
    fn implied_kind(&self, id: TokenId, text: &[u8], spelling: Spelling) -> TokenKind {
        let is_byte = || std::str::from_utf8(text).is_ok_and(|text| parse_byte(text).is_some());
        if self.unknown == Some(id) && spelling == Spelling::SentencePiece {
            TokenKind::Unknown
        } else if [self.bos, self.eos, self.eot, self.eom].contains(&Some(id)) {
            TokenKind::Control
        } else if spelling == Spelling::SentencePiece && is_byte() {
            TokenKind::Byte
        } else {
            TokenKind::Normal
        }
    }
}

fn vocab_size(meta: &Metadata) -> Result<usize, Error> {
    match meta.strings(keys::TOKENS)?.len() {
        0 => Err(Error::NoTokens),
        found if found > MAX_TOKENS => Err(Error::TooManyTokens { found, max: MAX_TOKENS }),
        found => Ok(found),
    }
}

fn read_vocabulary(meta: &Metadata, spelling: Spelling, ids: &SpecialIds) -> Result<Vocabulary, Error> {
    let tokens = meta.strings(keys::TOKENS)?;
    let types = meta.opt_i32s(keys::TOKEN_TYPES)?;
    if let Some(types) = &types {
        check_length(keys::TOKEN_TYPES, tokens.len(), types.len())?;
    }
    let mut vocabulary = Vocabulary::new(spelling, tokens.len());
    for (id, text) in (0..).zip(tokens.iter()) {
        let kind = match types.as_ref().and_then(|types| types.get(id as usize)) {
            Some(&number) => TokenKind::from_gguf(id, number)?,
            None => ids.implied_kind(id, text, spelling),
        };
        match kind {
            TokenKind::Normal | TokenKind::UserDefined if must_be_control(text) => {
                vocabulary.push(text, TokenKind::Control)?;
            }
            // Text is searched for such tokens while its spaces are spaces. Files made before mid-2024 spell visible ones.
            TokenKind::UserDefined if spelling == Spelling::SentencePiece => {
                vocabulary.push(&with_spaces(text), kind)?;
            }
            _ => vocabulary.push(text, kind)?,
        }
    }
    Ok(vocabulary)
}

fn with_spaces(text: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(text) {
        Ok(text) if text.contains(VISIBLE_SPACE) => Cow::Owned(text.replace(VISIBLE_SPACE, " ").into_bytes()),
        _ => Cow::Borrowed(text),
    }
}

fn check_length(key: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::LengthMismatch { key, expected, found }) }
}
