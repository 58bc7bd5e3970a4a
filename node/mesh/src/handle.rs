//! The side of the mesh that the rest of the node holds.

use std::sync::Arc;
use std::time::Duration;

use homehost_protocol::NodeId;
use homehost_protocol::gossip::Topic;
use homehost_protocol::limits::GOSSIP_BYTES_MAX;
use homehost_protocol::rpc::{Request, Response};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{GossipToken, GossipVerdict, MeshStatus, ReplyToken};

/// Longest wait for the answer to a request: a page of 128 KiB over a slow
/// home uplink takes about two seconds, and a busy peer gets some patience.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked of the actor.
#[derive(Debug)]
pub(crate) enum Command {
    Publish {
        topic: Topic,
        message: Vec<u8>,
        reply: oneshot::Sender<Result<Published, PublishError>>,
    },
    Judge {
        token: GossipToken,
        verdict: GossipVerdict,
    },
    Request {
        to: NodeId,
        request: Request,
        reply: oneshot::Sender<Result<Response, RequestError>>,
    },
    Respond {
        reply: ReplyToken,
        response: Response,
    },
}

/// How far a published message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is on its way to some peers.
    Sent,
    /// Nobody takes this topic at the moment. Publish again after
    /// [`GossipJoined`](crate::MeshEvent::GossipJoined).
    NoPeers,
    /// The same bytes were published or heard within the last minutes.
    Duplicate,
}

/// Why a message was not published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// More bytes than a message may have. Trying again is useless.
    #[error("message of {0} bytes is longer than {GOSSIP_BYTES_MAX}")]
    TooLong(usize),
    /// A bootstrap node has no gossip. Trying again is useless.
    #[error("this node does not take part in gossip")]
    Role,
    /// Every peer's send queue is full. Try again in a second.
    #[error("all send queues are full")]
    Congested,
    /// The mesh has stopped.
    #[error("the mesh has stopped")]
    Stopped,
}

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The peer is not connected.
    #[error("{0} is not connected")]
    NotConnected(NodeId),
    /// The peer does not answer the directory RPC, or we do not speak it.
    #[error("the directory RPC is not spoken")]
    Unsupported,
    /// The peer refused to answer, went away, or answered with other bytes
    /// than a response.
    #[error("no usable answer: {0}")]
    Refused(String),
    /// No answer within ten seconds.
    #[error("no answer within {} seconds", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// Too many requests of ours are under way. Try again in a second.
    #[error("too many requests are under way")]
    Busy,
    /// The mesh has stopped.
    #[error("the mesh has stopped")]
    Stopped,
}

/// A cheap copy of the way to the mesh.
#[derive(Clone, Debug)]
pub struct MeshHandle {
    pub(crate) node: NodeId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) status: watch::Receiver<Arc<MeshStatus>>,
}

impl MeshHandle {
    /// Our own id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the mesh looks like, a tenth of a second old at most; with hundreds
    /// of peers, some seconds.
    pub fn status(&self) -> watch::Receiver<Arc<MeshStatus>> {
        self.status.clone()
    }

    /// Sends a batch of envelopes to all who take the topic.
    ///
    /// # Errors
    /// See [`PublishError`]; to have no peer is no error.
    ///
    /// # Cancel safety
    /// When dropped, the message may or may not be published.
    pub async fn publish(&self, topic: Topic, message: Vec<u8>) -> Result<Published, PublishError> {
        if message.len() > GOSSIP_BYTES_MAX {
            return Err(PublishError::TooLong(message.len()));
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { topic, message, reply };
        self.commands.send(command).await.map_err(|_| PublishError::Stopped)?;
        answer.await.unwrap_or(Err(PublishError::Stopped))
    }

    /// Says what becomes of a gossip message. A message that is not judged is
    /// not forwarded.
    pub async fn judge(&self, token: GossipToken, verdict: GossipVerdict) {
        // A mesh that has stopped forwards nothing.
        let _ = self.commands.send(Command::Judge { token, verdict }).await;
    }

    /// Asks a connected peer.
    ///
    /// # Errors
    /// See [`RequestError`]; it takes at most ten seconds.
    ///
    /// # Cancel safety
    /// When dropped, the question may have been asked; the answer is lost.
    pub async fn request(&self, to: NodeId, request: Request) -> Result<Response, RequestError> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            let command = Command::Request { to, request, reply };
            self.commands.send(command).await.map_err(|_| RequestError::Stopped)?;
            answer.await.unwrap_or(Err(RequestError::Stopped))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, ask).await.unwrap_or(Err(RequestError::Timeout))
    }

    /// Answers a request. A response of more than
    /// [`RPC_RESPONSE_BYTES_MAX`](homehost_protocol::limits::RPC_RESPONSE_BYTES_MAX)
    /// is not sent.
    pub async fn respond(&self, reply: ReplyToken, response: Response) {
        // A mesh that has stopped answers nobody.
        let _ = self.commands.send(Command::Respond { reply, response }).await;
    }
}
