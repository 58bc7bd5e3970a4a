//! The witness RPC.

use std::net::{IpAddr, Ipv4Addr};

use homehost_mesh::{AttestToken, MeshEvent, RequestError, Role};
use homehost_protocol::record::reach::{Probe, ProbeProtocol};
use homehost_protocol::rpc::attest::{AttestRefusal, AttestRequest};
use homehost_protocol::{DeviceKey, JoinAddress, NodeId, ServerId, UnixMillis};
use tokio::time::timeout;

use crate::node::{Node, PATIENCE, config};

type Asked = (NodeId, Option<IpAddr>, AttestRequest, AttestToken);

async fn asked(node: &mut Node) -> Asked {
    loop {
        let event = timeout(PATIENCE, node.events.recv()).await.unwrap().unwrap();
        if let MeshEvent::AttestRequest { from, address, request, reply } = event {
            return (from, address, request, reply);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_is_told_who_asks_from_where_and_its_statement_comes_back() {
    let mut witness = Node::host(1, &[]);
    let at = [witness.address().await];
    let host = Node::host(2, &at);
    host.knows([witness.id()]).await;
    witness.knows([host.id()]).await;
    let protocol = ProbeProtocol::A2s;
    let request = AttestRequest { server: ServerId([1; 32]), port: 30_000, protocol };
    let to = witness.id();
    let ask = || {
        let (handle, request) = (host.handle.clone(), request.clone());
        tokio::spawn(async move { handle.attest(to, request).await })
    };

    let asking = ask();
    let (from, address, what, reply) = asked(&mut witness).await;
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    assert_eq!((from, address, &what), (host.id(), Some(ip), &request));
    let socket = std::net::SocketAddr::new(ip, what.port);
    let address = JoinAddress { socket, transport: what.transport() };
    let probe = Probe { server: what.server, address, protocol };
    let network = "mesh-test".parse().unwrap();
    let statement = probe.attest(&network, UnixMillis(5), Some(3), &DeviceKey::from_seed([1; 32]));
    witness.handle.respond_attest(reply, Ok((ip, statement.clone()))).await;
    let (seen_at, attest) = asking.await.unwrap().unwrap().unwrap();
    assert_eq!((seen_at, &attest), (ip, &statement));
    assert!(probe.is_attested_by(&network, &attest));
    assert_eq!(attest.node(), to);

    let asking = ask();
    let (.., reply) = asked(&mut witness).await;
    witness.handle.respond_attest(reply, Err(AttestRefusal::TooSoon)).await;
    assert_eq!(asking.await.unwrap().unwrap(), Err(AttestRefusal::TooSoon));

    // Six more are within the budget, dropped though they are, and no seventh.
    for _ in 0..6 {
        let asking = ask();
        drop(asked(&mut witness).await);
        assert!(matches!(asking.await.unwrap(), Err(RequestError::Refused(_))));
    }
    assert!(matches!(ask().await.unwrap(), Err(RequestError::Refused(_))));
    let refused = "homehost_mesh_rpc_refused_total{rpc=\"attest\",reason=\"budget\"}";
    assert_eq!(witness.metric(refused), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_node_is_no_witness() {
    let boot = Node::start(config(100, Role::Bootstrap, &[]));
    let at = [boot.address().await];
    let host = Node::host(1, &at);
    host.knows([boot.id()]).await;
    let request =
        AttestRequest { server: ServerId([1; 32]), port: 30_000, protocol: ProbeProtocol::Tcp };
    let asked = host.handle.attest(boot.id(), request).await;
    assert!(matches!(asked, Err(RequestError::Unsupported)), "{asked:?}");
}
