//! What the answer to a check over HTTP must be: conditions as data. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::checks::certificate::days;
use crate::checks::failure::{Class, Failure};
use crate::model::trouble::Trouble;
use crate::settings::Section;

/// The conditions. The default wants a success or a redirection, and no more.
#[derive(Clone, Debug, Default)]
pub(super) struct Expect {
    /// Empty: a success or a redirection.
    statuses: Vec<RangeInclusive<u16>>,
    /// Headers and the text that each must hold.
    headers: Vec<(HeaderName, String)>,
    /// JSON pointers (RFC 6901) and the value that each must lead to, as text.
    json: Vec<(String, String)>,
    /// No answer may take longer.
    latency: Option<Duration>,
    /// The certificate must last so long.
    pub(super) certificate: Option<Duration>,
}

impl Expect {
    /// Reads the keys below `expect`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let about = "The statuses that are right, such as 200, 200-299 or 2xx; without them each below 400 is.";
        let mut statuses = Vec::new();
        for text in section.list("status", &[], about) {
            match status_range(&text) {
                Some(range) => statuses.push(range),
                None => section.problem("status", text, "statuses such as 200, 200-299 or 2xx"),
            }
        }
        let about = "Headers of the answer and a text that each must hold, such as {content-type: application/json}.";
        let mut headers = Vec::new();
        for (name, text) in section.map("header", about) {
            match name.parse() {
                Ok(name) => headers.push((name, text)),
                Err(_) => section.problem("header", name, "names of headers such as content-type"),
            }
        }
        let about = "JSON pointers into the body and the value that each must lead to, such as {/state: up}; the body may have 64 KiB.";
        let json = section.map("json", about);
        for (pointer, _) in json.iter().filter(|(pointer, _)| !pointer.starts_with('/')) {
            section.problem("json", pointer, "JSON pointers such as /state");
        }
        let about = "The longest time for the whole answer; what takes longer is down. 0: the timeout alone counts.";
        let latency = section.duration("latency", Duration::ZERO, about);
        let about =
            "Days that the certificate must last, else the service is degraded. 0: it must be valid, and no more.";
        let certificate = section.number("certificate_days", 0, 0..=3_650, about);
        Self {
            statuses,
            headers,
            json,
            latency: Some(latency).filter(|latency| !latency.is_zero()),
            certificate: Some(days(certificate)).filter(|_| certificate > 0),
        }
    }

    /// Judges what is known before the body.
    pub(super) fn judge_head(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
        let code = status.as_u16();
        let is_right = match &self.statuses[..] {
            [] => status.is_success() || status.is_redirection(),
            statuses => statuses.iter().any(|range| range.contains(&code)),
        };
        match code {
            _ if is_right => {}
            401 | 403 => return Err(Failure::plain(Trouble::Auth)),
            429 => return Err(Failure::plain(Trouble::Quota)),
            code => return Err(Failure::plain(Class::Status(code))),
        }
        let holds = |(name, text): &&(HeaderName, String)| {
            headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(text.as_str())))
        };
        match self.headers.iter().find(|header| !holds(header)) {
            Some((name, _)) => Err(Failure::new(Class::Condition("header"), name.to_string())),
            None => Ok(()),
        }
    }

    /// Whether a condition speaks of the body.
    pub(super) fn wants_body(&self) -> bool {
        !self.json.is_empty()
    }

    /// Judges the body.
    pub(super) fn judge_body(&self, body: &[u8]) -> Result<(), Failure> {
        let unexpected = |detail: String| Failure::new(Class::Condition("json"), detail);
        let document: Value = serde_json::from_slice(body).map_err(|error| unexpected(error.to_string()))?;
        for (pointer, expected) in &self.json {
            let found = document.pointer(pointer).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            if found.as_ref() != Some(expected) {
                // what was found may be anything; that it is not there is worth knowing
                let is_there = if found.is_some() { "another value" } else { "nothing" };
                return Err(unexpected(format!("{pointer} leads to {is_there}")));
            }
        }
        Ok(())
    }

    /// Judges how long it took.
    pub(super) fn judge_latency(&self, took: Duration) -> Result<(), Failure> {
        match self.latency {
            Some(most) if took > most => Err(Failure::new(Class::Condition("latency"), format!("{took:?}"))),
            _ => Ok(()),
        }
    }
}

/// `200`, `200-299` or `2xx`.
fn status_range(text: &str) -> Option<RangeInclusive<u16>> {
    let text = text.trim();
    let range = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(hundred), _) => {
            let hundred = hundred.parse::<u16>().ok().filter(|hundred| *hundred < 10)?;
            hundred * 100..=hundred * 100 + 99
        }
        (None, Some((from, to))) => from.trim().parse().ok()?..=to.trim().parse().ok()?,
        (None, None) => {
            let status = text.parse().ok()?;
            status..=status
        }
    };
    (*range.start() >= 100 && *range.end() <= 599 && range.start() <= range.end()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Place, Settings, Tree};
    use serde_json::json;

    fn read(document: Value) -> (Expect, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(json!({"expect": document}), &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let expect = Expect::read(&mut settings.section("expect"));
        let (_, problems, _) = settings.finish();
        (expect, problems.iter().map(ToString::to_string).collect())
    }

    fn head(document: Value, status: u16) -> Result<(), Class> {
        let headers = HeaderMap::from_iter([("content-type".parse().unwrap(), "application/json".parse().unwrap())]);
        let status = StatusCode::from_u16(status).unwrap();
        read(document).0.judge_head(status, &headers).map_err(|failure| failure.class)
    }

    fn body(document: Value, body: &str) -> Result<(), Class> {
        read(json!({"json": document})).0.judge_body(body.as_bytes()).map_err(|failure| failure.class)
    }

    #[test]
    fn the_status_is_one_of_those_or_no_failure() {
        for (statuses, status, expected) in [
            (json!([]), 204, Ok(())),
            (json!([]), 302, Ok(())),
            (json!([]), 503, Err(Class::Status(503))),
            (json!([200]), 204, Err(Class::Status(204))),
            (json!(["2xx", 404]), 404, Ok(())),
            (json!("200-299,503"), 503, Ok(())),
            (json!([401]), 401, Ok(())),
            (json!([200]), 401, Err(Trouble::Auth.into())),
            (json!([200]), 429, Err(Trouble::Quota.into())),
        ] {
            assert_eq!(head(json!({"status": statuses}), status), expected, "{status}");
        }
    }

    #[test]
    fn a_header_must_hold_its_text() {
        assert_eq!(head(json!({"header": {"Content-Type": "json"}}), 200), Ok(()));
        for (name, text) in [("content-type", "html"), ("x-other", "")] {
            assert_eq!(head(json!({"header": {name: text}}), 200), Err(Class::Condition("header")), "{name}");
        }
    }

    #[test]
    fn a_pointer_must_lead_to_its_value_whatever_its_type() {
        let text = r#"{"state":"up","a.b":{"n":[1,true]},"o":{}}"#;
        for expected in [
            json!({"/state": "up"}),
            json!({"/a.b/n/0": 1, "/a.b/n/1": true}),
            json!({"/a.b/n/0": "1"}),
            json!({"/o": "{}"}),
        ] {
            assert_eq!(body(expected.clone(), text), Ok(()), "{expected}");
        }
        for (expected, text) in [
            (json!({"/state": "down"}), text),
            (json!({"/nothing": "up"}), text),
            (json!({"/state": "up"}), "{"),
            (json!({"/state": "up"}), ""),
        ] {
            assert_eq!(body(expected, text), Err(Class::Condition("json")), "{text}");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, problems) =
            read(json!({"status": ["2x", 700], "header": {"a b": "x"}, "json": {"state": "up"}, "lateny": "1s"}));
        assert_eq!(
            problems,
            [
                "expect.status: 2x, expected statuses such as 200, 200-299 or 2xx (set in sidecar.yaml)",
                "expect.status: 700, expected statuses such as 200, 200-299 or 2xx (set in sidecar.yaml)",
                "expect.header: a b, expected names of headers such as content-type",
                "expect.json: state, expected JSON pointers such as /state",
                "expect.lateny: unknown key, expected no such key, perhaps expect.latency (set in sidecar.yaml)",
            ]
        );
    }
}
