//! Whether the canister in a path is the one that the request is about. Calls to the management canister, which is
//! everywhere, name the canister in their argument (interface specification, "Effective canister id").

use candid::{CandidType, DecoderConfig, Principal};
use serde::Deserialize;

use super::api::{Refusal, principal};
use super::state::State;

/// Work that looking into an argument may cost. Modules are skipped, at 50 for a byte, and a body has 4 MiB at most.
const QUOTA: usize = 50 * (4 << 20);

/// Methods of the management canister that are about no canister.
const ABOUT_NONE: [&str; 3] = ["create_canister", "provisional_create_canister_with_cycles", "raw_rand"];

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effective {
    /// A canister.
    Canister(Principal),
    /// The subnet.
    Subnet,
}

#[derive(CandidType, Deserialize)]
struct AboutCanister {
    canister_id: Principal,
}

#[derive(CandidType, Deserialize)]
struct AboutTarget {
    target_canister: Principal,
}

impl Effective {
    /// Reads `canister/ID` or `subnet/ID`.
    ///
    /// # Errors
    /// If it is not the form of an id, or not this subnet.
    pub fn parse(place: &str, id: &str, state: &State) -> Result<Self, Refusal> {
        let id = principal(id)?;
        match place {
            "canister" => Ok(Self::Canister(id)),
            "subnet" if id == state.keys.subnet_id() => Ok(Self::Subnet),
            "subnet" => {
                let own = state.keys.subnet_id();
                Err(Refusal::NotFound(format!("there is no subnet {id} here, only {own}")))
            }
            _ => Err(Refusal::NotFound(format!("there is no /{place}/"))),
        }
    }

    /// Refuses a call that is about another canister.
    ///
    /// # Errors
    /// Names both.
    pub fn check(self, canister: Principal, method: &str, arg: &[u8]) -> Result<(), Refusal> {
        let managed = canister == Principal::management_canister();
        let about = if managed { about(method, arg)? } else { Some(canister) };
        match (self, about) {
            (_, None) => Ok(()),
            (Self::Subnet, Some(_)) if managed => Ok(()),
            (Self::Subnet, Some(about)) => {
                Err(Refusal::Bad(format!("the path names the subnet, the request is about canister {about}")))
            }
            (Self::Canister(given), Some(about)) if given == about => Ok(()),
            (Self::Canister(given), Some(about)) => {
                Err(Refusal::Bad(format!("the path names canister {given}, the request is about {about}")))
            }
        }
    }
}

/// The canister that a call to the management canister is about.
fn about(method: &str, arg: &[u8]) -> Result<Option<Principal>, Refusal> {
    if ABOUT_NONE.contains(&method) {
        return Ok(None);
    }
    let mut quota = DecoderConfig::new();
    quota.set_decoding_quota(QUOTA).set_skipping_quota(QUOTA);
    let about = if method == "install_chunked_code" {
        candid::utils::decode_args_with_config::<(AboutTarget,)>(arg, &quota).map(|(arg,)| arg.target_canister)
    } else {
        candid::utils::decode_args_with_config::<(AboutCanister,)>(arg, &quota).map(|(arg,)| arg.canister_id)
    };
    about.map(Some).map_err(|error| {
        Refusal::Bad(format!("the argument of the management method {method} names no canister: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(CandidType)]
    struct Install {
        canister_id: Principal,
        wasm_module: Vec<u8>,
    }

    #[test]
    fn a_module_of_any_size_that_arrives_is_looked_past() {
        let canister_id = Principal::from_slice(&[1; 10]);
        let wasm_module = vec![7; (4 << 20) - 1000];
        let arg = candid::encode_one(Install { canister_id, wasm_module }).unwrap();
        assert!(matches!(about("install_code", &arg), Ok(Some(found)) if found == canister_id));
        assert!(about("start_canister", &candid::encode_one(7u8).unwrap()).is_err());
    }
}
