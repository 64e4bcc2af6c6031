//! Sessions that were left alone for longer than the settings allow: they are no more, and are deleted bit by bit.

use ic_stable_structures::Memory;

use super::{Service, TIMER_LOST_NS};
use crate::env::Env;

/// Sessions deleted in one message. Each costs up to some hundred thousand instructions.
const DELETED_AT_ONCE: usize = 8;
const SECOND_NS: u64 = 1_000_000_000;

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Whether a session that changed last at `changed_ns` is no more.
    pub(super) fn is_expired(&self, changed_ns: u64) -> bool {
        self.expiry_of(changed_ns).is_some_and(|at| at <= self.env.time_ns())
    }

    /// Whether a session waits to be deleted.
    pub(super) fn any_expired(&self) -> bool {
        self.sessions.store().index().oldest().is_some_and(|(changed_ns, _)| self.is_expired(changed_ns))
    }

    /// Deletes some sessions that are no more.
    pub(super) fn delete_expired(&mut self) {
        for _ in 0..DELETED_AT_ONCE {
            let oldest = self.sessions.store().index().oldest();
            let Some((_, id)) = oldest.filter(|(changed_ns, _)| self.is_expired(*changed_ns)) else { return };
            match self.stored(id) {
                Ok(head) => self.sessions.delete(id, &head, self.env.time_ns()),
                Err(error) => return self.env.log(&format!("deleting session {id}: {error}")),
            }
        }
    }

    /// The timer for the session that expires first is over. What is due is found out by whoever schedules work next.
    pub fn expiry_due(&mut self) {
        self.expiry_timer_ns = None;
    }

    /// Sets a timer for the session that expires first, unless an earlier one is set.
    pub(super) fn schedule_expiry(&mut self) {
        let now = self.env.time_ns();
        let oldest = self.sessions.store().index().oldest();
        let Some(due) = oldest.and_then(|(changed_ns, _)| self.expiry_of(changed_ns)) else { return };
        // A timer that is late is lost; see `Service::schedule`.
        let set = self.expiry_timer_ns.filter(|at| at.saturating_add(2 * TIMER_LOST_NS) > now);
        if due > now && set.is_none_or(|at| due < at) {
            self.expiry_timer_ns = Some(due);
            self.env.expire_after(due - now);
        }
    }

    /// When a session that changed last at `changed_ns` expires, if sessions do.
    fn expiry_of(&self, changed_ns: u64) -> Option<u64> {
        let seconds = self.config.session_ttl_seconds;
        (seconds > 0).then(|| changed_ns.saturating_add(seconds.saturating_mul(SECOND_NS)))
    }
}
