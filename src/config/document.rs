//! The configuration as text: `print-config` and `docs/configuration.md`, both from the keys that were read.

use std::fmt::Write;

use crate::settings::Key;

/// The configuration in force as a YAML file; secrets are masked.
#[must_use]
pub fn yaml(keys: &[Key]) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    for key in in_order(keys) {
        let mut parts: Vec<&str> = key.path.split('.').collect();
        let name = parts.pop().unwrap_or_default();
        let shared = open.iter().zip(&parts).take_while(|(left, right)| left == right).count();
        for (depth, part) in parts.iter().enumerate().skip(shared) {
            let _ = writeln!(out, "{}{}:", "  ".repeat(depth), name_of(part));
        }
        let _ = writeln!(out, "{}{}: {}", "  ".repeat(parts.len()), name_of(name), value_of(key));
        open = parts;
    }
    out
}

/// `docs/configuration.md`: every key with its variable, default and reason; `own` are those of the checks that one may add,
/// first those that all have, then by kind; `is_live` says of a path whether a change is taken without a restart.
#[must_use]
pub fn markdown(keys: &[Key], own: &[(String, Vec<Key>)], is_live: impl Fn(&str) -> bool) -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Every key can stand in the YAML file (`--config`, else `./sidecar.yaml`) and in the environment; the key\n\
         `proxy.listen` is the variable `SIDECAR_PROXY__LISTEN`. A flag wins over `SIDECAR_*`, that over `OTEL_*`,\n\
         `DATABASE_URL` and their like, those over the file, the file over defaults. `check-config` lists every mistake\n\
         at once (exit code 64), `print-config` shows what is in force. Durations have a unit (`250ms`, `2s`, `5m`),\n\
         sizes are in bytes or with `KiB`, `MiB`, `GiB`; lists may be written with commas. A change that is taken `live` needs no\n\
         restart ([reload.md](reload.md)).\n\n\
         This page is written by `make docs` from the code that reads the keys.\n",
    );
    let taken = |key: &Key| if is_live(&key.path) { "live" } else { "restart" };
    let mut section = None;
    for key in in_order(keys) {
        let top = key.path.split_once('.').map_or("", |(top, _)| top);
        if section != Some(top) {
            let title = if top.is_empty() { "Top level".to_owned() } else { format!("`{top}`") };
            let _ = write!(
                out,
                "\n## {title}\n\n| key | environment | default | taken | what for |\n|---|---|---|---|---|\n"
            );
            section = Some(top);
        }
        out.push_str(&row(key, taken(key)));
    }
    out.push_str(OWN_CHECKS);
    for (title, keys) in own {
        let title = if title.is_empty() { "Keys of each of them" } else { title };
        let _ = write!(out, "\n{title}\n\n| key | environment | default | taken | what for |\n|---|---|---|---|---|\n");
        keys.iter().for_each(|key| out.push_str(&row(key, taken(key))));
    }
    out
}

const OWN_CHECKS: &str = "\n## Own checks\n\n\
     Each section below `checks` with a name of its own is a check; those of the built-in names adjust a built-in one. Own checks are\n\
     shown in `/health` behind `application`, in the order of the file. The same as a list, which may hold both:\n\n\
     ```yaml\n\
     checks:\n  \
       - {name: redis, timeout: 1s}\n  \
       - {name: payments, kind: http, url: https://pay.example.com/health, expect: {status: [200], json: {/state: up}}}\n\
     ```\n";

fn row(key: &Key, taken: &str) -> String {
    let variable = format!("SIDECAR_{}", key.path.to_uppercase().replace('.', "__"));
    let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
    let about = key.about.replace('|', "\\|");
    format!("| `{}` | `{variable}` | {default} | {taken} | {about} |\n", key.path)
}

/// A stable order by section, and keys of the root first: YAML cannot come back to a section. Checks keep the order in which
/// they were read, which is that of `/health`.
fn in_order(keys: &[Key]) -> Vec<&Key> {
    let turn_of = |check: &str| keys.iter().position(|key| section_of(&key.path).starts_with(&["checks", check]));
    let mut sorted: Vec<&Key> = keys.iter().collect();
    sorted.sort_by_cached_key(|key| {
        let section = section_of(&key.path);
        let turn = section.get(1).filter(|_| section[0] == "checks").and_then(|check| turn_of(check));
        (section.first().copied(), turn, section.clone())
    });
    sorted
}

/// The names of the sections that hold this key.
fn section_of(path: &str) -> Vec<&str> {
    path.rsplit_once('.').map_or_else(Vec::new, |(section, _)| section.split('.').collect())
}

/// The value in force; `null` where there is none, which is read as the default.
fn value_of(key: &Key) -> String {
    if key.value.is_empty() && key.default.is_empty() { "null".to_owned() } else { scalar(&key.value) }
}

/// Words that YAML takes for something else than a text.
const WORDS: [&str; 5] = ["null", "yes", "no", "on", "off"];

/// A value as YAML reads it back: quoted unless it is plainly a word, a number or an address.
fn scalar(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let is_plain = !value.is_empty() && value.chars().all(plain) && !value.starts_with('-');
    let is_word = WORDS.contains(&value.to_ascii_lowercase().as_str());
    if is_plain && !is_word { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

/// A key as YAML reads it back, where a number would be no text either.
fn name_of(name: &str) -> String {
    let is_text = name.starts_with(|c: char| c.is_ascii_alphabetic()) && !["true", "false"].contains(&name);
    if is_text { scalar(name) } else { serde_json::Value::from(name).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, value: &str) -> Key {
        Key { path: path.into(), default: "1s".into(), value: value.into(), about: "a reason", secret: None }
    }

    #[test]
    fn the_yaml_opens_each_section_once() {
        let keys = [key("b.c.x", "1s"), key("a", "http://x"), key("b.y", "2"), key("b.c.z", "***")];
        let expected = "a: \"http://x\"\nb:\n  y: 2\n  c:\n    x: 1s\n    z: \"***\"\n";
        assert_eq!(yaml(&keys), expected);
    }

    #[test]
    fn a_name_that_yaml_would_misread_is_quoted_and_neighbours_do_not_part_a_section() {
        let keys = [key("c.a.x", "1"), key("c.a-b.x", "2"), key("c.a.e./up: y", "3"), key("c.1.x", "4")];
        let expected = "c:\n  \"1\":\n    x: 4\n  a:\n    x: 1\n    e:\n      \"/up: y\": 3\n  a-b:\n    x: 2\n";
        assert_eq!(yaml(&keys), expected);
    }

    #[test]
    fn checks_keep_the_order_in_which_they_were_read() {
        let keys = [key("checks.z.x", "1"), key("checks.a.e.x", "2"), key("a.b", "3"), key("checks.z.e.y", "4")];
        assert_eq!(yaml(&keys), "a:\n  b: 3\nchecks:\n  z:\n    x: 1\n    e:\n      y: 4\n  a:\n    e:\n      x: 2\n");
    }

    #[test]
    fn what_is_not_set_is_null_and_what_is_emptied_is_empty() {
        let unset = Key { default: String::new(), ..key("a", "") };
        assert_eq!(yaml(&[unset, key("b", ""), key("c", "on")]), "a: null\nb: \"\"\nc: \"on\"\n");
    }

    #[test]
    fn the_page_has_a_row_for_each_key_under_its_section() {
        let own = [("`tcp`: a port".into(), vec![key("checks.<name>.y", "")])];
        let page = markdown(&[key("a", ""), key("b.c.x", "")], &own, |path| path == "a");
        assert!(page.contains("| `a` | `SIDECAR_A` | `1s` | live | a reason |"), "{page}");
        assert!(page.contains("## Top level\n"), "{page}");
        assert!(page.contains("## `b`\n\n| key "), "{page}");
        assert!(page.contains("\n`tcp`: a port\n\n| key "), "{page}");
        assert!(page.contains("| `b.c.x` | `SIDECAR_B__C__X` | `1s` | restart | a reason |"), "{page}");
    }
}
