use std::collections::BTreeMap;
use std::fs;

use homehost_protocol::chain::SignedKeyEvent;
use tempfile::TempDir;

use super::phrase::Phrase;
use super::*;

mod interim;

/// An identity whose phrase is known.
struct Known {
    dir: TempDir,
    phrase: Phrase,
}

impl Known {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let phrase = Phrase::of_entropy(&[7; 16]);
        Identity::create(dir.path(), &phrase).unwrap();
        Self { dir, phrase }
    }

    fn open(&self) -> Identity {
        Identity::open(self.dir.path()).unwrap()
    }

    fn rotation(&self, prepared: &Prepared) -> SignedKeyEvent {
        rotation(prepared, &self.phrase)
    }

    fn rotate(&self, keep: &[u8]) -> Identity {
        let mut identity = self.open();
        let prepared = identity.prepare().unwrap();
        identity.apply(&self.rotation(&prepared), keep, None).unwrap();
        identity
    }

    fn revocation(&self, chain: &Chain) -> SignedKeyEvent {
        let by = self.phrase.key(chain.epoch() + 1);
        let event = chain.revocation(by.public(), self.phrase.commitment(chain.epoch() + 2));
        SignedKeyEvent::sign(&event, &chain.root(), &by)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn rotation(prepared: &Prepared, phrase: &Phrase) -> SignedKeyEvent {
    let Prepared { chain, key } = prepared;
    let by = phrase.key(chain.epoch() + 1);
    let event = chain.rotation(*key, by.public(), phrase.commitment(chain.epoch() + 2));
    SignedKeyEvent::sign(&event, &chain.root(), &by)
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect()
}

/// Whether a file of a folder holds a phrase, as bytes or as words.
fn holds(dir: &Path, phrase: &Phrase) -> bool {
    let (entropy, words) = (phrase.entropy(), phrase.words().join(" "));
    let found = |file: &[u8], part: &[u8]| file.windows(part.len()).any(|bytes| bytes == part);
    files(dir).values().any(|file| found(file, &*entropy) || found(file, words.as_bytes()))
}

fn lay(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn an_identity_is_made_once_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("identity");
    assert!(!Identity::exists(&folder));
    let first = Identity::open(&folder).unwrap();
    assert!(Identity::exists(&folder));
    let again = Identity::open(&folder).unwrap();
    assert_eq!((first.root(), first.node()), (again.root(), again.node()));
    assert_eq!(first.standing(), Standing::Signs(0));
    assert_eq!(first.phrase_state(), PhraseState::NotYet);
    let names: Vec<_> = files(&folder).into_keys().collect();
    assert_eq!(names, ["chain", "device.key", "node.key", "recovery.seed"]);
    #[cfg(unix)]
    for name in ["node.key", "device.key", "recovery.seed"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let phrase = Phrase::random().unwrap();
    assert!(Identity::create(&folder, &phrase).is_err(), "it is not replaced");
}

#[test]
fn a_phrase_that_was_shown_is_not_on_the_disk() {
    let known = Known::new();
    let identity = known.open();
    assert_eq!(identity.phrase_state(), PhraseState::WithOwner);
    assert_eq!(identity.chain().next(), known.phrase.commitment(1));
    assert!(!holds(known.dir.path(), &known.phrase));
}

#[test]
fn the_owner_survives_a_new_machine_key() {
    let known = Known::new();
    let first = known.open();
    fs::remove_file(known.path("node.key")).unwrap();
    let again = known.open();
    assert_eq!(first.root(), again.root());
    assert_ne!(first.node(), again.node());
}

#[test]
fn a_crash_at_any_moment_of_the_first_start_loses_nothing() {
    let order = ["recovery.seed", "pending.key", "chain", "device.key"];
    let dir = tempfile::tempdir().unwrap();
    let born = Identity::open(dir.path()).unwrap();
    let mut whole = files(dir.path());
    whole.insert("pending.key".to_owned(), whole["device.key"].clone());
    for count in 0..=order.len() {
        let dir = tempfile::tempdir().unwrap();
        for name in &order[..count] {
            // The device key is the pending one under its new name.
            if !(*name == "pending.key" && count == order.len()) {
                fs::write(dir.path().join(name), &whole[*name]).unwrap();
            }
        }
        let opened = Identity::open(dir.path()).unwrap();
        assert_eq!(opened.standing(), Standing::Signs(0), "after {count} files");
        // With the seed and the key on disk the root is settled.
        assert_eq!(opened.root() == born.root(), count >= 2, "after {count} files");
        assert!(!dir.path().join("pending.key").exists());
    }
}

#[test]
fn damage_is_explained_and_never_overwritten() {
    for (name, bytes) in [
        ("device.key", &b"short"[..]),
        ("device.key", &[7; 32]),
        ("chain", b"?"),
        ("node.key", &[1; 33]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path()).unwrap();
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Identity::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("homehost id restore"), "{name}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
    }
    // A chain that was lost may have had more events than one: nobody begins anew.
    for name in ["device.key", "chain"] {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join(name)).unwrap();
        let before = files(dir.path());
        assert!(matches!(Identity::open(dir.path()), Err(IdentityError::Damaged { .. })));
        assert_eq!(files(dir.path()), before, "{name}");
    }
}

#[test]
fn a_rotation_changes_the_key_and_not_the_root() {
    let known = Known::new();
    let before = known.open();
    let after = known.rotate(&[]);
    assert_eq!(after.root(), before.root());
    assert_ne!(after.key(), before.key());
    assert_eq!((after.chain().epoch(), after.standing()), (1, Standing::Signs(0)));
    let again = known.open();
    assert_eq!((again.key(), again.chain()), (after.key(), after.chain()));
    assert!(!known.path("pending.key").exists());
    assert_eq!(known.rotate(&[]).chain().epoch(), 2);
    let signer = known.open().signer(NetworkName::main()).unwrap();
    assert_eq!((signer.key_epoch(), signer.dev()), (2, 0));
}

/// Whatever of a rotation's writes and removals had been done when the machine
/// lost its power: the identity signs, with the old key or the new one.
#[test]
fn a_crash_at_any_moment_of_a_rotation_leaves_an_identity_that_signs() {
    let known = Known::new();
    let mut identity = known.open();
    let start = files(known.dir.path());
    let prepared = identity.prepare().unwrap();
    let ready = files(known.dir.path());
    identity.apply(&known.rotation(&prepared), &[], None).unwrap();
    let done = files(known.dir.path());

    let with = |base: &BTreeMap<String, Vec<u8>>, names: &[&str]| {
        let mut state = base.clone();
        for name in names {
            state.insert((*name).to_owned(), done[*name].clone());
        }
        state
    };
    let torn = |base: &BTreeMap<String, Vec<u8>>, name: &str| {
        let mut state = base.clone();
        state.insert(name.to_owned(), vec![1, 2, 3]);
        state
    };
    let states = [
        (0, start.clone()),
        (0, torn(&start, "pending.new")),
        (0, ready.clone()),
        (0, torn(&ready, "chain.new")),
        (1, with(&ready, &["chain"])),
        // Where a rename is a copy and a removal.
        (1, with(&ready, &["chain", "device.key"])),
        (1, done.clone()),
    ];
    for (at, (epoch, state)) in states.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), &state);
        let mut opened = Identity::open(dir.path()).unwrap();
        assert_eq!(opened.standing(), Standing::Signs(0), "state {at}");
        assert_eq!(opened.chain().epoch(), epoch, "state {at}");
        let expected = if epoch == 0 { prepared.chain.operating_key() } else { Some(prepared.key) };
        assert_eq!(Some(opened.key()), expected, "state {at}");
        // And it can be rotated from there.
        let next = opened.prepare().unwrap();
        opened.apply(&rotation(&next, &known.phrase), &[], None).unwrap();
        assert_eq!(opened.chain().epoch(), epoch + 1, "state {at}");
        assert_eq!(opened.standing(), Standing::Signs(0), "state {at}");
    }
}

#[test]
fn a_crash_at_any_moment_of_a_recovery_leaves_one_that_goes_on() {
    let phrase = Phrase::of_entropy(&[7; 16]);
    let lost = tempfile::tempdir().unwrap();
    let chain = Identity::create(lost.path(), &phrase).unwrap().chain().clone();
    let recover = |dir: &Path, phrase: &Phrase| {
        Identity::recover(dir, chain.clone(), |prepared| rotation(prepared, phrase))
    };
    let dir = tempfile::tempdir().unwrap();
    recover(dir.path(), &Phrase::of_entropy(&[8; 16])).unwrap_err();
    assert!(!Identity::exists(dir.path()), "wrong words bring nothing back");
    let back = recover(dir.path(), &phrase).unwrap();
    assert_eq!((back.root(), back.chain().epoch()), (chain.root(), 1));
    assert_eq!(back.phrase_state(), PhraseState::WithOwner);
    let whole = files(dir.path());
    recover(dir.path(), &phrase).unwrap_err();
    assert_eq!(files(dir.path()), whole, "it is not replaced");

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pending.key"), &whole["device.key"]).unwrap();
    assert_eq!(recover(dir.path(), &phrase).unwrap().chain(), back.chain());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pending.key"), &whole["device.key"]).unwrap();
    fs::write(dir.path().join("chain"), &whole["chain"]).unwrap();
    assert!(Identity::exists(dir.path()));
    let opened = Identity::open(dir.path()).unwrap();
    assert_eq!((opened.chain(), opened.standing()), (back.chain(), Standing::Signs(0)));
}

#[test]
fn what_is_begun_twice_has_one_key() {
    let known = Known::new();
    let mut identity = known.open();
    let first = identity.prepare().unwrap();
    assert_eq!(known.open().prepare().unwrap().key, first.key);
    identity.apply(&known.rotation(&first), &[], None).unwrap();
    let error = identity.apply(&known.rotation(&first), &[], None).unwrap_err();
    assert!(error.to_string().contains("run `homehost id rotate` again"), "{error}");
}

#[test]
fn others_cannot_rotate() {
    let known = Known::new();
    let before = files(known.dir.path());
    let mut identity = known.open();
    let prepared = identity.prepare().unwrap();
    let stranger = Phrase::of_entropy(&[8; 16]);
    let error = identity.apply(&rotation(&prepared, &stranger), &[], None).unwrap_err();
    assert!(error.to_string().contains("recovery phrase"), "{error}");
    // A key that this machine does not have would leave it without one.
    let foreign = Prepared { key: DeviceKey::from_seed([9; 32]).public(), ..prepared.clone() };
    assert!(identity.apply(&known.rotation(&foreign), &[], None).is_err());
    let device = prepared.chain.addition(1, foreign.key);
    let device =
        SignedKeyEvent::sign(&device, &prepared.chain.root(), &DeviceKey::from_seed([9; 32]));
    assert!(identity.apply(&device, &[], None).is_err());
    let mut after = files(known.dir.path());
    after.remove("pending.key");
    assert_eq!(after, before);
}

#[test]
fn after_a_revocation_nothing_is_signed_until_a_rotation() {
    let known = Known::new();
    let mut identity = known.open();
    let event = known.revocation(identity.chain());
    identity.apply(&event, &[], Some(b"record")).unwrap();
    for identity in [&identity, &known.open()] {
        assert!(matches!(identity.standing(), Standing::Ended(why) if why.contains("id rotate")));
        assert!(identity.signer(NetworkName::main()).is_none());
        assert_eq!(identity.revocation().as_deref(), Some(&b"record"[..]));
    }
    assert!(identity.add_device(DeviceKey::from_seed([9; 32]).public()).is_err());
    // Whoever restores a backup of it goes on telling others.
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("identity");
    let back = identity.secrets().unwrap().restore(&folder, backup::Machine::Same).unwrap();
    assert_eq!(back.revocation().as_deref(), Some(&b"record"[..]));
    let rotated = known.rotate(&[]);
    assert_eq!((rotated.chain().epoch(), rotated.standing()), (2, Standing::Signs(0)));
    assert_eq!(rotated.revocation(), None);
    assert!(!known.path("revocation").exists());
}

#[test]
fn devices_come_and_go_and_are_kept_on_request() {
    let known = Known::new();
    let mut identity = known.open();
    let keys = [11, 12, 13].map(|n| DeviceKey::from_seed([n; 32]).public());
    for (key, dev) in keys.into_iter().zip(1..) {
        assert_eq!(identity.add_device(key).unwrap(), dev);
    }
    let error = identity.add_device(keys[0]).unwrap_err();
    assert!(error.to_string().contains("device 1 already"), "{error}");
    identity.revoke_device(2).unwrap();
    for (dev, word) in [(0, "id rotate"), (2, "does not sign"), (9, "does not sign")] {
        let error = identity.revoke_device(dev).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(known.open().chain(), identity.chain());
    let rotated = known.rotate(&[3]);
    let devices: Vec<_> = rotated.chain().devices().keys().copied().collect();
    assert_eq!(devices, [3]);
    assert_eq!(rotated.chain().device_of(&keys[2]), Some(3));
    let mut identity = known.open();
    let prepared = identity.prepare().unwrap();
    let error = identity.apply(&known.rotation(&prepared), &[1], None).unwrap_err();
    assert!(error.to_string().contains("no device 1 to keep"), "{error}");
    assert_eq!(identity.chain(), rotated.chain());
}

/// A backup that was restored, or a second machine, learns what happened.
#[test]
fn a_machine_learns_that_its_key_has_ended() {
    let known = Known::new();
    let old = tempfile::tempdir().unwrap();
    lay(old.path(), &files(known.dir.path()));
    let rotated = known.rotate(&[]);
    let mut old = Identity::open(old.path()).unwrap();
    assert_eq!(old.offer_chain(rotated.chain()).unwrap(), Offered::Changed);
    assert_eq!(old.offer_chain(rotated.chain()).unwrap(), Offered::Unchanged);
    let Standing::Ended(why) = old.standing() else { panic!("it signs") };
    assert!(why.contains("ended by a rotation") && why.contains("id device add"), "{why}");
    let old = Identity::open(old.folder()).unwrap();
    assert!(old.signer(NetworkName::main()).is_none());
    // What is older than what is known changes nothing.
    let mut rotated = rotated;
    let genesis = Known::new();
    assert_eq!(rotated.offer_chain(genesis.open().chain()).unwrap(), Offered::Unchanged);
    // From its own backup it may be rotated into a contradiction.
    let fork = tempfile::tempdir().unwrap();
    Identity::create(fork.path(), &known.phrase).unwrap();
}

#[test]
fn contradicting_chains_are_a_conflict() {
    let known = Known::new();
    let copy = tempfile::tempdir().unwrap();
    lay(copy.path(), &files(known.dir.path()));
    let here = known.rotate(&[]);
    let mut there = Identity::open(copy.path()).unwrap();
    let prepared = there.prepare().unwrap();
    there.apply(&known.rotation(&prepared), &[], None).unwrap();
    let before = there.chain().clone();
    assert_eq!(there.offer_chain(here.chain()).unwrap(), Offered::Conflict);
    assert_eq!(*there.chain(), before);
}

#[test]
fn a_machine_joins_when_the_chain_names_it_and_keeps_what_it_was() {
    let owner = Known::new();
    let mut home = owner.open();
    let dir = tempfile::tempdir().unwrap();
    let mut second = Identity::open(dir.path()).unwrap();
    let (former, key) = (second.root(), second.key());
    home.add_device(key).unwrap();
    assert_eq!(second.offer_chain(home.chain()).unwrap(), Offered::Unchanged, "nobody asked");
    assert!(second.join(Some(former)).is_err());
    second.join(Some(owner.open().root())).unwrap();
    // Before it is named, nothing happens.
    let unnamed = Chain::genesis(home.key(), owner.phrase.commitment(1));
    assert_eq!(second.offer_chain(&unnamed).unwrap(), Offered::Unchanged);
    let mut second = Identity::open(dir.path()).unwrap();
    assert_eq!(second.joining(), Some(home.root()));
    assert_eq!(second.offer_chain(home.chain()).unwrap(), Offered::Changed);
    for second in [&second, &Identity::open(dir.path()).unwrap()] {
        assert_eq!((second.root(), second.key()), (home.root(), key));
        assert_eq!((second.standing(), second.joining()), (Standing::Signs(1), None));
        assert_eq!(second.phrase_state(), PhraseState::WithOwner);
    }
    assert!(second.add_device(DeviceKey::from_seed([1; 32]).public()).is_err());
    let kept = dir.path().join(format!("former-{}", &former.to_string()[..8]));
    let kept = Identity::open(&kept).unwrap();
    assert_eq!((kept.root(), kept.phrase_state()), (former, PhraseState::NotYet));
}
