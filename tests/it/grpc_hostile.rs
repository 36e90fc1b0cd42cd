//! Answers that no honest application of HTTP/2 gives: the client sees a failure or a break, never a whole answer, and
//! whoever asks next is served (point 17 of the checklist, from the other side; RFC 9113, sections 8.1 to 8.3).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::h2_requests::counted;
use crate::h2_world::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, ask, block, connect,
    encode, request,
};
use crate::proxy_world::spawn;
use crate::rig::Sidecar;

/// PUSH_PROMISE.
const PUSH_PROMISE: u8 = 5;

/// A frame of an answer; on stream 0 it is of the connection.
#[derive(Clone, Debug)]
struct Piece {
    kind: (u8, u8),
    payload: Vec<u8>,
    is_of_connection: bool,
}

/// What is done behind the last piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Serve,
    Close,
}

type Script = (Vec<Piece>, Then);

fn piece(kind: (u8, u8), payload: &[u8]) -> Piece {
    Piece { kind, payload: payload.to_vec(), is_of_connection: false }
}

fn head(flags: u8, fields: &[(&str, &str)]) -> Piece {
    piece((HEADERS, END_HEADERS | flags), &block(fields))
}

/// 200 with further fields.
fn answer(flags: u8, fields: &[(&'static str, &'static str)]) -> Piece {
    let fields: Vec<_> = [(":status", "200")].into_iter().chain(fields.iter().copied()).collect();
    head(flags, &fields)
}

fn data(flags: u8, bytes: &[u8]) -> Piece {
    piece((DATA, flags), bytes)
}

/// An application that answers once by its script, and then as it should.
async fn application(script: Arc<Mutex<Option<Script>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            spawn(async move {
                let _the_other_side_may_go_at_any_time = serve(stream, script).await;
            });
        }
    });
    address
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Option<Script>>>) -> std::io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    if preface != *PREFACE {
        return Ok(()); // the sidecar's own questions
    }
    stream.write_all(&encode((SETTINGS, 0), 0, b"")).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        if head[3] != HEADERS {
            continue;
        }
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let good = (vec![answer(0, &[]), data(END_STREAM, b"good")], Then::Serve);
        let (pieces, then) = script.lock().expect("no panic").take().unwrap_or(good);
        for Piece { kind, payload, is_of_connection } in pieces {
            stream.write_all(&encode(kind, if is_of_connection { 0 } else { id }, &payload)).await?;
        }
        match then {
            Then::Serve => {}
            Then::Close => return Ok(()),
        }
    }
}

/// Tries each script: no answer of it is whole, and the next request is served.
async fn never_whole(cases: Vec<(&str, Script)>) {
    let script = Arc::new(Mutex::new(None));
    let upstream = application(Arc::clone(&script)).await;
    let sidecar = Sidecar::start(upstream, &[], &[("SIDECAR_PROXY__UPSTREAM_PROTOCOL", "h2c")]).await;
    let client = connect(sidecar.proxy).await.expect("a connection");
    let count = cases.len() as u64;
    for (what, case) in cases {
        *script.lock().expect("no panic") = Some(case);
        match ask(&client, request("POST", "/bad")).await {
            Ok(answer) => assert_eq!(answer.status, 502, "{what}: {answer:?}"),
            Err(error) => assert!(error.is_reset(), "{what}: {error}"),
        }
        assert!(script.lock().expect("no panic").is_none(), "{what}: it was not asked");
        let answer =
            ask(&client, request("POST", "/good")).await.unwrap_or_else(|error| panic!("behind {what}: {error}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"), "behind {what}");
    }
    let page = sidecar.metrics().await;
    assert_eq!((counted(&page, &["upstream_b"]), counted(&page, &[])), (count, 2 * count), "{page}");
}

fn heads(cases: &[(&'static str, &[(&'static str, &'static str)])]) -> Vec<(&'static str, Script)> {
    let script = |fields: &[(&str, &str)]| (vec![head(0, fields), data(END_STREAM, b"body")], Then::Serve);
    cases.iter().map(|(what, fields)| (*what, script(fields))).collect()
}

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

#[tokio::test]
async fn bodies_that_break_off() {
    let begun = || vec![answer(0, &[("content-length", "100")]), data(0, b"begun")];
    let chunked = || vec![answer(0, &[]), data(0, b"begun")];
    let and = |mut pieces: Vec<Piece>, piece| {
        pieces.push(piece);
        pieces
    };
    let reset = |code: u8| piece((RST_STREAM, 0), &[0, 0, 0, code]);
    let of_all = |kind, payload: &[u8]| Piece { is_of_connection: true, ..piece(kind, payload) };
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

/// The library reads over pseudo fields that have no place there; what is passed on has none of them.
#[tokio::test]
async fn pseudo_fields_in_the_wrong_place_go_no_further() {
    let script = Arc::new(Mutex::new(None));
    let upstream = application(Arc::clone(&script)).await;
    let sidecar = Sidecar::start(upstream, &[], &[("SIDECAR_PROXY__UPSTREAM_PROTOCOL", "h2c")]).await;
    let client = connect(sidecar.proxy).await.expect("a connection");
    for pieces in [
        vec![answer(0, &[(":path", "/")]), data(END_STREAM, b"body")],
        vec![answer(0, &[]), data(0, b"body"), answer(END_STREAM, &[("etag", "e")])],
    ] {
        *script.lock().expect("no panic") = Some((pieces, Then::Serve));
        let answer = ask(&client, request("POST", "/x")).await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str(), answer.headers.len()), (200, "body", 0));
        assert!(answer.trailers.is_none_or(|trailers| trailers.len() == 1 && trailers["etag"] == "e"));
    }
}

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
