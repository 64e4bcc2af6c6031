//! The real `icllama` command with the real canister in the shim. The wasm is the one that
//! `scripts/build-canister.sh` leaves in the target folder, or `ICLLAMA_WASM`.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use crate::common::{Tiny, failure, icllama, icllama_with_stdin, ids, json, smollm2, stdout, tiny, usage};
use serde_json::Value;

/// A canister that counts: `inc` adds its argument's first byte to a counter and replies with it, `get` reads it.
const COUNTER: &str = r#"(module
    (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "debug_print" (func $print (param i32 i32)))
    (import "ic0" "trap" (func $trap (param i32 i32)))
    (memory 1)
    (data (i32.const 0) "DIDL\00\01\7b\00")
    (data (i32.const 64) "counted")
    (func $answer
        (call $append (i32.const 0) (i32.const 8))
        (call $reply))
    (func (export "canister_update inc")
        (call $arg (i32.const 32) (i32.const 7) (i32.const 1))
        (i32.store8 (i32.const 7) (i32.add (i32.load8_u (i32.const 7)) (i32.load8_u (i32.const 32))))
        (call $print (i32.const 64) (i32.const 7))
        (call $answer))
    (func (export "canister_query get") (call $answer))
    (func (export "canister_update fail") (call $trap (i32.const 64) (i32.const 7))))"#;

fn counter(folder: &Tiny) -> String {
    let path = folder.folder.path().join("counter.wasm");
    std::fs::write(&path, wat::parse_str(COUNTER).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_canister_gives_the_same_answer_and_says_what_it_cost() {
    let tiny = tiny();
    let common = ["run", &tiny.path(), "-p", "Hello", "-n", "9", "--temp", "0", "--ignore-eos", "--json"];
    let native = json(&common);
    let shim = json(&[&common[..], &["--backend", "shim"]].concat());
    for key in ["prompt_tokens", "tokens", "text", "finish_reason"] {
        assert_eq!(shim[key], native[key], "{key}");
    }
    assert_eq!(shim["backend"], "shim");
    assert_eq!(shim["calls"], 2, "one up to the first token, one for the rest");
    assert!(shim["instructions"].as_u64().unwrap() > 0 && shim["cycles"].as_u64().unwrap() > 0);
    let names: Vec<_> = shim["phases"].as_array().unwrap().iter().map(|phase| phase["phase"].clone()).collect();
    assert_eq!(names, ["install", "upload", "verify", "load", "prompt", "generate"]);
}

#[test]
fn a_chat_in_the_canister_computes_only_what_is_new_and_says_what_the_native_one_says() {
    let input = "What is the capital of France?\nAnd of Italy?\n/reset\nAnd of Italy?\n";
    let common = ["chat", &smollm2(), "-n", "8", "--temp", "0", "--json"];
    let answers = |more: &[&str]| {
        let lines = stdout(&icllama_with_stdin(&[&common[..], more].concat(), input));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let (native, shim) = (answers(&[]), answers(&["--backend", "shim"]));
    assert_eq!((native.len(), shim.len()), (3, 3));
    for (native, shim) in native.iter().zip(&shim) {
        assert_eq!((&native["tokens"], &native["prompt_tokens"]), (&shim["tokens"], &shim["prompt_tokens"]));
    }
    for second in [&native[1], &shim[1]] {
        assert!(second["text"].as_str().unwrap().contains("Rome"), "{second}");
        let [prompt, computed] = [&second["prompt_tokens"], &second["timings"]["prefill_tokens"]];
        assert!(computed.as_u64().unwrap() * 3 < prompt.as_u64().unwrap(), "{second}");
    }
    assert!(!shim[2]["text"].as_str().unwrap().contains("Rome"), "after a reset nothing is remembered");
}

#[test]
fn calls_can_be_cut_by_tokens_and_by_instructions() {
    let tiny = tiny();
    let run = |more: &[&str]| {
        let common =
            ["run", &tiny.path(), "-p", "Hi", "-n", "9", "--temp", "0", "--ignore-eos", "--backend", "shim", "--json"];
        json(&[&common, more].concat())
    };
    let whole = run(&[]);
    let by_tokens = run(&["--tokens-per-call", "2"]);
    assert_eq!(by_tokens["calls"], 5, "one token, then eight by twos");
    let by_instructions = run(&["--max-instructions", "1"]);
    assert!(by_instructions["calls"].as_u64().unwrap() > 20, "{}", by_instructions["calls"]);
    for cut in [by_tokens, by_instructions] {
        assert_eq!(cut["tokens"], whole["tokens"]);
    }
}

#[test]
fn streaming_prints_a_line_per_call() {
    let tiny = tiny();
    let common =
        ["run", &tiny.path(), "-p", "Hi", "-n", "5", "--ignore-eos", "--backend", "shim", "--tokens-per-call", "2"];
    let lines = stdout(&icllama(&[&common[..], &["--json", "--stream"]].concat()));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (result, calls) = lines.split_last().unwrap();
    assert!(calls.iter().all(|line| line["event"] == "call" && line["instructions"].as_u64().unwrap() > 0));
    let streamed: Vec<u64> = calls.iter().flat_map(|line| ids(&line["tokens"])).collect();
    assert_eq!(streamed, ids(&result["tokens"]));
    let text = icllama(&common);
    let live = String::from_utf8(text.stderr).unwrap();
    assert_eq!(live.lines().filter(|line| line.starts_with("call ")).count(), calls.len());
    assert!(live.contains("% of the limit") && live.contains("instructions per generated token"), "{live}");
}

#[test]
fn parity_holds_in_the_canister_with_any_budget_and_across_an_upgrade() {
    let tiny = tiny();
    let report = json(&["parity", &tiny.path(), "-p", "Hello", "-n", "12", "--json"]);
    assert_eq!(report["identical"], true, "{report}");
    assert_eq!((report["positions"].as_u64(), report["vocabulary"].as_u64()), (Some(12), Some(320)));
    let runs = report["runs"].as_array().unwrap();
    let calls = |name: &str| {
        let run = runs.iter().find(|run| run["run"].as_str().unwrap().contains(name)).unwrap();
        run["calls"].as_u64().unwrap()
    };
    assert!(calls("tiny budgets") > calls("normal budgets"));
    assert_eq!(calls("upgraded half-way"), 3);
}

#[test]
fn parity_holds_with_keys_and_values_of_8_bits() {
    let tiny = tiny();
    let report = json(&["parity", &tiny.path(), "-p", "Hello", "-n", "6", "--kv-cache", "8", "--json"]);
    assert_eq!(report["identical"], true, "{report}");
    assert!(
        report["runs"].as_array().unwrap().iter().any(|run| run["run"] == "canister, upgraded half-way"),
        "{report}"
    );
}

#[test]
fn logits_of_the_canister_are_those_of_the_native_run() {
    let tiny = tiny();
    let common = ["logits", &tiny.path(), "--tokens", "5,70,71,9", "--json"];
    assert_eq!(stdout(&icllama(&[&common[..], &["--backend", "shim"]].concat())), stdout(&icllama(&common)));
}

#[test]
fn bench_counts_instructions_per_token_and_weight() {
    let tiny = tiny();
    let common =
        ["bench", &tiny.path(), "--backend", "shim", "--prompt-tokens", "32", "--generate-tokens", "8", "--json"];
    let report = json(&common);
    let number = |key: &str| report[key].as_f64().unwrap();
    let per_weight = number("instructions_per_generated_token") / number("weights_per_token");
    assert!((per_weight - number("instructions_per_weight")).abs() < 0.01 * per_weight);
    assert!(number("tokens_per_full_call") > 1.0 && number("instructions_per_prompt_token") > 0.0);
    assert_eq!(report["instructions_per_prompt_token"], json(&common)["instructions_per_prompt_token"]);
}

#[test]
fn a_profile_sums_to_what_the_calls_were_metered() {
    let tiny = tiny();
    let common = ["bench", &tiny.path(), "--backend", "shim", "--profile", "--prompt-tokens", "20", "--json"];
    let report = json(&common);
    let tables = report["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 2);
    for table in tables {
        let parts = table["parts"].as_array().unwrap();
        let count = |part: &Value| part["count"].as_u64().unwrap();
        assert_eq!(parts.iter().map(count).sum::<u64>(), table["total"].as_u64().unwrap());
        let part = |name: &str| count(parts.iter().find(|part| part["part"] == name).unwrap());
        for name in ["pages", "argument", "session load", "product: down", "attention: mix", "sampler", "answer"] {
            assert!(part(name) > 0, "{name}");
        }
    }
    // The second table is one token, as a call of its own costs it. Pages are left out: a tiny model touches so few that
    // one more shows.
    let prompt = "a b c d e f g h i j";
    let run = [
        "run",
        &tiny.path(),
        "-p",
        prompt,
        "--raw",
        "-n",
        "2",
        "--temp",
        "0",
        "--ignore-eos",
        "--backend",
        "shim",
        "--json",
    ];
    let phases = &json(&run)["phases"];
    let generate = phases.as_array().unwrap().iter().find(|phase| phase["phase"] == "generate").unwrap();
    let parts = tables[1]["parts"].as_array().unwrap();
    let pages = parts.iter().find(|part| part["part"] == "pages").unwrap()["count"].as_f64().unwrap();
    let profiled = tables[1]["total"].as_f64().unwrap() - pages;
    let metered = generate["instructions"].as_f64().unwrap() - generate["page_instructions"].as_f64().unwrap();
    assert!((profiled / metered - 1.0).abs() < 0.05, "{profiled} {metered}");
    assert!(usage(&[&common[..], &["--generate-tokens", "3"]].concat()).contains("--generate-tokens"));
}

#[test]
fn a_file_that_is_no_model_is_refused_by_the_canister_too() {
    let tiny = tiny();
    let refused = failure(&["run", &tiny.file("text.gguf", "no model at all"), "-p", "x", "--backend", "shim"]);
    assert!(refused.contains("GGUF"), "{refused}");
}

#[test]
fn shim_call_serves_any_module() {
    let tiny = tiny();
    let wasm = counter(&tiny);
    let call = |more: &[&str]| json(&[&["shim", "call", &wasm, "--json"], more].concat());
    assert_eq!(call(&["inc", "(5 : nat8)"])["reply"], "(5 : nat8)");
    let after = call(&["get", "--query", "--before", "inc(5 : nat8)", "--before", "inc (4 : nat8)"]);
    assert_eq!(after["reply"], "(9 : nat8)");
    let logged = call(&["inc", "(1 : nat8)"]);
    assert_eq!(logged["logs"], serde_json::json!(["log: counted"]));
    assert!(logged["instructions"].as_u64().unwrap() > 0);
    let trapped = icllama(&["shim", "call", &wasm, "fail"]);
    let told = String::from_utf8(trapped.stderr).unwrap();
    assert!(!trapped.status.success() && told.contains("error: fail was rejected"), "{told}");
    assert!(told.contains("[TRAP]: counted"), "{told}");
    assert!(failure(&["shim", "call", &wasm, "absent"]).contains("absent"));
    assert!(failure(&["shim", "call", &wasm, "get", "(("]).contains("candid"));
}

#[test]
fn shim_call_speaks_the_interface_that_the_module_carries_or_a_file_gives() {
    let tiny = tiny();
    let wasm = counter(&tiny);
    let did = tiny.file("counter.did", "service : { inc : (nat8) -> (nat8); get : () -> (nat8) query }");
    let typed = json(&["shim", "call", &wasm, "inc", "(7)", "--did", &did, "--json"]);
    assert_eq!(typed["reply"], "(7 : nat8)");
    assert!(failure(&["shim", "call", &wasm, "inc", "(\"x\")", "--did", &did]).contains("does not fit"));
}

#[test]
fn shim_info_lists_imports_and_methods() {
    let tiny = tiny();
    let report = json(&["shim", "info", &counter(&tiny), "--json"]);
    assert_eq!(
        report["methods"],
        serde_json::json!(["canister_update fail", "canister_query get", "canister_update inc"])
    );
    assert!(report["imports"].as_array().unwrap().contains(&"ic0.msg_reply".into()));
    assert!(failure(&["shim", "info", &tiny.path()]).contains("not a valid canister module"));
}
