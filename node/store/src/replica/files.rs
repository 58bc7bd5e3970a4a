//! The replica's files: opened, verified, moved aside when they are damaged,
//! written anew when they are bloated.
//!
//! Schema versions: **1** (0.1.0). Bytes to bytes in sled's default tree.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sled::Db;

use homehost_runtime::files::write_private;

use crate::OpenError;
use crate::error::Fault;

/// The schema that this program writes.
pub(super) const VERSION: u32 = 1;

/// The database's folder in the store's folder.
const FOLDER: &str = "replica";
/// Where it is written anew; whole as soon as [`FOLDER`] is gone.
const NEW_FOLDER: &str = "replica.new";
/// The bloated one, on its way out.
const OLD_FOLDER: &str = "replica.old";
/// Damaged ones, with a number; the latest is kept for whoever wants to look.
const DAMAGED_PREFIX: &str = "replica.damaged-";
/// Holds the schema version as text. It is a file and not a row, so that a newer
/// replica can be refused without letting sled write to it.
const SCHEMA_FILE: &str = "SCHEMA";

/// Number of rows at a clean end, as text; there only while the replica is
/// closed. sled drops what it cannot read and says nothing: this tells.
const CLEAN_FILE: &str = "CLEAN";
/// A tree with one row that is written first and never changed: where it is
/// missing, sled has begun anew without saying so.
const SENTINEL: &str = "homehost";

/// sled's page cache: the directory holds all rows in memory anyway.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// A replica is bloated when its files are this many times what they hold…
const BLOAT_FACTOR: u64 = 3;
/// …and longer than this; below it is not worth the writing.
const BLOAT_FLOOR_BYTES: u64 = 16 * 1024 * 1024;

/// sled lets go of its lock a moment after its handle is dropped.
const LOCK_RETRIES: u32 = 40;
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(50);

/// A replica whose rows were all read once.
pub(super) struct Verified {
    pub(super) db: Db,
    pub(super) rows: usize,
    live_bytes: u64,
}

/// What [`open`] found.
pub(super) struct Found {
    /// `None` when not even an empty replica could be opened.
    pub(super) verified: Option<Verified>,
    pub(super) healed: Option<String>,
}

/// Opens the replica in `store`, healing it if it must.
pub(super) fn open(store: &Path) -> Result<Found, OpenError> {
    let path = store.join(FOLDER);
    finish_rewrite(store).map_err(|error| OpenError::io(&path, error))?;
    let reason = match open_sound(&path) {
        Ok(verified) => {
            let verified = rewrite_if_bloated(store, verified)?;
            return Ok(Found { verified: Some(verified), healed: None });
        }
        Err(Stop::Open(error)) => return Err(error),
        Err(Stop::Damaged(reason)) => reason,
    };
    let moved = move_aside(store);
    let fresh = match &moved {
        Ok(_) => open_sound(&path),
        Err(error) => Err(Stop::Damaged(error.to_string())),
    };
    match (moved, fresh) {
        (Ok(aside), Ok(verified)) => Ok(Found {
            verified: Some(verified),
            healed: Some(format!(
                "the replica was damaged ({reason}) and is now {}; a new one fills from the mesh",
                aside.display()
            )),
        }),
        (_, Err(Stop::Open(error @ (OpenError::Full { .. } | OpenError::Denied { .. })))) => {
            Err(error)
        }
        (_, Err(fault)) => Ok(Found {
            verified: None,
            healed: Some(format!(
                "the replica is damaged ({reason}) and cannot be begun anew ({}): until homehost \
                 is restarted, rows are kept in memory only",
                fault.text()
            )),
        }),
        // A replica is not opened when the damaged one could not be moved.
        (Err(error), Ok(_)) => Err(OpenError::io(&path, error)),
    }
}

enum Stop {
    Open(OpenError),
    Damaged(String),
}

impl Stop {
    fn of(path: &Path, fault: Fault) -> Self {
        match fault {
            Fault::Damaged(reason) => Self::Damaged(reason),
            Fault::Other(source) => Self::Damaged(source.to_string()),
            fault @ (Fault::Full | Fault::Denied | Fault::Busy) => {
                Self::Open(OpenError::of(path, fault))
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Open(error) => error.to_string(),
            Self::Damaged(reason) => reason.clone(),
        }
    }
}

/// Opens a replica that is missing or sound.
fn open_sound(path: &Path) -> Result<Verified, Stop> {
    let age = check_schema(path)?;
    let mut retries = LOCK_RETRIES;
    loop {
        match Fault::guard(|| open_sled(path, age)) {
            Ok(verified) => return Ok(verified),
            Err(Fault::Busy) if retries > 0 => {
                retries -= 1;
                std::thread::sleep(LOCK_RETRY_EVERY);
            }
            Err(fault) => return Err(Stop::of(path, fault)),
        }
    }
}

/// Whether there was a replica before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    New,
    Old,
}

/// Says of a replica what [`open`] would refuse, and changes nothing. What it
/// would heal is no error.
pub(super) fn check(store: &Path) -> Result<(), OpenError> {
    let path = store.join(FOLDER);
    match read_schema(&path) {
        Err(Stop::Open(error)) => Err(error),
        Ok(_) | Err(Stop::Damaged(_)) => Ok(()),
    }
}

/// The schema version, of which nobody was newer; none when it is not there.
fn read_schema(path: &Path) -> Result<Option<u32>, Stop> {
    let text = match fs::read(path.join(SCHEMA_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Stop::of(path, Fault::of_io(error))),
    };
    match std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()) {
        Some(found) if found > VERSION => {
            Err(Stop::Open(OpenError::Newer { path: path.to_owned(), found, known: VERSION }))
        }
        Some(found) => Ok(Some(found)),
        None => Err(Stop::Damaged("its schema version is not a number".into())),
    }
}

fn check_schema(path: &Path) -> Result<Age, Stop> {
    let file = path.join(SCHEMA_FILE);
    match read_schema(path)? {
        None => {
            match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
                // It is written before everything else, also when sled is new.
                Ok(true) => Err(Stop::Damaged("it has no schema version".into())),
                _ => fs::create_dir_all(path)
                    .and_then(|()| write_private(&file, format!("{VERSION}\n").as_bytes()))
                    .map(|()| Age::New)
                    .map_err(|error| Stop::of(path, Fault::of_io(error))),
            }
        }
        // Without a database, making it was cut short.
        Some(VERSION) if path.join("db").exists() => Ok(Age::Old),
        Some(VERSION) => Ok(Age::New),
        // An older one would be brought to this version here; there is none yet.
        Some(older) => Err(Stop::Damaged(format!("there never was a schema {older}"))),
    }
}

fn open_sled(path: &Path, age: Age) -> Result<Verified, Fault> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // The replica's thread flushes, and so learns of errors.
        .flush_every_ms(None);
    let db = config.open().map_err(Fault::of_sled)?;
    match age {
        Age::New => {
            db.open_tree(SENTINEL)
                .and_then(|tree| tree.insert(SENTINEL, SENTINEL))
                .and_then(|_| db.flush())
                .map_err(Fault::of_sled)?;
        }
        Age::Old => {
            let named = db.tree_names().iter().any(|name| *name == SENTINEL);
            let row = if named {
                db.open_tree(SENTINEL)
                    .and_then(|tree| tree.get(SENTINEL))
                    .map_err(Fault::of_sled)?
            } else {
                None
            };
            if row.is_none() {
                return Err(Fault::Damaged("nothing of it can be read".into()));
            }
        }
    }
    let (mut rows, mut live_bytes) = (0, 0);
    for row in db.iter() {
        let (key, value) = row.map_err(Fault::of_sled)?;
        rows += 1;
        live_bytes += (key.len() + value.len()) as u64;
    }
    let clean = path.join(CLEAN_FILE);
    match fs::read_to_string(&clean) {
        Ok(text) => {
            let expected: usize = text.trim().parse().unwrap_or(usize::MAX);
            if expected != rows {
                let reason = format!("{rows} rows can be read of {}", text.trim());
                return Err(Fault::Damaged(reason));
            }
            fs::remove_file(&clean).map_err(Fault::of_io)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Fault::of_io(error)),
    }
    Ok(Verified { db, rows, live_bytes })
}

/// Closes a database that was flushed, and notes how many rows it has.
pub(super) fn close(store: &Path, db: Db) {
    let noted = Fault::guard(|| {
        let rows = db.len();
        drop(db);
        fs::write(store.join(FOLDER).join(CLEAN_FILE), format!("{rows}\n")).map_err(Fault::of_io)
    });
    if let Err(fault) = noted {
        tracing::debug!(?fault, "the replica's clean end was not noted");
    }
}

/// Ends a rewrite that a crash cut short.
fn finish_rewrite(store: &Path) -> io::Result<()> {
    let (path, new) = (store.join(FOLDER), store.join(NEW_FOLDER));
    if !path.exists() && new.exists() {
        fs::rename(&new, &path)?;
    }
    remove(&new)?;
    remove(&store.join(OLD_FOLDER))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the rows into a new replica when the old has grown out of proportion:
/// sled itself never gives space back.
fn rewrite_if_bloated(store: &Path, old: Verified) -> Result<Verified, OpenError> {
    let path = store.join(FOLDER);
    let bytes = old.db.size_on_disk().unwrap_or(0);
    if bytes <= BLOAT_FLOOR_BYTES.max(old.live_bytes.saturating_mul(BLOAT_FACTOR)) {
        return Ok(old);
    }
    let new = store.join(NEW_FOLDER);
    let written = open_sound(&new).and_then(|fresh| {
        Fault::guard(|| {
            for row in old.db.iter() {
                let (key, value) = row.map_err(Fault::of_sled)?;
                fresh.db.insert(key, value).map_err(Fault::of_sled)?;
            }
            fresh.db.flush().map_err(Fault::of_sled)?;
            Ok(())
        })
        .map_err(|fault| Stop::of(&new, fault))
    });
    if let Err(stop) = written {
        // There may be no room for both; the bloated one still works.
        tracing::warn!(reason = stop.text(), bytes, "the replica was not rewritten");
        let _ = remove(&new);
        return Ok(old);
    }
    tracing::info!(bytes, live = old.live_bytes, "the replica was bloated and is rewritten");
    drop(old);
    let swapped = rename(&path, &store.join(OLD_FOLDER)).and_then(|()| rename(&new, &path));
    swapped.map_err(|error| OpenError::io(&path, error))?;
    let _ = remove(&store.join(OLD_FOLDER));
    open_sound(&path).map_err(|stop| match stop {
        Stop::Open(error) => error,
        Stop::Damaged(reason) => OpenError::Damaged { path, reason },
    })
}

/// Renames, waiting a little for handles that Windows still holds.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut retries = if cfg!(windows) { LOCK_RETRIES } else { 0 };
    loop {
        match fs::rename(from, to) {
            Err(_) if retries > 0 => {
                retries -= 1;
                std::thread::sleep(LOCK_RETRY_EVERY);
            }
            done => return done,
        }
    }
}

/// Moves the damaged replica aside and removes the one that was there before.
fn move_aside(store: &Path) -> io::Result<PathBuf> {
    let mut before = Vec::new();
    for entry in fs::read_dir(store)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(DAMAGED_PREFIX));
        if let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) {
            before.push(number);
        }
    }
    let number = before.iter().max().map_or(1, |last| last.saturating_add(1));
    let aside = store.join(format!("{DAMAGED_PREFIX}{number}"));
    rename(&store.join(FOLDER), &aside)?;
    for number in before {
        let _ = remove(&store.join(format!("{DAMAGED_PREFIX}{number}")));
    }
    Ok(aside)
}
