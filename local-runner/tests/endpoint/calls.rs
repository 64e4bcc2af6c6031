//! Calls: sent twice, slow, and many at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ic_agent::AgentError;
use ic_agent::agent::{CallResponse, RequestStatusResponse};
use ic_agent::identity::{AnonymousIdentity, BasicIdentity};
use ic_certification::{Certificate, LookupResult};
use local_runner::endpoint::Options;

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
    let (held, slow) = Held::after("inc", Options { sync: Duration::ZERO, ..options(None) });
    let (endpoint, canister) = with_canister(slow, &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        assert_eq!(reject(agent.update(&canister, "fail").call_and_wait().await.unwrap_err()).1, "IC0503");
        let started = agent.update(&canister, "inc").with_arg(vec![2]).call().await.unwrap();
        let CallResponse::Poll(id) = started else { panic!("answered at once") };
        held.executed();
        let reading = tokio::time::timeout(Duration::from_secs(60), agent.request_status_raw(&id, canister));
        let (status, _) = reading.await.expect("reading waited for the canister").unwrap();
        assert!(matches!(status, RequestStatusResponse::Processing), "{status:?}");
        held.go_on();
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

/// The lines that a replica logs with the options.
fn logging(options: Options) -> (Arc<Mutex<Vec<String>>>, Options) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lines);
    (lines, Options { log: Arc::new(move |line| log.lock().unwrap().push(line)), ..options })
}

#[test]
fn a_replayed_call_is_not_executed_again_whatever_became_of_it() {
    let (lines, logging) = logging(Options { sync: Duration::ZERO, ..options(None) });
    let (held, slow) = Held::after("inc", logging);
    let (endpoint, canister) = with_canister(slow, &counter_wasm());
    let path = format!("/api/v4/canister/{canister}/call");
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        for method in ["inc", "fail", "no"] {
            let signed = agent.update(&canister, method).with_arg(vec![1]).sign().unwrap();
            let send = || http(endpoint.address(), "POST", &path, &[], &signed.signed_update).status;
            // The second comes while what is slow is executed, the third when all has ended.
            let statuses = [send(), send()];
            if method == "inc" {
                assert_eq!(statuses, [202, 202]);
                held.go_on();
            }
            let ended = agent.wait(&signed.request_id, canister).await;
            assert_eq!(ended.is_ok(), method == "inc");
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
        let expiry = time::OffsetDateTime::now_utc() + Duration::from_secs(2);
        let signed = agent.update(&canister, "inc").with_arg(vec![1]).expire_at(expiry).sign().unwrap();
        let path = format!("/api/v4/canister/{canister}/call");
        let send = || http(endpoint.address(), "POST", &path, &[], &signed.signed_update);
        assert_eq!(send().status, 200);
        while time::OffsetDateTime::now_utc() <= expiry {
            assert!([200, 400].contains(&send().status));
            std::thread::sleep(Duration::from_millis(50));
        }
        let refused = send();
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains("ingress_expiry not within expected range"), "{}", refused.text());
        assert_eq!(get(&agent, canister).await, 1);
    });
    endpoint.stop().unwrap();
}
