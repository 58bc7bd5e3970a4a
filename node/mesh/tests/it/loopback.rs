//! Whole meshes on 127.0.0.1, in one process, on free ports.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homehost_mesh::{
    GossipVerdict, MeshEvent, Multiaddr, PublishError, Published, RequestError, Role, StartError,
    start,
};
use homehost_protocol::gossip::Topic;
use homehost_protocol::limits::RPC_RESPONSE_BYTES_MAX;
use homehost_protocol::rpc::query::Query;
use homehost_protocol::rpc::{HeldRecord, Request, Response};
use homehost_protocol::{NetworkName, NodeId, ServerId};
use homehost_runtime::Tasks;
use prometheus_client::registry::Registry;
use tokio::time::timeout;

use crate::node::{Node, PATIENCE, config};

async fn publish(node: &Node, message: &[u8]) {
    // Whoever has joined may not have told its topics yet.
    node.status(|status| (status.gossip_peers > 0).then_some(())).await;
    let begun = Instant::now();
    loop {
        match node.handle.publish(Topic::Listings, message.to_vec()).await {
            // On a busy machine nobody sends what is said this fast.
            Err(PublishError::Congested) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            published => return assert_eq!(published.unwrap(), Published::Sent),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_meet_through_a_bootstrap_node_and_no_longer_need_it() {
    let boot = Node::start(config(100, Role::Bootstrap, &[]));
    let at = [boot.address().await];
    let begun = std::time::Instant::now();
    let mut hosts = [1, 2, 3].map(|seed| Node::host(seed, &at));
    let ids: Vec<_> = hosts.iter().map(Node::id).collect();
    for host in &hosts {
        host.knows(ids.iter().copied().filter(|id| *id != host.id())).await;
        host.knows([boot.id()]).await;
    }
    println!("three hosts met in {:?}", begun.elapsed());
    boot.knows(ids.clone()).await;
    boot.status(|status| {
        assert_eq!(status.gossip_peers, 0, "it takes no gossip");
        (status.peers.iter().all(|peer| peer.role == Role::Host)).then_some(())
    })
    .await;
    hosts[0]
        .status(|status| {
            let boot = status.peers.iter().find(|peer| peer.node == boot.id())?;
            assert_eq!((boot.role, boot.holds_replica), (Role::Bootstrap, false));
            assert_eq!(boot.agent, "test/1");
            let host = status.peers.iter().find(|peer| peer.node == ids[1])?;
            assert_eq!((host.role, host.holds_replica), (Role::Host, true));
            let observed = status.observed.first()?;
            assert_eq!(observed.ip, Ipv4Addr::LOCALHOST);
            (observed.peers >= 2).then_some(())
        })
        .await;
    for host in &hosts {
        host.status(|status| (status.gossip_peers == 2).then_some(())).await;
    }

    let gone = boot.id();
    boot.stop().await;
    for host in &mut hosts {
        host.event(|event| {
            matches!(event, MeshEvent::PeerLeft { node } if *node == gone).then_some(())
        })
        .await;
    }
    publish(&hosts[0], b"after the bootstrap node").await;
    for host in &mut hosts[1..] {
        assert_eq!(host.gossip(GossipVerdict::Accept).await.1, b"after the bootstrap node");
    }
    for host in hosts {
        host.stop().await;
    }
}

/// a – b – c, where a and c cannot meet: neither listens.
async fn line() -> [Node; 3] {
    let b = Node::host(2, &[]);
    let at = [b.address().await];
    let [a, c] = [1, 3].map(|seed| {
        let mut config = config(seed, Role::Host, &at);
        config.listen.clear();
        Node::start(config)
    });
    for end in [&a, &c] {
        end.knows([b.id()]).await;
    }
    b.status(|status| (status.gossip_peers == 2).then_some(())).await;
    [a, b, c]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_is_forwarded_when_accepted_and_not_before() {
    let [a, mut b, mut c] = line().await;
    c.event(|event| matches!(event, MeshEvent::GossipJoined).then_some(())).await;
    publish(&a, b"accepted").await;
    assert_eq!(b.gossip(GossipVerdict::Accept).await, (a.id(), b"accepted".to_vec()));
    assert_eq!(c.gossip(GossipVerdict::Accept).await, (b.id(), b"accepted".to_vec()));

    let again = a.handle.publish(Topic::Listings, b"accepted".to_vec()).await.unwrap();
    assert_eq!(again, Published::Duplicate);

    publish(&a, b"ignored").await;
    assert_eq!(b.gossip(GossipVerdict::Ignore).await.1, b"ignored");
    publish(&a, b"rejected").await;
    assert_eq!(b.gossip(GossipVerdict::Reject).await.1, b"rejected");
    c.hears_no_gossip().await;
    assert_eq!(b.metric("homehost_mesh_gossip_total{verdict=\"reject\"}"), "1");
    assert_eq!(b.metric("homehost_mesh_gossip_total{verdict=\"accept\"}"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_invalid_messages_is_no_longer_heard() {
    let [a, mut b, c] = line().await;
    publish(&a, b"invalid").await;
    assert_eq!(b.gossip(GossipVerdict::Reject).await.1, b"invalid");
    publish(&a, b"too late").await;
    publish(&c, b"from another").await;
    assert_eq!(b.gossip(GossipVerdict::Accept).await, (c.id(), b"from another".to_vec()));
    b.hears_no_gossip().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_much_leaves_others_their_turn() {
    let [a, mut b, c] = line().await;
    // More than the reader may be behind.
    for n in 0..600_u32 {
        publish(&a, &n.to_be_bytes()).await;
    }
    let dropped = async {
        while b.metric("homehost_mesh_gossip_total{verdict=\"dropped\"}") == "absent" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, dropped).await.expect("the reader is behind");
    publish(&c, b"from another").await;
    // It comes while nothing is read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    while b.gossip(GossipVerdict::Ignore).await != (c.id(), b"from another".to_vec()) {}
    // And is heard again when it is patient.
    publish(&a, b"one more").await;
    while b.gossip(GossipVerdict::Ignore).await.1 != b"one more" {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_within_limits_and_budget() {
    let [a, mut b, _c] = line().await;
    let asked = Request::Get { ids: vec![ServerId([7; 32])] };
    let answer = Response {
        records: vec![HeldRecord { envelope: vec![1; 700], age_s: Some(5) }; 100],
        cursor: Some(vec![8; 32]),
        ..Response::default()
    };
    let asker = a.handle.clone();
    let (to, question) = (b.id(), asked.clone());
    let asking = tokio::spawn(async move { asker.request(to, question).await });
    async fn reply(b: &mut Node, asked: &Request, answer: Response) {
        let event = loop {
            let event = timeout(PATIENCE, b.events.recv()).await.unwrap().unwrap();
            if matches!(event, MeshEvent::Request { .. }) {
                break event;
            }
        };
        let MeshEvent::Request { on_link, request, reply, .. } = event else { unreachable!() };
        assert!(on_link);
        assert_eq!(request, *asked);
        b.handle.respond(reply, answer).await;
    }
    reply(&mut b, &asked, answer.clone()).await;
    assert_eq!(asking.await.unwrap().unwrap(), answer);

    // Longer than a response may be: it is not sent.
    let asker = a.handle.clone();
    let question = asked.clone();
    let asking = tokio::spawn(async move { asker.request(to, question).await });
    let long = HeldRecord { envelope: vec![1; RPC_RESPONSE_BYTES_MAX], age_s: Some(0) };
    reply(&mut b, &asked, Response { records: vec![long], ..Response::default() }).await;
    assert!(matches!(asking.await.unwrap(), Err(RequestError::Refused(_))));

    // Longer than a request may be: it does not arrive.
    let long = Request::Offer { envelopes: vec![vec![1; 4200]; 16] };
    assert!(matches!(a.handle.request(to, long).await, Err(RequestError::Refused(_))));

    // Nobody is asked who is not connected.
    let other = NodeId(*b"\x3b\x6a\x27\xbc\xce\xb6\xa4\x2d\x62\xa3\xa8\xd0\x2a\x6f\x0d\x73\x65\x32\x15\x77\x1d\xe2\x43\xa6\x3a\xc0\x48\xa1\x8b\x59\xda\x29");
    let nobody = a.handle.request(other, asked.clone()).await;
    assert!(matches!(nobody, Err(RequestError::NotConnected(_))), "{nobody:?}");

    // Over its budget a peer is refused; what arrives is no more than it.
    let mut arrived = 0;
    let refusal = loop {
        let mut asking = std::pin::pin!(a.handle.request(to, asked.clone()));
        tokio::select! {
            answer = &mut asking => break answer,
            event = b.events.recv() => {
                let MeshEvent::Request { reply, .. } = event.unwrap() else { continue };
                arrived += 1;
                assert!(arrived <= 20, "the budget never ends");
                b.handle.respond(reply, Response::default()).await;
                assert_eq!(asking.await.unwrap(), Response::default());
            }
        }
    };
    assert!(arrived > 5, "{arrived}");
    assert!(matches!(refusal, Err(RequestError::Refused(_))), "{refusal:?}");
    assert_eq!(
        b.metric("homehost_mesh_rpc_refused_total{rpc=\"directory\",reason=\"budget\"}"),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_network_are_left() {
    let home = Node::host(1, &[]);
    let at = [home.address().await];
    let mut other = config(2, Role::Host, &at);
    other.network = "other".parse().unwrap();
    let stranger = Node::start(other);
    let friend = Node::host(3, &at);
    home.knows([friend.id()]).await;
    // A peer that never joined leaves no event: only the count shows it.
    let wait = async {
        let name = "homehost_mesh_connections_refused_total{reason=\"network\"}";
        while home.metric(name) == "absent" && stranger.metric(name) == "absent" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("one of them notices");
    for (node, absent) in [(&home, stranger.id()), (&stranger, home.id())] {
        node.status(|status| {
            assert!(status.peers.iter().all(|peer| peer.node != absent));
            Some(())
        })
        .await;
    }
    let asked = stranger
        .handle
        .request(home.id(), Request::Query { query: Query::default(), cursor: None })
        .await;
    assert!(
        matches!(
            asked,
            Err(RequestError::NotConnected(_)
                | RequestError::Refused(_)
                | RequestError::Unsupported)
        ),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_port_in_use_is_told_and_is_an_error_when_it_is_the_only_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let mut only = config(1, Role::Host, &[]);
    only.listen = vec![address.clone()];
    let error = start(only.clone(), &mut Registry::default(), &Tasks::default()).unwrap_err();
    assert!(error.is_address_in_use(), "{error}");
    assert!(matches!(error, StartError::Listen { address: at, .. } if at == address));

    only.listen.push("/ip4/127.0.0.1/tcp/0".parse().unwrap());
    let mut node = Node::start(only);
    node.event(|event| match event {
        MeshEvent::ListenFailed { address: at, kind, .. } => {
            assert_eq!((at, *kind), (&address, std::io::ErrorKind::AddrInUse));
            Some(())
        }
        _ => None,
    })
    .await;
    node.event(|event| matches!(event, MeshEvent::Listening { .. }).then_some(())).await;

    // The cause is said once, by the system. No machine has this address.
    let mut elsewhere = config(3, Role::Host, &[]);
    elsewhere.listen = vec!["/ip4/192.0.2.1/tcp/0".parse().unwrap()];
    let error = start(elsewhere, &mut Registry::default(), &Tasks::default()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.source().is_none(), "{error}: {cause}");

    // A second mesh on the port of a first is refused too, although libp2p
    // itself would share it.
    let port_of_first = node.address().await;
    let mut second = config(2, Role::Host, &[]);
    second.listen = vec![port_of_first.iter().take(2).collect()];
    let error = start(second, &mut Registry::default(), &Tasks::default()).unwrap_err();
    assert!(error.is_address_in_use(), "{error}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_node_that_comes_later_is_found_by_a_node_that_knows_another() {
    let a = Node::host(1, &[]);
    // A port that was free a moment ago.
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let later: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let b = Node::host(2, &[a.address().await, later.clone()]);
    b.knows([a.id()]).await;
    let mut third = config(3, Role::Host, &[]);
    third.listen = vec![later];
    let c = Node::start(third);
    b.knows([c.id()]).await;
    a.knows([c.id()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_works_and_its_port_is_exclusive() {
    let mut first = config(1, Role::Host, &[]);
    first.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    let first = Node::start(first);
    let at = first.address().await;
    let second = Node::host(2, std::slice::from_ref(&at));
    second.knows([first.id()]).await;
    let mut third = config(3, Role::Host, &[]);
    third.listen = vec![at.iter().take(3).collect()];
    let error = start(third, &mut Registry::default(), &Tasks::default()).unwrap_err();
    assert!(error.is_address_in_use(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_node_stops_within_a_second() {
    let [a, b, c] = line().await;
    let at = b.address().await;
    // Someone who connects and says nothing, and someone who says a lot.
    let port = at.iter().nth(1).unwrap().to_string();
    let port: u16 = port.rsplit('/').next().unwrap().parse().unwrap();
    let _silent: Vec<_> = (0..8)
        .map(|_| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap())
        .collect();
    let talkers = [&a, &b, &c].map(|node| {
        let handle = node.handle.clone();
        tokio::spawn(async move {
            for number in 0_u32.. {
                let message = number.to_be_bytes().repeat(50);
                if handle.publish(Topic::Presence, message).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = std::time::Instant::now();
    b.tasks.handle().stop();
    timeout(PATIENCE, b.tasks.drained()).await.expect("it stops");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for talker in talkers {
        talker.abort();
    }
}

#[tokio::test]
async fn a_lone_host_publishes_to_nobody_without_an_error() {
    let node = Node::host(1, &[]);
    let published = node.handle.publish(Topic::Presence, b"hello".to_vec()).await.unwrap();
    assert_eq!(published, Published::NoPeers);
    assert!(node.handle.publish(Topic::Presence, vec![0; 9000]).await.is_err());
    let network: NetworkName = "mesh-test".parse().unwrap();
    assert!(!network.is_main());
    node.stop().await;
}
