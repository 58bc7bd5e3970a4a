//! Thin clients at a host. Those at a bootstrap node are in
//! `bootstrap/tests/clients.rs`.

use std::time::Duration;

use homehost_mesh::ask::{AskConnection, AskError, ask};
use homehost_mesh::{MeshEvent, Multiaddr, Protocol, Role};
use homehost_protocol::rpc::query::Query;
use homehost_protocol::rpc::{HeldRecord, Request, Response};
use homehost_protocol::{RootId, ServerId};
use tokio::time::timeout;

use crate::node::{Node, PATIENCE, config};

const TIME: Duration = Duration::from_secs(10);

fn search() -> Request {
    Request::Query { query: Query::default(), cursor: None }
}

/// Answers clients, and notes that nobody joins.
fn answer_clients(mut node: Node) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(event) = node.events.recv().await {
            match event {
                MeshEvent::Request { client, on_link, request, reply, .. } => {
                    assert!(client && on_link);
                    let matching = match request {
                        Request::Query { .. } => 1,
                        Request::Get { .. } => 2,
                        Request::Chains { .. } => 3,
                        other => panic!("{other:?}"),
                    };
                    let records = vec![HeldRecord { envelope: vec![1; 700], age_s: Some(5) }];
                    let network = Some("mesh-test".parse().unwrap());
                    let matching = Some(matching);
                    let response = Response { records, network, matching, ..Response::default() };
                    node.handle.respond(reply, response).await;
                }
                MeshEvent::PeerJoined { .. } => panic!("a client is no peer"),
                _ => {}
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_searches_without_joining_and_within_its_budget() {
    let host = Node::host(1, &[]);
    let (at, id, handle) = (host.address().await, host.id(), host.handle.clone());
    let answering = answer_clients(host);
    let requests = [
        search(),
        Request::Get { ids: vec![ServerId([1; 32]); 64] },
        Request::Chains { roots: vec![RootId([1; 32])] },
    ];
    let responses = ask(&at, requests, TIME).await.unwrap();
    let matching: Vec<_> = responses.iter().map(|response| response.matching.unwrap()).collect();
    assert_eq!(matching, [1, 2, 3]);
    assert_eq!(responses[0].records[0].envelope.len(), 700);

    // Without the node's id, too.
    let bare: Multiaddr = at.iter().take(2).collect();
    let mut client = AskConnection::connect(&bare, TIME).await.unwrap();
    assert_eq!(client.node(), id);
    assert_eq!(client.network().unwrap().as_str(), "mesh-test");
    let refused = client.request(Request::Offer { envelopes: vec![vec![1; 10]] }).await;
    assert!(matches!(refused, Err(AskError::Refused)), "{refused:?}");
    let mut answered = 0;
    let refusal = loop {
        match client.request(search()).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
        assert!(answered <= 12, "the budget never ends");
    };
    assert!(answered >= 8, "{answered}");
    assert!(matches!(refusal, AskError::Refused), "{refusal:?}");
    let traffic = handle.traffic();
    let (received, sent) = traffic.of(Protocol::Query);
    assert!(sent > 8 * 700 && received > 8 * 30, "{received} in, {sent} out");
    assert!(traffic.of(Protocol::Identify).1 > 0);
    assert_eq!((traffic.of(Protocol::Directory), traffic.of(Protocol::Attest)), ((0, 0), (0, 0)));
    let status = handle.status().borrow().clone();
    assert!(status.peers.is_empty() && status.gossip_peers == 0);
    assert!(!answering.is_finished(), "nobody joined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_leave_places_for_peers() {
    let host = Node::host(1, &[]);
    let at = host.address().await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = AskConnection::connect(&at, TIME).await.unwrap();
        // Whoever was refused a place would be told now.
        let refused = client.request(Request::Records { ids: vec![] }).await;
        assert!(matches!(refused, Err(AskError::Refused)), "{refused:?}");
        clients.push(client);
    }
    let wait = async {
        while host.metric("homehost_mesh_clients") != "16" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("all are counted");
    let too_many = match AskConnection::connect(&at, TIME).await {
        Ok(mut client) => client.request(search()).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(too_many, Err(AskError::Closed | AskError::Refused)), "{too_many:?}");
    let friend = Node::host(2, std::slice::from_ref(&at));
    friend.knows([host.id()]).await;
    drop(clients);
    let wait = async {
        while host.metric("homehost_mesh_clients") != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("all have left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_wrong_is_said_precisely() {
    let host = Node::host(1, &[]);
    let at = host.address().await;
    let other = Node::start(config(2, Role::Host, &[]));
    let wrong: Multiaddr =
        format!("{}/p2p/{}", at.iter().take(2).collect::<Multiaddr>(), other.id()).parse().unwrap();
    let error = AskConnection::connect(&wrong, TIME).await.unwrap_err();
    assert!(matches!(&error, AskError::WrongPeer { found, .. } if *found == host.id().to_string()));

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let mute: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", silent_at.port()).parse().unwrap();
    let error = AskConnection::connect(&mute, Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, AskError::Timeout), "{error:?}");
    drop(silent);
    let error = AskConnection::connect(&mute, TIME).await.unwrap_err();
    assert!(
        matches!(&error, AskError::Dial { reason, .. } if reason.contains("refused")),
        "{error:?}"
    );

    let odd: Multiaddr = "/ip4/127.0.0.1/tcp/1/ws".parse().unwrap();
    let error = AskConnection::connect(&odd, TIME).await.unwrap_err();
    assert!(matches!(error, AskError::Dial { .. }), "{error:?}");

    let mut client = AskConnection::connect(&at, TIME).await.unwrap();
    host.stop().await;
    let error = client.request(search()).await.unwrap_err();
    assert!(matches!(error, AskError::Closed | AskError::Refused), "{error:?}");
    let error = client.request(search()).await.unwrap_err();
    assert!(matches!(error, AskError::Closed), "{error:?}");
}
