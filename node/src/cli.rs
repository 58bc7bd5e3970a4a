//! The command line. Everything but `up` and `demo` is a client of the HTTP API.

pub(crate) mod client;
mod config;
mod demo;
mod detach;
mod doctor;
mod id;
mod invite;
mod mesh;
mod output;
mod server;
mod signals;
mod up;
mod via;
mod views;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use homehost_api::{Action, ErrorKind, NodeStatus, Peer};

use client::Client;
use output::Output;

use crate::exit::Failure;
use crate::{log_file, place};

/// How long work that cannot be cut off may keep the process that ends.
const STUCK: Duration = Duration::from_secs(2);

/// A game-hosting network that nobody owns.
#[derive(Debug, Parser)]
#[command(name = "homehost", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every verb takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Folder of the node: identity, servers, stores
    #[arg(long, global = true, value_name = "DIR", env = place::DATA_DIR_VARIABLE)]
    data_dir: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole thing on this machine: a bootstrap node and three hosts
    Demo,
    /// Start a node and keep it running
    Up(up::UpArgs),
    /// Stop the node; its games go on unless --games is given
    Down {
        /// Stop the game servers too, gently
        #[arg(long)]
        games: bool,
    },
    /// Show what the node is and how it does
    Status,
    /// Show, check and change the settings
    Config(config::ConfigArgs),
    /// Look for what may be wrong, with and without a running node
    Doctor(doctor::DoctorArgs),
    /// Show who the node is, and look after its keys
    Id {
        #[command(subcommand)]
        command: Option<id::IdCommand>,
    },
    /// List the peers that the node is connected to
    Peers,
    /// Define and run game servers
    #[command(subcommand)]
    Server(server::ServerCommand),
    /// Find one server by its id, through the DHT
    Lookup {
        /// Server id, as in `discover --json`
        id: String,
    },
    /// See what the mesh does
    #[command(subcommand)]
    Mesh(mesh::MeshCommand),
    /// Find servers of the whole network
    Discover(views::DiscoverArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Two providers of TLS are compiled in by what we depend on.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream they go to.
            let printed = error.print();
            if error.use_stderr() {
                return ExitCode::from(2);
            }
            return match printed {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    Output::new(false).failure(&output::unwritten(&error));
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            };
        }
    };
    let output = Output::new(cli.common.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // A node is idle most of the time; more threads are only memory.
        .worker_threads(2)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("failed to start: {error}");
            output.failure(&crate::exit::failure(ErrorKind::Internal, text));
            return ExitCode::FAILURE;
        }
    };
    // What these print goes on while they do something else.
    let lasting = matches!(cli.command, Command::Up(_) | Command::Demo);
    let result = runtime.block_on(run(cli, &output));
    let result = match output.lost() {
        Some(lost) if !lasting => result.and(Err(lost)),
        _ => result,
    };
    // A disk that does not answer must not keep the process.
    runtime.shutdown_timeout(STUCK);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

async fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    if matches!(cli.command, Command::Demo) {
        return demo::run(output).await;
    }
    let cli = match cli.command {
        // Needs no node of our own, and so no folder.
        Command::Discover(args) if args.is_via() => return views::discover_via(args, output).await,
        command => Cli { command, ..cli },
    };
    let data_dir = place::data_dir(cli.common.data_dir)?;
    place::refuse_others(&data_dir)?;
    let client = || Client::find(&data_dir);
    match cli.command {
        Command::Demo => Ok(()),
        Command::Up(args) => up::run(args, data_dir, output).await,
        Command::Down { games } => {
            let client = client()?;
            let receipt = client.act(Action::NodeStop { games }).await?;
            client.wait_until_gone().await?;
            output.receipt(&receipt);
            Ok(())
        }
        Command::Status => {
            let status: NodeStatus = client()?.get("/api/v1/status").await?;
            output.show(&status, || views::status(&status));
            Ok(())
        }
        Command::Config(args) => config::run(args, &data_dir, output).await,
        Command::Doctor(args) => doctor::run(args, &data_dir, output).await,
        Command::Id { command } => {
            id::run(command.unwrap_or(id::IdCommand::Show), &data_dir, output).await
        }
        Command::Peers => {
            let peers: Vec<Peer> = client()?.get("/api/v1/peers").await?;
            output.show(&peers, || views::peers(&peers, output));
            Ok(())
        }
        Command::Server(command) => server::run(command, &client()?, output).await,
        Command::Lookup { id } => mesh::lookup(&id, &client()?, output).await,
        Command::Mesh(command) => mesh::run(command, &client()?, output).await,
        Command::Discover(args) => views::discover(args, &client()?, output).await,
    }
}

/// A usage error of an option that clap could not know.
fn usage(text: impl Into<String>) -> Failure {
    crate::exit::failure(ErrorKind::Usage, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
