//! Envelopes that agents would send, and ones that they would not.

use ed25519_dalek::{Signer, SigningKey};
use ic_transport_types::Delegation;
use rand_core::OsRng;
use std::borrow::Cow;

use super::super::keys::ED25519_DER_HEADER;
use super::*;

const NOW_NS: u64 = 1_700_000_000_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

struct User(SigningKey);

impl User {
    fn new() -> Self {
        Self(SigningKey::generate(&mut OsRng))
    }

    fn key(&self) -> Vec<u8> {
        [ED25519_DER_HEADER.as_slice(), self.0.verifying_key().as_bytes()].concat()
    }

    fn principal(&self) -> Principal {
        Principal::self_authenticating(self.key())
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_bytes().to_vec()
    }

    fn delegate(&self, to: &User, change: impl FnOnce(&mut Delegation)) -> SignedDelegation {
        let mut delegation =
            Delegation { pubkey: to.key(), expiration: NOW_NS + MINUTE_NS, targets: None, permissions: None };
        change(&mut delegation);
        SignedDelegation { signature: self.sign(&delegation.signable()), delegation }
    }
}

fn canister() -> Principal {
    Principal::from_text("rrkah-fqaaa-aaaaa-aaaaq-cai").unwrap()
}

fn call(sender: Principal) -> EnvelopeContent {
    EnvelopeContent::Call {
        nonce: Some(vec![1; 16]),
        ingress_expiry: NOW_NS + 3 * MINUTE_NS,
        sender,
        canister_id: canister(),
        method_name: "hello".into(),
        arg: b"DIDL\0\0".to_vec(),
        sender_info: None,
    }
}

/// A call of the first user, signed by the second.
fn envelope(sender: &User, signer: &User, delegations: Vec<SignedDelegation>) -> Envelope<'static> {
    let content = call(sender.principal());
    Envelope {
        sender_pubkey: Some(sender.key()),
        sender_sig: Some(signer.sign(&content.to_request_id().signable())),
        sender_delegation: (!delegations.is_empty()).then_some(delegations),
        content: Cow::Owned(content),
    }
}

fn open(envelope: &Envelope<'_>) -> Result<Request, EnvelopeError> {
    Request::open(&envelope.encode_bytes(), NOW_NS)
}

fn refusal(envelope: &Envelope<'_>) -> String {
    open(envelope).unwrap_err().to_string()
}

/// The example of the interface specification, "Request ids".
#[test]
fn request_ids_are_those_of_the_specification() {
    let content = EnvelopeContent::Call {
        nonce: None,
        ingress_expiry: 1_685_570_400_000_000_000,
        sender: Principal::anonymous(),
        canister_id: Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0x04, 0xd2]),
        method_name: "hello".into(),
        arg: b"DIDL\x00\xfd*".to_vec(),
        sender_info: None,
    };
    let envelope =
        Envelope { content: Cow::Owned(content), sender_pubkey: None, sender_sig: None, sender_delegation: None };
    let request = Request::open(&envelope.encode_bytes(), 1_685_570_400_000_000_000 - MINUTE_NS).unwrap();
    assert_eq!(request.id.to_string(), "1d1091364d6bb8a6c16b203ee75467d59ead468f523eb058880ae8ec80e2b101");
}

#[test]
fn a_sender_signs() {
    let (user, other) = (User::new(), User::new());
    assert!(open(&envelope(&user, &user, vec![])).unwrap().targets.is_none());
    assert!(refusal(&envelope(&user, &other, vec![])).starts_with("Invalid signature"));
    let foreign = Envelope { sender_pubkey: Some(other.key()), ..envelope(&user, &user, vec![]) };
    assert!(refusal(&foreign).contains("does not belong to the public key"));
    let unsigned = Envelope { sender_sig: None, ..envelope(&user, &user, vec![]) };
    assert!(refusal(&unsigned).contains("is not anonymous"));
}

#[test]
fn what_was_changed_after_signing_is_refused() {
    let user = User::new();
    let mut changed = envelope(&user, &user, vec![]);
    if let EnvelopeContent::Call { arg, .. } = changed.content.to_mut() {
        arg.push(0);
    }
    assert!(refusal(&changed).starts_with("Invalid signature"));
}

#[test]
fn the_anonymous_sender_does_not_sign() {
    let user = User::new();
    let content = Cow::Owned(call(Principal::anonymous()));
    let anonymous = Envelope { content, sender_pubkey: None, sender_sig: None, sender_delegation: None };
    assert!(open(&anonymous).is_ok());
    let signed = Envelope { sender_pubkey: Some(user.key()), ..anonymous };
    assert_eq!(open(&signed).unwrap_err(), EnvelopeError::SignedAnonymously);
}

#[test]
fn expiry_is_neither_past_nor_far_ahead() {
    let user = User::new();
    let body = envelope(&user, &user, vec![]).encode_bytes();
    let expiry_ns = NOW_NS + 3 * MINUTE_NS;
    for (now_ns, accepted) in [
        (expiry_ns, true),
        (expiry_ns + 1, false),
        (expiry_ns - 6 * MINUTE_NS, true),
        (expiry_ns - 6 * MINUTE_NS - 1, false),
    ] {
        let opened = Request::open(&body, now_ns);
        assert_eq!(opened.is_ok(), accepted);
        let text = opened.map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(text.contains("Specified ingress_expiry not within expected range"), !accepted);
    }
}

#[test]
fn delegations_lead_from_key_to_key() {
    let (user, session, last) = (User::new(), User::new(), User::new());
    let first = || user.delegate(&session, |_| ());
    assert!(open(&envelope(&user, &session, vec![first()])).is_ok());
    assert!(open(&envelope(&user, &last, vec![first(), session.delegate(&last, |_| ())])).is_ok());
    let stranger = vec![last.delegate(&session, |_| ())];
    assert!(refusal(&envelope(&user, &session, stranger)).contains("not signed by the key before it"));
    let circle = vec![first(), session.delegate(&user, |_| ())];
    assert!(refusal(&envelope(&user, &user, circle)).contains("circle"));
    let expired = vec![user.delegate(&session, |delegation| delegation.expiration = NOW_NS - 1)];
    assert!(refusal(&envelope(&user, &session, expired)).contains("expired"));
    let queries = |delegation: &mut Delegation| delegation.permissions = Some(DelegationPermissions::Queries);
    let queries = vec![user.delegate(&session, queries)];
    assert!(refusal(&envelope(&user, &session, queries)).contains("queries only"));
    let many = (0..=DELEGATIONS).map(|_| first()).collect();
    assert!(refusal(&envelope(&user, &session, many)).contains("more than 20"));
}

#[test]
fn delegations_restrict_the_canisters() {
    let (user, session, last) = (User::new(), User::new(), User::new());
    let other = Principal::management_canister();
    let to = |targets: Vec<Principal>| |delegation: &mut Delegation| delegation.targets = Some(targets);
    let both = user.delegate(&session, to(vec![canister(), other]));
    let request = open(&envelope(&user, &session, vec![both.clone()])).unwrap();
    assert!(request.check_target(canister()).is_ok() && request.check_target(other).is_ok());
    let narrowed = vec![both, session.delegate(&last, to(vec![canister()]))];
    assert!(open(&envelope(&user, &last, narrowed)).unwrap().check_target(other).is_err());
    let elsewhere = vec![user.delegate(&session, to(vec![other]))];
    assert!(refusal(&envelope(&user, &session, elsewhere)).contains("not among its targets"));
}

#[test]
fn what_is_no_envelope_is_refused() {
    for body in [&b""[..], b"no cbor", &[0xa0], &[0xd9, 0xd9, 0xf7, 0xa0]] {
        assert!(matches!(Request::open(body, NOW_NS), Err(EnvelopeError::Malformed(_))));
    }
}
