//! Delivery goes on within 20 s of the receiver's return, whatever it did meanwhile: real sockets, the timeouts of the default.

use std::time::Duration;

use content_factory_sidecar::model::telemetry::Signal;
use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::rig::own_loopback;
use crate::telemetry_link::{Conduct, Link};
use crate::telemetry_receiver::{Codings, Over, Receiver, eventually};
use crate::telemetry_setup::{Running, assert_balanced};

const SOON: Duration = Duration::from_secs(120);
/// What is promised.
const PROMISED: Duration = Duration::from_secs(20);
const REQUESTS: u64 = 50;

/// Nobody listens, or somebody who behaves so.
async fn goes_on(over: Over, outage: Option<Conduct>) {
    let folder = TempDir::new().expect("a folder");
    let receiver = Receiver::over(over, Codings::All, Default::default()).await;
    // an address of its own: nobody else's connection takes the port while nobody listens
    let free = TcpListener::bind((own_loopback(), 0)).await.expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let settings = json!({"endpoint": format!("http://{address}"), "protocol": over.protocol()});
    let link = async || Link::on(TcpListener::bind(address).await.expect("it is free again"), &receiver);
    let mut running = Running::start_in(folder.path(), settings);
    let mut away = None;
    if let Some(conduct) = outage {
        let link = link().await;
        link.turn(conduct);
        away = Some(link);
    }
    running.produce(REQUESTS);
    let way = |running: &Running| running.reader.state().ways[Signal::Traces as usize].clone().expect("a way");
    eventually(&format!("{over:?} {outage:?}: it is given up"), SOON, || way(&running).is_given_up).await;
    let retries = way(&running).retries;
    eventually("it is asked for some times", SOON, || way(&running).retries >= retries + 2).await;
    match &away {
        Some(link) => link.turn(Conduct::Pass),
        None => away = Some(link().await),
    }
    let delivered = || {
        let account = running.account(Signal::Traces);
        assert_balanced(&account);
        account.delivered == 2 * REQUESTS
    };
    eventually(&format!("{over:?} {outage:?}: delivery goes on"), PROMISED, delivered).await;
    running.stop(SOON).await;
    drop(away);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_goes_on_within_20_seconds_of_the_receivers_return_whatever_it_did_meanwhile() {
    let outages = [None, Some(Conduct::Swallow), Some(Conduct::Reset), Some(Conduct::Babble)];
    let cases = Over::ALL.into_iter().flat_map(|over| outages.map(|outage| (over, outage)));
    join_all(cases.map(|(over, outage)| goes_on(over, outage))).await;
}
