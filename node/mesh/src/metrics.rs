//! Counters of the mesh: libp2p's own, and what we refuse.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use libp2p::metrics::{Metrics as Libp2pMetrics, Recorder};

use crate::discovery::Counts;
use crate::{GossipVerdict, Misdeed};

type Label = [(&'static str, &'static str); 1];

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
}

impl Rpc {
    fn label(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Query => "query",
            Self::Attest => "attest",
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
        };
        ours.register("gossip", "Gossip messages by verdict", metrics.gossip.clone());
        ours.register(
            "rpc_refused",
            "Requests of peers that had no answer, by reason",
            metrics.rpc_refused.clone(),
        );
        ours.register(
            "connections_refused",
            "Connections closed because of who the peer is, by reason",
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
