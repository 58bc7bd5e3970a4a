//! A node as a process, and its command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::http::try_exchange;
use crate::process::Signal;
use crate::wine::{Wine, unix_path, windows_path};
use crate::{Answer, Events, Lines, Place, Response, Test, eventually, exchange, run};
use std::io::Write as _;

/// Longest wait for a connection with one certain node: a search goes on every
/// minute, and those that are gone are tried too.
const MET: Duration = Duration::from_secs(120);

/// Longest wait for a node to come up, on a machine that does much else.
const START: Duration = Duration::from_secs(60);

/// Longest wait for a command; a stop may need every rung of its ladder.
const COMMAND: Duration = Duration::from_secs(120);

/// Games of all nodes of this process are started one after another: two nodes
/// that look for a free port at the same moment find the same one.
static STARTS: Mutex<()> = Mutex::new(());

/// A game server to be added: by default our own stand-in, which speaks A2S.
#[derive(Clone, Debug)]
pub struct Game {
    args: Vec<String>,
}

impl Game {
    /// The stand-in with a name, 16 slots and some players.
    pub fn stand_in(test: &Test, name: &str, players: u8) -> Self {
        Self::stand_in_of(&test.program().display().to_string(), name, players)
    }

    /// The same, on a node of Windows.
    pub fn windows_stand_in(test: &Test, name: &str, players: u8) -> Self {
        Self::stand_in_of(&windows_path(&test.windows_program()), name, players)
    }

    fn stand_in_of(program: &str, name: &str, players: u8) -> Self {
        let exec = format!(
            "\"{program}\" __a2s-game --port {{port.game}} --name {{name}} --slots {{slots}} \
             --players {players}"
        );
        Self::new(name, "stand-in", &exec)
            .with("--port", "game=auto/udp")
            .with("--query", "a2s")
            .with("--slots", "16")
    }

    /// A game with a start line and nothing else.
    pub fn new(name: &str, game: &str, exec: &str) -> Self {
        let args = ["server", "add", name, "--game", game, "--exec", exec];
        Self { args: args.map(str::to_owned).to_vec() }
    }

    /// Another option of `server add`.
    pub fn with(mut self, option: &str, value: &str) -> Self {
        self.args.extend([option.to_owned(), value.to_owned()]);
        self
    }

    /// More words for its start line.
    pub fn with_exec(mut self, words: &str) -> Self {
        // As `new` has it: server, add, NAME, --game, GAME, --exec, LINE.
        self.args[6].push_str(&format!(" {words}"));
        self
    }

    fn args(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }
}

/// A node of a test. Its folder stays when it is stopped.
#[derive(Debug)]
pub struct Node<'a> {
    test: &'a Test,
    name: String,
    data_dir: PathBuf,
    bootstrap: Vec<String>,
    network: String,
    env: Vec<(String, String)>,
    place: Place,
    daemon: Option<Lines>,
    http: Option<(SocketAddr, String)>,
    system: System,
}

/// For which system a node's program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// That of the tests.
    Here,
    /// Windows, under Wine.
    Windows,
}

impl<'a> Node<'a> {
    pub(crate) fn new(test: &'a Test, name: &str, bootstrap: &[&str], system: System) -> Self {
        Self {
            test,
            name: name.to_owned(),
            data_dir: test.folder().join(name),
            bootstrap: bootstrap.iter().map(|&address| address.to_owned()).collect(),
            network: test.network().to_owned(),
            env: Vec::new(),
            place: Place::default(),
            daemon: None,
            http: None,
            system,
        }
    }

    /// Its folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Gives it another folder, for the next start.
    pub fn set_data_dir(&mut self, data_dir: PathBuf) {
        self.data_dir = data_dir;
    }

    /// Puts it on another network, for the next start.
    pub fn set_network(&mut self, network: &str) {
        network.clone_into(&mut self.network);
    }

    /// Tells it whom to join, for the next start.
    pub fn set_bootstrap(&mut self, bootstrap: &[&str]) {
        self.bootstrap = bootstrap.iter().map(|&address| address.to_owned()).collect();
    }

    /// Gives its daemon an environment variable, for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// `homehost up` with everything on loopback.
    /// Puts it somewhere else than on loopback, for the next start.
    pub fn set_place(&mut self, place: Place) {
        self.place = place;
    }

    /// `homehost up` at its place: with everything on loopback if none was given.
    pub fn up_command(&self) -> Command {
        let mut command = self.command(&["up", "--http", "127.0.0.1:0"]);
        if !self.place.has_mdns() {
            command.arg("--no-mdns");
        }
        command.args(["--network", &self.network]);
        let loopback = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
        command.arg("--listen").args(self.place.listen(&loopback));
        if !self.bootstrap.is_empty() {
            command.arg("--bootstrap").args(&self.bootstrap);
        }
        command.envs(self.place.env());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command of this node, with `--json`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.plain_command(args);
        command.arg("--json");
        command
    }

    /// A command of this node, as a person gives it.
    fn plain_command(&self, args: &[&str]) -> Command {
        let mut command = match self.system {
            System::Here => self.place.command(self.test.program()),
            System::Windows => Wine::get().command(self.test.windows_program()),
        };
        command.args(args).arg("--data-dir");
        match self.system {
            System::Here => command.arg(&self.data_dir),
            System::Windows => command.arg(windows_path(&self.data_dir)),
        };
        command
            .env_remove("HOMEHOST_DATA_DIR")
            .env("HOMEHOST_LOG", "warn,homehost=debug,homehost_hosting=debug,homehost_mesh=info");
        command
    }

    /// Starts it and waits until it is up.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(&mut self) {
        let command = self.up_command();
        self.start_by(command);
    }

    /// Starts it with these options of `up` and no others, and waits until it is
    /// up. Where it listens must be among them or in its file.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_with(&mut self, options: &[&str]) {
        let args: Vec<&str> = ["up"].iter().chain(options).copied().collect();
        let command = self.command(&args);
        self.start_by(command);
    }

    #[track_caller]
    fn start_by(&mut self, mut command: Command) {
        let log = self.test.log(&self.name);
        let mut daemon = Lines::start(&mut command, log);
        let up: Value = daemon
            .find(START, &format!("{} is up", self.name), |line| serde_json::from_str(line).ok());
        let api = up["api"].as_str().expect("it says where its API is");
        let port = api.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let token = up["token_file"].as_str().expect("it says where its token is");
        let token = match self.system {
            System::Here => PathBuf::from(token),
            System::Windows => unix_path(token),
        };
        let token = std::fs::read_to_string(token).expect("the token can be read");
        self.http = Some((SocketAddr::from(([127, 0, 0, 1], port)), token.trim().to_owned()));
        self.daemon = Some(daemon);
    }

    /// Process id of its daemon.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").pid()
    }

    /// `kill -9` of its daemon; on Windows `TerminateProcess`.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        match self.system {
            System::Here => daemon.send(Signal::Kill),
            System::Windows => self.terminate(),
        }
        daemon.wait(Duration::from_secs(20));
    }

    /// Ends a daemon of Windows as its task manager does.
    #[track_caller]
    fn terminate(&self) {
        let place = std::fs::read(self.data_dir.join("api.json")).expect("it is up");
        let place: Value = serde_json::from_slice(&place).expect("JSON");
        let mut kill = Wine::get().command("taskkill");
        let answer = run(kill.args(["/F", "/PID"]).arg(place["pid"].to_string()), COMMAND);
        assert_eq!(answer.code, Some(0), "{answer:?}");
    }

    /// Sends a signal to its daemon and waits for the end; the exit code.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end_by(&mut self, signal: Signal) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.send(signal);
        daemon.wait(Duration::from_secs(20))
    }

    /// `homehost down`; games go on.
    ///
    /// # Panics
    /// When the daemon does not end with success.
    #[track_caller]
    pub fn down(&mut self) {
        self.ok(&["down"]);
        self.ended();
    }

    /// `homehost down --games`.
    ///
    /// # Panics
    /// When the daemon does not end with success.
    #[track_caller]
    pub fn down_with_games(&mut self) {
        self.ok(&["down", "--games"]);
        self.ended();
    }

    #[track_caller]
    fn ended(&mut self) {
        let mut daemon = self.daemon.take().expect("it ran");
        assert_eq!(daemon.wait(Duration::from_secs(20)), Some(0), "{} ended", self.name);
    }

    /// Runs a verb with `--json`.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Answer {
        self.logged(args, &mut self.command(args))
    }

    /// Runs a verb as a person does, into a pipe.
    #[track_caller]
    pub fn plain(&self, args: &[&str]) -> Answer {
        self.logged(args, &mut self.plain_command(args))
    }

    /// Runs a verb as a person does, in a terminal.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn terminal(&self, args: &[&str]) -> crate::Terminal {
        crate::Terminal::start(self.plain_command(args))
    }

    #[track_caller]
    fn logged(&self, args: &[&str], command: &mut Command) -> Answer {
        let answer = run(command, COMMAND);
        // A log that cannot be written must not stop the test.
        let _ = writeln!(self.test.log("commands"), "{}: {args:?}: {answer:?}", self.name);
        answer
    }

    /// Runs a verb that works, with `--json`.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Value {
        let answer = self.cli(args);
        assert_eq!(answer.code, Some(0), "{args:?}: {answer:?}");
        answer.json()
    }

    /// Runs a verb that goes on printing, with `--json`.
    #[track_caller]
    pub fn follow(&self, args: &[&str]) -> Lines {
        Lines::start(&mut self.command(args), self.test.log("follow"))
    }

    /// Adds a game and starts it; returns the server.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn host(&self, game: &Game) -> Value {
        self.ok_start(&game.clone().args_started()).remove_server()
    }

    /// Adds a game without starting it; returns the answer.
    #[track_caller]
    pub fn add(&self, game: &Game) -> Answer {
        self.cli(&game.args())
    }

    /// Adds a game and starts it; returns the answer.
    #[track_caller]
    pub fn add_and_start(&self, game: &Game) -> Answer {
        let args = game.clone().args_started();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _one = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
        self.cli(&args)
    }

    #[track_caller]
    fn ok_start(&self, args: &[String]) -> Receipt {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _one = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
        Receipt(self.ok(&args))
    }

    /// Starts a server that was added before.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn start_server(&self, server: &str) {
        let _one = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
        self.ok(&["server", "start", server]);
    }

    /// Waits until a server is in a state; returns it.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    pub fn server_in(&self, server: &str, state: &str, within: Duration) -> Value {
        eventually(within, &format!("{server} is {state}"), || {
            let servers = self.get("/api/v1/servers").json();
            let found = servers.as_array().into_iter().flatten().find(|s| s["name"] == server);
            match found {
                Some(found) if found["state"] == state => Ok(found.clone()),
                _ => Err(servers.to_string()),
            }
        })
    }

    /// Waits until a server runs and answers; returns it.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn running(&self, server: &str) -> Value {
        self.server_in(server, "running", Duration::from_secs(30))
    }

    /// The address and token of its API.
    ///
    /// # Panics
    /// When it was never up.
    pub fn http(&self) -> (SocketAddr, &str) {
        let (address, token) = self.http.as_ref().expect("it was up");
        (*address, token)
    }

    /// Asks its API.
    ///
    /// # Panics
    /// When it does not answer with success.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        let (address, headers) = self.request();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let response = self.place.enter(|| exchange(address, &format!("GET {path}"), &headers, ""));
        assert_eq!(response.status, 200, "{path}: {response:?}");
        response
    }

    /// Sends an action to its API.
    #[track_caller]
    pub fn post(&self, body: &Value) -> Response {
        let (address, headers) = self.request();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = body.to_string();
        self.place.enter(|| exchange(address, "POST /api/v1/actions", &headers, &body))
    }

    /// Opens an event stream of its API.
    #[track_caller]
    pub fn events(&self, path: &str) -> Events {
        let (address, headers) = self.request();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.place.enter(|| Events::open(address, path, &headers))
    }

    fn request(&self) -> (SocketAddr, [(&'static str, String); 3]) {
        let (address, token) = self.http();
        let headers = [
            ("Host", address.to_string()),
            ("Authorization", format!("Bearer {token}")),
            ("Content-Type", "application/json".to_owned()),
        ];
        (address, headers)
    }

    /// Rows of a search, as in `rows("?game=luanti")`.
    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<Value> {
        match self.get(&format!("/api/v1/discover{query}")).json() {
            Value::Array(rows) => rows,
            other => panic!("no rows: {other}"),
        }
    }

    /// Waits until a server is listed with a status; returns the row.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    pub fn sees(&self, id: &Value, status: &str, within: Duration) -> Value {
        let what = format!("{} sees {id} as {status}", self.name);
        eventually(within, &what, || {
            let rows = self.rows("?all=true&limit=1000");
            let mut of_id = rows.iter().filter(|row| row["id"] == *id);
            match (of_id.next(), of_id.next()) {
                (Some(row), None) if row["status"] == status => Ok(row.clone()),
                (_, Some(_)) => panic!("listed twice: {rows:#?}"),
                _ => Err(format!("{rows:#?}")),
            }
        })
    }

    /// Its own multiaddr.
    pub fn address(&self) -> String {
        let status = self.get("/api/v1/status").json();
        status["addresses"][0].as_str().expect("it listens").to_owned()
    }

    /// Its peer id.
    pub fn id(&self) -> String {
        self.get("/api/v1/status").json()["node"].as_str().expect("a peer id").to_owned()
    }

    /// Waits until it is connected to another node.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    pub fn connected_to(&self, other: &Node<'_>) {
        let id = other.id();
        let what = format!("{} is connected to {}", self.name, other.name);
        eventually(MET, &what, || {
            let peers = self.get("/api/v1/peers").json();
            let found = peers.as_array().into_iter().flatten().any(|peer| peer["node"] == id);
            found.then_some(()).ok_or_else(|| peers.to_string())
        });
    }
}

struct Receipt(Value);

impl Receipt {
    fn remove_server(mut self) -> Value {
        self.0["server"].take()
    }
}

impl Game {
    fn args_started(self) -> Vec<String> {
        let mut args = self.args;
        args.push("--start".to_owned());
        args
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let (Some(mut daemon), Some((address, token))) = (self.daemon.take(), self.http.take())
        else {
            return;
        };
        // Where processes cannot be found by their command line, this is what
        // ends the games; what is left is killed by the test.
        let host = address.to_string();
        let bearer = format!("Bearer {token}");
        let headers =
            [("Host", &*host), ("Authorization", &*bearer), ("Content-Type", "application/json")];
        let body = r#"{"action":{"do":"node-stop","games":true}}"#;
        let ask = || try_exchange(address, "POST /api/v1/actions", &headers, body).is_ok();
        let asked = daemon.is_running() && self.place.enter(ask);
        if asked && !std::thread::panicking() {
            daemon.wait(Duration::from_secs(20));
        }
    }
}
