//! A bootstrap node: a mesh node that introduces hosts to one another and holds
//! nothing else.
//!
//! It owns one folder with its key, and prints the address by which hosts find
//! it. It never holds a listing, a game server or a player: the mesh runs in
//! the Bootstrap role, which neither takes gossip nor keeps records. Questions of
//! clients it passes on to hosts.
//!
//! The page for those who run one is `docs/bootstrap.md`.

mod announce;
mod args;
mod control;
mod deny_file;
mod exit;
mod folder;
mod forward;
mod log;
mod monitor;
mod operate;
mod page;
mod run;
mod views;

pub use args::{Args, Command};
pub use exit::{Failure, exit_code};
pub use log::LogFormat;
pub use run::{main, run};
