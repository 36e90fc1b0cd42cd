//! The table is whole, and what it says of each metric is fit to be shown.

use std::collections::BTreeSet;

use super::*;

#[test]
fn the_table_is_complete_and_names_nothing_twice() {
    let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/catalogue");
    let files = std::fs::read_dir(folder).expect("this folder").map(|entry| entry.expect("a file of it").path());
    let text = |path| std::fs::read_to_string(path).expect("source");
    let constants: usize = files.map(|path| text(path).matches("\npub static ").count()).sum();
    let constants = constants - 1; // `ALL` itself
    assert_eq!(ALL.len(), constants, "a metric that is not in ALL is never shown");
}

#[test]
fn what_is_written_about_a_metric_is_a_sentence_and_its_labels_are_told_once() {
    for metric in ALL {
        assert!(metric.about.ends_with('.'), "{}", metric.name);
        let labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
        assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
    }
}
