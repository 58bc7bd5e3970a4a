//! The one door: every action of every person, page and program ends here, and
//! every view is made here.

pub(crate) mod home_address;
pub(crate) mod identity;
mod invite;
mod metrics;
mod network;
mod new_server;
pub(crate) mod reachability;
pub(crate) mod views;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};
use homehost_api::{
    Action, ActionRequest, ApiError, ConfigView, DirectoryChange, DirectoryPage, DiscoverQuery,
    ErrorKind, Identity, Invitation, LogLine, Lookup, MeshStats, NetworkFacts, NodeApi, NodeStatus,
    Peer, Principal, Receipt, Server, ServerReach, Visibility,
};
use homehost_directory::{DirectoryClosed, DirectoryHandle};
use homehost_hosting::{ErrorClass, HostingHandle, KeepData, PowerError, ServerView};
use homehost_mesh::MeshHandle;
use homehost_protocol::ServerId;
use homehost_runtime::Tasks;
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch as watch_channel};

use crate::config::watch::Settings;
use crate::identity::keys::Keys;
use crate::wire::announce::Announcer;
use crate::wire::audit::{Audit, Begun, now};
use crate::wire::clock::ClockHandle;
use crate::wire::exchange::RepairStats;
use crate::wire::prove::Reports;
use crate::wire::storage::Storage;

pub(crate) use home_address::HomeAddress;
pub(crate) use identity::NO_PHRASE;
pub(crate) use invite::multiaddrs as invited;
pub(crate) use metrics::register_metrics;

/// How long a node without a peer waits before it says so.
const ALONE_AFTER: Duration = Duration::from_secs(3);

/// What a node without a peer says.
pub(crate) const ALONE: &str = "alone: give --bootstrap or --invite, or wait for one on the LAN";

/// How a node was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Not yet.
    No,
    /// Games go on.
    LeaveGames,
    /// Games were stopped.
    GamesStopped,
}

/// All parts of a running node, behind [`NodeApi`].
pub(crate) struct Control {
    pub(crate) keys: Arc<Keys>,
    pub(crate) data_dir: PathBuf,
    pub(crate) started: Instant,
    pub(crate) started_at: String,
    pub(crate) settings: Settings,
    pub(crate) mesh: MeshHandle,
    pub(crate) directory: DirectoryHandle,
    pub(crate) hosting: HostingHandle,
    pub(crate) announcer: Announcer,
    pub(crate) reports: watch_channel::Receiver<Reports>,
    pub(crate) repairs: Arc<RepairStats>,
    pub(crate) clock: ClockHandle,
    pub(crate) storage: Storage,
    pub(crate) home: HomeAddress,
    /// A sentence when servers were lost with the ledger before this start.
    pub(crate) lost: Option<String>,
    pub(crate) audit: Audit,
    pub(crate) registry: Arc<Registry>,
    pub(crate) ready: AtomicBool,
    pub(crate) stop: watch_channel::Sender<Stop>,
    pub(crate) tasks: Tasks,
    /// Set once the node stops its games: none may be started any more.
    pub(crate) closing: AtomicBool,
    /// Itself, for actions that outlive the request that asked for them.
    pub(crate) this: Weak<Self>,
}

impl Control {
    fn servers_now(&self) -> Arc<std::collections::BTreeMap<ServerId, ServerView>> {
        self.hosting.servers().borrow().clone()
    }

    /// Somebody who was told makes a server public.
    async fn becomes_public(&self) {
        let mesh = self.mesh.status().borrow().clone();
        self.home.becomes_public(&mesh).await;
    }

    /// How many games run.
    pub(crate) fn games_running(&self) -> usize {
        self.servers_now().values().filter(|server| server.pid.is_some()).count()
    }

    /// Finds a server by id, unique beginning of an id, or name.
    fn find(&self, text: &str) -> Result<ServerView, ApiError> {
        let servers = self.servers_now();
        let by_name = servers.values().find(|server| server.definition.name == text);
        if let Some(server) = by_name {
            return Ok(server.clone());
        }
        let begins = |id: &ServerId| id.to_string().starts_with(&text.to_lowercase());
        let mut found = servers.iter().filter(|(id, _)| !text.is_empty() && begins(id));
        match (found.next(), found.next()) {
            (Some((_, server)), None) => Ok(server.clone()),
            (Some(_), Some(_)) => {
                let text = format!("several ids begin with {text:?}: give more of it");
                Err(ApiError::new(ErrorKind::Conflict, text))
            }
            (None, _) => {
                let text = format!("there is no server {text:?} here: see `homehost server ls`");
                Err(ApiError::new(ErrorKind::NotFound, text))
            }
        }
    }

    fn receipt(
        &self,
        id: u64,
        action: &Action,
        server: Option<ServerId>,
        message: String,
    ) -> Receipt {
        let server = server.and_then(|id| self.servers_now().get(&id).cloned());
        Receipt {
            id,
            action: action.name().to_owned(),
            at: now(),
            message,
            server: server.map(|server| self.server_view(&server)),
            prepared: None,
        }
    }

    /// Does what was entered into the audit log as `id`.
    async fn perform(&self, id: u64, action: &Action) -> Result<Receipt, ApiError> {
        let starts = matches!(action, Action::ServerStart { .. } | Action::ServerRestart { .. })
            || matches!(action, Action::ServerAdd(new) if new.start);
        if starts && self.closing.load(Ordering::Acquire) {
            let text = "the node is stopping its games: start it again first";
            return Err(ApiError::new(ErrorKind::Unavailable, text));
        }
        let done = |server: &ServerView, what: &str| {
            let message = format!("{} {what}", server.definition.name);
            self.receipt(id, action, Some(server.definition.id), message)
        };
        match action {
            Action::ServerAdd(new) => self.add(id, action, new).await,
            Action::ServerStart { server } => {
                let server = self.find(server)?;
                self.hosting.start(&server.definition.id).await.map_err(power)?;
                Ok(done(&server, "is starting"))
            }
            Action::ServerStop { server } => {
                let server = self.find(server)?;
                self.hosting.stop(&server.definition.id).await.map_err(power)?;
                Ok(done(&server, "has stopped"))
            }
            Action::ServerRestart { server } => {
                let server = self.find(server)?;
                self.hosting.restart(&server.definition.id).await.map_err(power)?;
                Ok(done(&server, "is starting again"))
            }
            Action::ServerKill { server } => {
                let server = self.find(server)?;
                self.hosting.kill(&server.definition.id).await.map_err(power)?;
                Ok(done(&server, "was killed"))
            }
            Action::ServerRemove { server, delete_data } => {
                let server = self.find(server)?;
                let data = if *delete_data { KeepData::No } else { KeepData::Yes };
                self.hosting
                    .remove(&server.definition.id, data)
                    .await
                    .map_err(|error| refused(error.class(), &error))?;
                let folder = views::folder(&self.data_dir, &server);
                let message = if *delete_data {
                    format!("{} is gone, and its folder with it", server.definition.name)
                } else {
                    format!("{} is gone; its files are in {folder}", server.definition.name)
                };
                Ok(self.receipt(id, action, None, message))
            }
            Action::ServerSet { server, visibility } => {
                let server = self.find(server)?;
                if *visibility == Visibility::Public {
                    self.becomes_public().await;
                }
                let told = views::visibility_of(*visibility);
                self.hosting.set_visibility(&server.definition.id, told).await.map_err(power)?;
                Ok(done(&server, &format!("is {}", views::told(*visibility))))
            }
            Action::ServerInput { server, line } => {
                let server = self.find(server)?;
                let id = server.definition.id;
                self.hosting.send_stdin(&id, line.clone()).await.map_err(power)?;
                Ok(done(&server, "was told"))
            }
            Action::MeshJoin { invite } => {
                let message = self.join_mesh(invite).await?;
                Ok(self.receipt(id, action, None, message))
            }
            Action::NodeStop { games } => self.stop_node(id, action, *games).await,
            Action::IdPrepare
            | Action::IdApply { .. }
            | Action::IdDeviceAdd { .. }
            | Action::IdDeviceRevoke { .. }
            | Action::IdDeviceJoin { .. } => self.change_keys(id, action).await,
        }
    }

    async fn add(
        &self,
        id: u64,
        action: &Action,
        new: &homehost_api::NewServer,
    ) -> Result<Receipt, ApiError> {
        if let Some(root) = self.keys.look(crate::identity::Identity::joining) {
            let text = format!(
                "this machine waits to join {root}, and its servers would get other ids then: \
                 wait, or end it with `homehost id device join --cancel`"
            );
            return Err(ApiError::new(ErrorKind::WrongState, text));
        }
        let definition = new_server::definition(new, &self.keys.state())?;
        let (server, name) = (definition.id, definition.name.clone());
        let hidden = definition.ports.is_empty();
        if new.visibility == Visibility::Public {
            self.becomes_public().await;
        }
        self.hosting.add(definition).await.map_err(|error| refused(error.class(), &error))?;
        if new.start {
            // The server stays defined: what is wrong can be mended and tried again.
            self.hosting.start(&server).await.map_err(|error| {
                let mut error = power(error);
                error.message = format!("{name} was added but did not start: {}", error.message);
                error
            })?;
        }
        let mut message = format!("{name} was added");
        if new.start {
            message.push_str(" and is starting");
        }
        if new.visibility != Visibility::Public {
            message.push_str(&format!("; it is {}", views::told(new.visibility)));
        }
        if hidden {
            message.push_str("; it has no --port, so players will not find it in the directory");
        }
        Ok(self.receipt(id, action, Some(server), message))
    }

    async fn stop_node(&self, id: u64, action: &Action, games: bool) -> Result<Receipt, ApiError> {
        let before = self.games_running();
        let message = if games {
            self.closing.store(true, Ordering::Release);
            self.hosting.stop_all().await;
            let left = self.games_running();
            if left > 0 {
                self.closing.store(false, Ordering::Release);
                let text = format!(
                    "{} could not be stopped: see `homehost server ls`; the node stays up",
                    count(left, "game server")
                );
                return Err(ApiError::new(ErrorKind::Timeout, text));
            }
            // Others are told before the node falls silent.
            self.announcer.silent(Duration::from_secs(3)).await;
            self.stop.send_replace(Stop::GamesStopped);
            match before {
                0 => "the node stops; no game server was running".to_owned(),
                _ => format!("the node stops; {} stopped", count(before, "game server")),
            }
        } else {
            self.stop.send_if_modified(|stop| {
                let first = *stop == Stop::No;
                if first {
                    *stop = Stop::LeaveGames;
                }
                first
            });
            match before {
                0 => "the node stops".to_owned(),
                _ => format!("the node stops; {}", going_on(before)),
            }
        };
        Ok(self.receipt(id, action, None, message))
    }

    /// A sentence when nobody is there.
    fn alone(&self) -> Option<String> {
        let nobody = self.mesh.status().borrow().peers.is_empty();
        (nobody && self.started.elapsed() >= ALONE_AFTER).then(|| ALONE.to_owned())
    }
}

/// What becomes of the games of a node that stops.
pub(crate) fn going_on(games: usize) -> String {
    let verb = if games == 1 { "goes" } else { "go" };
    format!(
        "{} {verb} on: `homehost up` finds them again, `homehost down --games` stops them",
        count(games, "game server")
    )
}

pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// An error of the hosting in the words of the API.
pub(crate) fn refused(class: ErrorClass, error: &dyn std::fmt::Display) -> ApiError {
    let kind = match class {
        ErrorClass::Internal => ErrorKind::Internal,
        ErrorClass::BadConfig => ErrorKind::Usage,
        ErrorClass::NotFound => ErrorKind::NotFound,
        ErrorClass::WrongState => ErrorKind::WrongState,
        ErrorClass::Denied => ErrorKind::Denied,
        ErrorClass::Timeout => ErrorKind::Timeout,
        ErrorClass::Conflict => ErrorKind::Conflict,
    };
    ApiError::new(kind, error.to_string())
}

fn power(error: PowerError) -> ApiError {
    refused(error.class(), &error)
}

fn closed(_: DirectoryClosed) -> ApiError {
    ApiError::new(ErrorKind::Unavailable, "the node is shutting down")
}

#[async_trait]
impl NodeApi for Control {
    async fn act(&self, request: ActionRequest, by: Principal) -> Result<Receipt, ApiError> {
        match self.audit.begin(&request, &by).await? {
            Begun::Before(receipt) => Ok(*receipt),
            Begun::New { id, held } => {
                let gone = || ApiError::new(ErrorKind::Unavailable, "the node is shutting down");
                let this = self.this.upgrade().ok_or_else(gone)?;
                let (reply, answer) = oneshot::channel();
                // A task of its own: what was begun is finished and entered,
                // also when the one who asked goes away.
                self.tasks.spawn("action", async move {
                    let result = this.perform(id, &request.action).await;
                    this.audit.end(request, by, id, &result).await;
                    drop(held);
                    let _ = reply.send(result);
                    Ok::<_, std::convert::Infallible>(())
                });
                answer.await.unwrap_or_else(|_| Err(gone()))
            }
        }
    }

    async fn status(&self) -> Result<NodeStatus, ApiError> {
        let servers = self.servers_now();
        let mesh = self.mesh.status().borrow().clone();
        let stats = self.directory.stats();
        let unwritable = self.storage.problem().await;
        let has_public = servers.values().any(|server| server.definition.visibility.is_none());
        let shows_home = self.home.attention(has_public, &mesh).await;
        let mut attention = self.attention(unwritable.as_ref());
        attention.extend(shows_home.map(str::to_owned));
        Ok(NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.keys.node().to_string(),
            root: self.keys.state().chain.root().to_string(),
            network: self.keys.network().to_string(),
            started: self.started_at.clone(),
            pid: std::process::id(),
            data_dir: self.data_dir.display().to_string(),
            addresses: mesh.listening.iter().map(ToString::to_string).collect(),
            peers: mesh.peers.len(),
            peers_remembered: mesh.remembered,
            alone: self.alone(),
            listings: stats.listings,
            tombstones: stats.tombstones,
            servers_running: self.games_running(),
            servers: servers.len(),
            before_public: self.home.before_public(&mesh).map(str::to_owned),
            attention,
            unwritable: unwritable.map(|why| why.reason()),
            clock: self.clock.view(),
            refused: stats.refused.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        })
    }

    async fn identity(&self) -> Result<Identity, ApiError> {
        let mut identity = self.keys.look(identity::view);
        identity.network = Some(self.keys.network().to_string());
        let conflict = self.keys.conflict();
        identity.conflict = conflict.map(|fork| fork.advice().to_owned());
        identity.conflict_is_final = conflict == Some(crate::identity::Fork::Epochs);
        Ok(identity)
    }

    async fn peers(&self) -> Result<Vec<Peer>, ApiError> {
        Ok(self.mesh.status().borrow().peers.iter().map(views::peer).collect())
    }

    async fn servers(&self) -> Result<Vec<Server>, ApiError> {
        let mut servers: Vec<_> =
            self.servers_now().values().map(|server| self.server_view(server)).collect();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(servers)
    }

    async fn server(&self, server: &str) -> Result<Server, ApiError> {
        self.find(server).map(|server| self.server_view(&server))
    }

    async fn logs(
        &self,
        server: &str,
        tail: usize,
        follow: bool,
    ) -> Result<BoxStream<'static, LogLine>, ApiError> {
        let id = self.find(server)?.definition.id;
        let lines = self
            .hosting
            .logs(&id, tail, follow)
            .await
            .map_err(|error| refused(error.class(), &error))?;
        let shutdown = self.tasks.shutdown();
        let lines = futures::stream::unfold(lines, |mut lines| async move {
            lines.recv().await.map(|line| (views::log_line(line), lines))
        });
        Ok(lines.take_until(async move { shutdown.stopping().await }).boxed())
    }

    async fn discover(&self, query: DiscoverQuery) -> Result<DirectoryPage, ApiError> {
        let page = self.directory.search(views::query(query)?).await.map_err(views::no_result)?;
        Ok(DirectoryPage {
            rows: page.rows.into_iter().map(views::directory_row).collect(),
            next: page.next.map(|cursor| cursor.to_string()),
            matching: page.matching,
        })
    }

    async fn watch(
        &self,
        query: DiscoverQuery,
    ) -> Result<BoxStream<'static, DirectoryChange>, ApiError> {
        let shutdown = self.tasks.shutdown();
        let query = DiscoverQuery { cursor: None, ..query };
        let changes = watch::changes(self.directory.clone(), views::query(query)?);
        Ok(changes.take_until(async move { shutdown.stopping().await }).boxed())
    }

    async fn lookup(&self, id: &str) -> Result<Lookup, ApiError> {
        self.look_up(id).await
    }

    async fn reach(&self, server: &str) -> Result<ServerReach, ApiError> {
        self.reach_of(server)
    }

    async fn mesh_stats(&self) -> Result<MeshStats, ApiError> {
        Ok(self.stats())
    }

    async fn network_facts(&self) -> Result<NetworkFacts, ApiError> {
        Ok(reachability::view(&self.mesh.status().borrow()))
    }

    async fn invitation(&self) -> Result<Invitation, ApiError> {
        self.invite()
    }

    async fn config(&self) -> Result<ConfigView, ApiError> {
        let mut view = self.settings.view();
        let network = view.settings.iter_mut().find(|of| of.key == crate::config::NETWORK);
        if let Some(network) = network.filter(|network| network.value.is_none()) {
            // What the rule led to is worth more than the rule.
            network.default = self.keys.network().to_string();
        }
        Ok(view)
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    async fn metrics(&self) -> Result<String, ApiError> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
        Ok(text)
    }
}
