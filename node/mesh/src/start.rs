//! Starting a mesh: building the swarm, listening, and spawning its actor.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_protocol::Scope;
use homehost_runtime::Tasks;
use libp2p::core::transport::TransportError;
use libp2p::identity::Keypair;
use libp2p::swarm::{self, Swarm};
use libp2p::{Multiaddr, noise, relay};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::actor::{Actor, Parts};
use crate::backlog::Backlog;
use crate::behaviour::{Behaviour, Settings};
use crate::deny::Deny;
use crate::dial_gate::DialRules;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::ports::router::Nonces;
use crate::ports::task::{MeshPorts, PortFacts, Ports};
use crate::throttle::Throttle;
use crate::traffic::Traffic;
use crate::{MeshConfig, MeshEvent, MeshHandle, MeshStatus, node_id, scope, transport};

/// Commands on their way to the actor. It never waits for anyone, so that a
/// short queue suffices; senders wait when it is full.
const COMMANDS_MAX: usize = 256;

/// How long a connection that no protocol needs stays open. Long enough for
/// the next walk to find it again, short enough that a bootstrap node serves
/// many.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Streams of one connection that are agreeing on a protocol.
const NEGOTIATING_STREAMS_MAX: usize = 32;

/// Why the mesh did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The seed makes no usable key.
    #[error("the node's key cannot be used")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not one of the listen addresses works.
    #[error("cannot listen on {address}")]
    Listen {
        /// The first of them that is in use, or the first.
        address: Multiaddr,
        /// What the system said about it.
        #[source]
        source: io::Error,
    },
    /// A setting contradicts another. A mistake in this program.
    #[error("mesh settings: {0}")]
    Settings(String),
}

impl StartError {
    /// Whether another program has the port, so that another port would help.
    pub fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}

/// Starts the mesh as a task named `mesh` of `tasks`, within a tokio runtime.
///
/// A listen address that fails while another works is told as
/// [`MeshEvent::ListenFailed`]. The receiver must be read: gossip and requests
/// are refused while it is full.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    config: MeshConfig,
    registry: &mut Registry,
    tasks: &Tasks,
) -> Result<(MeshHandle, mpsc::Receiver<MeshEvent>), StartError> {
    let key = |error: noise::Error| StartError::Key(Box::new(error));
    let keypair = Keypair::ed25519_from_bytes(config.key_seed)
        .map_err(|error| StartError::Key(Box::new(error)))?;
    let peer = keypair.public().to_peer_id();
    let node = node_id::node_of(&peer)
        .ok_or_else(|| StartError::Settings("the key is not of Ed25519".into()))?;

    let deny = Deny::new(config.operator.deny);
    let rules =
        DialRules::new(&config.bootstrap, &config.listen, Instant::now()).keeping_out(deny.clone());
    let local = config.listen.iter().all(|at| scope::of(at) == Scope::Loopback);
    let mdns = config.mdns && !local;
    let traffic = Traffic::new(registry);
    let backlog = Backlog::default();
    let throttle = Throttle::new(config.operator.bandwidth, registry);
    let counts = (&traffic, &backlog, &throttle);
    let (relayed, relay_client) = relay::client::new(peer);
    let transport =
        transport::build(&keypair, Some(relayed), rules.clone(), registry, counts).map_err(key)?;
    let settings = Settings {
        keypair: &keypair,
        network: &config.network,
        role: config.role,
        agent: &config.agent,
        mdns,
        dht: config.dht,
        deny: deny.clone(),
        rules: rules.clone(),
    };
    let behaviour = Behaviour::new(&settings, relay_client).map_err(StartError::Settings)?;
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX);
    let mut swarm = Swarm::new(transport, behaviour, peer, swarm_config);

    let (mut outbox, events) = Outbox::new();
    for failure in listen(&mut swarm, &config.listen)? {
        outbox.keep(failure);
    }
    for address in &config.external {
        swarm.add_external_address(address.clone());
    }

    let (games, wishes) = watch::channel(Vec::new());
    let (mesh_ports, wanted) = watch::channel(MeshPorts::default());
    let (port_facts, forwarded) = watch::channel(PortFacts::default());
    if config.port_mapping && !local {
        let shutdown = tasks.shutdown();
        let nonces = Nonces::of(&config.key_seed);
        let ports = Ports { mesh: wanted, games: wishes, facts: port_facts, nonces, shutdown };
        tasks.spawn("ports", ports.run());
    }

    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (status, snapshots) = watch::channel(Arc::new(MeshStatus::default()));
    let metrics = Metrics::new(registry);
    let actor = Actor::new(Parts {
        swarm,
        inbox,
        outbox,
        status,
        metrics,
        backlog,
        rules,
        deny,
        keypair,
        network: config.network,
        role: config.role,
        bootstrap: config.bootstrap,
        external: config.external,
        local,
        ports: (mesh_ports, forwarded),
        remembered: config.peers,
        shutdown: tasks.shutdown(),
    });
    tasks.spawn("mesh", actor.run());
    Ok((MeshHandle { node, commands, status: snapshots, traffic, games }, events))
}

/// Listens on all addresses that work, and tells of the others.
fn listen(
    swarm: &mut Swarm<Behaviour>,
    addresses: &[Multiaddr],
) -> Result<Vec<MeshEvent>, StartError> {
    let mut failures = Vec::new();
    for address in addresses {
        let listening =
            transport::probe(address).and_then(|()| match swarm.listen_on(address.clone()) {
                Ok(_) => Ok(()),
                Err(TransportError::Other(error)) => Err(innermost(error)),
                Err(TransportError::MultiaddrNotSupported(_)) => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "only /tcp/PORT and /udp/PORT/quic-v1 of an IP address can be listened on",
                )),
            });
        if let Err(error) = listening {
            failures.push((address.clone(), error));
        }
    }
    if !failures.is_empty() && failures.len() == addresses.len() {
        let in_use = failures.iter().position(|(_, e)| e.kind() == io::ErrorKind::AddrInUse);
        let (address, source) = failures.swap_remove(in_use.unwrap_or(0));
        return Err(StartError::Listen { address, source });
    }
    let event = |(address, error): (Multiaddr, io::Error)| MeshEvent::ListenFailed {
        address,
        kind: error.kind(),
        reason: error.to_string(),
    };
    Ok(failures.into_iter().map(event).collect())
}

/// What the system said, without the layers that each repeat it.
fn innermost(error: io::Error) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> =
        error.get_ref().map(|inner| inner as _);
    let mut code = error.raw_os_error();
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            code = inner.raw_os_error().or(code);
        }
        cause = inner.source();
    }
    match code {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
