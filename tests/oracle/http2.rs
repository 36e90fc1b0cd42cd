//! The lane of HTTP/2: entries as frames to the peer, judged at the origin by the strict reader of HTTP/1.1.
//!
//! The same verdicts by the same rules: what arrives parses, there is never more of it than streams were opened, what is
//! lawful arrives as it was sent, and what is not never does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::Pace;
use crate::corpus::{End, Entry, Kind};
use crate::fidelity;
use crate::frames::{self, Answers, Outcome, Script, Sent};
use crate::grammar::{Body, Field, Framing};
use crate::origin::{BARRIER, FOLLOWER, Record};
use crate::requests::Request;
use crate::run::Lane;
use crate::verdict::{Arrived, Demand, Judgement, MORE, Verdict, arrived};

/// The stream of the request that follows an entry: higher than any of an entry.
const FOLLOWING: u32 = 9_999;
/// How long a silence may last before the client gives up.
const SILENCE: Duration = Duration::from_millis(2500);

/// What the client saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    answers: Answers,
    /// Whether the other side ended the connection.
    is_closed: bool,
}

impl Seen {
    fn outcome(&self, stream: u32) -> Outcome {
        self.answers.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// Whether nothing more is to come of these streams.
    fn is_over(&self, streams: &[u32]) -> bool {
        self.is_closed || streams.iter().all(|stream| self.outcome(*stream).is_over)
    }
}

impl Lane {
    /// Sends an entry's frames and judges what became of them.
    pub(crate) fn http2(&self, entry: &Entry, pace: Pace, demand: Demand) -> Judgement {
        let script = frames::script(&entry.bytes());
        let mut bytes = [frames::greeting(), script.bytes.clone()].concat();
        let mut streams: Vec<u32> = script.streams.iter().map(|sent| sent.stream).collect();
        if entry.end == End::Follow {
            bytes.extend(frames::get(FOLLOWING, FOLLOWER));
            streams.push(FOLLOWING);
        }
        let seen = exchange(self.peer.address, &bytes, &streams, pace);
        let barrier = [frames::greeting(), frames::get(1, BARRIER)].concat();
        exchange(self.peer.address, &barrier, &[1], Pace::Whole);
        judge(&Case { entry, script: &script, records: &self.origin.settle(), seen: &seen }, demand)
    }
}

/// Writes all of it, reads until each of the streams is over, and leaves.
fn exchange(address: SocketAddr, bytes: &[u8], streams: &[u32], pace: Pace) -> Seen {
    let mut stream = TcpStream::connect(address).expect("the peer listens");
    let _best_effort = stream.set_nodelay(true);
    let _best_effort = stream.set_write_timeout(Some(SILENCE));
    let _best_effort = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let pieces = if pace == Pace::Whole { 1 } else { 40 };
    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
        // who was refused may lose its connection while it still writes: the answer tells
        if stream.write_all(piece).is_err() {
            break;
        }
        std::thread::yield_now();
    }
    let (mut seen, mut all, mut buffer) = (Seen::default(), Vec::new(), vec![0; 64 * 1024]);
    let mut until = Instant::now() + SILENCE;
    while Instant::now() < until && !seen.is_over(streams) {
        match stream.read(&mut buffer) {
            Ok(0) => seen.is_closed = true,
            Ok(count) => {
                all.extend_from_slice(&buffer[..count]);
                seen.answers = frames::answers(&all);
                until = Instant::now() + SILENCE;
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => seen.is_closed = true,
        }
    }
    let _gone_is_fine = stream.shutdown(Shutdown::Both);
    seen
}

/// All that is known about one entry after its run.
struct Case<'a> {
    entry: &'a Entry,
    script: &'a Script,
    records: &'a [Record],
    seen: &'a Seen,
}

fn judge(case: &Case<'_>, demand: Demand) -> Judgement {
    let arrived = arrived(case.records);
    let mut faults = arrived.dirt.clone();
    let sent = case.script.streams.len() + usize::from(case.entry.end == End::Follow);
    if arrived.requests.len() > sent {
        faults.push(format!("{MORE}: {} arrived, {sent} were sent", arrived.requests.len()));
    }
    faults.extend(case.seen.answers.dirt.clone());
    let own = arrived.requests.iter().filter(|request| request.target != FOLLOWER).count();
    let is_told = case.seen.answers.go_away.is_some()
        || case.script.streams.iter().any(|sent| is_refusal(&case.seen.outcome(sent.stream)));
    let verdict = if !faults.is_empty() {
        Verdict::Dirty
    } else if arrived.truncated.is_some() {
        Verdict::Truncated
    } else if own > 0 {
        Verdict::Clean
    } else if is_told {
        Verdict::Refused
    } else {
        Verdict::Closed
    };
    if demand == Demand::Everything {
        faults.extend(match case.entry.kind {
            Kind::Lawful => lawful(case, &arrived),
            Kind::MustRefuse => must_refuse(case, own),
            Kind::May => Vec::new(),
        });
        faults.extend(followed(case, &arrived));
    }
    Judgement { verdict, faults }
}

/// An answer of the proxy's own against it, or a reset that is an error.
fn is_refusal(outcome: &Outcome) -> bool {
    outcome.reset.is_some() || outcome.status.is_some_and(|status| status >= 400)
}

/// Each stream has arrived as it was sent, and was answered.
fn lawful(case: &Case<'_>, arrived: &Arrived) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(place) = arrived.truncated {
        faults.push(format!("a complete request arrived cut off {place}"));
    }
    let mut left: Vec<&Request> = arrived.requests.iter().collect();
    for sent in &case.script.streams {
        let wanted = wanted(sent);
        match left.iter().position(|found| fidelity::same_request(&wanted, found)) {
            Some(at) => faults.extend(differs(&wanted, left.remove(at))),
            None => faults.push(format!("stream {} did not arrive as sent", sent.stream)),
        }
        let status = case.seen.outcome(sent.stream).status;
        let right = if case.entry.statuses.is_empty() { &[200][..] } else { &case.entry.statuses };
        if !status.is_some_and(|status| right.contains(&status)) {
            faults.push(format!("stream {} was answered with {status:?}", sent.stream));
        }
    }
    faults
}

fn differs(wanted: &Request, found: &Request) -> Option<String> {
    let host = |request: &Request| crate::grammar::values(&request.fields, "host").concat();
    if host(wanted) != host(found) {
        return Some(format!("its Host is {:?}, sent was {:?}", host(found), host(wanted)));
    }
    let mut trailers = wanted.body.trailers.iter();
    if !found.body.trailers.iter().all(|field| trailers.any(|sent| sent == field)) {
        return Some("it has trailers that were not sent".to_owned());
    }
    // fields of one name keep their order; what stands between them says nothing (9110 §5.3)
    let sorted = |request: &Request| {
        let mut request = request.clone();
        request.fields.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        request
    };
    fidelity::altered(&sorted(wanted), &sorted(found))
}

/// What HTTP/1.1 has to say of a stream (9113 §8.3.1, §8.2.3).
fn wanted(sent: &Sent) -> Request {
    let pseudo = |name: &str| crate::grammar::values(&sent.fields, name).concat();
    let (mut fields, mut crumbs): (Vec<Field>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    let authority = pseudo(":authority");
    if !authority.is_empty() {
        fields.push((b"host".to_vec(), authority));
    }
    for (name, value) in &sent.fields {
        match name.as_slice() {
            [b':', ..] => {}
            b"cookie" => crumbs.push(value.clone()),
            b"host" if !fields.is_empty() => {}
            _ => fields.push((name.clone(), value.clone())),
        }
    }
    if !crumbs.is_empty() {
        fields.push((b"cookie".to_vec(), crumbs.join(&b"; "[..])));
    }
    Request {
        method: pseudo(":method"),
        target: pseudo(":path"),
        minor: 1,
        fields,
        framing: Framing::None,
        body: Body { bytes: sent.data.clone(), trailers: sent.trailers.clone() },
    }
}

/// The last stream of the entry has not arrived, and its client was told.
fn must_refuse(case: &Case<'_>, own: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(offending) = case.script.streams.last() else {
        // frames of no stream: an error of the connection
        let is_told = case.seen.answers.go_away.is_some();
        return if is_told { Vec::new() } else { vec!["nobody was told".to_owned()] };
    };
    if own >= case.script.streams.len() {
        faults.push("it was forwarded".to_owned());
    }
    let outcome = case.seen.outcome(offending.stream);
    match outcome.status {
        Some(status) if !case.entry.statuses.is_empty() && !case.entry.statuses.contains(&status) => {
            faults.push(format!("answered with {status}"));
        }
        _ if is_refusal(&outcome) || case.seen.answers.go_away.is_some() => {}
        status => faults.push(format!("its client was not told: {status:?}")),
    }
    faults
}

/// The request behind an entry is served, unless the connection has ended with the entry.
fn followed(case: &Case<'_>, arrived: &Arrived) -> Option<String> {
    let is_served = arrived.requests.iter().any(|request| request.target == FOLLOWER)
        && case.seen.outcome(FOLLOWING).status == Some(200);
    let is_lost = case.entry.end == End::Follow && !is_served && case.seen.answers.go_away.is_none();
    is_lost.then(|| "the request behind it was lost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::parse;

    const PLAIN: &str = "== lawful | x | a\n> HEADERS 1 end\n> :method: GET\n> :scheme: http\n> :path: /a\n\
                         > :authority: h\n> a: b\n> cookie: c=1\n> cookie: d=2\n";
    const ARRIVED: &[u8] = b"GET /a HTTP/1.1\r\nhost: h\r\na: b\r\ncookie: c=1; d=2\r\n\r\n";
    const NEXT: &[u8] = b"GET /oracle-follower HTTP/1.1\r\nhost: follower.example\r\n\r\n";

    fn judged(entry: &str, origin: &[u8], answers: &[(u32, u16)]) -> Judgement {
        let entry = &parse(&format!("class: c\n{entry}"))[0];
        let script = frames::script(&entry.bytes());
        let records = [Record { bytes: origin.to_vec(), tunnel_at: None }];
        let told = |status| Outcome { status: Some(status), is_over: true, reset: None };
        let streams = answers.iter().map(|(stream, status)| (*stream, told(*status))).collect();
        let seen = Seen { answers: Answers { streams, ..Answers::default() }, is_closed: false };
        judge(&Case { entry, script: &script, records: &records, seen: &seen }, Demand::Everything)
    }

    #[test]
    fn a_stream_that_arrived_as_it_was_sent_holds_and_each_harm_is_seen() {
        let fine = [(1, 200), (FOLLOWING, 200)];
        let judgement = judged(PLAIN, &[ARRIVED, NEXT].concat(), &fine);
        assert!(judgement.holds() && judgement.verdict == Verdict::Clean, "{judgement:?}");
        let altered = |from: &str, to: &str| {
            let text = String::from_utf8([ARRIVED, NEXT].concat()).expect("text");
            text.replacen(from, to, 1).into_bytes()
        };
        let wrong = [
            altered("a: b\r\n", ""),
            altered("c=1; d=2", "c=1"),
            altered("/a", "/b"),
            altered("host: h\r\n", "host: i\r\n"),
            altered("host: h\r\n", ""),
            altered("a: b\r\n", "a: b\r\nte: x\r\n"),
            altered("a: b\r\n", "a: b\nc: d\r\n"),
            [ARRIVED, ARRIVED, NEXT].concat(),
            ARRIVED.to_vec(),
            NEXT.to_vec(),
            Vec::new(),
        ];
        for origin in wrong {
            let judgement = judged(PLAIN, &origin, &fine);
            assert!(!judgement.holds(), "{}", origin.escape_ascii());
        }
        assert!(!judged(PLAIN, &[ARRIVED, NEXT].concat(), &[(1, 502), (FOLLOWING, 200)]).holds());
        assert!(!judged(PLAIN, &[ARRIVED, NEXT].concat(), &[(1, 200)]).holds());
    }

    #[test]
    fn a_refusal_holds_only_if_it_is_told_and_the_origin_untouched() {
        let entry = PLAIN.replace("lawful", "must-refuse");
        assert!(judged(&entry, NEXT, &[(1, 400), (FOLLOWING, 200)]).holds());
        assert!(!judged(&entry, &[ARRIVED, NEXT].concat(), &[(1, 400), (FOLLOWING, 200)]).holds());
        assert!(!judged(&entry, NEXT, &[(1, 204), (FOLLOWING, 200)]).holds());
        assert!(!judged(&entry, NEXT, &[(FOLLOWING, 200)]).holds());
    }
}
