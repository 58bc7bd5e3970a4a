//! The side of the ledger that owns the database: rounds of commands, and a new
//! start of the database after an I/O error.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use homehost_runtime::files::sync_folder;
use redb::backends::InMemoryBackend;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, StorageBackend as _, TableDefinition,
};
use tokio::sync::watch;

use super::{Batch, Begin, Command, End, Reply, Scan, Table, schema};
use crate::error::Fault;
use crate::{DataDir, OpenError, Row, StoreError, dir};

/// The database's file in the store's folder.
const FILE: &str = "ledger.redb";
/// Where it is made.
const NEW_FILE: &str = "ledger.redb.new";

/// redb's page cache. The ledger has some thousand rows, and an idle node has
/// 40 MB for everything.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// The whole file is verified at the start while it is no longer than this
/// (about 0.1 s); beyond, only after a crash.
const VERIFY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Opens the database file; tests put a disk in between that can be full.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, redb::Error> + Send>;

pub(super) struct Engine {
    path: PathBuf,
    opener: Opener,
    /// `None` after an I/O error: redb refuses everything from then on, and is
    /// opened anew by the next command.
    database: Option<Database>,
    /// Why the last transaction failed, if it did.
    trouble: watch::Sender<Option<StoreError>>,
    /// Transactions that were committed.
    #[cfg(test)]
    pub(super) transactions: usize,
}

type Guard<'a> = redb::AccessGuard<'a, &'static [u8]>;
type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) fn rows(table: Table) -> Rows {
    TableDefinition::new(table.name())
}

/// A change that waits for the round's transaction.
enum Write {
    Commit { batch: Batch, reply: Reply<()> },
    NextSeq { key: Vec<u8>, now_ms: u64, begin: Begin, reply: Reply<u64> },
}

/// What became of a [`Write`] in a transaction that was committed.
enum Done {
    Committed,
    Sequence(Result<u64, StoreError>),
}

/// The ledger's file in a data folder.
pub(super) fn file_in(data_dir: &Path) -> PathBuf {
    dir::store_in(data_dir).join(FILE)
}

fn open_file(path: &Path) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create(path)?)
}

/// Length of the ledger's file; none when there is no ledger yet.
///
/// A ledger is made whole and then gets its name, so that one without a single
/// byte was not cut short in the making: a power cut or the disk took what was in
/// it, and a new one in its place would hide that.
fn length_of(path: &Path) -> Result<Option<u64>, OpenError> {
    match std::fs::symlink_metadata(path).and_then(|_| std::fs::metadata(path)) {
        Ok(file) if file.len() == 0 => {
            Err(OpenError::of(path, Fault::Damaged("it is empty, with 0 bytes".to_owned())))
        }
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io(path, error)),
    }
}

/// Makes an empty ledger under another name first: one that was cut short, by a
/// crash or a full disk, would look like a damaged one.
fn create(folder: &Path, path: &Path, opener: &Opener) -> Result<(), Fault> {
    let new = folder.join(NEW_FILE);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Fault::of_io(error));
        }
        _ => {}
    }
    let database = opener(&new).map_err(Fault::of_redb)?;
    // It is new, so it cannot be newer.
    let _ = schema::prepare(&database)?;
    drop(database);
    std::fs::rename(&new, path).and_then(|()| sync_folder(folder)).map_err(Fault::of_io)
}

/// How a database was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Sound,
    Repaired,
}

/// Verifies a database that was opened, and makes its tables if they are missing.
fn verify(database: &mut Database, path: &Path, length: u64) -> Result<Health, OpenError> {
    let failed = |fault| OpenError::of(path, fault);
    let mut health = Health::Sound;
    if length <= VERIFY_BYTES_MAX {
        let sound = Fault::guard(|| {
            database.check_integrity().map_err(|error| Fault::of_redb(error.into()))
        })
        .map_err(failed)?;
        if !sound {
            health = Health::Repaired;
        }
    }
    Fault::guard(|| schema::prepare(database)).map_err(failed)?.map_err(|newer| {
        OpenError::Newer { path: path.to_owned(), found: newer.found, known: schema::VERSION }
    })?;
    Ok(health)
}

/// What [`Engine::open`] would refuse, found without changing anything: the file
/// is read, and opened as a copy in memory. One that is too long for that is
/// looked at as far as reading goes.
pub(super) fn check(data_dir: &Path) -> Result<(), OpenError> {
    let path = file_in(data_dir);
    let Some(length) = length_of(&path)? else { return Ok(()) };
    schema::refuse_newer(&path)?;
    if length > VERIFY_BYTES_MAX {
        return std::fs::File::open(&path).map(drop).map_err(|error| OpenError::io(&path, error));
    }
    let bytes = std::fs::read(&path).map_err(|error| OpenError::io(&path, error))?;
    let mut database = Fault::guard(|| {
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64)
            .and_then(|()| copy.write(0, &bytes))
            .map_err(Fault::of_io)?;
        let mut builder = Database::builder();
        let opened = builder.set_cache_size(CACHE_BYTES).create_with_backend(copy);
        opened.map_err(|error| Fault::of_redb(error.into()))
    })
    .map_err(|fault| OpenError::of(&path, fault))
    .map_err(in_memory)?;
    verify(&mut database, &path, length).map(drop).map_err(in_memory)
}

/// Memory does not fail: whatever an engine says of a copy in it is damage, as
/// that there is nothing where a file goes on.
fn in_memory(error: OpenError) -> OpenError {
    match error {
        OpenError::Other { path, source } => {
            OpenError::Damaged { path, reason: source.to_string() }
        }
        other => other,
    }
}

impl Engine {
    pub(super) fn open(dir: &DataDir) -> Result<Self, OpenError> {
        Self::open_with(&dir.store(), Box::new(open_file))
    }

    pub(super) fn open_with(folder: &Path, opener: Opener) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let failed = |fault| OpenError::of(&path, fault);
        let length = match length_of(&path)? {
            Some(length) => {
                schema::refuse_newer(&path)?;
                length
            }
            None => {
                Fault::guard(|| create(folder, &path, &opener)).map_err(failed)?;
                length_of(&path)?.unwrap_or_default()
            }
        };
        let mut database =
            Fault::guard(|| opener(&path).map_err(Fault::of_redb)).map_err(failed)?;
        if verify(&mut database, &path, length)? == Health::Repaired {
            tracing::warn!(
                path = %path.display(),
                "the ledger was damaged and is repaired; its last changes may be missing"
            );
        }
        Ok(Self {
            path,
            opener,
            database: Some(database),
            trouble: watch::Sender::new(None),
            #[cfg(test)]
            transactions: 0,
        })
    }

    /// Why the last transaction failed, if it did.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<StoreError>> {
        self.trouble.subscribe()
    }

    /// Answers commands: those that read first, then those that write, in their
    /// order and in one transaction. Whoever sent one without waiting for
    /// another cannot tell the difference.
    ///
    /// Returns whom to tell that the database is closed, if anyone asked for it.
    pub(super) fn serve(&mut self, round: impl Iterator<Item = Command>) -> Option<Reply<()>> {
        let mut writes = Vec::new();
        let mut close = None;
        for command in round {
            match command {
                // A receiver that is gone does not want its answer.
                Command::Get { table, key, reply } => drop(reply.send(self.get(table, &key))),
                Command::Scan { scan, reply } => drop(reply.send(self.scan(&scan))),
                Command::Commit { batch, reply } => writes.push(Write::Commit { batch, reply }),
                Command::NextSeq { key, now_ms, begin, reply } => {
                    writes.push(Write::NextSeq { key, now_ms, begin, reply });
                }
                Command::Close { reply } => {
                    close = Some(reply);
                    break;
                }
            }
        }
        if !writes.is_empty() {
            self.write(writes);
        }
        close
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|database| {
            let value = database.begin_read()?.open_table(rows(table))?.get(key)?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&mut self, scan: &Scan) -> Result<Vec<Row>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(rows(scan.table))?;
            let after = end_of_prefix(&scan.prefix);
            let range = match &after {
                Some(after) => table.range(scan.prefix.as_slice()..after.as_slice())?,
                None => table.range(scan.prefix.as_slice()..)?,
            };
            match scan.from {
                End::First => range.take(scan.limit).map(copy).collect(),
                End::Last => range.rev().take(scan.limit).map(copy).collect(),
            }
        })
    }

    fn write(&mut self, writes: Vec<Write>) {
        let done = self.with(|database| {
            let transaction = database.begin_write()?;
            let mut done = Vec::with_capacity(writes.len());
            for write in &writes {
                done.push(apply(&transaction, write)?);
            }
            transaction.commit()?;
            Ok(done)
        });
        match done {
            Ok(done) => {
                // Before whoever waits is told, and may look.
                self.trouble.send_replace(None);
                #[cfg(test)]
                {
                    self.transactions += 1;
                }
                for (write, done) in writes.into_iter().zip(done) {
                    match (write, done) {
                        (Write::NextSeq { reply, .. }, Done::Sequence(seq)) => {
                            drop(reply.send(seq));
                        }
                        (Write::Commit { reply, .. }, _) => drop(reply.send(Ok(()))),
                        // `apply` gives each kind of write its own kind of answer.
                        (Write::NextSeq { .. }, Done::Committed) => {}
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, waiting = writes.len(), "the ledger was not written");
                self.trouble.send_replace(Some(error.clone()));
                for write in writes {
                    match write {
                        Write::Commit { reply, .. } => drop(reply.send(Err(error.clone()))),
                        Write::NextSeq { reply, .. } => drop(reply.send(Err(error.clone()))),
                    }
                }
            }
        }
    }

    /// Runs `work` on the database, opening it anew if an earlier error closed it.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = (self.opener)(&self.path).map_err(Fault::of_redb)?;
                tracing::info!("the ledger was opened anew after an error");
                database
            }
        };
        // On an error the database is dropped here and now, which gives up its
        // lock; what it had committed is in the file.
        let value = work(&database).map_err(Fault::of_redb)?;
        self.database = Some(database);
        Ok(value)
    }
}

fn copy(row: Result<(Guard<'_>, Guard<'_>), redb::StorageError>) -> Result<Row, redb::Error> {
    let (key, value) = row?;
    Ok((key.value().to_vec(), value.value().to_vec()))
}

fn apply(transaction: &redb::WriteTransaction, write: &Write) -> Result<Done, redb::Error> {
    match write {
        Write::Commit { batch, .. } => {
            for change in &batch.changes {
                let mut table = transaction.open_table(rows(change.table))?;
                match &change.value {
                    Some(value) => table.insert(change.key.as_slice(), value.as_slice())?,
                    None => table.remove(change.key.as_slice())?,
                };
            }
            Ok(Done::Committed)
        }
        Write::NextSeq { key, now_ms, begin, .. } => {
            let mut table = transaction.open_table(rows(Table::Sequences))?;
            let last = table.get(key.as_slice())?.map(|row| {
                let bytes = <[u8; 8]>::try_from(row.value());
                bytes.map(u64::from_be_bytes)
            });
            let least = match last {
                _ if *begin == Begin::Clock => Some(*now_ms),
                None => Some(0),
                Some(Ok(last)) => last.checked_add(1),
                Some(Err(_)) => None,
            };
            let Some(least) = least else {
                // One bad row must not undo the other writes of the round.
                let reason = "a sequence number that has no successor".to_owned();
                return Ok(Done::Sequence(Err(StoreError::Damaged(reason))));
            };
            let seq = least.max(*now_ms);
            table.insert(key.as_slice(), seq.to_be_bytes().as_slice())?;
            Ok(Done::Sequence(Ok(seq)))
        }
    }
}

/// The first key after all that begin with `prefix`; `None` when there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    Some(end)
}
