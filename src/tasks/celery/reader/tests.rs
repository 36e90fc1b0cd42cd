//! What is shown is of now: of what grew old, went silent or was never there nothing is said.

use serde_json::json;
use tokio::time::advance;

use super::*;
use crate::redact::Secret;
use crate::settings::{Place, Settings, Tree};
use crate::tasks::celery::board::{Depth, Depths};
use crate::tasks::celery::config::Config;
use crate::tasks::celery::event::{Event, Sign, Step, TaskEvent, TaskIds, Verdict, WorkerEvent};

const BEAT: Duration = Duration::from_secs(2);

fn room() -> (Shared, Reader) {
    let mut tree = Tree::default();
    tree.merge(json!({}), &Place("test".into()));
    let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
    let server = Secret::new(redis::Client::open("redis://h").unwrap());
    let config = Config::read(&mut settings.section(""), Some(&server));
    let redactor = Arc::new(Redactor::new([]));
    let shared = Shared::new(&config, &redactor);
    shared.lock().hears(Instant::now());
    (shared.clone(), Reader::new(shared, watch::channel(config).1, redactor))
}

fn beat(shared: &Shared, active: u64) {
    let (host, version) = ("w@h".to_owned(), "5.7.0".to_owned());
    let event = WorkerEvent { host, pid: 1, sign: Sign::Heartbeat, period: BEAT, active, processed: 3, version };
    let mut state = shared.lock();
    state.is_found = true;
    state.ledger.take(Event::Worker(event), Instant::now());
}

fn read(shared: &Shared, messages: u64) {
    let head = (messages > 0).then_some(7);
    let queues = vec![Depth { name: "q".into(), messages, head }];
    shared.lock().board.read(Depths { queues, unacked: Some(1), oldest_unacked: None }, Instant::now());
}

fn names(reader: &Reader) -> Vec<&'static str> {
    let mut samples = Vec::new();
    reader.samples(&mut samples);
    samples.iter().map(|sample| sample.metric.name).collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_beside_a_waiting_message_does_not_consume() {
    let (shared, reader) = room();
    for seconds in (0..40).step_by(2) {
        read(&shared, 5);
        beat(&shared, 0);
        assert!(seconds < 30 || reader.state().workers[0].not_consuming.is_some(), "after {seconds} s");
        assert!(seconds >= 30 || reader.state().workers[0].not_consuming.is_none(), "after {seconds} s");
        advance(BEAT).await;
    }
    beat(&shared, 1);
    assert_eq!(reader.state().workers[0].not_consuming, None, "it works");
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_a_worker_that_went_silent_is_not_active() {
    let (shared, reader) = room();
    beat(&shared, 2);
    assert_eq!(reader.counts().active, 2);
    advance(BEAT * 2 + Duration::from_millis(1)).await;
    assert_eq!(reader.counts().active, 0);
    beat(&shared, 2);
    shared.lock().deaf("closed", Instant::now());
    assert_eq!((reader.counts().active, reader.state().gaps), (0, 1), "nobody hears it");
    shared.lock().deaf("refused", Instant::now());
    assert_eq!(reader.state().gaps, 1, "it is the same gap");
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_grew_old_is_no_sample_and_what_was_never_seen_is_none() {
    let (shared, reader) = room();
    read(&shared, 0);
    assert_eq!(names(&reader), [""; 0], "no Celery was seen");
    beat(&shared, 0);
    assert!(names(&reader).contains(&"content_factory.celery.queue.messages"));
    advance(Duration::from_secs(61)).await;
    assert!(!names(&reader).contains(&"content_factory.celery.queue.messages"));
    assert!(names(&reader).contains(&"content_factory.celery.gaps"));
    assert!(Reader::off().state().queues.is_empty() && names(&Reader::off()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_share_of_publishes_that_went_well_is_told_of_tasks_once_one_has_ended() {
    let (shared, reader) = room();
    let share = || {
        let mut samples = Vec::new();
        reader.samples(&mut samples);
        let found = samples.into_iter().find(|sample| sample.metric.name == BUSINESS_PUBLISH_SUCCESS.name)?;
        Some(format!("{:?} {:?}", found.labels, found.value))
    };
    beat(&shared, 0);
    let ids = TaskIds::default();
    let take = |task: &str, step| {
        let event = TaskEvent { id: ids.id(task), host: "w@h".into(), pid: 1, at: 1.0, origin: None, step };
        shared.lock().ledger.take(Event::Task(event), Instant::now());
    };
    let ends = [
        Step::Succeeded { seconds: None, verdict: Verdict::Good },
        Step::Succeeded { seconds: None, verdict: Verdict::Bad },
        Step::Failed(None),
        Step::Succeeded { seconds: None, verdict: Verdict::Good },
        Step::Succeeded { seconds: None, verdict: Verdict::Good },
    ];
    assert_eq!(share(), None, "none has ended");
    for (number, end) in ends.into_iter().enumerate() {
        let task = number.to_string();
        take(&task, Step::Sent { name: "shop.publish_video".into(), queue: Some("q".into()), due: None });
        take(&task, end);
    }
    // of a success the result backend may know better for a while
    shared.lock().tick(Instant::now() + BEAT);
    let share = share().unwrap();
    assert!(share.contains("source") && share.contains("tasks") && share.contains("0.6"), "{share}");
}

#[tokio::test(start_paused = true)]
async fn each_sample_has_the_labels_of_its_metric_and_stands_once() {
    let (shared, reader) = room();
    let ids = TaskIds::default();
    let steps = [
        Step::Sent { name: "t".into(), queue: Some("q".into()), due: None },
        Step::Started,
        Step::Failed(crate::tasks::celery::event::ExceptionClass::of("KeyError('k')")),
    ];
    for (second, step) in steps.into_iter().enumerate() {
        let event = TaskEvent { id: ids.id("a"), host: "w@h".into(), pid: 1, at: second as f64, origin: None, step };
        shared.lock().ledger.take(Event::Task(event), Instant::now());
    }
    beat(&shared, 0);
    read(&shared, 1);
    let mut samples = Vec::new();
    reader.samples(&mut samples);
    let mut seen: Vec<String> =
        samples.iter().map(|sample| format!("{} {:?}", sample.metric.name, sample.labels)).collect();
    for sample in &samples {
        let labels: Vec<&str> = sample.labels.iter().map(|(label, _)| *label).collect();
        let expected: Vec<&str> = sample.metric.labels.iter().copied().filter(|label| labels.contains(label)).collect();
        assert_eq!(labels, expected, "{}", sample.metric.name);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
    for name in
        ["messaging.process.duration", "content_factory.celery.tasks.failed", "content_factory.celery.task.wait"]
    {
        assert!(samples.iter().any(|sample| sample.metric.name == name), "{name}");
    }
    assert_eq!(reader.counts().errors, 1);
}
