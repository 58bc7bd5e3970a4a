//! Questions and answers of the witness RPC (spec/mesh §9).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use homehost_protocol::NodeId;
use homehost_protocol::rpc::attest::{
    AttestRequest, AttestResponse, decode_response, encode_response,
};
use libp2p::request_response::{self, Message, OutboundRequestId};
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::{Actor, rpc};
use crate::metrics::{Rpc, RpcRefusal};
use crate::node_id::{node_of, peer_of};
use crate::token_bucket::{Budgets, Rate};
use crate::{AttestToken, MeshEvent, RequestError, scope};

/// Requests of one peer: all servers of a home once, then one of them every few
/// seconds.
const RATE: Rate = Rate { per_second: 0.2, burst: 8.0 };

/// Peers whose budget is remembered, also across connections.
const BUDGETS_MAX: usize = 1024;

/// Our own requests under way: seven witnesses for each of some servers.
const REQUESTS_MAX: usize = 64;

type Reply = oneshot::Sender<Result<AttestResponse, RequestError>>;

/// What the actor knows of the witness RPC.
pub(super) struct Attests {
    requests: HashMap<OutboundRequestId, Reply>,
    budgets: Budgets<NodeId>,
}

impl Default for Attests {
    fn default() -> Self {
        Self { requests: HashMap::new(), budgets: Budgets::new(RATE, BUDGETS_MAX) }
    }
}

impl Actor {
    pub(super) fn ask_attest(&mut self, to: NodeId, request: AttestRequest, reply: Reply) {
        // Whoever gave up waiting is not asked for.
        self.attests.requests.retain(|_, waiting| !waiting.is_closed());
        let refusal = match peer_of(to).filter(|peer| self.peers.is_connected(peer)) {
            None => RequestError::NotConnected(to),
            Some(_) if self.attests.requests.len() >= REQUESTS_MAX => RequestError::Busy,
            Some(peer) => match self.swarm.behaviour_mut().attest.as_mut() {
                Some(attest) => {
                    let id = attest.send_request(&peer, request);
                    self.attests.requests.insert(id, reply);
                    return;
                }
                None => RequestError::Unsupported,
            },
        };
        // It may have gone meanwhile.
        let _ = reply.send(Err(refusal));
    }

    pub(super) fn respond_attest(&mut self, reply: AttestToken, response: &AttestResponse) {
        let Some(attest) = self.swarm.behaviour_mut().attest.as_mut() else { return };
        let bytes = encode_response(&reply.request, response);
        if attest.send_response(reply.channel, bytes).is_err() {
            tracing::debug!("the statement came too late");
        }
    }

    pub(super) fn on_attest(&mut self, event: request_response::Event<AttestRequest, Vec<u8>>) {
        use request_response::Event;
        match event {
            Event::Message { peer, connection_id, message } => match message {
                Message::Request { request, channel, .. } => {
                    let reply = AttestToken { channel, request: request.clone() };
                    self.on_attest_request(peer, connection_id, request, reply);
                }
                Message::Response { request_id, response } => {
                    if let Some(reply) = self.attests.requests.remove(&request_id) {
                        let response = decode_response(&response)
                            .map_err(|error| RequestError::Refused(error.to_string()));
                        let _ = reply.send(response);
                    }
                }
            },
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some(reply) = self.attests.requests.remove(&request_id) {
                    let _ = reply.send(Err(rpc::why(&error)));
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request to a witness was not answered");
                self.not_answered(Rpc::Attest, &error);
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// Passes a request on, or refuses it by dropping its channel.
    fn on_attest_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: AttestRequest,
        reply: AttestToken,
    ) {
        let Some(from) = node_of(&peer).filter(|_| self.peers.has_joined(&peer)) else {
            return self.metrics.rpc_refused(Rpc::Attest, RpcRefusal::Stranger);
        };
        if !self.attests.budgets.take(from, Instant::now()) {
            return self.metrics.rpc_refused(Rpc::Attest, RpcRefusal::Budget);
        }
        let link = self.peers.link(&peer, connection);
        let address = link.and_then(|link| seen_at(&link.address));
        let event = MeshEvent::AttestRequest { from, address, request, reply };
        if self.outbox.offer(event).is_err() {
            self.metrics.rpc_refused(Rpc::Attest, RpcRefusal::Busy);
        }
    }
}

/// The address at the far end of a direct connection.
fn seen_at(address: &Multiaddr) -> Option<IpAddr> {
    scope::ip_of(address).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_far_end_of_a_direct_connection_is_an_address() {
        for (address, expected) in [
            ("/ip4/8.8.8.8/tcp/1", Some("8.8.8.8")),
            ("/ip6/::ffff:8.8.8.8/udp/1/quic-v1", Some("8.8.8.8")),
            ("/ip4/8.8.8.8/tcp/1/p2p-circuit", None),
            ("/dns4/example.org/tcp/1", None),
        ] {
            let seen = seen_at(&address.parse().unwrap());
            assert_eq!(seen, expected.map(|ip| ip.parse().unwrap()), "{address}");
        }
    }
}
