//! Whole nodes as real processes, on loopback, with nothing besides cargo.

mod cli;
mod daemon;
mod demo;
mod directory;
mod faults;
mod fences;
mod home;
mod http;
mod identity;
mod lifecycle;
mod mesh;
mod restart;
mod servers;
