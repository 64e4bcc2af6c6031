//! Records: tables of figures over dates, one file per model, and the comparison of new figures with the last ones.
//!
//! A file is tab-separated. The first line names the columns (`figure`, then a date each, the newest last), every other
//! line is a figure with one value per date; a value is empty where the figure was not measured.

use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::new_file::NewFile;

/// Part of its old value by which a figure may get worse, and above which an improvement is told.
const TOLERANCE: f64 = 0.01;
const CORNER: &str = "figure";

/// Something that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figure {
    pub name: String,
    pub value: f64,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Changes up to this much do not count, however large a part of the value they are.
    #[serde(skip)]
    pub slack: f64,
}

impl Figure {
    /// Less is better, and every change counts.
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, more_is_better: false, slack: 0.0 }
    }

    /// The value as it is written: whole, or with four decimals.
    pub fn text(&self) -> String {
        if self.value.fract() == 0.0 { format!("{:.0}", self.value) } else { format!("{:.4}", self.value) }
    }
}

/// A file of figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    dates: Vec<String>,
    /// Name, and one value per date.
    rows: Vec<(String, Vec<String>)>,
}

/// What a comparison with a record found, a line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// What must not be.
    pub worse: Vec<String>,
    /// What the record does not know yet.
    pub better: Vec<String>,
}

impl Record {
    /// Reads a file; an absent one is an empty record.
    ///
    /// # Errors
    /// If it cannot be read or is no record.
    pub fn read(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("{} is no bench record", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the file, with its folder.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(NewFile::write_all_of(path, self.text().as_bytes())?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let mut head = lines.next().context("it is empty")?.split('\t');
        if head.next() != Some(CORNER) {
            bail!("its first line does not begin with `{CORNER}`");
        }
        let dates: Vec<String> = head.map(str::to_owned).collect();
        let row = |line: &str| -> Result<(String, Vec<String>)> {
            let mut cells = line.split('\t').map(str::to_owned);
            let name = cells.next().unwrap_or_default();
            let values: Vec<String> = cells.collect();
            if values.len() != dates.len() {
                bail!("the figure `{name}` has {} values for {} dates", values.len(), dates.len());
            }
            if let Some(value) = values.iter().find(|value| !value.is_empty() && value.parse::<f64>().is_err()) {
                bail!("the figure `{name}` has the value `{value}`, which is no number");
            }
            Ok((name, values))
        };
        let rows = lines.map(row).collect::<Result<_>>()?;
        Ok(Self { dates, rows })
    }

    fn text(&self) -> String {
        let head = (CORNER, &self.dates);
        let rows = self.rows.iter().map(|(name, values)| (name.as_str(), values));
        let line = |(name, cells): (&str, &Vec<String>)| [name, "\t", &cells.join("\t"), "\n"].concat();
        std::iter::once(head).chain(rows).map(line).collect()
    }

    /// Adds the figures as the column of `date`, in place of what that date had.
    pub fn renew(&mut self, date: &str, figures: &[Figure]) {
        let column = self.dates.iter().position(|other| other == date).unwrap_or(self.dates.len());
        if column == self.dates.len() {
            self.dates.push(date.to_owned());
        }
        let mut old = std::mem::take(&mut self.rows);
        for figure in figures {
            let at = old.iter().position(|(name, _)| *name == figure.name);
            let (name, values) = at.map_or_else(|| (figure.name.clone(), Vec::new()), |at| old.remove(at));
            self.rows.push((name, self.with_cell(values, column, figure.text())));
        }
        // Figures that are not measured any more keep what they had on other dates.
        for (name, values) in old {
            let values = self.with_cell(values, column, String::new());
            if values.iter().any(|value| !value.is_empty()) {
                self.rows.push((name, values));
            }
        }
    }

    fn with_cell(&self, mut values: Vec<String>, column: usize, cell: String) -> Vec<String> {
        values.resize(self.dates.len(), String::new());
        if let Some(value) = values.get_mut(column) {
            *value = cell;
        }
        values
    }

    /// Compares with the newest column.
    pub fn compare(&self, figures: &[Figure]) -> Findings {
        let mut findings = Findings::default();
        let newest = |values: &[String]| values.last().and_then(|value| value.parse::<f64>().ok());
        for figure in figures {
            let values = self.rows.iter().find(|(name, _)| *name == figure.name).map(|(_, values)| values);
            match values.and_then(|values| newest(values)) {
                Some(old) => figure.compare(old, &mut findings),
                None => findings.worse.push(format!("{}: {}, not in the record", figure.name, figure.text())),
            }
        }
        for (name, values) in &self.rows {
            if newest(values).is_some() && !figures.iter().any(|figure| figure.name == *name) {
                findings.worse.push(format!("{name}: in the record, but not measured any more"));
            }
        }
        findings
    }
}

impl Figure {
    fn compare(&self, old: f64, findings: &mut Findings) {
        let change = self.value - old;
        if change.abs() <= self.slack.max(TOLERANCE * old.abs()) {
            return;
        }
        let percent = if old == 0.0 { String::new() } else { format!(" ({:+.1} %)", change * 100.0 / old.abs()) };
        let line = format!("{}: from {old} to {}{percent}", self.name, self.text());
        let improved = (change > 0.0) == self.more_is_better;
        if improved { findings.better.push(line) } else { findings.worse.push(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record::parse(text).unwrap()
    }

    #[test]
    fn renewing_adds_a_column_or_replaces_that_of_the_date() {
        let mut table = Record::default();
        table.renew("2026-01-01", &[Figure::new("a", 10.0), Figure::new("b", 0.25)]);
        assert_eq!(table.text(), "figure\t2026-01-01\na\t10\nb\t0.2500\n");
        table.renew("2026-01-02", &[Figure::new("c", 1.0), Figure::new("a", 11.0)]);
        assert_eq!(table.text(), "figure\t2026-01-01\t2026-01-02\nc\t\t1\na\t10\t11\nb\t0.2500\t\n");
        table.renew("2026-01-02", &[Figure::new("a", 12.0)]);
        assert_eq!(table.text(), "figure\t2026-01-01\t2026-01-02\na\t10\t12\nb\t0.2500\t\n");
        assert_eq!(record(&table.text()), table);
    }

    #[test]
    fn more_than_one_percent_is_worse_or_better_and_nothing_may_be_missing() {
        let table = record("figure\tx\ty\na\t1\t1000\nb\t1\t1000\nc\t\t1000\nd\t1\t100\ngone\t1\t7\nold\t1\t\n");
        let compare = |a: f64, b: f64, c: f64| {
            let tokens = Figure { more_is_better: true, ..Figure::new("b", b) };
            let part = Figure { slack: 5.0, ..Figure::new("d", 105.0) };
            table.compare(&[Figure::new("a", a), tokens, Figure::new("c", c), part, Figure::new("gone", 7.0)])
        };
        assert_eq!(compare(1010.0, 990.0, 990.0), Findings::default());
        let findings = compare(1011.0, 1011.0, 989.0);
        assert_eq!(findings.worse, ["a: from 1000 to 1011 (+1.1 %)"]);
        assert_eq!(findings.better, ["b: from 1000 to 1011 (+1.1 %)", "c: from 1000 to 989 (-1.1 %)"]);
        let findings = table.compare(&[Figure::new("old", 1.0)]);
        assert_eq!(findings.worse.len(), 1 + 5, "{findings:?}");
        assert_eq!(findings.worse[0], "old: 1, not in the record");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in ["", "name\tx\n", "figure\tx\na\n", "figure\tx\na\tmuch\n"] {
            assert!(Record::parse(text).is_err(), "{text:?}");
        }
    }
}
