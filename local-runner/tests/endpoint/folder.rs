//! A replica that is kept in a folder.

use std::time::{Duration, Instant};

use ic_agent::agent::RequestStatusResponse;
use local_runner::endpoint::{Endpoint, EndpointError, Options, Setup};

use super::{get, inc};
use crate::common::endpoint::*;

#[test]
fn a_replica_goes_on_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, canister) = with_canister(options(Some(folder.path())), &counter_wasm());
    let root_key = endpoint.root_key().to_vec();
    block_on(async { inc(&agent(endpoint.address(), user()).await, canister, 4).await.unwrap() });
    assert!(matches!(Setup::open(options(Some(folder.path()))), Err(EndpointError::Store(_))), "the folder is in use");
    endpoint.stop().unwrap();

    let endpoint = empty(options(Some(folder.path())));
    assert_eq!(endpoint.root_key(), root_key);
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        assert_eq!(get(&agent, canister).await, 4);
        assert_eq!(inc(&agent, canister, 1).await.unwrap(), 5);
        assert_ne!(create(&agent).await, canister);
    });
    endpoint.stop().unwrap();
}

#[test]
fn a_call_that_is_sent_again_after_a_restart_is_not_executed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, canister) = with_canister(options(Some(folder.path())), &counter_wasm());
    let agent_of = |endpoint: &Endpoint| block_on(agent(endpoint.address(), user()));
    let signed = agent_of(&endpoint).update(&canister, "inc").with_arg(vec![2]).sign().unwrap();
    let path = format!("/api/v4/canister/{canister}/call");
    assert_eq!(http(endpoint.address(), "POST", &path, &[], &signed.signed_update).status, 200);
    endpoint.stop().unwrap();

    let endpoint = empty(options(Some(folder.path())));
    assert_eq!(http(endpoint.address(), "POST", &path, &[], &signed.signed_update).status, 200);
    let agent = agent_of(&endpoint);
    let (status, _) = block_on(agent.request_status_raw(&signed.request_id, canister)).unwrap();
    assert!(matches!(status, RequestStatusResponse::Done), "{status:?}");
    block_on(async { assert_eq!(get(&agent, canister).await, 2) });
    endpoint.stop().unwrap();
}

#[test]
fn what_is_open_at_the_end_is_finished_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (held, at_once) = Held::after("inc", Options { sync: Duration::ZERO, ..options(Some(folder.path())) });
    let (endpoint, canister) = with_canister(at_once, &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        agent.update(&canister, "inc").with_arg(vec![3]).call().await.unwrap();
    });
    held.executed();
    drop(held);
    endpoint.stop().unwrap();
    let endpoint = empty(options(Some(folder.path())));
    block_on(async { assert_eq!(get(&agent(endpoint.address(), user()).await, canister).await, 3) });
    endpoint.stop().unwrap();
}

#[test]
fn the_folder_is_saved_while_the_replica_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut often = options(Some(folder.path()));
    often.pace.save = Some(Duration::from_millis(20));
    let (endpoint, canister) = with_canister(often, &counter_wasm());
    block_on(async { inc(&agent(endpoint.address(), user()).await, canister, 6).await.unwrap() });
    let saved = || std::fs::read_to_string(folder.path().join("replica.json")).unwrap_or_default();
    let begun = Instant::now();
    while !saved().contains("\"certified_data\":[6,0,0,0]") {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not saved");
    }
    // A copy of the folder is what a killed process would have left.
    let copy = tempfile::tempdir().unwrap();
    let source = format!("{}/.", folder.path().display());
    let copied = std::process::Command::new("cp").arg("-r").arg(source).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let again = empty(options(Some(copy.path())));
    block_on(async { assert_eq!(get(&agent(again.address(), user()).await, canister).await, 6) });
    again.stop().unwrap();
    endpoint.stop().unwrap();
}
