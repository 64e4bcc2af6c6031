//! icllama's Internet Computer canister: a thin shell of candid methods around
//! [`service::Service`], which holds all logic and is tested natively.

pub mod access;
pub mod api;
pub mod budget;
pub mod decode;
pub mod directory;
pub mod env;
pub mod generate;
pub mod http;
mod kv_cache;
pub mod ledger;
mod llm;
pub mod load;
pub mod memory;
pub mod queue;
#[cfg(target_arch = "wasm32")]
mod random;
pub mod service;
pub mod session_head;
pub mod session_id;
pub mod session_index;
pub mod session_store;
#[cfg(test)]
mod testing;
pub mod upload;
pub mod usage;

use std::cell::RefCell;
use std::marker::PhantomData;

use candid::{CandidType, candid_method};
use ic_cdk::api::{accept_message, msg_method_name, trap};
use ic_cdk::{init, inspect_message, post_upgrade, query, update};
use ic_stable_structures::DefaultMemoryImpl;

use api::*;
use decode::ChunkMessage;
use env::IcEnv;

type IcService = service::Service<DefaultMemoryImpl, IcEnv>;
type Reply<T> = Result<T, Error>;

thread_local! {
    static SERVICE: RefCell<Option<IcService>> = const { RefCell::new(None) };
}

/// What tools show as the canister's interface.
#[cfg(target_arch = "wasm32")]
#[used]
// SAFETY: a custom section is data that nothing executes or links against.
#[unsafe(link_section = "icp:public candid:service")]
static CANDID: [u8; include_bytes!("../canister.did").len()] = *include_bytes!("../canister.did");

/// Opens the service; a memory or settings that cannot be used refuse the installation or upgrade.
fn open(arg: Option<InitArg>) {
    let env = IcEnv {
        on_wake: || by_itself(IcService::background),
        on_watch: || by_itself(IcService::watchdog),
        on_expiry: || by_itself(IcService::expiry_due),
    };
    let service =
        IcService::open(DefaultMemoryImpl::default(), env, arg).unwrap_or_else(|error| trap(error.to_string()));
    SERVICE.set(Some(service));
}

fn with<R>(call: impl FnOnce(&IcService) -> R) -> R {
    SERVICE.with_borrow(|service| call(service.as_ref().unwrap_or_else(|| trap("the canister is not installed"))))
}

/// An update.
fn with_mut<T>(call: impl FnOnce(&mut IcService) -> Reply<T>) -> Reply<T> {
    by_itself(|service| {
        let answer = call(service);
        service.count_call(&answer);
        answer
    })
}

/// Work that nobody called for.
fn by_itself<R>(work: impl FnOnce(&mut IcService) -> R) -> R {
    SERVICE.with_borrow_mut(|service| {
        let service = service.as_mut().unwrap_or_else(|| trap("the canister is not installed"));
        let answer = work(service);
        service.schedule();
        answer
    })
}

#[candid_method(init)]
#[init(hidden, decode_with = "decode::argument")]
fn init(arg: Option<InitArg>) {
    open(arg);
}

#[post_upgrade(hidden, decode_with = "decode::argument")]
fn post_upgrade(arg: Option<InitArg>) {
    open(arg);
}

#[inspect_message]
fn inspect_message() {
    if with(|service| service.admits_call(&msg_method_name())) {
        accept_message();
    }
}

/// Announces a model file, or finds the upload of it that was interrupted. For operators.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn upload_begin(arg: UploadBeginArg) -> Reply<UploadBeginOk> {
    with_mut(|service| service.upload_begin(arg))
}

/// Stores bytes of the file: any offset, any order, repeated at will. For operators.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::chunk")]
fn upload_chunk(arg: ChunkMessage) -> Reply<UploadChunkOk> {
    with_mut(|service| service.upload_chunk(arg.chunk()))
}

/// The present upload and what is missing of it.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn upload_status(arg: UploadStatusArg) -> Reply<UploadStatus> {
    with(|service| service.upload_status(arg))
}

/// All chunks were sent: verifies the hash, in as many calls as it takes or by itself. For operators.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn upload_commit(arg: UploadCommitArg) -> Reply<UploadCommitOk> {
    with_mut(|service| service.upload_commit(arg))
}

/// Gives the upload up. For operators.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn upload_abort(arg: UploadIdArg) -> Reply<()> {
    with_mut(|service| service.upload_abort(arg))
}

/// What answers, what is stored, what is on its way.
#[candid_method(query)]
#[query(hidden)]
fn model_status() -> ModelStatus {
    with(IcService::model_status)
}

/// Loads the stored model on; it also loads by itself. For operators.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn model_load_step(arg: ModelLoadStepArg) -> Reply<ModelLoadStepOk> {
    with_mut(|service| service.model_load_step(arg))
}

/// Makes a session; nothing is computed yet. For users.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn session_create(arg: SessionCreateArg) -> Reply<SessionCreateOk> {
    with_mut(|service| service.session_create(arg))
}

/// Computes as much as one call allows. For users, about their own sessions.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn session_advance(arg: SessionAdvanceArg) -> Reply<SessionProgress> {
    with_mut(|service| service.session_advance(arg))
}

/// Lets the session run by itself; poll `session_output`. For users, about their own sessions.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn session_run(arg: SessionIdArg) -> Reply<SessionStatus> {
    with_mut(|service| service.session_run(arg))
}

/// Goes on with a finished session. For users, about their own sessions.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn session_append(arg: SessionAppendArg) -> Reply<SessionAppendOk> {
    with_mut(|service| service.session_append(arg))
}

/// Begins a finished session anew, keeping what was computed of the tokens that both begin with. For users, about their own
/// sessions.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn session_restart(arg: SessionRestartArg) -> Reply<SessionRestartOk> {
    with_mut(|service| service.session_restart(arg))
}

/// Ends generation. About own sessions; controllers about any.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn session_cancel(arg: SessionIdArg) -> Reply<SessionStatus> {
    with_mut(|service| service.session_cancel(arg))
}

/// Forgets the session and all its text. About own sessions; controllers about any.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn session_delete(arg: SessionIdArg) -> Reply<()> {
    with_mut(|service| service.session_delete(arg))
}

/// Generated text from a byte index on. About own sessions.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn session_output(arg: SessionOutputArg) -> Reply<SessionOutputOk> {
    with(|service| service.session_output(arg))
}

/// Token ids. About own sessions.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn session_tokens(arg: SessionPageArg) -> Reply<SessionTokensOk> {
    with(|service| service.session_tokens(arg))
}

/// Digests of the logits behind each generated token, to audit an answer. About own sessions.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn session_digests(arg: SessionPageArg) -> Reply<SessionDigestsOk> {
    with(|service| service.session_digests(arg))
}

/// Log probabilities of each generated token and of the likeliest in its place. About own sessions.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn session_logprobs(arg: SessionPageArg) -> Reply<SessionLogprobsOk> {
    with(|service| service.session_logprobs(arg))
}

/// The logits behind the last token. About own sessions.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn session_logits(arg: SessionIdArg) -> Reply<SessionLogitsOk> {
    with(|service| service.session_logits(arg))
}

/// Own sessions, or everybody's for a controller.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn session_list(arg: SessionListArg) -> Reply<SessionListOk> {
    with(|service| service.session_list(arg))
}

/// What the caller has used of its quotas, and when they begin anew. For everybody.
#[candid_method(query)]
#[query(hidden)]
fn quota_status() -> QuotaStatus {
    with(IcService::quota_status)
}

/// The settings. For operators.
#[candid_method(query)]
#[query(hidden)]
fn config_get() -> Reply<Config> {
    with(IcService::config_get)
}

/// Changes settings and returns all of them. For operators; the operator list is for controllers.
#[candid_method(update)]
#[update(hidden, decode_with = "decode::argument")]
fn config_set(arg: ConfigUpdate) -> Reply<Config> {
    with_mut(|service| service.config_set(&arg))
}

/// A conversation and its answer, as DFINITY's LLM canister has it for `ic-llm` 0.x. For users that are canisters.
#[candid_method(update)]
#[update(hidden, manual_reply = true, decode_with = "decode::argument")]
async fn v0_chat(request: LlmRequestV0) -> PhantomData<String> {
    let messages = service::llm::messages_v0(request.messages);
    llm::answer(Ok(messages), |text| encode(&text)).await;
    PhantomData
}

/// A conversation and its answer, as DFINITY's LLM canister has it for `ic-llm`. For users that are canisters.
#[candid_method(update)]
#[update(hidden, manual_reply = true, decode_with = "decode::argument")]
async fn v1_chat(request: LlmRequest) -> PhantomData<LlmResponse> {
    let messages = service::llm::messages_v1(request);
    llm::answer(messages, |text| encode(&LlmResponse::of(text))).await;
    PhantomData
}

/// Not in the interface: the canister's own calls.
#[update(hidden, decode_with = "decode::argument")]
fn chat_step(session_id: u64) -> Result<bool, String> {
    llm::step(session_id)
}

fn encode<T: CandidType>(value: &T) -> Vec<u8> {
    candid::encode_one(value).unwrap_or_else(|error| trap(error.to_string()))
}

/// What a browser or a monitor is shown: the chat page at `/`, `/metrics`, `/health`.
#[candid_method(query)]
#[query(hidden, decode_with = "decode::argument")]
fn http_request(request: HttpRequest) -> HttpResponse {
    with(|service| service.http_request(&request))
}

/// What runs here, and the limits that concern everybody.
#[candid_method(query)]
#[query(hidden)]
fn version() -> CanisterInfo {
    with(IcService::version)
}

#[cfg(not(target_arch = "wasm32"))]
candid::export_service!();

/// The text of `canister.did`, generated from the code above.
#[cfg(not(target_arch = "wasm32"))]
pub fn candid_interface() -> String {
    __export_service()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_interface_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/canister.did");
        let generated = super::candid_interface();
        if std::env::var_os("ICLLAMA_UPDATE_CANDID").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == generated,
            "canister.did is stale; run this test with ICLLAMA_UPDATE_CANDID=1 to write it"
        );
    }
    /// Names of the service's methods.
    fn methods(interface: &str) -> Vec<&str> {
        let service = interface.split_once("service : ").map_or("", |(_, service)| service);
        service.lines().filter_map(|line| line.split_once(" : (").map(|(name, _)| name.trim())).collect()
    }

    #[test]
    fn every_method_is_documented() {
        let page = include_str!("../../docs/candid.md");
        let interface = super::candid_interface();
        let methods = methods(&interface);
        assert_eq!(methods.len(), 27);
        for method in methods {
            assert!(page.contains(&format!("`{method}`")), "docs/candid.md does not mention {method}");
        }
    }

    #[test]
    fn the_documented_defaults_are_the_real_ones() {
        let page = include_str!("../../docs/candid.md");
        let config = crate::api::Config::default();
        let rows = [
            ("max_instructions", format!("{}e9", config.max_instructions / 1_000_000_000)),
            ("cache_heap_bytes", format!("{} GiB", config.cache_heap_bytes >> 30)),
            ("kv_cache_bits", format!("{:?}", config.kv_cache_bits)),
            ("max_heap_bytes", format!("{} GiB", config.max_heap_bytes >> 30)),
            ("residency", format!("{:?}", config.residency)),
            ("activation_bits", format!("{:?}", config.activation_bits)),
            ("max_sessions", "1,000".into()),
            ("max_sessions_per_principal", config.max_sessions_per_principal.to_string()),
            ("max_tokens_per_day", "100,000".into()),
            ("max_runs_per_principal", config.max_runs_per_principal.to_string()),
            ("session_ttl_seconds", format!("{} days", config.session_ttl_seconds / 86_400)),
            ("cycles_floor", format!("{}e9", config.cycles_floor / 1_000_000_000)),
            ("max_input_bytes", format!("{} KiB", config.max_input_bytes >> 10)),
            ("max_session_tokens", "32,768".into()),
            ("max_chunk_bytes", "2,000,000".into()),
        ];
        for (name, value) in rows {
            assert!(page.contains(&format!("| `{name}` | {value} |")), "docs/candid.md: {name} is {value}");
        }
        assert_eq!((config.max_sessions, config.max_session_tokens), (1_000, 32_768));
        assert_eq!(config.max_tokens_per_day, 100_000);
        assert_eq!(crate::api::MAX_CHUNK_BYTES, 2_000_000);
    }
}
