//! The side of the replica that owns the database: what was not yet flushed, and
//! a new start of the database after an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sled::Db;
use tokio::sync::watch;

use super::{Opened, ROW_BYTES_MAX, ROWS_MAX, files};
use crate::error::Fault;
use crate::{OpenError, Row, StoreError};

/// Changes that are kept until they were flushed, so that they can be made again
/// after an error. That many cause a flush of their own; when the disk takes
/// none, further ones are dropped. Some 4 MB of listings.
const UNFLUSHED_MAX: usize = 4096;

/// How often a database that failed is opened anew: a full disk is rarely
/// emptied faster.
const REOPEN_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Engine {
    store: PathBuf,
    /// `None` after an error: sled answers everything with it from then on.
    db: Option<Db>,
    /// Rows in `db`.
    rows: usize,
    /// Changes since the last flush; all are also in `db` while there is one.
    unflushed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Changes that were lost since the database failed.
    dropped: u64,
    /// Whether a row too many was already spoken of.
    told_full: bool,
    last_reopen: Option<Instant>,
    /// Why it cannot be written, while it cannot.
    trouble: watch::Sender<Option<StoreError>>,
}

impl Engine {
    pub(super) fn open(store: &Path) -> Result<(Self, Opened), OpenError> {
        let found = files::open(store)?;
        if let Some(healed) = &found.healed {
            tracing::warn!("{healed}");
        }
        let rows = found.verified.as_ref().map_or(0, |verified| verified.rows);
        let engine = Self {
            store: store.to_owned(),
            db: found.verified.map(|verified| verified.db),
            rows,
            unflushed: BTreeMap::new(),
            dropped: 0,
            told_full: false,
            last_reopen: None,
            trouble: watch::Sender::new(None),
        };
        Ok((engine, Opened { healed: found.healed }))
    }

    /// Why it cannot be written, while it cannot.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<StoreError>> {
        self.trouble.subscribe()
    }

    pub(super) fn change(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        if bytes > ROW_BYTES_MAX {
            tracing::warn!(bytes, most = ROW_BYTES_MAX, "a row too long for the replica");
            return;
        }
        match self.apply(&key, value.as_deref()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(fault) => drop(self.fail(fault)),
        }
        if self.unflushed.len() >= UNFLUSHED_MAX && !self.unflushed.contains_key(&key) {
            if self.db.is_none() {
                self.dropped += 1;
                return;
            }
            self.flush_or_warn();
        }
        self.unflushed.insert(key, value);
    }

    /// Makes a change in the database, if there is one. `Ok(false)` refuses it.
    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, Fault> {
        let Some(db) = &self.db else { return Ok(true) };
        let Some(value) = value else {
            let removed = Fault::guard(|| db.remove(key).map_err(Fault::of_sled))?;
            self.rows -= usize::from(removed.is_some());
            return Ok(true);
        };
        if self.rows >= ROWS_MAX && !Fault::guard(|| db.contains_key(key).map_err(Fault::of_sled))?
        {
            if !std::mem::replace(&mut self.told_full, true) {
                tracing::warn!(rows = self.rows, "the replica is full: new rows are refused");
            }
            return Ok(false);
        }
        let before = Fault::guard(|| db.insert(key, value).map_err(Fault::of_sled))?;
        self.rows += usize::from(before.is_none());
        Ok(true)
    }

    pub(super) fn load_all(&mut self) -> Vec<Row> {
        let mut rows = BTreeMap::new();
        if let Some(db) = &self.db {
            let read = Fault::guard(|| {
                for row in db.iter() {
                    let (key, value) = row.map_err(Fault::of_sled)?;
                    rows.insert(key.to_vec(), value.to_vec());
                }
                Ok(())
            });
            if let Err(fault) = read {
                self.fail(fault);
            }
        }
        if self.db.is_none() {
            for (key, value) in &self.unflushed {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        rows.into_iter().collect()
    }

    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if self.unflushed.is_empty() && self.db.is_some() {
            return Ok(());
        }
        if self.db.is_none() {
            self.reopen()?;
        }
        let Some(db) = &self.db else { return Err(StoreError::Closed) };
        match Fault::guard(|| db.flush().map_err(Fault::of_sled)) {
            Ok(_) => {
                self.unflushed.clear();
                self.trouble.send_if_modified(|trouble| trouble.take().is_some());
                Ok(())
            }
            Err(fault) => Err(self.fail(fault)),
        }
    }

    pub(super) fn flush_or_warn(&mut self) {
        if let Err(error) = self.flush() {
            tracing::debug!(%error, "the replica was not flushed");
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let waited = self.last_reopen.is_none_or(|last| now.duration_since(last) >= REOPEN_EVERY);
        if self.db.is_none() {
            if !waited {
                return;
            }
            self.last_reopen = Some(now);
        }
        self.flush_or_warn();
    }

    /// Flushes, marks the end as clean and closes the database.
    pub(super) fn close(mut self) {
        self.flush_or_warn();
        if self.unflushed.is_empty()
            && let Some(db) = self.db.take()
        {
            files::close(&self.store, db);
        }
    }

    /// Gives the database up until it is opened anew.
    pub(super) fn fail(&mut self, fault: Fault) -> StoreError {
        let error = StoreError::from(fault);
        tracing::warn!(%error, "the replica failed and is opened anew when it can be");
        self.trouble.send_replace(Some(error.clone()));
        let db = self.db.take();
        // sled may panic on its way out after an error.
        let _ = Fault::guard(|| {
            drop(db);
            Ok(())
        });
        error
    }

    /// Opens the database anew and makes the changes that were not flushed.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let found = files::open(&self.store).map_err(|error| match error {
            OpenError::Full { .. } => StoreError::Full,
            OpenError::Denied { .. } => StoreError::Denied,
            other => StoreError::Other(std::sync::Arc::new(other)),
        })?;
        let Some(verified) = found.verified else {
            return Err(StoreError::Damaged(found.healed.unwrap_or_default()));
        };
        if let Some(healed) = found.healed {
            tracing::warn!("{healed}");
        }
        self.db = Some(verified.db);
        self.rows = verified.rows;
        let unflushed = std::mem::take(&mut self.unflushed);
        let applied = unflushed
            .iter()
            .try_for_each(|(key, value)| self.apply(key, value.as_deref()).map(drop));
        self.unflushed = unflushed;
        if let Err(fault) = applied {
            return Err(self.fail(fault));
        }
        let dropped = std::mem::take(&mut self.dropped);
        tracing::info!(dropped, "the replica is written again");
        Ok(())
    }
}
