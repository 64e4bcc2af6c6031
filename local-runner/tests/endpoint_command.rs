//! `icllama replica` as a process: what it prints, how it ends, and that it goes on where it ended.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::common::endpoint::{agent, block_on, counter_wasm, http, user};
use candid::Principal;
use serde_json::Value;

/// A running command, ended if a test fails.
struct Running {
    child: Child,
    started: Value,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_icllama"));
    command.args(["replica", "--json"]).args(args).env_remove("ICLLAMA_WASM");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = command(args).spawn().unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        let started = serde_json::Deserializer::from_reader(stdout).into_iter().next();
        let started = started.unwrap_or_else(|| {
            let mut errors = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
            panic!("it did not start: {errors}");
        });
        Self { started: started.unwrap(), child }
    }

    fn text(&self, key: &str) -> &str {
        self.started[key].as_str().unwrap()
    }

    fn address(&self) -> std::net::SocketAddr {
        self.text("url").strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Ends it as the system does; answers what it wrote to stderr.
    fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        let mut errors = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }
}

#[test]
fn installs_serves_and_goes_on_after_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let (state, wasm) = (folder.path().join("state"), folder.path().join("counter.wasm"));
    std::fs::write(&wasm, counter_wasm()).unwrap();
    let (state, wasm) = (state.to_str().unwrap(), wasm.to_str().unwrap());
    let args = ["--port", "0", "--state", state, "--install", "--wasm", wasm, "--controller", "aaaaa-aa"];
    let mut before = Value::Null;
    for run in 1..=2u8 {
        let running = Running::start(&args);
        let canister = Principal::from_text(running.text("canister_id")).unwrap();
        assert_eq!(canister.to_text(), "rrkah-fqaaa-aaaaa-aaaaq-cai");
        let address = running.address();
        assert_eq!(running.text("canister_url"), format!("http://{canister}.localhost:{}/", address.port()));
        let root_key = running.started["root_key"].clone();
        assert!(before.is_null() || before == root_key);
        before = root_key;
        let reply = block_on(async {
            let agent = agent(address, user()).await;
            agent.update(&canister, "inc").with_arg(vec![1]).call_and_wait().await.unwrap()
        });
        assert_eq!(reply[0], run, "the canister counts on");
        let directory = http(address, "GET", "/", &[], b"");
        assert!(directory.text().contains(&canister.to_text()));
        assert!(running.terminate().contains("saving"));
    }
}

#[test]
fn says_what_is_the_matter_with_port_wasm_and_folder() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let running = Running::start(&["--port", "0", "--state", state]);
    let port = running.address().port().to_string();
    for (args, expected) in [
        (&["--port", &port][..], "is in use"),
        (&["--port", "0", "--state", state], "another replica uses"),
        (&["--port", "0", "--install", "--wasm", "/nowhere.wasm"], "no canister wasm at /nowhere.wasm"),
        (&["--wasm", "x.wasm"], "--install"),
    ] {
        let output = command(args).output().unwrap();
        assert!(!output.status.success());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(expected), "{errors}");
    }
    running.terminate();
}
