//! Input that no honest client sends: everything is refused with a reason, nothing traps, nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use canister::api::*;
use end_to_end::{CallKind, Icllama, METHODS, ask, audited, full, tiny};
use model_core::fixtures::{SplitMix64, TinyLlama};
use model_core::gguf::GgmlType;

#[test]
fn bytes_that_are_no_candid_are_rejected_by_every_method() {
    let mut random = SplitMix64::new(1);
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let before = icllama.model_status();
        for (kind, method) in METHODS.iter().filter(|(_, method)| *method != "config_get") {
            let noise: Vec<u8> = (0..200).map(|_| random.next_u64() as u8).collect();
            let wrong_type = candid::encode_one("text instead of a record").unwrap();
            // A vector of 2^40 empty values: tiny on the wire.
            let bomb = b"DIDL\x01\x6d\x7f\x01\x00\x80\x80\x80\x80\x80\x20".to_vec();
            for arg in [noise, wrong_type, bomb, b"DIDL".to_vec()] {
                let reject = icllama.host.call(*kind, icllama.canister, icllama.sender, method, &arg).unwrap_err();
                assert!(reject.message.contains("cannot be decoded"), "{method}: {reject:?}");
            }
        }
        let heaviest = icllama.host.heaviest_message();
        assert!(heaviest.is_none_or(|heaviest| heaviest < 2_000_000_000), "{heaviest:?}");
        assert_eq!(icllama.model_status(), ModelStatus { heap_bytes: icllama.model_status().heap_bytes, ..before });
    }
}

#[test]
fn methods_that_do_not_exist_are_rejected() {
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        for kind in [CallKind::Update, CallKind::Query] {
            let reject = icllama.host.call(kind, icllama.canister, icllama.sender, "format_disk", b"DIDL\0\0");
            assert_eq!(reject.unwrap_err().error_code, 536);
        }
    }
}

#[test]
fn sessions_without_a_model_are_refused() {
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        assert_eq!(icllama.session_create(ask("hello", 1)), Err(Error::ModelMissing));
        assert_eq!(icllama.model_load_step(ModelLoadStepArg::default()), Err(Error::ModelMissing));
    }
}

/// Thousands of rules in a chain that bites its tail, the worst case of looking for left recursion.
fn circles() -> String {
    let rule = |i: u32| format!("a{i} ::= a{} | b{i} \nb{i} ::= \"\"\n", (i + 1) % 1_500);
    (0..1_500).map(rule).chain(["root ::= a7".to_owned()]).collect()
}

/// Sessions that cannot be.
fn impossible_sessions() -> Vec<SessionCreateArg> {
    let with = |options| SessionCreateArg { input: SessionInput::Text("hello".into()), options };
    let options = || audited(4);
    let message = |content: &str| MessageText { content: content.into() };
    vec![
        with(SessionOptions { temperature: Some(f32::NAN), ..options() }),
        with(SessionOptions { temperature: Some(-1.0), ..options() }),
        with(SessionOptions { top_p: Some(1.5), ..options() }),
        with(SessionOptions { min_p: Some(f32::INFINITY), ..options() }),
        with(SessionOptions { repeat_penalty: Some(0.0), ..options() }),
        with(SessionOptions { frequency_penalty: Some(f32::NEG_INFINITY), ..options() }),
        with(SessionOptions { prefill_batch: Some(0), ..options() }),
        with(SessionOptions { logprobs: Some(21), ..options() }),
        with(SessionOptions { grammar: Some(Grammar::Gbnf("root ::= root".into())), ..options() }),
        with(SessionOptions { grammar: Some(Grammar::Gbnf("(".repeat(60_000))), ..options() }),
        with(SessionOptions { grammar: Some(Grammar::Gbnf(" ".repeat(70_000))), ..options() }),
        with(SessionOptions { grammar: Some(Grammar::Gbnf(circles())), ..options() }),
        with(SessionOptions { prefill_batch: Some(u32::MAX), ..options() }),
        with(SessionOptions { stop: Some(vec![String::new()]), ..options() }),
        with(SessionOptions { stop: Some(vec!["x".into(); 10_000]), ..options() }),
        SessionCreateArg { input: SessionInput::Text(String::new()), options: options() },
        SessionCreateArg { input: SessionInput::Tokens(Vec::new()), options: options() },
        SessionCreateArg { input: SessionInput::Tokens(vec![1, 320]), options: options() },
        SessionCreateArg { input: SessionInput::Tokens(vec![u32::MAX]), options: options() },
        SessionCreateArg { input: SessionInput::Tokens(vec![1; 128]), options: options() },
        SessionCreateArg { input: SessionInput::Tokens(vec![1; 300_000]), options: options() },
        SessionCreateArg { input: SessionInput::Text("a".repeat(1_900_000)), options: options() },
        SessionCreateArg { input: SessionInput::Text("日本語".repeat(20_000)), options: options() },
        SessionCreateArg {
            input: SessionInput::Messages(vec![ChatMessage::User(message(&"so ".repeat(9_000))); 20]),
            options: options(),
        },
    ]
}

#[test]
fn impossible_sessions_are_refused_and_leave_no_trace() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&ask("hello", 4), &mut full);
        let sessions = icllama.session_list(SessionListArg::default()).unwrap();
        for (index, arg) in impossible_sessions().into_iter().enumerate() {
            let refused = icllama.session_create(arg);
            assert!(refused.is_err(), "number {index} was accepted: {refused:?}");
        }
        assert_eq!(icllama.session_list(SessionListArg::default()).unwrap(), sessions);
        assert_eq!(icllama.generate(&ask("hello", 4), &mut full), expected);
    }
}

#[test]
fn ambiguous_grammars_cost_little_or_are_an_error() {
    let file = tiny(1).build();
    let wide = format!("root ::= ({})*", ["\"a\"* \"b\"*"; 2_000].join(" "));
    let nested = format!("root ::= {}[a-z]{}", "(".repeat(60), "*)*".repeat(60));
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        icllama.host.heaviest_message();
        // The last one leads nowhere, since tokens that end answers are not to come.
        for grammar in [wide.as_str(), &nested, "root ::= \"\""] {
            let options = SessionOptions { grammar: Some(Grammar::Gbnf(grammar.into())), ..audited(20) };
            let arg = SessionCreateArg { input: SessionInput::Text("hello".into()), options };
            let session_id = icllama.session_create(arg).unwrap().session_id;
            let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
            match icllama.session_advance(arg) {
                Ok(progress) => {
                    assert!(progress.text.bytes().all(|byte| byte.is_ascii_lowercase()) && grammar.len() > 11);
                }
                Err(error) => {
                    assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "grammar"));
                    let status = icllama.session_cancel(SessionIdArg { session_id }).unwrap();
                    assert_eq!(status.state, SessionState::Finished(FinishReason::GrammarFailed));
                }
            }
        }
        let heaviest = icllama.host.heaviest_message();
        assert!(heaviest.is_none_or(|heaviest| heaviest < 20_000_000_000), "{heaviest:?}");
        assert_eq!(icllama.generate(&ask("hello", 4), &mut full).digests.len(), 4);
    }
}

#[test]
fn a_model_without_a_chat_template_takes_text_only() {
    let file = TinyLlama { seed: 2, ..TinyLlama::without_chat() }.build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        assert!(!icllama.model_status().serving.unwrap().has_chat_template);
        let arg = SessionCreateArg { input: end_to_end::chat("a", "b"), options: audited(2) };
        assert_eq!(icllama.session_create(arg), Err(Error::NoChatTemplate));
        assert_eq!(icllama.generate(&ask("hello", 4), &mut full).digests.len(), 4);
    }
}

#[test]
fn endless_and_broken_templates_are_refused() {
    let endless = "{% for i in range(99999999) %}{% for j in range(99999999) %}x{% endfor %}{% endfor %}";
    let broken = "{{ messages[0].content.missing.missing }}";
    for (number, template) in [endless, broken, "{{ raise_exception('no') }}"].into_iter().enumerate() {
        let file = TinyLlama { chat_template: Some(template.into()), ..tiny(3) }.build();
        for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
            icllama.serve("model", &file);
            icllama.host.heaviest_message();
            let arg = SessionCreateArg { input: end_to_end::chat("a", "b"), options: audited(2) };
            let refused = icllama.session_create(arg);
            assert!(matches!(refused, Err(Error::Model { .. })), "number {number}: {refused:?}");
            let heaviest = icllama.host.heaviest_message();
            assert!(heaviest.is_none_or(|heaviest| heaviest < 20_000_000_000), "{heaviest:?}");
        }
    }
}

#[test]
fn damaged_models_are_rejected_with_a_reason() {
    let good = tiny(4);
    let whole = good.build();
    let truncated = whole[..whole.len() - 100].to_vec();
    let nameless = good.builder().kv("general.architecture", "other").build();
    let unsupported = good.builder().tensor_raw(Default::default()).build();
    let mut cut_header = whole.clone();
    cut_header.truncate(500);
    let wrong_shape = TinyLlama { types: vec![("attn_q.weight", GgmlType::F32)], ..tiny(5) }
        .builder()
        .tensor("blk.0.attn_q.weight", &[32, 32], GgmlType::F32, vec![0; 32 * 32 * 4])
        .build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("good", &whole);
        let expected = icllama.generate(&ask("hello", 4), &mut full);
        for (name, file) in [
            ("truncated", &truncated),
            ("of another architecture", &nameless),
            ("with a nameless tensor", &unsupported),
            ("cut", &cut_header),
            ("misshapen", &wrong_shape),
        ] {
            icllama.store(name, file);
            icllama.wait_until("the file is rejected", |icllama| {
                icllama.model_status().rejected.is_some_and(|rejected| rejected.model.name == name)
            });
            icllama.wait_until_ready();
            assert!(icllama.model_status().rejected.unwrap().message.len() > 10, "{name}");
            assert_eq!(icllama.generate(&ask("hello", 4), &mut full), expected, "{name}");
        }
    }
}

#[test]
fn a_model_of_numbers_that_are_not_finite_is_an_answer() {
    let good = TinyLlama { ty: GgmlType::F32, ..tiny(6) };
    let mut file = good.build();
    // The last tensor is output_norm.weight: f32 values at the end of the file.
    let end = file.len() - 64;
    file[end..end + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.store("not finite", &file);
        icllama.wait_until("the file is loaded or rejected", |icllama| {
            let status = icllama.model_status();
            status.rejected.is_some() || status.load == LoadState::Ready
        });
        let refused = icllama.session_create(ask("hello", 3)).and_then(|created| {
            let session_id = created.session_id;
            icllama.session_advance(SessionAdvanceArg {
                session_id,
                max_instructions: None,
                max_tokens: None,
                profile: None,
            })
        });
        assert!(refused.is_err(), "{refused:?}");
        icllama.serve("good", &good.build());
        assert_eq!(icllama.generate(&ask("hello", 4), &mut full).digests.len(), 4);
    }
}

#[test]
fn stop_strings_and_cancelling_end_a_session() {
    let file = tiny(7).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let whole = icllama.generate(&ask("hello world", 30), &mut full);
        let middle: String = whole.text.chars().skip(6).take(2).collect();
        assert_eq!(middle.chars().count(), 2, "{whole:?}");
        let mut question = ask("hello world", 30);
        question.options.stop = Some(vec!["never".into(), middle.clone()]);
        let stopped = icllama.generate(&question, &mut || Some(1));
        assert_eq!(stopped.finish, Some(FinishReason::StopString));
        assert_eq!(stopped.text, whole.text.split_once(&middle).unwrap().0);
        assert_eq!(stopped.digests, whole.digests[..stopped.digests.len()]);

        let session_id = icllama.session_create(ask("hello world", 30)).unwrap().session_id;
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(5), profile: None };
        icllama.session_advance(arg).unwrap();
        icllama.session_run(SessionIdArg { session_id }).unwrap();
        let status = icllama.session_cancel(SessionIdArg { session_id }).unwrap();
        assert_eq!((status.state, status.running), (SessionState::Finished(FinishReason::Cancelled), false));
        icllama.host.advance(std::time::Duration::from_secs(5));
        let cancelled = icllama.generation(session_id);
        assert_eq!(cancelled.digests, whole.digests[..5]);
        // Cancelled, it can be continued; deleted, it is gone.
        let input = SessionInput::Text(" and".into());
        icllama.session_append(SessionAppendArg { session_id, input, max_tokens: Some(2) }).unwrap();
        icllama.finish(session_id, &mut full);
        assert_eq!(icllama.generation(session_id).digests.len(), 7);
        icllama.session_delete(SessionIdArg { session_id }).unwrap();
        let gone = icllama.session_output(SessionOutputArg { session_id, from: 0 });
        assert_eq!(gone, Err(Error::SessionNotFound { session_id }));
    }
}

#[test]
fn pages_of_tokens_and_text_join_to_the_whole() {
    let file = tiny(8).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let session_id = icllama.session_create(ask("hello world", 20)).unwrap().session_id;
        icllama.finish(session_id, &mut full);
        let whole = icllama.generation(session_id);
        let (mut tokens, mut digests) = (Vec::new(), Vec::new());
        for from in (0..whole.tokens.len() as u32).step_by(7) {
            let page = SessionPageArg { session_id, from: Some(from), limit: Some(7) };
            let answer = icllama.session_tokens(page).unwrap();
            assert_eq!(answer.total as usize, whole.tokens.len());
            tokens.extend(answer.tokens);
            digests.extend(icllama.session_digests(page).unwrap().digests);
        }
        assert_eq!((tokens, digests), (whole.tokens, whole.digests));
        for from in (0..whole.text.len() as u64 + 3).chain([u64::MAX]) {
            let output = icllama.session_output(SessionOutputArg { session_id, from });
            match usize::try_from(from).ok().and_then(|from| whole.text.get(from..)) {
                Some(rest) => assert_eq!(output.unwrap().text, rest),
                // Beyond the text, or inside a character.
                None => assert!(
                    matches!(&output, Err(Error::InvalidArgument { field, .. }) if field == "from"),
                    "{output:?}"
                ),
            }
        }
        let page = SessionPageArg { session_id, from: Some(u32::MAX), limit: Some(u32::MAX) };
        assert_eq!(icllama.session_tokens(page).unwrap().tokens, Vec::<u32>::new());
    }
}
