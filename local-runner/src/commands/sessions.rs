//! `icllama sessions`: the conversations that a deployed canister keeps.

use std::io::{self, Write};

use anyhow::Result;
use canister::api;
use serde_json::{Map, Value, json};

use crate::candid_json::json_of;
use crate::clock::utc;
use crate::network::{NetworkArgs, Remote};
use crate::output::Output;

/// Show, stop and delete the sessions that a deployed canister keeps.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(ListArgs),
    Show(ShowArgs),
    Cancel(SomeArgs),
    Delete(SomeArgs),
}

/// List the caller's sessions.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// Everybody's sessions; for controllers.
    #[arg(long)]
    all: bool,
}

/// Show a session of the caller, with the text that it generated.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Number of the session.
    #[arg(value_name = "SESSION")]
    id: u64,
    #[command(flatten)]
    network: NetworkArgs,
}

/// Sessions of the caller; a controller may name any.
#[derive(Debug, clap::Args)]
struct SomeArgs {
    /// Numbers of the sessions.
    #[arg(value_name = "SESSION", required = true)]
    ids: Vec<u64>,
    #[command(flatten)]
    network: NetworkArgs,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        match self.verb {
            Verb::List(args) => args.exec(output),
            Verb::Show(args) => args.exec(output),
            Verb::Cancel(args) => args.exec("session_cancel", output),
            Verb::Delete(args) => args.exec("session_delete", output),
        }
    }
}

impl ListArgs {
    fn exec(&self, output: Output) -> Result<()> {
        let remote = Remote::new(self.network.connect()?);
        let mut sessions = Vec::new();
        let mut after = None;
        loop {
            let arg = api::SessionListArg { all: Some(self.all), after, limit: None };
            let page: api::SessionListOk = remote.query("session_list", &arg)?;
            sessions.extend(page.sessions);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let document = sessions.iter().map(json_of).collect::<Result<Vec<_>>>()?;
        output.document(&document, |out| write_table(&sessions, out))
    }
}

impl ShowArgs {
    fn exec(&self, output: Output) -> Result<()> {
        let remote = Remote::new(self.network.connect()?);
        let mut text = String::new();
        let mut from = 0;
        let status = loop {
            let arg = api::SessionOutputArg { session_id: self.id, from };
            let page: api::SessionOutputOk = remote.query("session_output", &arg)?;
            text.push_str(&page.text);
            if page.next <= from || page.next >= page.status.text_bytes {
                break page.status;
            }
            from = page.next;
        };
        let document = json!({ "status": json_of(&status)?, "text": text });
        output.document(&document, |out| writeln!(out, "session {}: {}\n\n{text}", self.id, describe(&status)))
    }
}

impl SomeArgs {
    fn exec(&self, method: &'static str, output: Output) -> Result<()> {
        let remote = Remote::new(self.network.connect()?);
        for session_id in self.ids.iter().copied() {
            let arg = api::SessionIdArg { session_id };
            if method == "session_delete" {
                let () = remote.update(method, &arg)?;
                output.line(&format!("session {session_id} deleted"))?;
            } else {
                let status: api::SessionStatus = remote.update(method, &arg)?;
                output.line(&format!("session {session_id}: {}", describe(&status)))?;
            }
        }
        let done = Map::from_iter([("sessions".to_owned(), Value::from(self.ids.clone()))]);
        output.document(&done, |_| Ok(()))
    }
}

fn write_table(sessions: &[api::SessionSummary], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>16}  {:<24}  {:<63}  state", "session", "last change", "owner")?;
    for session in sessions {
        let (changed, owner) = (utc(session.updated_ns), session.owner.to_text());
        writeln!(out, "{:>16}  {changed}  {owner:<63}  {}", session.status.session_id, describe(&session.status))?;
    }
    Ok(())
}

/// Counts and state of a session.
fn describe(status: &api::SessionStatus) -> String {
    let state = match &status.state {
        api::SessionState::Prefill => "computing the prompt".to_owned(),
        api::SessionState::Generating => "generating".to_owned(),
        api::SessionState::Finished(reason) => format!("finished ({reason:?})"),
    };
    let running = if status.running { ", running by itself" } else { "" };
    let error = status.error.as_ref().map(|error| format!(", stopped: {error}")).unwrap_or_default();
    format!(
        "{state}{running}, {} prompt and {} generated tokens, {} kept in the heap{error}",
        status.prompt_tokens, status.generated_tokens, status.cached_tokens
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_with_what_stopped_it() {
        let status = api::SessionStatus {
            session_id: 1,
            cached_tokens: 3,
            error: Some(api::Error::ModelChanged),
            state: api::SessionState::Finished(api::FinishReason::Length),
            remaining_tokens: 0,
            text_bytes: 9,
            prompt_tokens: 4,
            generated_tokens: 5,
            running: false,
            kv_cache_bits: 16,
        };
        let text = describe(&status);
        assert!(text.starts_with("finished (Length), 4 prompt and 5 generated tokens, 3 kept"), "{text}");
        assert!(text.contains("stopped: the session belongs to another model"), "{text}");
    }
}
