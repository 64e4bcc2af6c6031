use super::super::JSON;
use super::*;
use crate::fixtures::{self, TinyLlama};
use crate::gguf::File;

fn tokenizer(vocabulary: fixtures::Vocabulary) -> Tokenizer {
    let file = File::read(&TinyLlama { vocabulary, vocab: 420, ..TinyLlama::default() }.build()).unwrap();
    Tokenizer::from_gguf(file.metadata()).unwrap()
}

fn constraint(grammar: &str) -> Constraint {
    Constraint::new(Grammar::parse(grammar).unwrap()).unwrap()
}

/// After `text`, given byte by byte as byte tokens.
fn after(constraint: &Constraint, text: &str) -> Constraint {
    let mut constraint = constraint.clone();
    assert!(constraint.push(text.as_bytes()).unwrap(), "{text}");
    constraint.automaton.commit();
    constraint
}

#[test]
fn the_walk_finds_the_tokens_that_are_accepted_one_by_one() {
    for kind in [fixtures::Vocabulary::ByteBpe, fixtures::Vocabulary::SentencePiece] {
        let tokenizer = tokenizer(kind);
        let vocabulary = Vocabulary { tokenizer: &tokenizer, ends: tokenizer.end_of_generation() };
        let order = TokenOrder::new(&tokenizer);
        let words = constraint("root ::= (\"hello\" | \"hell\" [a-y] | \" world\" | [é日] | \"in\")* \"!\"?");
        let states = [
            constraint(JSON),
            after(&constraint(JSON), "{\"a"),
            after(&constraint(JSON), "{\"a\":1"),
            words.clone(),
            after(&words, "he"),
            after(&words, "in"),
            constraint("root ::= .*"),
        ];
        for mut state in states {
            let one_by_one = |&id: &TokenId| state.clone().accept(vocabulary, id).unwrap();
            let expected: Vec<TokenId> = (0..tokenizer.vocab_size() as TokenId).filter(one_by_one).collect();
            assert_eq!(state.allowed(vocabulary, &order).unwrap(), expected);
        }
    }
}

#[test]
fn answers_end_exactly_where_the_grammar_may() {
    let tokenizer = tokenizer(fixtures::Vocabulary::ByteBpe);
    let vocabulary = Vocabulary { tokenizer: &tokenizer, ends: tokenizer.end_of_generation() };
    let end = vocabulary.ends[0];
    let mut answer = constraint("root ::= \"a\"+ \"é\"");
    assert!(!answer.accept(vocabulary, end).unwrap());
    assert!(answer.accept(vocabulary, u32::from(b'a')).unwrap());
    assert!(!answer.accept(vocabulary, end).unwrap());
    // The byte tokens of é, 0xC3 0xA9.
    assert!(answer.accept(vocabulary, 0xC3).unwrap());
    assert!(!answer.accept(vocabulary, end).unwrap() && !answer.accept(vocabulary, u32::from(b'a')).unwrap());
    assert!(answer.accept(vocabulary, 0xA9).unwrap());
    assert!(answer.must_end() && answer.accept(vocabulary, end).unwrap());
    let none = Vocabulary { ends: &[], ..vocabulary };
    assert!(!answer.accept(none, end).unwrap(), "a control token has no text");
    assert_eq!(answer.allowed(none, &TokenOrder::new(&tokenizer)), Err(Error::Stuck));
}

#[test]
fn a_refused_token_changes_nothing() {
    let tokenizer = tokenizer(fixtures::Vocabulary::ByteBpe);
    let vocabulary = Vocabulary { tokenizer: &tokenizer, ends: tokenizer.end_of_generation() };
    let hello = (0..tokenizer.vocab_size() as TokenId).find(|&id| vocabulary.bytes(id) == b"hello").unwrap();
    let mut answer = constraint("root ::= \"helium\"");
    assert!(!answer.accept(vocabulary, hello).unwrap());
    for letter in b"helium" {
        assert!(answer.accept(vocabulary, u32::from(*letter)).unwrap());
    }
    assert!(answer.must_end());
    answer.restart().unwrap();
    assert!(!answer.must_end());
}

#[test]
fn catching_up_pauses_and_refuses_other_answers() {
    let tokenizer = tokenizer(fixtures::Vocabulary::ByteBpe);
    let vocabulary = Vocabulary { tokenizer: &tokenizer, ends: tokenizer.end_of_generation() };
    let answer = vec![u32::from(b'a'); 200_000];
    let mut late = constraint("root ::= \"a\"*");
    let mut pauses = 0;
    while late.catch_up(vocabulary, &answer).unwrap() {
        pauses += 1;
    }
    assert!(pauses > 1 && late.taken == answer.len());
    assert_eq!(constraint("root ::= \"b\"*").catch_up(vocabulary, &answer), Err(Error::OtherGrammar));
}
