//! From the command line to a running node and back to an exit code.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use homehost_mesh::{
    BandwidthLimits, DhtConfig, MeshConfig, MeshEvent, OperatorConfig, PeersConfig, Role,
    StartError,
};
use homehost_runtime::Tasks;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::announce::Addresses;
use crate::control::Place;
use crate::deny_file::{DENY_FILE, Watcher};
use crate::folder::Folder;
use crate::forward::Forwarder;
use crate::log::{self, InLogs};
use crate::monitor::{self, Sources};
use crate::{Args, Failure, control, deny_file, exit_code, operate};

/// Longest wait for the first listener. It takes milliseconds.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the announcement waits for more interfaces of a wildcard address.
const MORE_INTERFACES: Duration = Duration::from_millis(200);

/// Open files: a connection each, one more while it is made, and some of ours.
#[cfg(unix)]
const FILES: u64 = 4096;

/// Commands that wait for the deny list to be read.
const RELOADS_MAX: usize = 8;

/// Time to leave in order; with the second stage a stop takes two seconds at most.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The whole program: does what a command says, or runs a node with logs on
/// standard error until it is told to stop; says in one sentence what went wrong.
pub fn main(args: Args) -> ExitCode {
    let result = match &args.command {
        Some(command) => operate::run(command, &args, &mut std::io::stdout().lock()),
        None => {
            log::start(
                args.log_format,
                match args.log_addresses {
                    true => InLogs::Written,
                    false => InLogs::Redacted,
                },
            );
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.context("start the runtime").and_then(|runtime| runtime.block_on(run(args)))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be left to read it; the exit code stays.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("homehost-bootstrap: {error:#}\n"),
            );
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Whether whoever read what a command writes has seen enough, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Runs a bootstrap node until Ctrl-C or SIGTERM.
///
/// # Errors
/// With a [`Failure`] in its chain where a person can help; see [`exit_code`].
pub async fn run(args: Args) -> anyhow::Result<()> {
    args.check()?;
    // Before anything else, so that a stop during the start is not missed.
    let mut stop = std::pin::pin!(stop_signal()?);
    #[cfg(unix)]
    homehost_runtime::make_room_for_files(FILES);
    let data_dir = args.folder()?;
    let folder = Folder::open(data_dir)?;
    let seed = folder.seed()?;
    let deny_list = std::path::absolute(match &args.deny_list {
        Some(path) => path.clone(),
        None => data_dir.join(DENY_FILE),
    })
    .context("find the deny list")?;
    let deny = deny_file::first(&deny_list, args.deny_list.is_some())?;
    let pages = match args.metrics {
        Some(address) => {
            Some(monitor::bind(address).await.map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => {
                    Failure::PortInUse { address: address.to_string(), option: "--metrics" }.into()
                }
                _ => anyhow::Error::new(error).context(format!("serve metrics at {address}")),
            })?)
        }
        None => None,
    };
    let operator = monitor::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .context("listen on loopback for the operator's commands")?;

    let (tasks, mut registry) = (Tasks::default(), Registry::default());
    let config = MeshConfig {
        key_seed: seed,
        network: args.network.clone(),
        role: Role::Bootstrap,
        listen: args.listen.clone(),
        bootstrap: vec![],
        external: args.external_address.clone(),
        mdns: false,
        port_mapping: false,
        dht: DhtConfig::default(),
        operator: OperatorConfig {
            deny,
            bandwidth: Some(BandwidthLimits {
                total: args.bandwidth.saturating_mul(1000),
                per_block: args.bandwidth_per_block.saturating_mul(1000),
            }),
        },
        peers: PeersConfig::default(),
        agent: concat!("homehost-bootstrap/", env!("CARGO_PKG_VERSION")).into(),
    };
    let entries = config.operator.deny.len();
    let (mesh, mut events) =
        homehost_mesh::start(config, &mut registry, &tasks).map_err(start_failure)?;
    let metrics = pages.as_ref().and_then(|pages| pages.local_addr().ok());
    let (reload, reloads) = mpsc::channel(RELOADS_MAX);
    let (watcher, deny) = Watcher::new(deny_list.clone(), mesh.clone(), entries, reloads);
    tasks.spawn("deny-list", watcher.run(tasks.shutdown()));
    let sources = Sources {
        registry: Arc::new(registry),
        mesh: mesh.clone(),
        network: args.network.clone(),
        started: std::time::Instant::now(),
        deny,
        deny_list: deny_list.clone(),
        reload,
    };
    let place = Place::new(operator.local_addr().context("listen on loopback")?, deny_list)?;
    let for_operator = control::router(sources.clone(), place.token.clone());
    tasks.spawn("operator", monitor::serve(operator, for_operator, tasks.shutdown()));
    place.publish(data_dir).with_context(|| format!("write into {}", data_dir.display()))?;
    if let Some(pages) = pages {
        tasks.spawn("metrics", monitor::serve(pages, monitor::router(sources), tasks.shutdown()));
    }

    let mut addresses = Addresses::new(mesh.node(), &args.external_address, &args.listen)?;
    let forwarder = Forwarder::new(mesh.clone(), args.network.clone());
    let shutdown = tasks.shutdown();
    let outcome = tokio::select! {
        biased;
        () = &mut stop => Ok(()),
        () = shutdown.stopping() => Ok(()),
        ended = serve(&mut addresses, &mut events, metrics, &forwarder) => ended,
    };
    tracing::info!("stopping");
    tasks.handle().drain(tasks.drained(), STOP_TIMEOUT).await;
    Place::withdraw(data_dir);
    outcome?;
    match tasks.failure() {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

fn start_failure(error: StartError) -> anyhow::Error {
    match &error {
        StartError::Listen { address, .. } if error.is_address_in_use() => {
            Failure::PortInUse { address: address.to_string(), option: "--listen" }.into()
        }
        StartError::Listen { address, source } if source.kind() == ErrorKind::InvalidInput => {
            Failure::Usage(format!("--listen {address}: {source}")).into()
        }
        _ => error.into(),
    }
}

/// Announces the addresses, then reads events for as long as there are any.
async fn serve(
    addresses: &mut Addresses,
    events: &mut mpsc::Receiver<MeshEvent>,
    metrics: Option<std::net::SocketAddr>,
    forwarder: &Forwarder,
) -> anyhow::Result<()> {
    let mut deadline = Instant::now() + LISTEN_TIMEOUT;
    while !addresses.complete() {
        match timeout_at(deadline, events.recv()).await {
            Ok(Some(event)) => {
                let first = !addresses.any();
                addresses.note(event)?;
                if first && addresses.any() {
                    deadline = Instant::now() + MORE_INTERFACES;
                }
            }
            Ok(None) => bail!("the mesh ended"),
            Err(_) => break,
        }
    }
    if !addresses.any() {
        bail!("no listener came up within {} seconds", LISTEN_TIMEOUT.as_secs());
    }
    // A reader that has gone does not stop a node.
    if let Err(error) = addresses.write(&mut std::io::stdout().lock(), metrics) {
        tracing::warn!(%error, "cannot write the addresses to standard output");
    }
    tracing::info!("introducing hosts");
    while let Some(event) = events.recv().await {
        match event {
            MeshEvent::PeerJoined { node, .. } => tracing::debug!(%node, "joined"),
            MeshEvent::PeerLeft { node } => tracing::debug!(%node, "left"),
            MeshEvent::Listening { address } => tracing::info!(%address, "listening here too"),
            MeshEvent::ListenFailed { address, reason, .. } => {
                tracing::warn!(%address, reason, "no longer listening here");
            }
            MeshEvent::Request { from, client: true, request, reply, .. } => {
                forwarder.pass_on(from, request, reply);
            }
            // This role takes no gossip, serves no records and witnesses nothing.
            MeshEvent::GossipJoined
            | MeshEvent::Gossip { .. }
            | MeshEvent::Request { .. }
            | MeshEvent::AttestRequest { .. } => {}
        }
    }
    Ok(())
}

/// Resolves at Ctrl-C; on Unix at SIGTERM, on Windows at Ctrl-Break and when the
/// window or the session ends.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(windows)]
    {
        use tokio::signal::windows as console;
        let mut interrupt = console::ctrl_c().context("listen for the console")?;
        let mut break_ = console::ctrl_break().context("listen for the console")?;
        let mut close = console::ctrl_close().context("listen for the console")?;
        let mut shutdown = console::ctrl_shutdown().context("listen for the console")?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = break_.recv() => {}
                _ = close.recv() => {}
                _ = shutdown.recv() => {}
            }
        })
    }
}
