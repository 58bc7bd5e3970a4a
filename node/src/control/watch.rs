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

/// Changes that follow one another are answered together, this often.
const GATHER: Duration = Duration::from_millis(500);

/// After a quiet time a change is answered this soon: a host that speaks changes
/// all of its rows at once.
const AT_ONCE: Duration = Duration::from_millis(10);

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
    /// Before this, changes are gathered and not looked at.
    quiet_until: Instant,
    pending: VecDeque<DirectoryChange>,
    first: bool,
}

/// What a look at the changes shows.
enum Changed {
    /// These rows.
    Few(BTreeSet<ServerId>),
    /// More than can be looked at one by one.
    Many,
    /// Nothing was said, but it is time to search anew.
    Nothing,
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
        quiet_until: Instant::now(),
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
                Changed::Few(ids) if !self.is_cut && self.query.limit.is_none() => {
                    for id in ids {
                        self.look(id).await?;
                    }
                }
                Changed::Nothing => self.search().await?,
                Changed::Few(_) | Changed::Many => {
                    self.search().await?;
                    // It is dear: what goes on changing waits.
                    self.quiet_until = self.searched + GATHER;
                }
            }
            if !self.pending.is_empty() {
                self.quiet_until = Instant::now() + GATHER;
            }
        }
    }

    /// What changed since the last look.
    async fn changed(&mut self) -> Changed {
        let mut ids = BTreeSet::new();
        let first = tokio::time::timeout_at(self.searched + RERUN, self.changes.recv()).await;
        let result = match first {
            Ok(Ok(id)) => {
                ids.insert(id);
                // What comes together with it.
                let soon = Instant::now() + AT_ONCE;
                tokio::time::sleep_until(self.quiet_until.max(soon)).await;
                loop {
                    match self.changes.try_recv() {
                        Ok(id) if ids.len() < LOOKS_MAX => ids.insert(id),
                        Err(TryRecvError::Empty | TryRecvError::Closed) => {
                            return Changed::Few(ids);
                        }
                        Ok(_) | Err(TryRecvError::Lagged(_)) => break Changed::Many,
                    };
                }
            }
            Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => {
                tokio::time::sleep(GATHER).await;
                Changed::Many
            }
            Err(_) => Changed::Nothing,
        };
        // What changed until now is seen by the search that follows.
        self.changes = self.changes.resubscribe();
        result
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
        // What moves with every heartbeat is no news alone.
        let same =
            before.is_some_and(|before| without_clocks(before) == without_clocks(row.clone()));
        if !same {
            self.pending.push_back(DirectoryChange::Put { row: Box::new(row) });
        }
    }

    fn gone(&mut self, id: ServerId) {
        self.pending.push_back(DirectoryChange::Gone { id: id.to_string() });
    }
}

/// A row without what moves by itself.
fn without_clocks(row: DirectoryRow) -> DirectoryRow {
    DirectoryRow { seen: String::new(), reach_age_s: None, ..row }
}
