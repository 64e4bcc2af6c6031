//! What the endpoint is sent: envelopes of any bytes, and signed ones that somebody changed.

use std::borrow::Cow;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use candid::Principal;
use ed25519_dalek::{Signer, SigningKey};
use ic_transport_types::{Delegation, DelegationPermissions, Envelope, EnvelopeContent, SignedDelegation};
use local_runner::endpoint::{Effective, Request};

use crate::pieces::{number, one_of, several, short_text};

const NOW_NS: u64 = 1_700_000_000_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;
/// DER before the 32 bytes of an Ed25519 key (RFC 8410).
const KEY_HEADER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Methods of the management canister whose arguments the endpoint looks into.
const METHODS: [&str; 6] =
    ["hello", "install_code", "install_chunked_code", "raw_rand", "create_canister", "stop_canister"];

/// Users with keys.
static USERS: LazyLock<[SigningKey; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|number| SigningKey::from_bytes(&[number; 32])));

/// Bytes, or an envelope as an agent makes it with some bytes changed.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    if kind % 4 == 0 {
        open(rest);
    } else {
        let _ = try_envelope(&mut Unstructured::new(rest));
    }
}

/// Looks at a request as the endpoint does before it is queued.
fn open(body: &[u8]) -> Option<Request> {
    let request = Request::open(body, NOW_NS).inspect_err(|error| assert!(!error.to_string().is_empty())).ok()?;
    let (canister, method, arg): (Principal, &str, &[u8]) = match &request.content {
        EnvelopeContent::Call { canister_id, method_name, arg, .. }
        | EnvelopeContent::Query { canister_id, method_name, arg, .. } => (*canister_id, method_name, arg),
        EnvelopeContent::ReadState { .. } => return Some(request),
    };
    let checked = Effective::Canister(canister).check(canister, method, arg);
    assert!(checked.is_ok() || canister == Principal::management_canister());
    let other = Principal::from_slice(&[7; 9]);
    if canister != other && canister != Principal::management_canister() {
        assert!(Effective::Canister(other).check(canister, method, arg).is_err(), "a request about another canister");
    }
    Some(request)
}

fn try_envelope(input: &mut Unstructured<'_>) -> Result<()> {
    let sender = input.choose_index(4)?;
    let content = content(input, user(sender))?;
    let chain = several(input, 3, |input| input.choose_index(3))?;
    let envelope = signed(input, content.clone(), sender, &chain)?;
    let body = envelope.encode_bytes();
    let opened = open(&body);
    if let Some(request) = &opened {
        assert!(request.id == content.to_request_id() && content.ingress_expiry() >= NOW_NS);
    }
    let changed = changed(input, &body)?;
    // Whatever was changed: who is taken for somebody with a key has signed exactly this.
    if let Some(request) = open(&changed).filter(|request| *request.content.sender() != Principal::anonymous()) {
        assert_eq!(request.id, content.to_request_id(), "{changed:02x?}");
    }
    Ok(())
}

/// The principal of a user; beyond them, of nobody.
fn user(number: usize) -> Principal {
    USERS.get(number).map_or_else(Principal::anonymous, |key| Principal::self_authenticating(der(key)))
}

fn der(key: &SigningKey) -> Vec<u8> {
    [KEY_HEADER.as_slice(), key.verifying_key().as_bytes()].concat()
}

fn content(input: &mut Unstructured<'_>, sender: Principal) -> Result<EnvelopeContent> {
    let ingress_expiry = if input.ratio(7, 8)? { NOW_NS + 3 * MINUTE_NS } else { number(input)? };
    let ids = [Principal::management_canister(), Principal::from_slice(&[1; 10]), Principal::from_slice(&[])];
    let canister_id = *input.choose(&ids)?;
    let nonce = if input.ratio(1, 2)? { Some(vec![9; input.int_in_range(0..=40usize)?]) } else { None };
    let (method_name, arg) = (one_of(input, &METHODS)?.to_owned(), argument(input)?);
    Ok(match input.int_in_range(0..=2u8)? {
        0 => EnvelopeContent::Query { nonce, ingress_expiry, sender, canister_id, method_name, arg, sender_info: None },
        1 => EnvelopeContent::ReadState { ingress_expiry, sender, paths: paths(input)? },
        _ => EnvelopeContent::Call { nonce, ingress_expiry, sender, canister_id, method_name, arg, sender_info: None },
    })
}

/// Candid as the endpoint looks into it, or whatever comes.
fn argument(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if input.ratio(1, 2)? {
        return Ok(short_text(input)?.into_bytes());
    }
    let mut bytes = b"DIDL\x01\x6c\x01\xb3\xc4\xb1\xf2\x04\x68\x01\x00\x01\x01\x01".to_vec();
    bytes.extend(short_text(input)?.into_bytes());
    Ok(bytes)
}

fn paths<Label: From<Vec<u8>>>(input: &mut Unstructured<'_>) -> Result<Vec<Vec<Label>>> {
    several(input, 3, |input| several(input, 3, |input| Ok(short_text(input)?.into_bytes().into())))
}

/// The content signed by the last of a chain of users, each of whom delegates to the next.
fn signed(
    input: &mut Unstructured<'_>,
    content: EnvelopeContent,
    sender: usize,
    chain: &[usize],
) -> Result<Envelope<'static>> {
    let Some(mut signer) = USERS.get(sender) else {
        let content = Cow::Owned(content);
        return Ok(Envelope { content, sender_pubkey: None, sender_sig: None, sender_delegation: None });
    };
    let sender_pubkey = Some(der(signer));
    let mut delegations = Vec::new();
    for next in chain.iter().filter_map(|&next| USERS.get(next)) {
        let delegation = delegation(input, next)?;
        let signature = signer.sign(&delegation.signable()).to_bytes().to_vec();
        delegations.push(SignedDelegation { delegation, signature });
        signer = next;
    }
    let sender_sig = Some(signer.sign(&content.to_request_id().signable()).to_bytes().to_vec());
    let sender_delegation = (!delegations.is_empty()).then_some(delegations);
    Ok(Envelope { content: Cow::Owned(content), sender_pubkey, sender_sig, sender_delegation })
}

fn delegation(input: &mut Unstructured<'_>, to: &SigningKey) -> Result<Delegation> {
    let expiration = if input.ratio(7, 8)? { NOW_NS + MINUTE_NS } else { number(input)? };
    let targets = if input.ratio(1, 4)? { Some(vec![Principal::from_slice(&[1; 10])]) } else { None };
    let permissions = if input.ratio(1, 8)? { Some(DelegationPermissions::Queries) } else { None };
    Ok(Delegation { pubkey: der(to), expiration, targets, permissions })
}

/// The bytes with some of them replaced, removed or inserted.
fn changed(input: &mut Unstructured<'_>, body: &[u8]) -> Result<Vec<u8>> {
    let mut body = body.to_vec();
    while !input.is_empty() && !body.is_empty() {
        let at = input.choose_index(body.len())?;
        match input.int_in_range(0..=3u8)? {
            0 => body.insert(at, u8::arbitrary(input)?),
            1 => {
                body.remove(at);
            }
            2 => body.truncate(at),
            _ => body[at] = u8::arbitrary(input)?,
        }
    }
    Ok(body)
}
