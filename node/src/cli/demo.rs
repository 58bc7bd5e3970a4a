//! `homehost demo`: the whole thing on this machine, with real processes.
//!
//! A bootstrap node and three hosts on loopback, a game server on each, and
//! what each host finds. Everything lives in a temporary folder and goes with
//! it. The path is the real one: process, query, signed listing, gossip,
//! replica, search on another node.

mod fleet;
mod games;

use std::time::{Duration, Instant};

use homehost_api::{Action, DirectoryRow, ErrorKind, RowStatus};
use serde::Serialize;
use tokio::time::sleep;

use super::output::Output;
use super::signals::Signals;
use super::views::directory_table;
use crate::control::count;
use crate::exit::{Failure, failure};
use fleet::Fleet;
use games::Game;

/// Hosts of the demo.
pub(crate) const HOSTS: usize = 3;

/// Longest wait until every host sees every server: a game may make a world first.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the hosts are asked.
const LOOK: Duration = Duration::from_millis(100);

/// What `demo --json` prints: one object a host.
#[derive(Serialize)]
struct Seen<'a> {
    host: usize,
    data_dir: String,
    seconds_to_see_all: f64,
    rows: &'a [DirectoryRow],
}

/// Runs the demo until Ctrl-C, and leaves nothing behind.
///
/// # Errors
/// One sentence and an exit code. What was started is ended in any case.
pub(crate) async fn run(output: &Output) -> Result<(), Failure> {
    let output = &output.always_tables();
    let game = Game::installed();
    let mut signals = Signals::new()?;
    let mut fleet = Fleet::new()?;
    let result = tokio::select! {
        result = show(&mut fleet, game, output) => result,
        _ = signals.next() => Ok(()),
        () = output.reader_gone() => Ok(()),
    };
    if !output.is_json() {
        output.progress("");
        output.line("\nstopping the games and the nodes …");
    }
    let ended = fleet.end().await;
    if !output.is_json() && result.is_ok() && ended.is_ok() {
        output.line("done: nothing is left behind");
    }
    result.and(ended)
}

async fn show(fleet: &mut Fleet, game: Game, output: &Output) -> Result<(), Failure> {
    let say = |text: &str| {
        if !output.is_json() {
            output.progress("");
            output.line(text);
        }
    };
    say(&format!("a network of its own on this machine; the games are {}", game.description()));
    let boot = fleet.start_bootstrap().await?;
    say(&format!("bootstrap node  {boot}"));
    for n in 0..HOSTS {
        let api = fleet.start_host(&boot).await?;
        say(&format!("host {}          {api}", n + 1));
    }
    let began = Instant::now();
    for (n, host) in fleet.hosts().enumerate() {
        let new = game.server(n, HOSTS);
        output.progress(&format!("starting {:?} on host {} …", new.name, n + 1));
        host.client.act(Action::ServerAdd(Box::new(new))).await?;
    }
    for (n, host) in fleet.hosts().enumerate() {
        let rows = loop {
            let mut rows: Vec<DirectoryRow> = host.client.get("/api/v1/discover").await?;
            // Whoever was proved a moment ago must not change what is shown.
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            let live = rows.iter().filter(|row| row.status == RowStatus::Live).count();
            output.progress(&format!("host {} sees {live} of {HOSTS} servers …", n + 1));
            if live == HOSTS && rows.iter().all(|row| row.confirmed) {
                break rows;
            }
            if began.elapsed() > PATIENCE {
                return Err(late(host, n, live).await);
            }
            sleep(LOOK).await;
        };
        let seconds = began.elapsed().as_secs_f64();
        if output.is_json() {
            output.json_line(&Seen {
                host: n + 1,
                data_dir: host.data_dir.display().to_string(),
                seconds_to_see_all: seconds,
                rows: &rows,
            });
        } else {
            say(&format!("\nwhat host {} sees, {seconds:.1} s after the first start:", n + 1));
            output.line(directory_table(&rows, output).trim_end());
        }
    }
    if !output.is_json() {
        output.line(&hints(fleet));
    }
    std::future::pending().await
}

/// What to do while it runs.
fn hints(fleet: &Fleet) -> String {
    let dirs: Vec<_> = fleet.hosts().map(|host| host.data_dir.display().to_string()).collect();
    let program = fleet.program();
    // As it would be typed here.
    let here = std::env::current_dir().unwrap_or_default();
    let program = program.strip_prefix(&here).unwrap_or(program).display();
    format!(
        "\ntry, in another terminal:\n  \
         {program} discover --watch --data-dir {0}\n  \
         {program} server stop {1:?} --data-dir {2}\n  \
         {program} peers --data-dir {0}\n\
         Ctrl-C ends everything.",
        dirs[0],
        games::NAMES[1],
        dirs[1],
    )
}

/// Why a host does not see all: its own game's trouble, if there is one.
async fn late(host: &fleet::Host, n: usize, live: usize) -> Failure {
    let servers: Vec<homehost_api::Server> =
        host.client.get("/api/v1/servers").await.unwrap_or_default();
    let problem = servers.into_iter().find_map(|server| server.problem);
    let text = format!(
        "after {} s host {} sees only {}{}",
        PATIENCE.as_secs(),
        n + 1,
        count(live, "server"),
        problem.map(|problem| format!("; its own says: {problem}")).unwrap_or_default()
    );
    failure(ErrorKind::Timeout, text)
}
