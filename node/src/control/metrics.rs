//! Figures of the directory and the hosting, read when somebody asks.

use std::collections::BTreeMap;
use std::fmt::Error;

use homehost_directory::DirectoryHandle;
use homehost_hosting::HostingHandle;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// What the mesh's counters begin with.
const MESH: &str = "homehost_mesh_";

/// The counters of the mesh that have labels, by name and labels: the registry
/// gives them as text only.
pub(super) fn counted(registry: &Registry) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut text = String::new();
    // A text cannot fail to take more.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    let mut counted = BTreeMap::<String, BTreeMap<String, u64>>::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(MESH)) {
        let Some((name, rest)) = line.split_once("_total{") else { continue };
        let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
        let Ok(value) = value.parse() else { continue };
        let labels: Vec<_> = labels.split('"').skip(1).step_by(2).collect();
        counted.entry(name.to_owned()).or_default().insert(labels.join(" "), value);
    }
    counted
}

#[derive(Debug)]
struct NodeCollector {
    directory: DirectoryHandle,
    hosting: HostingHandle,
}

/// Adds the node's own figures to those of the mesh.
pub(crate) fn register_metrics(
    registry: &mut Registry,
    directory: &DirectoryHandle,
    hosting: &HostingHandle,
) {
    registry.register_collector(Box::new(NodeCollector {
        directory: directory.clone(),
        hosting: hosting.clone(),
    }));
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let stats = self.directory.stats();
        let servers = self.hosting.servers().borrow().clone();
        let running = servers.values().filter(|server| server.pid.is_some()).count();
        let players: u64 =
            servers.values().filter_map(|server| server.players).map(u64::from).sum();
        for (name, help, value) in [
            ("homehost_directory_listings", "Listings in the replica", stats.listings as u64),
            ("homehost_directory_tombstones", "Tombstones in the replica", stats.tombstones as u64),
            ("homehost_directory_hosts", "Hosts whose presence is known", stats.hosts as u64),
            ("homehost_servers", "Game servers of this node", servers.len() as u64),
            ("homehost_servers_running", "Game servers that run", running as u64),
            ("homehost_players", "Players on servers that tell", players),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let admitted = ConstCounter::new(stats.admitted);
        let help = "Records taken in";
        let name = "homehost_directory_admitted";
        admitted.encode(encoder.encode_descriptor(name, help, None, admitted.metric_type())?)?;
        let zero = ConstCounter::new(0_u64);
        let (name, help) = ("homehost_directory_refused", "Records not taken in, by reason");
        let mut refused = encoder.encode_descriptor(name, help, None, zero.metric_type())?;
        for (reason, count) in &stats.refused {
            let labels = [("reason", *reason)];
            ConstCounter::new(*count).encode(refused.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
