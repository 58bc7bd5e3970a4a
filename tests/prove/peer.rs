//! A peer of whole nodes that says whatever it is told to, through the mesh's
//! own code: it looks like any other until it speaks.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use homehost_directory::reconcile::Snapshot;
use homehost_mesh::{
    DhtConfig, GossipVerdict, MeshConfig, MeshEvent, MeshHandle, OperatorConfig, PeersConfig,
    PublishError, Published, Role, start,
};
use homehost_protocol::gossip::{Topic, encode_batches};
use homehost_protocol::rpc::{HeldRecord, Request, Response, Set};
use homehost_protocol::{RecId, UnixMillis};
use homehost_runtime::Tasks;
use homehost_tests::Test;
use prometheus_client::registry::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// Longest wait for a connection.
const JOIN: Duration = Duration::from_secs(30);

/// What peers say that they hold.
pub(crate) struct Held {
    snapshot: Snapshot,
    records: BTreeMap<RecId, Vec<u8>>,
}

impl Held {
    /// Envelopes with their dates of issue.
    pub(crate) fn new(envelopes: Vec<(UnixMillis, Vec<u8>)>) -> Self {
        let snapshot = envelopes.iter().map(|(issued, bytes)| (*issued, RecId::of(bytes)));
        let snapshot = Snapshot::new(snapshot.collect::<Vec<_>>());
        let records = envelopes.into_iter().map(|(_, bytes)| (RecId::of(&bytes), bytes));
        Self { snapshot, records: records.collect() }
    }

    fn answer(&self, request: Request) -> Response {
        match request {
            Request::Reconcile { set: Set::Rows, message } => Response {
                message: Some(self.snapshot.answer(&message).unwrap_or_default()),
                ..Response::default()
            },
            Request::Reconcile { set: Set::Presences, .. } => {
                Response { message: Some(vec![]), ..Response::default() }
            }
            Request::Records { ids } => {
                let mut left = Response::RECORDS_BYTES_MAX;
                let held = ids.iter().filter_map(|id| self.records.get(id));
                let records = held
                    .map(|bytes| HeldRecord { envelope: bytes.clone(), age_s: Some(0) })
                    .take_while(|held| {
                        let fits = held.wire_bytes() <= left;
                        left = left.saturating_sub(held.wire_bytes());
                        fits
                    });
                Response { records: records.collect(), ..Response::default() }
            }
            _ => Response::default(),
        }
    }
}

/// One peer.
pub(crate) struct Peer {
    mesh: MeshHandle,
    tasks: Tasks,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
    })
}

impl Peer {
    /// Joins the network of a test as a host.
    pub(crate) fn join(test: &Test, number: u8, bootstrap: &[&str], held: Arc<Held>) -> Self {
        let address = |text: &&str| text.parse().expect("a multiaddr");
        let config = MeshConfig {
            key_seed: [number; 32],
            network: test.network().parse().expect("a network name"),
            role: Role::Host,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr")],
            bootstrap: bootstrap.iter().map(address).collect(),
            external: vec![],
            mdns: false,
            port_mapping: false,
            dht: DhtConfig::default(),
            peers: PeersConfig::default(),
            operator: OperatorConfig::default(),
            agent: "homehost/0.1.0".into(),
        };
        let tasks = Tasks::default();
        let _inside = runtime().enter();
        let (mesh, events) = start(config, &mut Registry::default(), &tasks).expect("it starts");
        tokio::spawn(answer(mesh.clone(), events, held));
        let peer = Self { mesh, tasks };
        let begun = Instant::now();
        while peer.mesh.status().borrow().gossip_peers == 0 {
            assert!(begun.elapsed() < JOIN, "nobody takes the gossip of peer {number}");
            std::thread::sleep(Duration::from_millis(20));
        }
        peer
    }

    /// Gossips rows of one root; waits while the queues are full.
    pub(crate) fn publish(&self, topic: Topic, envelopes: Vec<Vec<u8>>) -> Published {
        let messages = encode_batches(envelopes);
        let mut result = Published::NoPeers;
        for message in messages {
            result = loop {
                match runtime().block_on(self.mesh.publish(topic, message.clone())) {
                    Ok(published) => break published,
                    Err(PublishError::Congested) => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Err(error) => panic!("failed to publish: {error}"),
                }
            };
        }
        result
    }

    /// Offers envelopes to all its peers at once; who is over the budget is
    /// refused, as it should be.
    pub(crate) fn offer(&self, envelopes: &[Vec<u8>]) {
        let peers = self.mesh.status().borrow().peers.clone();
        for peer in peers.into_iter().filter(|peer| peer.holds_replica) {
            let (mesh, envelopes) = (self.mesh.clone(), envelopes.to_vec());
            runtime().spawn(async move {
                drop(mesh.request(peer.node, Request::Offer { envelopes }).await);
            });
        }
    }

    /// Its own multiaddrs.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.mesh.status().borrow().listening.iter().map(ToString::to_string).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks.handle().stop();
    }
}

/// Says nothing of what it hears, and whatever it holds when asked.
async fn answer(mesh: MeshHandle, mut events: mpsc::Receiver<MeshEvent>, held: Arc<Held>) {
    while let Some(event) = events.recv().await {
        match event {
            MeshEvent::Gossip { token, .. } => mesh.judge(token, GossipVerdict::Ignore).await,
            MeshEvent::Request { request, reply, .. } => {
                mesh.respond(reply, held.answer(request)).await;
            }
            _ => {}
        }
    }
}
