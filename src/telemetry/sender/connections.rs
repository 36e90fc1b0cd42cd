//! Connections to one receiver: one for each address of its name, at most four, used in turn.
//!
//! The name is looked up again when its addresses are old and whenever a connection is lost, and no connection gets
//! older than a few minutes, so that traffic moves with the addresses of a gateway. An address that fails is left alone
//! for a while if there are others. Does not know what is said over a connection: whoever uses it brings that.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::telemetry::config::ConnectionConfig;
use crate::telemetry::resolver::Resolver;
use crate::telemetry::sender::answer::Answer;

/// How long a connection, or the addresses of a name, may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once: enough to spread, few enough for a receiver with many senders.
const MOST: usize = 4;
/// A connection's age, as a part of what is set, so that senders do not move all at once.
const SPREAD: std::ops::Range<f64> = 0.9..1.1;

/// The connection broke before an answer came.
pub(crate) struct Broken(pub(crate) String);

/// Connections of the kind `C` to the addresses of one name.
#[derive(Debug)]
pub(crate) struct Connections<C> {
    host: String,
    port: u16,
    resolver: Resolver,
    config: ConnectionConfig,
    /// Held for moments, never across an await.
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C> {
    addresses: Vec<SocketAddr>,
    /// When they were looked up; `None` when that must be done before the next request.
    known_since: Option<Instant>,
    /// Addresses that failed, and until when they are left alone.
    avoided: Vec<(SocketAddr, Instant)>,
    open: Vec<Connection<C>>,
    /// Requests so far.
    turn: usize,
}

#[derive(Clone, Debug)]
struct Connection<C> {
    client: C,
    address: SocketAddr,
    /// Tells it from others to the same address.
    number: usize,
    end_of_life: Instant,
    /// An answer came through it: when it breaks, the receiver may only have closed it.
    is_proven: bool,
}

impl<C: Clone> Connections<C> {
    /// Looks nothing up yet.
    pub(crate) fn new(host: String, port: u16, resolver: Resolver, config: ConnectionConfig) -> Self {
        let (addresses, avoided, open) = (Vec::new(), Vec::new(), Vec::new());
        let state = State { addresses, known_since: None, avoided, open, turn: 0 };
        Self { host, port, resolver, config, state: Mutex::new(state) }
    }

    /// One request and its answer, within `limit`. `open` makes a connection, `attempt` uses it.
    ///
    /// When it breaks before an answer, the request goes once more at once over a fresh one, if that one had worked
    /// before or another address is left.
    pub(crate) async fn exchange<F: Future<Output = Result<Answer, Broken>>>(
        &self,
        limit: Duration,
        open: impl Fn(SocketAddr) -> C,
        attempt: impl Fn(C) -> F,
    ) -> Answer {
        let deadline = Instant::now() + limit;
        let mut last = String::new();
        for _ in 0..=MOST {
            if let Err(reason) = self.look_up(deadline).await {
                return Answer::none(reason);
            }
            let connection = self.state().next(Instant::now(), self.config.age, &open);
            let Some(connection) = connection else { return Answer::none("the receiver's name has no address") };
            match timeout_at(deadline, attempt(connection.client.clone())).await {
                Ok(Ok(answer)) => {
                    self.state().proven(&connection);
                    return answer;
                }
                Ok(Err(Broken(reason))) => {
                    if !self.state().broke(&connection, Instant::now() + self.config.lookup) {
                        return Answer::none(reason);
                    }
                    last = reason;
                }
                Err(_) => {
                    // what swallowed one request would swallow the next
                    self.state().broke(&connection, Instant::now() + self.config.lookup);
                    return Answer::none(format!("no answer within {limit:?}"));
                }
            }
        }
        Answer::none(last)
    }

    /// Learns the addresses, unless they are known well enough. When nobody tells them, the old ones stay.
    async fn look_up(&self, deadline: Instant) -> Result<(), String> {
        let now = Instant::now();
        if self.state().known_since.is_some_and(|since| now < since + self.config.lookup) {
            return Ok(());
        }
        let deadline = deadline.min(now + CONNECT_TIMEOUT);
        let found = timeout_at(deadline, self.resolver.addresses(&self.host, self.port)).await;
        let mut state = self.state();
        state.known_since = Some(now);
        let failure = match found {
            Ok(Ok(addresses)) if !addresses.is_empty() => {
                state.addresses = addresses;
                return Ok(());
            }
            Ok(Ok(_)) => "no address".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CONNECT_TIMEOUT:?}"),
        };
        if state.addresses.is_empty() {
            state.known_since = None;
            return Err(format!("cannot look up {}: {failure}", self.host));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().expect("no code panics while it holds the connections")
    }
}

impl<C: Clone> State<C> {
    /// The connection whose turn it is; closes those that are too old or whose address is gone, and opens others.
    fn next(&mut self, now: Instant, age: Duration, open: impl Fn(SocketAddr) -> C) -> Option<Connection<C>> {
        self.avoided.retain(|(_, until)| *until > now);
        let (addresses, avoided) = (&self.addresses, &self.avoided);
        self.open.retain(|connection| connection.end_of_life > now && addresses.contains(&connection.address));
        let is_avoided = |address: &SocketAddr| avoided.iter().any(|(other, _)| other == address);
        let mut free: Vec<_> = addresses.iter().filter(|address| !is_avoided(address)).copied().collect();
        if free.is_empty() {
            free.clone_from(addresses);
        }
        free.retain(|address| !self.open.iter().any(|connection| connection.address == *address));
        self.turn += 1;
        while self.open.len() < MOST && !free.is_empty() {
            // by chance, so that of many addresses each has its senders
            let address = free.swap_remove(fastrand::usize(..free.len()));
            let part = SPREAD.start + (SPREAD.end - SPREAD.start) * fastrand::f64();
            let (client, number) = (open(address), self.turn * MOST + self.open.len());
            let end_of_life = now + age.mul_f64(part);
            self.open.push(Connection { client, address, number, end_of_life, is_proven: false });
        }
        let turn = self.turn.checked_rem(self.open.len())?;
        Some(self.open[turn].clone())
    }

    fn proven(&mut self, connection: &Connection<C>) {
        self.avoided.retain(|(address, _)| *address != connection.address);
        if let Some(open) = self.open.iter_mut().find(|open| open.number == connection.number) {
            open.is_proven = true;
        }
    }

    /// Lets go of it, and says whether the request may go once more at once.
    fn broke(&mut self, connection: &Connection<C>, avoided_until: Instant) -> bool {
        let proven = self.open.iter().any(|open| open.number == connection.number && open.is_proven);
        self.open.retain(|open| open.number != connection.number);
        self.known_since = None;
        if proven || connection.is_proven {
            return true;
        }
        self.avoided.retain(|(address, _)| *address != connection.address);
        self.avoided.push((connection.address, avoided_until));
        self.addresses.iter().any(|address| !self.avoided.iter().any(|(other, _)| other == address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_a_tenth_more_or_less_than_is_set_and_no_two_senders_move_at_once() {
        let (now, age) = (Instant::now(), Duration::from_secs(300));
        let life = |_| {
            let addresses = vec![([127, 0, 0, 1], 4317).into()];
            let (avoided, open) = (Vec::new(), Vec::new());
            let mut state = State { addresses, known_since: None, avoided, open, turn: 0 };
            let first = state.next(now, age, drop).unwrap();
            let last_moment = first.end_of_life - Duration::from_millis(1);
            assert_eq!(state.next(last_moment, age, drop).unwrap().number, first.number);
            assert_ne!(state.next(first.end_of_life, age, drop).unwrap().number, first.number);
            first.end_of_life - now
        };
        let lives: Vec<_> = (0..200).map(life).collect();
        let (shortest, longest) = (*lives.iter().min().unwrap(), *lives.iter().max().unwrap());
        assert!(shortest >= age.mul_f64(0.9) && longest <= age.mul_f64(1.1), "{shortest:?} {longest:?}");
        assert!(longest - shortest > age / 10, "{shortest:?} {longest:?}: of 200, some are far apart");
    }
}
