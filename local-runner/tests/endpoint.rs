//! The local endpoint as real agents use it: ic-agent with all its verification, and plain HTTP for the rest.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::endpoint::{self, *};
use candid::{CandidType, Principal};
use ic_agent::agent::{CallResponse, RejectCode, RequestStatusResponse};
use ic_agent::identity::{
    AnonymousIdentity, BasicIdentity, DelegatedIdentity, Delegation, Identity, Prime256v1Identity, Secp256k1Identity,
    SignedDelegation,
};
use ic_agent::{Agent, AgentError};
use ic_certification::{Certificate, LookupResult};
use local_runner::endpoint::{EndpointError, Setup};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

async fn inc(agent: &Agent, canister: Principal, by: u8) -> Result<u32, AgentError> {
    let reply = agent.update(&canister, "inc").with_arg(vec![by]).call_and_wait().await?;
    Ok(u32::from_le_bytes(reply.try_into().unwrap()))
}

async fn get(agent: &Agent, canister: Principal) -> u32 {
    let reply = agent.query(&canister, "get").call().await.unwrap();
    u32::from_le_bytes(reply.try_into().unwrap())
}

fn reject(error: AgentError) -> (RejectCode, String, String) {
    match error {
        AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. } => {
            (reject.reject_code, reject.error_code.unwrap_or_default(), reject.reject_message)
        }
        other => panic!("not a reject: {other}"),
    }
}

#[test]
fn an_agent_creates_installs_calls_queries_and_reads() {
    let endpoint = empty(options(None));
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        assert_eq!(agent.read_root_key(), endpoint.root_key());
        let canister = create(&agent).await;
        install(&agent, canister, Mode::Install, counter_wasm()).await;
        assert_eq!(inc(&agent, canister, 3).await.unwrap(), 3);
        assert_eq!(get(&agent, canister).await, 3);
        let caller = agent.query(&canister, "caller").call().await.unwrap();
        assert_eq!(caller, principal(&user()).as_slice());

        let hash = agent.read_state_canister_module_hash(canister).await.unwrap();
        assert_eq!(hash, Sha256::digest(counter_wasm()).as_slice());
        let controllers = agent.read_state_canister_controllers(canister).await.unwrap();
        assert_eq!(controllers, [principal(&user())]);
        let service = agent.read_state_canister_metadata(canister, "candid:service").await.unwrap();
        assert_eq!(service, b"service : {}");
        assert_eq!(agent.read_state_canister_metadata(canister, "secret").await.unwrap(), b"hidden");
        let none = agent.read_state_canister_metadata(canister, "none").await;
        assert!(matches!(none, Err(AgentError::LookupPathAbsent(_))), "{none:?}");
        let subnet = agent.get_subnet_by_canister(&canister).await.unwrap();
        assert_eq!(subnet.id(), endpoint.subnet_id());
        assert_eq!(agent.get_subnet_by_id(&endpoint.subnet_id()).await.unwrap().id(), endpoint.subnet_id());

        let stranger = endpoint::agent(endpoint.address(), AnonymousIdentity).await;
        let hidden = stranger.read_state_canister_metadata(canister, "secret").await;
        assert!(matches!(&hidden, Err(AgentError::HttpError(error)) if error.status == 403), "{hidden:?}");
    });
    endpoint.stop().unwrap();
}

#[derive(CandidType)]
struct Chunk {
    canister_id: Principal,
    chunk: ByteBuf,
}

#[derive(CandidType)]
struct ChunkHash {
    hash: ByteBuf,
}

#[derive(CandidType)]
struct InstallChunked {
    mode: Mode,
    target_canister: Principal,
    chunk_hashes_list: Vec<ChunkHash>,
    wasm_module_hash: ByteBuf,
    arg: ByteBuf,
}

#[derive(CandidType)]
struct Settings {
    freezing_threshold: Option<candid::Nat>,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

#[derive(CandidType, candid::Deserialize)]
struct StatusReply {
    module_hash: Option<ByteBuf>,
    cycles: candid::Nat,
}

#[derive(CandidType)]
struct TopUp {
    canister_id: Principal,
    amount: candid::Nat,
}

#[derive(CandidType, candid::Deserialize)]
struct LogRecord {
    content: ByteBuf,
}

#[derive(CandidType, candid::Deserialize)]
struct Logs {
    canister_log_records: Vec<LogRecord>,
}

#[test]
fn deploy_tools_find_the_management_calls_they_need() {
    let endpoint = empty(options(None));
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let canister_id = create(&agent).await;
        let about = CanisterId { canister_id };
        let wasm = counter_wasm();
        let mut hashes = Vec::new();
        for part in wasm.chunks(100) {
            let chunk = Chunk { canister_id, chunk: ByteBuf::from(part) };
            manage(&agent, canister_id, "upload_chunk", &chunk).await.unwrap();
            hashes.push(ChunkHash { hash: ByteBuf::from(Sha256::digest(part).to_vec()) });
        }
        assert!(!manage(&agent, canister_id, "stored_chunks", &about).await.unwrap().is_empty());
        let chunked = InstallChunked {
            mode: Mode::Install,
            target_canister: canister_id,
            chunk_hashes_list: hashes,
            wasm_module_hash: ByteBuf::from(Sha256::digest(&wasm).to_vec()),
            arg: ByteBuf::new(),
        };
        manage(&agent, canister_id, "install_chunked_code", &chunked).await.unwrap();
        manage(&agent, canister_id, "clear_chunk_store", &about).await.unwrap();
        inc(&agent, canister_id, 1).await.unwrap();

        let settings = Settings { freezing_threshold: Some(5u8.into()) };
        manage(&agent, canister_id, "update_settings", &UpdateSettings { canister_id, settings }).await.unwrap();
        let top_up = TopUp { canister_id, amount: 7u8.into() };
        manage(&agent, canister_id, "provisional_top_up_canister", &top_up).await.unwrap();
        let status = manage(&agent, canister_id, "canister_status", &about).await.unwrap();
        let status: StatusReply = candid::decode_one(&status).unwrap();
        assert_eq!(status.module_hash.unwrap(), Sha256::digest(&wasm).as_slice());
        assert_eq!(status.cycles, 5_000_000_000_007u64);

        let logs = agent.query(&Principal::management_canister(), "fetch_canister_logs");
        let logs = logs.with_effective_canister_id(canister_id).with_arg(candid::encode_one(about).unwrap());
        let logs: Logs = candid::decode_one(&logs.call().await.unwrap()).unwrap();
        assert_eq!(logs.canister_log_records[0].content, b"counted");

        let random = agent.update(&Principal::management_canister(), "raw_rand");
        let random = random.with_effective_canister_id(canister_id).with_arg(candid::encode_args(()).unwrap());
        assert_eq!(candid::decode_one::<ByteBuf>(&random.call_and_wait().await.unwrap()).unwrap().len(), 32);

        manage(&agent, canister_id, "stop_canister", &about).await.unwrap();
        assert_eq!(reject(inc(&agent, canister_id, 1).await.unwrap_err()).1, "IC0508");
        manage(&agent, canister_id, "start_canister", &about).await.unwrap();
        install(&agent, canister_id, Mode::Upgrade, wasm).await;
        manage(&agent, canister_id, "uninstall_code", &about).await.unwrap();
        manage(&agent, canister_id, "stop_canister", &about).await.unwrap();
        manage(&agent, canister_id, "delete_canister", &about).await.unwrap();
        let gone = agent.read_state_canister_module_hash(canister_id).await;
        assert!(matches!(gone, Err(AgentError::LookupPathAbsent(_))), "{gone:?}");
    });
    endpoint.stop().unwrap();
}

#[test]
fn rejects_keep_their_codes_and_their_kind() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let update = |method| agent.update(&canister, method).call_and_wait();
        let no = update("no").await.unwrap_err();
        assert!(matches!(no, AgentError::CertifiedReject { .. }));
        assert_eq!(reject(no), (RejectCode::CanisterReject, "IC0406".into(), "counted".into()));
        let trap = reject(update("fail").await.unwrap_err());
        assert_eq!((trap.0, trap.1.as_str()), (RejectCode::CanisterError, "IC0503"));
        let closed = update("closed").await.unwrap_err();
        assert!(matches!(closed, AgentError::UncertifiedReject { .. }), "{closed:?}");
        assert_eq!(reject(closed).1, "IC0406");
        let missing = Principal::from_text("r7inp-6aaaa-aaaaa-aaabq-cai").unwrap();
        let missing = agent.update(&missing, "inc").call_and_wait().await.unwrap_err();
        let (code, error, _) = reject(missing);
        assert_eq!((code, error.as_str()), (RejectCode::DestinationInvalid, "IC0301"));
        let query = agent.query(&canister, "no_query").call().await.unwrap_err();
        assert_eq!(reject(query), (RejectCode::CanisterReject, "IC0406".into(), "counted".into()));
        assert_eq!(reject(agent.query(&canister, "nothing").call().await.unwrap_err()).1, "IC0536");
    });
    endpoint.stop().unwrap();
}

#[test]
fn keys_of_every_kind_and_delegations_are_accepted() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let delegated = || {
        let (user, session) = (user(), BasicIdentity::from_raw_key(&[9; 32]));
        let delegation = Delegation {
            pubkey: session.public_key().unwrap(),
            expiration: now_ns() + 60_000_000_000,
            targets: Some(vec![canister]),
            permissions: None,
        };
        let signature = user.sign_delegation(&delegation).unwrap().signature.unwrap();
        let chain = vec![SignedDelegation { delegation, signature }];
        DelegatedIdentity::new(user.public_key().unwrap(), Box::new(session), chain).unwrap()
    };
    let p256 = Prime256v1Identity::from_private_key(p256::SecretKey::from_slice(&[5; 32]).unwrap());
    let k256 = Secp256k1Identity::from_private_key(k256::SecretKey::from_slice(&[6; 32]).unwrap());
    let identities: [Box<dyn Identity>; 5] =
        [Box::new(user()), Box::new(AnonymousIdentity), Box::new(p256), Box::new(k256), Box::new(delegated())];
    block_on(async {
        for identity in identities {
            let expected = identity.sender().unwrap();
            let agent = agent(endpoint.address(), identity).await;
            inc(&agent, canister, 1).await.unwrap();
            assert_eq!(agent.query(&canister, "caller").call().await.unwrap(), expected.as_slice());
        }
        let agent = agent(endpoint.address(), delegated()).await;
        let elsewhere = agent.update(&Principal::management_canister(), "raw_rand");
        let elsewhere = elsewhere.with_effective_canister_id(canister).call_and_wait().await;
        assert!(matches!(&elsewhere, Err(AgentError::HttpError(error)) if error.status == 400), "{elsewhere:?}");
    });
    endpoint.stop().unwrap();
}

#[test]
fn an_expired_or_forged_request_is_refused() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        for expiry_ns in [now_ns() - 1_000_000_000, now_ns() + 3_600_000_000_000] {
            let expiry = time::OffsetDateTime::from_unix_timestamp_nanos(expiry_ns.into()).unwrap();
            let late = agent.update(&canister, "inc").with_arg(vec![1]).expire_at(expiry).call_and_wait().await;
            let text = format!("{:?}", late.unwrap_err());
            assert!(text.contains("ingress_expiry not within expected range"), "{text}");
        }
        let mut signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap().signed_update;
        let place = signed.len() - 1;
        signed[place] ^= 1;
        let answer = http(endpoint.address(), "POST", &format!("/api/v4/canister/{canister}/call"), &[], &signed);
        assert_eq!(answer.status, 400);
        assert!(answer.text().starts_with("Invalid signature"), "{}", answer.text());
        assert_eq!(get(&agent, canister).await, 0);
    });
    endpoint.stop().unwrap();
}

#[test]
fn a_request_that_comes_twice_is_executed_once() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap();
        for version in ["v2", "v3", "v4", "v4"] {
            let path = format!("/api/{version}/canister/{canister}/call");
            let answer = http(endpoint.address(), "POST", &path, &[], &signed.signed_update);
            assert_eq!(answer.status, if version == "v2" { 202 } else { 200 });
            if version == "v2" {
                assert!(answer.body.is_empty());
                continue;
            }
            let reply: BTreeMap<String, serde_cbor::Value> = serde_cbor::from_slice(&answer.body).unwrap();
            assert_eq!(reply["status"], serde_cbor::Value::Text("replied".into()));
            let serde_cbor::Value::Bytes(certificate) = &reply["certificate"] else { panic!("no certificate") };
            let certificate: Certificate = serde_cbor::from_slice(certificate).unwrap();
            agent.verify(&certificate, canister).unwrap();
            let path = ["request_status".into(), signed.request_id.to_vec(), "reply".into()];
            assert_eq!(certificate.tree.lookup_path(&path), LookupResult::Found(&[1, 0, 0, 0]));
        }
        assert_eq!(get(&agent, canister).await, 1);
    });
    endpoint.stop().unwrap();
}

#[test]
fn a_call_that_takes_long_is_polled_and_keeps_nobody_waiting() {
    let slow = local_runner::endpoint::Options { sync: Duration::ZERO, ..options(None) };
    let (endpoint, canister) = with_canister(slow, &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        assert_eq!(inc(&agent, canister, 2).await.unwrap(), 2);
        assert_eq!(reject(agent.update(&canister, "fail").call_and_wait().await.unwrap_err()).1, "IC0503");
        let started = agent.update(&canister, "spin").call().await.unwrap();
        let CallResponse::Poll(id) = started else { panic!("answered at once") };
        let asked = Instant::now();
        let (status, _) = agent.request_status_raw(&id, canister).await.unwrap();
        assert!(matches!(status, RequestStatusResponse::Processing | RequestStatusResponse::Received), "{status:?}");
        assert!(asked.elapsed() < Duration::from_millis(200), "reading waited for the canister");
        assert_eq!(agent.wait(&id, canister).await.unwrap().0, [2, 0, 0, 0]);

        let other = endpoint::agent(endpoint.address(), AnonymousIdentity).await;
        let foreign = other.request_status_raw(&id, canister).await;
        assert!(matches!(&foreign, Err(AgentError::HttpError(error)) if error.status == 403), "{foreign:?}");
    });
    endpoint.stop().unwrap();
}

#[test]
fn calls_of_many_clients_are_all_executed() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let address = endpoint.address();
    let clients: Vec<_> = (1..=4u8)
        .map(|number| {
            std::thread::spawn(move || {
                block_on(async {
                    let agent = agent(address, BasicIdentity::from_raw_key(&[number; 32])).await;
                    for _ in 0..10 {
                        inc(&agent, canister, number).await.unwrap();
                        get(&agent, canister).await;
                    }
                });
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    block_on(async { assert_eq!(get(&agent(address, user()).await, canister).await, 10 * (1 + 2 + 3 + 4)) });
    endpoint.stop().unwrap();
}

#[test]
fn only_what_concerns_the_reader_and_the_canister_is_read() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let other = Principal::from_text("r7inp-6aaaa-aaaaa-aaabq-cai").unwrap();
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let read = |path: Vec<&'static [u8]>, of: Principal| {
            let mut path: Vec<ic_certification::Label> = path.into_iter().map(Into::into).collect();
            if path.len() > 1 && path[0].as_bytes() == b"canister" {
                path[1] = of.as_slice().into();
            }
            agent.read_state_raw(vec![path], canister)
        };
        assert!(read(vec![b"time"], canister).await.is_ok());
        assert!(read(vec![b"canister", b"", b"controllers"], canister).await.is_ok());
        for (path, of, expected) in [
            (vec![&b"canister"[..], b"", b"controllers"], other, 400),
            (vec![b"canister", b"", b"certified_data"], canister, 404),
            (vec![b"canister"], canister, 404),
            (vec![b"request_status"], canister, 404),
            (vec![b"request_status", b"short"], canister, 400),
            (vec![], canister, 404),
        ] {
            let refused = read(path, of).await;
            assert!(matches!(&refused, Err(AgentError::HttpError(error)) if error.status == expected), "{refused:?}");
        }
        let many = agent.read_state_raw(vec![vec!["time".into()]; 1001], canister).await;
        assert!(matches!(&many, Err(AgentError::HttpError(error)) if error.status == 400), "{many:?}");
    });
    endpoint.stop().unwrap();
}

#[test]
fn the_subnet_takes_calls_to_the_management_canister_only() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let agent = block_on(agent(endpoint.address(), user()));
    let path = format!("/api/v4/subnet/{}/call", endpoint.subnet_id());
    for (callee, method, status) in [(Principal::management_canister(), "raw_rand", 200), (canister, "inc", 400)] {
        let arg = candid::encode_args(()).unwrap();
        let signed = agent.update(&callee, method).with_arg(arg).sign().unwrap().signed_update;
        let answer = http(endpoint.address(), "POST", &path, &[], &signed);
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    endpoint.stop().unwrap();
}

#[test]
fn time_passes_and_timers_fire_between_calls() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        agent.update(&canister, "later").call_and_wait().await.unwrap();
        let begun = Instant::now();
        while get(&agent, canister).await != 100 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the timer did not fire");
        }
    });
    endpoint.stop().unwrap();
}

#[test]
fn the_certificate_in_a_query_is_signed_by_the_root_key() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        inc(&agent, canister, 5).await.unwrap();
        let certificate = agent.query(&canister, "certificate").call().await.unwrap();
        let certificate: Certificate = serde_cbor::from_slice(&certificate).unwrap();
        agent.verify(&certificate, canister).unwrap();
        let path = [&b"canister"[..], canister.as_slice(), b"certified_data"];
        assert_eq!(certificate.tree.lookup_path(path), LookupResult::Found(&[5, 0, 0, 0]));
    });
    endpoint.stop().unwrap();
}

#[test]
fn a_replica_goes_on_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, canister) = with_canister(options(Some(folder.path())), &counter_wasm());
    let root_key = endpoint.root_key().to_vec();
    block_on(async { inc(&agent(endpoint.address(), user()).await, canister, 4).await.unwrap() });
    assert!(matches!(Setup::open(options(Some(folder.path()))), Err(EndpointError::Store(_))), "the folder is in use");
    endpoint.stop().unwrap();

    let endpoint = empty(options(Some(folder.path())));
    assert_eq!(endpoint.root_key(), root_key);
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        assert_eq!(get(&agent, canister).await, 4);
        assert_eq!(inc(&agent, canister, 1).await.unwrap(), 5);
        assert_ne!(create(&agent).await, canister);
    });
    endpoint.stop().unwrap();
}

#[test]
fn what_is_open_at_the_end_is_finished_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at_once = local_runner::endpoint::Options { sync: Duration::ZERO, ..options(Some(folder.path())) };
    let (endpoint, canister) = with_canister(at_once, &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        for method in ["spin", "inc"] {
            let call = agent.update(&canister, method).with_arg(vec![3]).call().await.unwrap();
            assert!(matches!(call, CallResponse::Poll(_)), "{method} was answered at once");
        }
    });
    endpoint.stop().unwrap();
    let endpoint = empty(options(Some(folder.path())));
    block_on(async { assert_eq!(get(&agent(endpoint.address(), user()).await, canister).await, 3) });
    endpoint.stop().unwrap();
}

#[test]
fn the_folder_is_saved_while_the_replica_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut often = options(Some(folder.path()));
    often.pace.save = Some(Duration::from_millis(20));
    let (endpoint, canister) = with_canister(often, &counter_wasm());
    block_on(async { inc(&agent(endpoint.address(), user()).await, canister, 6).await.unwrap() });
    let saved = || std::fs::read_to_string(folder.path().join("replica.json")).unwrap_or_default();
    let begun = Instant::now();
    while !saved().contains("\"certified_data\":[6,0,0,0]") {
        assert!(begun.elapsed() < Duration::from_secs(10), "it was not saved");
    }
    // A copy of the folder is what a killed process would have left.
    let copy = tempfile::tempdir().unwrap();
    let source = format!("{}/.", folder.path().display());
    let copied = std::process::Command::new("cp").arg("-r").arg(source).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let again = empty(options(Some(copy.path())));
    block_on(async { assert_eq!(get(&agent(again.address(), user()).await, canister).await, 6) });
    again.stop().unwrap();
    endpoint.stop().unwrap();
}

#[test]
fn a_taken_port_is_named() {
    let endpoint = empty(options(None));
    let again = local_runner::endpoint::Options { port: endpoint.address().port(), ..options(None) };
    let error = Setup::open(again).err().unwrap().to_string();
    assert!(error.contains("is in use") && error.contains("--port"), "{error}");
    endpoint.stop().unwrap();
}

#[test]
fn clients_that_dawdle_block_nobody() {
    let endpoint = empty(options(None));
    let half_open: Vec<_> = (0..100).map(|_| TcpStream::connect(endpoint.address()).unwrap()).collect();
    for mut stream in &half_open[..50] {
        std::io::Write::write_all(&mut stream, b"POST /api/v2/status HTTP/1.1\r\ncontent-length: 9\r\n\r\n1").unwrap();
    }
    let begun = Instant::now();
    let status = http(endpoint.address(), "GET", "/api/v2/status", &[], b"");
    assert_eq!(status.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(half_open);
    endpoint.stop().unwrap();
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let address = endpoint.address();
    let agent = block_on(agent(address, user()));
    let signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap().signed_update;
    let other = "r7inp-6aaaa-aaaaa-aaabq-cai";
    let large = vec![0; 5 << 20];
    for (method, path, body, status, text) in [
        ("GET", "/api/v2/nothing".to_owned(), &[][..], 404, "there is no"),
        ("GET", format!("/api/v4/canister/{canister}/call"), &[], 400, "POST"),
        ("POST", format!("/api/v4/canister/{canister}/call"), b"x", 400, "envelope"),
        ("POST", format!("/api/v4/canister/{other}/call"), &signed, 400, "the path names"),
        ("POST", format!("/api/v3/canister/{canister}/query"), &signed, 400, "request_type"),
        ("POST", "/api/v3/canister/what/query".to_owned(), &signed, 400, "not a principal"),
        ("POST", format!("/api/v3/subnet/{canister}/read_state"), &signed, 404, "there is no subnet"),
        ("POST", format!("/api/v4/canister/{canister}/call"), &large, 413, "larger"),
    ] {
        let answer = http(address, method, &path, &[], body);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(text), "{path}: {}", answer.text());
    }
    endpoint.stop().unwrap();
}

#[test]
fn pages_of_other_origins_may_ask() {
    let endpoint = empty(options(None));
    let preflight = http(endpoint.address(), "OPTIONS", "/api/v4/canister/aaaaa-aa/call", &[("origin", "x")], b"");
    assert_eq!(preflight.status, 204);
    for name in ["access-control-allow-origin: *", "access-control-allow-methods", "access-control-allow-headers: *"] {
        assert!(preflight.head.contains(name), "{}", preflight.head);
    }
    endpoint.stop().unwrap();
}
