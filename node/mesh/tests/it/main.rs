//! Whole meshes in one process: one binary, because linking takes longer than
//! most of the tests.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod attest;
mod clients;
mod dht;
mod loopback;
mod memory;
mod node;
mod px;
mod quic;
mod slow;
