//! What the canister is charged, per call and per phase of the work, and the table of it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::output::{grouped, short};

/// Most instructions of one update call on the Internet Computer.
pub const UPDATE_LIMIT: u64 = 40_000_000_000;

/// What one update call to the canister cost.
#[derive(Debug, Clone, Serialize)]
pub struct CallCost {
    /// The method.
    pub method: &'static str,
    /// Tokens of the prompt the call computed.
    pub prompt_tokens: usize,
    /// Tokens the call generated.
    pub generated_tokens: usize,
    /// Instructions, page charges included. Those of a deployed canister's call are the ones that it counts itself: none of
    /// decoding the call and encoding its answer.
    pub instructions: u64,
    /// The part of `instructions` that was charged for first accesses to memory pages, if it was metered here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_instructions: Option<u64>,
    /// The part of `instructions` that asking the canister whether it accepts the call took, pages excluded, if it was metered
    /// here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission_instructions: Option<u64>,
    /// Cycles for the call: in the shim for its execution, of a deployed canister an estimate that includes its transmission.
    pub cycles: u128,
    /// Wall time in milliseconds; in the shim it says nothing about the network.
    pub wall_ms: f64,
}

impl CallCost {
    /// One line for a person: tokens, instructions, share of the limit, new text.
    pub fn live_line(&self, index: u64, text: &str) -> String {
        let share = self.instructions as f64 * 100.0 / UPDATE_LIMIT as f64;
        format!(
            "call {index:>3}: {:>3} prompt + {:>3} new tokens, {:>9} instructions = {share:>5.1} % of the limit, {:>6.0} ms  {text:?}",
            self.prompt_tokens,
            self.generated_tokens,
            short(self.instructions.into()),
            self.wall_ms,
        )
    }
}

/// The sum over some calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Update calls.
    pub calls: u64,
    /// Tokens of prompts computed.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Instructions of all calls, page charges included.
    pub instructions: u64,
    /// The part of `instructions` that was charged for first accesses to memory pages, if they were metered here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_instructions: Option<u64>,
    /// Most instructions of one call.
    pub max_call_instructions: u64,
    /// Cycles of all calls.
    pub cycles: u128,
    /// Wall time in milliseconds.
    pub wall_ms: f64,
}

impl Cost {
    /// Adds a call.
    pub fn add(&mut self, call: &CallCost) {
        self.calls += 1;
        self.prompt_tokens += call.prompt_tokens;
        self.generated_tokens += call.generated_tokens;
        self.instructions += call.instructions;
        self.page_instructions = sum(self.page_instructions, call.page_instructions);
        self.max_call_instructions = self.max_call_instructions.max(call.instructions);
        self.cycles += call.cycles;
        self.wall_ms += call.wall_ms;
    }
}

/// The sum of what is known.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (known, None) | (None, known) => known,
    }
}

/// A kind of work and what it cost so far.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// What was done: install, upload, verify, load, prompt, generate.
    #[serde(rename = "phase")]
    pub name: &'static str,
    /// All its calls.
    #[serde(flatten)]
    pub cost: Cost,
}

/// Adds a call to the phase of that name.
pub fn add_to_phase(phases: &mut Vec<Phase>, name: &'static str, call: &CallCost) {
    match phases.iter_mut().find(|phase| phase.name == name) {
        Some(phase) => phase.cost.add(call),
        None => {
            let mut cost = Cost::default();
            cost.add(call);
            phases.push(Phase { name, cost });
        }
    }
}

/// A table of all phases and their sum, then the instructions per token of the prompt and per generated token.
pub fn cost_table(phases: &[Phase]) -> String {
    let mut table = String::from(
        "phase        calls     instructions  of it for pages   largest call            cycles       wall\n",
    );
    let mut total = Cost::default();
    for Phase { name, cost } in phases {
        push_row(&mut table, name, cost);
        total.calls += cost.calls;
        total.instructions += cost.instructions;
        total.page_instructions = sum(total.page_instructions, cost.page_instructions);
        total.max_call_instructions = total.max_call_instructions.max(cost.max_call_instructions);
        total.cycles += cost.cycles;
        total.wall_ms += cost.wall_ms;
    }
    push_row(&mut table, "total", &total);
    for (name, kind) in [("prompt", "prompt token"), ("generate", "generated token")] {
        let Some(Phase { cost, .. }) = phases.iter().find(|phase| phase.name == name) else { continue };
        let tokens = if name == "prompt" { cost.prompt_tokens } else { cost.generated_tokens };
        if tokens > 0 {
            let each = cost.instructions / tokens as u64;
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{:>17} instructions per {kind} ({tokens} tokens)", grouped(each.into()));
        }
    }
    table.pop();
    table
}

fn push_row(table: &mut String, name: &str, cost: &Cost) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        table,
        "{name:<10} {:>7} {:>16} {:>16} {:>14} {:>17} {:>8.1} s",
        cost.calls,
        short(cost.instructions.into()),
        cost.page_instructions.map_or_else(|| "-".to_owned(), |pages| short(pages.into())),
        short(cost.max_call_instructions.into()),
        grouped(cost.cycles),
        cost.wall_ms / 1e3,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(prompt_tokens: usize, generated_tokens: usize, instructions: u64) -> CallCost {
        let cycles = u128::from(instructions);
        CallCost {
            method: "session_advance",
            prompt_tokens,
            generated_tokens,
            instructions,
            page_instructions: Some(instructions / 10),
            admission_instructions: Some(0),
            cycles,
            wall_ms: 1.0,
        }
    }

    #[test]
    fn phases_sum_up_and_the_table_divides_by_their_tokens() {
        let mut phases = Vec::new();
        add_to_phase(&mut phases, "prompt", &call(10, 1, 2_000));
        add_to_phase(&mut phases, "generate", &call(0, 4, 1_000));
        add_to_phase(&mut phases, "generate", &call(0, 6, 3_000));
        assert_eq!(phases.len(), 2);
        assert_eq!((phases[1].cost.calls, phases[1].cost.max_call_instructions), (2, 3_000));
        let table = cost_table(&phases);
        assert!(table.contains("200 instructions per prompt token (10 tokens)"), "{table}");
        assert!(table.contains("400 instructions per generated token (10 tokens)"), "{table}");
        assert!(table.lines().any(|line| line.starts_with("total") && line.contains("6000")), "{table}");
    }

    #[test]
    fn the_live_line_shows_the_share_of_the_limit() {
        let line = call(3, 2, UPDATE_LIMIT / 4).live_line(1, "a\nb");
        assert!(line.contains("25.0 %") && line.contains(r#""a\nb""#), "{line}");
    }
}
