//! The rules of a grammar: collected while its text is read, repetitions turned into rules of their own, checked for
//! being complete and free of left recursion, and laid out for the automaton.

use std::collections::BTreeMap;

use super::Error;
use crate::characters::Class;

/// Most rules, those that stand for groups and repetitions included.
pub(super) const MAX_RULES: usize = 8_192;
/// Most symbols in all rules.
pub(super) const MAX_SYMBOLS: usize = 32_768;

/// What an alternative is a sequence of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    /// Nothing more comes.
    End,
    /// One character of a class.
    Class(u32),
    /// What a rule describes.
    Rule(u32),
}

/// A grammar ready to be followed.
#[derive(Debug, Clone)]
pub struct Grammar {
    /// All alternatives, each closed by an end.
    pub(super) symbols: Vec<Symbol>,
    /// For each rule where its alternatives begin.
    pub(super) rules: Vec<Vec<u32>>,
    pub(super) classes: Vec<Class>,
    pub(super) root: u32,
}

/// A rule on its way.
#[derive(Debug, Default)]
struct Rule {
    /// As the text calls it; empty for groups and repetitions.
    name: String,
    /// `None` until it is defined.
    alternatives: Option<Vec<Vec<Symbol>>>,
    /// A repetition, which ends with itself.
    repeats: bool,
}

/// A grammar on its way.
#[derive(Debug, Default)]
pub(super) struct Draft {
    names: BTreeMap<String, u32>,
    rules: Vec<Rule>,
    classes: BTreeMap<Class, u32>,
    symbols: usize,
}

impl Draft {
    /// The rule with this name, which may be defined later.
    pub(super) fn rule(&mut self, name: &str) -> Result<u32, Error> {
        if let Some(&rule) = self.names.get(name) {
            return Ok(rule);
        }
        let rule = self.new_rule()?;
        if let Some(new) = self.rules.get_mut(rule as usize) {
            new.name = name.to_owned();
        }
        self.names.insert(name.to_owned(), rule);
        Ok(rule)
    }

    fn new_rule(&mut self) -> Result<u32, Error> {
        if self.rules.len() >= MAX_RULES {
            return Err(Error::TooLarge { what: "rules", max: MAX_RULES });
        }
        self.rules.push(Rule::default());
        Ok(self.rules.len() as u32 - 1)
    }

    /// Gives a rule its alternatives. `false` if it has some already.
    pub(super) fn define(&mut self, rule: u32, alternatives: Vec<Vec<Symbol>>) -> Result<bool, Error> {
        self.count(alternatives.iter().map(|symbols| symbols.len() + 1).sum())?;
        let Some(rule) = self.rules.get_mut(rule as usize) else { return Ok(false) };
        Ok(rule.alternatives.replace(alternatives).is_none())
    }

    fn count(&mut self, symbols: usize) -> Result<(), Error> {
        self.symbols += symbols;
        if self.symbols > MAX_SYMBOLS {
            return Err(Error::TooLarge { what: "symbols", max: MAX_SYMBOLS });
        }
        Ok(())
    }

    /// A rule without a name, for alternatives in parentheses.
    pub(super) fn group(&mut self, alternatives: Vec<Vec<Symbol>>) -> Result<Symbol, Error> {
        let rule = self.new_rule()?;
        self.define(rule, alternatives)?;
        Ok(Symbol::Rule(rule))
    }

    /// The symbol of a class.
    pub(super) fn class(&mut self, class: Class) -> Symbol {
        let next = self.classes.len() as u32;
        Symbol::Class(*self.classes.entry(class).or_insert(next))
    }

    /// `item`, at least `least` times, and no more than `most` if that is given.
    pub(super) fn repeat(&mut self, item: Vec<Symbol>, least: u32, most: Option<u32>) -> Result<Vec<Symbol>, Error> {
        let item = match item.as_slice() {
            [] => return Ok(item),
            [single] => *single,
            _ => self.group(vec![item])?,
        };
        let mut symbols = vec![item; least as usize];
        match most {
            None => symbols.push(self.star(item)?),
            Some(most) => symbols.extend(self.at_most(item, most.saturating_sub(least))?),
        }
        Ok(symbols)
    }

    /// `S ::= item S |`
    fn star(&mut self, item: Symbol) -> Result<Symbol, Error> {
        let rule = self.new_rule()?;
        self.define(rule, vec![vec![item, Symbol::Rule(rule)], Vec::new()])?;
        if let Some(rule) = self.rules.get_mut(rule as usize) {
            rule.repeats = true;
        }
        Ok(Symbol::Rule(rule))
    }

    /// `S1 ::= item |`, `S2 ::= item S1 |` and so on; none for no repetition.
    fn at_most(&mut self, item: Symbol, most: u32) -> Result<Option<Symbol>, Error> {
        let mut rest = None;
        for _ in 0..most {
            let some = [item].into_iter().chain(rest).collect();
            rest = Some(self.group(vec![some, Vec::new()])?);
        }
        Ok(rest)
    }

    /// The finished grammar.
    pub(super) fn finish(self) -> Result<Grammar, Error> {
        let root = *self.names.get("root").ok_or(Error::NoRoot)?;
        if let Some(rule) = self.rules.iter().find(|rule| rule.alternatives.is_none()) {
            return Err(if rule.name == "root" {
                Error::NoRoot
            } else {
                Error::UnknownRule { name: rule.name.clone() }
            });
        }
        self.check_left_recursion()?;
        let mut classes = vec![Class::any(); self.classes.len()];
        for (class, index) in self.classes {
            if let Some(place) = classes.get_mut(index as usize) {
                *place = class;
            }
        }
        let mut symbols = Vec::with_capacity(self.symbols);
        let mut lay_out = |alternative: Vec<Symbol>| {
            let start = symbols.len() as u32;
            symbols.extend(alternative.into_iter().chain([Symbol::End]));
            start
        };
        let alternatives = self.rules.into_iter().map(|rule| rule.alternatives.unwrap_or_default());
        let rules = alternatives.map(|alternatives| alternatives.into_iter().map(&mut lay_out).collect()).collect();
        Ok(Grammar { symbols, rules, classes, root })
    }

    /// Refuses rules that can begin with themselves. That a repetition ends with itself does no harm even if what it
    /// repeats may be empty: the automaton goes no way twice.
    fn check_left_recursion(&self) -> Result<(), Error> {
        let empty = self.may_be_empty();
        let begins: Vec<Vec<u32>> = (0..).zip(&self.rules).map(|(index, rule)| rule.begins(index, &empty)).collect();
        let mut in_question = vec![true; begins.len()];
        // Whoever begins only with rules that are cleared is cleared too.
        let mut waiting: Vec<usize> = begins.iter().map(Vec::len).collect();
        let mut begun_by: Vec<Vec<u32>> = vec![Vec::new(); begins.len()];
        for (index, first) in (0..).zip(&begins) {
            first.iter().for_each(|&first| begun_by[first as usize].push(index));
        }
        let mut cleared: Vec<usize> = (0..begins.len()).filter(|&rule| waiting[rule] == 0).collect();
        while let Some(rule) = cleared.pop() {
            in_question[rule] = false;
            for &user in &begun_by[rule] {
                waiting[user as usize] -= 1;
                if waiting[user as usize] == 0 {
                    cleared.push(user as usize);
                }
            }
        }
        match in_question.iter().position(|&left| left) {
            Some(rule) => Err(Error::LeftRecursion { name: self.name_on_circle(rule, &begins, &in_question) }),
            None => Ok(()),
        }
    }

    /// From `rule`, which leads into a circle, to a rule on the circle that has a name.
    fn name_on_circle(&self, mut rule: usize, begins: &[Vec<u32>], in_question: &[bool]) -> String {
        let next = |rule: usize| begins[rule].iter().map(|&rule| rule as usize).find(|&rule| in_question[rule]);
        for step in 0..2 * begins.len() {
            // After as many steps as there are rules it is on the circle; once around there is a name.
            if step >= begins.len() && !self.rules[rule].name.is_empty() {
                break;
            }
            rule = next(rule).unwrap_or(rule);
        }
        self.rules[rule].name.clone()
    }

    /// For each rule whether it describes the empty text.
    fn may_be_empty(&self) -> Vec<bool> {
        let mut empty = vec![false; self.rules.len()];
        loop {
            let mut changed = false;
            for (index, rule) in self.rules.iter().enumerate() {
                if !empty[index] && rule.alternatives().any(|symbols| symbols.iter().all(|&s| is_empty(s, &empty))) {
                    (empty[index], changed) = (true, true);
                }
            }
            if !changed {
                return empty;
            }
        }
    }
}

impl Rule {
    fn alternatives(&self) -> impl Iterator<Item = &Vec<Symbol>> {
        self.alternatives.iter().flatten()
    }

    /// Rules with which this one, number `index`, can begin.
    fn begins(&self, index: u32, empty: &[bool]) -> Vec<u32> {
        let mut begins = Vec::new();
        for symbols in self.alternatives() {
            for &symbol in symbols {
                if let Symbol::Rule(rule) = symbol
                    && !(self.repeats && rule == index)
                {
                    begins.push(rule);
                }
                if !is_empty(symbol, empty) {
                    break;
                }
            }
        }
        begins
    }
}

fn is_empty(symbol: Symbol, empty: &[bool]) -> bool {
    match symbol {
        Symbol::End => true,
        Symbol::Class(_) => false,
        Symbol::Rule(rule) => empty[rule as usize],
    }
}
