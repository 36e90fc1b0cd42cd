//! Circles inside a room: files that need each other, directly or around a corner, cannot be read one after the other.
//!
//! Each file of a room names only files below it. A face (`mod.rs`) that hands a name on by `pub use` does not look at
//! it; whoever takes the name from the face looks at the file behind it. Arrows between rooms are the floors' concern.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{is_colons, is_word, read, refuse, root, rust_files, tokens};

/// A file, as the path of its module: `["proxy", "head", "scan"]`.
type Module = Vec<String>;

/// A path as written: `["crate", "proxy", "pool", "Pool"]`.
type Written = Vec<String>;

#[test]
fn the_files_of_a_room_form_no_circle() {
    let circles = circles(&arrows(&house()));
    let steps = circles.iter().map(|circle| names(circle).join(" needs "));
    refuse(steps.map(|steps| format!("{steps}: move what they share to a file below both")));
}

fn names(circle: &[Module]) -> Vec<String> {
    circle.iter().map(|module| module.join("::")).collect()
}

/// All files of `src/`, as tokens.
fn house() -> BTreeMap<Module, TokenStream> {
    let source = root().join("src");
    let module = |file: &std::path::Path| -> Module {
        let inside = file.strip_prefix(&source).expect("a file of src/").with_extension("");
        inside.iter().map(|part| part.to_str().expect("file names are UTF-8").to_owned()).collect()
    };
    let files = rust_files("src").into_iter().map(|file| {
        let mut module = module(&file);
        module.pop_if(|last| last == "mod");
        (module, tokens(&read(&file)))
    });
    files.collect()
}

/// Which files of its own room each file names.
fn arrows(house: &BTreeMap<Module, TokenStream>) -> BTreeMap<Module, BTreeSet<Module>> {
    let named: BTreeMap<&Module, Named> = house.iter().map(|(module, stream)| (module, Named::read(stream))).collect();
    let arrows = named.iter().map(|(own, names)| {
        let targets = names.looked_at.iter().filter_map(|path| target(&named, own, path));
        let targets = targets.filter(|target| target.first() == own.first() && target != *own);
        ((*own).clone(), targets.collect())
    });
    arrows.collect()
}

/// The file in which a path ends, as written in the file `own`; `None` when that is none of ours.
fn target(named: &BTreeMap<&Module, Named>, own: &Module, path: &Written) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    let absolute: Written = match first.as_str() {
        "crate" => rest.to_vec(),
        "self" => [own, rest].concat(),
        _ => [own, &path[..]].concat(),
    };
    let depth = (1..=absolute.len()).rev().find(|depth| named.contains_key(&absolute[..*depth].to_vec()))?;
    let (module, name) = (absolute[..depth].to_vec(), absolute.get(depth));
    // a path that begins with no child of this file begins with a crate or an imported name
    let is_relative = !matches!(first.as_str(), "crate" | "self");
    if is_relative && depth == own.len() {
        return None;
    }
    let handed_on = named[&module].handed_on.iter().find(|path| path.last() == name);
    match handed_on {
        Some(path) if name.is_some() => target(named, &module, path),
        _ => Some(module),
    }
}

/// The paths in one file.
#[derive(Default)]
struct Named {
    looked_at: Vec<Written>,
    /// By `pub use`.
    handed_on: Vec<Written>,
}

impl Named {
    fn read(stream: &TokenStream) -> Self {
        let mut named = Self::default();
        named.take(&stream.clone().into_iter().collect::<Vec<_>>());
        named
    }

    fn take(&mut self, trees: &[TokenTree]) {
        for (at, tree) in trees.iter().enumerate() {
            let continues = at >= 2 && is_colons(&trees[at - 2..]);
            match tree {
                TokenTree::Group(group) if !continues => self.take(&group.stream().into_iter().collect::<Vec<_>>()),
                TokenTree::Ident(_) if !continues && is_colons(&trees[at + 1..]) => {
                    let paths = if hands_on(&trees[..at]) { &mut self.handed_on } else { &mut self.looked_at };
                    follow(&trees[at..], &Vec::new(), paths);
                }
                _ => {}
            }
        }
    }
}

/// Whether what stands before a path is `pub use`, or `pub(…) use`.
fn hands_on(before: &[TokenTree]) -> bool {
    let [start @ .., keyword] = before else { return false };
    let start = match start {
        [start @ .., TokenTree::Group(_)] => start,
        start => start,
    };
    is_word(keyword, "use") && start.last().is_some_and(|tree| is_word(tree, "pub"))
}

/// Reads the path at the start of `trees`, and each one inside its braces.
fn follow(trees: &[TokenTree], before: &Written, paths: &mut Vec<Written>) {
    match trees {
        [TokenTree::Ident(name), rest @ ..] => {
            let path = [&before[..], &[name.to_string()]].concat();
            match rest {
                _ if name == "self" && !before.is_empty() => paths.push(before.clone()),
                [_, _, next @ ..] if is_colons(rest) && begins_a_name(next) => follow(next, &path, paths),
                _ => paths.push(path),
            }
        }
        [TokenTree::Group(group), ..] => {
            let inside: Vec<TokenTree> = group.stream().into_iter().collect();
            for entry in inside.split(|tree| matches!(tree, TokenTree::Punct(mark) if mark.as_char() == ',')) {
                follow(entry, before, paths);
            }
        }
        _ => paths.push(before.clone()),
    }
}

/// Whether a path goes on: not with a turbofish, and not with a glob.
fn begins_a_name(trees: &[TokenTree]) -> bool {
    match trees.first() {
        Some(TokenTree::Ident(_)) => true,
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Brace,
        _ => false,
    }
}

/// Circles, each as the shortest way from a file back to itself, until every file that is in one is named.
fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let mut seen: BTreeSet<Module> = BTreeSet::new();
    let mut circles = Vec::new();
    for start in arrows.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = way_back(arrows, start) {
            seen.extend(circle.iter().cloned());
            circles.push(circle);
        }
    }
    circles
}

/// The shortest way from a file back to itself, breadth first.
fn way_back(arrows: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> Option<Vec<Module>> {
    let mut ways = std::collections::VecDeque::from([vec![start.clone()]]);
    let mut visited = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in &arrows[way.last().expect("a way has a start")] {
            let longer = [&way[..], std::slice::from_ref(next)].concat();
            if next == start {
                return Some(longer);
            }
            if visited.insert(next.clone()) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// The reader of circles, read.
mod the_reader_of_circles {
    use super::{Module, arrows, circles, names};
    use crate::tokens;

    /// The circles of a house of these files, each as `a needs b needs a`.
    fn found_in(files: &[(&str, &str)]) -> Vec<String> {
        let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
        let house = files.iter().map(|(path, source)| (module(path), tokens(source))).collect();
        let circles = circles(&arrows(&house));
        circles.iter().map(|circle| names(circle).join(" ")).collect()
    }

    const FACE: (&str, &str) = ("room", "mod a; mod b; mod c;");

    #[test]
    fn lets_files_that_look_down_pass() {
        let source = "use crate::room::{b, c::C}; fn f() { b::g(); vec![crate::room::c::D::new()]; }";
        let files = [FACE, ("room::a", source), ("room::b", "use crate::room::c;"), ("room::c", "struct C;")];
        assert_eq!(found_in(&files), Vec::<String>::new());
    }

    #[test]
    fn sees_two_files_that_name_each_other() {
        let files = [FACE, ("room::a", "use crate::room::b::B;"), ("room::b", "fn f() { m!(crate::room::a::A) }")];
        assert_eq!(found_in(&files), ["room::a room::b room::a"]);
    }

    #[test]
    fn sees_a_circle_around_a_corner_once() {
        let files = [
            FACE,
            ("room::a", "use crate::room::{x, b};"),
            ("room::b", "use crate::{other, room::{c::{C, D}}};"),
            ("room::c", "use crate::room::a;"),
        ];
        assert_eq!(found_in(&files), ["room::a room::b room::c room::a"]);
    }

    #[test]
    fn a_face_that_defines_what_its_files_need_must_not_need_them() {
        let defines = "mod a; use crate::room::a::A; struct S(A);";
        assert_eq!(found_in(&[("room", defines), ("room::a", "use crate::room::S;")]), ["room room::a room"]);
        let relative = "mod a; struct S(a::A);";
        assert_eq!(found_in(&[("room", relative), ("room::a", "use crate::room::S;")]), ["room room::a room"]);
    }

    #[test]
    fn sees_through_a_face_that_hands_a_name_on() {
        let face = ("room", "mod a; mod b; pub use a::A; pub(super) use crate::room::b::{B, E};");
        assert_eq!(found_in(&[face, ("room::a", "use crate::room::B;"), ("room::b", "")]), Vec::<String>::new());
        let circle = [face, ("room::a", "use crate::room::{B};"), ("room::b", "use crate::room::A;")];
        assert_eq!(found_in(&circle), ["room::a room::b room::a"]);
    }
}
