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

/// Entries kept, and the receipts that belong to them; a host acts a few times a
/// day.
const KEPT: u64 = 10_000;

/// An entry of the audit log.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    at: String,
    by: Principal,
    action: Action,
    /// The caller's key.
    key: Option<String>,
    /// `begun`, `done`, or what went wrong.
    outcome: String,
}

/// What is known of a request with a key.
#[derive(Debug, Serialize, Deserialize)]
struct KnownRequest {
    /// Its entry.
    id: u64,
    /// Digest of the action, which may hold a password.
    action: String,
    /// Present once it is done.
    receipt: Option<Receipt>,
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
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger, under_way: Arc::default() }
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
        match self.enter(request, by).await {
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
        let digest = digest(&request.action);
        let key = request.key.clone();
        let entry =
            Entry { at: now(), by, action: redacted(request.action), key: request.key, outcome };
        let mut batch = Batch::new().put(Table::Audit, id.to_be_bytes(), json(&entry));
        batch = match (key, result) {
            (Some(key), Ok(receipt)) => {
                let known = KnownRequest { id, action: digest, receipt: Some(receipt.clone()) };
                batch.put(Table::Receipts, key, json(&known))
            }
            // It may be tried again with the same key.
            (Some(key), Err(_)) => batch.delete(Table::Receipts, key),
            (None, _) => batch,
        };
        if let Err(error) = self.ledger.commit(batch).await {
            tracing::error!("failed to enter an outcome into the audit log: {error}");
        }
    }

    /// Enters an action with its key, and lets go of what is too old.
    async fn enter(&self, request: &ActionRequest, by: &Principal) -> Result<u64, StoreError> {
        let id = self.ledger.next_seq(b"audit", 1).await?;
        let entry = Entry {
            at: now(),
            by: by.clone(),
            action: redacted(request.action.clone()),
            key: request.key.clone(),
            outcome: "begun".into(),
        };
        let mut batch = Batch::new().put(Table::Audit, id.to_be_bytes(), json(&entry));
        if let Some(key) = &request.key {
            let known = KnownRequest { id, action: digest(&request.action), receipt: None };
            batch = batch.put(Table::Receipts, key.as_bytes(), json(&known));
        }
        if let Some(old) = id.checked_sub(KEPT) {
            batch = self.forget(old, batch).await?;
        }
        self.ledger.commit(batch).await?;
        Ok(id)
    }

    /// Ids have no gaps, so one entry in lets one out.
    async fn forget(&self, id: u64, batch: Batch) -> Result<Batch, StoreError> {
        let Some(entry) = self.ledger.get(Table::Audit, &id.to_be_bytes()).await? else {
            return Ok(batch);
        };
        let batch = batch.delete(Table::Audit, id.to_be_bytes());
        let Some(key) = serde_json::from_slice::<Entry>(&entry).ok().and_then(|entry| entry.key)
        else {
            return Ok(batch);
        };
        let known = self.ledger.get(Table::Receipts, key.as_bytes()).await?;
        let known = known.and_then(|bytes| serde_json::from_slice::<KnownRequest>(&bytes).ok());
        // The key may have been used again since.
        let same = known.is_none_or(|known| known.id == id);
        Ok(if same { batch.delete(Table::Receipts, key) } else { batch })
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
        let Ok(known) = serde_json::from_slice::<KnownRequest>(&bytes) else { return Ok(None) };
        if known.action != digest(action) {
            let text = "this request key was used for another action: choose another key";
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        known.receipt.map(Some).ok_or_else(|| {
            let text = "a request with this key was begun and cut off: look at what it did, \
                        then ask with another key";
            ApiError::new(ErrorKind::Conflict, text)
        })
    }
}

/// What is typed into a console may be a password.
fn redacted(action: Action) -> Action {
    match action {
        Action::ServerInput { server, .. } => Action::ServerInput { server, line: "…".into() },
        other => other,
    }
}

fn digest(action: &Action) -> String {
    blake3::hash(&json(action)).to_hex().to_string()
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
    ApiError::new(kind, crate::exit::with_causes(error))
}
