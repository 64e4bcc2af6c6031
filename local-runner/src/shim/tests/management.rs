//! The management canister, called by users and by canisters.

use candid::{CandidType, Decode, Encode, Nat};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::*;
use crate::shim::canister::{LogVisibility, Status};
use crate::shim::history::{Author, Change};

#[derive(CandidType, Deserialize)]
struct Id {
    canister_id: Principal,
}

#[derive(CandidType)]
#[allow(non_camel_case_types, reason = "names of the interface")]
enum Mode {
    install,
    upgrade(Option<Upgrade>),
}

#[derive(CandidType, Default)]
struct Upgrade {
    skip_pre_upgrade: Option<bool>,
    wasm_memory_persistence: Option<Persistence>,
}

#[derive(CandidType)]
#[allow(non_camel_case_types, reason = "names of the interface")]
enum Persistence {
    keep,
    replace,
}

#[derive(CandidType)]
struct Install {
    mode: Mode,
    canister_id: Principal,
    wasm_module: ByteBuf,
    arg: ByteBuf,
}

#[derive(CandidType, Default)]
struct Create {
    amount: Option<Nat>,
    specified_id: Option<Principal>,
    settings: Option<Settings>,
}

#[derive(CandidType, Default)]
struct Settings {
    controllers: Option<Vec<Principal>>,
    freezing_threshold: Option<Nat>,
    wasm_memory_limit: Option<Nat>,
    compute_allocation: Option<Nat>,
    log_memory_limit: Option<Nat>,
    log_visibility: Option<Visibility>,
    environment_variables: Option<Vec<Variable>>,
}

#[derive(CandidType)]
#[allow(non_camel_case_types, reason = "names of the interface")]
enum Visibility {
    public,
}

#[derive(CandidType)]
struct Variable {
    name: String,
    value: String,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

const COUNTER: &str = r#"
  (func (export "canister_update add") (call $count (i64.const 1)) (call $reply_counter))
  (func (export "canister_query get") (call $reply_counter))"#;

fn call(replica: &mut Replica, method: &str, arg: &[u8]) -> CallReport {
    replica.update(Principal::management_canister(), user(), method, arg)
}

fn ok(report: CallReport) -> Vec<u8> {
    report.result.unwrap_or_else(|reject| panic!("{reject}"))
}

fn id_arg(canister_id: Principal) -> Vec<u8> {
    Encode!(&Id { canister_id }).unwrap()
}

fn created(reply: &[u8]) -> Principal {
    Decode!(reply, Id).unwrap().canister_id
}

fn install_arg(canister_id: Principal, mode: Mode, body: &str) -> Vec<u8> {
    let wasm_module = ByteBuf::from(module(body));
    Encode!(&Install { mode, canister_id, wasm_module, arg: ByteBuf::new() }).unwrap()
}

#[test]
fn users_create_install_and_upgrade() {
    let mut replica = Replica::new(config()).unwrap();
    let specified_id = Some(crate::shim::replica::canister_id(1));
    let arg = Create { amount: Some(5u8.into()), specified_id, ..Create::default() };
    let first = created(&ok(call(&mut replica, "provisional_create_canister_with_cycles", &Encode!(&arg).unwrap())));
    assert_eq!((Some(first), replica.canister(first).unwrap().balance()), (specified_id, 5));
    let again = call(&mut replica, "provisional_create_canister_with_cycles", &Encode!(&arg).unwrap());
    assert_rejected(&again, RejectCode::SysTransient, 205, "already exists");
    let arg = Encode!(&Create::default()).unwrap();
    let second = created(&ok(call(&mut replica, "provisional_create_canister_with_cycles", &arg)));
    assert_ne!(first, second);

    let report = call(&mut replica, "install_code", &install_arg(first, Mode::install, COUNTER));
    assert!(report.compile_instructions > 0);
    ok(report);
    assert_eq!(number(&replica.update(first, user(), "add", b"")), 1);
    let keep = Upgrade { wasm_memory_persistence: Some(Persistence::keep), ..Upgrade::default() };
    let report = call(&mut replica, "install_code", &install_arg(first, Mode::upgrade(Some(keep)), COUNTER));
    assert_rejected(&report, RejectCode::CanisterReject, 408, "wasm_memory_persistence = keep is not provided");
    assert_eq!(number(&replica.update(first, user(), "add", b"")), 2);
    let flags = Upgrade { skip_pre_upgrade: Some(true), wasm_memory_persistence: Some(Persistence::replace) };
    ok(call(&mut replica, "install_code", &install_arg(first, Mode::upgrade(Some(flags)), COUNTER)));
    assert_eq!(number(&replica.update(first, user(), "add", b"")), 1);
    let changes: Vec<_> =
        replica.canister(first).unwrap().history().newest(9).map(|entry| entry.change.clone()).collect();
    assert!(matches!(changes[..], [Change::Created { .. }, Change::Installed { .. }, Change::Installed { .. }]));
}

#[test]
fn only_controllers_manage() {
    let mut shim = Shim::new(COUNTER);
    let management = Principal::management_canister();
    for method in ["uninstall_code", "stop_canister", "start_canister", "delete_canister", "canister_status"] {
        let report = shim.replica.update(management, stranger(), method, &id_arg(shim.id));
        assert_rejected(&report, RejectCode::CanisterError, 512, "Only the controllers of the canister");
    }
    let report =
        shim.replica.update(management, stranger(), "install_code", &install_arg(shim.id, Mode::install, COUNTER));
    assert_eq!(reject(&report).error_code, 512);
    let report = call(&mut shim.replica, "uninstall_code", &id_arg(stranger()));
    assert_rejected(&report, RejectCode::DestinationInvalid, 301, "not found");
}

#[test]
fn says_what_it_does_not_provide() {
    let mut replica = Replica::new(config()).unwrap();
    let report = call(&mut replica, "http_request", b"");
    assert_rejected(&report, RejectCode::DestinationInvalid, 302, "http_request is not provided by the shim");
    let report = call(&mut replica, "make_coffee", b"");
    assert_rejected(&report, RejectCode::DestinationInvalid, 302, "has no method 'make_coffee'");
    let report = call(&mut replica, "canister_status", b"junk");
    assert_rejected(&report, RejectCode::CanisterReject, 408, "Error decoding candid of canister_status");
    // A vector of 2^60 nulls, in a field that the method does not know.
    let bomb = b"DIDL\x02\x6d\x7f\x6c\x01\x00\x00\x01\x01\x80\x80\x80\x80\x80\x80\x80\x80\x10";
    assert_eq!(reject(&call(&mut replica, "canister_status", bomb)).error_code, 408);
    let report = call(&mut replica, "create_canister", &Encode!(&Create::default()).unwrap());
    assert_rejected(&report, RejectCode::DestinationInvalid, 302, "only be called by canisters");
}

#[test]
fn changes_settings_within_their_ranges() {
    let mut shim = Shim::new(COUNTER);
    let mut change = |settings| {
        let arg = Encode!(&UpdateSettings { canister_id: shim.id, settings }).unwrap();
        call(&mut shim.replica, "update_settings", &arg).result
    };
    let too_much = change(Settings { compute_allocation: Some(101u8.into()), ..Settings::default() });
    assert!(too_much.unwrap_err().message.contains("compute_allocation expected to be in the range of [0..100]"));
    let settings = Settings {
        controllers: Some(vec![user(), stranger()]),
        freezing_threshold: Some(77u8.into()),
        wasm_memory_limit: Some(123_456u32.into()),
        log_memory_limit: Some(8_000u32.into()),
        log_visibility: Some(Visibility::public),
        environment_variables: Some(vec![Variable { name: "a".into(), value: "b".into() }]),
        ..Settings::default()
    };
    change(settings).unwrap();
    let canister = shim.canister();
    let settings = canister.settings();
    assert_eq!((settings.controllers.len(), settings.freezing_threshold), (2, 77));
    assert_eq!((settings.wasm_memory_limit, settings.log_memory_limit), (123_456, 8_000));
    assert_eq!(settings.log_visibility, LogVisibility::Public);
    assert_eq!(settings.environment["a"], "b");
    assert_eq!(canister.version(), 2);
    let last = canister.history().newest(1).next().unwrap();
    assert_eq!(last.author, Author::User(user()));
    assert!(matches!(&last.change, Change::Controllers { controllers } if controllers.len() == 2));
}

#[test]
fn reports_status() {
    #[derive(CandidType, Deserialize)]
    struct Reported {
        version: u64,
        module_hash: Option<ByteBuf>,
        memory_size: Nat,
        cycles: Nat,
        idle_cycles_burned_per_day: Nat,
    }
    let mut shim = Shim::new(COUNTER);
    let reply = ok(call(&mut shim.replica, "canister_status", &id_arg(shim.id)));
    let status = Decode!(&reply, Reported).unwrap();
    let uploaded = module(COUNTER);
    assert_eq!((status.version, status.cycles), (1, Nat::from(config().initial_cycles)));
    assert_eq!(status.module_hash.unwrap().into_vec(), Sha256::digest(&uploaded).to_vec());
    assert_eq!(status.memory_size, Nat::from(2 * 65_536 + uploaded.len()));
    assert!(status.idle_cycles_burned_per_day > 10_000u64 * 86_400);
    let query = shim.replica.query(Principal::management_canister(), user(), "canister_status", &id_arg(shim.id));
    assert_eq!(query.result, Ok(reply));
}

#[test]
fn installs_from_chunks() {
    #[derive(CandidType)]
    struct Upload {
        canister_id: Principal,
        chunk: ByteBuf,
    }
    #[derive(CandidType, Deserialize)]
    struct Hash {
        hash: ByteBuf,
    }
    #[derive(CandidType)]
    struct Chunked {
        mode: Mode,
        target_canister: Principal,
        store_canister: Option<Principal>,
        chunk_hashes_list: Vec<Hash>,
        wasm_module_hash: ByteBuf,
        arg: ByteBuf,
    }
    let mut replica = Replica::new(config()).unwrap();
    let [target, store] = [0, 1].map(|_| replica.create_canister([user()]));
    let wasm = module(COUNTER);
    let mut hashes = Vec::new();
    for chunk in wasm.chunks(wasm.len() / 2 + 1) {
        let arg = Encode!(&Upload { canister_id: store, chunk: ByteBuf::from(chunk) }).unwrap();
        let Hash { hash } = Decode!(&ok(call(&mut replica, "upload_chunk", &arg)), Hash).unwrap();
        assert_eq!(hash.as_slice(), Sha256::digest(chunk).as_slice());
        hashes.push(hash);
    }
    let stored = Decode!(&ok(call(&mut replica, "stored_chunks", &id_arg(store))), Vec<Hash>).unwrap();
    assert_eq!(stored.len(), 2);
    let install = |replica: &mut Replica, hash: &[u8]| {
        let chunk_hashes_list = hashes.iter().map(|hash| Hash { hash: hash.clone() }).collect();
        let (wasm_module_hash, arg) = (ByteBuf::from(hash), ByteBuf::new());
        let mode = Mode::install;
        let store_canister = Some(store);
        let arg = Chunked { mode, target_canister: target, store_canister, chunk_hashes_list, wasm_module_hash, arg };
        call(replica, "install_chunked_code", &Encode!(&arg).unwrap())
    };
    assert_rejected(&install(&mut replica, &[0; 32]), RejectCode::CanisterReject, 408, "does not match given hash");
    ok(install(&mut replica, &Sha256::digest(&wasm)));
    assert_eq!(number(&replica.update(target, user(), "add", b"")), 1);
    ok(call(&mut replica, "clear_chunk_store", &id_arg(store)));
    let report = install(&mut replica, &Sha256::digest(&wasm));
    assert_rejected(&report, RejectCode::CanisterReject, 408, "is not in the store");
    let large = Upload { canister_id: store, chunk: ByteBuf::from(vec![0; (1 << 20) + 1]) };
    let report = call(&mut replica, "upload_chunk", &Encode!(&large).unwrap());
    assert_rejected(&report, RejectCode::CanisterReject, 408, "a chunk of 1048577 bytes is larger than 1048576");
}

#[test]
fn decodes_the_largest_module_that_a_message_can_carry() {
    let mut config = config();
    config.limits.messages.ingress_bytes = 10 << 20;
    let mut replica = Replica::new(config).unwrap();
    let canister_id = replica.create_canister([user()]);
    let wasm_module = ByteBuf::from(vec![0; (10 << 20) - 1_000]);
    let arg = Install { mode: Mode::install, canister_id, wasm_module, arg: ByteBuf::new() };
    let report = call(&mut replica, "install_code", &Encode!(&arg).unwrap());
    assert_rejected(&report, RejectCode::CanisterError, 505, "Wasm module is not valid");
}

#[test]
fn stops_starts_empties_and_deletes() {
    let mut shim = Shim::new(COUNTER);
    let arg = id_arg(shim.id);
    let report = call(&mut shim.replica, "delete_canister", &arg);
    assert_rejected(&report, RejectCode::CanisterError, 510, "must be stopped");
    ok(call(&mut shim.replica, "stop_canister", &arg));
    assert_rejected(&shim.update("add", b""), RejectCode::CanisterError, 508, "is stopped");
    assert_eq!(reject(&shim.query("get", b"")).error_code, 508);
    ok(call(&mut shim.replica, "stop_canister", &arg));
    ok(call(&mut shim.replica, "start_canister", &arg));
    assert_eq!(number(&shim.update("add", b"")), 1);
    ok(call(&mut shim.replica, "uninstall_code", &arg));
    assert_eq!(reject(&shim.update("add", b"")).error_code, 537);
    assert!(shim.canister().module_hash().is_none());
    ok(call(&mut shim.replica, "stop_canister", &arg));
    ok(call(&mut shim.replica, "delete_canister", &arg));
    assert!(shim.replica.canister(shim.id).is_none());
}

/// Calls the management method whose name is the argument's first ten bytes, spaces removed by the length in the next
/// byte; the rest is the argument. Answers the reply, or the reject message.
const CREATOR: &str = r#"
  (table funcref (elem $replied $rejected))
  (func $replied (param i32) (call $reply (i32.const 1000) (call $take_arg (i32.const 1000))))
  (func $rejected (param i32)
    (call $msg_reject_msg_copy (i32.const 1000) (i32.const 0) (call $msg_reject_msg_size))
    (call $reply (i32.const 1000) (call $msg_reject_msg_size)))
  ;; Argument: length of the method name, method name, argument. Sends a trillion cycles.
  (func (export "canister_update manage") (local $name_len i32) (local $len i32)
    (local.set $len (call $take_arg (i32.const 1000)))
    (local.set $name_len (i32.load8_u (i32.const 1000)))
    (call $call_new (i32.const 0) (i32.const 0) (i32.const 1001) (local.get $name_len)
                    (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
    (call $call_data_append
      (i32.add (i32.const 1001) (local.get $name_len))
      (i32.sub (i32.sub (local.get $len) (i32.const 1)) (local.get $name_len)))
    (call $call_cycles_add128 (i64.const 0) (i64.const 1000000000000))
    (drop (call $call_perform)))
"#;

fn manage(shim: &mut Shim, method: &str, arg: &[u8]) -> Vec<u8> {
    let arg = [&[method.len() as u8], method.as_bytes(), arg].concat();
    ok(shim.update("manage", &arg))
}

#[test]
fn canisters_create_and_install_canisters() {
    let mut shim = Shim::new(CREATOR);
    let before = shim.canister().balance();
    let child = created(&manage(&mut shim, "create_canister", &Encode!(&Create::default()).unwrap()));
    let canister = shim.replica.canister(child).unwrap();
    assert_eq!(canister.balance(), 500_000_000_000, "a trillion less the fee");
    assert!(canister.settings().controllers.contains(&shim.id));
    assert_eq!(before - shim.canister().balance(), 1_000_000_000_000);
    assert_eq!(manage(&mut shim, "install_code", &install_arg(child, Mode::install, COUNTER)), Encode!().unwrap());
    assert_eq!(before - shim.canister().balance(), 1_000_000_000_000, "cycles that are not needed come back");
    assert_eq!(number(&shim.replica.update(child, user(), "add", b"")), 1);
    let report = call(&mut shim.replica, "stop_canister", &id_arg(child));
    assert_eq!(reject(&report).error_code, 512, "the child belongs to its creator");
    let failed = manage(&mut shim, "install_code", &install_arg(child, Mode::install, COUNTER));
    assert!(String::from_utf8(failed).unwrap().contains("not empty"));
    manage(&mut shim, "deposit_cycles", &id_arg(child));
    assert_eq!(shim.replica.canister(child).unwrap().balance(), 1_500_000_000_000);
}

#[test]
fn canisters_read_the_history_of_canisters() {
    #[derive(CandidType)]
    struct InfoArg {
        canister_id: Principal,
        num_requested_changes: Option<u64>,
    }
    #[derive(CandidType, Deserialize)]
    struct Info {
        total_num_changes: u64,
        recent_changes: Vec<candid::Reserved>,
        controllers: Vec<Principal>,
    }
    let mut shim = Shim::new(CREATOR);
    let arg = Encode!(&InfoArg { canister_id: shim.id, num_requested_changes: Some(1) }).unwrap();
    let info = Decode!(&manage(&mut shim, "canister_info", &arg), Info).unwrap();
    assert_eq!((info.total_num_changes, info.recent_changes.len(), info.controllers), (2, 1, vec![user()]));
    assert_eq!(reject(&call(&mut shim.replica, "canister_info", &arg)).error_code, 302);
}

#[test]
fn gives_canisters_randomness_that_follows_from_the_seed() {
    let random = |seed| {
        let mut shim = Shim::with(Config { seed, ..config() }, CREATOR);
        let mut draw = || Decode!(&manage(&mut shim, "raw_rand", &Encode!().unwrap()), ByteBuf).unwrap().into_vec();
        [draw(), draw()]
    };
    let [first, second] = random(1);
    assert_eq!(first.len(), 32);
    assert_ne!(first, second);
    assert_eq!(random(1), [first.clone(), second]);
    assert_ne!(random(2)[0], first);
}

#[test]
fn stopping_waits_for_open_calls_and_gives_up_after_five_minutes() {
    let mut shim = Shim::new(CREATOR);
    let own = shim.id;
    let arg = UpdateSettings {
        canister_id: own,
        settings: Settings { controllers: Some(vec![user(), own]), ..Settings::default() },
    };
    ok(call(&mut shim.replica, "update_settings", &Encode!(&arg).unwrap()));
    // The canister waits for itself to stop, which it cannot while it waits.
    let started = shim.replica.time_ns();
    let text = String::from_utf8(manage(&mut shim, "stop_canister", &id_arg(own))).unwrap();
    assert_eq!(text, "Stop canister request timed out");
    assert_eq!(shim.replica.time_ns() - started, 300_000_000_000);
    assert_eq!(*shim.canister().status(), Status::Stopped, "it finished its last call while stopping");
}

#[test]
fn uninstalling_rejects_open_calls_and_drops_their_answers() {
    let mut shim = Shim::new(CREATOR);
    let arg = [&[8], b"raw_rand".as_slice(), &Encode!().unwrap()].concat();
    let open = shim.replica.submit(shim.id, user(), "manage", &arg).unwrap();
    shim.replica.step();
    ok(call(&mut shim.replica, "uninstall_code", &id_arg(shim.id)));
    // raw_rand was delivered before the uninstall, its answer after it.
    let balance = shim.canister().balance();
    shim.replica.process();
    let answer = shim.replica.answer(open).unwrap().unwrap_err();
    assert_eq!((answer.code, answer.message.as_str()), (RejectCode::CanisterReject, "Canister has been uninstalled"));
    assert_eq!(shim.canister().balance() - balance, 1_000_000_000_000, "the refund arrives nevertheless");
}

#[test]
fn logs_are_read_by_whom_the_settings_name() {
    #[derive(CandidType, Deserialize)]
    struct Record {
        idx: u64,
        content: ByteBuf,
    }
    #[derive(CandidType, Deserialize)]
    struct Logs {
        canister_log_records: Vec<Record>,
    }
    let mut shim = Shim::new(
        r#"(data (i32.const 100) "hello")
           (func (export "canister_update log") (call $debug_print (i32.const 100) (i32.const 5)) (unreachable))"#,
    );
    shim.update("log", b"");
    let mut fetch = |sender| {
        shim.replica.query(Principal::management_canister(), sender, "fetch_canister_logs", &id_arg(shim.id)).result
    };
    let logs = Decode!(&fetch(user()).unwrap(), Logs).unwrap().canister_log_records;
    let texts: Vec<_> = logs.iter().map(|record| (record.idx, String::from_utf8_lossy(&record.content))).collect();
    assert_eq!(texts, [(0, "hello".into()), (1, "[TRAP]: unreachable".into())]);
    assert!(fetch(stranger()).unwrap_err().message.contains("not allowed to access canister logs"));
}
