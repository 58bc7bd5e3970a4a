//! Starting a node, and stopping it so that nothing is lost.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homehost_api::ErrorKind;
use homehost_dashboard::Token;
use homehost_hosting::{HostingConfig, HostingHandle, RunAs};
use homehost_mesh::{
    DhtConfig, EnvelopeRules, MeshConfig, MeshHandle, Multiaddr, OperatorConfig, PeersConfig, Role,
};
use homehost_protocol::NetworkName;
use homehost_protocol::keys::DeviceKey;
use homehost_runtime::Tasks;
use homehost_store::{DataDir, Ledger, Replica};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::watch::{Loaded, OnNetwork, SetLog, Settings};
use crate::control::{Control, HomeAddress, Stop};
use crate::exit::{self, Failure, failure};
use crate::identity::Identity;
use crate::identity::keys::Keys;
use crate::place;
use crate::run_log::{RunLog, Why};
use crate::wire::announce::Announcement;
use crate::wire::audit::{self, Audit};
use crate::wire::clock::ClockHandle;
use crate::wire::definitions::DefinitionPort;
use crate::wire::exchange::{Exchange, RepairStats};
use crate::wire::forwards::Forwards;
use crate::wire::memory::PeerPort;
use crate::wire::own_keys::OwnKeys;
use crate::wire::phone_book::PhoneBook;
use crate::wire::prove::{Prover, Reports};
use crate::wire::replica::{DhtPort, ReplicaPort};
use crate::wire::storage::Storage;
use crate::wire::witness::Witness;

/// First of the ports on which the API is looked for.
const HTTP_PORT: u16 = 7780;
/// How many ports after it are tried: as many nodes of one machine.
const HTTP_PORTS: u16 = 100;

/// First of the ports on which the mesh listens when nothing is said.
const MESH_PORT: u16 = 4011;
/// How many ports after it are tried.
const MESH_PORTS: u16 = 20;

/// Time that open work gets after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// Time that the stores then get to close: a disk that does not answer must not
/// keep the node from ending.
const CLOSE: Duration = Duration::from_secs(5);

/// Gossip that was handed to the mesh leaves within a few round trips.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// How a node is started; paths are absolute.
#[derive(Debug)]
pub(crate) struct UpConfig {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) bootstrap: Vec<Multiaddr>,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) network: Option<NetworkName>,
    pub(crate) mdns: bool,
    pub(crate) port_mapping: bool,
}

/// A node that is up.
pub(crate) struct Daemon {
    pub(crate) control: Arc<Control>,
    pub(crate) http: SocketAddr,
    tasks: Tasks,
    data_dir: PathBuf,
    asked: watch::Receiver<Stop>,
    ledger: Ledger,
    replica: Replica,
    log: RunLog,
    /// Held until the end: its lock keeps a second daemon away.
    _folder: DataDir,
}

impl Daemon {
    /// Starts every part, in the order in which they need each other. What can
    /// be refused is refused before anything is told to others.
    ///
    /// # Errors
    /// One sentence and an exit code.
    pub(crate) async fn start(
        config: UpConfig,
        loaded: Loaded,
        set_log: SetLog,
    ) -> Result<Self, Failure> {
        let started = Instant::now();
        let http = bind_http(config.http)?;
        let folder = DataDir::open(&config.data_dir).map_err(|error| exit::opening(&error))?;
        // What a daemon that was killed left there is no longer true.
        place::withdraw(&config.data_dir);
        let identity = Identity::open(&config.data_dir.join("identity"))
            .map_err(|error| exit::identity(&error))?;
        let token = place::new_token(&config.data_dir).map_err(|error| {
            let path = place::token_file(&config.data_dir);
            let text =
                format!("failed to write {}: {error}; {}", path.display(), exit::next(&error));
            failure(exit::of_io(&error), text)
        })?;
        let unsaid = network_of(&config.listen);
        let network = config.network.unwrap_or_else(|| unsaid.clone());
        let node_seed = identity.node_seed().map_err(|error| exit::identity(&error))?;
        let keys = Arc::new(Keys::new(identity, network.clone()));

        let tasks = Tasks::default();
        let lost = crate::lost::servers_without_ledger(&config.data_dir);
        let ledger = Ledger::open(&folder, &tasks).map_err(|error| exit::opening(&error))?;
        // Only now: a ledger that cannot be made either is said by itself.
        let lost = lost.map(|folders| crate::lost::began_anew(&folders));
        if let Some(lost) = &lost {
            tracing::warn!("{lost}");
        }
        let (replica, opened) =
            Replica::open(&folder, &tasks).map_err(|error| exit::opening(&error))?;
        if let Some(healed) = opened.healed {
            tracing::warn!("{healed}");
        }
        let directory = homehost_directory::start(
            network.clone(),
            Arc::new(ReplicaPort(replica.clone())),
            &tasks,
        )
        .await;

        let (dht_port, dht_writer, held) = DhtPort::open(replica.clone(), &network).await;
        tasks.spawn("dht-writer", dht_writer.run(tasks.shutdown()));

        let (peer_port, peer_writer, peers) = PeerPort::open(ledger.clone(), &network).await;
        tasks.spawn("peer-writer", peer_writer.run(tasks.shutdown()));

        let mut registry = Registry::default();
        let mesh_config = MeshConfig {
            key_seed: node_seed,
            network: network.clone(),
            role: Role::Host,
            listen: if config.listen.is_empty() { default_listen() } else { config.listen },
            bootstrap: config.bootstrap,
            external: Vec::new(),
            mdns: config.mdns,
            port_mapping: config.port_mapping,
            dht: DhtConfig {
                rules: Arc::new(EnvelopeRules::new(network.clone(), Arc::new(directory.keys()))),
                keeper: Arc::new(dht_port),
                held,
            },
            operator: OperatorConfig::default(),
            peers: PeersConfig { held: peers, keeper: Arc::new(peer_port) },
            agent: concat!("homehost/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let (mesh, events) = homehost_mesh::start(mesh_config, &mut registry, &tasks)
            .map_err(|error| exit::mesh(&error))?;

        let on = OnNetwork { name: network.clone(), unsaid };
        let (settings, follow) = Settings::new(loaded, on, mesh.clone(), set_log);
        tasks.spawn("settings", follow.run(tasks.shutdown()));

        let hosting = start_hosting(&config.data_dir, &ledger, &tasks).await?;
        let clock = ClockHandle::new();
        let announcement = Announcement {
            clock: clock.clone(),
            network: network.clone(),
            keys: keys.watch(),
            ledger: ledger.clone(),
            mesh: mesh.clone(),
            directory: directory.clone(),
            servers: hosting.servers(),
        };
        let (announcer, announce) =
            announcement.open().await.map_err(|error| exit::storing(&error))?;
        tasks.spawn("announce", announce.run(tasks.shutdown()));
        let node = DeviceKey::from_seed(node_seed);
        let witness = Witness::new(mesh.clone(), network.clone(), node.clone());
        let repairs = Arc::<RepairStats>::default();
        let exchange = Exchange::new(
            mesh.clone(),
            directory.clone(),
            announcer.clone(),
            clock.clone(),
            witness,
            repairs.clone(),
        );
        tasks.spawn("exchange", exchange.run(events, tasks.shutdown()));
        let (reports_in, reports) = watch::channel(Reports::default());
        let prover = Prover {
            mesh: mesh.clone(),
            announcer: announcer.clone(),
            network: network.clone(),
            servers: hosting.servers(),
            reports: reports_in,
        };
        tasks.spawn("prove", prover.run(tasks.shutdown()));
        let forwards = Forwards { mesh: mesh.clone(), servers: hosting.servers() };
        tasks.spawn("forward-ports", forwards.run(tasks.shutdown()));
        let phone_book = PhoneBook {
            clock: clock.clone(),
            mesh: mesh.clone(),
            directory: directory.clone(),
            ledger: ledger.clone(),
            network,
            node,
            keys: keys.watch(),
            said: announcer.said(),
        };
        tasks.spawn("phone-book", phone_book.run(tasks.shutdown()));
        let own_keys =
            OwnKeys { mesh: mesh.clone(), directory: directory.clone(), keys: keys.clone() };
        tasks.spawn("own-keys", own_keys.run(tasks.shutdown()));

        crate::control::register_metrics(&mut registry, &directory, &hosting);
        let home = HomeAddress::open(ledger.clone()).await;
        let (stop, asked) = watch::channel(Stop::No);
        let control = Arc::new_cyclic(|this| Control {
            keys,
            data_dir: config.data_dir.clone(),
            started,
            started_at: audit::now(),
            settings,
            mesh,
            directory,
            hosting,
            announcer,
            reports,
            repairs,
            clock,
            storage: Storage::new(config.data_dir.clone(), ledger.clone(), replica.clone()),
            home,
            lost,
            audit: Audit::new(ledger.clone()),
            registry: Arc::new(registry),
            ready: AtomicBool::new(false),
            stop,
            tasks: tasks.clone(),
            closing: AtomicBool::new(false),
            this: this.clone(),
        });
        let address = serve(http, &control, token, &tasks, &config.data_dir)?;
        wait_for_listener(&control.mesh).await;
        control.ready.store(true, Ordering::Release);
        let log = RunLog::begin(control.keys.network(), &config.data_dir);
        Ok(Self {
            control,
            http: address,
            tasks,
            data_dir: config.data_dir,
            asked,
            ledger,
            replica,
            log,
            _folder: folder,
        })
    }

    /// Waits until somebody asks the node to stop, or a part of it fails.
    pub(crate) async fn stopped(&self) -> Stop {
        let shutdown = self.tasks.shutdown();
        let mut asked = self.asked.clone();
        tokio::select! {
            () = shutdown.stopping() => Stop::LeaveGames,
            asked = asked.wait_for(|stop| *stop != Stop::No) => {
                asked.map_or(Stop::LeaveGames, |stop| *stop)
            }
        }
    }

    /// Why it stops that was asked to, or of which a part failed.
    pub(crate) fn why(&self) -> Why {
        if self.tasks.failure().is_some() { Why::Failure } else { Why::Asked }
    }

    /// Enters into the log that the node stops.
    pub(crate) fn ends(&self, why: Why) {
        self.log.ends(why);
    }

    /// Stops every part. Games that run go on.
    ///
    /// # Errors
    /// The failure of a part, if that was why the node stopped.
    pub(crate) async fn shut_down(self, stop: Stop) -> Result<(), Failure> {
        if stop == Stop::GamesStopped {
            tokio::time::sleep(LAST_WORDS).await;
        }
        place::withdraw(&self.data_dir);
        if !self.tasks.handle().drain(self.tasks.drained(), DRAIN).await {
            tracing::warn!("some work was cut off after {} s", DRAIN.as_secs());
        }
        // Last: whatever drained may still have written.
        let close = async {
            self.replica.close().await;
            self.ledger.close().await;
        };
        if tokio::time::timeout(CLOSE, close).await.is_err() {
            // Nothing that was acknowledged is lost by it.
            tracing::warn!("the stores were not closed within {} s", CLOSE.as_secs());
        }
        match self.tasks.failure() {
            None => Ok(()),
            Some(error) => Err(failure(
                ErrorKind::Internal,
                format!("the node stopped because of a fault: {error}; start it again"),
            )),
        }
    }

    /// How many games go on without this daemon.
    pub(crate) fn games_left(&self) -> usize {
        self.control.games_running()
    }
}

async fn start_hosting(
    data_dir: &Path,
    ledger: &Ledger,
    tasks: &Tasks,
) -> Result<HostingHandle, Failure> {
    let shim_exe = std::env::current_exe().map_err(|error| {
        failure(ErrorKind::Internal, format!("failed to find this program's own file: {error}"))
    })?;
    let config = HostingConfig {
        servers_dir: data_dir.join("servers"),
        shim_exe,
        shim_store: data_dir.join("shim"),
        run_as: RunAs::default(),
    };
    let store = Arc::new(DefinitionPort(ledger.clone()));
    homehost_hosting::start(config, store, tasks)
        .await
        .map_err(|error| crate::control::refused(error.class(), &error))
}

/// The network of a node that was not told one: nodes that listen on loopback
/// only are alone with this machine.
fn network_of(listen: &[Multiaddr]) -> NetworkName {
    let loopback = |address: &Multiaddr| {
        let text = address.to_string();
        text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/")
    };
    if !listen.is_empty() && listen.iter().all(loopback) {
        NetworkName::local()
    } else {
        NetworkName::main()
    }
}

/// All interfaces, on the first usual port that is free for both transports.
fn default_listen() -> Vec<Multiaddr> {
    let free = |port: &u16| {
        StdListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()
    };
    let port = (MESH_PORT..MESH_PORT + MESH_PORTS).find(free).unwrap_or(0);
    ["/ip4/0.0.0.0", "/ip6/::"]
        .into_iter()
        .flat_map(|ip| [format!("{ip}/tcp/{port}"), format!("{ip}/udp/{port}/quic-v1")])
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// The API's listener: where it was told to be, or on the first usual port.
fn bind_http(wanted: Option<SocketAddr>) -> Result<StdListener, Failure> {
    if let Some(address) = wanted {
        if !address.ip().is_loopback() {
            let text = "--http takes a loopback address only, as in 127.0.0.1:7780, \
                        until the API has TLS";
            return Err(failure(ErrorKind::Usage, text));
        }
        return StdListener::bind(address).map_err(|error| {
            let text = format!(
                "failed to serve the API on {address}: {error}; choose another port with --http"
            );
            failure(exit::of_io(&error), text)
        });
    }
    (HTTP_PORT..HTTP_PORT + HTTP_PORTS)
        .find_map(|port| StdListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .ok_or_else(|| {
            let last = HTTP_PORT + HTTP_PORTS - 1;
            let text =
                format!("no port from {HTTP_PORT} to {last} is free for the API: give --http");
            failure(ErrorKind::Conflict, text)
        })
}

fn serve(
    listener: StdListener,
    control: &Arc<Control>,
    token: String,
    tasks: &Tasks,
    data_dir: &Path,
) -> Result<SocketAddr, Failure> {
    let internal = |error: std::io::Error| {
        failure(exit::of_io(&error), format!("failed to serve the API: {error}"))
    };
    let address = listener.local_addr().map_err(internal)?;
    listener.set_nonblocking(true).map_err(internal)?;
    let listener = TcpListener::from_std(listener).map_err(internal)?;
    let stop = tasks.shutdown();
    let serve =
        homehost_dashboard::serve(listener, control.clone(), Token::new(token), async move {
            stop.stopping().await
        });
    let shutdown = tasks.shutdown();
    tasks.spawn("http", async move {
        // A client that never reads must not keep the node from ending.
        shutdown.until_cut(serve).await.unwrap_or(Ok(()))
    });
    place::publish(data_dir, address).map_err(internal)?;
    Ok(address)
}

/// The mesh tells its addresses as soon as it has them.
async fn wait_for_listener(mesh: &MeshHandle) {
    let mut status = mesh.status();
    let listening = status.wait_for(|status| !status.listening.is_empty());
    // Without one the node is up all the same, and says what it lacks.
    let _ = tokio::time::timeout(Duration::from_secs(3), listening).await;
}
