//! Exceptions in log records: what of them becomes an issue. Nothing but names is read; the text of an exception stays where it is.

use std::str;

use crate::model::incident::{Frame, Incident, Mishap};
use crate::model::trace::{SpanId, TraceId};
use crate::redact::{Outlet, Redactor};
use crate::semconv;
use crate::telemetry::otlp;
use crate::telemetry::wire::{Field, Fields, Malformed, Value};

/// Of one request; those beyond are counted only.
const MOST: usize = 32;
/// `SEVERITY_NUMBER_ERROR`.
const ERROR: u64 = 17;
/// Of a name: a class, a logger, a function or a file.
const LONGEST: usize = 200;

/// What was found in one request.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) incidents: Vec<Incident>,
    /// So many more there were.
    pub(super) missed: u64,
}

/// Looks for log records of severity ERROR or above that tell of an exception.
pub(super) fn found(request: &[u8], redactor: &Redactor) -> Found {
    let mut found = Found::default();
    let looked = otlp::for_each_item(request, |_, scope, item| {
        let Value::Bytes(record) = item.value else { return Ok(()) };
        let Some(incident) = read(record, scope, redactor)? else { return Ok(()) };
        if found.incidents.len() < MOST {
            found.incidents.push(incident);
        } else {
            found.missed += 1;
        }
        Ok(())
    });
    // what cannot be read is refused by the cleaner
    looked.map(|()| found).unwrap_or_default()
}

/// What a record has that is looked at.
#[derive(Default)]
struct Record<'b> {
    severity: u64,
    at: Option<u64>,
    observed: Option<u64>,
    trace_id: &'b [u8],
    span_id: &'b [u8],
    class: Option<&'b str>,
    stacktrace: Option<&'b str>,
    function: Option<&'b str>,
    file: Option<&'b str>,
}

fn read(record: &[u8], scope: &[u8], redactor: &Redactor) -> Result<Option<Incident>, Malformed> {
    let mut seen = Record::default();
    for field in Fields(record) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Fixed) => seen.at = fixed64(&field),
            (11, Value::Fixed) => seen.observed = fixed64(&field),
            (2, Value::Number(severity)) => seen.severity = severity,
            (9, Value::Bytes(id)) => seen.trace_id = id,
            (10, Value::Bytes(id)) => seen.span_id = id,
            (6, Value::Bytes(pair)) => attribute(pair, &mut seen)?,
            _ => {}
        }
    }
    let (Some(class), true) = (seen.class.filter(|class| is_name(class)), seen.severity >= ERROR) else {
        return Ok(None);
    };
    let clean = |text: &str| redactor.text(Outlet::Telemetry, text.as_bytes()).into_owned();
    let place = seen.stacktrace.and_then(innermost).or_else(|| seen.function.zip(seen.file));
    let place = place.filter(|(function, file)| is_name(function) && is_name(file));
    let what = Mishap::Logged {
        error_type: clean(class),
        logger: logger(scope)?.filter(|logger| is_name(logger)).map(clean),
        frame: place.map(|(function, file)| Frame { function: clean(function), file: clean(file) }),
    };
    let nanos = seen.at.filter(|nanos| *nanos > 0).or(seen.observed).filter(|nanos| *nanos > 0);
    Ok(Some(Incident {
        at: nanos.map(|nanos| nanos as f64 / 1e9),
        what,
        trace_id: seen.trace_id.try_into().ok().filter(|id| *id != [0; 16]).map(TraceId),
        span_id: seen.span_id.try_into().ok().filter(|id| *id != [0; 8]).map(SpanId),
    }))
}

fn attribute<'b>(pair: &'b [u8], seen: &mut Record<'b>) -> Result<(), Malformed> {
    let (mut key, mut value) = (None, None);
    for field in Fields(pair) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => key = str::from_utf8(bytes).ok(),
            (2, Value::Bytes(any)) => value = text(any, 1)?,
            _ => {}
        }
    }
    match key {
        Some(semconv::EXCEPTION_TYPE) => seen.class = value,
        Some(semconv::EXCEPTION_STACKTRACE) => seen.stacktrace = value,
        // the names of before 1.30, too, which SDKs of Python still write
        Some(semconv::CODE_FUNCTION_NAME | "code.function") => seen.function = value,
        Some(semconv::CODE_FILE_PATH | "code.filepath") => seen.file = value,
        _ => {}
    }
    Ok(())
}

/// The name of a scope, which is the logger's.
fn logger(scope: &[u8]) -> Result<Option<&str>, Malformed> {
    for field in Fields(scope) {
        let field = field?;
        if let (1, Value::Bytes(scope)) = (field.number, field.value) {
            return text(scope, 1);
        }
    }
    Ok(None)
}

/// A text among the fields of a message.
fn text(message: &[u8], number: u32) -> Result<Option<&str>, Malformed> {
    for field in Fields(message) {
        let field = field?;
        if let Value::Bytes(bytes) = field.value
            && field.number == number
        {
            return Ok(str::from_utf8(bytes).ok());
        }
    }
    Ok(None)
}

fn fixed64(field: &Field<'_>) -> Option<u64> {
    field.whole.last_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Function and file of the frame in which an exception was raised: the last that Python tells of, the first of Java and
/// JavaScript.
fn innermost(stacktrace: &str) -> Option<(&str, &str)> {
    let of_python = stacktrace.lines().rev().find_map(|line| {
        let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
        Some((rest.split_once(", in ")?.1.trim_end(), file))
    });
    of_python.or_else(|| {
        stacktrace.lines().find_map(|line| {
            let (function, rest) = line.trim_start().strip_prefix("at ")?.split_once('(')?;
            let place = rest.strip_suffix(')')?;
            // of `file:line:column`, of which either may be missing
            let file = place.trim_end_matches(|c: char| c.is_ascii_digit() || c == ':');
            Some((function.trim_end(), file))
        })
    })
}

/// Whether a text can be the name of a thing in a program.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control) && !text.contains(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Clean;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use prost::Message;

    const TRACEBACK: &str = "Traceback (most recent call last):\n  File \"/app/routes.py\", line 10, in publish\n    \
        render(video)\n  File \"/app/render.py\", line 20, in render\n    raise KeyError(secret)\nKeyError: 'hunter2-text'\n\n\
        During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  \
        File \"/app/routes.py\", line 12, in publish\n    fail(video)\n  File \"/app/render.py\", line 31, in fail\n    \
        raise ValueError(\"hunter2-text\")\nValueError: hunter2-text\n";

    fn record(severity: i32, attributes: &[(&str, &str)]) -> LogRecord {
        let attribute = |(key, value): &(&str, &str)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue { value: Some(any_value::Value::StringValue((*value).to_owned())) }),
            ..KeyValue::default()
        };
        LogRecord {
            severity_number: severity,
            time_unix_nano: 1_500_000_000,
            trace_id: vec![7; 16],
            span_id: vec![8; 8],
            attributes: attributes.iter().map(attribute).collect(),
            ..LogRecord::default()
        }
    }

    fn of(records: Vec<LogRecord>) -> Found {
        let scope = Some(InstrumentationScope { name: "factory.render".into(), ..InstrumentationScope::default() });
        let scope_logs = vec![ScopeLogs { scope, log_records: records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let request = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        found(&request, &Redactor::new(["hunter2-secret"]))
    }

    /// Class, logger and frame.
    type Told<'f> = (&'f str, Option<&'f str>, Option<(&'f str, &'f str)>);

    fn logged(found: &Found) -> Vec<Told<'_>> {
        let told = found.incidents.iter().map(|incident| match &incident.what {
            Mishap::Logged { error_type, logger, frame } => (
                error_type.as_str(),
                logger.as_ref().map(Clean::as_str),
                frame.as_ref().map(|frame| (frame.function.as_str(), frame.file.as_str())),
            ),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[test]
    fn an_exception_is_told_by_its_class_its_logger_and_the_frame_that_raised_it_and_never_by_its_text() {
        let exception = [
            ("exception.type", "ValueError"),
            ("exception.message", "hunter2-text"),
            ("exception.stacktrace", TRACEBACK),
            ("code.function.name", "publish"),
        ];
        let found = of(vec![record(17, &exception)]);
        assert_eq!(logged(&found), [("ValueError", Some("factory.render"), Some(("fail", "/app/render.py")))]);
        let incident = &found.incidents[0];
        assert_eq!(
            (incident.at, incident.trace_id, incident.span_id),
            (Some(1.5), Some(TraceId([7; 16])), Some(SpanId([8; 8])))
        );
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_no_error_or_no_exception_is_none() {
        let class = ("exception.type", "ValueError");
        for (severity, attributes) in [
            (13, &[class][..]),
            (0, &[class]),
            (17, &[("exception.message", "x")]),
            (17, &[("exception.type", "")]),
            (17, &[("exception.type", "ValueError: with its text")]),
            (17, &[("exception.type", "a\nb")]),
        ] {
            assert!(of(vec![record(severity, attributes)]).incidents.is_empty(), "{severity} {attributes:?}");
        }
        assert!(found(b"\x0a\xff", &Redactor::new([])).incidents.is_empty());
    }

    #[test]
    fn a_secret_in_a_name_is_redacted_and_many_of_one_request_are_counted() {
        let found = of(vec![record(21, &[("exception.type", "hunter2-secret")]); MOST + 5]);
        assert_eq!((found.incidents.len(), found.missed), (MOST, 5));
        assert_eq!(logged(&found)[0].0, "[REDACTED:secret]");
    }

    #[test]
    fn the_frame_is_found_in_the_stack_traces_of_several_languages_else_where_it_was_logged() {
        for (stacktrace, expected) in [
            (
                "java.lang.X: text\n\tat com.shop.Cart.add(Cart.java:12)\n\tat com.shop.Main.main(Main.java:3)",
                Some(("com.shop.Cart.add", "Cart.java")),
            ),
            (
                "Error: text\n    at render (/app/render.js:3:9)\n    at main (/app/main.js:1:1)",
                Some(("render", "/app/render.js")),
            ),
            ("nonsense at (", None),
            ("", None),
        ] {
            assert_eq!(innermost(stacktrace), expected, "{stacktrace}");
        }
        let code = [("exception.type", "X"), ("code.function.name", "render"), ("code.file.path", "/app/render.py")];
        assert_eq!(logged(&of(vec![record(17, &code)]))[0].2, Some(("render", "/app/render.py")));
    }
}
