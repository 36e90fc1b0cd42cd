//! The configuration as text: `print-config` and `docs/configuration.md`, both from the keys that were read.

use std::fmt::Write;

use crate::settings::Key;

/// The configuration in force as a YAML file; secrets are masked.
#[must_use]
pub fn yaml(keys: &[Key]) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    let mut sorted: Vec<&Key> = keys.iter().collect();
    // a stable order by section, and keys of the root first: YAML cannot come back to a section
    sorted.sort_by_key(|key| section_of(&key.path));
    for key in sorted {
        let mut parts: Vec<&str> = key.path.split('.').collect();
        let name = parts.pop().unwrap_or_default();
        let shared = open.iter().zip(&parts).take_while(|(left, right)| left == right).count();
        for (depth, part) in parts.iter().enumerate().skip(shared) {
            let _ = writeln!(out, "{}{part}:", "  ".repeat(depth));
        }
        let _ = writeln!(out, "{}{name}: {}", "  ".repeat(parts.len()), value_of(key));
        open = parts;
    }
    out
}

/// `docs/configuration.md`: every key with its variable, default and reason.
#[must_use]
pub fn markdown(keys: &[Key]) -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Every key can stand in the YAML file (`--config`, else `./sidecar.yaml`) and in the environment; the key\n\
         `proxy.listen` is the variable `SIDECAR_PROXY__LISTEN`. A flag wins over `SIDECAR_*`, that over `OTEL_*`,\n\
         `DATABASE_URL` and their like, those over the file, the file over defaults. `check-config` lists every mistake\n\
         at once (exit code 64), `print-config` shows what is in force. Durations have a unit (`250ms`, `2s`, `5m`),\n\
         sizes are in bytes or with `KiB`, `MiB`, `GiB`; lists may be written with commas.\n\n\
         This page is written by `make docs` from the code that reads the keys.\n",
    );
    let mut section = None;
    let mut sorted: Vec<&Key> = keys.iter().collect();
    sorted.sort_by_key(|key| section_of(&key.path));
    for key in sorted {
        let top = key.path.split_once('.').map_or("", |(top, _)| top);
        if section != Some(top) {
            let title = if top.is_empty() { "Top level".to_owned() } else { format!("`{top}`") };
            let _ = write!(out, "\n## {title}\n\n| key | environment | default | what for |\n|---|---|---|---|\n");
            section = Some(top);
        }
        let variable = format!("SIDECAR_{}", key.path.to_uppercase().replace('.', "__"));
        let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        let about = key.about.replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | `{variable}` | {default} | {about} |", key.path);
    }
    out
}

/// Keys of a section stay together, in the order in which the sections were read.
fn section_of(path: &str) -> String {
    path.rsplit_once('.').map_or(String::new(), |(section, _)| section.to_owned())
}

/// The value in force; `null` where there is none, which is read as the default.
fn value_of(key: &Key) -> String {
    if key.value.is_empty() && key.default.is_empty() { "null".to_owned() } else { scalar(&key.value) }
}

/// A value as YAML reads it back: quoted unless it is plainly a word, a number or an address.
fn scalar(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let is_plain = !value.is_empty() && value.chars().all(plain) && !value.starts_with('-');
    if is_plain { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, value: &str) -> Key {
        Key { path: path.into(), default: "1s".into(), value: value.into(), about: "a reason" }
    }

    #[test]
    fn the_yaml_opens_each_section_once() {
        let keys = [key("b.c.x", "1s"), key("a", "http://x"), key("b.y", "2"), key("b.c.z", "***")];
        let expected = "a: \"http://x\"\nb:\n  y: 2\n  c:\n    x: 1s\n    z: \"***\"\n";
        assert_eq!(yaml(&keys), expected);
    }

    #[test]
    fn what_is_not_set_is_null_and_what_is_emptied_is_empty() {
        let unset = Key { default: String::new(), ..key("a", "") };
        assert_eq!(yaml(&[unset, key("b", "")]), "a: null\nb: \"\"\n");
    }

    #[test]
    fn the_page_has_a_row_for_each_key_under_its_section() {
        let page = markdown(&[key("a", ""), key("b.c.x", "")]);
        assert!(page.contains("## Top level\n"), "{page}");
        assert!(page.contains("## `b`\n\n| key "), "{page}");
        assert!(page.contains("| `b.c.x` | `SIDECAR_B__C__X` | `1s` | a reason |"), "{page}");
    }
}
