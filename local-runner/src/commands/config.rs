//! `icllama config`: the settings of a deployed canister.

use std::io::{self, Write};

use anyhow::{Context, Result, anyhow};
use candid::Principal;
use canister::api::{Config, ConfigUpdate};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::backend::{no_argument, result};
use crate::candid_json::json_of;
use crate::network::{NetworkArgs, Remote};
use crate::output::{Output, grouped};
use crate::settings::{self, Assignment};

/// Show and change the settings of a deployed canister: access and limits.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Show(ShowArgs),
    Set(SetArgs),
    /// Let principals upload, load and configure. For controllers.
    AddOperator(PrincipalArgs),
    /// Take the operator's role from principals. For controllers.
    RemoveOperator(PrincipalArgs),
    /// Let principals generate where `generate_access` is `AllowList`.
    AddUser(PrincipalArgs),
    /// Take the user's role from principals.
    RemoveUser(PrincipalArgs),
}

/// Show all settings. For operators.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    network: NetworkArgs,
}

/// Change settings; the others stay. For operators.
#[derive(Debug, clap::Args)]
#[command(after_help = settings::help(), after_long_help = settings::help())]
struct SetArgs {
    /// What to change.
    #[arg(value_name = "FIELD=VALUE", required = true)]
    settings: Vec<Assignment>,
    #[command(flatten)]
    network: NetworkArgs,
}

#[derive(Debug, clap::Args)]
struct PrincipalArgs {
    /// Whom.
    #[arg(value_name = "PRINCIPAL", required = true)]
    principals: Vec<Principal>,
    #[command(flatten)]
    network: NetworkArgs,
}

/// The settings of a canister, as JSON.
struct Canister {
    remote: Remote,
    before: Config,
}

/// What was changed, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Changed {
    changed: Map<String, Value>,
    config: Value,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        match self.verb {
            Verb::Show(args) => Canister::reach(&args.network)?.show(output),
            Verb::Set(args) => {
                let update = settings::update(&args.settings).map_err(|reason| anyhow!(reason))?;
                Canister::reach(&args.network)?.change(&update, output)
            }
            Verb::AddOperator(args) => args.operators(with, output),
            Verb::RemoveOperator(args) => args.operators(without, output),
            Verb::AddUser(args) => args.users(with, output),
            Verb::RemoveUser(args) => args.users(without, output),
        }
    }
}

type Edit = fn(&[Principal], &[Principal]) -> Vec<Principal>;

fn with(before: &[Principal], more: &[Principal]) -> Vec<Principal> {
    let mut list = before.to_vec();
    for principal in more {
        if !list.contains(principal) {
            list.push(*principal);
        }
    }
    list
}

fn without(before: &[Principal], fewer: &[Principal]) -> Vec<Principal> {
    before.iter().filter(|principal| !fewer.contains(principal)).copied().collect()
}

impl PrincipalArgs {
    fn operators(&self, edit: Edit, output: Output) -> Result<()> {
        let canister = Canister::reach(&self.network)?;
        let operators = Some(edit(&canister.before.operators, &self.principals));
        canister.change(&ConfigUpdate { operators, ..ConfigUpdate::default() }, output)
    }

    fn users(&self, edit: Edit, output: Output) -> Result<()> {
        let canister = Canister::reach(&self.network)?;
        let users = Some(edit(&canister.before.users, &self.principals));
        canister.change(&ConfigUpdate { users, ..ConfigUpdate::default() }, output)
    }
}

impl Canister {
    fn reach(network: &NetworkArgs) -> Result<Self> {
        let remote = Remote::new(network.connect()?);
        let reply = remote.connection().query("config_get", no_argument()?)?;
        Ok(Self { before: result("config_get", &reply)?, remote })
    }

    fn show(&self, output: Output) -> Result<()> {
        let settings = object(&self.before)?;
        output.document(&settings, |out| settings.iter().try_for_each(|(name, value)| write_setting(name, value, out)))
    }

    fn change(&self, update: &ConfigUpdate, output: Output) -> Result<()> {
        let after: Config = self.remote.update("config_set", update)?;
        let (before, after) = (object(&self.before)?, object(&after)?);
        let changed: Map<_, _> =
            after.clone().into_iter().filter(|(name, value)| before.get(name) != Some(value)).collect();
        let report = Changed { changed, config: Value::Object(after) };
        output.document(&report, |out| {
            if report.changed.is_empty() {
                return writeln!(out, "nothing changed");
            }
            report.changed.iter().try_for_each(|(name, value)| write_setting(name, value, out))
        })
    }
}

fn object(config: &Config) -> Result<Map<String, Value>> {
    match json_of(config)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(anyhow!("settings are a record")).context("the interface has another form"),
    }
}

fn write_setting(name: &str, value: &Value, out: &mut dyn Write) -> io::Result<()> {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), |number| grouped(number.into())),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            items.join("\n                             ")
        }
        other => other.to_string(),
    };
    writeln!(out, "{name:<28} {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_added_once_and_removed_wherever_they_are() {
        let [a, b, c] = [1u8, 2, 3].map(|byte| Principal::from_slice(&[byte]));
        assert_eq!(with(&[a, b], &[b, c, c]), [a, b, c]);
        assert_eq!(without(&[a, b, c, b], &[b]), [a, c]);
    }
}
