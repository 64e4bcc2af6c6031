//! What agents and deploy tools do, with all of ic-agent's verification.

use candid::{CandidType, Principal};
use ic_agent::AgentError;
use ic_agent::agent::RejectCode;
use ic_agent::identity::AnonymousIdentity;
use ic_certification::{Certificate, LookupResult};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

use super::{get, inc, reject};
use crate::common::endpoint::{self, *};

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
            assert!(begun.elapsed() < Duration::from_secs(60), "the timer did not fire");
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
