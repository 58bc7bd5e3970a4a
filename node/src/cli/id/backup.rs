//! `id backup` and `id restore`.

use std::path::Path;

use homehost_api::ErrorKind;
use homehost_store::DataDir;
use zeroize::Zeroizing;

use super::talk::{Secret, Talk as _};
use super::{BackupArgs, RestoreArgs, folder, keeper, say, secret_file, talking, terminal};
use crate::cli::{Output, usage};
use crate::exit::{self, Failure, failure};
use crate::identity::Identity;
use crate::identity::backup::{self, Cost, Machine};

pub(super) fn back_up(args: &BackupArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
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
pub(super) fn no_identity_yet(folder: &Path) -> Result<(), Failure> {
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

pub(super) fn restore(args: &RestoreArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
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
