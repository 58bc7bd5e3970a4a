//! How the remembered peers lie on disk: JSON, written whole, read with suspicion.
//!
//! Fields that a reader does not know are passed over, and a row that makes no
//! sense to it is left out, so that versions may differ.

use std::time::Duration;

use homehost_protocol::{NetworkName, NodeId};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{FAILURES_MAX, Known, Now, PeerCache, STAYED_MOST, fit};
use crate::Role;

/// Longest file that is read: four times what is ever written.
const BYTES_MAX: usize = 256 * 1024;

/// Why remembered peers could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// More than is ever written.
    #[error("it has {0} bytes, more than {BYTES_MAX}")]
    TooLong(usize),
    /// No such file.
    #[error("it is not what homehost writes")]
    Nonsense(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct File {
    network: String,
    peers: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    node: String,
    addresses: Vec<String>,
    role: String,
    seen_ms: u64,
    stayed_s: u64,
    #[serde(default)]
    failures: u8,
    #[serde(default)]
    failed_ms: u64,
}

impl PeerCache {
    /// All that is to be kept, those who are there counted until now.
    pub(crate) fn encode(&mut self, network: &NetworkName, now: Now) -> Vec<u8> {
        self.count_all(now);
        self.save_at = None;
        let row = |(node, known): (&NodeId, &Known)| Row {
            node: node.to_string(),
            addresses: known.addresses.iter().map(ToString::to_string).collect(),
            role: known.role.to_string(),
            seen_ms: known.seen_ms,
            stayed_s: known.stayed.as_secs(),
            failures: known.failures,
            failed_ms: known.failed_ms,
        };
        let file =
            File { network: network.to_string(), peers: self.peers.iter().map(row).collect() };
        serde_json::to_vec(&file).unwrap_or_default()
    }

    /// Remembers those of a file again, as far as they fit; nobody of a file of
    /// another network. A peer at addresses that it could not have come with,
    /// or of a time to come, is not believed.
    ///
    /// # Errors
    /// See [`ReadError`]; nobody is remembered then.
    pub(crate) fn decode(
        &mut self,
        bytes: &[u8],
        network: &NetworkName,
        now: Now,
    ) -> Result<(), ReadError> {
        if bytes.len() > BYTES_MAX {
            return Err(ReadError::TooLong(bytes.len()));
        }
        let file: File = serde_json::from_slice(bytes)?;
        if file.network != network.as_str() {
            return Ok(());
        }
        let mut rows: Vec<_> = file.peers.iter().filter_map(|row| row.read(now)).collect();
        rows.sort_by_key(|(_, known)| std::cmp::Reverse(known.rank()));
        for (node, known) in rows {
            if node != self.own && !self.peers.contains_key(&node) && self.make_room(&known) {
                self.peers.insert(node, known);
            }
        }
        Ok(())
    }
}

impl Row {
    fn read(&self, now: Now) -> Option<(NodeId, Known)> {
        let node: NodeId = self.node.parse().ok()?;
        crate::node_id::peer_of(node)?;
        let addresses: Vec<Multiaddr> =
            self.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let addresses = fit(&addresses);
        let role =
            [Role::Host, Role::Bootstrap].into_iter().find(|r| r.to_string() == self.role)?;
        let mut known = Known::new(addresses, role, self.seen_ms.min(now.wall_ms))?;
        known.stayed = Duration::from_secs(self.stayed_s).min(STAYED_MOST);
        known.failures = self.failures.min(FAILURES_MAX - 1);
        known.failed_ms = self.failed_ms.min(now.wall_ms);
        Some((node, known))
    }
}
