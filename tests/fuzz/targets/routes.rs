//! Route templates, one in each line, and in the last line a path to look up.

use content_factory_sidecar::model::route::{MAX_ROUTES, RouteTable};

use crate::targets::Fate;

/// A path finds a template that it fits, a literal one before others; and a table read again keeps its ids.
pub(crate) fn check(data: &[u8]) -> Fate {
    let (templates, path) = match data.iter().rposition(|&byte| byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&b""[..], data),
    };
    let text = String::from_utf8_lossy(templates);
    let templates: Vec<&str> = text.split('\n').collect();
    let table = RouteTable::default().with_templates(templates.iter().copied());
    assert!(table.len() <= MAX_ROUTES.min(templates.len()), "{} of {}", table.len(), templates.len());
    let found = table.lookup(path);
    let again = table.with_templates(templates.iter().rev().copied());
    if let Some(route) = found {
        assert!(templates.contains(&route.template), "{:?} is no template", route.template);
        assert!(fits(route.template, path), "{} does not fit {:?}", path.escape_ascii(), route.template);
        assert_eq!(table.template(route.id), Some(route.template));
        assert_eq!(again.template(route.id), Some(route.template), "an id has changed its meaning");
    }
    if templates.len() <= MAX_ROUTES {
        let literal = templates.iter().find(|template| !template.contains('{') && template.as_bytes() == path);
        let any = templates.iter().any(|template| fits(template, path));
        assert_eq!(found.is_some(), any, "{}", path.escape_ascii());
        assert!(literal.is_none() || found.map(|route| route.template) == literal.copied(), "{found:?}");
        assert_eq!(
            again.lookup(path).map(|route| route.template.contains('{')),
            found.map(|route| route.template.contains('{'))
        );
    }
    if found.is_some() { Fate::Accepted } else { Fate::Refused }
}

/// A parameter stands for one whole segment that is not empty.
fn fits(template: &str, path: &[u8]) -> bool {
    if !template.contains('{') {
        return template.as_bytes() == path;
    }
    let wanted: Vec<&str> = template.split('/').collect();
    let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    let fits = |(wanted, part): (&&str, &&[u8])| {
        if wanted.contains('{') { !part.is_empty() } else { wanted.as_bytes() == *part }
    };
    wanted.len() == parts.len() && wanted.iter().zip(&parts).all(fits)
}
