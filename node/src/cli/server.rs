//! `homehost server …`: define and run game servers.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use homehost_api::{
    Action, ErrorKind, LogLine, NewServer, NodeStatus, Server, ServerState, Visibility,
};
use tokio::sync::oneshot;

use super::client::{query_string, segment};
use super::id::talk::Terminal;
use super::output::{Cell, Colour, fields, plain};
use super::views::{alternatives, players, stream_until_asked};
use super::{Client, Output, usage};
use crate::exit::{Failure, failure};

/// What is asked before the first public listing.
const QUESTION: &str = "List it for everybody?";

/// How long an answer from a pipe is waited for.
const PIPE: Duration = Duration::from_secs(5);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1024;

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Define a server
    Add(Box<AddArgs>),
    /// List the servers of this node
    Ls,
    /// Show one server
    Show(Which),
    /// Start a server
    Start(Which),
    /// Stop a server, gently first
    Stop(Which),
    /// Stop and start a server
    Restart(Which),
    /// End a server at once, without a save
    Kill(Which),
    /// Show who can reach a server, and why others cannot
    Reach(Which),
    /// Show what a server prints
    Logs(LogsArgs),
    /// Change who learns of a server
    Set {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        told: Told,
    },
    /// Send a line to a server's console
    Input {
        #[command(flatten)]
        which: Which,
        /// The line
        line: String,
    },
    /// Forget a server; its files stay unless --delete-data is given
    Rm {
        #[command(flatten)]
        which: Which,
        /// Delete its files too
        #[arg(long)]
        delete_data: bool,
    },
}

/// Who learns of a server.
#[derive(Debug, Args)]
pub(crate) struct Told {
    /// Who learns of it: public, unlisted (whoever has its id) or lan
    #[arg(long, value_name = "WHO", value_parser = visibility)]
    visibility: Visibility,
    /// Do not ask before the address of your home is told to everybody
    #[arg(long)]
    yes: bool,
}

fn visibility(text: &str) -> Result<Visibility, String> {
    let all = [Visibility::Public, Visibility::Unlisted, Visibility::Lan];
    let found = all.into_iter().find(|of| of.word() == text);
    found.ok_or_else(|| "say public, unlisted or lan".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Name, id, or the unique beginning of an id
    server: String,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    which: Which,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Lines from the past
    #[arg(short = 'n', long, default_value_t = 100, value_name = "LINES")]
    tail: usize,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The name that players see
    name: String,
    /// Game, as in luanti
    #[arg(long)]
    game: String,
    /// Start line; {data}, {name}, {slots} and {port.NAME} are filled in, no shell
    #[arg(long, value_name = "LINE")]
    exec: String,
    /// Port, as in game=auto/udp or game=30000/udp; may be repeated
    #[arg(long = "port", value_name = "NAME=PORT/PROTOCOL")]
    ports: Vec<String>,
    /// How to ask the game: a2s, minecraft, quake3, luanti, tcp or none; KIND:PORT for another port
    #[arg(long, default_value = "none", value_name = "KIND")]
    query: String,
    /// Line that stops the game when typed into its console
    #[arg(long, value_name = "LINE")]
    stop_command: Option<String>,
    /// One sentence for players
    #[arg(long)]
    description: Option<String>,
    /// Tag for players; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Region, as in eu
    #[arg(long)]
    region: Option<String>,
    /// Language, as in de
    #[arg(long)]
    lang: Option<String>,
    /// Version of the game that players need
    #[arg(long, value_name = "VERSION")]
    game_version: Option<String>,
    /// Places for players
    #[arg(long)]
    slots: Option<u16>,
    /// Players need a password
    #[arg(long)]
    password: bool,
    /// Who learns of it: public, unlisted (whoever has its id) or lan
    #[arg(long, value_name = "WHO", default_value = "public", value_parser = visibility)]
    visibility: Visibility,
    /// Do not ask before the address of your home is told to everybody
    #[arg(long)]
    yes: bool,
    /// Start it at once
    #[arg(long)]
    start: bool,
}

pub(crate) async fn run(
    command: ServerCommand,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let action = match command {
        ServerCommand::Ls => {
            let servers: Vec<Server> = client.get("/api/v1/servers").await?;
            output.show(&servers, || list(&servers, output));
            return Ok(());
        }
        ServerCommand::Show(which) => {
            let path = format!("/api/v1/servers/{}", segment(&which.server));
            let server: Server = client.get(&path).await?;
            output.show(&server, || show(&server));
            return Ok(());
        }
        ServerCommand::Reach(which) => {
            return super::mesh::reach(&which.server, client, output).await;
        }
        ServerCommand::Logs(args) => return logs(args, client, output).await,
        ServerCommand::Add(args) => {
            warn(args.visibility, args.yes, client, output).await?;
            Action::ServerAdd(Box::new(new_server(*args)?))
        }
        ServerCommand::Set { which, told } => {
            warn(told.visibility, told.yes, client, output).await?;
            Action::ServerSet { server: which.server, visibility: told.visibility }
        }
        ServerCommand::Start(which) => Action::ServerStart { server: which.server },
        ServerCommand::Stop(which) => Action::ServerStop { server: which.server },
        ServerCommand::Restart(which) => Action::ServerRestart { server: which.server },
        ServerCommand::Kill(which) => Action::ServerKill { server: which.server },
        ServerCommand::Input { which, line } => Action::ServerInput { server: which.server, line },
        ServerCommand::Rm { which, delete_data } => {
            Action::ServerRemove { server: which.server, delete_data }
        }
    };
    let receipt = client.act(action).await?;
    output.receipt(&receipt);
    Ok(())
}

/// Says what the first public listing means. A person at a terminal is asked, and
/// whoever pipes an answer is heard; a script is told and goes on, as nobody is
/// there to answer.
async fn warn(
    visibility: Visibility,
    yes: bool,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    if visibility != Visibility::Public {
        return Ok(());
    }
    let status: NodeStatus = client.get("/api/v1/status").await?;
    let Some(sentence) = status.before_public else { return Ok(()) };
    output.hint(&sentence);
    if yes {
        return Ok(());
    }
    let failed = |error: io::Error| {
        failure(ErrorKind::Internal, format!("failed to ask: {error}; give --yes"))
    };
    let agreed = match Terminal::open(output) {
        Some(mut terminal) => Some(terminal.confirm(QUESTION).map_err(failed)?),
        None => hear(output).await.map_err(failed)?,
    };
    // Of a script.
    if agreed.unwrap_or(true) {
        return Ok(());
    }
    let text = "nothing was changed: give --visibility unlisted or lan, or --yes";
    Err(failure(ErrorKind::Denied, text))
}

/// Hears an answer where no terminal is at both ends: of a person whose output goes
/// elsewhere, or from a pipe. Nothing when there is none.
async fn hear(output: &Output) -> io::Result<Option<bool>> {
    let person = io::stdin().is_terminal();
    if person {
        output.hint(&format!("{QUESTION} [y/N]"));
    }
    let (sender, heard) = oneshot::channel();
    // Reading may never end, and a thread of the runtime would be waited for.
    std::thread::spawn(move || sender.send(answer(io::stdin().lock())));
    let heard = async { heard.await.unwrap_or_else(|error| Err(io::Error::other(error))) };
    if person {
        return heard.await.map(|answer| answer.or(Some(false)));
    }
    // A pipe that stays open and silent has not agreed to anything.
    tokio::time::timeout(PIPE, heard).await.unwrap_or(Ok(Some(false)))
}

/// Yes or no; anything but yes is no, and the end is nothing.
fn answer(input: impl io::BufRead) -> io::Result<Option<bool>> {
    let mut line = Vec::new();
    input.take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line)?;
    let yes = [&b"y"[..], b"yes"].iter().any(|yes| line.trim_ascii().eq_ignore_ascii_case(yes));
    Ok((!line.is_empty()).then_some(yes))
}

fn new_server(args: AddArgs) -> Result<NewServer, Failure> {
    let mut ports = BTreeMap::new();
    for port in args.ports {
        let (name, request) = port.split_once('=').ok_or_else(|| {
            usage(format!("--port {port}: say NAME=PORT/PROTOCOL, as in game=auto/udp"))
        })?;
        if ports.insert(name.to_owned(), request.to_owned()).is_some() {
            return Err(usage(format!("--port {name} is given twice")));
        }
    }
    Ok(NewServer {
        name: args.name,
        game: args.game,
        exec: args.exec,
        ports,
        query: args.query,
        stop_command: args.stop_command,
        description: args.description,
        tags: args.tags,
        region: args.region,
        language: args.lang,
        game_version: args.game_version,
        slots: args.slots,
        password: args.password,
        visibility: args.visibility,
        start: args.start,
    })
}

async fn logs(args: LogsArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let query =
        query_string(&[("tail", args.tail.to_string()), ("follow", args.follow.to_string())])?;
    let path = format!("/api/v1/servers/{}/logs{query}", segment(&args.which.server));
    let stream = client.events(&path, |line: LogLine| {
        if output.is_json() {
            output.json_line(&line);
        } else {
            output.line(&plain(&line.text));
        }
    });
    stream_until_asked(stream, args.follow, output).await
}

fn state_cell(server: &Server) -> Cell {
    let colour = match server.state {
        ServerState::Running => Colour::Good,
        ServerState::Crashed | ServerState::Backoff => Colour::Bad,
        ServerState::Starting | ServerState::Stopping => Colour::Bold,
        ServerState::Offline => Colour::Dim,
    };
    Cell::of(server.state.word()).colour(colour)
}

fn list(servers: &[Server], output: &Output) -> String {
    if servers.is_empty() {
        return output.nothing("no servers yet: add one with `homehost server add`");
    }
    let rows: Vec<Vec<Cell>> = servers
        .iter()
        .map(|server| {
            let ports: Vec<&str> = server.ports.values().map(String::as_str).collect();
            vec![
                Cell::of(server.id.get(..8).unwrap_or(&server.id)),
                Cell::of(&server.name),
                Cell::of(&server.game),
                state_cell(server),
                Cell::of(players(server.players, server.slots)),
                Cell::of(ports.join(" ")),
                Cell::of(server.problem.clone().unwrap_or_default()),
            ]
        })
        .collect();
    output.table(&["ID", "NAME", "GAME", "STATE", "PLAYERS", "PORTS", ""], &rows)
}

fn show(server: &Server) -> String {
    let ports: Vec<String> = server.ports.iter().map(|(name, p)| format!("{name} {p}")).collect();
    let mut list = vec![
        ("name", server.name.clone()),
        ("id", server.id.clone()),
        ("game", server.game.clone()),
        ("state", format!("{} since {}", server.state.word(), server.since)),
        ("players", players(server.players, server.slots)),
        ("ports", ports.join("\n")),
        ("join", alternatives(&server.addresses)),
        ("query", server.query.clone()),
        ("tags", server.tags.join(" ")),
        ("region", server.region.clone().unwrap_or_default()),
        ("visibility", server.visibility.word().to_owned()),
        ("folder", server.folder.clone()),
        ("start line", server.exec.join(" ")),
    ];
    if let Some(pid) = server.pid {
        list.push(("process", pid.to_string()));
    }
    if let Some(exit) = &server.last_exit {
        list.push(("last exit", exit.clone()));
    }
    if let Some(note) = &server.note {
        list.push(("note", note.clone()));
    }
    if let Some(problem) = &server.problem {
        list.push(("problem", problem.clone()));
    }
    fields(&list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_piped_into_the_question_counts() {
        for (piped, agreed) in [
            ("", None),
            ("n\n", Some(false)),
            ("\n", Some(false)),
            ("y", Some(true)),
            (" YES \r\nn\n", Some(true)),
            ("the next of a list\n", Some(false)),
        ] {
            assert_eq!(answer(piped.as_bytes()).unwrap(), agreed, "{piped:?}");
        }
        assert_eq!(answer(&b"\xff\n"[..]).unwrap(), Some(false));
    }
}
