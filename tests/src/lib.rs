//! The harness of the tests that run whole nodes as real processes.
//!
//! A [`Test`] owns a temporary folder, a network name of its own and a folder
//! for logs; [`Node`] and [`Bootstrap`] are processes in it. Everything that a
//! test started is ended when it ends, also by a panic; its logs are kept when
//! it failed. All sockets are on loopback, on ports that the system chose, or in
//! network namespaces that the test made.

mod binaries;
mod bootstrap;
mod command;
mod fast_clock;
mod http;
mod namespace;
mod node;
mod place;
mod poll;
pub mod process;
#[cfg(target_os = "linux")]
mod terminal;
mod test;
mod wine;

pub use binaries::{source_dir, target_dir};
pub use bootstrap::Bootstrap;
pub use command::{Answer, Lines, run};
pub use fast_clock::FastClock;
pub use http::{Events, Response, exchange};
pub use namespace::Namespace;
pub use node::{Game, Node};
pub use place::Place;
pub use poll::eventually;
#[cfg(target_os = "linux")]
pub use terminal::Terminal;
pub use test::Test;
pub use wine::{unix_path, windows_path};
