//! Composition: makes the rooms, carries values from one to another, restarts them, drains.
