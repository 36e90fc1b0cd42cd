//! The answers of Redis (RESP2), read with bounds.
//!
//! The client of the `redis` crate keeps what is published in an unbounded queue and takes any length; a result of
//! hundreds of megabytes, or a flood of a server that is hostile, would be in our memory. Here a long text is read past, an answer has a budget, and
//! what we do not read waits at the server, which has its own limit and ends the connection.
//!
//! Source: Redis serialization protocol specification, version 2.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// `+OK`
    Word,
    /// The word of an error, such as `NOPERM`; the rest may name anything.
    Error(String),
    Number(i64),
    Text(Vec<u8>),
    /// A text that is longer than any that is read.
    TooLong,
    Nothing,
    List(Vec<Self>),
}

/// The longest text that is kept.
pub(crate) const LONGEST_TEXT: u64 = 1 << 20;
/// What all texts and items of one answer may take together.
const BUDGET: usize = 4 << 20;
/// What an item takes besides its text.
const ITEM: usize = 48;
/// Numbers and errors are short.
const LONGEST_LINE: u64 = 1 << 10;
/// Lists of lists: `SCAN` has two.
const DEEPEST: u8 = 4;

/// Reads one answer.
///
/// # Errors
/// The connection failed, or what came is no answer or one beyond all bounds; the connection is of no use then.
pub(crate) async fn read(from: &mut (impl AsyncBufRead + Unpin + Send)) -> io::Result<Reply> {
    read_shortly(from, LONGEST_TEXT).await
}

/// Reads one answer, and past each text that is longer than `longest`.
///
/// # Errors
/// As `read`.
pub(crate) async fn read_shortly(from: &mut (impl AsyncBufRead + Unpin + Send), longest: u64) -> io::Result<Reply> {
    let mut bounds = Bounds { budget: BUDGET, longest };
    read_at(from, DEEPEST, &mut bounds).await
}

/// What is left for one answer.
struct Bounds {
    budget: usize,
    longest: u64,
}

impl Bounds {
    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or_else(|| broken("an answer beyond its bounds"))?;
        Ok(())
    }
}

type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<Reply>> + Send + 'a>>;

fn read_at<'a, R: AsyncBufRead + Unpin + Send>(from: &'a mut R, depth: u8, bounds: &'a mut Bounds) -> Reading<'a> {
    Box::pin(async move {
        let line = line(from).await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| broken("an empty line"))?;
        match kind {
            "+" => Ok(Reply::Word),
            "-" => Ok(Reply::Error(word(rest).to_owned())),
            ":" => Ok(Reply::Number(number(rest)?)),
            "$" => text(from, number(rest)?, bounds).await,
            "*" => {
                let Ok(items) = usize::try_from(number(rest)?) else { return Ok(Reply::Nothing) };
                let depth = depth.checked_sub(1).ok_or_else(|| broken("lists nested too deep"))?;
                bounds.spend(items.saturating_mul(ITEM))?;
                let mut list = Vec::with_capacity(items);
                for _ in 0..items {
                    list.push(read_at(from, depth, bounds).await?);
                }
                Ok(Reply::List(list))
            }
            _ => Err(broken("no answer of Redis")),
        }
    })
}

async fn text(from: &mut (impl AsyncBufRead + Unpin + Send), length: i64, bounds: &mut Bounds) -> io::Result<Reply> {
    let Ok(length) = u64::try_from(length) else { return Ok(Reply::Nothing) };
    let text = if length > bounds.longest {
        skip(from, length).await?;
        Reply::TooLong
    } else {
        bounds.spend(length as usize)?;
        let mut text = Vec::with_capacity(length as usize);
        // not `read_exact`: its buffer would have to be written first
        (&mut *from).take(length).read_to_end(&mut text).await?;
        if text.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Reply::Text(text)
    };
    match from.read_u16().await? {
        0x0d0a => Ok(text),
        _ => Err(broken("a text without its end")),
    }
}

async fn skip(from: &mut (impl AsyncBufRead + Unpin + Send), mut length: u64) -> io::Result<()> {
    while length > 0 {
        let there = from.fill_buf().await?.len() as u64;
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = there.min(length);
        from.consume(taken as usize);
        length -= taken;
    }
    Ok(())
}

async fn line(from: &mut (impl AsyncBufRead + Unpin + Send)) -> io::Result<String> {
    let mut line = Vec::new();
    (&mut *from).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let Some(line) = line.strip_suffix(b"\r\n") else { return Err(broken("a line without its end")) };
    String::from_utf8(line.to_vec()).map_err(|_| broken("a line that is no text"))
}

/// The word of a refusal: its first, but for those that tell by a sentence alone.
fn word(refusal: &str) -> &str {
    let says = |words: &str| refusal.contains(words);
    match () {
        () if says("max number of clients") => "MAXCLIENTS",
        // of a command within a script, by the wording of each version
        () if says("can't run this command") || says("ACL failure") || says("NOPERM") => "NOPERM",
        () => refusal.split(' ').next().unwrap_or_default(),
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| broken("no number"))
}

fn broken(found: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(mut bytes: &[u8]) -> io::Result<Reply> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut bytes))
    }

    #[test]
    fn every_kind_of_answer_is_read() {
        let text = |text: &str| Reply::Text(text.into());
        for (bytes, reply) in [
            ("+OK\r\n", Reply::Word),
            ("-NOPERM No permissions to access hunter2\r\n", Reply::Error("NOPERM".into())),
            ("-ERR max number of clients reached\r\n", Reply::Error("MAXCLIENTS".into())),
            (
                "-ERR The user executing the script can't run this command or subcommand script: f_1\r\n",
                Reply::Error("NOPERM".into()),
            ),
            (":-12\r\n", Reply::Number(-12)),
            ("$-1\r\n", Reply::Nothing),
            ("*-1\r\n", Reply::Nothing),
            ("$0\r\n\r\n", text("")),
            ("*2\r\n$1\r\n0\r\n*1\r\n$3\r\na\r\n\r\n", Reply::List(vec![text("0"), Reply::List(vec![text("a\r\n")])])),
        ] {
            assert_eq!(read_all(bytes.as_bytes()).unwrap(), reply, "{bytes:?}");
        }
    }

    #[test]
    fn a_long_text_is_read_past_and_the_next_answer_is_whole() {
        let mut bytes = format!("*2\r\n${}\r\n", LONGEST_TEXT + 1).into_bytes();
        bytes.resize(bytes.len() + LONGEST_TEXT as usize + 1, b'x');
        bytes.extend(b"\r\n:7\r\n");
        assert_eq!(read_all(&bytes).unwrap(), Reply::List(vec![Reply::TooLong, Reply::Number(7)]));
    }

    #[test]
    fn what_is_no_answer_or_beyond_all_bounds_is_an_error() {
        let long = format!("+{}\r\n", "x".repeat(2_000));
        let deep = "*1\r\n".repeat(50);
        let text = format!("$1000000\r\n{}\r\n", "x".repeat(1_000_000));
        let many = format!("*6\r\n{}", text.repeat(6));
        for bytes in [
            "",
            "\r\n",
            "HTTP/1.1 400\r\n",
            ":x\r\n",
            "$5\r\nab\r\n",
            "$2\r\nabcd",
            "*999999999999\r\n",
            "+OK\n",
            &long,
            &deep,
            &many,
        ] {
            assert!(read_all(bytes.as_bytes()).is_err(), "{}", &bytes[..bytes.len().min(40)]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_end_the_reading(bytes in prop::collection::vec(prop::sample::select(b"+-:$*0123456789a\r\n".to_vec()), 0..60)) {
            let _ = read_all(&bytes);
        }
    }
}
