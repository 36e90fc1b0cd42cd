//! What the process says when a part of it panics: where, and never with what.
//!
//! The message of a panic may be made from data (a text that was cut in the midst of a character is quoted whole), so
//! only messages that stand in the source as they are get out. Says nothing of what follows: whoever catches the panic
//! logs that. Standard error and not the log, because the log may be what panics, or hold a lock while it does.

use std::any::Any;
use std::io::{self, Write};
use std::panic::{self, Location};
use std::thread;

/// Makes each panic of the process one line on standard error, without data.
pub fn tell_without_data() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let line = line(thread.name(), panic.location(), panic.payload());
        let _ = io::stderr().write_all(line.as_bytes()); // closed: there is nobody to tell
    }));
}

fn line(thread: Option<&str>, location: Option<&Location<'_>>, payload: &dyn Any) -> String {
    let thread = thread.unwrap_or("unnamed");
    let place = location.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    // a `String` was formatted: it may hold what a client has sent
    let message = payload.downcast_ref::<&'static str>().unwrap_or(&"(a message with data is not shown)");
    format!("thread {thread} panicked at {place}: {message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(panics: impl FnOnce() + panic::UnwindSafe) -> String {
        let payload = panic::catch_unwind(panics).unwrap_err();
        line(Some("proxy-0"), Some(Location::caller()), &*payload)
    }

    #[test]
    fn a_panic_tells_its_place_and_a_message_of_the_source() {
        let line = said(|| panic!("the queue is never empty here"));
        assert!(line.starts_with("thread proxy-0 panicked at src/app/panics.rs:"), "{line}");
        assert!(line.ends_with(": the queue is never empty here\n"), "{line}");
    }

    #[test]
    fn a_panic_never_tells_what_it_was_about() {
        let path = String::from("/tokens/s3cr\u{e9}t");
        let cut = path.clone();
        for line in [
            said(move || panic!("no route for {path}")),
            said(move || drop(cut[..13].to_owned())), // the library quotes the whole text
            said(|| panic::panic_any(42)),
        ] {
            assert!(!line.contains("s3cr") && line.contains("not shown"), "{line}");
        }
    }
}
