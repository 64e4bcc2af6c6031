//! What the notation means, and what is refused. What texts a grammar describes is tested with the automaton.

use super::parse::parse;
use super::rules::Symbol;
use super::*;

/// The error of a grammar that is refused.
fn refused(text: &str) -> Error {
    parse(text).map(drop).unwrap_err()
}

/// Symbols of all alternatives of the rule `root`, with classes as the characters that they have of a few.
fn root(text: &str) -> Vec<String> {
    let grammar = parse(text).unwrap();
    let symbol = |symbol: &Symbol| match symbol {
        Symbol::Class(class) => {
            let class = &grammar.classes[*class as usize];
            let inside = "abz-]^é\n\"😀".chars().filter(|&character| class.contains(character as u32));
            inside.collect::<String>()
        }
        Symbol::Rule(_) => "rule".to_owned(),
        Symbol::End => String::new(),
    };
    let alternative = |&start: &u32| {
        let symbols = grammar.symbols[start as usize..].iter().take_while(|&&symbol| symbol != Symbol::End);
        symbols.map(symbol).collect::<Vec<_>>().join(" ")
    };
    grammar.rules[grammar.root as usize].iter().map(alternative).collect()
}

#[test]
fn literals_classes_and_escapes() {
    assert_eq!(root(r#"root ::= "ab" | "\x61\u0062\U0000007a" | "\n\"\]""#), ["a b", "a b z", "\n \" ]"]);
    assert_eq!(root(r"root ::= [a-b] [^a-z\n] [-z] [a-] [\]\x22]"), ["ab -]^é\"😀 z- a- ]\""]);
    assert_eq!(root("root ::= . \"é\" [à-ü] \"😀\""), ["abz-]^é\n\"😀 é é 😀"]);
    assert_eq!(root("root ::= \"\" | "), ["", ""]);
}

#[test]
fn rules_go_on_after_bars_and_in_parentheses() {
    let text = "# a comment\nroot ::=\n  item | # another\n  (\n item\n \"b\" # inside\n )+\n\r\nitem ::= \"a\"# end";
    assert_eq!(root(text), ["rule", "rule rule"]);
    let next = refused("root ::= \"a\"\n  | \"b\"\n");
    assert_eq!(next, Error::Syntax { line: 2, expected: "the name of a rule" });
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let syntax = [
        ("root", "::="),
        ("root = \"a\"", "::="),
        ("root ::= \"a", "\" at the end"),
        ("root ::= \"a\nb\"", "\" at the end"),
        ("root ::= [a", "] at the end"),
        ("root ::= []", "a character"),
        ("root ::= [z-a]", "a range"),
        ("root ::= (\"a\"", ") at the end"),
        ("root ::= \"a\" )", "an item"),
        ("root ::= * \"a\"", "something before"),
        ("root ::= \"a\"{", "a number"),
        ("root ::= \"a\"{2", "} after"),
        ("root ::= \"a\"{3,2}", "no larger"),
        ("root ::= \"\\q\"", "one of"),
        ("root ::= \"\\x4\"", "hexadecimal"),
        ("root ::= \"\\u+041\"", "hexadecimal"),
    ];
    for (text, part) in syntax {
        let text = format!("# first line\n{text}");
        let Error::Syntax { line, expected } = refused(&text) else { panic!("{text}: {:?}", refused(&text)) };
        assert!(line == 2 && expected.contains(part), "{text}: line {line}, {expected}");
    }
    assert_eq!(refused("root ::= \"\\uD800\""), Error::NoCharacter { line: 1, code: 0xD800 });
    assert_eq!(refused("\nroot ::= \"a\"{2001}"), Error::TooManyRepetitions { line: 2, max: 2000 });
    assert_eq!(refused("root ::= \"a\"{99999999999}"), Error::TooManyRepetitions { line: 1, max: 2000 });
}

#[test]
fn rules_are_defined_once_and_all_of_them() {
    let name = || "item".to_owned();
    assert_eq!(refused("root ::= item"), Error::UnknownRule { name: name() });
    assert_eq!(refused("item ::= \"a\""), Error::NoRoot);
    assert_eq!(refused("item ::= root \"a\""), Error::NoRoot);
    assert_eq!(refused(""), Error::NoRoot);
    let twice = refused("root ::= item\nitem ::= \"a\"\nitem ::= \"b\"");
    assert_eq!(twice, Error::DuplicateRule { line: 3, name: name() });
}

#[test]
fn left_recursion_is_refused_with_the_rules_name() {
    let direct = ["root ::= sum\nsum ::= sum \"+\" \"1\" | \"1\"", "root ::= sum\nsum ::= \"\" sum | \"1\""];
    let behind_something_empty = [
        "root ::= sum\nsum ::= blank sum \"1\" | \"2\"\nblank ::= \" \"*",
        "root ::= sum\nsum ::= (\"a\" | sum)? \"b\"",
        "root ::= sum\nsum ::= (sum \"a\")* \"b\"",
        "root ::= sum\nsum ::= blank{3} sum | \"2\"\nblank ::= \" \"?",
    ];
    for text in direct.into_iter().chain(behind_something_empty) {
        assert_eq!(refused(text), Error::LeftRecursion { name: "sum".to_owned() }, "{text}");
    }
    let circle = refused("root ::= \"(\" one\none ::= two \"x\"\ntwo ::= one \"y\" | \"z\"");
    assert!(matches!(&circle, Error::LeftRecursion { name } if name == "one" || name == "two"), "{circle}");
    for harmless in [
        "root ::= \"1\" root | \"2\"",
        "root ::= \"(\" root \")\" |",
        "root ::= ((\"a\"*)* (\"b\"?)+)*",
        "root ::= \"\"*",
    ] {
        assert!(parse(harmless).is_ok(), "{harmless}");
    }
}

#[test]
fn size_is_limited() {
    let long = format!("root ::= \"a\" #{}", " ".repeat(MAX_GRAMMAR_BYTES));
    assert!(matches!(refused(&long), Error::TooLong { max: MAX_GRAMMAR_BYTES, .. }));
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(65), ")".repeat(65));
    assert_eq!(refused(&deep), Error::TooDeep { line: 1, max: 64 });
    let many_rules = format!("root ::= {}", "\"a\"{0,2000} ".repeat(5));
    assert!(matches!(refused(&many_rules), Error::TooLarge { what: "rules", .. }));
    let many_symbols = format!("root ::= {}", "\"a\"{2000} ".repeat(20));
    assert!(matches!(refused(&many_symbols), Error::TooLarge { what: "symbols", .. }));
    // Every group repeats the one before a thousand times; written out fully it would never end.
    let nested = format!("root ::= {}\"a\"{}", "(".repeat(30), "){1000}".repeat(30));
    assert!(parse(&nested).is_ok());
}

#[test]
fn the_json_grammar_is_accepted() {
    assert!(Grammar::parse(JSON).is_ok());
}
