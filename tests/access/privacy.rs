//! What a caller sees of the sessions of others: nothing, neither by an answer nor by what it costs.

use candid::Principal;
use canister::api::*;
use end_to_end::{CallKind, Icllama, ask, controller, full, tiny};

use super::{argument, callers, config, methods, operator, other, user};

#[test]
fn a_session_exists_for_its_owner_alone() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(config(GenerateAccess::Anyone)) {
        icllama.serve("model", &file);
        let created = icllama.as_sender(user(), |icllama| icllama.session_create(ask("hello", 3)).unwrap());
        let session_id = created.session_id;
        for stranger in callers().into_iter().filter(|caller| *caller != user()) {
            icllama.as_sender(stranger, |icllama| {
                for (method, outcome) in calls_about(icllama, session_id) {
                    assert_eq!(outcome, Some(Error::SessionNotFound { session_id }), "{method} by {stranger}");
                }
                assert_eq!(icllama.session_list(SessionListArg::default()).unwrap().sessions, []);
                let all = icllama.session_list(SessionListArg { all: Some(true), ..SessionListArg::default() });
                if stranger == controller() {
                    assert_eq!(all.unwrap().sessions[0].owner, user());
                } else {
                    assert_eq!(all, Err(Error::NotAuthorized { role: Role::Controller }));
                }
            });
        }
        icllama.as_sender(user(), |icllama| {
            icllama.finish(session_id, &mut full);
            assert_eq!(icllama.generation(session_id).digests.len(), 3);
            assert_eq!(icllama.session_list(SessionListArg::default()).unwrap().sessions.len(), 1);
        });
    }
}

/// A reply, and the instructions that it cost if the platform tells.
type Answered = (Result<Vec<u8>, String>, Option<u64>);

fn answered(icllama: &mut Icllama, kind: CallKind, method: &str, caller: Principal, id: u64) -> Answered {
    icllama.host.heaviest_message();
    let result = icllama.host.call(kind, icllama.canister, caller, method, &argument(method, id));
    let without_id = |mut reply: Vec<u8>| {
        if let Some(at) = reply.windows(8).position(|bytes| bytes == id.to_le_bytes()) {
            reply.drain(at..at + 8);
        }
        reply
    };
    (result.map(without_id).map_err(|reject| reject.message), icllama.host.heaviest_message())
}

#[test]
fn nothing_tells_a_session_of_somebody_else_from_none() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(config(GenerateAccess::Anyone)) {
        icllama.serve("model", &file);
        let mut own = Vec::new();
        let mut theirs = Vec::new();
        for round in 0..20 {
            for (owner, ids) in [(other(), &mut own), (user(), &mut theirs)] {
                let arg = ask(&"secret ".repeat(round + 1), 3);
                ids.push(icllama.as_sender(owner, |icllama| icllama.session_create(arg).unwrap().session_id));
            }
        }
        let last = *own.iter().chain(&theirs).max().unwrap();
        // Ids of others that are, were and will never be. The first call of each method warms up.
        let gone = theirs.remove(15);
        icllama.as_sender(user(), |icllama| icllama.session_delete(SessionIdArg { session_id: gone }).unwrap());
        let foreign = theirs[14];
        for (kind, method) in methods().into_iter().filter(|(_, method)| method.starts_with("session_")) {
            if matches!(method, "session_create" | "session_list") {
                continue;
            }
            for caller in [other(), operator(), Principal::anonymous()] {
                let mut tried = |id| answered(&mut icllama, kind, method, caller, id);
                // The first calls warm up; then the heap's allocator makes a difference of some hundred instructions.
                (0..4).for_each(|_| assert!(tried(foreign).0.is_ok()));
                let mut least = |id| {
                    let answers: Vec<Answered> = (0..4).map(|_| tried(id)).collect();
                    assert!(answers.iter().all(|answer| answer.0 == answers[0].0), "{method} by {caller}");
                    (answers[0].0.clone(), answers.iter().filter_map(|answer| answer.1).min().unwrap_or(0))
                };
                // What comes after an id that is or was there never was. What is looked at depends on where an id would
                // be among the caller's own.
                let [is, was, never] = [foreign, gone, last + 1_000].map(|id| [id, id + 1].map(&mut least));
                for [one, next] in [&is, &was, &never] {
                    assert!(one.0 == is[0].0 && next.0 == is[0].0, "{method} by {caller}");
                    let difference = one.1.abs_diff(next.1);
                    assert!(difference < 1_000, "{method} by {caller}: {} and {} instructions", one.1, next.1);
                }
            }
        }
        own.sort_unstable();
        // The list shows the caller's own, wherever it is asked to begin.
        icllama.as_sender(other(), |icllama| {
            let all = icllama.session_list(SessionListArg::default()).unwrap().sessions;
            assert_eq!(all.iter().map(|session| session.status.session_id).collect::<Vec<_>>(), own);
        });
        for from in [foreign, gone] {
            let arg = SessionListArg { after: Some(from), ..SessionListArg::default() };
            let listed = icllama.as_sender(Principal::anonymous(), |icllama| icllama.session_list(arg).unwrap());
            assert_eq!((listed.sessions, listed.next), (vec![], None));
        }
    }
}

/// Refusals of every method that takes a session and is for its owner alone, or for its owner and
/// controllers if the caller is none.
fn calls_about(icllama: &mut Icllama, session_id: u64) -> Vec<(&'static str, Option<Error>)> {
    let id = SessionIdArg { session_id };
    let page = SessionPageArg { session_id, from: None, limit: None };
    let advance = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
    let input = SessionInput::Text("more".into());
    let append = SessionAppendArg { session_id, input, max_tokens: None };
    let mut calls = vec![
        ("session_advance", icllama.session_advance(advance).err()),
        ("session_run", icllama.session_run(id).err()),
        ("session_output", icllama.session_output(SessionOutputArg { session_id, from: 0 }).err()),
        ("session_append", icllama.session_append(append).err()),
        ("session_logits", icllama.session_logits(id).err()),
        ("session_tokens", icllama.session_tokens(page).err()),
        ("session_digests", icllama.session_digests(page).err()),
        ("session_logprobs", icllama.session_logprobs(page).err()),
    ];
    if icllama.sender != controller() {
        calls.push(("session_cancel", icllama.session_cancel(id).err()));
        calls.push(("session_delete", icllama.session_delete(id).err()));
    }
    calls
}
