//! When a running game is asked, and what its answers amount to.

use std::time::{Duration, Instant};

use homehost_protocol::UnixMillis;

use crate::definition::{QueryKind, ServerDefinition};
use crate::lifecycle::{Lifecycle, Phase};
use crate::query::{Answer, Querier, Target};

/// The first question: a small game is there by then.
const FIRST: Duration = Duration::from_millis(150);

/// While a game starts, so that "ready" is told within a second.
const STARTING: Duration = Duration::from_secs(1);

/// While it runs: often enough for a list of players, unnoticeable for a game.
const RUNNING: Duration = Duration::from_secs(5);

/// Without a query, a game that lived so long counts as ready.
const ALIVE: Duration = Duration::from_secs(2);

/// So many answers missing in a row are no accident: a map change takes one or two.
const SILENT_MAX: u32 = 3;

/// One question that is under way.
pub(super) struct Poll {
    target: Option<Target>,
    run: u64,
}

/// What came of it.
pub(super) struct Polled {
    answer: Option<Answer>,
    /// Whether anything was asked at all.
    asked: bool,
    run: u64,
}

impl Poll {
    pub(super) async fn run(self, querier: &Querier) -> Polled {
        let answer = match self.target {
            Some(target) => querier.ask(target).await,
            None => Some(Answer::default()),
        };
        Polled { answer, asked: self.target.is_some(), run: self.run }
    }
}

/// What is known of the game's inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) players: Option<u16>,
    pub(super) slots: Option<u16>,
    pub(super) answered: Option<UnixMillis>,
}

/// The polls of one server.
#[derive(Debug, Default)]
pub(super) struct Polls {
    next: Option<Instant>,
    /// Counts runs, so that a late answer is not taken for one of this run.
    run: u64,
    waiting: bool,
    silent: u32,
    seen: Seen,
    /// For games that tell their players on the console only.
    console: Option<u16>,
    by_console: bool,
}

impl Polls {
    /// A game is there.
    pub(super) fn begin(&mut self, now: Instant, definition: &ServerDefinition) {
        self.run += 1;
        self.waiting = false;
        self.silent = 0;
        self.by_console = definition.query.kind == QueryKind::Luanti;
        let asks_nothing = target(definition).is_none();
        self.next = Some(now + if asks_nothing { ALIVE } else { FIRST });
    }

    /// It is gone, and so is all that was known.
    pub(super) fn end(&mut self) {
        *self = Self { run: self.run + 1, ..Self::default() };
    }

    pub(super) fn players_by_console(&mut self, players: Option<u16>) {
        self.console = players;
        self.seen.players = if self.silent >= SILENT_MAX { None } else { players };
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.next.filter(|_| !self.waiting)
    }

    /// The question that is due, if one is.
    pub(super) fn start(
        &mut self,
        now: Instant,
        core: &Lifecycle,
        definition: &ServerDefinition,
    ) -> Option<Poll> {
        self.due().filter(|due| *due <= now)?;
        let target = target(definition);
        self.next = match (core.phase(), target) {
            (Phase::Starting, _) => Some(now + STARTING),
            (Phase::Running, Some(_)) => Some(now + RUNNING),
            // Nothing to ask for, or nobody to ask: a stopping game is left alone.
            _ => None,
        };
        self.next?;
        self.waiting = true;
        Some(Poll { target, run: self.run })
    }

    /// Takes in what a question led to; says whether the game answered.
    pub(super) fn take(&mut self, polled: Polled, core: &Lifecycle, at: UnixMillis) -> bool {
        if polled.run != self.run {
            return false;
        }
        self.waiting = false;
        match polled.answer {
            Some(answer) => {
                self.silent = 0;
                let players = if self.by_console { self.console } else { answer.players };
                let answered = polled.asked.then_some(at);
                self.seen = Seen { players, slots: answer.slots, answered };
                true
            }
            None => {
                if core.phase() == Phase::Running {
                    self.silent += 1;
                    if self.silent >= SILENT_MAX {
                        self.seen.players = None;
                    }
                }
                false
            }
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// A game that runs and does not answer; it is not restarted for that.
    pub(super) fn problem(&self) -> Option<String> {
        (self.silent >= SILENT_MAX).then(|| {
            "it runs but does not answer its query: see its log, and restart it if players \
             cannot join either"
                .to_owned()
        })
    }
}

fn target(definition: &ServerDefinition) -> Option<Target> {
    let kind = definition.query.kind;
    if kind == QueryKind::None {
        return None;
    }
    let (_, request) = definition.query_port()?;
    Some(Target { kind, port: request.assigned?, transport: request.transport })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Input, Origin};
    use crate::ports::parse_port;
    use homehost_protocol::{ServerId, ServerNonce};

    fn game() -> (ServerDefinition, Lifecycle) {
        let mut definition = ServerDefinition::new(ServerId([0; 32]), ServerNonce([0; 16]), "a");
        let (name, mut port) = parse_port("game=1/udp").unwrap();
        port.assigned = Some(1);
        definition.ports.insert(name, port);
        definition.query.kind = QueryKind::A2s;
        let mut core = Lifecycle::default();
        for input in [Input::Start(Origin::Person), Input::Spawned, Input::Ready] {
            core.handle(input, Instant::now()).unwrap();
        }
        (definition, core)
    }

    #[test]
    fn three_missing_answers_make_players_unknown() {
        let (definition, core) = game();
        let (mut polls, mut now) = (Polls::default(), Instant::now());
        polls.begin(now, &definition);
        let mut ask = |polls: &mut Polls, answer| {
            now += RUNNING;
            let poll = polls.start(now, &core, &definition).unwrap();
            assert_eq!(polls.due(), None, "one question at a time");
            polls.take(Polled { answer, asked: true, run: poll.run }, &core, UnixMillis(7))
        };
        let answer = Answer { players: Some(4), slots: Some(9) };
        assert!(ask(&mut polls, Some(answer)));
        for _ in 0..2 {
            assert!(!ask(&mut polls, None));
            assert_eq!((polls.seen().players, polls.problem()), (Some(4), None));
        }
        ask(&mut polls, None);
        assert_eq!(polls.seen().players, None);
        assert!(polls.problem().is_some());
        ask(&mut polls, Some(answer));
        assert_eq!((polls.seen().players, polls.problem()), (Some(4), None));
    }

    #[test]
    fn a_late_answer_of_an_earlier_run_is_ignored() {
        let (definition, core) = game();
        let (mut polls, now) = (Polls::default(), Instant::now());
        polls.begin(now, &definition);
        let poll = polls.start(now + RUNNING, &core, &definition).unwrap();
        polls.end();
        polls.begin(now, &definition);
        let late = Polled { answer: Some(Answer::default()), asked: true, run: poll.run };
        assert!(!polls.take(late, &core, UnixMillis(7)));
        assert_eq!(polls.seen(), Seen::default());
    }
}
