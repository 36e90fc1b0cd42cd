//! One series of requests: its key, its labels, and its counters, written by one thread and read by any.
//!
//! A version around each change (odd while it lasts) lets a reader take all counters of one moment; the writer
//! never waits and uses plain loads and stores only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::model::catalogue::{
    BODY_BYTES, HTTP_SERVER_PROBE_DURATION, HTTP_SERVER_REQUEST_DURATION, HTTP_SERVER_STREAM_DURATION, Metric,
    REQUEST_SECONDS, STREAM_SECONDS,
};
use crate::model::request::{Outcome, RequestKind, RequestRecord, UpstreamFault};
use crate::model::route::RouteId;
use crate::model::sample::LabelValue;
use crate::redact::{Clean, Outlet, Redactor};
use crate::semconv;
use crate::traffic::buckets::{self, Range, SLOTS};
use crate::traffic::exemplars::{BUCKETS, Example, Examples, Slots, merge};

/// The most explicit buckets that any of the metrics has.
pub(super) const EXPLICIT: usize = 16;

const REQUEST_BOUNDS: [u64; REQUEST_SECONDS.len()] = buckets::nanos(REQUEST_SECONDS);
const STREAM_BOUNDS: [u64; STREAM_SECONDS.len()] = buckets::nanos(STREAM_SECONDS);
const BODY_BOUNDS: [u64; BODY_BYTES.len()] = body_bounds();
const _: () =
    assert!(REQUEST_BOUNDS.len() < EXPLICIT && STREAM_BOUNDS.len() < EXPLICIT && BODY_BOUNDS.len() < EXPLICIT);

const fn body_bounds() -> [u64; BODY_BYTES.len()] {
    let mut out = [0; BODY_BYTES.len()];
    let mut i = 0;
    while i < out.len() {
        out[i] = BODY_BYTES[i] as u64;
        i += 1;
    }
    out
}

/// How often a reader tries to find a series at rest; then it takes the counts that it finds, and no exemplar.
const ATTEMPTS: u32 = 1_000;

/// Which metric of durations a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    Ordinary,
    Probe,
    Stream,
}

impl Class {
    pub(super) const ALL: [Self; 3] = [Self::Ordinary, Self::Probe, Self::Stream];

    fn of(kind: RequestKind) -> Self {
        match kind {
            RequestKind::Ordinary => Self::Ordinary,
            RequestKind::Probe => Self::Probe,
            RequestKind::Stream | RequestKind::Tunnel => Self::Stream,
        }
    }

    pub(super) fn metric(self) -> &'static Metric {
        match self {
            Self::Ordinary => &HTTP_SERVER_REQUEST_DURATION,
            Self::Probe => &HTTP_SERVER_PROBE_DURATION,
            Self::Stream => &HTTP_SERVER_STREAM_DURATION,
        }
    }

    pub(super) fn range(self) -> Range {
        match self {
            Self::Ordinary | Self::Probe => Range::REQUESTS,
            Self::Stream => Range::STREAMS,
        }
    }

    fn bounds(self) -> &'static [u64] {
        match self {
            Self::Ordinary | Self::Probe => &REQUEST_BOUNDS,
            Self::Stream => &STREAM_BOUNDS,
        }
    }
}

/// What a series is counted by, packed; requests with equal labels have equal keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesKey(u64);

impl SeriesKey {
    /// Set in each key, so that none is 0.
    const PRESENT: u64 = 1 << 63;
    const OVERFLOW: u64 = 1 << 62;
    const CLASS_SHIFT: u32 = 60;
    const FAULT: u64 = 32;

    pub(super) fn of(record: &RequestRecord<'_>) -> Self {
        let outcome = match record.outcome {
            Outcome::Answered => 0,
            Outcome::ClientGone => 1,
            Outcome::CutOff(reason) => 2 + reason as u64,
            Outcome::Refused(refusal) => 16 + refusal as u64,
            Outcome::Failed(fault) => Self::FAULT | fault as u64,
        };
        let route = record.route.map_or(0, |route| u64::from(route.id.0) + 1);
        let class = Class::of(record.kind) as u64;
        Self(
            Self::PRESENT
                | class << Self::CLASS_SHIFT
                | route << 32
                | u64::from(record.status) << 16
                | outcome << 8
                | (record.protocol as u64) << 4
                | record.method as u64,
        )
    }

    /// Whether its requests found the application turning connections away; not known of the overflow.
    pub(super) fn is_upstream_refused(self) -> bool {
        (self.0 >> 8) & 0xff == Self::FAULT | UpstreamFault::Refused as u64
    }

    /// The series of all further requests of a class once there are too many series.
    pub(super) fn overflow(self) -> Self {
        Self(Self::PRESENT | Self::OVERFLOW | self.0 & (3 << Self::CLASS_SHIFT))
    }

    pub(super) fn is_overflow(self) -> bool {
        self.0 & Self::OVERFLOW != 0
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }
}

/// The names and values of a series' labels.
pub(super) type Labels = Vec<(&'static str, LabelValue)>;

/// One series.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) key: SeriesKey,
    pub(super) class: Class,
    pub(super) labels: Labels,
    pub(super) route: Option<(RouteId, Clean<'static>)>,
    /// Whether its requests count as errors; not known of the overflow.
    pub(super) is_error: bool,
    version: AtomicU64,
    /// Low and high word: nanoseconds of long streams outgrow one.
    sum_nanos: [AtomicU64; 2],
    min_nanos: AtomicU64,
    max_nanos: AtomicU64,
    explicit: [AtomicU64; EXPLICIT],
    slots: [AtomicU64; SLOTS],
    /// Of request and response; most series never carry a body one way, and probes are not asked.
    bodies: [OnceLock<Box<Sizes>>; 2],
    /// Absent until a request of the series has kept spans.
    exemplars: OnceLock<Box<Slots>>,
}

/// Sizes of bodies that are not empty; the empty ones are those of the requests that are left.
#[derive(Debug)]
struct Sizes {
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    explicit: [AtomicU64; EXPLICIT],
}

/// The counters of one or more series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counts {
    pub(super) sum_nanos: u128,
    pub(super) min_nanos: u64,
    pub(super) max_nanos: u64,
    pub(super) explicit: [u64; EXPLICIT],
    pub(super) slots: [u64; SLOTS],
    pub(super) bodies: [SizeCounts; 2],
    pub(super) examples: Examples,
}

/// The counters of sizes of bodies that are not empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SizeCounts {
    pub(super) sum: u64,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) explicit: [u64; EXPLICIT],
}

impl Series {
    pub(super) fn new(key: SeriesKey, record: &RequestRecord<'_>, redactor: &Redactor) -> Self {
        let class = Class::of(record.kind);
        let route = record
            .route
            .filter(|_| !key.is_overflow())
            .map(|route| (route.id, redactor.text(Outlet::Telemetry, route.template.as_bytes()).into_owned()));
        let labels = if key.is_overflow() {
            vec![(semconv::OTEL_METRIC_OVERFLOW, LabelValue::Flag(true))]
        } else {
            labels(record, route.as_ref().map(|(_, template)| template))
        };
        Self {
            key,
            class,
            labels,
            route,
            is_error: record.is_error() && !key.is_overflow(),
            version: AtomicU64::new(0),
            sum_nanos: zeros(),
            min_nanos: AtomicU64::new(u64::MAX),
            max_nanos: AtomicU64::new(0),
            explicit: zeros(),
            slots: zeros(),
            bodies: Default::default(),
            exemplars: OnceLock::new(),
        }
    }

    /// Counts one request, which may stand as an example of its bucket. One thread only.
    pub(super) fn record(&self, nanos: u64, body_bytes: [u64; 2], example: Option<Example>) {
        let bucket = buckets::explicit(self.class.bounds(), nanos);
        let version = self.version.load(Ordering::Relaxed) | 1;
        self.version.store(version, Ordering::Relaxed);
        fence(Ordering::Release);
        let (sum, carry) = self.sum_nanos[0].load(Ordering::Relaxed).overflowing_add(nanos);
        self.sum_nanos[0].store(sum, Ordering::Relaxed);
        if carry {
            add(&self.sum_nanos[1], 1);
        }
        lower(&self.min_nanos, nanos);
        raise(&self.max_nanos, nanos);
        add(&self.explicit[bucket], 1);
        add(&self.slots[self.class.range().slot(nanos)], 1);
        if self.class == Class::Ordinary {
            for (sizes, bytes) in self.bodies.iter().zip(body_bytes) {
                if bytes > 0 {
                    sizes.get_or_init(Sizes::new).record(bytes);
                }
            }
        }
        if let Some(example) = example {
            self.exemplars.get_or_init(Slots::new).put(bucket, &example);
        }
        self.version.store(version + 1, Ordering::Release);
    }

    /// Adds the counters of one moment.
    pub(super) fn add_to(&self, total: &mut Counts) {
        let counts = self.consistent(|| Counts {
            sum_nanos: self.sum(),
            min_nanos: self.min_nanos.load(Ordering::Relaxed),
            max_nanos: self.max_nanos.load(Ordering::Relaxed),
            explicit: self.explicit.each_ref().map(load),
            slots: self.slots.each_ref().map(load),
            bodies: self.bodies.each_ref().map(|sizes| sizes.get().map_or(SizeCounts::NONE, |sizes| sizes.counts())),
            examples: self.exemplars.get().map_or([None; BUCKETS], |exemplars| exemplars.examples()),
        });
        // counts that are off by the request being counted are true in a moment; the span of another trace never is
        total.add(&counts.unwrap_or_else(|torn| Counts { examples: [None; BUCKETS], ..torn }));
    }

    /// The sum of durations in nanoseconds, and their number.
    pub(super) fn sum_and_count(&self) -> (u128, u64) {
        let read = || (self.sum(), self.explicit.iter().map(load).sum());
        self.consistent(read).unwrap_or_else(|torn| torn)
    }

    fn sum(&self) -> u128 {
        u128::from(load(&self.sum_nanos[1])) << 64 | u128::from(load(&self.sum_nanos[0]))
    }

    /// Reads until nothing was written meanwhile. A writer needs well under a microsecond; one that was put off
    /// the processor in between is waited for by giving the processor away, a bounded number of times: then it is an
    /// error that holds what was found.
    fn consistent<T>(&self, read: impl Fn() -> T) -> Result<T, T> {
        let mut attempts = 0;
        loop {
            let before = self.version.load(Ordering::Acquire);
            let value = read();
            fence(Ordering::Acquire);
            let is_whole = before & 1 == 0 && self.version.load(Ordering::Relaxed) == before;
            if is_whole {
                return Ok(value);
            }
            if attempts == ATTEMPTS {
                return Err(value);
            }
            attempts += 1;
            if attempts > 10 {
                std::thread::yield_now();
            }
        }
    }
}

fn labels(record: &RequestRecord<'_>, route: Option<&Clean<'static>>) -> Labels {
    let literal = |text| LabelValue::Text(Clean::literal(text));
    let mut labels = vec![(semconv::HTTP_REQUEST_METHOD, literal(record.method.label()))];
    if record.status > 0 {
        labels.push((semconv::HTTP_RESPONSE_STATUS_CODE, LabelValue::Number(record.status.into())));
    }
    if let Some(route) = route {
        labels.push((semconv::HTTP_ROUTE, LabelValue::Text(route.clone())));
    }
    if let Some(error_type) = error_type(record) {
        labels.push((semconv::ERROR_TYPE, LabelValue::Text(error_type)));
    }
    labels.push((semconv::NETWORK_PROTOCOL_VERSION, literal(record.protocol.label())));
    labels.push((semconv::URL_SCHEME, literal("http")));
    labels
}

/// The value of `error.type`: the reason that the proxy knows, else the status of a failed answer.
pub(super) fn error_type(record: &RequestRecord<'_>) -> Option<Clean<'static>> {
    match record.error_type() {
        Some(reason) => Some(Clean::literal(reason)),
        None => record.is_error().then(|| Clean::number(record.status.into())),
    }
}

impl Sizes {
    fn new() -> Box<Self> {
        let min = AtomicU64::new(u64::MAX);
        Box::new(Self { sum: AtomicU64::new(0), min, max: AtomicU64::new(0), explicit: zeros() })
    }

    fn record(&self, bytes: u64) {
        add(&self.sum, bytes);
        lower(&self.min, bytes);
        raise(&self.max, bytes);
        add(&self.explicit[buckets::explicit(&BODY_BOUNDS, bytes)], 1);
    }

    fn counts(&self) -> SizeCounts {
        let explicit = self.explicit.each_ref().map(load);
        SizeCounts { sum: load(&self.sum), min: load(&self.min), max: load(&self.max), explicit }
    }
}

impl Counts {
    pub(super) const NONE: Self = Self {
        sum_nanos: 0,
        min_nanos: u64::MAX,
        max_nanos: 0,
        explicit: [0; EXPLICIT],
        slots: [0; SLOTS],
        bodies: [SizeCounts::NONE; 2],
        examples: [None; BUCKETS],
    };

    /// The number of requests.
    pub(super) fn count(&self) -> u64 {
        self.explicit.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        self.sum_nanos += other.sum_nanos;
        self.min_nanos = self.min_nanos.min(other.min_nanos);
        self.max_nanos = self.max_nanos.max(other.max_nanos);
        add_all(&mut self.explicit, &other.explicit);
        add_all(&mut self.slots, &other.slots);
        for (mine, theirs) in self.bodies.iter_mut().zip(&other.bodies) {
            mine.sum += theirs.sum;
            mine.min = mine.min.min(theirs.min);
            mine.max = mine.max.max(theirs.max);
            add_all(&mut mine.explicit, &theirs.explicit);
        }
        merge(&mut self.examples, &other.examples);
    }
}

impl SizeCounts {
    const NONE: Self = Self { sum: 0, min: u64::MAX, max: 0, explicit: [0; EXPLICIT] };
}

/// Adds as the only writer: a load and a store, no locked instruction.
pub(super) fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

fn lower(cell: &AtomicU64, value: u64) {
    if value < cell.load(Ordering::Relaxed) {
        cell.store(value, Ordering::Relaxed);
    }
}

fn raise(cell: &AtomicU64, value: u64) {
    if value > cell.load(Ordering::Relaxed) {
        cell.store(value, Ordering::Relaxed);
    }
}

fn load(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

fn add_all(mine: &mut [u64], theirs: &[u64]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}
