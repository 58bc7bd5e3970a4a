//! `id recovery-phrase …`, and whatever else needs the words.

use std::path::Path;

use homehost_api::{ErrorKind, Identity as View};
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_store::DataDir;

use super::talk::{self, Talk as _, Terminal};
use super::{PhraseFile, folder, keeper, say, secret_file, talking, terminal};
use crate::cli::{Output, usage};
use crate::exit::{self, Failure, failure};
use crate::identity::phrase::Phrase;
use crate::identity::{Identity, Keep, Prepared, Recovery};

/// The phrase from where the options say.
pub(super) fn read_phrase(from: &PhraseFile, output: &Output) -> Result<Phrase, Failure> {
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
pub(super) fn recovery_key(
    phrase: &Phrase,
    prepared: &Prepared,
) -> Result<(DeviceKey, KeyDigest), Failure> {
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

fn wrong_phrase(root: &str) -> Failure {
    let text = format!(
        "this is a recovery phrase, but not that of root {root}: look for the one that you wrote \
         down when `homehost id` showed this root"
    );
    failure(ErrorKind::Denied, text)
}

/// Refuses what cannot be done without a phrase that can be had.
pub(super) fn needs_phrase(view: &View) -> Result<(), Failure> {
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

pub(super) fn show(data_dir: &Path, output: &Output) -> Result<(), Failure> {
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

pub(super) fn verify(from: &PhraseFile, data_dir: &Path, output: &Output) -> Result<(), Failure> {
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
