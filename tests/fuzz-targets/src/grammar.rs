//! Grammars of any content, and answers that follow them.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use model_core::budget::Unlimited;
use model_core::fixtures::TinyLlama;
use model_core::gguf::GgmlType;
use model_core::grammar::{Grammar, JSON};
use model_core::model::{LoadOptions, Model};
use model_core::sample::Sampling;
use model_core::session::{Session, SessionOptions, SessionRecord, Step};
use model_core::{Error, session};

use crate::pieces::{rest, words};

/// What grammars are made of.
const PIECES: [&str; 40] = [
    "root ::= ",
    "a ::= ",
    "b ::= ",
    "\n",
    " root ",
    " a ",
    " b ",
    "\"a\"",
    "\"hello\"",
    "\"\"",
    "\"é\"",
    "[a-z]",
    "[^a]",
    "[a-",
    "]",
    ".",
    "*",
    "+",
    "?",
    "{2}",
    "{0,3}",
    "{,2}",
    "{3,}",
    "{99999}",
    "(",
    ")",
    " | ",
    "#c\n",
    "\\",
    "\\x41",
    "\\u0000",
    "\\U0010FFFF",
    "\\n",
    "[\\]]",
    "\"\\\"\"",
    "\"\\xff\"",
    "[日-本]",
    "(\"a\"*)*",
    "[0-9]{1,2}",
    " ",
];

/// Tokens of an answer.
const TOKENS: u32 = 6;

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let tiny = TinyLlama {
        dim: 32,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        hidden: 32,
        vocab: 300,
        ty: GgmlType::Q8_0,
        ..TinyLlama::default()
    };
    Model::load(&tiny.build(), &LoadOptions::default()).unwrap()
});

/// A grammar, and the seed of an answer.
pub fn run(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok((seed, grammar)) = grammar(&mut input) else { return };
    if Grammar::parse(&grammar).is_ok() {
        check(&grammar, seed);
    } else {
        assert!(Session::new(&MODEL, vec![1], options(&grammar, seed)).is_err());
    }
}

fn grammar(input: &mut Unstructured<'_>) -> Result<(u64, String)> {
    let seed = u64::from(u8::arbitrary(input)?);
    let text = match u8::arbitrary(input)? % 8 {
        0 => JSON.to_owned(),
        1..=3 => rest(input)?,
        _ => format!("root ::= {}", words(input, 60, &PIECES)?),
    };
    Ok((seed, text))
}

/// Chance that lets everything come out that may.
fn options(grammar: &str, seed: u64) -> SessionOptions {
    let sampling = Sampling { temperature: 5.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..Sampling::default() };
    SessionOptions { max_tokens: TOKENS, sampling, grammar: Some(grammar.to_owned()), ..SessionOptions::default() }
}

/// An answer follows the grammar or fails with the grammar's own error; what was chosen among the allowed tokens is taken
/// when a stored session follows its grammar again, and the answer then goes on in the same way.
fn check(grammar: &str, seed: u64) {
    let Ok(mut session) = begin(grammar, seed) else { return };
    let half = generate(&mut session, TOKENS / 2);
    let record = SessionRecord::from_bytes(&session.record().to_bytes()).unwrap();
    let mut again = Session::restore(&MODEL, record).unwrap();
    if half.is_err() {
        return;
    }
    let (first, second) = (generate(&mut session, TOKENS), generate(&mut again, TOKENS));
    assert_eq!((session.tokens(), session.text()), (again.tokens(), again.text()), "{grammar:?}");
    assert_eq!(first.map_err(|error| error.to_string()), second.map_err(|error| error.to_string()), "{grammar:?}");
}

fn begin(grammar: &str, seed: u64) -> std::result::Result<Session, Error> {
    Session::new(&MODEL, vec![1, 2, 3], options(grammar, seed))
}

/// Steps until there are `tokens` of them, or the answer ends.
fn generate(session: &mut Session, tokens: u32) -> std::result::Result<(), Error> {
    while session.finish_reason().is_none() && (session.generated_tokens() as u32) < tokens {
        match session.step(&MODEL, &mut Unlimited) {
            Ok(Step::Finished(_)) => break,
            Ok(_) => {}
            Err(error @ Error::Session(session::Error::Grammar(_))) => return Err(error),
            Err(error) => panic!("not the grammar's error: {error}"),
        }
    }
    Ok(())
}
