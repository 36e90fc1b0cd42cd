//! Counting: per-thread shards, sliding windows, recent failures, route templates.
