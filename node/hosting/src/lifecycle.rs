//! The life of one server: which state may follow which, and what a crash leads to.
//!
//! This is a core: it has no clock, no process and no file. It is told what
//! happened and answers with what to do; timers are among the answers. All
//! transitions are in one table ([`Phase::may_become`]); what the table lacks is
//! an error, and a repeat is no error and does nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::view::ExitReport;

/// Delays before a restart after a crash; the last one repeats. The first is
/// short because most crashes are single ones, the last is long enough for a
/// person to read the log.
pub(crate) const RESTART_DELAYS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// So many crashes within [`CRASH_WINDOW`] and the server is left alone: a game
/// that comes back that often eats the machine and helps no player.
pub(crate) const CRASHES_MAX: usize = 5;

/// See [`CRASHES_MAX`].
pub(crate) const CRASH_WINDOW: Duration = Duration::from_secs(600);

/// A game that answered for so long is healthy; its crashes are forgotten.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(600);

/// A game that a person started and that ends within this span without ever
/// having answered has a wrong start line, not bad luck: no restart helps.
pub(crate) const DIES_AT_ONCE: Duration = Duration::from_secs(3);

/// How long a start waits for a game that dies at once before it reports
/// success: wrong arguments show within a few milliseconds.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);

/// Who wants the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A person, now.
    Person,
    /// The daemon, because a person wanted it running before.
    Daemon,
}

/// Where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Offline,
    Starting,
    Running,
    Stopping,
    Backoff { until: Instant },
    Crashed,
}

impl Phase {
    /// The transition table.
    fn may_become(self, next: Self) -> bool {
        use Phase::{Backoff, Crashed, Offline, Running, Starting, Stopping};
        matches!(
            (self, next),
            (Offline | Crashed | Backoff { .. }, Starting)
                | (Starting, Running)
                | (Starting | Running, Stopping | Backoff { .. } | Crashed | Offline)
                | (Stopping | Backoff { .. } | Crashed, Offline)
        )
    }
}

/// What is known of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    None,
    Spawning,
    Alive { since: Instant },
}

/// Timers that the shell keeps; setting one again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The delay after a crash.
    Restart,
    /// The span after which crashes are forgotten.
    Healthy,
    /// The span in which a start can still turn out to have failed.
    Settle,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Start(Origin),
    Stop,
    Restart,
    Kill,
    /// A process of an earlier daemon was found.
    Attached {
        stopping: bool,
    },
    Spawned,
    SpawnFailed(String),
    /// The game answered.
    Ready,
    Exited(ExitReport),
    /// The game ended while it started, for a reason that the next try removes,
    /// as a port that something else took in the meantime.
    TryAgain,
    Timer(Timer),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Make the process; ends in `Spawned` or `SpawnFailed`.
    Spawn,
    /// Begin the stop ladder; ends in `Exited`.
    Stop,
    /// End the whole group now; ends in `Exited`.
    Kill,
    Set(Timer, Instant),
    Clear(Timer),
    /// Tell those who wait for a start.
    Started(Result<(), String>),
    /// Tell those who wait for a stop.
    Stopped,
}

/// An input that does not fit the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    /// A start while the process is ending.
    #[error("it is stopping: wait until it is offline and start it then, or use restart")]
    Stopping,
    /// The shell reported something that cannot have happened.
    #[error("unexpected {0}")]
    Unexpected(&'static str),
}

/// What waits for a process that is still being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Stop,
    Kill,
}

/// The life of one server.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    phase: Phase,
    process: Process,
    pending: Option<Pending>,
    /// Start again once the stop is through.
    again: bool,
    /// The first run after a person's start, until it answers.
    trial: bool,
    /// Crashes within the window.
    crashes: VecDeque<Instant>,
    /// Crashes since the counter was reset; chooses the delay.
    streak: usize,
    restarts: u32,
    problem: Option<String>,
    out: Vec<Output>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: Phase::Offline,
            process: Process::None,
            pending: None,
            again: false,
            trial: false,
            crashes: VecDeque::with_capacity(CRASHES_MAX),
            streak: 0,
            restarts: 0,
            problem: None,
            out: Vec::new(),
        }
    }
}

impl Lifecycle {
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a process exists or is being made.
    pub(crate) fn has_process(&self) -> bool {
        self.process != Process::None
    }

    /// Restarts after a crash since a person started it.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What is wrong, in one sentence.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes in what happened and says what to do, in order.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) -> Result<Vec<Output>, Refused> {
        let result = match input {
            Input::Start(origin) => self.start(origin),
            Input::Stop => self.stop(Pending::Stop),
            Input::Kill => self.stop(Pending::Kill),
            Input::Restart => self.restart(),
            Input::Attached { stopping } => self.attached(stopping, now),
            Input::Spawned => self.spawned(now),
            Input::SpawnFailed(why) => self.spawn_failed(why, now),
            Input::Ready => self.ready(now),
            Input::Exited(report) => self.exited(&report, now),
            Input::TryAgain => self.try_again(),
            Input::Timer(timer) => self.timer(timer),
        };
        let out = std::mem::take(&mut self.out);
        result.map(|()| out)
    }

    fn become_(&mut self, next: Phase) -> Result<(), Refused> {
        if !self.phase.may_become(next) {
            return Err(Refused::Unexpected("transition"));
        }
        self.phase = next;
        Ok(())
    }

    fn start(&mut self, origin: Origin) -> Result<(), Refused> {
        match self.phase {
            Phase::Stopping => Err(Refused::Stopping),
            Phase::Starting | Phase::Running => {
                // A repeat. While the process is being made, its result is the answer.
                if matches!(self.process, Process::Alive { .. }) {
                    self.out.push(Output::Started(Ok(())));
                }
                Ok(())
            }
            Phase::Offline | Phase::Crashed | Phase::Backoff { .. } => {
                if origin == Origin::Person {
                    self.forget_crashes();
                    self.restarts = 0;
                }
                self.trial = origin == Origin::Person;
                self.problem = None;
                self.spawn()
            }
        }
    }

    fn spawn(&mut self) -> Result<(), Refused> {
        self.become_(Phase::Starting)?;
        self.process = Process::Spawning;
        self.pending = None;
        self.again = false;
        self.out.extend([Output::Clear(Timer::Restart), Output::Spawn]);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Refused> {
        match self.phase {
            Phase::Offline | Phase::Crashed | Phase::Backoff { .. } => self.start(Origin::Person),
            Phase::Starting | Phase::Running => {
                self.stop(Pending::Stop)?;
                self.again = true;
                Ok(())
            }
            Phase::Stopping => {
                self.again = true;
                Ok(())
            }
        }
    }

    fn stop(&mut self, how: Pending) -> Result<(), Refused> {
        self.again = false;
        match self.phase {
            Phase::Offline => self.out.push(Output::Stopped),
            Phase::Crashed | Phase::Backoff { .. } => {
                self.become_(Phase::Offline)?;
                self.problem = None;
                self.out.extend([Output::Clear(Timer::Restart), Output::Stopped]);
            }
            Phase::Starting | Phase::Running => {
                self.become_(Phase::Stopping)?;
                self.problem = None;
                self.out.extend([Output::Clear(Timer::Healthy), Output::Clear(Timer::Settle)]);
                self.out.push(Output::Started(Err("it was stopped before it had started".into())));
                self.end(how);
            }
            Phase::Stopping if how == Pending::Kill => self.end(how),
            Phase::Stopping => {}
        }
        Ok(())
    }

    /// Ends the process, at once or as soon as it exists.
    fn end(&mut self, how: Pending) {
        match (self.process, how) {
            (Process::Alive { .. }, Pending::Stop) => self.out.push(Output::Stop),
            (Process::Alive { .. }, Pending::Kill) => self.out.push(Output::Kill),
            (Process::Spawning | Process::None, _) => self.pending = Some(how),
        }
    }

    fn attached(&mut self, stopping: bool, now: Instant) -> Result<(), Refused> {
        if self.phase != Phase::Offline {
            return Err(Refused::Unexpected("process of an earlier daemon"));
        }
        self.become_(Phase::Starting)?;
        self.process = Process::Alive { since: now };
        self.trial = false;
        if stopping {
            self.become_(Phase::Stopping)?;
        }
        Ok(())
    }

    fn spawned(&mut self, now: Instant) -> Result<(), Refused> {
        if self.process != Process::Spawning {
            return Err(Refused::Unexpected("new process"));
        }
        self.process = Process::Alive { since: now };
        match self.pending.take() {
            Some(how) => self.end(how),
            None => self.out.push(Output::Set(Timer::Settle, now + SETTLE)),
        }
        Ok(())
    }

    fn spawn_failed(&mut self, why: String, now: Instant) -> Result<(), Refused> {
        if self.process != Process::Spawning {
            return Err(Refused::Unexpected("failure to start"));
        }
        self.process = Process::None;
        self.pending = None;
        if self.phase == Phase::Stopping {
            return self.stopped();
        }
        self.out.push(Output::Started(Err(why.clone())));
        if self.trial {
            self.become_(Phase::Offline)?;
            self.problem = Some(why);
            self.out.push(Output::Stopped);
            return Ok(());
        }
        self.crashed(&why, now)
    }

    fn ready(&mut self, now: Instant) -> Result<(), Refused> {
        if self.phase == Phase::Starting && matches!(self.process, Process::Alive { .. }) {
            self.become_(Phase::Running)?;
            self.trial = false;
            self.problem = None;
            self.out.extend([
                Output::Clear(Timer::Settle),
                Output::Set(Timer::Healthy, now + HEALTHY_AFTER),
                Output::Started(Ok(())),
            ]);
        }
        // An answer that was under way while the process ended says nothing.
        Ok(())
    }

    fn exited(&mut self, report: &ExitReport, now: Instant) -> Result<(), Refused> {
        let Process::Alive { since } = self.process else {
            return Err(Refused::Unexpected("end of a process"));
        };
        self.process = Process::None;
        self.out.extend([Output::Clear(Timer::Settle), Output::Clear(Timer::Healthy)]);
        if self.phase == Phase::Stopping || report.asked {
            return self.stopped();
        }
        let what = match &report.last_line {
            Some(line) => format!("{report}, last line: \"{line}\""),
            None => format!("{report}, and it printed nothing"),
        };
        if self.trial && now.duration_since(since) < DIES_AT_ONCE {
            let problem = format!(
                "the game ended as soon as it was started ({what}): correct the start line or \
                 what the line says, then start it again"
            );
            self.become_(Phase::Crashed)?;
            self.out.extend([Output::Started(Err(problem.clone())), Output::Stopped]);
            self.problem = Some(problem);
            return Ok(());
        }
        self.out.push(Output::Started(Err(format!("the game ended ({what})"))));
        self.crashed(&what, now)
    }

    fn try_again(&mut self) -> Result<(), Refused> {
        if self.phase != Phase::Starting || !matches!(self.process, Process::Alive { .. }) {
            return Err(Refused::Unexpected("second try"));
        }
        self.process = Process::Spawning;
        self.out.extend([Output::Clear(Timer::Settle), Output::Spawn]);
        Ok(())
    }

    /// The process ended as asked.
    fn stopped(&mut self) -> Result<(), Refused> {
        let again = std::mem::take(&mut self.again);
        self.become_(Phase::Offline)?;
        if again {
            return self.start(Origin::Person);
        }
        self.out.push(Output::Stopped);
        Ok(())
    }

    fn crashed(&mut self, what: &str, now: Instant) -> Result<(), Refused> {
        self.trial = false;
        while self.crashes.front().is_some_and(|at| now.duration_since(*at) >= CRASH_WINDOW) {
            self.crashes.pop_front();
        }
        self.crashes.push_back(now);
        if self.crashes.len() >= CRASHES_MAX {
            self.become_(Phase::Crashed)?;
            self.problem = Some(format!(
                "crashed {CRASHES_MAX} times within {} minutes and is left alone ({what}): read \
                 its log, remove the cause, then start it again",
                CRASH_WINDOW.as_secs() / 60
            ));
            self.out.push(Output::Stopped);
            return Ok(());
        }
        let delay = RESTART_DELAYS[self.streak.min(RESTART_DELAYS.len() - 1)];
        self.streak += 1;
        let until = now + delay;
        self.become_(Phase::Backoff { until })?;
        self.problem = Some(format!(
            "crashed ({what}) and starts again after {} s: read its log if that repeats",
            delay.as_secs()
        ));
        self.out.push(Output::Set(Timer::Restart, until));
        Ok(())
    }

    fn timer(&mut self, timer: Timer) -> Result<(), Refused> {
        match (timer, self.phase) {
            (Timer::Restart, Phase::Backoff { .. }) => {
                self.restarts += 1;
                self.spawn()?;
            }
            (Timer::Healthy, Phase::Running) => self.forget_crashes(),
            (Timer::Settle, Phase::Starting | Phase::Running) => {
                self.out.push(Output::Started(Ok(())));
            }
            // It fired while something else happened.
            _ => {}
        }
        Ok(())
    }

    fn forget_crashes(&mut self) {
        self.crashes.clear();
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests;
