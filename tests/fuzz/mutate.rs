//! Mutations of bytes that know nothing of what they mean, for where libFuzzer is not at hand.

use crate::random::Random;

/// Pieces that the parsers under test give a meaning to.
const PIECES: [&[u8]; 28] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"-",
    b":",
    b"/",
    b"{",
    b"}",
    b"[",
    b"]",
    b"00",
    b"ff",
    b"127.0.0.1",
    b"[::1]",
    b"close",
    b"chunked",
    b"\xff",
    b"\x7f",
    b"0\r\n\r\n",
    b"  ",
];

/// One case: a seed with up to eight changes, some of them from another seed.
pub(crate) fn mutated(seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::of(seed, number);
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(7) {
            0 => insert(&mut bytes, at, PIECES[random.below(PIECES.len())]),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                let place = random.below(bytes.len() + 1);
                insert(&mut bytes, place, &copy);
            }
            3 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            4 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
            5 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let piece = &other[from..(from + random.below(32)).min(other.len())];
                insert(&mut bytes, at, piece);
            }
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
    bytes
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}
