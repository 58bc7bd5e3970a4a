//! Mesh and directory: what peers say goes into the directory, what they ask
//! comes out of it, and what is missing is asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use homehost_directory::{DirectoryHandle, Judgement, Source};
use homehost_mesh::{GossipVerdict, MeshEvent, MeshHandle, ReplyToken, RequestError};
use homehost_protocol::gossip::decode_batch;
use homehost_protocol::limits::{REPLICA_ROWS_MAX, RPC_CHAINS_MAX, RPC_IDS_MAX};
use homehost_protocol::rpc::query::{Query, SortBy};
use homehost_protocol::rpc::{Request, Response};
use homehost_protocol::{NodeId, RootId, Scope, ServerId};
use homehost_runtime::Shutdown;
use tokio::sync::{Semaphore, mpsc};

use super::announce::Announcer;

/// Whole replicas that are read after every join: one could be a liar's.
const PULLS_PER_JOIN: usize = 2;

/// How often a node that has not read enough replicas yet looks for another.
const PULL_AGAIN: Duration = Duration::from_secs(15);

/// Longest time that one pull may take: a full replica of some 220 pages, and as
/// much again for a slow uplink.
const PULL_TIME_MAX: Duration = Duration::from_secs(240);

/// How often one page is asked for when the peer is busy, and the pause between.
const PAGE_TRIES: usize = 5;
/// See [`PAGE_TRIES`].
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// Pages that are read at once; after that a peer answers two a second
/// (spec/mesh §4), and asking faster would be refused.
const PAGES_AT_ONCE: usize = 12;
/// Pause between later pages.
const PAGE_PAUSE: Duration = Duration::from_millis(550);

/// A peer may ask us to look at this many servers at one time; the rest is
/// heard again at the next presence.
const FETCHES_MAX: usize = 4;

/// Servers fetched lately, which are not asked for again at once: a presence
/// can name servers whose listing nobody has.
const FETCHED_MAX: usize = 1024;
/// How long they are remembered.
const FETCH_PAUSE: Duration = Duration::from_secs(20);

/// Carries between mesh and directory until the mesh ends.
pub(crate) struct Exchange {
    mesh: MeshHandle,
    directory: DirectoryHandle,
    announcer: Announcer,
    fetches: Arc<Semaphore>,
    fetched: BTreeMap<ServerId, Instant>,
    fetched_order: VecDeque<ServerId>,
    /// Connected peers that keep a replica, and whether they are on the link.
    holders: BTreeMap<NodeId, bool>,
    pulls: Arc<Pulls>,
}

/// What came of reading replicas since this node joined.
#[derive(Default)]
struct Pulls {
    done: AtomicUsize,
    under_way: Mutex<BTreeSet<NodeId>>,
}

impl Pulls {
    fn under_way(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    pub(crate) fn new(mesh: MeshHandle, directory: DirectoryHandle, announcer: Announcer) -> Self {
        Self {
            mesh,
            directory,
            announcer,
            fetches: Arc::new(Semaphore::new(FETCHES_MAX)),
            fetched: BTreeMap::new(),
            fetched_order: VecDeque::new(),
            holders: BTreeMap::new(),
            pulls: Arc::default(),
        }
    }

    /// Runs until the mesh ends or the node stops.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<MeshEvent>,
        shutdown: Shutdown,
    ) -> Result<(), std::convert::Infallible> {
        let mut again = tokio::time::interval(PULL_AGAIN);
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                _ = again.tick() => self.pull_from_somebody(),
                event = events.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn handle(&mut self, event: MeshEvent) {
        match event {
            MeshEvent::Gossip { from, message, token, .. } => {
                let verdict = self.gossip(from, &message).await;
                self.mesh.judge(token, verdict).await;
            }
            MeshEvent::Request { request, on_link, reply, .. } => {
                self.answer(request, on_link, reply).await;
            }
            MeshEvent::PeerJoined { node, scope, holds_replica } => {
                if holds_replica {
                    if self.holders.is_empty() {
                        self.pulls.done.store(0, Ordering::Relaxed);
                    }
                    self.holders.insert(node, scope != Scope::Global);
                    self.pull_from_somebody();
                    self.announcer.peer_joined(node, scope);
                }
            }
            MeshEvent::PeerLeft { node } => drop(self.holders.remove(&node)),
            MeshEvent::GossipJoined => self.announcer.rejoined(),
            MeshEvent::Listening { address } => tracing::debug!(%address, "listening"),
            MeshEvent::ListenFailed { address, reason, .. } => {
                tracing::warn!(%address, "not listening: {reason}");
            }
        }
    }

    async fn gossip(&mut self, from: NodeId, message: &[u8]) -> GossipVerdict {
        let Ok(envelopes) = decode_batch(message) else { return GossipVerdict::Reject };
        let Ok((judgement, lacking)) = self.directory.admit_gossip(from, envelopes).await else {
            return GossipVerdict::Ignore;
        };
        self.fetch(from, lacking.servers);
        self.fetch_chains(from, lacking.chains);
        match judgement {
            Judgement::Accept => GossipVerdict::Accept,
            Judgement::Ignore => GossipVerdict::Ignore,
            Judgement::Reject => GossipVerdict::Reject,
        }
    }

    async fn answer(&self, request: Request, on_link: bool, reply: ReplyToken) {
        let response = match request {
            Request::Offer { envelopes } => {
                let source = Source::Peer { on_link, age: Some(Duration::ZERO) };
                let offered = envelopes.into_iter().map(|bytes| (bytes, source)).collect();
                self.directory.admit(offered).await.map(|_| Response::default())
            }
            request => self.directory.answer(request, on_link).await,
        };
        if let Ok(response) = response {
            self.mesh.respond(reply, response).await;
        }
    }

    /// Asks a peer for servers that a host says it runs.
    fn fetch(&mut self, from: NodeId, mut ids: Vec<ServerId>) {
        let now = Instant::now();
        while let Some(oldest) = self.fetched_order.front() {
            let over = self.fetched.get(oldest).is_none_or(|at| *at + FETCH_PAUSE < now);
            if !over && self.fetched_order.len() < FETCHED_MAX {
                break;
            }
            self.fetched.remove(oldest);
            self.fetched_order.pop_front();
        }
        ids.retain(|id| !self.fetched.contains_key(id));
        ids.truncate(RPC_IDS_MAX);
        // A peer whose replica is being read tells of them anyway.
        if ids.is_empty() || self.pulls.under_way().contains(&from) {
            return;
        }
        let on_link = self.holders.get(&from).copied().unwrap_or(false);
        // Over the bound, the next presence asks again.
        let Ok(permit) = self.fetches.clone().try_acquire_owned() else { return };
        for id in &ids {
            self.fetched.insert(*id, now);
            self.fetched_order.push_back(*id);
        }
        let (mesh, directory) = (self.mesh.clone(), self.directory.clone());
        tokio::spawn(async move {
            let _held = permit;
            match mesh.request(from, Request::Get { ids }).await {
                Ok(response) => drop(admit(&directory, response, on_link).await),
                Err(error) => tracing::debug!(%from, "failed to fetch listings: {error}"),
            }
        });
    }

    /// Asks a peer for the key chains of roots whose records it passed on.
    fn fetch_chains(&self, from: NodeId, mut roots: Vec<RootId>) {
        roots.sort_unstable();
        roots.dedup();
        roots.truncate(RPC_CHAINS_MAX);
        if roots.is_empty() {
            return;
        }
        let Ok(permit) = self.fetches.clone().try_acquire_owned() else { return };
        let on_link = self.holders.get(&from).copied().unwrap_or(false);
        let (mesh, directory) = (self.mesh.clone(), self.directory.clone());
        tokio::spawn(async move {
            let _held = permit;
            match mesh.request(from, Request::Chains { roots }).await {
                Ok(response) => drop(admit(&directory, response, on_link).await),
                Err(error) => tracing::debug!(%from, "failed to fetch key chains: {error}"),
            }
        });
    }

    /// Reads the replica of a peer that was not read yet, if enough were not.
    fn pull_from_somebody(&self) {
        let mut under_way = self.pulls.under_way();
        let enough = self.pulls.done.load(Ordering::Relaxed) + under_way.len() >= PULLS_PER_JOIN;
        let next = self.holders.iter().find(|(node, _)| !under_way.contains(*node));
        let Some((&node, &on_link)) = next.filter(|_| !enough) else { return };
        under_way.insert(node);
        drop(under_way);
        let (mesh, directory) = (self.mesh.clone(), self.directory.clone());
        let pulls = self.pulls.clone();
        tokio::spawn(async move {
            let pull = pull(&mesh, &directory, node, on_link);
            match tokio::time::timeout(PULL_TIME_MAX, pull).await {
                Ok(Ok(records)) => {
                    pulls.done.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(%node, records, "read what a peer holds");
                }
                Ok(Err(error)) => tracing::warn!(%node, "failed to read a replica: {error}"),
                Err(_) => tracing::warn!(%node, "a peer took too long to tell what it holds"),
            }
            pulls.under_way().remove(&node);
        });
    }
}

/// Reads a peer's whole replica, page by page; returns how many records it held.
async fn pull(
    mesh: &MeshHandle,
    directory: &DirectoryHandle,
    node: NodeId,
    on_link: bool,
) -> Result<usize, RequestError> {
    let mut after = None;
    let mut records = 0;
    for page in 1.. {
        if page > PAGES_AT_ONCE {
            tokio::time::sleep(PAGE_PAUSE).await;
        }
        let response = page_after(mesh, node, after.clone()).await?;
        records += response.records.len();
        let next = response.cursor.clone();
        if admit(directory, response, on_link).await.is_err() {
            return Ok(records);
        }
        // A page that does not move on would be asked for again without end.
        if next.is_none() || next == after || records > 2 * REPLICA_ROWS_MAX {
            break;
        }
        after = next;
    }
    Ok(records)
}

/// One page; a peer that is over its budget or busy is asked again.
async fn page_after(
    mesh: &MeshHandle,
    node: NodeId,
    after: Option<Vec<u8>>,
) -> Result<Response, RequestError> {
    // An order in which rows stay where they are while they are read.
    let query = Query { all: Some(true), sort: Some(SortBy::Name), ..Query::default() };
    let mut tries = 0;
    loop {
        tries += 1;
        let request = Request::Query { query: query.clone(), cursor: after.clone() };
        match mesh.request(node, request).await {
            Err(RequestError::Refused(_) | RequestError::Timeout | RequestError::Busy)
                if tries < PAGE_TRIES =>
            {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

async fn admit(
    directory: &DirectoryHandle,
    response: Response,
    on_link: bool,
) -> Result<(), homehost_directory::DirectoryClosed> {
    let held = response.records.into_iter();
    let records = held.map(|held| {
        let age = held.age_s.map(|seconds| Duration::from_secs(seconds.into()));
        (held.envelope, Source::Peer { on_link, age })
    });
    directory.admit(records.collect()).await.map(drop)
}
