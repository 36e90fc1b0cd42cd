//! What a person sees: the addresses, one line that lives, and a summary.
//!
//! On a terminal the line is rewritten in place, in colour unless `NO_COLOR` is set; elsewhere, as in a CI log,
//! a plain line comes every few seconds.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::demo::receiver::Received;

/// How often a line comes where it cannot be rewritten, in ticks of the live line.
const PLAIN_EVERY: u32 = 5;
/// Between two states of the live line.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Lines only.
    Plain,
    /// A line may be rewritten, but not coloured.
    Monochrome,
    /// A line may be rewritten and coloured.
    Colour,
}

impl Style {
    /// The style of standard output; see no-color.org for the variable.
    pub(super) fn of_stdout(environment: &BTreeMap<String, String>) -> Self {
        let no_colour = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = environment.get("TERM").is_some_and(|value| value == "dumb");
        match (io::stdout().is_terminal() && !dumb, no_colour) {
            (false, _) => Self::Plain,
            (true, true) => Self::Monochrome,
            (true, false) => Self::Colour,
        }
    }
}

/// One reading of all that is shown.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Requests that the sidecar counted.
    pub(super) requests: u64,
    /// Those of them that are errors.
    pub(super) errors: u64,
    /// 95 % of the last minute's requests were faster; `None` without requests.
    pub(super) p95: Option<Duration>,
    /// Spans of requests that arrived.
    pub(super) spans: u64,
    /// What `spans` are to whoever took them: received by the built-in receiver, or delivered to a collector.
    pub(super) verb: &'static str,
}

/// Where all of it is written.
pub(super) struct Screen<'a> {
    out: &'a mut (dyn Write + Send),
    style: Style,
    ticks: u32,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send), style: Style) -> Self {
        Self { out, style, ticks: 0 }
    }

    /// The addresses to open, as (what it is, address).
    pub(super) fn addresses(&mut self, addresses: &[(&str, String)]) -> io::Result<()> {
        let width = addresses.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
        for (what, address) in addresses {
            match self.style {
                Style::Colour => writeln!(self.out, "{what:width$}  \x1b[1;36m{address}\x1b[0m")?,
                Style::Plain | Style::Monochrome => writeln!(self.out, "{what:width$}  {address}")?,
            }
        }
        writeln!(self.out, "{:width$}  Ctrl-C", "to end")?;
        self.out.flush()
    }

    /// The line of now; called once a tick.
    pub(super) fn live(&mut self, reading: &Reading) -> io::Result<()> {
        self.ticks += 1;
        match self.style {
            Style::Plain if self.ticks.is_multiple_of(PLAIN_EVERY) => writeln!(self.out, "{}", line(reading))?,
            Style::Plain => {}
            Style::Monochrome => write!(self.out, "\r\x1b[2K{}", line(reading))?,
            Style::Colour => {
                let colour = if reading.errors == 0 { "32" } else { "33" };
                write!(self.out, "\r\x1b[2K\x1b[{colour}m{}\x1b[0m", line(reading))?;
            }
        }
        self.out.flush()
    }

    /// The last line: what was counted, beside what the demo itself sent and what else arrived.
    pub(super) fn summary(&mut self, reading: &Reading, sent: u64, received: Option<Received>) -> io::Result<()> {
        if self.style != Style::Plain {
            write!(self.out, "\r\x1b[2K")?;
        }
        write!(self.out, "ended: {}; {sent} sent by the demo", line(reading))?;
        if let Some(Received { metric_points, log_records, .. }) = received {
            let (points, records) = (count(metric_points, "metric point"), count(log_records, "log record"));
            write!(self.out, "; {points} and {records} received")?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }
}

fn line(reading: &Reading) -> String {
    let p95 = reading.p95.map_or_else(|| "-".to_owned(), |p95| format!("{:.1} ms", p95.as_secs_f64() * 1_000.0));
    let (requests, errors) = (count(reading.requests, "request"), count(reading.errors, "error"));
    format!("{requests}, {errors}, p95 {p95}, {} {}", count(reading.spans, "span"), reading.verb)
}

fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading =
        Reading { requests: 12, errors: 1, p95: Some(Duration::from_micros(3_250)), spans: 24, verb: "received" };

    fn shown(style: Style, ticks: u32) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, style);
        for _ in 0..ticks {
            screen.live(&READING).unwrap();
        }
        screen.summary(&READING, 12, Some(Received { metric_points: 7, ..Received::default() })).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_there_are_plain_lines_only() {
        let live = "12 requests, 1 error, p95 3.2 ms, 24 spans received";
        let last = format!("ended: {live}; 12 sent by the demo; 7 metric points and 0 log records received\n");
        assert_eq!(shown(Style::Plain, 10), format!("{live}\n{live}\n{last}"));
    }

    #[test]
    fn a_terminal_line_is_rewritten_in_place() {
        let text = shown(Style::Monochrome, 3);
        assert_eq!(text.matches('\r').count(), 4);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains("\x1b[3"), "no colour without colour: {text:?}");
    }
}
