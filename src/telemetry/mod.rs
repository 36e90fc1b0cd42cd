//! The way out of telemetry: span encoding, metric export, queue, sender, and our own `tracing` set-up.
