//! Merging adjacent symbols by priority: the one loop behind byte-level BPE and SentencePiece-style vocabularies.
//! Knows nothing of vocabularies; the rules say which pairs merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocab::{NO_TOKEN, mix, slot};
use crate::TokenId;

/// Marks the end of the chain of symbols.
const NONE: u32 = u32::MAX;

/// A stretch of the text that is one token so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// First byte in the text.
    pub(super) start: u32,
    /// Length in bytes; 0 once merged into its left neighbour.
    pub(super) len: u32,
    /// Token, or [`NO_TOKEN`] for a character that the vocabulary lacks.
    pub(super) id: TokenId,
    prev: u32,
    next: u32,
}

impl Symbol {
    /// First byte after the symbol.
    pub(super) fn end(&self) -> usize {
        self.start as usize + self.len as usize
    }
}

/// What a vocabulary says about pairs of neighbours.
pub(super) trait Rules {
    /// Priority (lower merges first) and token of the pair merged, if it merges at all.
    fn merged(&self, left: &Symbol, right: &Symbol) -> Option<(u32, TokenId)>;
}

/// A possible merge: ordered by priority, then from left to right. The length tells whether it is still current.
type Candidate = Reverse<(u32, u32, u32, TokenId)>;

/// Working memory, reused from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl Merger {
    /// Starts a new word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Adds the next symbol of the word.
    pub(super) fn push(&mut self, start: usize, len: usize, id: TokenId) {
        let index = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        let prev = index.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { start: start as u32, len: len as u32, id, prev, next: NONE });
    }

    /// Merges until no rule applies.
    pub(super) fn run(&mut self, rules: &impl Rules) {
        for left in 1..self.symbols.len() as u32 {
            self.consider(rules, left - 1, left);
        }
        while let Some(Reverse((_, left, len, id))) = self.queue.pop() {
            if let Some((prev, next)) = self.apply(left, len, id) {
                self.consider(rules, prev, left);
                self.consider(rules, left, next);
            }
        }
    }

    /// The symbols that are left, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn consider(&mut self, rules: &impl Rules, left: u32, right: u32) {
        let (Some(a), Some(b)) = (self.symbols.get(left as usize), self.symbols.get(right as usize)) else { return };
        if let Some((priority, id)) = rules.merged(a, b) {
            self.queue.push(Reverse((priority, left, a.len + b.len, id)));
        }
    }

    /// Merges `left` with its right neighbour and returns the neighbours of the result, unless the candidate is
    /// outdated. A symbol only grows by swallowing its whole right neighbour, so equal lengths mean the same pair.
    fn apply(&mut self, left: u32, len: u32, id: TokenId) -> Option<(u32, u32)> {
        let a = *self.symbols.get(left as usize).filter(|symbol| symbol.len > 0)?;
        let b = self.symbols.get_mut(a.next as usize).filter(|symbol| a.len + symbol.len == len)?;
        let next = b.next;
        b.len = 0;
        if let Some(after) = self.symbols.get_mut(next as usize) {
            after.prev = left;
        }
        let merged = self.symbols.get_mut(left as usize)?;
        *merged = Symbol { len, id, next, ..a };
        Some((a.prev, next))
    }
}

/// Which pairs of tokens merge, into what, in which order: open addressing over the list of merges.
#[derive(Debug)]
pub(super) struct PairTable {
    /// Index into `merges`, or [`NONE`]; the length is a power of two, at least twice the number of merges.
    slots: Vec<u32>,
    /// Left token, right token, result.
    merges: Vec<(TokenId, TokenId, TokenId)>,
    /// Priority of each merge.
    ranks: Vec<u32>,
}

impl PairTable {
    pub(super) fn with_capacity(merges: usize) -> Self {
        let slots = merges.saturating_mul(2).max(16).next_power_of_two();
        Self { slots: vec![NONE; slots], merges: Vec::with_capacity(merges), ranks: Vec::with_capacity(merges) }
    }

    /// Adds a merge; of several merges of one pair, the first counts.
    pub(super) fn insert(&mut self, rank: u32, left: TokenId, right: TokenId, result: TokenId) {
        let mut index = self.home(left, right);
        while let Some(slot) = self.slots.get_mut(index) {
            match self.merges.get(*slot as usize) {
                Some(&(a, b, _)) if (a, b) == (left, right) => return,
                Some(_) => index = (index + 1) & (self.slots.len() - 1),
                None => {
                    *slot = self.merges.len() as u32;
                    self.merges.push((left, right, result));
                    self.ranks.push(rank);
                    return;
                }
            }
        }
    }

    fn home(&self, left: TokenId, right: TokenId) -> usize {
        let key = u64::from(left) << 32 | u64::from(right);
        slot(mix(key), self.slots.len())
    }
}

impl Rules for PairTable {
    fn merged(&self, left: &Symbol, right: &Symbol) -> Option<(u32, TokenId)> {
        if left.id == NO_TOKEN || right.id == NO_TOKEN {
            return None;
        }
        let mut index = self.home(left.id, right.id);
        loop {
            let slot = *self.slots.get(index)? as usize;
            let &(a, b, result) = self.merges.get(slot)?;
            if (a, b) == (left.id, right.id) {
                return Some((*self.ranks.get(slot)?, result));
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(word: &[TokenId], merges: &[(TokenId, TokenId, TokenId)]) -> Vec<TokenId> {
        let mut table = PairTable::with_capacity(merges.len());
        for (rank, &(left, right, result)) in (0..).zip(merges) {
            table.insert(rank, left, right, result);
        }
        let mut merger = Merger::default();
        for (start, &id) in word.iter().enumerate() {
            merger.push(start, 1, id);
        }
        merger.run(&table);
        merger.symbols().map(|symbol| symbol.id).collect()
    }

    #[test]
    fn merges_by_rank_and_then_from_the_left() {
        assert_eq!(merge(&[1, 1, 1], &[(1, 1, 2)]), [2, 1]);
        assert_eq!(merge(&[1, 1, 1, 1], &[(1, 1, 2), (2, 2, 3)]), [3]);
        assert_eq!(merge(&[1, 2, 3], &[(2, 3, 5), (1, 2, 4)]), [1, 5]);
        assert_eq!(merge(&[1, 2, 3], &[(2, 3, 5), (1, 2, 4), (1, 5, 6)]), [6]);
        assert_eq!(merge(&[], &[(1, 1, 2)]), [] as [TokenId; 0]);
    }

    #[test]
    fn the_first_of_equal_merges_counts() {
        assert_eq!(merge(&[1, 2], &[(1, 2, 8), (1, 2, 9)]), [8]);
    }

    #[test]
    fn characters_without_a_token_keep_their_neighbours_apart() {
        assert_eq!(merge(&[1, NO_TOKEN, 1], &[(1, 1, 2), (NO_TOKEN, 1, 3)]), [1, NO_TOKEN, 1]);
    }

    #[test]
    fn long_words_take_no_quadratic_time() {
        let word = vec![1; 200_000];
        assert_eq!(merge(&word, &[(1, 1, 2), (2, 2, 3)]).len(), 50_000);
    }
}
