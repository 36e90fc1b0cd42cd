//! Publishes that the application only answers: counted from the answers of the route that is tapped, which pass unchanged.

use crate::raw::{Client, origin};
use crate::rig::Sidecar;

pub(crate) const ROUTE: &str = "/social-media/publish-video/{video_id}";
pub(crate) const ANSWERS: &str = "content_factory_business_publish_answers_total";
const RATIO: &str = "content_factory_business_publish_success_ratio";

/// An application that publishes on three platforms, and has an OpenAPI document.
pub(crate) fn application() -> std::net::SocketAddr {
    origin(|_, mut client| {
        while let Some(request) = client.try_message() {
            let target = request.head.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = match target.as_str() {
                "/openapi.json" => ("200 OK", format!(r#"{{"paths": {{"{ROUTE}": {{}}, "/other/{{id}}": {{}}}}}}"#)),
                "/social-media/publish-video/13" => ("500 Internal Server Error", "oops".to_owned()),
                "/social-media/publish-video/14" => {
                    ("200 OK", format!(r#"{{"results": [], "x": "{}"}}"#, "x".repeat(100_000)))
                }
                _ => {
                    let results = r#"[{"status": "published"}, {"status": "published"}, {"status": "failed", "error": "canary"}]"#;
                    ("200 OK", format!(r#"{{"video_id": 7, "results": {results}}}"#))
                }
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            client.send(head + &body);
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_result_of_a_tapped_answer_counts_and_answers_of_other_routes_do_not() {
    let sidecar = Sidecar::start(application(), &[], &[("SIDECAR_PROXY__TAPS", ROUTE)]).await;
    sidecar.says(&["route templates read"]).await;
    let mut client = Client::new(sidecar.proxy);
    for (target, status, length) in [
        ("/social-media/publish-video/7", 200, 119),
        ("/social-media/publish-video/13", 500, 4),
        ("/social-media/publish-video/14", 200, 100_024),
        ("/other/7", 200, 119),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status(), answer.body.len()), (status, length), "{}", answer.text());
    }
    let page = sidecar.metrics().await;
    for (series, value) in [
        (format!(r#"{ANSWERS}{{outcome="published"}}"#), 2.0),
        (format!(r#"{ANSWERS}{{outcome="failed"}}"#), 2.0),
        (format!(r#"{ANSWERS}{{outcome="other"}}"#), 0.0),
        (format!(r#"{ANSWERS}{{outcome="unread"}}"#), 1.0),
        (format!(r#"{RATIO}{{source="answers"}}"#), 0.5),
    ] {
        let found = page.lines().find_map(|line| line.strip_prefix(series.as_str())?.trim().parse::<f64>().ok());
        assert_eq!(found, Some(value), "{series} in {page}");
    }
    assert!(!page.contains("canary"), "{page}");
}
