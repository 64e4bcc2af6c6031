//! Calls over the network that failed for good, in words that say what to do.

use candid::Principal;
use ic_agent::AgentError;
use ic_agent::agent::RejectResponse;

use super::Network;
use super::identity::IdentityError;

/// "Canister rejected the message": `inspect_message` did not accept it, or the caller may not read the log.
const NOT_ACCEPTED: &str = "IC0406";

/// A canister that cannot be reached, or a call that failed for good.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network never answered.
    #[error("cannot reach {url}: {reason}; {}", hint(network))]
    Unreachable {
        /// The network.
        network: Network,
        /// Its address.
        url: String,
        /// What the last attempt met.
        reason: String,
    },
    /// Every attempt failed.
    #[error("{method} failed {failures} times, the last time with: {reason}; try again later")]
    GivenUp {
        /// The method.
        method: String,
        /// How often it was tried.
        failures: u32,
        /// What the last attempt met.
        reason: String,
    },
    /// The call was sent, no answer came in time, and making it again could do it twice.
    #[error(
        "no answer to {method} came in time, and it is not known whether it was executed: {reason}; look at the session \
         (icllama sessions) before you repeat it"
    )]
    Unknown {
        /// The method.
        method: String,
        /// What was met.
        reason: String,
    },
    /// The caller lacks the role.
    #[error(
        "{caller} may not call {method}: it lacks the role; call with another --identity, or have a controller admit it \
         (icllama config add-operator {caller}, or add-user)"
    )]
    NotPermitted {
        /// Who called.
        caller: Principal,
        /// The method.
        method: String,
    },
    /// The platform or the canister rejected the call.
    #[error("{method} was rejected ({code}): {message}{}", advice(code))]
    Rejected {
        /// The method.
        method: String,
        /// Such as IC0301.
        code: String,
        /// The reason.
        message: String,
    },
    /// Anything else, such as a certificate that is not valid.
    #[error("{method}: {reason}")]
    Other {
        /// The method.
        method: String,
        /// What the agent says.
        reason: Box<AgentError>,
    },
    /// The threads for requests cannot be started.
    #[error("cannot start the network: {0}")]
    Start(std::io::Error),
}

impl NetworkError {
    /// What an error means that trying again does not help against.
    pub(super) fn of(error: AgentError, method: &str, caller: Principal) -> Self {
        let method = method.to_owned();
        match error {
            AgentError::CertifiedReject { reject, .. } | AgentError::UncertifiedReject { reject, .. } => {
                Self::of_reject(reject, method, caller)
            }
            reason => Self::Other { method, reason: Box::new(reason) },
        }
    }

    fn of_reject(reject: RejectResponse, method: String, caller: Principal) -> Self {
        let code = reject.error_code.unwrap_or_else(|| format!("{:?}", reject.reject_code));
        if code == NOT_ACCEPTED {
            return Self::NotPermitted { caller, method };
        }
        Self::Rejected { method, code, message: reject.reject_message }
    }

    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::GivenUp { .. } | Self::Unknown { .. })
    }
}

fn hint(network: &Network) -> &'static str {
    match network {
        Network::Ic => "check the connection to the Internet",
        Network::Local => {
            "start a local network with `icllama replica --install` (or dfx), or name another with --network URL (icp-cli's \
             is http://localhost:8000)"
        }
        Network::Url(_) => "check the address, and that something serves there",
    }
}

/// What to do about an error code of the platform.
fn advice(code: &str) -> &'static str {
    match code {
        "IC0207" => "; give the canister cycles (icp canister top-up, or dfx canister deposit-cycles)",
        "IC0301" | "IC0404" => "; check the canister's id and the network",
        "IC0302" | "IC0536" => "; it is not an icllama canister of this version",
        "IC0304" | "IC0537" => "; install the canister first",
        "IC0508" | "IC0509" => "; start the canister",
        _ => "",
    }
}
