//! Grammars that a generated text follows: every token is one after which the text can still become what the grammar
//! describes. The notation is GBNF, that of llama.cpp's grammars. Knows nothing of models and sampling.
//!
//! A grammar comes from whoever asks for a text and is not trusted: its size, and what it takes to follow it, are limited.
//!
//! ```
//! use model_core::grammar::{Error, Grammar, JSON};
//! assert!(Grammar::parse(JSON).is_ok());
//! let refused = Grammar::parse(r#"root ::= sum  sum ::= sum "+" "1" | "1""#);
//! assert!(matches!(refused, Err(Error::Syntax { line: 1, .. })), "every rule has its own line");
//! ```

mod automaton;
mod constraint;
mod error;
mod nodes;
mod order;
mod parse;
mod rules;

pub(crate) use constraint::{Constraint, Vocabulary};
pub use error::Error;
pub use order::TokenOrder;
pub use rules::Grammar;

/// Longest text of a grammar in bytes.
pub const MAX_GRAMMAR_BYTES: usize = 1 << 16;

/// The grammar of a JSON object.
pub const JSON: &str = include_str!("json.gbnf");

impl Grammar {
    /// Reads a grammar.
    ///
    /// # Errors
    /// [`Error`] says what is wrong with it and where.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::parse(text)
    }
}

#[cfg(test)]
mod tests;
