//! The replica: records that came from the mesh and that it can give back, in
//! sled.
//!
//! One thread owns the database; handles queue changes and go on. Changes are
//! flushed once a second, so a `kill -9` loses those of about the last second,
//! and reconciliation brings them again. For the same reason damage is healed
//! and never fatal: the files are moved aside and an empty replica begins.

mod engine;
mod files;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use homehost_protocol::limits::ENVELOPE_BYTES_MAX;
use homehost_runtime::Tasks;
use tokio::sync::{mpsc, oneshot, watch};

use crate::dir::store_in;
use crate::{DataDir, OpenError, Row, StoreError};
use engine::Engine;

/// Changes that wait for the replica's thread; senders then wait too. Sixteen
/// full RPC pages, some 2 MB: enough to go on while one flush is under way.
const QUEUE_MAX: usize = 2048;

/// How often changes are flushed: what a `kill -9` may take.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Rows that are kept; new keys are refused beyond. All that the quotas of the
/// directory and the DHT let in at the worst: 41,000 rows and tombstones, as many
/// statements about their reach, 53,000 key chains, and 4,096 each of witnesses
/// and of records of the DHT. At several times that sled's memory is no longer
/// small.
const ROWS_MAX: usize = 160_000;

/// Bytes of one row's key and value: an envelope and as much again beside it.
const ROW_BYTES_MAX: usize = 2 * ENVELOPE_BYTES_MAX;

/// A handle to the replica. Clones share one database and one thread.
#[derive(Clone, Debug)]
pub struct Replica {
    commands: mpsc::Sender<Command>,
    trouble: watch::Receiver<Option<StoreError>>,
}

/// What was found when a replica was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// What was wrong and what was done about it, for the person who runs the
    /// node.
    pub healed: Option<String>,
}

#[derive(Debug)]
enum Command {
    /// Without a value, a removal.
    Change {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    LoadAll {
        reply: oneshot::Sender<Vec<Row>>,
    },
    Flush {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// A second has passed.
    Tick,
    /// The process is ending: from now on nothing waits for the next tick.
    Stopping {
        reply: oneshot::Sender<()>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

impl Replica {
    /// Opens the replica of a data folder, or makes an empty one, and starts its
    /// thread. Files that are damaged are moved aside, files that have grown far
    /// beyond what they hold are written anew. Blocks; call it within a Tokio
    /// runtime, before the node serves.
    ///
    /// # Errors
    /// [`OpenError::Full`] and [`OpenError::Denied`]; [`OpenError::Newer`] leaves
    /// the files as they are. Never [`OpenError::Damaged`].
    pub fn open(dir: &DataDir, tasks: &Tasks) -> Result<(Self, Opened), OpenError> {
        let (engine, opened) = Engine::open(&dir.store())?;
        let trouble = engine.trouble();
        let (commands, inbox) = mpsc::channel(QUEUE_MAX);
        let (ended, end) = oneshot::channel::<()>();
        let lock = dir.clone();
        std::thread::Builder::new()
            .name("replica".into())
            .spawn(move || {
                run(engine, inbox, lock);
                let _ = ended.send(());
            })
            .map_err(|error| OpenError::io(&dir.store(), error))?;
        tasks.spawn("replica", watch(commands.downgrade(), end, tasks.shutdown()));
        Ok((Self { commands, trouble }, opened))
    }

    /// What [`Replica::open`] would refuse of a folder that nobody has, without
    /// changing anything. Blocks.
    ///
    /// # Errors
    /// As for [`Replica::open`].
    pub fn check(data_dir: &Path) -> Result<(), OpenError> {
        files::check(&store_in(data_dir))
    }

    /// All rows, in the order of their keys, those queued before included.
    /// Empty once the replica is closed.
    pub async fn load_all(&self) -> Vec<Row> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::LoadAll { reply }).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Queues a row, over the one that has the key; waits while the queue is full.
    ///
    /// A row of more than 16 KiB, or one beyond the 160,000 that are kept, is
    /// refused with a warning in the log; once the replica is closed, all are
    /// refused in silence. The mesh has them.
    ///
    /// # Cancel safety
    /// The row is queued or it is not.
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let (key, value) = (key.into(), value.into());
        let _ = self.commands.send(Command::Change { key, value: Some(value) }).await;
    }

    /// Queues the removal of a row; waits while the queue is full.
    ///
    /// # Cancel safety
    /// The removal is queued or it is not.
    pub async fn remove(&self, key: impl Into<Vec<u8>>) {
        let _ = self.commands.send(Command::Change { key: key.into(), value: None }).await;
    }

    /// Returns when what was queued before would survive a `kill -9`. It says
    /// nothing of rows that were refused, or dropped while a disk was full for
    /// more changes than wait in memory.
    ///
    /// # Errors
    /// See [`StoreError`]; what could not be written is tried again by itself.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Flush { reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Why changes wait in memory; nothing once they are written, which is tried
    /// again and again.
    pub fn trouble(&self) -> Option<StoreError> {
        self.trouble.borrow().clone()
    }

    /// Flushes and closes the database. All handles do nothing from then on; to
    /// call it twice does nothing.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }
}

/// Sees to it that the thread flushes in time and does not end by a panic.
async fn watch(
    commands: mpsc::WeakSender<Command>,
    mut end: oneshot::Receiver<()>,
    shutdown: homehost_runtime::Shutdown,
) -> Result<(), &'static str> {
    let mut ticks = tokio::time::interval(FLUSH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            end = &mut end => return end.map_err(|_| "its thread panicked"),
            () = shutdown.stopping() => break,
            _ = ticks.tick() => {
                let Some(commands) = commands.upgrade() else { return Ok(()) };
                // A queue that is full is being worked on, and flushed, anyway.
                let _ = commands.try_send(Command::Tick);
            }
        }
    }
    let (reply, answer) = oneshot::channel();
    if let Some(commands) = commands.upgrade()
        && commands.send(Command::Stopping { reply }).await.is_ok()
    {
        drop(commands);
        let _ = answer.await;
    }
    Ok(())
}

/// The thread. The folder stays locked until the database is closed.
fn run(mut engine: Engine, mut inbox: mpsc::Receiver<Command>, lock: DataDir) {
    let mut stopping = false;
    while let Some(command) = inbox.blocking_recv() {
        match command {
            Command::Change { key, value } => engine.change(key, value),
            Command::LoadAll { reply } => drop(reply.send(engine.load_all())),
            Command::Flush { reply } => drop(reply.send(engine.flush())),
            Command::Tick => engine.tick(std::time::Instant::now()),
            Command::Stopping { reply } => {
                stopping = true;
                engine.flush_or_warn();
                let _ = reply.send(());
            }
            Command::Close { reply } => {
                engine.close();
                drop((inbox, lock));
                let _ = reply.send(());
                return;
            }
        }
        if stopping && inbox.is_empty() {
            engine.flush_or_warn();
        }
    }
    engine.close();
    drop(lock);
}
