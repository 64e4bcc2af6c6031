//! Calls: sent twice, slow, and many at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candid::Principal;
use ic_agent::AgentError;
use ic_agent::agent::{CallResponse, RequestStatusResponse};
use ic_agent::identity::{AnonymousIdentity, BasicIdentity};
use ic_certification::{Certificate, LookupResult};
use local_runner::endpoint::{Endpoint, Options};

use super::{get, inc, reject};
use crate::common::endpoint::{self, *};

#[test]
fn a_request_that_comes_twice_is_executed_once() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap();
        for version in ["v2", "v3", "v4", "v4"] {
            let path = format!("/api/{version}/canister/{canister}/call");
            let answer = http(endpoint.address(), "POST", &path, &[], &signed.signed_update);
            assert_eq!(answer.status, if version == "v2" { 202 } else { 200 });
            if version == "v2" {
                assert!(answer.body.is_empty());
                continue;
            }
            let reply: BTreeMap<String, serde_cbor::Value> = serde_cbor::from_slice(&answer.body).unwrap();
            assert_eq!(reply["status"], serde_cbor::Value::Text("replied".into()));
            let serde_cbor::Value::Bytes(certificate) = &reply["certificate"] else { panic!("no certificate") };
            let certificate: Certificate = serde_cbor::from_slice(certificate).unwrap();
            agent.verify(&certificate, canister).unwrap();
            let path = ["request_status".into(), signed.request_id.to_vec(), "reply".into()];
            assert_eq!(certificate.tree.lookup_path(&path), LookupResult::Found(&[1, 0, 0, 0]));
        }
        assert_eq!(get(&agent, canister).await, 1);
    });
    endpoint.stop().unwrap();
}

#[test]
fn a_call_that_takes_long_is_polled_and_keeps_nobody_waiting() {
    let slow = Options { sync: Duration::ZERO, ..options(None) };
    let (endpoint, canister) = with_canister(slow, &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        assert_eq!(inc(&agent, canister, 2).await.unwrap(), 2);
        assert_eq!(reject(agent.update(&canister, "fail").call_and_wait().await.unwrap_err()).1, "IC0503");
        let started = agent.update(&canister, "spin").call().await.unwrap();
        let CallResponse::Poll(id) = started else { panic!("answered at once") };
        let asked = Instant::now();
        let (status, _) = agent.request_status_raw(&id, canister).await.unwrap();
        assert!(matches!(status, RequestStatusResponse::Processing | RequestStatusResponse::Received), "{status:?}");
        assert!(asked.elapsed() < Duration::from_millis(200), "reading waited for the canister");
        assert_eq!(agent.wait(&id, canister).await.unwrap().0, [2, 0, 0, 0]);

        let other = endpoint::agent(endpoint.address(), AnonymousIdentity).await;
        let foreign = other.request_status_raw(&id, canister).await;
        assert!(matches!(&foreign, Err(AgentError::HttpError(error)) if error.status == 403), "{foreign:?}");
    });
    endpoint.stop().unwrap();
}

#[test]
fn calls_of_many_clients_are_all_executed() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let address = endpoint.address();
    let clients: Vec<_> = (1..=4u8)
        .map(|number| {
            std::thread::spawn(move || {
                block_on(async {
                    let agent = agent(address, BasicIdentity::from_raw_key(&[number; 32])).await;
                    for _ in 0..10 {
                        inc(&agent, canister, number).await.unwrap();
                        get(&agent, canister).await;
                    }
                });
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    block_on(async { assert_eq!(get(&agent(address, user()).await, canister).await, 10 * (1 + 2 + 3 + 4)) });
    endpoint.stop().unwrap();
}

/// An endpoint with the counting canister, and the lines that it logs.
fn logging(options: Options) -> (Endpoint, Principal, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lines);
    let options = Options { log: Arc::new(move |line| log.lock().unwrap().push(line)), ..options };
    let (endpoint, canister) = with_canister(options, &counter_wasm());
    (endpoint, canister, lines)
}

#[test]
fn a_replayed_call_is_not_executed_again_whatever_became_of_it() {
    let (endpoint, canister, lines) = logging(Options { sync: Duration::ZERO, ..options(None) });
    let path = format!("/api/v4/canister/{canister}/call");
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        for method in ["spin", "fail", "no"] {
            let signed = agent.update(&canister, method).sign().unwrap();
            let send = || http(endpoint.address(), "POST", &path, &[], &signed.signed_update).status;
            // The second comes while what is slow is executed, the third when all has ended.
            let statuses = [send(), send()];
            assert!(statuses == [202, 202] || method != "spin", "{statuses:?}");
            let ended = agent.wait(&signed.request_id, canister).await;
            assert_eq!(ended.is_ok(), method == "spin");
            assert_eq!(send(), 200);
            let again = agent.wait(&signed.request_id, canister).await;
            assert_eq!(format!("{again:?}").split("time").next(), format!("{ended:?}").split("time").next());
            let executed =
                lines.lock().unwrap().iter().filter(|line| line.contains(&format!(" update {method}: "))).count();
            assert_eq!(executed, 1, "{method}: {:?}", lines.lock().unwrap());
        }
    });
    endpoint.stop().unwrap();
}

#[test]
fn a_call_that_is_replayed_after_its_expiry_is_refused() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let expiry = time::OffsetDateTime::now_utc() + Duration::from_millis(800);
        let signed = agent.update(&canister, "inc").with_arg(vec![1]).expire_at(expiry).sign().unwrap();
        let path = format!("/api/v4/canister/{canister}/call");
        let send = || http(endpoint.address(), "POST", &path, &[], &signed.signed_update);
        assert_eq!(send().status, 200);
        std::thread::sleep(Duration::from_millis(900));
        let refused = send();
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains("ingress_expiry not within expected range"), "{}", refused.text());
        assert_eq!(get(&agent, canister).await, 1);
    });
    endpoint.stop().unwrap();
}
