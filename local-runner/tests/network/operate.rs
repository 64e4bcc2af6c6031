//! Sessions, settings and logs of a deployed canister, by those who may and those who may not.

use std::path::PathBuf;

use candid::Principal;
use canister::api::{
    Config, ConfigUpdate, GenerateAccess, SessionCreateArg, SessionCreateOk, SessionInput, SessionOptions,
};

use ic_agent::identity::AnonymousIdentity;

use super::fixture::Deployed;
use super::proxy::Proxy;
use crate::common::endpoint::{agent, block_on, counter_wasm, empty, options, with_canister};
use crate::common::{icllama, json, stdout};

/// A key of Ed25519, and who that is.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIOnaJqEDieOpIh8zcuMr9hpFGJ2aOSHlgz1HYqcXvTPW
-----END PRIVATE KEY-----
";
const SOMEBODY: &str = "a4nsa-vnana-5gz3s-j2oqi-3fl3p-wpked-ficke-cpav4-3hled-zfjtd-kqe";

/// A home folder in which dfx keeps the key under the name `somebody`.
fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/dfx/identity/somebody");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("identity.pem");
    std::fs::write(&path, KEY).unwrap();
    (home, path)
}

fn session(deployed: &Deployed) -> u64 {
    let input = SessionInput::Text("Hello".to_owned());
    let arg = SessionCreateArg { input, options: SessionOptions::default() };
    deployed.update::<_, SessionCreateOk>("session_create", &arg).session_id
}

#[test]
fn sessions_are_listed_shown_stopped_and_deleted() {
    let (deployed, _) = Deployed::with_tiny();
    assert_eq!(deployed.json(&["sessions", "list"]), serde_json::json!([]));
    let mut ids = [session(&deployed), session(&deployed)];
    ids.sort_unstable();
    let [first, second] = ids.map(|id| id.to_string());
    let listed = deployed.json(&["sessions", "list", "--all"]);
    let known: Vec<_> = listed.as_array().unwrap().iter().map(|session| &session["status"]["session_id"]).collect();
    assert_eq!(known, [&ids[0], &ids[1]]);
    assert_eq!(listed[0]["owner"], Principal::anonymous().to_text());
    let shown = deployed.json(&["sessions", "show", &first]);
    assert_eq!((&shown["text"], &shown["status"]["state"]), (&"".into(), &"Prefill".into()));
    deployed.json(&["sessions", "cancel", &first]);
    assert_eq!(deployed.json(&["sessions", "show", &first])["status"]["state"]["Finished"], "Cancelled");
    let text = String::from_utf8(deployed.icllama(&["sessions", "list"]).stdout).unwrap();
    assert!(text.contains("finished (Cancelled)") && text.lines().count() == 3, "{text}");
    deployed.json(&["sessions", "delete", &first, &second]);
    assert_eq!(deployed.json(&["sessions", "list"]), serde_json::json!([]));
    let (code, message) = deployed.failure(&["sessions", "show", &first]);
    assert!(code == 1 && message.contains("there is no session"), "{message}");
}

#[test]
fn an_identity_that_lacks_a_role_is_told_so_until_it_has_it() {
    let (deployed, _) = Deployed::with_tiny();
    let (home, pem) = home();
    let pem = pem.to_str().unwrap();
    let status = deployed.json(&["status", "--identity", pem]);
    assert_eq!((&status["caller"], &status["controllers"][0]), (&SOMEBODY.into(), &"2vxsx-fae".into()));
    for args in [&["config", "show", "--identity", pem][..], &["config", "set", "max_sessions=5", "--identity", pem]] {
        let (code, message) = deployed.failure(args);
        assert_eq!(code, 3, "{message}");
        assert!(message.contains("role"), "{message}");
    }
    let talk = ["run", "-p", "x", "-n", "2", "--ignore-eos", "--identity", pem];
    let refused = deployed.talk(&talk, "");
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(3) && message.contains(SOMEBODY), "{message}");

    let added = deployed.json(&["config", "add-operator", SOMEBODY]);
    assert_eq!(added["changed"]["operators"], serde_json::json!([SOMEBODY]));
    // The same identity by its name in dfx.
    let mut named =
        deployed.command(&["config", "set", "max_sessions=5", "generate_access=AllowList", "--identity", "somebody"]);
    let named = named.env("HOME", home.path()).env_remove("DFX_CONFIG_ROOT").output().unwrap();
    assert!(named.status.success(), "{}", String::from_utf8_lossy(&named.stderr));
    assert!(String::from_utf8(named.stdout).unwrap().contains("max_sessions                 5"));
    assert!(deployed.talk(&talk, "").status.success(), "operators are users");
    deployed.json(&["config", "remove-operator", SOMEBODY]);
    assert_eq!(deployed.talk(&talk, "").status.code(), Some(3));
    deployed.json(&["config", "add-user", SOMEBODY]);
    assert!(deployed.talk(&talk, "").status.success());
    let config = deployed.json(&["config", "show"]);
    assert_eq!((&config["operators"], &config["users"]), (&serde_json::json!([]), &serde_json::json!([SOMEBODY])));
    assert_eq!((&config["max_sessions"], &config["generate_access"]), (&5.into(), &"AllowList".into()));
    let (code, message) = deployed.failure(&["logs", "--identity", pem]);
    assert!(code == 3, "{message}");
}

#[test]
fn settings_out_of_range_and_of_no_name_are_refused() {
    let (deployed, _) = Deployed::with_tiny();
    let (code, message) = deployed.failure(&["config", "set", "max_heap_bytes=8GiB"]);
    assert!(code == 1 && message.contains("max_heap_bytes is not acceptable"), "{message}");
    let (code, message) = deployed.failure(&["config", "set", "max_heap=1GiB"]);
    assert!(code == 2 && message.contains("max_heap_bytes"), "{message}");
    let nothing = deployed.json(&["config", "set", "generate_access=Controllers"]);
    assert_eq!(nothing["changed"], serde_json::json!({}));
}

#[test]
fn the_log_is_shown_with_times() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let url = format!("http://{}", endpoint.address());
    block_on(async {
        let agent = agent(endpoint.address(), AnonymousIdentity).await;
        for _ in 0..3 {
            agent.update(&canister, "inc").with_arg(vec![1]).call_and_wait().await.unwrap();
        }
    });
    let id = canister.to_text();
    let all = json(&["logs", "--json", "--canister", &id, "--network", &url]);
    let records: Vec<_> = all.as_array().unwrap().iter().map(|record| (&record["index"], &record["text"])).collect();
    assert!(records.len() == 3 && records.iter().all(|(_, text)| **text == "counted"), "{records:?}");
    assert_eq!(*records[2].0, 2);
    assert!(all[0]["time_ns"].as_u64() > Some(0));
    let text = stdout(&icllama(&["logs", "--last", "1", "--canister", &id, "--network", &url]));
    assert!(text.starts_with("[2. 20") && text.ends_with("Z] counted\n") && text.lines().count() == 1, "{text}");
    endpoint.stop().unwrap();
}

#[test]
fn a_canister_that_is_not_there_or_has_no_model_is_named() {
    let deployed = Deployed::empty();
    let update = ConfigUpdate { generate_access: Some(GenerateAccess::Anyone), ..ConfigUpdate::default() };
    deployed.update::<_, Config>("config_set", &update);
    let nobody = deployed.talk(&["run", "-p", "x"], "");
    let message = String::from_utf8(nobody.stderr).unwrap();
    assert!(nobody.status.code() == Some(5) && message.contains("icllama upload"), "{message}");
    let absent =
        crate::common::command(&["status", "--network", &deployed.url, "--canister", "rdmx6-jaaaa-aaaaa-aaadq-cai"]);
    let absent = { absent }.output().unwrap();
    let message = String::from_utf8(absent.stderr).unwrap();
    assert!(absent.status.code() == Some(1) && message.contains("rdmx6-jaaaa-aaaaa-aaadq-cai"), "{message}");
}

#[test]
fn answers_that_are_not_certified_by_the_networks_key_are_refused() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let other = empty(options(None));
    let proxy = Proxy::pretending(endpoint.address(), other.address());
    let at = ["--canister", &canister.to_text(), "--network", &proxy.url];
    for verb in [&["status"][..], &["logs"]] {
        let output = crate::common::command(&[verb, &at].concat()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && message.contains("verification failed"), "{verb:?}: {message}");
        assert!(output.stdout.is_empty());
    }
}
