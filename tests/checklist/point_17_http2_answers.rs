//! Point 17, from the other side: answers that no honest application of HTTP/2 gives. The client sees a failure or a break,
//! never a whole answer, and whoever asks next is served.

use crate::h2_world::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, block};
use crate::hostile::{House, Piece, Script, Then, answer, data, head, of_all, piece};

/// PUSH_PROMISE.
const PUSH_PROMISE: u8 = 5;

/// Tries each script: no answer of it is whole, the next request is served, and both are counted.
async fn never_whole(cases: Vec<(&str, Script)>) {
    let house = House::start(b"", &[]).await;
    let count = cases.len() as u64;
    for (what, case) in cases {
        house.never_whole(what, case).await;
    }
    house.counted("upstream_b", count).await;
    house.counted("", 2 * count).await;
}

fn heads(cases: &[(&'static str, &[(&'static str, &'static str)])]) -> Vec<(&'static str, Script)> {
    let script = |fields: &[(&str, &str)]| (vec![head(0, fields), data(END_STREAM, b"body")], Then::Serve);
    cases.iter().map(|(what, fields)| (*what, script(fields))).collect()
}

/// RFC 9113, sections 8.1.1, 8.2.1, 8.2.2 and 8.3.2.
#[tokio::test]
async fn heads_that_are_none() {
    const OK: (&str, &str) = (":status", "200");
    never_whole(heads(&[
        ("an upper-case name", &[OK, ("X-Upper", "1")]),
        ("a blank in a name", &[OK, ("x y", "1")]),
        ("a line break in a name", &[OK, ("x\r\ny", "1")]),
        ("an empty name", &[OK, ("", "1")]),
        ("CR in a value", &[OK, ("x", "1\r2")]),
        ("a field in a value", &[OK, ("x", "1\r\nset-cookie: evil")]),
        ("NUL in a value", &[OK, ("x", "1\x002")]),
        ("a blank before a value", &[OK, ("x", " 1")]),
        ("a blank behind a value", &[OK, ("x", "1 ")]),
        ("connection", &[OK, ("connection", "close")]),
        ("keep-alive", &[OK, ("keep-alive", "5")]),
        ("proxy-connection", &[OK, ("proxy-connection", "x")]),
        ("transfer-encoding", &[OK, ("transfer-encoding", "chunked")]),
        ("upgrade", &[OK, ("upgrade", "websocket")]),
        ("no status", &[("x", "1")]),
        ("two statuses", &[OK, (":status", "201")]),
        ("a status of letters", &[(":status", "abc")]),
        ("a status of two digits", &[(":status", "20")]),
        ("a status beyond all", &[(":status", "2000")]),
        ("a change of protocol", &[(":status", "101")]),
        ("a status behind a field", &[("x", "1"), OK]),
        ("a pseudo field that nobody knows", &[OK, (":x", "1")]),
        ("a length of letters", &[OK, ("content-length", "four")]),
        ("a length with a sign", &[OK, ("content-length", "+4")]),
        ("two lengths", &[OK, ("content-length", "4"), ("content-length", "5")]),
        ("a length beyond what comes", &[OK, ("content-length", "5")]),
        ("a length below what comes", &[OK, ("content-length", "3")]),
    ]))
    .await;
}

/// RFC 9113, sections 8.1 and 8.1.1, and 5.4 for the connection.
#[tokio::test]
async fn bodies_that_break_off() {
    let begun = || vec![answer(0, &[("content-length", "100")]), data(0, b"begun")];
    let chunked = || vec![answer(0, &[]), data(0, b"begun")];
    let and = |mut pieces: Vec<Piece>, piece| {
        pieces.push(piece);
        pieces
    };
    let reset = |code: u8| piece((RST_STREAM, 0), &[0, 0, 0, code]);
    let go_away = of_all((GOAWAY, 0), &[0, 0, 0, 0, 0, 0, 0, 1]);
    never_whole(vec![
        ("a reset within a length", (and(begun(), reset(8)), Then::Serve)),
        ("a reset within a body of any length", (and(chunked(), reset(2)), Then::Serve)),
        ("a reset without an error", (and(chunked(), reset(0)), Then::Serve)),
        ("a reset instead of an answer", (vec![reset(8)], Then::Serve)),
        ("the end of the connection within a length", (begun(), Then::Close)),
        ("the end of the connection within a body of any length", (chunked(), Then::Close)),
        ("the end of the connection instead of an answer", (vec![], Then::Close)),
        (
            "the end of the connection within a head",
            (vec![piece((HEADERS, 0), &block(&[(":status", "200")]))], Then::Close),
        ),
        ("the end of the connection behind GOAWAY", (and(chunked(), go_away), Then::Close)),
        ("the end of a stream before its length", (and(begun(), data(END_STREAM, b"")), Then::Serve)),
        ("trailers that do not end it", (and(chunked(), head(0, &[("x", "1")])), Then::Serve)),
        ("trailers with a line break", (and(chunked(), head(END_STREAM, &[("etag", "a\r\nb")])), Then::Serve)),
        ("data before a head", (vec![data(END_STREAM, b"body")], Then::Serve)),
        (
            "padding that is longer than its frame",
            (and(chunked(), piece((DATA, 8 | END_STREAM), &[200, 1])), Then::Serve),
        ),
        ("data of no stream", (and(chunked(), of_all((DATA, 0), b"x")), Then::Serve)),
        ("a head that is no HPACK", (vec![piece((HEADERS, END_HEADERS), &[0xff; 20])], Then::Serve)),
        (
            "a head that goes on elsewhere",
            (
                vec![piece((HEADERS, 0), &block(&[(":status", "200")])), of_all((CONTINUATION, END_HEADERS), b"")],
                Then::Serve,
            ),
        ),
        ("a promise", (and(chunked(), piece((PUSH_PROMISE, END_HEADERS), &[0, 0, 0, 2])), Then::Serve)),
        (
            "settings that break the rules",
            (and(chunked(), of_all((SETTINGS, 0), &[0, 4, 255, 255, 255, 255])), Then::Serve),
        ),
    ])
    .await;
}

/// RFC 9113, section 8.3: the library reads over pseudo fields that have no place there; what is passed on has none of them.
#[tokio::test]
async fn pseudo_fields_in_the_wrong_place_go_no_further() {
    let house = House::start(b"", &[]).await;
    for pieces in [
        vec![answer(0, &[(":path", "/")]), data(END_STREAM, b"body")],
        vec![answer(0, &[]), data(0, b"body"), answer(END_STREAM, &[("etag", "e")])],
    ] {
        house.play((pieces, Then::Serve));
        let answer = house.ask().await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str(), answer.headers.len()), (200, "body", 0));
        assert!(answer.trailers.is_none_or(|trailers| trailers.len() == 1 && trailers["etag"] == "e"));
    }
}

/// RFC 9113, section 10.5.1.
#[tokio::test]
async fn more_than_an_answer_may_have() {
    let names: Vec<String> = (0..120).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let long = "x".repeat(120);
    let wide: Vec<_> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
    let and_fields = |fields: &[(&str, &str)]| {
        let mut all = block(&[(":status", "200")]);
        all.extend_from_slice(&block(fields));
        all
    };
    let huge: Vec<u8> = (0..10).flat_map(|_| block(&wide)).collect();
    let mut pieces = vec![piece((HEADERS, 0), &block(&[(":status", "200")]))];
    pieces.extend(huge.chunks(16_000).map(|part| piece((CONTINUATION, 0), part)));
    pieces.push(piece((CONTINUATION, END_HEADERS | END_STREAM), b""));
    let interim: Vec<Piece> =
        (0..60).map(|_| head(0, &[(":status", "103")])).chain([answer(0, &[]), data(END_STREAM, b"body")]).collect();
    never_whole(vec![
        (
            "more than a hundred fields",
            (vec![piece((HEADERS, END_HEADERS), &and_fields(&many)), data(END_STREAM, b"body")], Then::Serve),
        ),
        ("a header section without end", (pieces, Then::Serve)),
        ("interim answers without end", (interim, Then::Serve)),
        ("an interim answer that ends the stream", (vec![head(END_STREAM, &[(":status", "103")])], Then::Serve)),
    ])
    .await;
}
