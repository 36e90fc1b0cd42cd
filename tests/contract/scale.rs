//! How much is done: a short form for every day, a long one on demand. And who may disturb whom.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A test that measures what a machine can carry runs alone; the others side by side.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// The first number in the short form, the second with `CONTRACT=full`.
pub(crate) fn scaled<T>(short: T, full: T) -> T {
    match std::env::var("CONTRACT").as_deref() {
        Ok("full") => full,
        Ok("short") | Err(_) => short,
        Ok(other) => panic!("CONTRACT is {other:?}, expected `short` or `full`"),
    }
}

/// Seconds of the soak: `CONTRACT_SOAK_SECONDS`, else by the form.
pub(crate) fn soak_seconds(short: u64, full: u64) -> u64 {
    std::env::var("CONTRACT_SOAK_SECONDS").map_or_else(
        |_| scaled(short, full),
        |text| text.parse().unwrap_or_else(|_| panic!("CONTRACT_SOAK_SECONDS is {text:?}, expected a number")),
    )
}

/// The seed of this run, which is printed: `CONTRACT_SEED` repeats another one.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("CONTRACT_SEED").map_or_else(
        |_| fastrand::u64(..),
        |text| text.parse().unwrap_or_else(|_| panic!("CONTRACT_SEED is {text:?}, expected a number")),
    );
    println!("CONTRACT_SEED={seed}");
    seed
}

/// Held by a test that does not mind others.
pub(crate) async fn among_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Held by a test that needs the machine for itself.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}
