//! Reading the tree: each call names a key, its default and its reason, and gives the value to use.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::credentials::content;
use crate::problem::Problem;
use crate::redact::{Secret, secret_parts};
use crate::settings::{Place, Tree, parse_bytes, parse_duration, show_bytes, show_duration};

/// A key that was read: for `print-config` and the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its path, such as `proxy.listen`.
    pub path: String,
    /// The default, as one would write it; empty for none.
    pub default: String,
    /// The value in force, `***` for a secret; empty for none.
    pub value: String,
    /// What it is for, and why the default is what it is.
    pub about: &'static str,
    /// The value of a secret, by which a change of it is seen.
    pub secret: Option<Secret<String>>,
}

impl Key {
    /// Whether another reading of it found the same.
    #[must_use]
    pub fn says_as(&self, other: &Self) -> bool {
        (&self.value, &self.secret) == (&other.value, &other.secret)
    }
}

/// The tree while it is read: remembers each key read and each mistake found.
#[derive(Debug)]
pub struct Settings<F> {
    tree: Tree,
    read_file: F,
    keys: Vec<Key>,
    known: BTreeSet<String>,
    problems: Vec<Problem>,
    secrets: Vec<String>,
}

/// A part of the tree. Every method reads one key below it.
pub struct Section<'a> {
    inner: &'a mut dyn Reader,
    path: String,
}

/// What `Settings` is to a section, whatever reads its files.
trait Reader {
    fn take(&mut self, path: &str) -> Option<(Value, Place)>;
    fn file(&self, path: &str) -> Result<String, String>;
    fn key(&mut self, key: Key);
    fn problem(&mut self, problem: Problem);
    fn secret(&mut self, secret: &str);
    fn items(&self, path: &str) -> usize;
    fn names(&mut self, path: &str) -> Vec<String>;
    fn rests(&self, path: &str) -> Vec<String>;
}

impl<F: Fn(&str) -> Result<String, String>> Settings<F> {
    /// Reads this tree; `read_file` gives the content of the files that `_file` keys name.
    pub fn new(tree: Tree, read_file: F) -> Self {
        Self { tree, read_file, keys: Vec::new(), known: BTreeSet::new(), problems: Vec::new(), secrets: Vec::new() }
    }

    /// The part of the tree below `path`; the empty path is the whole.
    pub fn section(&mut self, path: &str) -> Section<'_> {
        Section { inner: self, path: path.to_owned() }
    }

    /// Ends the reading: every key of the tree that nobody read is a mistake.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Key>, Vec<Problem>, Vec<String>) {
        for path in self.tree.paths() {
            if self.known.contains(path) {
                continue;
            }
            let place = self.tree.get(path).map_or_else(String::new, |(_, place)| place.0.clone());
            let near = nearest(path, self.keys.iter().map(|key| key.path.as_str()));
            let expected = near.map_or("no such key".to_owned(), |near| format!("no such key, perhaps {near}"));
            self.problems.push(Problem { path: path.into(), found: "unknown key".into(), expected, place });
        }
        (self.keys, self.problems, self.secrets)
    }
}

impl<F: Fn(&str) -> Result<String, String>> Reader for Settings<F> {
    fn take(&mut self, path: &str) -> Option<(Value, Place)> {
        self.known.insert(path.to_owned());
        self.tree.get(path).filter(|(value, _)| !value.is_null()).cloned()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        (self.read_file)(path)
    }

    fn key(&mut self, key: Key) {
        self.keys.push(key);
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    fn items(&self, path: &str) -> usize {
        match self.tree.get(path) {
            Some((Value::Array(items), _)) => items.len(),
            _ => 0,
        }
    }

    fn names(&mut self, path: &str) -> Vec<String> {
        self.problems.extend(self.tree.spread(path));
        let names = self.tree.names(path);
        self.known.extend(names.iter().map(|name| format!("{path}.{name}")));
        names
    }

    fn rests(&self, path: &str) -> Vec<String> {
        self.tree.below(path).map(|(rest, _)| rest.to_owned()).collect()
    }
}

impl Section<'_> {
    /// The part below one of its keys.
    pub fn section(&mut self, name: &str) -> Section<'_> {
        let path = self.path_of(name);
        Section { inner: self.inner, path }
    }

    /// Any value that `parse` takes from its text.
    ///
    /// `expected` completes the sentence "…, expected …" of a mistake.
    pub fn parsed<T>(&mut self, key: Described<T>, expected: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let path = self.path_of(key.name);
        let written = self.inner.take(&path);
        let mut value = key.default;
        let mut shown = key.default_text.clone();
        if let Some((found, place)) = written {
            match text_of(&found).and_then(|text| parse(&text).map(|parsed| (text, parsed))) {
                Some((text, parsed)) => (shown, value) = (text, parsed),
                None => self.mistake(&path, &found, expected, &place),
            }
        }
        self.inner.key(Key { path, default: key.default_text, value: shown, about: key.about, secret: None });
        value
    }

    /// A duration with its unit.
    pub fn duration(&mut self, name: &'static str, default: Duration, about: &'static str) -> Duration {
        let key = Described { name, default, default_text: show_duration(default), about };
        self.parsed(key, "a duration such as 250ms, 2s or 5m", parse_duration)
    }

    /// A size in bytes.
    pub fn bytes(&mut self, name: &'static str, default: u64, about: &'static str) -> u64 {
        let key = Described { name, default, default_text: show_bytes(default), about };
        self.parsed(key, "a size such as 512, 64KiB or 8MiB", parse_bytes)
    }

    /// A whole number within a range.
    pub fn number(&mut self, name: &'static str, default: u64, range: RangeInclusive<u64>, about: &'static str) -> u64 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let key = Described { name, default, default_text: default.to_string(), about };
        self.parsed(key, &expected, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// A number from 0 to 1.
    pub fn ratio(&mut self, name: &'static str, default: f64, about: &'static str) -> f64 {
        let key = Described { name, default, default_text: format!("{default:?}"), about };
        self.parsed(key, "a number from 0 to 1", |text| text.parse().ok().filter(|n| (0.0..=1.0).contains(n)))
    }

    /// `true` or `false`.
    #[expect(clippy::fn_params_excessive_bools, reason = "the default of a switch is a boolean")]
    pub fn flag(&mut self, name: &'static str, default: bool, about: &'static str) -> bool {
        let key = Described { name, default, default_text: default.to_string(), about };
        self.parsed(key, "true or false", |text| text.parse().ok())
    }

    /// A text.
    pub fn text(&mut self, name: &'static str, default: &str, about: &'static str) -> String {
        let key = Described { name, default: default.to_owned(), default_text: default.to_owned(), about };
        self.parsed(key, "a text", |text| Some(text.to_owned()))
    }

    /// A text that may be absent.
    pub fn optional_text(&mut self, name: &'static str, about: &'static str) -> Option<String> {
        let key = Described { name, default: None, default_text: String::new(), about };
        self.parsed(key, "a text", |text| Some(Some(text.to_owned()).filter(|text| !text.is_empty())))
    }

    /// An address with a port, such as `127.0.0.1:8000`.
    pub fn address(&mut self, name: &'static str, default: SocketAddr, about: &'static str) -> SocketAddr {
        let key = Described { name, default, default_text: default.to_string(), about };
        self.parsed(key, "an address with a port such as 127.0.0.1:18000", |text| text.parse().ok())
    }

    /// One of some words.
    pub fn choice<T: Copy + PartialEq>(
        &mut self,
        name: &'static str,
        default: T,
        words: &[(&str, T)],
        about: &'static str,
    ) -> T {
        let default_text = words.iter().find(|(_, value)| *value == default).map_or("", |(word, _)| *word).to_owned();
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let key = Described { name, default, default_text, about };
        let find = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.parsed(key, &format!("one of {}", names.join(", ")), find)
    }

    /// A list of texts: a YAML list, or one text with commas.
    pub fn list(&mut self, name: &'static str, default: &[&str], about: &'static str) -> Vec<String> {
        let default: Vec<String> = default.iter().map(|item| (*item).to_owned()).collect();
        let key = Described { name, default_text: default.join(","), default, about };
        let split = |text: &str| {
            Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        };
        self.parsed(key, "a list of texts", split)
    }

    /// A list of texts that may hold commas: a YAML list as it is, or one text, which is a list in JSON or has commas between them.
    pub fn words(&mut self, name: &'static str, about: &'static str) -> Vec<String> {
        let path = self.path_of(name);
        let mut words = Vec::new();
        if let Some((found, place)) = self.inner.take(&path) {
            let read = match &found {
                Value::Array(items) => items.iter().map(text_of).collect(),
                other => text_of(other).map(|text| words_of(&text)),
            };
            match read {
                Some(read) => words = read,
                None => self.mistake(&path, &found, "a list of texts", &place),
            }
        }
        let joined = words.join(",");
        let value = if words_of(&joined) == words { joined } else { Value::from(words.clone()).to_string() };
        self.inner.key(Key { path, default: String::new(), value, about, secret: None });
        words
    }

    /// A map of values by names that are not ours, such as headers; every value as a text.
    pub fn map(&mut self, name: &'static str, about: &'static str) -> Vec<(String, String)> {
        let path = self.path_of(name);
        let mut entries = Vec::new();
        for rest in self.inner.rests(&path) {
            let path = format!("{path}.{rest}");
            let Some((found, place)) = self.inner.take(&path) else { continue };
            match text_of(&found) {
                Some(text) => {
                    self.inner.key(Key { path, default: String::new(), value: text.clone(), about, secret: None });
                    entries.push((rest, text));
                }
                None => self.mistake(&path, &found, "a text, a number, true or false", &place),
            }
        }
        if entries.is_empty() {
            self.inner.key(Key { path, default: String::new(), value: String::new(), about, secret: None });
        }
        entries
    }

    /// The names of the sections below, in the order of the file. A list of maps that each have a `name` is read as a map
    /// by that name, once and for all.
    pub fn names(&mut self) -> Vec<String> {
        let path = self.path.clone();
        self.inner.names(&path)
    }

    /// Takes all that is written below as read: it belongs to something that was refused as a whole.
    pub fn pass_over(&mut self) {
        for rest in self.inner.rests(&self.path) {
            let path = self.path_of(&rest);
            let _ = self.inner.take(&path);
        }
    }

    /// A secret: itself, or a file that holds it under the key with `_file` behind its name.
    pub fn secret(&mut self, name: &'static str, about: &'static str) -> Option<Secret<String>> {
        let value = self.masked(name, about);
        if let Some(secret) = &value {
            self.inner.secret(secret.expose());
        }
        value
    }

    /// A URL that may hold a secret: shown as `***`, and its secret parts are kept out of every text. Has a `_file` twin.
    pub fn secret_url(&mut self, name: &'static str, about: &'static str) -> Option<Secret<String>> {
        let url = self.masked(name, about)?;
        secret_parts(url.expose()).iter().for_each(|part| self.remember_secret(part));
        Some(url)
    }

    fn masked(&mut self, name: &'static str, about: &'static str) -> Option<Secret<String>> {
        let (path, file_path) = (self.path_of(name), self.path_of(&format!("{name}_file")));
        let (direct, file) = (self.inner.take(&path), self.inner.take(&file_path));
        let mut value = direct.and_then(|(value, _)| text_of(&value)).filter(|text| !text.is_empty());
        let file_name = file.as_ref().and_then(|(value, _)| text_of(value)).unwrap_or_default();
        if let Some((found, place)) = &file {
            match self.inner.file(&file_name) {
                Ok(text) => value = Some(content(&text).to_owned()),
                Err(error) => self.mistake(&file_path, found, &format!("a readable file ({error})"), place),
            }
        }
        let shown = if value.is_some() { "***" } else { "" };
        let value = value.map(Secret::new);
        self.inner.key(Key { path, default: String::new(), value: shown.into(), about, secret: value.clone() });
        let about = "a file that holds the value of the key of the same name without `_file`";
        self.inner.key(Key { path: file_path, default: String::new(), value: file_name, about, secret: None });
        value
    }

    /// The file that a secret was read from, for whoever reads it again when it changes.
    #[must_use]
    pub fn secret_file(&mut self, name: &str) -> Option<PathBuf> {
        let (file, _) = self.inner.take(&self.path_of(&format!("{name}_file")))?;
        text_of(&file).map(PathBuf::from)
    }

    /// Whether a secret or its file is set, be it readable or not.
    #[must_use]
    pub fn is_secret_set(&mut self, name: &str) -> bool {
        let paths = [self.path_of(name), self.path_of(&format!("{name}_file"))];
        paths.iter().any(|path| self.inner.take(path).is_some())
    }

    /// Reports a secret that could be read and is still wrong: by the name of its file, never by its text.
    pub fn wrong_secret(&mut self, name: &str, expected: &str) {
        let path = self.path_of(&format!("{name}_file"));
        match self.inner.take(&path) {
            Some((file, place)) => self.mistake(&path, &file, expected, &place),
            None => self.problem(name, "***", expected),
        }
    }

    /// A part of a secret that is a secret by itself, such as one header of several: the redactor will know it.
    pub fn remember_secret(&mut self, part: &str) {
        self.inner.secret(part);
    }

    /// How many items a list of maps has, for lists that are read item by item.
    #[must_use]
    pub fn item_count(&self, name: &str) -> usize {
        self.inner.items(&self.path_of(name))
    }

    /// Reports a value that is well-formed and still wrong.
    pub fn problem(&mut self, name: &str, found: impl Display, expected: &str) {
        let path = self.path_of(name);
        let place = self.inner.take(&path).map_or_else(String::new, |(_, place)| place.0);
        self.inner.problem(Problem { path, found: found.to_string(), expected: expected.to_owned(), place });
    }

    fn mistake(&mut self, path: &str, found: &Value, expected: &str, place: &Place) {
        let found = text_of(found).unwrap_or_else(|| found.to_string());
        let found = if found.is_empty() { "an empty value".to_owned() } else { found };
        self.inner.problem(Problem { path: path.into(), found, expected: expected.into(), place: place.0.clone() });
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// A key, its default and its reason.
pub struct Described<T> {
    /// The name below the section.
    pub name: &'static str,
    /// The value when none is written.
    pub default: T,
    /// The default as one would write it.
    pub default_text: String,
    /// What it is for, and why the default is what it is.
    pub about: &'static str,
}

/// The text of a leaf; values from the environment arrive as texts, so every parser takes one.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) => items.iter().map(text_of).collect::<Option<Vec<_>>>().map(|texts| texts.join(",")),
        Value::Null | Value::Object(_) => None,
    }
}

fn words_of(text: &str) -> Vec<String> {
    let split = |_| text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    serde_json::from_str(text).unwrap_or_else(split)
}

/// The known key that differs least, if it is near at all.
fn nearest<'k>(path: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known.map(|key| (distance(path, key), key)).filter(|(distance, _)| *distance <= 3).min().map(|(_, key)| key)
}

fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(a != b)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(document: Value) -> Settings<impl Fn(&str) -> Result<String, String>> {
        let mut tree = Tree::default();
        tree.merge(document, &Place("sidecar.yaml".into()));
        let read = |path: &str| if path == "good" { Ok("from-file\n".into()) } else { Err("not found".into()) };
        Settings::new(tree, read)
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut settings = settings(json!({"proxy": {"workers": 0, "listen": "here", "lisen": 1, "idle": 5}}));
        let mut proxy = settings.section("proxy");
        let listen = "0.0.0.0:18000".parse().unwrap();
        assert_eq!(proxy.number("workers", 1, 1..=2, "x"), 1);
        assert_eq!(proxy.address("listen", listen, "x"), listen);
        assert_eq!(proxy.duration("idle", Duration::from_millis(1_500), "x"), Duration::from_millis(1_500));
        let (_, problems, _) = settings.finish();
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "proxy.workers: 0, expected a whole number from 1 to 2 (set in sidecar.yaml)",
                "proxy.listen: here, expected an address with a port such as 127.0.0.1:18000 (set in sidecar.yaml)",
                "proxy.idle: 5, expected a duration such as 250ms, 2s or 5m (set in sidecar.yaml)",
                "proxy.lisen: unknown key, expected no such key, perhaps proxy.listen (set in sidecar.yaml)",
            ]
        );
    }

    #[test]
    fn a_secret_comes_from_its_file_and_is_never_shown() {
        let mut settings = settings(json!({"redis": {"url_file": "good"}, "database": {"url_file": "bad"}}));
        let secret = settings.section("redis").secret("url", "x").unwrap();
        assert_eq!(secret.expose(), "from-file");
        assert!(settings.section("database").secret("url", "x").is_none());
        let (keys, problems, secrets) = settings.finish();
        assert_eq!(keys[0].value, "***");
        assert_eq!(secrets, ["from-file"]);
        assert_eq!(problems[0].path, "database.url_file");
    }

    #[test]
    fn an_empty_section_is_no_mistake() {
        let (_, problems, _) = settings(json!({"proxy": null, "redis": {}})).finish();
        assert_eq!(problems, []);
    }

    #[test]
    fn lists_come_as_yaml_or_with_commas() {
        let mut settings = settings(json!({"a": ["x", "y"], "b": "x, y,"}));
        let mut root = settings.section("");
        assert_eq!(root.list("a", &[], "x"), root.list("b", &[], "x"));
    }

    #[test]
    fn words_keep_their_commas_and_are_shown_as_they_are_read() {
        for (written, words, shown) in [
            (json!(["sh", "-c", "a, b"]), vec!["sh", "-c", "a, b"], r#"["sh","-c","a, b"]"#),
            (json!(r#"["sh","-c","a, b"]"#), vec!["sh", "-c", "a, b"], r#"["sh","-c","a, b"]"#),
            (json!("true, 7"), vec!["true", "7"], "true,7"),
            (json!(["true", 7]), vec!["true", "7"], "true,7"),
            (json!(["[]"]), vec!["[]"], r#"["[]"]"#),
        ] {
            let mut settings = settings(json!({"command": written}));
            assert_eq!(settings.section("").words("command", "x"), words, "{shown}");
            assert_eq!(settings.finish().0[0].value, shown);
        }
    }

    #[test]
    fn a_map_has_names_that_are_not_ours_and_each_value_is_known() {
        let mut settings = settings(json!({"json": {"/a.b": 1, "/c": "x"}, "other": {"d": {"kind": 1}}}));
        let pairs = settings.section("").map("json", "x");
        assert_eq!(pairs, [("/a.b".to_owned(), "1".to_owned()), ("/c".to_owned(), "x".to_owned())]);
        assert_eq!(settings.section("other").names(), ["d"]);
        settings.section("other").section("d").pass_over();
        let (keys, problems, _) = settings.finish();
        assert_eq!((keys[0].path.as_str(), problems), ("json./a.b", vec![]));
    }
}
