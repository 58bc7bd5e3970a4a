//! What every long-lived part of a node stands on: wall clock, named and
//! supervised tasks, shutdown in two stages, backoff, and files that a crash
//! leaves whole.
//!
//! It knows nothing of games or meshes and never decides what a failure means
//! to a person; it only sees to it that no task ends unseen.

mod backoff;
mod clock;
pub mod files;
mod shutdown;
mod tasks;

pub use backoff::Backoff;
pub use clock::wall_ms;
pub use shutdown::{Shutdown, ShutdownHandle};
pub use tasks::{TaskFailure, Tasks};
