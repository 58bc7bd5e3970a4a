//! Mesh and directory: what peers say goes into the directory, what they ask
//! comes out of it, and what is missing is asked for.

mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_directory::fetched::Fetched;
use homehost_directory::truth::Truth;
use homehost_directory::{
    Admission, DirectoryHandle, Heard, Judgement, Refusal, RowStatus, Source,
};
use homehost_mesh::{DhtAnswer, GossipVerdict, MeshEvent, MeshHandle, Misdeed, ReplyToken};
use homehost_protocol::dht::DhtKey;
use homehost_protocol::gossip::{Topic, decode_batch};
use homehost_protocol::limits::RPC_CHAINS_MAX;
use homehost_protocol::rpc::{HeldRecord, Request, Response, Set};
use homehost_protocol::{NodeId, RootId, Scope, ServerId, UnixMillis};
use homehost_runtime::{Shutdown, wall_ms};
use tokio::sync::{Semaphore, broadcast, mpsc};

use super::announce::Announcer;
use super::clock::ClockHandle;
use super::join::ip_of;
use super::phone_book::take_in;
use super::witness::Witness;
pub(crate) use repair::RepairStats;
use repair::{Repair, Snapshots};

/// How often it is looked whether a comparison is due.
const LOOK: Duration = Duration::from_secs(5);

/// How often the directory is told anew whom this node is connected to: it
/// forgets them after a day.
const MEET_AGAIN: Duration = Duration::from_secs(3600);

/// A node that did not look for so long has slept, and missed what was said.
const GAP: Duration = Duration::from_secs(60);

/// Questions about what records refer to, at one time; what is not asked now is
/// heard of again.
const FETCHES_MAX: usize = 16;

/// How many of them at one peer: who does not answer must not hold up others.
const FETCHES_PER_PEER: usize = 2;

/// Key chains that are looked for in the DHT at one time for those who only
/// search.
const SEEKS_MAX: usize = 4;

/// How long that may take: a bootstrap node that passes the question on waits
/// for 4.5 seconds.
const SEEK_TIME_MAX: Duration = Duration::from_millis(3500);

/// Carries between mesh and directory until the mesh ends.
pub(crate) struct Exchange {
    mesh: MeshHandle,
    directory: DirectoryHandle,
    announcer: Announcer,
    clock: ClockHandle,
    witness: Witness,
    fetches: Arc<Semaphore>,
    seeks: Arc<Semaphore>,
    /// Each connected peer's questions that are under way, by references.
    fetching: BTreeMap<NodeId, Arc<()>>,
    fetched: Fetched,
    /// Connected peers that keep a replica, and whether they are on the link.
    holders: BTreeMap<NodeId, bool>,
    /// Those of them whose address the directory has been told.
    met: BTreeSet<NodeId>,
    /// When the directory was last told of all of them.
    met_at: Option<Instant>,
    repair: Repair,
    snapshots: Snapshots,
    truth: Truth,
    /// When that was looked at last, by the wall clock.
    looked: UnixMillis,
}

impl Exchange {
    pub(crate) fn new(
        mesh: MeshHandle,
        directory: DirectoryHandle,
        announcer: Announcer,
        clock: ClockHandle,
        witness: Witness,
        stats: Arc<RepairStats>,
    ) -> Self {
        Self {
            repair: Repair::new(mesh.clone(), directory.clone(), stats),
            mesh,
            directory,
            announcer,
            clock,
            witness,
            fetches: Arc::new(Semaphore::new(FETCHES_MAX)),
            seeks: Arc::new(Semaphore::new(SEEKS_MAX)),
            fetching: BTreeMap::new(),
            fetched: Fetched::default(),
            holders: BTreeMap::new(),
            met: BTreeSet::new(),
            met_at: None,
            snapshots: Snapshots::default(),
            truth: Truth::default(),
            looked: UnixMillis(wall_ms()),
        }
    }

    /// Runs until the mesh ends or the node stops.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<MeshEvent>,
        shutdown: Shutdown,
    ) -> Result<(), std::convert::Infallible> {
        let mut looks = tokio::time::interval(LOOK);
        let mut status = self.mesh.status();
        let mut changes = self.directory.changes();
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                _ = looks.tick() => self.look(),
                Ok(()) = status.changed() => self.meet().await,
                event = events.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => return Ok(()),
                },
                change = changes.recv() => match change {
                    Ok(id) => self.changed(id).await,
                    // What was missed is judged when it changes again.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
            }
        }
    }

    fn look(&mut self) {
        // The wall clock goes on while the machine sleeps.
        let now = UnixMillis(wall_ms());
        if now.since(self.looked) > LOOK + GAP {
            self.repair.joined();
        }
        self.looked = now;
        self.repair.look(&self.holders, self.truth.best(self.holders.keys()));
    }

    /// Tells the directory whom this node is connected to: their word counts
    /// when they witness.
    async fn meet(&mut self) {
        if self.met_at.is_none_or(|at| at.elapsed() >= MEET_AGAIN) {
            self.met_at = Some(Instant::now());
            self.met.clear();
            // What this node reached itself it need not be told.
            self.directory.met(self.mesh.node(), None).await;
        }
        let peers = self.mesh.status().borrow().peers.clone();
        for peer in peers.iter().filter(|peer| peer.holds_replica) {
            if self.met.insert(peer.node) {
                self.directory.met(peer.node, ip_of(&peer.address)).await;
            }
        }
    }

    async fn handle(&mut self, event: MeshEvent) {
        match event {
            MeshEvent::Gossip { from, topic, message, token } => {
                let verdict = self.gossip(from, topic, &message).await;
                self.mesh.judge(token, verdict).await;
            }
            MeshEvent::Request { from, request, on_link, reply, .. } => {
                self.answer(from, request, on_link, reply).await;
            }
            MeshEvent::AttestRequest { from, address, request, reply } => {
                self.witness.asked(from, address, request, reply);
            }
            MeshEvent::PeerJoined { node, scope, holds_replica } => {
                if holds_replica {
                    if self.holders.is_empty() {
                        self.repair.joined();
                    }
                    self.holders.insert(node, scope != Scope::Global);
                    self.look();
                    self.announcer.peer_joined(node, scope);
                }
            }
            MeshEvent::PeerLeft { node } => {
                self.holders.remove(&node);
                self.met.remove(&node);
            }
            MeshEvent::GossipJoined => self.announcer.rejoined(),
            MeshEvent::Listening { address } => tracing::debug!(%address, "listening"),
            MeshEvent::ListenFailed { address, reason, .. } => {
                tracing::warn!(%address, "not listening: {reason}");
            }
        }
    }

    async fn gossip(&mut self, from: NodeId, topic: Topic, message: &[u8]) -> GossipVerdict {
        let Ok(envelopes) = decode_batch(message) else { return GossipVerdict::Reject };
        if topic == Topic::Presence {
            self.clock.presences(&envelopes, self.witness.network(), &self.directory.keys());
        }
        let Ok((judgement, heard)) = self.directory.admit_gossip(from, envelopes).await else {
            return GossipVerdict::Ignore;
        };
        for id in &heard.learned {
            self.truth.learned(*id, from);
        }
        self.fetch(from, heard);
        match judgement {
            Judgement::Accept => GossipVerdict::Accept,
            Judgement::Ignore => GossipVerdict::Ignore,
            Judgement::Reject => GossipVerdict::Reject,
        }
    }

    /// A row changed: was it true what a peer brought?
    async fn changed(&mut self, id: ServerId) {
        if !self.truth.awaits(&id) {
            return;
        }
        let outcome = match self.directory.view(id).await {
            Ok(Some(row)) if row.reach.proved > 0 => self.truth.outcome(&id, true),
            // Who takes a server back had one, for all we know.
            Ok(Some(row)) if row.status == RowStatus::Withdrawn => self.truth.forget(&id),
            Ok(None) => self.truth.outcome(&id, false),
            Ok(Some(_)) | Err(_) => None,
        };
        if let Some((node, truth)) = outcome {
            self.mesh.set_truth(node, truth).await;
        }
    }

    async fn answer(&mut self, from: NodeId, request: Request, on_link: bool, reply: ReplyToken) {
        let response = match request {
            // What gossip may carry comes by gossip, which counts who brings it.
            Request::Offer { .. } if !on_link => Ok(Response::default()),
            Request::Offer { envelopes } => {
                let records = envelopes.into_iter();
                let records = records.map(|envelope| HeldRecord { envelope, age_s: Some(0) });
                let offered = Response { records: records.collect(), ..Response::default() };
                let taken = admit(&self.mesh, &self.directory, from, offered, on_link).await;
                taken.map(|()| Response::default())
            }
            Request::Reconcile { set, message } => {
                self.compare(from, (set, on_link), message, reply).await;
                return;
            }
            // Peers that hold a replica can look themselves.
            Request::Chains { roots } if roots.len() == 1 && !self.holders.contains_key(&from) => {
                self.seek_chain(roots[0], on_link, reply).await;
                return;
            }
            request => self.directory.answer(request, on_link).await,
        };
        if let Ok(response) = response {
            self.mesh.respond(reply, response).await;
        }
    }

    /// Gives a root's key chain, from the DHT if it is not here yet: of a root
    /// without rows it comes by a comparison only.
    async fn seek_chain(&self, root: RootId, on_link: bool, reply: ReplyToken) {
        let request = Request::Chains { roots: vec![root] };
        let Ok(known) = self.directory.answer(request.clone(), on_link).await else { return };
        let lacks = known.records.is_empty();
        let place = self.seeks.clone().try_acquire_owned().ok().filter(|_| lacks);
        let Some(place) = place else { return self.mesh.respond(reply, known).await };
        let (mesh, directory) = (self.mesh.clone(), self.directory.clone());
        tokio::spawn(async move {
            let _held = place;
            let sought = mesh.dht_get(DhtKey::Chain(root));
            if let Ok(Ok(DhtAnswer { best: Some(chain), .. })) =
                tokio::time::timeout(SEEK_TIME_MAX, sought).await
            {
                take_in(&directory, chain).await;
            }
            if let Ok(response) = directory.answer(request, on_link).await {
                mesh.respond(reply, response).await;
            }
        });
    }

    /// Answers a step of a comparison, beside the loop: it takes milliseconds in
    /// a full replica.
    async fn compare(
        &mut self,
        from: NodeId,
        (set, on_link): (Set, bool),
        message: Vec<u8>,
        reply: ReplyToken,
    ) {
        let snapshot = self.snapshots.get(&self.directory, set, on_link).await;
        let Ok(snapshot) = snapshot else { return };
        let mesh = self.mesh.clone();
        tokio::spawn(async move {
            match tokio::task::spawn_blocking(move || snapshot.answer(&message)).await {
                Ok(Ok(message)) => {
                    let response = Response { message: Some(message), ..Response::default() };
                    mesh.respond(reply, response).await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(%from, "refused to compare: {error}");
                    mesh.blame(from, Misdeed::Nonsense).await;
                }
                // The node is shutting down.
                Err(_) => {}
            }
        });
    }

    /// Asks a peer for what its records refer to.
    fn fetch(&mut self, from: NodeId, heard: Heard) {
        self.fetch_servers(from, heard.servers);
        self.fetch_chains(from, heard.chains);
    }

    /// Asks a peer for servers that a host says it runs.
    fn fetch_servers(&mut self, from: NodeId, ids: Vec<ServerId>) {
        let now = Instant::now();
        let ids = self.fetched.fresh(ids, now);
        // A peer that is being compared with tells of them anyway.
        if ids.is_empty() || self.repair.is_under_way(&from) {
            return;
        }
        if self.ask(from, Request::Get { ids: ids.clone() }) {
            self.fetched.asked(ids, now);
        }
    }

    /// Asks a peer for the key chains of roots whose records it passed on.
    fn fetch_chains(&mut self, from: NodeId, mut roots: Vec<RootId>) {
        roots.sort_unstable();
        roots.dedup();
        roots.truncate(RPC_CHAINS_MAX);
        if !roots.is_empty() {
            self.ask(from, Request::Chains { roots });
        }
    }

    /// Asks a peer, and takes in what it answers; false when too much is being
    /// asked already. What is not asked for now is heard of again.
    fn ask(&mut self, from: NodeId, request: Request) -> bool {
        self.fetching.retain(|_, count| Arc::strong_count(count) > 1);
        let of_peer = self.fetching.entry(from).or_default();
        if Arc::strong_count(of_peer) > FETCHES_PER_PEER {
            return false;
        }
        let Ok(permit) = self.fetches.clone().try_acquire_owned() else { return false };
        let counted = of_peer.clone();
        let on_link = self.holders.get(&from).copied().unwrap_or(false);
        let (mesh, directory) = (self.mesh.clone(), self.directory.clone());
        tokio::spawn(async move {
            let _held = (permit, counted);
            match mesh.request(from, request).await {
                Ok(response) => {
                    drop(admit(&mesh, &directory, from, response, on_link).await);
                }
                Err(error) => tracing::debug!(%from, "failed to fetch records: {error}"),
            }
        });
        true
    }
}

/// Takes in what a peer gave us; what no honest node could give is held against
/// it.
async fn admit(
    mesh: &MeshHandle,
    directory: &DirectoryHandle,
    from: NodeId,
    response: Response,
    on_link: bool,
) -> Result<(), homehost_directory::DirectoryClosed> {
    let held = response.records.into_iter();
    let records = held.map(|held| {
        let age = held.age_s.map(|seconds| Duration::from_secs(seconds.into()));
        (held.envelope, Source::Peer { on_link, age })
    });
    let admitted = directory.admit(records.collect()).await?;
    let forged = |admission: &Admission| match admission {
        // Whether an address is near, each end sees for itself.
        Admission::Refused(refusal) => matches!(refusal, Refusal::Invalid(_)),
        Admission::New => false,
    };
    if admitted.admissions.iter().any(forged) {
        mesh.blame(from, Misdeed::InvalidRecord).await;
    }
    Ok(())
}
