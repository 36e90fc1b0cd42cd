//! Takes the literals out of a statement: they are data. Pure.
//!
//! The server's own normalising leaves them in what is no query, `ALTER ROLE … PASSWORD '…'` above all, and in comments. The
//! text may end anywhere, because it was cut. What cannot be told from a literal goes too.

/// What stands for a literal.
const HOLE: &str = "?";

/// The statement with `?` for each literal, without comments, and with single spaces.
pub(super) fn without_literals(statement: &str) -> String {
    let mut out = String::with_capacity(statement.len());
    let mut rest = statement;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            _ if rest.starts_with("--") => comment(&mut out, rest.split_once('\n').map_or("", |(_, after)| after)),
            _ if rest.starts_with("/*") => comment(&mut out, after_comment(rest)),
            '\'' => string(&mut out, &rest[1..], Escapes::Doubtful),
            '"' => identifier(&mut out, rest),
            '$' => dollar(&mut out, rest),
            _ if first.is_ascii_digit() => number(&mut out, rest),
            _ if first.is_alphabetic() || first == '_' => word(&mut out, rest),
            _ if first.is_whitespace() => space(&mut out, rest.trim_start()),
            _ => {
                out.push(first);
                &rest[first.len_utf8()..]
            }
        };
    }
    out.truncate(out.trim_end().len());
    out
}

/// What a backslash means inside a string.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// `E'…'`: it takes the next character with it.
    Yes,
    /// `'…'`: that depends on a setting of the server's.
    Doubtful,
}

fn space<'a>(out: &mut String, after: &'a str) -> &'a str {
    if !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
    after
}

fn comment<'a>(out: &mut String, after: &'a str) -> &'a str {
    space(out, after.trim_start())
}

/// Comments nest; one without an end takes all the rest.
fn after_comment(text: &str) -> &str {
    let (mut rest, mut depth) = (&text[2..], 1);
    while depth > 0 {
        let Some(at) = rest.find(['*', '/']) else { return "" };
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("*/") {
            (rest, depth) = (after, depth - 1);
        } else if let Some(after) = rest.strip_prefix("/*") {
            (rest, depth) = (after, depth + 1);
        } else {
            rest = &rest[1..];
        }
    }
    rest
}

/// A string whose first quote is already read.
fn string<'a>(out: &mut String, text: &'a str, escapes: Escapes) -> &'a str {
    out.push_str(HOLE);
    let mut rest = text;
    loop {
        let Some(at) = rest.find(['\'', '\\']) else { return "" };
        let after = &rest[at + 1..];
        if rest[at..].starts_with('\\') {
            let next = after.chars().next();
            // by one setting this quote ends the string, by the other it does not: nothing after it is certain
            if escapes == Escapes::Doubtful && next == Some('\'') {
                return "";
            }
            let taken = if escapes == Escapes::Yes { next.map_or(0, char::len_utf8) } else { 0 };
            rest = &after[taken..];
        } else if let Some(after) = after.strip_prefix('\'') {
            rest = after;
        } else {
            return after;
        }
    }
}

/// A quoted identifier stays as it is: it names something.
fn identifier<'a>(out: &mut String, text: &'a str) -> &'a str {
    let end = text[1..].find('"').map_or(text.len(), |at| at + 2);
    out.push_str(&text[..end]);
    &text[end..]
}

/// `$1` stays, `$tag$…$tag$` is a string.
fn dollar<'a>(out: &mut String, text: &'a str) -> &'a str {
    let tag_end = text[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(text.len(), |at| at + 1);
    let (tag, rest) = text.split_at(tag_end);
    if rest.starts_with('$') && !tag[1..].starts_with(|c: char| c.is_ascii_digit()) {
        out.push_str(HOLE);
        let body = &rest[1..];
        let end = [tag, "$"].concat();
        return body.split_once(end.as_str()).map_or("", |(_, after)| after);
    }
    out.push_str(tag);
    rest
}

fn number<'a>(out: &mut String, text: &'a str) -> &'a str {
    out.push_str(HOLE);
    let mut previous = '0';
    let is_part = |c: char| {
        let is_part =
            c.is_alphanumeric() || matches!(c, '.' | '_') || (matches!(c, '+' | '-') && matches!(previous, 'e' | 'E'));
        previous = c;
        is_part
    };
    text.trim_start_matches(is_part)
}

/// A word, unless it says how the string that follows is written.
fn word<'a>(out: &mut String, text: &'a str) -> &'a str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if let Some(inside) = rest.strip_prefix('\'') {
        if word.eq_ignore_ascii_case("e") {
            return string(out, inside, Escapes::Yes);
        }
        if ["b", "x", "n"].iter().any(|prefix| word.eq_ignore_ascii_case(prefix)) {
            return string(out, inside, Escapes::Doubtful);
        }
    }
    out.push_str(word);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_a_literal_is_taken_out() {
        for (statement, expected) in [
            ("SELECT 1", "SELECT ?"),
            ("SELECT $1, a.b2 FROM t_3 WHERE x>=$2", "SELECT $1, a.b2 FROM t_3 WHERE x>=$2"),
            ("ALTER ROLE u PASSWORD 'hunter2'", "ALTER ROLE u PASSWORD ?"),
            ("SELECT 'it''s', E'a\\'hunter2', b", "SELECT ?, ?, b"),
            ("SELECT 'a\\b', c", "SELECT ?, c"),
            ("SELECT 'a\\', 'hunter2', c", "SELECT ?"),
            ("SELECT x'1F', B'01', n'hunter2', U&'hunter2'", "SELECT ?, ?, ?, U&?"),
            ("SELECT $$hunter2$$, $t$a $$ hunter2 $t$, c", "SELECT ?, ?, c"),
            ("SELECT 1.5e-3, 0x1F, 1_000, -7, .5", "SELECT ?, ?, ?, -?, .?"),
            ("SELECT 1-2", "SELECT ?-?"),
            ("/* hunter2 /* hunter2 */ hunter2 */ SELECT -- hunter2\n a", "SELECT a"),
            ("  SELECT\n\t\"Odd 1\"  FROM t  ", "SELECT \"Odd 1\" FROM t"),
            // cut in the middle
            ("SELECT 'hunter", "SELECT ?"),
            ("SELECT E'hunter\\", "SELECT ?"),
            ("SELECT $tag$hunter", "SELECT ?"),
            ("SELECT a /* hunter", "SELECT a"),
            ("SELECT a -- hunter", "SELECT a"),
            ("SELECT \"half", "SELECT \"half"),
            ("SELECT $", "SELECT $"),
            ("größe = 'ü'", "größe = ?"),
            ("", ""),
        ] {
            assert_eq!(without_literals(statement), expected, "{statement}");
        }
    }

    proptest! {
        #[test]
        fn a_secret_in_a_literal_never_stays(
            before in "[a-z ,=()]{0,20}",
            secret in "hunter[a-z0-9 ]{0,8}",
            after in "[a-z ,=()'$]{0,20}",
            form in 0_usize..4,
        ) {
            let literal = match form {
                0 => format!("'{secret}'"),
                1 => format!("E'{secret}'"),
                2 => format!("$x${secret}$x$"),
                _ => format!("/*{secret}*/"),
            };
            let found = without_literals(&format!("{before} {literal}{after}"));
            prop_assert!(!found.contains("hunter"), "{}", found);
        }

        #[test]
        fn no_text_breaks_it(text: String) {
            without_literals(&text);
        }
    }
}
