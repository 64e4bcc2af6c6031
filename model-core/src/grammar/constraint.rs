//! A grammar that the tokens of an answer follow.

use super::automaton::{Automaton, Walk};
use super::order::TokenOrder;
use super::{Error, Grammar};
use crate::TokenId;
use crate::tokenizer::Tokenizer;

/// Steps of the automaton after which [`Constraint::catch_up`] pauses.
const PAUSE: usize = 1 << 18;

/// A grammar, and where the answer is in it.
#[derive(Debug, Clone)]
pub(crate) struct Constraint {
    automaton: Automaton,
    /// Tokens of the answer that were taken.
    taken: usize,
}

/// The tokens there are.
#[derive(Clone, Copy)]
pub(crate) struct Vocabulary<'m> {
    pub(crate) tokenizer: &'m Tokenizer,
    /// Tokens that end an answer, ascending: they are allowed where the grammar may end, and nowhere else.
    pub(crate) ends: &'m [TokenId],
}

impl Vocabulary<'_> {
    fn bytes(&self, id: TokenId) -> &[u8] {
        self.tokenizer.token_bytes(id).unwrap_or_default()
    }

    fn ends(&self, id: TokenId) -> bool {
        self.ends.binary_search(&id).is_ok()
    }
}

impl Constraint {
    /// At the beginning of an answer.
    pub(crate) fn new(grammar: Grammar) -> Result<Self, Error> {
        Ok(Self { automaton: Automaton::new(grammar)?, taken: 0 })
    }

    /// Another answer begins.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.taken = 0;
        self.automaton.restart()
    }

    /// Whether nothing can follow the answer.
    pub(crate) fn must_end(&self) -> bool {
        self.automaton.must_end()
    }

    /// Takes the next token, or refuses it and changes nothing. Tokens without text are refused, unless they end answers.
    ///
    /// # Errors
    /// [`Error::TooCostly`].
    pub(crate) fn accept(&mut self, vocabulary: Vocabulary<'_>, id: TokenId) -> Result<bool, Error> {
        self.automaton.rest();
        self.take(vocabulary, id)
    }

    fn take(&mut self, vocabulary: Vocabulary<'_>, id: TokenId) -> Result<bool, Error> {
        let accepted = if vocabulary.ends(id) {
            self.automaton.may_end()
        } else {
            let bytes = vocabulary.bytes(id);
            let fits = self.push(bytes);
            match fits {
                Ok(true) => self.automaton.commit(),
                Ok(false) | Err(_) => self.automaton.pop_to(0),
            }
            fits? && !bytes.is_empty()
        };
        self.taken += usize::from(accepted);
        Ok(accepted)
    }

    /// Takes tokens of `answer` that were not taken yet, as after a restart of the program. Returns whether there were
    /// any; after a number of steps it leaves the rest to the next call.
    ///
    /// # Errors
    /// [`Error::OtherGrammar`] if the answer does not follow the grammar; [`Error::TooCostly`].
    pub(crate) fn catch_up(&mut self, vocabulary: Vocabulary<'_>, answer: &[TokenId]) -> Result<bool, Error> {
        let waiting = answer.get(self.taken..).unwrap_or_default();
        self.automaton.rest();
        for &id in waiting {
            if !self.take(vocabulary, id)? {
                return Err(Error::OtherGrammar);
            }
            if self.automaton.steps() > PAUSE {
                break;
            }
        }
        Ok(!waiting.is_empty())
    }

    /// All tokens that may come next, in ascending order.
    ///
    /// # Errors
    /// [`Error::Stuck`] if there are none; [`Error::TooCostly`].
    pub(crate) fn allowed(&mut self, vocabulary: Vocabulary<'_>, order: &TokenOrder) -> Result<Vec<TokenId>, Error> {
        self.automaton.rest();
        let allowed = self.walk(vocabulary, order)?;
        if allowed.is_empty() { Err(Error::Stuck) } else { Ok(allowed) }
    }

    /// Goes through the tokens in the order of their bytes, taking back and adding only what differs from the token before.
    fn walk(&mut self, vocabulary: Vocabulary<'_>, order: &TokenOrder) -> Result<Vec<TokenId>, Error> {
        let mut allowed = TokenSet::new(vocabulary.tokenizer.vocab_size());
        let mut walk = Walk::new(&mut self.automaton);
        let mut fits = true;
        for token in order.tokens() {
            let shared = token.shared as usize;
            if !fits && shared > walk.pushed() {
                // It begins with what was refused.
                continue;
            }
            walk.pop_to(shared);
            let bytes = vocabulary.bytes(token.id).get(shared..).unwrap_or_default();
            fits = all_fit(bytes, |byte| walk.push(byte))?;
            if fits && !vocabulary.ends(token.id) {
                allowed.insert(token.id);
            }
        }
        drop(walk);
        if self.automaton.may_end() {
            vocabulary.ends.iter().for_each(|&id| allowed.insert(id));
        }
        Ok(allowed.ids())
    }

    /// Adds bytes as long as they fit; whether all did.
    fn push(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        all_fit(bytes, |byte| self.automaton.push(byte))
    }
}

/// Adds bytes as long as they fit; whether all did.
fn all_fit(bytes: &[u8], mut push: impl FnMut(u8) -> Result<bool, Error>) -> Result<bool, Error> {
    for &byte in bytes {
        if !push(byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tokens, a bit each.
struct TokenSet {
    words: Vec<u64>,
}

impl TokenSet {
    fn new(vocab: usize) -> Self {
        Self { words: vec![0; vocab.div_ceil(64)] }
    }

    fn insert(&mut self, id: TokenId) {
        if let Some(word) = self.words.get_mut(id as usize / 64) {
            *word |= 1 << (id % 64);
        }
    }

    /// Its tokens in ascending order.
    fn ids(&self) -> Vec<TokenId> {
        let count: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        let mut ids = Vec::with_capacity(count as usize);
        for (base, &word) in (0..).step_by(64).zip(&self.words) {
            let mut left = word;
            while left != 0 {
                ids.push(base + left.trailing_zeros());
                left &= left - 1;
            }
        }
        ids
    }
}

#[cfg(test)]
mod tests;
