//! The text of a grammar to rules. The notation is GBNF, that of llama.cpp's grammars:
//!
//! ```text
//! grammar     ::= rule for rule, each on its own line; "root" is where a text begins; # begins a comment
//! rule        ::= name "::=" sequences with "|" between them
//! sequence    ::= items, each with *, +, ?, {m}, {m,} or {m,n} behind it or nothing
//! item        ::= "text", [a-z] a character of a class, [^a-z] one of all others, . any, a rule's name, ( sequences )
//! escapes     ::= \n \r \t \\ \" \[ \] \xNN \uNNNN \UNNNNNNNN
//! ```
//!
//! A rule may go on after "::=" and "|", and everywhere in parentheses, on the next line.

use super::rules::{Draft, Grammar, MAX_SYMBOLS, Symbol};
use super::{Error, MAX_GRAMMAR_BYTES};
use crate::characters::Class;

/// Deepest groups in groups.
const MAX_DEPTH: usize = 64;
/// Most repetitions that a count can ask for.
const MAX_COUNT: u32 = 2_000;

/// Reads a grammar.
pub(super) fn parse(text: &str) -> Result<Grammar, Error> {
    let (bytes, max) = (text.len(), MAX_GRAMMAR_BYTES);
    if bytes > max {
        return Err(Error::TooLong { bytes, max });
    }
    let mut parser = Parser { text, at: 0, depth: 0, draft: Draft::default() };
    parser.space(true);
    while parser.peek().is_some() {
        parser.rule()?;
    }
    parser.draft.finish()
}

struct Parser<'t> {
    text: &'t str,
    /// Index of the next character.
    at: usize,
    depth: usize,
    draft: Draft,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Goes over `word` if it comes next.
    fn skip(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Line of what comes next, from 1.
    fn line(&self) -> usize {
        self.line_of(self.at)
    }

    fn line_of(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count()
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, Error> {
        Err(Error::Syntax { line: self.line(), expected })
    }

    /// Goes over blanks and comments, and line breaks if `lines`.
    fn space(&mut self, lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\n' | '\r') if lines => self.at += 1,
                Some('#') => self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        self.at += name.len();
        (!name.is_empty()).then_some(name)
    }

    fn rule(&mut self) -> Result<(), Error> {
        let start = self.at;
        let Some(name) = self.name() else { return self.expected("the name of a rule") };
        self.space(false);
        if !self.skip("::=") {
            return self.expected("::= after the name of a rule");
        }
        let rule = self.draft.rule(name)?;
        self.space(true);
        let alternatives = self.alternatives(false)?;
        if !self.draft.define(rule, alternatives)? {
            return Err(Error::DuplicateRule { line: self.line_of(start), name: name.to_owned() });
        }
        match self.peek() {
            None | Some('\n' | '\r') => self.space(true),
            Some(_) => return self.expected("an item of the rule, |, or the end of the line"),
        }
        Ok(())
    }

    /// Sequences with `|` between them; `lines` may end anywhere in parentheses.
    fn alternatives(&mut self, lines: bool) -> Result<Vec<Vec<Symbol>>, Error> {
        let mut alternatives = vec![self.sequence(lines)?];
        while self.skip("|") {
            self.space(true);
            alternatives.push(self.sequence(lines)?);
        }
        Ok(alternatives)
    }

    fn sequence(&mut self, lines: bool) -> Result<Vec<Symbol>, Error> {
        let mut symbols = Vec::new();
        while let Some(item) = self.item()? {
            self.space(lines);
            symbols.extend(self.repetitions(item, lines)?);
            if symbols.len() > MAX_SYMBOLS {
                return Err(Error::TooLarge { what: "symbols", max: MAX_SYMBOLS });
            }
        }
        Ok(symbols)
    }

    /// The symbols of one item without repetition, `None` where a sequence ends.
    fn item(&mut self) -> Result<Option<Vec<Symbol>>, Error> {
        Ok(Some(match self.peek() {
            Some('"') => self.literal()?,
            Some('[') => vec![self.class()?],
            Some('(') => vec![self.group()?],
            Some('.') => {
                self.at += 1;
                vec![self.draft.class(Class::any())]
            }
            Some('*' | '+' | '?' | '{') => return self.expected("something before *, +, ? or { that it repeats"),
            _ => match self.name() {
                Some(name) => vec![Symbol::Rule(self.draft.rule(name)?)],
                None => return Ok(None),
            },
        }))
    }

    fn group(&mut self) -> Result<Symbol, Error> {
        self.at += 1;
        if self.depth == MAX_DEPTH {
            return Err(Error::TooDeep { line: self.line(), max: MAX_DEPTH });
        }
        self.depth += 1;
        self.space(true);
        let alternatives = self.alternatives(true)?;
        self.depth -= 1;
        if !self.skip(")") {
            return self.expected(") at the end of a group");
        }
        self.draft.group(alternatives)
    }

    fn literal(&mut self) -> Result<Vec<Symbol>, Error> {
        self.at += 1;
        let mut symbols = Vec::new();
        while !self.skip("\"") {
            let code = self.character("\" at the end of a text")?;
            symbols.push(self.draft.class(Class::one(code)));
        }
        Ok(symbols)
    }

    fn class(&mut self) -> Result<Symbol, Error> {
        self.at += 1;
        let negated = self.skip("^");
        let mut ranges = Vec::new();
        while !self.skip("]") {
            let first = self.character("] at the end of a class")?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let last = if is_range {
                self.at += 1;
                self.character("the last character of a range")?
            } else {
                first
            };
            if last < first {
                return self.expected("a range whose first character comes before its last");
            }
            ranges.push((first, last));
        }
        if ranges.is_empty() {
            return self.expected("a character in the class");
        }
        let class = Class::new(ranges);
        let class = if negated { class.complement() } else { class };
        Ok(self.draft.class(class))
    }

    /// The number of the next character, which may be an escape; where the text ends, `end` was expected.
    fn character(&mut self, end: &'static str) -> Result<u32, Error> {
        if matches!(self.peek(), Some('\n' | '\r')) {
            return self.expected(end);
        }
        match self.next() {
            None => self.expected(end),
            Some('\\') => self.escape(),
            Some(character) => Ok(character.into()),
        }
    }

    fn escape(&mut self) -> Result<u32, Error> {
        Ok(match self.next() {
            Some('n') => 10,
            Some('r') => 13,
            Some('t') => 9,
            Some(character @ ('\\' | '"' | '[' | ']')) => character.into(),
            Some('x') => self.hex(2)?,
            Some('u') => self.hex(4)?,
            Some('U') => self.hex(8)?,
            _ => return self.expected("one of n r t x u U \\ \" [ ] after a backslash"),
        })
    }

    fn hex(&mut self, digits: usize) -> Result<u32, Error> {
        let number = self.rest().get(..digits).filter(|number| number.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(Ok(code)) = number.map(|number| u32::from_str_radix(number, 16)) else {
            return self.expected("2 hexadecimal digits after \\x, 4 after \\u, 8 after \\U");
        };
        if char::from_u32(code).is_none() {
            return Err(Error::NoCharacter { line: self.line(), code });
        }
        self.at += digits;
        Ok(code)
    }

    /// Applies the repetitions that follow an item.
    fn repetitions(&mut self, mut item: Vec<Symbol>, lines: bool) -> Result<Vec<Symbol>, Error> {
        loop {
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.counts()?,
                _ => return Ok(item),
            };
            // The last character of what was read, a closing brace or the sign itself.
            self.at += 1;
            self.space(lines);
            item = self.draft.repeat(item, least, most)?;
        }
    }

    /// Reads `{m}`, `{m,}` or `{m,n}` up to the closing brace.
    fn counts(&mut self) -> Result<(u32, Option<u32>), Error> {
        self.at += 1;
        self.space(false);
        let least = self.count()?;
        self.space(false);
        let mut most = Some(least);
        if self.skip(",") {
            self.space(false);
            most = if self.rest().starts_with('}') { None } else { Some(self.count()?) };
            self.space(false);
        }
        if !self.rest().starts_with('}') {
            return self.expected("} after the numbers of a repetition");
        }
        if most.is_some_and(|most| most < least) {
            return self.expected("a repetition {m,n} with m no larger than n");
        }
        Ok((least, most))
    }

    fn count(&mut self) -> Result<u32, Error> {
        let rest = self.rest();
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        if digits.is_empty() {
            return self.expected("a number of repetitions");
        }
        // More digits than a u32 holds are too many in any case.
        let count = digits.parse().unwrap_or(u32::MAX);
        if count > MAX_COUNT {
            return Err(Error::TooManyRepetitions { line: self.line(), max: MAX_COUNT });
        }
        self.at += digits.len();
        Ok(count)
    }
}
