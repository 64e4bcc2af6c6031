//! What the automaton takes, compared with a plain recogniser.

use std::collections::{BTreeMap, BTreeSet};

use super::super::JSON;
use super::*;

fn automaton(text: &str) -> Automaton {
    Automaton::new(Grammar::parse(text).unwrap()).unwrap()
}

/// How many bytes of `text` are taken, and whether the text may end after them.
fn taken(automaton: &mut Automaton, text: &[u8]) -> (usize, bool) {
    automaton.restart().unwrap();
    let count = text.iter().take_while(|&&byte| automaton.push(byte).unwrap()).count();
    (count, automaton.may_end())
}

fn assert_matches(grammar: &str, matching: &[&str], others: &[&str]) {
    let mut automaton = automaton(grammar);
    for text in matching {
        assert_eq!(taken(&mut automaton, text.as_bytes()), (text.len(), true), "{grammar}: {text:?}");
    }
    for text in others {
        assert_ne!(taken(&mut automaton, text.as_bytes()), (text.len(), true), "{grammar}: {text:?}");
    }
}

#[test]
fn repetitions_take_what_their_numbers_say() {
    assert_matches(r#"root ::= "ab"* "c"+ "d"?"#, &["c", "ababccd"], &["", "abd", "abac", "cdd"]);
    assert_matches(r#"root ::= "a"{2,3} "b"{2} [c]{1,}"#, &["aabbc", "aaabbccc"], &["abbc", "aaaabbc", "aabc", "aabb"]);
    assert_matches(r#"root ::= ("x" | "yz"){0,2}"#, &["", "x", "yzx", "yzyz"], &["xxx", "y"]);
    assert_matches(r#"root ::= "a"{0} "b""#, &["b"], &["ab"]);
    assert_matches(r#"root ::= ((" "*)* "a"?)* "b""#, &["b", "  aa a b"], &["", "a a"]);
    assert_matches(r#"root ::= "a"+?"#, &["", "aa"], &["b"]);
}

#[test]
fn rules_nest_and_recur() {
    assert_matches(r#"root ::= "(" root ")" root |"#, &["", "()", "(()())()"], &["(", ")", "(()"]);
    let sums = "root ::= term ([-+] term)*\nterm ::= [0-9]+ | \"(\" root \")\"";
    assert_matches(sums, &["1", "1+22-(3-4)"], &["+1", "1+", "(1", "1 "]);
}

#[test]
fn characters_of_several_bytes_may_be_cut() {
    let mut automaton = automaton("root ::= [à-ü] [^a-\u{FFFF}] \"日\"");
    let text = "é😀日".as_bytes();
    for (at, &byte) in text.iter().enumerate() {
        assert!(automaton.push(byte).unwrap(), "byte {at}");
        automaton.commit();
        assert_eq!(automaton.may_end(), at + 1 == text.len());
    }
    assert!(automaton.must_end());
}

#[test]
fn bytes_that_cannot_become_a_fitting_character_are_refused_at_once() {
    let mut anything = automaton("root ::= .*");
    for hostile in
        [&b"\x80"[..], b"\xC0", b"\xC1", b"\xF5", b"\xE0\x80", b"\xED\xA0", b"\xF4\x90", b"\xC3\x28", b"\xE2\x82a"]
    {
        assert_eq!(taken(&mut anything, hostile).0, hostile.len() - 1, "{hostile:x?}");
    }
    let mut umlauts = automaton("root ::= [äöü]");
    assert_eq!(taken(&mut umlauts, "é".as_bytes()), (1, false), "é begins as ä does");
    assert_eq!(taken(&mut umlauts, "日".as_bytes()), (0, false));
    assert_eq!(taken(&mut umlauts, b"\xC3"), (1, false), "half a character is no end");
}

#[test]
fn bytes_are_taken_back() {
    let mut automaton = automaton(r#"root ::= ("ab" | "äb")* "c""#);
    automaton.push(b'a').unwrap();
    automaton.commit();
    let before = (automaton.nodes.len(), automaton.places.clone());
    for text in ["bab", "bä", "bc", "b"] {
        text.bytes().for_each(|byte| assert!(automaton.push(byte).unwrap()));
        assert_eq!(automaton.pushed(), text.len());
        automaton.pop_to(0);
        assert_eq!((automaton.nodes.len(), automaton.places.clone()), before);
    }
    assert!(!automaton.push(b'c').unwrap());
    assert_eq!((automaton.nodes.len(), automaton.places.clone()), before, "a refused byte changes nothing");
}

#[test]
fn json_is_what_a_parser_reads() {
    let matching =
        ["{}", r#"{"a": [1, -0.5e+3, true, null, "x\"\u00e9é\\"], "": {"b": {}}}"#, "{\n  \"a\": 1,\n  \"b\": []\n}"];
    let others = ["", "[]", "{", "{} ", "{\"a\":01}", "{\"a\":1,}", "{a:1}", "{\"a\":\"\n\"}", "{\"a\":\"\\x\"}"];
    assert_matches(JSON, &matching, &others);
    for text in matching {
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    }
}

#[test]
fn repetition_takes_no_memory_and_nesting_a_little() {
    let mut strings = automaton(JSON);
    strings.push(b'{').unwrap();
    strings.push(b'"').unwrap();
    strings.commit();
    let nodes = strings.nodes.len();
    for _ in 0..10_000 {
        assert!(strings.push(b'x').unwrap());
        strings.commit();
        strings.rest();
    }
    assert_eq!(strings.nodes.len(), nodes);
    let mut brackets = automaton("root ::= \"[\" root \"]\" |");
    for depth in 1..1000 {
        assert!(brackets.push(b'[').unwrap());
        brackets.commit();
        assert!(brackets.nodes.len() <= depth + 2);
    }
}

#[test]
fn what_costs_too_much_is_an_error_and_not_a_stall() {
    // Each character can belong to any of several thousand repetitions.
    let wide = format!("root ::= ({})*", vec!["\"a\"* \"b\"*"; 2000].join(" "));
    let mut automaton = automaton(&wide);
    let error = (0..100_000).find_map(|_| automaton.push(b'a').err()).unwrap();
    assert!(matches!(error, Error::TooCostly { .. }));
    assert!(automaton.open.is_empty());
    automaton.pop_to(0);
    automaton.rest();
    assert!(automaton.push(b'a').unwrap(), "what was taken back can be tried again");
    let mut deep = self::automaton("root ::= \"[\" root \"]\" |");
    let error = (0..MAX_NODES + 10).find_map(|_| deep.push(b'[').err()).unwrap();
    assert_eq!(error, Error::TooCostly { what: "nodes", max: MAX_NODES });
}

/// Finds out where texts can end by trying everything; slow and plain.
struct Recogniser<'g> {
    grammar: &'g Grammar,
    text: &'g [u32],
    known: BTreeMap<(u32, usize), BTreeSet<usize>>,
}

impl Recogniser<'_> {
    /// Where the rule can end that begins at `from`.
    fn ends(&mut self, rule: u32, from: usize) -> BTreeSet<usize> {
        if let Some(ends) = self.known.get(&(rule, from)) {
            return ends.clone();
        }
        // A repetition that repeats nothing adds nothing.
        self.known.insert((rule, from), BTreeSet::new());
        let mut all = BTreeSet::new();
        for &start in &self.grammar.rules[rule as usize] {
            let mut ends = BTreeSet::from([from]);
            for symbol in self.grammar.symbols[start as usize..].iter().take_while(|&&symbol| symbol != Symbol::End) {
                ends = ends.into_iter().flat_map(|at| self.step(*symbol, at)).collect();
            }
            all.extend(ends);
        }
        self.known.insert((rule, from), all.clone());
        all
    }

    fn step(&mut self, symbol: Symbol, at: usize) -> BTreeSet<usize> {
        match symbol {
            Symbol::Rule(rule) => self.ends(rule, at),
            Symbol::Class(class) => {
                let class = &self.grammar.classes[class as usize];
                self.text.get(at).filter(|&&code| class.contains(code)).map(|_| at + 1).into_iter().collect()
            }
            Symbol::End => BTreeSet::new(),
        }
    }
}

fn describes(grammar: &Grammar, text: &str) -> bool {
    let codes: Vec<u32> = text.chars().map(u32::from).collect();
    let mut recogniser = Recogniser { grammar, text: &codes, known: BTreeMap::new() };
    recogniser.ends(grammar.root, 0).contains(&codes.len())
}

/// All texts over a and b of at most seven characters.
fn texts() -> Vec<String> {
    let mut texts = vec![String::new()];
    for index in 0..254 {
        let text = texts[index / 2].clone();
        texts.push(text + if index % 2 == 0 { "a" } else { "b" });
    }
    texts
}

fn expression(depth: u32) -> proptest::strategy::BoxedStrategy<String> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just("\"a\"".to_owned()),
        Just("\"b\"".to_owned()),
        Just("[ab]".to_owned()),
        Just("\"\"".to_owned()),
        Just("\"ab\"".to_owned())
    ];
    leaf.prop_recursive(depth, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} | {b})")),
            (inner.clone(), proptest::sample::select(vec!["*", "+", "?", "{2}", "{1,2}", "{2,}", "{0,3}"]))
                .prop_map(|(a, sign)| format!("({a}){sign}")),
            inner.prop_map(|a| format!("({a} root \"b\" | \"a\" root |)")),
        ]
    })
    .boxed()
}

proptest::proptest! {
    #[test]
    fn any_grammar_takes_the_texts_that_it_describes_and_their_beginnings(body in expression(4)) {
        // Left recursion is refused, the rest has to agree.
        let Ok(grammar) = Grammar::parse(&format!("root ::= {body}")) else { return Ok(()) };
        let mut automaton = Automaton::new(grammar.clone()).unwrap();
        for text in texts() {
            automaton.restart().unwrap();
            let pushed: Result<Vec<bool>, Error> = text.bytes().map(|byte| automaton.push(byte)).collect();
            // The worst of these grammars have more readings than are followed, in most of their texts.
            let Ok(pushed) = pushed else { return Ok(()) };
            let matches = pushed.iter().all(|&taken| taken) && automaton.may_end();
            proptest::prop_assert_eq!(matches, describes(&grammar, &text), "{}: {:?}", body, text);
        }
    }
}
