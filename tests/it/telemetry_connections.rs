//! Connections to receivers: to all addresses of a name, replaced by age, and looked up again when one is lost.

use std::net::SocketAddr;
use std::time::Duration;

use content_factory_sidecar::model::telemetry::{ExportCondition, Signal};
use serde_json::{Value, json};

use crate::port::Port;
use crate::telemetry_link::{Link, Names, listeners_of_one_port};
use crate::telemetry_receiver::{Codings, Over, Receiver, eventually, free_listener};
use crate::telemetry_setup::{Running, assert_balanced, config};

const SOON: Duration = Duration::from_secs(20);

/// Two spans for each request.
const REQUESTS: u64 = 10;

/// A receiver at the end of all links.
async fn receiver(over: Over) -> Receiver {
    Receiver::over(over, Codings::All, Default::default()).await
}

/// To a name that only `names` knows; the port is that of `address`.
fn start(over: Over, names: &Names, address: SocketAddr, connection: Value) -> Running {
    let endpoint = format!("http://collector.test:{}", address.port());
    let settings = json!({"endpoint": endpoint, "protocol": over.protocol(), "connection": connection});
    let mut config = config(settings);
    config.resolver = names.resolver();
    Running::start_with(config, 1, Vec::new())
}

/// One delivery after the other, none of which may fail.
async fn deliver(running: &mut Running, times: u64) {
    for _ in 0..times {
        running.produce(REQUESTS);
        running.settled(SOON).await;
    }
    let account = running.account(Signal::Traces);
    assert_balanced(&account);
    assert_eq!(account.delivered, account.produced);
}

fn retries(running: &Running) -> u64 {
    running.reader.state().ways[Signal::Traces as usize].as_ref().expect("traces have a receiver").retries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_addresses_of_a_name_take_their_turn() {
    for over in Over::ALL {
        let (listeners, first, second) =
            (listeners_of_one_port::<2>().await, receiver(over).await, receiver(over).await);
        let [one, other] = listeners;
        let (one, other) = (Link::on(one, &first), Link::on(other, &second));
        let names = Names::of(&[one.address, other.address]);
        let mut running = start(over, &names, one.address, json!({}));
        deliver(&mut running, 6).await;
        assert_eq!([&first, &second].map(|receiver| receiver.with(|seen| seen.calls)), [3, 3], "{over:?}");
        assert_eq!([one.connections(), other.connections()], [1, 1], "{over:?}");
        assert_eq!(names.lookups(), 1, "{over:?}");
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_four_addresses_are_connected_to() {
    for over in Over::ALL {
        let receiver = receiver(over).await;
        let links = listeners_of_one_port::<6>().await.map(|listener| Link::on(listener, &receiver));
        let names = Names::of(&links.each_ref().map(|link| link.address));
        let mut running = start(over, &names, links[0].address, json!({}));
        deliver(&mut running, 12).await;
        assert_eq!(links.iter().filter(|link| link.connections() == 1).count(), 4, "{over:?}");
        assert_eq!(links.iter().filter(|link| link.connections() == 0).count(), 2, "{over:?}");
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_replaced_when_it_is_old() {
    for over in Over::ALL {
        let receiver = receiver(over).await;
        let link = Link::before(&receiver).await;
        let names = Names::of(&[link.address]);
        let mut running = start(over, &names, link.address, json!({"age": "100ms"}));
        let deadline = tokio::time::Instant::now() + SOON;
        while link.connections() < 4 {
            assert!(tokio::time::Instant::now() < deadline, "{over:?}: {} connections", link.connections());
            deliver(&mut running, 1).await;
        }
        assert_eq!((retries(&running), names.lookups()), (0, 1), "{over:?}: age is no failure");
        running.stop(SOON).await;

        let link = Link::before(&receiver).await;
        let mut running = start(over, &Names::of(&[link.address]), link.address, json!({}));
        deliver(&mut running, 20).await;
        assert_eq!(link.connections(), 1, "{over:?}: five minutes are not over");
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leaves_the_name_gets_nothing_more() {
    for over in Over::ALL {
        let (listeners, old, new) = (listeners_of_one_port::<2>().await, receiver(over).await, receiver(over).await);
        let [one, other] = listeners;
        let (one, other) = (Link::on(one, &old), Link::on(other, &new));
        let names = Names::of(&[one.address]);
        let mut running = start(over, &names, one.address, json!({"lookup": "50ms"}));
        deliver(&mut running, 2).await;
        names.become_those_of(&[other.address]);
        let deadline = tokio::time::Instant::now() + SOON;
        while new.with(|seen| seen.calls) == 0 {
            assert!(tokio::time::Instant::now() < deadline, "{over:?}: the new address is not found");
            deliver(&mut running, 1).await;
        }
        let before = old.with(|seen| seen.calls);
        deliver(&mut running, 5).await;
        assert_eq!(old.with(|seen| seen.calls), before, "{over:?}");
        assert_eq!(retries(&running), 0, "{over:?}");
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_moved_is_found_at_once_when_its_connection_is_lost() {
    for over in Over::ALL {
        let (listeners, receiver) = (listeners_of_one_port::<2>().await, receiver(over).await);
        let [one, other] = listeners;
        let (one, other) = (Link::on(one, &receiver), Link::on(other, &receiver));
        let names = Names::of(&[one.address]);
        let mut running = start(over, &names, one.address, json!({"lookup": "1h"}));
        deliver(&mut running, 2).await;
        names.become_those_of(&[other.address]);
        drop(one);
        deliver(&mut running, 2).await;
        assert_eq!((retries(&running), names.lookups()), (0, 2), "{over:?}: the same request went there at once");
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_after_it_has_worked_costs_no_retry() {
    for over in Over::ALL {
        let receiver = receiver(over).await;
        let link = Link::before(&receiver).await;
        let mut running = start(over, &Names::of(&[link.address]), link.address, json!({}));
        for round in 1..=5 {
            deliver(&mut running, 1).await;
            assert_eq!((link.connections(), retries(&running)), (round, 0), "{over:?}");
            link.cut().await;
        }
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_address_of_two_costs_nothing() {
    for over in Over::ALL {
        let (listeners, receiver) = (listeners_of_one_port::<2>().await, receiver(over).await);
        let [dead, live] = listeners;
        let dead = { dead }.local_addr().expect("an address");
        let live = Link::on(live, &receiver);
        let mut running = start(over, &Names::of(&[dead, live.address]), dead, json!({}));
        deliver(&mut running, 6).await;
        assert_eq!((retries(&running), live.connections()), (0, 1), "{over:?}");
        assert_eq!(running.reader.state().condition, ExportCondition::Delivering, "{over:?}");
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_knows_is_asked_for_until_somebody_does() {
    for over in Over::ALL {
        let receiver = receiver(over).await;
        let names = Names::default();
        let mut running = start(over, &names, receiver.address, json!({}));
        running.produce(REQUESTS);
        eventually("it fails", SOON, || retries(&running) >= 2).await;
        let problem = running.reader.state().ways[Signal::Traces as usize].as_ref().and_then(|way| way.problem.clone());
        let problem = problem.expect("it is said").as_str().to_owned();
        assert_eq!(problem, "cannot look up collector.test: no such name");
        names.become_those_of(&[receiver.address]);
        running.settled(SOON).await;
        assert_eq!(running.account(Signal::Traces).delivered, 2 * REQUESTS);
        running.stop(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_says_goaway_loses_nothing_and_its_name_is_asked_again() {
    // as the gateway does once a minute
    let receiver = Receiver::grpc_aging(free_listener().await, Duration::from_millis(100)).await;
    let names = Names::of(&[receiver.address]);
    let mut running = start(Over::Grpc, &names, receiver.address, json!({"lookup": "1h"}));
    let deadline = tokio::time::Instant::now() + SOON;
    while names.lookups() < 4 {
        assert!(tokio::time::Instant::now() < deadline, "{} lookups", names.lookups());
        deliver(&mut running, 1).await;
    }
    assert_eq!(retries(&running), 0);
    let account = running.account(Signal::Traces);
    receiver.with(|seen| assert_eq!(seen.spans.len() as u64, account.produced));
    running.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_sent_when_they_are_asked_for_and_never_else() {
    let receiver = receiver(Over::Grpc).await;
    let [asked, unasked] = [Link::before(&receiver).await, Link::before(&receiver).await];
    let mut without = start(Over::Grpc, &Names::of(&[unasked.address]), unasked.address, json!({}));
    let mut with = start(Over::Grpc, &Names::of(&[asked.address]), asked.address, json!({"ping": "20ms"}));
    deliver(&mut without, 3).await;
    deliver(&mut with, 1).await;
    eventually("silence is asked about", SOON, || asked.pings() >= 10).await;
    deliver(&mut without, 3).await;
    assert_eq!((unasked.pings(), unasked.connections(), asked.connections()), (0, 1, 1));
    without.stop(SOON).await;
    with.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_where_nobody_listens_is_tried_again_at_every_address() {
    for over in Over::ALL {
        let port = Port::reserve();
        let names = Names::of(&[port.address()]);
        let mut running = start(over, &names, port.address(), json!({"lookup": "1h"}));
        running.produce(REQUESTS);
        eventually("it is tried again", SOON, || retries(&running) >= 3).await;
        assert!(names.lookups() >= 3, "{over:?}: the name is looked up before each attempt: {}", names.lookups());
        assert_balanced(&running.account(Signal::Traces));
        running.stop(Duration::ZERO).await;
    }
}

/// Whether the kernel will ask the other side of our connection to this port, and within how many hundredths of a second:
/// proc_pid_net(5), timer 2.
fn keepalive_timer(address: SocketAddr) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a Linux system");
    let to = format!(":{:04X}", address.port());
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, _, remote, "01", _, timer, ..] = columns[..] else { return None };
        let (kind, when) = timer.split_once(':').filter(|_| remote.ends_with(&to))?;
        (kind == "02").then(|| u64::from_str_radix(when, 16).expect("a number"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_asks_after_half_a_minute_of_silence() {
    for over in Over::ALL {
        let receiver = receiver(over).await;
        let link = Link::before(&receiver).await;
        let mut running = start(over, &Names::of(&[link.address]), link.address, json!({}));
        deliver(&mut running, 1).await;
        let is_watched = || keepalive_timer(link.address).is_some_and(|when| (1..=3_000).contains(&when));
        eventually("the kernel watches it", SOON, is_watched).await;
        running.stop(SOON).await;
    }
}
