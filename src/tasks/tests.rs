//! The room as its callers see it, with the clock held still.

use super::*;
use crate::model::sample::SampleValue;
use crate::model::trace::parse_traceparent;
use tokio::time::advance;

const HOUR: Duration = Duration::from_secs(3_600);

fn config() -> Config {
    Config { max_runtime: HOUR, max_open: 5, max_names: 3, recent: 4 }
}

fn room() -> Tasks {
    open(&config(), Arc::new(Redactor::new(["hunter2-secret"])), None, None)
}

fn named(name: &str) -> Beginning<'_> {
    Beginning { name, task_id: None, trace: None }
}

fn begin(tasks: &Tasks, name: &str) -> TaskId {
    tasks.begin(&named(name)).expect("it is taken")
}

const SUCCEEDED: Ending<'_> = Ending { success: Success::Succeeded, error_type: None, duration: None };
const FAILED: Ending<'_> = Ending { success: Success::Failed, error_type: Some("ValueError"), duration: None };

#[tokio::test(start_paused = true)]
async fn a_task_is_active_until_it_ends_and_its_duration_is_of_the_monotonic_clock() {
    let tasks = room();
    let id = begin(&tasks, "video_generation");
    advance(Duration::from_secs(3)).await;
    let lists = tasks.lists();
    assert_eq!((lists.totals.active, lists.open[0].age, lists.open[0].id), (1, Duration::from_secs(3), id));
    assert_eq!(tasks.end(id, &FAILED), Ok(TaskState::Failed));
    advance(Duration::from_secs(2)).await;
    let lists = tasks.lists();
    let ended = &lists.recent[0];
    assert_eq!((lists.totals.active, lists.totals.ended), (0, [0, 1, 0]));
    assert_eq!((ended.duration, ended.age), (Duration::from_secs(3), Duration::from_secs(2)));
    assert_eq!(ended.error_type.as_ref().map(Clean::as_str), Some("ValueError"));
}

#[tokio::test(start_paused = true)]
async fn a_second_word_about_an_end_changes_nothing() {
    let tasks = room();
    let id = begin(&tasks, "x");
    assert_eq!(tasks.end(id, &SUCCEEDED), Ok(TaskState::Succeeded));
    assert_eq!(tasks.end(id, &FAILED), Ok(TaskState::Succeeded));
    assert_eq!((tasks.totals().ended, tasks.totals().failures), ([1, 0, 0], 0));
    assert_eq!(tasks.end(TaskId::new(1, 1), &SUCCEEDED), Err(EndError::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_end_nobody_tells_is_lost_and_stays_lost() {
    let tasks = room();
    let lost = begin(&tasks, "x");
    advance(HOUR / 2).await;
    let other = begin(&tasks, "x");
    advance(HOUR / 2).await;
    assert_eq!((tasks.totals().active, tasks.totals().ended), (1, [0, 0, 1]));
    assert_eq!(tasks.end(lost, &SUCCEEDED), Ok(TaskState::Lost));
    assert_eq!(tasks.end(other, &SUCCEEDED), Ok(TaskState::Succeeded));
    assert_eq!((tasks.totals().ended, tasks.totals().failures), ([1, 0, 1], 0));
}

#[tokio::test(start_paused = true)]
async fn the_clients_own_measure_counts_but_cannot_be_much_longer_than_ours() {
    let tasks = room();
    let measured = |seconds| Ending { duration: Some(Duration::from_secs(seconds)), ..SUCCEEDED };
    for told in [2, 1_000_000] {
        let id = begin(&tasks, "x");
        advance(Duration::from_secs(5)).await;
        tasks.end(id, &measured(told)).expect("it is open");
    }
    let durations: Vec<u64> = tasks.lists().recent.iter().map(|ended| ended.duration.as_secs()).collect();
    assert_eq!(durations, [65, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_many_is_refused_and_counted() {
    let tasks = room();
    let ids: Vec<TaskId> = (0..5).map(|number| begin(&tasks, &format!("name-{number}"))).collect();
    assert_eq!(tasks.begin(&named("x")), Err(BeginError::TooMany));
    let totals = tasks.totals();
    assert_eq!((totals.begun, totals.active, totals.too_many_open, totals.too_many_names), (5, 5, 1, 2));
    for id in ids {
        tasks.end(id, &SUCCEEDED).expect("it is open");
    }
    assert_eq!(tasks.lists().recent.len(), 4, "the newest are kept");
    begin(&tasks, "x");
}

#[tokio::test(start_paused = true)]
async fn a_monitor_inside_a_task_of_celery_counts_once_as_does_its_failure() {
    let tasks = room();
    let inside = Beginning { task_id: Some("59226a2a-0c5b"), ..named("x") };
    let ids = [inside, inside, named("x")].map(|beginning| tasks.begin(&beginning).expect("it is taken"));
    assert_eq!((tasks.totals().active, tasks.totals().active_of_celery), (2, 1));
    for id in ids {
        tasks.end(id, &FAILED).expect("it is open");
    }
    let totals = tasks.totals();
    assert_eq!((totals.failures, totals.failures_of_celery, totals.ended), (2, 1, [0, 3, 0]));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_name_no_id_and_no_class_is_refused_and_a_secret_goes() {
    let tasks = room();
    assert_eq!(tasks.begin(&named("")), Err(BeginError::Name));
    assert_eq!(tasks.begin(&Beginning { task_id: Some("a b"), ..named("x") }), Err(BeginError::TaskId));
    let id = begin(&tasks, "to hunter2-secret");
    let text = Ending { error_type: Some("ValueError('hunter2-secret')"), ..FAILED };
    assert_eq!(tasks.end(id, &text), Err(EndError::ErrorType));
    assert_eq!(tasks.lists().open[0].name.as_str(), "to [REDACTED:secret]");
}

#[tokio::test(start_paused = true)]
async fn each_series_tells_of_its_name_and_each_end_of_its_state() {
    let tasks = room();
    let ids = ["render", "render", "publish"].map(|name| begin(&tasks, name));
    tasks.end(ids[0], &FAILED).expect("it is open");
    tasks.end(ids[2], &SUCCEEDED).expect("it is open");
    let mut samples = Vec::new();
    tasks.samples(&mut samples);
    let told: Vec<String> = samples
        .iter()
        .map(|sample| {
            let value = match &sample.value {
                SampleValue::Histogram(histogram) => histogram.count as f64,
                SampleValue::Count(count) => *count as f64,
                SampleValue::Level(level) | SampleValue::Sum(level) => *level,
            };
            format!("{} {:?} {value}", sample.metric.name, sample.labels)
        })
        .collect();
    let expected = [
        r#"content_factory.tasks.active [("task", Text("render"))] 1"#,
        r#"content_factory.tasks.duration [("task", Text("render")), ("state", Text("failed"))] 1"#,
        r#"content_factory.tasks.lost [("task", Text("render"))] 0"#,
        r#"content_factory.tasks.active [("task", Text("publish"))] 0"#,
        r#"content_factory.tasks.duration [("task", Text("publish")), ("state", Text("succeeded"))] 1"#,
        r#"content_factory.tasks.lost [("task", Text("publish"))] 0"#,
        r#"content_factory.tasks.refused [("reason", Text("too_many_open"))] 0"#,
        r#"content_factory.tasks.refused [("reason", Text("too_many_names"))] 0"#,
    ];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_task_in_a_trace_that_is_kept_becomes_a_span_when_it_ends() {
    let seen: Arc<Mutex<Vec<TaskSpan>>> = Arc::default();
    let sink = Arc::clone(&seen);
    let sink: SpanSink = Arc::new(move |span| sink.lock().unwrap().push(span));
    let tasks = open(&config(), Arc::new(Redactor::new([])), Some(sink), None);
    for (flags, ending) in [("01", FAILED), ("00", FAILED), ("01", SUCCEEDED)] {
        let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let trace = parse_traceparent(parent.as_bytes()).ok();
        let id = tasks.begin(&Beginning { trace, ..named("x") }).expect("it is taken");
        tasks.end(id, &ending).expect("it is open");
        tasks.end(id, &ending).expect("it is known");
    }
    tasks.end(begin(&tasks, "without a trace"), &SUCCEEDED).expect("it is open");
    let spans = seen.lock().unwrap();
    let classes: Vec<Option<&str>> = spans.iter().map(|span| span.error_type.as_ref().map(Clean::as_str)).collect();
    assert_eq!(classes, [Some("ValueError"), None]);
    assert_eq!(spans[0].trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
}
