//! Point 22: `Via` under a pseudonym, by which a loop is seen.

use crate::house::{House, Refused, get, values};

const NAMED: [(&str, &str); 1] = [("SIDECAR_PROXY__VIA", "edge-7")];

/// RFC 9110, section 7.6.3: the version that was received, then our name, behind those who came before.
#[tokio::test]
async fn our_pseudonym_is_added_behind_the_others() {
    let house = House::echoing(&NAMED).await;
    assert_eq!(values(&house.passed(get("")), "via"), ["1.1 edge-7"]);
    let seen = house.passed(get("Via: 1.0 fred, 1.1 p.example (Apache)\r\n"));
    assert_eq!(values(&seen, "via"), ["1.0 fred, 1.1 p.example (Apache)", "1.1 edge-7"]);
    let seen = house.passed("GET / HTTP/1.0\r\nHost: h\r\nVia: 1.1 a\r\n\r\n");
    assert_eq!(values(&seen, "via"), ["1.1 a", "1.0 edge-7"]);
}

/// RFC 9110, section 7.6.3: our own name in it is a loop.
#[tokio::test]
async fn a_request_that_comes_back_is_502() {
    let house = House::echoing(&NAMED).await;
    let loops = [
        "1.1 edge-7",
        "1.0 edge-7",
        "HTTP/1.1 edge-7",
        "1.1  edge-7",
        "1.1\tedge-7",
        "1.1 a, 1.1 edge-7, 1.1 b",
        "1.1 a,1.1 edge-7 (x)",
        "1.1 a\r\nVia: 1.1 edge-7",
    ];
    house.refuses(Refused(502, "proxy_loop"), &loops.map(|via| get(&format!("Via: {via}\r\n")))).await;
}

/// RFC 9110, section 7.6.3: another name is another proxy.
#[tokio::test]
async fn similar_names_are_no_loop() {
    let house = House::echoing(&NAMED).await;
    for via in ["1.1 edge-70", "1.1 my-edge-7", "1.1 a (edge-7)", "edge-7 a", "1.1 edge-7.example", ""] {
        house.passed(get(&format!("Via: {via}\r\n")));
    }
}

/// RFC 9110, section 7.6.3, whose field applications rarely want: it is written only under a name that was chosen.
#[tokio::test]
async fn without_a_pseudonym_none_is_written() {
    let house = House::echoing(&[]).await;
    assert!(values(&house.passed(get("")), "via").is_empty());
    assert_eq!(values(&house.passed(get("Via: 1.1 a\r\n")), "via"), ["1.1 a"]);
}
