//! What one principal may use, tokens a day and sessions that run, and what the canister keeps for itself. Operators, who
//! set the quotas, have none.

use candid::Principal;
use ic_stable_structures::Memory;

use super::Service;
use crate::api::{Error, QuotaStatus, Role};
use crate::env::Env;
use crate::session_head::{Driver, Head};
use crate::usage::{day_of, end_of};

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// What the caller has used.
    pub fn quota_status(&self) -> QuotaStatus {
        let (caller, now_ns) = (self.env.caller(), self.env.time_ns());
        QuotaStatus {
            unlimited: self.is_unlimited(&caller),
            tokens_today: self.sessions.tokens_of(&caller, now_ns),
            max_tokens_per_day: self.config.max_tokens_per_day,
            day_ends_ns: end_of(day_of(now_ns)),
            sessions: self.sessions.store().index().len_of(&caller) as u32,
            max_sessions: self.config.max_sessions_per_principal,
            runs: self.sessions.queue().runs_of(&caller) as u32,
            max_runs: self.config.max_runs_per_principal,
        }
    }

    /// Checks that there are more cycles than are kept for the canister's data and its operators.
    ///
    /// # Errors
    /// [`Error::CyclesLow`].
    pub(super) fn check_cycles(&self) -> Result<(), Error> {
        let (available, floor) = (self.env.liquid_cycles(), self.config.cycles_floor);
        if available >= u128::from(floor) { Ok(()) } else { Err(Error::CyclesLow { available, floor }) }
    }

    /// Tokens that may still be computed for `owner` today: at least one.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`].
    pub(super) fn tokens_left(&self, owner: &Principal) -> Result<u64, Error> {
        if self.is_unlimited(owner) {
            return Ok(u64::MAX);
        }
        let (max, now_ns) = (self.config.max_tokens_per_day, self.env.time_ns());
        let used = self.sessions.tokens_of(owner, now_ns);
        match max.checked_sub(used).filter(|left| *left > 0) {
            Some(left) => Ok(left),
            None => Err(Error::QuotaExceeded {
                quota: "max_tokens_per_day".into(),
                max,
                used,
                ends_ns: Some(end_of(day_of(now_ns))),
            }),
        }
    }

    /// Checks that the session may run by itself beside its owner's others.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`].
    pub(super) fn check_runs(&self, head: &Head) -> Result<(), Error> {
        let (max, used) = (self.config.max_runs_per_principal, self.sessions.queue().runs_of(&head.owner));
        if head.driver == Driver::Canister || used < max as usize || self.is_unlimited(&head.owner) {
            return Ok(());
        }
        let quota = "max_runs_per_principal".into();
        Err(Error::QuotaExceeded { quota, max: max.into(), used: used as u64, ends_ns: None })
    }

    fn is_unlimited(&self, who: &Principal) -> bool {
        self.config.admits(Role::Operator, who, self.env.is_controller(who))
    }
}
