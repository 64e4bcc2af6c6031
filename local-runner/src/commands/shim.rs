//! `icllama shim`: any canister module, installed and called in the shim.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candid::Principal;
use local_runner::shim::candid_text::Interface;
use local_runner::shim::module::{self, ModuleInfo};
use local_runner::shim::{CallReport, Config, InstallMode, Replica};
use serde::Serialize;

use crate::options::{read_bytes, read_text};
use crate::output::{Output, byte_size, grouped, note};

/// Run any canister module in the shim.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Call(CallArgs),
    Info(InfoArgs),
}

/// Install a module in a fresh shim, call a method, and show the reply and what it cost.
#[derive(Debug, clap::Args)]
struct CallArgs {
    /// The module (.wasm or .wasm.gz).
    wasm: PathBuf,
    /// The method.
    method: String,
    /// Its arguments as candid text.
    #[arg(default_value = "()")]
    arguments: String,
    /// Call it as a query.
    #[arg(long)]
    query: bool,
    /// Argument of the installation as candid text.
    #[arg(long, value_name = "ARGS", default_value = "()")]
    init: String,
    /// Update call to make before, as `METHOD(ARGS)`. Repeatable.
    #[arg(long, value_name = "CALL")]
    before: Vec<String>,
    /// Let time pass and timers run N times before the call.
    #[arg(long, value_name = "N", default_value_t = 0)]
    ticks: u32,
    /// The caller; also the canister's controller.
    #[arg(long, value_name = "PRINCIPAL", default_value_t = Principal::anonymous())]
    sender: Principal,
    /// The interface, if the module does not carry it.
    #[arg(long, value_name = "FILE")]
    did: Option<PathBuf>,
}

/// Show what a module imports, exports and carries.
#[derive(Debug, clap::Args)]
struct InfoArgs {
    /// The module (.wasm or .wasm.gz).
    wasm: PathBuf,
}

/// The answer of a call, as `--json` prints it.
#[derive(Debug, Serialize)]
struct CallDocument {
    reply: String,
    instructions: u64,
    page_instructions: u64,
    cycles: u128,
    messages: usize,
    logs: Vec<String>,
}

#[derive(Debug, Serialize)]
struct InfoDocument {
    file_bytes: usize,
    wasm_bytes: usize,
    imports: Vec<String>,
    methods: Vec<String>,
    entry_points: Vec<String>,
    metadata: Vec<MetadataEntry>,
}

#[derive(Debug, Serialize)]
struct MetadataEntry {
    name: String,
    public: bool,
    bytes: usize,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        match self.verb {
            Verb::Call(args) => args.exec(output),
            Verb::Info(args) => args.exec(output),
        }
    }
}

impl CallArgs {
    fn exec(self, output: Output) -> Result<()> {
        let wasm = read_bytes(&self.wasm)?;
        let interface = self.interface(&wasm)?;
        let mut replica = Replica::new(Config::default())?;
        let canister = replica.create_canister([self.sender]);
        let init = interface.encode_init(&self.init)?;
        let installed = replica.install(canister, InstallMode::Install, &wasm, &init, self.sender);
        reply("the installation", installed)?;
        for call in &self.before {
            let (method, arguments) = split_call(call)?;
            let arg = interface.encode(method, arguments)?;
            let (bytes, _) = reply(method, replica.update(canister, self.sender, method, &arg))?;
            output.log(|| format!("{method}: {}", interface.decode(method, &bytes).unwrap_or_default()));
        }
        for _ in 0..self.ticks {
            replica.tick();
        }
        let arg = interface.encode(&self.method, &self.arguments)?;
        let report = if self.query {
            replica.query(canister, self.sender, &self.method, &arg)
        } else {
            replica.update(canister, self.sender, &self.method, &arg)
        };
        let mut logs = replica.canister(canister).map(logs).unwrap_or_default();
        if self.query {
            // A canister's log keeps nothing of queries.
            let printed = report.messages.iter().flat_map(|message| &message.printed);
            logs.extend(printed.map(|line| format!("log: {line}")));
        }
        let (bytes, report) = reply(&self.method, report).inspect_err(|_| logs.iter().for_each(|line| note(line)))?;
        let document = CallDocument {
            reply: interface.decode(&self.method, &bytes)?,
            instructions: report.instructions(),
            page_instructions: report.page_instructions(),
            cycles: report.cycles(replica.config().nodes),
            messages: report.messages.len(),
            logs,
        };
        if !output.is_json() {
            document.logs.iter().for_each(|line| note(line));
            note(&document.costs());
        }
        output.document(&document, |out| writeln!(out, "{}", document.reply))
    }

    fn interface(&self, wasm: &[u8]) -> Result<Interface> {
        if let Some(path) = &self.did {
            return Interface::parse(&read_text(path)?).with_context(|| format!("in {}", path.display()));
        }
        Interface::of_module(wasm).with_context(|| format!("in {}", self.wasm.display()))
    }
}

impl CallDocument {
    fn costs(&self) -> String {
        format!(
            "{} instructions, {} of them for pages, in {} messages; {} cycles",
            grouped(self.instructions.into()),
            grouped(self.page_instructions.into()),
            self.messages,
            grouped(self.cycles)
        )
    }
}

impl InfoArgs {
    fn exec(self, output: Output) -> Result<()> {
        let file = read_bytes(&self.wasm)?;
        let wasm_bytes = module::decode(&file).map_or(0, |wasm| wasm.len());
        let info = module_info(&self.wasm, &file)?;
        let document = InfoDocument {
            file_bytes: file.len(),
            wasm_bytes,
            imports: info.imports.iter().map(|name| format!("ic0.{name}")).collect(),
            methods: info.methods.iter().map(|(name, kind)| format!("{}{name}", kind.prefix())).collect(),
            entry_points: info.entry_points.into_iter().collect(),
            metadata: info.metadata.into_iter().map(MetadataEntry::from).collect(),
        };
        output.document(&document, |out| document.write(out))
    }
}

impl From<(String, module::Metadata)> for MetadataEntry {
    fn from((name, section): (String, module::Metadata)) -> Self {
        Self { name, public: section.public, bytes: section.bytes.len() }
    }
}

impl InfoDocument {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let sizes = (byte_size(self.file_bytes as u64), byte_size(self.wasm_bytes as u64));
        writeln!(out, "{} file, {} module", sizes.0, sizes.1)?;
        for (title, lines) in
            [("imports", &self.imports), ("methods", &self.methods), ("entry points", &self.entry_points)]
        {
            writeln!(out, "\n{title} ({})", lines.len())?;
            lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        }
        writeln!(out, "\nmetadata ({})", self.metadata.len())?;
        self.metadata.iter().try_for_each(|entry| {
            let access = if entry.public { "public" } else { "private" };
            writeln!(out, "  {} ({access}, {})", entry.name, byte_size(entry.bytes as u64))
        })
    }
}

fn module_info(path: &Path, bytes: &[u8]) -> Result<ModuleInfo> {
    let wasm = module::decode(bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let valid =
        module::validate(&wasm).with_context(|| format!("{} is not a valid canister module", path.display()))?;
    Ok(valid.info)
}

/// The reply of a call, or its rejection as an error.
fn reply(what: &str, mut report: CallReport) -> Result<(Vec<u8>, CallReport)> {
    let result = std::mem::replace(&mut report.result, Ok(Vec::new()));
    match result {
        Ok(bytes) => Ok((bytes, report)),
        Err(reject) => Err(anyhow!("{what} was rejected: {reject}")),
    }
}

fn logs(canister: &local_runner::shim::Canister) -> Vec<String> {
    canister.log().map(|record| format!("log: {}", record.text())).collect()
}

/// `METHOD(ARGS)` into its parts.
fn split_call(call: &str) -> Result<(&str, &str)> {
    match call.find('(') {
        Some(at) if at > 0 => Ok((call[..at].trim(), &call[at..])),
        _ => bail!("--before takes METHOD(ARGS), found {call:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_split_at_the_first_parenthesis() {
        assert_eq!(split_call("put (record { x = (1) })").unwrap(), ("put", "(record { x = (1) })"));
        assert!(split_call("(1)").is_err() && split_call("put").is_err());
    }
}
