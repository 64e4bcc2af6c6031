//! Talking to the model of a deployed canister.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::fixture::Deployed;
use super::proxy::{Fate, Proxy};
use crate::common::{command, failure, icllama, icllama_with_stdin, stdout, tiny, usage};

#[test]
fn a_deployed_canister_says_what_the_native_run_says_and_keeps_no_session() {
    let (deployed, tiny) = Deployed::with_tiny();
    let common = ["run", "-p", "Hello", "-n", "40", "--temp", "0", "--ignore-eos"];
    let native = stdout(&icllama(&[&common[..], &[&tiny.path()]].concat()));
    let shown = deployed.talk(&common, "");
    assert_eq!(stdout(&shown), native, "text");
    let lines = stdout(&deployed.talk(&[&common[..], &["--json", "--stream"]].concat(), ""));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<_> = lines.iter().filter(|line| line["event"] == "call").collect();
    assert_eq!(calls.len(), 4, "the first token, and then 39 by sixteens");
    assert!(
        calls.iter().all(|call| call["instructions"].as_u64() > Some(0) && call["cycles"].as_u64() > Some(5_000_000))
    );
    let pieces: String = calls.iter().map(|call| call["text"].as_str().unwrap()).collect();
    let result = lines.last().unwrap();
    assert_eq!((&pieces, result["text"].as_str()), (&native.trim_end_matches('\n').to_owned(), Some(pieces.as_str())));
    assert_eq!(result["backend"], "canister");
    let id = deployed.canister.to_text();
    let parity = ["parity", &tiny.path(), "-p", "Hello", "-n", "20", "--deployed", &deployed.url, "--canister", &id];
    let others = failure(&[&parity[..], &["--activations", "8"]].concat());
    assert!(others.contains("activations of 16 bits; compare with --activations 16"), "{others}");
    let run = ["run", "-p", "Hello", "--backend", &deployed.url, "--canister", &id, "--activations", "8"];
    assert!(usage(&run).contains("MODEL"), "there is nothing to load that this could be about");
    assert!(failure(&[&run[..], &[&tiny.path()]].concat()).contains("--activations do not go with"));
    let parity = stdout(&icllama(&[&parity[..], &["--json"]].concat()));
    let parity: Value = serde_json::Deserializer::from_str(&parity).into_iter().last().unwrap().unwrap();
    assert_eq!(parity["identical"], true);
    let last = parity["runs"].as_array().unwrap().last().unwrap();
    assert!(last["run"].as_str().unwrap().starts_with("canister on http") && last["identical"] == true, "{last}");
    assert_eq!(deployed.json(&["sessions", "list", "--all"]), serde_json::json!([]), "no session is left");
    let status = deployed.json(&["status", "--ready"]);
    assert_eq!((&status["ready"], &status["model"]["serving"]["file"]["name"]), (&true.into(), &"tiny.gguf".into()));
    assert_eq!(status["model"]["serving"]["file"]["sha256"].as_str().unwrap().len(), 64);
    assert!(status["cycles"].as_f64() > Some(0.0), "{status}");
    assert!(status["quota"]["tokens_today"].as_u64() >= Some(100), "{status}");
}

#[test]
fn an_answer_that_was_lost_on_its_way_is_not_computed_again() {
    let (deployed, tiny) = Deployed::with_tiny();
    let talk = ["run", "-p", "Hello", "-n", "12", "--temp", "0", "--ignore-eos"];
    let native = stdout(&icllama(&[&talk[..], &[&tiny.path()]].concat()));
    let proxy = Proxy::before(deployed.endpoint.address(), Duration::ZERO, |number| match number % 3 {
        0 => Fate::AnswerLost,
        _ => Fate::Pass,
    });
    let id = deployed.canister.to_text();
    let place = ["--backend", &proxy.url, "--canister", &id, "--tokens-per-call", "4"];
    assert_eq!(stdout(&icllama(&[&talk[..], &place].concat())), native);
    assert_eq!(deployed.json(&["sessions", "list", "--all"]), serde_json::json!([]));
}

#[test]
fn an_interrupted_answer_leaves_no_session() {
    let (deployed, _) = Deployed::with_tiny();
    let id = deployed.canister.to_text();
    let place = ["--backend", &deployed.url, "--canister", &id];
    let talk = ["run", "-p", "Hello", "-n", "400", "--ignore-eos", "--tokens-per-call", "1", "--json", "--stream"];
    let mut command = command(&[&talk[..], &place].concat());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"event\":\"call\""));
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest = lines.count();
    assert!(rest < 390, "it ends long before the answer does");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(deployed.json(&["sessions", "list", "--all"]), serde_json::json!([]));
}

#[test]
fn a_chat_goes_on_with_what_the_canister_has_computed() {
    let (deployed, tiny) = Deployed::with_tiny();
    let common = ["chat", "-n", "6", "--temp", "0", "--json", "--ignore-eos"];
    let answers = |text: String| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let native = answers(stdout(&icllama_with_stdin(&[&common[..], &[&tiny.path()]].concat(), "One\nTwo\n")));
    let deployed = answers(stdout(&deployed.talk(&common, "One\nTwo\n")));
    assert_eq!((native.len(), deployed.len()), (2, 2));
    for (native, deployed) in native.iter().zip(&deployed) {
        assert_eq!((&native["tokens"], &native["prompt_tokens"]), (&deployed["tokens"], &deployed["prompt_tokens"]));
    }
    let computed = deployed[1]["timings"]["prefill_tokens"].as_u64();
    assert!(computed < deployed[1]["prompt_tokens"].as_u64(), "{}", deployed[1]);
}

#[test]
fn what_does_not_go_together_is_refused_before_anything_is_sent() {
    let tiny = tiny();
    let path = tiny.path();
    let text = ["run", "-p", "x"];
    assert!(usage(&text).contains("MODEL"));
    assert!(usage(&["run", &path, "--backend", "ftp://x"]).contains("native"));
    let deployed = |more: &[&str]| failure(&[&text[..], more].concat());
    let at = ["--backend", "http://127.0.0.1:1", "--canister", "aaaaa-aa"];
    assert!(deployed(&[&path, "--backend", "local"]).contains("--canister ID"));
    assert!(deployed(&["--canister", "aaaaa-aa"]).contains("no model given"));
    assert!(deployed(&[&at[..], &["--threads", "2"]].concat()).contains("--threads"));
    assert!(deployed(&[&at[..], &["--logprobs", "1"]].concat()).contains("model file"));
}
