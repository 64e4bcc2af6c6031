//! What a grammar can be refused for, when it is read and when it is followed.

/// Why a grammar cannot be read or not be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is too long.
    #[error("the grammar has {bytes} bytes; at most {max} are accepted")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// The most accepted.
        max: usize,
    },
    /// Something else was expected.
    #[error("line {line} of the grammar: expected {expected}")]
    Syntax {
        /// Line of the text, from 1.
        line: usize,
        /// What would do.
        expected: &'static str,
    },
    /// An escape names something that is no Unicode character.
    #[error("line {line} of the grammar: there is no character U+{code:04X}")]
    NoCharacter {
        /// Line of the text, from 1.
        line: usize,
        /// The number.
        code: u32,
    },
    /// Groups in groups in groups.
    #[error("line {line} of the grammar: groups are nested more than {max} deep")]
    TooDeep {
        /// Line of the text, from 1.
        line: usize,
        /// The deepest accepted.
        max: usize,
    },
    /// A repetition count is too large.
    #[error("line {line} of the grammar: something is repeated more than {max} times; use * or + instead")]
    TooManyRepetitions {
        /// Line of the text, from 1.
        line: usize,
        /// The most accepted.
        max: u32,
    },
    /// A rule has two definitions.
    #[error("line {line} of the grammar: the rule {name} is defined a second time")]
    DuplicateRule {
        /// Line of the second definition, from 1.
        line: usize,
        /// The rule.
        name: String,
    },
    /// A rule is used and not defined.
    #[error("the grammar uses the rule {name} and does not define it")]
    UnknownRule {
        /// The rule.
        name: String,
    },
    /// There is no rule to begin with.
    #[error("the grammar has no rule named root, with which it would begin")]
    NoRoot,
    /// A rule can begin with itself, so that reading it would never end.
    #[error("the rule {name} of the grammar begins with itself (left recursion); write the repetition with * or +")]
    LeftRecursion {
        /// The rule.
        name: String,
    },
    /// With its repetitions written out the grammar is too large.
    #[error("the grammar is too large: with repetitions written out it has more than {max} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The most accepted.
        max: usize,
    },
    /// The text so far can be read in too many ways, or nests too deeply.
    #[error("the grammar is too ambiguous or nested too deeply: a token took more than {max} {what} to check")]
    TooCostly {
        /// What it took too much of.
        what: &'static str,
        /// The most that is spent.
        max: usize,
    },
    /// No token of the vocabulary goes on, and the grammar does not end here.
    #[error(
        "no token of the model can go on here and the grammar may not end; it leads nowhere, or to what the model \
         cannot spell"
    )]
    Stuck,
    /// The tokens of a stored session are not what its grammar allows.
    #[error("the session's tokens do not follow its grammar")]
    OtherGrammar,
}
