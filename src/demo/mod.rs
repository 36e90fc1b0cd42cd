//! The demo: a built-in content factory, a receiver in the collector's place, and a trickle of traffic.
