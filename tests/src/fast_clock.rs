//! A clock that is fast: hours in minutes, for whole processes.

use std::time::{Duration, SystemTime};

use crate::{Place, target_dir};

/// A clock that goes faster than the real one, the same for all that have it.
#[derive(Debug)]
pub struct FastClock {
    speed: u32,
    since: u128,
}

impl FastClock {
    /// A clock that is right now and `speed` times as fast from here on.
    #[expect(clippy::disallowed_methods, reason = "the library wants nanoseconds")]
    pub fn new(speed: u32) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { speed, since: since.expect("it is after 1970").as_nanos() }
    }

    /// The same place, where what runs all the time has this clock.
    ///
    /// # Panics
    /// When the library that does it was not built.
    #[track_caller]
    pub fn at(&self, place: Place) -> Place {
        let library = target_dir().join("test-clock/fast_clock.so");
        assert!(
            library.exists(),
            "{}: `cargo xtask test --only setup` builds it",
            library.display()
        );
        place
            .with_env("LD_PRELOAD", &library.display().to_string())
            .with_env("FAST_CLOCK", &self.speed.to_string())
            .with_env("FAST_CLOCK_SINCE", &self.since.to_string())
    }

    /// How long a while on this clock takes.
    pub fn real(&self, shown: Duration) -> Duration {
        shown / self.speed
    }
}
