//! The replicated directory: which servers exist, who says so, and which of
//! them are alive.
//!
//! [`core`] is the rules without I/O: one admission path for every way in, the
//! replica, presence and staleness, search. [`publisher`] is the other half:
//! when this node speaks of its own servers. [`DirectoryHandle`] runs the core
//! in a task of its own and keeps the rows on disk through [`port::ReplicaStore`].
//! The directory never talks to a peer itself; it says what should be fetched.

mod actor;
pub mod core;
pub mod fetched;
pub mod port;
pub mod proof;
pub mod publisher;
pub mod reconcile;
pub mod search;
pub mod truth;

pub use actor::{
    Admitted, DirectoryClosed, DirectoryHandle, Heard, RowChange, SearchError, SharedChains, start,
};
pub use core::{
    Admission, Directory, Judgement, Loaded, Moment, Net, Refusal, RowReach, RowStatus, RowView,
    Source, Stats, net_of,
};
pub use search::{Cursor, CursorError, Page, Query, Sort};
