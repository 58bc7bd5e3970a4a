//! A bootstrap node with as many connections as it should bear: peers that are
//! light, so that two thousand fit into one process, and do on the wire what
//! hosts do when nothing happens.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use homehost_tests::{Bootstrap, Test};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Transport as _, identify, kad, noise, ping, tcp, yamux};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::table::{Table, memory};

/// Longest wait until all are connected.
const JOIN: Duration = Duration::from_secs(300);

/// Handshakes that are begun at once: nobody's computer does two thousand.
const AT_ONCE: usize = 64;

/// How often each looks for peers, as a host that knows few does.
const WALK: Duration = Duration::from_secs(60);

#[derive(NetworkBehaviour)]
struct Speech {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

fn swarm(network: &str) -> Swarm<Speech> {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let transport = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).expect("a key"))
        .multiplex(yamux::Config::default())
        .boxed();
    let version = format!("/homehost/1/{network}");
    let kad_name = StreamProtocol::try_from_owned(format!("/homehost/{network}/kad/1.0.0"));
    let mut kad_config = kad::Config::new(kad_name.expect("a name"));
    // Only the bootstrap node is asked: whoever it names is not dialled.
    kad_config
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_periodic_bootstrap_interval(None);
    let mut kad = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), kad_config);
    kad.set_mode(Some(kad::Mode::Client));
    let speech = Speech {
        identify: identify::Behaviour::new(
            identify::Config::new(version, key.public())
                .with_agent_version("homehost/0.1.0 (host)".into())
                .with_cache_size(0),
        ),
        ping: ping::Behaviour::default(),
        kad,
    };
    let config =
        swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    Swarm::new(transport, speech, peer, config)
}

/// What all peers of a crowd share.
struct Shared {
    at: Multiaddr,
    network: String,
    connected: AtomicUsize,
    /// Rises when peers are to come anew.
    round: watch::Receiver<usize>,
    begin: tokio::sync::Semaphore,
}

/// Peers in this process.
struct Crowd {
    runtime: Runtime,
    shared: Arc<Shared>,
    round: watch::Sender<usize>,
    count: usize,
}

impl Crowd {
    fn new(bootstrap: &Bootstrap<'_>, network: &str, count: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let (round, rounds) = watch::channel(0);
        let shared = Arc::new(Shared {
            at: bootstrap.address().parse().expect("a multiaddr"),
            network: network.to_owned(),
            connected: AtomicUsize::new(0),
            round: rounds,
            begin: tokio::sync::Semaphore::new(AT_ONCE),
        });
        let runtime = runtime.expect("threads");
        for n in 0..count {
            runtime.spawn(live(n, Arc::clone(&shared)));
        }
        Self { runtime, shared, round, count }
    }

    fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Relaxed)
    }

    fn all_are_there(&self) {
        let begun = Instant::now();
        while self.connected() < self.count {
            assert!(begun.elapsed() < JOIN, "{} of {}", self.connected(), self.count);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Some leave and come again, with another id each: the `step`th of `steps`.
    fn churn(&self, step: usize) {
        self.round.send_replace(step);
    }
}

/// How many parts a crowd churns in.
const PARTS: usize = 32;

/// One peer: joins, looks for others now and then, and comes anew when told.
async fn live(n: usize, shared: Arc<Shared>) {
    let mut round = shared.round.clone();
    loop {
        let mut swarm = swarm(&shared.network);
        let turn = shared.begin.acquire().await.expect("it is never closed");
        swarm.dial(shared.at.clone()).expect("an address that can be dialled");
        let mut turn = Some(turn);
        // They do not all look at the same time.
        let first = Duration::from_millis(n as u64 * 29 % WALK.as_millis() as u64);
        let mut walk = tokio::time::interval_at(tokio::time::Instant::now() + first, WALK);
        loop {
            tokio::select! {
                changed = round.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if *round.borrow_and_update() % PARTS == n % PARTS {
                        break;
                    }
                }
                _ = walk.tick() => {
                    swarm.behaviour_mut().kad.get_closest_peers(libp2p::PeerId::random());
                }
                event = swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                        let at = endpoint.get_remote_address().clone();
                        swarm.behaviour_mut().kad.add_address(&peer_id, at);
                    }
                    SwarmEvent::Behaviour(SpeechEvent::Identify(identify::Event::Received {
                        ..
                    })) => {
                        let first = usize::from(turn.take().is_some());
                        shared.connected.fetch_add(first, Ordering::Relaxed);
                    }
                    SwarmEvent::OutgoingConnectionError { .. } if turn.is_some() => break,
                    SwarmEvent::ConnectionClosed { .. } => break,
                    _ => {}
                },
            }
        }
        if turn.is_none() {
            shared.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What the operator's command says.
fn status(test: &Test) -> Value {
    let mut command = Command::new(test.bootstrap_program());
    command.args(["status", "--json", "--data-dir"]).arg(test.folder().join("bootstrap"));
    let output = command.output().expect("the program is there");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Waits until it knows so many hosts: its own figures are some seconds old.
fn knows(test: &Test, count: usize) -> Value {
    let begun = Instant::now();
    loop {
        let status = status(test);
        if status["hosts"] == count {
            return status;
        }
        assert!(begun.elapsed() < JOIN, "it knows {} of {count}", status["hosts"]);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Seconds of a processor that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name may have spaces in it; the twelfth and thirteenth after it count.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields[12..14].iter().map(|ticks| ticks.parse().unwrap_or(0.0)).sum();
    ticks / 100.0
}

/// Percent of one core in a while.
fn load(pid: u32, mut during: impl FnMut()) -> f64 {
    let (before, begun) = (cpu(pid), Instant::now());
    during();
    (cpu(pid) - before) / begun.elapsed().as_secs_f64() * 100.0
}

#[test]
fn a_small_crowd_is_known_and_goes_again() {
    let test = Test::new();
    let bootstrap = test.bootstrap();
    let crowd = Crowd::new(&bootstrap, test.network(), PARTS);
    crowd.all_are_there();
    let status = knows(&test, PARTS);
    assert_eq!(status["joins"], PARTS);
    crowd.churn(1);
    let begun = Instant::now();
    while knows(&test, PARTS)["joins"] != PARTS + 1 {
        assert!(begun.elapsed() < JOIN, "nobody came anew");
    }
    crowd.runtime.shutdown_background();
    knows(&test, 0);
}

#[test]
#[ignore = "takes minutes: cargo xtask prove --only bootstrap"]
fn two_thousand_connections() {
    const COUNT: usize = 2000;
    let test = Test::new();
    let mut table = Table::new("bootstrap: 2,000 connections to one node");
    let bootstrap = test.bootstrap();
    let pid = bootstrap.pid();
    let empty = memory(pid);
    let begun = Instant::now();
    let crowd = Crowd::new(&bootstrap, test.network(), COUNT);
    let busy = load(pid, || crowd.all_are_there());
    let joined = begun.elapsed();
    let status = knows(&test, COUNT);
    table.figure("all are there after", &format!("{:.1} s", joined.as_secs_f64()));
    table.figure("load while they come", &format!("{busy:.0} %"));
    let join = |what: &str| status[what].as_f64().unwrap_or_default();
    table.figure("join: p50", &format!("{:.0} ms", join("join_ms_p50")));
    table.figure("join: p99", &format!("{:.0} ms", join("join_ms_p99")));

    let before = status["received_bytes"].as_f64().unwrap_or_default();
    let idle = load(pid, || std::thread::sleep(Duration::from_secs(60)));
    table.at_most("load when nothing happens", (idle, 50.0), "%");
    let status = knows(&test, COUNT);
    let bytes = status["received_bytes"].as_f64().unwrap_or_default() - before;
    table.figure("bytes a second that come", &format!("{:.0} kB/s", bytes / 60_000.0));
    table.figure("memory when it was empty", &format!("{empty:.0} MB"));
    table.at_most("memory", (memory(pid), 512.0), "MB");

    // Half of them go and come again, a part each second.
    let mut most = 0.0_f64;
    let churn = load(pid, || {
        for step in 1..=PARTS / 2 {
            crowd.churn(step);
            std::thread::sleep(Duration::from_secs(1));
            most = most.max(memory(pid));
        }
        crowd.all_are_there();
    });
    table.at_most("load while 62 a second go and come", (churn, 50.0), "%");
    table.at_most("memory then, at most", (most, 512.0), "MB");
    let status = knows(&test, COUNT);
    let p99 = status["join_ms_p99"].as_f64().unwrap_or_default();
    table.figure("join then: p99", &format!("{p99:.0} ms"));
    crowd.runtime.shutdown_background();
}
