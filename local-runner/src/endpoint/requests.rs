//! What has become of the calls that users sent: the platform's ingress history.
//!
//! A call is known by its request id from when it arrives until some minutes after nobody can send it again, so that
//! the same envelope sent twice is executed once and answered twice. Knows nothing of HTTP or of how calls are executed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candid::Principal;
use ic_transport_types::RequestId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::encoding::leb128;
use super::tree::Tree;
use crate::shim::Reject;

/// How long a call is remembered after its end and its expiry.
const KEPT_NS: u64 = 5 * 60 * 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Parts of the state tree: one for each first byte of a request id, which is a hash.
const PARTS: usize = 256;
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
    /// It ended before the replica was started; the outcome is not known any more.
    Done,
}

impl Status {
    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Replied(_) | Self::Rejected(_) | Self::Refused(_) | Self::Done)
    }

    /// Its part of the state tree (interface specification, "Request status").
    fn tree(&self) -> Arc<Tree> {
        let named = |name: &str| Tree::branch([("status", Tree::leaf(name))]);
        match self {
            Self::Pending | Self::Accepted => named("received"),
            Self::Processing => named("processing"),
            Self::Done => named("done"),
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

/// A call that has ended and can be sent again, in the form that is kept while the replica does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    id: RequestId,
    sender: Principal,
    canister: Principal,
    expiry_ns: u64,
}

/// A call that is remembered.
struct Entry {
    sender: Principal,
    canister: Principal,
    expiry_ns: u64,
    /// When it is forgotten: a full second, and never while it is open.
    end_ns: u64,
    status: Status,
    tree: Arc<Tree>,
}

impl Entry {
    /// When it is forgotten if it ends now.
    fn end_ns(&self, now_ns: u64) -> u64 {
        let end_ns = now_ns.max(self.expiry_ns).saturating_add(KEPT_NS);
        end_ns.checked_next_multiple_of(SECOND_NS).unwrap_or(u64::MAX)
    }
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
    calls: Mutex<Calls>,
    changed: watch::Sender<()>,
}

struct Calls {
    entries: BTreeMap<RequestId, Entry>,
    /// How many are not answered.
    open: usize,
    /// When the next may be forgotten.
    end_ns: u64,
    /// The parts of the state tree, by the first byte of the request id; those that changed are made anew when they are
    /// needed. So what a call costs does not grow with the calls that are remembered.
    parts: [Option<Arc<Tree>>; PARTS],
}

impl Calls {
    /// What is said of a call changes.
    fn touch(&mut self, id: &RequestId) {
        self.parts[usize::from(id[0])] = None;
    }

    fn forget(&mut self, now_ns: u64) {
        if now_ns < self.end_ns {
            return;
        }
        let Self { entries, parts, .. } = self;
        entries.retain(|id, entry| {
            let kept = now_ns < entry.end_ns;
            if !kept {
                parts[usize::from(id[0])] = None;
            }
            kept
        });
        self.end_ns = self.entries.values().map(|entry| entry.end_ns).min().unwrap_or(u64::MAX);
    }

    fn part(&mut self, first: u8) -> Arc<Tree> {
        let entries = &self.entries;
        let part = &mut self.parts[usize::from(first)];
        let make = || {
            let [mut from, mut to] = [[0; 32], [255; 32]];
            (from[0], to[0]) = (first, first);
            let within = entries.range(RequestId::new(&from)..=RequestId::new(&to));
            Tree::branch(within.map(|(id, entry)| (id.as_slice(), Arc::clone(&entry.tree))))
        };
        Arc::clone(part.get_or_insert_with(make))
    }
}

impl Default for Requests {
    fn default() -> Self {
        let calls = Calls { entries: BTreeMap::new(), open: 0, end_ns: u64::MAX, parts: [const { None }; PARTS] };
        Self { calls: Mutex::new(calls), changed: watch::Sender::new(()) }
    }
}

impl Requests {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a call that arrived, if it is new.
    pub fn register(&self, id: RequestId, call: &Call) -> Registered {
        let mut calls = self.calls();
        if calls.entries.contains_key(&id) {
            return Registered::Known;
        }
        if calls.open >= OPEN_CALLS {
            return Registered::Full;
        }
        let Call { sender, canister, expiry_ns, .. } = *call;
        let status = Status::Pending;
        let entry = Entry { sender, canister, expiry_ns, end_ns: u64::MAX, tree: status.tree(), status };
        calls.entries.insert(id, entry);
        calls.open += 1;
        calls.touch(&id);
        Registered::New
    }

    /// Notes how far a call has come, and forgets old ones.
    pub fn set(&self, id: RequestId, status: Status, now_ns: u64) {
        let mut calls = self.calls();
        if let Some(entry) = calls.entries.get_mut(&id) {
            let (was_final, is_final) = (entry.status.is_final(), status.is_final());
            if is_final {
                entry.end_ns = entry.end_ns(now_ns);
            }
            let end_ns = entry.end_ns;
            entry.tree = status.tree();
            entry.status = status;
            calls.end_ns = calls.end_ns.min(end_ns);
            calls.open -= usize::from(is_final && !was_final);
            calls.touch(&id);
        }
        calls.forget(now_ns);
        drop(calls);
        self.changed.send_replace(());
    }

    /// The calls that have ended and have not expired.
    pub fn ended(&self, now_ns: u64) -> Vec<Ended> {
        let calls = self.calls();
        let ended = calls.entries.iter().filter(|(_, entry)| entry.status.is_final() && entry.expiry_ns >= now_ns);
        ended
            .map(|(id, &Entry { sender, canister, expiry_ns, .. })| Ended { id: *id, sender, canister, expiry_ns })
            .collect()
    }

    /// Remembers calls that ended when the replica ran before.
    pub fn restore(&self, ended: &[Ended]) {
        let mut calls = self.calls();
        for &Ended { id, sender, canister, expiry_ns } in ended {
            let status = Status::Done;
            let mut entry = Entry { sender, canister, expiry_ns, end_ns: 0, tree: status.tree(), status };
            entry.end_ns = entry.end_ns(0);
            calls.end_ns = calls.end_ns.min(entry.end_ns);
            calls.entries.insert(id, entry);
            calls.touch(&id);
        }
    }

    /// How far a call has come.
    pub fn status(&self, id: &RequestId) -> Option<Status> {
        self.calls().entries.get(id).map(|entry| entry.status.clone())
    }

    /// Who sent a call, and to which canister.
    pub fn parties(&self, id: &RequestId) -> Option<(Principal, Principal)> {
        self.calls().entries.get(id).map(|entry| (entry.sender, entry.canister))
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
        let mut calls = self.calls();
        Tree::parts((0..=u8::MAX).map(|first| calls.part(first)))
    }
}

#[cfg(test)]
mod tests {
    use ic_certification::LookupResult;

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
        assert_eq!(requests.register(id(1), &call(1_000)), Registered::New);
        assert_eq!(requests.register(id(1), &call(1_000)), Registered::Known);
        requests.set(id(1), Status::Replied(vec![7]), 10);
        requests.set(id(2), Status::Accepted, KEPT_NS + SECOND_NS - 1);
        assert_eq!(requests.status(&id(1)), Some(Status::Replied(vec![7])));
        requests.set(id(2), Status::Accepted, KEPT_NS + SECOND_NS);
        assert_eq!(requests.status(&id(1)), None);
        assert_eq!(requests.register(id(1), &call(1_000)), Registered::New);
    }

    #[test]
    fn an_open_call_is_never_forgotten() {
        let requests = Requests::default();
        requests.register(id(1), &call(1_000));
        requests.set(id(1), Status::Processing, u64::MAX - 1);
        assert_eq!(requests.status(&id(1)), Some(Status::Processing));
    }

    #[test]
    fn the_tree_is_that_of_all_calls_at_any_time() {
        let requests = Requests::default();
        let path = |number| vec![id(number).to_vec(), b"status".to_vec()];
        for number in (0..2_100).step_by(7) {
            requests.register(id(number), &call(0));
        }
        for number in (0..2_000).step_by(21) {
            let before = requests.tree();
            requests.set(id(number), Status::Replied(vec![1]), u64::from(number) * SECOND_NS);
            let tree = requests.tree();
            assert_ne!(before.digest(), tree.digest());
            let shown = tree.show(&[&path(number), &path(number + 7), &path(number + 1)]);
            assert_eq!(shown.digest(), tree.digest());
            assert_eq!(shown.lookup_path(path(number)), LookupResult::Found(b"replied"));
            assert_eq!(shown.lookup_path(path(number + 7)), LookupResult::Found(b"received"));
            assert_eq!(shown.lookup_path(path(number + 1)), LookupResult::Absent);
        }
        let gone = requests.tree().show(&[&path(0)]);
        assert_eq!(gone.lookup_path(path(0)), LookupResult::Absent, "it was forgotten long ago");
    }

    #[test]
    fn what_has_ended_and_not_expired_is_known_to_the_next_run() {
        let requests = Requests::default();
        for (number, expiry_ns) in [(1, 1_000), (2, 3_000), (3, 3_000)] {
            requests.register(id(number), &call(expiry_ns));
        }
        requests.set(id(1), Status::Replied(vec![7]), 10);
        requests.set(id(2), Status::Replied(vec![7]), 10);
        let again = Requests::default();
        again.restore(&requests.ended(2_000));
        assert_eq!(again.register(id(2), &call(3_000)), Registered::Known);
        assert_eq!(again.status(&id(2)), Some(Status::Done));
        assert_eq!([1, 3].map(|number| again.register(id(number), &call(3_000))), [Registered::New; 2]);
        again.set(id(1), Status::Accepted, KEPT_NS + SECOND_NS);
        assert_eq!(again.status(&id(2)), None, "it is forgotten like any other");
    }

    #[test]
    fn there_is_a_limit_to_open_calls() {
        let requests = Requests::default();
        for number in 0..OPEN_CALLS as u16 {
            assert_eq!(requests.register(id(number), &call(1)), Registered::New);
        }
        assert_eq!(requests.register(id(5_000), &call(1)), Registered::Full);
        requests.set(id(0), Status::Replied(Vec::new()), 0);
        assert_eq!(requests.register(id(5_000), &call(1)), Registered::New);
    }
}
