//! A search that goes on: the result, and then every difference to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures::stream::{self, Stream};
use homehost_api::{DirectoryChange, DirectoryRow};
use homehost_directory::{DirectoryHandle, Query, RowChange};
use tokio::sync::broadcast;

use super::views;

/// Rows become stale without anything being said; so the search is run again
/// this often in any case.
const RERUN: Duration = Duration::from_secs(5);

/// Changes that come together are answered together; a search of a full replica
/// takes milliseconds that admission waits for.
const GATHER: Duration = Duration::from_millis(500);

struct Watch {
    directory: DirectoryHandle,
    query: Query,
    changes: broadcast::Receiver<RowChange>,
    /// The result that the reader has.
    known: BTreeMap<String, DirectoryRow>,
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
            if !std::mem::take(&mut self.first) {
                self.wait().await;
            }
            self.look().await?;
        }
    }

    async fn wait(&mut self) {
        // Which row changed does not matter, nor that some were missed.
        let _ = tokio::time::timeout(RERUN, self.changes.recv()).await;
        tokio::time::sleep(GATHER).await;
        self.changes = self.changes.resubscribe();
    }

    /// Runs the search and finds the differences; `None` when the node stops.
    async fn look(&mut self) -> Option<()> {
        let rows = self.directory.search(self.query.clone()).await.ok()?;
        let mut gone = std::mem::take(&mut self.known);
        for row in rows.into_iter().map(views::directory_row) {
            let before = gone.remove(&row.id);
            // `seen` moves with every heartbeat; that alone is no news.
            let same = before
                .is_some_and(|before| DirectoryRow { seen: row.seen.clone(), ..before } == row);
            if !same {
                self.pending.push_back(DirectoryChange::Put { row: Box::new(row.clone()) });
            }
            self.known.insert(row.id.clone(), row);
        }
        self.pending.extend(gone.into_keys().map(|id| DirectoryChange::Gone { id }));
        Some(())
    }
}
