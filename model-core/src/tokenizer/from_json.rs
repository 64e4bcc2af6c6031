//! A Hugging Face `tokenizer.json`, run by the `tokenizers` crate itself. Adds what the crate leaves open: special
//! tokens that are not obeyed in plain text, byte-exact pieces, refusal of files that would make the crate panic.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedVocabulary, Model as _, OffsetReferential, OffsetType, PreTokenizer as _};

use super::error::{Error, shorten};
use super::from_gguf::{MAX_TOKENS, Parts, SpecialIds, assemble};
use super::special::SpecialTokens;
use super::vocab::{Spelling, TokenKind, Vocabulary, parse_byte};
use super::{Engine, Tokenizer};
use crate::TokenId;
use crate::gguf::{Metadata, keys};

/// The crate's tokenizer, without its post-processing.
pub(super) struct JsonEngine {
    tokenizer: tokenizers::Tokenizer,
    /// The added tokens again, set to leave special ones in the text alone.
    literal: AddedVocabulary,
}

impl JsonEngine {
    fn new(tokenizer: tokenizers::Tokenizer) -> Self {
        let mut literal = tokenizer.get_added_vocabulary().clone();
        literal.set_encode_special_tokens(true);
        Self { tokenizer, literal }
    }

    /// Appends the tokens of `text`; the character `guard` is taken out after added tokens were found.
    pub(super) fn encode(
        &self,
        text: &str,
        parse_special: bool,
        guard: Option<char>,
        out: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let added = if parse_special { self.tokenizer.get_added_vocabulary() } else { &self.literal };
        let mut words = added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        let refused = |error: tokenizers::Error| Error::Encode { reason: error.to_string() };
        if let Some(guard) = guard {
            words.normalize(|text| text.replace(guard, "")).map_err(refused)?;
        }
        if let Some(pre) = self.tokenizer.get_pre_tokenizer() {
            pre.pre_tokenize(&mut words).map_err(refused)?;
        }
        let model = self.tokenizer.get_model();
        words.tokenize(|word| model.tokenize(word.get())).map_err(refused)?;
        for (_, _, tokens) in words.get_splits(OffsetReferential::Original, OffsetType::None) {
            out.extend(tokens.iter().flatten().map(|token| token.id));
        }
        Ok(())
    }

    /// The first token that the file's post-processing puts in front of a text.
    fn added_first(&self) -> Option<TokenId> {
        self.tokenizer.encode_fast("", true).ok()?.get_ids().first().copied()
    }
}

pub(super) fn build(json: &[u8], meta: &Metadata) -> Result<Tokenizer, Error> {
    let file = File::read(json)?;
    let tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|error| json_error(&error))?;
    let in_gguf = meta.opt_strings(keys::TOKENS)?.map_or(0, |tokens| tokens.len());
    let vocabulary = read_vocabulary(&tokenizer, file.spelling(), in_gguf)?;
    let special = SpecialTokens::new(&vocabulary)?;
    let ids = SpecialIds::read(meta, vocabulary.len())?;
    let engine = JsonEngine::new(tokenizer);
    let add_bos = ids.bos.is_some() && engine.added_first() == ids.bos;
    let engine = Engine::Json(Box::new(engine));
    assemble(meta, ids, add_bos, Parts { vocabulary, special, engine, drops_space: file.drops_space() })
}

fn json_error(reason: &dyn std::fmt::Display) -> Error {
    Error::Json { reason: shorten(&reason.to_string()) }
}

/// The parts of the file that are checked, or that say how tokens decode.
#[derive(Deserialize)]
struct File<'j> {
    #[serde(borrow)]
    model: Bpe<'j>,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

/// Read first: models of other kinds have other fields.
#[derive(Deserialize)]
struct Head {
    model: Kind,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Bpe<'j> {
    #[serde(borrow)]
    vocab: HashMap<Cow<'j, str>, TokenId>,
    #[serde(borrow)]
    merges: Vec<Merge<'j>>,
    continuing_subword_prefix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge<'j> {
    Pair(#[serde(borrow)] Cow<'j, str>, #[serde(borrow)] Cow<'j, str>),
    Text(#[serde(borrow)] Cow<'j, str>),
}

impl<'j> File<'j> {
    fn read(json: &'j [u8]) -> Result<Self, Error> {
        let head: Head = serde_json::from_slice(json).map_err(|error| json_error(&error))?;
        if let Some(kind) = head.model.kind.filter(|kind| kind != "BPE") {
            return Err(Error::Json { reason: format!("its model is {}, expected BPE", shorten(&kind)) });
        }
        let file: Self = serde_json::from_slice(json).map_err(|error| json_error(&error))?;
        if file.model.continuing_subword_prefix.as_deref().is_some_and(|prefix| !prefix.is_empty()) {
            return Err(Error::Json { reason: "continuing_subword_prefix is not supported".to_owned() });
        }
        file.check_merges()?;
        Ok(file)
    }

    /// The crate trusts merges to make tokens of the vocabulary and panics where they do not.
    fn check_merges(&self) -> Result<(), Error> {
        let vocab = &self.model.vocab;
        for (rank, merge) in self.model.merges.iter().enumerate() {
            let (left, right) = match merge {
                Merge::Pair(left, right) => (left.as_ref(), right.as_ref()),
                Merge::Text(text) => text
                    .split_once(' ')
                    .filter(|(_, right)| !right.contains(' '))
                    .ok_or_else(|| Error::MalformedMerge { rank, text: shorten(text) })?,
            };
            let whole = format!("{left}{right}");
            if let Some(piece) = [left, right, &whole].into_iter().find(|piece| !vocab.contains_key(*piece)) {
                return Err(Error::UnknownMergePiece { rank, piece: shorten(piece) });
            }
        }
        Ok(())
    }

    fn spelling(&self) -> Spelling {
        if mentions(&self.decoder, "ByteLevel") || mentions(&self.pre_tokenizer, "ByteLevel") {
            Spelling::ByteLevel
        } else if ["Metaspace", "ByteFallback", "Replace"].iter().any(|name| mentions(&self.decoder, name)) {
            Spelling::SentencePiece
        } else {
            Spelling::Plain
        }
    }

    /// Whether the decoder takes a space off the front.
    fn drops_space(&self) -> bool {
        let strips = find(&self.decoder, "Strip").and_then(|step| step.get("start")?.as_u64()).unwrap_or(0) > 0;
        let never = |step: &Value| step.get("prepend_scheme").and_then(Value::as_str) == Some("never");
        strips || find(&self.decoder, "Metaspace").is_some_and(|step| !never(step))
    }
}

/// The step of a decoder or pre-tokenizer with this type: itself, or in its sequence.
fn find<'v>(steps: &'v Value, kind: &str) -> Option<&'v Value> {
    if steps.get("type").and_then(Value::as_str) == Some(kind) {
        return Some(steps);
    }
    let inner = steps.get("decoders").or_else(|| steps.get("pretokenizers"))?.as_array()?;
    inner.iter().find(|step| step.get("type").and_then(Value::as_str) == Some(kind))
}

fn mentions(steps: &Value, kind: &str) -> bool {
    find(steps, kind).is_some()
}

/// All tokens by id; ids without a token, and those that only the GGUF knows, are unused.
fn read_vocabulary(
    tokenizer: &tokenizers::Tokenizer,
    spelling: Spelling,
    at_least: usize,
) -> Result<Vocabulary, Error> {
    let tokens = tokenizer.get_vocab(true);
    let added = tokenizer.get_added_tokens_decoder();
    let len = tokens.values().max().map_or(0, |&id| id as usize + 1).max(at_least);
    if len == 0 {
        return Err(Error::NoTokens);
    }
    if len > MAX_TOKENS {
        return Err(Error::TooManyTokens { found: len, max: MAX_TOKENS });
    }
    let mut by_id: Vec<Option<&str>> = vec![None; len];
    for (text, &id) in &tokens {
        if let Some(slot) = by_id.get_mut(id as usize) {
            *slot = Some(text);
        }
    }
    let mut vocabulary = Vocabulary::new(spelling, len);
    for (id, text) in (0..).zip(by_id) {
        let kind = match (text, added.get(&id)) {
            (None | Some(""), _) => TokenKind::Unused,
            (_, Some(token)) if token.special => TokenKind::Control,
            (_, Some(_)) => TokenKind::UserDefined,
            (Some(text), None) if spelling == Spelling::SentencePiece && parse_byte(text).is_some() => TokenKind::Byte,
            (Some(_), None) => TokenKind::Normal,
        };
        vocabulary.push(text.unwrap_or_default().as_bytes(), kind)?;
    }
    Ok(vocabulary)
}
