//! More answers than may wait to be read (spec/mesh §7). That written ones count
//! while they wait is tested with js-libp2p, which can leave them unread.

use std::time::{Duration, Instant};

use homehost_mesh::{MeshEvent, Role};
use homehost_protocol::rpc::{HeldRecord, Request, Response};
use homehost_protocol::{NodeId, ServerId};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::node::{Node, PATIENCE, config};

/// Requests of one peer at once: its whole budget.
const BURST: usize = 16;
/// As many as make the pool of answers too small for all their bursts.
const GREEDY: u8 = 16;

fn burst(node: &Node, to: NodeId) -> Vec<JoinHandle<bool>> {
    let ask = || {
        let handle = node.handle.clone();
        let request = Request::Get { ids: vec![ServerId([7; 32])] };
        tokio::spawn(async move { handle.request(to, request).await.is_ok() })
    };
    (0..BURST).map(|_| ask()).collect()
}

async fn answered(asking: Vec<JoinHandle<bool>>) -> usize {
    let all = timeout(PATIENCE, futures::future::join_all(asking)).await.unwrap();
    all.into_iter().filter(|asked| *asked.as_ref().unwrap()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_more_ask_the_less_each_gets_and_nobody_gets_nothing() {
    let mut host = Node::host(1, &[]);
    let (id, at) = (host.id(), host.address().await);
    let node = |seed| {
        let mut config = config(seed, Role::Host, std::slice::from_ref(&at));
        config.listen.clear();
        Node::start(config)
    };
    let greedy: Vec<_> = (0..GREEDY).map(|n| node(10 + n)).collect();
    let [late, last] = [2, 3].map(node);
    for node in greedy.iter().chain([&late, &last]) {
        node.knows([id]).await;
        host.knows([node.id()]).await;
    }
    let unread = "homehost_mesh_rpc_refused_total{rpc=\"directory\",reason=\"unread\"}";
    let refused = |host: &Node| host.metric(unread).parse().unwrap_or(0_usize);

    // Nothing is answered until all have asked.
    let asking: Vec<_> = greedy.iter().flat_map(|node| burst(node, id)).collect();
    let all = asking.len();
    let mut replies = Vec::new();
    let begun = Instant::now();
    while replies.len() + refused(&host) < all {
        assert!(begun.elapsed() < PATIENCE, "{} and {}", replies.len(), refused(&host));
        // The last may be refused, of which no event tells.
        let next = timeout(Duration::from_millis(50), host.events.recv()).await;
        if let Ok(Some(MeshEvent::Request { from, reply, .. })) = next {
            replies.push((from, reply));
        }
    }
    println!("{} of {all} requests of {GREEDY} peers are passed on", replies.len());
    assert!(replies.len() <= 128, "the pool has room for 128");
    for node in &greedy {
        assert!(replies.iter().any(|(from, _)| *from == node.id()), "one has nothing");
    }
    let one = burst(&late, id);
    let before = replies.len();
    while replies.len() == before {
        let next = timeout(PATIENCE, host.events.recv());
        if let MeshEvent::Request { from, reply, .. } = next.await.unwrap().unwrap() {
            assert_eq!(from, late.id());
            replies.push((from, reply));
        }
    }

    // When they are answered there is room for all again.
    let long = HeldRecord { envelope: vec![1; 700], age_s: Some(0) };
    let long = Response { records: vec![long; 180], ..Response::default() };
    let passed = replies.len();
    let handle = host.handle.clone();
    let answering = tokio::spawn(async move {
        for (_, reply) in replies {
            handle.respond(reply, long.clone()).await;
        }
        while let Some(event) = host.events.recv().await {
            if let MeshEvent::Request { reply, .. } = event {
                handle.respond(reply, long.clone()).await;
            }
        }
    });
    let served = answered(asking).await + answered(one).await;
    assert!(served >= passed, "{served} of {passed}");
    assert_eq!(answered(burst(&last, id)).await, BURST);
    answering.abort();
}
