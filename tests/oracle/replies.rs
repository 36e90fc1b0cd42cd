//! The verdict on one response entry: the origin played raw bytes, the client asked, and asked again.

use crate::client::Seen;
use crate::corpus::{End, Entry, Kind};
use crate::fidelity;
use crate::grammar::{Field, Grammar, Stop, is, members};
use crate::origin::FOLLOWER_BODY;
use crate::responses::{self, Closing, Reading};
use crate::verdict::{Demand, Judgement, Verdict};

/// A mark in bytes that no client may ever be given as an answer of its own.
pub(crate) const POISON: &[u8] = b"POISON";

/// More interim responses than any application sends; the RFCs name no limit.
const MOST_INTERIM: usize = 1000;

/// All that is known about one response entry after its run.
pub(crate) struct Reply<'a> {
    /// The entry; its bytes are what the origin sent.
    pub(crate) entry: &'a Entry,
    /// What the client saw that asked for it, and asked for the follower on the same connection.
    pub(crate) first: &'a Seen,
    /// What the next client saw, which asked only for the follower.
    pub(crate) next: &'a Seen,
}

/// The request that provokes the response, by the name that entries use.
pub(crate) fn ask(what: &str) -> Vec<u8> {
    let text = match what {
        "get" => "GET /played HTTP/1.1\r\nHost: h\r\n\r\n",
        "head" => "HEAD /played HTTP/1.1\r\nHost: h\r\n\r\n",
        "post" => "POST /played HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "http10" => "GET /played HTTP/1.0\r\nHost: h\r\n\r\n",
        "te" => "GET /played HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
        "websocket" => {
            "GET /played HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        }
        other => panic!("ask={other}, expected get, head, post, http10, te or websocket"),
    };
    text.as_bytes().to_vec()
}

fn method(what: &str) -> Vec<u8> {
    ask(what).split(|&byte| byte == b' ').next().expect("a method").to_vec()
}

/// Judges one response entry.
pub(crate) fn judge(reply: &Reply<'_>, demand: Demand) -> Judgement {
    let entry = reply.entry;
    let methods = [method(&entry.ask), b"GET".to_vec()];
    let played = played(entry);
    let got = responses::read(&reply.first.bytes, &methods, reply.first.closing, Grammar::Canonical);
    let next = responses::read(&reply.next.bytes, &methods[1..], reply.next.closing, Grammar::Canonical);
    let dirt = dirt(reply, &played, &got, &next);
    let passed = got.finals.first().is_some_and(|answer| !answered_by_proxy(answer.status, &played));
    let verdict = if !dirt.is_empty() {
        Verdict::Dirty
    } else if passed {
        Verdict::Clean
    } else if got.partial.is_some() || matches!(got.stop, Stop::Short(_)) {
        Verdict::Truncated
    } else if got.finals.is_empty() {
        Verdict::Closed
    } else {
        Verdict::Refused
    };
    let mut faults = dirt;
    if demand == Demand::Everything {
        faults.extend(shortcomings(reply, &played, &got, verdict));
    }
    Judgement { verdict, faults }
}

/// The response that the entry is, read as a lawful one.
fn played(entry: &Entry) -> Reading {
    let ended = if entry.end == End::Close { Closing::Finished } else { Closing::Open };
    responses::read(&entry.bytes(), &[method(&entry.ask)], ended, Grammar::Lawful)
}

/// Whether the entry is lawful as far as it goes, and only lacks its end.
pub(crate) fn is_cut(entry: &Entry) -> bool {
    let played = played(entry);
    played.finals.is_empty() && !matches!(played.stop, Stop::Bad(_))
}

/// Whether the entry is one whole response and nothing else.
pub(crate) fn is_whole(entry: &Entry) -> bool {
    let played = played(entry);
    played.finals.len() == 1 && played.stop == Stop::Clean
}

/// An error that the origin did not send.
fn answered_by_proxy(status: u16, played: &Reading) -> bool {
    (502..=504).contains(&status) && played.finals.first().is_none_or(|sent| sent.status != status)
}

fn dirt(reply: &Reply<'_>, played: &Reading, got: &Reading, next: &Reading) -> Vec<String> {
    let mut dirt = Vec::new();
    for (who, reading) in [("the client", got), ("the next client", next)] {
        if let Stop::Bad(why) = &reading.stop {
            dirt.push(format!("{who} got {why}"));
        }
    }
    let complete = got.finals.first().is_some_and(|answer| !answered_by_proxy(answer.status, played));
    if complete && matches!(played.stop, Stop::Short(_)) && played.finals.is_empty() {
        dirt.push("a response that was cut off looks complete to the client".to_owned());
    }
    let follower = got.finals.get(1).into_iter().chain(&next.finals);
    for answer in follower.filter(|answer| answer.body.bytes != FOLLOWER_BODY && answer.status < 500) {
        dirt.push(format!("another request was answered with {:?}", answer.body.bytes.escape_ascii().to_string()));
    }
    match got.finals.first() {
        Some(switched) if switched.status == 101 => {
            let asked = reply.entry.ask == "websocket" && asked_for(&switched.fields);
            if !asked {
                dirt.push("a change to a protocol that was not asked for".to_owned());
            }
        }
        Some(_) if poisoned(&reply.first.bytes[got.first_end..]) => {
            dirt.push("bytes beyond the end of a response reached its client".to_owned());
        }
        _ => {}
    }
    if poisoned(&reply.next.bytes) {
        dirt.push("bytes beyond the end of a response reached the next client".to_owned());
    }
    dirt
}

/// The one protocol that was asked for, in any case (9110 §7.8).
fn asked_for(fields: &[Field]) -> bool {
    matches!(members(fields, "upgrade").as_slice(), [one] if is(one, "websocket"))
}

fn poisoned(bytes: &[u8]) -> bool {
    bytes.windows(POISON.len()).any(|part| part == POISON)
}

fn shortcomings(reply: &Reply<'_>, played: &Reading, got: &Reading, verdict: Verdict) -> Vec<String> {
    let mut faults = Vec::new();
    match reply.entry.kind {
        Kind::Lawful => faults.extend(lawful(reply.entry, played, got)),
        Kind::MustRefuse if verdict == Verdict::Clean => faults.push("it was passed on as a whole".to_owned()),
        Kind::MustRefuse if got.interim.len() > MOST_INTERIM => {
            faults.push(format!("{} interim responses were passed on", got.interim.len()));
        }
        Kind::MustRefuse => faults.extend(wrong_status(reply.entry, got)),
        Kind::May => {}
    }
    if reply.first.closing == Closing::Open || reply.next.closing == Closing::Open {
        faults.push("the connection is still open after two silences: a hang".to_owned());
    }
    let served = reply.next.bytes.starts_with(b"HTTP/1.1 200 ") && reply.next.bytes.ends_with(FOLLOWER_BODY);
    if !served {
        faults.push(format!("the next client got {:?}", reply.next.bytes.escape_ascii().to_string()));
    }
    faults
}

fn wrong_status(entry: &Entry, got: &Reading) -> Option<String> {
    let right = |status: u16| if entry.statuses.is_empty() { status == 502 } else { entry.statuses.contains(&status) };
    let first = got.finals.first()?;
    (!right(first.status)).then(|| format!("answered with {}, expected 502", first.status))
}

fn lawful(entry: &Entry, played: &Reading, got: &Reading) -> Vec<String> {
    let mut faults = Vec::new();
    match (played.finals.first(), got.finals.first()) {
        (Some(sent), Some(found)) => faults.extend(fidelity::altered_response(sent, found)),
        (Some(_), None) => faults.push("no complete answer".to_owned()),
        (None, _) => faults.push("the entry itself holds no complete response: not lawful".to_owned()),
    }
    let old = entry.ask == "http10";
    let sent: Vec<u16> = played.interim.iter().map(|(_, interim)| interim.status).filter(|_| !old).collect();
    let found: Vec<u16> = got.interim.iter().filter(|(at, _)| *at == 0).map(|(_, interim)| interim.status).collect();
    if sent != found {
        faults.push(format!("interim responses {found:?}, the origin sent {sent:?}"));
    }
    if played.tunnel != got.tunnel {
        faults.push("the bytes of the tunnel differ".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::parse;

    const ENTRY: &str = "> HTTP/1.1 200 OK\n> Content-Length: 3\n>\n| abc\n";
    const ABC: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    const FOLLOWED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfollower";
    const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

    fn judged(entry: &str, first: &str, next: &str, closing: Closing) -> Judgement {
        let entry = &parse(&format!("class: c\n{entry}"))[0];
        let first = &Seen { bytes: first.as_bytes().to_vec(), closing };
        let next = &Seen { bytes: next.as_bytes().to_vec(), closing: Closing::Finished };
        judge(&Reply { entry, first, next }, Demand::Everything)
    }

    #[test]
    fn a_response_passed_on_holds_and_a_changed_one_does_not() {
        let lawful = format!("== lawful | x | a\n{ENTRY}");
        let first = format!("{ABC}{FOLLOWED}");
        assert!(judged(&lawful, &first, FOLLOWED, Closing::Finished).holds());
        let others = [first.replace("200", "201"), first.replace("abc", "abd"), BAD_GATEWAY.to_owned(), String::new()];
        for other in others {
            assert!(!judged(&lawful, &other, FOLLOWED, Closing::Finished).holds(), "{other}");
        }
        assert!(!judged(&lawful, &first, "", Closing::Finished).holds());
        assert!(!judged(&lawful, &first, FOLLOWED, Closing::Open).holds());
    }

    #[test]
    fn a_cut_response_must_look_cut() {
        let cut = "== must-refuse | x | a | end=close\n> HTTP/1.1 200 OK\n> Content-Length: 5\n>\n| abc\n";
        let whole = judged(cut, ABC, FOLLOWED, Closing::Finished);
        assert_eq!(whole.verdict, Verdict::Dirty);
        let open_ended = judged(cut, "HTTP/1.1 200 OK\r\n\r\nabc", FOLLOWED, Closing::Finished);
        assert_eq!(open_ended.verdict, Verdict::Dirty);
        let broken = judged(cut, &ABC.replace("h: 3", "h: 5"), FOLLOWED, Closing::Finished);
        assert!(broken.verdict == Verdict::Truncated && broken.holds(), "{broken:?}");
        assert!(judged(cut, BAD_GATEWAY, FOLLOWED, Closing::Finished).holds());
    }

    #[test]
    fn bytes_beyond_the_end_must_reach_nobody() {
        let text = "== may | x | a\n> HTTP/1.1 200 OK\n> Content-Length: 3\n>\n| abcPOISON\n";
        let poison = FOLLOWED.replace("follower", "POISONED");
        assert_eq!(judged(text, &format!("{ABC}{poison}"), FOLLOWED, Closing::Finished).verdict, Verdict::Dirty);
        assert_eq!(judged(text, ABC, &poison, Closing::Finished).verdict, Verdict::Dirty);
        assert_eq!(judged(text, &format!("{ABC}POISON"), FOLLOWED, Closing::Finished).verdict, Verdict::Dirty);
        assert!(judged(text, ABC, FOLLOWED, Closing::Finished).holds());
    }
}
