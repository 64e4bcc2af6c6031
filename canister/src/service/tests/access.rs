use candid::Principal;

use crate::access::role_needed;
use crate::api::*;
use crate::testing::*;

const ANONYMOUS: Principal = Principal::anonymous();
const CALLERS: [Principal; 5] = [CONTROLLER, OPERATOR, USER, OTHER, ANONYMOUS];

type Outcome = Result<(), Error>;

/// Calls `method` with an argument that is well-formed; the session is of `USER`.
fn call(canister: &mut Canister, caller: Principal, method: &str, session_id: u64) -> Outcome {
    let id = SessionIdArg { session_id };
    let page = SessionPageArg { session_id, from: None, limit: None };
    let (upload_id, max_instructions) = (77, None);
    canister.call(caller, |service| match method {
        "upload_begin" => service.upload_begin(begin_arg(b"x")).map(drop),
        "upload_chunk" => service.upload_chunk(UploadChunk { upload_id, offset: 0, bytes: b"" }).map(drop),
        "upload_commit" => service.upload_commit(UploadCommitArg { upload_id, max_instructions }).map(drop),
        "upload_abort" => service.upload_abort(UploadIdArg { upload_id }),
        "model_load_step" => service.model_load_step(ModelLoadStepArg { max_instructions }).map(drop),
        "config_get" => service.config_get().map(drop),
        "config_set" => service.config_set(&ConfigUpdate::default()).map(drop),
        "session_create" => {
            service.session_create(SessionCreateArg { input: text("a"), options: options(1) }).map(drop)
        }
        "session_advance" => service
            .session_advance(SessionAdvanceArg { session_id, max_instructions, max_tokens: Some(1), profile: None })
            .map(drop),
        "session_run" => service.session_run(id).map(drop),
        "session_append" => {
            service.session_append(SessionAppendArg { session_id, input: text("a"), max_tokens: None }).map(drop)
        }
        "session_restart" => {
            let arg = SessionRestartArg { session_id, input: text("a"), options: options(1) };
            service.session_restart(arg).map(drop)
        }
        "session_cancel" => service.session_cancel(id).map(drop),
        "session_delete" => service.session_delete(id),
        "session_output" => service.session_output(SessionOutputArg { session_id, from: 0 }).map(drop),
        "session_tokens" => service.session_tokens(page).map(drop),
        "session_digests" => service.session_digests(page).map(drop),
        "session_logprobs" => service.session_logprobs(page).map(drop),
        "session_logits" => service.session_logits(id).map(drop),
        "session_list" => service.session_list(SessionListArg::default()).map(drop),
        "session_list all" => service.session_list(SessionListArg { all: Some(true), ..Default::default() }).map(drop),
        other => panic!("the matrix does not know {other}"),
    })
}

/// What happened, as far as access is concerned.
fn verdict(outcome: &Outcome) -> &'static str {
    match outcome {
        Err(Error::NotAuthorized { .. }) => "role",
        Err(Error::SessionNotFound { .. }) => "none",
        _ => "pass",
    }
}

fn matrix(access: GenerateAccess, method: &str) -> [&'static str; 5] {
    CALLERS.map(|caller| {
        let mut canister = Canister::serving(&model(1));
        let session = canister.create(USER, text("hello"), options(1)).unwrap();
        let arg = SessionAdvanceArg { session_id: session, max_instructions: None, max_tokens: Some(1), profile: None };
        canister.call(USER, |service| service.session_advance(arg)).unwrap();
        let update = ConfigUpdate { generate_access: Some(access), ..Default::default() };
        canister.call(OPERATOR, |service| service.config_set(&update)).unwrap();
        let outcome = call(&mut canister, caller, method, session);
        let inspected = canister.call(caller, |service| service.admits_call(method));
        assert_eq!(inspected, verdict(&outcome) != "role" || role_needed(method).is_none(), "{method} by {caller}");
        verdict(&outcome)
    })
}

#[test]
fn every_method_admits_exactly_the_roles_it_documents() {
    use GenerateAccess::*;
    let operator = ["pass", "pass", "role", "role", "role"];
    for method in
        ["upload_begin", "upload_chunk", "upload_commit", "upload_abort", "model_load_step", "config_set", "config_get"]
    {
        assert_eq!(matrix(Anyone, method), operator, "{method}");
    }
    for method in ["session_output", "session_tokens", "session_digests", "session_logprobs", "session_logits"] {
        assert_eq!(matrix(Anyone, method), ["none", "none", "pass", "none", "none"], "{method}");
        assert_eq!(matrix(Controllers, method), ["none", "none", "pass", "none", "none"], "{method}");
    }
    for method in ["session_cancel", "session_delete"] {
        assert_eq!(matrix(Anyone, method), ["pass", "none", "pass", "none", "none"], "{method}");
    }
    for method in ["session_advance", "session_run", "session_append", "session_restart"] {
        assert_eq!(matrix(Anyone, method), ["none", "none", "pass", "none", "none"], "{method}");
        assert_eq!(matrix(Authenticated, method), ["none", "none", "pass", "none", "role"], "{method}");
        assert_eq!(matrix(Controllers, method), ["none", "none", "role", "role", "role"], "{method}");
    }
    assert_eq!(matrix(Controllers, "session_create"), ["pass", "pass", "role", "role", "role"]);
    assert_eq!(matrix(AllowList, "session_create"), ["pass", "pass", "pass", "pass", "role"]);
    assert_eq!(matrix(Authenticated, "session_create"), ["pass", "pass", "pass", "pass", "role"]);
    assert_eq!(matrix(Anyone, "session_create"), ["pass"; 5]);
    assert_eq!(matrix(Anyone, "session_list"), ["pass"; 5]);
    assert_eq!(matrix(Anyone, "session_list all"), ["pass", "role", "role", "role", "role"]);
}

#[test]
fn only_controllers_change_the_operator_list() {
    let mut canister = Canister::new();
    let update = ConfigUpdate { operators: Some(vec![OPERATOR, OTHER]), ..Default::default() };
    let refused = canister.call(OPERATOR, |service| service.config_set(&update));
    assert_eq!(refused, Err(Error::NotAuthorized { role: Role::Controller }));
    let config = canister.call(CONTROLLER, |service| service.config_set(&update)).unwrap();
    assert_eq!(config.operators, [OPERATOR, OTHER]);
    canister.upgrade();
    assert_eq!(canister.call(OTHER, |service| service.config_get()), Ok(config));
}

#[test]
fn another_principals_session_and_none_look_the_same() {
    let mut canister = Canister::serving(&model(1));
    let session = canister.create(USER, text("secret"), options(1)).unwrap();
    for method in
        ["session_advance", "session_run", "session_append", "session_cancel", "session_output", "session_logits"]
    {
        let theirs = call(&mut canister, OTHER, method, session).unwrap_err();
        let none = call(&mut canister, OTHER, method, session + 1).unwrap_err();
        assert_eq!(theirs, Error::SessionNotFound { session_id: session });
        assert_eq!(none, Error::SessionNotFound { session_id: session + 1 });
    }
}

#[test]
fn lists_show_own_sessions_and_everybodys_to_controllers() {
    let mut canister = Canister::serving(&model(1));
    let ids: Vec<_> = [USER, OTHER, USER, USER, CONTROLLER]
        .map(|owner| canister.create(owner, text("a"), options(1)).unwrap())
        .into();
    let mut list = |caller, arg: SessionListArg| {
        let ok = canister.call(caller, |service| service.session_list(arg)).unwrap();
        (ok.sessions.iter().map(|summary| summary.status.session_id).collect::<Vec<_>>(), ok.next)
    };
    let page = |after, limit, all| SessionListArg { after, limit: Some(limit), all };
    assert_eq!(list(USER, page(None, 9, None)), (vec![ids[0], ids[2], ids[3]], None));
    assert_eq!(list(USER, page(None, 2, None)), (vec![ids[0], ids[2]], Some(ids[2])));
    assert_eq!(list(USER, page(Some(ids[2]), 2, None)), (vec![ids[3]], None));
    assert_eq!(list(CONTROLLER, page(None, 9, None)), (vec![ids[4]], None));
    assert_eq!(list(CONTROLLER, page(None, 9, Some(true))), (ids, None));
    assert_eq!(list(ANONYMOUS, page(None, 9, None)), (vec![], None));
}
