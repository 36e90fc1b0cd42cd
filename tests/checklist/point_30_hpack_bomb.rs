//! Point 30: header lists that are small on the wire and large behind it (CVE-2016-1544, CVE-2016-6581).

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use crate::h2_fate::{Fate, GET, errors, others_are_served, refusals};
use crate::h2_world::{END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, block, encode};
use crate::hostile::{House, Then, data, piece};
use crate::proxy_world::Application;
use crate::rig::{PATIENCE, Sidecar};

/// Memory that a hundred bombs may leave behind.
const GROWTH_KIB: u64 = 8 << 10;

/// A length of HPACK behind a prefix of seven bits (RFC 7541, section 5.1).
fn length(mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![value as u8];
    }
    let mut bytes = vec![127];
    value -= 127;
    while value >= 128 {
        bytes.push((value % 128 + 128) as u8);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}

/// A field that is kept in the table (RFC 7541, section 6.2.1), behind which it is entry 62.
fn kept(name: &str, value: &str) -> Vec<u8> {
    [&[0x40][..], &length(name.len()), name.as_bytes(), &length(value.len()), value.as_bytes()].concat()
}

/// Entry 62, so often (RFC 7541, section 6.1).
fn again(times: usize) -> Vec<u8> {
    vec![0xbe; times]
}

/// A head of these bytes of HPACK.
fn head(hpack: &[u8]) -> Vec<u8> {
    encode((HEADERS, END_HEADERS | END_STREAM), 1, hpack)
}

/// RFC 9113, section 6.5.2: what we announce. The table is 4 KiB unless it is said otherwise.
#[tokio::test]
async fn the_limits_are_announced() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let frame = raw.next_of(0).await.expect("settings");
    assert_eq!(frame.kind, SETTINGS);
    let settings: Vec<(u16, u32)> = frame
        .payload
        .chunks(6)
        .map(|setting| {
            let value = setting[2..].try_into().expect("four bytes");
            (u16::from_be_bytes([setting[0], setting[1]]), u32::from_be_bytes(value))
        })
        .collect();
    let told = |wanted: u16| settings.iter().find(|(id, _)| *id == wanted).map(|(_, value)| *value);
    assert_eq!((told(3), told(6)), (Some(100), Some(16 << 10)), "streams, header list: {settings:?}");
    assert!(told(1).is_none_or(|table| table <= 4_096), "{settings:?}");
    assert!(
        told(4).is_none_or(|window| window <= 65_535) && told(5).is_none_or(|frame| frame <= 16_384),
        "{settings:?}"
    );
}

/// RFC 7541, section 7.3: a large field, spelled out once and named thousands of times, is no more memory than it was bytes.
#[tokio::test]
async fn a_field_that_is_repeated_beyond_the_list_is_refused_in_bounded_memory() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let large = "x".repeat(4_000);
    // 48 MB in one frame of 16 KiB
    let bomb = [block(&GET), kept("x", &large), again(12_000)].concat();
    others_are_served(&sidecar).await;
    let before = sidecar.resident_kib();
    for _ in 0..100 {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(&head(&bomb)).await;
        let fate = raw.fate(1).await;
        let is_refused = matches!(fate, Fate::Answer(431, _) | Fate::Away(_) | Fate::Reset(_));
        assert!(is_refused, "{fate:?}");
    }
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    assert_eq!(application.requests.load(Ordering::Relaxed), 1, "the application saw one");
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 10.5.1: a list beyond what we announce is 431, and the connection goes on.
#[tokio::test]
async fn a_list_of_17_kib_is_431_and_one_below_16_passes() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let value = "x".repeat(1_000);
    let with = |count: usize| [block(&GET), kept("x", &value), again(count - 1)].concat();
    let mut raw = Raw::greet(sidecar.proxy).await;
    raw.bytes(&head(&with(15))).await;
    assert_eq!(raw.fate(1).await, Fate::answer(200, ""), "15 fields of 1,033 octets each");
    let mut raw = Raw::greet(sidecar.proxy).await;
    raw.bytes(&head(&with(17))).await;
    assert_eq!(raw.fate(1).await, Fate::answer(431, ""), "17 of them");
    raw.asks(3, &GET).await;
    assert_eq!(raw.fate(3).await, Fate::answer(200, ""), "the connection goes on");
    assert_eq!(application.requests.load(Ordering::Relaxed), 2, "the application saw the long one");
    // the library answers it, and yet it counts as what it is
    let page = sidecar.metrics().await;
    assert_eq!(refusals(&page, "head_too_large"), 1);
    let series = page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
    let counted: Vec<&str> = series.filter(|line| line.contains("431") && line.contains("head_too_large")).collect();
    assert!(matches!(counted[..], [line] if line.ends_with(" 1")), "{page}");
    others_are_served(&sidecar).await;
}

/// RFC 7541, sections 2.3.3, 4.2 and 5.1: a table larger than ours, an entry that is not there, a number without end.
#[tokio::test]
async fn what_is_no_hpack_ends_the_connection() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let cases = [
        ("a table of a mebibyte", [&[0x3f, 0xe1, 0xff, 0x3f][..], &block(&GET)].concat()),
        ("an entry beyond the table", [block(&GET), vec![0xfe]].concat()),
        ("entry 0", [block(&GET), vec![0x80]].concat()),
        ("an index without end", [block(&GET), vec![0xff; 20]].concat()),
        ("a value beyond the block", [block(&GET), vec![0, 1, b'x', 0x7f, 0xff, 0x7f]].concat()),
        ("a code that ends within", [block(&GET), vec![0, 1, b'x', 0x81, 0]].concat()),
    ];
    for (what, hpack) in &cases {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(&head(hpack)).await;
        let fate = raw.fate(1).await;
        assert!(matches!(fate, Fate::Away("compression_error" | "protocol_error")), "{what}: {fate:?}");
    }
    let page = sidecar.metrics().await;
    let told = errors(&page, "goaway", "compression_error") + errors(&page, "goaway", "protocol_error");
    assert_eq!(told, cases.len() as u64);
    assert_eq!(application.requests.load(Ordering::Relaxed), 0, "the application saw one");
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 5.1.2: beyond a hundred at once a stream is refused, unseen, and those before it go on.
#[tokio::test]
async fn the_hundred_and_first_stream_is_refused() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let hold = [GET[0], GET[1], (":path", "/hold"), GET[3]];
    for number in 0..100 {
        raw.asks(2 * number + 1, &hold).await;
    }
    timeout(PATIENCE, application.held.acquire_many(100)).await.expect("a hundred arrive").expect("open").forget();
    raw.asks(201, &GET).await;
    assert_eq!(raw.fate(201).await, Fate::Reset("refused_stream"));
    assert_eq!(errors(&sidecar.metrics().await, "rst_stream", "refused_stream"), 1);
    assert_eq!(application.requests.load(Ordering::Relaxed), 100);
    drop(raw);
    let gone = timeout(Duration::from_secs(20), application.abandoned.acquire_many(100)).await;
    gone.expect("all of them are told").expect("open").forget();
    others_are_served(&sidecar).await;
}

/// RFC 7541, section 7.3: an application's bomb is 502 in front of the client, and no memory either.
#[tokio::test]
async fn a_bomb_of_the_application_becomes_502_in_bounded_memory() {
    let house = House::start(b"", &[]).await;
    house.serves("nothing").await;
    let before = house.sidecar.resident_kib();
    let bomb = [block(&[(":status", "200")]), kept("x", &"x".repeat(4_000)), again(12_000)].concat();
    for _ in 0..20 {
        let script = (vec![piece((HEADERS, END_HEADERS), &bomb), data(END_STREAM, b"body")], Then::Serve);
        house.never_whole("a bomb", script).await;
    }
    let grown = house.sidecar.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    house.counted("upstream_b", 20).await;
}
