//! `icllama logs`: what a deployed canister has logged.

use std::time::Duration;

use anyhow::{Context, Result};
use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::clock::utc;
use crate::network::{Connection, NetworkArgs};
use crate::output::{Output, write_json_line};

/// How often a log is looked at that is followed.
const FOLLOW: Duration = Duration::from_secs(1);

/// Show the log of a deployed canister, which its controllers may read unless its settings admit others.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Only the last N records.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Go on showing what is logged, until Ctrl-C. With --json a line per record.
    #[arg(long)]
    follow: bool,
}

#[derive(CandidType)]
struct About {
    canister_id: Principal,
}

/// The management canister's answer (interface specification, `fetch_canister_logs`).
#[derive(CandidType, Deserialize)]
struct Logs {
    canister_log_records: Vec<Record>,
}

#[derive(CandidType, Deserialize)]
struct Record {
    idx: u64,
    timestamp_nanos: u64,
    content: ByteBuf,
}

/// A record, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Line {
    index: u64,
    time_ns: u64,
    text: String,
}

impl Line {
    fn text(&self) -> String {
        format!("[{}. {}] {}", self.index, utc(self.time_ns), self.text)
    }
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let connection = self.network.connect()?;
        let mut lines = fetch(&connection)?;
        lines.drain(..lines.len() - self.last.unwrap_or(lines.len()).min(lines.len()));
        if !self.follow {
            return output.document(&lines, |out| lines.iter().try_for_each(|line| writeln!(out, "{}", line.text())));
        }
        let mut next = 0;
        loop {
            for line in lines.iter().filter(|line| line.index >= next) {
                if output.is_json() { write_json_line(line)? } else { output.line(&line.text())? }
            }
            next = lines.last().map_or(next, |line| line.index + 1);
            std::thread::sleep(FOLLOW);
            lines = fetch(&connection)?;
        }
    }
}

fn fetch(connection: &Connection) -> Result<Vec<Line>> {
    let arg =
        candid::encode_one(About { canister_id: connection.canister() }).context("cannot encode the canister's id")?;
    let reply = connection.query_management("fetch_canister_logs", arg)?;
    let logs: Logs = candid::decode_one(&reply).context("the network answers with a log of another form")?;
    let line = |record: Record| Line {
        index: record.idx,
        time_ns: record.timestamp_nanos,
        text: String::from_utf8_lossy(&record.content).into_owned(),
    };
    Ok(logs.canister_log_records.into_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line_with_number_and_time() {
        let line = Line { index: 3, time_ns: 1_700_000_000_123_456_789, text: "loading".to_owned() };
        assert_eq!(line.text(), "[3. 2023-11-14T22:13:20.123Z] loading");
    }
}
