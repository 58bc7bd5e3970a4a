//! Repair: what gossip missed is found by comparing replicas (spec/directory §5).
//!
//! After joining, two peers are compared with; then one at random and the one
//! whose word proved truest, every ten minutes. What a peer lacks is its own
//! business: it asks as we do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use homehost_directory::reconcile::{ReconcileError, Session, Snapshot};
use homehost_directory::{DirectoryClosed, DirectoryHandle};
use homehost_mesh::{MeshHandle, Misdeed, RequestError};
use homehost_protocol::limits::RPC_RECORDS_MAX;
use homehost_protocol::rpc::{Request, Response, Set};
use homehost_protocol::{NodeId, RecId};

use super::admit;

/// Peers that are compared with after every join: one could be a liar.
const PER_JOIN: usize = 2;

/// How often a node compares with others, and by how much that varies.
const EVERY: Duration = Duration::from_secs(600);
const JITTER: f64 = 0.2;

/// How soon the same peer is compared with once more, when there is no other.
const REST: Duration = Duration::from_secs(3);

/// Longest time that one comparison may take: a full replica of 32,768 rows by
/// 130 answers, and as much again for a slow uplink.
const TIME_MAX: Duration = Duration::from_secs(240);

/// How often a busy peer is asked, and the pause between.
const TRIES: usize = 5;
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// Requests at once; after that a peer answers two a second (spec/mesh §4), and
/// asking faster would be refused.
const AT_ONCE: usize = 12;
const PAUSE: Duration = Duration::from_millis(550);

/// Records that a peer may fail to give, of those it said it has, before it is
/// blamed: some are replaced while it is asked.
const WITHHELD_MAX: usize = 16;

/// Figures since the start.
#[derive(Debug, Default)]
pub(crate) struct RepairStats {
    /// Comparisons that came to an end.
    pub(crate) done: AtomicU64,
    /// Comparisons that failed.
    pub(crate) failed: AtomicU64,
    /// Round trips of comparing.
    pub(crate) rounds: AtomicU64,
    /// Records that they brought.
    pub(crate) records: AtomicU64,
    /// Records that peers said they have and did not give.
    pub(crate) withheld: AtomicU64,
}

impl RepairStats {
    fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }
}

/// When to compare, and with whom.
#[derive(Debug)]
struct Plan {
    /// Comparisons still owed since the last join.
    owed: usize,
    /// When the next regular ones are due.
    due: Instant,
    under_way: BTreeSet<NodeId>,
    /// When a peer may be compared with once more.
    rested: Instant,
    /// Who was compared with since the last join, so that the next is another.
    done: BTreeSet<NodeId>,
}

/// Compares with peers, a few at a time.
#[derive(Clone)]
pub(super) struct Repair {
    mesh: MeshHandle,
    directory: DirectoryHandle,
    plan: Arc<Mutex<Plan>>,
    stats: Arc<RepairStats>,
}

impl Repair {
    pub(super) fn new(
        mesh: MeshHandle,
        directory: DirectoryHandle,
        stats: Arc<RepairStats>,
    ) -> Self {
        let plan = Plan {
            owed: PER_JOIN,
            due: Instant::now() + pause(),
            rested: Instant::now(),
            under_way: BTreeSet::new(),
            done: BTreeSet::new(),
        };
        Self { mesh, directory, plan: Arc::new(Mutex::new(plan)), stats }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Peers are here again after there were none, or after a gap.
    pub(super) fn joined(&self) {
        let mut plan = self.plan();
        plan.owed = PER_JOIN;
        plan.done.clear();
    }

    /// Whether a peer is being compared with, and will tell all it has.
    pub(super) fn is_under_way(&self, node: &NodeId) -> bool {
        self.plan().under_way.contains(node)
    }

    /// Begins what is due. `holders` are the connected peers that keep a replica
    /// and whether they are on the link; `best` is the truest of them.
    pub(super) fn look(&self, holders: &BTreeMap<NodeId, bool>, best: Option<NodeId>) {
        for node in self.choose(holders, best) {
            let on_link = holders.get(&node).copied().unwrap_or(false);
            let repair = self.clone();
            tokio::spawn(async move { repair.with(node, on_link).await });
        }
    }

    fn choose(&self, holders: &BTreeMap<NodeId, bool>, best: Option<NodeId>) -> Vec<NodeId> {
        let mut plan = self.plan();
        let now = Instant::now();
        if now >= plan.due && !holders.is_empty() {
            plan.due = now + pause();
            plan.done.clear();
            let chosen: BTreeSet<NodeId> =
                fastrand::choice(holders.keys()).copied().into_iter().chain(best).collect();
            let chosen = chosen.into_iter().filter(|node| plan.under_way.insert(*node));
            return chosen.collect::<Vec<_>>();
        }
        let mut chosen = Vec::new();
        while plan.owed > plan.under_way.len() {
            let free = || holders.keys().filter(|node| !plan.under_way.contains(*node));
            let others: Vec<_> = free().filter(|node| !plan.done.contains(*node)).collect();
            // With nobody else to ask, the same peer may know more by now.
            let again: Vec<_> = free().filter(|_| plan.rested <= now).collect();
            let node = fastrand::choice(others).or_else(|| fastrand::choice(again)).copied();
            let Some(node) = node else { break };
            plan.under_way.insert(node);
            chosen.push(node);
        }
        chosen
    }

    async fn with(&self, node: NodeId, on_link: bool) {
        let comparing = Comparing { repair: self, node, on_link, asked: 0 };
        let result = match tokio::time::timeout(TIME_MAX, comparing.run()).await {
            Ok(result) => result,
            Err(_) => Err(RepairError::Slow),
        };
        {
            let mut plan = self.plan();
            plan.under_way.remove(&node);
            plan.done.insert(node);
            plan.rested = Instant::now() + REST;
            if result.is_ok() {
                plan.owed = plan.owed.saturating_sub(1);
            }
        }
        match result {
            Ok(records) => {
                RepairStats::add(&self.stats.done, 1);
                tracing::info!(%node, records, "compared what a peer holds");
            }
            Err(RepairError::Closed) => {}
            Err(error) => {
                RepairStats::add(&self.stats.failed, 1);
                tracing::warn!(%node, "failed to compare what a peer holds: {error}");
            }
        }
    }
}

fn pause() -> Duration {
    EVERY.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

/// Why a comparison did not come to its end.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error("it took too long")]
    Slow,
    #[error("the node is shutting down")]
    Closed,
}

impl From<DirectoryClosed> for RepairError {
    fn from(_: DirectoryClosed) -> Self {
        Self::Closed
    }
}

/// One comparison.
struct Comparing<'a> {
    repair: &'a Repair,
    node: NodeId,
    on_link: bool,
    asked: usize,
}

impl Comparing<'_> {
    /// Compares both sets; returns how many records were new.
    async fn run(mut self) -> Result<usize, RepairError> {
        let mut records = 0;
        for set in [Set::Rows, Set::Presences] {
            records += self.compare(set).await?;
        }
        Ok(records)
    }

    async fn compare(&mut self, set: Set) -> Result<usize, RepairError> {
        let items = self.repair.directory.set(set, self.on_link).await?;
        let (mut session, mut message) = Session::begin(Snapshot::new(items));
        let (mut got, mut withheld) = (0, 0);
        loop {
            let response = self.ask(Request::Reconcile { set, message }).await?;
            RepairStats::add(&self.repair.stats.rounds, 1);
            let step = match session.step(&response.message.unwrap_or_default()) {
                Ok(step) => step,
                Err(error) => {
                    // That it holds more than we take in is no fault.
                    if error != ReconcileError::TooManyNeeds {
                        self.repair.mesh.blame(self.node, Misdeed::Nonsense).await;
                    }
                    return Err(error.into());
                }
            };
            let wanted = self.repair.directory.wanted(step.need).await?;
            for ids in wanted.chunks(RPC_RECORDS_MAX) {
                let (new, missing) = self.fetch(ids).await?;
                got += new;
                withheld += missing;
            }
            match step.next {
                Some(next) => message = next,
                None => break,
            }
        }
        RepairStats::add(&self.repair.stats.records, got);
        // Presences are replaced all the time; rows are not.
        if set == Set::Rows {
            RepairStats::add(&self.repair.stats.withheld, withheld);
            if withheld > WITHHELD_MAX && withheld > got / 8 {
                self.repair.mesh.blame(self.node, Misdeed::Withheld).await;
            }
        }
        Ok(got)
    }

    /// Fetches records; returns how many came, and how many did not.
    async fn fetch(&mut self, ids: &[RecId]) -> Result<(usize, usize), RepairError> {
        let mut open: BTreeSet<RecId> = ids.iter().copied().collect();
        let mut got = 0;
        while !open.is_empty() {
            let ids = open.iter().copied().collect();
            let mut response = self.ask(Request::Records { ids }).await?;
            // Only what was asked for, once.
            response.records.retain(|held| open.remove(&RecId::of(&held.envelope)));
            if response.records.is_empty() {
                break;
            }
            got += response.records.len();
            let Repair { mesh, directory, .. } = self.repair;
            admit(mesh, directory, self.node, response, self.on_link).await?;
        }
        Ok((got, open.len()))
    }

    /// One request; a peer that is over its budget or busy is asked again.
    async fn ask(&mut self, request: Request) -> Result<Response, RepairError> {
        self.asked += 1;
        if self.asked > AT_ONCE {
            tokio::time::sleep(PAUSE).await;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.repair.mesh.request(self.node, request.clone()).await {
                Err(RequestError::Refused(_) | RequestError::Timeout | RequestError::Busy)
                    if tries < TRIES =>
                {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                answer => return Ok(answer?),
            }
        }
    }
}

/// How long one picture of the replica serves askers: it is made in a few
/// milliseconds, and askers come a few a second.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(250);

/// Pictures of the replica for those who compare with us.
#[derive(Default)]
pub(super) struct Snapshots {
    pictures: BTreeMap<(Set, bool), (Instant, Snapshot)>,
}

impl Snapshots {
    /// A picture of a set, as it is or was a moment ago.
    pub(super) async fn get(
        &mut self,
        directory: &DirectoryHandle,
        set: Set,
        on_link: bool,
    ) -> Result<Snapshot, DirectoryClosed> {
        if let Some((at, snapshot)) = self.pictures.get(&(set, on_link))
            && at.elapsed() < SNAPSHOT_AGE_MAX
        {
            return Ok(snapshot.clone());
        }
        let snapshot = Snapshot::new(directory.set(set, on_link).await?);
        self.pictures.insert((set, on_link), (Instant::now(), snapshot.clone()));
        Ok(snapshot)
    }
}
