//! GGUF metadata to a tokenizer. Checks everything the file says: lengths, ids, kinds, merges.

use super::bpe::Bpe;
use super::pre::PreTokenizer;
use super::special::{SpecialTokens, end_of_generation};
use super::spm::SentencePiece;
use super::vocab::{Spelling, TokenKind, Vocabulary, parse_byte};
use super::{Engine, Error, Tokenizer};
use crate::TokenId;
use crate::gguf::{Metadata, keys};

/// Tokens accepted: far above any real vocabulary, far below what ids could not number.
pub(super) const MAX_TOKENS: usize = 1 << 24;

/// The values of `tokenizer.ggml.model` that are understood.
const SUPPORTED_MODELS: &str = "gpt2, llama";

pub(super) fn build(meta: &Metadata) -> Result<Tokenizer, Error> {
    match meta.str(keys::TOKENIZER_MODEL)? {
        "gpt2" => byte_level(meta),
        "llama" => sentence_piece(meta),
        other => Err(Error::UnsupportedModel { found: super::error::shorten(other), supported: SUPPORTED_MODELS }),
    }
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
    let special = SpecialTokens::new(&vocabulary)?;
    let scores = meta.f32s(keys::SCORES)?;
    check_length(keys::SCORES, vocab_size, scores.len())?;
    let space_prefix = meta.opt_bool(keys::ADD_SPACE_PREFIX)?.unwrap_or(true);
    let engine = SentencePiece::new(&vocabulary, scores, ids.unknown, space_prefix)?;
    let engine = Engine::SentencePiece(engine);
    assemble(meta, ids, true, Parts { vocabulary, special, engine, drops_space: space_prefix })
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
        vocabulary.push(text, kind)?;
    }
    Ok(vocabulary)
}

fn check_length(key: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::LengthMismatch { key, expected, found }) }
}
