//! `icllama` as a process that goes on until it is ended.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running command, ended if a test fails.
pub struct Running {
    child: Child,
    /// What it said about itself at the start.
    pub started: Value,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The command with `--json`, not started yet.
pub fn command(verb: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_icllama"));
    command.args([verb, "--json"]).args(args).env_remove("ICLLAMA_WASM");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Running {
    pub fn start(verb: &str, args: &[&str]) -> Self {
        let mut child = command(verb, args).spawn().unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        let started = serde_json::Deserializer::from_reader(stdout).into_iter().next();
        let started = started.unwrap_or_else(|| {
            let mut errors = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
            panic!("it did not start: {errors}");
        });
        Self { started: started.unwrap(), child }
    }

    pub fn text(&self, key: &str) -> &str {
        self.started[key].as_str().unwrap()
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.text("url").strip_prefix("http://").unwrap().trim_end_matches("/v1").parse().unwrap()
    }

    /// Ends it as the system does; answers what it wrote to stderr.
    pub fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        let mut errors = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }
}
