//! A thin client at a bootstrap node: the program itself, and hosts in this
//! process, on 127.0.0.1.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use homehost_mesh::ask::{AskConnection, ask};
use homehost_mesh::{
    DhtConfig, MeshConfig, MeshEvent, Multiaddr, OperatorConfig, PeersConfig, Role, start,
};
use homehost_protocol::rpc::query::Query;
use homehost_protocol::rpc::{HeldRecord, Request, Response, Trouble};
use homehost_runtime::Tasks;
use prometheus_client::registry::Registry;

const TIME: Duration = Duration::from_secs(10);

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bootstrap(folder: &std::path::Path) -> (Daemon, Multiaddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homehost-bootstrap"));
    command.args(["--data-dir", folder.to_str().unwrap(), "--network", "test"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let daemon = Daemon(child);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).unwrap();
    (daemon, line.trim_end().parse().unwrap())
}

/// A host that answers with its number, or closes without an answer.
fn host(seed: u8, at: &Multiaddr, answers: bool, tasks: &Tasks) {
    let config = MeshConfig {
        key_seed: [seed; 32],
        network: "test".parse().unwrap(),
        role: Role::Host,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        bootstrap: vec![at.clone()],
        external: vec![],
        mdns: false,
        port_mapping: false,
        dht: DhtConfig::default(),
        peers: PeersConfig::default(),
        operator: OperatorConfig::default(),
        agent: "test/1".into(),
    };
    let (handle, mut events) = start(config, &mut Registry::default(), tasks).unwrap();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let MeshEvent::Request { client, reply, .. } = event else { continue };
            assert!(!client, "a bootstrap node is a peer");
            if answers {
                let records = vec![HeldRecord { envelope: vec![seed; 700], age_s: Some(5) }; 100];
                handle.respond(reply, Response { records, ..Response::default() }).await;
            }
        }
    });
}

fn search() -> Request {
    Request::Query { query: Query::default(), cursor: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_go_to_a_host_that_answers_and_without_one_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (_daemon, at) = bootstrap(folder.path());
    let alone = ask(&at, [search()], TIME).await.unwrap().remove(0);
    let network = Some("test".parse().unwrap());
    assert_eq!((alone.trouble, &alone.network), (Some(Trouble::NoReplica), &network));

    let tasks = Tasks::default();
    host(1, &at, true, &tasks);
    host(2, &at, false, &tasks);
    // Each client has a host of its own first, by lot; the mute one must be the
    // first of some.
    let mut answered = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while answered < 6 {
        assert!(tokio::time::Instant::now() < deadline, "{answered} answered");
        let Ok(mut client) = AskConnection::connect(&at, TIME).await else { continue };
        let response = client.request(search()).await.unwrap();
        if response.trouble == Some(Trouble::NoReplica) && answered == 0 {
            // The host has not joined yet.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        assert_eq!((response.trouble, &response.network), (None, &network));
        assert_eq!(response.records.len(), 100);
        assert_eq!(response.records[0].envelope, [1; 700]);
        answered += 1;
    }
    tasks.handle().stop();
}
