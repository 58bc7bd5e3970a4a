//! The side of the mesh that the rest of the node holds.

use std::sync::Arc;
use std::time::Duration;

use homehost_protocol::NodeId;
use homehost_protocol::dht::DhtKey;
use homehost_protocol::gossip::Topic;
use homehost_protocol::limits::GOSSIP_BYTES_MAX;
use homehost_protocol::rpc::attest::{AttestRequest, AttestResponse};
use homehost_protocol::rpc::{Request, Response};
use libp2p::Multiaddr;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::actor::DhtCommand;
use crate::deny::DenyList;
use crate::traffic::{MeshTraffic, Traffic};
use crate::{
    AttestToken, DhtAnswer, DhtError, GossipToken, GossipVerdict, MeshStatus, Misdeed, PortWish,
    ReplyToken,
};

/// Longest wait for the answer to a request: a page of 128 KiB over a slow
/// home uplink takes about two seconds, and a busy peer gets some patience.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked of the actor.
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
    Attest {
        to: NodeId,
        request: AttestRequest,
        reply: oneshot::Sender<Result<AttestResponse, RequestError>>,
    },
    RespondAttest {
        reply: AttestToken,
        response: AttestResponse,
    },
    Dht(DhtCommand),
    SetBootstrap(Vec<Multiaddr>),
    Truth {
        node: NodeId,
        truth: f64,
    },
    Blame {
        node: NodeId,
        misdeed: Misdeed,
    },
    Deny(DenyList),
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
    /// The peer does not answer this RPC, or we do not speak it.
    #[error("this RPC is not spoken")]
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
    pub(crate) traffic: Traffic,
    pub(crate) games: watch::Sender<Vec<PortWish>>,
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

    /// How many bytes went over the mesh since the start, and for what.
    pub fn traffic(&self) -> MeshTraffic {
        self.traffic.snapshot()
    }

    /// Which ports of games the router should forward, instead of those said
    /// before; the mesh sees to its own. What came of it is in the status.
    pub fn forward_ports(&self, wishes: Vec<PortWish>) {
        self.games.send_if_modified(|old| {
            let changed = *old != wishes;
            *old = wishes;
            changed
        });
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
        self.ask(|reply| Command::Request { to, request, reply }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Command,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            let command = command(reply);
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

    /// Asks a connected peer to reach one of our servers and to say so.
    ///
    /// # Errors
    /// See [`RequestError`]; it takes at most ten seconds. That the peer makes
    /// no statement is no error but its answer.
    ///
    /// # Cancel safety
    /// When dropped, the peer may have been asked; the answer is lost.
    pub async fn attest(
        &self,
        to: NodeId,
        request: AttestRequest,
    ) -> Result<AttestResponse, RequestError> {
        self.ask(|reply| Command::Attest { to, request, reply }).await
    }

    /// Answers a request to reach a server.
    pub async fn respond_attest(&self, reply: AttestToken, response: AttestResponse) {
        // A mesh that has stopped answers nobody.
        let _ = self.commands.send(Command::RespondAttest { reply, response }).await;
    }

    /// Puts a record into the DHT: here, and at the peers nearest to its key.
    /// Says how many of them took note of it, as far as they said; to have no
    /// peer is no error. That they keep it, only [`Self::dht_get`] shows.
    ///
    /// It is kept for a day and a half at most, by machines that come and go:
    /// put it again every hour.
    ///
    /// # Errors
    /// See [`DhtError`]; it takes at most about twelve seconds.
    ///
    /// # Cancel safety
    /// When dropped, the record may be put all the same.
    pub async fn dht_put(&self, key: DhtKey, value: Vec<u8>) -> Result<usize, DhtError> {
        self.dht(|reply| DhtCommand::Put { key, value, reply }).await
    }

    /// Looks for a record in the DHT, and gives the best one found to those who
    /// had an older one or none.
    ///
    /// # Errors
    /// [`DhtError::Busy`] or [`DhtError::Stopped`]; that nothing was found is no
    /// error. It takes at most about eight seconds.
    ///
    /// # Cancel safety
    /// When dropped, the answer is lost.
    pub async fn dht_get(&self, key: DhtKey) -> Result<DhtAnswer, DhtError> {
        self.dht(|reply| DhtCommand::Get { key, reply }).await
    }

    /// Says in the DHT that this node holds a replica; the mesh says it again
    /// every hour. Whoever joins meanwhile learns it then, or by asking us.
    ///
    /// # Errors
    /// See [`DhtError`].
    ///
    /// # Cancel safety
    /// When dropped, it is said all the same.
    pub async fn dht_provide(&self) -> Result<(), DhtError> {
        self.dht(|reply| DhtCommand::Provide { reply }).await
    }

    /// Who says in the DHT that it holds a replica, ourselves left out. They
    /// need not be connected, or true to their word.
    ///
    /// # Errors
    /// [`DhtError::Busy`] or [`DhtError::Stopped`].
    ///
    /// # Cancel safety
    /// When dropped, the answer is lost.
    pub async fn dht_providers(&self) -> Result<Vec<NodeId>, DhtError> {
        self.dht(|reply| DhtCommand::Providers { reply }).await
    }

    /// All that the DHT keeps here, as keys and values; nothing when the mesh
    /// has stopped. For [`DhtConfig::held`](crate::DhtConfig::held).
    pub async fn dht_export(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Dht(DhtCommand::Export { reply });
        if self.commands.send(command).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    async fn dht<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, DhtError>>) -> DhtCommand,
    ) -> Result<T, DhtError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Dht(command(reply));
        self.commands.send(command).await.map_err(|_| DhtError::Stopped)?;
        answer.await.unwrap_or(Err(DhtError::Stopped))
    }

    /// Replaces the first peers to dial; those that are new are dialled at once,
    /// and no connection is ended.
    pub async fn set_bootstrap(&self, addresses: Vec<Multiaddr>) {
        // A mesh that has stopped dials nobody.
        let _ = self.commands.send(Command::SetBootstrap(addresses)).await;
    }

    /// How often what a node says turned out true, from 0 to 1; 0.5 is no
    /// opinion. Moves its score in gossip by 30 at most (spec/mesh §3).
    pub async fn set_truth(&self, node: NodeId, truth: f64) {
        let _ = self.commands.send(Command::Truth { node, truth }).await;
    }

    /// A node did what no honest node does. It costs the node 10 of its score
    /// in gossip; the fourth time within ten minutes, it is left and kept out
    /// for ten minutes.
    pub async fn blame(&self, node: NodeId, misdeed: Misdeed) {
        let _ = self.commands.send(Command::Blame { node, misdeed }).await;
    }

    /// Keeps these out from now on, and nobody else. Whoever of them is connected
    /// is left at once; none of them is dialled, let in, or named to others.
    pub async fn set_deny(&self, list: DenyList) {
        // A mesh that has stopped lets nobody in.
        let _ = self.commands.send(Command::Deny(list)).await;
    }
}
