//! How a client behaves on its connection: what its frames cost us, what it has earned, and which head it owes.
//!
//! A frame that moves nothing costs a client next to nothing and us an answer or a search (RFC 9113, section 10.5). Such
//! frames are paid from a credit, which time and answers renew; who has spent it is told to calm down. Owned by the
//! connection's task; pure but for the counters. A connection to the application has one too, where requests renew the credit.

use std::cell::{Cell, RefCell};

use crate::proxy::http2::frames::{Frame, Frames, Kind, PREFACE};
use crate::proxy::timers::{NEVER, Tick};

/// Codes of RFC 9113, section 7.
const NO_ERROR: u32 = 0;
/// INTERNAL_ERROR and CANCEL.
const OUR_OWN: [u32; 2] = [2, 8];

/// The credit that a client begins with, in control frames, and the most that it can save. A greeting takes a dozen.
const FIRST_CREDIT: u32 = 500;
const MOST_CREDIT: u32 = 1_000;

/// By time, with each tick of a tenth of a second.
const CREDIT_PER_TICK: u32 = 10;

/// For an answer's head, or a piece of its body: the client opens its window again for each, twice, and some measure the
/// distance by a PING. As much as Envoy allows for one DATA frame.
const CREDIT_PER_ANSWER: u32 = 10;

/// A request that is given up costs more than the frame: its way to the application was for nothing.
const RESET_COST: u32 = 3;

/// Work, in control frames, that a connection may cause before the others of its thread have their turn: about what
/// one request costs.
pub(crate) const TURN_WORK: u32 = 64;
const HEADERS_WORK: u32 = 16;
const BYTES_PER_WORK: usize = 256;

/// DATA that carries less than this is small. It is lawful, and each frame costs us as much as one that is full.
const SMALL_BYTES: usize = 64;

/// So many small ones are read in a tick, 100,000 in a second; then the connection waits for the next.
const SMALL_PER_TICK: u32 = 10_000;

/// Streams that have begun and that nobody has taken yet; more than that are not taken, but refused.
const MOST_UNTAKEN: usize = 256;

/// One client's conduct.
pub(crate) struct Conduct {
    incoming: RefCell<Frames>,
    outgoing: RefCell<Frames>,
    credit: Cell<u32>,
    renewed: Cell<Tick>,
    /// Small DATA frames since then, within one tick.
    small: Cell<u32>,
    /// The last frame that came, perhaps not to its end.
    last: Cell<Option<Frame>>,
    /// Whether a first frame came whole: with it the greeting is over (RFC 9113, section 3.4).
    has_greeted: Cell<bool>,
    /// When the head that is coming, or the greeting, must be whole.
    head_until: Cell<Tick>,
    /// The highest stream that has begun.
    highest: Cell<u32>,
    /// Those that have begun and that the engine has not been given.
    untaken: RefCell<Vec<u32>>,
}

impl Conduct {
    /// A client that begins with a preface of so many bytes, and has until then to greet.
    pub(crate) fn new(preface: usize, (now, until): (Tick, Tick)) -> Self {
        Self {
            incoming: RefCell::new(Frames::behind(preface)),
            outgoing: RefCell::new(Frames::behind(0)),
            credit: Cell::new(FIRST_CREDIT),
            renewed: Cell::new(now),
            small: Cell::new(0),
            last: Cell::new(None),
            has_greeted: Cell::new(false),
            head_until: Cell::new(until),
            highest: Cell::new(0),
            untaken: RefCell::default(),
        }
    }

    /// An application, whose answers begin no streams. A head that does not come to its end has the deadline of the answer.
    pub(crate) fn of_application(now: Tick) -> Self {
        // here the preface is ours: what we ask stands behind it, and renews the credit
        let outgoing = RefCell::new(Frames::behind(PREFACE.len()));
        Self { outgoing, highest: Cell::new(u32::MAX), ..Self::new(0, (now, NEVER)) }
    }

    /// Takes note of bytes that came, and gives the work that they mean. A head that begins among them has until then.
    pub(crate) fn received(&self, bytes: &[u8], (now, until): (Tick, Tick)) -> u32 {
        self.renew(now);
        let mut work = u32::try_from(bytes.len() / BYTES_PER_WORK).unwrap_or(u32::MAX);
        let (mut cost, mut small, mut frames) = (0, self.small.get(), self.incoming.borrow_mut());
        frames.advance(bytes, |frame| {
            cost += cost_of(frame);
            small += u32::from(frame.kind == Kind::Data && frame.length < SMALL_BYTES);
            work += if frame.kind == Kind::Headers { HEADERS_WORK } else { 1 };
            if frame.kind == Kind::Headers {
                self.head_until.set(until);
                self.begins(frame.stream);
            }
            self.last.set(Some(frame));
        });
        self.spend(cost);
        self.small.set(small);
        let is_whole = !frames.is_within();
        let last = self.last.get();
        self.has_greeted.set(self.has_greeted.get() || (last.is_some() && is_whole));
        let is_over = last.is_some_and(|last| !last.is_of_head() || (last.ends_headers() && is_whole));
        if self.has_greeted.get() && is_over {
            self.head_until.set(NEVER);
        }
        work
    }

    /// Takes note of bytes that went out; tells each error in them, and each head of an answer that the engine has not given.
    pub(crate) fn sent(&self, bytes: &[u8], mut told: impl FnMut(Kind, u32)) {
        let (mut earned, mut cost) = (0, 0);
        self.outgoing.borrow_mut().advance(bytes, |frame| {
            if matches!(frame.kind, Kind::Headers | Kind::Reset)
                && self.takes(frame.stream)
                && frame.kind == Kind::Headers
            {
                told(Kind::Headers, NO_ERROR);
            }
            match frame.kind {
                Kind::Data | Kind::Headers => earned += CREDIT_PER_ANSWER,
                Kind::Reset | Kind::GoAway if frame.code != NO_ERROR => {
                    // the client has made us send it (CVE-2025-8671), unless something of ours has failed
                    cost += if OUR_OWN.contains(&frame.code) { 0 } else { RESET_COST };
                    told(frame.kind, frame.code);
                }
                _ => {}
            }
        });
        self.earn(earned);
        self.spend(cost);
    }

    /// A stream begins with its first head.
    fn begins(&self, stream: u32) {
        if stream > self.highest.get() {
            self.highest.set(stream);
            let mut untaken = self.untaken.borrow_mut();
            if untaken.len() < MOST_UNTAKEN {
                untaken.push(stream);
            }
        }
    }

    /// The engine is given this stream, or it has got its answer without; gives whether it had not been taken.
    pub(crate) fn takes(&self, stream: u32) -> bool {
        let mut untaken = self.untaken.borrow_mut();
        let place = untaken.iter().position(|found| *found == stream);
        place.is_some_and(|place| untaken.swap_remove(place) == stream)
    }

    /// Whether the client has spent its credit.
    pub(crate) fn is_flooding(&self) -> bool {
        self.credit.get() == 0
    }

    /// Until when nothing more is read; `NEVER` if it is read as it comes.
    pub(crate) fn waits_until(&self, now: Tick) -> Tick {
        let is_hasty = self.small.get() >= SMALL_PER_TICK && self.renewed.get() == now;
        if is_hasty { now + 1 } else { NEVER }
    }

    /// When the head that is coming must be whole.
    pub(crate) fn head_until(&self) -> Tick {
        self.head_until.get()
    }

    fn renew(&self, now: Tick) {
        let ticks = u32::try_from(now - self.renewed.replace(now)).unwrap_or(u32::MAX);
        if ticks > 0 {
            self.small.set(0);
        }
        self.earn(ticks.saturating_mul(CREDIT_PER_TICK));
    }

    fn spend(&self, credit: u32) {
        self.credit.set(self.credit.get().saturating_sub(credit));
    }

    fn earn(&self, credit: u32) {
        self.credit.set(self.credit.get().saturating_add(credit).min(MOST_CREDIT));
    }
}

/// In credit.
fn cost_of(frame: Frame) -> u32 {
    match frame.kind {
        Kind::Headers => 0, // a request: limits on requests hold for it
        Kind::Data => u32::from(frame.length == 0 && !frame.ends_stream()),
        Kind::Reset => RESET_COST,
        Kind::Continuation | Kind::Control | Kind::GoAway => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const TIME: (Tick, Tick) = (0, 100);

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// A client that has greeted.
    fn greeted() -> Conduct {
        let conduct = Conduct::new(0, TIME);
        conduct.received(&SETTINGS, TIME);
        conduct
    }

    #[test]
    fn frames_that_move_nothing_spend_the_credit_and_time_and_answers_renew_it() {
        let flood = [frame(6, 0, b"12345678"), SETTINGS.to_vec(), frame(0, 0, b""), frame(2, 0, b"12345")].concat();
        let conduct = greeted();
        conduct.received(&flood.repeat(100), TIME);
        assert!(!conduct.is_flooding(), "400 of 500");
        conduct.received(&flood.repeat(100), (10, 110));
        assert!(conduct.is_flooding(), "a second brings 100");
        conduct.sent(&frame(1, 4, b"answer"), |_, _| panic!("no error"));
        assert!(!conduct.is_flooding());
        conduct.received(&flood.repeat(3), (10, 110));
        assert!(conduct.is_flooding(), "an answer is worth 10");
        conduct.received(&[], (1_000, 1_100));
        conduct.received(&flood.repeat(250), (1_000, 1_100));
        assert!(conduct.is_flooding(), "no more than 1,000 are saved");
    }

    #[test]
    fn requests_behind_our_preface_renew_the_credit_of_an_application() {
        let conduct = Conduct::of_application(0);
        conduct.sent(&[PREFACE, &SETTINGS].concat(), |_, _| {});
        for _ in 0..1_000 {
            conduct.sent(&frame(1, 5, b"request"), |_, _| {});
            conduct.received(&frame(3, 0, &[0, 0, 0, 2]), TIME);
        }
        assert!(!conduct.is_flooding(), "a reset for each request");
        conduct.received(&frame(3, 0, &[0, 0, 0, 2]).repeat(400), TIME);
        assert!(conduct.is_flooding(), "and many for none");
    }

    #[test]
    fn requests_and_bodies_are_free_and_resets_are_dear() {
        let conduct = greeted();
        let request = [frame(1, 4, b"block"), frame(0, 0, b"x"), frame(0, 1, b"")].concat();
        conduct.received(&request.repeat(2_000), TIME);
        assert!(!conduct.is_flooding());
        conduct.received(&frame(3, 0, &[0, 0, 0, 8]).repeat(170), TIME);
        assert!(conduct.is_flooding());
    }

    #[test]
    fn a_body_byte_by_byte_waits_for_the_next_tick_and_one_of_full_frames_never_does() {
        let (conduct, full) = (greeted(), [&[0, 4, 0, 0, 0, 0, 0, 0, 1][..], &[b'x'; 1_024]].concat());
        conduct.received(&full.repeat(20_000), TIME);
        assert_eq!(conduct.waits_until(0), NEVER);
        conduct.received(&frame(0, 0, b"x").repeat(9_999), TIME);
        assert_eq!(conduct.waits_until(0), NEVER);
        conduct.received(&frame(0, 0, b"x"), TIME);
        assert_eq!((conduct.waits_until(0), conduct.waits_until(1)), (1, NEVER));
        conduct.received(&frame(0, 0, b"x"), (1, 101));
        assert_eq!(conduct.waits_until(1), NEVER);
        assert!(!conduct.is_flooding(), "it is lawful");
    }

    #[test]
    fn resets_that_we_are_made_to_send_are_dear_too_and_our_own_are_not() {
        for (code, flooding) in [(1, true), (7, true), (2, false), (8, false), (0, false)] {
            let conduct = greeted();
            conduct.sent(&frame(3, 0, &[0, 0, 0, code]).repeat(170), |_, _| {});
            assert_eq!(conduct.is_flooding(), flooding, "{code}");
        }
    }

    #[test]
    fn a_head_has_its_deadline_from_its_begin_to_its_end() {
        let conduct = greeted();
        assert_eq!(conduct.head_until(), NEVER);
        let open = frame(1, 0, b"block");
        conduct.received(&open[..10], (5, 105));
        assert_eq!(conduct.head_until(), 105, "its frame is not whole");
        conduct.received(&open[10..], (6, 106));
        conduct.received(&frame(9, 0, b"more"), (7, 107));
        assert_eq!(conduct.head_until(), 105, "more of it is no new begin");
        conduct.received(&frame(9, 4, b"end"), (8, 108));
        assert_eq!(conduct.head_until(), NEVER);
        conduct.received(&open, (9, 109));
        conduct.received(&[&frame(9, 4, b"end")[..], &open].concat(), (20, 120));
        assert_eq!(conduct.head_until(), 120, "another head is another wait");
    }

    #[test]
    fn the_greeting_has_a_deadline() {
        let conduct = Conduct::new(24, TIME);
        conduct.received(&[b'p'; 24], (1, 101));
        assert_eq!(conduct.head_until(), 100);
        let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
        conduct.received(&settings[..12], (2, 102));
        assert_eq!(conduct.head_until(), 100);
        conduct.received(&settings[12..], (3, 103));
        assert_eq!(conduct.head_until(), NEVER);
    }

    #[test]
    fn errors_that_we_send_are_told_and_an_end_without_one_is_not() {
        let (conduct, mut seen) = (greeted(), Vec::new());
        let bytes = [
            frame(3, 0, &[0, 0, 0, 1]),
            frame(3, 0, &[0, 0, 0, 0]),
            frame(7, 0, &[0, 0, 0, 9, 0, 0, 0, 11]),
            frame(7, 0, &[0, 0, 0, 9, 0, 0, 0, 0]),
        ];
        conduct.sent(&bytes.concat(), |kind, code| seen.push((kind, code)));
        assert_eq!(seen, [(Kind::Reset, 1), (Kind::GoAway, 11)]);
    }

    #[test]
    fn an_answer_to_a_stream_that_the_engine_was_not_given_is_told_and_no_other() {
        let (conduct, mut seen) = (greeted(), Vec::new());
        let on = |kind: u8, flags: u8, stream: u8| vec![0, 0, 0, kind, flags, 0, 0, 0, stream];
        conduct.received(&[on(1, 5, 1), on(1, 5, 3), on(1, 5, 5), on(1, 4, 7)].concat(), TIME);
        assert!(conduct.takes(1) && !conduct.takes(1) && conduct.takes(7));
        conduct.received(&on(1, 5, 7), TIME); // its trailers
        let reset = [&[0, 0, 4, 3, 0, 0, 0, 0, 3][..], &[0, 0, 0, 1]].concat();
        let answers = [on(1, 4, 1), on(1, 5, 1), reset, on(1, 5, 5), on(1, 5, 5), on(1, 5, 7)];
        conduct.sent(&answers.concat(), |kind, code| seen.push((kind, code)));
        assert_eq!(seen, [(Kind::Reset, 1), (Kind::Headers, 0)], "stream 5 was refused by the library");
    }

    #[test]
    fn a_request_is_more_work_than_a_control_frame() {
        let conduct = greeted();
        assert_eq!(conduct.received(&SETTINGS.repeat(20), TIME), 20);
        assert_eq!(conduct.received(&frame(1, 4, b"block"), TIME), HEADERS_WORK);
        let large = [&[0, 16, 0, 0, 0, 0, 0, 0, 1][..], &[b'x'; 4_096]].concat();
        assert_eq!(conduct.received(&large, TIME), 17);
    }
}
