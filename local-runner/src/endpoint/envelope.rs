//! Requests as users send them: decoded, and checked as the platform checks them before it looks at what they ask for
//! (interface specification, "Authentication").

use std::collections::BTreeSet;

use candid::Principal;
use ic_transport_types::{DelegationPermissions, Envelope, EnvelopeContent, RequestId, SignedDelegation};

use super::signature::{SignatureError, verify};

/// How far ahead a request may expire.
const LONGEST_EXPIRY_NS: u64 = 5 * 60 * 1_000_000_000;
/// What clocks of clients may be ahead.
const CLOCK_DRIFT_NS: u64 = 60 * 1_000_000_000;
/// Delegations in a row.
const DELEGATIONS: usize = 20;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 32;

/// Why a request is not looked at any further.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is no envelope.
    #[error("the request is not a CBOR envelope with all its fields: {0}")]
    Malformed(String),
    /// It expired, or expires too late. Begins as the platform's text does, by which clients know it.
    #[error(
        "Invalid request expiry: Specified ingress_expiry not within expected range: Minimum allowed expiry: {now_ns}, \
         Maximum allowed expiry: {latest_ns}, Provided expiry: {expiry_ns}"
    )]
    Expiry {
        /// When it was looked at.
        now_ns: u64,
        /// Latest expiry that was possible then.
        latest_ns: u64,
        /// Its expiry.
        expiry_ns: u64,
    },
    /// The nonce is too long.
    #[error("the nonce has {0} bytes, at most {NONCE_BYTES} are allowed")]
    Nonce(usize),
    /// Somebody who is not anonymous did not sign.
    #[error("sender {0} is not anonymous, but sender_pubkey or sender_sig is missing")]
    Unsigned(Principal),
    /// The anonymous sender signed.
    #[error("the sender is anonymous, but the request has a public key, a signature or delegations")]
    SignedAnonymously,
    /// The sender does not belong to the key.
    #[error("sender {sender} does not belong to the public key, which is that of {owner}")]
    Sender {
        /// Who is said to send.
        sender: Principal,
        /// Whose key it is.
        owner: Principal,
    },
    /// The request was not signed by that key.
    #[error("Invalid signature: {0}")]
    Signature(#[source] SignatureError),
    /// A delegation does not hold.
    #[error("Invalid delegation: {0}")]
    Delegation(String),
}

/// A request whose sender is known.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub content: EnvelopeContent,
    /// Its hash.
    pub id: RequestId,
    /// The canisters to which delegations restrict the sender.
    pub targets: Option<BTreeSet<Principal>>,
}

impl Request {
    /// Decodes and checks a request.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn open(body: &[u8], now_ns: u64) -> Result<Self, EnvelopeError> {
        let envelope: Envelope<'static> =
            serde_cbor::from_slice(body).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        let id = envelope.content.to_request_id();
        check_expiry(envelope.content.ingress_expiry(), now_ns)?;
        check_nonce(&envelope.content)?;
        let targets = check_sender(&envelope, &id, now_ns)?;
        let content = envelope.content.into_owned();
        let request = Self { content, id, targets };
        match &request.content {
            EnvelopeContent::Call { canister_id, .. } | EnvelopeContent::Query { canister_id, .. } => {
                request.check_target(*canister_id)?;
            }
            EnvelopeContent::ReadState { .. } => {}
        }
        Ok(request)
    }

    /// Checks that delegations cover a canister.
    ///
    /// # Errors
    /// If they do not.
    pub fn check_target(&self, canister: Principal) -> Result<(), EnvelopeError> {
        match &self.targets {
            Some(targets) if !targets.contains(&canister) => {
                Err(EnvelopeError::Delegation(format!("canister {canister} is not among its targets")))
            }
            _ => Ok(()),
        }
    }
}

fn check_expiry(expiry_ns: u64, now_ns: u64) -> Result<(), EnvelopeError> {
    let latest_ns = now_ns.saturating_add(LONGEST_EXPIRY_NS + CLOCK_DRIFT_NS);
    if expiry_ns < now_ns || expiry_ns > latest_ns {
        return Err(EnvelopeError::Expiry { now_ns, latest_ns, expiry_ns });
    }
    Ok(())
}

fn check_nonce(content: &EnvelopeContent) -> Result<(), EnvelopeError> {
    match content {
        EnvelopeContent::Call { nonce: Some(nonce), .. } | EnvelopeContent::Query { nonce: Some(nonce), .. }
            if nonce.len() > NONCE_BYTES =>
        {
            Err(EnvelopeError::Nonce(nonce.len()))
        }
        _ => Ok(()),
    }
}

/// Checks who sends; answers the targets of delegations.
fn check_sender(
    envelope: &Envelope<'_>,
    id: &RequestId,
    now_ns: u64,
) -> Result<Option<BTreeSet<Principal>>, EnvelopeError> {
    let sender = *envelope.content.sender();
    let delegations = envelope.sender_delegation.as_deref().unwrap_or_default();
    if sender == Principal::anonymous() {
        let signed = envelope.sender_pubkey.is_some() || envelope.sender_sig.is_some() || !delegations.is_empty();
        return if signed { Err(EnvelopeError::SignedAnonymously) } else { Ok(None) };
    }
    let (Some(key), Some(signature)) = (&envelope.sender_pubkey, &envelope.sender_sig) else {
        return Err(EnvelopeError::Unsigned(sender));
    };
    let owner = Principal::self_authenticating(key);
    if owner != sender {
        return Err(EnvelopeError::Sender { sender, owner });
    }
    let is_call = matches!(*envelope.content, EnvelopeContent::Call { .. });
    let chain = follow(key, delegations, is_call, now_ns)?;
    verify(chain.key, &id.signable(), signature).map_err(EnvelopeError::Signature)?;
    Ok(chain.targets)
}

/// Where a row of delegations leads.
struct Chain<'a> {
    /// The key that signs requests.
    key: &'a [u8],
    targets: Option<BTreeSet<Principal>>,
}

/// Follows delegations from the sender's own key.
fn follow<'a>(
    first: &'a [u8],
    delegations: &'a [SignedDelegation],
    is_call: bool,
    now_ns: u64,
) -> Result<Chain<'a>, EnvelopeError> {
    let refusal = EnvelopeError::Delegation;
    if delegations.len() > DELEGATIONS {
        return Err(refusal(format!("{} delegations are more than {DELEGATIONS}", delegations.len())));
    }
    let mut seen = BTreeSet::from([first]);
    let mut chain = Chain { key: first, targets: None };
    for SignedDelegation { delegation, signature } in delegations {
        if delegation.expiration < now_ns {
            return Err(refusal(format!("it expired at {}, now it is {now_ns}", delegation.expiration)));
        }
        if is_call && delegation.permissions == Some(DelegationPermissions::Queries) {
            return Err(refusal("it permits queries only".into()));
        }
        verify(chain.key, &delegation.signable(), signature)
            .map_err(|error| refusal(format!("it is not signed by the key before it: {error}")))?;
        if !seen.insert(&delegation.pubkey) {
            return Err(refusal("the delegations go in a circle".into()));
        }
        chain.key = &delegation.pubkey;
        if let Some(targets) = &delegation.targets {
            let targets: BTreeSet<_> = targets.iter().copied().collect();
            chain.targets = Some(match chain.targets {
                None => targets,
                Some(before) => &before & &targets,
            });
        }
    }
    Ok(chain)
}

#[cfg(test)]
mod tests;
