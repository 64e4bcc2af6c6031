//! Models by their name on the hub, against a server that plays it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::hub::{Defects, Hub, sha256};
use crate::common::stdout;
use model_core::fixtures::TinyLlama;
use serde_json::Value;

/// Runs the command with the hub and a cache of its own.
fn with_hub(hub: &Hub, home: &Path, token: Option<&str>, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_icllama"));
    command.args(args).env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", home).env_remove("HF_TOKEN");
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command.envs(token.map(|token| ("HF_TOKEN", token))).output().unwrap()
}

fn inspect(hub: &Hub, home: &Path, name: &str) -> Output {
    with_hub(hub, home, None, &["inspect", name, "--json"])
}

/// The message of a command that has to fail.
fn message(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text[text.find("error: ").unwrap()..].to_owned()
}

fn cached(home: &Path, file: &str) -> PathBuf {
    home.join("hub/models--me--tiny/snapshots/c0ffee").join(file)
}

fn tiny_hub() -> (Hub, Vec<u8>) {
    let bytes = TinyLlama::default().build();
    (Hub::serve(&[("me/tiny/q/tiny.gguf", bytes.clone())], None), bytes)
}

#[test]
fn a_model_is_fetched_once_and_then_taken_from_the_cache() {
    let ((hub, bytes), home) = (tiny_hub(), tempfile::tempdir().unwrap());
    let run = || {
        let args = ["run", "hf:me/tiny/q/tiny.gguf", "-p", "Hi", "--raw", "-n", "4", "--temp", "0", "--json"];
        let output = with_hub(&hub, home.path(), None, &args);
        (serde_json::from_str::<Value>(&stdout(&output)).unwrap()["tokens"].clone(), output.stderr)
    };
    let (tokens, told) = run();
    assert!(String::from_utf8(told).unwrap().contains("fetching hf:me/tiny/q/tiny.gguf"));
    assert!(fs::read(cached(home.path(), "q/tiny.gguf")).unwrap() == bytes);
    let requests = hub.requests();
    assert!(requests.iter().any(|request| request.path == "/me/tiny/resolve/main/q/tiny.gguf"));
    assert!(requests.iter().all(|request| request.headers["user-agent"].contains("icllama")));
    assert_eq!(run(), (tokens, Vec::new()));
    assert_eq!(hub.requests().len(), 0, "the second run asks for nothing");
}

#[test]
fn a_repository_that_moved_is_found() {
    let ((hub, bytes), home) = (tiny_hub(), tempfile::tempdir().unwrap());
    let report: Value = serde_json::from_str(&stdout(&inspect(&hub, home.path(), "hf:old/tiny/q/tiny.gguf"))).unwrap();
    assert_eq!(report["file_bytes"], bytes.len());
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let ((hub, bytes), home) = (tiny_hub(), tempfile::tempdir().unwrap());
    let name = "hf:me/tiny/q/tiny.gguf";
    hub.set_defects(Defects { break_after: Some(10_000), ..Defects::default() });
    let told = message(&inspect(&hub, home.path(), name));
    assert!(told.contains("no connection") && told.contains("run the command again"), "{told}");
    assert!(!cached(home.path(), "q/tiny.gguf").exists());
    hub.set_defects(Defects::default());
    hub.requests();
    stdout(&inspect(&hub, home.path(), name));
    let ranges: Vec<_> = hub.requests().iter().map(|request| request.headers["range"].clone()).collect();
    assert!(ranges.contains(&"bytes=10000-".to_owned()), "{ranges:?}");
    assert!(fs::read(cached(home.path(), "q/tiny.gguf")).unwrap() == bytes);
}

#[test]
fn damaged_bytes_are_not_kept() {
    let ((hub, bytes), home) = (tiny_hub(), tempfile::tempdir().unwrap());
    let name = "hf:me/tiny/q/tiny.gguf";
    hub.set_defects(Defects { damage: true, ..Defects::default() });
    let told = message(&inspect(&hub, home.path(), name));
    assert!(told.contains("damaged") && told.contains(&sha256(&bytes)), "{told}");
    hub.set_defects(Defects::default());
    stdout(&inspect(&hub, home.path(), name));
    assert!(fs::read(cached(home.path(), "q/tiny.gguf")).unwrap() == bytes);
}

#[test]
fn gated_models_need_the_token() {
    let bytes = TinyLlama::default().build();
    let (hub, home) = (Hub::serve(&[("me/tiny/a.gguf", bytes)], Some("secret")), tempfile::tempdir().unwrap());
    let args = ["inspect", "hf:me/tiny/a.gguf", "--json"];
    for token in [None, Some("wrong")] {
        let told = message(&with_hub(&hub, home.path(), token, &args));
        assert!(told.contains("401") && told.contains("gated") && told.contains("HF_TOKEN"), "{told}");
    }
    stdout(&with_hub(&hub, home.path(), Some("secret"), &args));
    // The token that a login left in HF_HOME serves as well.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("token"), "secret\n").unwrap();
    stdout(&with_hub(&hub, other.path(), None, &args));
}

#[test]
fn failures_say_what_is_wrong_and_what_to_do() {
    let ((hub, _), home) = (tiny_hub(), tempfile::tempdir().unwrap());
    let told = message(&inspect(&hub, home.path(), "hf:me/tiny/absent.gguf"));
    assert!(told.contains("has no hf:me/tiny/absent.gguf"), "{told}");
    hub.set_defects(Defects { status: Some(503), ..Defects::default() });
    assert!(message(&inspect(&hub, home.path(), "hf:me/tiny/q/tiny.gguf")).contains("status 503"));
    let (mut gone, _) = tiny_hub();
    gone.endpoint = "http://127.0.0.1:1".into();
    let told = message(&inspect(&gone, home.path(), "hf:me/tiny/q/tiny.gguf"));
    assert!(told.contains("no connection to http://127.0.0.1:1"), "{told}");
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    hub.set_defects(Defects::default());
    let told = message(&inspect(&hub, &file, "hf:me/tiny/q/tiny.gguf"));
    assert!(told.contains("cache") && told.contains("HF_HOME"), "{told}");
    let wrong = inspect(&hub, home.path(), "hf:me/tiny");
    assert!(wrong.status.code() == Some(2) && String::from_utf8(wrong.stderr).unwrap().contains("hf:OWNER/REPO/FILE"));
}

#[test]
fn all_parts_of_a_split_model_are_fetched() {
    let part = |number: u8| format!("me/tiny/a-0000{number}-of-00003.gguf");
    let names = [part(1), part(2), part(3)];
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), TinyLlama::default().build())).collect();
    let (hub, home) = (Hub::serve(&files, None), tempfile::tempdir().unwrap());
    inspect(&hub, home.path(), "hf:me/tiny/a-00001-of-00003.gguf");
    for name in &names {
        assert!(cached(home.path(), name.rsplit('/').next().unwrap()).is_file(), "{name}");
    }
}
