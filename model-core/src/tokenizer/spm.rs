//! SentencePiece-style vocabularies: characters merge into the best-scored piece first; what the vocabulary
//! cannot spell falls back to byte tokens, then to the unknown token.

use super::error::{Error, shorten};
use super::merge::{Merger, Rules, Symbol};
use super::vocab::{KeyTable, NO_TOKEN, TokenKind, VISIBLE_SPACE, Vocabulary};
use crate::TokenId;

/// Encoder of a vocabulary with scores.
#[derive(Debug)]
pub(super) struct SentencePiece {
    table: KeyTable,
    /// By id: lower merges first.
    priorities: Vec<u32>,
    /// Token of each byte, or [`NO_TOKEN`].
    byte_ids: [TokenId; 256],
    unknown: Option<TokenId>,
    /// Whether text that begins a prompt or follows a special token gets a space in front.
    pub(super) space_prefix: bool,
}

impl SentencePiece {
    /// Builds the tables; `scores` has one entry per token, higher merges first.
    ///
    /// # Errors
    /// Two normal tokens with one spelling; a score that is not a number.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        scores: &[f32],
        unknown: Option<TokenId>,
        space_prefix: bool,
    ) -> Result<Self, Error> {
        let mut table = KeyTable::with_capacity(vocabulary.len());
        let mut byte_ids = [NO_TOKEN; 256];
        for (id, kind) in vocabulary.iter() {
            match (kind, vocabulary.bytes(id)) {
                (TokenKind::Byte, &[byte]) => byte_ids[usize::from(byte)] = id,
                (TokenKind::Normal, _) => table
                    .insert(vocabulary.keys(), id)
                    .map_err(|first| Error::DuplicateToken { first, second: id, text: shorten(vocabulary.text(id)) })?,
                _ => {}
            }
        }
        let priorities = (0..).zip(scores).map(|(id, &score)| priority(id, score)).collect::<Result<_, _>>()?;
        Ok(Self { table, priorities, byte_ids, unknown, space_prefix })
    }

    /// Appends the tokens of `text`; `begins` says that it begins the prompt or follows a special token.
    ///
    /// # Errors
    /// [`Error::Unspellable`] where neither the character, nor its bytes, nor an unknown token exist.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        begins: bool,
        out: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + 3);
        if begins && self.space_prefix {
            escaped.push(VISIBLE_SPACE);
        }
        escaped.extend(text.chars().map(|character| if character == ' ' { VISIBLE_SPACE } else { character }));
        let mut merger = Merger::default();
        for (start, character) in escaped.char_indices() {
            let key = &escaped.as_bytes()[start..start + character.len_utf8()];
            let id = self.table.find(vocabulary.keys(), key).unwrap_or(NO_TOKEN);
            merger.push(start, key.len(), id);
        }
        merger.run(&Scored { encoder: self, vocabulary, text: escaped.as_bytes() });
        let mut after_unknown = false;
        for symbol in merger.symbols() {
            if symbol.id != NO_TOKEN {
                out.push(symbol.id);
                after_unknown = false;
            } else {
                let text = escaped.get(symbol.start as usize..symbol.end()).unwrap_or_default();
                after_unknown = self.fall_back(text, after_unknown, out)?;
            }
        }
        Ok(())
    }

    /// Spells one character by bytes, or by the unknown token, one for several such characters in a row.
    /// Returns whether it was the unknown token.
    fn fall_back(&self, character: &str, after_unknown: bool, out: &mut Vec<TokenId>) -> Result<bool, Error> {
        let ids = character.bytes().map(|byte| self.byte_ids[usize::from(byte)]);
        if ids.clone().all(|id| id != NO_TOKEN) {
            out.extend(ids);
            return Ok(false);
        }
        let character = character.chars().next().unwrap_or_default();
        let unknown = self.unknown.ok_or(Error::Unspellable { character })?;
        if !after_unknown {
            out.push(unknown);
        }
        Ok(true)
    }
}

/// Scores in the order of their priority: the best score gets the lowest number.
fn priority(id: TokenId, score: f32) -> Result<u32, Error> {
    if score.is_nan() {
        return Err(Error::ScoreNotANumber { id });
    }
    // Flips the bits of floats so that they sort as integers; adding 0.0 makes -0.0 equal to 0.0.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    Ok(!ascending)
}

/// Merges whatever is a token, by its score.
struct Scored<'e> {
    encoder: &'e SentencePiece,
    vocabulary: &'e Vocabulary,
    text: &'e [u8],
}

impl Rules for Scored<'_> {
    fn merged(&self, left: &Symbol, right: &Symbol) -> Option<(u32, TokenId)> {
        let id = self.encoder.table.find(self.vocabulary.keys(), self.text.get(left.start as usize..right.end())?)?;
        Some((*self.encoder.priorities.get(id as usize)?, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_sort_scores_from_the_best() {
        let scores = [f32::INFINITY, 3.5, 1e-30, 0.0, -0.0, -1.0, -1000.0, f32::NEG_INFINITY];
        let priorities: Vec<_> = scores.iter().map(|&score| priority(0, score).unwrap()).collect();
        assert!(priorities.is_sorted());
        assert_eq!(priorities[3], priorities[4]);
        assert!(matches!(priority(9, f32::NAN), Err(Error::ScoreNotANumber { id: 9 })));
    }
}
