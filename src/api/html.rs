//! Pieces of the dashboard page: tables, times as people read them, and texts that cannot become markup.

use std::fmt::{self, Display, Write};

/// The head of a table.
pub(super) fn table_head(page: &mut String, caption: &str, columns: &[&str]) -> fmt::Result {
    write!(page, "<table><caption>{caption}</caption><thead><tr>")?;
    for column in columns {
        write!(page, "<th scope=\"col\">{column}</th>")?;
    }
    page.push_str("</tr></thead><tbody>\n");
    Ok(())
}

/// A row: its name, then its cells, all of them escaped.
pub(super) fn row(page: &mut String, name: &str, cells: &[String]) -> fmt::Result {
    write!(page, "<tr><th scope=\"row\">{}</th>", Escaped(name))?;
    for cell in cells {
        write!(page, "<td>{}</td>", Escaped(cell))?;
    }
    page.push_str("</tr>\n");
    Ok(())
}

/// `12 ms`, `1.50 s`; a dash for none.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".into(),
        Some(seconds) if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

/// `40 s`, `5 min`, `3 h`, `2 d`.
pub(super) fn span(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3_600.0 => format!("{:.0} min", s / 60.0),
        s if s < 86_400.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// `40 s ago`.
pub(super) fn ago(seconds: f64) -> String {
    format!("{} ago", span(seconds))
}

/// A text as it stands in HTML.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
