//! The lease as Redis keeps it: a key with the holder's id that expires, and the number of the last mark up to which
//! counts were claimed. One script does all of it in one step; every wait has a limit.

use std::time::Duration;

use redis::{Cmd, ConnectionInfo, cmd};
use tokio::time::timeout;

use crate::lease::config::Config;
use crate::redis_link::resp::Reply;
use crate::redis_link::{Arrival, Link, LinkError};

/// Takes a free lease (`take`), or keeps one that is held (`keep`), and claims counts up to a mark, if one is given.
///
/// KEYS: the lease, the last claim. ARGV: id, milliseconds, `take` or `keep`, the number of a mark or nothing. Answers the
/// holder, nothing when there is none, and the last claim. A week after the last one it is of no use to anybody.
const TURN: &str = "local holder = redis.call('GET', KEYS[1]) or ''
if holder == '' and ARGV[3] == 'take' then holder = ARGV[1] end
if holder == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4], 'EX', 604800) end
end
return {holder, redis.call('GET', KEYS[2]) or ''}";

/// Gives a lease back, if it is still ours.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// One question, its connection included.
const LONGEST_LIMIT: Duration = Duration::from_secs(1);

/// A connection to the Redis of the lease; opened when there is none.
pub(super) struct Server {
    server: ConnectionInfo,
    keys: [String; 2],
    channel: String,
    id: String,
    duration: Duration,
    limit: Duration,
    kept: Option<Link>,
}

/// What Redis says of the lease.
#[derive(Debug)]
pub(super) struct Word {
    /// The holder's id; `None` when nobody holds it.
    pub(super) holder: Option<String>,
    /// The mark up to which counts were claimed last; `None` when none ever were, or Redis has forgotten.
    pub(super) claimed: Option<u64>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The lease, if it is free.
    Take,
    /// To keep it, if it is ours.
    Keep,
    /// To keep it, and the counts up to this mark.
    Claim(u64),
}

/// Why there is no answer: a word that is shown, and logged once.
pub(super) type Problem = &'static str;

/// It answers, and not as our script does.
const NO_WORD: Problem = "protocol";

impl Server {
    /// Of this configuration, for the replica of this id.
    pub(super) fn new(config: &Config, server: ConnectionInfo, id: String, channel: String) -> Self {
        let keys = [format!("{}:lease", config.key), format!("{}:claimed", config.key)];
        let limit = LONGEST_LIMIT.min(config.duration / 4);
        Self { server, keys, channel, id, duration: config.duration, limit, kept: None }
    }

    /// Asks for the lease.
    pub(super) async fn ask(&mut self, wish: Wish) -> Result<Word, Problem> {
        let (mode, mark) = match wish {
            Wish::Take => ("take", String::new()),
            Wish::Keep => ("keep", String::new()),
            Wish::Claim(mark) => ("keep", mark.to_string()),
        };
        let mut command = cmd("EVAL");
        command.arg(TURN).arg(2).arg(&self.keys).arg(&self.id);
        command.arg(self.duration.as_millis() as u64).arg(mode).arg(mark);
        let answer = self.query(&command).await?;
        let Reply::List(parts) = answer else { return Err(NO_WORD) };
        let [Reply::Text(holder), Reply::Text(claimed)] = &parts[..] else { return Err(NO_WORD) };
        let [holder, claimed] = [holder, claimed].map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(Word { holder: Some(holder).filter(|id| !id.is_empty()), claimed: claimed.parse().ok() })
    }

    /// Publishes a mark.
    pub(super) async fn publish(&mut self, mark: u64) -> Result<(), Problem> {
        let mut command = cmd("PUBLISH");
        command.arg(&self.channel).arg(mark);
        self.query(&command).await.map(drop)
    }

    /// Gives the lease back.
    pub(super) async fn release(&mut self) -> Result<(), Problem> {
        let mut command = cmd("EVAL");
        command.arg(RELEASE).arg(1).arg(&self.keys[0]).arg(&self.id);
        self.query(&command).await.map(drop)
    }

    /// A connection that fails is not used again: an answer that is late would be taken for that of the next question.
    async fn query(&mut self, command: &Cmd) -> Result<Reply, Problem> {
        let kept = self.kept.take();
        let asked = async {
            let mut link = match kept {
                Some(link) => link,
                None => Link::greeted(&self.server, Arrival::Told).await?,
            };
            let answer = link.answer(command).await?;
            Ok::<_, LinkError>((answer, link))
        };
        match timeout(self.limit, asked).await {
            Ok(Ok((answer, link))) => {
                self.kept = Some(link);
                Ok(answer)
            }
            Ok(Err(error)) => Err(error.class()),
            Err(_) => Err("timeout"),
        }
    }
}
