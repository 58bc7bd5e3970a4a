//! The hosting of a node: all its servers, and how others reach them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use homehost_protocol::record::listing::Visibility;
use homehost_protocol::{ServerId, limits};
use homehost_runtime::Tasks;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::account::RunAs;
use crate::actor::{Actor, ActorHandle, Command};
use crate::definition::{PORTS_MAX, SERVERS_MAX, ServerDefinition};
use crate::error::{AddError, LogsError, PowerError, RemoveError, StartError};
use crate::folder::{Folder, slug};
use crate::port::DefinitionStore;
use crate::ports::PortDesk;
use crate::query::Querier;
use crate::shim_store;
use crate::start_line::{Values, substitute};
use crate::view::{LogLine, ServerView};

/// What the hosting needs to know of its surroundings.
#[derive(Clone, Debug)]
pub struct HostingConfig {
    /// Folder of the servers' folders.
    pub servers_dir: PathBuf,
    /// The program that has the hidden subcommand of the shim; usually this one.
    pub shim_exe: PathBuf,
    /// Folder of the copies of that program from which shims run.
    pub shim_store: PathBuf,
    /// With whose rights games run.
    pub run_as: RunAs,
}

/// Folders that are tried by number; after that a server's id names its folder.
const FOLDERS_MAX: u32 = 1_000;

/// All servers as they are now.
pub type Servers = Arc<BTreeMap<ServerId, ServerView>>;

/// What all actors share.
pub(crate) struct Shared {
    servers_dir: PathBuf,
    pub(crate) shim_exe: PathBuf,
    pub(crate) run_as: RunAs,
    pub(crate) store: Arc<dyn DefinitionStore>,
    pub(crate) tasks: Tasks,
    pub(crate) ports: PortDesk,
    pub(crate) querier: Querier,
    views: watch::Sender<Servers>,
    /// Read and written for a moment, never over an `.await`.
    actors: RwLock<BTreeMap<ServerId, ActorHandle>>,
    /// Held over a whole addition or removal: names and folders are unique.
    changes: Mutex<()>,
}

impl Shared {
    /// The folder of a server.
    pub(crate) fn folder(&self, definition: &ServerDefinition) -> Folder {
        let named = definition.folder.clone().unwrap_or_else(|| definition.id.to_string());
        Folder::new(&self.servers_dir, &named)
    }

    /// Shows readers a server as it is now; wakes them only if it changed.
    pub(crate) fn publish(&self, view: ServerView) {
        self.views.send_if_modified(|views| {
            let id = view.definition.id;
            if views.get(&id) == Some(&view) {
                return false;
            }
            Arc::make_mut(views).insert(id, view);
            true
        });
    }

    /// Forgets a server that was removed.
    pub(crate) fn forget(&self, id: &ServerId) {
        self.ports.forget(id);
        self.actors.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.views.send_modify(|views| {
            Arc::make_mut(views).remove(id);
        });
    }

    fn actor(&self, id: &ServerId) -> Option<ActorHandle> {
        self.actors.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    async fn run(self: &Arc<Self>, definition: ServerDefinition) {
        let id = definition.id;
        let actor = Actor::spawn(self.clone(), definition).await;
        self.actors.write().unwrap_or_else(PoisonError::into_inner).insert(id, actor);
    }
}

/// Loads the definitions, finds the games that still run, and starts those that
/// should run and do not.
///
/// # Errors
/// When the definitions or the copy of the program cannot be had. Trouble with
/// one server is shown in its view and keeps nothing else from starting.
pub async fn start(
    config: HostingConfig,
    store: Arc<dyn DefinitionStore>,
    tasks: &Tasks,
) -> Result<HostingHandle, StartError> {
    let definitions = store.load().await?;
    let HostingConfig { servers_dir, shim_exe, shim_store, run_as } = config;
    // Games start in their own folder, so every path must be whole.
    let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let (servers_dir, shim_store) = (whole(servers_dir), whole(shim_store));
    let (exe, dir) = (shim_exe.clone(), shim_store.clone());
    let copy = tokio::task::spawn_blocking(move || shim_store::install(&exe, &dir)).await;
    let shim_exe =
        copy.map_err(std::io::Error::other).flatten().map_err(|source| StartError::ShimStore {
            exe: shim_exe.display().to_string(),
            store: shim_store.display().to_string(),
            source,
        })?;
    let shared = Arc::new(Shared {
        servers_dir,
        shim_exe,
        run_as,
        store,
        tasks: tasks.clone(),
        ports: PortDesk::default(),
        querier: Querier::default(),
        views: watch::Sender::new(Arc::default()),
        actors: RwLock::default(),
        changes: Mutex::new(()),
    });
    // All claims first: none may take a port that belongs to a later one.
    definitions.iter().for_each(|definition| shared.ports.note(definition));
    for definition in definitions {
        shared.run(definition).await;
    }
    Ok(HostingHandle { shared })
}

/// How others reach the hosting.
#[derive(Clone)]
pub struct HostingHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for HostingHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostingHandle").finish_non_exhaustive()
    }
}

impl HostingHandle {
    /// All servers, now and after each change.
    pub fn servers(&self) -> watch::Receiver<Servers> {
        self.shared.views.subscribe()
    }

    /// Adds a server: assigns its ports, makes its folder, stores it. It is not
    /// started, unless it is stored as wanted.
    ///
    /// Its folder is its own: data that another server left behind stays where it
    /// is, for a person to move.
    ///
    /// # Errors
    /// Nothing was changed then.
    pub async fn add(&self, mut definition: ServerDefinition) -> Result<(), AddError> {
        let _changes = self.shared.changes.lock().await;
        let views = self.shared.views.borrow().clone();
        check(&definition, &views)?;
        if views.len() >= SERVERS_MAX {
            return Err(AddError::TooMany(SERVERS_MAX));
        }
        let taken =
            |name: &str| views.values().any(|view| view.definition.folder.as_deref() == Some(name));
        let base = slug(&definition.name);
        let names: Vec<String> = std::iter::once(base.clone())
            .chain((2..FOLDERS_MAX).map(|number| format!("{base}-{number}")))
            .filter(|name| !taken(name))
            .collect();
        let shared = self.shared.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            // Two names can lead to one folder, as all without a Latin letter do.
            definition.folder =
                names.into_iter().find(|name| is_unused(&shared.servers_dir.join(name)));
            shared.ports.settle(&mut definition)?;
            let folder = shared.folder(&definition);
            let checked = dry_run(&definition, &folder).map_err(AddError::from).and_then(|()| {
                folder.prepare(shared.run_as.account().as_ref()).map_err(AddError::Folder)
            });
            if checked.is_err() {
                shared.ports.forget(&definition.id);
            }
            checked.map(|()| definition)
        });
        let definition = prepared.await.map_err(|error| AddError::Folder(error.to_string()))??;
        if let Err(failure) = self.shared.store.save(&definition).await {
            self.shared.ports.forget(&definition.id);
            return Err(failure.into());
        }
        self.shared.run(definition).await;
        Ok(())
    }

    /// Starts a server and notes that it shall run. Resolves when its process
    /// lives, or has failed to; a process that ends within half a second counts
    /// as failed.
    ///
    /// # Errors
    /// Why there is no process; the view says the same.
    pub async fn start(&self, id: &ServerId) -> Result<(), PowerError> {
        self.power(id, Command::Start).await
    }

    /// Stops a server by its ladder and notes that it shall stay stopped.
    /// Resolves when its process is gone.
    ///
    /// # Errors
    /// When there is no such server or the daemon ends before.
    pub async fn stop(&self, id: &ServerId) -> Result<(), PowerError> {
        self.power(id, |reply| Command::Stop { forget: true, reply }).await
    }

    /// Stops and starts a server; one that does not run is started.
    ///
    /// # Errors
    /// As for [`HostingHandle::start`].
    pub async fn restart(&self, id: &ServerId) -> Result<(), PowerError> {
        self.power(id, Command::Restart).await
    }

    /// Ends a server's whole process group at once, past every queue and every
    /// politeness, and notes that it shall stay stopped.
    ///
    /// # Errors
    /// When there is no such server or the daemon ends before.
    pub async fn kill(&self, id: &ServerId) -> Result<(), PowerError> {
        let actor = self.shared.actor(id).ok_or(PowerError::Unknown)?;
        let (reply, result) = oneshot::channel();
        actor.kills.send(reply).await.map_err(|_| PowerError::Ending)?;
        result.await.map_err(|_| PowerError::Ending)??;
        // Only now: storing takes time, and a kill waits for nothing.
        self.power(id, |reply| Command::Stop { forget: true, reply }).await
    }

    /// Removes a server that does not run: its definition, logs and, unless they
    /// are to be kept, its data.
    ///
    /// # Errors
    /// When it runs, or its folder could not be removed.
    pub async fn remove(&self, id: &ServerId, data: KeepData) -> Result<(), RemoveError> {
        let _changes = self.shared.changes.lock().await;
        let actor = self.shared.actor(id).ok_or(RemoveError::Unknown)?;
        let (reply, result) = oneshot::channel();
        let sent = actor.commands.send(Command::Remove(reply)).await;
        sent.map_err(|_| RemoveError::Ending)?;
        result.await.map_err(|_| RemoveError::Ending)??;
        let folder = actor.folder;
        let path = folder.path().display().to_string();
        let removed =
            tokio::task::spawn_blocking(move || folder.remove(data == KeepData::Yes)).await;
        removed
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|source| RemoveError::Folder { folder: path, source })
    }

    /// The last `tail` lines of a server's console, and each new one if asked
    /// to follow. Works for a server that does not run, too.
    ///
    /// # Errors
    /// When there is no such server.
    pub async fn logs(
        &self,
        id: &ServerId,
        tail: usize,
        follow: bool,
    ) -> Result<mpsc::Receiver<LogLine>, LogsError> {
        let actor = self.shared.actor(id).ok_or(LogsError::Unknown)?;
        Ok(actor.console.read(tail, follow).await)
    }

    /// Writes a line to a game's console. A game that does not take it shows in
    /// the `note` of its view.
    ///
    /// # Errors
    /// When the game does not run.
    pub async fn send_stdin(&self, id: &ServerId, line: String) -> Result<(), PowerError> {
        self.power(id, |reply| Command::Stdin { line, reply }).await
    }

    /// Changes who learns of a server, whether it runs or not.
    ///
    /// # Errors
    /// When there is no such server or it could not be stored.
    pub async fn set_visibility(
        &self,
        id: &ServerId,
        visibility: Option<Visibility>,
    ) -> Result<(), PowerError> {
        self.power(id, |reply| Command::SetVisibility { visibility, reply }).await
    }

    /// Stops every server, all at once, without noting that they shall stay
    /// stopped: the next start of the node starts those again that were to run.
    pub async fn stop_all(&self) {
        let ids: Vec<ServerId> = self.shared.views.borrow().keys().copied().collect();
        let stops: Vec<_> = ids
            .into_iter()
            .map(|id| {
                let this = self.clone();
                tokio::spawn(async move {
                    this.power(&id, |reply| Command::Stop { forget: false, reply }).await
                })
            })
            .collect();
        for stop in stops {
            if let Ok(Err(error)) = stop.await {
                tracing::warn!("{error}");
            }
        }
    }

    async fn power(
        &self,
        id: &ServerId,
        command: impl FnOnce(oneshot::Sender<Result<(), PowerError>>) -> Command,
    ) -> Result<(), PowerError> {
        let actor = self.shared.actor(id).ok_or(PowerError::Unknown)?;
        let (reply, result) = oneshot::channel();
        actor.commands.send(command(reply)).await.map_err(|_| PowerError::Ending)?;
        result.await.map_err(|_| PowerError::Ending)?
    }
}

/// Whether a removal spares the game's own data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepData {
    /// The `data` folder stays.
    Yes,
    /// Everything goes.
    No,
}

/// Whether nothing is there that a server could mistake for its own.
fn is_unused(folder: &std::path::Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn check(
    definition: &ServerDefinition,
    views: &BTreeMap<ServerId, ServerView>,
) -> Result<(), AddError> {
    let invalid = |field, rule: &str| Err(AddError::Invalid { field, rule: rule.to_owned() });
    let name = &definition.name;
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX || name.chars().any(char::is_control)
    {
        return invalid("name", "must have 1 to 48 bytes and no control characters");
    }
    if definition.exec.first().is_none_or(String::is_empty) {
        return Err(crate::start_line::ExecError::Empty.into());
    }
    if definition.ports.len() > PORTS_MAX {
        return invalid("ports", "must be at most 16");
    }
    let asks = definition.query.kind != crate::definition::QueryKind::None;
    if asks && definition.query_port().is_none() {
        return invalid("query", "needs a port: declare one called query or game, or name it");
    }
    let stop = definition.stop_command.as_deref().unwrap_or_default();
    if stop.contains(['\n', '\r', '\0']) || stop.len() > crate::shim::platform::INPUT_BYTES_MAX {
        return invalid("stop command", "must be one line");
    }
    let taken = views
        .values()
        .any(|view| view.definition.name == *name || view.definition.id == definition.id);
    if taken { Err(AddError::Duplicate(name.clone())) } else { Ok(()) }
}

/// Whether the start line can be filled in.
fn dry_run(
    definition: &ServerDefinition,
    folder: &Folder,
) -> Result<(), crate::start_line::ExecError> {
    let values = Values {
        data: &folder.data(),
        name: &definition.name,
        slots: definition.slots,
        ports: &definition.assigned_ports(),
    };
    substitute(&definition.exec, values).map(drop)
}
