//! One daemon side with a folder of its own, and ways to wait for what is to come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use homehost_hosting::{
    DefinitionStore, HostingConfig, HostingHandle, LogLine, RunAs, ServerDefinition, ServerView,
    StoreFailure, parse_exec, parse_port,
};
use homehost_protocol::{ServerId, ServerNonce};
use homehost_runtime::Tasks;
use tokio::sync::mpsc;

/// No condition takes so long on a machine that works, however busy it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on a runtime of its own.
pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { within("the whole test", test).await });
    // What still reads a log or waits for a query is not waited for.
    runtime.shutdown_background();
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("gave up on {what}"))
}

/// Definitions that outlive a daemon.
#[derive(Default)]
pub(crate) struct MemoryStore(Mutex<BTreeMap<ServerId, ServerDefinition>>);

#[async_trait]
impl DefinitionStore for MemoryStore {
    async fn load(&self) -> Result<Vec<ServerDefinition>, StoreFailure> {
        Ok(self.0.lock().unwrap().values().cloned().collect())
    }

    async fn save(&self, definition: &ServerDefinition) -> Result<(), StoreFailure> {
        self.0.lock().unwrap().insert(definition.id, definition.clone());
        Ok(())
    }

    async fn remove(&self, id: &ServerId) -> Result<(), StoreFailure> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}

/// A folder, a store, and the daemon side that uses them.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    store: Arc<MemoryStore>,
    run_as: RunAs,
    tasks: Tasks,
    pub(crate) hosting: HostingHandle,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::as_user(RunAs::Daemon).await
    }

    pub(crate) async fn as_user(run_as: RunAs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let passable = std::fs::Permissions::from_mode(0o711);
            std::fs::set_permissions(dir.path(), passable).unwrap();
        }
        let store = Arc::new(MemoryStore::default());
        let tasks = Tasks::default();
        let hosting = begin(dir.path().to_owned(), run_as.clone(), store.clone(), &tasks).await;
        Self { dir, store, run_as, tasks, hosting }
    }

    /// Ends the daemon side and leaves the games alone.
    pub(crate) async fn leave(&mut self) {
        self.tasks.handle().stop();
        within("the daemon's end", self.tasks.drained()).await;
    }

    /// Changes what is stored as wanted, past the daemon side.
    #[cfg(unix)]
    pub(crate) async fn store_wanted(&self, id: &ServerId, wanted: homehost_hosting::Wanted) {
        let mut definition = self.store.0.lock().unwrap()[id].clone();
        definition.wanted = wanted;
        self.store.save(&definition).await.unwrap();
    }

    /// A new daemon side on the same folder.
    pub(crate) async fn come_back(&mut self) {
        self.tasks = Tasks::default();
        let dir = self.dir.path().to_owned();
        self.hosting = begin(dir, self.run_as.clone(), self.store.clone(), &self.tasks).await;
    }

    /// Adds a server that runs this program as one of its games.
    pub(crate) async fn add(&self, name: &str, game: &str, ports: &[&str]) -> ServerId {
        let definition = self.definition(name, game, ports);
        let id = definition.id;
        self.hosting.add(definition).await.unwrap();
        id
    }

    pub(crate) fn definition(&self, name: &str, game: &str, ports: &[&str]) -> ServerDefinition {
        let exe = std::env::current_exe().unwrap();
        self.definition_of(name, &format!("'{}' {game}", exe.display()), ports)
    }

    pub(crate) fn definition_of(&self, name: &str, exec: &str, ports: &[&str]) -> ServerDefinition {
        let mut bytes = [0; 32];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let nonce = ServerNonce(bytes[..16].try_into().unwrap());
        let mut definition = ServerDefinition::new(ServerId(bytes), nonce, name);
        definition.game = "test".into();
        definition.exec = parse_exec(exec).unwrap();
        definition.ports = ports.iter().map(|port| parse_port(port).unwrap()).collect();
        definition
    }

    pub(crate) fn view(&self, id: &ServerId) -> ServerView {
        self.hosting.servers().borrow()[id].clone()
    }

    /// Waits until a server looks as wanted.
    pub(crate) async fn until(
        &self,
        id: &ServerId,
        what: &str,
        looks: impl Fn(&ServerView) -> bool,
    ) -> ServerView {
        let mut servers = self.hosting.servers();
        let wait = async {
            loop {
                if let Some(view) = servers.borrow_and_update().get(id)
                    && looks(view)
                {
                    return view.clone();
                }
                servers.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE / 2, wait).await {
            Ok(view) => view,
            Err(_) => panic!("{what} did not come: {:#?}", self.view(id)),
        }
    }

    pub(crate) async fn follow(&self, id: &ServerId, tail: usize) -> mpsc::Receiver<LogLine> {
        self.hosting.logs(id, tail, true).await.unwrap()
    }

    /// The server's folder.
    pub(crate) fn folder(&self, id: &ServerId) -> PathBuf {
        let definition = self.view(id).definition;
        self.dir.path().join("servers").join(definition.folder.as_deref().unwrap())
    }
}

impl Drop for Bench {
    /// A test that failed leaves no game behind.
    fn drop(&mut self) {
        self.tasks.handle().stop();
        #[cfg(unix)]
        for folder in
            std::fs::read_dir(self.dir.path().join("servers")).into_iter().flatten().flatten()
        {
            let state = std::fs::read(folder.path().join("run/state.json")).unwrap_or_default();
            let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
            crate::survival::kill_group(state["pid"].as_i64().unwrap_or_default());
        }
    }
}

async fn begin(
    dir: PathBuf,
    run_as: RunAs,
    store: Arc<MemoryStore>,
    tasks: &Tasks,
) -> HostingHandle {
    let config = HostingConfig {
        servers_dir: dir.join("servers"),
        shim_exe: std::env::current_exe().unwrap(),
        shim_store: dir.join("shim"),
        run_as,
    };
    homehost_hosting::start(config, store, tasks).await.unwrap()
}

/// The next line that contains some text.
pub(crate) async fn line_with(lines: &mut mpsc::Receiver<LogLine>, text: &str) -> LogLine {
    within(text, async {
        loop {
            let line = lines.recv().await.expect("the log goes on");
            if line.text.contains(text) {
                return line;
            }
        }
    })
    .await
}

/// Reads ticks and sees to it that none is missing and none comes twice.
pub(crate) async fn expect_ticks(log: &mut mpsc::Receiver<LogLine>, next: &mut u64, count: u64) {
    let end = *next + count;
    while *next < end {
        let line = within("a tick", log.recv()).await.expect("the log goes on");
        assert_eq!(line.text, format!("tick {next}"));
        assert_eq!(line.seq, *next);
        *next += 1;
    }
}
