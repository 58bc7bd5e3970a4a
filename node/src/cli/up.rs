//! `homehost up`: the daemon in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use homehost_api::{NodeApi as _, NodeStatus};
use homehost_mesh::Multiaddr;
use homehost_protocol::NetworkName;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::signals::Signals;
use super::{Output, usage};
use crate::control::{ALONE, Stop, count, going_on};
use crate::daemon::{Daemon, UpConfig};
use crate::exit::Failure;
use crate::place;

/// Environment variable that says what is logged.
const LOG_VARIABLE: &str = "HOMEHOST_LOG";

/// What is logged unless the variable says otherwise. libp2p warns of things that
/// are normal here, as of being alone, which is said in plain words already.
const LOG_DEFAULT: &str = "warn,libp2p=error,homehost=info";

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
}

/// What `up --json` prints once the node is up.
#[derive(Serialize)]
struct Up {
    api: String,
    token_file: String,
    status: NodeStatus,
}

pub(crate) async fn run(args: UpArgs, data_dir: PathBuf, output: &Output) -> Result<(), Failure> {
    start_logging();
    let network = match args.network {
        Some(name) => Some(
            name.parse::<NetworkName>().map_err(|error| usage(format!("--network: {error}")))?,
        ),
        None => None,
    };
    let config = UpConfig {
        data_dir: data_dir.clone(),
        listen: args.listen,
        bootstrap: args.bootstrap,
        http: args.http,
        network,
        mdns: !args.no_mdns,
    };
    super::id::welcome(&data_dir, output)?;
    // Before anything is started: a signal must never find the default handler.
    let mut signals = Signals::new()?;
    let daemon = tokio::select! {
        daemon = Daemon::start(config) => daemon?,
        () = signals.next() => return Ok(()),
    };
    introduce(&daemon, &data_dir, output).await?;
    let stop = tokio::select! {
        stop = daemon.stopped() => stop,
        () = signals.next() => Stop::LeaveGames,
        never = watch_mesh(&daemon, output) => never,
    };
    let games = daemon.games_left().await;
    tokio::select! {
        result = daemon.shut_down(stop) => result?,
        // Asked twice: now.
        () = signals.next() => {}
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

/// Logs go to standard error: what is printed on standard output is the answer.
pub(crate) fn start_logging() {
    let filter =
        EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let ansi = homehost_runtime::terminal::stderr_is_terminal();
    // A second start in one process keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .try_init();
}

async fn introduce(
    daemon: &Daemon,
    data_dir: &std::path::Path,
    out: &Output,
) -> Result<(), Failure> {
    let status = daemon.control.status().await?;
    let api = format!("http://localhost:{}", daemon.http.port());
    let token_file = place::token_file(data_dir).display().to_string();
    if out.is_json() {
        out.json_line(&Up { api, token_file, status });
        return Ok(());
    }
    out.line(&format!("homehost {} is up on the network {:?}", status.version, status.network));
    let listens = if status.addresses.is_empty() {
        "nowhere yet".into()
    } else {
        status.addresses.join("\n")
    };
    let mut fields = vec![
        ("node", status.node),
        ("listens", listens),
        ("api", format!("{api} (token in {token_file})")),
        ("folder", status.data_dir),
    ];
    if status.servers > 0 {
        let servers = format!("{} of {} running", status.servers_running, status.servers);
        fields.push(("servers", servers));
    }
    if !status.attention.is_empty() {
        fields.push(("attention", status.attention.join("\n")));
    }
    out.line(super::output::fields(&fields).trim_end());
    Ok(())
}

/// Tells a person when the node has found others, and when it is alone.
async fn watch_mesh(daemon: &Daemon, output: &Output) -> Stop {
    if output.is_json() {
        return std::future::pending().await;
    }
    let joining = Instant::now();
    let mut told = None;
    loop {
        let Ok(status) = daemon.control.status().await else {
            return std::future::pending().await;
        };
        let alone = status.peers == 0;
        if told != Some(alone) && !alone {
            output.progress("");
            output.line(&format!(
                "joined: {}, {} known",
                count(status.peers, "peer"),
                count(status.listings, "server")
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
