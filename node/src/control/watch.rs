//! A search that goes on: the result, and then every difference to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::stream::{self, Stream};
use homehost_api::{DirectoryChange, DirectoryRow};
use homehost_directory::{DirectoryHandle, Query, RowChange};
use homehost_protocol::ServerId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::views;

/// Rows become stale without anything being said; so the search is run again
/// this often in any case.
const RERUN: Duration = Duration::from_secs(5);

/// Changes that come together are answered together: a host that speaks changes
/// all of its rows at once.
const GATHER: Duration = Duration::from_millis(500);

/// Changes from which on a new search costs less than a look at each row.
const LOOKS_MAX: usize = 256;

struct Watch {
    directory: DirectoryHandle,
    query: Query,
    changes: broadcast::Receiver<RowChange>,
    /// The result that the reader has.
    known: BTreeMap<ServerId, DirectoryRow>,
    /// Whether rows beyond the limit match: which ones are in the result then
    /// depends on all others.
    is_cut: bool,
    searched: Instant,
    pending: VecDeque<DirectoryChange>,
    first: bool,
}

/// Every row of the result as a change, then the differences as they come.
pub(super) fn changes(
    directory: DirectoryHandle,
    query: Query,
) -> impl Stream<Item = DirectoryChange> + Send {
    let watch = Watch {
        changes: directory.changes(),
        directory,
        query,
        known: BTreeMap::new(),
        is_cut: false,
        searched: Instant::now(),
        pending: VecDeque::new(),
        first: true,
    };
    stream::unfold(
        watch,
        |mut watch| async move { watch.next().await.map(|change| (change, watch)) },
    )
}

impl Watch {
    async fn next(&mut self) -> Option<DirectoryChange> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            if std::mem::take(&mut self.first) {
                self.search().await?;
                continue;
            }
            match self.changed().await {
                // Whether one more row has room in it, only a search can tell.
                Some(ids) if !self.is_cut && self.query.limit.is_none() => {
                    for id in ids {
                        self.look(id).await?;
                    }
                }
                _ => self.search().await?,
            }
        }
    }

    /// The rows that changed since the last look; `None` when it is time to
    /// search anew, or when too much has changed.
    async fn changed(&mut self) -> Option<BTreeSet<ServerId>> {
        let mut ids = BTreeSet::new();
        let first = tokio::time::timeout_at(self.searched + RERUN, self.changes.recv()).await;
        match first {
            Ok(Ok(id)) => ids.insert(id),
            Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) | Err(_) => {
                self.gather().await;
                return None;
            }
        };
        tokio::time::sleep(GATHER).await;
        loop {
            match self.changes.try_recv() {
                Ok(id) => ids.insert(id),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(_)) => return None,
            };
            if ids.len() > LOOKS_MAX {
                self.changes = self.changes.resubscribe();
                return None;
            }
        }
        Some(ids)
    }

    /// What changed until now is seen by the search that follows.
    async fn gather(&mut self) {
        tokio::time::sleep(GATHER).await;
        self.changes = self.changes.resubscribe();
    }

    /// Looks at one row; `None` when the node stops.
    async fn look(&mut self, id: ServerId) -> Option<()> {
        let row = self.directory.view(id).await.ok()?;
        match row.filter(|row| self.query.matches(row)) {
            Some(row) => self.put(id, views::directory_row(row)),
            None if self.known.remove(&id).is_some() => self.gone(id),
            None => {}
        }
        Some(())
    }

    /// Runs the search and finds the differences; `None` when the node stops.
    async fn search(&mut self) -> Option<()> {
        self.searched = Instant::now();
        let page = self.directory.search(self.query.clone()).await.ok()?;
        self.is_cut = page.next.is_some();
        let found: BTreeSet<ServerId> = page.rows.iter().map(|row| row.id).collect();
        for row in page.rows {
            self.put(row.id, views::directory_row(row));
        }
        let gone = self.known.keys().filter(|id| !found.contains(*id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.known.remove(&id);
            self.gone(id);
        }
        Some(())
    }

    fn put(&mut self, id: ServerId, row: DirectoryRow) {
        let before = self.known.insert(id, row.clone());
        // `seen` moves with every heartbeat; that alone is no news.
        let same =
            before.is_some_and(|before| DirectoryRow { seen: row.seen.clone(), ..before } == row);
        if !same {
            self.pending.push_back(DirectoryChange::Put { row: Box::new(row) });
        }
    }

    fn gone(&mut self, id: ServerId) {
        self.pending.push_back(DirectoryChange::Gone { id: id.to_string() });
    }
}
