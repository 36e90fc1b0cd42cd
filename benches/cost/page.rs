//! `docs/performance.md`: the part of it that is measured stands between two marks and is written by this program.

use std::fs;
use std::path::Path;

use crate::figure::{self, Figure};
use crate::plot;
use crate::turns::Results;

const BEGIN: &str = "<!-- measured: from here to the end mark written by `make bench` -->";
const END: &str = "<!-- measured: end -->";

/// One part, for the terminal.
pub(crate) fn part(results: &Results) -> String {
    let tables: String = results.tables.iter().map(|table| format!("\n{table}")).collect();
    format!("{}{tables}", rows(results.figures.iter()))
}

fn rows<'a>(figures: impl Iterator<Item = &'a Figure>) -> String {
    let lines: String = figures.map(|figure| format!("{figure}\n")).collect();
    if lines.is_empty() { lines } else { format!("{}\n{lines}", figure::HEAD) }
}

/// Puts the results into the page, and the plot beside it.
///
/// # Panics
/// When the page has lost its marks.
pub(crate) fn write(machine: &str, parts: &[(&str, Results)]) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let figures = || parts.iter().flat_map(|(_, part)| &part.figures);
    let tables: String = parts.iter().flat_map(|(_, part)| &part.tables).map(|table| format!("\n{table}")).collect();
    let measured = format!(
        "{BEGIN}\n\n{machine}\n\n### Against the targets\n\n{}\n### Beside them\n\n{}\n### In turns\n\n\
         ![CPU per request, and latency at a fixed rate](performance.svg)\n{tables}\n{END}",
        rows(figures().filter(|figure| figure.is_aimed())),
        rows(figures().filter(|figure| !figure.is_aimed())),
    );
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let (before, rest) = text.split_once(BEGIN).expect("the page has the mark at which the figures begin");
    let (_, after) = rest.split_once(END).expect("the page has the mark at which the figures end");
    fs::write(&page, format!("{before}{measured}{after}")).expect("the page can be written");
    let of = |wanted: &str| parts.iter().find(|(name, _)| *name == wanted).map(|(_, part)| part.bars.as_slice());
    let panels = [
        ("CPU per request at full speed, µs", of("closed").unwrap_or_default()),
        ("99 % of requests at 3,000 a second take at most, ms", of("open").unwrap_or_default()),
    ];
    fs::write(docs.join("performance.svg"), plot::svg(&panels)).expect("the plot can be written");
}
