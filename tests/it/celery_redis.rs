//! A Redis that is hostile or broken changes nothing but the reading of Celery, which says so.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::rig::Sidecar;

const QUEUES: &str = "/api/v1/monitoring/queues";

/// What takes the place of Redis.
#[derive(Clone, Copy)]
enum Behaviour {
    Silent,
    Garbage,
    Refusing,
    /// Lets everybody subscribe, then publishes a text of 64 MiB and an event.
    Long,
    /// Lets everybody subscribe, and never says anything any more.
    Mute,
}

struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                clients.spawn(serve(stream, behaviour));
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn serve(mut stream: TcpStream, behaviour: Behaviour) {
    let mut bytes = vec![0; 4_096];
    let Ok(read) = stream.read(&mut bytes).await else { return };
    let is_subscriber = String::from_utf8_lossy(&bytes[..read]).contains("PSUBSCRIBE");
    let said: Vec<u8> = match behaviour {
        Behaviour::Silent => Vec::new(),
        Behaviour::Garbage => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        Behaviour::Refusing => b"-NOAUTH Authentication required, said hunter2.\r\n".to_vec(),
        Behaviour::Long | Behaviour::Mute if !is_subscriber => Vec::new(),
        Behaviour::Long => [confirmations(), message(&vec![b'x'; 64 << 20]), message(&heartbeat())].concat(),
        Behaviour::Mute => confirmations(),
    };
    let _ = stream.write_all(&said).await;
    // until the other side has enough
    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

fn confirmations() -> Vec<u8> {
    (1..=3).map(|count| format!("*3\r\n$10\r\npsubscribe\r\n$1\r\np\r\n:{count}\r\n")).collect::<String>().into_bytes()
}

fn message(payload: &[u8]) -> Vec<u8> {
    let head = format!("*4\r\n$8\r\npmessage\r\n$1\r\np\r\n$25\r\n/0.celeryev/worker.online\r\n${}\r\n", payload.len());
    [head.as_bytes(), payload, b"\r\n"].concat()
}

fn heartbeat() -> Vec<u8> {
    let event =
        json!({"type": "worker-online", "hostname": "w@h", "pid": 1, "timestamp": 1.0, "processed": 7, "active": 0});
    json!({"body": event.to_string()}).to_string().into_bytes()
}

async fn watching(behaviour: Behaviour) -> (Sidecar, Server) {
    let server = Server::start(behaviour).await;
    let url = format!("redis://{}/0", server.address);
    let environment = [("REDIS_URL", url.as_str()), ("SIDECAR_TELEMETRY__ENABLED", "false")];
    (Sidecar::start(server.address, &[], &environment).await, server)
}

async fn eventually(sidecar: &Sidecar, wanted: impl Fn(&Value) -> bool) -> Value {
    let page = sidecar.eventually(QUEUES, |_, body| serde_json::from_str(body).is_ok_and(|state| wanted(&state))).await;
    serde_json::from_str(&page).expect("JSON")
}

#[tokio::test]
async fn what_is_wrong_with_redis_is_said_in_a_word_and_only_there() {
    for (behaviour, problem) in
        [(Behaviour::Silent, "timeout"), (Behaviour::Garbage, "protocol"), (Behaviour::Refusing, "auth")]
    {
        let (sidecar, _server) = watching(behaviour).await;
        let state = eventually(&sidecar, |state| state["events"]["problem"] == problem).await;
        assert_eq!((&state["state"], &state["gap"], &state["gaps"]), (&json!("degraded"), &json!(true), &json!(0)));
        assert_eq!((&state["active_tasks"], &state["age_seconds"]), (&json!(0), &Value::Null));
        let (status, _) = sidecar.ask("/livez").await;
        assert_eq!(status, 200);
        assert!(!sidecar.log().contains("hunter2"));
    }
}

#[tokio::test]
async fn a_message_of_64_mebibytes_is_read_past_and_the_next_one_counts() {
    let (sidecar, _server) = watching(Behaviour::Long).await;
    let state = eventually(&sidecar, |state| state["workers"][0]["name"] == "w@h").await;
    assert_eq!((&state["refused"]["too_long"], &state["messages"]), (&json!(1), &json!(2)));
    assert_eq!(state["workers"][0]["processed"], 7);
}

#[tokio::test]
async fn a_redis_that_falls_silent_is_left_and_the_gap_is_counted() {
    let (sidecar, _server) = watching(Behaviour::Mute).await;
    eventually(&sidecar, |state| state["events"]["state"] == "up").await;
    // longer than a server may be silent
    let mut gaps = 0;
    for _ in 0..900 {
        let (_, body) = sidecar.ask(QUEUES).await;
        let state: Value = serde_json::from_str(&body).expect("JSON");
        gaps = state["gaps"].as_u64().expect("a number");
        if gaps > 0 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gaps, 1);
}
