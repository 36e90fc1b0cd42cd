//! Route templates of the application, such as `/products/{product_id}`, and the lookup of a path in them.
//!
//! A table is immutable; who refreshes it makes a new one from the old, so ids never change their meaning.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// At most this many templates are kept; further ones are left out, and their requests have no route.
pub const MAX_ROUTES: usize = 1_000;

/// The number of a template: stable for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

/// A template that a request matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Its number, for tables of counters.
    pub id: RouteId,
    /// Its text, for spans.
    pub template: &'a str,
}

/// All templates known; made by whoever reads the application's `/openapi.json`, looked up by the proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTable {
    /// Every template ever known, by id.
    templates: Vec<Arc<str>>,
    /// The templates without parameters.
    literal: HashMap<Box<[u8]>, RouteId, BuildHasherDefault<PathHasher>>,
    /// The templates with parameters, at their number of segments; literal segments win over parameters.
    patterns: Vec<Vec<Pattern>>,
}

/// A quick hash of short paths. Only templates are entered, so paths made to collide fill no bucket.
#[derive(Clone, Debug, Default)]
struct PathHasher(u64);

impl Hasher for PathHasher {
    fn write(&mut self, bytes: &[u8]) {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
        }
        let rest = rest.iter().fold(0, |rest, byte| rest << 8 | u64::from(*byte));
        self.0 = (self.0.rotate_left(5) ^ rest).wrapping_mul(FACTOR);
    }

    fn write_usize(&mut self, number: usize) {
        self.0 ^= number as u64; // the length of a path: `write` mixes it in
    }

    fn finish(&self) -> u64 {
        // the map takes its place from the low bits, which a product mixes least
        self.0 ^ self.0 >> 32
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Pattern {
    id: RouteId,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(Box<[u8]>),
    Parameter,
}

impl RouteTable {
    /// A table of these templates that keeps the ids of `self`; those that are gone match no more.
    ///
    /// A template is a path with `{name}` segments, as FastAPI writes it; a segment that only contains a
    /// parameter (`{id}.json`) counts as a parameter, `{rest:path}` matches one segment only.
    #[must_use]
    pub fn with_templates<'t>(&self, templates: impl IntoIterator<Item = &'t str>) -> Self {
        let mut next = Self { templates: self.templates.clone(), ..Self::default() };
        let mut known: HashMap<Arc<str>, usize> = self.templates.iter().cloned().zip(0..).collect();
        let mut seen = HashSet::new();
        for template in templates {
            if !seen.insert(template) {
                continue;
            }
            let index = match known.get(template) {
                Some(index) => *index,
                None if next.templates.len() < MAX_ROUTES => {
                    let text: Arc<str> = template.into();
                    next.templates.push(text.clone());
                    known.insert(text, next.templates.len() - 1);
                    next.templates.len() - 1
                }
                None => continue,
            };
            let Ok(id) = u16::try_from(index).map(RouteId) else { continue };
            next.insert(id, template);
        }
        for patterns in &mut next.patterns {
            // literal sorts before parameter at the first difference: the more exact template is tried first
            patterns.sort_by(|left, right| left.segments.cmp(&right.segments));
        }
        next
    }

    fn insert(&mut self, id: RouteId, template: &str) {
        if !template.contains('{') {
            self.literal.insert(template.as_bytes().into(), id);
            return;
        }
        let segments: Vec<Segment> = template
            .split('/')
            .map(|part| if part.contains('{') { Segment::Parameter } else { Segment::Literal(part.as_bytes().into()) })
            .collect();
        if self.patterns.len() <= segments.len() {
            self.patterns.resize_with(segments.len() + 1, Vec::new);
        }
        self.patterns[segments.len()].push(Pattern { id, segments });
    }

    /// Finds the template of a path (without query). Does not allocate; one hash lookup, then the templates of
    /// the same number of segments in turn.
    #[must_use]
    pub fn lookup(&self, path: &[u8]) -> Option<Route<'_>> {
        let id = self.literal.get(path).copied().or_else(|| self.lookup_pattern(path))?;
        Some(Route { id, template: self.template(id)? })
    }

    fn lookup_pattern(&self, path: &[u8]) -> Option<RouteId> {
        if self.patterns.is_empty() {
            return None;
        }
        let count = memchr::memchr_iter(b'/', path).count() + 1;
        let pattern = self.patterns.get(count)?.iter().find(|pattern| pattern.matches(path))?;
        Some(pattern.id)
    }

    /// The text of a template; `None` for an id of another table.
    #[must_use]
    pub fn template(&self, id: RouteId) -> Option<&str> {
        self.templates.get(usize::from(id.0)).map(|template| &**template)
    }

    /// How many templates match at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.literal.len() + self.patterns.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether no template is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        path.split(|byte| *byte == b'/').zip(&self.segments).all(|(part, segment)| match segment {
            Segment::Literal(literal) => **literal == *part,
            Segment::Parameter => !part.is_empty(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RouteTable {
        RouteTable::default().with_templates([
            "/",
            "/products",
            "/products/{id}",
            "/products/{id}/videos",
            "/products/new",
        ])
    }

    #[test]
    fn a_path_finds_its_template() {
        let table = table();
        for (path, template) in [
            ("/", Some("/")),
            ("/products", Some("/products")),
            ("/products/7", Some("/products/{id}")),
            ("/products/new", Some("/products/new")),
            ("/products/7/videos", Some("/products/{id}/videos")),
            ("/products/", None),
            ("/products/7/videos/1", None),
            ("/unknown", None),
            ("", None),
        ] {
            assert_eq!(table.lookup(path.as_bytes()).map(|route| route.template), template, "{path}");
        }
    }

    #[test]
    fn a_literal_segment_wins_over_a_parameter() {
        let table =
            RouteTable::default().with_templates(["/{kind}/list", "/videos/{id}", "/videos/{id}/x", "/{a}/{b}/x"]);
        assert_eq!(table.lookup(b"/videos/list").map(|route| route.template), Some("/videos/{id}"));
        assert_eq!(table.lookup(b"/posts/list").map(|route| route.template), Some("/{kind}/list"));
        assert_eq!(table.lookup(b"/posts/1/x").map(|route| route.template), Some("/{a}/{b}/x"));
    }

    #[test]
    fn a_refresh_keeps_the_ids_and_drops_what_is_gone() {
        let first = table();
        let second = first.with_templates(["/videos", "/products/{id}"]);
        assert_eq!(first.lookup(b"/products/1").map(|r| r.id), second.lookup(b"/products/1").map(|r| r.id));
        assert!(second.lookup(b"/products").is_none());
        assert_eq!(second.template(RouteId(1)), Some("/products"));
        assert_eq!(second.len(), 2);
    }

    #[test]
    fn the_number_of_templates_is_bounded() {
        let many: Vec<String> = (0..MAX_ROUTES + 50).map(|i| format!("/r{i}")).collect();
        let table = RouteTable::default().with_templates(many.iter().map(String::as_str));
        assert_eq!(table.len(), MAX_ROUTES);
    }
}
