//! One malformed file for each named defect, sent to the canister: it answers as the program does natively, goes on to serve
//! the model that it has, and takes the next one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure is a failed test")]

use canister::api::*;
use end_to_end::{Generation, Icllama, ask, audited, full, tiny};
use model_core::chat::{ChatMessage as CoreMessage, Variables};
use model_core::fixtures::defects::{Defect, Found};
use model_core::model::{LoadOptions, Model};

/// What the program says natively to a file of each kind.
fn native_error(defect: &Defect) -> String {
    let model = match (Model::load(&defect.file, &LoadOptions::default()), defect.found) {
        (Err(error), Found::Loading) => return error.to_string(),
        (Ok(model), Found::Conversation | Found::Computing) => model,
        (loaded, found) => panic!("{}: {:?} is not to be found by {found:?}", defect.name, loaded.err()),
    };
    let message = [CoreMessage::new("user", "hello")];
    match defect.found {
        Found::Computing => model.logits_for(&[1, 2], |_, _| {}).unwrap_err().to_string(),
        _ => model.chat.unwrap().render(&message, &Variables::default(), true).unwrap_err().to_string(),
    }
}

/// Sends a file and waits until the canister has looked at it.
fn send(icllama: &mut Icllama, name: &str, file: &[u8]) {
    icllama.store(name, file);
    icllama.wait_until("the file is loaded or rejected", |icllama| {
        let status = icllama.model_status();
        status.candidate.is_none() && status.load == LoadState::Ready
    });
}

/// What the canister said to a file that is found to be wrong while it is loaded: it rejected it, and goes on.
fn rejection(icllama: &mut Icllama, defect: &Defect, answer: &Generation) -> String {
    send(icllama, defect.name, &defect.file);
    let status = icllama.model_status();
    let rejected = status.rejected.unwrap_or_else(|| panic!("{}: accepted", defect.name));
    assert_eq!((rejected.model.name.as_str(), status.serving.unwrap().file.name.as_str()), (defect.name, "sound"));
    assert_eq!(icllama.generate(&ask("hello", 1), &mut full), *answer, "{}", defect.name);
    rejected.message
}

/// What the canister said to a conversation, or to the first tokens, with a model that cannot be used.
fn refusal(icllama: &mut Icllama, defect: &Defect) -> String {
    send(icllama, defect.name, &defect.file);
    let input = match defect.found {
        Found::Computing => SessionInput::Tokens(vec![1, 2]),
        _ => SessionInput::Messages(vec![ChatMessage::User(MessageText { content: "hello".into() })]),
    };
    let created = icllama.session_create(SessionCreateArg { input, options: audited(2) });
    let advanced = created.and_then(|created| {
        let session_id = created.session_id;
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
        icllama.session_advance(arg)
    });
    match advanced {
        Err(Error::Model { message, .. }) => message,
        other => panic!("{}: {other:?}", defect.name),
    }
}

#[test]
fn native_and_canister_say_the_same_to_every_malformed_file() {
    let (sound, defects) = (tiny(1).build(), Defect::all());
    // One for each file.
    let config = ConfigUpdate { max_sessions_per_principal: Some(1_000), ..ConfigUpdate::default() };
    for mut icllama in Icllama::everywhere(config) {
        icllama.serve("sound", &sound);
        let answer = icllama.generate(&ask("hello", 1), &mut full);
        for defect in defects.iter().filter(|defect| defect.found == Found::Loading) {
            let said = rejection(&mut icllama, defect, &answer);
            assert_eq!(said, native_error(defect), "{}", defect.name);
        }
        for defect in defects.iter().filter(|defect| defect.found != Found::Loading) {
            let said = refusal(&mut icllama, defect);
            assert_eq!(said, native_error(defect), "{}", defect.name);
            assert_eq!(icllama.model_status().serving.unwrap().file.name, defect.name);
        }
        icllama.serve("sound", &sound);
        assert_eq!(icllama.generate(&ask("hello", 1), &mut full), answer);
    }
}
