//! The egress port, byte by byte on both sides: what passes, what is counted, and what is left alone.

use std::net::SocketAddr;
use std::sync::mpsc;

use crate::raw::{Client, Message, echo_all, origin};
use crate::rig::{Sidecar, echo_application};

pub(crate) const DURATIONS: &str = "gen_ai_client_operation_duration_seconds_count";
const TOKENS: &str = "gen_ai_client_token_usage_sum";

/// A sidecar before this service, and its port for calls.
pub(crate) async fn sidecar(service: SocketAddr, environment: &[(&str, &str)]) -> (Sidecar, SocketAddr) {
    sidecar_of(service, &[], environment).await
}

/// The same with these arguments.
pub(crate) async fn sidecar_of(
    service: SocketAddr,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Sidecar, SocketAddr) {
    let service = format!("http://{service}");
    let egress = [
        ("SIDECAR_EGRESS__ENABLED", "true"),
        ("SIDECAR_EGRESS__LISTEN", "127.0.0.1:0"),
        ("SIDECAR_EGRESS__UPSTREAM", service.as_str()),
    ];
    let environment = [&egress, environment].concat();
    let mut sidecar = Sidecar::start(echo_application().await, arguments, &environment).await;
    let line = sidecar.line().await.expect("a line for each address");
    let (address, leads_to) = line.split_once(" -> ").expect("the line says where it leads");
    assert_eq!(leads_to, service);
    let address = address.strip_prefix("egress http://").expect("a line of the egress port");
    let address = address.parse().expect("an address with a port");
    (sidecar, address)
}

pub(crate) fn post(path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: ai\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Waits until a series with these labels stands on `/metrics` with this value.
pub(crate) async fn becomes(sidecar: &Sidecar, name: &str, labels: &[&str], value: &str) {
    let is_it = |line: &str| {
        let is_named = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        is_named && labels.iter().all(|label| line.contains(label)) && line.ends_with(&format!(" {value}"))
    };
    sidecar.eventually("/metrics", |_, page| page.lines().any(is_it)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_passes_byte_for_byte_both_ways() {
    let (sidecar, egress) = sidecar(origin(|_, mut client| echo_all(&mut client)), &[]).await;
    let json = "Content-Type: application/json\r\n";
    let mut client = Client::new(egress);
    for (fields, body) in [
        (json, &b"{\"model\": \"x\", nonsense \xff\x00"[..]),
        (json, b""),
        (json, b"]]]]}}}}"),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", b"\x1f\x8b\x08\x00"),
        ("Content-Type: multipart/form-data; boundary=x\r\n", b"--x\r\n\r\n{\"model\":\"no\"}\r\n--x--"),
    ] {
        client.send(post("/v1/chat/completions?a=%2F&b", fields, body));
        let Message { head, body: answer } = client.message();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(answer.starts_with(b"POST /v1/chat/completions?a=%2F&b HTTP/1.1\r\n"), "{}", answer.escape_ascii());
        assert!(answer.ends_with(body), "{}", answer.escape_ascii());
    }
    becomes(&sidecar, "content_factory_egress_usage_unread_total", &["reason=\"absent\""], "5").await;
    becomes(&sidecar, DURATIONS, &["gen_ai_operation_name=\"chat\"", "gen_ai_request_model=\"other\""], "4").await;
    becomes(&sidecar, DURATIONS, &["gen_ai_operation_name=\"chat\"", "gen_ai_request_model=\"x\""], "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_answer_passes_and_its_tokens_are_told_as_unread() {
    let (sidecar, egress) = sidecar(
        origin(|_, mut client| {
            client.message();
            client.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x08..");
        }),
        &[],
    )
    .await;
    let mut client = Client::new(egress);
    client.send(post("/v1/embeddings", "", b"{}"));
    let answer = client.message();
    assert_eq!((answer.field("content-encoding"), answer.body.as_slice()), (Some("gzip"), &b"\x1f\x08.."[..]));
    becomes(&sidecar, "content_factory_egress_usage_unread_total", &["reason=\"encoded\""], "1").await;
}

/// What services answer: the path, the call, the answer, and the operation, model and tokens that are then told of it.
const INTERFACES: [(&str, &str, &str, [&str; 4]); 8] = [
    (
        "/v1/chat/completions",
        r#"{"model":"a-chat","messages":[]}"#,
        r#"{"choices":[{"message":{"content":"FILM"}}],"model":"a-chat-1","usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        ["chat", "a-chat", "1", "2"],
    ),
    (
        "/v1/responses",
        r#"{"model":"a-response","input":"x"}"#,
        r#"{"output":[],"model":"a-response-1","usage":{"input_tokens":3,"output_tokens":4}}"#,
        ["chat", "a-response", "3", "4"],
    ),
    // Azure's: the deployment stands in the path, and the answer tells the model
    (
        "/openai/deployments/film/chat/completions?api-version=2024-10-21",
        r#"{"messages":[]}"#,
        r#"{"model":"an-azure","usage":{"prompt_tokens":5,"completion_tokens":6}}"#,
        ["chat", "an-azure", "5", "6"],
    ),
    (
        "/v1/messages",
        r#"{"model":"a-message"}"#,
        r#"{"model":"a-message","usage":{"input_tokens":7,"output_tokens":8}}"#,
        ["chat", "a-message", "7", "8"],
    ),
    (
        "/v1/embeddings",
        r#"{"model":"an-embedding","input":"x"}"#,
        r#"{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}"#,
        ["embeddings", "an-embedding", "9", ""],
    ),
    (
        "/v1/images/generations",
        r#"{"model":"an-image","prompt":"x"}"#,
        r#"{"data":[{"b64_json":"FILM"}],"usage":{"input_tokens":10,"output_tokens":11}}"#,
        ["generate_content", "an-image", "10", "11"],
    ),
    // a transcription is an upload: its model is in none of the two
    (
        "/v1/audio/transcriptions",
        "--x--",
        r#"{"text":"x","usage":{"input_tokens":12,"output_tokens":13}}"#,
        ["other", "other", "12", "13"],
    ),
    ("/v1/audio/speech", r#"{"model":"a-voice"}"#, "", ["other", "a-voice", "", ""]),
];

/// Answers each call by `INTERFACES`, in chunks; what stands for a film is two mebibytes long.
fn speaking() -> SocketAddr {
    origin(|_, mut client| {
        while let Some(call) = client.try_message() {
            let asked = call.head.split(' ').nth(1).expect("a path");
            let (.., answer, _) = INTERFACES.iter().find(|(path, ..)| *path == asked).expect("a known path");
            client.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in answer.replace("FILM", &"x".repeat(2 << 20)).as_bytes().chunks(60_000) {
                client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            client.send("0\r\n\r\n");
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_each_interface_that_the_page_names_the_model_and_the_tokens_are_read_whatever_its_length() {
    let (sidecar, egress) = sidecar(speaking(), &[]).await;
    let mut client = Client::new(egress);
    for (path, call, answer, _) in INTERFACES {
        let kind = if call.starts_with('{') { "application/json" } else { "multipart/form-data; boundary=x" };
        client.send(post(path, &format!("Content-Type: {kind}\r\n"), call.as_bytes()));
        let body = client.message().body;
        assert_eq!(body.len(), answer.replace("FILM", &"x".repeat(2 << 20)).len(), "{path}");
    }
    for (path, .., [operation, model, input, output]) in INTERFACES {
        let labels = [format!("gen_ai_operation_name=\"{operation}\""), format!("gen_ai_request_model=\"{model}\"")];
        becomes(&sidecar, DURATIONS, &[&labels[0], &labels[1]], "1").await;
        for (kind, tokens) in [("input", input), ("output", output)] {
            let kind = format!("gen_ai_token_type=\"{kind}\"");
            if tokens.is_empty() {
                let page = sidecar.metrics().await;
                let is_it =
                    |line: &str| line.starts_with(TOKENS) && [&labels[1], &kind].iter().all(|one| line.contains(*one));
                assert!(!page.lines().any(is_it), "{path} tells no such tokens");
            } else {
                becomes(&sidecar, TOKENS, &[&labels[0], &labels[1], &kind], tokens).await;
            }
        }
    }
    let page = sidecar.metrics().await;
    let unread: Vec<&str> =
        page.lines().filter(|line| line.starts_with("content_factory_egress_usage_unread_total{")).collect();
    assert!(unread.iter().all(|line| line.ends_with(" 0")), "{unread:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_a_connection_and_the_callers_host_stay_behind() {
    let (_sidecar, egress) = sidecar(origin(|_, mut client| echo_all(&mut client)), &[]).await;
    let mut client = Client::new(egress);
    let fields = "Connection: X-Own\r\nX-Own: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\nAccept-Encoding: gzip, br\r\nAuthorization: Bearer k\r\n";
    client.send(post("/v1/files", fields, b"{}"));
    let seen = client.message().text().to_ascii_lowercase();
    for (field, is_there) in [
        ("x-own:", false),
        ("te:", false),
        ("proxy-authorization:", false),
        ("host: ai", false),
        ("accept-encoding: identity", true),
        ("authorization: bearer k", true),
        ("content-length: 2", true),
    ] {
        assert_eq!(seen.contains(&format!("\r\n{field}")), is_there, "{field} in {seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_ends_its_call_at_the_service_too() {
    let (gone, service_saw_it) = mpsc::channel();
    let service = origin(move |_, mut client| {
        client.message();
        client.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n");
        let _ = gone.send(client.rest().is_empty());
    });
    let (sidecar, egress) = sidecar(service, &[]).await;
    let mut client = Client::new(egress);
    client.send(post(
        "/v1/chat/completions",
        "Content-Type: application/json\r\n",
        br#"{"model":"gpt","stream":true}"#,
    ));
    assert!(client.head().is_some_and(|head| head.starts_with("HTTP/1.1 200")));
    assert_eq!(
        client.bytes(14).as_deref(),
        Some(&b"9\r\ndata: {}\n\r\n"[..]),
        "the first event comes before the second is there"
    );
    drop(client);
    assert_eq!(service_saw_it.recv_timeout(crate::raw::PATIENCE), Ok(true));
    becomes(&sidecar, DURATIONS, &["error_type=\"client_gone\"", "gen_ai_request_model=\"gpt\""], "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_beyond_the_limit_is_closed_and_counted_and_the_others_go_on() {
    let service = origin(|_, mut client| echo_all(&mut client));
    let (sidecar, egress) = sidecar(service, &[("SIDECAR_EGRESS__CONNECTIONS", "1")]).await;
    let mut first = Client::new(egress);
    first.get("/v1/models");
    assert!(Client::new(egress).is_closed());
    assert_eq!(first.get("/v1/models").status(), 200);
    becomes(&sidecar, "content_factory_egress_connections_refused_total", &[], "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_is_no_proxy_to_anywhere_else() {
    let (_sidecar, egress) = sidecar(origin(|_, mut client| echo_all(&mut client)), &[]).await;
    let mut client = Client::new(egress);
    client.send("GET http://elsewhere.invalid/v1/models HTTP/1.1\r\nHost: elsewhere.invalid\r\n\r\n");
    let seen = client.message().text();
    assert!(seen.starts_with("GET /v1/models HTTP/1.1\r\n") && !seen.contains("elsewhere"), "{seen}");
    client.send("CONNECT elsewhere.invalid:443 HTTP/1.1\r\nHost: elsewhere.invalid\r\n\r\n");
    assert_eq!(client.message().status(), 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_word_in_the_settings_there_is_no_port_and_no_series() {
    let mut sidecar = Sidecar::start(echo_application().await, &[], &[]).await;
    let page = sidecar.metrics().await;
    assert!(!page.contains("gen_ai") && !page.contains("egress"), "{page}");
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.line().await, None, "no address but those of proxy and admin port");
}
