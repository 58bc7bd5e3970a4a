//! Repair: what gossip missed is found by comparing replicas (spec/directory §5).
//!
//! [`Plan`] says when, and with whom. What a peer lacks is its own business: it
//! asks as we do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use homehost_directory::reconcile::{Ended, Plan, ReconcileError, Session, Snapshot};
use homehost_directory::{DirectoryClosed, DirectoryHandle};
use homehost_mesh::{MeshHandle, Misdeed, RequestError};
use homehost_protocol::limits::RPC_RECORDS_MAX;
use homehost_protocol::rpc::{Request, Response, Set};
use homehost_protocol::{NodeId, RecId};

use super::admit;

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
        let plan = Plan::new(fastrand::u64(..), Instant::now());
        Self { mesh, directory, plan: Arc::new(Mutex::new(plan)), stats }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Peers are here again after there were none, or after a gap.
    pub(super) fn joined(&self) {
        self.plan().joined();
    }

    /// Whether a peer is being compared with, and will tell all it has.
    pub(super) fn is_under_way(&self, node: &NodeId) -> bool {
        self.plan().is_under_way(node)
    }

    /// Begins what is due. `holders` are the connected peers that keep a replica
    /// and whether they are on the link; `best` is the truest of them.
    pub(super) fn look(&self, holders: &BTreeMap<NodeId, bool>, best: Option<NodeId>) {
        let due = self.plan().due(holders, best, Instant::now());
        for node in due {
            let on_link = holders.get(&node).copied().unwrap_or(false);
            let repair = self.clone();
            tokio::spawn(async move { repair.with(node, on_link).await });
        }
    }

    async fn with(&self, node: NodeId, on_link: bool) {
        let comparing = Comparing { repair: self, node, on_link, asked: 0 };
        let result = match tokio::time::timeout(TIME_MAX, comparing.run()).await {
            Ok(result) => result,
            Err(_) => Err(RepairError::Slow),
        };
        let how = if result.is_ok() { Ended::Done } else { Ended::Failed };
        self.plan().ended(node, how, Instant::now());
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
