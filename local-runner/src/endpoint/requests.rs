//! What has become of the calls that users sent: the platform's ingress history.
//!
//! A call is known by its request id from when it arrives until some minutes after nobody can send it again, so that
//! the same envelope sent twice is executed once and answered twice. Knows nothing of HTTP or of how calls are executed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candid::Principal;
use ic_transport_types::RequestId;
use tokio::sync::watch;

use super::encoding::leb128;
use super::tree::Tree;
use crate::shim::Reject;

/// How long a call is remembered after its end and its expiry.
const KEPT_NS: u64 = 5 * 60 * 1_000_000_000;
/// Calls that may be unanswered at the same time.
const OPEN_CALLS: usize = 1_000;

/// How far a call has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It arrived and was not looked at.
    Pending,
    /// The canister accepts it.
    Accepted,
    /// It is being executed, or waits for answers to calls that it made.
    Processing,
    /// It was answered.
    Replied(Vec<u8>),
    /// It failed.
    Rejected(Reject),
    /// It was refused before anything was executed.
    Refused(Reject),
}

impl Status {
    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Replied(_) | Self::Rejected(_) | Self::Refused(_))
    }

    /// Its part of the state tree (interface specification, "Request status").
    fn tree(&self) -> Arc<Tree> {
        let named = |name: &str| Tree::branch([("status", Tree::leaf(name))]);
        match self {
            Self::Pending | Self::Accepted => named("received"),
            Self::Processing => named("processing"),
            Self::Replied(reply) => {
                Tree::branch([("status", Tree::leaf("replied")), ("reply", Tree::leaf(reply.as_slice()))])
            }
            Self::Rejected(reject) | Self::Refused(reject) => Tree::branch([
                ("status", Tree::leaf("rejected")),
                ("reject_code", Tree::leaf(leb128(reject.code.number().into()))),
                ("reject_message", Tree::leaf(reject.message.as_str())),
                ("error_code", Tree::leaf(reject.error_code_name())),
            ]),
        }
    }
}

/// A call as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who sent it.
    pub sender: Principal,
    /// Canister that is called.
    pub canister: Principal,
    /// Method that is called.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
    /// When it expires, in nanoseconds since 1970.
    pub expiry_ns: u64,
}

/// A call that is remembered.
struct Entry {
    sender: Principal,
    canister: Principal,
    expiry_ns: u64,
    /// When its last status began.
    since_ns: u64,
    status: Status,
    tree: Arc<Tree>,
}

/// Whether a call is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It has to be executed.
    New,
    /// It came before.
    Known,
    /// Too many calls are open.
    Full,
}

/// All calls that are remembered.
pub struct Requests {
    entries: Mutex<BTreeMap<RequestId, Entry>>,
    changed: watch::Sender<()>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { entries: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Requests {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<RequestId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a call that arrived, if it is new.
    pub fn register(&self, id: RequestId, call: &Call, now_ns: u64) -> Registered {
        let mut entries = self.entries();
        if entries.contains_key(&id) {
            return Registered::Known;
        }
        if entries.values().filter(|entry| !entry.status.is_final()).count() >= OPEN_CALLS {
            return Registered::Full;
        }
        let status = Status::Pending;
        let entry = Entry {
            sender: call.sender,
            canister: call.canister,
            expiry_ns: call.expiry_ns,
            since_ns: now_ns,
            tree: status.tree(),
            status,
        };
        entries.insert(id, entry);
        Registered::New
    }

    /// Notes how far a call has come, and forgets old ones.
    pub fn set(&self, id: RequestId, status: Status, now_ns: u64) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&id) {
            entry.tree = status.tree();
            entry.status = status;
            entry.since_ns = now_ns;
        }
        entries.retain(|_, entry| {
            let end = entry.since_ns.max(entry.expiry_ns).saturating_add(KEPT_NS);
            !entry.status.is_final() || now_ns < end
        });
        drop(entries);
        self.changed.send_replace(());
    }

    /// How far a call has come.
    pub fn status(&self, id: &RequestId) -> Option<Status> {
        self.entries().get(id).map(|entry| entry.status.clone())
    }

    /// Who sent a call, and to which canister.
    pub fn parties(&self, id: &RequestId) -> Option<(Principal, Principal)> {
        self.entries().get(id).map(|entry| (entry.sender, entry.canister))
    }

    /// Waits until `enough` says so of a call's status; answers that status, or nothing if the call is not known.
    pub async fn wait(&self, id: &RequestId, enough: impl Fn(&Status) -> bool) -> Option<Status> {
        let mut changes = self.changed.subscribe();
        loop {
            let status = self.status(id)?;
            if enough(&status) || changes.changed().await.is_err() {
                return Some(status);
            }
        }
    }

    /// All of them as a part of the state tree.
    pub fn tree(&self) -> Arc<Tree> {
        Tree::branch(self.entries().iter().map(|(id, entry)| (id.as_slice(), Arc::clone(&entry.tree))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(expiry_ns: u64) -> Call {
        let sender = Principal::anonymous();
        Call { sender, canister: sender, method: String::new(), arg: Vec::new(), expiry_ns }
    }

    fn id(number: u16) -> RequestId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        RequestId::new(&bytes)
    }

    #[test]
    fn a_call_is_known_until_minutes_after_its_expiry() {
        let requests = Requests::default();
        assert_eq!(requests.register(id(1), &call(1_000), 0), Registered::New);
        assert_eq!(requests.register(id(1), &call(1_000), 0), Registered::Known);
        requests.set(id(1), Status::Replied(vec![7]), 10);
        requests.set(id(2), Status::Accepted, 1_000 + KEPT_NS - 1);
        assert_eq!(requests.status(&id(1)), Some(Status::Replied(vec![7])));
        requests.set(id(2), Status::Accepted, 1_000 + KEPT_NS);
        assert_eq!(requests.status(&id(1)), None);
    }

    #[test]
    fn an_open_call_is_never_forgotten() {
        let requests = Requests::default();
        requests.register(id(1), &call(1_000), 0);
        requests.set(id(1), Status::Processing, u64::MAX);
        assert_eq!(requests.status(&id(1)), Some(Status::Processing));
    }

    #[test]
    fn there_is_a_limit_to_open_calls() {
        let requests = Requests::default();
        for number in 0..OPEN_CALLS as u16 {
            assert_eq!(requests.register(id(number), &call(1), 0), Registered::New);
        }
        assert_eq!(requests.register(id(5_000), &call(1), 0), Registered::Full);
        requests.set(id(0), Status::Replied(Vec::new()), 0);
        assert_eq!(requests.register(id(5_000), &call(1), 0), Registered::New);
    }
}
