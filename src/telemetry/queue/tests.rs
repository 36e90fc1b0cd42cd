//! What is kept, what goes first, and that nothing is uncounted.

use futures_util::FutureExt;

use super::*;
use crate::telemetry::hand_off::HandOff;
use crate::telemetry::otlp;
use crate::telemetry::sealed::Errors;
use crate::telemetry::sender::compression::Occasion;

fn piece(bytes: usize) -> Piece {
    Request { items: 1, body: vec![0; bytes] }.into()
}

#[test]
fn what_is_offered_goes_in_where_there_is_room_and_pushes_nothing_out() {
    let queue = Arc::new(Queue::new(Signal::Traces, 100, 1 << 20));
    assert!(queue.offer(piece(60)).is_ok());
    assert!(queue.offer(piece(60)).is_err());
    let lease = queue.lease(100).expect("one waits");
    assert!(queue.offer(piece(60)).is_err(), "what is on its way has its room still");
    lease.settle(Fate::Delivered { rejected: 0 });
    assert!(queue.offer(piece(60)).is_ok());
    let account = queue.account();
    assert_eq!((account.produced, account.delivered, account.queued, account.dropped.iter().sum()), (2, 1, 1, 0_u64));
}

#[test]
fn spans_of_workers_are_gathered_in_one_buffer_that_the_next_request_has_again() {
    let queue = Arc::new(Queue::new(Signal::Traces, 1 << 20, 1 << 20));
    let origin = Origin { resource: b"", scope: b"" };
    let (sender, mut chunks) = tokio::sync::mpsc::channel(1);
    let mut worker = HandOff::new(sender, Arc::default());
    queue.adopt(Arc::clone(&worker.count));
    let mut leased = || {
        for _ in 0..3 {
            worker.count.count_produced(10);
            let empty = worker.give((10, Errors::Unknown), vec![0; COALESCED]);
            assert!(empty.is_empty());
            let chunk = chunks.try_recv().expect("it was handed over");
            queue.push_handed_over(&origin, &chunk);
        }
        let mut lease = queue.lease(1 << 20).expect("they wait");
        let piece = lease.piece.as_ref().expect("it is not settled");
        let Body::Raw(body) = &piece.body else { panic!("nobody has compressed it") };
        assert!(body.len() > 3 * COALESCED && piece.items == 30, "all at once");
        let buffer = body.as_ptr();
        lease.seal(Compression::Zstd, &Press::default()).expect("memory");
        lease.settle(Fate::Delivered { rejected: 0 });
        buffer
    };
    let first = leased();
    assert_eq!(first, leased());
    let account = queue.account();
    assert_eq!((account.delivered, account.queued_bytes), (60, 0));
}

#[test]
fn a_closed_queue_gives_back_what_is_offered_and_keeps_what_it_has() {
    let queue = Queue::new(Signal::Logs, 100, 1 << 20);
    assert!(queue.offer(piece(10)).is_ok());
    queue.close();
    assert!(queue.offer(piece(10)).is_err());
    assert_eq!(queue.account().queued, 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_grows_old_by_the_clock_that_nobody_sets() {
    let queue = Arc::new(Queue::new(Signal::Logs, 100, 1 << 20));
    queue.push(piece(10));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(queue.oldest_in_memory(), Duration::from_secs(1));
    drop(queue.lease(100));
    assert_eq!(queue.oldest_in_memory(), Duration::from_secs(1), "what comes back is as old as it was");
    queue.oldest_on_disk(Some(Duration::from_secs(60)));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!((queue.oldest_in_memory(), queue.oldest_age()), (Duration::from_secs(6), Duration::from_secs(65)));
    queue.oldest_on_disk(None);
    assert_eq!(queue.oldest_age(), Duration::from_secs(6));
}

const INFO: u8 = 9;
const ERROR: u8 = 17;

/// A request of log records with these severities, each of some hundred bytes that no compression makes smaller.
fn logs(severities: &[u8]) -> Request {
    let mut records = Vec::new();
    for severity in severities {
        let noise: Vec<u8> = (0..100).map(|_| fastrand::u8(..)).collect();
        let record = [&[0x10, *severity, 0x4a, 100][..], &noise].concat();
        records.extend([&[0x12, 104][..], &record].concat());
    }
    Request { items: severities.len() as u64, body: otlp::request(b"", b"", &records) }
}

fn assert_balanced(account: &Account) {
    let ends = account.delivered + account.rejected + account.dropped.iter().sum::<u64>();
    assert_eq!(account.produced, ends + account.queued + account.spooled, "{account:?}");
}

#[test]
fn what_is_compressed_for_an_attempt_waits_as_it_is_for_all_further_ones_and_is_counted_by_its_bytes() {
    let (queue, press) = (Arc::new(Queue::new(Signal::Logs, 1 << 20, 1 << 20)), Press::default());
    queue
        .push(Request { items: 1_000, body: otlp::request(b"", b"", &[[0x12, 2, 0x10, INFO]; 1_000].concat()) }.into());
    let raw = queue.account().queued_bytes;
    let mut first = None;
    for goal in [1 << 20, 10, 10, 10, 10] {
        let mut lease = queue.lease(goal).expect("it waits, and is cut no more for a small probe");
        let sealed = lease.seal(Compression::Zstd, &press).expect("memory");
        let held = sealed.held() as u64;
        assert!(held < raw / 10);
        assert_eq!(queue.account().queued_bytes, held);
        let bytes = sealed.form().framed().clone();
        assert_eq!(first.get_or_insert(bytes.clone()).as_ptr(), bytes.as_ptr());
    }
    assert_eq!(Occasion::ALL.map(|occasion| press.compressions(Signal::Logs, occasion)), [1, 0, 0]);
    queue.lease(10).expect("it waits").settle(Fate::Delivered { rejected: 0 });
    assert_eq!(queue.account().queued_bytes, 0);
}

#[test]
fn what_the_receiver_finds_too_large_is_compressed_again_in_halves() {
    let (queue, press) = (Arc::new(Queue::new(Signal::Logs, 1 << 20, 1 << 20)), Press::default());
    queue.push(logs(&[INFO; 4]).into());
    let mut whole = queue.lease(1 << 20).expect("it waits");
    whole.seal(Compression::Zstd, &press).expect("memory");
    queue.shrink_limit(whole.raw_len() / 2);
    drop(whole);
    let mut items = 0;
    while let Some(mut half) = queue.lease(1 << 20) {
        let sealed = half.seal(Compression::Zstd, &press).expect("memory");
        assert!(half.raw_len() <= queue.limit() || half.is_indivisible());
        items += sealed.items();
        half.settle(Fate::Delivered { rejected: 0 });
    }
    assert_eq!((items, queue.account().delivered, queue.account().queued_bytes), (4, 4, 0));
    let [first, halved, other] = Occasion::ALL.map(|occasion| press.compressions(Signal::Logs, occasion));
    assert!(first == 1 && halved >= 2 && other == 0, "{first} {halved} {other}");
}

#[test]
fn what_has_no_room_in_memory_goes_oldest_first_and_errors_last() {
    for is_compressed in [false, true] {
        let (queue, press) = (Arc::new(Queue::new(Signal::Logs, 100_000, 1 << 20)), Press::default());
        queue.push(logs(&[ERROR, INFO].repeat(100)).into());
        if is_compressed {
            let mut lease = queue.lease(1 << 20).expect("it waits");
            lease.seal(Compression::Zstd, &press).expect("memory");
        }
        for _ in 0..200 {
            queue.push(logs(&[INFO; 50]).into());
            let account = queue.account();
            assert_balanced(&account);
            assert!(account.queued_bytes <= 100_000);
        }
        let mut errors = 0;
        while let Some(mut lease) = queue.lease(1 << 20) {
            let sealed = lease.seal(Compression::Zstd, &press).expect("memory");
            errors += sealed.errors().map_or(0, |errors| errors.items());
            lease.settle(Fate::Delivered { rejected: 0 });
        }
        let account = queue.account();
        assert_eq!((errors, account.produced), (100, 200 + 200 * 50), "all of them, and none of the oldest others");
        assert!(account.dropped[DropReason::QueueFull as usize] > 9_000, "{account:?}");
        // and when there is nothing else, the oldest of them
        for _ in 0..50 {
            queue.push(logs(&[ERROR; 50]).into());
            assert_balanced(&queue.account());
        }
        assert!(queue.account().queued_bytes <= 100_000);
    }
}

#[test]
fn bytes_count_where_they_are_held_from_the_workers_chunk_to_an_attempt_from_the_disk() {
    let queue = Arc::new(Queue::new(Signal::Traces, 1 << 20, 1 << 20));
    let (sender, mut chunks) = tokio::sync::mpsc::channel(1);
    let mut worker = HandOff::new(sender, Arc::default());
    queue.adopt(Arc::clone(&worker.count));
    worker.count.count_produced(3);
    worker.give((2, Errors::Unknown), vec![0; 1_000]);
    assert_eq!(queue.account().queued_bytes, 1_000, "on its way");
    worker.give((1, Errors::Unknown), vec![0; 500]);
    assert_eq!(queue.account().queued_bytes, 1_000, "what had no room is gone");
    let origin = Origin { resource: b"", scope: b"" };
    queue.push_handed_over(&origin, &chunks.try_recv().expect("it was handed over"));
    assert_eq!(queue.account().queued_bytes, origin.request_length(&[0; 1_000]) as u64);
    let lent = queue.lend(70);
    queue.lease(1 << 20).expect("it waits").settle(Fate::Delivered { rejected: 0 });
    assert_eq!(queue.account().queued_bytes, 70);
    drop(lent);
    assert_eq!((queue.account().queued_bytes, queue.account().delivered), (0, 2));
}

#[test]
fn what_is_given_back_wakes_whoever_saw_nothing_while_it_was_taken() {
    let queue = Arc::new(Queue::new(Signal::Traces, 1 << 20, 1 << 20));
    queue.push(piece(60));
    let lease = queue.lease(100).expect("one waits");
    let arrived = queue.arrived();
    assert_eq!(queue.waiting_bytes(), 0);
    drop(lease);
    assert!(arrived.now_or_never().is_some());
}
