//! What became of every fault at every kind of message.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::Fault;
use super::trial::How;

/// The matrix.
pub struct Matrix {
    /// Kinds of messages in the order of their first appearance.
    kinds: Vec<String>,
    cells: BTreeMap<(usize, Fault), BTreeMap<How, usize>>,
    /// How many messages there were of a kind.
    met: BTreeMap<(usize, Fault), usize>,
    all: bool,
}

impl Matrix {
    /// An empty one, for all messages or some of each kind.
    pub fn new() -> Self {
        let all = std::env::var("ICLLAMA_FAULTS").is_ok_and(|wanted| wanted == "all");
        Self { kinds: Vec::new(), cells: BTreeMap::new(), met: BTreeMap::new(), all }
    }

    /// Whether all messages are wanted.
    pub fn is_all(&self) -> bool {
        self.all
    }

    fn index(&mut self, kind: &str) -> usize {
        self.kinds.iter().position(|known| known == kind).unwrap_or_else(|| {
            self.kinds.push(kind.to_owned());
            self.kinds.len() - 1
        })
    }

    /// Whether to try the fault at a message of this kind that has come.
    pub fn is_wanted(&mut self, kind: &str, fault: Fault) -> bool {
        let index = self.index(kind);
        let met = self.met.entry((index, fault)).or_default();
        *met += 1;
        self.all || *met == 1
    }

    /// Notes what came of a fault.
    pub fn note(&mut self, kind: &str, fault: Fault, how: How) {
        let index = self.index(kind);
        *self.cells.entry((index, fault)).or_default().entry(how).or_default() += 1;
    }

    /// Faults that were brought about.
    pub fn injections(&self) -> usize {
        self.cells.values().flat_map(BTreeMap::values).sum()
    }

    /// Whether every kind of message met every fault that can befall it.
    pub fn is_complete(&self) -> bool {
        self.met.keys().all(|cell| self.cells.contains_key(cell))
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut faults: Vec<Fault> = self.cells.keys().map(|(_, fault)| *fault).collect();
        faults.sort();
        faults.dedup();
        let widest = self.kinds.iter().map(String::len).max().unwrap_or(0);
        write!(f, "{:widest$}", "")?;
        faults.iter().try_for_each(|fault| write!(f, " | {}", fault.name()))?;
        writeln!(f)?;
        for (index, kind) in self.kinds.iter().enumerate() {
            write!(f, "{kind:widest$}")?;
            for fault in &faults {
                let cell = self.cells.get(&(index, *fault)).map_or_else(|| "-".to_owned(), cell);
                write!(f, " | {cell:width$}", width = fault.name().len())?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "{} injections: = unnoticed, s the canister went on by itself, r the client repeated a call",
            self.injections()
        )
    }
}

fn cell(counts: &BTreeMap<How, usize>) -> String {
    let sign = |how: &How| match how {
        How::AtOnce => '=',
        How::ByItself => 's',
        How::Repeated => 'r',
    };
    counts.iter().map(|(how, count)| format!("{count}{}", sign(how))).collect::<Vec<_>>().join(" ")
}
