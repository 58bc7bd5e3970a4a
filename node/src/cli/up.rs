//! `homehost up`: the daemon, in the foreground or (`detach.rs`) without a terminal.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use homehost_api::{Action, ActionRequest, ErrorKind, NodeApi as _, NodeStatus, Principal};
use homehost_mesh::Multiaddr;
use homehost_protocol::Invite;
use homehost_store::DataDir;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::signals::{Ending, Signals};
use super::{Output, detach, usage};
use crate::config::watch::{Loaded, SetLog, Source};
use crate::config::{
    self, BOOTSTRAP, Given, HTTP, Kind, LISTEN, Layer, MDNS, NETWORK, Origin, PORT_MAPPING, Value,
    file,
};
use crate::control::{ALONE, Stop, count, going_on};
use crate::daemon::{Daemon, UpConfig};
use crate::exit::{Failure, failure};
use crate::log_file::LogFile;
use crate::place;
use crate::run_log::Why;

/// What is logged unless a setting says otherwise. libp2p warns of things that
/// are normal here, as of being alone, which is said in plain words already.
const LOG_DEFAULT: &str = "warn,libp2p=error,homehost=info";

/// Open files: some hundred connections of the mesh and its dials, the API's, and
/// a handful for each game.
#[cfg(unix)]
const FILES: u64 = 4096;

/// How often the state of the mesh is looked at for the person who watches.
const LOOK: Duration = Duration::from_millis(200);

/// The same, once it has been said how it is.
const LOOK_LATER: Duration = Duration::from_secs(2);

/// Time within which a node with bootstrap nodes usually has peers.
const JOINING: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Address to listen on, as in /ip4/0.0.0.0/tcp/4011; may be repeated
    #[arg(long, value_name = "MULTIADDR", num_args = 1..)]
    listen: Vec<Multiaddr>,
    /// Node to join first, as in /ip4/203.0.113.7/tcp/4001/p2p/12D3…; may be repeated
    #[arg(long, value_name = "MULTIADDR", num_args = 1..)]
    bootstrap: Vec<Multiaddr>,
    /// Loopback address of the HTTP API [default: the first free port from 7780]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Network to join [default: main; local when every --listen is loopback]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Do not look for nodes on the LAN
    #[arg(long)]
    no_mdns: bool,
    /// Do not ask the router to forward ports (UPnP, NAT-PMP, PCP)
    #[arg(long)]
    no_port_mapping: bool,
    /// Start it in the background, and return when it is up; its log is in the data folder
    #[arg(long)]
    detach: bool,
    /// The other side of --detach
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
    /// Invitation into a network: its nodes are joined, now and at each later start
    #[arg(long, value_name = "STRING")]
    invite: Option<String>,
    /// File of the settings [default: config.toml in the data folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl UpArgs {
    /// What the options say, as the last layer of the settings.
    fn layer(&self) -> Result<Layer, Failure> {
        let mut layer = Layer::new();
        let mut give = |key: &'static str, flag, value| {
            layer.insert(key, Given { value, origin: Origin::Flag(flag) });
        };
        let given = [
            ("--listen", Kind::Listen, &self.listen),
            ("--bootstrap", Kind::Dial, &self.bootstrap),
        ];
        for (flag, kind, addresses) in given {
            for address in addresses {
                kind.fits(address).map_err(|why| usage(format!("{flag}: {why}")))?;
            }
        }
        if !self.listen.is_empty() {
            give(LISTEN, "--listen", Value::Addresses(self.listen.clone()));
        }
        if !self.bootstrap.is_empty() {
            give(BOOTSTRAP, "--bootstrap", Value::Addresses(self.bootstrap.clone()));
        }
        if let Some(address) = self.http {
            give(HTTP, "--http", Value::Api(address));
        }
        if let Some(name) = &self.network {
            let name = name.parse().map_err(|error| usage(format!("--network: {error}")))?;
            give(NETWORK, "--network", Value::Network(name));
        }
        if self.no_mdns {
            give(MDNS, "--no-mdns", Value::Switch(false));
        }
        if self.no_port_mapping {
            give(PORT_MAPPING, "--no-port-mapping", Value::Switch(false));
        }
        Ok(layer)
    }

    /// Takes up an invitation: writes down what it says, for the next start, too.
    /// Returns where to join.
    fn take_up(
        &self,
        source: &Source,
        data_dir: &std::path::Path,
        output: &Output,
    ) -> Result<Vec<Multiaddr>, Failure> {
        let Some(text) = &self.invite else { return Ok(Vec::new()) };
        let invite: Invite = text.parse().map_err(|error| usage(format!("--invite: {error}")))?;
        if DataDir::is_in_use(data_dir) {
            let text = "a node is running here already: give it the invitation with `homehost mesh \
                        join`, or start another with --data-dir and a folder of its own";
            return Err(failure(ErrorKind::Conflict, text));
        }
        let network = Value::Network(invite.network.clone());
        if let Some(given) = source.load()?.given(NETWORK).filter(|given| given.value != network) {
            let text = format!(
                "this invitation is for the network {network}, and {} says {}: change that, or \
                 start another node with --data-dir and a folder of its own",
                given.origin, given.value
            );
            return Err(failure(ErrorKind::WrongState, text));
        }
        let addresses = crate::control::invited(&invite);
        let another = file::keep_invitation(&source.file, Some(&invite.network), &addresses)?;
        if !output.is_json() {
            let file = source.file.display();
            output
                .line(&format!("the invitation is taken up, and {file} keeps it for later starts"));
        }
        if let Some(given) = another {
            output.hint(&config::another_network(&given, &invite.network));
        }
        Ok(addresses)
    }

    fn source(&self, data_dir: &std::path::Path) -> Result<Source, Failure> {
        let named = self.config.as_ref().map(std::path::absolute).transpose();
        let named = named.map_err(|error| usage(format!("--config: {error}")))?;
        let environment =
            config::own_environment().map_err(|problems| config::refused(&problems))?;
        Ok(Source {
            named: named.is_some(),
            file: named.unwrap_or_else(|| config::default_file(data_dir)),
            above: vec![environment, self.layer()?],
        })
    }
}

/// What `up --json` prints once the node is up.
#[derive(Serialize, Deserialize)]
pub(crate) struct Up {
    api: String,
    token_file: String,
    /// Where the log is, of a daemon without a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<String>,
    status: NodeStatus,
}

pub(crate) async fn run(args: UpArgs, data_dir: PathBuf, output: &Output) -> Result<(), Failure> {
    if !args.detached {
        for problem in config::own_mistaken() {
            output.hint(&problem.to_string());
        }
    }
    if args.detach {
        // What is refused is so before anybody writes down words.
        args.source(&data_dir)?.load()?;
        // Here is the terminal in which to show the recovery phrase.
        super::id::welcome(&data_dir, output)?;
        return detach::start(&data_dir, output).await;
    }
    let source = args.source(&data_dir)?;
    let joined = args.take_up(&source, &data_dir, output)?;
    let loaded = Loaded::new(source, joined)?;
    let log = args.detached.then(|| LogFile::of(&data_dir));
    let set_log = start_logging(loaded.config.log(), log);
    if args.detached {
        detach::leave_terminal();
    }
    #[cfg(unix)]
    homehost_runtime::make_room_for_files(FILES);
    let config = UpConfig {
        data_dir: data_dir.clone(),
        listen: loaded.config.listen(),
        bootstrap: loaded.bootstrap(),
        http: loaded.config.http(),
        network: loaded.config.network(),
        mdns: loaded.config.mdns(),
        port_mapping: loaded.config.port_mapping(),
    };
    super::id::welcome(&data_dir, output)?;
    // Before anything is started: a signal must never find the default handler.
    let mut signals = Signals::new()?;
    let daemon = tokio::select! {
        daemon = Daemon::start(config, loaded, set_log) => daemon?,
        _ = signals.next() => return Ok(()),
    };
    introduce(&up(&daemon, &data_dir).await?, output);
    let stop = tokio::select! {
        stop = daemon.stopped() => {
            daemon.ends(daemon.why());
            stop
        }
        ending = signals.next() => match ending {
            Ending::Node => {
                daemon.ends(Why::Signal);
                Stop::LeaveGames
            }
            Ending::Machine => {
                daemon.ends(Why::Machine);
                stop_games(&daemon).await
            }
        },
        never = watch_mesh(&daemon, output) => never,
    };
    let games = daemon.games_left();
    tokio::select! {
        result = daemon.shut_down(stop) => result?,
        // Asked twice: now.
        _ = signals.next() => {}
    }
    if !output.is_json() {
        if games > 0 {
            output.line(&format!("down; {}", going_on(games)));
        } else {
            output.line("down");
        }
    }
    Ok(())
}

/// The machine is going down: what `down --games` does.
async fn stop_games(daemon: &Daemon) -> Stop {
    let request = ActionRequest { key: None, action: Action::NodeStop { games: true } };
    match daemon.control.act(request, Principal::LocalOwner).await {
        Ok(_) => Stop::GamesStopped,
        Err(error) => {
            tracing::error!("{}", error.message);
            Stop::LeaveGames
        }
    }
}

/// Logs go to standard error, since what is printed on standard output is the
/// answer; without a terminal they go to a file.
/// Returns what changes the filter later.
fn start_logging(filter: Option<&str>, file: Option<LogFile>) -> SetLog {
    let filter_of = |text: Option<&str>| {
        // What is set was checked; what is not can be read.
        EnvFilter::builder().parse_lossy(text.unwrap_or(LOG_DEFAULT))
    };
    let ansi = file.is_none() && homehost_runtime::terminal::stderr_is_terminal();
    let writer = match file {
        Some(file) => BoxMakeWriter::new(Mutex::new(file)),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(ansi)
        .with_env_filter(filter_of(filter))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    // A second start in one process keeps the first.
    let _ = builder.try_init();
    Box::new(move |text| {
        if let Err(error) = handle.reload(filter_of(text)) {
            tracing::warn!("failed to change what is logged: {error}");
        }
    })
}

async fn up(daemon: &Daemon, data_dir: &Path) -> Result<Up, Failure> {
    Ok(Up {
        api: format!("http://localhost:{}", daemon.http.port()),
        token_file: place::token_file(data_dir).display().to_string(),
        log: None,
        status: daemon.control.status().await?,
    })
}

/// Says that a node is up, and where.
pub(crate) fn introduce(up: &Up, out: &Output) {
    if out.is_json() {
        return out.json_line(up);
    }
    let Up { api, token_file, log, status } = up;
    out.line(&format!("homehost {} is up on the network {:?}", status.version, status.network));
    let listens = if status.addresses.is_empty() {
        "nowhere yet".into()
    } else {
        status.addresses.join("\n")
    };
    let mut fields = vec![
        ("node", status.node.clone()),
        ("listens", listens),
        ("api", format!("{api} (token in {token_file})")),
        ("folder", status.data_dir.clone()),
    ];
    if let Some(log) = log {
        fields.push(("log", log.clone()));
    }
    if status.servers > 0 {
        let servers = format!("{} of {} running", status.servers_running, status.servers);
        fields.push(("servers", servers));
    }
    if !status.attention.is_empty() {
        fields.push(("attention", status.attention.join("\n")));
    }
    out.line(super::output::fields(&fields).trim_end());
}

/// Tells a person when the node has found others, and when it is alone.
async fn watch_mesh(daemon: &Daemon, output: &Output) -> Stop {
    if output.is_json() {
        return std::future::pending().await;
    }
    let joining = Instant::now();
    let mut told = None;
    loop {
        // Not the whole status, which looks at the disk.
        let peers = daemon.control.mesh.status().borrow().peers.len();
        let alone = peers == 0;
        if told != Some(alone) && !alone {
            output.progress("");
            output.line(&format!(
                "joined: {}, {} known",
                count(peers, "peer"),
                count(daemon.control.directory.stats().listings, "server")
            ));
            told = Some(alone);
        } else if told != Some(alone) && (joining.elapsed() >= JOINING || told.is_some()) {
            output.progress("");
            output.line(ALONE);
            told = Some(alone);
        } else if told.is_none() {
            output.progress("joining …");
        }
        tokio::time::sleep(if told.is_none() { LOOK } else { LOOK_LATER }).await;
    }
}
