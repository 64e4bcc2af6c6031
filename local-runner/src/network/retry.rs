//! When a failed call is made again, and after how long. Knows the failures of networks and nothing of what is called.

use std::time::Duration;

use ic_agent::AgentError;
use ic_agent::agent::{RejectCode, RejectResponse};
use rand_core::{OsRng, RngCore};

/// "Canister out of cycles" is of the transient class, but does not go away by itself (`rs/types/error_types` of dfinity/ic).
const OUT_OF_CYCLES: &str = "IC0207";

/// How often and how patiently calls are made again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Failures of one call after which it is given up.
    pub failures: u32,
    /// About how long to wait after the first failure; twice as long after each further one.
    pub first: Duration,
    /// About how long to wait at most.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { failures: 8, first: Duration::from_millis(250), longest: Duration::from_secs(15) }
    }
}

impl Patience {
    /// How long to wait after the failure of this number, from 0: exponentially longer, spread evenly over half to one and a
    /// half times that, so that many clients or chunks do not come back at once.
    pub fn pause(&self, failure: u32) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(failure)).min(self.longest);
        doubled.mul_f64(0.5 + f64::from(OsRng.next_u32()) / f64::from(u32::MAX))
    }
}

/// What a failure says of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is not known whether the call arrived: the same one may be sent again, and is executed once.
    Unanswered,
    /// It was not executed, for reasons that pass: another one may be made.
    Busy,
    /// It may or may not be executed; the same one would come too late.
    Expired,
    /// Nothing would change.
    Final,
}

impl Failure {
    /// The class of an error.
    pub fn of(error: &AgentError) -> Self {
        match error {
            AgentError::TransportError(_) | AgentError::InvalidCborData(_) | AgentError::InvalidHttpResponse(_) => {
                Self::Unanswered
            }
            AgentError::HttpError(answer) => match answer.status {
                408 | 425 | 429 | 500 | 502 | 503 | 504 => Self::Unanswered,
                400 if String::from_utf8_lossy(&answer.content).contains("ingress_expiry") => Self::Expired,
                _ => Self::Final,
            },
            AgentError::TimeoutWaitingForResponse() => Self::Expired,
            AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. } => {
                Self::of_reject(reject)
            }
            _ => Self::Final,
        }
    }

    fn of_reject(reject: &RejectResponse) -> Self {
        let transient = reject.reject_code == RejectCode::SysTransient;
        if transient && reject.error_code.as_deref() != Some(OUT_OF_CYCLES) { Self::Busy } else { Self::Final }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_agent::agent_error::HttpErrorPayload;

    #[test]
    fn pauses_double_up_to_a_limit_and_are_spread() {
        let patience = Patience::default();
        for (failure, about) in [(0, 0.25), (1, 0.5), (3, 2.0), (6, 15.0), (40, 15.0)] {
            let pauses: Vec<_> = (0..50).map(|_| patience.pause(failure).as_secs_f64()).collect();
            assert!(pauses.iter().all(|pause| (0.5 * about..=1.5 * about).contains(pause)), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }

    fn http(status: u16, content: &str) -> AgentError {
        AgentError::HttpError(HttpErrorPayload { status, content_type: None, content: content.into() })
    }

    fn rejected(reject_code: RejectCode, error_code: &str) -> AgentError {
        let error_code = Some(error_code.to_owned());
        let reject = RejectResponse { reject_code, reject_message: String::new(), error_code };
        AgentError::UncertifiedReject { reject, operation: None }
    }

    #[test]
    fn failures_that_pass_are_told_from_those_that_do_not() {
        for (error, expected) in [
            (http(429, ""), Failure::Unanswered),
            (http(503, ""), Failure::Unanswered),
            (http(400, "Specified ingress_expiry not within expected range"), Failure::Expired),
            (http(400, "malformed"), Failure::Final),
            (http(403, ""), Failure::Final),
            (AgentError::TimeoutWaitingForResponse(), Failure::Expired),
            (rejected(RejectCode::SysTransient, "IC0210"), Failure::Busy),
            (rejected(RejectCode::SysTransient, "IC0207"), Failure::Final),
            (rejected(RejectCode::CanisterError, "IC0502"), Failure::Final),
            (AgentError::CertificateVerificationFailed(), Failure::Final),
        ] {
            assert_eq!(Failure::of(&error), expected, "{error}");
        }
    }
}
