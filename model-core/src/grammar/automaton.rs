//! A grammar being followed, byte by byte: the set of places where the text so far can have led. Knows nothing of tokens.
//!
//! Text comes as UTF-8 and may be cut anywhere, inside a character too: then the places are those before the character, and
//! the bytes that are there already must be able to become a character that one of them takes.

mod walk;

use std::ops::Range;

use super::Error;
use super::nodes::{NOTHING, Node, Nodes};
use super::rules::{Grammar, Symbol};
use crate::characters::Class;

pub(super) use walk::Walk;

/// Most places and rules looked at between two calls of [`Automaton::rest`], at about 100 instructions in the canister each: a
/// twentieth of a message. Real grammars take some ten for a character.
const MAX_STEPS: usize = 1 << 24;
/// Most nodes at a time (16 bytes each).
const MAX_NODES: usize = 1 << 18;

/// A grammar, and where a text has led in it. Bytes can be taken back until [`Automaton::commit`].
#[derive(Debug, Clone)]
pub(super) struct Automaton {
    grammar: Grammar,
    nodes: Nodes,
    /// Nodes at a class, of all levels.
    places: Vec<u32>,
    /// Before and after each byte since the last commit.
    levels: Vec<Level>,
    /// Symbols and continuations to be looked at; empty between calls.
    open: Vec<(u32, u32)>,
    steps: usize,
}

/// The set of places after a byte.
#[derive(Debug, Clone, Default)]
struct Level {
    /// Among all places.
    places: Range<usize>,
    /// Whether the text may end here.
    ends: bool,
    partial: Partial,
    /// Nodes and places that there were before the byte.
    before: (usize, usize),
}

impl Automaton {
    /// At the beginning of a text.
    pub(super) fn new(grammar: Grammar) -> Result<Self, Error> {
        let (nodes, places, levels, open) = Default::default();
        let mut automaton = Self { grammar, nodes, places, levels, open, steps: 0 };
        automaton.restart()?;
        Ok(automaton)
    }

    /// Back to the beginning.
    pub(super) fn restart(&mut self) -> Result<(), Error> {
        self.nodes = Nodes::default();
        self.places.clear();
        self.levels.clear();
        self.nodes.begin_round();
        self.steps = 0;
        let alternatives = self.grammar.rules.get(self.grammar.root as usize).into_iter().flatten();
        self.open.extend(alternatives.map(|&start| (start, NOTHING)));
        let ends = self.close();
        self.open.clear();
        let level = Level { places: 0..self.places.len(), ends: ends?, ..Level::default() };
        self.levels.push(level);
        Ok(())
    }

    /// Bytes since the last commit.
    pub(super) fn pushed(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// Whether the grammar may end here.
    pub(super) fn may_end(&self) -> bool {
        self.levels.last().is_some_and(|level| level.ends)
    }

    /// Whether the grammar ends here and nothing can follow.
    pub(super) fn must_end(&self) -> bool {
        self.levels.last().is_some_and(|level| level.ends && level.places.is_empty())
    }

    /// Steps since the last rest.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// Begins to count steps anew.
    pub(super) fn rest(&mut self) {
        self.steps = 0;
    }

    /// Takes a byte, or refuses it and stays where it is.
    ///
    /// # Errors
    /// [`Error::TooCostly`]; it stays where it is then too.
    pub(super) fn push(&mut self, byte: u8) -> Result<bool, Error> {
        let Some(level) = self.levels.last().cloned() else { return Ok(false) };
        let next = self.follow(&level, byte)?;
        let fits = next.is_some();
        self.levels.extend(next);
        Ok(fits)
    }

    /// What a byte leads to from a level of this automaton. Its nodes and places are the last ones until they are forgotten.
    fn follow(&mut self, level: &Level, byte: u8) -> Result<Option<Level>, Error> {
        let Some(partial) = level.partial.push(byte) else { return Ok(None) };
        let (places, before) = (level.places.clone(), (self.nodes.len(), self.places.len()));
        self.spend(places.len())?;
        if partial.missing > 0 {
            let (first, last) = partial.range();
            let fits = self.places[places.clone()].iter().any(|&place| {
                self.nodes.get(place).and_then(|node| self.class(node)).is_some_and(|class| class.meets(first, last))
            });
            return Ok(fits.then_some(Level { places, ends: false, partial, before }));
        }
        self.go_on(places, partial.value);
        let ends = self.close();
        self.open.clear();
        let places = before.1..self.places.len();
        match ends {
            Ok(ends) if ends || !places.is_empty() => {
                Ok(Some(Level { places, ends, partial: Partial::default(), before }))
            }
            refused => {
                self.forget(before);
                refused.map(|_| None)
            }
        }
    }

    /// Takes back all bytes since the last commit but the first `bytes`.
    pub(super) fn pop_to(&mut self, bytes: usize) {
        while self.pushed() > bytes
            && let Some(level) = self.levels.pop()
        {
            self.forget(level.before);
        }
    }

    /// Makes the present place the one that is never taken back.
    pub(super) fn commit(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        let mut places = self.places[level.places].to_vec();
        self.nodes.keep(&mut places);
        self.levels.clear();
        self.levels.push(Level { places: 0..places.len(), before: (0, 0), ..level });
        self.places = places;
    }

    fn forget(&mut self, (nodes, places): (usize, usize)) {
        self.nodes.truncate(nodes);
        self.places.truncate(places);
    }

    fn class(&self, node: Node) -> Option<&Class> {
        match self.grammar.symbols.get(node.symbol as usize) {
            Some(Symbol::Class(class)) => self.grammar.classes.get(*class as usize),
            _ => None,
        }
    }

    /// Opens what follows the places that take the character.
    fn go_on(&mut self, places: Range<usize>, character: u32) {
        self.nodes.begin_round();
        for &place in &self.places[places] {
            if let Some(node) = self.nodes.get(place)
                && self.class(node).is_some_and(|class| class.contains(character))
            {
                self.open.push((node.symbol + 1, node.then));
            }
        }
    }

    /// Follows what is open to the places that wait for a character; whether an end was found too. No node is looked at
    /// twice, so that empty repetitions come to an end.
    fn close(&mut self) -> Result<bool, Error> {
        let mut ends = false;
        while let Some((symbol, then)) = self.open.pop() {
            self.spend(1)?;
            match self.grammar.symbols.get(symbol as usize) {
                Some(Symbol::Class(_)) => {
                    let place = self.nodes.find(symbol, then);
                    if self.nodes.visit(place) {
                        self.places.push(place);
                    }
                }
                Some(&Symbol::Rule(rule)) => self.enter(rule, symbol, then),
                Some(Symbol::End) | None => match self.nodes.get(then) {
                    Some(node) => self.open.push((node.symbol, node.then)),
                    None => ends = true,
                },
            }
        }
        Ok(ends)
    }

    /// Opens the alternatives of a rule.
    fn enter(&mut self, rule: u32, symbol: u32, then: u32) {
        let place = self.nodes.find(symbol, then);
        if !self.nodes.visit(place) {
            return;
        }
        // What ends with a rule goes on after it as it would itself, so that repetitions do not pile up.
        let is_last = self.grammar.symbols.get(symbol as usize + 1) == Some(&Symbol::End);
        let then = if is_last { then } else { self.nodes.find(symbol + 1, then) };
        let alternatives = self.grammar.rules.get(rule as usize).into_iter().flatten();
        self.open.extend(alternatives.map(|&start| (start, then)));
    }

    fn spend(&mut self, steps: usize) -> Result<(), Error> {
        self.steps += steps;
        if self.steps > MAX_STEPS {
            return Err(Error::TooCostly { what: "steps", max: MAX_STEPS });
        }
        if self.nodes.len() > MAX_NODES {
            return Err(Error::TooCostly { what: "nodes", max: MAX_NODES });
        }
        Ok(())
    }
}

/// The beginning of a character's UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Partial {
    /// Bytes to come.
    missing: u32,
    /// The bits so far.
    value: u32,
    /// The first character that needs as many bytes.
    least: u32,
}

impl Partial {
    /// With one more byte; `None` if that cannot be UTF-8.
    fn push(self, byte: u8) -> Option<Self> {
        let bits = u32::from(byte);
        if self.missing > 0 {
            let more = Self { missing: self.missing - 1, value: self.value << 6 | bits & 0x3F, ..self };
            return (byte & 0xC0 == 0x80).then_some(more);
        }
        match byte {
            0..=0x7F => Some(Self { missing: 0, value: bits, least: 0 }),
            0xC2..=0xDF => Some(Self { missing: 1, value: bits & 0x1F, least: 0x80 }),
            0xE0..=0xEF => Some(Self { missing: 2, value: bits & 0x0F, least: 0x800 }),
            0xF0..=0xF4 => Some(Self { missing: 3, value: bits & 0x07, least: 0x1_0000 }),
            _ => None,
        }
    }

    /// The first and last character that it can become. Those beyond Unicode belong to no class.
    fn range(self) -> (u32, u32) {
        let bits = 6 * self.missing;
        let first = self.value << bits;
        (first.max(self.least), first | ((1 << bits) - 1))
    }
}

#[cfg(test)]
mod tests;
