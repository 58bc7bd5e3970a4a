//! What the mesh tells, and the tokens with which it is answered.

use std::fmt;
use std::io;
use std::net::IpAddr;

use homehost_protocol::gossip::Topic;
use homehost_protocol::rpc::attest::AttestRequest;
use homehost_protocol::rpc::{Request, Response};
use homehost_protocol::{NodeId, Scope};
use libp2p::gossipsub::MessageId;
use libp2p::request_response::ResponseChannel;
use libp2p::{Multiaddr, PeerId};

/// Something happened on the mesh.
#[derive(Debug)]
pub enum MeshEvent {
    /// We listen on this address now; it ends in `/p2p/<id>`.
    Listening {
        /// The address, with its real port.
        address: Multiaddr,
    },
    /// We cannot listen, or no longer listen, on this address. Said once; the
    /// other addresses go on.
    ListenFailed {
        /// The address as it was asked for, or as it was.
        address: Multiaddr,
        /// [`io::ErrorKind::AddrInUse`] when another program has the port,
        /// [`io::ErrorKind::InvalidInput`] when it is no address to listen on.
        kind: io::ErrorKind,
        /// What the system said.
        reason: String,
    },
    /// A peer of our network is connected and has said who it is.
    PeerJoined {
        /// Who.
        node: NodeId,
        /// How far away it is.
        scope: Scope,
        /// Whether it answers the directory RPC.
        holds_replica: bool,
    },
    /// The last connection to a peer that had joined is gone.
    PeerLeft {
        /// Who.
        node: NodeId,
    },
    /// Listings can be gossiped again, after nobody took them: what we
    /// published meanwhile reached no one.
    GossipJoined,
    /// A gossip message, not yet forwarded: call
    /// [`judge`](crate::MeshHandle::judge) within five seconds.
    Gossip {
        /// The peer that passed it on, not its author.
        from: NodeId,
        /// The topic.
        topic: Topic,
        /// A batch of envelopes, not looked at.
        message: Vec<u8>,
        /// Names the message in the verdict.
        token: GossipToken,
    },
    /// A peer asks: call [`respond`](crate::MeshHandle::respond) within ten
    /// seconds.
    Request {
        /// Who asks.
        from: NodeId,
        /// Whether it asks as a client, who is in no network and may only
        /// search: a `Query`, `Get` or `Chains`. The answer must name the
        /// network.
        client: bool,
        /// Whether it is on this machine or link, so that rows of the local
        /// network may be told.
        on_link: bool,
        /// The question.
        request: Request,
        /// The way back. Dropping it refuses to answer.
        reply: ReplyToken,
    },
    /// A peer asks us to reach one of its servers: call
    /// [`respond_attest`](crate::MeshHandle::respond_attest) within ten seconds.
    AttestRequest {
        /// Who asks.
        from: NodeId,
        /// The far end of the connection over which it asks: the only address
        /// that may be asked for it. `None` when it is not known, as behind a
        /// relay or for a peer that was reached by a name.
        address: Option<IpAddr>,
        /// What is to be reached.
        request: AttestRequest,
        /// The way back. Dropping it refuses to answer.
        reply: AttestToken,
    },
}

/// Names one gossip message.
#[derive(Clone, PartialEq, Eq)]
pub struct GossipToken {
    pub(crate) message: MessageId,
    pub(crate) source: PeerId,
}

impl fmt::Debug for GossipToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GossipToken({})", self.message)
    }
}

/// What becomes of a gossip message (spec/mesh §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GossipVerdict {
    /// Valid and new: forward it.
    Accept,
    /// Neither forward it nor hold it against the sender.
    Ignore,
    /// No honest node could have forwarded it: the sender's score falls.
    Reject,
}

/// What no honest node does. A few in a row end the connection for ten minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Misdeed {
    /// It passed on a record that no honest node could have passed on.
    InvalidRecord,
    /// It did not give what it had said that it has.
    Withheld,
    /// It answered with what cannot be an answer.
    Nonsense,
}

/// The way back of one request. Dropping it refuses to answer.
pub struct ReplyToken {
    pub(crate) channel: ResponseChannel<Response>,
}

/// The way back of one request to a witness. Dropping it refuses to answer.
pub struct AttestToken {
    pub(crate) channel: ResponseChannel<Vec<u8>>,
    /// The response's bytes depend on it.
    pub(crate) request: AttestRequest,
}

impl fmt::Debug for AttestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttestToken")
    }
}

impl fmt::Debug for ReplyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyToken")
    }
}
