//! Identities that were born without a phrase, and how they get one.

use homehost_protocol::keys::{KeyDigest, KeyEvent};
use homehost_protocol::{Record, Verdict, validate};

use super::*;
use crate::identity::keys::OwnChain;

/// The phrase that its owner writes down.
fn written() -> Phrase {
    Phrase::of_entropy(&[7; 16])
}

fn born() -> (TempDir, Identity) {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    (dir, identity)
}

/// The rotation that commits to a phrase, signed with the interim key.
fn to_phrase(dir: &Path, prepared: &Prepared, phrase: &Phrase) -> SignedKeyEvent {
    let Prepared { chain, key } = prepared;
    let by = Identity::interim(dir).unwrap().unwrap().key_for(chain).unwrap();
    let event = chain.rotation(*key, by.public(), phrase.commitment(chain.epoch() + 2));
    SignedKeyEvent::sign(&event, &chain.root(), &by)
}

/// Does it as the command does.
fn write_down(dir: &Path, phrase: &Phrase, keep: &[u8]) -> Identity {
    let mut identity = Identity::open(dir).unwrap();
    let prepared = identity.prepare().unwrap();
    identity.apply(&to_phrase(dir, &prepared, phrase), keep, None).unwrap();
    identity
}

/// With the words, and nothing else.
fn rotate(identity: &mut Identity, phrase: &Phrase) {
    let prepared = identity.prepare().unwrap();
    identity.apply(&rotation(&prepared, phrase), &[], None).unwrap();
}

fn has_no_interim(dir: &Path) -> bool {
    files(dir).into_keys().all(|name| !name.starts_with("recovery"))
}

#[test]
fn whoever_is_born_unseen_has_a_key_for_one_event_and_no_phrase() {
    let (dir, identity) = born();
    assert_eq!(identity.phrase_state(), PhraseState::NotYet);
    assert_eq!(fs::read(dir.path().join("recovery.seed")).unwrap().len(), 32);
    let interim = Identity::interim(dir.path()).unwrap().unwrap();
    assert!(!interim.is_of_words());
    let key = interim.key_for(identity.chain()).unwrap();
    assert_eq!(identity.chain().next(), KeyDigest::of(&key.public()));
    let (other, _) = born();
    let other = Identity::interim(other.path()).unwrap().unwrap();
    assert!(other.key_for(identity.chain()).is_none());
}

#[test]
fn a_phrase_that_was_written_down_takes_the_place_of_the_interim_key() {
    let (dir, mut before) = born();
    let phones = [11, 12].map(|n| DeviceKey::from_seed([n; 32]).public());
    for phone in phones {
        before.add_device(phone).unwrap();
    }
    let interim = fs::read(dir.path().join("recovery.seed")).unwrap();
    let mut after = write_down(dir.path(), &written(), &[1, 2]);
    assert_eq!((after.root(), after.chain().epoch()), (before.root(), 1));
    assert_ne!(after.key(), before.key());
    assert_eq!(
        (after.standing(), after.phrase_state()),
        (Standing::Signs(0), PhraseState::WithOwner)
    );
    for (phone, dev) in phones.iter().zip(1..) {
        assert_eq!(after.chain().device_of(phone), Some(dev), "it signs as before");
    }
    assert!(!holds(dir.path(), &written()));
    assert!(has_no_interim(dir.path()));
    let kept = files(dir.path());
    assert!(kept.values().all(|file| !file.windows(32).any(|part| part == interim)), "it is wiped");

    let network = NetworkName::main();
    let now = UnixMillis(1_700_000_000_000);
    let record = Record::KeyChain(after.chain().to_body());
    let bytes = after.signer(network.clone()).unwrap().sign(&record, now.0, now).unwrap();
    let verdict = validate(&bytes, &network, &OwnChain(after.chain()), now);
    assert!(matches!(verdict, Verdict::Accept(valid) if valid.header.key_epoch == 1));

    rotate(&mut after, &written());
    assert_eq!((after.chain().epoch(), after.standing()), (2, Standing::Signs(0)));
    let again = Identity::open(dir.path()).unwrap();
    assert_eq!((again.chain(), again.phrase_state()), (after.chain(), PhraseState::WithOwner));
}

/// Whatever had been written and removed when the machine lost its power: either
/// there is no phrase yet and the interim key still fits, or the words count.
#[test]
fn a_crash_at_any_moment_leaves_no_phrase_yet_or_one_that_counts() {
    let (dir, mut identity) = born();
    let start = files(dir.path());
    let prepared = identity.prepare().unwrap();
    let ready = files(dir.path());
    identity.apply(&to_phrase(dir.path(), &prepared, &written()), &[], None).unwrap();
    let done = files(dir.path());

    let put = |base: &BTreeMap<_, _>, name: &str, bytes: &[u8]| {
        let mut state = base.clone();
        state.insert(name.to_owned(), bytes.to_vec());
        state
    };
    let gone = |base: &BTreeMap<_, _>, name: &str| {
        let mut state = base.clone();
        state.remove(name);
        state
    };
    let chain = put(&ready, "chain", &done["chain"]);
    let renamed = gone(&put(&chain, "device.key", &done["device.key"]), "pending.key");
    let away = put(&gone(&renamed, "recovery.seed"), "recovery.seed.gone", &start["recovery.seed"]);
    let states = [
        (0, start.clone()),
        (0, put(&start, "pending.new", b"half")),
        (0, ready.clone()),
        (0, put(&ready, "chain.new", b"half")),
        (1, chain),
        (1, renamed),
        (1, away.clone()),
        (1, put(&away, "recovery.seed.gone", &[0; 32])),
        (1, done),
    ];
    for (at, (epoch, state)) in states.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), &state);
        let mut opened = Identity::open(dir.path()).unwrap();
        assert_eq!(opened.root(), identity.root(), "state {at}");
        assert_eq!(opened.standing(), Standing::Signs(0), "state {at}");
        assert_eq!(opened.chain().epoch(), epoch, "state {at}");
        if epoch == 0 {
            assert_eq!(opened.phrase_state(), PhraseState::NotYet, "state {at}");
            opened = write_down(dir.path(), &written(), &[]);
        }
        assert_eq!(opened.phrase_state(), PhraseState::WithOwner, "state {at}");
        assert!(has_no_interim(dir.path()), "state {at}: {:?}", files(dir.path()).keys());
        rotate(&mut opened, &written());
        assert_eq!((opened.chain().epoch(), opened.standing()), (2, Standing::Signs(0)));
    }
}

/// An identity as the first development builds made it.
fn of_one_key(dir: &Path) -> RootId {
    let (device, recovery) = (DeviceKey::from_seed([3; 32]), DeviceKey::from_seed([4; 32]));
    let next = KeyDigest::of(&recovery.public());
    let genesis = homehost_protocol::cbor::encode(&KeyEvent::genesis(device.public(), next));
    let old = [
        ("recovery.seed", vec![4; 32]),
        ("device.key", vec![3; 32]),
        ("node.key", vec![5; 32]),
        ("genesis", genesis),
    ];
    lay(dir, &old.map(|(name, bytes)| (name.to_owned(), bytes)).into());
    RootId::of_genesis(device.public(), next)
}

/// One as later builds made it: the phrase was kept until it was shown.
fn of_kept_phrase(dir: &Path, kept: &Phrase) -> RootId {
    let root = Identity::create(dir, kept).unwrap().root();
    fs::write(dir.join("recovery.seed"), *kept.entropy()).unwrap();
    root
}

#[test]
fn identities_of_earlier_builds_go_on_and_get_a_phrase() {
    let kept = Phrase::of_entropy(&[9; 16]);
    for old in ["one key", "a kept phrase", "a kept phrase, rotated"] {
        let dir = tempfile::tempdir().unwrap();
        let root = match old {
            "one key" => of_one_key(dir.path()),
            _ => of_kept_phrase(dir.path(), &kept),
        };
        if old.ends_with("rotated") {
            rotate(&mut Identity::open(dir.path()).unwrap(), &kept);
        }
        let mut epoch = 0;
        for _ in 0..2 {
            let identity = Identity::open(dir.path()).unwrap();
            assert_eq!((identity.root(), identity.standing()), (root, Standing::Signs(0)), "{old}");
            assert_eq!(identity.phrase_state(), PhraseState::NotYet, "{old}");
            assert!(dir.path().join("chain").exists() && !dir.path().join("genesis").exists());
            epoch = identity.chain().epoch();
        }
        let interim = Identity::interim(dir.path()).unwrap().unwrap();
        assert_eq!(interim.is_of_words(), old != "one key");
        let mut identity = write_down(dir.path(), &written(), &[]);
        assert_eq!((identity.root(), identity.chain().epoch()), (root, epoch + 1), "{old}");
        assert_eq!(identity.phrase_state(), PhraseState::WithOwner, "{old}");
        assert!(has_no_interim(dir.path()) && !holds(dir.path(), &kept), "{old}");
        // The words of before count no longer.
        let prepared = identity.prepare().unwrap();
        identity.apply(&rotation(&prepared, &kept), &[], None).unwrap_err();
        rotate(&mut identity, &written());
    }
    // A first start that was cut off at its first step.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("recovery.seed"), *kept.entropy()).unwrap();
    assert_eq!(Identity::open(dir.path()).unwrap().chain().next(), kept.commitment(1));
}

#[test]
fn what_nodes_of_earlier_builds_say_is_understood() {
    let read = |text: &str| serde_json::from_value::<PhraseState>(text.into()).unwrap();
    for not_yet in ["not-yet", "unseen", "impossible"] {
        assert_eq!(read(not_yet), PhraseState::NotYet);
    }
    assert_eq!(read("with-owner"), PhraseState::WithOwner);
    assert_eq!(serde_json::to_value(PhraseState::NotYet).unwrap(), "not-yet");
}

#[test]
fn a_key_that_does_not_fit_and_was_not_used_is_left_where_it_is() {
    for damaged in [vec![1; 32], vec![1; 16], vec![1; 5]] {
        let (dir, identity) = born();
        let path = dir.path().join("recovery.seed");
        fs::write(&path, &damaged).unwrap();
        for _ in 0..2 {
            let again = Identity::open(dir.path()).unwrap();
            assert_eq!(
                (again.root(), again.phrase_state()),
                (identity.root(), PhraseState::NotYet)
            );
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
        let interim = Identity::interim(dir.path()).ok().flatten();
        assert!(interim.is_none_or(|interim| interim.key_for(identity.chain()).is_none()));
    }
}

#[test]
fn a_backup_from_before_holds_what_it_needs_until_it_hears_of_the_phrase() {
    let kept = Phrase::of_entropy(&[9; 16]);
    for old in ["born now", "one key", "a kept phrase"] {
        let dir = tempfile::tempdir().unwrap();
        match old {
            "one key" => drop(of_one_key(dir.path())),
            "a kept phrase" => drop(of_kept_phrase(dir.path(), &kept)),
            _ => {}
        }
        let backup = Identity::open(dir.path()).unwrap().secrets().unwrap();
        let home = write_down(dir.path(), &written(), &[]);
        let elsewhere = tempfile::tempdir().unwrap();
        let [used, unused] = ["used", "unused"].map(|name| elsewhere.path().join(name));
        let mut back = backup.restore(&used, backup::Machine::Other).unwrap();
        assert_eq!((back.root(), back.phrase_state()), (home.root(), PhraseState::NotYet), "{old}");
        assert_eq!(back.offer_chain(home.chain()).unwrap(), Offered::Changed);
        assert_eq!(back.phrase_state(), PhraseState::WithOwner);
        assert!(has_no_interim(&used), "{old}: it can do nothing any more");
        // Used before it heard, it makes a second event in one place.
        drop(backup.restore(&unused, backup::Machine::Other).unwrap());
        let mut fork = write_down(&unused, &Phrase::of_entropy(&[8; 16]), &[]);
        assert_eq!(fork.offer_chain(home.chain()).unwrap(), Offered::Conflict, "{old}");
        assert_eq!(Fork::of(fork.chain(), home.chain()), Fork::Epochs);
    }
}
