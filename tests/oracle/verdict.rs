//! The verdict on one request entry, from three things only: what was sent, what the origin saw, what the client saw.

use crate::client::Seen;
use crate::corpus::{End, Entry, Kind};
use crate::fidelity;
use crate::grammar::{Grammar, Stop};
use crate::origin::{BARRIER, FOLLOWER, Record};
use crate::requests::{self, Request};
use crate::responses::{self, Closing};

/// The request that follows an entry.
pub(crate) const FOLLOWING: &[u8] =
    b"GET /oracle-follower HTTP/1.1\r\nHost: follower.example\r\nConnection: close\r\n\r\n";

/// How a fault begins when the origin saw a request where a strict reader finds none.
pub(crate) const MORE: &str = "more requests at the origin than a strict reader finds";

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The other side saw nothing of it, and the sender got an error.
    Refused,
    /// The other side saw nothing of it, and the sender got a closed connection without a word.
    Closed,
    /// It was forwarded, and what was forwarded parses.
    Clean,
    /// What was forwarded stops inside a message.
    Truncated,
    /// What was forwarded does not parse, or holds more than was sent.
    Dirty,
}

/// A verdict with its reasons.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    /// What became of it.
    pub(crate) verdict: Verdict,
    /// What is wrong; empty when all is as it must be.
    pub(crate) faults: Vec<String>,
}

impl Judgement {
    /// Nothing is wrong.
    pub(crate) fn holds(&self) -> bool {
        self.verdict != Verdict::Dirty && self.faults.is_empty()
    }

    /// Dirty only because something was read into what a strict reader refuses; what came out of it parses.
    pub(crate) fn is_repaired(&self) -> bool {
        self.verdict == Verdict::Dirty && self.faults.iter().all(|fault| fault.starts_with(MORE))
    }
}

/// How much is asked of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Only that nothing dirty comes out: for random input, and for other people's proxies.
    Cleanliness,
    /// All that the entry says, fields in their order and case included.
    Everything,
}

/// All that is known about one entry after its run.
pub(crate) struct Case<'a> {
    /// The entry.
    pub(crate) entry: &'a Entry,
    /// What came in at the origin.
    pub(crate) records: &'a [Record],
    /// What the client saw.
    pub(crate) seen: &'a Seen,
}

/// What the origin's records hold, read strictly.
pub(crate) struct Arrived {
    /// Complete ones, without those that are no part of an entry.
    pub(crate) requests: Vec<Request>,
    tunnel: Option<Vec<u8>>,
    /// Where one stops.
    pub(crate) truncated: Option<&'static str>,
    /// What does not parse.
    pub(crate) dirt: Vec<String>,
}

/// All bytes that the client wanted to send.
pub(crate) fn wire(entry: &Entry) -> Vec<u8> {
    let mut bytes = entry.bytes();
    if entry.end == End::Follow {
        bytes.extend_from_slice(FOLLOWING);
    }
    bytes
}

/// Judges one entry.
pub(crate) fn judge(case: &Case<'_>, demand: Demand) -> Judgement {
    let wire = wire(case.entry);
    let sent = requests::read(&wire, Grammar::Lawful);
    let arrived = arrived(case.records);
    let mut dirt = arrived.dirt.clone();
    if arrived.requests.len() > sent.requests.len() {
        dirt.push(format!("{MORE}: {} arrived, {} were sent", arrived.requests.len(), sent.requests.len()));
    }
    let mut methods: Vec<_> = sent.requests.iter().map(|request| request.method.clone()).collect();
    // What is refused has a method too, and an answer to HEAD has no body.
    methods.push(wire[sent.used..].split(|&byte| byte == b' ').next().unwrap_or_default().to_vec());
    let got = responses::read(&case.seen.bytes, &methods, case.seen.closing, Grammar::Canonical);
    if let Stop::Bad(why) = &got.stop {
        dirt.push(format!("the client got {why}"));
    }
    let verdict = if !dirt.is_empty() {
        Verdict::Dirty
    } else if arrived.truncated.is_some() {
        Verdict::Truncated
    } else if !arrived.requests.is_empty() {
        Verdict::Clean
    } else if got.finals.is_empty() {
        Verdict::Closed
    } else {
        Verdict::Refused
    };
    let mut faults = dirt;
    if let (Some(place), Stop::Clean) = (arrived.truncated, &sent.stop) {
        // After an early answer the rest of a body may be dropped, with its connection; and what may be refused
        // may be refused in the middle.
        if case.entry.kind == Kind::Lawful && !case.entry.bytes().windows(7).any(|part| part == b"/early/") {
            faults.push(format!("a complete request arrived cut off {place}"));
        }
    }
    if demand == Demand::Everything {
        let view = View { case, sent: &sent, arrived: &arrived, got: &got };
        faults.extend(view.shortcomings());
    }
    Judgement { verdict, faults }
}

/// Reads what came in at the origin.
pub(crate) fn arrived(records: &[Record]) -> Arrived {
    let mut all = Arrived { requests: Vec::new(), tunnel: None, truncated: None, dirt: Vec::new() };
    for record in records {
        let end = record.tunnel_at.unwrap_or(record.bytes.len());
        let reading = requests::read(&record.bytes[..end], Grammar::Canonical);
        match reading.stop {
            Stop::Clean => {}
            Stop::Short(place) => all.truncated = Some(place),
            Stop::Bad(why) => all.dirt.push(format!("the origin got {why}")),
        }
        if record.tunnel_at.is_some() {
            all.tunnel = Some(record.bytes[end..].to_vec());
        }
        all.requests.extend(
            reading.requests.into_iter().filter(|request| !requests::is_own(request) && request.target != BARRIER),
        );
    }
    all
}

struct View<'a> {
    case: &'a Case<'a>,
    sent: &'a requests::Reading,
    arrived: &'a Arrived,
    got: &'a responses::Reading,
}

impl View<'_> {
    fn shortcomings(&self) -> Vec<String> {
        let mut faults = match self.case.entry.kind {
            Kind::Lawful => self.lawful(),
            Kind::MustRefuse => self.must_refuse(),
            Kind::May => Vec::new(),
        };
        if self.case.seen.closing == Closing::Open {
            faults.push("the connection is still open after two silences: a hang".to_owned());
        }
        faults
    }

    /// The requests that must arrive: all up to the one after which the connection ends.
    fn expected(&self) -> &[Request] {
        let requests = &self.sent.requests;
        let switched = self.arrived.tunnel.is_some();
        let last = requests.iter().position(|request| !request.persists() || (switched && request.upgrades()));
        &requests[..last.map_or(requests.len(), |at| at + 1)]
    }

    fn lawful(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let expected = self.expected();
        let mut left: Vec<&Request> = self.arrived.requests.iter().collect();
        for request in expected {
            match left.iter().position(|found| fidelity::same_request(request, found)) {
                Some(at) => faults.extend(fidelity::altered(request, left.remove(at))),
                None if request.target.starts_with(b"/early/") => {}
                None => faults.push(format!(
                    "{} {} did not arrive as sent",
                    request.method.escape_ascii(),
                    request.target.escape_ascii()
                )),
            }
        }
        // A request that waits with its body may be answered before it is complete.
        let most = expected.len() + usize::from(self.sent.partial.is_some());
        if !(expected.len()..=most).contains(&self.got.finals.len()) {
            faults.push(format!("{} answers to {} requests", self.got.finals.len(), expected.len()));
        }
        let follows = expected.last().is_some_and(|last| last.target == FOLLOWER);
        let own = self.got.finals.len().saturating_sub(usize::from(follows));
        let right = |status: u16| {
            if self.case.entry.statuses.is_empty() { status == 200 } else { self.case.entry.statuses.contains(&status) }
        };
        for answer in self.got.finals[..own].iter().filter(|answer| !right(answer.status)) {
            faults.push(format!("answered with {}", answer.status));
        }
        if let Some(tunnel) = &self.arrived.tunnel {
            faults.extend(self.tunnel(tunnel));
        }
        faults
    }

    /// Both directions of a tunnel carry what the client wrote after its head: the origin sends it back.
    fn tunnel(&self, arrived: &[u8]) -> Option<String> {
        let wire = wire(self.case.entry);
        let from = wire.windows(4).position(|end| end == b"\r\n\r\n").map_or(wire.len(), |at| at + 4);
        let same = arrived == &wire[from..] && self.got.tunnel == arrived;
        (!same).then(|| "the bytes of the tunnel differ".to_owned())
    }

    fn must_refuse(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let offending = self.offending();
        if self.arrived.requests.len() > offending {
            faults.push("it was forwarded".to_owned());
        }
        let statuses = &self.case.entry.statuses;
        let right = |status: u16| if statuses.is_empty() { status == 400 } else { statuses.contains(&status) };
        match self.got.finals.get(offending) {
            Some(answer) if !right(answer.status) => faults.push(format!("answered with {}", answer.status)),
            Some(_) => {}
            // Once a part of its body is on its way there may be nobody left to answer.
            None if self.arrived.truncated.is_some() && self.case.seen.closing != Closing::Open => {}
            None => faults.push("closed without an answer".to_owned()),
        }
        if self.got.finals.len() > offending + 1 {
            faults.push("the connection was used again after a refusal".to_owned());
        }
        faults
    }

    /// How many requests stand before the one that must be refused.
    fn offending(&self) -> usize {
        let no_method = |request: &Request| request.method == b"CONNECT" || request.method == b"TRACE";
        if let Some(at) = self.sent.requests.iter().position(no_method) {
            return at;
        }
        match &self.sent.stop {
            Stop::Bad(_) => self.sent.requests.len(),
            // It parses, and is refused for what it means (an expectation, a limit): the last of the entry.
            _ => self.sent.requests.iter().filter(|request| request.target != FOLLOWER).count().saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::parse;

    fn judged(entry: &str, origin: &[u8], client: &str) -> Judgement {
        let entry = &parse(&format!("class: c\n{entry}"))[0];
        let records = [Record { bytes: origin.to_vec(), tunnel_at: None }];
        let seen = Seen { bytes: client.as_bytes().to_vec(), closing: Closing::Finished };
        judge(&Case { entry, records: &records, seen: &seen }, Demand::Everything)
    }

    const PLAIN: &str = "== lawful | x | a\n> GET /a HTTP/1.1\n> Host: h\n> A: b\n>\n";
    const NO_HOST: &str = "== must-refuse | x | a\n> GET /a HTTP/1.1\n>\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

    fn with_follower(first: &[u8]) -> Vec<u8> {
        [first, b"GET /oracle-follower HTTP/1.1\r\nHost: follower.example\r\n\r\n"].concat()
    }

    #[test]
    fn a_request_forwarded_as_it_is_holds() {
        let origin = with_follower(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n");
        let judgement = judged(PLAIN, &origin, &OK.repeat(2));
        assert!(judgement.holds() && judgement.verdict == Verdict::Clean, "{judgement:?}");
    }

    #[test]
    fn each_way_to_harm_a_request_is_seen() {
        let origin = with_follower(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n");
        let twice = [&origin[..], b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"].concat();
        let wrong = [
            (with_follower(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"), OK.repeat(2)),
            (with_follower(b"GET /a HTTP/1.1\r\nHost: h\r\na: b\r\n\r\n"), OK.repeat(2)),
            (with_follower(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\nTE: x\r\n\r\n"), OK.repeat(2)),
            (with_follower(b"GET /b HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"), OK.repeat(2)),
            (Vec::new(), REFUSED.to_owned()),
            (twice, OK.repeat(2)),
            (origin[..20].to_vec(), REFUSED.to_owned()),
            (origin.clone(), OK.to_owned()),
            (origin, format!("{OK}HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n")),
        ];
        for (origin, client) in wrong {
            let judgement = judged(PLAIN, &origin, &client);
            assert!(!judgement.holds(), "{} / {client:?}", origin.escape_ascii());
        }
    }

    #[test]
    fn a_refusal_holds_only_with_its_answer_and_an_untouched_origin() {
        assert!(judged(NO_HOST, b"", REFUSED).holds());
        let forwarded = judged(NO_HOST, b"GET /a HTTP/1.1\r\n\r\n", OK);
        assert_eq!(forwarded.verdict, Verdict::Dirty);
        let repaired = judged(NO_HOST, b"GET /a HTTP/1.1\r\nHost: made-up\r\n\r\n", OK);
        assert!(!repaired.holds(), "{repaired:?}");
        let silent = judged(NO_HOST, b"", "");
        assert!(silent.verdict == Verdict::Closed && !silent.holds());
        assert!(!judged(NO_HOST, b"", &format!("{REFUSED}{OK}")).holds());
        assert!(!judged(NO_HOST, b"", &REFUSED.replace("400", "500")).holds());
    }

    #[test]
    fn a_completed_fragment_is_dirty() {
        let entry = "== may | x | a | end=close\n> POST /a HTTP/1.1\n> Host: h\n> Content-Length: 5\n>\n| ab\n";
        let origin = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(judged(entry, origin, OK).verdict, Verdict::Dirty);
        let cut = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab";
        let judgement = judged(entry, cut, "");
        assert!(judgement.verdict == Verdict::Truncated && judgement.holds(), "{judgement:?}");
    }
}
