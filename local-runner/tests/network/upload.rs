//! Sending a model: resumed after Ctrl-C, over a bad connection, in somebody else's way.

use std::process::Stdio;
use std::time::{Duration, Instant};

use canister::api::{Config, ConfigUpdate, UploadBeginArg, UploadBeginOk, UploadChunk, UploadChunkOk};
use model_core::fixtures::TinyLlama;
use model_core::gguf::GgmlType;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fixture::Deployed;
use super::proxy::{Fate, Proxy};
use crate::common::{self, Tiny, icllama, stdout, tiny};

/// A model of about ten chunks.
fn larger() -> Tiny {
    Tiny::new(&TinyLlama { dim: 256, head_dim: 64, hidden: 1024, layers: 9, ty: GgmlType::F16, ..TinyLlama::default() })
}

fn sha256(model: &Tiny) -> String {
    Sha256::digest(std::fs::read(model.path()).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn upload(deployed: &Deployed, proxy: &Proxy, model: &Tiny, more: &[&str]) -> std::process::Command {
    let id = deployed.canister.to_text();
    let path = model.path();
    common::command(&[&["upload", &path, "--canister", &id, "--network", &proxy.url, "--json"], more].concat())
}

fn report(command: &mut std::process::Command) -> Value {
    serde_json::from_str(&stdout(&command.output().unwrap())).unwrap()
}

#[test]
fn an_interrupted_upload_goes_on_with_what_is_missing() {
    let (deployed, model) = (Deployed::empty(), larger());
    let proxy = Proxy::before(deployed.endpoint.address(), Duration::from_millis(150), |_| Fate::Pass);
    let mut command = upload(&deployed, &proxy, &model, &["--parallel", "2"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while proxy.chunks() < 5 {
        assert!(start.elapsed() < Duration::from_secs(60), "no chunks come");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let interrupted = child.wait_with_output().unwrap();
    let message = String::from_utf8(interrupted.stderr).unwrap();
    assert_eq!(interrupted.status.code(), Some(130), "{message}");
    assert!(message.contains("the same command goes on from there") && message.contains("upload"), "{message}");
    let before = proxy.chunks();

    let status = deployed.json(&["status"]);
    assert!(status["ready"] == false && status["model"]["upload"]["state"] == "Receiving", "{status}");
    assert_eq!(deployed.icllama(&["status", "--ready"]).status.code(), Some(5));
    let resumed = report(&mut upload(&deployed, &proxy, &model, &["--parallel", "4"]));
    let size = resumed["bytes"].as_u64().unwrap();
    let (already, sent) = (resumed["already_bytes"].as_u64().unwrap(), resumed["sent_bytes"].as_u64().unwrap());
    assert!(already >= 3 * 2_000_000 && already + sent == size, "{resumed}");
    let chunks = resumed["chunks"].as_u64().unwrap() as usize;
    assert_eq!((proxy.chunks() - before, chunks), (chunks, (sent as usize).div_ceil(2_000_000)), "{resumed}");
    assert_eq!((&resumed["sha256"], &resumed["stage"]), (&resumed["canister_sha256"], &"ready".into()));
    assert_eq!(resumed["sha256"], sha256(&model));

    let again = report(&mut upload(&deployed, &proxy, &model, &[]));
    assert_eq!((&again["sent_bytes"], &again["stage"]), (&0.into(), &"ready".into()), "{again}");
}

#[test]
fn a_connection_that_loses_and_refuses_requests_still_brings_the_model() {
    let (deployed, model) = (Deployed::empty(), larger());
    let proxy = Proxy::before(deployed.endpoint.address(), Duration::ZERO, |number| match number % 7 {
        1 => Fate::Lost,
        3 => Fate::AnswerLost,
        5 => Fate::Status(503),
        _ => Fate::Pass,
    });
    let brought = report(&mut upload(&deployed, &proxy, &model, &["--retries", "12"]));
    assert_eq!((&brought["stage"], &brought["canister_sha256"]), (&"ready".into(), &sha256(&model).into()));
    assert!(brought["retries"].as_u64() > Some(2), "{brought}");
    assert!(proxy.requests() > brought["chunks"].as_u64().unwrap() as usize + 4);
}

#[test]
fn a_connection_that_never_answers_is_given_up_with_a_code_of_its_own() {
    let (deployed, model) = (Deployed::empty(), tiny());
    let proxy = Proxy::before(deployed.endpoint.address(), Duration::ZERO, |_| Fate::Lost);
    let output = upload(&deployed, &proxy, &model, &["--retries", "2"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{message}");
    assert!(message.contains("upload_begin failed 2 times"), "{message}");
    let nobody =
        common::command(&["status", "--canister", "aaaaa-aa", "--network", "http://127.0.0.1:1"]).output().unwrap();
    let message = String::from_utf8(nobody.stderr).unwrap();
    assert!(nobody.status.code() == Some(4) && message.contains("refused"), "{message}");
}

#[test]
fn another_files_upload_is_given_up_only_if_that_is_asked_for() {
    let (deployed, first, second) = (Deployed::empty(), larger(), tiny());
    let proxy = Proxy::before(deployed.endpoint.address(), Duration::ZERO, |_| Fate::Pass);
    let mut sha256 = [0; 32];
    sha256[0] = 1;
    let arg = UploadBeginArg { name: "other.gguf".to_owned(), total_bytes: 9, sha256: sha256.into() };
    deployed.update::<_, UploadBeginOk>("upload_begin", &arg);
    let output = upload(&deployed, &proxy, &first, &[]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && message.contains("--replace"), "{message}");
    assert!(message.contains("other.gguf"), "{message}");
    let replaced = report(&mut upload(&deployed, &proxy, &second, &["--replace", "--name", "second"]));
    assert_eq!((&replaced["stage"], &replaced["name"]), (&"ready".into(), &"second".into()));
    // Little steps, so that verifying takes the canister longer than the command is there.
    let update = ConfigUpdate { max_instructions: Some(100_000_000), ..ConfigUpdate::default() };
    deployed.update::<_, Config>("config_set", &update);
    let sent = report(&mut upload(&deployed, &proxy, &first, &["--no-wait"]));
    assert_eq!((&sent["stage"], &sent["canister_sha256"]), (&"verifying".into(), &Value::Null), "{sent}");
    assert!(sent["chunks"].as_u64() > Some(5), "{sent}");
}

#[test]
fn bytes_that_were_damaged_on_their_way_are_sent_again() {
    let (deployed, model) = (Deployed::empty(), tiny());
    let file = std::fs::read(model.path()).unwrap();
    let (total_bytes, sha256) = (file.len() as u64, Sha256::digest(&file).to_vec());
    let arg = UploadBeginArg { name: "tiny.gguf".to_owned(), total_bytes, sha256 };
    let upload_id = deployed.update::<_, UploadBeginOk>("upload_begin", &arg).upload_id;
    let damaged = vec![1; file.len()];
    deployed.update::<_, UploadChunkOk>("upload_chunk", &UploadChunk { upload_id, offset: 0, bytes: &damaged });
    let path = model.path();
    let (code, message) = deployed.failure(&["upload", &path]);
    assert!(code == 1 && message.contains("the canister computed sha256"), "{message}");
    let output = stdout(&deployed.icllama(&["upload", &path]));
    assert!(output.contains("are sent again") && output.contains("The model answers."), "{output}");
}

#[test]
fn a_file_that_is_no_model_is_verified_and_refused() {
    let deployed = Deployed::empty();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.gguf");
    std::fs::write(&path, vec![7; 3_000_000]).unwrap();
    let (code, message) = deployed.failure(&["upload", path.to_str().unwrap()]);
    assert!(code == 1 && message.contains("cannot load the model"), "{message}");
}

#[test]
fn a_dry_run_needs_no_network_and_says_what_it_would_cost() {
    let model = larger();
    let text = stdout(&icllama(&["upload", &model.path(), "--dry-run"]));
    assert!(text.contains("Nothing was sent") && text.contains("on a subnet of 13 nodes"), "{text}");
    let estimate = |more: &[&str]| {
        let path = model.path();
        let args = [&["upload", &path, "--dry-run", "--json"], more].concat();
        serde_json::from_str::<Value>(&stdout(&icllama(&args))).unwrap()
    };
    let (small, large) = (estimate(&[]), estimate(&["--nodes", "34"]));
    let (bytes, cycles) = (small["bytes"].as_u64().unwrap(), small["cycles"].as_u64().unwrap());
    assert!(small["ingress_bytes"].as_u64().unwrap() > bytes && cycles > 2_000 * bytes);
    assert!(large["cycles"].as_u64().unwrap() > 2 * cycles);
}
