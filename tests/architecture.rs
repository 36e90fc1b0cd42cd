//! The floors of the house, as data, and the test that reads the code against them.
//!
//! A module names modules of lower floors only: never one of its own floor, never a higher one. So a knot of modules
//! cannot grow, and each room can be read alone. Files are read as tokens, not as text: a path inside a macro counts,
//! one inside a comment or a string does not. There is no table of exceptions; whoever needs one moves a value down.
//! That the files inside a room form no circle either is read in `architecture/circles.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};

#[path = "architecture/circles.rs"]
mod circles;

/// Lowest floor first. Modules that stand side by side do not know each other.
const FLOORS: &[&[&str]] = &[
    &[
        "credentials",
        "fetch",
        "lifecycle",
        "postgres_link",
        "problem",
        "redact",
        "redis_link",
        "semconv",
        "serve",
        "wall_clock",
    ],
    &["settings"],
    &["model", "trust"],
    &["checks", "database", "egress", "lease", "proxy", "system", "tasks", "telemetry", "traffic"],
    &["api"],
    &["config"],
    &["app"],
    &["demo"],
    &["cli"],
];

/// Lines of a file, its tests included.
const LONGEST_FILE: usize = 600;
/// `main.rs` maps a result to an exit code, and has no room for more.
const LONGEST_MAIN: usize = 60;

#[test]
fn every_module_stands_on_one_floor_and_every_name_on_a_floor_is_a_module() {
    let mut named: Vec<&str> = FLOORS.concat();
    named.sort_unstable();
    let found: BTreeSet<String> = rust_files("src").iter().filter_map(|file| room_of(file)).collect();
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), named, "left: modules of src/, right: FLOORS");
}

#[test]
fn modules_name_only_lower_floors() {
    refuse(rust_files("src").iter().flat_map(|file| {
        let reader = Reader { room: room_of(file), tests: file.file_stem().is_some_and(|stem| stem == "tests") };
        let found = reader.findings(tokens(&read(file)));
        found.into_iter().map(|(line, what)| format!("{}:{line}: {what}", file.display()))
    }));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = |file: &PathBuf| !read(file).starts_with("//! ");
    let files = rust_files("src").into_iter().chain(rust_files("tests"));
    refuse(files.filter(silent).map(|file| format!("{}: starts without `//!`", file.display())));
}

#[test]
fn no_file_outgrows_its_reader() {
    let files = rust_files("src").into_iter().chain(rust_files("tests"));
    refuse(files.filter_map(|file| {
        let limit = if file.ends_with("src/main.rs") { LONGEST_MAIN } else { LONGEST_FILE };
        let lines = read(&file).lines().count();
        (lines > limit).then(|| format!("{}: {lines} lines, expected at most {limit}", file.display()))
    }));
}

/// Reads the tokens of one file, or of one module inside it.
#[derive(Clone)]
struct Reader {
    /// The top-level module the file belongs to; none for the roots `lib.rs` and `main.rs`, which stand above all.
    room: Option<String>,
    /// Whether these tokens are a test module, which alone may say `use super::*`.
    tests: bool,
}

/// A line, and what is wrong there.
type Finding = (usize, String);

impl Reader {
    fn findings(&self, stream: TokenStream) -> Vec<Finding> {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut found = Vec::new();
        for (at, tree) in trees.iter().enumerate() {
            match tree {
                TokenTree::Ident(word) if word == "crate" => self.judge_crate(&trees, at, &mut found),
                TokenTree::Ident(word) if word == "super" && self.is_stray(&trees, at) => {
                    found.push((line(tree), "`super::`, expected a path from `crate::`".into()));
                }
                TokenTree::Group(group) => {
                    let tests = self.tests || opens_tests(&trees[..at]);
                    found.extend(Self { tests, ..self.clone() }.findings(group.stream()));
                }
                _ => {}
            }
        }
        found
    }

    /// Whether a `super` begins a path and is not the `use super::*` of a test module.
    fn is_stray(&self, trees: &[TokenTree], at: usize) -> bool {
        is_colons(&trees[at + 1..]) && !(self.tests && is_use_super_glob(trees, at))
    }

    /// Looks at what follows the word `crate`.
    fn judge_crate(&self, trees: &[TokenTree], at: usize, found: &mut Vec<Finding>) {
        let here = line(&trees[at]);
        let after = &trees[at + 1..];
        if at > 0 && is_word(&trees[at - 1], "extern") {
            found.push((here, "`extern crate`, expected a plain `use`".into()));
        } else if after.first().is_some_and(|tree| is_word(tree, "as")) {
            found.push((here, "`crate as` hides which floor is meant".into()));
        } else if is_colons(after) {
            self.judge_target(after.get(2), here, found);
        }
    }

    /// Looks at what stands behind `crate::`: a module, a glob, or a group of them.
    fn judge_target(&self, target: Option<&TokenTree>, here: usize, found: &mut Vec<Finding>) {
        match target {
            Some(TokenTree::Ident(module)) => found.extend(self.judge_module(module)),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                for entry in inside.split(|tree| matches!(tree, TokenTree::Punct(p) if p.as_char() == ',')) {
                    if let Some(first) = entry.first() {
                        self.judge_target(Some(first), line(first), found);
                    }
                }
            }
            _ => found.push((here, "`crate::*` hides which floor is meant".into())),
        }
    }

    fn judge_module(&self, module: &Ident) -> Option<Finding> {
        let name = module.to_string();
        let what = match (floor(&name), self.room.as_deref()) {
            (None, _) => format!("`crate::{name}` stands on no floor"),
            (Some(_), None) => return None,
            (Some(_), Some(room)) if room == name => return None,
            (Some(target), Some(room)) if Some(target) < floor(room) => return None,
            (Some(target), Some(room)) if Some(target) == floor(room) => {
                format!(
                    "{room} looks sideways at `crate::{name}`: let `app` carry the value, or move it to a lower floor"
                )
            }
            (Some(_), Some(room)) => {
                format!("{room} looks up at `crate::{name}`: move what is shared to a lower floor")
            }
        };
        Some((module.span().start().line, what))
    }
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// Whether the last of `before` open a test module: `#[cfg(test)] mod name`, attributes and visibility between allowed.
fn opens_tests(before: &[TokenTree]) -> bool {
    let [start @ .., keyword, TokenTree::Ident(_)] = before else { return false };
    let attributes = start.iter().rev().take_while(|tree| match tree {
        TokenTree::Group(_) => true,
        TokenTree::Punct(mark) => mark.as_char() == '#',
        other => is_word(other, "pub"),
    });
    let spaceless = |tree: &TokenTree| tree.to_string().split_whitespace().collect::<String>();
    is_word(keyword, "mod") && attributes.into_iter().any(|tree| spaceless(tree) == "[cfg(test)]")
}

fn is_use_super_glob(trees: &[TokenTree], at: usize) -> bool {
    let glob = matches!(trees.get(at + 3), Some(TokenTree::Punct(mark)) if mark.as_char() == '*');
    at > 0 && is_word(&trees[at - 1], "use") && is_colons(&trees[at + 1..]) && glob
}

fn is_colons(trees: &[TokenTree]) -> bool {
    matches!(trees, [TokenTree::Punct(a), TokenTree::Punct(b), ..]
        if a.as_char() == ':' && a.spacing() == Spacing::Joint && b.as_char() == ':')
}

fn is_word(tree: &TokenTree, word: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == word)
}

fn line(tree: &TokenTree) -> usize {
    tree.span().start().line
}

/// The module of the library that a file of `src/` belongs to.
fn room_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root().join("src")).expect("only files of src/ have a room");
    let first = inside.iter().next()?.to_str().expect("file names are UTF-8");
    let name = first.trim_end_matches(".rs");
    (!["lib", "main"].contains(&name)).then(|| name.to_owned())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository is readable") {
            let path = entry.expect("an entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "no Rust files in {folder}: the test would prove nothing");
    files.sort();
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn tokens(source: &str) -> TokenStream {
    source.parse().unwrap_or_else(|error| panic!("not Rust: {error}"))
}

/// Fails with every finding at once.
fn refuse(findings: impl Iterator<Item = String>) {
    let findings: Vec<String> = findings.collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// The reader, read: each case is a way in which a look could escape it.
mod the_reader {
    use super::{Reader, tokens};

    /// What is found in a file of `room`.
    fn found_in(room: &str, source: &str) -> Vec<String> {
        let reader = Reader { room: Some(room.into()), tests: false };
        reader.findings(tokens(source)).into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
    }

    fn assert_one(room: &str, source: &str, expected: &str) {
        let found = found_in(room, source);
        assert!(
            matches!(&found[..], [one] if one.contains(expected)),
            "{source}\nfound {found:?}, expected {expected}"
        );
    }

    #[test]
    fn lets_a_look_down_and_a_look_at_home_pass() {
        let lawful = [
            "use crate::model::request::Method;",
            "use crate::proxy::pool::Pool;",
            "use crate::{model::{A, B}, redact, proxy::{self, pool}};",
            "pub(crate) struct A; pub(super) struct B; pub(in crate::proxy) struct C;",
            "/// Unlike [`crate::cli`].\nconst S: &str = \"crate::cli::x\"; // crate::cli::x",
            "#[cfg(test)] mod tests { use super::*; mod deeper { use super::*; } }",
            "#[cfg(test)] #[expect(dead_code, reason = \"why\")] pub(crate) mod tests { use super::*; }",
        ];
        for source in lawful {
            assert_eq!(found_in("proxy", source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn sees_a_look_up() {
        assert_one("proxy", "\nuse crate::app::App;", "2: proxy looks up at `crate::app`");
        assert_one("model", "fn f(x: crate::proxy::X) {}", "looks up");
    }

    #[test]
    fn sees_a_look_sideways() {
        assert_one("proxy", "use crate::traffic::Shard;", "proxy looks sideways at `crate::traffic`");
    }

    #[test]
    fn sees_a_path_inside_a_macro() {
        assert_one("proxy", "fn f() { let _ = vec![1, crate::cli::ONE]; }", "looks up at `crate::cli`");
    }

    #[test]
    fn sees_into_a_nested_use() {
        assert_one("proxy", "use crate::{model::{B, C}, api};", "looks up at `crate::api`");
        assert_one("proxy", "use crate::{model::{B, C}, {redact, {app::App}}};", "looks up at `crate::app`");
    }

    #[test]
    fn sees_a_name_that_stands_on_no_floor() {
        assert_one("proxy", "use crate::utils::help;", "`crate::utils` stands on no floor");
        assert_one("proxy", "use crate::{self as house};", "stands on no floor");
    }

    #[test]
    fn sees_what_hides_the_floor() {
        assert_one("proxy", "use crate::*;", "`crate::*`");
        assert_one("proxy", "use crate::{model, *};", "`crate::*`");
        assert_one("proxy", "use crate as house;", "`crate as`");
        assert_one("proxy", "extern crate self as house;", "`extern crate`");
    }

    #[test]
    fn sees_a_stray_super() {
        assert_one("proxy", "use super::*;", "`super::`");
        assert_one("proxy", "mod tests { use super::*; }", "`super::`");
        assert_one("proxy", "#[cfg(test)] mod tests { use super::pool; }", "`super::`");
        assert_one("proxy", "fn f() { super::g() }", "`super::`");
    }

    #[test]
    fn the_roots_stand_above_all_but_name_only_modules() {
        let root = Reader { room: None, tests: false };
        assert!(root.findings(tokens("use crate::cli;")).is_empty());
        assert_eq!(root.findings(tokens("use crate::nothing;")).len(), 1);
    }
}
