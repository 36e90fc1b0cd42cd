//! Recordings of real workers give the account that is known of them; and no order of events gives another.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use super::*;
use crate::tasks::celery::event::{ExceptionClass, Sign, TaskIds, Verdict, WorkerEvent};
use crate::tasks::celery::totals::Counts;
use crate::tasks::celery::wire;

const NEWEST: &str = include_str!("../../../../tests/data/celery/celery-5.7.0-events-on.jsonl");
const OLD: &str = include_str!("../../../../tests/data/celery/celery-5.2.7-events-on.jsonl");
const EVENTS_OFF: &str = include_str!("../../../../tests/data/celery/celery-5.7.0-events-off.jsonl");
const LONG_TASKS: &str = include_str!("../../../../tests/data/celery/excerpt-long-tasks.jsonl");

const LOST_AFTER: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn ledger() -> Ledger {
    Ledger::new(LOST_AFTER, 50, &Arc::new(Redactor::new([])))
}

/// The events of a recording, in its order.
fn recorded(recording: &str) -> Vec<Event> {
    let ids = TaskIds::default();
    let mut found = Vec::new();
    for line in recording.lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        let (channel, payload) = (message["channel"].as_str().unwrap(), message["payload"].as_str().unwrap());
        if let Some(id) = channel.strip_prefix("celery-task-meta-") {
            found.extend(wire::result(id, payload.as_bytes(), &ids).unwrap());
        } else if channel.contains("celeryev") {
            found.extend(wire::events(payload.as_bytes(), &ids).unwrap());
        }
    }
    found
}

/// The ledger after these events, all of one moment, and the time that it takes to settle them.
fn after(events: impl IntoIterator<Item = Event>) -> (Ledger, Instant) {
    let (mut ledger, now) = (ledger(), Instant::now());
    events.into_iter().for_each(|event| ledger.take(event, now));
    ledger.tick(Some(now), now + SETTLING);
    (ledger, now + SETTLING)
}

/// Sent, received, started, retried, and the outcomes, over all names.
fn sums(ledger: &Ledger) -> ([u64; 4], [u64; Outcome::ALL.len()]) {
    let mut steps = [0; 4];
    let mut outcomes = [0; Outcome::ALL.len()];
    for (_, Counts { sent, received, started, retried, outcomes: ends, .. }) in ledger.totals.pairs() {
        steps.iter_mut().zip([sent, received, started, retried]).for_each(|(sum, more)| *sum += more);
        outcomes.iter_mut().zip(ends).for_each(|(sum, more)| *sum += more);
    }
    (steps, outcomes)
}

#[tokio::test]
async fn a_complete_run_is_counted_as_it_was() {
    // succeeded, result_error, failed, revoked; 5.2.7 publishes no result of what was revoked before it began
    for (recording, revoked) in [(NEWEST, 1), (OLD, 0)] {
        let (ledger, _) = after(recorded(recording));
        assert_eq!(sums(&ledger), ([7, 8, 7, 1], [2, 1, 3, revoked, 0, 0, 0]));
        assert_eq!(ledger.workers.missed(), 0);
        assert_eq!(ledger.running.len(), 0);
    }
}

#[tokio::test]
async fn names_queues_and_classes_are_told_apart() {
    let (ledger, _) = after(recorded(NEWEST));
    let mut found: Vec<String> = ledger
        .totals
        .pairs()
        .map(|(pair, counts)| {
            format!("{}@{} {:?}", ledger.shown(pair)[0], ledger.shown(pair)[1], &counts.outcomes[..4])
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "labapp.crash@celery [0, 0, 1, 0]",
            "labapp.discover@main-queue [0, 1, 0, 0]",
            "labapp.publish@celery [0, 0, 1, 0]",
            "labapp.retryme@celery [0, 0, 1, 0]",
            "labapp.sched@celery [1, 0, 0, 0]",
            "labapp.video@video-queue [1, 0, 0, 1]",
        ]
    );
    let mut classes: Vec<String> =
        ledger.totals.failures().map(|(_, class, count)| format!("{} {count}", ledger.classes.shown(class))).collect();
    classes.sort();
    assert_eq!(classes, ["EncodeError 1", "RuntimeError 1", "ValueError 1"]);
}

#[tokio::test]
async fn runtimes_and_waits_are_measured() {
    let (ledger, _) = after(recorded(NEWEST));
    let video = ledger.totals.pairs().find(|(pair, _)| ledger.shown(*pair)[0].as_str() == "labapp.video").unwrap().1;
    assert_eq!((video.runtime.count(), video.wait.count()), (1, 1));
    assert!((2.0..2.1).contains(&video.runtime.mean().unwrap()), "{video:?}");
    // a retry waits for its second, which is no wait in the queue
    let retried =
        ledger.totals.pairs().find(|(pair, _)| ledger.shown(*pair)[0].as_str() == "labapp.retryme").unwrap().1;
    assert!(retried.wait.mean().unwrap() < 0.5, "{retried:?}");
}

#[tokio::test]
async fn each_task_that_has_run_and_ended_becomes_one_span_with_its_runtime() {
    for recording in [NEWEST, OLD] {
        let (mut ledger, now) = (ledger(), Instant::now());
        ledger.traces = Traces::on();
        recorded(recording).into_iter().for_each(|event| ledger.take(event, now));
        ledger.tick(Some(now), now + SETTLING);
        let ended = ledger.traces.take();
        let mut shown: Vec<String> = ended
            .iter()
            .map(|task| format!("{} {:?}", ledger.names.shown(task.name), task.error.as_ref().map(|_| "bad")))
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "labapp.crash Some(\"bad\")",
                "labapp.discover Some(\"bad\")",
                "labapp.publish Some(\"bad\")",
                "labapp.retryme Some(\"bad\")",
                "labapp.sched None",
                "labapp.video None",
            ]
        );
        let video = ended.iter().find(|task| ledger.names.shown(task.name).as_str() == "labapp.video").unwrap();
        assert!((2.0..2.1).contains(&video.seconds), "{video:?}");
        ledger.tick(Some(now), now + SETTLING * 2);
        assert_eq!(ledger.traces.take().len(), 0);
    }
}

#[tokio::test]
async fn without_events_the_results_are_counted_under_what_the_sender_said() {
    let (ledger, _) = after(recorded(EVENTS_OFF));
    assert_eq!(sums(&ledger), ([7, 0, 0, 1], [2, 1, 3, 1, 0, 0, 0]));
    assert!(ledger.totals.pairs().all(|(pair, _)| ledger.shown(pair)[0].as_str() != "(unknown)"));
    assert_eq!(ledger.workers.missed(), 0, "a worker that sends no events misses none");
}

#[tokio::test]
async fn nothing_of_arguments_results_and_exceptions_is_kept() {
    for recording in [NEWEST, OLD, EVENTS_OFF] {
        assert!(recording.contains("hunter2") || recording.contains("secretpw"), "the test would prove nothing");
        let (ledger, _) = after(recorded(recording));
        let kept = format!("{ledger:?}");
        for secret in ["hunter2", "secretpw", "boom", "coroutine", "Traceback"] {
            assert!(!kept.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn a_run_is_lost_once_its_worker_was_silent_for_long_enough() {
    let (mut ledger, now) = after(recorded(LONG_TASKS));
    assert_eq!((ledger.running.len(), sums(&ledger).0), (1, [0, 3, 1, 0]));
    let silent = now - SETTLING + SECOND * 4;
    ledger.tick(Some(now - SETTLING), silent + LOST_AFTER);
    assert_eq!(ledger.running.len(), 1);
    ledger.tick(Some(now - SETTLING), silent + LOST_AFTER + SECOND);
    ledger.tick(Some(now - SETTLING), silent + LOST_AFTER + SECOND + SETTLING);
    assert_eq!((ledger.running.len(), sums(&ledger).1[Outcome::Lost as usize]), (0, 1));
}

#[tokio::test]
async fn a_run_is_lost_although_its_worker_is_started_and_killed_again_and_again() {
    let (mut ledger, start, ids) = (ledger(), Instant::now(), TaskIds::default());
    let mut lost = Vec::new();
    for second in 0..60_u32 {
        let (now, pid) = (start + SECOND * second, u64::from(second / 4));
        // it lives for four seconds, and in each life begins a task that kills it
        let beat = WorkerEvent { processed: u64::from(second % 4 > 0), ..idle(pid) };
        ledger.take(Event::Worker(beat), now);
        if second % 4 == 0 {
            ledger.take(told_by(pid, ids.id(&second.to_string()), Step::Started), now);
        }
        ledger.tick(Some(start), now);
        lost.push(sums(&ledger).1[Outcome::Lost as usize]);
    }
    // silent from second 3 on: one more in each four seconds
    assert_eq!((lost[33], lost[36], lost[59]), (0, 1, 6), "{lost:?}");
}

#[tokio::test]
async fn what_may_have_ended_while_nothing_was_heard_is_not_lost_unless_its_worker_proved_that_it_goes_on() {
    // what the worker tells to work on after the gap, in heartbeats at their pace, and what is known of it
    for (active, is_lost) in [(&[][..], false), (&[0], false), (&[1, 1], false), (&[1, 1, 1], true), (&[2, 2, 2], true)]
    {
        let (mut ledger, now, ids) = (ledger(), Instant::now(), TaskIds::default());
        let beat = |active| Event::Worker(WorkerEvent { active, processed: 1, ..idle(1) });
        ledger.take(Event::Worker(idle(1)), now);
        ledger.take(told(ids.id("t"), Step::Started), now);
        ledger.deaf();
        ledger.tick(None, now + SECOND);
        let mut back = now + SECOND * 5;
        let listening = back;
        for active in active {
            ledger.take(beat(*active), back);
            ledger.tick(Some(listening), back);
            back += SECOND * 2;
        }
        // and is another process at once
        ledger.take(Event::Worker(idle(2)), back);
        for seconds in [0, 60, 63] {
            ledger.tick(Some(listening), back + SECOND * seconds);
        }
        let (_, outcomes) = sums(&ledger);
        let (lost, unseen) = (outcomes[Outcome::Lost as usize], outcomes[Outcome::Unseen as usize]);
        assert_eq!((lost == 1, unseen == 1), (is_lost, !is_lost), "{active:?}");
    }
}

#[tokio::test]
async fn that_a_worker_runs_another_task_after_a_gap_proves_nothing_of_the_one_before() {
    let (mut ledger, now, ids) = (ledger(), Instant::now(), TaskIds::default());
    let beat = |active, processed| Event::Worker(WorkerEvent { active, processed, ..idle(1) });
    ledger.take(Event::Worker(idle(1)), now);
    ledger.take(told(ids.id("over"), Step::Started), now);
    ledger.deaf();
    ledger.tick(None, now + SECOND);
    let back = now + SECOND * 5;
    ledger.take(told(ids.id("next"), Step::Started), back);
    for beats in 1..=4 {
        ledger.take(beat(1, 2), back + SECOND * 2 * beats);
        ledger.tick(Some(back), back + SECOND * 2 * beats);
    }
    ledger.take(Event::Worker(idle(2)), back + SECOND * 9);
    for seconds in [0, 60, 63] {
        ledger.tick(Some(back), back + SECOND * (9 + seconds));
    }
    let (_, outcomes) = sums(&ledger);
    assert_eq!((outcomes[Outcome::Lost as usize], outcomes[Outcome::Unseen as usize]), (1, 1));
}

#[tokio::test]
async fn what_a_worker_ran_while_it_had_no_connection_of_its_own_is_not_lost() {
    let (mut ledger, now, ids) = (ledger(), Instant::now(), TaskIds::default());
    ledger.take(Event::Worker(idle(1)), now);
    ledger.take(told(ids.id("t"), Step::Started), now);
    let online = WorkerEvent { sign: Sign::Online, active: 1, processed: 1, ..idle(1) };
    ledger.take(Event::Worker(online), now + SECOND * 6);
    ledger.take(Event::Worker(idle(2)), now + SECOND * 7);
    for seconds in [0, 60, 63] {
        ledger.tick(Some(now), now + SECOND * (7 + seconds));
    }
    assert_eq!(sums(&ledger).1[Outcome::Unseen as usize], 1);
}

#[tokio::test]
async fn what_a_worker_had_received_before_a_gap_and_was_not_heard_of_again_is_uncertain() {
    let (mut ledger, now, ids) = (ledger(), Instant::now(), TaskIds::default());
    let received = || Step::Received { name: "t".into(), retries: 0, due: None };
    ledger.take(Event::Worker(idle(1)), now);
    ledger.take(Event::Worker(WorkerEvent { host: "other@h".into(), ..idle(9) }), now);
    for task in ["begun", "held", "delivered again"] {
        ledger.take(told(ids.id(task), received()), now);
    }
    ledger.take(told(ids.id("begun"), Step::Started), now);
    let by_other =
        TaskEvent { id: ids.id("heard"), host: "other@h".into(), pid: 9, at: 1.0, origin: None, step: received() };
    ledger.take(Event::Task(by_other), now);
    ledger.deaf();
    ledger.tick(None, now + SECOND);
    let back = now + SECOND * 5;
    ledger.take(Event::Worker(WorkerEvent { host: "other@h".into(), ..idle(9) }), back);
    let mut counts = Vec::new();
    for seconds in [0, 60] {
        ledger.tick(Some(back), back + SECOND * seconds);
        counts.push(ledger.adrift.count());
    }
    ledger.take(told_by(3, ids.id("delivered again"), received()), back + SECOND * 61);
    counts.push(ledger.adrift.count());
    // the worker was only away for very long
    ledger.take(Event::Worker(WorkerEvent { processed: 1, ..idle(1) }), back + SECOND * 62);
    counts.push(ledger.adrift.count());
    assert_eq!(counts, [0, 2, 1, 0]);
}

#[tokio::test]
async fn a_run_that_ended_unseen_and_whose_end_comes_after_all_is_found_again() {
    let (mut ledger, now) = after(recorded(LONG_TASKS));
    ledger.deaf();
    for wait in [Duration::ZERO, SETTLING] {
        ledger.tick(Some(now - SETTLING), now + LOST_AFTER * 2 + wait);
    }
    assert_eq!(sums(&ledger).1[Outcome::Unseen as usize], 1);
    let id = recorded(LONG_TASKS).into_iter().rev().find_map(|event| match event {
        Event::Task(TaskEvent { id, step: Step::Started, .. }) => Some(id),
        _ => None,
    });
    let end = TaskResult { id: id.unwrap(), state: ResultState::Success(Verdict::Good) };
    ledger.take(Event::Result(end), now + LOST_AFTER * 2);
    ledger.tick(Some(now), now + LOST_AFTER * 3);
    assert_eq!((sums(&ledger).1[0], ledger.totals.found_again), (1, 1));
}

#[tokio::test]
async fn a_run_whose_worker_was_killed_before_nothing_was_heard_is_lost() {
    let (mut ledger, now, ids) = (ledger(), Instant::now(), TaskIds::default());
    ledger.take(Event::Worker(idle(1)), now);
    ledger.take(told(ids.id("t"), Step::Started), now);
    ledger.take(Event::Worker(idle(2)), now + SECOND * 2);
    ledger.deaf();
    ledger.tick(None, now + SECOND * 3);
    let back = now + SECOND * 5;
    for seconds in [0, 60, 63] {
        ledger.tick(Some(back), back + SECOND * seconds);
    }
    assert_eq!(sums(&ledger).1[Outcome::Lost as usize], 1);
}

#[tokio::test]
async fn nothing_is_lost_while_nothing_can_be_heard() {
    let (mut ledger, now) = after(recorded(LONG_TASKS));
    ledger.tick(None, now + LOST_AFTER * 10);
    ledger.tick(Some(now + LOST_AFTER * 10), now + LOST_AFTER * 11);
    assert_eq!((ledger.running.len(), sums(&ledger).1[Outcome::Lost as usize]), (1, 0));
}

#[tokio::test]
async fn a_run_that_was_given_up_and_ends_after_all_is_found_again() {
    let (mut ledger, now) = after(recorded(LONG_TASKS));
    for wait in [Duration::ZERO, SETTLING] {
        ledger.tick(Some(now - SETTLING), now + LOST_AFTER * 2 + wait);
    }
    let id = recorded(LONG_TASKS).into_iter().rev().find_map(|event| match event {
        Event::Task(TaskEvent { id, step: Step::Started, .. }) => Some(id),
        _ => None,
    });
    let end = Event::Result(TaskResult { id: id.unwrap(), state: ResultState::Success(Verdict::Good) });
    for _ in 0..2 {
        ledger.take(end.clone(), now + LOST_AFTER * 2);
    }
    ledger.tick(Some(now), now + LOST_AFTER * 3);
    let (_, outcomes) = sums(&ledger);
    assert_eq!((outcomes[0], outcomes[Outcome::Lost as usize], ledger.totals.found_again), (1, 1, 1));
}

#[tokio::test]
async fn the_run_of_a_worker_that_has_nothing_to_do_has_ended_unseen() {
    let (mut ledger, now) = after(recorded(LONG_TASKS));
    let beat = |processed| {
        let (host, version) = ("k1@vm".to_owned(), String::new());
        Event::Worker(WorkerEvent {
            host,
            pid: 19_117,
            sign: Sign::Heartbeat,
            period: SECOND * 2,
            active: 0,
            processed,
            version,
        })
    };
    for seconds in 1..=12 {
        ledger.take(beat(1), now + SECOND * seconds);
        ledger.tick(Some(now), now + SECOND * seconds);
    }
    assert_eq!((ledger.running.len(), sums(&ledger).1[Outcome::Unseen as usize]), (0, 1));
}

fn idle(pid: u64) -> WorkerEvent {
    let (host, version) = ("w@h".to_owned(), String::new());
    WorkerEvent { host, pid, sign: Sign::Heartbeat, period: SECOND * 2, active: 0, processed: 0, version }
}

fn told(id: TaskId, step: Step) -> Event {
    told_by(1, id, step)
}

fn told_by(pid: u64, id: TaskId, step: Step) -> Event {
    Event::Task(TaskEvent { id, host: "w@h".into(), pid, at: 1.0, origin: None, step })
}

#[tokio::test]
async fn the_oldest_task_is_forgotten_for_a_new_one_and_counted_before() {
    let (mut ledger, now, ids) = (ledger(), Instant::now(), TaskIds::default());
    for number in 0..MOST_TASKS + 10 {
        let step = Step::Received { name: "t".into(), retries: 0, due: None };
        ledger.take(told(ids.id(&number.to_string()), step), now);
    }
    assert_eq!((ledger.tasks.len(), ledger.forgotten), (MOST_TASKS, 10));
    ledger.tick(Some(now), now + SETTLING);
    assert_eq!(sums(&ledger).0[1], MOST_TASKS as u64 + 10);
    ledger.tick(Some(now), now + REMEMBERED);
    assert_eq!(ledger.tasks.len(), 0);
}

#[tokio::test]
async fn what_has_ended_leaves_nothing_behind_beside_one_that_waits_for_long() {
    let (mut ledger, mut now, ids) = (ledger(), Instant::now(), TaskIds::default());
    let received = || Step::Received { name: "t".into(), retries: 0, due: None };
    ledger.take(told(ids.id("patient"), received()), now);
    for number in 0..20_000 {
        let id = ids.id(&number.to_string());
        ledger.take(told(id, received()), now);
        ledger.take(told(id, Step::Failed(ExceptionClass::of("KeyError()"))), now);
        if number % 100 == 0 {
            now += AFTERGLOW;
            ledger.tick(Some(now), now);
        }
    }
    ledger.tick(Some(now), now + AFTERGLOW);
    assert_eq!(ledger.tasks.len(), 1);
    assert!(
        ledger.by_age.len() <= 1_026 && ledger.ended.is_empty() && ledger.settling.is_empty(),
        "{}",
        ledger.by_age.len()
    );
    assert_eq!(sums(&ledger).1[Outcome::Failed as usize], 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_order_of_the_events_changes_what_is_counted(swaps in prop::collection::vec(any::<(Index, Index)>(), 0..120), old in any::<bool>()) {
        let mut events = recorded(if old { OLD } else { NEWEST });
        // workers are told apart by the order of their signs, and that of one connection is kept
        events.retain(|event| !matches!(event, Event::Worker(_)));
        for (left, right) in swaps {
            let (left, right) = (left.index(events.len()), right.index(events.len()));
            events.swap(left, right);
        }
        let (ledger, _) = after(events);
        prop_assert_eq!(sums(&ledger), ([7, 8, 7, 1], [2, 1, 3, u64::from(!old), 0, 0, 0]));
        let unnamed = ledger.totals.pairs().filter(|(pair, _)| ledger.shown(*pair)[1].as_str() == "(unknown)").count();
        prop_assert_eq!(unnamed, 0);
    }

    #[test]
    fn an_end_that_is_told_again_counts_once(times in 1..5_usize, by_result in any::<bool>()) {
        let mut events = recorded(NEWEST);
        let ends: Vec<Event> = events.iter().filter(|event| match event {
            Event::Result(result) => by_result && result.state != ResultState::Retry,
            Event::Task(task) => !by_result && matches!(task.step, Step::Succeeded { .. } | Step::Failed(_)),
            Event::Worker(_) => false,
        }).cloned().collect();
        for _ in 0..times {
            events.extend(ends.iter().cloned());
        }
        let (ledger, _) = after(events);
        prop_assert_eq!(sums(&ledger).1, [2, 1, 3, 1, 0, 0, 0]);
    }
}
