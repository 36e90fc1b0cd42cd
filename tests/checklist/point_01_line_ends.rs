//! Point 1: lines end in CR LF, and nothing else does; no control characters in values.

use crate::house::{House, MALFORMED, get};

/// RFC 9112, section 2.2: a bare CR is no end of a line, and no blank either.
#[tokio::test]
async fn a_bare_cr_in_a_request_is_refused() {
    let house = House::echoing(&[]).await;
    let requests = [
        "GET / HTTP/1.1\rHost: h\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\rX: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX\r: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\r\r\n\r\n",
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 2.2: a recipient may take a bare LF for an end; ours never does, in any place.
#[tokio::test]
async fn a_bare_lf_in_a_request_is_refused() {
    let house = House::echoing(&[]).await;
    let requests = [
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\nY: b\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nETag: 1\n\r\n",
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9110, section 5.5: NUL, CR and LF in a value are dangerous, other control characters invalid.
#[tokio::test]
async fn every_control_character_in_a_request_is_refused() {
    let house = House::echoing(&[]).await;
    let controls = (0..0x20_u8).chain([0x7f]).filter(|byte| *byte != b'\t');
    let in_value = controls.clone().map(|byte| get(&format!("X: a{}b\r\n", char::from(byte))));
    let in_name = controls.clone().map(|byte| get(&format!("X{}Y: a\r\n", char::from(byte))));
    let in_target = controls.map(|byte| format!("GET /a{}b HTTP/1.1\r\nHost: h\r\n\r\n", char::from(byte)));
    house.refuses(MALFORMED, &in_value.chain(in_name).chain(in_target).collect::<Vec<_>>()).await;
}

/// RFC 9110, section 5.5: a tab and bytes beyond ASCII are lawful in a value, and stay as they are.
#[tokio::test]
async fn tabs_and_bytes_beyond_ascii_in_a_value_pass() {
    let house = House::echoing(&[]).await;
    let seen = house.passed("GET / HTTP/1.1\r\nHost: h\r\nX: a\tb\r\nY: gr\u{fc}n\r\n\r\n");
    assert!(seen.contains("\r\nX: a\tb\r\nY: gr\u{fc}n\r\n"), "{seen}");
}

/// RFC 9112, section 2.2, and RFC 9110, section 5.5: the same of the application.
#[tokio::test]
async fn an_answer_with_bare_line_ends_or_control_characters_becomes_502() {
    House::replaces(&[
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\u{1}b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\u{7f}b\r\nContent-Length: 0\r\n\r\n",
    ])
    .await;
}
