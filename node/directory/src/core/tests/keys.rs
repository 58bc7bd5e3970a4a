//! Keys that change: what they signed goes, what waits for them comes in.

use homehost_protocol::Chain;
use homehost_protocol::chain::SignedKeyEvent;
use homehost_protocol::keys::PublicKey;

use super::*;

fn device(n: u8) -> DeviceKey {
    DeviceKey::from_seed([n; 32])
}

fn recovery(epoch: u16) -> DeviceKey {
    // Epoch 1 is what `signer_on` commits to.
    device(100 - u8::try_from(epoch).expect("few epochs"))
}

fn born(root: u8) -> Chain {
    Chain::genesis(device(root).public(), KeyDigest::of(&recovery(1).public()))
}

fn rotated(chain: &Chain, to: PublicKey) -> Chain {
    let mut chain = chain.clone();
    let (by, next) = (recovery(chain.epoch() + 1), recovery(chain.epoch() + 2));
    let event = chain.rotation(to, by.public(), KeyDigest::of(&next.public()));
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &by)).expect("a rotation");
    chain
}

fn with_device(chain: &Chain, by: &DeviceKey, key: PublicKey) -> Chain {
    let mut chain = chain.clone();
    let event = chain.addition(chain.free_device().expect("room"), key);
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), by)).expect("an addition");
    chain
}

fn signer_of(key: &DeviceKey, chain: &Chain) -> RecordSigner {
    let network = "test".parse().expect("a name");
    RecordSigner::of_chain(key.clone(), chain, network).expect("a key of the chain")
}

fn carried(key: &DeviceKey, chain: &Chain, seconds: u64) -> Vec<u8> {
    let at = moment(seconds).wall;
    let record = Record::KeyChain(chain.to_body());
    let network = "test".parse().expect("a name");
    let signer = RecordSigner::carrier_of(key.clone(), chain, network).expect("its carrier");
    signer.sign(&record, at.0, at).expect("a chain that holds")
}

fn listed(key: &DeviceKey, chain: &Chain, n: u8, seconds: u64) -> Vec<u8> {
    let at = moment(seconds).wall;
    let signer = signer_of(key, chain);
    signer.sign(&Record::ServerListing(listing(n)), at.0, at).expect("a listing that holds")
}

fn server(chain: &Chain, n: u8) -> ServerId {
    listing(n).id(&chain.root())
}

#[test]
fn a_rotation_takes_back_what_the_old_key_signed() {
    let mut directory = directory();
    let start = born(1);
    assert_eq!(gossip(&mut directory, &sign(1, listing(1), 0), 0), Admission::New);
    gossip(&mut directory, &presence(1, &[(1, Some(3))], 1), 1);
    let chain = rotated(&start, device(2).public());
    let carried = carried(&device(2), &chain, 5);
    let (admission, outputs) = directory.admit(&carried, Source::Gossip, moment(5));
    assert_eq!(admission, Admission::New);
    assert!(outputs.contains(&Output::Keys(chain.root())));
    assert!(directory.view(&server(&chain, 1), moment(5)).is_none(), "its row is gone");
    assert_eq!(directory.stats().hosts, 0, "its presence too");
    // The thief may sign as much as they like.
    for bytes in [sign(1, listing(1), 6), sign(1, listing(2), 6), presence(1, &[], 6)] {
        let refused = gossip(&mut directory, &bytes, 6);
        assert_eq!(refused, Admission::Refused(Refusal::Ignored(IgnoreReason::RevokedKey)));
    }
    let new = listed(&device(2), &chain, 1, 7);
    assert_eq!(gossip(&mut directory, &new, 7), Admission::New);
    assert_eq!(directory.view(&server(&chain, 1), moment(7)).expect("the row").host, chain.root());
}

#[test]
fn a_row_waits_for_its_chain_and_comes_in_with_it() {
    let mut directory = directory();
    let chain = rotated(&born(1), device(2).public());
    let row = listed(&device(2), &chain, 1, 0);
    let (admission, outputs) = directory.admit(&row, Source::Gossip, moment(0));
    assert_eq!(admission, Admission::Refused(Refusal::NeedChain));
    assert_eq!(outputs, [Output::FetchChain(chain.root())]);
    assert_eq!(directory.stats().penned, 1);
    // A chain of somebody else does not help.
    gossip(&mut directory, &carried(&device(7), &rotated(&born(5), device(7).public()), 1), 1);
    assert_eq!(directory.stats().penned, 1);
    assert_eq!(gossip(&mut directory, &carried(&device(2), &chain, 1), 1), Admission::New);
    assert_eq!(status(&directory, 1, 1, 1), RowStatus::Live);
    assert_eq!(directory.stats().penned, 0);
}

#[test]
fn the_pen_is_bounded_and_forgets() {
    let mut directory = directory();
    for n in 0..40 {
        let key = device(n);
        let chain = rotated(&born(n), key.public());
        for row in 0..40 {
            gossip(&mut directory, &listed(&key, &chain, row, 0), 0);
        }
    }
    assert_eq!(directory.stats().penned, 512);
    directory.tick(moment(60));
    assert_eq!(directory.stats().penned, 0);
}

#[test]
fn machines_of_an_owner_sign_until_they_are_taken_out() {
    let mut directory = directory();
    let chain = with_device(&born(1), &device(1), device(8).public());
    gossip(&mut directory, &carried(&device(1), &chain, 0), 0);
    assert_eq!(gossip(&mut directory, &listed(&device(8), &chain, 1, 1), 1), Admission::New);
    let mut out = chain.clone();
    let event = out.removal(1);
    out.extend(&SignedKeyEvent::sign(&event, &out.root(), &device(1))).expect("a removal");
    gossip(&mut directory, &carried(&device(1), &out, 2), 2);
    assert!(directory.view(&server(&chain, 1), moment(2)).is_none());
    let again = gossip(&mut directory, &listed(&device(8), &chain, 1, 3), 3);
    assert_eq!(again, Admission::Refused(Refusal::Ignored(IgnoreReason::RevokedKey)));
}

#[test]
fn old_chains_do_not_bring_old_keys_back() {
    let mut directory = directory();
    let old = with_device(&born(1), &device(1), device(8).public());
    let new = rotated(&old, device(2).public());
    gossip(&mut directory, &carried(&device(2), &new, 0), 0);
    let refused = gossip(&mut directory, &carried(&device(1), &old, 9), 9);
    assert_eq!(refused, Admission::Refused(Refusal::Old));
    assert_eq!(directory.chain(&new.root()).map(Chain::epoch), Some(1));
    // The same chain, signed a week later, is passed on.
    let week = carried(&device(2), &new, 7 * 24 * 3600);
    assert_eq!(gossip(&mut directory, &week, 7 * 24 * 3600), Admission::New);
}

#[test]
fn a_root_that_contradicts_itself_is_shown_so_and_stands_last() {
    let mut directory = directory();
    let start = born(1);
    let (owner, thief) = (rotated(&start, device(2).public()), rotated(&start, device(3).public()));
    gossip(&mut directory, &carried(&device(2), &owner, 0), 0);
    gossip(&mut directory, &listed(&device(2), &owner, 1, 1), 1);
    assert_eq!(gossip(&mut directory, &carried(&device(3), &thief, 2), 2), Admission::New);
    let view = directory.view(&server(&owner, 1), moment(2)).expect("the first seen goes on");
    assert!(view.key_conflict);
    assert_eq!(view.standing, 0);
    assert_eq!(directory.stats().conflicts, 1);
    assert!(directory.is_in_conflict(&owner.root()));
    // Whoever passes the other branch on is not to blame.
    let other = gossip(&mut directory, &listed(&device(3), &thief, 2, 3), 3);
    assert!(
        matches!(&other, Admission::Refused(refusal) if !refusal.is_blameworthy()),
        "{other:?}"
    );
    // Both are told to others, as proof; a third is not needed.
    let told = directory.chains(&[owner.root()], moment(4));
    assert_eq!(told.records.len(), 2);
    let third = rotated(&start, device(4).public());
    let third = gossip(&mut directory, &carried(&device(4), &third, 5), 5);
    assert_eq!(third, Admission::Refused(Refusal::Old));
}

#[test]
fn keys_survive_a_restart() {
    let mut first = directory();
    let chain = rotated(&born(1), device(2).public());
    let mut stored = BTreeMap::new();
    for bytes in [carried(&device(2), &chain, 0), listed(&device(2), &chain, 1, 0)] {
        for output in first.admit(&bytes, Source::Gossip, moment(0)).1 {
            if let Output::Store { key, value } = output {
                stored.insert(key, value);
            }
        }
    }
    let mut second = directory();
    // The store gives them back in the order of their keys: the row first.
    let loaded = second.load_all(stored.into_iter().collect(), moment(9));
    assert!(loaded.iter().all(|(_, loaded)| *loaded == Loaded::Row), "{loaded:?}");
    assert!(second.view(&server(&chain, 1), moment(9)).is_some());
    let stolen = gossip(&mut second, &sign(1, listing(1), 10), 10);
    assert_eq!(stolen, Admission::Refused(Refusal::Ignored(IgnoreReason::RevokedKey)));
    assert_eq!(
        second.chain(&chain.root()).expect("the chain").signing_key(0, 0),
        homehost_protocol::validate::KeyState::Revoked
    );
}

#[test]
fn ten_thousand_revocations_are_bounded_and_cost_no_row() {
    let mut directory = directory();
    gossip(&mut directory, &sign(1, listing(1), 0), 0);
    let by = recovery(1);
    let mut disk = std::collections::BTreeSet::new();
    let mut outputs = Vec::new();
    for n in 0..10_000_u32 {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let mut chain =
            Chain::genesis(DeviceKey::from_seed(seed).public(), KeyDigest::of(&by.public()));
        let event = chain.revocation(by.public(), KeyDigest::of(&recovery(2).public()));
        chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &by)).expect("a revocation");
        outputs.extend(directory.admit(&carried(&by, &chain, 0), Source::Gossip, moment(0)).1);
    }
    for output in outputs {
        match output {
            Output::Store { key, .. } => drop(disk.insert(key)),
            Output::Forget { key } => drop(disk.remove(&key)),
            _ => {}
        }
    }
    assert_eq!(directory.stats().chains, 4096);
    assert_eq!(disk.len(), 4096, "nor do they stay on disk");
    assert_eq!(directory.ids.len() + directory.rows.len(), 4096 + 1);
    assert_eq!(status(&directory, 1, 1, 0), RowStatus::Live);
}
