//! A table of the page.

use std::fmt;

/// A title, names of columns, rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows.
    pub(crate) fn new<'a>(title: &str, columns: impl IntoIterator<Item = &'a str>) -> Self {
        Self { title: title.to_owned(), columns: columns.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    /// Another row: its name, and its cells.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = String>) {
        self.rows.push(std::iter::once(name.into()).chain(cells).collect());
    }
}

/// As Markdown.
impl fmt::Display for Table {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(form, "{}:\n", self.title)?;
        writeln!(form, "| {} |\n|{}", self.columns.join(" | "), "---|".repeat(self.columns.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(form, "| {} |", row.join(" | ")))
    }
}
