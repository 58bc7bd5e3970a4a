//! A mesh on 127.0.0.1 and what tests ask of it.
//!
//! Nothing here sleeps to synchronise: every wait is for an event or a
//! snapshot, and fails after [`PATIENCE`].

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use homehost_mesh::{
    DhtConfig, GossipVerdict, MeshConfig, MeshEvent, MeshHandle, MeshStatus, Multiaddr,
    OperatorConfig, PeersConfig, Role, start,
};
use homehost_protocol::NodeId;
use homehost_runtime::Tasks;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far more than anything here takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing must happen where nothing may: three gossip heartbeats.
const SILENCE: Duration = Duration::from_secs(3);

pub(crate) struct Node {
    pub(crate) handle: MeshHandle,
    pub(crate) events: mpsc::Receiver<MeshEvent>,
    /// Events that a test has not asked for yet.
    pub(crate) seen: VecDeque<MeshEvent>,
    pub(crate) tasks: Tasks,
    pub(crate) registry: Registry,
}

pub(crate) fn config(seed: u8, role: Role, bootstrap: &[Multiaddr]) -> MeshConfig {
    MeshConfig {
        key_seed: [seed; 32],
        network: "mesh-test".parse().unwrap(),
        role,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        bootstrap: bootstrap.to_vec(),
        external: vec![],
        mdns: false,
        port_mapping: false,
        dht: DhtConfig::default(),
        peers: PeersConfig::default(),
        operator: OperatorConfig::default(),
        agent: "test/1".into(),
    }
}

impl Node {
    pub(crate) fn start(config: MeshConfig) -> Self {
        let (tasks, mut registry) = (Tasks::default(), Registry::default());
        let (handle, events) = start(config, &mut registry, &tasks).unwrap();
        Self { handle, events, seen: VecDeque::new(), tasks, registry }
    }

    pub(crate) fn host(seed: u8, bootstrap: &[Multiaddr]) -> Self {
        Self::start(config(seed, Role::Host, bootstrap))
    }

    pub(crate) fn id(&self) -> NodeId {
        self.handle.node()
    }

    /// The first event that `pick` takes; the others are kept.
    pub(crate) async fn event<T>(&mut self, mut pick: impl FnMut(&MeshEvent) -> Option<T>) -> T {
        if let Some(found) = self.seen.iter().enumerate().find_map(|(n, e)| Some((n, pick(e)?))) {
            self.seen.remove(found.0);
            return found.1;
        }
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the mesh runs");
                match pick(&event) {
                    Some(found) => return found,
                    None => self.seen.push_back(event),
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("the event comes")
    }

    /// The status once `pick` takes it.
    pub(crate) async fn status<T>(&self, mut pick: impl FnMut(&MeshStatus) -> Option<T>) -> T {
        let mut status = self.handle.status();
        let wait = async {
            loop {
                let found = pick(&status.borrow_and_update());
                if let Some(found) = found {
                    return found;
                }
                status.changed().await.expect("the mesh runs");
            }
        };
        timeout(PATIENCE, wait).await.expect("the status comes")
    }

    pub(crate) async fn address(&self) -> Multiaddr {
        self.status(|status| status.listening.first().cloned()).await
    }

    pub(crate) async fn knows(&self, others: impl IntoIterator<Item = NodeId>) {
        let others: BTreeSet<_> = others.into_iter().collect();
        self.status(|status| {
            let peers: BTreeSet<_> = status.peers.iter().map(|peer| peer.node).collect();
            others.is_subset(&peers).then_some(())
        })
        .await;
    }

    /// The next gossip message, judged.
    pub(crate) async fn gossip(&mut self, verdict: GossipVerdict) -> (NodeId, Vec<u8>) {
        let event = loop {
            if let Some(at) = self.seen.iter().position(|e| matches!(e, MeshEvent::Gossip { .. })) {
                break self.seen.remove(at).unwrap();
            }
            let next = timeout(PATIENCE, self.events.recv()).await.expect("gossip comes");
            self.seen.push_back(next.expect("the mesh runs"));
        };
        let MeshEvent::Gossip { from, message, token, .. } = event else { unreachable!() };
        self.handle.judge(token, verdict).await;
        (from, message)
    }

    pub(crate) async fn hears_no_gossip(&mut self) {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the mesh runs");
                assert!(!matches!(event, MeshEvent::Gossip { .. }), "{event:?}");
            }
        };
        assert!(timeout(SILENCE, wait).await.is_err());
    }

    pub(crate) fn metric(&self, name: &str) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.map_or("absent", |line| line.rsplit(' ').next().unwrap()).to_owned()
    }

    pub(crate) async fn stop(self) {
        self.tasks.handle().stop();
        timeout(PATIENCE, self.tasks.drained()).await.expect("it stops");
        assert!(self.tasks.failure().is_none());
    }
}
