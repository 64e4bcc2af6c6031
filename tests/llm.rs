//! An application written with the crate `ic-llm` gets its answers from this canister: the real wasm of both, with the
//! interface of DFINITY's LLM canister between them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::path::Path;

use candid::{CandidType, Principal};
use canister::api::*;
use end_to_end::{
    CallKind, Host, Icllama, InstallMode, Reject, ShimHost, artifact, canister_module, controller, full, tiny,
};
use serde::de::DeserializeOwned;

/// Where `ic-llm` looks for its canister unless told otherwise.
const LLM_CANISTER: &str = "w36hm-eqaaa-aaaal-qr76a-cai";

fn caller_module() -> Vec<u8> {
    let path: &Path = Path::new("wasm32-unknown-unknown/canister/llm_caller.wasm");
    let made_by = "`scripts/build-wasm.sh llm-caller`";
    std::fs::read(artifact(path.to_str().unwrap(), made_by).unwrap()).unwrap()
}

/// The application beside the service, which admits it.
struct App<H: Host + ?Sized = dyn Host> {
    icllama: Icllama<H>,
    id: Principal,
}

impl<H: Host + ?Sized> App<H> {
    fn beside(mut icllama: Icllama<H>) -> Self {
        let id = icllama.host.create(&[controller()]);
        icllama.host.install(id, InstallMode::Install, &caller_module(), &[], controller()).unwrap();
        let users = ConfigUpdate { users: Some(vec![id]), ..ConfigUpdate::default() };
        icllama.config_set(users).unwrap();
        icllama.serve("model", &tiny(1).build());
        Self { icllama, id }
    }

    fn call<T: CandidType + DeserializeOwned>(
        &mut self,
        method: &str,
        args: impl candid::utils::ArgumentEncoder,
    ) -> Result<T, Reject> {
        let args = candid::encode_args(args).unwrap();
        let reply = self.icllama.host.call(CallKind::Update, self.id, Principal::anonymous(), method, &args)?;
        Ok(candid::decode_one(&reply).unwrap())
    }

    fn converse(&mut self) -> Result<Option<String>, Reject> {
        self.call("converse", (self.icllama.canister, "Who are you?"))
    }

    fn sessions(&mut self) -> usize {
        let all = SessionListArg { all: Some(true), ..SessionListArg::default() };
        self.icllama.session_list(all).unwrap().sessions.len()
    }
}

fn listed_users() -> ConfigUpdate {
    ConfigUpdate { generate_access: Some(GenerateAccess::AllowList), ..ConfigUpdate::default() }
}

/// What a session says to the same conversation.
fn expected<H: Host + ?Sized>(icllama: &mut Icllama<H>, messages: Vec<ChatMessage>) -> String {
    let options = SessionOptions { max_tokens: Some(512), ..SessionOptions::default() };
    let arg = SessionCreateArg { input: SessionInput::Messages(messages), options };
    let session_id = icllama.session_create(arg).unwrap().session_id;
    icllama.finish(session_id, &mut full);
    let text = icllama.generation(session_id).text;
    icllama.session_delete(SessionIdArg { session_id }).unwrap();
    text
}

fn brief(question: &str) -> Vec<ChatMessage> {
    let text = |content: &str| MessageText { content: content.into() };
    vec![ChatMessage::System(text("Be brief.")), ChatMessage::User(text(question))]
}

#[test]
fn an_unchanged_application_is_answered_at_the_id_that_it_knows() {
    let mut host = ShimHost::new();
    let id = Principal::from_text(LLM_CANISTER).unwrap();
    host.create_at(id, controller());
    let arg = candid::encode_one(Some(InitArg { config: Some(listed_users()) })).unwrap();
    host.install(id, InstallMode::Install, canister_module(), &arg, controller()).unwrap();
    let mut app = App::beside(Icllama { host: Box::new(host), canister: id, sender: controller() });
    let answer: String = app.call("ask", ("Who are you?",)).unwrap();
    let question = ChatMessage::User(MessageText { content: "Who are you?".into() });
    assert_eq!(answer, expected(&mut app.icllama, vec![question]));
    assert!(answer.len() > 100, "{answer}");
}

#[test]
fn an_answer_of_many_messages_is_one_answer() {
    for icllama in Icllama::everywhere(listed_users()) {
        let mut app = App::beside(icllama);
        let expected = expected(&mut app.icllama, brief("Who are you?"));
        let mut converse = |max_instructions| {
            let ceiling = ConfigUpdate { max_instructions: Some(max_instructions), ..ConfigUpdate::default() };
            app.icllama.config_set(ceiling).unwrap();
            app.icllama.host.heaviest_message();
            assert_eq!(app.converse().unwrap().unwrap(), expected);
            app.icllama.host.heaviest_message()
        };
        if let (Some(whole), Some(part)) = (converse(36_000_000_000), converse(2_000_000)) {
            assert!(whole > 5 * part, "{whole} instructions in one message, {part} in the largest of many");
        }
        assert_eq!(app.sessions(), 0);
    }
}

#[test]
fn refusals_reach_the_caller_as_rejects_and_leave_nothing() {
    for icllama in Icllama::everywhere(listed_users()) {
        let mut app = App::beside(icllama);
        let tool = app.call::<Option<String>>("converse_with_tool", (app.icllama.canister, "Is it raining?"));
        assert!(tool.unwrap_err().message.contains("field tools is not acceptable"));
        app.icllama.config_set(ConfigUpdate { users: Some(vec![]), ..ConfigUpdate::default() }).unwrap();
        let stranger = app.converse().unwrap_err();
        assert!(stranger.message.contains("the caller needs the role User"), "{stranger:?}");
        app.icllama.config_set(ConfigUpdate { users: Some(vec![app.id]), ..ConfigUpdate::default() }).unwrap();
        app.icllama.upgrade();
        let loading = app.converse().unwrap_err();
        assert!(loading.message.contains("the model is loading"), "{loading:?}");
        app.icllama.wait_until_ready();
        assert!(app.converse().unwrap().is_some());
        assert_eq!(app.sessions(), 0);
    }
}

#[test]
fn version_0_answers_with_the_text_alone_and_users_may_call_too() {
    for mut icllama in Icllama::everywhere(listed_users()) {
        icllama.serve("model", &tiny(1).build());
        let messages = vec![
            LlmMessageV0 { role: LlmRole::System, content: "Be brief.".into() },
            LlmMessageV0 { role: LlmRole::User, content: "Who are you?".into() },
        ];
        let arg = candid::encode_one(LlmRequestV0 { model: "llama3.1:8b".into(), messages }).unwrap();
        let reply = icllama.host.call(CallKind::Update, icllama.canister, controller(), "v0_chat", &arg).unwrap();
        let text: String = candid::decode_one(&reply).unwrap();
        assert_eq!(text, expected(&mut icllama, brief("Who are you?")));
        let refused = icllama.host.call(CallKind::Update, icllama.canister, Principal::anonymous(), "v0_chat", &arg);
        assert_eq!(refused.unwrap_err().error_code, 406);
    }
}

#[test]
fn nobody_else_takes_the_canisters_own_steps() {
    for mut icllama in Icllama::everywhere(listed_users()) {
        icllama.serve("model", &tiny(1).build());
        let arg = candid::encode_one(1u64).unwrap();
        let call = |icllama: &mut Icllama, sender| {
            icllama.host.call(CallKind::Update, icllama.canister, sender, "chat_step", &arg)
        };
        for sender in [Principal::anonymous(), controller()] {
            assert_eq!(call(&mut icllama, sender).unwrap_err().error_code, 406);
        }
    }
}
