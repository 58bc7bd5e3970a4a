//! The stop ladder: which step of a stop comes when. A core without a clock.

use std::time::{Duration, Instant};

/// One step of a stop, from the politest to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// A line for the game's console.
    Command(String),
    /// SIGINT, or Ctrl-C.
    Interrupt,
    /// SIGTERM, or Ctrl-Break.
    Terminate,
    /// The end of the whole group, which nothing can ignore.
    Kill,
}

impl Rung {
    /// What a person is shown.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Command(command) => format!("console command \"{command}\""),
            Self::Interrupt if cfg!(windows) => "Ctrl-C".into(),
            Self::Interrupt => "SIGINT".into(),
            Self::Terminate if cfg!(windows) => "Ctrl-Break".into(),
            Self::Terminate => "SIGTERM".into(),
            Self::Kill => "kill".into(),
        }
    }
}

/// Where a stop stands.
#[derive(Debug)]
pub(super) struct Ladder {
    rungs: Vec<Rung>,
    step: Duration,
    /// The rung that is being tried and until when.
    at: Option<(usize, Instant)>,
}

impl Ladder {
    pub(super) fn new(command: Option<String>, step: Duration) -> Self {
        let command = command.filter(|command| !command.is_empty()).map(Rung::Command);
        let rungs = command.into_iter().chain([Rung::Interrupt, Rung::Terminate, Rung::Kill]);
        Self { rungs: rungs.collect(), step, at: None }
    }

    /// The rung that is being tried.
    pub(super) fn current(&self) -> Option<(usize, &Rung)> {
        self.at.map(|(at, _)| (at, &self.rungs[at]))
    }

    /// When the next rung is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.at.map(|(_, until)| until)
    }

    /// Begins; a repeat does nothing.
    pub(super) fn begin(&mut self, now: Instant) -> Option<&Rung> {
        if self.at.is_some() { None } else { Some(self.climb_to(0, now)) }
    }

    /// Goes on where an earlier shim stopped.
    pub(super) fn resume(&mut self, rung: usize, now: Instant) -> &Rung {
        self.climb_to(rung, now)
    }

    /// Tries the next rung. The last one is repeated.
    pub(super) fn next(&mut self, now: Instant) -> &Rung {
        let next = self.at.map_or(0, |(at, _)| at + 1);
        self.climb_to(next, now)
    }

    /// Goes to the last rung.
    pub(super) fn kill(&mut self, now: Instant) -> &Rung {
        self.climb_to(usize::MAX, now)
    }

    fn climb_to(&mut self, rung: usize, now: Instant) -> &Rung {
        let rung = rung.min(self.rungs.len() - 1);
        self.at = Some((rung, now + self.step));
        &self.rungs[rung]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_is_tried_once_and_the_last_repeats() {
        let now = Instant::now();
        let step = Duration::from_secs(7);
        let mut ladder = Ladder::new(Some("quit".into()), step);
        assert_eq!(ladder.due(), None);
        assert_eq!(ladder.begin(now), Some(&Rung::Command("quit".into())));
        assert_eq!(ladder.begin(now), None);
        assert_eq!(ladder.due(), Some(now + step));
        assert_eq!(ladder.next(now), &Rung::Interrupt);
        assert_eq!(ladder.next(now), &Rung::Terminate);
        assert_eq!(ladder.next(now), &Rung::Kill);
        assert_eq!(ladder.next(now), &Rung::Kill);
    }

    #[test]
    fn a_stop_without_a_command_begins_with_a_signal() {
        for command in [None, Some(String::new())] {
            let mut ladder = Ladder::new(command, Duration::ZERO);
            assert_eq!(ladder.begin(Instant::now()), Some(&Rung::Interrupt));
        }
    }

    #[test]
    fn a_stop_is_resumed_and_a_kill_skips() {
        let now = Instant::now();
        let mut ladder = Ladder::new(None, Duration::ZERO);
        assert_eq!(ladder.resume(1, now), &Rung::Terminate);
        assert_eq!(ladder.kill(now), &Rung::Kill);
        assert_eq!(ladder.current(), Some((2, &Rung::Kill)));
        assert_eq!(ladder.resume(99, now), &Rung::Kill);
    }
}
