//! The rewritten module is valid, says the same and has the exports the engine needs.

use wasmparser::{Operator, Parser, Payload, Validator};

use super::*;
use crate::shim::module::validate;

fn rewrite(wat: &str) -> Instrumented {
    let wasm = wat::parse_str(wat).unwrap();
    let instrumented = instrument(&validate(&wasm).unwrap()).unwrap();
    Validator::new().validate_all(&instrumented.wasm).unwrap_or_else(|error| panic!("{error}: {wat}"));
    instrumented
}

fn exports(wasm: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::ExportSection(exports) = payload.unwrap() {
            names.extend(exports.into_iter().map(|export| export.unwrap().name.to_string()));
        }
    }
    names
}

fn operators(wasm: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            for operator in body.get_operators_reader().unwrap() {
                names.push(format!("{:?}", operator.unwrap()).split_whitespace().next().unwrap().to_string());
            }
        }
    }
    names
}

#[test]
fn an_empty_module_gets_the_added_globals() {
    let instrumented = rewrite("(module)");
    assert_eq!(exports(&instrumented.wasm), [COUNTER, EXHAUSTED, LARGEST]);
    assert_eq!((instrumented.image.len(), instrumented.mutable_globals, instrumented.operators), (0, 0, 0));
}

#[test]
fn exports_what_the_engine_needs_and_keeps_functions() {
    let instrumented = rewrite(
        r#"(module (memory (export "m") 1) (table (export "t") 1 funcref)
            (global (export "g") (mut i32) (i32.const 1)) (global i32 (i32.const 2)) (global (mut f32) (f32.const 3))
            (start $f) (func $f (export "canister_init") (export "memory")))"#,
    );
    let mut names = exports(&instrumented.wasm);
    names.sort();
    let mut expected = [
        TABLE,
        MEMORY,
        "icllama global 0",
        "icllama global 1",
        "canister_init",
        "memory",
        START,
        COUNTER,
        EXHAUSTED,
        LARGEST,
    ];
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(instrumented.mutable_globals, 2);
    assert!(
        !Parser::new(0)
            .parse_all(&instrumented.wasm)
            .any(|payload| matches!(payload, Ok(Payload::StartSection { .. })))
    );
}

#[test]
fn active_data_becomes_the_image_and_passive_data_keeps_its_index() {
    let instrumented = rewrite(
        r#"(module (memory 1) (data (i32.const 7) "one") (data $p "two") (data (i32.const 65536) "") (data (i32.const 8) "three")
            (func (memory.init $p (i32.const 0) (i32.const 0) (i32.const 3))))"#,
    );
    let expected: [(u32, &[u8]); 3] = [(7, b"one"), (65_536, b""), (8, b"three")];
    assert_eq!(instrumented.image.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect::<Vec<_>>(), expected);
    for payload in Parser::new(0).parse_all(&instrumented.wasm) {
        if let Payload::DataSection(segments) = payload.unwrap() {
            let contents: Vec<_> = segments.into_iter().map(|segment| segment.unwrap().data).collect();
            assert_eq!(contents, [&b""[..], b"two", b"", b""]);
        }
    }
}

#[test]
fn function_names_stay_and_other_custom_sections_go() {
    let instrumented = rewrite(r#"(module (func $named) (@custom "icp:public x" "y"))"#);
    let names: Vec<_> = Parser::new(0)
        .parse_all(&instrumented.wasm)
        .filter_map(|payload| match payload.unwrap() {
            Payload::CustomSection(section) => Some(section.name().to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["name"]);
}

#[test]
fn only_functions_and_loops_are_tested() {
    let tests = |wat: &str| {
        let instrumented = rewrite(wat);
        operators(&instrumented.wasm).iter().filter(|name| *name == "I64LtS").count()
    };
    assert_eq!(tests("(module (func))"), 1);
    assert_eq!(tests("(module (func) (func))"), 2);
    assert_eq!(tests("(module (func (if (i32.const 1) (then nop) (else nop)) block nop br 0 end nop))"), 1);
    assert_eq!(tests("(module (func (loop nop) (loop (loop))))"), 4);
    assert_eq!(tests("(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))"), 2);
}

#[test]
fn blocks_without_cost_get_no_code() {
    // The block after the last end, and those between ends, cost nothing.
    let instrumented = rewrite("(module (func block block end end))");
    assert_eq!(operators(&instrumented.wasm).iter().filter(|name| *name == "I64Sub").count(), 1);
}

#[test]
fn counts_the_operators_the_platform_compiles() {
    // One global: 2. nop, memory.grow, drop, const, end: 5; function start: 10; memory.grow: 3.
    let instrumented =
        rewrite("(module (memory 1) (global i32 (i32.const 0)) (func nop (drop (memory.grow (i32.const 1)))))");
    assert_eq!(instrumented.operators, 2 + 5 + 10 + 3);
    // nop, const, if, nop, else, nop, end, nop, end: 9; start 10; three untested blocks.
    let instrumented = rewrite("(module (func nop (if (i32.const 1) (then nop) (else nop)) nop))");
    assert_eq!(instrumented.operators, 9 + 10 + 3 * 4);
}

#[test]
fn locals_keep_their_indices_when_one_is_added() {
    let instrumented = rewrite(
        r#"(module (memory 1) (func (param f32 i64) (local i32 v128 v128 funcref)
            (memory.copy (local.get 2) (i32.const 1) (i32.const 2)) (drop (local.get 5))))"#,
    );
    let mut locals = Vec::new();
    for payload in Parser::new(0).parse_all(&instrumented.wasm) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            locals.extend(body.get_locals_reader().unwrap().into_iter().map(|local| local.unwrap().0));
            let mut tees =
                body.get_operators_reader().unwrap().into_iter().filter_map(|operator| match operator.unwrap() {
                    Operator::LocalTee { local_index } => Some(local_index),
                    _ => None,
                });
            assert_eq!(tees.next(), Some(6));
        }
    }
    assert_eq!(locals.iter().sum::<u32>(), 5);
}

#[test]
fn code_without_reach_is_still_valid() {
    rewrite("(module (memory 1) (func (result i32) return_call 0 (memory.fill) loop unreachable end br 0))");
    rewrite("(module (func unreachable if nop else nop end))");
}
