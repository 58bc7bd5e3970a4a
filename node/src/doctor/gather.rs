//! Brings the facts: from the running node, the disk and the system.

use std::fs;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homehost_api::{
    ConfigView, ErrorKind, Identity as IdentityView, MeshStats, NetworkFacts, NodeStatus, Peer,
    Server, ServerReach,
};
use homehost_mesh::Multiaddr;
use homehost_protocol::Scope;
use homehost_runtime::wall_ms;
use homehost_store::{DataDir, Ledger, Replica};

use super::{Clock, Disk, Facts, Running};
use crate::cli::client::{Client, segment};
use crate::config::{self, BOOTSTRAP, Config};
use crate::control::identity;
use crate::exit::{self, Failure};
use crate::identity::Identity;
use crate::lost;
use crate::wire::join::ip_of;

/// Longest wait for one answer of the node: a doctor does not hang with it.
const ANSWER: Duration = Duration::from_secs(5);

/// Files of the data folder whose times tell of the clock.
const FILES_MAX: usize = 256;

/// What a running node said, for the findings and for a bundle. The settings are
/// there without one, too: as it would be told them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) status: Option<NodeStatus>,
    pub(crate) identity: Option<IdentityView>,
    pub(crate) config: Option<ConfigView>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) stats: Option<MeshStats>,
    pub(crate) network: Option<NetworkFacts>,
    pub(crate) servers: Vec<(Server, Option<ServerReach>)>,
}

/// Looks at everything. `named` is the file of settings that somebody gave.
pub(crate) async fn gather(data_dir: &Path, named: Option<&Path>) -> (Facts, Answers) {
    let mut answers = Answers::default();
    let mut silent = None;
    if DataDir::is_in_use(data_dir) {
        match Client::find(data_dir) {
            Ok(client) => {
                if let Err(error) = ask(&client, &mut answers).await {
                    silent = Some(error.message);
                    answers = Answers::default();
                }
            }
            Err(error) => silent = Some(error.message),
        }
    }
    let (folder, file) = (data_dir.to_owned(), named.map(Path::to_owned));
    let at_rest = answers.status.is_none() && silent.is_none();
    let look = move || at_hand(&folder, file.as_deref(), at_rest);
    let (mut facts, settings) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    facts.silent = silent;
    // The file that somebody asks about may be another than that of the node.
    let asked = named.and(facts.settings.clone());
    take_in(&mut facts, &answers);
    facts.settings = asked.or(facts.settings);
    if answers.status.is_none() {
        answers.config = Some(settings);
    }
    (facts, answers)
}

async fn ask(client: &Client, answers: &mut Answers) -> Result<(), Failure> {
    let late = || exit::failure(ErrorKind::Timeout, "it took too long");
    let status = tokio::time::timeout(ANSWER, client.get("/api/v1/status")).await;
    answers.status = Some(status.map_err(|_| late())??);
    answers.identity = get(client, "/api/v1/identity").await;
    answers.config = get(client, "/api/v1/config").await;
    answers.peers = get(client, "/api/v1/peers").await.unwrap_or_default();
    answers.stats = get(client, "/api/v1/mesh/stats").await;
    answers.network = get(client, "/api/v1/mesh/network").await;
    let servers: Vec<Server> = get(client, "/api/v1/servers").await.unwrap_or_default();
    for server in servers {
        let reach = get(client, &format!("/api/v1/servers/{}/reach", segment(&server.id))).await;
        answers.servers.push((server, reach));
    }
    Ok(())
}

/// One view; a node of another version may not have it.
async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Option<T> {
    tokio::time::timeout(ANSWER, client.get(path)).await.ok()?.ok()
}

/// What can be seen without a node, and what one would be told.
fn at_hand(data_dir: &Path, named: Option<&Path>, at_rest: bool) -> (Facts, ConfigView) {
    let file = config::file_of(named, data_dir);
    let mut view = ConfigView {
        file: file.display().to_string(),
        exists: file.exists(),
        ..ConfigView::default()
    };
    let config = match config::at_rest(named, data_dir) {
        Ok(config) => {
            view.settings = config.view();
            config
        }
        Err(error) => {
            view.problem = Some(error.message);
            Config::default()
        }
    };
    let folder = data_dir.join("identity");
    let identity = Identity::exists(&folder).then(|| {
        let identity = Identity::peek(&folder).map_err(|error| error.to_string());
        identity.map(|identity| identity::view(&identity))
    });
    let facts = Facts {
        settings: view.problem.clone(),
        identity,
        disk: disk(data_dir),
        clock: Clock { files_ahead_ms: files_ahead(data_dir), ..Clock::default() },
        damaged_stores: damaged(data_dir),
        store_problem: if at_rest { store_problem(data_dir) } else { None },
        ports: if at_rest { ports(&config) } else { Vec::new() },
        running: None,
        silent: None,
    };
    (facts, view)
}

fn take_in(facts: &mut Facts, answers: &Answers) {
    let Some(status) = &answers.status else { return };
    if let Some(identity) = &answers.identity {
        facts.identity = Some(Ok(identity.clone()));
    }
    facts.clock.others = status.clock.clone();
    // The node may run as another user, or need more room than a small file.
    let unwritable = status.unwritable.clone();
    facts.disk.problem = unwritable.or(facts.disk.problem.take());
    if let Some(config) = &answers.config {
        facts.settings = config.problem.clone().or_else(|| {
            let waiting = config.waiting.join(" and ");
            (!waiting.is_empty()).then(|| format!("{waiting} changed and counts after a restart"))
        });
    }
    let local = |text: &String| {
        let address = text.parse::<Multiaddr>().ok();
        address.and_then(|address| ip_of(&address)).map(Scope::of) == Some(Scope::Loopback)
    };
    let given = answers.config.iter().flat_map(|config| &config.settings);
    let has_bootstrap = given
        .filter(|setting| setting.key == BOOTSTRAP)
        .any(|setting| setting.value.as_ref().is_some_and(|value| value.contains('/')));
    facts.running = Some(Running {
        listens: status.addresses.len(),
        peers: status.peers,
        bootstrap_peers: answers.peers.iter().filter(|peer| peer.role == "bootstrap").count(),
        has_bootstrap,
        local: !status.addresses.is_empty() && status.addresses.iter().all(local),
        network: answers.network.clone(),
        servers: answers.servers.clone(),
    });
}

fn disk(data_dir: &Path) -> Disk {
    // A folder that is still to be made lies on the disk of the one above it.
    let there = data_dir.ancestors().find(|path| {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let looked = fs::symlink_metadata(path);
        !looked.is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
    });
    let Some(folder) = there else { return Disk::default() };
    if fs::metadata(folder).is_ok_and(|found| !found.is_dir()) {
        return Disk { in_the_way: Some(folder.display().to_string()), ..Disk::default() };
    }
    let probe = tempfile::Builder::new().prefix(".doctor-").tempfile_in(folder);
    let written = probe.and_then(|mut file| {
        std::io::Write::write_all(&mut file, &[0; 4096])?;
        file.as_file().sync_all()
    });
    Disk {
        free: fs4::available_space(folder).ok(),
        problem: written.err().map(|error| format!("{}: {error}", folder.display())),
        in_the_way: None,
    }
}

/// What `up` would say of the stores; nothing is changed.
fn store_problem(data_dir: &Path) -> Option<String> {
    if !data_dir.is_dir() {
        return None;
    }
    let checked = Ledger::check(data_dir).and_then(|()| Replica::check(data_dir));
    // A node that started meanwhile writes to what was read.
    if DataDir::is_in_use(data_dir) {
        return None;
    }
    if let Err(error) = checked {
        return Some(exit::opening(&error).message);
    }
    lost::servers_without_ledger(data_dir).map(|folders| lost::will_begin_anew(&folders))
}

/// How far the newest file that this node wrote is ahead of the clock.
fn files_ahead(data_dir: &Path) -> i64 {
    let now = i64::try_from(wall_ms()).unwrap_or(i64::MAX);
    let folders = [data_dir.to_owned(), data_dir.join("store"), data_dir.join("identity")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let times = entries.flatten().take(FILES_MAX).filter_map(|entry| {
        let modified: SystemTime = entry.metadata().ok()?.modified().ok()?;
        i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    });
    times.max().map_or(0, |newest| newest.saturating_sub(now).max(0))
}

fn damaged(data_dir: &Path) -> usize {
    let entries = fs::read_dir(data_dir.join("store")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-")).count()
}

/// Whether what was configured can be listened on. The defaults look for a free
/// port themselves.
fn ports(config: &Config) -> Vec<(String, Option<String>)> {
    let mut ports = Vec::new();
    for address in config.listen() {
        let text = address.to_string();
        let parts: Vec<&str> = text.split('/').collect();
        let (Some(ip), [_, _, _, transport, port, ..]) = (ip_of(&address), &parts[..]) else {
            continue;
        };
        let Ok(port) = port.parse::<u16>() else { continue };
        ports.push((format!("port {port}/{transport}"), taken(ip, port, transport)));
    }
    if let Some(http) = config.http() {
        let problem = taken(http.ip(), http.port(), "tcp");
        ports.push((format!("port {}/tcp (api)", http.port()), problem));
    }
    ports
}

fn taken(ip: IpAddr, port: u16, transport: &str) -> Option<String> {
    let bound = match transport {
        "udp" => UdpSocket::bind((ip, port)).map(drop),
        _ => TcpListener::bind((ip, port)).map(drop),
    };
    bound.err().map(|error| format!("it cannot be listened on: {error}"))
}
