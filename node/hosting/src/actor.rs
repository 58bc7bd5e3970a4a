//! One server's task: it owns the lifecycle, the line to the shim, the polls and
//! the view, and does what the core says.

mod launch;
mod polls;
mod requests;
mod show;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_protocol::UnixMillis;
use homehost_protocol::record::listing::Visibility;
use homehost_runtime::wall_ms;
use tokio::sync::{mpsc, oneshot};

use crate::console::Console;
use crate::definition::{ServerDefinition, Wanted};
use crate::error::{ErrorClass, PowerError, RemoveError};
use crate::folder::Folder;
use crate::handle::Shared;
use crate::lifecycle::{Input, Lifecycle, Origin, Output, Phase, Refused, Timer};
use crate::link::{self, ASKS_MAX, Attached, Link, LinkEvent};
use crate::shim::files::{self, StateFile};
use crate::shim::platform::{Connection, kill_outright};
use crate::shim::wire::{Status, ToShim};
use crate::view::{ExitReport, State};

use launch::Launched;
use polls::Polls;

/// Requests of people that wait for one server; more callers wait outside.
pub(crate) const COMMANDS_MAX: usize = 16;

/// Kills that wait; one is enough, more are repeats.
pub(crate) const KILLS_MAX: usize = 4;

/// Reports of the actor's own helpers that wait for it.
const EVENTS_MAX: usize = 64;

/// Tries of one start when another program is quicker to take a port each time.
const TRIES_MAX: u32 = 3;

/// How long to wait before a shim that cannot be reached is sought again.
const REATTACH_PAUSE: Duration = Duration::from_secs(5);

/// How long a shim may take to kill its game before that is done without it: it
/// hangs, or its disk does.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

type Reply<E> = oneshot::Sender<Result<(), E>>;

/// What a person asks of one server.
pub(crate) enum Command {
    Start(Reply<PowerError>),
    /// With `forget`, it shall stay stopped; without, only the node goes down.
    Stop {
        forget: bool,
        reply: Reply<PowerError>,
    },
    Restart(Reply<PowerError>),
    Stdin {
        line: String,
        reply: Reply<PowerError>,
    },
    SetVisibility {
        visibility: Option<Visibility>,
        reply: Reply<PowerError>,
    },
    Remove(Reply<RemoveError>),
}

/// What the actor's helpers report.
enum Event {
    Launched(Box<Launched>),
    Attached(Attached),
    Link(LinkEvent),
    Polled(polls::Polled),
}

/// How to reach the actor.
#[derive(Clone)]
pub(crate) struct ActorHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    /// Past every queue.
    pub(crate) kills: mpsc::Sender<Reply<PowerError>>,
    pub(crate) console: Arc<Console>,
    pub(crate) folder: Folder,
}

pub(crate) struct Actor {
    shared: Arc<Shared>,
    definition: Arc<ServerDefinition>,
    folder: Folder,
    console: Arc<Console>,
    core: Lifecycle,
    timers: BTreeMap<Timer, Instant>,
    polls: Polls,
    /// Requests for the shim; `None` while there is no line to it.
    asks: Option<mpsc::Sender<ToShim>>,
    /// What to ask as soon as there is a line.
    asked: Option<ToShim>,
    reattach_at: Option<Instant>,
    /// When a kill that the shim was asked for is done without it.
    kill_at: Option<Instant>,
    /// Tries of the start that is under way.
    tries: u32,
    starts: Vec<Reply<PowerError>>,
    stops: Vec<Reply<PowerError>>,
    /// Answers that wait until the view shows what they tell.
    answers: Vec<(Reply<PowerError>, Result<(), PowerError>)>,
    /// The kind of the trouble that the core is about to tell of.
    failure: Option<ErrorClass>,
    /// A person's start failed, and that is not stored yet.
    in_vain: bool,
    status: Option<Status>,
    state: State,
    since: UnixMillis,
    ready_at: Option<UnixMillis>,
    last_exit: Option<ExitReport>,
    note: Option<String>,
    trouble: Option<String>,
    events_in: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl Actor {
    /// Makes the actor and spawns it; it first looks for a game that runs.
    pub(crate) async fn spawn(shared: Arc<Shared>, definition: ServerDefinition) -> ActorHandle {
        let folder = shared.folder(&definition);
        let console = Console::open(folder.logs()).await;
        let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
        let (kills_in, kills) = mpsc::channel(KILLS_MAX);
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let last_exit = files::read::<files::ExitFile>(&folder.run(files::EXIT)).ok().flatten();
        let mut actor = Self {
            definition: Arc::new(definition),
            console: console.clone(),
            folder: folder.clone(),
            core: Lifecycle::default(),
            timers: BTreeMap::new(),
            polls: Polls::default(),
            asks: None,
            asked: None,
            reattach_at: None,
            kill_at: None,
            tries: 0,
            starts: Vec::new(),
            stops: Vec::new(),
            answers: Vec::new(),
            failure: None,
            in_vain: false,
            status: None,
            state: State::Offline,
            since: UnixMillis(wall_ms()),
            ready_at: None,
            last_exit: last_exit.map(|exit| exit.report),
            note: None,
            trouble: None,
            events_in,
            events,
            shared,
        };
        actor.publish();
        let tasks = actor.shared.tasks.clone();
        tasks.spawn("server", async move {
            actor.run(commands, kills).await;
            Ok::<_, Infallible>(())
        });
        ActorHandle { commands: commands_in, kills: kills_in, console, folder }
    }

    async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut kills: mpsc::Receiver<Reply<PowerError>>,
    ) {
        let shutdown = self.shared.tasks.shutdown();
        // Nothing is done to a server before it is known whether its game runs.
        let found = tokio::select! {
            biased;
            () = shutdown.stopping() => return,
            found = link::attach(&self.shared.shim_exe, &self.folder) => found,
        };
        self.found(found).await;
        loop {
            self.give_up().await;
            self.publish();
            for (reply, result) in self.answers.drain(..) {
                let _ = reply.send(result);
            }
            let timer = self.next_timer();
            tokio::select! {
                biased;
                // The game goes on: leaving is not stopping.
                () = shutdown.stopping() => return,
                Some(reply) = kills.recv() => self.kill(reply),
                Some(event) = self.events.recv() => self.event(event).await,
                () = sleep_until(timer) => self.timer(Instant::now()),
                command = commands.recv() => match command {
                    Some(Command::Remove(reply)) => {
                        if self.remove(reply).await {
                            return;
                        }
                    }
                    Some(command) => self.command(command).await,
                    None => return,
                },
            }
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Launched(launched) => self.launched(*launched).await,
            Event::Attached(attached) => self.found(attached).await,
            Event::Polled(polled) => {
                if self.polls.take(polled, &self.core, UnixMillis(wall_ms())) {
                    self.tell(Input::Ready);
                }
            }
            Event::Link(LinkEvent::Status(status)) => {
                self.trouble = status.trouble.clone();
                self.status = Some(status);
            }
            Event::Link(LinkEvent::Players(players)) => self.polls.players_by_console(players),
            Event::Link(LinkEvent::StdinRefused(why)) => self.note = Some(why),
            Event::Link(LinkEvent::Exited(report)) => self.exited(report),
            Event::Link(LinkEvent::Lost) => {
                tracing::warn!(server = %self.definition.name, "shim is gone, its game is adopted");
                self.asks = None;
                self.seek();
            }
        }
    }

    /// What a look at the folder showed, at the beginning or after a shim died.
    async fn found(&mut self, found: Attached) {
        self.reattach_at = None;
        match found {
            Attached::Connected(stream, status) => {
                if !self.core.has_process() {
                    let _ = self.core.handle(
                        Input::Attached { stopping: status.rung.is_some() },
                        Instant::now(),
                    );
                }
                let stopping = status.rung.is_some();
                if self.core.phase() == Phase::Stopping && !stopping && self.asked.is_none() {
                    // The shim that was asked died before it noted that.
                    self.asked = Some(ToShim::Stop);
                }
                self.connect(*stream, status);
                if self.definition.wanted == Wanted::Stopped && !stopping {
                    // Stored by a daemon that died before it could ask.
                    self.tell(Input::Stop);
                }
            }
            Attached::Exited(report) => {
                self.console.catch_up().await;
                let unseen = !self.core.has_process();
                if unseen {
                    // It ended while no daemon was there.
                    let _ = self.core.handle(Input::Attached { stopping: false }, Instant::now());
                }
                self.exited(report);
                if unseen {
                    // Asked for by the system, as at a shutdown, and wanted all the same.
                    self.resume();
                }
            }
            Attached::Nothing if self.core.has_process() => {
                // Someone emptied the folder; without its files there is no game.
                let at = UnixMillis(wall_ms());
                self.exited(ExitReport {
                    code: None,
                    signal: None,
                    asked: false,
                    rung: None,
                    at,
                    last_line: None,
                });
            }
            Attached::Nothing => self.resume(),
            Attached::Failed(why) => {
                tracing::error!(server = %self.definition.name, "cannot reach the shim: {why}");
                self.trouble = Some(format!("it cannot be told whether the game runs ({why})"));
                self.reattach_at = Some(Instant::now() + REATTACH_PAUSE);
            }
        }
    }

    /// Starts what should be running.
    fn resume(&mut self) {
        if self.definition.wanted == Wanted::Running && self.core.phase() == Phase::Offline {
            self.tell(Input::Start(Origin::Daemon));
        }
    }

    fn seek(&mut self) {
        let (exe, folder) = (self.shared.shim_exe.clone(), self.folder.clone());
        self.help(async move { Event::Attached(link::attach(&exe, &folder).await) });
    }

    /// Runs a helper whose result comes back as an event.
    fn help(&self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events_in.clone();
        tokio::spawn(async move {
            let event = work.await;
            // Without an actor there is nobody to tell.
            let _ = events.send(event).await;
        });
    }

    fn connect(&mut self, stream: Connection, status: Status) {
        let (asks_in, asks) = mpsc::channel(ASKS_MAX);
        if let Some(ask) = self.asked.take() {
            // The channel is new and has room.
            let _ = asks_in.try_send(ask);
        }
        self.asks = Some(asks_in);
        self.trouble = status.trouble.clone();
        self.status = Some(status.clone());
        let (link_in, mut link_events) = mpsc::channel(EVENTS_MAX);
        let link = Link {
            stream,
            status,
            console: self.console.clone(),
            query: self.definition.query.kind,
            events: link_in,
            asks,
        };
        tokio::spawn(link.run());
        let events = self.events_in.clone();
        tokio::spawn(async move {
            while let Some(event) = link_events.recv().await {
                if events.send(Event::Link(event)).await.is_err() {
                    return;
                }
            }
        });
        self.polls.begin(Instant::now(), &self.definition);
    }

    fn exited(&mut self, mut report: ExitReport) {
        // A kill past the shim is not known to it.
        report.asked |= self.core.phase() == Phase::Stopping;
        tracing::info!(server = %self.definition.name, asked = report.asked, "game ended: {report}");
        link::settle(&self.folder);
        self.asks = None;
        self.asked = None;
        self.kill_at = None;
        self.status = None;
        self.trouble = None;
        self.ready_at = None;
        self.polls.end();
        self.last_exit = Some(report.clone());
        self.tries += 1;
        let again = !report.asked
            && self.core.phase() == Phase::Starting
            && self.tries < TRIES_MAX
            && self.shared.ports.lost_one(&self.definition);
        if again {
            self.tell(Input::TryAgain);
        } else {
            self.tries = 0;
            self.tell(Input::Exited(report));
        }
    }

    fn tell_for_start(&mut self, input: Input) {
        if let Err(refused) = self.try_tell(input) {
            let refused = |reply| (reply, Err(PowerError::WrongState(refused.to_string())));
            self.answers.extend(self.starts.drain(..).map(refused));
        }
    }

    fn tell(&mut self, input: Input) {
        if let Err(refused) = self.try_tell(input) {
            tracing::debug!(server = %self.definition.name, "lifecycle: {refused}");
        }
    }

    fn try_tell(&mut self, input: Input) -> Result<(), Refused> {
        let now = Instant::now();
        let outputs = self.core.handle(input, now)?;
        for output in outputs {
            match output {
                Output::Spawn => self.launch(),
                Output::Stop => self.ask(ToShim::Stop),
                Output::Kill => self.ask(ToShim::Kill),
                Output::Set(timer, at) => {
                    self.timers.insert(timer, at);
                }
                Output::Clear(timer) => {
                    self.timers.remove(&timer);
                }
                Output::Started(result) => self.started(result),
                Output::Stopped => {
                    self.answers.extend(self.stops.drain(..).map(|reply| (reply, Ok(()))));
                }
            }
        }
        if self.core.phase() == Phase::Running && self.ready_at.is_none() {
            self.ready_at = Some(UnixMillis(wall_ms()));
            self.tries = 0;
        }
        Ok(())
    }

    fn started(&mut self, result: Result<(), String>) {
        let class = self.failure.take().unwrap_or(match self.core.phase() {
            Phase::Stopping => ErrorClass::WrongState,
            _ => ErrorClass::BadConfig,
        });
        self.in_vain |= result.is_err();
        for reply in self.starts.drain(..) {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(problem) => Err(PowerError::Failed { class, problem: problem.clone() }),
            };
            self.answers.push((reply, result));
        }
    }

    /// Asks the shim, or does without it where that can be.
    fn ask(&mut self, ask: ToShim) {
        let sent = self.asks.as_ref().is_some_and(|asks| asks.try_send(ask.clone()).is_ok());
        if ask == ToShim::Kill {
            if sent {
                self.kill_at = Some(Instant::now() + KILL_PATIENCE);
            } else {
                self.kill_without_shim();
            }
        }
        if !sent {
            self.asked = Some(ask);
        }
    }

    /// Kills the game past its shim, now and again until that shows.
    fn kill_without_shim(&mut self) {
        if let Ok(Some(state)) = files::read::<StateFile>(&self.folder.run(files::STATE)) {
            kill_outright(&state);
        }
        self.kill_at = Some(Instant::now() + KILL_PATIENCE);
    }

    /// Why a stop cannot be promised: a game may live that nobody can reach.
    fn unreachable(&self) -> Option<PowerError> {
        (self.reattach_at.is_some() && !self.core.has_process()).then(|| {
            let why = self.trouble.as_deref().unwrap_or("it cannot be told whether the game runs");
            PowerError::Failed {
                class: ErrorClass::Internal,
                problem: format!("{why}; if it does, it is stopped as soon as it is found"),
            }
        })
    }

    fn next_timer(&self) -> Option<Instant> {
        let own = self.timers.values().copied().min();
        own.into_iter().chain(self.polls.due()).chain(self.reattach_at).chain(self.kill_at).min()
    }

    fn timer(&mut self, now: Instant) {
        let due: Vec<_> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
        for timer in due {
            self.timers.remove(&timer);
            self.tell(Input::Timer(timer));
        }
        if self.reattach_at.is_some_and(|at| at <= now) {
            self.reattach_at = None;
            self.seek();
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_without_shim();
        }
        if let Some(poll) = self.polls.start(now, &self.core, &self.definition) {
            let querier = self.shared.querier.clone();
            self.help(async move { Event::Polled(poll.run(&querier).await) });
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
