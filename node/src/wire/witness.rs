//! Being a witness: a host asks whether we reach one of its servers, and we ask
//! the game by its own query (spec/mesh §9).
//!
//! We ask at one place only: the address at which we see that host on its own
//! authenticated connection. So nobody can point us at somebody else.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use homehost_directory::proof::TargetPace;
use homehost_mesh::{AttestToken, MeshHandle};
use homehost_protocol::keys::DeviceKey;
use homehost_protocol::record::reach::Probe;
use homehost_protocol::rpc::attest::{AttestRefusal, AttestRequest, AttestResponse};
use homehost_protocol::{JoinAddress, NetworkName, NodeId, UnixMillis};
use homehost_runtime::wall_ms;
use tokio::sync::Semaphore;

/// Games that are asked at one time.
const AT_ONCE: usize = 8;

/// Ports below this belong to the system, and no game of a home listens there.
const PORT_MIN: u16 = 1024;

/// Answers hosts who ask for a witness.
#[derive(Clone)]
pub(crate) struct Witness {
    mesh: MeshHandle,
    network: NetworkName,
    node: DeviceKey,
    pace: Arc<Mutex<TargetPace>>,
    permits: Arc<Semaphore>,
}

impl Witness {
    /// A witness that signs with the node's own key.
    pub(crate) fn new(mesh: MeshHandle, network: NetworkName, node: DeviceKey) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { mesh, network, node, pace: Arc::default(), permits }
    }

    /// The network for which it signs.
    pub(crate) fn network(&self) -> &NetworkName {
        &self.network
    }

    /// A host asks; `address` is where we see it.
    pub(crate) fn asked(
        &self,
        from: NodeId,
        address: Option<IpAddr>,
        request: AttestRequest,
        reply: AttestToken,
    ) {
        let witness = self.clone();
        tokio::spawn(async move {
            let response = witness.look(address, &request).await;
            if let Err(refusal) = &response {
                tracing::debug!(%from, "did not witness: {refusal}");
            }
            witness.mesh.respond_attest(reply, response).await;
        });
    }

    async fn look(&self, address: Option<IpAddr>, request: &AttestRequest) -> AttestResponse {
        let ip = address.ok_or(AttestRefusal::NotDirect)?;
        if request.port < PORT_MIN {
            return Err(AttestRefusal::Port);
        }
        let _permit = self.permits.try_acquire().map_err(|_| AttestRefusal::Busy)?;
        let socket = SocketAddr::new(ip, request.port);
        let may = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.take(socket, Instant::now())
        };
        if !may {
            return Err(AttestRefusal::TooSoon);
        }
        let players = homehost_hosting::probe(socket, request.protocol)
            .await
            .ok_or(AttestRefusal::NoAnswer)?;
        let address = JoinAddress { socket, transport: request.transport() };
        let probe = Probe { server: request.server, address, protocol: request.protocol };
        Ok((ip, probe.attest(&self.network, UnixMillis(wall_ms()), players, &self.node)))
    }
}
