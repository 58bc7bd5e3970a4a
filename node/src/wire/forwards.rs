//! Which ports of game servers the router should forward.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use homehost_hosting::ServerView;
use homehost_mesh::{MeshHandle, PortWish};
use homehost_protocol::ServerId;
use homehost_protocol::record::listing::Visibility;
use homehost_runtime::Shutdown;
use tokio::sync::watch;

use super::join::join_port;

/// Tells the mesh which ports to have forwarded.
pub(crate) struct Forwards {
    pub(crate) mesh: MeshHandle,
    pub(crate) servers: watch::Receiver<Arc<BTreeMap<ServerId, ServerView>>>,
}

impl Forwards {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), Infallible> {
        loop {
            let servers = self.servers.borrow_and_update().clone();
            self.mesh.forward_ports(servers.values().flat_map(wishes).collect());
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                changed = self.servers.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The port that players join and the one that others query, while it runs: other
/// ports, as of a remote console, are nobody's business outside, and neither is
/// a server for the LAN.
fn wishes(server: &ServerView) -> Vec<PortWish> {
    let definition = &server.definition;
    if server.pid.is_none() || definition.visibility == Some(Visibility::Lan) {
        return Vec::new();
    }
    let query = definition.query_port().map(|(name, port)| (name, port.transport));
    let mut wishes: Vec<_> = join_port(definition)
        .into_iter()
        .chain(query)
        .filter_map(|(port, transport)| {
            let port = *server.ports.get(port)?;
            Some(PortWish { name: definition.name.clone(), transport, port })
        })
        .collect();
    wishes.dedup();
    wishes
}
