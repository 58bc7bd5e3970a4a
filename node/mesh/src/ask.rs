//! Asking one node without joining its network (spec/mesh §10).
//!
//! A thin client has a key for the length of one connection, dials once, and
//! neither listens nor takes part in the DHT or gossip. It keeps nothing and
//! proves nothing: what it is told must be validated like everything else.

use std::time::{Duration, Instant};

use futures::StreamExt;
use homehost_protocol::rpc::{Request, Response};
use homehost_protocol::{NetworkName, NodeId};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Message, OutboundFailure, ProtocolSupport};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{self, DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, TransportError, identify};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::time::timeout_at;

use crate::backlog::Backlog;
use crate::behaviour::CLIENT_VERSION;
use crate::codec::{self, Asked, DirectoryCodec};
use crate::dial_gate::DialRules;
use crate::handle::REQUEST_TIMEOUT;
use crate::throttle::Throttle;
use crate::traffic::Traffic;
use crate::{node_id, transport};

/// Why a node could not be asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody answers at the address.
    #[error("nobody answers at {address}: {reason}")]
    Dial {
        /// Where.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
    /// Another node answers there than the one that the address names.
    #[error("another node answers at {address}: {found}")]
    WrongPeer {
        /// Where.
        address: Multiaddr,
        /// Who answers.
        found: String,
    },
    /// Something else than a HomeHost node answers there.
    #[error("what answers at {0} is not a HomeHost node")]
    NotHomeHost(Multiaddr),
    /// A HomeHost node that does not answer clients.
    #[error("the node at {0} does not answer clients")]
    Unsupported(Multiaddr),
    /// The node closed without an answer: it was asked too much, or what only
    /// peers may ask.
    #[error("the node refused to answer")]
    Refused,
    /// The node has closed the connection; connect anew.
    #[error("the node has closed the connection")]
    Closed,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// A mistake in this program.
    #[error("cannot make a client: {0}")]
    Setup(String),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    query: request_response::Behaviour<DirectoryCodec>,
}

/// A connection to one node, closed when it is dropped.
pub struct AskConnection {
    swarm: Swarm<Behaviour>,
    address: Multiaddr,
    peer: PeerId,
    node: NodeId,
    network: Option<NetworkName>,
}

impl std::fmt::Debug for AskConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskConnection").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Asks one node a few questions in turn, over one connection.
///
/// # Errors
/// See [`AskError`]; the first that goes wrong ends it.
pub async fn ask(
    address: &Multiaddr,
    requests: impl IntoIterator<Item = Request>,
    timeout: Duration,
) -> Result<Vec<Response>, AskError> {
    let mut connection = AskConnection::connect(address, timeout).await?;
    let mut responses = Vec::new();
    for request in requests {
        responses.push(connection.request(request).await?);
    }
    Ok(responses)
}

impl AskConnection {
    /// Connects to the node at an address, with or without `/p2p`, and sees
    /// whether it answers clients.
    ///
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn connect(address: &Multiaddr, timeout: Duration) -> Result<Self, AskError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut swarm = swarm(address)?;
        let dial = DialOpts::from(address.clone());
        swarm.dial(dial).map_err(|error| dial_error(address, &error))?;
        loop {
            let event = match timeout_at(deadline, swarm.select_next_some()).await {
                Ok(event) => event,
                Err(_) => return Err(AskError::Timeout),
            };
            match event {
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    return Err(dial_error(address, &error));
                }
                // It may speak other protocols, or be full.
                SwarmEvent::ConnectionClosed { .. } => return Err(AskError::Closed),
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                    peer_id,
                    info,
                    ..
                })) => {
                    let network = network_of(&info.protocol_version);
                    let node = node_id::node_of(&peer_id);
                    let (Some(node), Some(network)) = (node, network) else {
                        return Err(AskError::NotHomeHost(address.clone()));
                    };
                    if !info.protocols.contains(&codec::QUERY_PROTOCOL) {
                        return Err(AskError::Unsupported(address.clone()));
                    }
                    let (address, peer) = (address.clone(), peer_id);
                    return Ok(Self { swarm, address, peer, node, network: network.parse().ok() });
                }
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Error {
                    ..
                })) => return Err(AskError::NotHomeHost(address.clone())),
                _ => {}
            }
        }
    }

    /// The node at the other end.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The network that the node says it is in.
    pub fn network(&self) -> Option<&NetworkName> {
        self.network.as_ref()
    }

    /// Asks a `Query`, `Get` or `Chains`; the node refuses all else. It takes
    /// at most ten seconds.
    ///
    /// # Errors
    /// See [`AskError`].
    ///
    /// # Cancel safety
    /// When dropped, the question may have been asked; the answer is lost, and
    /// the connection can be used further.
    pub async fn request(&mut self, request: Request) -> Result<Response, AskError> {
        let deadline = tokio::time::Instant::now() + REQUEST_TIMEOUT;
        if !self.swarm.is_connected(&self.peer) {
            return Err(AskError::Closed);
        }
        let query = &mut self.swarm.behaviour_mut().query;
        let asked = query.send_request(&self.peer, Asked::ours(request));
        loop {
            let event = match timeout_at(deadline, self.swarm.select_next_some()).await {
                Ok(event) => event,
                Err(_) => return Err(AskError::Timeout),
            };
            match event {
                SwarmEvent::Behaviour(BehaviourEvent::Query(
                    request_response::Event::Message {
                        message: Message::Response { request_id, response },
                        ..
                    },
                )) if request_id == asked => return Ok(response),
                SwarmEvent::Behaviour(BehaviourEvent::Query(
                    request_response::Event::OutboundFailure { request_id, error, .. },
                )) if request_id == asked => {
                    return Err(match error {
                        OutboundFailure::Timeout => AskError::Timeout,
                        OutboundFailure::UnsupportedProtocols => {
                            AskError::Unsupported(self.address.clone())
                        }
                        OutboundFailure::Io(_) => AskError::Refused,
                        OutboundFailure::ConnectionClosed | OutboundFailure::DialFailure => {
                            AskError::Closed
                        }
                    });
                }
                _ => {}
            }
        }
    }
}

/// A swarm that dials one address that a person gave, and listens nowhere.
fn swarm(address: &Multiaddr) -> Result<Swarm<Behaviour>, AskError> {
    let keypair = Keypair::generate_ed25519();
    let rules = DialRules::new(std::slice::from_ref(address), &[], Instant::now());
    let counts = (&Traffic::default(), &Backlog::default(), &Throttle::default());
    let transport = transport::build(&keypair, None, rules, &mut Registry::default(), counts)
        .map_err(|error| AskError::Setup(error.to_string()))?;
    let identify = identify::Config::new(CLIENT_VERSION.into(), keypair.public())
        .with_agent_version(concat!("homehost-ask/", env!("CARGO_PKG_VERSION")).into())
        .with_cache_size(0);
    let config = request_response::Config::default().with_request_timeout(REQUEST_TIMEOUT);
    let protocols = [(codec::QUERY_PROTOCOL, ProtocolSupport::Outbound)];
    let behaviour = Behaviour {
        identify: identify::Behaviour::new(identify),
        query: request_response::Behaviour::with_codec(DirectoryCodec, protocols, config),
    };
    // The node decides how long an idle connection lasts.
    let idle =
        swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(120));
    Ok(Swarm::new(transport, behaviour, keypair.public().to_peer_id(), idle))
}

/// The network that an identify protocol version names.
fn network_of(version: &str) -> Option<&str> {
    version.strip_prefix(CLIENT_VERSION)?.strip_prefix('/')
}

fn dial_error(address: &Multiaddr, error: &DialError) -> AskError {
    let address = address.clone();
    match error {
        DialError::WrongPeerId { obtained, .. } => {
            AskError::WrongPeer { address, found: obtained.to_string() }
        }
        DialError::Transport(failures) => {
            let reason = failures.iter().map(|(_, failure)| match failure {
                TransportError::MultiaddrNotSupported(_) => {
                    "only /tcp/PORT and /udp/PORT/quic-v1 can be dialled".to_owned()
                }
                TransportError::Other(error) => innermost(error),
            });
            AskError::Dial { address, reason: reason.collect::<Vec<_>>().join("; ") }
        }
        other => AskError::Dial { address, reason: other.to_string() },
    }
}

/// What the system said, without the layers around it.
fn innermost(error: &std::io::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
