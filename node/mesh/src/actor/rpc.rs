//! Questions and answers of the directory RPC (spec/mesh §4).

use std::time::Instant;

use homehost_protocol::rpc::{Request, Response};
use homehost_protocol::{NodeId, Scope};
use libp2p::request_response::{self, InboundFailure, Message, OutboundFailure};
use tokio::sync::oneshot;

use super::Actor;
use crate::metrics::RpcRefusal;
use crate::node_id::{node_of, peer_of};
use crate::token_bucket::{Budgets, Rate};
use crate::{MeshEvent, ReplyToken, RequestError};

/// Requests of one peer: a new node that copies a replica asks for some two
/// hundred pages, and may take two minutes over it.
const RATE: Rate = Rate { per_second: 2.0, burst: 16.0 };

/// Peers whose budget is remembered, also across connections. More than can be
/// connected at once.
const BUDGETS_MAX: usize = 1024;

/// Our own requests under way. Reconciliation needs one per peer.
const REQUESTS_MAX: usize = 256;

type Event = request_response::Event<Request, Response>;

pub(super) fn budgets() -> Budgets<NodeId> {
    Budgets::new(RATE, BUDGETS_MAX)
}

impl Actor {
    pub(super) fn ask(
        &mut self,
        to: NodeId,
        request: Request,
        reply: oneshot::Sender<Result<Response, RequestError>>,
    ) {
        // Whoever gave up waiting is not asked for.
        self.requests.retain(|_, waiting| !waiting.is_closed());
        let refusal = match peer_of(to).filter(|peer| self.peers.is_connected(peer)) {
            None => RequestError::NotConnected(to),
            Some(_) if self.requests.len() >= REQUESTS_MAX => RequestError::Busy,
            Some(peer) => match self.swarm.behaviour_mut().directory.as_mut() {
                Some(directory) => {
                    let id = directory.send_request(&peer, request);
                    self.requests.insert(id, reply);
                    return;
                }
                None => RequestError::Unsupported,
            },
        };
        // It may have gone meanwhile.
        let _ = reply.send(Err(refusal));
    }

    pub(super) fn respond(&mut self, reply: ReplyToken, response: Response) {
        let Some(directory) = self.swarm.behaviour_mut().directory.as_mut() else { return };
        if directory.send_response(reply.channel, response).is_err() {
            tracing::debug!("the answer came too late");
        }
    }

    pub(super) fn on_directory(&mut self, event: Event) {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request { request, channel, .. } => {
                    let scope = self.peers.scope(&peer);
                    let on_link = matches!(scope, Some(Scope::Loopback | Scope::OnLink));
                    let Some(from) = node_of(&peer) else { return };
                    let reply = ReplyToken { channel };
                    self.on_request(MeshEvent::Request { from, on_link, request, reply }, from);
                }
                Message::Response { request_id, response } => {
                    if let Some(reply) = self.requests.remove(&request_id) {
                        let _ = reply.send(Ok(response));
                    }
                }
            },
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some(reply) = self.requests.remove(&request_id) {
                    let _ = reply.send(Err(why(&error)));
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request was not answered");
                let malformed = matches!(&error, InboundFailure::Io(io)
                    if io.kind() == std::io::ErrorKind::InvalidData);
                // Dropping the channel was our own doing, and is counted there.
                if !matches!(error, InboundFailure::ResponseOmission) {
                    self.metrics.rpc_refused(if malformed {
                        RpcRefusal::Malformed
                    } else {
                        RpcRefusal::Unanswered
                    });
                }
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// Passes a request on, or refuses it by dropping its channel.
    fn on_request(&mut self, event: MeshEvent, from: NodeId) {
        if !self.budgets.take(from, Instant::now()) {
            self.metrics.rpc_refused(RpcRefusal::Budget);
        } else if self.outbox.offer(event).is_err() {
            self.metrics.rpc_refused(RpcRefusal::Busy);
        }
    }
}

fn why(error: &OutboundFailure) -> RequestError {
    match error {
        OutboundFailure::Timeout => RequestError::Timeout,
        OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
        OutboundFailure::DialFailure
        | OutboundFailure::ConnectionClosed
        | OutboundFailure::Io(_) => RequestError::Refused(error.to_string()),
    }
}
