//! The data path: listeners, connections to the application, timers, admission.
