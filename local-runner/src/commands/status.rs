//! `icllama status`: what a deployed canister is, has and does.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use candid::Principal;
use canister::api;
use serde::Serialize;
use serde_json::Value;

use crate::backend::{unready, value};
use crate::candid_json::json_of;
use crate::digest::hex;
use crate::exit_code::NotReady;
use crate::network::{Certified, Connection, NetworkArgs, Remote};
use crate::output::{Output, byte_size, grouped};

/// Show what a deployed canister is, has and does.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Exit with 5 unless a model answers.
    #[arg(long)]
    ready: bool,
}

/// All of it.
struct Facts {
    connection: Connection,
    certified: Certified,
    info: api::CanisterInfo,
    model: api::ModelStatus,
    /// Balance.
    cycles: Option<u128>,
    /// What the caller has used.
    quota: api::QuotaStatus,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    canister: Principal,
    network: &'a str,
    caller: Principal,
    module_hash: Option<String>,
    controllers: &'a [Principal],
    info: Value,
    ready: bool,
    model: Value,
    cycles: Option<u128>,
    quota: Value,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let connection = self.network.connect()?;
        let certified = connection.certified()?;
        if certified.module_hash.is_none() {
            bail!("canister {} has no module; install it first (docs/deploy.md)", connection.canister());
        }
        let remote = Remote::new(connection.clone());
        let cycles = balance(&metrics(&connection)?);
        let (info, model, quota) =
            (remote.read("version")?, remote.read("model_status")?, remote.read("quota_status")?);
        let facts = Facts { connection, certified, info, model, cycles, quota };
        output.document(&facts.report()?, |out| facts.write(out))?;
        match &facts.model.serving {
            None if self.ready => bail!(NotReady(unready(&facts.model.load))),
            _ => Ok(()),
        }
    }
}

impl Facts {
    fn report(&self) -> Result<Report<'_>> {
        Ok(Report {
            canister: self.connection.canister(),
            network: self.connection.network().url(),
            caller: self.connection.caller(),
            module_hash: self.certified.module_hash.as_deref().map(hex),
            controllers: &self.certified.controllers,
            info: json_of(&self.info)?,
            ready: self.model.serving.is_some(),
            model: json_of(&self.model)?,
            cycles: self.cycles,
            quota: json_of(&self.quota)?,
        })
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { connection, certified, info, model, cycles, quota } = self;
        writeln!(out, "canister     {} at {}", connection.canister(), connection.network().url())?;
        let controllers: Vec<_> = certified.controllers.iter().map(Principal::to_text).collect();
        writeln!(out, "controllers  {}", controllers.join(" "))?;
        writeln!(out, "caller       {}", connection.caller())?;
        let module = certified.module_hash.as_deref().map(hex).unwrap_or_default();
        writeln!(out, "version      {}, module sha256 {module}", info.version)?;
        write_model(out, model)?;
        if let Some(upload) = &model.upload {
            writeln!(out, "upload       {}", upload_line(upload))?;
        }
        if let Some(rejected) = &model.rejected {
            writeln!(out, "rejected     {}: {}", rejected.model.name, rejected.message)?;
        }
        writeln!(out, "memory       {} heap, {} stable", byte_size(model.heap_bytes), byte_size(model.stable_bytes))?;
        cycles.iter().try_for_each(|cycles| writeln!(out, "cycles       {}", grouped(*cycles)))?;
        writeln!(out, "used         {}", quota_line(quota))
    }
}

/// The canister's figures for monitors, as text.
fn metrics(connection: &Connection) -> Result<String> {
    let (method, url) = ("GET".to_owned(), "/metrics".to_owned());
    let request = api::HttpRequest { method, url, headers: Vec::new(), body: Vec::new(), certificate_version: None };
    let arg = candid::encode_one(request).context("cannot encode the request for figures")?;
    let response: api::HttpResponse = value("http_request", &connection.query("http_request", arg)?)?;
    Ok(String::from_utf8_lossy(&response.body).into_owned())
}

/// The balance among the figures.
fn balance(metrics: &str) -> Option<u128> {
    metrics.lines().find_map(|line| line.strip_prefix("icllama_cycles ")?.trim().parse().ok())
}

fn write_model(out: &mut dyn Write, status: &api::ModelStatus) -> io::Result<()> {
    let Some(model) = &status.serving else {
        return writeln!(out, "model        none answers: {}", unready(&status.load));
    };
    writeln!(
        out,
        "model        {}, {}, sha256 {}",
        model.file.name,
        byte_size(model.file.bytes),
        hex(&model.file.sha256)
    )?;
    writeln!(
        out,
        "             {}, {} layers of {}, vocabulary {}, context {}; {}, {} packed, {} bits of keys and values",
        model.architecture,
        model.layers,
        model.dim,
        model.vocab_size,
        model.context_length,
        model.residency,
        byte_size(model.packed_bytes),
        model.kv_cache_bits
    )
}

/// What the caller has used of what one principal may use.
fn quota_line(quota: &api::QuotaStatus) -> String {
    let of = |most: u64| if quota.unlimited { String::new() } else { format!(" of {}", grouped(most.into())) };
    format!(
        "by the caller: {}{} tokens today, {} of {} sessions, {}{} running by themselves",
        grouped(quota.tokens_today.into()),
        of(quota.max_tokens_per_day),
        quota.sessions,
        quota.max_sessions,
        quota.runs,
        of(quota.max_runs.into())
    )
}

/// An upload that is going on.
fn upload_line(upload: &api::UploadStatus) -> String {
    let share = upload.received_bytes as f64 * 100.0 / upload.total_bytes.max(1) as f64;
    let doing = match upload.state {
        api::UploadState::Receiving => "waits for more",
        api::UploadState::Verifying { .. } => "is being verified",
        api::UploadState::HashMismatch => "has another hash than announced",
    };
    let (received, total) = (byte_size(upload.received_bytes), byte_size(upload.total_bytes));
    format!("{}: {received} of {total} ({share:.0} %) arrived, {doing}", upload.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balance_is_found_among_the_figures() {
        let text = "# HELP icllama_cycles Balance.\n# TYPE icllama_cycles gauge\nicllama_cycles 99000000000000000000\n";
        assert_eq!(balance(text), Some(99_000_000_000_000_000_000));
        assert_eq!(balance("icllama_cycles_total 3\n"), None);
    }

    #[test]
    fn what_is_used_is_told_with_the_quota_if_there_is_one() {
        let mut quota = api::QuotaStatus {
            unlimited: false,
            tokens_today: 1_234,
            max_tokens_per_day: 5_000,
            day_ends_ns: 0,
            sessions: 2,
            max_sessions: 100,
            runs: 0,
            max_runs: 3,
        };
        let limited = "by the caller: 1,234 of 5,000 tokens today, 2 of 100 sessions, 0 of 3 running by themselves";
        assert_eq!(quota_line(&quota), limited);
        quota.unlimited = true;
        assert!(quota_line(&quota).contains("1,234 tokens today, 2 of 100 sessions, 0 running"));
    }

    #[test]
    fn an_upload_is_told_with_its_share() {
        let upload = api::UploadStatus {
            upload_id: 1,
            name: "x.gguf".to_owned(),
            total_bytes: 4 << 20,
            sha256: Vec::new(),
            received_bytes: 1 << 20,
            state: api::UploadState::Receiving,
            missing: Vec::new(),
            missing_next: None,
        };
        assert_eq!(upload_line(&upload), "x.gguf: 1.0 MiB of 4.0 MiB (25 %) arrived, waits for more");
    }
}
