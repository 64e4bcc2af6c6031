//! One file per verb: its arguments and what it does.

pub mod inspect;
pub mod tokenize;
