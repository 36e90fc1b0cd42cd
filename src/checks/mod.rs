//! Health checks in the background: schedule, thresholds, the last report of each.
