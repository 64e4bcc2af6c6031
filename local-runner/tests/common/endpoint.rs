//! Endpoints for tests, agents that talk to them, and plain HTTP for what agents would not send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use candid::{CandidType, Nat, Principal};
use ic_agent::Agent;
use ic_agent::identity::{BasicIdentity, Identity};
use local_runner::endpoint::{Endpoint, Options, Pace, Setup};
use local_runner::shim::{Config, InstallMode};
use serde_bytes::ByteBuf;

/// Counts; rejects, traps and refuses on demand; certifies and shows the certificate.
pub const COUNTER: &str = r#"(module
  (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
  (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
  (import "ic0" "msg_caller_copy" (func $caller_copy (param i32 i32 i32)))
  (import "ic0" "msg_method_name_size" (func $method_size (result i32)))
  (import "ic0" "accept_message" (func $accept))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (import "ic0" "debug_print" (func $print (param i32 i32)))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
  (import "ic0" "data_certificate_copy" (func $certificate_copy (param i32 i32 i32)))
  (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
  (import "ic0" "time" (func $time (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 64) "counted")
  (@custom "icp:public candid:service" "service : {}")
  (@custom "icp:private secret" "hidden")
  (func $answer (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func (export "canister_inspect_message")
    (if (i32.ne (call $method_size) (i32.const 6)) (then (call $accept))))
  (func (export "canister_update inc")
    (call $arg (i32.const 32) (i32.const 0) (i32.const 1))
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load8_u (i32.const 32))))
    (call $certify (i32.const 0) (i32.const 4))
    (call $print (i32.const 64) (i32.const 7))
    (call $answer))
  (func (export "canister_query get") (call $answer))
  (func (export "canister_query caller")
    (call $caller_copy (i32.const 128) (i32.const 0) (call $caller_size))
    (call $append (i32.const 128) (call $caller_size))
    (call $reply))
  (func (export "canister_query certificate")
    (call $certificate_copy (i32.const 1024) (i32.const 0) (call $certificate_size))
    (call $append (i32.const 1024) (call $certificate_size))
    (call $reply))
  (func (export "canister_query no_query") (call $reject (i32.const 64) (i32.const 7)))
  (func (export "canister_update no") (call $reject (i32.const 64) (i32.const 7)))
  (func (export "canister_update fail") (call $trap (i32.const 64) (i32.const 7)))
  (func (export "canister_update closed") (call $answer))
  (func (export "canister_update later")
    (drop (call $timer (i64.add (call $time) (i64.const 100000000))))
    (call $answer))
  (func (export "canister_global_timer")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 100)))))"#;

pub fn counter_wasm() -> Vec<u8> {
    wat::parse_str(COUNTER).unwrap()
}

pub fn options(folder: Option<&Path>) -> Options {
    Options {
        host: Ipv4Addr::LOCALHOST.into(),
        port: 0,
        folder: folder.map(Path::to_owned),
        pace: Pace { round: Duration::from_millis(20), save: None },
        sync: Duration::from_secs(20),
        connections: 512,
        requests_per_second: None,
        config: Config { module_cache: None, ..Config::default() },
        log: Arc::new(|_| ()),
    }
}

/// Keeps a replica busy with what it has just executed: nobody is told of the outcome before it is let go.
pub struct Held {
    executed: Receiver<()>,
    go_on: Sender<()>,
}

impl Held {
    /// Options with which a replica holds on after each message of a method.
    pub fn after(method: &str, options: Options) -> (Self, Options) {
        let (executing, executed) = mpsc::channel();
        let (go_on, let_go) = mpsc::channel();
        let (let_go, method, log) = (Mutex::new(let_go), format!(" update {method}: "), options.log);
        // The replica's own thread writes the line about a message, before it publishes the outcome.
        let hold = move |line: String| {
            let holds = line.contains(&method);
            log(line);
            if holds {
                executing.send(()).ok();
                // An error says that nobody holds any more.
                let_go.lock().unwrap().recv().ok();
            }
        };
        (Self { executed, go_on }, Options { log: Arc::new(hold), ..options })
    }

    /// Waits until a message of the method is executed.
    pub fn executed(&self) {
        self.executed.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    /// Has the replica go on, until it holds again.
    pub fn go_on(&self) {
        self.go_on.send(()).unwrap();
    }
}

/// An endpoint without canisters.
pub fn empty(options: Options) -> Endpoint {
    Setup::open(options).unwrap().serve().unwrap()
}

/// An endpoint with a canister that anybody controls.
pub fn with_canister(options: Options, wasm: &[u8]) -> (Endpoint, Principal) {
    let mut setup = Setup::open(options).unwrap();
    let anyone = Principal::anonymous();
    let canister = setup.replica.create_canister([anyone]);
    setup.replica.install(canister, InstallMode::Install, wasm, b"", anyone).result.unwrap();
    (setup.serve().unwrap(), canister)
}

pub fn user() -> BasicIdentity {
    BasicIdentity::from_raw_key(&[7; 32])
}

pub fn principal(identity: &impl Identity) -> Principal {
    identity.sender().unwrap()
}

/// An agent that verifies everything it can.
pub async fn agent(address: SocketAddr, identity: impl Identity + 'static) -> Agent {
    let agent = Agent::builder().with_url(format!("http://{address}")).with_identity(identity);
    let agent = agent.with_verify_query_signatures(true).build().unwrap();
    agent.fetch_root_key().await.unwrap();
    agent
}

/// Runs a test that talks to endpoints.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(test)
}

/// A call to the management canister about a canister.
pub async fn manage(
    agent: &Agent,
    about: Principal,
    method: &str,
    arg: &impl CandidType,
) -> Result<Vec<u8>, ic_agent::AgentError> {
    let call = agent.update(&Principal::management_canister(), method).with_effective_canister_id(about);
    call.with_arg(candid::encode_one(arg).unwrap()).call_and_wait().await
}

#[derive(CandidType, candid::Deserialize, Clone, Copy)]
pub struct CanisterId {
    pub canister_id: Principal,
}

#[derive(CandidType)]
pub struct Create {
    pub amount: Option<Nat>,
}

#[derive(CandidType, candid::Deserialize)]
pub enum Mode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "upgrade")]
    Upgrade,
}

#[derive(CandidType)]
pub struct Install {
    pub mode: Mode,
    pub canister_id: Principal,
    pub wasm_module: ByteBuf,
    pub arg: ByteBuf,
}

/// Creates a canister as agents do it on local replicas.
pub async fn create(agent: &Agent) -> Principal {
    let arg = Create { amount: Some(5_000_000_000_000u64.into()) };
    let method = "provisional_create_canister_with_cycles";
    let reply = manage(agent, Principal::management_canister(), method, &arg).await.unwrap();
    candid::decode_one::<CanisterId>(&reply).unwrap().canister_id
}

pub async fn install(agent: &Agent, canister_id: Principal, mode: Mode, wasm: Vec<u8>) {
    let arg = Install { mode, canister_id, wasm_module: ByteBuf::from(wasm), arg: ByteBuf::new() };
    manage(agent, canister_id, "install_code", &arg).await.unwrap();
}

/// An answer to [`http`].
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request on a connection of its own.
pub fn http(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // Of a body that is too large not all may be taken.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: answer[end..].to_vec() }
}
