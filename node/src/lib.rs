//! The daemon and its command line: the place where all parts of a node meet.
//!
//! [`wire`] joins siblings that do not know each other, [`control`] is the one
//! door for actions and views, [`daemon`] starts and stops everything in order,
//! [`cli`] is a client of the HTTP API like any other.

pub mod cli;
mod config;
mod control;
mod daemon;
mod doctor;
mod exit;
mod identity;
mod log_file;
mod lost;
mod place;
mod run_log;
mod wire;
