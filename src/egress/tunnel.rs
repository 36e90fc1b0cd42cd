//! A WebSocket between the caller and the service (RFC 6455): the handshake is a call, and what follows it are bytes both ways,
//! untouched and unread.
//!
//! Bounded: two small buffers, and an end when neither side has said a word, or one has taken none, for as long as an answer may take.

use std::io;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::serve::Afterwards;

/// The caller's side, before the service has agreed.
pub(super) struct Asked {
    caller: OnUpgrade,
    afterwards: Afterwards,
}

/// Held for each direction.
const PIECE: usize = 8 * 1024;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const TO_UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

impl Asked {
    /// The caller's side, when he asks for a WebSocket; other protocols are nothing that a service speaks.
    pub(super) fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let is_one = request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let afterwards = request.extensions().get::<Afterwards>().filter(|_| is_one)?.clone();
        Some(Self { caller: hyper::upgrade::on(request), afterwards })
    }

    /// Goes on with bytes both ways, as soon as the caller has the service's agreement.
    pub(super) fn carry(self, service: reqwest::Response, silence: Duration) {
        let caller = self.caller;
        self.afterwards.go_on(async move {
            let (Ok(caller), Ok(service)) = (caller.await, service.upgrade().await) else { return };
            // whoever breaks off ends it for both
            let _ = carry(TokioIo::new(caller), service, silence).await;
        });
    }
}

/// Asks for a WebSocket, or agrees to one: what `Connection` names belongs to each connection anew.
pub(super) fn name(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, TO_UPGRADE);
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Until both sides have closed, one has broken, or there is silence.
async fn carry<C, S>(caller: C, service: S, silence: Duration) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (from_caller, to_caller) = tokio::io::split(caller);
    let (from_service, to_service) = tokio::io::split(service);
    let silence = Silence { limit: silence, heard: Mutex::new(Instant::now()) };
    tokio::try_join!(pass(from_caller, to_service, &silence), pass(from_service, to_caller, &silence)).map(drop)
}

/// One direction; one side that closes is passed on as such, and the other may go on.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, silence: &Silence) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = silence.unless_it_lasts(from.read(&mut piece)).await?;
        let step = async {
            if count == 0 {
                return to.shutdown().await;
            }
            to.write_all(&piece[..count]).await?;
            to.flush().await
        };
        timeout(silence.limit, step).await??;
        if count == 0 {
            return Ok(());
        }
    }
}

/// When somebody was heard last, whichever side it was.
struct Silence {
    limit: Duration,
    heard: Mutex<Instant>,
}

impl Silence {
    /// Waits for something to read as long as one of the two is heard.
    async fn unless_it_lasts(&self, read: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
        let mut read = pin!(read);
        loop {
            let ends_at = *self.heard() + self.limit;
            match tokio::time::timeout_at(ends_at, read.as_mut()).await {
                Ok(count) => {
                    *self.heard() = Instant::now();
                    return count;
                }
                // the other direction was heard meanwhile
                Err(_) if *self.heard() + self.limit > ends_at => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    const SILENCE: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn one_side_that_talks_keeps_it_and_silence_of_both_ends_it() {
        let (caller, mut callers) = duplex(64);
        let (service, mut services) = duplex(64);
        let talk = async {
            for _ in 0..5 {
                tokio::time::sleep(SILENCE * 3 / 4).await;
                services.write_all(b"word").await.unwrap();
                let mut word = [0; 4];
                callers.read_exact(&mut word).await.unwrap();
                assert_eq!(&word, b"word");
            }
            Instant::now()
        };
        let (ended, last_word) = tokio::join!(carry(caller, service, SILENCE), talk);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(last_word.elapsed() >= SILENCE && last_word.elapsed() < SILENCE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_ends_it() {
        let (caller, _callers) = duplex(64);
        let (service, mut services) = duplex(64);
        let talk = async { while services.write_all(&[0; 64]).await.is_ok() {} };
        let (ended, ()) = tokio::join!(carry(caller, service, SILENCE), talk);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_closed_still_hears_the_other() {
        let (caller, mut callers) = duplex(64);
        let (service, mut services) = duplex(64);
        let talk = async {
            callers.write_all(b"last word").await.unwrap();
            callers.shutdown().await.unwrap();
            let mut heard = String::new();
            services.read_to_string(&mut heard).await.unwrap();
            services.write_all(b"answer").await.unwrap();
            drop(services);
            let mut answer = String::new();
            callers.read_to_string(&mut answer).await.unwrap();
            (heard, answer)
        };
        let (ended, heard) = tokio::join!(carry(caller, service, SILENCE), talk);
        assert!(ended.is_ok());
        assert_eq!(heard, ("last word".to_owned(), "answer".to_owned()));
    }
}
