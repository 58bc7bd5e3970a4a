//! The ledger: what only this machine knows, in redb.
//!
//! Own records and their sequence numbers, server definitions and state,
//! receipts, audit. One thread owns the database; handles send it commands.
//! Commands that wait while it commits become the next transaction together
//! (group commit), so that many writers share one fsync.
//!
//! Private keys are never rows here: they are files of their own.

mod engine;
mod schema;
#[cfg(test)]
mod tests;

use std::path::Path;

use homehost_runtime::Tasks;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{DataDir, OpenError, Row, StoreError};
use engine::Engine;

/// Commands that wait for the ledger's thread, and the most that one
/// transaction takes. Each is one action of a person or one own record, so more
/// than this waiting means that the disk does not keep up; senders then wait.
const QUEUE_MAX: usize = 256;

/// Bytes of keys and values in one [`Batch`]. The largest rows are server
/// definitions, of some tens of kilobytes.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// A table of the ledger; keys and values are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Facts about this node.
    Meta,
    /// Last sequence number by key; written by [`Ledger::next_seq`] alone.
    Sequences,
    /// Envelopes that this node signed.
    OwnRecords,
    /// Definitions and wanted state of game servers.
    Servers,
    /// What an action answered, so that its repeat answers the same.
    Receipts,
    /// Who did what.
    Audit,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 6] =
        [Self::Meta, Self::Sequences, Self::OwnRecords, Self::Servers, Self::Receipts, Self::Audit];

    /// The table's name in the database.
    fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Sequences => "sequences",
            Self::OwnRecords => "own-records",
            Self::Servers => "servers",
            Self::Receipts => "receipts",
            Self::Audit => "audit",
        }
    }
}

/// Changes that happen together or not at all, in the order in which they were
/// added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    table: Table,
    key: Vec<u8>,
    /// `None` deletes.
    value: Option<Vec<u8>>,
}

impl Batch {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row, over the one that has the key.
    #[must_use]
    pub fn put(self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.add(Change { table, key: key.into(), value: Some(value.into()) })
    }

    /// Deletes a row if it is there.
    #[must_use]
    pub fn delete(self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.add(Change { table, key: key.into(), value: None })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn add(mut self, change: Change) -> Self {
        self.bytes += change.key.len() + change.value.as_ref().map_or(0, Vec::len);
        self.changes.push(change);
        self
    }
}

/// A handle to the ledger. Clones share one database and one thread.
#[derive(Clone, Debug)]
pub struct Ledger {
    commands: mpsc::Sender<Command>,
    trouble: watch::Receiver<Option<StoreError>>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
enum Command {
    Get { table: Table, key: Vec<u8>, reply: Reply<Option<Vec<u8>>> },
    Scan { scan: Scan, reply: Reply<Vec<Row>> },
    Commit { batch: Batch, reply: Reply<()> },
    NextSeq { key: Vec<u8>, now_ms: u64, begin: Begin, reply: Reply<u64> },
    Close { reply: Reply<()> },
}

/// Where a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// After its last number.
    Last,
    /// At the clock.
    Clock,
}

#[derive(Clone, Debug)]
struct Scan {
    table: Table,
    prefix: Vec<u8>,
    limit: usize,
    from: End,
}

/// Where a scan begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    First,
    Last,
}

impl Ledger {
    /// Opens the ledger of a data folder, or makes an empty one, and starts its
    /// thread. Blocks, for as long as it takes to read the whole file once
    /// after a crash; call it within a Tokio runtime, before the node serves.
    ///
    /// # Errors
    /// [`OpenError::Newer`] and [`OpenError::Damaged`] leave the files as they are.
    pub fn open(dir: &DataDir, tasks: &Tasks) -> Result<Self, OpenError> {
        let engine = Engine::open(dir)?;
        let trouble = engine.trouble();
        let (commands, inbox) = mpsc::channel(QUEUE_MAX);
        let (ended, end) = oneshot::channel::<()>();
        let lock = dir.clone();
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                run(engine, inbox, lock);
                let _ = ended.send(());
            })
            .map_err(|error| OpenError::io(&dir.store(), error))?;
        // The thread serves as long as there are handles, also while other tasks
        // drain; what is watched here is that it does not end by a panic.
        let shutdown = tasks.shutdown();
        tasks.spawn("ledger", async move {
            tokio::select! {
                biased;
                end = end => end.map_err(|_| "its thread panicked"),
                () = shutdown.stopping() => Ok(()),
            }
        });
        Ok(Self { commands, trouble })
    }

    /// Whether a data folder has a ledger, sound or not; [`Ledger::open`] makes
    /// one where there is none. Blocks.
    pub fn exists(data_dir: &Path) -> bool {
        // What cannot be looked at is not taken for absent.
        let looked = std::fs::symlink_metadata(engine::file_in(data_dir));
        !looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// What [`Ledger::open`] would refuse of a folder that nobody has, without
    /// changing anything. Blocks.
    ///
    /// # Errors
    /// As for [`Ledger::open`].
    pub fn check(data_dir: &Path) -> Result<(), OpenError> {
        engine::check(data_dir)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_vec();
        self.ask(|reply| Command::Get { table, key, reply }).await
    }

    /// Up to `limit` rows whose keys begin with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let scan = Scan { table, prefix: prefix.to_vec(), limit, from: End::First };
        self.ask(|reply| Command::Scan { scan, reply }).await
    }

    /// As [`Ledger::scan`], but from the last key backwards: the newest first,
    /// where keys grow with time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn scan_back(
        &self,
        table: Table,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let scan = Scan { table, prefix: prefix.to_vec(), limit, from: End::Last };
        self.ask(|reply| Command::Scan { scan, reply }).await
    }

    /// Makes all changes of a batch or none, and returns when they are on disk
    /// (fsync). Batches take effect in the order in which they were sent.
    ///
    /// # Errors
    /// See [`StoreError`]. After [`StoreError::Full`] the ledger goes on as soon
    /// as there is room. As with any fsync, an error does not prove that the
    /// changes are absent after a restart.
    ///
    /// # Cancel safety
    /// Once sent, the batch is committed whether or not its sender still waits.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        if batch.bytes > BATCH_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes: batch.bytes, most: BATCH_BYTES_MAX });
        }
        self.ask(|reply| Command::Commit { batch, reply }).await
    }

    /// The next sequence number of `key`: one more than the last, and no less
    /// than `now_ms`. It is on disk before this returns, so no number is given
    /// out twice, whatever happens to the process or the clock.
    ///
    /// # Errors
    /// See [`StoreError`].
    ///
    /// # Cancel safety
    /// A number that nobody waits for any more is skipped.
    pub async fn next_seq(&self, key: &[u8], now_ms: u64) -> Result<u64, StoreError> {
        let key = key.to_vec();
        self.ask(|reply| Command::NextSeq { key, now_ms, begin: Begin::Last, reply }).await
    }

    /// Gives up the numbers of `key` that are beyond `now_ms`, which is returned
    /// as the next one. Only for numbers that nobody has taken.
    ///
    /// # Errors
    /// See [`StoreError`].
    ///
    /// # Cancel safety
    /// As [`Ledger::next_seq`].
    pub async fn restart_seq(&self, key: &[u8], now_ms: u64) -> Result<u64, StoreError> {
        let key = key.to_vec();
        self.ask(|reply| Command::NextSeq { key, now_ms, begin: Begin::Clock, reply }).await
    }

    /// Why the last change was not written; nothing once one was. It does not try
    /// by itself.
    pub fn trouble(&self) -> Option<StoreError> {
        self.trouble.borrow().clone()
    }

    /// Does what was sent before, then closes the database, so that the next
    /// start need not check it. All handles answer [`StoreError::Closed`] from
    /// then on; to call it twice does nothing.
    ///
    /// Without it nothing that was acknowledged is lost.
    pub async fn close(&self) {
        let _ = self.ask(|reply| Command::Close { reply }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// The thread: takes what waits, answers it in one round, and begins anew. The
/// folder stays locked until the database is closed.
fn run(mut engine: Engine, mut inbox: mpsc::Receiver<Command>, lock: DataDir) {
    let mut round = Vec::new();
    while let Some(first) = inbox.blocking_recv() {
        round.push(first);
        while round.len() < QUEUE_MAX
            && let Ok(next) = inbox.try_recv()
        {
            round.push(next);
        }
        if let Some(closed) = engine.serve(round.drain(..)) {
            // Those who still wait are told that it is closed.
            drop((engine, inbox, lock));
            let _ = closed.send(Ok(()));
            return;
        }
    }
    drop((engine, lock));
}
