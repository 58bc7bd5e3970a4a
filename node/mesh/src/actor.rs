//! The one task that owns the swarm.
//!
//! It moves bytes and time; what to do is decided by the cores beside it
//! (`discovery`, `diversity`, `peers`, `token_bucket`). It never waits for a
//! reader or a peer.

mod attest;
mod clients;
mod connections;
mod dht;
mod gossip;
mod memory;
mod network;
mod px;
mod relay;
mod routing;
mod rpc;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use homehost_protocol::rpc::Response;
use homehost_protocol::{NetworkName, NodeId};
use homehost_runtime::Shutdown;
use libp2p::identity::Keypair;
use libp2p::request_response::{InboundRequestId, OutboundRequestId};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot, watch};

use self::attest::Attests;
use self::clients::Clients;
use self::dht::Dht;
pub(crate) use self::dht::DhtCommand;
use self::memory::Memory;
use self::network::Network;
use self::px::Px;
use self::relay::Reservations;
use crate::backlog::Backlog;
use crate::behaviour::{Behaviour, BehaviourEvent, identify_version};
use crate::deaf::Deaf;
use crate::deny::Deny;
use crate::dial_gate::DialRules;
use crate::discovery::Discovery;
use crate::gossip::Topics;
use crate::handle::{Command, RequestError};
use crate::joins::Joins;
use crate::metrics::Metrics;
use crate::node_id::peer_of;
use crate::outbox::Outbox;
use crate::peers::Peers;
use crate::ports::task::{MeshPorts, PortFacts};
use crate::standing::Standing;
use crate::token_bucket::Budgets;
use crate::unread::Unread;
use crate::{MeshEvent, MeshStatus, PeersConfig, Role, codec, scope};

/// Shortest time between two snapshots of the status: no reader needs more.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// Peers for each of which the snapshots may cost as much again: a bootstrap
/// node with thousands tells its status every few seconds.
const STATUS_PEERS: usize = 64;

/// Shortest time between two looks at the clock: a core that is always due must
/// not keep the task from the swarm, which comes last.
const TICK_LEAST: Duration = Duration::from_millis(2);

/// How long a stopping mesh flushes what it was asked to send.
const FLUSH: Duration = Duration::from_millis(150);

/// How long a stopping mesh waits for connections to close, so that peers see
/// it leave at once rather than time out.
const CLOSE: Duration = Duration::from_millis(500);

/// What the actor is made of.
pub(crate) struct Parts {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) inbox: mpsc::Receiver<Command>,
    pub(crate) outbox: Outbox,
    pub(crate) status: watch::Sender<Arc<MeshStatus>>,
    pub(crate) metrics: Metrics,
    pub(crate) backlog: Backlog,
    pub(crate) rules: DialRules,
    pub(crate) deny: Deny,
    pub(crate) keypair: Keypair,
    pub(crate) network: NetworkName,
    pub(crate) role: Role,
    pub(crate) bootstrap: Vec<Multiaddr>,
    pub(crate) external: Vec<Multiaddr>,
    /// Whether every listen address is loopback.
    pub(crate) local: bool,
    pub(crate) ports: (watch::Sender<MeshPorts>, watch::Receiver<PortFacts>),
    pub(crate) remembered: PeersConfig,
    pub(crate) shutdown: Shutdown,
}

/// Owner of the swarm and of all that is known about peers.
pub(crate) struct Actor {
    swarm: Swarm<Behaviour>,
    inbox: mpsc::Receiver<Command>,
    outbox: Outbox,
    status: watch::Sender<Arc<MeshStatus>>,
    ticked_at: Option<Instant>,
    /// When the status was last told, and whether it has changed since.
    status_at: Option<Instant>,
    status_changed: bool,
    metrics: Metrics,
    rules: DialRules,
    deny: Deny,
    topics: Topics,
    /// What identify must say, and the directory RPC's name.
    identify_version: String,
    directory_protocol: String,
    /// The configured addresses, and who answered there last.
    bootstrap: Vec<(Multiaddr, Option<PeerId>)>,
    peers: Peers,
    joins: Joins<ConnectionId>,
    discovery: Discovery,
    memory: Memory,
    /// Peers that take our listings.
    gossip_peers: BTreeSet<PeerId>,
    deaf: Deaf,
    /// Whom to dial once it has left, and where.
    dial_anew: HashMap<PeerId, Multiaddr>,
    /// Messages of each peer that wait for a verdict.
    unjudged: HashMap<PeerId, usize>,
    standing: Standing,
    dht: Dht,
    /// Refused peers and when they are forgotten, oldest first.
    refused: VecDeque<(PeerId, Instant)>,
    /// Failed dials in a row to peers of the routing table.
    dial_failures: HashMap<PeerId, u8>,
    /// Our requests that are under way.
    requests: HashMap<OutboundRequestId, oneshot::Sender<Result<Response, RequestError>>>,
    budgets: Budgets<NodeId>,
    /// Requests of others that are being answered, and what waits to be read.
    unread: Unread<InboundRequestId>,
    backlog: Backlog,
    attests: Attests,
    px: Px,
    reservations: Reservations,
    clients: Clients,
    net: Network,
    role: Role,
    /// Whether every listen address is loopback.
    local: bool,
    shutdown: Shutdown,
}

impl Actor {
    pub(crate) fn new(parts: Parts) -> Self {
        let streams = parts.swarm.behaviour().streams.new_control();
        let own = *parts.swarm.local_peer_id();
        let memory = Memory::open(own, parts.network.clone(), parts.remembered);
        let source = memory.source();
        Self {
            net: Network::new(streams, &parts.external, parts.ports, parts.local),
            role: parts.role,
            local: parts.local,
            topics: Topics::new(&parts.network),
            identify_version: identify_version(&parts.network),
            directory_protocol: codec::protocol(&parts.network).to_string(),
            swarm: parts.swarm,
            inbox: parts.inbox,
            outbox: parts.outbox,
            status: parts.status,
            ticked_at: None,
            status_at: None,
            status_changed: true,
            metrics: parts.metrics,
            rules: parts.rules,
            deny: parts.deny,
            bootstrap: parts.bootstrap.into_iter().map(routing::bootstrap).collect(),
            peers: Peers::default(),
            joins: Joins::default(),
            discovery: Discovery::new(parts.role, source, Instant::now()),
            memory,
            gossip_peers: BTreeSet::new(),
            deaf: Deaf::default(),
            dial_anew: HashMap::new(),
            unjudged: HashMap::new(),
            standing: Standing::default(),
            dht: Dht::new(Instant::now()),
            refused: VecDeque::new(),
            dial_failures: HashMap::new(),
            requests: HashMap::new(),
            budgets: rpc::budgets(),
            unread: Unread::default(),
            backlog: parts.backlog,
            attests: Attests::default(),
            px: Px::new(parts.keypair),
            reservations: Reservations::default(),
            clients: Clients::new(parts.role),
            shutdown: parts.shutdown,
        }
    }

    /// Runs until the shutdown's first stage.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        let shutdown = self.shutdown.clone();
        loop {
            let wake = tokio::time::Instant::from_std(self.wake(Instant::now()));
            tokio::select! {
                biased;
                () = shutdown.stopping() => break,
                Some(command) = self.inbox.recv() => self.obey(command),
                () = self.outbox.drive() => {}
                news = self.net.news() => self.on_network(&news),
                () = tokio::time::sleep_until(wake) => self.tick(),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        self.stop().await;
        Ok(())
    }

    /// When there is something to do by the clock.
    fn wake(&self, now: Instant) -> Instant {
        let mut wake = self.discovery.next(now).max(self.net.hold_until);
        wake = wake.min(self.dht.next()).min(self.net.next(now)).min(self.memory.next());
        if let Some(at) = self.deaf.next() {
            wake = wake.min(at);
        }
        if let Some(at) = self.clients.next() {
            wake = wake.min(at);
        }
        if let Some((_, at)) = self.refused.front() {
            wake = wake.min(*at);
        }
        if self.status_changed {
            wake = wake.min(self.status_due(now));
        }
        self.ticked_at.map_or(wake, |at| wake.max(at + TICK_LEAST))
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.ticked_at = Some(now);
        if self.status_changed && now >= self.status_due(now) {
            self.tell_status(now);
        }
        self.forgive(now);
        self.tend_dht(now);
        self.tend_clients(now);
        self.tend_gossip(now);
        self.memory.tend();
        self.tend_network(now);
        if now >= self.net.hold_until {
            self.discover(now);
        }
    }

    /// When a changed status may be told.
    fn status_due(&self, now: Instant) -> Instant {
        let times = u32::try_from(1 + self.peers.len() / STATUS_PEERS).unwrap_or(u32::MAX);
        self.status_at.map_or(now, |at| at + STATUS_EVERY * times)
    }

    fn tell_status(&mut self, now: Instant) {
        (self.status_at, self.status_changed) = (Some(now), false);
        let peer = *self.swarm.local_peer_id();
        let full = |address: &Multiaddr| address.clone().with_p2p(peer).ok();
        let direct = |at: &&Multiaddr| !scope::is_relayed(at);
        let mut listening: Vec<_> =
            self.swarm.listeners().filter(direct).filter_map(full).collect();
        listening.sort_by_cached_key(Multiaddr::to_string);
        self.status.send_replace(Arc::new(MeshStatus {
            listening,
            observed: self.peers.observed(),
            peers: self.peers.infos(),
            gossip_peers: self.gossip_peers.len(),
            network: self.network_facts(),
            clients: self.clients.len(),
            joins: self.joins.times(),
            remembered: self.memory.len(),
        }));
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish { topic, message, reply } => {
                // Whoever asked may have gone; it is published all the same.
                let _ = reply.send(self.publish(topic, message));
            }
            Command::Judge { token, verdict } => self.judge(&token, verdict),
            Command::Request { to, request, reply } => self.ask(to, request, reply),
            Command::Respond { reply, response } => self.respond(reply, response),
            Command::Attest { to, request, reply } => self.ask_attest(to, request, reply),
            Command::RespondAttest { reply, response } => self.respond_attest(reply, &response),
            Command::Dht(command) => self.obey_dht(command),
            Command::SetBootstrap(addresses) => self.set_bootstrap(addresses),
            Command::Truth { node, truth } => self.set_truth(node, truth),
            Command::Blame { node, misdeed } => {
                if let Some(peer) = peer_of(node) {
                    self.misdeed(peer, misdeed);
                }
            }
            Command::Deny(list) => self.set_deny(list),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.on_closed(&peer_id, connection_id);
            }
            SwarmEvent::IncomingConnection { connection_id, .. } => {
                self.joins.arrived(connection_id, Instant::now());
            }
            SwarmEvent::IncomingConnectionError { connection_id, error, .. } => {
                self.joins.left(connection_id);
                self.on_turned_away(&error);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.on_dial_failed(peer_id, &error);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.status_changed = true;
                if scope::is_relayed(&address) {
                    return;
                }
                self.listening(&address, true);
                let peer = *self.swarm.local_peer_id();
                let address = address.with_p2p(peer).unwrap_or_else(|address| address);
                self.outbox.keep(MeshEvent::Listening { address });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.status_changed = true;
                self.listening(&address, false);
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.status_changed = true;
                let said = match &reason {
                    Ok(()) => "the connection to it ended".into(),
                    Err(error) => error.to_string(),
                };
                if self.relay_closed(listener_id, &said) {
                    return;
                }
                let Err(error) = reason else { return };
                for address in addresses {
                    self.outbox.keep(MeshEvent::ListenFailed {
                        address,
                        kind: error.kind(),
                        reason: error.to_string(),
                    });
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::debug!(%error, "a listener stumbled");
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => {
                self.metrics.record(&event);
                self.on_identify(event);
            }
            BehaviourEvent::Ping(event) => {
                self.metrics.record(&event);
                match event.result {
                    Ok(rtt) => {
                        self.answers(&event.peer);
                        self.peers.pinged(&event.peer, rtt);
                        self.status_changed = true;
                    }
                    Err(failure) => self.on_silence(event.connection, &failure),
                }
            }
            BehaviourEvent::Kad(event) => {
                self.metrics.record(&event);
                self.on_kad(event);
            }
            BehaviourEvent::Gossip(event) => {
                self.metrics.record(&event);
                self.on_gossip(event);
            }
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Directory(event) => self.on_directory(event),
            BehaviourEvent::Attest(event) => self.on_attest(event),
            BehaviourEvent::RelayClient(event) => self.on_relay_client(&event),
            BehaviourEvent::Relay(event) => self.on_relay(event),
            BehaviourEvent::Px(event) => self.on_px(event),
            BehaviourEvent::Dcutr(event) => self.on_dcutr(event),
            BehaviourEvent::AutonatServer(never) => match never {},
            BehaviourEvent::Streams(()) => {}
        }
    }

    /// Sends what was asked for, then closes the connections.
    async fn stop(&mut self) {
        // What is said from now on is too late, so that this ends.
        self.inbox.close();
        // Who is there now is whom the next start looks for first.
        self.memory.save();
        let mut asked = false;
        while let Ok(command) = self.inbox.try_recv() {
            asked = true;
            self.obey(command);
        }
        if asked && !self.gossip_peers.is_empty() {
            self.drain_events(FLUSH, |_| false).await;
        }
        for peer in self.peers.ids() {
            // One that has just gone need not be closed.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        self.drain_events(CLOSE, |actor| actor.peers.len() == 0).await;
    }

    /// Goes on with the swarm until `done`, or for a time.
    ///
    /// The clock is looked at after each event: peers that keep the swarm busy
    /// would never let a timeout around all of it be asked.
    async fn drain_events(&mut self, time: Duration, done: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + time;
        while !done(self) && tokio::time::Instant::now() < end {
            match tokio::time::timeout_at(end, self.swarm.select_next_some()).await {
                Ok(event) => self.on_event(event),
                Err(_) => break,
            }
        }
    }
}
