//! Runs the `icllama` command on small models.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

pub mod endpoint;
pub mod hub;
pub mod running;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use model_core::fixtures::TinyLlama;
use serde_json::Value;

/// A folder with a tiny random model.
pub struct Tiny {
    pub folder: tempfile::TempDir,
}

impl Tiny {
    pub fn new(model: &TinyLlama) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tiny.gguf"), model.build()).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> String {
        self.folder.path().join("tiny.gguf").to_str().unwrap().to_owned()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub fn tiny() -> Tiny {
    Tiny::new(&TinyLlama::default())
}

/// The command, deaf to what the environment says.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_icllama"));
    command.args(args);
    for variable in ["ICLLAMA_WASM", "ICLLAMA_CANISTER", "ICLLAMA_NETWORK", "ICLLAMA_IDENTITY"] {
        command.env_remove(variable);
    }
    command
}

pub fn icllama_with_stdin(args: &[&str], stdin: &str) -> Output {
    let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that needs no stdin may be gone before all is written.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn icllama(args: &[&str]) -> Output {
    icllama_with_stdin(args, "")
}

pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&icllama(args))).unwrap()
}

/// The message of a command that has to fail, which prints nothing on stdout.
pub fn failure(args: &[&str]) -> String {
    let output = icllama(args);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: "), "{message}");
    message
}

/// Exit code 2: the arguments themselves are wrong.
pub fn usage(args: &[&str]) -> String {
    let output = icllama(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

pub fn smollm2() -> String {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/SmolLM2-135M-Instruct.Q4_1.gguf"));
    let path = std::env::var_os("ICLLAMA_MODEL").map_or(default, PathBuf::from);
    assert!(path.is_file(), "{} is absent; fetch it with scripts/fetch-model.sh", path.display());
    path.to_str().unwrap().to_owned()
}

pub fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}
