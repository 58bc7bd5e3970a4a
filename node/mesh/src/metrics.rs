//! Counters of the mesh: libp2p's own, and what we refuse.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use libp2p::metrics::{Metrics as Libp2pMetrics, Recorder};

use crate::discovery::Counts;
use crate::{GossipVerdict, Misdeed};

type Label = [(&'static str, &'static str); 1];

/// Steps of the time that a join takes: a machine nearby, one around the world,
/// and one that hardly answers.
const JOIN_SECONDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

type RpcLabels = [(&'static str, &'static str); 2];

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rpc {
    /// The directory RPC by its name for peers, or a request that cannot be read.
    Directory,
    /// The directory RPC by its name for clients.
    Query,
    /// The witness RPC.
    Attest,
    /// Peer exchange.
    Px,
}

impl Rpc {
    fn label(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Query => "query",
            Self::Attest => "attest",
            Self::Px => "px",
        }
    }
}

/// Why a request of a peer has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RpcRefusal {
    /// The peer, or the address of a client, is over its budget.
    Budget,
    /// It has not said that it is of our network, or is a client and asks what
    /// only peers may.
    Stranger,
    /// It has not read what it was answered before.
    Unread,
    /// We are behind with our own work.
    Busy,
    /// Not a request, or longer than one may be.
    Malformed,
    /// Nobody answered in time, or the peer went away.
    Unanswered,
}

/// Why a peer is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// It is of another network.
    Network,
    /// It did a few times what no honest node does.
    Misdeeds,
}

/// What became of a gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GossipFate {
    Judged(GossipVerdict),
    /// Ignored because the reader of events is behind.
    Dropped,
}

/// Libp2p's metrics under `libp2p_`, ours under `homehost_mesh_`.
pub(crate) struct Metrics {
    libp2p: Libp2pMetrics,
    gossip: Family<Label, Counter>,
    rpc_refused: Family<RpcLabels, Counter>,
    clients: Gauge,
    connections_refused: Family<Label, Counter>,
    dht_puts: Family<Label, Counter>,
    dht_providers: Family<Label, Counter>,
    misdeeds: Family<Label, Counter>,
    peers: Family<Label, Gauge>,
    join: Histogram,
    relay_reservations: Gauge,
    relay_circuits: Gauge,
    relay_refused: Family<Label, Counter>,
    px_records: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let libp2p = Libp2pMetrics::new(registry);
        let ours = registry.sub_registry_with_prefix("homehost_mesh");
        let metrics = Self {
            libp2p,
            gossip: Family::default(),
            rpc_refused: Family::default(),
            clients: Gauge::default(),
            connections_refused: Family::default(),
            dht_puts: Family::default(),
            dht_providers: Family::default(),
            misdeeds: Family::default(),
            peers: Family::default(),
            join: Histogram::new(JOIN_SECONDS),
            relay_reservations: Gauge::default(),
            relay_circuits: Gauge::default(),
            relay_refused: Family::default(),
            px_records: Gauge::default(),
        };
        ours.register("gossip", "Gossip messages by verdict", metrics.gossip.clone());
        ours.register(
            "rpc_refused",
            "Requests of peers that had no answer, by reason",
            metrics.rpc_refused.clone(),
        );
        ours.register(
            "connections_refused",
            "Connections that were not let in or closed again, by reason",
            metrics.connections_refused.clone(),
        );
        ours.register(
            "dht_puts",
            "Records of others by what became of them",
            metrics.dht_puts.clone(),
        );
        ours.register(
            "dht_providers",
            "Provider records of others by what became of them",
            metrics.dht_providers.clone(),
        );
        ours.register(
            "misdeeds",
            "What peers did that no honest node does",
            metrics.misdeeds.clone(),
        );
        ours.register("clients", "Connected clients", metrics.clients.clone());
        ours.register("peers", "Connected peers of our network by role", metrics.peers.clone());
        ours.register(
            "relay_reservations",
            "Hosts that may be reached through this node",
            metrics.relay_reservations.clone(),
        );
        ours.register(
            "relay_circuits",
            "Connections that are relayed",
            metrics.relay_circuits.clone(),
        );
        ours.register(
            "relay_refused",
            "What was not relayed, by what was asked",
            metrics.relay_refused.clone(),
        );
        ours.register(
            "px_records",
            "Hosts whose signed record may be given to others",
            metrics.px_records.clone(),
        );
        ours.register_with_unit(
            "join",
            "From a connection's first packet until the peer is known",
            Unit::Seconds,
            metrics.join.clone(),
        );
        metrics.counted(Counts::default());
        metrics
    }

    pub(crate) fn gossip(&self, fate: GossipFate) {
        let verdict = match fate {
            GossipFate::Judged(GossipVerdict::Accept) => "accept",
            GossipFate::Judged(GossipVerdict::Ignore) => "ignore",
            GossipFate::Judged(GossipVerdict::Reject) => "reject",
            GossipFate::Dropped => "dropped",
        };
        self.gossip.get_or_create(&[("verdict", verdict)]).inc();
    }

    pub(crate) fn rpc_refused(&self, rpc: Rpc, refusal: RpcRefusal) {
        let reason = match refusal {
            RpcRefusal::Budget => "budget",
            RpcRefusal::Stranger => "stranger",
            RpcRefusal::Unread => "unread",
            RpcRefusal::Busy => "busy",
            RpcRefusal::Malformed => "malformed",
            RpcRefusal::Unanswered => "unanswered",
        };
        self.rpc_refused.get_or_create(&[("rpc", rpc.label()), ("reason", reason)]).inc();
    }

    /// How many clients are connected.
    pub(crate) fn clients(&self, count: usize) {
        self.clients.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A peer is left, and stayed away from.
    pub(crate) fn left(&self, why: Unwanted) {
        let reason = match why {
            Unwanted::Network => "network",
            Unwanted::Misdeeds => "misdeeds",
        };
        self.connections_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// A connection was not let in, or ended by the operator.
    pub(crate) fn turned_away(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// How many signed records are at hand.
    pub(crate) fn px_records(&self, count: usize) {
        self.px_records.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Something was not relayed.
    pub(crate) fn relay_refused(&self, asked: &'static str) {
        self.relay_refused.get_or_create(&[("asked", asked)]).inc();
    }

    /// How many may be reached through this node.
    pub(crate) fn reservations(&self, count: usize) {
        self.relay_reservations.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Relayed connections came or went.
    pub(crate) fn circuits(&self, change: i64) {
        self.relay_circuits.inc_by(change);
    }

    /// Somebody joined.
    pub(crate) fn joined(&self, took: Duration) {
        self.join.observe(took.as_secs_f64());
    }

    /// A peer put a record here, or answered with one.
    pub(crate) fn dht_put(&self, fate: &'static str) {
        self.dht_puts.get_or_create(&[("fate", fate)]).inc();
    }

    /// A peer said that it provides something.
    pub(crate) fn dht_provider(&self, fate: &'static str) {
        self.dht_providers.get_or_create(&[("fate", fate)]).inc();
    }

    /// A peer did what no honest node does.
    pub(crate) fn misdeed(&self, misdeed: Misdeed) {
        let kind = match misdeed {
            Misdeed::InvalidRecord => "invalid_record",
            Misdeed::Withheld => "withheld",
            Misdeed::Nonsense => "nonsense",
        };
        self.misdeeds.get_or_create(&[("kind", kind)]).inc();
    }

    /// How many peers there are.
    pub(crate) fn counted(&self, counts: Counts) {
        let set = |role, count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.peers.get_or_create(&[("role", role)]).set(count);
        };
        set("host", counts.hosts);
        set("bootstrap", counts.peers.saturating_sub(counts.hosts));
    }

    /// Lets libp2p's metrics see an event.
    pub(crate) fn record<E>(&self, event: &E)
    where
        Libp2pMetrics: Recorder<E>,
    {
        self.libp2p.record(event);
    }
}
