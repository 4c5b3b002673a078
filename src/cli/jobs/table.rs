//! Tables: columns as wide as what stands in them.

/// A table to be printed.
pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

/// A column.
#[derive(Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    /// Numbers end at the same place.
    right: bool,
}

/// Between two columns.
const GAP: &str = "  ";

/// A column of words.
pub(super) const fn words(name: &'static str) -> Column {
    Column { name, right: false }
}

/// A column of numbers.
pub(super) const fn numbers(name: &'static str) -> Column {
    Column { name, right: true }
}

// === impl Table ===

impl<const N: usize> Table<N> {
    /// Without rows.
    pub(super) fn new(columns: [Column; N]) -> Self {
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// Its lines, the names of its columns first. Each begins with `indent`.
    pub(super) fn render(&self, indent: &str) -> String {
        let names = self.columns.map(|column| column.name.to_owned());
        let lines = || std::iter::once(&names).chain(&self.rows);
        let width = |at: usize| lines().map(|line| line[at].chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|at| width(at).unwrap_or_default());
        let mut all = String::new();
        for line in lines() {
            let cells = line.iter().zip(widths).zip(self.columns);
            let cells = cells.map(|((cell, width), column)| match column.right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            let cells: Vec<_> = cells.collect();
            all.push_str(indent);
            all.push_str(cells.join(GAP).trim_end());
            all.push('\n');
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them_and_no_line_ends_in_blanks() {
        let mut table = Table::new([words("id"), numbers("size"), words("said")]);
        table.row(["a".into(), "5".into(), "ärger".into()]);
        table.row(["longer".into(), "12345".into(), String::new()]);
        let wants = "> id       size  said\n> a           5  ärger\n> longer  12345\n";
        assert_eq!(table.render("> "), wants);
    }

    #[test]
    fn a_table_without_rows_still_names_its_columns() {
        let table = Table::new([words("id"), words("state")]);
        assert_eq!(table.render(""), "id  state\n");
    }
}
