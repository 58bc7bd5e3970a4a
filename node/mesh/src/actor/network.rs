//! This node's own place in the network (spec/mesh §12).

use libp2p::dcutr;

use super::Actor;
use crate::scope;
use crate::{AddressSource, AddressState, NetworkFacts, OwnAddress};

impl Actor {
    /// For the status.
    pub(super) fn network_facts(&self) -> NetworkFacts {
        let own = |(address, source)| OwnAddress {
            address,
            source,
            state: AddressState::Unknown,
            voices: 0,
            at: None,
        };
        let listens = self.swarm.listeners().filter(|at| !scope::is_relayed(at));
        let addresses = listens.cloned().map(|at| own((at, AddressSource::Listen)));
        NetworkFacts { addresses: addresses.collect(), ..NetworkFacts::default() }
    }

    /// A relayed connection was made direct, or could not be.
    pub(super) fn on_dcutr(&mut self, event: dcutr::Event) {
        match event.result {
            Ok(connection) => self.peers.punched(&event.remote_peer_id, connection),
            Err(error) => {
                tracing::debug!(peer = %event.remote_peer_id, %error, "no direct connection");
            }
        }
        self.status_changed = true;
    }
}
