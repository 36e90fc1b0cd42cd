//! The reading side: merges the shards into totals, samples, windows and failures.
//!
//! Cheap to clone, for any thread. Never makes a worker wait; reads all counters anew on each call, so what was
//! counted is seen at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::lifecycle::Drain;
use crate::model::catalogue::{
    HTTP_SERVER_ACTIVE_REQUESTS, HTTP_SERVER_REQUEST_BODY_SIZE, HTTP_SERVER_RESPONSE_BODY_SIZE, Metric, MetricKind,
};
use crate::model::request::Method;
use crate::model::route::RouteId;
use crate::model::sample::{Exponential, Histogram, Sample, SampleValue};
use crate::model::traffic::{Failure, NewFailures, RouteTraffic, Totals, Window};
use crate::redact::Clean;
use crate::semconv;
use crate::traffic::buckets::{Range, SLOTS};
use crate::traffic::recent::{Entry, KEPT};
use crate::traffic::series::{Class, Counts, Series, SizeCounts};
use crate::traffic::shard::Cells;
use crate::traffic::track::{Tally, Track};

/// The lengths of the windows.
const WINDOWS: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900)];
/// How exact a window's begin is.
const STEP: Duration = Duration::from_secs(5);
/// Routes are many, so their steps are longer.
const ROUTE_STEP: Duration = Duration::from_secs(30);
/// The window of each route.
const ROUTE_WINDOW: Duration = WINDOWS[1];
/// How long a reader waits at most for answers that are being counted; a worker needs microseconds.
const SETTLING_LIMIT: Duration = Duration::from_millis(100);

/// Reads what the shards count.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shards: Arc<[Arc<Cells>]>,
    tracks: Mutex<Tracks>,
}

/// The windows. Only readers and the room's own clock take its lock.
#[derive(Debug)]
struct Tracks {
    total: Track,
    routes: BTreeMap<Option<RouteId>, Track>,
    routes_at: Instant,
}

/// What was counted for one route.
struct RouteTally {
    template: Option<Clean<'static>>,
    tally: Tally,
}

/// Keeps the windows sliding until the process ends. May be started again: the windows are the reader's.
pub async fn run(reader: Reader, mut drain: Drain) {
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    steps.tick().await; // the first one comes at once
    loop {
        tokio::select! {
            _ = steps.tick() => reader.advance(Instant::now()),
            _ = drain.begun() => return,
        }
    }
}

impl Reader {
    pub(super) fn new(shards: Arc<[Arc<Cells>]>) -> Self {
        let now = Instant::now();
        let total = Track::new(now, WINDOWS[2]);
        let tracks = Tracks { total, routes: BTreeMap::new(), routes_at: now };
        Self(Arc::new(Shared { shards, tracks: Mutex::new(tracks) }))
    }

    /// Waits until every answer that a client may hold is counted; a few microseconds, 100 ms at most.
    pub async fn settled(&self) {
        let since: Vec<u64> = self.0.shards.iter().map(|cells| cells.settling()).collect();
        let have_settled = || self.0.shards.iter().zip(&since).all(|(cells, since)| cells.has_settled(*since));
        let deadline = Instant::now() + SETTLING_LIMIT;
        let mut attempts = 0;
        while !have_settled() && Instant::now() < deadline {
            attempts += 1;
            if attempts <= 10 {
                tokio::task::yield_now().await;
            } else {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// The totals since the start of the process.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let mut nanos = 0;
        for cells in self.0.shards.iter() {
            for method in Method::ALL {
                let (begun, ended) = cells.begun_and_ended(method);
                totals.requests += begun;
                totals.completed += ended;
            }
            totals.errors += cells.errors();
            for series in cells.series().filter(|series| series.class == Class::Ordinary) {
                let (sum, count) = series.sum_and_count();
                nanos += sum;
                totals.duration_count += count;
                totals.upstream_refused += if series.key.is_upstream_refused() { count } else { 0 };
            }
        }
        totals.in_flight = totals.requests.saturating_sub(totals.completed);
        totals.duration_sum_seconds = seconds(nanos);
        totals
    }

    /// Adds the samples of now.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        self.active_requests(out);
        let mut all: Vec<&Series> = self.0.shards.iter().flat_map(|cells| cells.series()).collect();
        all.sort_by_key(|series| series.key);
        for same in all.chunk_by(|left, right| left.key == right.key) {
            let mut counts = Counts::NONE;
            same.iter().for_each(|series| series.add_to(&mut counts));
            durations(same[0], &counts, out);
        }
    }

    /// The traffic of the last 1, 5 and 15 minutes.
    #[must_use]
    pub fn windows(&self) -> [Window; 3] {
        let (now, tally) = (Instant::now(), self.tally());
        let tracks = self.0.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        WINDOWS.map(|length| tracks.total.window(now, &tally, length))
    }

    /// The traffic of each route in the last 5 minutes, the busiest first; without a route last.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteTraffic> {
        let (now, tallies) = (Instant::now(), self.route_tallies());
        let tracks = self.0.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes: Vec<RouteTraffic> = tallies
            .into_iter()
            .map(|(id, RouteTally { template, tally })| {
                let window = match tracks.routes.get(&id) {
                    Some(track) => track.window(now, &tally, ROUTE_WINDOW),
                    None => Track::new(tracks.routes_at, ROUTE_WINDOW).window(now, &tally, ROUTE_WINDOW),
                };
                RouteTraffic { route: template, window }
            })
            .collect();
        routes.retain(|route| route.window.requests > 0);
        routes.sort_by_key(|route| (route.route.is_none(), std::cmp::Reverse(route.window.requests)));
        routes
    }

    /// The last failed requests, the newest first; at most 50.
    #[must_use]
    pub fn recent_failures(&self) -> Vec<Failure> {
        let mut all: Vec<(Entry, Option<&Series>)> = self.0.shards.iter().flat_map(|cells| cells.failures()).collect();
        all.reverse(); // so that the later one of two at the same moment stays the first
        all.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.ended_unix_nanos));
        all.truncate(KEPT);
        all.into_iter().map(|(entry, series)| failure(&entry, series)).collect()
    }

    /// What failed since the last call with the same `seen`, which holds the last number of each worker; empty at first.
    pub fn failures_since(&self, seen: &mut Vec<u64>) -> NewFailures {
        seen.resize(self.0.shards.len(), 0);
        let mut new = NewFailures::default();
        for (cells, seen) in self.0.shards.iter().zip(seen) {
            let mut entries = cells.failures();
            entries.retain(|(entry, _)| entry.number > *seen);
            let Some(newest) = entries.iter().map(|(entry, _)| entry.number).max() else { continue };
            new.missed += (newest - *seen).saturating_sub(entries.len() as u64);
            *seen = newest;
            new.failures.extend(entries.iter().map(|(entry, series)| failure(entry, *series)));
        }
        new.failures.sort_by(|left, right| left.at.total_cmp(&right.at));
        new
    }

    fn advance(&self, now: Instant) {
        let tally = self.tally();
        let mut tracks = self.0.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        tracks.total.advance(now, tally);
        if now - tracks.routes_at >= ROUTE_STEP {
            let from = tracks.routes_at;
            for (id, RouteTally { tally, .. }) in self.route_tallies() {
                tracks.routes.entry(id).or_insert_with(|| Track::new(from, ROUTE_WINDOW)).advance(now, tally);
            }
            tracks.routes_at = now;
        }
    }

    fn tally(&self) -> Tally {
        let mut counts = Counts::NONE;
        let mut tally = Tally::none();
        for cells in self.0.shards.iter() {
            tally.completed += Method::ALL.iter().map(|method| cells.begun_and_ended(*method).1).sum::<u64>();
            tally.errors += cells.errors();
            cells.series().filter(|series| series.class == Class::Ordinary).for_each(|s| s.add_to(&mut counts));
        }
        *tally.slots = counts.slots;
        tally
    }

    fn route_tallies(&self) -> BTreeMap<Option<RouteId>, RouteTally> {
        let mut tallies = BTreeMap::new();
        for series in self.0.shards.iter().flat_map(|cells| cells.series()) {
            let mut counts = Counts::NONE;
            series.add_to(&mut counts);
            let (id, template) = series.route.clone().unzip();
            let route = tallies.entry(id).or_insert_with(|| RouteTally { template, tally: Tally::none() });
            route.tally.completed += counts.count();
            route.tally.errors += if series.is_error { counts.count() } else { 0 };
            if series.class == Class::Ordinary {
                route.tally.slots.iter_mut().zip(&counts.slots).for_each(|(mine, theirs)| *mine += theirs);
            }
        }
        tallies
    }

    fn active_requests(&self, out: &mut Vec<Sample>) {
        for method in Method::ALL {
            let counts = self.0.shards.iter().map(|cells| cells.begun_and_ended(method));
            let (begun, ended) = counts.fold((0, 0), |sum: (u64, u64), one| (sum.0 + one.0, sum.1 + one.1));
            if begun > 0 {
                out.push(
                    Sample::level(&HTTP_SERVER_ACTIVE_REQUESTS, begun.saturating_sub(ended) as f64)
                        .with_literal(semconv::HTTP_REQUEST_METHOD, method.label())
                        .with_literal(semconv::URL_SCHEME, "http"),
                );
            }
        }
    }
}

/// The samples of one series: its durations, and the sizes of its bodies.
fn durations(series: &Series, counts: &Counts, out: &mut Vec<Sample>) {
    let count = counts.count();
    if count == 0 {
        return;
    }
    let range = series.class.range();
    let histogram = Histogram {
        explicit: explicit(series.class.metric(), &counts.explicit),
        exponential: Some(exponential(&counts.slots, range)),
        sum: seconds(counts.sum_nanos),
        count,
        min: Some(seconds(counts.min_nanos.into())),
        max: Some(seconds(counts.max_nanos.into())),
        exemplars: counts.examples.iter().flatten().map(|example| (*example).into()).collect(),
    };
    let labels = &series.labels;
    let sample = |metric, histogram| Sample {
        metric,
        labels: labels.clone(),
        value: SampleValue::Histogram(Arc::new(histogram)),
    };
    out.push(sample(series.class.metric(), histogram));
    if series.class == Class::Ordinary {
        let metrics = [&HTTP_SERVER_REQUEST_BODY_SIZE, &HTTP_SERVER_RESPONSE_BODY_SIZE];
        for (metric, sizes) in metrics.into_iter().zip(&counts.bodies) {
            out.push(sample(metric, body_sizes(metric, sizes, count)));
        }
    }
}

/// Sizes of bodies; the requests that are left had none.
fn body_sizes(metric: &Metric, sizes: &SizeCounts, count: u64) -> Histogram {
    let with_body: u64 = sizes.explicit.iter().sum();
    let without = count.saturating_sub(with_body);
    let mut explicit = explicit(metric, &sizes.explicit);
    explicit[0] += without;
    let min = if without > 0 { 0 } else { sizes.min };
    Histogram {
        explicit,
        sum: sizes.sum as f64,
        count: with_body + without,
        min: Some(min as f64),
        max: Some(sizes.max as f64),
        ..Histogram::default()
    }
}

/// As many explicit buckets as the metric has.
fn explicit(metric: &Metric, counts: &[u64]) -> Vec<u64> {
    let MetricKind::Histogram(bounds) = metric.kind else { return Vec::new() };
    counts[..=bounds.len()].to_vec()
}

/// The exponential buckets without the empty ones at both ends.
fn exponential(slots: &[u64; SLOTS], range: Range) -> Exponential {
    let buckets = &slots[1..];
    let first = buckets.iter().position(|count| *count > 0).unwrap_or(0);
    let end = buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    Exponential {
        zero: slots[0],
        zero_threshold: range.zero_threshold(),
        offset: range.offset() + i32::try_from(first).unwrap_or(0),
        counts: buckets[first..end].to_vec(),
    }
}

fn failure(entry: &Entry, series: Option<&Series>) -> Failure {
    Failure {
        at: entry.ended_unix_nanos as f64 / 1e9,
        method: entry.method,
        route: series.and_then(|series| series.route.as_ref()).map(|(_, template)| template.clone()),
        status: entry.status,
        error_type: entry.reason.map_or_else(|| Clean::number(entry.status.into()), Clean::literal),
        duration: entry.duration,
        trace_id: entry.trace_id,
        span_id: entry.span_id,
    }
}

fn seconds(nanos: u128) -> f64 {
    nanos as f64 / 1e9
}
