//! Point 24: a name with `_` that servers read as one with `-` does not pass for it.

use crate::house::{House, get, post, values};

/// RFC 3875, section 4.1.18: WSGI and its like make `HTTP_X_FORWARDED_FOR` of both, and the stranger's may win.
#[tokio::test]
async fn names_that_collide_with_ours_are_dropped() {
    for settings in [&[][..], &[("SIDECAR_PROXY__TRUSTED_PROXIES", "127.0.0.0/8")]] {
        let house = House::echoing(settings).await;
        for name in [
            "X_Forwarded_For",
            "X-Forwarded_For",
            "x_forwarded-for",
            "X_FORWARDED_PROTO",
            "X_Forwarded_Host",
            "X_Forwarded_Port",
            "X_Real_IP",
            "X-Real_IP",
            "Proxy_Authorization",
            "Proxy_Connection",
            "Keep_Alive",
            "Max_Forwards",
            "User_Agent",
            "Content_Type",
        ] {
            let seen = house.passed(get(&format!("{name}: evil\r\n")));
            assert!(!seen.contains("evil"), "{name}: {seen}");
        }
    }
}

/// RFC 9112, section 6: least of all one that a server may take for the framing.
#[tokio::test]
async fn names_that_collide_with_the_framing_are_dropped() {
    let house = House::echoing(&[]).await;
    let seen = house.passed(post("Content-Length: 2\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n", "ok"));
    assert!(values(&seen, "content_length").is_empty() && values(&seen, "transfer_encoding").is_empty(), "{seen}");
    assert!(seen.ends_with("\r\n\r\nok"), "{seen}");
}

/// RFC 9110, section 5.1: a name that collides with nothing of ours is the application's.
#[tokio::test]
async fn other_names_with_underscores_pass() {
    let house = House::echoing(&[]).await;
    let seen = house.passed(get("my_field: 1\r\nX_Request_ID: 2\r\nX_Forwarded_Forest: 3\r\n"));
    for (name, value) in [("my_field", "1"), ("x_request_id", "2"), ("x_forwarded_forest", "3")] {
        assert_eq!(values(&seen, name), [value], "{seen}");
    }
}
