//! Waiting for what will be, instead of sleeping.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often is looked. Two cores have better things to do than to look more often.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until there is a result, and returns it.
///
/// # Panics
/// When the time is over: with what was waited for and what was seen last.
#[track_caller]
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    let mut in_time = true;
    loop {
        match look() {
            Ok(result) if in_time => return result,
            Ok(_) => panic!("{what}: only after {:?}, not within {within:?}", begun.elapsed()),
            Err(seen) if !in_time => panic!("{what}: not within {within:?}; last seen: {seen}"),
            Err(_) => sleep(LOOK),
        }
        // The look itself takes time; one that began in time counts, as does the first.
        in_time = begun.elapsed() <= within;
    }
}
