//! Configuration: file, environment and flags, read into each room's own `Config`.
