//! The settings of a running node: what counts, what waits for a restart, and
//! the file that is followed. A file that cannot be taken changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use homehost_api::{ConfigView, ErrorKind};
use homehost_mesh::{MeshHandle, Multiaddr};
use homehost_protocol::NetworkName;
use homehost_runtime::Shutdown;

use super::file;
use super::{BOOTSTRAP, Config, Given, LOG, Layer, NETWORK, Origin, SETTINGS};
use crate::exit::{Failure, failure};

/// How often the file is read. A system's own notices differ and miss what editors
/// do that put a new file in the old one's place, its times miss a change within
/// one tick of them, and there is not much to read.
const LOOK: Duration = Duration::from_secs(1);

/// Takes another filter of the log.
pub(crate) type SetLog = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// Where settings come from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    /// Whether a person named the file, so that it has to be there.
    pub(crate) named: bool,
    /// What lies over the file, in order.
    pub(crate) above: Vec<Layer>,
}

impl Source {
    /// Reads the file and lays the rest over it.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        self.lay_over(file::read(&self.file)?.as_deref())
    }

    /// Lays the rest over what the file says.
    fn lay_over(&self, text: Option<&str>) -> Result<Config, Failure> {
        let below = file::layer(&self.file, text, self.named)?;
        Ok(Config::of(std::iter::once(below).chain(self.above.iter().cloned())))
    }
}

/// What a file says, nothing where there is none, or why it cannot be read.
type Seen = Result<Option<String>, Failure>;

/// What a node is started with: settings, and what the file said of which they are.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    source: Source,
    text: Option<String>,
    /// Addresses of the invitation that it is started with.
    joined: Vec<Multiaddr>,
}

impl Loaded {
    /// Reads settings for the first time.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn new(source: Source, joined: Vec<Multiaddr>) -> Result<Self, Failure> {
        let text = file::read(&source.file)?;
        Ok(Self { config: source.lay_over(text.as_deref())?, source, text, joined })
    }

    /// Whom to join first.
    pub(crate) fn bootstrap(&self) -> Vec<Multiaddr> {
        with_joined(&self.config, &self.joined)
    }
}

/// The network of a running node.
#[derive(Clone, Debug)]
pub(crate) struct OnNetwork {
    /// Its name.
    pub(crate) name: NetworkName,
    /// Which it would be if no setting said any.
    pub(crate) unsaid: NetworkName,
}

impl OnNetwork {
    /// The network, if somebody had to say it. A node that is on one by where it
    /// listens is so again, and on another when it listens elsewhere.
    fn said(&self) -> Option<&NetworkName> {
        (self.name != self.unsaid).then_some(&self.name)
    }
}

#[derive(Debug)]
struct State {
    /// What counts.
    config: Config,
    /// What came of the setting of the network.
    network: OnNetwork,
    /// Addresses of invitations that were taken up since the start. They count
    /// also where an option lies over the file that they were written to.
    joined: Vec<Multiaddr>,
    /// Keys whose new value waits for a restart.
    waiting: Vec<&'static str>,
    /// Why the file is not taken.
    problem: Option<String>,
}

impl State {
    /// Takes what may change while the node runs; returns the keys that did.
    fn follow(&mut self, new: &Config) -> Vec<&'static str> {
        let (mut changed, mut waiting) = (Vec::new(), Vec::new());
        for setting in SETTINGS {
            let same = match setting.key {
                // An invitation writes down the network that the node is on.
                NETWORK => {
                    let OnNetwork { name, unsaid } = &self.network;
                    new.network().as_ref().unwrap_or(unsaid) == name
                }
                key => self.config.value(key) == new.value(key),
            };
            if same || setting.live {
                // Also when only its line is another.
                self.config.take(setting.key, new);
            }
            match (same, setting.live) {
                (true, _) => {}
                (false, true) => changed.push(setting.key),
                (false, false) => waiting.push(setting.key),
            }
        }
        self.waiting = waiting;
        changed
    }

    fn bootstrap(&self) -> Vec<Multiaddr> {
        with_joined(&self.config, &self.joined)
    }
}

fn with_joined(config: &Config, joined: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut addresses = config.bootstrap();
    for address in joined {
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    addresses
}

/// The settings of a running node.
#[derive(Clone)]
pub(crate) struct Settings {
    source: Source,
    state: Arc<Mutex<State>>,
    mesh: MeshHandle,
}

/// What follows the file.
pub(crate) struct Follow {
    settings: Settings,
    seen: Seen,
    /// Whether what counts was read from a file.
    of_file: bool,
    set_log: SetLog,
}

impl Settings {
    pub(crate) fn new(
        loaded: Loaded,
        network: OnNetwork,
        mesh: MeshHandle,
        set_log: SetLog,
    ) -> (Self, Follow) {
        let Loaded { config, source, text, joined } = loaded;
        let state = State { config, network, joined, waiting: Vec::new(), problem: None };
        let settings = Self { source, state: Arc::new(Mutex::new(state)), mesh };
        let of_file = text.is_some();
        (settings.clone(), Follow { settings, seen: Ok(text), of_file, set_log })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that is followed.
    pub(crate) fn file(&self) -> &Path {
        &self.source.file
    }

    /// What a person sees.
    pub(crate) fn view(&self) -> ConfigView {
        let state = self.state();
        ConfigView {
            file: self.source.file.display().to_string(),
            exists: self.source.file.exists(),
            settings: state.config.view(),
            waiting: state.waiting.iter().map(|key| (*key).to_owned()).collect(),
            problem: state.problem.clone(),
        }
    }

    /// What the owner should look at.
    pub(crate) fn attention(&self) -> Vec<String> {
        let state = self.state();
        let mut sentences = Vec::new();
        if let Some(problem) = &state.problem {
            sentences.push(format!(
                "{problem}; the settings before this change still count: mend the file, as with \
                 `homehost config edit`, or put it back"
            ));
        }
        if !state.waiting.is_empty() {
            sentences.push(format!(
                "{} changed in {} and counts after a restart: `homehost down`, then `homehost up`",
                state.waiting.join(" and "),
                self.source.file.display()
            ));
        }
        sentences
    }

    /// From where the value of a setting came that this node was started with;
    /// nothing for its default.
    pub(crate) fn origin(&self, key: &str) -> Option<Origin> {
        self.state().config.given(key).map(|given| given.origin.clone())
    }

    /// Joins at addresses of an invitation to the node's own network, and writes
    /// both down for the next start. Returns what the file says of the network
    /// where that is another.
    ///
    /// # Errors
    /// Why it could not be written; it is joined all the same.
    pub(crate) async fn join(&self, addresses: Vec<Multiaddr>) -> Result<Option<Given>, Failure> {
        let network = self.state().network.said().cloned();
        let all = {
            let mut state = self.state();
            for address in &addresses {
                if !state.joined.contains(address) {
                    state.joined.push(address.clone());
                }
            }
            state.bootstrap()
        };
        self.mesh.set_bootstrap(all).await;
        let file = self.source.file.clone();
        let written = tokio::task::spawn_blocking(move || {
            file::keep_invitation(&file, network.as_ref(), &addresses)
        });
        written.await.unwrap_or_else(|error| Err(failure(ErrorKind::Internal, error.to_string())))
    }
}

impl Follow {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = self.seen.clone();
        loop {
            let file = self.settings.source.file.clone();
            // A disk may not answer.
            let look = async {
                looks.tick().await;
                tokio::task::spawn_blocking(move || file::read(&file)).await
            };
            let now = tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                now = look => now,
            };
            let Ok(now) = now else { continue };
            // A file that is being written is left to settle for one look.
            let settled = before == now;
            if settled && now != self.seen {
                self.take(&now).await;
                self.seen = now.clone();
            }
            before = now;
        }
    }

    /// What a file leads to that was changed.
    fn settings_of(&self, seen: &Seen) -> Result<Config, Failure> {
        match seen {
            Err(error) => Err(error.clone()),
            // Somebody who wants none of it any more starts the node again.
            Ok(None) if self.of_file => {
                let text = format!("{} is gone", self.settings.source.file.display());
                Err(failure(ErrorKind::NotFound, text))
            }
            Ok(text) => self.settings.source.lay_over(text.as_deref()),
        }
    }

    async fn take(&mut self, seen: &Seen) {
        let read = self.settings_of(seen);
        if read.is_ok() {
            self.of_file = matches!(seen, Ok(Some(_)));
        }
        let (changed, bootstrap, log) = {
            let mut state = self.settings.state();
            match read {
                Ok(config) => {
                    state.problem = None;
                    let changed = state.follow(&config);
                    let log = state.config.log().map(str::to_owned);
                    (changed, state.bootstrap(), log)
                }
                Err(error) => {
                    tracing::warn!(
                        "{}; the settings before this change still count",
                        error.message
                    );
                    state.problem = Some(error.message);
                    return;
                }
            }
        };
        if changed.contains(&LOG) {
            (self.set_log)(log.as_deref());
        }
        if changed.contains(&BOOTSTRAP) {
            self.settings.mesh.set_bootstrap(bootstrap).await;
        }
        if !changed.is_empty() {
            tracing::info!("took {} from the changed settings", changed.join(" and "));
        }
        let waiting = self.settings.state().waiting.join(" and ");
        if !waiting.is_empty() {
            tracing::warn!("{waiting} changed and counts after a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::parse;

    fn config(text: &str) -> Config {
        Config::of([parse("config.toml", text).unwrap()])
    }

    /// Of a node on the network `a` that would be on `main` if nothing was said.
    fn state(config: Config, joined: Vec<Multiaddr>) -> State {
        let network = OnNetwork { name: "a".parse().unwrap(), unsaid: NetworkName::main() };
        State { config, network, joined, waiting: vec![], problem: None }
    }

    #[test]
    fn what_can_change_changes_and_the_rest_waits() {
        let old = config("log = \"warn\"\n[mesh]\nmdns = true\nnetwork = \"a\"\n");
        let mut state = state(old, vec![]);
        let new = config("log = \"info\"\n[mesh]\nmdns = false\nnetwork = \"a\"\n");
        assert_eq!(state.follow(&new), [LOG]);
        assert_eq!(state.waiting, ["mesh.mdns"]);
        assert_eq!(state.config.log(), Some("info"));
        assert!(state.config.mdns(), "as the node was started");
        // Taken back, nothing waits any more.
        assert_eq!(
            state.follow(&config("log = \"info\"\n[mesh]\nnetwork = \"a\"\nmdns = true\n")),
            [] as [&str; 0]
        );
        assert!(state.waiting.is_empty());
    }

    #[test]
    fn an_invitation_counts_beside_what_the_file_says() {
        let address = |n: u8| format!("/ip4/8.8.8.{n}/tcp/1").parse::<Multiaddr>().unwrap();
        let of_file = config("[mesh]\nbootstrap = [\"/ip4/8.8.8.1/tcp/1\"]\n");
        let mut state = state(of_file, vec![address(2), address(1)]);
        assert_eq!(state.bootstrap(), [address(1), address(2)]);
        state.follow(&config(""));
        assert_eq!(state.bootstrap(), [address(2), address(1)]);
    }

    #[test]
    fn the_network_that_the_node_is_on_is_no_change() {
        // It was started with an option that no longer stands anywhere.
        let mut state = state(config(""), vec![]);
        assert_eq!(state.follow(&config("[mesh]\nnetwork = \"a\"\n")), [] as [&str; 0]);
        assert!(state.waiting.is_empty(), "{:?}", state.waiting);
        assert_eq!(state.config.network(), Some("a".parse().unwrap()));
        for other in ["[mesh]\nnetwork = \"b\"\n", ""] {
            state.follow(&config(other));
            assert_eq!(state.waiting, [NETWORK], "{other:?}");
        }
    }
}
