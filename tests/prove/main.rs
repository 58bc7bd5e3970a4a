//! What the mesh costs and what it bears: whole nodes, measured.
//!
//! A small flood runs with all other tests. The long forms are ignored there;
//! `cargo xtask prove` runs them on release builds, and each prints a table of
//! figures and goals. A missed goal is said and fails nothing, as figures are
//! of one machine at one time; a broken promise — an honest row that is lost, a
//! key that signs after its end — fails.

#![cfg(target_os = "linux")]

mod author;
mod bootstrap;
mod flood;
mod mesh;
mod peer;
mod table;
#[path = "../it/words.rs"]
mod words;
