//! The task that owns the core and keeps its rows on disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use homehost_protocol::rpc::{Request, Response, Set};
use homehost_protocol::validate::KeyState;
use homehost_protocol::{
    Chain, KeyChains, NetworkName, NodeId, RecId, RootId, ServerId, UnixMillis,
};
use homehost_runtime::{Tasks, wall_ms};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::core::{
    Admission, Directory, Judgement, Loaded, MONO_ORIGIN, Moment, Output, RowView, Source, Stats,
    key_state,
};
use crate::port::ReplicaStore;
use crate::search::{CursorError, Page, Query};

/// Requests that may wait for the core. Each is answered in microseconds, a
/// search in milliseconds; a full queue makes its callers wait.
const QUEUE: usize = 256;

/// Searches that may wait. They go before all else, so that a person does not
/// wait for a flood to be judged.
const SEARCHES: usize = 16;

/// Changes that a slow reader may lag behind before it must read anew.
const CHANGES: usize = 1024;

/// How often the core looks for rows whose time is over.
const TICK: Duration = Duration::from_secs(1);

/// The directory has shut down.
#[derive(Debug, Error)]
#[error("the directory has shut down")]
pub struct DirectoryClosed;

/// Why a search has no result.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The directory has shut down.
    #[error(transparent)]
    Closed(#[from] DirectoryClosed),
    /// The cursor is of another search.
    #[error(transparent)]
    Cursor(#[from] CursorError),
}

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
    /// What was new, and what should be asked for where the batch came from.
    pub heard: Heard,
}

/// What records told that was not known, and what they refer to that is not
/// here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Servers whose listings are not known.
    pub servers: Vec<ServerId>,
    /// Roots whose key chains are not known.
    pub chains: Vec<RootId>,
    /// Servers that were not known before.
    pub learned: Vec<ServerId>,
}

impl Heard {
    fn add(&mut self, other: Self) {
        self.servers.extend(other.servers);
        self.chains.extend(other.chains);
        self.learned.extend(other.learned);
    }
}

enum Command {
    Admit(Arrival),
    Gossip { from: NodeId, envelopes: Vec<Vec<u8>>, reply: oneshot::Sender<(Judgement, Heard)> },
    View(ServerId, oneshot::Sender<Option<RowView>>),
    Answer { request: Box<Request>, on_link: bool, reply: oneshot::Sender<Response> },
    Set { set: Set, on_link: bool, reply: oneshot::Sender<Vec<(UnixMillis, RecId)>> },
    Wanted { ids: Vec<RecId>, reply: oneshot::Sender<Vec<RecId>> },
    Met { node: NodeId, ip: Option<IpAddr> },
    Witnesses(ServerId, oneshot::Sender<Vec<(NodeId, UnixMillis)>>),
    Chain(RootId, oneshot::Sender<Option<Keys>>),
}

/// A search that waits for its page.
type Search = (Query, oneshot::Sender<Result<Page, CursorError>>);

/// Cloneable access to the directory.
#[derive(Clone, Debug)]
pub struct DirectoryHandle {
    commands: mpsc::Sender<Command>,
    searches: mpsc::Sender<Search>,
    changes: broadcast::Sender<RowChange>,
    key_changes: broadcast::Sender<RootId>,
    keys: SharedChains,
    stats: watch::Receiver<Arc<Stats>>,
    clock: Clock,
}

/// The standing key chains, readable from any thread.
#[derive(Clone, Debug, Default)]
pub struct SharedChains(Arc<RwLock<HashMap<RootId, Keys>>>);

/// A root's standing chain, and the one that contradicts it.
type Keys = (Chain, Option<Chain>);

impl SharedChains {
    fn set(&self, root: RootId, chain: Option<Keys>) {
        let mut chains = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match chain {
            Some(chain) => drop(chains.insert(root, chain)),
            None => drop(chains.remove(&root)),
        }
    }
}

impl KeyChains for SharedChains {
    fn signing_key(&self, root: &RootId, key_epoch: u16, dev: u8) -> KeyState {
        let chains = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some((chain, rival)) = chains.get(root) else { return KeyState::Unknown };
        key_state(chain, rival.as_ref(), key_epoch, dev)
    }
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
    let loaded = core.load_all(store.load().await, clock.now());
    for (key, _) in loaded.into_iter().filter(|(_, loaded)| *loaded == Loaded::Damaged) {
        store.remove(key).await;
    }
    let keys = SharedChains::default();
    for root in core.chain_roots() {
        keys.set(root, core.keys_of(&root));
    }
    let (commands, inbox) = mpsc::channel(QUEUE);
    let (searches, asked) = mpsc::channel(SEARCHES);
    let (changes, _) = broadcast::channel(CHANGES);
    let (key_changes, _) = broadcast::channel(CHANGES);
    let (stats_in, stats) = watch::channel(Arc::new(core.stats()));
    let actor = Actor {
        core,
        store,
        inbox,
        asked,
        changes: changes.clone(),
        key_changes: key_changes.clone(),
        keys: keys.clone(),
        stats: stats_in,
        clock: clock.clone(),
    };
    let shutdown = tasks.shutdown();
    tasks.spawn("directory", async move {
        actor.run(shutdown).await;
        Ok::<_, std::convert::Infallible>(())
    });
    DirectoryHandle { commands, searches, changes, key_changes, keys, stats, clock }
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

    /// Takes in a gossip message; says what becomes of it, and what should be
    /// asked for where it came from.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn admit_gossip(
        &self,
        from: NodeId,
        envelopes: Vec<Vec<u8>>,
    ) -> Result<(Judgement, Heard), DirectoryClosed> {
        self.ask(|reply| Command::Gossip { from, envelopes, reply }).await
    }

    /// The rows that match, in order.
    ///
    /// # Errors
    /// When the directory has shut down, or the cursor is of another order.
    pub async fn search(&self, query: Query) -> Result<Page, SearchError> {
        let (reply, answer) = oneshot::channel();
        self.searches.send((query, reply)).await.map_err(|_| DirectoryClosed)?;
        Ok(answer.await.map_err(|_| DirectoryClosed)??)
    }

    /// One row.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn view(&self, id: ServerId) -> Result<Option<RowView>, DirectoryClosed> {
        self.ask(|reply| Command::View(id, reply)).await
    }

    /// The answer to a peer's question, but for offers and reconciliation.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn answer(
        &self,
        request: Request,
        on_link: bool,
    ) -> Result<Response, DirectoryClosed> {
        let request = Box::new(request);
        self.ask(|reply| Command::Answer { request, on_link, reply }).await
    }

    /// What two replicas compare, as dates and record ids, in no order.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn set(
        &self,
        set: Set,
        on_link: bool,
    ) -> Result<Vec<(UnixMillis, RecId)>, DirectoryClosed> {
        self.ask(|reply| Command::Set { set, on_link, reply }).await
    }

    /// Which of these records this node should ask for.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn wanted(&self, ids: Vec<RecId>) -> Result<Vec<RecId>, DirectoryClosed> {
        self.ask(|reply| Command::Wanted { ids, reply }).await
    }

    /// This node is connected to a peer; `ip` is the far end, if it is known.
    pub async fn met(&self, node: NodeId, ip: Option<IpAddr>) {
        // A directory that is shutting down needs no witnesses.
        let _ = self.commands.send(Command::Met { node, ip }).await;
    }

    /// The witnesses that a server's record names, and when each reached it.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn witnesses(
        &self,
        id: ServerId,
    ) -> Result<Vec<(NodeId, UnixMillis)>, DirectoryClosed> {
        self.ask(|reply| Command::Witnesses(id, reply)).await
    }

    /// The standing key chain of a root, and one that contradicts it.
    ///
    /// # Errors
    /// When the directory has shut down.
    pub async fn chain(
        &self,
        root: RootId,
    ) -> Result<Option<(Chain, Option<Chain>)>, DirectoryClosed> {
        self.ask(|reply| Command::Chain(root, reply)).await
    }

    /// The keys of all roots, for validating records outside the directory.
    pub fn keys(&self) -> SharedChains {
        self.keys.clone()
    }

    /// Roots as their keys change. A reader that lags looks at all that it cares
    /// about anew.
    pub fn key_changes(&self) -> broadcast::Receiver<RootId> {
        self.key_changes.subscribe()
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
    asked: mpsc::Receiver<Search>,
    changes: broadcast::Sender<RowChange>,
    key_changes: broadcast::Sender<RootId>,
    keys: SharedChains,
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
                Some(search) = self.asked.recv() => {
                    self.search(search);
                    // Nor do those who search all the time keep out what is new.
                    if let Ok(command) = self.inbox.try_recv() {
                        self.handle(command).await;
                    }
                }
                Some(command) = self.inbox.recv() => {
                    self.handle(command).await;
                    self.give_way().await;
                }
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

    /// Lets others have the thread, and answers a search: the page of a
    /// comparison is ten milliseconds of checking signatures, and so is what
    /// tokio would let this task do at a stretch.
    async fn give_way(&mut self) {
        to_the_back().await;
        if let Ok(search) = self.asked.try_recv() {
            self.search(search);
        }
    }

    fn search(&self, (query, reply): Search) {
        // A caller that is gone needs no answer.
        drop(reply.send(self.core.search(&query, self.clock.now())));
    }

    async fn handle(&mut self, command: Command) {
        let now = self.clock.now();
        // A caller that is gone needs no answer.
        match command {
            Command::Admit(arrival) => self.admit(arrival, now).await,
            Command::Gossip { from, envelopes, reply } => {
                let (judgement, outputs) = self.core.admit_gossip(from, &envelopes, now);
                let heard = self.perform(outputs).await;
                drop(reply.send((judgement, heard)));
            }
            Command::View(id, reply) => drop(reply.send(self.core.view(&id, now))),
            Command::Answer { request, on_link, reply } => {
                drop(reply.send(self.core.answer(&request, on_link, now)));
            }
            Command::Set { set, on_link, reply } => drop(reply.send(self.core.set(set, on_link))),
            Command::Wanted { ids, reply } => drop(reply.send(self.core.wanted(ids, now))),
            Command::Met { node, ip } => {
                let outputs = self.core.met(node, ip, now);
                self.perform(outputs).await;
            }
            Command::Witnesses(id, reply) => drop(reply.send(self.core.witnesses_of(&id))),
            Command::Chain(root, reply) => drop(reply.send(self.core.keys_of(&root))),
        }
    }

    async fn admit(&mut self, arrival: Arrival, now: Moment) {
        let mut admitted = Admitted::default();
        for (bytes, source) in arrival.envelopes {
            let (admission, outputs) = self.core.admit(&bytes, source, now);
            admitted.admissions.push(admission);
            admitted.heard.add(self.perform(outputs).await);
            self.give_way().await;
        }
        drop(arrival.reply.send(admitted));
    }

    /// Does what the core wants; returns what is to be fetched.
    async fn perform(&self, outputs: Vec<Output>) -> Heard {
        let mut heard = Heard::default();
        for output in outputs {
            match output {
                Output::Store { key, value } => self.store.put(key, value).await,
                Output::Forget { key } => self.store.remove(key).await,
                // Nobody listening is fine.
                Output::Changed(id) => drop(self.changes.send(id)),
                Output::Fetch(ids) => heard.servers.extend(ids),
                Output::Learned(id) => heard.learned.push(id),
                Output::FetchChain(root) => heard.chains.push(root),
                Output::Keys(root) => {
                    self.keys.set(root, self.core.keys_of(&root));
                    drop(self.key_changes.send(root));
                }
            }
        }
        heard
    }
}

/// Lets the tasks that are ready go first. `tokio::task::yield_now` would also
/// wait until its thread has looked for I/O, which on a busy node is dozens of
/// tasks later: it made a message take milliseconds.
async fn to_the_back() {
    let mut gone = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut gone, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
