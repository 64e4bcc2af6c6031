//! The system API as a whole: every function of the price list exists, with its type, and can be called.

use super::*;
use crate::shim::costs::SYSTEM_FUNCTIONS;

fn types(letters: &str) -> String {
    letters.chars().map(|letter| if letter == 'I' { " i64" } else { " i32" }).collect()
}

/// Imports everything, and exports for each function an update that calls it with zeros.
fn everything() -> Vec<u8> {
    let mut imports = String::new();
    let mut calls = String::new();
    for function in SYSTEM_FUNCTIONS {
        let (name, params, results) = (function.name, types(function.params), types(function.results));
        imports += &format!(r#"(import "ic0" "{name}" (func ${name} (param{params}) (result{results})))"#);
        let zeros: String = params.split_whitespace().map(|ty| format!("({ty}.const 0)")).collect();
        let drop = if results.is_empty() { "" } else { "drop" };
        calls += &format!(r#"(func (export "canister_update {name}") {zeros} call ${name} {drop})"#);
    }
    wat::parse_str(format!(r#"(module {imports} (memory (export "memory") 1) {calls})"#)).unwrap()
}

#[test]
fn provides_and_charges_every_function() {
    let mut replica = Replica::new(config()).unwrap();
    let id = replica.create_canister([user()]);
    let report = replica.install(id, InstallMode::Install, &everything(), b"", user());
    assert_eq!(report.result, Ok(vec![]));
    for function in SYSTEM_FUNCTIONS {
        let report = replica.update(id, user(), function.name, b"");
        let charged = report.messages[0].system_instructions;
        assert_eq!(charged, function.cost(0), "ic0.{}", function.name);
        if function.name == "msg_reply" {
            assert_eq!(report.result, Ok(vec![]));
            continue;
        }
        let failed = reject(&report);
        let expected = match function.name {
            "trap" => 503,
            "cost_http_request_v2" => 521,
            _ if failed.message.contains("did not reply") => 506,
            "msg_reject" => 406,
            _ => 504,
        };
        assert_eq!(failed.error_code, expected, "ic0.{}: {failed}", function.name);
    }
}
