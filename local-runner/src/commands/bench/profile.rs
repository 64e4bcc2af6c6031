//! Where a count goes, part by part, so that the parts sum to the whole; and what each part multiplies.

use std::io::{self, Write};

use model_core::config::Config;
use model_core::profile::Stage;
use serde::Serialize;

use crate::output::grouped;

/// One part of a computation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    pub part: String,
    pub count: u64,
    /// Readings of the counter inside.
    #[serde(skip)]
    pub reads: u64,
}

impl Part {
    pub fn new(part: &str, count: u64, reads: u64) -> Self {
        Self { part: part.to_owned(), count, reads }
    }
}

/// Something that was measured in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    /// What it took without marks.
    pub whole: u64,
    /// Its parts; their sum is `whole`.
    pub parts: Vec<Part>,
    /// What one reading of the counter took, not contained in the parts.
    pub per_reading: u64,
    /// How often the counter was read.
    pub reads: u64,
}

impl Measured {
    /// From parts that contain their marks and sum to `marked`.
    pub fn with_marks(marked: u64, parts: Vec<Part>, per_reading: u64) -> Self {
        let reads: u64 = parts.iter().map(|part| part.reads).sum();
        let mut measured = Self { whole: marked.saturating_sub(reads * per_reading), parts, per_reading, reads };
        measured.subtract_marks();
        measured
    }

    /// Takes the marks out of the parts that contain them. What is left over, since one mark is not exactly like another,
    /// comes out of the largest part, so that the parts sum to the whole.
    pub fn subtract_marks(&mut self) {
        for part in &mut self.parts {
            part.count = part.count.saturating_sub(part.reads * self.per_reading);
        }
        let sum: u64 = self.parts.iter().map(|part| part.count).sum();
        if let Some(largest) = self.parts.iter_mut().max_by_key(|part| part.count) {
            largest.count = (largest.count + self.whole).saturating_sub(sum);
        }
    }

    /// What the parts of these names took together.
    pub fn count(&self, names: &[&str]) -> u64 {
        self.parts.iter().filter(|part| names.contains(&part.part.as_str())).map(|part| part.count).sum()
    }

    /// The one that took less.
    pub fn least(self, other: Self) -> Self {
        if other.whole < self.whole { other } else { self }
    }
}

/// Multiplications of each part, by the model's shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    dim: u64,
    query_dim: u64,
    kv_dim: u64,
    hidden: u64,
    vocab: u64,
    layers: u64,
}

impl Work {
    pub fn new(config: &Config) -> Self {
        Self {
            dim: config.dim as u64,
            query_dim: config.query_dim() as u64,
            kv_dim: config.kv_dim() as u64,
            hidden: config.hidden as u64,
            vocab: config.vocab as u64,
            layers: config.layers as u64,
        }
    }

    /// Weights that one token multiplies in the layers.
    pub fn layer_weights(self) -> u64 {
        self.layers * self.dim * (2 * self.query_dim + 2 * self.kv_dim + 3 * self.hidden)
    }

    /// Weights of the output head.
    pub fn head_weights(self) -> u64 {
        self.dim * self.vocab
    }

    /// Multiplications of all scores, and as many of all mixes, of `tokens` tokens after `start` others.
    pub fn attention(self, start: u64, tokens: u64) -> u64 {
        self.layers * self.query_dim * (tokens * start + tokens * (tokens + 1) / 2)
    }

    /// Multiplications in a part of the computation of `tokens` tokens after `start` others and one output head; 0 if it
    /// is not a product.
    fn of(self, part: &str, start: u64, tokens: u64) -> u64 {
        let each = tokens * self.layers * self.dim;
        let stage = Stage::ALL.iter().find(|stage| stage.name() == part);
        match stage {
            Some(Stage::Query | Stage::AttentionOutput) => each * self.query_dim,
            Some(Stage::Key | Stage::Value) => each * self.kv_dim,
            Some(Stage::Gate | Stage::Up | Stage::Down) => each * self.hidden,
            Some(Stage::Head) => self.head_weights(),
            Some(Stage::Scores | Stage::Mix) => self.attention(start, tokens),
            _ => 0,
        }
    }
}

/// The parts of a prompt's computation and of the token after it.
#[derive(Debug, Serialize)]
pub(super) struct Profile {
    unit: &'static str,
    tables: Vec<Table>,
}

#[derive(Debug, Serialize)]
struct Table {
    what: String,
    total: u64,
    /// Weights multiplied in all products, once per token that multiplies them.
    weights: u64,
    parts: Vec<Row>,
    /// Readings of the counter, which are in no part, and what each took.
    readings: u64,
    per_reading: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    part: Part,
    /// Multiplications in it.
    #[serde(skip_serializing_if = "is_zero")]
    multiplications: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Profile {
    /// `measured` is first a prompt of `prompt_tokens` tokens, then the token that follows the first generated one.
    pub fn new(
        unit: &'static str,
        prompt_tokens: u32,
        work: Work,
        measured: impl IntoIterator<Item = Measured>,
    ) -> Self {
        let prompt = u64::from(prompt_tokens);
        let places = [
            (format!("prompt of {prompt} tokens, and the first token"), 0, prompt),
            (format!("one token at position {prompt}"), prompt, 1),
        ];
        let table = |((what, start, tokens), measured): ((String, u64, u64), Measured)| {
            let row = |part: Part| Row { multiplications: work.of(&part.part, start, tokens), part };
            let Measured { whole: total, parts, per_reading, reads: readings } = measured;
            let weights = tokens * work.layer_weights() + work.head_weights();
            Table { what, total, weights, parts: parts.into_iter().map(row).collect(), readings, per_reading }
        };
        Self { unit, tables: places.into_iter().zip(measured).map(table).collect() }
    }

    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for (index, table) in self.tables.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            table.write(self.unit, out)?;
        }
        Ok(())
    }
}

impl Table {
    fn write(&self, unit: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.what)?;
        writeln!(out, "{:<26} {unit:>16}   share  per multiplication", "part")?;
        let share = |count: u64| count as f64 * 100.0 / self.total.max(1) as f64;
        for Row { part: Part { part, count, .. }, multiplications } in &self.parts {
            write!(out, "{part:<26} {:>16} {:>6.2} %", grouped((*count).into()), share(*count))?;
            match multiplications {
                0 => writeln!(out)?,
                many => writeln!(out, "  {:>18.3}", *count as f64 / *many as f64)?,
            }
        }
        let per_weight = self.total as f64 / self.weights.max(1) as f64;
        writeln!(out, "{:<26} {:>16} {:>6.2} %  {per_weight:>18.3}", "whole", grouped(self.total.into()), 100.0)?;
        writeln!(
            out,
            "(not in it: {} readings of the counter for this profile, {} {unit} each)",
            grouped(self.readings.into()),
            self.per_reading
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_subtracted_and_the_parts_sum_to_the_whole() {
        let parts = vec![Part::new("a", 1000, 3), Part::new("b", 70, 1), Part::new("c", 2, 1)];
        let measured = Measured::with_marks(1072, parts, 10);
        assert_eq!((measured.whole, measured.reads), (1022, 5));
        let counts: Vec<_> = measured.parts.iter().map(|part| part.count).collect();
        assert_eq!(counts, [962, 60, 0], "what c could not give comes out of a");
        assert_eq!(counts.iter().sum::<u64>(), measured.whole);
    }

    #[test]
    fn multiplications_of_a_prompt_and_of_a_token() {
        let work = Work { dim: 2, query_dim: 3, kv_dim: 5, hidden: 7, vocab: 11, layers: 13 };
        assert_eq!(work.layer_weights(), 13 * 2 * (3 + 5 + 5 + 3 + 7 + 7 + 7));
        let products = ["query", "key", "value", "attention output", "gate", "up", "down"];
        let sum: u64 = products.iter().map(|name| work.of(&format!("product: {name}"), 9, 4)).sum();
        assert_eq!(sum, 4 * work.layer_weights());
        assert_eq!(work.of("product: head", 9, 4), 22);
        // Four tokens after two others see 3, 4, 5 and 6 positions.
        assert_eq!(work.of("attention: scores", 2, 4), 13 * 3 * 18);
        assert_eq!(work.of("norms", 2, 4), 0);
    }
}
