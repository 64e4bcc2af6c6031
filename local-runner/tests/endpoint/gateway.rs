//! Pages of canisters through the endpoint's HTTP gateway.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use crate::common::endpoint::{Answer, http, options, with_canister};
use candid::{CandidType, Principal, define_function};
use local_runner::endpoint::Endpoint;
use serde_bytes::ByteBuf;

/// The first canister of a replica.
const CANISTER: &str = "rrkah-fqaaa-aaaaa-aaaaq-cai";

define_function!(Next : (Token) -> (Part) query);

#[derive(CandidType, candid::Deserialize)]
struct Token {
    part: u8,
}

#[derive(CandidType, candid::Deserialize)]
struct Part {
    body: ByteBuf,
    token: Option<Token>,
}

#[derive(CandidType)]
enum Strategy {
    Callback { callback: Next, token: Token },
}

#[derive(CandidType)]
struct Reply {
    status_code: u16,
    headers: Vec<(String, String)>,
    body: ByteBuf,
    upgrade: Option<bool>,
    streaming_strategy: Option<Strategy>,
}

#[derive(candid::Deserialize, CandidType)]
struct Question {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: ByteBuf,
    certificate_version: Option<u16>,
}

fn page(body: &str) -> Reply {
    let headers = vec![("Content-Type".into(), "text/plain".into()), ("X-Own".into(), "yes".into())];
    Reply { status_code: 201, headers, body: ByteBuf::from(body), upgrade: None, streaming_strategy: None }
}

/// A method that replies with these bytes, kept at `offset`.
fn method(export: &str, offset: usize, reply: &[u8]) -> String {
    let bytes: String = reply.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let len = reply.len();
    format!(
        r#"(data (i32.const {offset}) "{bytes}")
           (func (export "{export}") (call $append (i32.const {offset}) (i32.const {len})) (call $reply))"#
    )
}

/// A canister that answers requests with `first`, changing requests with `update`, and gives out the part `next`.
fn canister(first: &Reply, update: &Reply, next: &Part) -> Endpoint {
    let wasm = format!(
        r#"(module
          (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
          (import "ic0" "msg_reply" (func $reply))
          (memory 1)
          {} {} {})"#,
        method("canister_query http_request", 0, &candid::encode_one(first).unwrap()),
        method("canister_update http_request_update", 2000, &candid::encode_one(update).unwrap()),
        method("canister_query next", 4000, &candid::encode_one(next).unwrap()),
    );
    let (endpoint, id) = with_canister(options(None), &wat::parse_str(wasm).unwrap());
    assert_eq!(id.to_text(), CANISTER);
    endpoint
}

fn last_part(body: &str) -> Part {
    Part { body: ByteBuf::from(body), token: None }
}

fn get(endpoint: &Endpoint, host: &str, target: &str) -> Answer {
    http(endpoint.address(), "GET", target, &[("host", host)], b"")
}

#[test]
fn pages_are_served_by_host_and_by_query_parameter() {
    let endpoint = canister(&page("hello"), &page("changed"), &last_part(""));
    for (host, target) in [
        (format!("{CANISTER}.localhost:4943"), "/".to_owned()),
        (format!("{CANISTER}.raw.localhost"), "/page?x=1".to_owned()),
        ("127.0.0.1".to_owned(), format!("/?canisterId={CANISTER}")),
    ] {
        let answer = get(&endpoint, &host, &target);
        assert_eq!((answer.status, answer.text().as_str()), (201, "hello"), "{host}{target}");
        assert!(answer.head.contains("content-type: text/plain\r\n") && answer.head.contains("x-own: yes"));
        assert!(answer.head.contains("access-control-allow-origin: *"));
    }
    endpoint.stop().unwrap();
}

#[test]
fn a_canister_sees_the_request_as_it_was_sent() {
    // Rejects with its argument in hexadecimal digits, which the gateway passes on.
    let wasm = r#"(module
      (import "ic0" "msg_reject" (func $reject (param i32 i32)))
      (import "ic0" "msg_arg_data_size" (func $size (result i32)))
      (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
      (memory 1)
      (func $digit (param $at i32) (param $value i32)
        (i32.store8 (local.get $at) (i32.add (local.get $value)
          (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $value) (i32.const 10))))))
      (func (export "canister_query http_request") (local $at i32) (local $byte i32)
        (call $copy (i32.const 0) (i32.const 0) (call $size))
        (loop $next
          (local.set $byte (i32.load8_u (local.get $at)))
          (call $digit (i32.add (i32.const 9000) (i32.mul (local.get $at) (i32.const 2)))
            (i32.shr_u (local.get $byte) (i32.const 4)))
          (call $digit (i32.add (i32.const 9001) (i32.mul (local.get $at) (i32.const 2)))
            (i32.and (local.get $byte) (i32.const 15)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $at) (call $size))))
        (call $reject (i32.const 9000) (i32.mul (call $size) (i32.const 2)))))"#;
    let (endpoint, id) = with_canister(options(None), &wat::parse_str(wasm).unwrap());
    let host = format!("{id}.localhost");
    let answer = http(endpoint.address(), "PUT", "/a%20b?c=d", &[("host", &host), ("x-mine", "1")], b"body");
    assert_eq!(answer.status, 502);
    let text = answer.text();
    let digits = text.rsplit(": ").next().unwrap();
    let bytes: Vec<_> =
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..][..2], 16).unwrap()).collect();
    let question: Question = candid::decode_one(&bytes).unwrap();
    assert_eq!((question.method.as_str(), question.url.as_str()), ("PUT", "/a%20b?c=d"));
    assert_eq!((question.body.as_slice(), question.certificate_version), (&b"body"[..], Some(2)));
    assert!(question.headers.contains(&("x-mine".into(), "1".into())));
    assert!(question.headers.contains(&("host".into(), host)));
    endpoint.stop().unwrap();
}

#[test]
fn a_request_that_changes_something_is_asked_again_as_an_update() {
    let upgrade = Reply { upgrade: Some(true), ..page("not this") };
    let endpoint = canister(&upgrade, &page("changed"), &last_part(""));
    let answer = get(&endpoint, &format!("{CANISTER}.localhost"), "/");
    assert_eq!((answer.status, answer.text().as_str()), (201, "changed"));
    endpoint.stop().unwrap();
}

#[test]
fn streamed_parts_are_put_together() {
    let callback = Next::new(Principal::from_text(CANISTER).unwrap(), "next".into());
    let strategy = Strategy::Callback { callback, token: Token { part: 1 } };
    let first = Reply { streaming_strategy: Some(strategy), ..page("first, ") };
    let endpoint = canister(&first, &page(""), &last_part("last"));
    let answer = get(&endpoint, &format!("{CANISTER}.localhost"), "/");
    assert_eq!((answer.status, answer.text().as_str()), (201, "first, last"));
    endpoint.stop().unwrap();
}

#[test]
fn who_is_not_there_or_does_not_answer_is_named() {
    let endpoint = canister(&page("hello"), &page(""), &last_part(""));
    let missing = get(&endpoint, "r7inp-6aaaa-aaaaa-aaabq-cai.localhost", "/");
    assert_eq!(missing.status, 502);
    assert!(missing.text().contains("r7inp-6aaaa-aaaaa-aaabq-cai not found"), "{}", missing.text());
    let nobody = get(&endpoint, "localhost", "/page");
    assert_eq!(nobody.status, 404);
    assert!(nobody.text().contains("canisterId=ID"));
    let directory = get(&endpoint, "localhost:4943", "/");
    assert!(directory.text().contains(&format!("http://{CANISTER}.localhost:4943/")), "{}", directory.text());
    endpoint.stop().unwrap();
}
