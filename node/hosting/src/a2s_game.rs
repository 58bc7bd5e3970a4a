//! A game server of our own that is no game: a stand-in for demonstrations on
//! machines where no real game is installed, and for tests.
//!
//! It speaks Valve's A2S honestly (developer.valvesoftware.com, "Server
//! queries"), prints lines as games do, and understands `quit`, `join NAME`,
//! `leave NAME` and `say TEXT` on its console. Its players are names in a list;
//! nobody can play on it, and nothing in HomeHost mistakes it for more.

mod wire;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use wire::{Challenges, Player, World};

/// Console lines that wait; a person types them.
const LINES_MAX: usize = 16;

/// What was asked on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Args {
    bind: IpAddr,
    port: u16,
    name: String,
    slots: u8,
    players: u8,
    exit_after: Option<Duration>,
    tick: Option<Duration>,
    stop_word: String,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut parsed = Self {
            bind: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            name: "stand-in".into(),
            slots: 16,
            players: 0,
            exit_after: None,
            tick: None,
            stop_word: "quit".into(),
        };
        let mut port = None;
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy().into_owned();
            let value = args
                .next()
                .and_then(|value| value.into_string().ok())
                .ok_or_else(|| format!("{flag} needs a value"))?;
            let bad = || format!("{value:?} is no value for {flag}");
            match flag.as_str() {
                "--bind" => parsed.bind = value.parse().map_err(|_| bad())?,
                "--port" => port = Some(value.parse().map_err(|_| bad())?),
                "--name" => parsed.name = value,
                "--slots" => parsed.slots = value.parse().map_err(|_| bad())?,
                "--players" => parsed.players = value.parse().map_err(|_| bad())?,
                "--exit-after" => {
                    let seconds: u32 = value.parse().map_err(|_| bad())?;
                    parsed.exit_after = Some(Duration::from_secs(seconds.into()));
                }
                "--tick" => {
                    let millis: NonZeroU16 = value.parse().map_err(|_| bad())?;
                    parsed.tick = Some(Duration::from_millis(millis.get().into()));
                }
                "--stop-word" => parsed.stop_word = value,
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        parsed.port = port.ok_or("--port is missing")?;
        Ok(parsed)
    }
}

/// Runs the stand-in; `args` is what follows `__a2s-game`:
/// `--port P [--name N] [--slots S] [--players N] [--bind ADDRESS]
/// [--exit-after SECONDS] [--stop-word WORD] [--tick MILLISECONDS]`. With a tick
/// it counts on its console, whoever listens.
pub fn a2s_game_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let run = Args::parse(args).and_then(|args| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let result = runtime.block_on(run(args));
        // The thread that reads the console may wait for ever.
        runtime.shutdown_background();
        result
    });
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            print(&format!("error: {problem}"));
            ExitCode::FAILURE
        }
    }
}

/// A line of the console, at once.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn run(args: Args) -> Result<(), String> {
    let address = SocketAddr::from((args.bind, args.port));
    let socket = homehost_runtime::udp::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let address = socket.local_addr().map_err(|error| error.to_string())?;
    print(&format!("{} listens on {address}", args.name));
    let mut game = Game {
        world: World { name: args.name, slots: args.slots, port: address.port(), players: vec![] },
        stop_word: args.stop_word,
    };
    for number in 1..=args.players {
        game.line(&format!("join player{number}"));
    }
    let challenges = Challenges::default();
    let mut lines = console();
    let mut request = [0; 1_400];
    let end = args.exit_after.map(|after| Instant::now() + after);
    let (mut ticks, mut tick) = (0_u64, args.tick.map(|every| Instant::now() + every));
    let mut signals = Signals::new();
    loop {
        tokio::select! {
            biased;
            name = signals.received() => {
                print(&format!("{name} received, shutting down"));
                return Ok(());
            }
            line = next_line(&mut lines) => if game.line(&line) {
                print("shutting down");
                return Ok(());
            },
            () = sleep_until(end) => {
                print("time is up, shutting down");
                return Ok(());
            }
            () = sleep_until(tick) => {
                ticks += 1;
                print(&format!("tick {ticks}"));
                tick = args.tick.map(|every| Instant::now() + every);
            }
            received = socket.recv_from(&mut request) => {
                // An error is of an earlier answer that nobody wanted.
                let Ok((length, from)) = received else { continue };
                if let Some(answer) = wire::answer(&request[..length], from, &challenges, &game.world) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

struct Game {
    world: World,
    stop_word: String,
}

impl Game {
    /// Takes a line of the console; says whether it ends the game.
    fn line(&mut self, line: &str) -> bool {
        let line = line.trim();
        let players = &mut self.world.players;
        match line.split_once(' ') {
            _ if line == self.stop_word => return true,
            Some(("join", name)) if players.len() < usize::from(self.world.slots) => {
                players.push(Player { name: name.to_owned(), since: Instant::now() });
                print(&format!("{name} joined ({} online)", players.len()));
            }
            Some(("join", name)) => print(&format!("{name} was turned away: the server is full")),
            Some(("leave", name)) => {
                players.retain(|player| player.name != name);
                print(&format!("{name} left ({} online)", players.len()));
            }
            Some(("say", text)) => print(&format!("[server] {text}")),
            _ if line.is_empty() => {}
            _ => print(&format!("unknown command: {line}")),
        }
        false
    }
}

/// The console, read on a thread of its own.
fn console() -> mpsc::Receiver<String> {
    let (to, from) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if to.blocking_send(line).is_err() {
                return;
            }
        }
    });
    from
}

/// The next line; never, once the console has ended.
async fn next_line(lines: &mut mpsc::Receiver<String>) -> String {
    match lines.recv().await {
        Some(line) => line,
        None => std::future::pending::<Infallible>().await.to_string(),
    }
}

/// Signals that end it.
#[cfg(unix)]
struct Signals {
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    async fn received(&mut self) -> &'static str {
        async fn one(stream: &mut Option<tokio::signal::unix::Signal>) {
            let heard = match stream {
                Some(stream) => stream.recv().await,
                None => None,
            };
            if heard.is_none() {
                std::future::pending::<()>().await;
            }
        }
        tokio::select! {
            () = one(&mut self.interrupt) => "SIGINT",
            () = one(&mut self.terminate) => "SIGTERM",
        }
    }
}

/// Console events that end it.
#[cfg(windows)]
struct Signals {
    interrupt: Option<tokio::signal::windows::CtrlC>,
    terminate: Option<tokio::signal::windows::CtrlBreak>,
}

#[cfg(windows)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::windows::{ctrl_break, ctrl_c};
        Self { interrupt: ctrl_c().ok(), terminate: ctrl_break().ok() }
    }

    async fn received(&mut self) -> &'static str {
        async fn heard(heard: impl Future<Output = Option<()>>) {
            if heard.await.is_none() {
                std::future::pending::<()>().await;
            }
        }
        let Self { interrupt, terminate } = self;
        let interrupted = async { interrupt.as_mut()?.recv().await };
        let terminated = async { terminate.as_mut()?.recv().await };
        tokio::select! {
            () = heard(interrupted) => "Ctrl-C",
            () = heard(terminated) => "Ctrl-Break",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        Args::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_read_and_others_refused() {
        let args = parse(&["--port", "7", "--name", "a b", "--slots", "3", "--players", "2"]);
        let args = args.unwrap();
        assert_eq!((args.port, args.name.as_str(), args.slots, args.players), (7, "a b", 3, 2));
        assert!(args.bind.is_loopback());
        for bad in [&[][..], &["--port"], &["--port", "x"], &["--port", "1", "--y", "z"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_console_is_understood() {
        let world = World { name: "a".into(), slots: 2, port: 1, players: vec![] };
        let mut game = Game { world, stop_word: "quit".into() };
        for line in ["join ann", "join bob", "join eve", "leave ann", "", "dance"] {
            assert!(!game.line(line), "{line}");
        }
        assert_eq!(game.world.players.len(), 1);
        assert!(game.line("quit\r"));
    }

    #[tokio::test]
    async fn gamedig_understands_every_answer() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let since = Instant::now();
        let players = ["ann", "bob"].map(|name| Player { name: name.into(), since }).into();
        let world = World { name: "näme".into(), slots: 5, port: address.port(), players };
        tokio::spawn(async move {
            let (challenges, mut request) = (Challenges::default(), [0; 1_400]);
            loop {
                let (length, from) = socket.recv_from(&mut request).await.unwrap();
                if let Some(answer) = wire::answer(&request[..length], from, &challenges, &world) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let answered = tokio::task::spawn_blocking(move || {
            let engine = gamedig::protocols::valve::Engine::Source(None);
            gamedig::protocols::valve::query(&address, engine, None, None)
        });
        let answered = answered.await.unwrap().unwrap();
        assert_eq!(answered.info.name, "näme");
        assert_eq!((answered.info.players_online, answered.info.players_maximum), (2, 5));
        assert_eq!(answered.players.unwrap()[1].name, "bob");
        assert_eq!(answered.rules.unwrap()["stand_in"], "1");
        let target = crate::query::Target {
            kind: crate::QueryKind::A2s,
            port: address.port(),
            transport: homehost_protocol::Transport::Udp,
        };
        let ours = crate::query::Querier::default().ask(target).await.unwrap();
        assert_eq!((ours.players, ours.slots), (Some(2), Some(5)));
    }
}
