//! Settings as candid records, and back.

use std::collections::BTreeMap;

use candid::Nat;

use super::super::canister::{LogVisibility, Settings};
use super::super::reject::{Reject, error_code};
use super::to_u128;
use super::types::{self, CanisterSettings, DefiniteSettings, EnvironmentVariable};

const GIB: u64 = 1 << 30;
/// Largest log.
const LOG_BYTES: u64 = 2 << 20;
/// Most controllers of a canister.
const CONTROLLERS: usize = 10;
/// Most environment variables, and most bytes of a name or value.
const VARIABLES: usize = 20;
const VARIABLE_BYTES: usize = 128;

fn refuse(text: String) -> Reject {
    Reject::new(error_code::INVALID_MANAGEMENT_PAYLOAD, text)
}

/// A setting that must not exceed `max`.
fn bounded(name: &str, value: &Nat, max: u64) -> Result<u64, Reject> {
    let number = to_u128(value)?;
    u64::try_from(number)
        .ok()
        .filter(|number| *number <= max)
        .ok_or_else(|| refuse(format!("{name} expected to be in the range of [0..{max}], got {value}")))
}

/// Puts what `wanted` names into `settings`.
///
/// # Errors
/// If a value is outside the platform's range.
pub(super) fn change(settings: &mut Settings, wanted: CanisterSettings) -> Result<(), Reject> {
    if let Some(controllers) = wanted.controllers {
        if controllers.len() > CONTROLLERS {
            return Err(refuse(format!("{} controllers are more than {CONTROLLERS}", controllers.len())));
        }
        settings.controllers = controllers.into_iter().collect();
    }
    let numbers = [
        ("compute_allocation", wanted.compute_allocation, 100, &mut settings.compute_allocation),
        ("memory_allocation", wanted.memory_allocation, 1 << 48, &mut settings.memory_allocation),
        ("freezing_threshold", wanted.freezing_threshold, u64::MAX, &mut settings.freezing_threshold),
        ("log_memory_limit", wanted.log_memory_limit, LOG_BYTES, &mut settings.log_memory_limit),
        ("wasm_memory_limit", wanted.wasm_memory_limit, 1 << 48, &mut settings.wasm_memory_limit),
        ("wasm_memory_threshold", wanted.wasm_memory_threshold, 4 * GIB, &mut settings.wasm_memory_threshold),
    ];
    for (name, value, max, setting) in numbers {
        if let Some(value) = value {
            *setting = bounded(name, &value, max)?;
        }
    }
    if let Some(limit) = wanted.reserved_cycles_limit {
        settings.reserved_cycles_limit = to_u128(&limit)?;
    }
    if let Some(visibility) = wanted.log_visibility {
        settings.log_visibility = match visibility {
            types::LogVisibility::Controllers => LogVisibility::Controllers,
            types::LogVisibility::Public => LogVisibility::Public,
            types::LogVisibility::AllowedViewers(viewers) => {
                LogVisibility::AllowedViewers(viewers.into_iter().collect())
            }
        };
    }
    if let Some(variables) = wanted.environment_variables {
        settings.environment = environment(variables)?;
    }
    Ok(())
}

fn environment(variables: Vec<EnvironmentVariable>) -> Result<BTreeMap<String, String>, Reject> {
    if variables.len() > VARIABLES {
        return Err(refuse(format!("{} environment variables are more than {VARIABLES}", variables.len())));
    }
    let mut environment = BTreeMap::new();
    for EnvironmentVariable { name, value } in variables {
        if name.len() > VARIABLE_BYTES || value.len() > VARIABLE_BYTES {
            return Err(refuse(format!("environment variable '{name}' is longer than {VARIABLE_BYTES} bytes")));
        }
        if environment.insert(name.clone(), value).is_some() {
            return Err(refuse(format!("environment variable '{name}' is given twice")));
        }
    }
    Ok(environment)
}

/// All settings with their values.
pub(super) fn definite(settings: &Settings) -> DefiniteSettings {
    let variable = |(name, value): (&String, &String)| EnvironmentVariable { name: name.clone(), value: value.clone() };
    DefiniteSettings {
        controllers: settings.controllers.iter().copied().collect(),
        compute_allocation: settings.compute_allocation.into(),
        memory_allocation: settings.memory_allocation.into(),
        freezing_threshold: settings.freezing_threshold.into(),
        reserved_cycles_limit: settings.reserved_cycles_limit.into(),
        log_visibility: match &settings.log_visibility {
            LogVisibility::Controllers => types::LogVisibility::Controllers,
            LogVisibility::Public => types::LogVisibility::Public,
            LogVisibility::AllowedViewers(viewers) => {
                types::LogVisibility::AllowedViewers(viewers.iter().copied().collect())
            }
        },
        log_memory_limit: settings.log_memory_limit.into(),
        wasm_memory_limit: settings.wasm_memory_limit.into(),
        wasm_memory_threshold: settings.wasm_memory_threshold.into(),
        environment_variables: settings.environment.iter().map(variable).collect(),
    }
}
