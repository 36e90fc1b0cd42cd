//! What waits in a queue: a request as it came in, or as it was compressed for an attempt that failed.

use tokio::time::Instant;

use crate::model::telemetry::Signal;
use crate::telemetry::otlp::{self, Request};
use crate::telemetry::receipt::Receipt;
use crate::telemetry::sealed::{self, Errors, Sealed};
use crate::telemetry::sender::compression::Occasion;

/// A request that waits, and who wants to hear of its delivery.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) items: u64,
    pub(crate) body: Body,
    pub(crate) receipts: Vec<Receipt>,
    /// Its oldest part came in.
    pub(crate) since: Instant,
    /// Why it will be compressed.
    pub(crate) occasion: Occasion,
    pub(crate) errors: Errors,
}

/// The request itself.
#[derive(Debug)]
pub(crate) enum Body {
    /// As it is encoded.
    Raw(Vec<u8>),
    /// As it is sent.
    Sealed(Box<Sealed>),
}

impl From<Request> for Piece {
    fn from(Request { items, body }: Request) -> Self {
        Self {
            items,
            body: Body::Raw(body),
            receipts: Vec::new(),
            since: Instant::now(),
            occasion: Occasion::First,
            errors: Errors::Unknown,
        }
    }
}

impl Piece {
    /// A request whose delivery somebody waits for.
    pub(crate) fn with_receipt(request: Request, receipt: Receipt) -> Self {
        Self { receipts: vec![receipt], ..Self::from(request) }
    }

    /// Bytes in memory.
    pub(crate) fn len(&self) -> usize {
        match &self.body {
            Body::Raw(body) => body.len(),
            Body::Sealed(sealed) => sealed.held(),
        }
    }

    /// Bytes before compression.
    pub(crate) fn raw_len(&self) -> usize {
        match &self.body {
            Body::Raw(body) => body.len(),
            Body::Sealed(sealed) => sealed.cut_at(),
        }
    }

    /// Whether it is not compressed yet.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.body, Body::Raw(_))
    }

    /// Whether all of it tells of errors, as far as is known.
    pub(crate) fn is_errors(&self) -> bool {
        self.errors == Errors::All
    }

    /// The buffer, when so many bytes more fit into it.
    pub(crate) fn with_room(&mut self, bytes: usize) -> Option<&mut Vec<u8>> {
        match &mut self.body {
            Body::Raw(body) if body.capacity() - body.len() >= bytes => Some(body),
            _ => None,
        }
    }

    /// Whether both are one request of at most so many bytes: only what is not compressed yet is put together.
    pub(crate) fn joins(&self, other: &Self, limit: usize) -> bool {
        self.is_raw() && other.is_raw() && self.len() + other.len() <= limit
    }

    /// Appends another one that `joins`.
    pub(crate) fn append(&mut self, other: Self) {
        let Body::Raw(mut more) = other.body else { return };
        if let Body::Raw(body) = &mut self.body {
            body.append(&mut more);
        }
        self.items += other.items;
        self.receipts.extend(other.receipts);
        self.errors = self.errors.and(other.errors);
    }

    /// Cuts it into pieces of at most so many bytes; a single item may be larger. What was compressed is so again, for its halves.
    pub(crate) fn split(&self, signal: Signal, limit: usize) -> Option<Vec<Self>> {
        let (parts, occasion) = match &self.body {
            Body::Raw(body) => (otlp::split(signal, body, limit), self.occasion),
            Body::Sealed(sealed) => (otlp::split(signal, &sealed.opened().ok()?, limit), Occasion::Halved),
        };
        let piece = |part| Self {
            receipts: self.receipts.clone(),
            since: self.since,
            occasion,
            errors: self.errors,
            ..Self::from(part)
        };
        Some(parts.ok()?.into_iter().map(piece).collect())
    }

    /// What does not tell of errors, taken out of what does; `None` when it is of one kind, or compressed.
    pub(crate) fn take_rest(&mut self, signal: Signal) -> Option<Self> {
        let Body::Raw(raw) = &self.body else { return None };
        if self.errors != Errors::Unknown {
            return None;
        }
        let Some([errors, rest]) = sealed::errors_apart(signal, raw) else {
            self.errors = Errors::None;
            return None;
        };
        self.errors = Errors::All;
        if rest.items == 0 {
            return None;
        }
        let (receipts, since, occasion) = (self.receipts.clone(), self.since, self.occasion);
        (self.items, self.body) = (errors.items, Body::Raw(errors.body));
        Some(Self { receipts, since, occasion, errors: Errors::None, ..Self::from(rest) })
    }

    /// What of it tells of errors; `None` when nothing does.
    pub(crate) fn errors(&self, signal: Signal) -> Option<Self> {
        let (items, body) = match &self.body {
            Body::Raw(body) if self.errors != Errors::None && otlp::has_errors(signal, body) => {
                let [errors, _] = otlp::part_errors(signal, body).ok()?;
                (errors.items, Body::Raw(errors.body))
            }
            Body::Raw(_) => return None,
            Body::Sealed(sealed) => {
                let errors = sealed.errors()?;
                (errors.items(), Body::Sealed(Box::new(errors)))
            }
        };
        let (receipts, since, occasion) = (self.receipts.clone(), self.since, self.occasion);
        (items > 0).then_some(Self { items, body, receipts, since, occasion, errors: Errors::All })
    }
}
