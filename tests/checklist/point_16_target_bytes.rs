//! Point 16: the target goes on byte for byte.

use crate::house::House;

/// RFC 3986, section 6, is for labels: whoever rewrites a target decides in the application's place what it means.
#[tokio::test]
async fn targets_are_neither_decoded_nor_shortened() {
    let house = House::echoing(&[]).await;
    for target in [
        "/a/../b",
        "/./a/.",
        "/..",
        "//a//b",
        "/%2e%2e/%2F",
        "/%00%0d%0aX:%20y",
        "/a%",
        "/a%zz",
        "/%C3%A4",
        "/a;b=c;d",
        "/?",
        "/??a=b&&",
        "/?a=%20+b",
        "/a?b=http://c/d?e",
        "/~a!$&'()*+,;=:@",
        "/a|b^c`d{e}",
        "/\"a\"",
        "/a\\b",
        "/[a]",
        "/A/a",
    ] {
        let seen = house.passed(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(seen.lines().next(), Some(format!("GET {target} HTTP/1.1").as_str()));
    }
}

/// RFC 3986, section 6, serves labels only. A label for each path would be a series for each client's whim: labels are templates of routes, or none.
#[tokio::test]
async fn no_target_becomes_a_label() {
    let house = House::echoing(&[]).await;
    for number in 0..20 {
        house.passed(format!("GET /whim-{number}?key=whim HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    let page = house.sidecar.metrics().await;
    assert!(!page.contains("whim"), "{page}");
}
