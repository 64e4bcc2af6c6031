//! `icllama replica` as a process: what it prints, how it ends, and that it goes on where it ended.

use std::net::{Ipv4Addr, TcpStream};

use crate::common::endpoint::{agent, block_on, counter_wasm, http, user};
use crate::common::running::{Running, command};
use candid::Principal;
use serde_json::Value;

#[test]
fn installs_serves_and_goes_on_after_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let (state, wasm) = (folder.path().join("state"), folder.path().join("counter.wasm"));
    std::fs::write(&wasm, counter_wasm()).unwrap();
    let (state, wasm) = (state.to_str().unwrap(), wasm.to_str().unwrap());
    let args = ["--port", "0", "--state", state, "--install", "--wasm", wasm, "--controller", "aaaaa-aa"];
    let mut before = Value::Null;
    for run in 1..=2u8 {
        let running = Running::start("replica", &args);
        let canister = Principal::from_text(running.text("canister_id")).unwrap();
        assert_eq!(canister.to_text(), "rrkah-fqaaa-aaaaa-aaaaq-cai");
        let address = running.address();
        // Nothing but 127.0.0.1 unless --host says so: not even the machine's other loopback addresses.
        assert!(address.ip() == Ipv4Addr::LOCALHOST && TcpStream::connect(("127.0.0.2", address.port())).is_err());
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
    let running = Running::start("replica", &["--port", "0", "--state", state]);
    let port = running.address().port().to_string();
    for (args, expected) in [
        (&["--port", &port][..], "is in use"),
        (&["--port", "0", "--state", state], "another replica uses"),
        (&["--port", "0", "--install", "--wasm", "/nowhere.wasm"], "no canister wasm at /nowhere.wasm"),
        (&["--wasm", "x.wasm"], "--install"),
    ] {
        let output = command("replica", args).output().unwrap();
        assert!(!output.status.success());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(expected), "{errors}");
    }
    running.terminate();
}

#[test]
fn the_limits_can_be_set() {
    let few = Running::start("replica", &["--port", "0", "--requests-per-second", "2", "--connections", "3"]);
    let statuses: Vec<_> = (0..5).map(|_| http(few.address(), "GET", "/api/v2/status", &[], b"").status).collect();
    assert!(statuses[..2] == [200, 200] && statuses.contains(&429), "{statuses:?}");
    few.terminate();
    let any = Running::start("replica", &["--port", "0", "--requests-per-second", "0"]);
    assert!((0..100).all(|_| http(any.address(), "GET", "/api/v2/status", &[], b"").status == 200));
    any.terminate();
}
