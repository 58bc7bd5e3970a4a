//! Questions and answers of the directory RPC (spec/mesh §4).

use std::time::Instant;

use homehost_protocol::rpc::{Request, Response};
use homehost_protocol::{NodeId, Scope};
use libp2p::PeerId;
use libp2p::request_response::{self, InboundFailure, InboundRequestId, Message, OutboundFailure};
use tokio::sync::oneshot;

use super::Actor;
use crate::codec::{Asked, Door};
use crate::metrics::{Rpc, RpcRefusal};
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

type Event = request_response::Event<Asked, Response>;

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
            Some(peer) => {
                let directory = &mut self.swarm.behaviour_mut().directory;
                let id = directory.send_request(&peer, Asked::ours(request));
                self.requests.insert(id, reply);
                return;
            }
        };
        // It may have gone meanwhile.
        let _ = reply.send(Err(refusal));
    }

    pub(super) fn respond(&mut self, reply: ReplyToken, response: Response) {
        let directory = &mut self.swarm.behaviour_mut().directory;
        if directory.send_response(reply.channel, response).is_err() {
            tracing::debug!("the answer came too late");
        }
    }

    pub(super) fn on_directory(&mut self, event: Event) {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request { request_id, request, channel } => {
                    self.on_request(peer, request_id, request, ReplyToken { channel });
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
            Event::InboundFailure { peer, request_id, error, .. } => {
                self.unread.end(&request_id);
                tracing::debug!(%peer, %error, "a request was not answered");
                self.not_answered(Rpc::Directory, &error);
            }
            Event::ResponseSent { request_id, .. } => self.unread.end(&request_id),
        }
    }

    /// An inbound request came to nothing.
    pub(super) fn not_answered(&self, rpc: Rpc, error: &InboundFailure) {
        let malformed = matches!(error, InboundFailure::Io(io)
            if io.kind() == std::io::ErrorKind::InvalidData);
        // Dropping the channel was our own doing, and is counted there.
        if !matches!(error, InboundFailure::ResponseOmission) {
            let refusal = if malformed { RpcRefusal::Malformed } else { RpcRefusal::Unanswered };
            self.metrics.rpc_refused(rpc, refusal);
        }
    }

    /// Passes a request on, or refuses it by dropping its channel.
    fn on_request(&mut self, peer: PeerId, id: InboundRequestId, asked: Asked, reply: ReplyToken) {
        let Some(from) = node_of(&peer) else { return };
        let Asked { request, door } = asked;
        let client = door == Door::Query;
        let (rpc, within_budget) = if client {
            (Rpc::Query, self.client_asks(&peer, from))
        } else if self.clients.contains(&peer) {
            return self.metrics.rpc_refused(Rpc::Directory, RpcRefusal::Stranger);
        } else {
            (Rpc::Directory, self.budgets.take(from, Instant::now()))
        };
        if !within_budget {
            return self.metrics.rpc_refused(rpc, RpcRefusal::Budget);
        }
        if !self.unread.begin(id, peer, self.backlog.of(&peer)) {
            return self.metrics.rpc_refused(rpc, RpcRefusal::Unread);
        }
        let on_link = matches!(self.peers.scope(&peer), Some(Scope::Loopback | Scope::OnLink));
        let event = MeshEvent::Request { from, client, on_link, request, reply };
        if self.outbox.offer(event).is_err() {
            self.metrics.rpc_refused(rpc, RpcRefusal::Busy);
        }
    }
}

pub(super) fn why(error: &OutboundFailure) -> RequestError {
    match error {
        OutboundFailure::Timeout => RequestError::Timeout,
        OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
        OutboundFailure::DialFailure
        | OutboundFailure::ConnectionClosed
        | OutboundFailure::Io(_) => RequestError::Refused(error.to_string()),
    }
}
