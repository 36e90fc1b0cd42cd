//! Lines of a head on their way out: neighbours that arrived exactly as they would be written leave in one copy.
//!
//! What is written is the same either way, byte for byte; only the number of copies differs.

use std::ops::Range;

/// Writes the lines of a head; what is still to be copied is written when it is dropped.
#[derive(Debug)]
pub(crate) struct Lines<'o> {
    /// The head as it arrived.
    head: &'o [u8],
    /// Its bytes that are to be written next.
    run: Range<usize>,
    out: &'o mut Vec<u8>,
}

impl<'o> Lines<'o> {
    /// Lines of `head`, written to `out`.
    pub(crate) fn new(head: &'o [u8], out: &'o mut Vec<u8>) -> Self {
        Self { head, run: 0..0, out }
    }

    /// The first line, of these parts.
    pub(crate) fn first(&mut self, parts: [&[u8]; 5]) {
        let mut rest = self.head;
        let arrived = parts.iter().all(|part| match rest.strip_prefix(*part) {
            Some(behind) => {
                rest = behind;
                true
            }
            None => false,
        });
        if arrived {
            self.run = 0..self.head.len() - rest.len();
        } else {
            parts.iter().for_each(|part| self.out.extend_from_slice(part));
        }
    }

    /// A field of the head, as it is.
    pub(crate) fn pass(&mut self, name: &[u8], value: &[u8]) {
        let (start, at) = (self.place(name), self.place(value));
        let end = at.wrapping_add(value.len()).wrapping_add(2);
        let arrived = at == start.wrapping_add(name.len()).wrapping_add(2)
            && self
                .head
                .get(start..end)
                .is_some_and(|line| line.ends_with(b"\r\n") && line[name.len()..].starts_with(b": "));
        if !arrived {
            return self.field(name, value);
        }
        if self.run.end != start {
            self.flush();
            self.run.start = start;
        }
        self.run.end = end;
    }

    /// A field of our own.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.flush();
        field(name, value, self.out);
    }

    /// Where a part of the head stands in it; of other bytes, a place that is not in it.
    fn place(&self, part: &[u8]) -> usize {
        part.as_ptr().addr().wrapping_sub(self.head.as_ptr().addr())
    }

    fn flush(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.out.extend_from_slice(&self.head[run]);
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes one field.
pub(crate) fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_does_not_depend_on_how_it_arrived(
            fields in prop::collection::vec(("[a-z]{1,4}", "(| |  |\t)", "[a-z ]{0,4}", "(\r\n| \r\n)", 0..3_u8), 0..8),
            first in "(GET / HTTP/1.1|GET  / HTTP/1.1|)\r\n",
        ) {
            let mut head = first.clone().into_bytes();
            let mut places = Vec::new();
            for (name, blank, value, end, _) in &fields {
                let start = head.len();
                head.extend_from_slice(format!("{name}:{blank}{value}{end}").as_bytes());
                let at = start + name.len() + 1 + blank.len();
                places.push((start..start + name.len(), at..at + value.len()));
            }
            let (mut out, mut expected) = (b"before".to_vec(), b"beforeGET / HTTP/1.1\r\n".to_vec());
            let mut lines = Lines::new(&head, &mut out);
            lines.first([b"GET", b" ", b"", b"/", b" HTTP/1.1\r\n"]);
            for ((name, value), (.., way)) in places.into_iter().zip(&fields) {
                let (name, value) = (&head[name], &head[value]);
                match way {
                    0 => continue, // it is left out
                    1 => lines.field(name, b"ours"),
                    _ => lines.pass(name, value),
                }
                field(name, if *way == 1 { b"ours" } else { value }, &mut expected);
            }
            lines.pass(b"other", b"bytes");
            field(b"other", b"bytes", &mut expected);
            drop(lines);
            prop_assert_eq!(out, expected);
        }
    }
}
