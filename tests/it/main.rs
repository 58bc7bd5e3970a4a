//! Whole nodes as real processes, on loopback, with nothing besides cargo.

mod cli;
mod config;
mod daemon;
mod demo;
mod directory;
mod doctor;
mod faults;
mod fences;
mod home;
mod http;
mod identity;
mod invite;
mod lifecycle;
mod mesh;
#[cfg(target_os = "linux")]
mod phrase;
mod restart;
mod servers;
mod visibility;
mod words;
