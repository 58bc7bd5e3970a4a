//! What is relayed for others (spec/mesh §13).

use std::collections::HashSet;

use libp2p::PeerId;
use libp2p::relay::Event;

use super::Actor;

/// Who may be reached through this node; bounded by the relay's limits.
#[derive(Debug, Default)]
pub(super) struct Reservations(HashSet<PeerId>);

impl Actor {
    pub(super) fn on_relay(&mut self, event: Event) {
        match event {
            Event::ReservationReqAccepted { src_peer_id, .. } => {
                self.reservations.0.insert(src_peer_id);
            }
            // It is said of every connection that ends, with or without one.
            Event::ReservationClosed { src_peer_id }
            | Event::ReservationTimedOut { src_peer_id } => {
                self.reservations.0.remove(&src_peer_id);
            }
            Event::ReservationReqDenied { .. } => self.metrics.relay_refused("reservation"),
            Event::CircuitReqDenied { .. } => self.metrics.relay_refused("circuit"),
            Event::CircuitReqAccepted { .. } => self.metrics.circuits(1),
            Event::CircuitClosed { .. } => self.metrics.circuits(-1),
            event => tracing::debug!(?event, "relay"),
        }
        self.metrics.reservations(self.reservations.0.len());
    }
}
