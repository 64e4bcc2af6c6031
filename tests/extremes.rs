//! Arguments at the ends of what their types can say, prompts that are as long or as strange as can be sent, templates that
//! an operator should not have set: every call is answered, and the canister goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure is a failed test")]

use candid::{CandidType, Reserved};
use canister::api::*;
use end_to_end::{CallKind, Icllama, ask, audited, chat, full, tiny};

const NUMBERS: [u64; 6] = [0, 1, i32::MAX as u64, u32::MAX as u64, 1 << 63, u64::MAX];
const FLOATS: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, f32::MIN_POSITIVE];

/// A call whose answer does not matter, as long as there is one.
struct Call(CallKind, &'static str, Vec<u8>);

fn update<T: CandidType>(method: &'static str, argument: T) -> Call {
    Call(CallKind::Update, method, candid::encode_one(argument).unwrap())
}

fn query<T: CandidType>(method: &'static str, argument: T) -> Call {
    Call(CallKind::Query, method, candid::encode_one(argument).unwrap())
}

/// Every number of every argument but those of sessions' options and settings, at its limits.
fn calls(session_id: u64) -> Vec<Call> {
    let calls = NUMBERS.into_iter().flat_map(|number| {
        let (wide, narrow) = (Some(number), Some(number as u32));
        let page = SessionPageArg { session_id, from: narrow, limit: narrow };
        let none = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(1), profile: None };
        let begin = UploadBeginArg { name: "far".into(), total_bytes: number, sha256: vec![number as u8; 32] };
        let input = || SessionInput::Tokens(vec![number as u32]);
        [
            update("upload_begin", begin),
            update("upload_chunk", UploadChunkArg { upload_id: number, offset: number, bytes: vec![1] }),
            query("upload_status", UploadStatusArg { from: wide, limit: narrow }),
            update("upload_commit", UploadCommitArg { upload_id: number, max_instructions: wide }),
            update("upload_abort", UploadIdArg { upload_id: number }),
            update("model_load_step", ModelLoadStepArg { max_instructions: wide }),
            update("session_advance", SessionAdvanceArg { session_id: number, ..none }),
            update("session_advance", SessionAdvanceArg { max_instructions: wide, ..none }),
            update("session_advance", SessionAdvanceArg { max_tokens: narrow.map(|n| n.min(1)), ..none }),
            update("session_append", SessionAppendArg { session_id, input: input(), max_tokens: narrow }),
            query("session_output", SessionOutputArg { session_id, from: number }),
            query("session_output", SessionOutputArg { session_id: number, from: number }),
            query("session_tokens", page),
            query("session_digests", page),
            query("session_logprobs", page),
            query("session_logits", SessionIdArg { session_id: number }),
            query("session_list", SessionListArg { after: wide, limit: narrow, all: Some(true) }),
            update("session_run", SessionIdArg { session_id: number }),
            update("session_cancel", SessionIdArg { session_id: number }),
            update("session_delete", SessionIdArg { session_id: number }),
        ]
    });
    calls.collect()
}

#[test]
fn numbers_at_their_limits_are_answered() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&ask("hello", 3), &mut full);
        let session_id = icllama.session_create(ask("hello", 3)).unwrap().session_id;
        for Call(kind, method, argument) in calls(session_id) {
            let reply = icllama.host.call(kind, icllama.canister, icllama.sender, method, &argument);
            let reply = reply.unwrap_or_else(|reject| panic!("{method}: {reject:?}"));
            // An answer of either kind.
            assert!(candid::decode_one::<Result<Reserved, Error>>(&reply).is_ok(), "{method}");
        }
        assert_eq!(icllama.generate(&ask("hello", 3), &mut full), expected);
    }
}

/// Every number of a session's options, at its limits.
fn option_limits() -> Vec<SessionOptions> {
    let numbers = NUMBERS.into_iter().flat_map(|number| {
        let (narrow, options) = (Some(number as u32), audited(2));
        [
            SessionOptions { max_tokens: narrow, ..options.clone() },
            SessionOptions { top_k: narrow, ..options.clone() },
            SessionOptions { repeat_last_n: narrow, repeat_penalty: Some(1.5), ..options.clone() },
            SessionOptions { seed: Some(number), temperature: Some(1.0), ..options.clone() },
            SessionOptions { kv_cache_bits: Some(number as u8), ..options.clone() },
            SessionOptions { prefill_batch: narrow, ..options.clone() },
            SessionOptions { logprobs: narrow, ..options.clone() },
            SessionOptions { now_seconds: Some(number as i64), ..options },
        ]
    });
    let floats = FLOATS.into_iter().flat_map(|float| {
        let (float, options) = (Some(float), SessionOptions { temperature: Some(1.0), ..audited(2) });
        [
            SessionOptions { temperature: float, ..options.clone() },
            SessionOptions { top_p: float, ..options.clone() },
            SessionOptions { min_p: float, ..options.clone() },
            SessionOptions { repeat_penalty: float, ..options.clone() },
            SessionOptions { frequency_penalty: float, ..options.clone() },
            SessionOptions { presence_penalty: float, ..options },
        ]
    });
    numbers.chain(floats).collect()
}

#[test]
fn options_at_their_limits_are_obeyed_or_refused_by_name() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        for options in option_limits() {
            let arg = SessionCreateArg { input: chat("hello", "there"), options: options.clone() };
            let session_id = match icllama.session_create(arg) {
                Ok(created) => created.session_id,
                Err(Error::InvalidArgument { field, .. }) => {
                    assert!(!field.is_empty(), "{options:?}");
                    continue;
                }
                Err(Error::LimitExceeded { .. } | Error::Model { .. }) => continue,
                Err(error) => panic!("{options:?}: {error}"),
            };
            let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(2), profile: None };
            let advanced = icllama.session_advance(arg);
            assert!(advanced.is_ok(), "{options:?}: {advanced:?}");
            icllama.session_delete(SessionIdArg { session_id }).unwrap();
        }
    }
}

/// Every number of the settings, at its limits.
fn setting_limits() -> Vec<ConfigUpdate> {
    let settings = NUMBERS.into_iter().flat_map(|number| {
        let (wide, narrow, none) = (Some(number), Some(number as u32), ConfigUpdate::default());
        [
            ConfigUpdate { max_instructions: wide, ..none.clone() },
            ConfigUpdate { cache_heap_bytes: wide, ..none.clone() },
            ConfigUpdate { max_heap_bytes: wide, ..none.clone() },
            ConfigUpdate { max_sessions: narrow, ..none.clone() },
            ConfigUpdate { max_sessions_per_principal: narrow, ..none.clone() },
            ConfigUpdate { max_tokens_per_day: wide, ..none.clone() },
            ConfigUpdate { max_runs_per_principal: narrow, ..none.clone() },
            ConfigUpdate { session_ttl_seconds: wide, ..none.clone() },
            ConfigUpdate { cycles_floor: wide, ..none.clone() },
            ConfigUpdate { max_input_bytes: narrow, ..none.clone() },
            ConfigUpdate { max_session_tokens: narrow, ..none },
        ]
    });
    settings.collect()
}

#[test]
fn settings_at_their_limits_are_taken_or_refused_by_name_and_can_be_taken_back() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&ask("hello", 3), &mut full);
        let usual = icllama.config_get().unwrap();
        for update in setting_limits() {
            match icllama.config_set(update.clone()) {
                Ok(_) => {}
                Err(Error::InvalidArgument { field, .. }) => {
                    assert!(format!("{update:?}").contains(&field), "{field}");
                    assert_eq!(icllama.config_get().unwrap(), usual, "{update:?}");
                    continue;
                }
                Err(error) => panic!("{update:?}: {error}"),
            }
            // Whether there can be sessions now or not, there is an answer.
            if let Ok(created) = icllama.session_create(ask("hello", 1)) {
                let session_id = created.session_id;
                let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
                let _ = icllama.session_advance(arg);
                icllama.session_delete(SessionIdArg { session_id }).unwrap();
            }
            assert_eq!(icllama.config_set(usual.to_update()).unwrap(), usual);
        }
        icllama.upgrade();
        icllama.wait_until_ready();
        assert_eq!(icllama.generate(&ask("hello", 3), &mut full), expected);
    }
}

/// Prompts that cost most to take apart, or that hold what prompts do not.
fn strange_prompts() -> Vec<String> {
    let million = 1_000_000;
    vec![
        "a".repeat(million),
        " ".repeat(million),
        "hello world ".repeat(million / 12),
        // One word in which every pair merges.
        "hell".repeat(million / 4),
        "\n\t\r\u{b}\u{0}\u{7f}\u{85}".repeat(million / 8),
        "<|im_start|>".repeat(million / 12),
        "<|im_".repeat(million / 5),
        "e\u{301}\u{327}\u{302}".repeat(million / 7),
        "\u{202e}\u{feff}\u{10ffff}".repeat(million / 10),
        "1".repeat(million),
        (0..=0x1f_u8).map(char::from).collect(),
        "\u{0}".into(),
    ]
}

#[test]
fn prompts_of_a_million_bytes_are_answered_within_a_message() {
    let file = tiny(1).build();
    let config =
        ConfigUpdate { max_input_bytes: Some(2 << 20), max_session_tokens: Some(1 << 20), ..ConfigUpdate::default() };
    for mut icllama in Icllama::everywhere(config) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&ask("hello", 3), &mut full);
        icllama.host.heaviest_message();
        for prompt in strange_prompts() {
            let start: String = prompt.chars().take(8).collect();
            for input in [SessionInput::Text(prompt.clone()), chat("a", &prompt)] {
                let arg = SessionCreateArg { input, options: audited(2) };
                match icllama.session_create(arg) {
                    Ok(created) => {
                        let session_id = created.session_id;
                        icllama.finish(session_id, &mut full);
                        icllama.session_delete(SessionIdArg { session_id }).unwrap();
                    }
                    Err(Error::InvalidArgument { .. } | Error::LimitExceeded { .. }) => {}
                    Err(error) => panic!("{start:?}: {error}"),
                }
            }
        }
        let heaviest = icllama.host.heaviest_message();
        assert!(heaviest.is_none_or(|heaviest| heaviest < 38_000_000_000), "{heaviest:?}");
        assert_eq!(icllama.generate(&ask("hello", 3), &mut full), expected);
    }
}

#[test]
fn stop_strings_of_ten_thousand_bytes_are_refused_and_long_ones_obeyed() {
    let file = tiny(1).build();
    let stopping = |stop: String| SessionOptions { stop: Some(vec![stop]), ..audited(6) };
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&ask("hello", 6), &mut full);
        let mut create = |stop: String| {
            let input = SessionInput::Text("hello".into());
            icllama.session_create(SessionCreateArg { input, options: stopping(stop) })
        };
        for long in ["x".repeat(10_000), "日".repeat(10_000), "\0".repeat(10_000)] {
            let refused = create(long);
            assert!(matches!(&refused, Err(Error::InvalidArgument { .. })), "{refused:?}");
        }
        let session_id = create("x".repeat(1_000)).unwrap().session_id;
        icllama.finish(session_id, &mut full);
        assert_eq!(icllama.generation(session_id).digests, expected.digests);
    }
}

#[test]
fn templates_without_an_end_refuse_conversations_and_nothing_else() {
    let nested = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let recursive = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    let mutual = "{% macro a(n) %}{{ b(n) }}{% endmacro %}{% macro b(n) %}{{ a(n) }}{% endmacro %}{{ a(1) }}";
    let endless = "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}";
    let huge = "{{ 'x' * 999999999999 }}";
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&ask("hello", 3), &mut full);
        icllama.host.heaviest_message();
        for template in [nested, recursive, mutual, endless, huge] {
            icllama.config_set(ConfigUpdate { chat_template: Some(template.into()), ..Default::default() }).unwrap();
            let refused = icllama.session_create(SessionCreateArg { input: chat("a", "b"), options: audited(2) });
            assert!(matches!(&refused, Err(Error::Model { .. })), "{template}: {refused:?}");
            assert_eq!(icllama.generate(&ask("hello", 3), &mut full), expected);
        }
        let heaviest = icllama.host.heaviest_message();
        assert!(heaviest.is_none_or(|heaviest| heaviest < 38_000_000_000), "{heaviest:?}");
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000));
        for broken in ["{% if %}".to_owned(), deep, "{".repeat(70_000)] {
            let refused = icllama.config_set(ConfigUpdate { chat_template: Some(broken), ..Default::default() });
            assert!(matches!(&refused, Err(Error::InvalidArgument { field, .. }) if field == "chat_template"));
        }
    }
}
