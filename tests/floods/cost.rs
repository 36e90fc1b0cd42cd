//! What frames cost us, measured by what they cost the client that sends them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::flood::Small;
use crate::h2_world::{DATA, encode};
use crate::origin::{Origin, exporting};
use crate::{greeting, upload};

/// Connections of one attack; each sends so many pieces, or until it is cut off.
const CONNECTIONS: usize = 50;
const PIECES: usize = 200;

/// Microseconds on a processor of this thread.
fn own_cpu() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel tells it");
    text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("nanoseconds") / 1_000
}

/// Microseconds on a processor of all threads that a process has had, as finely as the kernel tells it.
fn cpu_of(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = text.rsplit(')').next().expect("what is behind the name").split_whitespace();
    // utime and stime in hundredths of a second: proc(5)
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number") * 10_000).sum()
}

/// Sends all of it; gives what that has cost the client.
fn attack(proxy: SocketAddr, begin: &[u8], piece: &[u8]) -> u64 {
    let before = own_cpu();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(proxy).expect("the proxy accepts");
        stream.set_nodelay(true).expect("a socket");
        let all = std::iter::once(begin).chain(std::iter::repeat_n(piece, PIECES));
        for part in all {
            if stream.write_all(part).is_err() {
                break; // cut off
            }
        }
        let _gone_is_fine = stream.shutdown(std::net::Shutdown::Write);
        while stream.read(&mut [0; 4_096]).is_ok_and(|count| count > 0) {}
    }
    own_cpu() - before
}

/// Point 32 of the checklist (RFC 9113, sections 4.1, 4.2 and 10.5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_and_oversized_frames_cost_us_at_most_a_hundred_times_what_they_cost_the_client() {
    let application = Origin::start(Arc::new(Small)).await;
    let sidecar = exporting(application.address, &application, &[]).await;
    let one_byte = encode((DATA, 0), 1, b"x");
    let oversized = encode((DATA, 0), 1, &vec![b'x'; 32 << 10]);
    let attacks = [
        ("DATA of one byte, a frame at a time", one_byte.clone()),
        ("DATA of one byte, many at once", one_byte.repeat(100)),
        ("frames in pieces of one byte", vec![0]),
        ("oversized frames", oversized),
    ];
    for (name, piece) in attacks {
        let (proxy, begin) = (sidecar.proxy, greeting(b"", &upload()));
        let before = cpu_of(sidecar.pid());
        let client = tokio::task::spawn_blocking(move || attack(proxy, &begin, &piece));
        let theirs = client.await.expect("the client does not panic");
        let ours = cpu_of(sidecar.pid()) - before;
        println!("{name}: {ours} us of ours, {theirs} us of the client's");
        assert!(ours <= 100 * theirs, "{name}: {ours} us of ours, {theirs} us of the client's");
    }
}
