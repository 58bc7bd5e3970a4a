//! The demo's processes, and their end.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use homehost_api::{Action, ErrorKind};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::HOSTS;
use crate::cli::client::Client;
use crate::exit::{Failure, failure};

/// Longest wait for a process to say that it is up.
const START: Duration = Duration::from_secs(30);

/// Longest wait for a process to end after it was asked.
const END: Duration = Duration::from_secs(10);

/// A host of the demo.
pub(super) struct Host {
    pub(super) data_dir: PathBuf,
    pub(super) client: Client,
    process: Child,
}

/// All processes of one demo.
pub(super) struct Fleet {
    program: PathBuf,
    folder: TempDir,
    network: String,
    bootstrap: Option<Child>,
    hosts: Vec<Host>,
    /// A host that was started and is not up yet.
    coming: Option<(PathBuf, Child)>,
}

impl Fleet {
    pub(super) fn new() -> Result<Self, Failure> {
        let internal = |error: std::io::Error| {
            failure(ErrorKind::Internal, format!("failed to prepare the demo: {error}"))
        };
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| internal(std::io::Error::other(error)))?;
        let folder =
            tempfile::Builder::new().prefix("homehost-demo-").tempdir().map_err(internal)?;
        #[cfg(unix)]
        {
            // Games may run as another user, who must get through to their folders.
            use std::os::unix::fs::PermissionsExt as _;
            let passage = std::fs::Permissions::from_mode(0o711);
            std::fs::set_permissions(folder.path(), passage).map_err(internal)?;
        }
        Ok(Self {
            program: std::env::current_exe().map_err(internal)?,
            folder,
            network: format!("demo-{:08x}", u32::from_be_bytes(random)),
            bootstrap: None,
            hosts: Vec::with_capacity(HOSTS),
            coming: None,
        })
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// Starts the bootstrap node; returns its multiaddr.
    pub(super) async fn start_bootstrap(&mut self) -> Result<String, Failure> {
        let data_dir = self.folder.path().join("bootstrap");
        let mut command = self.command("__bootstrap", &data_dir);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        let child = spawn(&mut command)?;
        let address = first_line(self.bootstrap.insert(child), "the bootstrap node").await?;
        Ok(address)
    }

    /// Starts another host; returns the address of its API.
    pub(super) async fn start_host(&mut self, bootstrap: &str) -> Result<String, Failure> {
        let data_dir = self.folder.path().join(format!("host-{}", self.hosts.len() + 1));
        let child = spawn(self.up(&data_dir).args(["--bootstrap", bootstrap]))?;
        let (_, process) = self.coming.insert((data_dir.clone(), child));
        let line = first_line(process, "a host").await?;
        let up: serde_json::Value = serde_json::from_str(&line)
            .map_err(|error| failure(ErrorKind::Internal, format!("{error} in {line:?}")))?;
        let api = up["api"].as_str().unwrap_or("?").to_owned();
        let client = Client::find(&data_dir)?;
        if let Some((data_dir, process)) = self.coming.take() {
            self.hosts.push(Host { data_dir, client, process });
        }
        Ok(api)
    }

    /// Stops a host and its game. If somebody killed the host to see what
    /// happens, its game goes on: a new daemon finds it and stops it.
    async fn end_host(&self, mut host: Host) -> Result<(), Failure> {
        if host.client.act(Action::NodeStop { games: true }).await.is_err() {
            let _ = host.process.kill().await;
            host.process = spawn(&mut self.up(&host.data_dir))?;
            first_line(&mut host.process, "a host").await?;
            Client::find(&host.data_dir)?.act(Action::NodeStop { games: true }).await?;
        }
        if timeout(END, host.process.wait()).await.is_err() {
            let _ = host.process.kill().await;
        }
        Ok(())
    }

    fn up(&self, data_dir: &Path) -> Command {
        let mut command = self.command("up", data_dir);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]).args([
            "--http",
            "127.0.0.1:0",
            "--no-mdns",
            "--json",
        ]);
        command
    }

    fn command(&self, verb: &str, data_dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(verb)
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--network", &self.network])
            .env_remove(crate::place::DATA_DIR_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        // Ctrl-C in the terminal is for the demo, which then ends its processes in order.
        #[cfg(unix)]
        command.process_group(0);
        #[cfg(windows)]
        command.creation_flags(0x0000_0200); // CREATE_NEW_PROCESS_GROUP
        command
    }

    /// Stops the games, then the hosts, then the bootstrap node, and removes
    /// the folder.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        // A host that was still coming up has no games yet.
        if let Some((_, mut process)) = self.coming.take() {
            let _ = process.kill().await;
        }
        let hosts = std::mem::take(&mut self.hosts);
        let stops = hosts.into_iter().map(|host| self.end_host(host));
        let stopped: Result<Vec<()>, Failure> =
            futures::future::join_all(stops).await.into_iter().collect();
        if let Some(mut bootstrap) = self.bootstrap.take() {
            let _ = bootstrap.kill().await;
        }
        let path = self.folder.path().to_owned();
        let removed = self.folder.close().map_err(|error| {
            failure(ErrorKind::Internal, format!("failed to remove {}: {error}", path.display()))
        });
        stopped.map(drop).and(removed)
    }
}

fn spawn(command: &mut Command) -> Result<Child, Failure> {
    command.spawn().map_err(|error| {
        failure(ErrorKind::Internal, format!("failed to start a process of the demo: {error}"))
    })
}

/// The first line that a process prints; the rest is read and dropped, so that
/// it never waits for us.
async fn first_line(process: &mut Child, what: &str) -> Result<String, Failure> {
    let failed = |why: &str| failure(ErrorKind::Internal, format!("{what} of the demo {why}"));
    let stdout = process.stdout.take().ok_or_else(|| failed("has no output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(START, lines.next_line())
        .await
        .map_err(|_| failed("did not come up in time"))?
        .ok()
        .flatten()
        .ok_or_else(|| failed("ended at once"))?;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(line)
}
