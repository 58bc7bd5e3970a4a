//! Versions of what is said between nodes.
//!
//! **1** (0.1.0). Records in a libp2p signed envelope with the domain
//! `homehost-rec/1`, payload in deterministic CBOR with integer keys; gossip
//! batches of one root; the directory RPC with `query`, `get`, `offer`,
//! `reconcile`, `records` and `chains`; the witness RPC. How it may grow is in
//! spec/records §13 and spec/mesh §11.

/// Version in the header of every record (spec/records §4).
pub const RECORD_VERSION: u8 = 1;

/// Domain of every record's signature (spec/records §3).
pub const RECORD_DOMAIN: &str = "homehost-rec/1";
