//! `id recovery-phrase …`, and whatever else needs the words.
//!
//! A phrase is made here, shown, and gone with this process: what is kept of it
//! is that the chain is committed to its next key.

use std::path::Path;

use homehost_api::{ErrorKind, Identity as View, PhraseState};
use homehost_protocol::chain::{Chain, SignedKeyEvent};
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_protocol::limits::KEY_EVENTS_MAX;
use homehost_store::DataDir;

use super::keeper::{self, Keeper};
use super::rotate::{check_rotation, rotation};
use super::talk::{self, Talk as _, Terminal};
use super::{PhraseFile, ShowPhraseArgs, folder, say, secret_file, talking, terminal};
use crate::cli::{Output, usage};
use crate::control::count;
use crate::exit::{self, Failure, failure};
use crate::identity::phrase::Phrase;
use crate::identity::{Identity, IdentityError, Interim, Prepared};

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
    let after = chain.epoch().checked_add(2).ok_or_else(too_often)?;
    let key = phrase.key(after - 1);
    if KeyDigest::of(&key.public()) != chain.next() {
        return Err(wrong_phrase(&chain.root().to_string()));
    }
    Ok((key, phrase.commitment(after)))
}

fn too_often() -> Failure {
    failure(ErrorKind::WrongState, "this identity was rotated too often")
}

fn wrong_phrase(root: &str) -> Failure {
    let text = format!(
        "this is a recovery phrase, but not that of root {root}: look for the one that you wrote \
         down when `homehost id` showed this root"
    );
    failure(ErrorKind::Denied, text)
}

/// Refuses what cannot be done without a phrase where there is none yet.
pub(super) fn needs_phrase(view: &View) -> Result<(), Failure> {
    match view.phrase {
        PhraseState::WithOwner => Ok(()),
        PhraseState::NotYet => {
            let text = "this identity has no recovery phrase yet: first run `homehost id \
                        recovery-phrase show` in a terminal and write it down, which also gives \
                        this machine a new key and ends the one before";
            Err(failure(ErrorKind::WrongState, text))
        }
    }
}

/// `id recovery-phrase show`: a new phrase, and with it a new key for this
/// machine. Nothing changes before three of the words were asked back.
pub(super) async fn show(
    args: &ShowPhraseArgs,
    data_dir: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let mut keeper = Keeper::open(data_dir)?;
    let view = keeper.view().await?;
    let folder = folder(data_dir);
    // Whatever can be refused is refused before anybody writes words down.
    let Some(interim) = interim_of(&folder)? else {
        let text = "the recovery phrase was shown once and is on no machine: `homehost id \
                    recovery-phrase verify` checks the one that you wrote down; if it is lost, \
                    nobody can bring it back";
        return Err(failure(ErrorKind::WrongState, text));
    };
    check_rotation(&view, data_dir, args.force)?;
    interim_key(&interim, &chain_of(data_dir)?)?;
    room_for(view.key_epoch, others(&view).len())?;
    let mut terminal = Terminal::open(output).ok_or_else(|| {
        usage("the words are shown in a terminal only, where three of them are asked back")
    })?;
    terminal.say("This identity gets a recovery phrase, and this machine a new key with it.");
    terminal.say("Neither counts before three of the words were asked back.\n");
    let phrase = new_phrase()?;
    if !teach(&mut terminal, &phrase)? {
        let text = "nothing was changed, and the words that were shown count for nothing: cross \
                    out what you wrote. `homehost id recovery-phrase show` shows others when you \
                    can write them down";
        return Err(failure(ErrorKind::WrongState, text));
    }
    let (event, kept) = rotation_to(&mut keeper, &folder, &phrase)
        .await
        .map_err(|error| after_words(&error, Fate::Nothing))?;
    let machines = kept.len();
    let applied = keeper.apply(&event, kept, None, args.force).await;
    let mut receipt = applied.map_err(|error| {
        // Nobody else writes the chain of a folder that no node has.
        let in_use = !keeper.is_offline() && DataDir::is_in_use(data_dir);
        after_words(&error, Fate::of(&folder, &phrase, in_use && may_follow(&error)))
    })?;
    yours(&mut terminal, &view.root);
    receipt.message.push_str(&signing_on(machines));
    if interim.is_of_words() {
        receipt.message.push_str("; words that were shown earlier count no longer: cross them out");
    }
    receipt.message.push_str(
        "; a backup from before holds a key that has ended: make another with `homehost id backup`",
    );
    if keeper.is_offline() {
        receipt.message.push_str("; others learn of it when the node runs: `homehost up`");
    }
    output.receipt(&receipt);
    Ok(())
}

/// The rotation that commits to a phrase, and the other machines: all are kept.
async fn rotation_to(
    keeper: &mut Keeper,
    folder: &Path,
    phrase: &Phrase,
) -> Result<(SignedKeyEvent, Vec<u8>), Failure> {
    // Writing words down takes a while, and machines may have come or gone.
    let view = keeper.view().await?;
    let interim = interim_of(folder)?.ok_or_else(|| {
        failure(ErrorKind::WrongState, "the identity got another recovery phrase meanwhile")
    })?;
    let (prepared, _) = keeper.prepare().await?;
    let by = interim_key(&interim, &prepared.chain)?;
    let after = prepared.chain.epoch().checked_add(2).ok_or_else(too_often)?;
    Ok((rotation(&prepared, &by, phrase.commitment(after)), others(&view)))
}

/// What is said of the machines that were kept without being asked about.
fn signing_on(machines: usize) -> String {
    match machines {
        0 => String::new(),
        1 => "; the other machine of it signs as before: is it yours? See `homehost id devices`"
            .to_owned(),
        _ => format!(
            "; {} more sign as before: are they yours? See `homehost id devices`",
            count(machines, "machine")
        ),
    }
}

/// The numbers of the machines that sign besides this one.
fn others(view: &View) -> Vec<u8> {
    let others = view.devices.iter().filter(|other| !other.this && !other.revoked);
    others.map(|other| other.device).filter(|device| *device != 0).collect()
}

/// Refuses a rotation after which not all machines would fit into the chain.
fn room_for(epoch: u16, machines: usize) -> Result<(), Failure> {
    // A genesis, an event for each epoch and the new one, and one a machine.
    let room = KEY_EVENTS_MAX.saturating_sub(usize::from(epoch) + 2);
    if machines <= room {
        return Ok(());
    }
    let text = format!(
        "{} besides this one sign for this identity, and a rotation can keep {room}: let some sign \
         no longer with `homehost id device revoke N`",
        count(machines, "machine")
    );
    Err(failure(ErrorKind::WrongState, text))
}

/// What lies in a folder until there is a phrase.
fn interim_of(folder: &Path) -> Result<Option<Interim>, Failure> {
    Identity::interim(folder).map_err(|error| match error {
        IdentityError::Damaged { .. } => not_its_key(),
        error => exit::identity(&error),
    })
}

fn interim_key(interim: &Interim, chain: &Chain) -> Result<DeviceKey, Failure> {
    interim.key_for(chain).ok_or_else(not_its_key)
}

fn not_its_key() -> Failure {
    let text = "what is kept in `identity/recovery.seed` is not the recovery key of this identity: \
                it is damaged, or of another. Restore a backup, or go on as it is: everything \
                works but a change of keys";
    failure(ErrorKind::Internal, text)
}

fn chain_of(data_dir: &Path) -> Result<Chain, Failure> {
    let chain = Identity::peek_chain(&folder(data_dir)).map_err(|error| exit::identity(&error))?;
    chain.ok_or_else(|| keeper::no_identity(data_dir))
}

fn new_phrase() -> Result<Phrase, Failure> {
    Phrase::random().map_err(|error| {
        failure(ErrorKind::Internal, format!("the system has no random numbers: {error}"))
    })
}

/// Shows the words and asks for three; see [`talk::teach`].
fn teach(terminal: &mut Terminal, phrase: &Phrase) -> Result<bool, Failure> {
    talk::teach(terminal, phrase).map_err(|error| after_words(&talking(error), Fate::Nothing))
}

/// What is left to write down: the words do not say whose they are.
fn yours(terminal: &mut Terminal, root: &str) {
    terminal.say("The phrase is yours, and was never on this disk. Write the root beside it:\n");
    terminal.say(&format!("{root}\n"));
}

/// What became of words that were shown, when something failed after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The chain is committed to them.
    Count,
    /// It is not, and will not be.
    Nothing,
    /// It cannot be told, or may change yet.
    Unknown,
}

impl Fate {
    fn of(folder: &Path, phrase: &Phrase, may_follow: bool) -> Self {
        match Identity::peek_chain(folder) {
            Ok(Some(chain)) if fits(phrase, &chain) => Self::Count,
            Ok(_) if !may_follow => Self::Nothing,
            _ => Self::Unknown,
        }
    }
}

fn fits(phrase: &Phrase, chain: &Chain) -> bool {
    let next = chain.epoch().checked_add(1);
    next.is_some_and(|next| phrase.commitment(next) == chain.next())
}

/// Whether a node that failed so may yet do what it was asked for: it did not
/// refuse, or nothing was heard from it.
fn may_follow(error: &Failure) -> bool {
    matches!(error.kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Internal)
}

/// A failure after words were shown says what they are worth.
fn after_words(error: &Failure, fate: Fate) -> Failure {
    let fate = match fate {
        Fate::Count => {
            "the words count all the same: keep them, and start the node anew with `homehost down` \
             and `homehost up`"
        }
        Fate::Nothing => {
            "nothing was changed, and the words that were shown count for nothing: cross out what \
             you wrote. Others are shown when you try again"
        }
        Fate::Unknown => {
            "whether the words that were shown count is not known: keep them until `homehost id \
             recovery-phrase verify` tells you"
        }
    };
    failure(error.kind, format!("{}; {fate}", error.message))
}

pub(super) fn verify(from: &PhraseFile, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let chain = chain_of(data_dir)?;
    if let Ok(Some(interim)) = Identity::interim(&folder(data_dir))
        && interim.key_for(&chain).is_some()
    {
        let text = "this identity has no recovery phrase yet, and no words count: `homehost id \
                    recovery-phrase show` in a terminal gives it one";
        return Err(failure(ErrorKind::WrongState, text));
    }
    let phrase = read_phrase(from, output)?;
    let prepared = Prepared { key: chain.carrier(), chain };
    recovery_key(&phrase, &prepared)?;
    say(output, format!("this is the recovery phrase of root {}", prepared.chain.root()));
    Ok(())
}

/// Makes a new identity with a person who watches: shows the phrase and asks for
/// three words of it. Without them, or when the person declines, the identity
/// has none yet. Does nothing where there is an identity or no person.
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
    let phrase = new_phrase()?;
    terminal.say("This machine gets an identity of its own.\n");
    if teach(&mut terminal, &phrase)? {
        let identity = Identity::create(&folder, &phrase).map_err(|error| {
            after_words(&exit::identity(&error), Fate::of(&folder, &phrase, false))
        })?;
        yours(&mut terminal, &identity.root().to_string());
    } else {
        Identity::open(&folder).map_err(|error| exit::identity(&error))?;
        terminal.say(
            "The words that were shown count for nothing: cross out what you wrote.\n\
             Until you take others, a recovery key lies on this disk. Whoever copies the disk can\n\
             take this identity over, and if it dies without a backup, nobody can bring it back:\n\
             run `homehost id recovery-phrase show` soon.\n",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_the_words_are_worth() {
        let dir = tempfile::tempdir().unwrap();
        let [shown, other] = [[7; 16], [8; 16]].map(|entropy| Phrase::of_entropy(&entropy));
        assert_eq!(Fate::of(dir.path(), &shown, false), Fate::Nothing, "nobody was born");
        Identity::create(dir.path(), &shown).unwrap();
        for may_follow in [false, true] {
            assert_eq!(Fate::of(dir.path(), &shown, may_follow), Fate::Count);
        }
        assert_eq!(Fate::of(dir.path(), &other, false), Fate::Nothing);
        assert_eq!(Fate::of(dir.path(), &other, true), Fate::Unknown, "a node may be at it");
        std::fs::write(dir.path().join("chain"), "?").unwrap();
        assert_eq!(Fate::of(dir.path(), &shown, false), Fate::Unknown);
        assert!(may_follow(&failure(ErrorKind::Timeout, "no answer")));
        let error = failure(ErrorKind::Denied, "the disk is read-only");
        assert!(!may_follow(&error));
        for (fate, text) in [
            (Fate::Count, "keep them, and start the node anew"),
            (Fate::Nothing, "cross out what you wrote"),
            (Fate::Unknown, "recovery-phrase verify"),
        ] {
            let said = after_words(&error, fate);
            assert_eq!(said.kind, ErrorKind::Denied);
            assert!(said.message.starts_with("the disk is read-only; "), "{said}");
            assert!(said.message.contains(text), "{said}");
        }
    }

    /// Nobody writes words down for a rotation that the chain has no room for.
    #[test]
    fn as_many_machines_are_kept_as_fit_into_the_chain() {
        let key = |n| DeviceKey::from_seed([n; 32]);
        let phrase = Phrase::of_entropy(&[7; 16]);
        let mut chain = Chain::genesis(key(1).public(), phrase.commitment(1));
        for epoch in 0..3 {
            let prepared = Prepared { chain: chain.clone(), key: key(2).public() };
            let (by, next) = recovery_key(&phrase, &prepared).unwrap();
            chain.extend(&rotation(&prepared, &by, next)).unwrap();
            let mut full = chain.clone();
            let fits = (1..=u8::MAX).take_while(|dev| {
                let event = full.addition(*dev, key(100).public());
                full.extend(&SignedKeyEvent::sign(&event, &full.root(), &key(2))).is_ok()
            });
            let fits = fits.count();
            room_for(epoch, fits).unwrap();
            let error = room_for(epoch, fits + 1).unwrap_err();
            assert!(error.message.contains(&format!("can keep {fits}")), "{error}");
        }
    }
}
