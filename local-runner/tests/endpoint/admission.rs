//! Who is admitted, what may be read, and which requests are refused.

use std::time::{SystemTime, UNIX_EPOCH};

use candid::Principal;
use ic_agent::AgentError;
use ic_agent::identity::{
    AnonymousIdentity, BasicIdentity, DelegatedIdentity, Delegation, Identity, Prime256v1Identity, Secp256k1Identity,
    SignedDelegation,
};
use ic_transport_types::Envelope;

use super::{get, inc};
use crate::common::endpoint::*;

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

#[test]
fn keys_of_every_kind_and_delegations_are_accepted() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let delegated = || {
        let (user, session) = (user(), BasicIdentity::from_raw_key(&[9; 32]));
        let delegation = Delegation {
            pubkey: session.public_key().unwrap(),
            expiration: now_ns() + 60_000_000_000,
            targets: Some(vec![canister]),
            permissions: None,
        };
        let signature = user.sign_delegation(&delegation).unwrap().signature.unwrap();
        let chain = vec![SignedDelegation { delegation, signature }];
        DelegatedIdentity::new(user.public_key().unwrap(), Box::new(session), chain).unwrap()
    };
    let p256 = Prime256v1Identity::from_private_key(p256::SecretKey::from_slice(&[5; 32]).unwrap());
    let k256 = Secp256k1Identity::from_private_key(k256::SecretKey::from_slice(&[6; 32]).unwrap());
    let identities: [Box<dyn Identity>; 5] =
        [Box::new(user()), Box::new(AnonymousIdentity), Box::new(p256), Box::new(k256), Box::new(delegated())];
    block_on(async {
        for identity in identities {
            let expected = identity.sender().unwrap();
            let agent = agent(endpoint.address(), identity).await;
            inc(&agent, canister, 1).await.unwrap();
            assert_eq!(agent.query(&canister, "caller").call().await.unwrap(), expected.as_slice());
        }
        let agent = agent(endpoint.address(), delegated()).await;
        let elsewhere = agent.update(&Principal::management_canister(), "raw_rand");
        let elsewhere = elsewhere.with_effective_canister_id(canister).call_and_wait().await;
        assert!(matches!(&elsewhere, Err(AgentError::HttpError(error)) if error.status == 400), "{elsewhere:?}");
    });
    endpoint.stop().unwrap();
}

#[test]
fn an_expired_or_forged_request_is_refused() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        for expiry_ns in [now_ns() - 1_000_000_000, now_ns() + 3_600_000_000_000] {
            let expiry = time::OffsetDateTime::from_unix_timestamp_nanos(expiry_ns.into()).unwrap();
            let late = agent.update(&canister, "inc").with_arg(vec![1]).expire_at(expiry).call_and_wait().await;
            let text = format!("{:?}", late.unwrap_err());
            assert!(text.contains("ingress_expiry not within expected range"), "{text}");
        }
        let mut signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap().signed_update;
        let place = signed.len() - 1;
        signed[place] ^= 1;
        let answer = http(endpoint.address(), "POST", &format!("/api/v4/canister/{canister}/call"), &[], &signed);
        assert_eq!(answer.status, 400);
        assert!(answer.text().starts_with("Invalid signature"), "{}", answer.text());
        assert_eq!(get(&agent, canister).await, 0);
    });
    endpoint.stop().unwrap();
}

#[test]
fn only_what_concerns_the_reader_and_the_canister_is_read() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let other = Principal::from_text("r7inp-6aaaa-aaaaa-aaabq-cai").unwrap();
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let read = |path: Vec<&'static [u8]>, of: Principal| {
            let mut path: Vec<ic_certification::Label> = path.into_iter().map(Into::into).collect();
            if path.len() > 1 && path[0].as_bytes() == b"canister" {
                path[1] = of.as_slice().into();
            }
            agent.read_state_raw(vec![path], canister)
        };
        assert!(read(vec![b"time"], canister).await.is_ok());
        assert!(read(vec![b"canister", b"", b"controllers"], canister).await.is_ok());
        for (path, of, expected) in [
            (vec![&b"canister"[..], b"", b"controllers"], other, 400),
            (vec![b"canister", b"", b"certified_data"], canister, 404),
            (vec![b"canister"], canister, 404),
            (vec![b"request_status"], canister, 404),
            (vec![b"request_status", b"short"], canister, 400),
            (vec![], canister, 404),
        ] {
            let refused = read(path, of).await;
            assert!(matches!(&refused, Err(AgentError::HttpError(error)) if error.status == expected), "{refused:?}");
        }
        let many = agent.read_state_raw(vec![vec!["time".into()]; 1001], canister).await;
        assert!(matches!(&many, Err(AgentError::HttpError(error)) if error.status == 400), "{many:?}");
    });
    endpoint.stop().unwrap();
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    let address = endpoint.address();
    let agent = block_on(agent(address, user()));
    let signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap().signed_update;
    let other = "r7inp-6aaaa-aaaaa-aaabq-cai";
    let large = vec![0; 5 << 20];
    for (method, path, body, status, text) in [
        ("GET", "/api/v2/nothing".to_owned(), &[][..], 404, "there is no"),
        ("GET", format!("/api/v4/canister/{canister}/call"), &[], 400, "POST"),
        ("POST", format!("/api/v4/canister/{canister}/call"), b"x", 400, "envelope"),
        ("POST", format!("/api/v4/canister/{other}/call"), &signed, 400, "the path names"),
        ("POST", format!("/api/v3/canister/{canister}/query"), &signed, 400, "request_type"),
        ("POST", "/api/v3/canister/what/query".to_owned(), &signed, 400, "not a principal"),
        ("POST", format!("/api/v3/subnet/{canister}/read_state"), &signed, 404, "there is no subnet"),
        ("POST", format!("/api/v4/canister/{canister}/call"), &large, 413, "larger"),
    ] {
        let answer = http(address, method, &path, &[], body);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(text), "{path}: {}", answer.text());
    }
    endpoint.stop().unwrap();
}

#[test]
fn pages_of_other_origins_may_ask() {
    let endpoint = empty(options(None));
    let preflight = http(endpoint.address(), "OPTIONS", "/api/v4/canister/aaaaa-aa/call", &[("origin", "x")], b"");
    assert_eq!(preflight.status, 204);
    for name in ["access-control-allow-origin: *", "access-control-allow-methods", "access-control-allow-headers: *"] {
        assert!(preflight.head.contains(name), "{}", preflight.head);
    }
    endpoint.stop().unwrap();
}

#[test]
fn nobody_speaks_for_another() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let signed = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap().signed_update;
        let other = BasicIdentity::from_raw_key(&[8; 32]);
        let changed = |change: &dyn Fn(&mut Envelope<'static>)| {
            let mut envelope: Envelope<'static> = serde_cbor::from_slice(&signed).unwrap();
            change(&mut envelope);
            envelope.encode_bytes()
        };
        let sender = |envelope: &mut Envelope<'static>, sender| {
            let ic_transport_types::EnvelopeContent::Call { sender: before, .. } = envelope.content.to_mut() else {
                panic!("a call is a call")
            };
            *before = sender;
        };
        let path = format!("/api/v4/canister/{canister}/call");
        for (forged, reason) in [
            (changed(&|envelope| envelope.sender_sig = None), "is missing"),
            (changed(&|envelope| sender(envelope, Principal::anonymous())), "the sender is anonymous"),
            (changed(&|envelope| sender(envelope, principal(&other))), "does not belong to the public key"),
            (changed(&|envelope| envelope.sender_pubkey = other.public_key()), "does not belong to the public key"),
            (
                changed(&|envelope| {
                    sender(envelope, principal(&other));
                    envelope.sender_pubkey = other.public_key();
                }),
                "Invalid signature",
            ),
        ] {
            let answer = http(endpoint.address(), "POST", &path, &[], &forged);
            assert_eq!(answer.status, 400);
            assert!(answer.text().contains(reason), "{}", answer.text());
        }
        assert_eq!(get(&agent, canister).await, 0);
        assert_eq!(http(endpoint.address(), "POST", &path, &[], &signed).status, 200, "the real one is taken");
        assert_eq!(get(&agent, canister).await, 1);
    });
    endpoint.stop().unwrap();
}

#[test]
fn a_request_for_one_canister_is_of_no_use_at_another() {
    let (endpoint, canister) = with_canister(options(None), &counter_wasm());
    block_on(async {
        let agent = agent(endpoint.address(), user()).await;
        let other = create(&agent).await;
        install(&agent, other, Mode::Install, counter_wasm()).await;
        let call = agent.update(&canister, "inc").with_arg(vec![1]).sign().unwrap();
        let query = agent.query(&canister, "get").sign().unwrap();
        let status = agent.sign_request_status(canister, call.request_id).unwrap();
        let stop = agent.update(&Principal::management_canister(), "stop_canister");
        let stop = stop
            .with_effective_canister_id(canister)
            .with_arg(candid::encode_one(CanisterId { canister_id: canister }).unwrap());
        for (action, body) in [
            ("call", call.signed_update.clone()),
            ("query", query.signed_query),
            ("call", stop.sign().unwrap().signed_update),
        ] {
            let answer = http(endpoint.address(), "POST", &format!("/api/v3/canister/{other}/{action}"), &[], &body);
            assert_eq!(answer.status, 400, "{action}");
            assert!(answer.text().contains(&format!("the path names canister {other}")), "{}", answer.text());
        }
        // What became of a call can be asked at any canister, by its sender alone: there it is unknown before it is made.
        let path = format!("/api/v3/canister/{other}/read_state");
        assert_eq!(http(endpoint.address(), "POST", &path, &[], &status.signed_request_status).status, 200);
        assert_eq!((get(&agent, canister).await, get(&agent, other).await), (0, 0));
    });
    endpoint.stop().unwrap();
}
