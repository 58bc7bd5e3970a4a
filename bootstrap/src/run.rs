//! From the command line to a running node and back to an exit code.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use homehost_mesh::{DhtConfig, MeshConfig, MeshEvent, Role, StartError};
use homehost_runtime::Tasks;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::announce::Addresses;
use crate::folder::Folder;
use crate::forward::Forwarder;
use crate::monitor::{self, Sources};
use crate::{Args, Failure, exit_code};

/// Longest wait for the first listener. It takes milliseconds.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the announcement waits for more interfaces of a wildcard address.
const MORE_INTERFACES: Duration = Duration::from_millis(200);

/// Time to leave in order; with the second stage a stop takes two seconds at most.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What is logged unless `HOMEHOST_LOG` says otherwise. Libraries speak of
/// peers' addresses; of them only errors are kept.
const LOG_DEFAULT: &str = "error,homehost=info";

/// The whole program: logs to standard error, runs until it is told to stop,
/// and says in one sentence what went wrong.
pub fn main(args: Args) -> ExitCode {
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result =
        runtime.context("start the runtime").and_then(|runtime| runtime.block_on(run(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
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

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOMEHOST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG_DEFAULT));
    // A program that contains this one may have set up its own.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(homehost_runtime::terminal::stderr_is_terminal())
        .try_init();
}

/// Runs a bootstrap node until Ctrl-C or SIGTERM.
///
/// # Errors
/// With a [`Failure`] in its chain where a person can help; see [`exit_code`].
pub async fn run(args: Args) -> anyhow::Result<()> {
    args.check()?;
    // Before anything else, so that a stop during the start is not missed.
    let mut stop = std::pin::pin!(stop_signal()?);
    let folder = Folder::open(&args.data_dir)?;
    let seed = folder.seed()?;
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

    let (tasks, mut registry) = (Tasks::default(), Registry::default());
    let config = MeshConfig {
        key_seed: seed,
        network: args.network.clone(),
        role: Role::Bootstrap,
        listen: args.listen.clone(),
        bootstrap: vec![],
        external: args.external_address.clone(),
        mdns: false,
        dht: DhtConfig::default(),
        agent: concat!("homehost-bootstrap/", env!("CARGO_PKG_VERSION")).into(),
    };
    let (mesh, mut events) =
        homehost_mesh::start(config, &mut registry, &tasks).map_err(start_failure)?;
    let metrics = pages.as_ref().and_then(|pages| pages.local_addr().ok());
    if let Some(pages) = pages {
        let sources = Sources { registry: Arc::new(registry), status: mesh.status() };
        tasks.spawn("metrics", monitor::serve(pages, sources, tasks.shutdown()));
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
