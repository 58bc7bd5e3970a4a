//! The task that owns the core and keeps its rows on disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use homehost_protocol::rpc::Response;
use homehost_protocol::{NetworkName, ServerId, UnixMillis};
use homehost_runtime::{Tasks, wall_ms};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::core::{
    Admission, Directory, Judgement, Loaded, MONO_ORIGIN, Moment, Output, RowView, Source, Stats,
};
use crate::port::ReplicaStore;
use crate::search::Query;

/// Requests that may wait for the core. Each is answered in microseconds, a
/// search in milliseconds; a full queue makes its callers wait.
const QUEUE: usize = 256;

/// Changes that a slow reader may lag behind before it must read anew.
const CHANGES: usize = 1024;

/// How often the core looks for rows whose time is over.
const TICK: Duration = Duration::from_secs(1);

/// The directory has shut down.
#[derive(Debug, Error)]
#[error("the directory has shut down")]
pub struct DirectoryClosed;

/// A row that is new, changed, or gone.
pub type RowChange = ServerId;

/// An envelope and how it came, to be admitted.
#[derive(Debug)]
struct Arrival {
    envelopes: Vec<(Vec<u8>, Source)>,
    reply: oneshot::Sender<Admitted>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Admitted {
    /// One for each envelope, in order.
    pub admissions: Vec<Admission>,
    /// Servers whose listings should be asked for where the batch came from.
    pub fetch: Vec<ServerId>,
}

enum Command {
    Admit(Arrival),
    Gossip { envelopes: Vec<Vec<u8>>, reply: oneshot::Sender<(Judgement, Vec<ServerId>)> },
    Search(Query, oneshot::Sender<Vec<RowView>>),
    View(ServerId, oneshot::Sender<Option<RowView>>),
    Page { after: Option<ServerId>, on_link: bool, reply: oneshot::Sender<Response> },
    Get { ids: Vec<ServerId>, on_link: bool, reply: oneshot::Sender<Response> },
}

/// Cloneable access to the directory.
#[derive(Clone, Debug)]
pub struct DirectoryHandle {
    commands: mpsc::Sender<Command>,
    changes: broadcast::Sender<RowChange>,
    stats: watch::Receiver<Arc<Stats>>,
    clock: Clock,
}

/// Makes [`Moment`]s.
#[derive(Clone, Debug)]
struct Clock {
    start: Instant,
    /// Wall and monotonic time at the last look, and the time that the machine
    /// has slept since the start.
    last: Arc<Mutex<Last>>,
}

#[derive(Debug)]
struct Last {
    wall: UnixMillis,
    awake: Duration,
    slept: Duration,
}

/// A wall clock that runs ahead of the monotonic one by more than this has
/// slept: home PCs do at night, and their monotonic clocks with them.
const SLEPT: Duration = Duration::from_secs(60);

impl Clock {
    fn new() -> Self {
        let last =
            Last { wall: UnixMillis(wall_ms()), awake: Duration::ZERO, slept: Duration::ZERO };
        Self { start: Instant::now(), last: Arc::new(Mutex::new(last)) }
    }

    fn now(&self) -> Moment {
        let (wall, awake) = (UnixMillis(wall_ms()), self.start.elapsed());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = wall.since(last.wall).saturating_sub(awake.saturating_sub(last.awake));
        if slept > SLEPT {
            last.slept += slept;
        }
        (last.wall, last.awake) = (wall, awake);
        Moment { wall, mono: MONO_ORIGIN + awake + last.slept }
    }
}

/// Loads what the store knows and starts the directory's task. Rows that hold no
/// longer are dropped: the mesh gives back what is still true.
pub async fn start(
    network: NetworkName,
    store: Arc<dyn ReplicaStore>,
    tasks: &Tasks,
) -> DirectoryHandle {
    let clock = Clock::new();
    let mut core = Directory::new(network);
    let mut gone = Vec::new();
    for (key, value) in store.load().await {
        if core.load(&key, &value, clock.now()) == Loaded::Damaged {
            gone.push(key);
        }
    }
    for key in gone {
        store.remove(key).await;
    }
    let (commands, inbox) = mpsc::channel(QUEUE);
    let (changes, _) = broadcast::channel(CHANGES);
    let (stats_in, stats) = watch::channel(Arc::new(core.stats()));
    let actor = Actor {
        core,
        store,
        inbox,
        changes: changes.clone(),
        stats: stats_in,
        clock: clock.clone(),
    };
    let shutdown = tasks.shutdown();
    tasks.spawn("directory", async move {
        actor.run(shutdown).await;
        Ok::<_, std::convert::Infallible>(())
    });
    DirectoryHandle { commands, changes, stats, clock }
}

impl DirectoryHandle {
    /// Takes in envelopes that came together.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn admit(
        &self,
        envelopes: Vec<(Vec<u8>, Source)>,
    ) -> Result<Admitted, DirectoryClosed> {
        self.ask(|reply| Command::Admit(Arrival { envelopes, reply })).await
    }

    /// Takes in a gossip message; says what becomes of it, and which servers
    /// should be asked for where it came from.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn admit_gossip(
        &self,
        envelopes: Vec<Vec<u8>>,
    ) -> Result<(Judgement, Vec<ServerId>), DirectoryClosed> {
        self.ask(|reply| Command::Gossip { envelopes, reply }).await
    }

    /// The rows that match, in order.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn search(&self, query: Query) -> Result<Vec<RowView>, DirectoryClosed> {
        self.ask(|reply| Command::Search(query, reply)).await
    }

    /// One row.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn view(&self, id: ServerId) -> Result<Option<RowView>, DirectoryClosed> {
        self.ask(|reply| Command::View(id, reply)).await
    }

    /// Rows for a peer, in the order of ids.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn page(
        &self,
        after: Option<ServerId>,
        on_link: bool,
    ) -> Result<Response, DirectoryClosed> {
        self.ask(|reply| Command::Page { after, on_link, reply }).await
    }

    /// Certain rows for a peer.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn get(
        &self,
        ids: Vec<ServerId>,
        on_link: bool,
    ) -> Result<Response, DirectoryClosed> {
        self.ask(|reply| Command::Get { ids, on_link, reply }).await
    }

    /// Ids of rows as they change. A reader that lags is told so and reads anew.
    pub fn changes(&self) -> broadcast::Receiver<RowChange> {
        self.changes.subscribe()
    }

    /// Figures, renewed every second.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.borrow().clone()
    }

    /// Now, on the directory's clocks.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, DirectoryClosed> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| DirectoryClosed)?;
        answer.await.map_err(|_| DirectoryClosed)
    }
}

struct Actor {
    core: Directory,
    store: Arc<dyn ReplicaStore>,
    inbox: mpsc::Receiver<Command>,
    changes: broadcast::Sender<RowChange>,
    stats: watch::Sender<Arc<Stats>>,
    clock: Clock,
}

impl Actor {
    async fn run(mut self, shutdown: homehost_runtime::Shutdown) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => break,
                _ = ticks.tick() => self.tick().await,
                Some(command) = self.inbox.recv() => self.handle(command).await,
            }
        }
        // What the publisher says last must still find its way in.
        while let Ok(Some(command)) =
            tokio::time::timeout(Duration::from_secs(1), self.inbox.recv()).await
        {
            self.handle(command).await;
        }
    }

    async fn tick(&mut self) {
        let outputs = self.core.tick(self.clock.now());
        self.perform(outputs).await;
        self.stats.send_replace(Arc::new(self.core.stats()));
    }

    async fn handle(&mut self, command: Command) {
        let now = self.clock.now();
        // A caller that is gone needs no answer.
        match command {
            Command::Admit(arrival) => self.admit(arrival, now).await,
            Command::Gossip { envelopes, reply } => {
                let (judgement, outputs) = self.core.admit_gossip(&envelopes, now);
                let fetch = self.perform(outputs).await;
                drop(reply.send((judgement, fetch)));
            }
            Command::Search(query, reply) => drop(reply.send(self.core.search(&query, now))),
            Command::View(id, reply) => drop(reply.send(self.core.view(&id, now))),
            Command::Page { after, on_link, reply } => {
                drop(reply.send(self.core.page(after, on_link, now)));
            }
            Command::Get { ids, on_link, reply } => {
                drop(reply.send(self.core.get(&ids, on_link, now)));
            }
        }
    }

    async fn admit(&mut self, arrival: Arrival, now: Moment) {
        let mut admitted = Admitted::default();
        for (bytes, source) in arrival.envelopes {
            let (admission, outputs) = self.core.admit(&bytes, source, now);
            admitted.admissions.push(admission);
            admitted.fetch.extend(self.perform(outputs).await);
        }
        drop(arrival.reply.send(admitted));
    }

    /// Does what the core wants; returns what is to be fetched.
    async fn perform(&self, outputs: Vec<Output>) -> Vec<ServerId> {
        let mut fetch = Vec::new();
        for output in outputs {
            match output {
                Output::Store { key, value } => self.store.put(key, value).await,
                Output::Forget { key } => self.store.remove(key).await,
                // Nobody listening is fine.
                Output::Changed(id) => drop(self.changes.send(id)),
                Output::Fetch(ids) => fetch.extend(ids),
            }
        }
        fetch
    }
}
