//! Point 13: the versions of HTTP that are spoken here are 1.1 and 1.0.

use crate::house::{House, MALFORMED, Refused};

/// RFC 9112, section 2.3: `HTTP/` in upper case, one digit, a dot, one digit.
#[tokio::test]
async fn what_is_no_version_is_refused() {
    let house = House::echoing(&[]).await;
    let versions = [
        "HTTP/1.10",
        "HTTP/11.1",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "http/1.1",
        "Http/1.1",
        "HTTPS/1.1",
        "HTTP/1,1",
        "HTTP /1.1",
        "HTTP/1.1x",
        "HTTP/a.b",
        "ICY",
        "HTTP/-1.1",
        "HTTP/1.2",
    ];
    house.refuses(MALFORMED, &versions.map(|version| format!("GET / {version}\r\nHost: h\r\n\r\n"))).await;
}

/// RFC 9110, section 15.6.6: a major version that is not spoken is 505.
#[tokio::test]
async fn another_major_version_is_505() {
    let house = House::echoing(&[]).await;
    let versions = ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/9.9"];
    let requests = versions.map(|version| format!("GET / {version}\r\nHost: h\r\n\r\n"));
    house.refuses(Refused(505, "version_not_supported"), &requests).await;
}

/// RFC 9112, section 2.3: a request without a version, as before HTTP/1.0, is none.
#[tokio::test]
async fn http_0_9_is_refused() {
    let house = House::echoing(&[]).await;
    house.refuses(MALFORMED, &["GET /\r\n\r\n", "GET / \r\n\r\n", "GET /\r\nHost: h\r\n\r\n"]).await;
}

/// RFC 9112, section 2.3: an answer in a version that nobody asked for is no answer.
#[tokio::test]
async fn an_answer_in_another_version_becomes_502() {
    House::replaces(&[
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.10 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ])
    .await;
}
