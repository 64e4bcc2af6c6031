//! Limits of size, rate and number, and clients that are slow.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use ic_agent::Agent;
use local_runner::endpoint::{Options, Setup};

use super::{get, inc};
use crate::common::endpoint::*;

#[test]
fn a_taken_port_is_named() {
    let endpoint = empty(options(None));
    let again = Options { port: endpoint.address().port(), ..options(None) };
    let error = Setup::open(again).err().unwrap().to_string();
    assert!(error.contains("is in use") && error.contains("--port"), "{error}");
    endpoint.stop().unwrap();
}

#[test]
fn clients_that_dawdle_block_nobody() {
    let endpoint = empty(options(None));
    let half_open: Vec<_> = (0..100).map(|_| TcpStream::connect(endpoint.address()).unwrap()).collect();
    for mut stream in &half_open[..50] {
        std::io::Write::write_all(&mut stream, b"POST /api/v2/status HTTP/1.1\r\ncontent-length: 9\r\n\r\n1").unwrap();
    }
    let begun = Instant::now();
    let status = http(endpoint.address(), "GET", "/api/v2/status", &[], b"");
    assert_eq!(status.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(half_open);
    endpoint.stop().unwrap();
}

/// Whether the other side has closed the connection, after everything that it sent.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match stream.read_to_end(&mut Vec::new()) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn half_open_connections_make_room_for_those_that_ask() {
    let (endpoint, canister) = with_canister(Options { connections: 4, ..options(None) }, &counter_wasm());
    let address = endpoint.address();
    let half_open: Vec<_> = (0..40)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            let half = [&b""[..], b"GET / HT", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n1"][number % 3];
            // The oldest may have been cut.
            let _ = stream.write_all(half);
            stream
        })
        .collect();
    let begun = Instant::now();
    block_on(async {
        let agent = agent(address, user()).await;
        assert_eq!(inc(&agent, canister, 3).await.unwrap(), 3);
        assert_eq!(get(&agent, canister).await, 3);
    });
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(half_open[..30].iter().all(is_closed), "more connections are open than there may be");
    endpoint.stop().unwrap();
}

#[test]
fn a_connection_that_waits_for_an_answer_keeps_its_place() {
    let (held, options) = Held::after("inc", Options { connections: 1, ..options(None) });
    let (endpoint, canister) = with_canister(options, &counter_wasm());
    let address = endpoint.address();
    // It signs and sends nothing: the only connections are those of this test.
    let agent = Agent::builder().with_url(format!("http://{address}")).with_identity(user()).build().unwrap();
    let signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap().signed_update;
    let path = format!("/api/v4/canister/{canister}/call");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| http(address, "POST", &path, &[], &signed));
        held.executed();
        let refused = status(address);
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.head.contains("retry-after: 1"));
        held.go_on();
        assert_eq!(waiting.join().unwrap().status, 200);
    });
    // The one place is free as soon as the server has seen that the other side is gone.
    let begun = Instant::now();
    while status(address).status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the place stays taken");
    }
    endpoint.stop().unwrap();
}

fn status(address: SocketAddr) -> Answer {
    http(address, "GET", "/api/v2/status", &[], b"")
}

#[test]
fn who_asks_too_often_is_told_when_to_ask_again() {
    let limited = Options { requests_per_second: NonZeroU32::new(10), ..options(None) };
    let (endpoint, canister) = with_canister(limited, &counter_wasm());
    let address = endpoint.address();
    let answers: Vec<_> = (0..15).map(|_| status(address)).collect();
    assert!(answers[..10].iter().all(|answer| answer.status == 200));
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert!(refused.head.contains("retry-after: 1\r\n") && refused.head.contains("access-control-allow-origin: *"));
    assert!(refused.text().contains("more than 10 requests per second"), "{}", refused.text());
    // Agents wait and try again by themselves.
    block_on(async {
        let agent = agent(address, user()).await;
        for expected in 1..=12 {
            assert_eq!(inc(&agent, canister, 1).await.unwrap(), expected);
        }
    });
    endpoint.stop().unwrap();
}
