//! Clients' questions, passed on to hosts that can answer them (spec/mesh §10).
//!
//! A bootstrap node has no directory. It asks a connected host that has one, and
//! gives the client the answer as it is: what is true in it proves itself, and
//! nothing of it is kept.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use homehost_mesh::{MeshHandle, ReplyToken};
use homehost_protocol::limits::RPC_RESPONSE_BYTES_MAX;
use homehost_protocol::rpc::{Request, Response, Trouble};
use homehost_protocol::{NetworkName, NodeId};
use tokio::sync::Semaphore;

/// Questions that are passed on at once. Each may hold a response of 128 KiB
/// twice, so that they stay within 16 MiB.
const UNDER_WAY_MAX: usize = 64;

/// Hosts that are asked for one client, one after the other.
const HOSTS_ASKED: usize = 2;

/// How long one of them may take: both fit into the ten seconds of the client.
const HOST_TIMEOUT: Duration = Duration::from_millis(4500);

/// Passes questions on.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder {
    mesh: MeshHandle,
    network: NetworkName,
    places: Arc<Semaphore>,
    /// Which host answers which client: by a lot that nobody else can draw.
    lots: RandomState,
}

impl Forwarder {
    pub(crate) fn new(mesh: MeshHandle, network: NetworkName) -> Self {
        let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self { mesh, network, places, lots: RandomState::new() }
    }

    /// Passes a question on, in a task of its own; refuses it when there are
    /// too many.
    pub(crate) fn pass_on(&self, client: NodeId, request: Request, reply: ReplyToken) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!("too many questions of clients");
            return;
        };
        let forwarder = self.clone();
        // It ends by itself within the time of the hosts that it asks.
        tokio::spawn(async move {
            let response = forwarder.answer(client, request).await;
            forwarder.mesh.respond(reply, response).await;
            drop(place);
        });
    }

    async fn answer(&self, client: NodeId, request: Request) -> Response {
        for host in self.hosts_for(client) {
            let asked = self.mesh.request(host, request.clone());
            match tokio::time::timeout(HOST_TIMEOUT, asked).await {
                Ok(Ok(response)) if response.trouble == Some(Trouble::NoReplica) => {}
                Ok(Ok(response)) => {
                    let response = Response { network: Some(self.network.clone()), ..response };
                    if fits(&response) {
                        return response;
                    }
                    tracing::debug!(%host, "its answer leaves no room for the network's name");
                }
                Ok(Err(error)) => tracing::debug!(%host, %error, "a host did not answer"),
                Err(_) => tracing::debug!(%host, "a host took too long"),
            }
        }
        Response { network: Some(self.network.clone()), ..Response::trouble(Trouble::NoReplica) }
    }

    /// The hosts to ask, the same for all questions of one client: a cursor is
    /// good at the host that gave it.
    fn hosts_for(&self, client: NodeId) -> Vec<NodeId> {
        let status = self.mesh.status();
        let holders = status.borrow().peers.clone();
        let holders = holders.iter().filter(|peer| peer.holds_replica).map(|peer| peer.node);
        choose(holders.collect(), |host| self.lots.hash_one((client, host)))
    }
}

fn choose(mut hosts: Vec<NodeId>, lot: impl Fn(&NodeId) -> u64) -> Vec<NodeId> {
    hosts.sort_by_cached_key(|host| lot(host));
    hosts.truncate(HOSTS_ASKED);
    hosts
}

fn fits(response: &Response) -> bool {
    response.clone().encode().len() <= RPC_RESPONSE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use homehost_protocol::rpc::HeldRecord;

    #[test]
    fn a_client_keeps_its_host_while_others_come_and_go() {
        let lots = RandomState::new();
        let hosts: Vec<_> = (0..100).map(|n| NodeId([n; 32])).collect();
        let chosen = |hosts: &[NodeId], client: u8| {
            choose(hosts.to_vec(), |host| lots.hash_one((NodeId([client; 32]), host)))
        };
        let mut first = std::collections::BTreeSet::new();
        for client in 0..100 {
            let before = chosen(&hosts, client);
            let after: Vec<_> =
                hosts.iter().copied().filter(|host| host.0[0] % 2 == before[0].0[0] % 2).collect();
            assert_eq!(chosen(&after, client)[0], before[0]);
            assert_eq!(before.len(), HOSTS_ASKED);
            first.insert(before[0]);
        }
        assert!(first.len() > 30, "{} hosts do all the work", first.len());
        assert_eq!(chosen(&[], 1), []);
    }

    #[test]
    fn an_answer_must_leave_room_for_the_networks_name() {
        let long = HeldRecord { envelope: vec![1; RPC_RESPONSE_BYTES_MAX], age_s: None };
        assert!(!fits(&Response { records: vec![long], ..Response::default() }));
        assert!(fits(&Response::default()));
    }
}
