use super::*;

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_seed([n; 32])
}

/// The recovery key of an epoch.
fn recovery(epoch: u16) -> DeviceKey {
    key(100 + u8::try_from(epoch).expect("few epochs"))
}

fn commitment(epoch: u16) -> KeyDigest {
    KeyDigest::of(&recovery(epoch).public())
}

fn born() -> Chain {
    Chain::genesis(key(1).public(), commitment(1))
}

fn rotated(chain: &Chain, to: &DeviceKey) -> Chain {
    let mut chain = chain.clone();
    let epoch = chain.epoch() + 1;
    let by = recovery(epoch);
    let event = chain.rotation(to.public(), by.public(), commitment(epoch + 1));
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &by)).expect("a rotation");
    chain
}

fn added(chain: &Chain, by: &DeviceKey, dev: u8, device: &DeviceKey) -> Chain {
    let mut chain = chain.clone();
    let event = chain.addition(dev, device.public());
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), by)).expect("an addition");
    chain
}

#[test]
fn a_rotation_ends_every_key_before_it() {
    let chain = added(&born(), &key(1), 1, &key(2));
    assert_eq!(chain.signing_key(0, 0), KeyState::Valid(key(1).public()));
    assert_eq!(chain.signing_key(0, 1), KeyState::Valid(key(2).public()));
    assert_eq!(chain.signing_key(0, 2), KeyState::Unknown);
    let chain = rotated(&chain, &key(3));
    assert_eq!(chain.signing_key(0, 0), KeyState::Revoked);
    assert_eq!(chain.signing_key(0, 1), KeyState::Revoked);
    assert_eq!(chain.signing_key(1, 0), KeyState::Valid(key(3).public()));
    assert_eq!(chain.signing_key(1, 1), KeyState::Unknown, "devices are added anew");
    assert_eq!(chain.signing_key(2, 0), KeyState::Unknown);
    assert_eq!(chain.device_of(&key(3).public()), Some(0));
    assert_eq!(chain.device_of(&key(1).public()), None);
    assert_eq!(chain.root(), born().root());
}

#[test]
fn after_a_revocation_nobody_signs_until_the_next_rotation() {
    let mut chain = born();
    let event = chain.revocation(recovery(1).public(), commitment(2));
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &recovery(1))).expect("it holds");
    assert_eq!(chain.signing_key(0, 0), KeyState::Revoked);
    assert_eq!(chain.signing_key(1, 0), KeyState::Revoked);
    assert_eq!(chain.carrier(), recovery(1).public());
    let event = chain.addition(1, key(2).public());
    let by_old = SignedKeyEvent::sign(&event, &chain.root(), &key(1));
    assert_eq!(chain.extend(&by_old), Err(ChainError::Order(2)));
    assert_eq!(rotated(&chain, &key(4)).signing_key(2, 0), KeyState::Valid(key(4).public()));
}

#[test]
fn a_revoked_device_signs_no_more_and_its_number_is_not_used_again() {
    let mut chain = added(&born(), &key(1), 1, &key(2));
    let event = chain.removal(1);
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &key(1))).expect("it holds");
    assert_eq!(chain.signing_key(0, 1), KeyState::Revoked);
    assert_eq!(chain.device_of(&key(2).public()), None);
    assert_eq!(chain.free_device(), Some(2));
    let again = chain.addition(1, key(5).public());
    let again = SignedKeyEvent::sign(&again, &chain.root(), &key(1));
    assert_eq!(chain.extend(&again), Err(ChainError::Order(3)));
}

#[test]
fn nobody_else_can_change_a_chain() {
    let chain = born();
    let root = chain.root();
    let try_event = |event: &KeyEvent, by: &DeviceKey| {
        chain.clone().extend(&SignedKeyEvent::sign(event, &root, by))
    };
    // The operating key cannot rotate, whatever it claims to be.
    let stolen = chain.rotation(key(9).public(), key(1).public(), commitment(2));
    assert_eq!(try_event(&stolen, &key(1)), Err(ChainError::NotCommitted(1)));
    let forged = chain.rotation(key(9).public(), recovery(1).public(), commitment(2));
    assert_eq!(try_event(&forged, &key(1)), Err(ChainError::Signature(1)));
    // A device cannot add another, nor another root's owner.
    let addition = chain.addition(1, key(9).public());
    assert_eq!(try_event(&addition, &key(9)), Err(ChainError::Signature(1)));
    let elsewhere = SignedKeyEvent::sign(&addition, &RootId([7; 32]), &key(1));
    assert_eq!(chain.clone().extend(&elsewhere), Err(ChainError::Signature(1)));
    // Out of order, of another kind, with fields that it must not have.
    let later = KeyEvent {
        epoch: Some(2),
        ..chain.rotation(key(9).public(), recovery(1).public(), commitment(2))
    };
    assert_eq!(try_event(&later, &recovery(1)), Err(ChainError::Order(1)));
    let device_zero = KeyEvent { dev: Some(0), ..addition.clone() };
    assert_eq!(try_event(&device_zero, &key(1)), Err(ChainError::Malformed(1)));
    let with_next = KeyEvent { next: Some(commitment(9)), ..addition };
    assert_eq!(try_event(&with_next, &key(1)), Err(ChainError::Malformed(1)));
    let genesis = KeyEvent::genesis(key(1).public(), commitment(1));
    assert_eq!(try_event(&genesis, &key(1)), Err(ChainError::Malformed(1)));
}

#[test]
fn more_epochs_overrule_and_forks_are_conflicts() {
    let start = born();
    let owner = rotated(&start, &key(3));
    let thief = added(&start, &key(1), 1, &key(9));
    assert_eq!(start.relation(&start), Relation::Same);
    assert_eq!(thief.relation(&start), Relation::Newer);
    assert_eq!(owner.relation(&thief), Relation::Newer, "the recovery key beats a stolen key");
    assert_eq!(thief.relation(&owner), Relation::Older);
    let other = added(&start, &key(1), 1, &key(8));
    assert_eq!(thief.relation(&other), Relation::Conflict);
    assert_eq!(rotated(&thief, &key(3)), owner, "a rotation heals a fork of devices");
    let fork = rotated(&start, &key(4));
    assert_eq!(owner.relation(&fork), Relation::Conflict);
    assert_eq!(rotated(&owner, &key(5)).relation(&fork), Relation::Conflict);
}

#[test]
fn chains_survive_the_wire_and_have_one_spelling() {
    let start = added(&born(), &key(1), 1, &key(2));
    let chain = added(&rotated(&start, &key(3)), &key(3), 1, &key(2));
    let body = chain.to_body();
    let bytes = cbor::encode(&body);
    let read: KeyChain = cbor::decode(&bytes).expect("own bytes");
    assert_eq!(Chain::verify(&read), Ok(chain.clone()));
    // With the device events of the epoch that has ended it would be another
    // text of the same chain.
    let mut padded = start.to_body();
    padded.events.extend(body.events[1..].iter().cloned());
    assert_eq!(Chain::verify(&padded), Err(ChainError::Order(2)));
    assert_eq!(Chain::verify(&KeyChain { events: vec![] }), Err(ChainError::Count));
    for drop in 0..body.events.len() - 1 {
        let mut less = body.clone();
        less.events.remove(drop);
        assert!(Chain::verify(&less).is_err(), "without event {drop}");
    }
}

#[test]
fn a_full_chain_can_still_be_rotated() {
    let mut chain = born();
    while chain.events.len() < KEY_EVENTS_MAX {
        let dev = chain.free_device().expect("a free number");
        chain = added(&chain, &key(1), dev, &key(2));
    }
    let event = chain.addition(200, key(2).public());
    let event = SignedKeyEvent::sign(&event, &chain.root(), &key(1));
    assert_eq!(chain.clone().extend(&event), Err(ChainError::Count));
    assert_eq!(rotated(&chain, &key(3)).events.len(), 2);
    let longest = cbor::encode(&chain.to_body()).len();
    assert!(longest < crate::limits::ENVELOPE_BYTES_MAX - 300, "{longest} bytes");
}
