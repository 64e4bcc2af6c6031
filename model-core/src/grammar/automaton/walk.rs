//! Many texts from one place of an automaton. They come to the same few places again and again, so that where a byte leads
//! from a place is found once.

use std::collections::BTreeMap;

use super::{Automaton, Level, MAX_NODES, Partial};
use crate::grammar::Error;

/// Most places whose bytes are remembered, at half a kibibyte each.
const MAX_KNOWN: usize = 512;
/// In place of an index: what the byte leads to has not been looked for.
const UNKNOWN: u16 = u16::MAX;
/// In place of an index: the byte is refused.
const REFUSED: u16 = u16::MAX - 1;

/// A text that begins where an automaton is, with bytes that come and go. The automaton stays where it is.
pub(in crate::grammar) struct Walk<'a> {
    automaton: &'a mut Automaton,
    /// Nodes and places of the automaton itself.
    before: (usize, usize),
    known: Vec<Known>,
    /// Their indices by what tells them apart.
    index: BTreeMap<Key, u16>,
    /// Before and after each byte of the text.
    levels: Vec<Visited>,
}

/// A set of places that a text has led to.
struct Known {
    level: Level,
    /// What each byte leads to: an index, [`UNKNOWN`] or [`REFUSED`].
    next: [u16; 256],
}

/// Where the text was after a byte.
enum Visited {
    /// At this index.
    Known(u16),
    /// Where there was no room to remember; forgotten with its byte.
    Passing(Level),
}

/// Equal for levels that the same bytes follow.
type Key = (Vec<u32>, bool, Partial);

impl<'a> Walk<'a> {
    /// The empty text.
    pub fn new(automaton: &'a mut Automaton) -> Self {
        let before = (automaton.nodes.len(), automaton.places.len());
        let mut walk = Self { automaton, before, known: Vec::new(), index: BTreeMap::new(), levels: Vec::new() };
        if let Some(level) = walk.automaton.levels.last().cloned() {
            let visited = walk.know(level);
            walk.levels.push(visited);
        }
        walk
    }

    /// Bytes of the text.
    pub fn pushed(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// Adds a byte, or refuses it and stays as it is.
    ///
    /// # Errors
    /// [`Error::TooCostly`]; it stays as it is then too.
    pub fn push(&mut self, byte: u8) -> Result<bool, Error> {
        let Some(visited) = self.levels.last() else { return Ok(false) };
        match self.next(visited, byte) {
            REFUSED => return Ok(false),
            UNKNOWN => {}
            known => {
                self.levels.push(Visited::Known(known));
                return Ok(true);
            }
        }
        let (level, from) = match visited {
            Visited::Known(index) => (self.known[usize::from(*index)].level.clone(), Some(*index)),
            Visited::Passing(level) => (level.clone(), None),
        };
        let visited = self.automaton.follow(&level, byte)?.map(|level| self.know(level));
        let next = match &visited {
            None => REFUSED,
            Some(Visited::Known(index)) => *index,
            Some(Visited::Passing(_)) => UNKNOWN,
        };
        if let Some(index) = from {
            self.known[usize::from(index)].next[usize::from(byte)] = next;
        }
        let fits = visited.is_some();
        self.levels.extend(visited);
        Ok(fits)
    }

    /// Takes back all bytes but the first `bytes`.
    pub fn pop_to(&mut self, bytes: usize) {
        while self.pushed() > bytes
            && let Some(visited) = self.levels.pop()
        {
            if let Visited::Passing(level) = visited {
                self.automaton.forget(level.before);
            }
        }
    }

    fn next(&self, visited: &Visited, byte: u8) -> u16 {
        match visited {
            Visited::Known(index) => self.known[usize::from(*index)].next[usize::from(byte)],
            Visited::Passing(_) => UNKNOWN,
        }
    }

    /// Finds the level among those that are known, or makes it known while there is room. Nothing that is not known is in
    /// the way of the nodes of a level that becomes so, since room does not come back.
    fn know(&mut self, level: Level) -> Visited {
        let places = self.automaton.places[level.places.clone()].to_vec();
        let key = (places, level.ends, level.partial);
        if let Some(&index) = self.index.get(&key) {
            self.automaton.forget(level.before);
            return Visited::Known(index);
        }
        if self.known.len() >= MAX_KNOWN || self.automaton.nodes.len() > MAX_NODES / 2 {
            return Visited::Passing(level);
        }
        let index = self.known.len() as u16;
        self.index.insert(key, index);
        self.known.push(Known { level, next: [UNKNOWN; 256] });
        Visited::Known(index)
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.automaton.forget(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::SplitMix64;
    use crate::grammar::{Grammar, JSON};

    fn automaton(text: &str) -> Automaton {
        Automaton::new(Grammar::parse(text).unwrap()).unwrap()
    }

    /// Bytes come and go at random; whatever fits the grammar fits in the walk, also where more places are come to than it keeps.
    #[test]
    fn a_walk_takes_what_the_automaton_takes_and_leaves_it_where_it_was() {
        let grammars = [JSON, "root ::= [a-eé]{700} \"!\"?", "root ::= (\"a\" | \"b\" [é日] | \"[\" root \"]\")*"];
        let alphabet = "ab\"{}[]:,1 e!é日".as_bytes();
        let mut is_full = false;
        for grammar in grammars {
            let (mut plain, mut walked) = (automaton(grammar), automaton(grammar));
            let before = (walked.nodes.len(), walked.places.len());
            let mut random = SplitMix64::new(7);
            let mut walk = Walk::new(&mut walked);
            for _ in 0..20_000 {
                if random.next_u64().is_multiple_of(2_048) {
                    let kept = random.next_u64() as usize % (plain.pushed() + 1);
                    plain.pop_to(kept);
                    walk.pop_to(kept);
                }
                let byte = alphabet[random.next_u64() as usize % alphabet.len()];
                assert_eq!(walk.push(byte).unwrap(), plain.push(byte).unwrap(), "{grammar}");
                assert_eq!(walk.pushed(), plain.pushed());
            }
            is_full |= walk.known.len() == MAX_KNOWN;
            drop(walk);
            assert_eq!((walked.nodes.len(), walked.places.len()), before);
            assert!(walked.pushed() == 0 && plain.pushed() > 0);
        }
        assert!(is_full);
    }
}
