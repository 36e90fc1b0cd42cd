//! Once per cluster: several sidecars on one Redis, of which one exports, and whose sum is what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use redis::{Client, Connection};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::port::Port;
use crate::rig::Sidecar;
use crate::telemetry_receiver::{Codings, Receiver, eventually};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const QUEUES: &str = "/api/v1/monitoring/queues";

/// Those of docs/celery.md and, beside them, of docs/lease.md, with the tests' own password: the user may do no more.
static RIGHTS: LazyLock<String> = LazyLock::new(|| {
    let written = |page: &str, begins: &str, ends: &str| {
        let page = std::fs::read_to_string(format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"))).expect("a page");
        let (_, rest) = page.split_once(begins).expect("the page has the rights");
        rest.split_once(ends).expect("and they end").0.replace(">password", ">sidecar-password")
    };
    let celery = written("celery.md", "ACL SETUSER sidecar ", "```");
    let lease =
        written("lease.md", "## The rights that it needs", "and of those").split("```text").last().map(str::to_owned);
    format!("{celery} {}", lease.unwrap_or_default().replace("```", ""))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
});

/// A Redis with a user for the sidecars, who may do no more than is documented.
pub(crate) struct Broker {
    kept: Port,
    process: Option<Child>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::allowing(&RIGHTS)
    }

    fn allowing(rights: &str) -> Self {
        let mut broker = Self { kept: Port::reserve(), process: None };
        broker.serve(rights);
        broker
    }

    fn serve(&mut self, rights: &str) {
        let port = self.kept.address().port().to_string();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null());
        for user in ["default on nopass ~* &* +@all", &format!("sidecar {rights}")] {
            command.arg("--user").args(user.split_whitespace());
        }
        self.process = Some(command.spawn().expect("redis-server is on the PATH; tests/setup/debian.sh installs it"));
        let deadline = Instant::now() + PATIENCE;
        while self.client().get_connection().is_err() {
            assert!(Instant::now() < deadline, "redis-server never answered");
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("it ends");
        }
    }

    fn client(&self) -> Client {
        Client::open(format!("redis://{}/0", self.kept.address())).expect("an address")
    }

    fn connection(&self) -> Connection {
        self.client().get_connection().expect("it runs")
    }

    pub(crate) fn sidecars_url(&self) -> String {
        format!("redis://sidecar:sidecar-password@{}/0", self.kept.address())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whoever sends tasks that are started and succeed at once.
struct Sender {
    connection: Connection,
    sent: u64,
}

impl Sender {
    fn of(broker: &Broker) -> Self {
        Self { connection: broker.connection(), sent: 0 }
    }

    /// So many tasks; all who listen hear them.
    fn tasks(&mut self, count: u64) {
        for _ in 0..count {
            self.sent += 1;
            let event = json!({
                "type": "task-sent", "hostname": "gen@tests", "uuid": format!("task-{}", self.sent), "name": "shop.render",
                "queue": "main-queue", "timestamp": 1.0, "clock": self.sent, "retries": 0, "root_id": "r", "parent_id": null,
            });
            let message =
                json!({"body": event.to_string(), "content-type": "application/json", "headers": {}, "properties": {}});
            let heard: i64 = redis::cmd("PUBLISH")
                .arg("/0.celeryev/task.sent")
                .arg(message.to_string())
                .query(&mut self.connection)
                .expect("it is published");
            assert!(heard > 0, "nobody hears it");
        }
    }
}

/// Replicas of one application.
struct Replicas<'a> {
    broker: &'a Broker,
    receiver: &'a Receiver,
}

impl Replicas<'_> {
    /// One more, which hears Celery when this returns.
    async fn start(&self, name: &str) -> Sidecar {
        self.start_with(name, Some("2s")).await
    }

    /// The same with a lease of this duration, or of the default one.
    async fn start_with(&self, name: &str, duration: Option<&str>) -> Sidecar {
        let (redis, otlp) = (self.broker.sidecars_url(), format!("http://{}", self.receiver.address));
        let environment = [
            ("REDIS_URL", redis.as_str()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.as_str()),
            ("HOSTNAME", name),
            ("SIDECAR_TELEMETRY__METRICS__INTERVAL", "200ms"),
            ("SIDECAR_LEASE__ENABLED", "true"),
            ("SIDECAR_LEASE__DURATION", duration.unwrap_or_default()), // an empty one is not set
        ];
        let upstream = self.receiver.address; // nothing is asked of it
        let sidecar = Sidecar::start(upstream, &[], &environment).await;
        sidecar.eventually(QUEUES, |_, body| json_of(body)["events"]["state"] == "up").await;
        sidecar
    }

    /// What all of them have exported of the tasks that were sent.
    fn sum(&self) -> u64 {
        self.receiver.with(|seen| {
            let metrics = seen.metrics.iter().filter(|metric| metric.name == "content_factory.celery.tasks.sent");
            let points = metrics.flat_map(|metric| match &metric.data {
                Some(Data::Sum(sum)) => sum.data_points.iter(),
                other => panic!("{other:?}"),
            });
            points
                .map(|point| match point.value {
                    Some(Number::AsInt(count)) => u64::try_from(count).expect("a count"),
                    other => panic!("{other:?}"),
                })
                .sum()
        })
    }

    /// Waits until the sum is what was sent, and then for two more exports, which must not change it.
    async fn agree_on(&self, sent: u64) {
        eventually("what was sent is exported", PATIENCE, || self.sum() >= sent).await;
        let exports = self.exports();
        eventually("further exports", PATIENCE, || self.exports() >= exports + 4).await;
        assert_eq!(self.sum(), sent);
    }

    /// Exports of metrics so far, by a metric that each has once.
    fn exports(&self) -> usize {
        self.receiver
            .with(|seen| seen.metrics.iter().filter(|metric| metric.name == "content_factory.lease.held").count())
    }
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_default()
}

async fn lease_of(sidecar: &Sidecar) -> Value {
    json_of(&sidecar.ask("/status").await.1)["lease"].clone()
}

async fn holds(sidecar: &Sidecar) {
    sidecar.eventually("/status", |_, body| json_of(body)["lease"]["held"] == true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_exports_and_all_of_them_show() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    // the default: nobody shall lose the lease because the machine is busy for a while
    let mut all = vec![replicas.start_with("web-0", None).await];
    holds(&all[0]).await;
    all.push(replicas.start_with("web-1", None).await);
    all.push(replicas.start_with("worker-0", None).await);
    Sender::of(&broker).tasks(50);
    replicas.agree_on(50).await;
    for sidecar in &all {
        let body = sidecar.eventually(QUEUES, |_, body| json_of(body)["tasks"][0]["sent"] == 50).await;
        assert_eq!(json_of(&body)["tasks"][0]["name"], "shop.render");
        sidecar
            .eventually("/status", |_, body| {
                json_of(body)["lease"]["holder"].as_str().is_some_and(|holder| holder.starts_with("web-0-"))
            })
            .await;
        let page = sidecar.ask("/dashboard").await.1;
        assert!(page.contains("<h2 id=\"lease\">Cluster</h2>"), "{page}");
    }
    let mut held = Vec::new();
    for sidecar in &all {
        held.push(lease_of(sidecar).await["held"].clone());
    }
    assert_eq!(held, [true, false, false]);
    assert!(all[1].metrics().await.contains("content_factory_celery_tasks_sent_total"), "its own readings stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_killed_is_followed_without_a_gap_or_a_double() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    let mut sender = Sender::of(&broker);
    let mut holder = replicas.start("first").await;
    holds(&holder).await;
    for name in ["second", "third"] {
        let next = replicas.start(name).await;
        sender.tasks(20);
        replicas.agree_on(sender.sent).await;
        sender.tasks(20);
        // what it has claimed and not delivered dies with it: it is given the time of its delivery
        replicas.agree_on(sender.sent).await;
        holder.signal("KILL").await;
        holder.ended().await;
        sender.tasks(20); // while nobody speaks
        holds(&next).await;
        sender.tasks(20);
        replicas.agree_on(sender.sent).await;
        holder = next;
    }
    assert!(holder.metrics().await.contains("\ncontent_factory_lease_gaps_total 0\n"));
}

/// Kills of holders, one after the other, and how long a lease is; `make soak` asks for the default.
fn kills() -> (usize, Option<&'static str>) {
    if crate::telemetry_spool::is_long_form() { (10, None) } else { (1, Some("3s")) }
}

/// What docs/lease.md promises at the default: the rest of a lease, and the pause between two questions of those who wait.
const PROMISED: Duration = Duration::from_secs(20);

#[expect(clippy::print_stdout, reason = "the figures of a run are its result")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_is_followed_in_the_promised_time() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    let (mut sender, (kills, duration)) = (Sender::of(&broker), kills());
    let mut holder = replicas.start_with("first", duration).await;
    holds(&holder).await;
    let mut times = Vec::new();
    for turn in 0..kills {
        let next = replicas.start_with(&format!("next-{turn}"), duration).await;
        sender.tasks(20);
        // what it has claimed and not delivered dies with it: it is given the time of its delivery
        replicas.agree_on(sender.sent).await;
        holder.signal_at_once(Signal::KILL);
        let killed = Instant::now();
        sender.tasks(20); // while nobody speaks
        holds(&next).await;
        times.push(killed.elapsed());
        sender.tasks(20);
        replicas.agree_on(sender.sent).await;
        assert!(next.metrics().await.contains("\ncontent_factory_lease_gaps_total 0\n"));
        holder = next;
    }
    let seconds: Vec<String> = times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
    println!("followed after {} s; {} tasks exported of {}", seconds.join(", "), replicas.sum(), sender.sent);
    assert!(times.iter().all(|time| *time < PROMISED), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_stopped_and_lost_the_lease_exports_no_more() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    let mut sender = Sender::of(&broker);
    let stopped = replicas.start("stopped").await;
    holds(&stopped).await;
    let next = replicas.start("next").await;
    sender.tasks(20);
    replicas.agree_on(20).await;
    stopped.signal("STOP").await;
    sender.tasks(20);
    holds(&next).await;
    replicas.agree_on(40).await;
    stopped.signal("CONT").await;
    sender.tasks(20);
    replicas.agree_on(60).await;
    let lease = lease_of(&stopped).await;
    assert_eq!((&lease["held"], &lease_of(&next).await["held"]), (&json!(false), &json!(true)), "{lease}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_ends_gives_the_lease_back_at_once() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    let mut sender = Sender::of(&broker);
    let mut first = replicas.start("first").await;
    holds(&first).await;
    let next = replicas.start("next").await;
    sender.tasks(30);
    first.signal("TERM").await;
    assert_eq!(first.ended().await, Some(0));
    assert!(first.log().contains("the lease is given back"), "{}", first.log());
    let left: Option<String> =
        redis::cmd("GET").arg("content-factory-sidecar:lease").query(&mut broker.connection()).expect("an answer");
    assert!(left.is_none_or(|holder| holder.starts_with("next-")));
    holds(&next).await;
    sender.tasks(30);
    replicas.agree_on(60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_everything_makes_no_double() {
    let (mut broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    let (one, other) = (replicas.start("one").await, replicas.start("other").await);
    Sender::of(&broker).tasks(25);
    replicas.agree_on(25).await;
    broker.stop();
    for sidecar in [&one, &other] {
        sidecar.eventually("/status", |_, body| json_of(body)["lease"]["problem"] == "refused").await;
        sidecar.eventually("/status", |_, body| json_of(body)["lease"]["held"] == false).await;
    }
    broker.serve(&RIGHTS);
    for sidecar in [&one, &other] {
        sidecar.eventually(QUEUES, |_, body| json_of(body)["events"]["state"] == "up").await;
        sidecar.eventually("/status", |_, body| json_of(body)["lease"]["problem"].is_null()).await;
    }
    Sender::of(&broker).tasks(25);
    Replicas { broker: &broker, receiver: &receiver }.agree_on(50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_user_is_refused_nothing_that_the_check_celerys_readers_and_the_lease_ask_for() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    // a queue with a message, and one that a worker holds
    let mut server = broker.connection();
    let mut made = redis::pipe();
    made.sadd("_kombu.binding.celery", "main-queue\x06\x16\x06\x16main-queue").lpush("main-queue", "{}");
    made.hset("unacked", "tag", r#"[{}, "", "main-queue"]"#).zadd("unacked_index", "tag", 1);
    made.exec(&mut server).expect("they are made");
    let sidecar = Replicas { broker: &broker, receiver: &receiver }.start("web-0").await;
    Sender::of(&broker).tasks(10);
    Replicas { broker: &broker, receiver: &receiver }.agree_on(10).await;
    holds(&sidecar).await;
    sidecar.eventually("/health", |_, body| json_of(body)["services"]["redis"]["status"] == "healthy").await;
    // queues were read, workers asked, and what was asked was answered, or nobody was there to answer
    let is_read = |body: &str| {
        let state = json_of(body);
        state["queues_read"]["state"] == "up"
            && state["age_seconds"].is_number()
            && state["consumers_age_seconds"].is_number()
    };
    let state = json_of(&sidecar.eventually(QUEUES, |_, body| is_read(body)).await);
    assert_eq!(state["not_allowed"], json!([]));
    let refused: Vec<BTreeMap<String, redis::Value>> =
        redis::cmd("ACL").arg("LOG").query(&mut server).expect("it tells");
    let refused = refused.into_iter().map(|mut entry| redis::from_redis_value(entry.remove("object").expect("what")));
    let refused: BTreeSet<String> = refused.collect::<Result<_, _>>().expect("texts");
    // that channel is told of by its page: only old versions of Celery behind a Sentinel have it
    assert_eq!(refused, BTreeSet::from(["/{db}.celeryev/*".to_owned()]));
    let asked: String = redis::cmd("INFO").arg("commandstats").query(&mut server).expect("it tells");
    let used =
        ["auth", "ping", "psubscribe", "scan", "smembers", "llen", "lindex", "hlen", "zrange", "publish", "eval"];
    let unused = used.into_iter().filter(|command| !asked.contains(&format!("cmdstat_{command}:")));
    assert_eq!(unused.collect::<Vec<_>>(), Vec::<&str>::new(), "what was never asked for was never allowed or refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_told_and_nobody_speaks() {
    for missing in ["+eval", "+set", "%RW~content-factory-sidecar:*"] {
        let rights = RIGHTS.split_whitespace().filter(|word| *word != missing).collect::<Vec<_>>().join(" ");
        let (broker, receiver) = (Broker::allowing(&rights), Receiver::grpc(Codings::All, Arc::default()).await);
        let sidecar = Replicas { broker: &broker, receiver: &receiver }.start("web-0").await;
        let body = sidecar.eventually("/status", |_, body| !json_of(body)["lease"]["problem"].is_null()).await;
        let lease = json_of(&body)["lease"].clone();
        assert_eq!((&lease["problem"], &lease["held"]), (&json!("not_allowed"), &json!(false)), "without {missing}");
        sidecar.says(&["the lease cannot be asked for", "not_allowed", "docs/lease.md"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_marks_may_not_be_heard_it_is_told_and_the_holder_exports_all_the_same() {
    let rights = RIGHTS.replace("&/0.content-factory-sidecar ", "");
    let (broker, receiver) = (Broker::allowing(&rights), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    let sidecar = replicas.start("web-0").await;
    holds(&sidecar).await;
    let state = json_of(&sidecar.ask(QUEUES).await.1);
    assert_eq!(state["not_allowed"], json!(["marks"]));
    Sender::of(&broker).tasks(10);
    replicas.agree_on(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_worker_there_is_no_proxy_and_the_lease_is_held_all_the_same() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = crate::rig::command(&folder);
    command.args(["--admin", "127.0.0.1:0"]).envs([
        ("REDIS_URL", broker.sidecars_url()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", receiver.address)),
        ("SIDECAR_PROXY__ENABLED", "false".into()),
        ("SIDECAR_LEASE__ENABLED", "true".into()),
        ("SIDECAR_LEASE__DURATION", "2s".into()),
        ("SIDECAR_TELEMETRY__METRICS__INTERVAL", "200ms".into()),
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut sent = Sender::of(&broker);
    eventually("it listens", PATIENCE, || {
        let patterns: i64 = redis::cmd("PUBSUB").arg("NUMPAT").query(&mut sent.connection).expect("an answer");
        patterns == 3 // events, results and marks
    })
    .await;
    sent.tasks(10);
    Replicas { broker: &broker, receiver: &receiver }.agree_on(10).await;
    let names: BTreeSet<String> = receiver.with(|seen| seen.metrics.iter().map(|metric| metric.name.clone()).collect());
    assert!(!names.iter().any(|name| name.starts_with("http.server.")), "{names:?}");
    child.kill().await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_is_exported_by_one_at_a_time() {
    let (broker, receiver) = (Broker::start(), Receiver::grpc(Codings::All, Arc::default()).await);
    let replicas = Replicas { broker: &broker, receiver: &receiver };
    let (one, _other) = (replicas.start("one").await, replicas.start("other").await);
    Sender::of(&broker).tasks(1); // there is a Celery
    let depth = |seen: &mut crate::telemetry_receiver::Seen| {
        seen.metrics.iter().filter(|metric| metric.name == "content_factory.celery.queue.messages").count()
    };
    one.eventually(QUEUES, |_, body| !json_of(body)["age_seconds"].is_null()).await;
    eventually("levels are exported", PATIENCE, || receiver.with(depth) > 0).await;
    let without = || replicas.exports() - receiver.with(depth);
    let before = without();
    eventually("exports of the other one, which have none", PATIENCE, || without() >= before + 10).await;
    let levels = receiver.with(depth);
    eventually("the holder goes on", PATIENCE, || receiver.with(depth) > levels).await;
}
