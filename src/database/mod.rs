//! Business rows from the application's database, by a tiny pool of our own.
