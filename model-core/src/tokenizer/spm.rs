//! SentencePiece-style vocabularies: characters merge into the best-scored piece first; what the vocabulary
//! cannot spell falls back to byte tokens, then to the unknown token.

use super::error::{Error, shorten};
use super::merge::{Merger, Rules, Symbol};
use super::vocab::{KeyTable, NO_TOKEN, TokenKind, VISIBLE_SPACE, Vocabulary, mix, slot};
use crate::TokenId;

/// Encoder of a vocabulary with scores.
#[derive(Debug)]
pub(super) struct SentencePiece {
    table: KeyTable,
    neighbours: Neighbours,
    /// By id: lower merges first.
    priorities: Vec<u32>,
    /// Token of each ASCII character, or [`NO_TOKEN`].
    ascii_ids: Vec<TokenId>,
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
        let mut neighbours = Neighbours::with_capacity(vocabulary.len());
        let mut byte_ids = [NO_TOKEN; 256];
        for (id, kind) in vocabulary.iter() {
            match (kind, vocabulary.bytes(id)) {
                (TokenKind::Byte, &[byte]) => byte_ids[usize::from(byte)] = id,
                (TokenKind::Normal, _) => {
                    let text = vocabulary.text(id);
                    table.insert(vocabulary.keys(), id).map_err(|first| Error::DuplicateToken {
                        first,
                        second: id,
                        text: shorten(text),
                    })?;
                    neighbours.add(text);
                }
                _ => {}
            }
        }
        let ascii_id = |byte| table.find(vocabulary.keys(), &[byte]).unwrap_or(NO_TOKEN);
        let ascii_ids = (0..128).map(ascii_id).collect();
        let priorities = (0..).zip(scores).map(|(id, &score)| priority(id, score)).collect::<Result<_, _>>()?;
        Ok(Self { table, neighbours, priorities, ascii_ids, byte_ids, unknown, space_prefix })
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
        for (index, part) in text.split(' ').enumerate() {
            if index > 0 {
                escaped.push(VISIBLE_SPACE);
            }
            escaped.push_str(part);
        }
        let mut run = Run { encoder: self, vocabulary, text: &escaped, merger: Merger::default(), memo: Memo::new() };
        let (mut before, mut after_unknown) = (None, false);
        for (start, character) in escaped.char_indices() {
            if before.is_some_and(|before| !self.neighbours.may_join(before, character)) {
                after_unknown = run.finish(after_unknown, out)?;
            }
            before = Some(character);
            run.push(start, character);
        }
        run.finish(after_unknown, out).map(drop)
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

/// Which characters stand side by side in some token. Between others nothing ever merges, so that text can be cut there
/// into short runs, mostly words, which cost less than one long one. Errs on the side of joining.
#[derive(Debug)]
struct Neighbours {
    /// A bit for each hash of a pair; their number is a power of two.
    bits: Vec<u64>,
}

impl Neighbours {
    fn with_capacity(tokens: usize) -> Self {
        Self { bits: vec![0; (tokens / 4).max(16).next_power_of_two()] }
    }

    fn add(&mut self, text: &str) {
        for (left, right) in text.chars().zip(text.chars().skip(1)) {
            let (word, bit) = self.place(left, right);
            if let Some(word) = self.bits.get_mut(word) {
                *word |= 1 << bit;
            }
        }
    }

    fn may_join(&self, left: char, right: char) -> bool {
        let (word, bit) = self.place(left, right);
        self.bits.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }

    fn place(&self, left: char, right: char) -> (usize, usize) {
        let place = slot(mix(u64::from(left) << 32 | u64::from(right)), self.bits.len() * 64);
        (place / 64, place % 64)
    }
}

/// A run of characters that no token reaches beyond, on its way to tokens.
struct Run<'e> {
    encoder: &'e SentencePiece,
    vocabulary: &'e Vocabulary,
    text: &'e str,
    merger: Merger,
    memo: Memo,
}

impl Run<'_> {
    /// Adds the next character, which begins at `start`.
    fn push(&mut self, start: usize, character: char) {
        let len = character.len_utf8();
        let id = match self.encoder.ascii_ids.get(character as usize) {
            Some(&id) => id,
            None => {
                let key = self.text.as_bytes().get(start..start + len).unwrap_or_default();
                self.encoder.table.find(self.vocabulary.keys(), key).unwrap_or(NO_TOKEN)
            }
        };
        self.merger.push(start, len, id);
    }

    /// Appends the tokens of the run, and begins another. Says whether it ended in the unknown token, as `after_unknown`
    /// says of the run before.
    fn finish(&mut self, mut after_unknown: bool, out: &mut Vec<TokenId>) -> Result<bool, Error> {
        let Self { encoder, vocabulary, text, merger, memo } = self;
        merger.run(Scored { encoder, vocabulary, text: text.as_bytes(), memo });
        for symbol in merger.symbols() {
            if symbol.id != NO_TOKEN {
                out.push(symbol.id);
                after_unknown = false;
            } else {
                let text = text.get(symbol.start as usize..symbol.end()).unwrap_or_default();
                after_unknown = encoder.fall_back(text, after_unknown, out)?;
            }
        }
        merger.clear();
        Ok(after_unknown)
    }
}

/// What became of pairs of tokens of late: the same come again and again, and to look a spelling up costs ten times more.
struct Memo {
    /// Each at the place that its pair's hash says.
    entries: Vec<Remembered>,
}

#[derive(Clone, Copy)]
struct Remembered {
    pair: (TokenId, TokenId),
    /// Priority and token of the pair merged.
    merged: Option<(u32, TokenId)>,
}

impl Memo {
    /// A power of two.
    const ENTRIES: usize = 512;

    fn new() -> Self {
        Self { entries: vec![Remembered { pair: (NO_TOKEN, NO_TOKEN), merged: None }; Self::ENTRIES] }
    }

    /// What becomes of a pair of tokens, as `look_up` says if it is not remembered.
    fn get(
        &mut self,
        pair: (TokenId, TokenId),
        look_up: impl FnOnce() -> Option<(u32, TokenId)>,
    ) -> Option<(u32, TokenId)> {
        let place = slot(mix(u64::from(pair.0) << 32 | u64::from(pair.1)), Self::ENTRIES);
        let entry = self.entries.get_mut(place)?;
        if entry.pair != pair {
            *entry = Remembered { pair, merged: look_up() };
        }
        entry.merged
    }
}

/// Merges whatever is a token, by its score.
struct Scored<'e> {
    encoder: &'e SentencePiece,
    vocabulary: &'e Vocabulary,
    text: &'e [u8],
    memo: &'e mut Memo,
}

impl Rules for Scored<'_> {
    fn merged(&mut self, left: &Symbol, right: &Symbol) -> Option<(u32, TokenId)> {
        let Self { encoder, vocabulary, text, memo } = self;
        let look_up = || {
            let id = encoder.table.find(vocabulary.keys(), text.get(left.start as usize..right.end())?)?;
            Some((*encoder.priorities.get(id as usize)?, id))
        };
        // Characters without a token have their spelling only.
        if left.id == NO_TOKEN || right.id == NO_TOKEN { look_up() } else { memo.get((left.id, right.id), look_up) }
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

    #[test]
    fn only_characters_that_no_token_joins_are_kept_apart() {
        let mut neighbours = Neighbours::with_capacity(2000);
        for text in ["\u{2581}the", "日本", "x"] {
            neighbours.add(text);
        }
        for (left, right) in [('\u{2581}', 't'), ('t', 'h'), ('h', 'e'), ('日', '本')] {
            assert!(neighbours.may_join(left, right));
        }
        let others = ('a'..='z').flat_map(|left| ('a'..='z').map(move |right| (left, right)));
        let joined = others.filter(|&(left, right)| neighbours.may_join(left, right)).count();
        assert!((2..10).contains(&joined), "{joined} of 676 pairs are taken for neighbours");
    }
}
