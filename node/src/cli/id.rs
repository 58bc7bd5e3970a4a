//! `homehost id …`: who this machine is, and everything about its keys.
//!
//! Secrets are handled in this process: the recovery phrase and passphrases are
//! read from the terminal or a file, never from arguments, and never sent.

mod keeper;
mod recover;
pub(crate) mod talk;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use homehost_api::{ErrorKind, Identity as View};
use homehost_mesh::Multiaddr;
use homehost_protocol::chain::SignedKeyEvent;
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::{NetworkName, Record, UnixMillis};
use homehost_runtime::wall_ms;
use homehost_store::DataDir;
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::{Cell, Colour, fields};
use super::{Output, usage};
use crate::control::count;
use crate::control::identity::FRESH;
use crate::exit::{self, Failure, failure};
use crate::identity::backup::{self, Cost, Machine};
use crate::identity::phrase::Phrase;
use crate::identity::{Identity, Keep, Prepared, Recovery};

use keeper::Keeper;
use talk::{Secret, Talk as _, Terminal};

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
    /// Show the recovery phrase once, or check the one you wrote down
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
    /// Show the twelve words once, ask for three, and remove them from this machine
    Show,
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
        IdCommand::Backup(args) => back_up(&args, data_dir, output),
        IdCommand::Restore(args) => restore(&args, data_dir, output),
        IdCommand::Recover(args) => recover::run(&args, data_dir, output).await,
        IdCommand::Rotate(args) => rotate(&args, data_dir, output).await,
        IdCommand::Revoke(args) => revoke(&args, data_dir, output).await,
        IdCommand::Device(command) => device(command, data_dir, output).await,
        IdCommand::RecoveryPhrase(PhraseCommand::Show) => show_phrase(data_dir, output),
        IdCommand::RecoveryPhrase(PhraseCommand::Verify(file)) => {
            verify_phrase(&file, data_dir, output)
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
        homehost_api::PhraseState::WithOwner => "with you; it is not on this machine",
        homehost_api::PhraseState::Unseen => "on this machine, unseen",
        homehost_api::PhraseState::Impossible => {
            "none: an earlier version made this identity, and its recovery key lies on this machine"
        }
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
    let unseen = view.phrase == homehost_api::PhraseState::Unseen;
    let unseen = unseen.then(|| crate::control::UNSEEN.to_owned());
    [view.conflict.clone(), view.ended.clone(), unseen].into_iter().flatten().collect()
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

/// The phrase from where the options say.
fn read_phrase(from: &PhraseFile, output: &Output) -> Result<Phrase, Failure> {
    let text = match &from.phrase_file {
        Some(path) => secret_file(path)?,
        None => {
            let mut terminal =
                terminal(output, "give --phrase-file FILE, or - for standard input")?;
            terminal.say("Type the recovery phrase, all twelve words.");
            terminal.words().map_err(talking)?
        }
    };
    Phrase::parse(&text).map_err(|error| usage(error.to_string()))
}

/// The key that the chain is committed to, if the phrase gives it.
fn recovery_key(phrase: &Phrase, prepared: &Prepared) -> Result<(DeviceKey, KeyDigest), Failure> {
    let chain = &prepared.chain;
    let next = chain.epoch().checked_add(1).and_then(|epoch| Some((epoch, epoch.checked_add(1)?)));
    let Some((epoch, after)) = next else {
        return Err(failure(ErrorKind::WrongState, "this identity was rotated too often"));
    };
    let key = phrase.key(epoch);
    if KeyDigest::of(&key.public()) != chain.next() {
        return Err(wrong_phrase(&chain.root().to_string()));
    }
    Ok((key, phrase.commitment(after)))
}

/// The event that brings in the prepared key.
fn rotation(prepared: &Prepared, by: &DeviceKey, next: KeyDigest) -> SignedKeyEvent {
    let Prepared { chain, key } = prepared;
    let event = chain.rotation(*key, by.public(), next);
    SignedKeyEvent::sign(&event, &chain.root(), by)
}

fn wrong_phrase(root: &str) -> Failure {
    let text = format!(
        "this is a recovery phrase, but not that of root {root}: look for the one that you wrote \
         down when `homehost id` showed this root"
    );
    failure(ErrorKind::Denied, text)
}

/// Refuses what cannot be done without a phrase that can be had.
fn needs_phrase(view: &View) -> Result<(), Failure> {
    match view.phrase {
        homehost_api::PhraseState::Impossible => Err(old_identity(&view.folder)),
        homehost_api::PhraseState::Unseen | homehost_api::PhraseState::WithOwner => Ok(()),
    }
}

fn old_identity(folder: &str) -> Failure {
    let text = format!(
        "this identity was made by an earlier version and cannot have a recovery phrase: its one \
         recovery key lies in {folder}. It goes on as it is. To begin anew with a phrase, run \
         `homehost down --games`, move that folder away (keep it), and run `homehost up` in a \
         terminal; servers and ids will be new to others"
    );
    failure(ErrorKind::WrongState, text)
}

async fn rotate(args: &RotateArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let mut keeper = Keeper::open(data_dir)?;
    let view = keeper.view().await?;
    needs_phrase(&view)?;
    if Identity::is_fresh_from_backup(&folder(data_dir)) && !args.force {
        return Err(failure(ErrorKind::WrongState, FRESH));
    }
    if let Some(conflict) = view.conflict.as_deref().filter(|_| view.conflict_is_final)
        && !args.force
    {
        let text = format!("{conflict}; --force rotates all the same");
        return Err(failure(ErrorKind::WrongState, text));
    }
    let phrase = read_phrase(&args.phrase, output)?;
    let (prepared, _) = keeper.prepare().await?;
    let (by, next) = recovery_key(&phrase, &prepared)?;
    let others: Vec<_> =
        view.devices.iter().filter(|other| other.device != 0 && !other.revoked).collect();
    let keep = match (others.is_empty(), Terminal::open(output)) {
        (true, _) => false,
        (false, _) if args.keep_devices => true,
        (false, None) => false,
        (false, Some(mut terminal)) => {
            terminal.say("These machines sign for this identity, besides device 0:");
            terminal.say(devices(&view, output).trim_end());
            terminal.confirm("Let them sign after the rotation, too?").map_err(talking)?
        }
    };
    // This machine gets the number 0; its former number is not wanted any more.
    let kept = others.iter().filter(|other| keep && !other.this).map(|other| other.device);
    let event = rotation(&prepared, &by, next);
    let mut receipt = keeper.apply(&event, kept.collect(), None, args.force).await?;
    if !others.is_empty() && !keep {
        receipt.message.push_str(
            "; the other machines sign no longer: add those that you want again with \
             `homehost id device add`",
        );
    }
    if keeper.is_offline() {
        receipt.message.push_str("; others learn of it when the node runs: `homehost up`");
    }
    output.receipt(&receipt);
    Ok(())
}

async fn revoke(args: &RevokeArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let mut keeper = Keeper::open(data_dir)?;
    if keeper.is_offline() {
        let text = "a revocation that nobody hears of ends nothing: start the node with \
                    `homehost up` and try again";
        return Err(failure(ErrorKind::Unavailable, text));
    }
    needs_phrase(&keeper.view().await?)?;
    let phrase = read_phrase(&args.phrase, output)?;
    let (prepared, network) = keeper.prepare().await?;
    let (by, next) = recovery_key(&phrase, &prepared)?;
    if !args.yes {
        let mut terminal = terminal(output, "give --yes if it is meant")?;
        terminal.say("All keys of this identity end, on every machine. Its servers go on running");
        terminal.say("and are listed no longer, until `homehost id rotate`.");
        if !terminal.confirm("Revoke them all?").map_err(talking)? {
            say(output, "nothing was changed");
            return Ok(());
        }
    }
    let mut chain = prepared.chain;
    let event = chain.revocation(by.public(), next);
    let event = SignedKeyEvent::sign(&event, &chain.root(), &by);
    let failed = |error: &dyn std::fmt::Display| {
        failure(ErrorKind::WrongState, format!("failed to revoke: {error}"))
    };
    chain.extend(&event).map_err(|error| failed(&error))?;
    let network = network
        .and_then(|network| network.parse::<NetworkName>().ok())
        .ok_or_else(|| failed(&"the node did not name its network"))?;
    let signer = RecordSigner::carrier_of(by, &chain, network)
        .ok_or_else(|| failed(&"the recovery key does not carry the chain"))?;
    let now = wall_ms();
    let record = signer
        .sign(&Record::KeyChain(chain.to_body()), now, UnixMillis(now))
        .map_err(|error| failed(&error))?;
    let receipt = keeper.apply(&event, Vec::new(), Some(record), false).await?;
    output.receipt(&receipt);
    Ok(())
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

fn show_phrase(data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let folder = folder(data_dir);
    if !Identity::exists(&folder) {
        return Err(keeper::no_identity(data_dir));
    }
    let phrase = match Identity::recovery(&folder).map_err(|error| exit::identity(&error))? {
        Recovery::Phrase(phrase) => phrase,
        Recovery::OldKey(_) => return Err(old_identity(&folder.display().to_string())),
        Recovery::None => {
            let text = "the recovery phrase is not on this machine any more: it was shown once. \
                        `homehost id recovery-phrase verify` checks the one that you wrote down; \
                        if it is lost, nobody can bring it back";
            return Err(failure(ErrorKind::WrongState, text));
        }
    };
    if let Some(chain) = Identity::peek_chain(&folder).map_err(|error| exit::identity(&error))? {
        let prepared = Prepared { key: chain.carrier(), chain };
        recovery_key(&phrase, &prepared).map_err(|_| {
            let text = "what is kept in `identity/recovery.seed` is damaged: it is not the phrase \
                        of this identity, and is not shown. If you wrote the phrase down, check \
                        it with `homehost id recovery-phrase verify`; otherwise restore a backup";
            failure(ErrorKind::Internal, text)
        })?;
    }
    let mut terminal = Terminal::open(output).ok_or_else(|| {
        usage("the words are shown in a terminal only, where three of them are asked back")
    })?;
    if !talk::teach(&mut terminal, &phrase).map_err(talking)? {
        let text = "the phrase stays on this machine: run `homehost id recovery-phrase show` again \
                    when you can write it down";
        return Err(failure(ErrorKind::WrongState, text));
    }
    Identity::forget_phrase(&folder).map_err(|error| exit::identity(&error))?;
    terminal.say("The phrase is yours, and no longer on this machine.");
    Ok(())
}

fn verify_phrase(from: &PhraseFile, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let folder = folder(data_dir);
    let chain = Identity::peek_chain(&folder)
        .map_err(|error| exit::identity(&error))?
        .ok_or_else(|| keeper::no_identity(data_dir))?;
    if let Ok(Recovery::OldKey(_)) = Identity::recovery(&folder) {
        return Err(old_identity(&folder.display().to_string()));
    }
    let phrase = read_phrase(from, output)?;
    let prepared = Prepared { key: chain.carrier(), chain };
    recovery_key(&phrase, &prepared)?;
    say(output, format!("this is the recovery phrase of root {}", prepared.chain.root()));
    Ok(())
}

fn back_up(args: &BackupArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let folder = folder(data_dir);
    if !Identity::exists(&folder) {
        return Err(keeper::no_identity(data_dir));
    }
    if args.file.exists() {
        return Err(exit::backup(&backup::BackupError::Exists(args.file.clone())));
    }
    let identity = Identity::peek(&folder).map_err(|error| exit::identity(&error))?;
    let passphrase = match &args.passphrase_file {
        Some(path) => one_line(&secret_file(path)?),
        None => {
            let mut terminal = terminal(output, "give --passphrase-file FILE")?;
            terminal.say("Choose a passphrase for the backup. Without it the file is worthless.");
            let first = terminal.secret("Passphrase: ").map_err(talking)?;
            let again = terminal.secret("Again: ").map_err(talking)?;
            if first != again {
                return Err(usage("the two passphrases differ: try again"));
            }
            first
        }
    };
    if passphrase.chars().count() < backup::PASSPHRASE_CHARS_MIN {
        let least = backup::PASSPHRASE_CHARS_MIN;
        return Err(usage(format!("a passphrase has at least {least} characters")));
    }
    backup::write(&identity, &args.file, &passphrase, Cost::USUAL)
        .map_err(|error| exit::backup(&error))?;
    say(
        output,
        format!(
            "the identity is in {}; keep it and its passphrase apart from this machine, and make \
             another after each rotation",
            args.file.display()
        ),
    );
    Ok(())
}

/// Refuses to put an identity where there is one.
fn no_identity_yet(folder: &Path) -> Result<(), Failure> {
    if !Identity::exists(folder) {
        return Ok(());
    }
    let text = format!(
        "there is an identity in {} already: move that folder away first, and keep it if it was \
         ever used",
        folder.display()
    );
    Err(failure(ErrorKind::Conflict, text))
}

fn restore(args: &RestoreArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    // Before anybody is asked for anything.
    backup::look(&args.file).map_err(|error| exit::backup(&error))?;
    let folder = folder(data_dir);
    let _lock = DataDir::open(data_dir).map_err(|error| exit::opening(&error))?;
    no_identity_yet(&folder)?;
    let passphrase = match &args.passphrase_file {
        Some(path) => one_line(&secret_file(path)?),
        None => terminal(output, "give --passphrase-file FILE")?
            .secret("Passphrase: ")
            .map_err(talking)?,
    };
    let contents = backup::read(&args.file, &passphrase).map_err(|error| exit::backup(&error))?;
    let machine = if args.same_machine { Machine::Same } else { Machine::Other };
    let identity = contents.restore(&folder, machine).map_err(|error| exit::backup(&error))?;
    let mut message = format!(
        "root {} is back, as of {}; `homehost up` starts it",
        identity.root(),
        contents.created()
    );
    message.push_str(
        ". Never run two machines with one key: stop the other for good, or run it as a device of \
         its own. If the keys were rotated since the backup, let the node run and hear of it \
         before you rotate again",
    );
    say(output, message);
    Ok(())
}

/// A passphrase as it stands in a file: editors end it with a line feed.
fn one_line(text: &Secret) -> Secret {
    Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Makes a new identity with a person who watches: shows the phrase and asks for
/// three words of it. Does nothing where there is an identity or no person.
///
/// # Errors
/// When the folder or the terminal cannot be used.
pub(crate) fn welcome(data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let folder = folder(data_dir);
    if Identity::exists(&folder) {
        return Ok(());
    }
    let Some(mut terminal) = Terminal::open(output) else { return Ok(()) };
    let _lock = DataDir::open(data_dir).map_err(|error| exit::opening(&error))?;
    let phrase = Phrase::random().map_err(|error| {
        failure(ErrorKind::Internal, format!("the system has no random numbers: {error}"))
    })?;
    terminal.say("This machine gets an identity of its own.\n");
    let keep = if talk::teach(&mut terminal, &phrase).map_err(talking)? {
        terminal.say("The phrase is yours, and not on this machine.\n");
        Keep::Nothing
    } else {
        terminal.say(
            "The phrase stays on this machine for now. Whoever copies its disk has it, and if the\n\
             disk dies it is gone: run `homehost id recovery-phrase show` soon.\n",
        );
        Keep::Phrase
    };
    Identity::create(&folder, &phrase, keep).map_err(|error| exit::identity(&error))?;
    Ok(())
}
