//! Pressure stall information: three small files, for the node below `/proc/pressure`, for a cgroup of version 2 in its folder.

use std::fs;
use std::path::Path;

use crate::model::container::Pressure;

const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Reads `cpu`, `memory` and `io`, each with this behind its name; what a kernel does not tell is left out.
pub(super) fn read(folder: &Path, suffix: &str) -> Vec<Pressure> {
    let one = |resource: &'static str| {
        let text = fs::read_to_string(folder.join([resource, suffix].concat())).ok()?;
        parse(resource, &text)
    };
    RESOURCES.into_iter().filter_map(one).collect()
}

/// Lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=10607810`, in microseconds.
fn parse(resource: &'static str, text: &str) -> Option<Pressure> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let total = line.split_whitespace().find_map(|part| part.strip_prefix("total="))?;
        total.parse::<u64>().ok().map(|micros| micros as f64 / 1e6)
    };
    Some(Pressure { resource, some_seconds: total("some ")?, full_seconds: total("full ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_are_read_and_what_is_missing_is_not_made_up() {
        let some = "some avg10=34.20 avg60=23.50 avg300=27.79 total=8207390871\n";
        let full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n";
        for (text, expected) in [
            ([some, full].concat(), Some((8_207.390_871, Some(1.5)))),
            (some.to_owned(), Some((8_207.390_871, None))),
            (full.to_owned(), None),
            ("some avg10=0.00 total=x\n".to_owned(), None),
            ("something total=1\n".to_owned(), None),
            (String::new(), None),
        ] {
            let found = parse("cpu", &text).map(|found| (found.some_seconds, found.full_seconds));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_kernel_without_it_gives_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(read(folder.path(), ""), []);
        fs::write(folder.path().join("memory.pressure"), "some avg10=0.00 total=2000000\n").expect("a file");
        let expected = Pressure { resource: "memory", some_seconds: 2.0, full_seconds: None };
        assert_eq!(read(folder.path(), ".pressure"), [expected]);
    }
}
