//! The table that goes into the README.

use std::collections::BTreeMap;
use std::fmt;

/// The columns there may be, in their order; the first is the gateway.
const COLUMNS: [&str; 6] = [
    "tabane",
    BASE,
    "… with mimalloc",
    "nginx",
    "HAProxy",
    "no proxy",
];

/// The column that the others are compared with.
const BASE: &str = "minimal Pingora";

/// Rows of measurements; the values of one row are in one unit, so that they may be compared.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    lines: Vec<String>,
}

struct Row {
    name: String,
    unit: &'static str,
    /// By column: one value a round.
    values: BTreeMap<&'static str, Vec<f64>>,
}

impl Table {
    /// `column` is one of [`COLUMNS`].
    pub fn add(&mut self, row: &str, unit: &'static str, column: &'static str, value: f64) {
        let at = match self.rows.iter().position(|known| known.name == row) {
            Some(at) => at,
            None => {
                self.rows.push(Row {
                    name: row.into(),
                    unit,
                    values: BTreeMap::new(),
                });
                self.rows.len() - 1
            }
        };
        self.rows[at].values.entry(column).or_default().push(value);
    }

    /// A figure that has no peer.
    pub fn line(&mut self, line: String) {
        self.lines.push(line);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let filled = |column: &&str| self.rows.iter().any(|row| row.values.contains_key(column));
        let columns: Vec<_> = COLUMNS.into_iter().filter(filled).collect();
        if !self.rows.is_empty() {
            writeln!(f, "| | {} |", columns.join(" | "))?;
            writeln!(f, "|---|{}", "---|".repeat(columns.len()))?;
        }
        for row in &self.rows {
            write!(f, "| {} |", row.name)?;
            for column in &columns {
                match row.values.get(column) {
                    None => write!(f, " |")?,
                    Some(values) => {
                        let value = median(values.clone());
                        write!(f, " {} {}", figures(value), row.unit)?;
                        if let Some(ratio) = row.ratio(column) {
                            write!(f, " ({ratio:.2})")?;
                        }
                        write!(f, " |")?;
                    }
                }
            }
            writeln!(f)?;
        }
        if !self.rows.is_empty() {
            writeln!(
                f,
                "\nMedians; in brackets the ratio to {BASE}, round by round. Memory at rest and of\nconnections is measured once, before anything else.\n"
            )?;
        }
        for line in &self.lines {
            writeln!(f, "- {line}")?;
        }
        Ok(())
    }
}

impl Row {
    /// The median of the ratios to the base in the same round.
    fn ratio(&self, column: &str) -> Option<f64> {
        let base = self.values.get(BASE)?;
        let values = self.values.get(column)?;
        if column == BASE || base.contains(&0.0) {
            return None;
        }
        Some(median(
            values.iter().zip(base).map(|(a, b)| a / b).collect(),
        ))
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Three figures are more than such measurements give.
fn figures(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut table = Table::default();
        // The machine became twice as slow between the rounds; the ratio did not change.
        for (mine, base) in [(12.0, 10.0), (24.0, 20.0)] {
            table.add("CPU", "µs", "tabane", mine);
            table.add("CPU", "µs", "minimal Pingora", base);
        }
        assert!(
            table
                .to_string()
                .contains("| CPU | 18.0 µs (1.20) | 15.0 µs |")
        );
    }
}
