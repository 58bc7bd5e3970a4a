//! Counters of the mesh: libp2p's own, and what we refuse.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use libp2p::metrics::{Metrics as Libp2pMetrics, Recorder};

use crate::GossipVerdict;
use crate::discovery::Counts;

type Label = [(&'static str, &'static str); 1];

/// Why a request of a peer has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RpcRefusal {
    /// The peer is over its budget.
    Budget,
    /// We are behind with our own work.
    Busy,
    /// Not a request, or longer than one may be.
    Malformed,
    /// Nobody answered in time, or the peer went away.
    Unanswered,
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
    rpc_refused: Family<Label, Counter>,
    connections_refused: Family<Label, Counter>,
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
            connections_refused: Family::default(),
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

    pub(crate) fn rpc_refused(&self, refusal: RpcRefusal) {
        let reason = match refusal {
            RpcRefusal::Budget => "budget",
            RpcRefusal::Busy => "busy",
            RpcRefusal::Malformed => "malformed",
            RpcRefusal::Unanswered => "unanswered",
        };
        self.rpc_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// A peer was of another network.
    pub(crate) fn other_network(&self) {
        self.connections_refused.get_or_create(&[("reason", "network")]).inc();
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
