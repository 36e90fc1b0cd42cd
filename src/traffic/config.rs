//! Settings of the traffic room.

use std::time::Duration;

use crate::settings::Section;

/// The settings as used.
#[derive(Clone, Debug)]
pub struct Config {
    /// At most this many series of requests, over all workers, besides the overflow.
    pub max_series: usize,
    /// Whether requests whose spans are kept stand as exemplars in the buckets of their durations.
    pub exemplars: bool,
    /// Where route templates come from.
    pub routes: Routes,
}

/// Where route templates come from.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Whether they are read at all; without them no request has a route.
    pub enabled: bool,
    /// The path of the application's OpenAPI document.
    pub path: String,
    /// How often the document is read again.
    pub refresh: Duration,
}

impl Config {
    /// Reads the keys below `traffic`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let about = "distinct combinations of method, route, status and error that are counted apart; further ones are \
                     counted together (`otel.metric.overflow`). About 2 KiB of memory each, for each worker, and 0.6 KiB \
                     more with exemplars";
        let max_series = section.number("max_series", 2_000, 1..=100_000, about);
        let about = "whether the buckets of durations name a request as an example (trace and span id), the last one whose spans \
                     are kept; in OTLP and on the OpenMetrics page";
        let exemplars = section.flag("exemplars", true, about);
        Self {
            max_series: usize::try_from(max_series).unwrap_or(usize::MAX),
            exemplars,
            routes: Routes::read(&mut section.section("routes")),
        }
    }
}

impl Routes {
    fn read(section: &mut Section<'_>) -> Self {
        let about = "whether route templates are read from the application; without them no request has a route";
        let enabled = section.flag("enabled", true, about);
        let about = "the path of the application's OpenAPI document; this one is FastAPI's default";
        let path = section.text("path", "/openapi.json", about);
        if !path.starts_with('/') {
            section.problem("path", &path, "a path that begins with a slash, such as /openapi.json");
        }
        let about = "how often the document is read again: a deployment's new routes are known a minute later";
        let refresh = section.duration("refresh", Duration::from_secs(60), about);
        if refresh < Duration::from_secs(1) {
            section.problem("refresh", format!("{refresh:?}"), "at least 1s");
        }
        Self { enabled, path, refresh }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Place, Settings, Tree};

    #[test]
    fn wrong_values_are_named_with_what_would_be_right() {
        let mut tree = Tree::default();
        let document = serde_json::json!({"traffic": {"max_series": 0, "routes": {"path": "x", "refresh": "10ms"}}});
        tree.merge(document, &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err(String::new()));
        let _ = Config::read(&mut settings.section("traffic"));
        let (_, problems, _) = settings.finish();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["traffic.max_series", "traffic.routes.path", "traffic.routes.refresh"]);
    }
}
