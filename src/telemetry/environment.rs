//! OpenTelemetry's standard variables as settings: a table from names to paths, applied to a map and a tree.
//!
//! Pure: whoever starts the sidecar reads the environment. Other programs of the pod share these variables, so what
//! belongs to them is left alone, and what an operator may expect of us and does not get is said aloud.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::problem::Problem;
use crate::settings::{Place, Tree};

/// What is said about the variables besides setting values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// Values that are wrong.
    pub problems: Vec<Problem>,
    /// Variables that are set and have no effect.
    pub remarks: Vec<String>,
}

/// How the text of a variable becomes the text of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Text,
    /// A number of milliseconds becomes a duration.
    Millis,
    /// Only `true`, in any case, is true; the setting says the opposite.
    Not,
    /// `otlp` switches a signal on, `none` off.
    Exporter,
    /// `explicit_bucket_histogram` or `base2_exponential_bucket_histogram`.
    Histogram,
    /// `delta`, `lowmemory` or `cumulative`.
    Temporality,
}

/// Variables that set one key each.
pub const KEYS: &[(&str, &str, Form)] = &[
    ("OTEL_SDK_DISABLED", "telemetry.enabled", Form::Not),
    ("OTEL_SERVICE_NAME", "service.name", Form::Text),
    ("OTEL_TRACES_EXPORTER", "telemetry.traces.enabled", Form::Exporter),
    ("OTEL_METRICS_EXPORTER", "telemetry.metrics.enabled", Form::Exporter),
    ("OTEL_LOGS_EXPORTER", "telemetry.logs.enabled", Form::Exporter),
    ("OTEL_METRIC_EXPORT_INTERVAL", "telemetry.metrics.interval", Form::Millis),
    // the one for spans wins over the one for all
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "telemetry.limits.value", Form::Text),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "telemetry.limits.value", Form::Text),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "telemetry.limits.attributes", Form::Text),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "telemetry.limits.attributes", Form::Text),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "telemetry.metrics.histograms", Form::Histogram),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "telemetry.metrics.temporality", Form::Temporality),
];

/// Behind `OTEL_EXPORTER_OTLP_` for all signals and `OTEL_EXPORTER_OTLP_TRACES_` and so on for one; the second part
/// is below `telemetry` or, for one signal, below `telemetry.traces` and so on. `ENDPOINT` and `INSECURE` go together.
pub const OTLP_KEYS: &[(&str, &str, Form)] = &[
    ("PROTOCOL", "protocol", Form::Text),
    ("HEADERS", "headers", Form::Text),
    ("TIMEOUT", "timeout", Form::Millis),
    ("COMPRESSION", "compression", Form::Text),
    ("CERTIFICATE", "tls.ca_file", Form::Text),
    ("CLIENT_CERTIFICATE", "tls.client_certificate_file", Form::Text),
    ("CLIENT_KEY", "tls.client_key_file", Form::Text),
];

/// Prefixes of the OTLP variables, and where their keys are.
const SCOPES: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_", "telemetry."),
    ("OTEL_EXPORTER_OTLP_TRACES_", "telemetry.traces."),
    ("OTEL_EXPORTER_OTLP_METRICS_", "telemetry.metrics."),
    ("OTEL_EXPORTER_OTLP_LOGS_", "telemetry.logs."),
];

/// Resource attributes that are settings of their own.
const SERVICE_ATTRIBUTES: &[(&str, &str)] = &[
    ("service.name", "service.name"),
    ("service.namespace", "service.namespace"),
    ("service.version", "service.version"),
    ("service.instance.id", "service.instance_id"),
    ("deployment.environment.name", "service.environment"),
    ("deployment.environment", "service.environment"),
];

/// Standard variables that have no effect here, and what there is instead.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", "use --config with a file of the sidecar"),
    ("OTEL_CONFIG_FILE", "use --config with a file of the sidecar"),
    ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "the methods are those of RFC 9110 and PATCH"),
];

/// Puts the values of standard variables into the tree. An empty variable counts as unset, as the specification asks.
pub fn apply(env: &BTreeMap<String, String>, tree: &mut Tree) -> Notices {
    let env: BTreeMap<&str, &str> =
        env.iter().map(|(name, value)| (name.as_str(), value.trim())).filter(|(_, value)| !value.is_empty()).collect();
    let mut application = Application { env: &env, tree, notices: Notices::default() };
    application.resource_attributes(); // first, as OTEL_SERVICE_NAME wins over them
    for (name, path, form) in KEYS {
        application.value(name, path, *form);
    }
    for (prefix, scope) in SCOPES {
        application.endpoint(prefix, scope);
        for (name, path, form) in OTLP_KEYS {
            application.value(&format!("{prefix}{name}"), &format!("{scope}{path}"), *form);
        }
    }
    application.sampler();
    application.exemplar_filter();
    application.unsupported();
    application.notices
}

struct Application<'a> {
    env: &'a BTreeMap<&'a str, &'a str>,
    tree: &'a mut Tree,
    notices: Notices,
}

impl Application<'_> {
    fn set(&mut self, name: &str, path: &str, value: impl Into<Value>) {
        self.tree.set(path, value.into(), &Place(name.to_owned()));
    }

    fn problem(&mut self, name: &str, path: &str, expected: &str) {
        let found = self.env.get(name).copied().unwrap_or_default().to_owned();
        let (path, expected, place) = (path.to_owned(), expected.to_owned(), name.to_owned());
        self.notices.problems.push(Problem { path, found, expected, place });
    }

    fn value(&mut self, name: &str, path: &str, form: Form) {
        let Some(text) = self.env.get(name).copied() else { return };
        match form_of(text, form) {
            Ok(value) => self.set(name, path, value),
            Err(expected) => self.problem(name, path, expected),
        }
    }

    /// The scheme decides about TLS; `INSECURE` only stands in for a scheme that is missing.
    fn endpoint(&mut self, prefix: &str, scope: &str) {
        let (name, path) = (format!("{prefix}ENDPOINT"), format!("{scope}endpoint"));
        let Some(endpoint) = self.env.get(name.as_str()).copied() else { return };
        let insecure = self.env.get(format!("{prefix}INSECURE").as_str());
        let insecure = insecure.or_else(|| self.env.get("OTEL_EXPORTER_OTLP_INSECURE"));
        match insecure {
            _ if endpoint.contains("://") => self.set(&name, &path, endpoint),
            Some(value) if value.eq_ignore_ascii_case("true") => self.set(&name, &path, format!("http://{endpoint}")),
            Some(_) => self.set(&name, &path, format!("https://{endpoint}")),
            None => self.problem(&name, &path, &format!("a scheme: http://{endpoint} or https://{endpoint}")),
        }
    }

    fn resource_attributes(&mut self) {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(text) = self.env.get(NAME).copied() else { return };
        let Some(mut attributes) = pairs(text) else {
            return self.problem(NAME, "service.attributes", "key=value pairs with commas between them");
        };
        for (attribute, path) in SERVICE_ATTRIBUTES {
            if let Some(value) = attributes.remove(*attribute) {
                self.set(NAME, path, value);
            }
        }
        if !attributes.is_empty() {
            self.set(NAME, "service.attributes", write_pairs(&attributes));
        }
    }

    fn sampler(&mut self) {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(sampler) = self.env.get(NAME).copied() else { return };
        let (parent, kind) = match sampler.strip_prefix("parentbased_") {
            Some(kind) => ("follow", kind),
            None => ("ignore", sampler),
        };
        match kind {
            "always_on" => self.set(NAME, "telemetry.sampling.ratio", "1"),
            "always_off" => {
                self.set(NAME, "telemetry.sampling.ratio", "0");
                // who says never does not mean failures either
                self.set(NAME, "telemetry.sampling.keep_errors", false);
                self.set(NAME, "telemetry.sampling.keep_slow", false);
            }
            "traceidratio" => {
                let ratio = self.env.get(ARGUMENT).copied().unwrap_or("1");
                self.set(ARGUMENT, "telemetry.sampling.ratio", ratio);
            }
            _ => {
                let expected = "always_on, always_off or traceidratio, also behind parentbased_";
                return self.problem(NAME, "telemetry.sampling.ratio", expected);
            }
        }
        self.set(NAME, "telemetry.sampling.parent", parent);
    }

    fn exemplar_filter(&mut self) {
        const NAME: &str = "OTEL_METRICS_EXEMPLAR_FILTER";
        const PATH: &str = "traffic.exemplars";
        match self.env.get(NAME).copied() {
            None => {}
            Some("trace_based") => self.set(NAME, PATH, true),
            Some("always_off") => self.set(NAME, PATH, false),
            Some("always_on") => {
                let remark =
                    format!("{NAME}=always_on is trace_based here: an exemplar points to a trace that is kept");
                self.notices.remarks.push(remark);
            }
            Some(_) => self.problem(NAME, PATH, "trace_based, always_off or always_on"),
        }
    }

    fn unsupported(&mut self) {
        for (name, instead) in UNSUPPORTED {
            if self.env.contains_key(name) {
                self.notices.remarks.push(format!("{name} is not supported: {instead}"));
            }
        }
        let propagators = self.env.get("OTEL_PROPAGATORS").copied().unwrap_or("tracecontext");
        if !propagators.split(',').any(|propagator| propagator.trim() == "tracecontext") {
            let remark = format!("OTEL_PROPAGATORS={propagators} is not supported: the proxy speaks tracecontext");
            self.notices.remarks.push(remark);
        }
    }
}

fn form_of(text: &str, form: Form) -> Result<Value, &'static str> {
    match form {
        Form::Text => Ok(text.into()),
        Form::Millis => match text.parse::<u64>() {
            Ok(millis) => Ok(format!("{millis}ms").into()),
            Err(_) => Err("a whole number of milliseconds"),
        },
        Form::Not => Ok((!text.eq_ignore_ascii_case("true")).into()),
        Form::Exporter => match text {
            "otlp" => Ok(true.into()),
            "none" => Ok(false.into()),
            _ => Err("otlp or none: the sidecar has no other exporter"),
        },
        Form::Histogram => match text {
            "explicit_bucket_histogram" => Ok("explicit".into()),
            "base2_exponential_bucket_histogram" => Ok("exponential".into()),
            _ => Err("explicit_bucket_histogram or base2_exponential_bucket_histogram"),
        },
        Form::Temporality => match text.to_ascii_lowercase().as_str() {
            word @ ("delta" | "lowmemory" | "cumulative") => Ok(word.into()),
            _ => Err("delta, lowmemory or cumulative"),
        },
    }
}

/// Reads `key=value,key=value`, both percent-encoded, as W3C Baggage has it; `None` when a pair has no `=`.
#[must_use]
pub fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let decode = |text: &str| Some(percent_encoding::percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
        })
        .collect()
}

fn write_pairs(pairs: &BTreeMap<String, String>) -> String {
    let encode = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let written: Vec<String> = pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    written.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(variables: &[(&str, &str)]) -> (BTreeMap<String, String>, Notices) {
        let env = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut tree = Tree::default();
        let notices = apply(&env, &mut tree);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let values = tree.paths().map(|path| (path.to_owned(), text(&tree.get(path).unwrap().0)));
        (values.collect(), notices)
    }

    #[test]
    fn every_variable_sets_its_key() {
        let table: &[(&str, &str, &str, &str)] = &[
            ("OTEL_SDK_DISABLED", "TRUE", "telemetry.enabled", "false"),
            ("OTEL_SERVICE_NAME", "shop", "service.name", "shop"),
            ("OTEL_TRACES_EXPORTER", "none", "telemetry.traces.enabled", "false"),
            ("OTEL_LOGS_EXPORTER", "otlp", "telemetry.logs.enabled", "true"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000", "telemetry.metrics.interval", "5000ms"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100", "telemetry.limits.value", "100"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "7", "telemetry.limits.attributes", "7"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4317", "telemetry.endpoint", "https://c:4317"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c/x", "telemetry.logs.endpoint", "http://c/x"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "telemetry.protocol", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=1", "telemetry.traces.headers", "api-key=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250", "telemetry.metrics.timeout", "250ms"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "telemetry.compression", "gzip"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based", "traffic.exemplars", "true"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off", "traffic.exemplars", "false"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "telemetry.tls.ca_file", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", "/k.pem", "telemetry.logs.tls.client_key_file", "/k.pem"),
            (
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
                "LowMemory",
                "telemetry.metrics.temporality",
                "lowmemory",
            ),
            (
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                "explicit_bucket_histogram",
                "telemetry.metrics.histograms",
                "explicit",
            ),
        ];
        for (name, value, path, expected) in table {
            let (values, notices) = applied(&[(name, value)]);
            assert_eq!(values, [((*path).to_owned(), (*expected).to_owned())].into(), "{name}");
            assert_eq!(notices, Notices::default(), "{name}");
        }
        assert_eq!(applied(&[("OTEL_SERVICE_NAME", " ")]).0, BTreeMap::new(), "empty is unset");
        assert_eq!(applied(&[("OTEL_PYTHON_LOG_LEVEL", "x"), ("PATH", "/bin")]), Default::default());
    }

    #[test]
    fn samplers_are_ratios() {
        for (sampler, argument, ratio, parent) in [
            ("always_on", "", "1", "ignore"),
            ("parentbased_always_off", "", "0", "follow"),
            ("parentbased_traceidratio", "0.25", "0.25", "follow"),
            ("traceidratio", "", "1", "ignore"),
        ] {
            let (values, _) = applied(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
            assert_eq!(values["telemetry.sampling.ratio"], ratio, "{sampler}");
            assert_eq!(values["telemetry.sampling.parent"], parent, "{sampler}");
            let keeps = values.get("telemetry.sampling.keep_errors").zip(values.get("telemetry.sampling.keep_slow"));
            let nothing = keeps.is_some_and(|(errors, slow)| errors == "false" && slow == "false");
            assert_eq!(nothing, ratio == "0", "{sampler}: never is never, a ratio leaves failures in");
        }
        assert_eq!(applied(&[("OTEL_TRACES_SAMPLER", "xray")]).1.problems.len(), 1);
    }

    #[test]
    fn attributes_are_settings_and_the_name_wins() {
        let (values, _) = applied(&[
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.version=1%2C2,team=x y"),
            ("OTEL_SERVICE_NAME", "b"),
        ]);
        assert_eq!(values["service.name"], "b");
        assert_eq!(values["service.version"], "1,2");
        assert_eq!(pairs(&values["service.attributes"]).unwrap()["team"], "x y");
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_a_mistake_unless_insecure_tells() {
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let problem = applied(&[(name, "collector:4317")]).1.problems.remove(0);
        assert_eq!(
            problem.to_string(),
            "telemetry.endpoint: collector:4317, expected a scheme: http://collector:4317 or https://collector:4317 \
             (set in OTEL_EXPORTER_OTLP_ENDPOINT)"
        );
        let insecure = [(name, "collector:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
        assert_eq!(applied(&insecure).0["telemetry.endpoint"], "http://collector:4317");
    }

    #[test]
    fn what_is_wrong_or_without_effect_is_said() {
        for (name, value) in [
            ("OTEL_METRIC_EXPORT_INTERVAL", "15s"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes"),
        ] {
            assert_eq!(applied(&[(name, value)]).1.problems[0].place, name);
        }
        let without_effect =
            [("OTEL_PROPAGATORS", "b3"), ("OTEL_CONFIG_FILE", "x.yaml"), ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on")];
        let (_, notices) = applied(&without_effect);
        assert_eq!(notices.remarks.len(), 3, "{notices:?}");
    }
}
