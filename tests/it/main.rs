//! Whole nodes as real processes, on loopback, with nothing besides cargo.

mod cli;
mod config;
mod demo;
mod directory;
mod doctor;
mod faults;
mod fences;
mod http;
mod identity;
mod invite;
mod lifecycle;
mod mesh;
mod servers;
mod visibility;
