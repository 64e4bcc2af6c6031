//! Budgets in the real canister: however little a call may compute, it makes progress, and what comes out
//! in the end has the same bits; however much it may, it stays below the platform's limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::time::Duration;

use canister::api::*;
use end_to_end::{Host, Icllama, ask, audited, chat, full, is_finished, random_budgets, tiny};
use model_core::fixtures::TinyLlama;

/// What the platform allows one message.
const MESSAGE_LIMIT: u64 = 40_000_000_000;

fn advance<H: Host + ?Sized>(icllama: &mut Icllama<H>, session_id: u64, max_instructions: u64) -> SessionProgress {
    let max_instructions = Some(max_instructions);
    icllama
        .session_advance(SessionAdvanceArg { session_id, max_instructions, max_tokens: None, profile: None })
        .unwrap()
}

fn question() -> SessionCreateArg {
    let options = SessionOptions { temperature: Some(0.9), seed: Some(3), ..audited(12) };
    SessionCreateArg { input: chat("Be brief.", "hello the world and all in it"), options }
}

#[test]
fn any_sequence_of_budgets_gives_the_same_bits() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&question(), &mut full);
        assert_eq!((expected.digests.len(), expected.finish), (12, Some(FinishReason::Length)));
        assert_eq!(icllama.generate(&question(), &mut || Some(1)), expected);
        for seed in 0..8 {
            assert_eq!(icllama.generate(&question(), &mut random_budgets(seed, 1 << 24)), expected, "seed {seed}");
        }
        // Prompt batches of other sizes cost differently and mean the same.
        for prefill_batch in [1, 3, 32] {
            let mut other = question();
            other.options.prefill_batch = Some(prefill_batch);
            assert_eq!(icllama.generate(&other, &mut random_budgets(9, 1 << 24)), expected, "batch {prefill_batch}");
        }
    }
}

#[test]
fn interleaved_sessions_do_not_disturb_each_other() {
    let file = tiny(2).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let questions = ["hello", "the world in the end", "a b c d e f g h"].map(|text| ask(text, 10));
        let expected = questions.each_ref().map(|question| icllama.generate(question, &mut full));
        let ids = questions.map(|question| icllama.session_create(question).unwrap().session_id);
        let mut budgets = random_budgets(5, 1 << 22);
        let mut open = ids.to_vec();
        while !open.is_empty() {
            open.retain(|id| !is_finished(&advance(&mut icllama, *id, budgets().unwrap()).status));
        }
        assert_eq!(ids.map(|id| icllama.generation(id)), expected);
    }
}

#[test]
fn the_smallest_budget_makes_progress_with_every_call() {
    let file = TinyLlama { layers: 3, ..tiny(3) }.build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let session_id = icllama.session_create(question()).unwrap().session_id;
        let mut calls = 0_u32;
        let mut cached = 0;
        let mut generated = 0;
        let mut text = String::new();
        loop {
            let progress = advance(&mut icllama, session_id, 1);
            calls += 1;
            assert!(progress.status.cached_tokens >= cached && progress.status.generated_tokens >= generated);
            assert_eq!(progress.text_from, text.len() as u64);
            text.push_str(&progress.text);
            (cached, generated) = (progress.status.cached_tokens, progress.status.generated_tokens);
            if is_finished(&progress.status) {
                break;
            }
        }
        // A call computes one layer of one batch at least, so these are the most calls there can be:
        // layers and head for each batch of the prompt and each token.
        let prompt = icllama.generation(session_id).prompt_tokens;
        assert!(calls <= (3 + 1) * (prompt + 12), "{calls} calls for {prompt} tokens of prompt");
        assert!(calls > (3 + 1) * 12 / 2, "{calls} calls: budgets are not kept");
        assert_eq!(icllama.generation(session_id).text, text);
        let after = advance(&mut icllama, session_id, 1);
        assert!(after.tokens.is_empty() && is_finished(&after.status));
    }
}

#[test]
fn a_call_uses_about_what_it_was_given() {
    // Wide enough that computing outweighs saving and replying.
    let file = TinyLlama { dim: 512, hidden: 1536, heads: 8, kv_heads: 4, head_dim: 64, ..tiny(4) }.build();
    let mut icllama = Icllama::install(Box::new(end_to_end::ShimHost::new()), ConfigUpdate::default());
    icllama.serve("model", &file);
    for budget in [20_000_000, 50_000_000, 110_000_000] {
        let session_id = icllama.session_create(ask("hello world", 60)).unwrap().session_id;
        let mut unfinished = 0;
        loop {
            icllama.host.heaviest();
            let progress = advance(&mut icllama, session_id, budget);
            let message = icllama.host.heaviest();
            assert!(progress.instructions <= message);
            assert!(message < budget * 11 / 10, "{message} instructions with a budget of {budget}");
            if is_finished(&progress.status) {
                break;
            }
            assert!(message > budget / 2, "only {message} instructions with a budget of {budget}");
            unfinished += 1;
        }
        assert!(unfinished >= 2, "budget {budget} is not a limit here");
    }
}

#[test]
fn limits_of_tokens_and_instructions_hold_together() {
    let file = tiny(5).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let expected = icllama.generate(&question(), &mut full);
        let session_id = icllama.session_create(question()).unwrap().session_id;
        let mut tokens = Vec::new();
        for max_tokens in [1, 3, 2, 6] {
            let arg =
                SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(max_tokens), profile: None };
            let progress = icllama.session_advance(arg).unwrap();
            assert_eq!(progress.tokens.len(), max_tokens as usize);
            tokens.extend(progress.tokens);
        }
        assert_eq!(tokens, expected.tokens[expected.prompt_tokens as usize..]);
        assert_eq!(icllama.generation(session_id), expected);
    }
}

#[test]
fn an_evicted_session_computes_its_history_again() {
    let file = TinyLlama { layers: 8, head_dim: 128, kv_heads: 4, context: 2048, ..tiny(6) }.build();
    // Keys and values: 8 layers × 4 heads × 128 × 2 × 2 bytes = 16 KiB for each position, scales besides, taken for 32
    // at a time: the cache has room for one of the two sessions.
    let config = ConfigUpdate {
        cache_heap_bytes: Some(1 << 20),
        kv_cache_bits: Some(KvCacheBits::Bits16),
        ..ConfigUpdate::default()
    };
    for mut icllama in Icllama::everywhere(config) {
        icllama.serve("model", &file);
        let questions = ["hello the world in the end", "a b c d e f"].map(|text| ask(text, 15));
        let expected = questions.each_ref().map(|question| icllama.generate(question, &mut full));
        let ids = questions.map(|question| icllama.session_create(question).unwrap().session_id);
        for round in 0..7 {
            for id in ids {
                let arg =
                    SessionAdvanceArg { session_id: id, max_instructions: None, max_tokens: Some(2), profile: None };
                if (round, id) != (0, ids[0]) {
                    // The other session's client may come back for its cache.
                    let refused = icllama.session_advance(arg);
                    assert!(matches!(refused, Err(Error::HeapBusy { .. })), "{refused:?}");
                }
                icllama.host.advance(Duration::from_secs(60));
                let progress = icllama.session_advance(arg).unwrap();
                assert_eq!(progress.status.generated_tokens, 2 * (round + 1));
                let cached = ids.map(|id| {
                    let output = icllama.session_output(SessionOutputArg { session_id: id, from: 0 }).unwrap();
                    output.status.cached_tokens > 0
                });
                assert_eq!(cached, ids.map(|other| other == id), "only the one in use is kept");
            }
        }
        for id in ids {
            icllama.host.advance(Duration::from_secs(60));
            icllama.finish(id, &mut full);
        }
        assert_eq!(ids.map(|id| icllama.generation(id)), expected);
    }
}

#[test]
fn loading_and_verifying_keep_their_budgets_too() {
    // A vocabulary large enough that reading it is some work.
    let file = TinyLlama { vocab: 5_000, ..tiny(7) }.build();
    let mut icllama = Icllama::install(Box::new(end_to_end::ShimHost::new()), ConfigUpdate::default());
    let upload_id = icllama.announce("model", &file).upload_id;
    icllama.send(upload_id, &end_to_end::chunks(&file, 100_000));
    icllama.verify(upload_id, Some(1)).unwrap();
    let mut steps = 0;
    let mut done = 0;
    loop {
        let step = icllama.model_load_step(ModelLoadStepArg { max_instructions: Some(1) }).unwrap();
        assert!(step.done_bytes >= done);
        (steps, done) = (steps + 1, step.done_bytes);
        if step.ready {
            break;
        }
    }
    assert!(steps > 5, "{steps} steps");
    let expected = icllama.generate(&ask("hello", 5), &mut full);
    icllama.upgrade();
    icllama.load(None);
    assert_eq!(icllama.generate(&ask("hello", 5), &mut full), expected);
    assert!(icllama.host.heaviest() < MESSAGE_LIMIT);
}

#[test]
fn run_gives_what_advance_gives_and_stays_below_the_limit() {
    let file = tiny(8).build();
    for max_instructions in [1, 1_000_000, 36_000_000_000] {
        let config = ConfigUpdate { max_instructions: Some(max_instructions), ..ConfigUpdate::default() };
        for mut icllama in Icllama::everywhere(config) {
            icllama.serve("model", &file);
            let expected = icllama.generate(&question(), &mut full);
            let session_id = icllama.session_create(question()).unwrap().session_id;
            icllama.session_run(SessionIdArg { session_id }).unwrap();
            let mut text = String::new();
            let mut next = 0;
            icllama.wait_until("the session is finished", |icllama| {
                let output = icllama.session_output(SessionOutputArg { session_id, from: next }).unwrap();
                text.push_str(&output.text);
                next = output.next;
                is_finished(&output.status)
            });
            assert_eq!(text, expected.text);
            assert_eq!(icllama.generation(session_id), expected);
            assert!(icllama.host.heaviest_message().is_none_or(|most| most < MESSAGE_LIMIT));
        }
    }
}
