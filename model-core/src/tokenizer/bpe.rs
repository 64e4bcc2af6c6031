//! Byte-level byte pair encoding: words of bytes, merged by rank. Matches on decoded bytes, so that neither text
//! nor merges are ever spelled in the printable alphabet.

use super::alphabet::ALPHABET;
use super::error::{Error, shorten};
use super::merge::{Merger, PairTable};
use super::pre::PreTokenizer;
use super::special::SpecialTokens;
use super::vocab::{KeyTable, NO_TOKEN, TokenKind, Vocabulary};
use crate::TokenId;

/// Encoder of a byte-level vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    pre: PreTokenizer,
    table: KeyTable,
    merges: PairTable,
    /// Token of each byte alone, or [`NO_TOKEN`].
    byte_ids: [TokenId; 256],
}

impl Bpe {
    /// Builds the tables from the vocabulary and the merges, `left right` each, best first.
    ///
    /// # Errors
    /// Two normal tokens with one spelling; a merge that is malformed or names a piece that no token spells.
    pub(super) fn new<'m>(
        pre: PreTokenizer,
        vocabulary: &Vocabulary,
        special: &SpecialTokens,
        merges: impl ExactSizeIterator<Item = &'m [u8]>,
    ) -> Result<Self, Error> {
        let table = key_table(vocabulary)?;
        let byte_ids = std::array::from_fn(|byte| table.find(vocabulary.keys(), &[byte as u8]).unwrap_or(NO_TOKEN));
        let mut pairs = PairTable::with_capacity(merges.len());
        let mut reader = MergeReader { vocabulary, special, table: &table, bytes: Vec::new(), expected: NO_TOKEN };
        for (rank, merge) in merges.enumerate() {
            if let Some((left, right, result)) = reader.read(rank, merge)? {
                pairs.insert(rank as u32, left, right, result);
            }
        }
        Ok(Self { pre, table, merges: pairs, byte_ids })
    }

    /// Appends the tokens of `text`. Bytes that the vocabulary lacks give no token and keep their neighbours
    /// apart, as in llama.cpp.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<TokenId>) -> Result<(), Error> {
        let text = self.pre.normalize(text)?;
        let mut merger = Merger::default();
        for word in self.pre.split(&text) {
            self.encode_word(vocabulary, word.as_bytes(), &mut merger, out);
        }
        Ok(())
    }

    fn encode_word(&self, vocabulary: &Vocabulary, word: &[u8], merger: &mut Merger, out: &mut Vec<TokenId>) {
        if self.pre.profile.whole_words_first
            && let Some(id) = self.table.find(vocabulary.keys(), word)
        {
            return out.push(id);
        }
        merger.clear();
        for (start, &byte) in word.iter().enumerate() {
            merger.push(start, 1, self.byte_ids[usize::from(byte)]);
        }
        merger.run(&self.merges);
        out.extend(merger.symbols().map(|symbol| symbol.id).filter(|&id| id != NO_TOKEN));
    }
}

/// Normal tokens by their bytes. Others never result from merges: control tokens must not come out of plain text.
fn key_table(vocabulary: &Vocabulary) -> Result<KeyTable, Error> {
    let mut table = KeyTable::with_capacity(vocabulary.len());
    for (id, kind) in vocabulary.iter() {
        if kind == TokenKind::Normal && vocabulary.is_byte_level(id) {
            table.insert(vocabulary.keys(), id).map_err(|first| Error::DuplicateToken {
                first,
                second: id,
                text: shorten(vocabulary.text(id)),
            })?;
        }
    }
    Ok(table)
}

/// Turns merges into token ids.
struct MergeReader<'v> {
    vocabulary: &'v Vocabulary,
    special: &'v SpecialTokens,
    table: &'v KeyTable,
    /// Decoded bytes of both pieces of the current merge.
    bytes: Vec<u8>,
    /// The token after the last result: vocabularies list most results in the order of their merges.
    expected: TokenId,
}

impl MergeReader<'_> {
    /// Left, right and resulting token, or nothing where a piece is a special token.
    fn read(&mut self, rank: usize, merge: &[u8]) -> Result<Option<(TokenId, TokenId, TokenId)>, Error> {
        // A piece cannot begin with the separator, a space.
        let space = merge.iter().skip(1).position(|&byte| byte == b' ').map(|before| before + 1);
        let (left, right) = space.map_or((merge, &[][..]), |at| (&merge[..at], &merge[at + 1..]));
        if right.is_empty() {
            return Err(Error::MalformedMerge { rank, text: shorten(&String::from_utf8_lossy(merge)) });
        }
        self.bytes.clear();
        if !ALPHABET.decode_into(left, &mut self.bytes) {
            return self.unmatched(rank, left);
        }
        let middle = self.bytes.len();
        if !ALPHABET.decode_into(right, &mut self.bytes) {
            return self.unmatched(rank, right);
        }
        let find = |key: &[u8]| self.table.find(self.vocabulary.keys(), key);
        match (find(&self.bytes[..middle]), find(&self.bytes[middle..]), self.find_result()) {
            (Some(left), Some(right), Some(result)) => {
                self.expected = result.saturating_add(1);
                Ok(Some((left, right, result)))
            }
            (None, _, _) => self.unmatched(rank, left),
            (_, None, _) => self.unmatched(rank, right),
            (_, _, None) => self.unmatched(rank, &[left, right].concat()),
        }
    }

    fn find_result(&self) -> Option<TokenId> {
        let keys = self.vocabulary.keys();
        let is_expected = keys.get(self.expected) == self.bytes
            && self.vocabulary.kind(self.expected) == Some(TokenKind::Normal)
            && self.vocabulary.is_byte_level(self.expected);
        if is_expected { Some(self.expected) } else { self.table.find(keys, &self.bytes) }
    }

    /// For a merge with a piece that text never reaches by merging: an error unless that is a special token.
    fn unmatched<T>(&self, rank: usize, piece: &[u8]) -> Result<Option<T>, Error> {
        match self.special.find(piece) {
            Some(_) => Ok(None),
            None => Err(Error::UnknownMergePiece { rank, piece: shorten(&String::from_utf8_lossy(piece)) }),
        }
    }
}
