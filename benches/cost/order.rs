//! Which functions run in an idle sidecar and in a request: the order in which the linker lays them out.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::application;
use crate::load;
use crate::proxy::Proxy;

/// Long enough under valgrind for each thing that runs by the clock to run once.
const IDLE: Duration = Duration::from_secs(40);

/// What is asked of the admin port now and then.
const PAGES: [&str; 5] = ["/livez", "/readyz", "/startupz", "/health", "/metrics"];

/// Runs the sidecar under callgrind and returns a linker script that names the functions that ran, one glob a line, and the
/// objects of the C library that they came from.
///
/// # Panics
/// Without `valgrind`, `cc` or `nm`, or if nothing of the binary was seen.
pub(crate) fn script() -> String {
    let arguments = ["valgrind", "--tool=callgrind", "--demangle=no", "--callgrind-out-file=profile"];
    let mut running = Proxy::Sidecar.start(application::start(), &arguments);
    load::ask(running.address, 8, 25);
    let admin = running.admin();
    PAGES.iter().for_each(|page| ask(&admin, page));
    thread::park_timeout(IDLE);
    // by now there is more to tell
    PAGES.iter().for_each(|page| ask(&admin, page));
    running.stop();
    let profile = fs::read_to_string(running.folder.join("profile")).expect("callgrind wrote its profile");
    let names: BTreeSet<&str> = executed(&profile).into_iter().filter(|name| is_symbol(name)).collect();
    let objects = of_the_c_library();
    let members: BTreeSet<&str> =
        names.iter().filter_map(|name| objects.get(plain(name)).map(String::as_str)).collect();
    let globs: BTreeSet<String> = names.into_iter().map(glob).collect();
    assert!(globs.len() > 500, "only {} functions of the binary were seen: has it symbols?", globs.len());
    let functions = globs.iter().map(|glob| format!("    *(.text*.{glob})\n"));
    // its functions have no sections of their own
    let library = members.iter().map(|member| format!("    *libc.a:{member}(.text .text.*)\n"));
    let lines: String = functions.chain(library).collect();
    format!("/* Made by `make text-order`. */\nSECTIONS {{\n  .text.run : {{\n{lines}  }}\n}}\nINSERT BEFORE .text;\n")
}

/// The object in the static C library that defines a function, by its name.
fn of_the_c_library() -> HashMap<String, String> {
    let said = |program: &str, arguments: &[&str]| {
        let output =
            Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let path = said("cc", &["-print-file-name=libc.a"]);
    // `/…/libc.a:malloc.o:0000000000002210 T malloc`
    let function = |line: &str| {
        let (place, rest) = line.rsplit_once(':')?;
        let (_, member) = place.rsplit_once(':')?;
        let [_, kind, name] = rest.split(' ').collect::<Vec<_>>()[..] else { return None };
        matches!(kind, "T" | "W" | "i").then(|| (name.to_owned(), member.to_owned()))
    };
    said("nm", &["--print-file-name", "--defined-only", path.trim()]).lines().filter_map(function).collect()
}

/// The name without callgrind's mark of recursion.
fn plain(name: &str) -> &str {
    name.split_once('\'').map_or(name, |(name, _)| name)
}

fn ask(admin: &str, page: &str) {
    let mut stream = TcpStream::connect(admin).expect("the admin port answers");
    write!(stream, "GET {page} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{page}: {}", String::from_utf8_lossy(&answer));
}

/// The functions of the binary itself that have run, mangled.
///
/// callgrind gives a name once, with a number, and only the number from then on; `cfn` and `cob` define numbers too.
fn executed(profile: &str) -> BTreeSet<&str> {
    let (mut functions, mut objects) = (HashMap::new(), HashMap::new());
    let mut object = "";
    let mut ran = BTreeSet::new();
    for line in profile.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key {
            "ob" => object = named(&mut objects, value),
            "cob" => drop(named(&mut objects, value)),
            "cfn" => drop(named(&mut functions, value)),
            "fn" => {
                let function = named(&mut functions, value);
                if object.ends_with("content-factory-sidecar") {
                    ran.insert(function);
                }
            }
            _ => {}
        }
    }
    ran
}

/// The name behind `(number) name` or, from the second time on, `(number)`.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, value: &'a str) -> &'a str {
    let (number, name) = value.split_once(' ').unwrap_or((value, ""));
    if !name.is_empty() {
        names.insert(number, name);
    }
    names.get(number).copied().unwrap_or_default()
}

/// Not `(below main)` or an address: what callgrind writes where it knows no name.
fn is_symbol(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

/// The name without what changes from build to build: hashes and clone numbers.
fn glob(name: &str) -> String {
    let name = plain(name);
    let name = name.split_once(".llvm.").map_or(name, |(name, _)| name);
    if let Some((path, _)) = name.strip_prefix("_ZN").and_then(|rest| rest.rsplit_once("17h")) {
        return format!("_ZN{path}17h*");
    }
    if !name.starts_with("_R") {
        return name.to_owned();
    }
    // the newer mangling: a crate's hash stands between `Cs` and `_`
    let mut parts = name.split("Cs");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |glob, part| match part.split_once('_') {
        Some((hash, rest)) if hash.chars().all(|letter| letter.is_ascii_alphanumeric()) => format!("{glob}Cs*_{rest}"),
        _ => format!("{glob}Cs{part}"),
    })
}
