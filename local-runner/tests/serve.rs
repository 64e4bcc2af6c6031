//! `icllama serve` as programs use it that speak OpenAI's API: the answers are those of `icllama run`.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::endpoint::http;
use crate::common::running::{Running, command};
use crate::common::{Tiny, json as run, tiny};
use crate::network::fixture::Deployed;
use model_core::fixtures::TinyLlama;
use serde_json::{Value, json};

/// Long enough that no answer ends by itself while a test looks at it.
const ENDLESS: u32 = 1 << 17;

/// A server on a free port, for one model.
struct Served {
    running: Running,
    url: String,
}

/// An answer and its status.
type Answer = (u16, Value);

fn start(args: &[&str]) -> Served {
    let running = Running::start("serve", &[&["--port", "0"], args].concat());
    let url = running.text("url").to_owned();
    Served { running, url }
}

fn serve(model: &Tiny, args: &[&str]) -> Served {
    start(&[&[model.path().as_str()], args].concat())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

impl Served {
    fn get(&self, path: &str) -> Answer {
        let mut response = agent().get(format!("{}{path}", self.url)).call().unwrap();
        (response.status().as_u16(), serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap())
    }

    fn post_text(&self, path: &str, body: &str) -> Answer {
        let mut response = agent().post(format!("{}{path}", self.url)).send(body).unwrap();
        (response.status().as_u16(), serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post_text(path, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a streamed answer, as they come.
    fn open(&self, path: &str, body: &Value) -> impl Iterator<Item = String> + use<> {
        let response = agent().post(format!("{}{path}", self.url)).send(body.to_string()).unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        let data = |line: String| line.strip_prefix("data: ").map(str::to_owned);
        lines.map_while(Result::ok).filter_map(data)
    }

    fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let mut events: Vec<_> = self.open(path, body).collect();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{events:?}");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

/// A request for an answer that does not end.
fn endless() -> Value {
    json!({ "prompt": "go", "ignore_eos": true, "stream": true })
}

fn endless_model() -> Tiny {
    Tiny::new(&TinyLlama { context: ENDLESS, ..TinyLlama::default() })
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn chats_are_answered_as_by_the_command() {
    let tiny = tiny();
    let served = serve(&tiny, &[]);
    let path = tiny.path();
    let common = ["run", path.as_str(), "--chat", "-p", "hello world", "--json", "-n", "20"];
    let request = |more: Value| {
        let mut request = json!({ "model": "any", "messages": user("hello world"), "max_tokens": 20 });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (args, more) in [
        (&["--temp", "0"][..], json!({ "temperature": 0 })),
        (&["--seed", "5", "--temp", "1.5", "--top-k", "0"], json!({ "seed": 5, "temperature": 1.5, "top_k": 0 })),
        (&["--temp", "0", "--stop", "a"], json!({ "temperature": 0, "stop": ["a"] })),
        (&["--temp", "0", "--grammar", "root ::= \"no\""], json!({ "temperature": 0, "grammar": "root ::= \"no\"" })),
        (&["--temp", "0", "--repeat-penalty", "3"], json!({ "temperature": 0, "repeat_penalty": 3.0 })),
    ] {
        let expected = run(&[&common, args].concat());
        let answer = served.post("/chat/completions", &request(more.clone()));
        let choice = &answer["choices"][0];
        assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("tiny")));
        assert_eq!(choice["message"], json!({ "role": "assistant", "content": expected["text"], "refusal": null }));
        let finish = if expected["finish_reason"] == "length" { "length" } else { "stop" };
        assert_eq!(choice["finish_reason"], finish);
        let usage = &answer["usage"];
        assert_eq!(usage["prompt_tokens"], expected["prompt_tokens"]);
        assert_eq!(usage["completion_tokens"], expected["tokens"].as_array().unwrap().len());

        let mut streamed = request(more);
        streamed["stream"] = json!(true);
        streamed["stream_options"] = json!({ "include_usage": true });
        let mut events = served.stream("/chat/completions", &streamed);
        let last = events.pop().unwrap();
        assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &usage["total_tokens"]));
        assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
        let deltas = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        assert_eq!(deltas.collect::<String>(), expected["text"].as_str().unwrap());
        assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk" && event["id"] == last["id"]));
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], finish);
    }
    served.running.terminate();
}

#[test]
fn completions_take_texts_and_tokens_and_have_log_probabilities() {
    let tiny = tiny();
    let served = serve(&tiny, &["--temp", "0", "-n", "6"]);
    let path = tiny.path();
    let expected = |prompt: &str| {
        run(&["run", &path, "--raw", "-p", prompt, "--temp", "0", "-n", "6", "--logprobs", "2", "--json"])
    };
    let [hello, world] = ["hello", "world"].map(expected);
    let request = json!({ "prompt": ["hello", "world"], "echo": true, "n": 2 });
    let answer = served.post("/completions", &request);
    let texts: Vec<_> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    let [hello_text, world_text] = [("hello", &hello), ("world", &world)]
        .map(|(echo, answer)| format!("{echo}{}", answer["text"].as_str().unwrap()));
    assert_eq!(texts, [&hello_text, &hello_text, &world_text, &world_text]);
    let prompts = hello["prompt_tokens"].as_u64().unwrap() + world["prompt_tokens"].as_u64().unwrap();
    assert_eq!(answer["usage"]["prompt_tokens"], prompts);

    let tokens = run(&["tokenize", &path, "-p", "hello", "--json"])["ids"].clone();
    let answer = served.post("/completions", &json!({ "prompt": tokens, "logprobs": 2 }));
    assert_eq!(answer["choices"][0]["text"], hello["text"]);
    let logprobs = &answer["choices"][0]["logprobs"];
    let own: Vec<_> = hello["logprobs"].as_array().unwrap().iter().map(|token| token["logprob"].clone()).collect();
    assert_eq!(logprobs["token_logprobs"], json!(own));
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);

    let events = served.stream("/completions", &json!({ "prompt": "hello", "logprobs": 2, "stream": true }));
    let streamed = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["token_logprobs"].as_array());
    assert_eq!(streamed.flatten().cloned().collect::<Vec<_>>(), own);
}

#[test]
fn a_conversation_is_computed_from_where_it_goes_on() {
    let model = Tiny::new(&TinyLlama { context: 1024, ..TinyLlama::default() });
    let served = serve(&model, &["--temp", "0", "--parallel", "2"]);
    let ask = |served: &Served, messages: &Value| {
        served
            .post("/chat/completions", &json!({ "messages": messages, "max_tokens": 30, "seed": 1, "temperature": 1 }))
    };
    let first =
        json!([{ "role": "system", "content": "be brief ".repeat(20) }, { "role": "user", "content": "hello" }]);
    let answer = ask(&served, &first);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let mut next = first.as_array().unwrap().clone();
    next.push(answer["choices"][0]["message"].clone());
    next.push(json!({ "role": "user", "content": "and more" }));
    let next = Value::Array(next);
    // Something else in between takes the other worker.
    ask(&served, &user("something else altogether"));
    let going_on = ask(&served, &next);
    let cached = going_on["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached >= answer["usage"]["prompt_tokens"].as_u64().unwrap(), "{going_on}");
    let fresh = ask(&serve(&model, &[]), &next);
    assert_eq!(fresh["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(going_on["choices"], fresh["choices"], "the same bits");
}

#[test]
fn templates_that_show_tools_are_told_them() {
    let with_tools = "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{% for m in messages %}{{ m.role }}: \
                      {{ m.content }}\n{% endfor %}";
    let model = Tiny::new(&TinyLlama { chat_template: Some(with_tools.to_owned()), ..TinyLlama::default() });
    let tools = json!([{ "type": "function", "function": { "name": "weather" } }]);
    let file = model.file("tools.json", &tools.to_string());
    let expected =
        run(&["run", &model.path(), "--chat", "-p", "hello", "--tools", &file, "--temp", "0", "-n", "9", "--json"]);
    let request = json!({ "messages": user("hello"), "tools": tools, "temperature": 0, "max_tokens": 9 });
    let answer = serve(&model, &[]).post("/chat/completions", &request);
    assert_eq!(answer["choices"][0]["message"]["content"], expected["text"]);
    assert_eq!(answer["usage"]["prompt_tokens"], expected["prompt_tokens"]);
    let (status, refused) = serve(&tiny(), &[]).post_text("/chat/completions", &request.to_string());
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("tools")));
}

#[test]
fn what_is_wrong_is_told_as_clients_expect_it() {
    let tiny = tiny();
    let served = serve(&tiny, &["--alias", "org/small"]);
    let long = json!({ "prompt": "word ".repeat(500) }).to_string();
    for (path, body, status, param) in [
        ("/chat/completions", "{}", 400, json!("messages")),
        (
            "/chat/completions",
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
            400,
            json!("messages[0].content"),
        ),
        ("/completions", "nonsense", 400, Value::Null),
        ("/completions", r#"{"prompt": "a", "temperature": "hot"}"#, 400, json!("temperature")),
        ("/completions", r#"{"prompt": [100000]}"#, 400, json!("prompt")),
        ("/completions", r#"{"prompt": "a", "logit_bias": {"5": 1}}"#, 400, json!("logit_bias")),
        ("/completions", r#"{"prompt": "a", "stream": true, "top_p": 7}"#, 400, json!("top_p")),
        ("/completions", long.as_str(), 400, Value::Null),
        ("/embeddings", "{}", 404, Value::Null),
        ("/models", "{}", 405, Value::Null),
    ] {
        let (found, answer) = served.post_text(path, body);
        let error = &answer["error"];
        assert_eq!((found, &error["param"]), (status, &param), "{path} {body}: {answer}");
        assert!(
            error["message"].as_str().is_some_and(|message| !message.is_empty())
                && error["type"] == "invalid_request_error"
        );
    }
    let (_, too_long) = served.post_text("/completions", &long);
    assert_eq!(too_long["error"]["code"], "context_length_exceeded");
    let (status, _) = served.post_text("/completions", &" ".repeat((8 << 20) + 1));
    assert_eq!(status, 413);

    let (_, models) = served.get("/models");
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("org/small")));
    assert_eq!(served.get("/models/org/small"), served.get("/models/org%2Fsmall"));
    assert_eq!(served.get("/models/org/small").1, models["data"][0]);
    let (status, absent) = served.get("/models/other");
    assert_eq!((status, &absent["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(http(served.running.address(), "GET", "/health", &[], b"").text(), r#"{"status":"ok"}"#);
}

#[test]
fn keys_and_origins_are_looked_at_before_anything_else() {
    let tiny = tiny();
    let keys = tiny.file("keys", "first\n\nsecond\n");
    let served = serve(&tiny, &["--api-key-file", &keys, "--cors-origin", "https://chat.example"]);
    let ask = |headers: &[(&str, &str)]| http(served.running.address(), "GET", "/v1/models", headers, b"");
    assert_eq!(ask(&[]).status, 401);
    assert_eq!(ask(&[("authorization", "Bearer third")]).status, 401);
    let answer = ask(&[("authorization", "Bearer second"), ("origin", "https://chat.example")]);
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("access-control-allow-origin: https://chat.example"), "{}", answer.head);
    assert_eq!(ask(&[("authorization", "Bearer first"), ("origin", "https://example.org")]).status, 403);
    let preflight =
        http(served.running.address(), "OPTIONS", "/v1/models", &[("origin", "http://localhost:3000")], b"");
    assert_eq!(preflight.status, 204);
}

#[test]
fn a_client_that_leaves_makes_room_and_too_many_are_refused() {
    let model = endless_model();
    let served = serve(&model, &["--parallel", "1", "--queue", "1"]);
    let mut first = served.open("/completions", &endless());
    assert!(first.next().is_some(), "it is being answered");
    let short = json!({ "prompt": "a", "max_tokens": 2 }).to_string();
    std::thread::scope(|scope| {
        let (told, answers) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let (told, served, short) = (told.clone(), &served, &short);
            scope.spawn(move || told.send(served.post_text("/completions", short)).unwrap());
        }
        // One of them waits, so the other is told at once.
        let (status, refused) = answers.recv().unwrap();
        assert_eq!((status, &refused["error"]["code"]), (429, &json!("queue_full")));
        drop(first);
        let (status, answer) = answers.recv().unwrap();
        assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(2)));
    });
}

#[test]
fn an_answer_that_is_not_streamed_ends_with_its_client_too() {
    let served = serve(&endless_model(), &["--parallel", "1", "--queue", "0"]);
    let body = r#"{"prompt": "go", "ignore_eos": true}"#;
    let mut client = TcpStream::connect(served.running.address()).unwrap();
    write!(client, "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let until = |wanted: u16| {
        let short = r#"{"prompt": "a", "max_tokens": 1}"#;
        let end = Instant::now() + Duration::from_secs(20);
        while served.post_text("/completions", short).0 != wanted {
            assert!(Instant::now() < end, "no answer with the status {wanted}");
        }
    };
    until(429);
    drop(client);
    until(200);
}

#[test]
fn a_long_answer_keeps_nobody_waiting_and_ends_with_the_server() {
    let model = endless_model();
    let served = serve(&model, &["--parallel", "2"]);
    let mut long = served.open("/completions", &endless());
    assert!(long.next().is_some());
    for _ in 0..3 {
        let answer = served.post("/completions", &json!({ "prompt": "a", "max_tokens": 5, "ignore_eos": true }));
        assert_eq!(answer["usage"]["completion_tokens"], 5);
    }
    let url = served.url.clone();
    served.running.terminate();
    let last = long.last().unwrap();
    assert!(last.contains("being stopped"), "{last}");
    assert!(agent().get(format!("{url}/models")).call().is_err(), "nobody listens any more");
}

#[test]
fn says_what_is_the_matter_with_port_key_and_model() {
    let tiny = tiny();
    let (path, empty) = (tiny.path(), tiny.file("empty", "\n"));
    let served = serve(&tiny, &[]);
    let port = served.running.address().port().to_string();
    for (args, expected) in [
        (&[path.as_str(), "--port", &port][..], "is in use"),
        (&[&path, "--port", "0", "--api-key-file", &empty], "the API key is empty"),
        (&["/nowhere.gguf", "--port", "0"], "/nowhere.gguf"),
        (&[&path, "--port", "0", "--temp=-1"], "temperature"),
    ] {
        let output = command("serve", args).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn files_without_a_template_are_served_without_chats() {
    let model = Tiny::new(&TinyLlama::without_chat());
    let served = serve(&model, &[]);
    let (status, refused) = served.post_text("/chat/completions", &json!({ "messages": user("a") }).to_string());
    assert_eq!(status, 400);
    assert!(refused["error"]["message"].as_str().unwrap().contains("--chat-template"), "{refused}");
    assert_eq!(served.post("/completions", &json!({ "prompt": "a", "max_tokens": 3 }))["choices"][0]["index"], 0);
    let chosen = serve(&model, &["--chat-template", "chatml"]);
    chosen.post("/chat/completions", &json!({ "messages": user("a"), "max_tokens": 3 }));
}

#[test]
fn a_canister_answers_as_the_model_in_this_process() {
    let (deployed, tiny) = Deployed::with_tiny();
    let (path, id) = (tiny.path(), deployed.canister.to_text());
    let place = ["--canister", id.as_str(), "--network", &deployed.url, "--parallel", "1"];
    let served = start(&[&place[..], &["--vocabulary", &path]].concat());
    let native = serve(&tiny, &["--parallel", "1"]);
    let asked = |messages: &Value| json!({ "messages": messages, "max_tokens": 40, "seed": 3, "logprobs": true });
    let both = |request: &Value| [&served, &native].map(|server| server.post("/chat/completions", request));
    let first = asked(&user("hello world"));
    let [theirs, ours] = both(&first);
    assert_eq!((&theirs["choices"], &theirs["usage"]), (&ours["choices"], &ours["usage"]));
    assert!(theirs["icllama"]["cycles"].as_u64() > Some(5_000_000), "{theirs}");
    let messages = json!([user("hello world")[0], ours["choices"][0]["message"], user("more")[0]]);
    let [theirs, ours] = both(&asked(&messages));
    assert_eq!((&theirs["choices"], &theirs["usage"]), (&ours["choices"], &ours["usage"]));
    assert!(theirs["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(0));

    let mut streamed = first.clone();
    streamed["stream"] = json!(true);
    let [theirs, ours] = [&served, &native].map(|server| {
        let events = server.stream("/chat/completions", &streamed);
        let deltas = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        let logprobs = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
        (deltas.collect::<String>(), logprobs.flatten().cloned().collect::<Vec<_>>())
    });
    assert_eq!(theirs, ours);
    for prompt in [json!("word ".repeat(600)), json!([100_000])] {
        let told = [&served, &native].map(|server| {
            let (status, answer) =
                server.post_text("/completions", &json!({ "prompt": prompt, "max_tokens": 5 }).to_string());
            (status, answer["error"]["code"].clone(), answer["error"]["param"].clone())
        });
        assert_eq!(told[0], told[1]);
    }

    // The session is deleted under the server, as a canister does after a while.
    let sessions = deployed.json(&["sessions", "list", "--all"]);
    let session = sessions[0]["status"]["session_id"].to_string();
    deployed.json(&["sessions", "delete", &session]);
    let [theirs, ours] = both(&first);
    assert_eq!(theirs["choices"], ours["choices"]);
    served.running.terminate();
    assert_eq!(deployed.json(&["sessions", "list", "--all"]), json!([]), "no session is left");
}

#[test]
fn a_canister_without_vocabulary_names_no_tokens_and_none_is_named_beside_a_model() {
    let (deployed, tiny) = Deployed::with_tiny();
    let (path, id) = (tiny.path(), deployed.canister.to_text());
    let place = ["--canister", id.as_str(), "--network", &deployed.url];
    let served = start(&place);
    let (status, refused) = served.post_text("/completions", r#"{"prompt": "a", "logprobs": 1}"#);
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("logprobs")));
    let tools = json!([{ "type": "function", "function": { "name": "weather" } }]);
    served.post("/chat/completions", &json!({ "messages": user("a"), "tools": tools, "max_tokens": 2 }));
    for (args, expected) in [(&[path.as_str()][..], "--vocabulary"), (&["--threads", "1"], "need a MODEL")] {
        let output = command("serve", &[&place, args].concat()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && errors.contains(expected), "{errors}");
    }
}
