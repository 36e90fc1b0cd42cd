//! Real messages are read as they are meant, and hostile ones are refused whole.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A message of the exchange of events, as kombu wraps it.
fn wrapped(body: &str) -> Vec<u8> {
    let properties = json!({"body_encoding": "base64", "delivery_mode": 1});
    json!({"body": base64::encode(body.as_bytes()), "headers": {"hostname": "w1@vm"}, "properties": properties})
        .to_string()
        .into_bytes()
}

fn read(body: &Value) -> Result<Vec<Event>, Refusal> {
    events(&wrapped(&body.to_string()), &TaskIds::default())
}

fn started() -> Value {
    json!({"type": "task-started", "hostname": "w1@vm", "pid": 7, "timestamp": 1.5, "uuid": "a", "clock": 3})
}

#[test]
fn one_event_and_many_are_read_alike() {
    let one = read(&started()).unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(read(&json!([started(), started()])).unwrap().len(), 2);
    assert_eq!(read(&json!([])).unwrap(), []);
}

#[test]
fn a_body_may_come_without_an_encoding_and_in_no_other_than_base64() {
    let plain = json!({"body": started().to_string()}).to_string();
    assert_eq!(events(plain.as_bytes(), &TaskIds::default()).unwrap().len(), 1);
    let other = json!({"body": "x", "properties": {"body_encoding": "zlib"}}).to_string();
    assert_eq!(events(other.as_bytes(), &TaskIds::default()), Err(Refusal::Encoding));
    let broken = json!({"body": "*", "properties": {"body_encoding": "base64"}}).to_string();
    assert_eq!(events(broken.as_bytes(), &TaskIds::default()), Err(Refusal::Encoding));
}

#[test]
fn what_nobody_counts_is_passed_over_and_not_refused() {
    let mut own = started();
    own["type"] = "task-progress".into();
    let mut nameless = started();
    nameless["type"] = "task-received".into();
    let mut anonymous = started();
    anonymous["uuid"] = Value::Null;
    assert_eq!(read(&json!([own, nameless, anonymous, started()])).unwrap().len(), 1);
}

#[test]
fn values_of_another_type_than_celerys_refuse_the_message() {
    for (key, value) in [
        ("type", json!(7)),
        ("hostname", json!(null)),
        ("pid", json!("seven")),
        ("pid", json!(-1)),
        ("timestamp", json!("now")),
        ("uuid", json!({"a": 1})),
        ("retries", json!(1.5)),
        ("exception", json!(["ValueError"])),
        ("result", json!({"status": "error"})),
        ("freq", json!([2])),
    ] {
        let mut event = started();
        event[key] = value.clone();
        assert_eq!(read(&event), Err(Refusal::Malformed), "{key}: {value}");
    }
    assert_eq!(read(&json!("task-started")), Err(Refusal::Malformed));
}

#[test]
fn bounds_of_length_depth_and_number_are_kept() {
    let ids = TaskIds::default();
    assert_eq!(events(&vec![b' '; LONGEST_MESSAGE + 1], &ids), Err(Refusal::TooLong));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(events(&wrapped(&deep), &ids), Err(Refusal::Malformed));
    // a result may be of any depth; it is read past without recursion
    let nested = format!(r#"{{"status": "SUCCESS", "result": {deep}}}"#);
    assert!(matches!(result("a", nested.as_bytes(), &ids), Ok(Some(Event::Result(_)))));
    let nested = format!(r#"{{"status": "SUCCESS", "result": {{"status": {deep}}}}}"#);
    assert!(result("a", nested.as_bytes(), &ids).is_ok());
    let many: Vec<Value> = std::iter::repeat_with(started).take(MOST_EVENTS + 1).collect();
    assert_eq!(read(&json!(many)), Err(Refusal::Malformed));
    let mut long = started();
    (long["type"], long["name"]) = ("task-received".into(), "ü".repeat(300).into());
    let Ok([Event::Task(TaskEvent { step: Step::Received { name, .. }, .. })]) =
        read(&long).as_deref().map(|e| [e[0].clone()])
    else {
        panic!("no event")
    };
    assert_eq!(name.len(), 120);
}

#[test]
fn a_heartbeat_that_names_no_sensible_period_has_celerys_own() {
    for freq in [json!(null), json!(0.0), json!(-3.0), json!(1e300)] {
        let heartbeat = json!({"type": "worker-heartbeat", "hostname": "w", "pid": 1, "timestamp": 1, "freq": freq});
        let Ok(Some(Event::Worker(worker))) = read(&heartbeat).map(|events| events.into_iter().next()) else {
            panic!("no worker")
        };
        assert_eq!(worker.period, Duration::from_secs(2), "{freq}");
    }
}

#[test]
fn the_answer_to_active_queues_names_the_queues() {
    let body = json!({"w1@vm": [{"name": "celery", "exchange": {}, "routing_key": "celery"}, {"name": "main-queue"}]});
    let expected = vec![("w1@vm".to_owned(), vec!["celery".to_owned(), "main-queue".to_owned()])];
    assert_eq!(active_queues(&wrapped(&body.to_string())), Some(expected));
    let refused = json!({"w1@vm": {"error": "no such command"}});
    assert_eq!(active_queues(&wrapped(&refused.to_string())), Some(Vec::new()));
    assert_eq!(active_queues(b"{}"), None);
}

proptest! {
    #[test]
    fn no_bytes_end_the_reading(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..600_usize, byte in any::<u8>()) {
        let ids = TaskIds::default();
        let _ = (events(&bytes, &ids), result("a", &bytes, &ids), active_queues(&bytes));
        let mut message = wrapped(&json!([started(), started()]).to_string());
        let at = at % message.len();
        message[at] = byte;
        let _ = events(&message, &ids);
        let _ = events(&message[..at], &ids);
        let _ = events(&wrapped(&String::from_utf8_lossy(&bytes)), &ids);
    }
}
