//! Commands to workers, as `celery control` publishes them, and the way of their answers.
//!
//! Source: `kombu/pidbox.py`, `kombu/transport/redis.py`. An answer goes through a binding and a list in Redis; both are
//! there only while a question is open.

use redis::{Cmd, Pipeline, cmd};
use serde_json::json;

use crate::model::base64;

/// What separates the parts of a binding.
const SEPARATOR: &str = "\u{6}\u{16}";
/// A question that nobody closed, because we were killed, leaves nothing for longer than this.
const LEFT_SECONDS: u64 = 60;
/// A command that comes later than this to a worker is none.
const EXPIRES_SECONDS: f64 = 5.0;

/// Writes commands for the workers of one Redis.
#[derive(Debug)]
pub(super) struct Control {
    channel: String,
    reply_exchange: String,
    binding: String,
    /// Who asks: names the binding and the list of answers.
    oid: String,
    prefix: String,
}

impl Control {
    /// For this database, exchange and prefix of keys.
    pub(super) fn new(prefix: &str, database: i64, exchange: &str) -> Self {
        let reply_exchange = format!("reply.{exchange}.pidbox");
        Self {
            channel: format!("{prefix}/{database}.{exchange}.pidbox"),
            binding: format!("{prefix}_kombu.binding.{reply_exchange}"),
            reply_exchange,
            oid: format!("content-factory-sidecar-{:016x}", fastrand::u64(..)),
            prefix: prefix.to_owned(),
        }
    }

    /// Tells these workers to send the events of tasks; all of them, if none is named.
    pub(super) fn enable_events(&self, hosts: &[&str], now: f64) -> Cmd {
        let destination = if hosts.is_empty() { None } else { Some(hosts) };
        let body = json!({"method": "enable_events", "arguments": {}, "destination": destination, "pattern": null, "matcher": null});
        self.publish(&body.to_string(), now)
    }

    /// Asks all workers which queues they consume.
    pub(super) fn ask_queues(&self, now: f64) -> Cmd {
        let body = json!({
            "method": "active_queues", "arguments": {}, "destination": null, "pattern": null, "matcher": null,
            "ticket": self.oid, "reply_to": {"exchange": self.reply_exchange, "routing_key": self.oid},
        });
        self.publish(&body.to_string(), now)
    }

    fn publish(&self, body: &str, now: f64) -> Cmd {
        let tag = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let envelope = json!({
            "body": base64::encode(body.as_bytes()),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"clock": 1, "expires": now + EXPIRES_SECONDS},
            "properties": {
                "delivery_mode": 2, "delivery_info": {"exchange": self.exchange(), "routing_key": ""}, "priority": 0,
                "body_encoding": "base64", "delivery_tag": tag,
            },
        });
        let mut publish = cmd("PUBLISH");
        publish.arg(&self.channel).arg(envelope.to_string());
        publish
    }

    fn exchange(&self) -> &str {
        self.reply_exchange.strip_prefix("reply.").unwrap_or_default()
    }

    fn replies(&self) -> String {
        format!("{}{}.{}", self.prefix, self.oid, self.reply_exchange)
    }

    fn bound(&self) -> String {
        // the name of the list stands in its binding without the prefix: who answers puts it before
        let Self { oid, reply_exchange, .. } = self;
        format!("{oid}{SEPARATOR}{SEPARATOR}{oid}.{reply_exchange}")
    }

    /// Opens the way of the answers.
    pub(super) fn open(&self) -> Cmd {
        let mut bind = cmd("SADD");
        bind.arg(&self.binding).arg(self.bound());
        bind
    }

    /// Waits for one answer, as long as the server may: in whole seconds.
    pub(super) fn next(&self) -> Cmd {
        let mut pop = cmd("BRPOP");
        pop.arg(self.replies()).arg(1);
        pop
    }

    /// Sees that what comes after our end does not stay.
    pub(super) fn expire(&self) -> Cmd {
        let mut expire = cmd("EXPIRE");
        expire.arg(self.replies()).arg(LEFT_SECONDS);
        expire
    }

    /// Closes the way of the answers.
    pub(super) fn close(&self) -> Pipeline {
        let mut close = Pipeline::new();
        close.cmd("SREM").arg(&self.binding).arg(self.bound());
        close.cmd("DEL").arg(self.replies());
        close
    }
}
