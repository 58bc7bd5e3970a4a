//! The program as a process, hosts in this process, and waiting without sleeping
//! for longer than needed.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use homehost_mesh::{
    DhtConfig, MeshConfig, MeshEvent, MeshHandle, Multiaddr, OperatorConfig, PeersConfig, Role,
    start,
};
use homehost_protocol::NodeId;
use homehost_runtime::Tasks;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

/// Far more than anything here takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";

/// The program.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_homehost-bootstrap"))
}

/// What a command of the operator says and ends with.
pub(crate) fn operate(folder: &Path, line: &str) -> (Option<i32>, String) {
    let mut command = program();
    command.args(line.split(' ')).arg("--data-dir").arg(folder);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (status.code(), text)
}

/// The same, when it works.
pub(crate) fn operated(folder: &Path, line: &str) -> String {
    let (code, text) = operate(folder, line);
    assert_eq!(code, Some(0), "{line}: {text}");
    text
}

/// A running node.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) at: Multiaddr,
    log: PathBuf,
}

impl Daemon {
    /// Starts it on a folder, with further options and at a level of logs.
    pub(crate) fn start(folder: &Path, options: &[&str], log: &str) -> Self {
        let path = folder.with_extension("log");
        let mut command = program();
        command.arg("--data-dir").arg(folder).args(["--network", "test", "--listen", ANY_PORT]);
        command.args(options).env("HOMEHOST_LOG", log).stdout(Stdio::piped());
        let mut child = command.stderr(File::create(&path).unwrap()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        let log = || std::fs::read_to_string(&path).unwrap();
        let at = first.trim_end().parse().unwrap_or_else(|_| panic!("{first}{}", log()));
        Self { child, out, at, log: path }
    }

    /// The next line of its standard output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host in this process.
pub(crate) struct Host {
    pub(crate) mesh: MeshHandle,
    events: mpsc::Receiver<MeshEvent>,
    tasks: Tasks,
}

impl Host {
    pub(crate) fn join(seed: u8, at: &Multiaddr) -> Self {
        let config = MeshConfig {
            key_seed: [seed; 32],
            network: "test".parse().unwrap(),
            role: Role::Host,
            listen: vec![ANY_PORT.parse().unwrap()],
            bootstrap: vec![at.clone()],
            external: vec![],
            mdns: false,
            dht: DhtConfig::default(),
            operator: OperatorConfig::default(),
            peers: PeersConfig::default(),
            port_mapping: false,
            agent: "test/1".into(),
        };
        let tasks = Tasks::default();
        let (mesh, events) = start(config, &mut Registry::default(), &tasks).unwrap();
        Self { mesh, events, tasks }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.mesh.node()
    }

    /// Waits until somebody has joined, or left.
    pub(crate) async fn sees(&mut self, what: Seen) {
        let wait = async {
            loop {
                match (self.events.recv().await.expect("the mesh runs"), what) {
                    (MeshEvent::PeerJoined { node, .. }, Seen::Joined(wanted))
                    | (MeshEvent::PeerLeft { node }, Seen::Left(wanted))
                        if node == wanted =>
                    {
                        return;
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never {what:?}"));
    }

    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.mesh.status().borrow().peers.iter().any(|peer| peer.node == node)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tasks.handle().stop();
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    Joined(NodeId),
    Left(NodeId),
}

/// Asks again until it is so.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The node that an address ends with.
pub(crate) fn node_at(at: &Multiaddr) -> NodeId {
    at.to_string().rsplit('/').next().unwrap().parse().unwrap()
}
