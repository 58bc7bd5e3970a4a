//! What a node keeps on disk, in two halves with the same style of handle.
//!
//! The [`Replica`] holds what the mesh can give back, the [`Ledger`] what only
//! this machine knows; a [`DataDir`] is the folder of both and belongs to one
//! process at a time. Rows are bytes to bytes: this crate never looks into
//! them, and what they mean is the business of their owners.
//!
//! | | replica | ledger |
//! |---|---|---|
//! | engine | sled | redb |
//! | a write is lost by `kill -9` | when it is younger than about a second | never, once acknowledged |
//! | damage | healed: moved aside and begun anew | an error that says what to do |
//! | disk full | rows wait in memory, within a limit | an error; works again once there is room |
//!
//! All blocking work runs on one thread per half.

mod dir;
mod error;
mod ledger;
mod replica;

pub use dir::DataDir;
pub use error::{OpenError, StoreError};
pub use homehost_runtime::files::Access;
pub use ledger::{BATCH_BYTES_MAX, Batch, Ledger, Table};
pub use replica::{Opened, Replica};

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);
