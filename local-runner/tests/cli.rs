//! The real `icllama` command on the native backend: what it prints, in text and JSON, and how it fails.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::common::{Tiny, failure, icllama, icllama_with_stdin, ids, json, smollm2, stdout, tiny, usage};
use model_core::fixtures::TinyLlama;
use serde_json::Value;

#[test]
fn run_prints_one_json_document_with_everything_in_it() {
    let tiny = tiny();
    let report =
        json(&["run", &tiny.path(), "-p", "Hello", "--raw", "-n", "5", "--ignore-eos", "--temp", "0", "--json"]);
    assert_eq!(report["backend"], "native");
    assert_eq!(ids(&report["tokens"]).len(), 5);
    assert_eq!(report["finish_reason"], "length");
    assert!(report["prompt_tokens"].as_u64().unwrap() > 0);
    assert!(report["text"].is_string());
    for key in ["load_ms", "prefill_ms", "decode_ms", "prefill_tokens_per_second", "decode_tokens_per_second"] {
        assert!(report["timings"][key].as_f64().is_some(), "{key}");
    }
    assert!(report.get("instructions").is_none());
}

#[test]
fn run_reads_its_prompt_from_argument_file_or_stdin() {
    let tiny = tiny();
    let file = tiny.file("prompt.txt", "Hello there");
    let (model, common) = (tiny.path(), ["--raw", "-n", "4", "--temp", "0", "--json"]);
    let tokens = |more: &[&str], stdin: &str| {
        let output = icllama_with_stdin(&[&["run", model.as_str()], more, &common].concat(), stdin);
        ids(&serde_json::from_str::<Value>(&stdout(&output)).unwrap()["tokens"])
    };
    let expected = tokens(&["-p", "Hello there"], "");
    assert_eq!(tokens(&["-f", &file], "ignored"), expected);
    assert_eq!(tokens(&[], "Hello there"), expected);
    assert_eq!(tokens(&["-f", "-"], "Hello there"), expected);
    assert_ne!(tokens(&["-p", "Another"], ""), expected);
}

#[test]
fn run_streams_json_lines_that_add_up_to_the_result() {
    let tiny = tiny();
    let args = ["run", &tiny.path(), "-p", "Hi", "--raw", "-n", "6", "--temp", "0", "--json", "--stream"];
    let lines: Vec<Value> = stdout(&icllama(&args)).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (result, events) = lines.split_last().unwrap();
    assert_eq!(result["event"], "result");
    let tokens = events.iter().filter(|line| line["event"] == "token");
    let (streamed, text): (Vec<u64>, String) =
        tokens.map(|line| (line["id"].as_u64().unwrap(), line["text"].as_str().unwrap())).unzip();
    assert_eq!(streamed, ids(&result["tokens"]));
    assert_eq!(text, result["text"]);
}

#[test]
fn every_sampling_option_reaches_the_sampler() {
    let tiny = tiny();
    let tokens = |more: &[&str]| {
        let common = ["run", &tiny.path(), "-p", "Hello", "--raw", "-n", "24", "--ignore-eos", "--json"];
        ids(&json(&[&common, more].concat())["tokens"])
    };
    let hot = ["--temp", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0"];
    let plain = tokens(&hot);
    assert_eq!(tokens(&hot), plain, "the same seed gives the same tokens");
    let changes: [&[&str]; 9] = [
        &["--temp", "0"],
        &["--top-k", "1"],
        &["--top-p", "0.01"],
        &["--min-p", "1"],
        &["--repeat-penalty", "50"],
        &["--repeat-penalty", "50", "--repeat-last-n", "1"],
        &["--frequency-penalty", "50"],
        &["--presence-penalty", "-50"],
        &["--seed", "7"],
    ];
    for change in changes {
        let given: Vec<&str> = hot.chunks(2).filter(|pair| !change.contains(&pair[0])).flatten().copied().collect();
        assert_ne!(tokens(&[&given, change].concat()), plain, "{change:?}");
    }
    assert_ne!(tokens(&[&hot[..], changes[4]].concat()), tokens(&[&hot[..], changes[5]].concat()));
}

#[test]
fn run_obeys_stop_strings_and_the_token_limit() {
    let tiny = tiny();
    let common = ["run", &tiny.path(), "-p", "Hello", "--raw", "--temp", "0", "--ignore-eos", "--json"];
    let whole = json(&[&common[..], &["-n", "12"]].concat());
    let text = whole["text"].as_str().unwrap();
    let stop: String = text.chars().skip(3).take(2).collect();
    let stopped = json(&[&common[..], &["-n", "12", "--stop", &stop]].concat());
    assert_eq!(stopped["finish_reason"], "stop_string");
    assert_eq!(stopped["text"], text[..text.find(&stop).unwrap()]);
    assert_eq!(ids(&json(&[&common[..], &["-n", "3"]].concat())["tokens"]), ids(&whole["tokens"])[..3]);
}

#[test]
fn results_do_not_depend_on_threads_or_kernel() {
    let tiny = tiny();
    let common = ["run", &tiny.path(), "-p", "Hello", "--raw", "-n", "8", "--temp", "0", "--json"];
    let expected = ids(&json(&common)["tokens"]);
    for more in [["--threads", "1"], ["--threads", "3"], ["--kernel", "scalar"], ["--kernel", "auto"]] {
        assert_eq!(ids(&json(&[&common[..], &more].concat())["tokens"]), expected, "{more:?}");
    }
}

#[test]
fn chat_is_the_default_where_the_model_has_a_template() {
    let tiny = tiny();
    let prompt_tokens = |more: &[&str]| {
        let report = json(&[&["run", &tiny.path(), "-p", "Hi", "-n", "1", "--json"], more].concat());
        report["prompt_tokens"].as_u64().unwrap()
    };
    let (chat, raw) = (prompt_tokens(&[]), prompt_tokens(&["--raw"]));
    assert!(chat > raw);
    assert_eq!(prompt_tokens(&["--chat"]), chat);
    assert!(prompt_tokens(&["--system", "Be brief"]) > chat);
    assert_eq!(prompt_tokens(&["--system", ""]), chat);
    let bare = Tiny::new(&TinyLlama::without_chat());
    assert!(failure(&["run", &bare.path(), "-p", "Hi", "--chat"]).contains("no chat template"));
    assert_eq!(json(&["run", &bare.path(), "-p", "Hi", "-n", "1", "--json"])["prompt_tokens"], raw);
}

#[test]
fn a_file_without_a_template_chats_by_the_built_in_one_when_asked() {
    let tiny = Tiny::new(&TinyLlama { chat_template: None, ..TinyLlama::default() });
    let prompt_tokens = |more: &[&str]| {
        let report = json(&[&["run", &tiny.path(), "-p", "Hi", "-n", "1", "--json"], more].concat());
        report["prompt_tokens"].as_u64().unwrap()
    };
    let raw = prompt_tokens(&[]);
    assert_eq!(prompt_tokens(&["--raw"]), raw);
    let chatml = prompt_tokens(&["--chat"]);
    assert_eq!(prompt_tokens(&["--chat-template", "chatml"]), chatml);
    assert!(raw < chatml && prompt_tokens(&["--chat", "--system", "a"]) > chatml);
    let own = tiny.file("own.jinja", "{{ messages[0].content }}");
    for given in [["--chat-template", "{{ messages[0].content }}"], ["--chat-template-file", &own]] {
        assert_eq!(prompt_tokens(&given), raw);
    }
    assert_eq!(prompt_tokens(&["--chat-template", &format!("@{own}")]), raw);
    assert!(failure(&["run", &tiny.path(), "-p", "Hi", "--chat-template", "chatmi"]).contains("vicuna"));
    let chat = icllama_with_stdin(&["chat", &tiny.path(), "-n", "1"], "Hi\n");
    assert!(String::from_utf8_lossy(&chat.stderr).contains("chatml"));
}

#[test]
fn templates_are_told_what_the_command_line_says() {
    let template = "{{ tools | tojson }}|{{ enable_thinking }}|{{ x }}|{{ strftime_now('%Y') | length }}";
    let tiny = Tiny::new(&TinyLlama { chat_template: Some(template.to_owned()), ..TinyLlama::default() });
    let prompt_tokens = |more: &[&str]| {
        let common = ["run", &tiny.path(), "-p", "Hi", "-n", "1", "--json", "--grammar", "root ::= [a-z]"];
        json(&[&common[..], more].concat())["prompt_tokens"].as_u64().unwrap() as usize
    };
    let count = |text: &str| ids(&json(&["tokenize", &tiny.path(), "--json", "-p", text])["ids"]).len();
    let tools = tiny.file("tools.json", r#"[{"name": "f"}]"#);
    assert_eq!(prompt_tokens(&[]), count("null|||4"));
    assert_eq!(prompt_tokens(&["--reasoning", "off"]), count("null|False||4"));
    let all = ["--tools", &tools, "--reasoning", "on", "--chat-template-kwargs", r#"{"x": "<|im_end|>"}"#];
    assert_eq!(prompt_tokens(&all), count(r#"[{"name": "f"}]|True|<|im_end|>|4"#));
    let refused = failure(&["run", &tiny.path(), "-p", "Hi", "--chat-template-kwargs", "[]"]);
    assert!(refused.contains("--chat-template-kwargs"), "{refused}");
}

#[test]
fn a_chat_tells_how_probable_the_tokens_of_each_answer_were() {
    let tiny = tiny();
    let args = ["chat", &tiny.path(), "-n", "3", "--ignore-eos", "--logprobs", "2"];
    let lines = stdout(&icllama_with_stdin(&[&args[..], &["--json"]].concat(), "One\nTwo\n"));
    for answer in lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let logprobs = answer["logprobs"].as_array().unwrap();
        let chosen: Vec<_> = logprobs.iter().map(|token| token["id"].clone()).collect();
        assert_eq!((Value::Array(chosen), logprobs.len()), (answer["tokens"].clone(), 3), "{answer}");
    }
    let shown = String::from_utf8(icllama_with_stdin(&args, "One\n").stderr).unwrap();
    assert_eq!(shown.lines().count(), 3, "{shown}");
}

#[test]
fn control_tokens_in_a_prompt_are_obeyed_only_when_asked() {
    let tiny = tiny();
    let spelled = "<|im_start|>user";
    let prompt_tokens = |more: &[&str]| {
        let report = json(&[&["run", &tiny.path(), "-p", spelled, "--raw", "-n", "1", "--json"], more].concat());
        report["prompt_tokens"].as_u64().unwrap() as usize
    };
    let count =
        |more: &[&str]| ids(&json(&[&["tokenize", &tiny.path(), "--json", "-p", spelled], more].concat())["ids"]).len();
    assert_eq!((prompt_tokens(&[]), prompt_tokens(&["--parse-special"])), (count(&[]), count(&["--parse-special"])));
    assert!(count(&[]) > count(&["--parse-special"]));
    assert!(usage(&["run", &tiny.path(), "-p", "Hi", "--parse-special"]).contains("--raw"));
}

#[test]
fn chat_reads_messages_from_a_pipe_and_prints_answers_only() {
    let tiny = tiny();
    let args = ["chat", &tiny.path(), "-n", "6", "--temp", "0", "--ignore-eos", "--system", "Be brief"];
    let input = "One\n\nTwo\n/reset\nOne\n/exit\nThree\n";
    let output = icllama_with_stdin(&[&args[..], &["--json"]].concat(), input);
    let answers: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[2]["tokens"], answers[0]["tokens"], "after a reset nothing is remembered");
    assert_ne!(answers[1]["tokens"], answers[0]["tokens"]);
    let count = |answer: &Value| [&answer["prompt_tokens"], &answer["timings"]["prefill_tokens"]].map(|n| n.as_u64());
    let [[prompt, computed], [longer, new], _] = [0, 1, 2].map(|turn| count(&answers[turn]));
    assert!(computed == prompt && longer > prompt && new < longer, "{answers:?}");
    let text = icllama_with_stdin(&args, input);
    let expected: String = answers.iter().map(|answer| format!("{}\n", answer["text"].as_str().unwrap())).collect();
    assert_eq!((stdout(&text), text.stderr.as_slice()), (expected, &b""[..]));
    let alone = json(&[
        "run",
        &tiny.path(),
        "-p",
        "One",
        "-n",
        "6",
        "--temp",
        "0",
        "--ignore-eos",
        "--system",
        "Be brief",
        "--json",
    ]);
    assert_eq!(answers[0]["tokens"], alone["tokens"]);
    let bare = Tiny::new(&TinyLlama::without_chat());
    assert!(failure(&["chat", &bare.path()]).contains("no chat template"));
}

#[test]
fn an_interruption_stops_the_answer_and_not_the_chat() {
    let tiny = Tiny::new(&TinyLlama { context: 1 << 20, ..TinyLlama::default() });
    let mut child = Command::new(env!("CARGO_BIN_EXE_icllama"))
        .args(["chat", &tiny.path(), "-n", "1000000", "--ignore-eos", "--threads", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    writeln!(stdin, "Hello").unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap(); // the answer has begun, and would take hours
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    writeln!(stdin, "/exit").unwrap();
    stdout.read_to_end(&mut Vec::new()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), "(stopped)\n"));
}

#[test]
fn text_mode_prints_the_text_and_nothing_else_on_stdout() {
    let tiny = tiny();
    let common = ["run", &tiny.path(), "-p", "Hello", "--raw", "-n", "6", "--temp", "0"];
    let text = json(&[&common[..], &["--json"]].concat())["text"].as_str().unwrap().to_owned();
    let quiet = icllama(&common);
    assert_eq!(stdout(&quiet), format!("{text}\n"));
    assert!(quiet.stderr.is_empty(), "{}", String::from_utf8_lossy(&quiet.stderr));
    let verbose = icllama(&[&common[..], &["-v"]].concat());
    assert_eq!(stdout(&verbose), format!("{text}\n"));
    assert!(String::from_utf8_lossy(&verbose.stderr).contains("tok/s"));
}

#[test]
fn tokenize_shows_ids_and_pieces_and_obeys_its_options() {
    let tiny = Tiny::new(&TinyLlama { add_bos: true, ..TinyLlama::default() });
    let tokenize = |more: &[&str]| json(&[&["tokenize", &tiny.path(), "--json"], more].concat());
    let plain = tokenize(&["-p", "a<|im_end|>", "--parse-special"]);
    assert_eq!(plain["count"], ids(&plain["ids"]).len());
    assert_eq!(plain["pieces"].as_array().unwrap().last().unwrap(), "<|im_end|>");
    let without_bos = tokenize(&["-p", "a<|im_end|>", "--no-bos", "--parse-special"]);
    assert_eq!(ids(&without_bos["ids"]), ids(&plain["ids"])[1..]);
    let spelled = tokenize(&["-p", "a<|im_end|>", "--no-bos"]);
    assert!(ids(&spelled["ids"]).len() > ids(&without_bos["ids"]).len());
    let batch = tiny.file("batch.json", r#"["a<|im_end|>", ""]"#);
    let lines = stdout(&icllama(&["tokenize", &tiny.path(), "--no-bos", "--parse-special", "--batch", &batch]));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [without_bos["ids"].clone(), Value::Array(vec![])]);
    // An empty text is a text where it was asked for, and a mistake where stdin was only assumed.
    let empty =
        |more: &[&str]| icllama_with_stdin(&[&["tokenize", &tiny.path(), "--no-bos", "--json"], more].concat(), "");
    assert_eq!(serde_json::from_str::<Value>(&stdout(&empty(&["-f", "-"]))).unwrap()["count"], 0);
    assert!(!empty(&[]).status.success());
}

#[test]
fn inspect_lists_metadata_and_tensors() {
    let tiny = tiny();
    let report = json(&["inspect", &tiny.path(), "--json", "--override-kv", "general.name=str:renamed"]);
    assert_eq!(report["metadata"]["general.architecture"], "llama");
    assert_eq!(report["metadata"]["general.name"], "renamed");
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"]["count"], 320);
    let tensor = |name| report["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == name).unwrap();
    assert_eq!(tensor("token_embd.weight")["shape"], serde_json::json!([64, 320]));
    assert_eq!(tensor("token_embd.weight")["type"], "Q8_0");
    let full = json(&["inspect", &tiny.path(), "--json", "--full"]);
    assert_eq!(full["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 320);
    assert!(stdout(&icllama(&["inspect", &tiny.path()])).contains("token_embd.weight"));
}

#[test]
fn logits_come_per_position_and_predict_what_run_chooses() {
    let tiny = tiny();
    let prompt = json(&["tokenize", &tiny.path(), "-p", "Hello", "--json"]);
    let list = ids(&prompt["ids"]).iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let lines = stdout(&icllama(&["logits", &tiny.path(), "--tokens", &list, "--json"]));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), ids(&prompt["ids"]).len());
    let last: Vec<f64> =
        lines.last().unwrap()["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(last.len(), 320);
    let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap() as u64;
    let run = json(&["run", &tiny.path(), "-p", "Hello", "--raw", "-n", "1", "--temp", "0", "--json"]);
    assert_eq!(ids(&run["tokens"]), [best]);
    let only = stdout(&icllama(&["logits", &tiny.path(), "--tokens", &list, "--json", "--last"]));
    assert_eq!(serde_json::from_str::<Value>(&only).unwrap(), *lines.last().unwrap());
    assert!(failure(&["logits", &tiny.path(), "--tokens", "5,320"]).contains("320"));
}

#[test]
fn perplexity_agrees_with_the_plain_evaluation() {
    let tiny = tiny();
    let text = tiny.file("text.txt", &"The quick brown fox jumps over the lazy dog. ".repeat(8));
    let report = json(&["perplexity", &tiny.path(), "-f", &text, "--ctx", "64", "--compare", "--json"]);
    let evaluations = report["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), 2);
    assert!(report["relative_difference"].as_f64().unwrap().abs() < 0.005, "{report}");
    assert!(report["windows"].as_u64().unwrap() > 1);
    let plain = json(&["perplexity", &tiny.path(), "-f", &text, "--ctx", "64", "--reference", "--json"]);
    assert_eq!(plain["evaluations"][0]["perplexity"], evaluations[1]["perplexity"]);
    let narrow = json(&["perplexity", &tiny.path(), "-f", &text, "--ctx", "64", "--kv-cache", "8", "--json"]);
    let change =
        |perplexity: &Value| perplexity.as_f64().unwrap() / evaluations[1]["perplexity"].as_f64().unwrap() - 1.0;
    let narrow = &narrow["evaluations"][0]["perplexity"];
    assert!(*narrow != evaluations[0]["perplexity"] && change(narrow).abs() < 0.005, "{narrow}");
    let short = json(&["perplexity", &tiny.path(), "-f", &text, "--ctx", "64", "--tokens", "20", "--json"]);
    assert_eq!((short["tokens"].as_u64(), short["scored"].as_u64()), (Some(20), Some(19)));
    assert!(failure(&["perplexity", &tiny.path(), "-f", &text, "--ctx", "4000"]).contains("context"));
}

#[test]
fn native_parity_holds_and_says_so() {
    let tiny = tiny();
    let common = ["parity", &tiny.path(), "-p", "Hello", "-n", "6", "--native-only", "--json"];
    let narrow = json(&[&common[..], &["--kv-cache", "8"]].concat());
    let report = json(&common);
    assert_eq!((&report["identical"], &narrow["identical"]), (&true.into(), &true.into()));
    assert!(report["runs"].as_array().unwrap().len() >= 3);
    assert_eq!(report["positions"], ids(&report["tokens"]).len());
    let text = stdout(&icllama(&["parity", &tiny.path(), "-p", "Hello", "-n", "6", "--native-only"]));
    assert!(text.lines().last().unwrap().contains("bit-identical"), "{text}");
}

#[test]
fn bench_measures_both_phases() {
    let tiny = tiny();
    let args = ["bench", &tiny.path(), "--prompt-tokens", "16", "--generate-tokens", "4", "--repeat", "2", "--json"];
    let report = json(&args);
    for key in ["prefill_tokens_per_second", "decode_tokens_per_second"] {
        assert!(report[key]["mean"].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(report["weights_per_token"].as_u64().unwrap() > 0);
}

#[test]
fn a_native_profile_sums_to_the_whole() {
    let tiny = tiny();
    let args = ["bench", &tiny.path(), "--profile", "--prompt-tokens", "16", "--threads", "1", "--json"];
    let report = json(&args);
    assert_eq!(report["unit"], "ns");
    for table in report["tables"].as_array().unwrap() {
        let parts = table["parts"].as_array().unwrap();
        let sum: u64 = parts.iter().map(|part| part["count"].as_u64().unwrap()).sum();
        assert!(sum > 0 && sum == table["total"].as_u64().unwrap());
        assert!(parts.iter().any(|part| part["part"] == "product: gate" && part["multiplications"].as_u64() > Some(0)));
    }
}

#[test]
fn failures_say_what_is_wrong_and_what_to_do() {
    let tiny = tiny();
    let model = tiny.path();
    assert!(failure(&["run", "/absent.gguf", "-p", "x"]).contains("cannot open /absent.gguf"));
    assert!(failure(&["inspect", tiny.folder.path().to_str().unwrap()]).contains("not a regular file"));
    assert!(failure(&["inspect", &tiny.file("empty.gguf", "")]).contains("empty"));
    assert!(failure(&["run", &tiny.file("text.gguf", "no model at all"), "-p", "x"]).contains("GGUF"));
    assert!(failure(&["run", &model, "-f", "/absent.txt"]).contains("/absent.txt"));
    assert!(failure(&["run", &model]).contains("prompt is empty"));
    assert!(failure(&["run", &model, "-p", "x", "--top-p", "7"]).contains("top_p"));
    assert!(failure(&["run", &model, "-p", "x", "--max-instructions", "5"]).contains("--backend shim"));
    assert!(failure(&["run", &model, "-p", "x", "--backend", "shim", "--threads", "2"]).contains("--backend native"));
    let absent = failure(&["run", &model, "-p", "x", "--backend", "shim", "--wasm", "/absent.wasm"]);
    assert!(absent.contains("scripts/build-canister.sh"), "{absent}");
    let overridden = failure(&["run", &model, "-p", "x", "--override-kv", "llama.block_count=int:9"]);
    assert!(overridden.contains("blk.2"), "{overridden}");
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_done() {
    let model = "/absent.gguf";
    assert!(usage(&["run", model, "--kernel", "abacus", "-p", "x"]).contains("auto, scalar"));
    assert!(usage(&["run", model, "-p", "x", "-f", "y"]).contains("cannot be used with"));
    assert!(usage(&["run", model, "--override-kv", "a=u8:1"]).contains("int, float, bool or str"));
    assert!(usage(&["run", model, "-p", "x", "--chat", "--raw"]).contains("cannot be used with"));
    for [flag, value] in [["--tools", "tools.json"], ["--reasoning", "off"], ["--chat-template", "chatml"]] {
        assert!(usage(&["run", model, "-p", "x", "--raw", flag, value]).contains("cannot be used with"), "{flag}");
    }
    assert!(usage(&["run", model, "--threads", "0"]).contains("threads"));
    assert!(usage(&["logits", model, "--tokens", "1,x"]).contains("tokens"));
    usage(&["nonsense"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let tiny = tiny();
    let mut child = Command::new(env!("CARGO_BIN_EXE_icllama"))
        .args(["inspect", &tiny.path(), "--full"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn smollm2_remembers_and_computes_only_what_is_new() {
    let input = "What is the capital of France?\nAnd of Italy?\n";
    let output = icllama_with_stdin(&["chat", &smollm2(), "--temp", "0", "-n", "40", "--json"], input);
    let answers: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(answers[1]["text"].as_str().unwrap().contains("Rome"), "{}", answers[1]["text"]);
    // The first prompt and its answer are known, but for the token that ended it.
    let known = answers[0]["prompt_tokens"].as_u64().unwrap() + ids(&answers[0]["tokens"]).len() as u64 - 1;
    assert_eq!(answers[0]["finish_reason"], "end_of_generation");
    let prompt = answers[1]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(answers[1]["timings"]["prefill_tokens"].as_u64().unwrap(), prompt - known);
}

#[test]
fn smollm2_answers_in_english() {
    let question = "What is the capital of France?";
    let report = json(&["run", &smollm2(), "-p", question, "--temp", "0", "-n", "24", "--json"]);
    let text = report["text"].as_str().unwrap();
    assert!(text.contains("Paris"), "{text}");
    assert_eq!(report["finish_reason"], "end_of_generation");
}
