//! The vocabulary: spelling, decoded bytes and kind of every token, and the lookup by bytes.
//! Knows nothing of how text is cut into tokens.

use super::Error;
use super::alphabet::ALPHABET;
use crate::TokenId;

/// Marks "no token" where an id is stored.
pub(super) const NO_TOKEN: TokenId = TokenId::MAX;

/// SentencePiece's visible space, U+2581.
pub(super) const VISIBLE_SPACE: char = '\u{2581}';

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Ordinary text.
    Normal,
    /// Stands for what the vocabulary cannot spell.
    Unknown,
    /// Structure, such as the beginning of a text or the end of a turn: no text of its own.
    Control,
    /// Added by the model's author: always matched as a whole, before anything else.
    UserDefined,
    /// A hole in the vocabulary.
    Unused,
    /// One byte, spelled `<0xNN>`.
    Byte,
}

impl TokenKind {
    /// The kind with the number that GGUF gives it; 0 (undefined) counts as normal.
    pub(super) fn from_gguf(id: TokenId, number: i32) -> Result<Self, Error> {
        match number {
            0 | 1 => Ok(Self::Normal),
            2 => Ok(Self::Unknown),
            3 => Ok(Self::Control),
            4 => Ok(Self::UserDefined),
            5 => Ok(Self::Unused),
            6 => Ok(Self::Byte),
            _ => Err(Error::UnknownTokenType { id, found: number }),
        }
    }

    /// Whether decoding such a token gives bytes.
    fn has_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Byte)
    }
}

/// How the vocabulary spells the bytes of normal tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One character of the GPT-2 alphabet per byte.
    ByteLevel,
    /// UTF-8 with U+2581 for a space.
    SentencePiece,
    /// UTF-8 as it is.
    Plain,
}

/// Byte strings stored back to back.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    buffer: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    fn with_capacity(pieces: usize) -> Self {
        Self { buffer: Vec::with_capacity(pieces.saturating_mul(8)), ends: Vec::with_capacity(pieces) }
    }

    /// The piece `id`, empty where there is none.
    pub(super) fn get(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let start = id.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(id).and_then(|&end| self.buffer.get(start..end)).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn end_piece(&mut self) {
        self.ends.push(self.buffer.len());
    }
}

/// All tokens of a model, by id.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    spelling: Spelling,
    /// As the file spells them; valid UTF-8.
    texts: Pieces,
    /// Decoded; empty for tokens without text.
    bytes: Pieces,
    kinds: Vec<TokenKind>,
    /// Normal tokens of a byte-level vocabulary that are not spelled in its alphabet, ascending.
    misspelled: Vec<TokenId>,
}

impl Vocabulary {
    pub(super) fn new(spelling: Spelling, capacity: usize) -> Self {
        let kinds = Vec::with_capacity(capacity);
        let [texts, bytes] = [(); 2].map(|()| Pieces::with_capacity(capacity));
        Self { spelling, texts, bytes, kinds, misspelled: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Adds the next token. One without a spelling is unused, whatever it claims to be.
    ///
    /// # Errors
    /// If the spelling is not UTF-8, or a byte token is not spelled `<0xNN>`.
    pub(super) fn push(&mut self, text: &[u8], kind: TokenKind) -> Result<(), Error> {
        let id = self.len() as TokenId;
        let kind = if text.is_empty() { TokenKind::Unused } else { kind };
        self.push_bytes(id, text, kind)?;
        self.texts.buffer.extend_from_slice(text);
        self.texts.end_piece();
        self.kinds.push(kind);
        Ok(())
    }

    fn push_bytes(&mut self, id: TokenId, text: &[u8], kind: TokenKind) -> Result<(), Error> {
        let out = &mut self.bytes.buffer;
        let in_alphabet = kind == TokenKind::Normal && self.spelling == Spelling::ByteLevel;
        // The alphabet's decoder checks what it reads, so that most tokens are read once.
        if !in_alphabet || !ALPHABET.decode_into(text, out) {
            let text = std::str::from_utf8(text).map_err(|_| Error::TokenNotUtf8 { id })?;
            match kind {
                TokenKind::Byte => out.push(parse_byte(text).ok_or_else(|| bad_byte_token(id, text))?),
                TokenKind::Normal if self.spelling == Spelling::SentencePiece => show_spaces(text, out),
                // A spelling outside the alphabet is shown as it is, as Hugging Face's decoder does.
                TokenKind::Normal | TokenKind::UserDefined => out.extend_from_slice(text.as_bytes()),
                TokenKind::Unknown | TokenKind::Control | TokenKind::Unused => {}
            }
            if in_alphabet {
                self.misspelled.push(id);
            }
        }
        self.bytes.end_piece();
        Ok(())
    }

    pub(super) fn kind(&self, id: TokenId) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// The file's spelling; empty for ids beyond the vocabulary.
    pub(super) fn text(&self, id: TokenId) -> &str {
        std::str::from_utf8(self.texts.get(id)).unwrap_or_default()
    }

    /// What the token decodes to: nothing for control, unknown and unused tokens.
    pub(super) fn bytes(&self, id: TokenId) -> &[u8] {
        match self.kind(id) {
            Some(kind) if kind.has_text() => self.bytes.get(id),
            _ => &[],
        }
    }

    /// What text is matched against: decoded bytes, but visible spaces for SentencePiece vocabularies.
    pub(super) fn keys(&self) -> &Pieces {
        match self.spelling {
            Spelling::ByteLevel => &self.bytes,
            Spelling::SentencePiece | Spelling::Plain => &self.texts,
        }
    }

    /// All ids with their kinds.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TokenId, TokenKind)> + '_ {
        (0..).zip(self.kinds.iter().copied())
    }

    /// Whether a normal token is spelled in the alphabet of byte-level vocabularies, and so can result from merges.
    pub(super) fn is_byte_level(&self, id: TokenId) -> bool {
        self.misspelled.binary_search(&id).is_err()
    }
}

fn bad_byte_token(id: TokenId, text: &str) -> Error {
    Error::BadByteToken { id, text: super::error::shorten(text) }
}

/// Appends `text` with spaces for visible ones.
fn show_spaces(text: &str, out: &mut Vec<u8>) {
    for (index, part) in text.split(VISIBLE_SPACE).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(part.as_bytes());
    }
}

/// The byte that `<0xNN>` names.
pub(super) fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// Finds tokens by their key: open addressing over ids, so that keys are stored once, in the vocabulary.
#[derive(Debug, Clone)]
pub(super) struct KeyTable {
    /// Id, or [`NO_TOKEN`]; the length is a power of two, at least twice the number of tokens.
    slots: Vec<TokenId>,
    /// Bytes of the longest key.
    longest: usize,
}

impl KeyTable {
    pub(super) fn with_capacity(tokens: usize) -> Self {
        let slots = tokens.saturating_mul(2).max(16).next_power_of_two();
        Self { slots: vec![NO_TOKEN; slots], longest: 0 }
    }

    /// Adds piece `id` of `keys`.
    ///
    /// # Errors
    /// The id of the token that has the same key already.
    pub(super) fn insert(&mut self, keys: &Pieces, id: TokenId) -> Result<(), TokenId> {
        let key = keys.get(id);
        self.longest = self.longest.max(key.len());
        let mask = self.slots.len() - 1;
        let mut index = slot(hash(key), self.slots.len());
        while let Some(slot) = self.slots.get_mut(index) {
            if *slot == NO_TOKEN {
                *slot = id;
                return Ok(());
            }
            if keys.get(*slot) == key {
                return Err(*slot);
            }
            index = (index + 1) & mask;
        }
        Ok(())
    }

    /// The token with this key among `keys`, the pieces that were inserted from.
    pub(super) fn find(&self, keys: &Pieces, key: &[u8]) -> Option<TokenId> {
        if key.len() > self.longest {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut index = slot(hash(key), self.slots.len());
        while let Some(&id) = self.slots.get(index).filter(|&&id| id != NO_TOKEN) {
            if keys.get(id) == key {
                return Some(id);
            }
            index = (index + 1) & mask;
        }
        None
    }
}

/// Mixes eight bytes at a time, the last ones overlapping. Only the upper bits are good, see [`slot`].
fn hash(key: &[u8]) -> u64 {
    let mut state = key.len() as u64;
    for word in key.as_chunks().0 {
        state = mix(state.rotate_left(32) ^ u64::from_le_bytes(*word));
    }
    mix(state.rotate_left(32) ^ last_word(key))
}

/// The last eight bytes of `key`; all of a shorter one, some perhaps twice.
fn last_word(key: &[u8]) -> u64 {
    if let Some(last) = key.last_chunk() {
        return u64::from_le_bytes(*last);
    }
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    key.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// One step of the hash: the upper bits of the product depend on all bits of `state`
/// (the multiplier is 2^64 divided by the golden ratio, odd).
pub(super) fn mix(state: u64) -> u64 {
    state.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Where a key with this hash belongs among `slots` slots, a power of two above 1: by the upper bits.
pub(super) fn slot(hash: u64, slots: usize) -> usize {
    (hash >> (64 - slots.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_byte_tokens_and_refuses_lookalikes() {
        assert_eq!(parse_byte("<0x0A>"), Some(10));
        assert_eq!(parse_byte("<0xfF>"), Some(255));
        for text in ["<0xA>", "<0x0AB>", "0x0A", "<0x+A>", "<0xG0>", ""] {
            assert_eq!(parse_byte(text), None, "{text}");
        }
    }

    #[test]
    fn decodes_each_spelling() {
        let decode = |spelling, text: &str| {
            let mut vocabulary = Vocabulary::new(spelling, 1);
            vocabulary.push(text.as_bytes(), TokenKind::Normal).unwrap();
            vocabulary.bytes(0).to_vec()
        };
        assert_eq!(decode(Spelling::ByteLevel, "\u{120}hi\u{10A}"), b" hi\n");
        assert_eq!(decode(Spelling::ByteLevel, "a b"), b"a b");
        assert_eq!(decode(Spelling::SentencePiece, "\u{2581}\u{2581}hi"), b"  hi");
        assert_eq!(decode(Spelling::Plain, "\u{2581}x"), "\u{2581}x".as_bytes());
    }

    #[test]
    fn finds_what_was_inserted_and_names_duplicates() {
        let mut vocabulary = Vocabulary::new(Spelling::Plain, 0);
        let mut table = KeyTable::with_capacity(1000);
        for id in 0..1000 {
            vocabulary.push(format!("token{id}").as_bytes(), TokenKind::Normal).unwrap();
            table.insert(vocabulary.keys(), id).unwrap();
        }
        vocabulary.push(b"token7", TokenKind::Normal).unwrap();
        assert_eq!(table.insert(vocabulary.keys(), 1000), Err(7));
        assert_eq!(table.find(vocabulary.keys(), b"token999"), Some(999));
        assert_eq!(table.find(vocabulary.keys(), b"token1000"), None);
        assert_eq!(table.find(vocabulary.keys(), b"a longer key than any"), None);
    }
}
