//! The hand-written documents: what they link to is there, and the endpoints that they list are those that are served.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use content_factory_sidecar::{api, app, config};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page at the top, in `docs` and beside what it tells of.
fn pages() -> Vec<PathBuf> {
    let folders =
        ["", "docs", "docs/vendors", "otel-collector", "helm/content-factory-sidecar", "examples/content-factory"];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).expect("a readable folder"));
    let paths = entries.map(|entry| entry.expect("a readable entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The targets of `[text](target)`.
fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

#[test]
fn every_link_leads_to_a_file() {
    let mut checked = 0;
    let mut broken = Vec::new();
    for page in pages() {
        for target in links(&read(&page)).filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            checked += 1;
            if !page.parent().expect("a page has a folder").join(file).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(checked > 5, "{checked} links: the test would prove little");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn each_vendor_has_a_page_that_tells_what_to_set_what_one_sees_the_limits_how_to_check_and_what_it_costs() {
    let vendors = fs::read_dir(root().join("otel-collector/vendors")).expect("the vendors' overlays");
    let mut names: Vec<_> = vendors.map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    for overlay in names {
        let page = root().join("docs/vendors").join(overlay.file_stem().expect("a name")).with_extension("md");
        let text = read(&page);
        let headings: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        for part in ["What to set", "What one then sees", "Limits", "How to check", "What it costs"] {
            assert!(headings.iter().any(|heading| heading.starts_with(part)), "{}: {part}", page.display());
        }
        let readme = read(&root().join("README.md"));
        let link = format!("docs/vendors/{}", page.file_name().and_then(|name| name.to_str()).expect("a name"));
        assert!(links(&readme).any(|target| target == link), "{link} is not in the README");
    }
}

#[test]
fn the_readme_lists_the_endpoints_that_are_served() {
    let readme = read(&root().join("README.md"));
    let (_, after) = readme.split_once("\n## Endpoints\n").expect("a section Endpoints");
    let (section, _) = after.split_once("\n## ").expect("a section after it");
    let first_cells =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |")).map(|(cell, _)| cell);
    let listed: BTreeSet<&str> =
        first_cells.flat_map(|cell| cell.split('`')).filter(|part| part.starts_with('/')).collect();
    let described: serde_json::Value = serde_json::from_str(&api::openapi()).expect("a document in JSON");
    let served: BTreeSet<&str> = described["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    // the bare root, the page's own style and the parts of a probe need no row
    let worth_a_row = |path: &str| path != "/" && !path.contains('{') && !path.ends_with(".css");
    let expected: BTreeSet<&str> = served.into_iter().filter(|path| worth_a_row(path)).collect();
    assert_eq!(listed, expected, "left: the README, right: what is served");
}

/// The settings in the first cells of the table below a heading of docs/reload.md.
fn settings_of(page: &str, heading: &str) -> Vec<String> {
    let (_, after) = page.split_once(&format!("\n## {heading}\n")).expect("its section");
    let section = after.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |")).map(|(cell, _)| cell);
    cells
        .flat_map(|cell| cell.split('`'))
        .filter(|part| part.contains(|c: char| c.is_alphanumeric()))
        .map(str::to_owned)
        .collect()
}

fn is_of(key: &str, setting: &str) -> bool {
    setting.strip_suffix('*').map_or(key == setting, |section| key.starts_with(section))
}

#[test]
fn docs_reload_tells_of_each_setting_whether_it_needs_a_restart_as_the_rooms_do() {
    let page = read(&root().join("docs/reload.md"));
    let (live, restart) = (settings_of(&page, "What is taken at once"), settings_of(&page, "What needs a restart"));
    let keys = config::keys();
    for key in &keys {
        let told = |settings: &[String]| settings.iter().filter(|setting| is_of(&key.path, setting)).count();
        let expected = if app::is_live(&key.path) { (1, 0) } else { (0, 1) };
        assert_eq!((told(&live), told(&restart)), expected, "{}: rows that name it as live, and as waiting", key.path);
    }
    for setting in live.iter().chain(&restart) {
        assert!(keys.iter().any(|key| is_of(&key.path, setting)), "{setting} is no setting");
    }
}
