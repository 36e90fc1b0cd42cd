//! Point 21: Max-Forwards counts hops for OPTIONS, and TRACE goes nowhere.

use crate::house::{House, MALFORMED, Refused, values};

fn options(fields: &str) -> String {
    format!("OPTIONS /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// RFC 9110, section 7.6.2: it must be checked and counted down, and at 0 this is the last hop.
#[tokio::test]
async fn options_ends_here_when_no_hop_is_left() {
    let house = House::echoing(&[]).await;
    for (given, left) in [("1", "0"), ("10", "9"), ("007", "6")] {
        let seen = house.passed(options(&format!("Max-Forwards: {given}\r\n")));
        assert_eq!(values(&seen, "max-forwards"), [left], "{seen}");
    }
    let known = house.seen();
    let mut client = house.client();
    client.send(options("Max-Forwards: 0\r\n"));
    let answer = client.message();
    assert_eq!((answer.status(), answer.text().as_str()), (200, ""));
    assert_eq!(house.seen(), known, "it must not go on");
    client.send(options(""));
    assert_eq!(client.message().status(), 200, "the connection goes on");
}

/// RFC 9110, section 7.6.2: it is one number.
#[tokio::test]
async fn a_max_forwards_of_options_that_is_no_number_is_refused() {
    let house = House::echoing(&[]).await;
    let values = ["-1", "", "a", "1, 2", "1\r\nMax-Forwards: 0", "99999999999999999999"];
    house.refuses(MALFORMED, &values.map(|value| options(&format!("Max-Forwards: {value}\r\n")))).await;
}

/// RFC 9110, section 7.6.2: for other methods it may be ignored, and passes.
#[tokio::test]
async fn of_other_methods_it_passes_untouched() {
    let house = House::echoing(&[]).await;
    let seen = house.passed("GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(values(&seen, "max-forwards"), ["0"]);
}

/// RFC 9110, section 9.3.8: TRACE would show what proxies add, and is answered with 405.
#[tokio::test]
async fn trace_goes_nowhere() {
    let house = House::echoing(&[]).await;
    let requests = ["", "Max-Forwards: 0\r\n", "Max-Forwards: 5\r\n", "Cookie: secret\r\n"]
        .map(|fields| format!("TRACE / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    house.refuses(Refused(405, "method_not_allowed"), &requests).await;
}
