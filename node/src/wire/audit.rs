//! Who did what, and the receipts that make a repeated request harmless.
//!
//! An entry is on disk before its action begins, so that no action is without
//! one; the outcome is added when it is known.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use homehost_api::{Action, ActionRequest, ApiError, ErrorKind, Principal, Receipt};
use homehost_protocol::UnixMillis;
use homehost_runtime::wall_ms;
use homehost_store::{Batch, Ledger, StoreError, Table};
use serde::{Deserialize, Serialize};

/// Longest key of a request.
const KEY_CHARS_MAX: usize = 64;

/// Entries and receipts kept; a host acts a few times a day.
const KEPT: usize = 10_000;

/// An entry of the audit log.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    at: String,
    by: Principal,
    action: Action,
    /// `begun`, `done`, or what went wrong.
    outcome: String,
}

/// A receipt and the request that it answers.
#[derive(Debug, Serialize, Deserialize)]
struct StoredReceipt {
    action: Action,
    receipt: Receipt,
}

/// The audit log.
#[derive(Clone)]
pub(crate) struct Audit {
    ledger: Ledger,
    under_way: Arc<Mutex<BTreeSet<String>>>,
}

/// A key that is in use until this is dropped.
pub(crate) struct KeyHeld {
    key: String,
    under_way: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for KeyHeld {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// What to do with a request.
pub(crate) enum Begun {
    /// It was done before: this is its receipt.
    Before(Box<Receipt>),
    /// It is new.
    New { id: u64, held: Option<KeyHeld> },
}

impl Audit {
    /// Opens the log and forgets what is older than anybody asks for.
    pub(crate) async fn open(ledger: Ledger) -> Result<Self, StoreError> {
        for table in [Table::Audit, Table::Receipts] {
            let rows = ledger.scan(table, b"", 2 * KEPT).await?;
            let over = rows.len().saturating_sub(KEPT);
            let old = rows.into_iter().take(over);
            let batch = old.fold(Batch::new(), |batch, (key, _)| batch.delete(table, key));
            if !batch.is_empty() {
                ledger.commit(batch).await?;
            }
        }
        Ok(Self { ledger, under_way: Arc::default() })
    }

    /// Enters an action before it is done.
    pub(crate) async fn begin(
        &self,
        request: &ActionRequest,
        by: &Principal,
    ) -> Result<Begun, ApiError> {
        let held = match &request.key {
            None => None,
            Some(key) => {
                let held = self.hold(key)?;
                if let Some(receipt) = self.receipt(key, &request.action).await? {
                    return Ok(Begun::Before(Box::new(receipt)));
                }
                Some(held)
            }
        };
        match self.enter(&request.action, by).await {
            Ok(id) => Ok(Begun::New { id, held }),
            // A full disk must not keep a game from being stopped.
            Err(error) if always_allowed(&request.action) => {
                tracing::error!("failed to enter an action into the audit log: {error}");
                Ok(Begun::New { id: 0, held })
            }
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Adds the outcome; with a key, also the receipt.
    pub(crate) async fn end(
        &self,
        request: ActionRequest,
        by: Principal,
        id: u64,
        result: &Result<Receipt, ApiError>,
    ) {
        if id == 0 {
            return;
        }
        let outcome = match result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.message.clone(),
        };
        let entry = Entry { at: now(), by, action: request.action.clone(), outcome };
        let mut batch = Batch::new().put(Table::Audit, id.to_be_bytes(), json(&entry));
        if let (Some(key), Ok(receipt)) = (request.key, result) {
            let stored = StoredReceipt { action: request.action, receipt: receipt.clone() };
            batch = batch.put(Table::Receipts, key, json(&stored));
        }
        if let Err(error) = self.ledger.commit(batch).await {
            tracing::error!("failed to enter an outcome into the audit log: {error}");
        }
    }

    async fn enter(&self, action: &Action, by: &Principal) -> Result<u64, StoreError> {
        let id = self.ledger.next_seq(b"audit", 1).await?;
        let entry =
            Entry { at: now(), by: by.clone(), action: action.clone(), outcome: "begun".into() };
        self.ledger.commit(Batch::new().put(Table::Audit, id.to_be_bytes(), json(&entry))).await?;
        Ok(id)
    }

    fn hold(&self, key: &str) -> Result<KeyHeld, ApiError> {
        if key.is_empty() || key.chars().count() > KEY_CHARS_MAX {
            let text = format!("a request key has 1 to {KEY_CHARS_MAX} characters");
            return Err(ApiError::new(ErrorKind::Usage, text));
        }
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if !under_way.insert(key.to_owned()) {
            let text = "a request with this key is under way: wait for its receipt";
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        Ok(KeyHeld { key: key.to_owned(), under_way: self.under_way.clone() })
    }

    async fn receipt(&self, key: &str, action: &Action) -> Result<Option<Receipt>, ApiError> {
        let stored = self.ledger.get(Table::Receipts, key.as_bytes()).await;
        let Some(bytes) = stored.map_err(|error| store_error(&error))? else { return Ok(None) };
        let Ok(stored) = serde_json::from_slice::<StoredReceipt>(&bytes) else { return Ok(None) };
        if stored.action != *action {
            let text = "this request key was used for another action: choose another key";
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        Ok(Some(stored.receipt))
    }
}

/// What a person must always be able to do.
fn always_allowed(action: &Action) -> bool {
    matches!(
        action,
        Action::ServerStop { .. } | Action::ServerKill { .. } | Action::NodeStop { .. }
    )
}

pub(crate) fn now() -> String {
    UnixMillis(wall_ms()).to_string()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data encodes into memory")
}

/// A store's error in the words of the API.
pub(crate) fn store_error(error: &StoreError) -> ApiError {
    let kind = match error {
        StoreError::Denied => ErrorKind::Denied,
        _ => ErrorKind::Internal,
    };
    ApiError::new(kind, error.to_string())
}
