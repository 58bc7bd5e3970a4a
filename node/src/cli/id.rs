//! `homehost id …`: who this machine is, and everything about its keys.
//!
//! Secrets are handled in this process: the recovery phrase and passphrases are
//! read from the terminal or a file, never from arguments, and never sent.

mod backup;
mod keeper;
mod phrase;
mod recover;
mod rotate;
pub(crate) mod talk;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use homehost_api::{Identity as View, PhraseState};
use homehost_mesh::Multiaddr;
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::{Cell, Colour, fields};
use super::{Output, usage};
use crate::control::{NO_PHRASE, count};
use crate::exit::{self, Failure, failure};

use keeper::Keeper;
pub(crate) use phrase::welcome;
use talk::{Secret, Terminal};

/// Longest file with a phrase or passphrase.
const SECRET_BYTES_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum IdCommand {
    /// Show who the node is; also without a verb
    Show,
    /// Write the identity to a file that a passphrase closes
    Backup(BackupArgs),
    /// Bring an identity back from such a file
    Restore(RestoreArgs),
    /// Bring an identity back from its recovery phrase and what other nodes know
    Recover(RecoverArgs),
    /// Give this machine a new key; all keys before it end
    Rotate(RotateArgs),
    /// End all keys at once, until the next rotation
    Revoke(RevokeArgs),
    /// List the machines that sign for this identity
    Devices,
    /// Let another machine sign, or no longer
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Get a recovery phrase, or check the one you wrote down
    #[command(subcommand)]
    RecoveryPhrase(PhraseCommand),
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write; it must not exist
    file: PathBuf,
    /// File with the passphrase [default: asked for in the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// File with the passphrase [default: asked for in the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Take over the peer id, too: the machine of the backup is this one, or is gone
    #[arg(long)]
    same_machine: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PhraseFile {
    /// File with the recovery phrase, - for standard input [default: asked for in the terminal]
    #[arg(long, value_name = "FILE")]
    phrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Root id of the identity
    root: String,
    /// Node that is asked for its keys, as in /ip4/203.0.113.7/tcp/4001; may be repeated
    #[arg(long, value_name = "ADDR", required = true)]
    via: Vec<Multiaddr>,
    #[command(flatten)]
    phrase: PhraseFile,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    phrase: PhraseFile,
    /// Let the other machines sign after it, too [default: asked in a terminal, otherwise no]
    #[arg(long)]
    keep_devices: bool,
    /// Rotate although others were not heard since a backup was restored
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowPhraseArgs {
    /// Do it although others were not heard since a backup was restored
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    phrase: PhraseFile,
    /// Do not ask whether it is meant
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Print the key of this machine, to be added elsewhere
    Key,
    /// Let the machine with a key sign for this identity; on device 0
    Add {
        /// What `homehost id device key` printed there
        key: String,
    },
    /// Let a machine sign no longer; on device 0
    Revoke {
        /// Its number, as `homehost id devices` shows it
        device: u8,
    },
    /// Become a machine of another identity, on which this one was added
    Join {
        /// Root id of that identity
        #[arg(required_unless_present = "cancel")]
        root: Option<String>,
        /// Wait for it no longer
        #[arg(long, conflicts_with = "root")]
        cancel: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PhraseCommand {
    /// Show twelve new words once, ask for three, and give this machine a new key with them
    Show(ShowPhraseArgs),
    /// Check that the words you wrote down are those of this identity
    Verify(PhraseFile),
}

/// What a command says that has nothing to show.
#[derive(Serialize)]
struct Said {
    message: String,
}

pub(crate) async fn run(
    command: IdCommand,
    data_dir: &Path,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        IdCommand::Show => {
            let view = Keeper::open(data_dir)?.view().await?;
            output.show(&view, || show(&view, output));
            Ok(())
        }
        IdCommand::Devices => {
            let view = Keeper::open(data_dir)?.view().await?;
            output.show(&view.devices, || devices(&view, output));
            Ok(())
        }
        IdCommand::Backup(args) => backup::back_up(&args, data_dir, output),
        IdCommand::Restore(args) => backup::restore(&args, data_dir, output),
        IdCommand::Recover(args) => recover::run(&args, data_dir, output).await,
        IdCommand::Rotate(args) => rotate::rotate(&args, data_dir, output).await,
        IdCommand::Revoke(args) => rotate::revoke(&args, data_dir, output).await,
        IdCommand::Device(command) => device(command, data_dir, output).await,
        IdCommand::RecoveryPhrase(PhraseCommand::Show(args)) => {
            phrase::show(&args, data_dir, output).await
        }
        IdCommand::RecoveryPhrase(PhraseCommand::Verify(file)) => {
            phrase::verify(&file, data_dir, output)
        }
    }
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("identity")
}

fn say(output: &Output, message: impl Into<String>) {
    let said = Said { message: message.into() };
    output.show(&said, || said.message.clone());
}

/// The identity as a person reads it.
fn show(view: &View, output: &Output) -> String {
    let signing = view.devices.iter().filter(|device| !device.revoked).count();
    let device = match view.device {
        Some(device) => format!("{device}, of {}", count(signing, "machine")),
        None => "none: this machine signs nothing".to_owned(),
    };
    let phrase = match view.phrase {
        PhraseState::WithOwner => "with you; it is not on this machine",
        PhraseState::NotYet => "none yet; until then a recovery key lies on this machine",
    };
    let mut rows = vec![
        ("root", view.root.clone()),
        ("device", device),
        ("key", format!("{}, epoch {}", view.key, view.key_epoch)),
        ("phrase", phrase.to_owned()),
        ("node", view.node.clone()),
        ("network", view.network.clone().unwrap_or_else(|| "no node is running".to_owned())),
        ("folder", view.folder.clone()),
    ];
    if let Some(root) = &view.joining {
        rows.push(("joining", format!("{root}, as soon as it names this machine")));
    }
    let mut text = fields(&rows);
    for sentence in attention(view) {
        text.push_str(&format!("\n{} {sentence}\n", output.paint(Colour::Bad, "!")));
    }
    text
}

/// What the owner should look at.
fn attention(view: &View) -> Vec<String> {
    let phrase = (view.phrase == PhraseState::NotYet).then(|| NO_PHRASE.to_owned());
    [view.conflict.clone(), view.ended.clone(), phrase].into_iter().flatten().collect()
}

fn devices(view: &View, output: &Output) -> String {
    if view.devices.is_empty() {
        return output.nothing("no machine signs: all keys are revoked");
    }
    let row = |device: &homehost_api::Device| {
        let (state, colour) = match (device.revoked, device.device) {
            (true, _) => ("revoked", Colour::Dim),
            (false, 0) => ("signs, adds and revokes", Colour::Good),
            (false, _) => ("signs", Colour::Good),
        };
        vec![
            Cell::of(device.device.to_string()),
            Cell::of(state).colour(colour),
            Cell::of(if device.this { "this machine" } else { "" }),
            Cell::of(&device.key),
        ]
    };
    let rows: Vec<Vec<Cell>> = view.devices.iter().map(row).collect();
    output.table(&["DEVICE", "STATE", "", "KEY"], &rows)
}

/// Reads a secret from a file, `-` for standard input.
fn secret_file(path: &Path) -> Result<Secret, Failure> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize));
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(SECRET_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| {
        let text = format!("failed to read {}: {error}", path.display());
        failure(exit::of_io(&error), text)
    })?;
    Ok(text)
}

/// A terminal to talk to, or the option that does without.
fn terminal(output: &Output, instead: &str) -> Result<Terminal, Failure> {
    Terminal::open(output)
        .ok_or_else(|| usage(format!("there is no terminal to ask in: {instead}")))
}

fn talking(error: std::io::Error) -> Failure {
    failure(exit::of_io(&error), format!("failed to use the terminal: {error}"))
}

async fn device(command: DeviceCommand, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let mut keeper = Keeper::open(data_dir)?;
    let receipt = match command {
        DeviceCommand::Key => {
            let view = keeper.view().await?;
            output.show(&serde_json::json!({ "key": view.key }), || {
                let next = output.paint(Colour::Dim, "run on device 0 of the identity to join:");
                format!("{}\n\n{next}\nhomehost id device add {}", view.key, view.key)
            });
            return Ok(());
        }
        DeviceCommand::Add { key } => keeper.device_add(key).await?,
        DeviceCommand::Revoke { device } => keeper.device_revoke(device).await?,
        DeviceCommand::Join { root, .. } => keeper.device_join(root).await?,
    };
    output.receipt(&receipt);
    Ok(())
}
