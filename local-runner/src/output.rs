//! What a command prints: text for people or JSON for programs, on stdout. Logs and progress go to stderr
//! (see `progress`). Knows nothing of models.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use serde::Serialize;

/// The command's stdout.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    verbose: bool,
}

impl Output {
    /// Chooses JSON or text; `verbose` lets [`Output::log`] speak.
    pub fn new(json: bool, verbose: bool) -> Self {
        Self { json, verbose }
    }

    /// Whether stdout carries JSON.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Whether the user asked for details.
    pub fn is_verbose(self) -> bool {
        self.verbose
    }

    /// Prints `document` as JSON, or what `text` writes.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn document<T: Serialize>(
        self,
        document: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            let mut json = serde_json::Serializer::pretty(&mut out);
            document.serialize(&mut json)?;
            writeln!(out)?;
        } else {
            text(&mut out)?;
        }
        Ok(out.flush()?)
    }

    /// Prints one line of a JSON stream; nothing in text mode.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn json_line<T: Serialize>(self, line: &T) -> Result<()> {
        if self.json { write_json_line(line) } else { Ok(()) }
    }

    /// Prints a piece of text as it arrives; nothing in JSON mode.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn piece(self, text: &str) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints a line in text mode; nothing in JSON mode.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn line(self, text: &str) -> Result<()> {
        self.piece(&format!("{text}\n"))
    }

    /// Writes a line to stderr when the user asked for details.
    pub fn log(self, message: impl FnOnce() -> String) {
        if self.verbose {
            note(&message());
        }
    }
}

/// Prints one line of JSON on stdout.
///
/// # Errors
/// If stdout cannot be written.
pub fn write_json_line<T: Serialize>(line: &T) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Writes a line to stderr. A closed stderr is no reason to fail.
pub fn note(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Whether a person reads stderr.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A whole number with its thousands set apart: `1234567` becomes `1,234,567`.
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what is counted, `1 call` or `1,234 calls`; `thing` is the singular.
pub fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number.into()), if number == 1 { "" } else { "s" })
}

/// A count in the unit that keeps it short: `1.53 B`, `204.3 M`, `17.2 k`.
pub fn short(number: u128) -> String {
    let value = number as f64;
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.1} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.2} B", value / 1e9),
        _ => format!("{:.3} T", value / 1e12),
    }
}

/// A size in bytes in the unit that keeps it short: `93.8 MiB`.
pub fn byte_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn short_counts_and_sizes_pick_their_unit() {
        assert_eq!(short(9_999), "9999");
        assert_eq!(short(204_300_000), "204.3 M");
        assert_eq!(short(1_530_000_000), "1.53 B");
        assert_eq!((counted(1, "call"), counted(1234, "call")), ("1 call".to_owned(), "1,234 calls".to_owned()));
        assert_eq!(byte_size(512), "512 B");
        assert_eq!(byte_size(98_362_432), "93.8 MiB");
    }
}
