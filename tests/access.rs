//! Who may do what in the real canister: every method, every kind of caller, every setting. Refusals are
//! values, or `canister_inspect_message` saves the canister the message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

mod privacy;

use candid::Principal;
use canister::api::*;
use end_to_end::{CallKind, Icllama, InstallMode, METHODS, Outcome, ask, controller, principal, tiny};

fn operator() -> Principal {
    principal(2)
}

fn user() -> Principal {
    principal(3)
}

fn other() -> Principal {
    principal(4)
}

fn callers() -> [Principal; 5] {
    [controller(), operator(), user(), other(), Principal::anonymous()]
}

const SETTINGS: [GenerateAccess; 4] =
    [GenerateAccess::Controllers, GenerateAccess::AllowList, GenerateAccess::Authenticated, GenerateAccess::Anyone];

fn config(generate_access: GenerateAccess) -> ConfigUpdate {
    ConfigUpdate {
        generate_access: Some(generate_access),
        operators: Some(vec![operator()]),
        users: Some(vec![user()]),
        ..ConfigUpdate::default()
    }
}

/// Every method of the interface, the canister's own step too.
fn methods() -> Vec<(CallKind, &'static str)> {
    let more = [
        (CallKind::Query, "model_status"),
        (CallKind::Query, "version"),
        (CallKind::Query, "quota_status"),
        (CallKind::Query, "http_request"),
        (CallKind::Update, "v0_chat"),
        (CallKind::Update, "v1_chat"),
        (CallKind::Update, "chat_step"),
    ];
    METHODS.iter().copied().chain(more).collect()
}

/// Whom a method is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Everybody,
    Operators,
    Users,
    /// Users who own the session.
    OwnersWhoMayGenerate,
    /// Whoever owns the session.
    Owners,
    /// The same, and controllers.
    OwnersAndControllers,
    /// The canister.
    Itself,
}

/// What the interface promises.
fn audience(method: &str) -> For {
    match method {
        "upload_begin" | "upload_chunk" | "upload_commit" | "upload_abort" | "model_load_step" | "config_get"
        | "config_set" => For::Operators,
        "session_create" | "v0_chat" | "v1_chat" => For::Users,
        "session_advance" | "session_run" | "session_append" | "session_restart" => For::OwnersWhoMayGenerate,
        "session_output" | "session_tokens" | "session_digests" | "session_logprobs" | "session_logits" => For::Owners,
        "session_cancel" | "session_delete" => For::OwnersAndControllers,
        "chat_step" => For::Itself,
        "upload_status" | "model_status" | "version" | "quota_status" | "http_request" | "session_list" => {
            For::Everybody
        }
        _ => panic!("nobody said whom {method} is for"),
    }
}

/// The role that a method asks for before anything else.
fn needed(method: &str) -> Option<Role> {
    match audience(method) {
        For::Operators => Some(Role::Operator),
        For::Users | For::OwnersWhoMayGenerate => Some(Role::User),
        _ => None,
    }
}

/// What becomes of a call, as far as access is concerned: `+` admitted, `.` as if there were no such session, `-` refused.
fn promised(method: &str, caller: Principal, access: GenerateAccess) -> char {
    let owns = caller == user();
    let admitted = match audience(method) {
        For::Everybody => true,
        For::Itself => return '-',
        For::Owners => owns,
        For::OwnersAndControllers => owns || caller == controller(),
        For::OwnersWhoMayGenerate if has(caller, Role::User, access) => owns,
        For::Operators => return if has(caller, Role::Operator, access) { '+' } else { '-' },
        For::Users | For::OwnersWhoMayGenerate => return if has(caller, Role::User, access) { '+' } else { '-' },
    };
    if admitted { '+' } else { '.' }
}

fn has(caller: Principal, role: Role, access: GenerateAccess) -> bool {
    let operates = caller == controller() || caller == operator();
    match role {
        Role::Controller => caller == controller(),
        Role::Operator => operates,
        Role::User => match access {
            GenerateAccess::Controllers => operates,
            GenerateAccess::AllowList => operates || caller == user(),
            GenerateAccess::Authenticated => caller != Principal::anonymous(),
            GenerateAccess::Anyone => true,
        },
    }
}

/// An argument that decodes, about the session `id` and an upload that does not exist.
fn argument(method: &str, id: u64) -> Vec<u8> {
    let message = LlmMessageV0 { role: LlmRole::User, content: "x".repeat(300_000) };
    let question = LlmMessage::User { content: message.content.clone() };
    match method {
        "upload_begin" => {
            candid::encode_one(UploadBeginArg { name: String::new(), total_bytes: 0, sha256: Vec::new() })
        }
        "upload_chunk" => candid::encode_one(UploadChunkArg { upload_id: 77, offset: 0, bytes: vec![1] }),
        "upload_status" => candid::encode_one(UploadStatusArg::default()),
        "upload_commit" => candid::encode_one(UploadCommitArg { upload_id: 77, max_instructions: None }),
        "upload_abort" => candid::encode_one(UploadIdArg { upload_id: 77 }),
        "model_load_step" => candid::encode_one(ModelLoadStepArg::default()),
        "session_create" => candid::encode_one(ask("hello", 1)),
        "session_advance" => candid::encode_one(SessionAdvanceArg {
            session_id: id,
            max_instructions: None,
            max_tokens: Some(1),
            profile: None,
        }),
        "session_output" => candid::encode_one(SessionOutputArg { session_id: id, from: 0 }),
        "session_append" => {
            let input = SessionInput::Text("a".into());
            candid::encode_one(SessionAppendArg { session_id: id, input, max_tokens: None })
        }
        "session_restart" => {
            let SessionCreateArg { input, options } = ask("a", 1);
            candid::encode_one(SessionRestartArg { session_id: id, input, options })
        }
        "session_tokens" | "session_digests" | "session_logprobs" => {
            candid::encode_one(SessionPageArg { session_id: id, from: None, limit: None })
        }
        "session_list" => candid::encode_one(SessionListArg { after: Some(id), ..SessionListArg::default() }),
        "config_get" | "model_status" | "version" | "quota_status" => candid::encode_args(()),
        "config_set" => candid::encode_one(ConfigUpdate::default()),
        // Too long to be answered, but by whom it may be asked.
        "v0_chat" => candid::encode_one(LlmRequestV0 { model: String::new(), messages: vec![message] }),
        "v1_chat" => candid::encode_one(LlmRequest { model: String::new(), messages: vec![question], tools: None }),
        "chat_step" => candid::encode_one(id),
        "http_request" => candid::encode_one(HttpRequest {
            method: "GET".into(),
            url: "/metrics".into(),
            headers: Vec::new(),
            body: Vec::new(),
            certificate_version: None,
        }),
        _ => candid::encode_one(SessionIdArg { session_id: id }),
    }
    .unwrap()
}

/// What a reply says if it is a refusal: the answer's own type does not matter then.
fn refusal(reply: &[u8]) -> Option<Error> {
    candid::decode_one::<Result<candid::Reserved, Error>>(reply).unwrap().err()
}

/// What becomes of a call, in the signs of [`promised`].
fn tried(icllama: &mut Icllama, kind: CallKind, method: &str, caller: Principal, id: u64) -> char {
    let result = icllama.host.call(kind, icllama.canister, caller, method, &argument(method, id));
    if METHODS.iter().any(|(_, name)| *name == method) {
        return match result {
            // Not even executed: the message is refused before it costs anything.
            Err(reject) if kind == CallKind::Update && reject.error_code == 406 => '-',
            Err(reject) => panic!("{method} by {caller}: {reject:?}"),
            Ok(reply) => match refusal(&reply) {
                Some(Error::NotAuthorized { .. }) if kind == CallKind::Query => '-',
                Some(Error::NotAuthorized { .. }) => panic!("{method} by {caller} passed the inspection"),
                Some(Error::SessionNotFound { .. }) => '.',
                _ => '+',
            },
        };
    }
    match result {
        Err(reject) if reject.error_code == 406 && kind == CallKind::Update => {
            // The methods without results reject otherwise too; the inspection has no reason.
            if reject.message.contains("limit") { '+' } else { '-' }
        }
        Err(reject) => panic!("{method} by {caller}: {reject:?}"),
        Ok(_) => '+',
    }
}

#[test]
fn every_method_admits_whom_the_settings_name_and_refuses_the_others() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(config(GenerateAccess::Anyone)) {
        icllama.serve("model", &file);
        let make = |icllama: &mut Icllama| {
            icllama.config_set(config(GenerateAccess::Anyone)).unwrap();
            icllama.as_sender(user(), |icllama| icllama.session_create(ask("hello", 99)).unwrap().session_id)
        };
        println!(
            "{:18} {}",
            "",
            SETTINGS.map(|access| format!("{access:?}").chars().take(9).collect::<String>()).join(" ")
        );
        let mut id = make(&mut icllama);
        for (kind, method) in methods() {
            let mut row = Vec::new();
            for access in SETTINGS {
                icllama.config_set(config(access)).unwrap();
                let cell: String = callers()
                    .map(|caller| {
                        let sign = tried(&mut icllama, kind, method, caller, id);
                        assert_eq!(sign, promised(method, caller, access), "{method} by {caller} under {access:?}");
                        if sign == '+' && audience(method) == For::OwnersAndControllers {
                            id = make(&mut icllama);
                            icllama.config_set(config(access)).unwrap();
                        }
                        sign
                    })
                    .into_iter()
                    .collect();
                row.push(format!("{cell:9}"));
            }
            println!("{method:18} {}", row.join(" "));
        }
        println!("each: controller, operator, user (owns the session), other, anonymous");
        println!("+ admitted, . as if there were no such session, - refused for lack of a role");
    }
}

/// A canister whose method `forward` calls `method` of `target` with its own argument and answers what it
/// is answered; if the call is rejected it answers nothing.
fn forwarder(target: Principal, method: &str) -> Vec<u8> {
    let id: String = target.as_slice().iter().map(|byte| format!("\\{byte:02x}")).collect();
    let (id_len, method_len) = (target.as_slice().len(), method.len());
    let text = format!(
        r#"(module
            (import "ic0" "msg_arg_data_size" (func $size (result i32)))
            (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
            (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
            (import "ic0" "msg_reply" (func $reply))
            (import "ic0" "call_new" (func $new (param i32 i32 i32 i32 i32 i32 i32 i32)))
            (import "ic0" "call_data_append" (func $data (param i32 i32)))
            (import "ic0" "call_perform" (func $perform (result i32)))
            (memory 10)
            (data (i32.const 0) "{id}")
            (data (i32.const 100) "{method}")
            (table funcref (elem $answered $rejected))
            (func $take (call $copy (i32.const 1000) (i32.const 0) (call $size)))
            (func $answered (param i32)
                (call $take) (call $append (i32.const 1000) (call $size)) (call $reply))
            (func $rejected (param i32) (call $reply))
            (func (export "canister_update forward")
                (call $new (i32.const 0) (i32.const {id_len}) (i32.const 100) (i32.const {method_len})
                    (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
                (call $take) (call $data (i32.const 1000) (call $size)) (drop (call $perform))))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn canisters_are_refused_by_the_methods_themselves() {
    // Messages between canisters pass no inspection.
    for mut icllama in Icllama::everywhere(config(GenerateAccess::AllowList)) {
        let proxy = icllama.host.create(&[controller()]);
        for (_, method) in METHODS {
            let module = forwarder(icllama.canister, method);
            icllama.host.install(proxy, InstallMode::Reinstall, &module, &[], controller()).unwrap();
            let ask_proxy = |icllama: &mut Icllama| {
                let reply =
                    icllama.host.call(CallKind::Update, proxy, other(), "forward", &argument(method, 77)).unwrap();
                refusal(&reply)
            };
            let refused = ask_proxy(&mut icllama);
            match needed(method) {
                Some(role) => assert_eq!(refused, Some(Error::NotAuthorized { role }), "{method}"),
                None => assert!(!matches!(refused, Some(Error::NotAuthorized { .. })), "{method}: {refused:?}"),
            }
            // As an operator it is admitted like anybody.
            let operators = |list| ConfigUpdate { operators: Some(list), ..ConfigUpdate::default() };
            icllama.config_set(operators(vec![proxy])).unwrap();
            let admitted = ask_proxy(&mut icllama);
            assert!(!matches!(admitted, Some(Error::NotAuthorized { .. })), "{method}: {admitted:?}");
            icllama.config_set(operators(vec![operator()])).unwrap();
        }
    }
}

#[test]
fn everybody_may_ask_what_runs_here() {
    for mut icllama in Icllama::everywhere(config(GenerateAccess::Controllers)) {
        for caller in callers() {
            icllama.as_sender(caller, |icllama| {
                assert_eq!(icllama.version().max_chunk_bytes, MAX_CHUNK_BYTES);
                assert_eq!(icllama.model_status().load, LoadState::Empty);
            });
        }
    }
}

#[test]
fn only_controllers_name_operators() {
    for mut icllama in Icllama::everywhere(config(GenerateAccess::Controllers)) {
        let update = ConfigUpdate { operators: Some(vec![other()]), ..ConfigUpdate::default() };
        icllama.as_sender(operator(), |icllama| {
            let refused = icllama.config_set(update.clone());
            assert_eq!(refused, Err(Error::NotAuthorized { role: Role::Controller }));
            // Everything else is the operators' own business.
            let config = icllama.config_set(config_of_users(vec![other()])).unwrap();
            assert_eq!(config.users, [other()]);
        });
        icllama.config_set(update).unwrap();
        icllama.as_sender(other(), |icllama| assert_eq!(icllama.config_get().unwrap().operators, [other()]));
        icllama.as_sender(operator(), |icllama| {
            assert_eq!(icllama.config_get(), Err(Error::NotAuthorized { role: Role::Operator }));
        });
    }
}

fn config_of_users(users: Vec<Principal>) -> ConfigUpdate {
    ConfigUpdate { users: Some(users), ..ConfigUpdate::default() }
}

#[test]
fn settings_out_of_range_are_refused_and_change_nothing() {
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let before = icllama.config_get().unwrap();
        let default = ConfigUpdate::default;
        for (name, update) in [
            ("max_instructions", ConfigUpdate { max_instructions: Some(40_000_000_000), ..default() }),
            ("max_sessions", ConfigUpdate { max_sessions: Some(0), max_input_bytes: Some(1), ..default() }),
            ("users", config_of_users(vec![Principal::anonymous()])),
        ] {
            let refused = icllama.config_set(update);
            assert!(matches!(&refused, Err(Error::InvalidArgument { field, .. }) if field == name), "{refused:?}");
            assert_eq!(icllama.config_get().unwrap(), before);
        }
    }
}

#[test]
fn controllers_may_end_and_delete_any_session() {
    let file = tiny(4).build();
    for mut icllama in Icllama::everywhere(config(GenerateAccess::Anyone)) {
        icllama.serve("model", &file);
        let session_id = icllama
            .as_sender(Principal::anonymous(), |icllama| icllama.session_create(ask("hello", 3)).unwrap().session_id);
        let status = icllama.session_cancel(SessionIdArg { session_id }).unwrap();
        assert_eq!(status.state, SessionState::Finished(FinishReason::Cancelled));
        icllama.session_delete(SessionIdArg { session_id }).unwrap();
        icllama.as_sender(Principal::anonymous(), |icllama| {
            assert_eq!(icllama.session_list(SessionListArg::default()).unwrap().sessions, []);
        });
    }
}

#[test]
fn a_user_struck_off_the_list_can_only_read() {
    let file = tiny(2).build();
    for mut icllama in Icllama::everywhere(config(GenerateAccess::AllowList)) {
        icllama.serve("model", &file);
        let session_id =
            icllama.as_sender(user(), |icllama| icllama.session_create(ask("hello", 3)).unwrap().session_id);
        icllama.config_set(config_of_users(Vec::new())).unwrap();
        icllama.as_sender(user(), |icllama| {
            let advance = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
            let outcome = icllama.call::<SessionProgress>(CallKind::Update, "session_advance", (advance,));
            assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
            assert_eq!(icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap().text, "");
        });
    }
}

#[test]
fn numbers_of_sessions_are_limited_in_all_and_for_each_principal() {
    let file = tiny(3).build();
    let limits = ConfigUpdate {
        max_sessions: Some(3),
        max_sessions_per_principal: Some(2),
        ..config(GenerateAccess::Authenticated)
    };
    for mut icllama in Icllama::everywhere(limits) {
        icllama.serve("model", &file);
        let create = |icllama: &mut Icllama, caller| {
            icllama.as_sender(caller, |icllama| icllama.session_create(ask("hello", 1)).map(|made| made.session_id))
        };
        let limit = |name: &str, max| Err(Error::LimitExceeded { limit: name.into(), max, needed: max + 1 });
        let first = create(&mut icllama, user()).unwrap();
        create(&mut icllama, user()).unwrap();
        assert_eq!(create(&mut icllama, user()), limit("max_sessions_per_principal", 2));
        create(&mut icllama, other()).unwrap();
        assert_eq!(create(&mut icllama, other()), limit("max_sessions", 3));
        icllama.as_sender(user(), |icllama| {
            icllama.session_delete(SessionIdArg { session_id: first }).unwrap();
            let gone = icllama.session_delete(SessionIdArg { session_id: first });
            assert_eq!(gone, Err(Error::SessionNotFound { session_id: first }));
        });
        assert_ne!(create(&mut icllama, other()).unwrap(), first, "ids are never used twice");
    }
}
