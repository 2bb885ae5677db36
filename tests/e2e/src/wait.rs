//! Waiting for something to become true.

use std::time::{Duration, Instant};

const LONGEST: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until the answer is `Ok`, and returns it.
///
/// # Panics
/// After a minute, with what was waited for and the last answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LONGEST;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(state) if Instant::now() > end => panic!("waited in vain until {what}: {state}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
