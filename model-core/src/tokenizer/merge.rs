//! Merging adjacent symbols by priority: the one loop behind byte-level BPE and SentencePiece-style vocabularies.
//! Knows nothing of vocabularies; the rules say which pairs merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocab::{NO_TOKEN, mix, slot};
use crate::TokenId;

/// Marks the end of the chain of symbols, and a pair that does not merge.
const NONE: u32 = u32::MAX;

/// Words of up to so many symbols look through all of them for the best pair: fewer instructions than a queue. Nearly
/// all words are that short.
const SHORT_WORD: usize = 32;

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
    /// Priority of merging with `next`; [`NONE`] where the two do not merge.
    priority: u32,
    /// What that merge gives.
    merged: TokenId,
}

impl Symbol {
    /// First byte after the symbol.
    pub(super) fn end(&self) -> usize {
        self.start as usize + self.len as usize
    }
}

/// What a vocabulary says about pairs of neighbours.
pub(super) trait Rules {
    /// Priority (lower merges first, below `u32::MAX`) and token of the pair merged, if it merges at all.
    fn merged(&mut self, left: &Symbol, right: &Symbol) -> Option<(u32, TokenId)>;
}

/// Working memory, reused from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// For long words: priority of a pair in the upper half, its left symbol in the lower one.
    queue: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Starts a new word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Adds the next symbol of the word.
    pub(super) fn push(&mut self, start: usize, len: usize, id: TokenId) {
        let index = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        let prev = index.checked_sub(1).unwrap_or(NONE);
        let (start, len) = (start as u32, len as u32);
        self.symbols.push(Symbol { start, len, id, prev, next: NONE, priority: NONE, merged: NO_TOKEN });
    }

    /// Merges until no rule applies: the pair of the lowest priority first, of equal ones the leftmost.
    pub(super) fn run(&mut self, mut rules: impl Rules) {
        let mut symbols = self.symbols.iter_mut();
        if let Some(mut left) = symbols.next() {
            for right in symbols {
                if let Some((priority, merged)) = rules.merged(left, right) {
                    (left.priority, left.merged) = (priority, merged);
                }
                left = right;
            }
        }
        if self.symbols.len() <= SHORT_WORD {
            while let Some(left) = self.best() {
                self.apply(&mut rules, left);
            }
        } else {
            self.run_queued(&mut rules);
        }
    }

    /// The left symbol of the pair to merge next, if one is left.
    fn best(&self) -> Option<u32> {
        let (mut best, mut priority) = (None, NONE);
        for (symbol, index) in self.symbols.iter().zip(0..) {
            if symbol.priority < priority {
                (best, priority) = (Some(index), symbol.priority);
            }
        }
        best
    }

    /// The same merges with a queue: time grows with `n log n`.
    ///
    /// A pair beside a better one cannot be next, and if that one merges it is another pair. So the queue holds only pairs
    /// that are better than those beside them, among which the next one always is: few, where letters repeat.
    fn run_queued(&mut self, rules: &mut impl Rules) {
        let mut queue = std::mem::take(&mut self.queue).into_vec();
        queue.extend((0..self.symbols.len() as u32).filter_map(|left| self.queued(left)));
        let mut queue = BinaryHeap::from(queue);
        while let Some(Reverse(entry)) = queue.pop() {
            let (priority, left) = ((entry >> 32) as u32, entry as u32);
            // Outdated where the symbol has got another neighbour or is gone since.
            let current = self.symbols.get(left as usize).filter(|symbol| symbol.priority == priority);
            let Some(&Symbol { prev, .. }) = current else { continue };
            self.apply(rules, left);
            // The pairs on both sides of the result are new, and those beside them have a new neighbour.
            let before = self.symbols.get(prev as usize).map_or(NONE, |symbol| symbol.prev);
            let after = self.symbols.get(left as usize).map_or(NONE, |symbol| symbol.next);
            queue.extend([before, prev, left, after].into_iter().filter_map(|left| self.queued(left)));
        }
        self.queue = queue;
    }

    /// What the queue holds of the pair of `left` and its neighbour: nothing unless it merges before the pairs beside it.
    fn queued(&self, left: u32) -> Option<Reverse<u64>> {
        let symbol = self.symbols.get(left as usize).filter(|symbol| symbol.priority != NONE)?;
        let priority_of = |index: u32| self.symbols.get(index as usize).map_or(NONE, |symbol| symbol.priority);
        let is_best = priority_of(symbol.prev) > symbol.priority && priority_of(symbol.next) >= symbol.priority;
        is_best.then_some(Reverse(u64::from(symbol.priority) << 32 | u64::from(left)))
    }

    /// The symbols that are left, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    /// Looks up what merging `left` with its right neighbour gives.
    fn consider(&mut self, rules: &mut impl Rules, left: u32) {
        let Some(symbol) = self.symbols.get(left as usize) else { return };
        let right = self.symbols.get(symbol.next as usize);
        let found = right.and_then(|right| rules.merged(symbol, right)).unwrap_or((NONE, NO_TOKEN));
        if let Some(symbol) = self.symbols.get_mut(left as usize) {
            (symbol.priority, symbol.merged) = found;
        }
    }

    /// Merges `left` with its right neighbour and looks the pairs with the result up.
    fn apply(&mut self, rules: &mut impl Rules, left: u32) {
        let Some(&Symbol { next: right, prev, .. }) = self.symbols.get(left as usize) else { return };
        let Some(right) = self.symbols.get_mut(right as usize) else { return };
        let (len, next) = (right.len, right.next);
        (right.len, right.priority) = (0, NONE);
        if let Some(after) = self.symbols.get_mut(next as usize) {
            after.prev = left;
        }
        if let Some(symbol) = self.symbols.get_mut(left as usize) {
            (symbol.len, symbol.next, symbol.id) = (symbol.len + len, next, symbol.merged);
        }
        self.consider(rules, left);
        self.consider(rules, prev);
    }
}

/// Which pairs of tokens merge, into what, in which order: open addressing over the list of merges.
#[derive(Debug, Clone)]
pub(super) struct PairTable {
    /// Index into `merges`, or [`NONE`]; the length is a power of two, at least twice the number of merges.
    slots: Vec<u32>,
    merges: Vec<Merge>,
}

/// One merge, 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Merge {
    pair: (TokenId, TokenId),
    result: TokenId,
    /// Its priority.
    rank: u32,
}

impl PairTable {
    pub(super) fn with_capacity(merges: usize) -> Self {
        let slots = merges.saturating_mul(2).max(16).next_power_of_two();
        Self { slots: vec![NONE; slots], merges: Vec::with_capacity(merges) }
    }

    /// Adds a merge; of several merges of one pair, the first counts.
    pub(super) fn insert(&mut self, rank: u32, left: TokenId, right: TokenId, result: TokenId) {
        let pair = (left, right);
        let mut index = self.home(pair);
        while let Some(slot) = self.slots.get_mut(index) {
            match self.merges.get(*slot as usize) {
                Some(merge) if merge.pair == pair => return,
                Some(_) => index = (index + 1) & (self.slots.len() - 1),
                None => {
                    *slot = self.merges.len() as u32;
                    self.merges.push(Merge { pair, result, rank });
                    return;
                }
            }
        }
    }

    /// Priority and result of the merge of this pair.
    pub(super) fn find(&self, pair: (TokenId, TokenId)) -> Option<(u32, TokenId)> {
        let mut index = self.home(pair);
        loop {
            let merge = self.merges.get(*self.slots.get(index)? as usize)?;
            if merge.pair == pair {
                return Some((merge.rank, merge.result));
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
    }

    fn home(&self, (left, right): (TokenId, TokenId)) -> usize {
        let key = u64::from(left) << 32 | u64::from(right);
        slot(mix(key), self.slots.len())
    }
}

impl Rules for &PairTable {
    fn merged(&mut self, left: &Symbol, right: &Symbol) -> Option<(u32, TokenId)> {
        if left.id == NO_TOKEN || right.id == NO_TOKEN {
            return None;
        }
        self.find((left.id, right.id))
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

    /// The plain way: the whole word is searched for the best pair, again and again.
    fn merge_naively(word: &[TokenId], merges: &[(TokenId, TokenId, TokenId)]) -> Vec<TokenId> {
        let rank = |left: TokenId, right: TokenId| merges.iter().position(|merge| (merge.0, merge.1) == (left, right));
        let mut word = word.to_vec();
        while let Some((rank, at)) = (1..word.len()).filter_map(|at| Some((rank(word[at - 1], word[at])?, at))).min() {
            word.splice(at - 1..=at, [merges[rank].2]);
        }
        word
    }

    proptest::proptest! {
        #[test]
        fn short_and_long_words_merge_as_the_plain_way_does(
            word in proptest::collection::vec(0u32..4, 0..100),
            merges in proptest::collection::vec((0u32..12, 0u32..12, 0u32..12), 0..30),
        ) {
            // Every merge makes a token of its own from earlier ones, so that merging ends.
            let merges: Vec<_> = (4..).zip(merges).map(|(id, (a, b, _))| (a % id, b % id, id)).collect();
            let mut known = std::collections::BTreeSet::new();
            let merges: Vec<_> = merges.into_iter().filter(|&(a, b, _)| known.insert((a, b))).collect();
            proptest::prop_assert_eq!(merge(&word, &merges), merge_naively(&word, &merges));
        }
    }

    #[test]
    fn long_words_take_no_quadratic_time() {
        let word = vec![1; 200_000];
        assert_eq!(merge(&word, &[(1, 1, 2), (2, 2, 3)]).len(), 50_000);
    }
}
