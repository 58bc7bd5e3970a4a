//! What every long-lived part of a node stands on: wall clock, named and
//! supervised tasks, shutdown in two stages, backoff, files that a crash leaves
//! whole and others cannot read, and UDP sockets that nobody can deafen.
//!
//! It knows nothing of games or meshes and never decides what a failure means
//! to a person; it only sees to it that no task ends unseen.

mod backoff;
mod clock;
pub mod files;
#[cfg(unix)]
mod open_files;
#[cfg(windows)]
mod owner_only;
mod shutdown;
mod tasks;
pub mod terminal;
pub mod udp;

pub use backoff::Backoff;
pub use clock::wall_ms;
#[cfg(unix)]
pub use open_files::make_room_for_files;
#[cfg(windows)]
pub use owner_only::OwnerOnly;
pub use shutdown::{Shutdown, ShutdownHandle};
pub use tasks::{TaskFailure, Tasks};
