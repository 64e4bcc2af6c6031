//! The codes with which a command that failed exits, for scripts: `docs/operate.md` lists them. Wrong arguments exit with 2,
//! which the parser of the command line does.

use canister::api;

use crate::interrupt::Interrupted;
use crate::network::NetworkError;

/// Anything that the others are not.
const FAILURE: u8 = 1;
/// The identity lacks a role.
const NOT_PERMITTED: u8 = 3;
/// The network cannot be reached or does not answer in time.
const NO_ANSWER: u8 = 4;
/// The canister has no model that answers, or no room, quota or cycles just now.
const NOT_READY: u8 = 5;
/// Ctrl-C, as shells count it: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// The canister answers, but not yet with what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReady(pub String);

/// The code for an error.
pub fn of(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code).unwrap_or(FAILURE)
}

fn code(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<Interrupted>() {
        return Some(INTERRUPTED);
    }
    if cause.is::<NotReady>() {
        return Some(NOT_READY);
    }
    match cause.downcast_ref::<NetworkError>() {
        Some(NetworkError::NotPermitted { .. }) => return Some(NOT_PERMITTED),
        Some(error) if error.is_temporary() => return Some(NO_ANSWER),
        _ => {}
    }
    match cause.downcast_ref::<api::Error>()? {
        api::Error::NotAuthorized { .. } => Some(NOT_PERMITTED),
        api::Error::ModelLoading { .. } | api::Error::ModelMissing | api::Error::HeapBusy { .. } => Some(NOT_READY),
        api::Error::QuotaExceeded { .. } | api::Error::CyclesLow { .. } => Some(NOT_READY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_cause_decides_the_code_under_any_context() {
        let lacking = api::Error::NotAuthorized { role: api::Role::Operator };
        for (error, expected) in [
            (anyhow!("any"), FAILURE),
            (anyhow::Error::from(lacking).context("config_set refused"), NOT_PERMITTED),
            (anyhow::Error::from(api::Error::ModelMissing).context("refused"), NOT_READY),
            (anyhow::Error::from(NotReady("loading".to_owned())), NOT_READY),
            (anyhow::Error::from(Interrupted).context("at half"), INTERRUPTED),
            (anyhow::Error::from(api::Error::NoChatTemplate), FAILURE),
        ] {
            assert_eq!(of(&error), expected, "{error:#}");
        }
        let unknown = NetworkError::Unknown { method: "session_advance".to_owned(), reason: "timeout".to_owned() };
        assert_eq!(of(&Err::<(), _>(unknown).context("x").unwrap_err()), NO_ANSWER);
    }
}
