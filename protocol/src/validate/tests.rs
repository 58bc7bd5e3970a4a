//! What validation accepts, and each way in which it does not.

use super::*;
use crate::cbor::Blob;
use crate::envelope;
use crate::keys::{DeviceKey, KeyDigest};
use crate::record::RecordSigner;
use crate::record::host::HostAnnouncement;
use crate::record::listing::{ListingState, ServerListing};
use crate::record::presence::{Presence, ServerPresence};
use crate::{NodeId, ServerId, ServerNonce};

const NOW: UnixMillis = UnixMillis(1_795_168_800_000);

fn network() -> NetworkName {
    "test".parse().expect("a name")
}

fn key() -> DeviceKey {
    DeviceKey::from_seed([1; 32])
}

fn signer() -> RecordSigner {
    let next = KeyDigest::of(&DeviceKey::from_seed([2; 32]).public());
    RecordSigner::genesis(key(), next, network())
}

fn listing() -> ServerListing {
    ServerListing {
        nonce: ServerNonce([5; 16]),
        state: ListingState::Live,
        game: "luanti".into(),
        name: "Sunday Luanti".into(),
        description: None,
        tags: vec!["creative".into(), "peaceful".into()],
        region: Some("eu".into()),
        language: None,
        game_version: None,
        addresses: vec!["8.8.8.8:30000/udp".parse().expect("an address")],
        slots: Some(20),
        flags: None,
        plugin_set: None,
        visibility: None,
    }
}

fn sealed(record: Record) -> Vec<u8> {
    signer().sign(&record, NOW.0, NOW).expect("a record that holds")
}

fn verdict(bytes: &[u8]) -> Verdict {
    validate(bytes, &network(), &NoChains, NOW)
}

/// A listing's wire record, to be bent before it is sealed.
fn wire() -> WireRecord {
    WireRecord {
        version: 1,
        network: network(),
        kind: 3,
        root: signer().root(),
        key_epoch: 0,
        dev: 0,
        seq: NOW.0,
        issued: NOW,
        ttl_s: 3600,
        next: Some(KeyDigest::of(&DeviceKey::from_seed([2; 32]).public())),
        body: Blob(cbor::encode(&listing())),
    }
}

fn seal(wire: &WireRecord) -> Vec<u8> {
    seal_payload(&cbor::encode(wire))
}

fn seal_payload(payload: &[u8]) -> Vec<u8> {
    envelope::seal(&key().signing(), b"/homehost/rec/server-listing/1", payload)
}

#[test]
fn records_of_every_kind_are_accepted() {
    let root = signer().root();
    let node = DeviceKey::from_seed([3; 32]);
    for record in [
        Record::ServerListing(listing()),
        Record::ServerListing(ServerListing {
            state: ListingState::Withdrawn,
            addresses: vec![],
            ..listing()
        }),
        Record::Presence(Presence {
            servers: vec![ServerPresence {
                id: listing().id(&root),
                players: None,
                slots: Some(20),
            }],
        }),
        Record::Presence(Presence { servers: vec![] }),
        Record::HostAnnouncement(HostAnnouncement {
            node: NodeId(node.public().0),
            addresses: vec!["/ip4/8.8.8.8/tcp/4001".into()],
            agent: "homehost/0.1.0".into(),
            capabilities: None,
            co_signature: node.co_sign(&root, 0, NOW.0, &network()),
        }),
    ] {
        match verdict(&sealed(record.clone())) {
            Verdict::Accept(validated) => {
                assert_eq!(validated.record, record);
                assert_eq!(validated.header.root, root);
            }
            other => panic!("{record:?}: {other:?}"),
        }
    }
}

#[test]
fn a_full_listing_fits_its_budget() {
    let full = ServerListing {
        name: "n".repeat(48),
        description: Some("d".repeat(120)),
        tags: (0..8).map(|n| format!("tag-{n}")).collect(),
        language: Some("pt-br".into()),
        game_version: Some("5.6.1".into()),
        addresses: vec![
            "8.8.8.8:30000/udp".parse().expect("an address"),
            "[2a01:4f8::1]:30000/udp".parse().expect("an address"),
        ],
        flags: Some(3),
        ..listing()
    };
    let bytes = sealed(Record::ServerListing(full));
    assert!(bytes.len() <= 700, "{}", bytes.len());
    // The overhead is what remains of a listing when its body is taken away.
    let overhead = sealed(Record::ServerListing(listing())).len() - cbor::encode(&listing()).len();
    assert!(overhead <= 300, "{overhead}");
}

#[test]
fn a_listing_that_does_not_fit_names_the_field_to_shorten() {
    let long = ServerListing {
        description: Some("d".repeat(120)),
        tags: (0..8).map(|n| format!("sixteen-bytes-0{n}")).collect(),
        game_version: Some("v".repeat(16)),
        name: "n".repeat(48),
        addresses: (1..5)
            .map(|n| format!("[2a01:4f8::{n}]:30000/udp").parse().expect("an address"))
            .collect(),
        plugin_set: Some(crate::record::listing::PluginSet([1; 32])),
        ..listing()
    };
    let error = signer().sign(&Record::ServerListing(long), 1, NOW).expect_err("too long");
    assert!(error.to_string().contains("shorten the tags"), "{error}");
}

#[test]
fn field_rules_are_checked_on_both_sides() {
    let bad = [
        ServerListing { game: "Luanti".into(), ..listing() },
        ServerListing { game: String::new(), ..listing() },
        ServerListing { name: " padded".into(), ..listing() },
        ServerListing { name: "n".repeat(49), ..listing() },
        ServerListing { name: "a\nb".into(), ..listing() },
        ServerListing { name: "a\u{202e}b".into(), ..listing() },
        ServerListing { description: Some("d".repeat(121)), ..listing() },
        ServerListing { tags: vec!["b".into(), "a".into()], ..listing() },
        ServerListing { tags: vec!["a".into(), "a".into()], ..listing() },
        ServerListing { tags: (0..9).map(|n| format!("t{n}")).collect(), ..listing() },
        ServerListing { region: Some("-eu".into()), ..listing() },
        ServerListing { addresses: vec![], ..listing() },
        ServerListing { addresses: vec![listing().addresses[0]; 2], ..listing() },
    ];
    for listing in bad {
        let record = Record::ServerListing(listing.clone());
        assert!(signer().sign(&record, NOW.0, NOW).is_err(), "{listing:?}");
        let bytes = seal(&WireRecord { body: Blob(cbor::encode(&listing)), ..wire() });
        let verdict = verdict(&bytes);
        assert!(
            matches!(verdict, Verdict::Reject(RejectReason::Body(BodyError::Field(_)))),
            "{listing:?}: {verdict:?}"
        );
    }
    let id = ServerId([1; 32]);
    let one = ServerPresence { id, players: None, slots: None };
    assert!(Presence { servers: vec![one, one] }.check().is_err());
    let many = (0..65).map(|n| ServerPresence { id: ServerId([n; 32]), ..one }).collect();
    assert!(Presence { servers: many }.check().is_err());
}

#[test]
fn truncation_and_every_flipped_bit_are_refused() {
    let bytes = sealed(Record::ServerListing(listing()));
    for end in 0..bytes.len() {
        assert!(matches!(verdict(&bytes[..end]), Verdict::Reject(_)), "{end}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(verdict(&bent), Verdict::Accept(_)), "bit {bit}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = fastrand::Rng::with_seed(7);
    let honest = sealed(Record::ServerListing(listing()));
    for _ in 0..20_000 {
        let mut bytes = honest.clone();
        for _ in 0..rng.usize(1..8) {
            let at = rng.usize(..bytes.len());
            match rng.u8(..3) {
                0 => bytes[at] = rng.u8(..),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.u8(..)),
            }
        }
        if bytes != honest {
            assert!(!matches!(verdict(&bytes), Verdict::Accept(_)));
        }
        // The same damage below the signature: sealed anew, so that the
        // decoders behind it are reached.
        let mut payload = cbor::encode(&wire());
        let at = rng.usize(..payload.len());
        payload[at] = rng.u8(..);
        drop(verdict(&seal_payload(&payload)));
    }
}

#[test]
fn each_lie_has_its_reason() {
    let other_network = WireRecord { network: NetworkName::main(), ..wire() };
    assert!(matches!(verdict(&seal(&other_network)), Verdict::Reject(RejectReason::WrongNetwork)));

    let other_kind = WireRecord { kind: 4, ..wire() };
    assert!(matches!(verdict(&seal(&other_kind)), Verdict::Reject(RejectReason::KindMismatch)));

    let other_root = WireRecord { root: RootId([9; 32]), ..wire() };
    assert!(matches!(verdict(&seal(&other_root)), Verdict::Reject(RejectReason::WrongSigner)));

    let no_next = WireRecord { next: None, ..wire() };
    assert!(matches!(verdict(&seal(&no_next)), Verdict::Reject(RejectReason::WrongSigner)));

    let long = WireRecord { ttl_s: 24 * 3600 + 1, ..wire() };
    assert!(matches!(verdict(&seal(&long)), Verdict::Reject(RejectReason::TtlTooLong)));

    let domain = {
        // Signed as something else than a record.
        let mut bytes = seal(&wire());
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        bytes
    };
    assert!(matches!(verdict(&domain), Verdict::Reject(RejectReason::BadSignature)));

    let big = seal_payload(&cbor::encode(&Blob(vec![0; 800])));
    assert!(matches!(verdict(&big), Verdict::Reject(RejectReason::TooLong { .. })));
}

#[test]
fn what_may_be_honest_is_ignored_and_not_held_against_anyone() {
    let future = UnixMillis(NOW.0 + 11 * 60 * 1000);
    for (wire, reason) in [
        (WireRecord { seq: future.0, ..wire() }, IgnoreReason::Future),
        (WireRecord { issued: future, ..wire() }, IgnoreReason::Future),
        (WireRecord { issued: UnixMillis(NOW.0 - 3_600_000), ..wire() }, IgnoreReason::Expired),
        (WireRecord { version: 2, ..wire() }, IgnoreReason::UnknownVersion),
    ] {
        match verdict(&seal(&wire)) {
            Verdict::Ignore(given) => assert_eq!(given, reason),
            other => panic!("{reason:?}: {other:?}"),
        }
    }
    let bytes =
        envelope::seal(&key().signing(), b"/homehost/rec/room-ad/1", &cbor::encode(&wire()));
    assert!(matches!(verdict(&bytes), Verdict::Ignore(IgnoreReason::UnknownKind)));
}

#[test]
fn unknown_keys_are_critical_below_128_and_kept_above() {
    for (key, accepted) in [(15_u8, false), (127, false), (128, true), (255, true)] {
        // A body with one more field than the listing has.
        let mut body = cbor::encode(&listing());
        body[0] += 1;
        if key < 24 {
            body.push(key)
        } else {
            body.extend([0x18, key])
        }
        body.push(0);
        let bytes = seal(&WireRecord { body: Blob(body), ..wire() });
        match verdict(&bytes) {
            Verdict::Accept(validated) => {
                assert!(accepted, "{key}");
                assert_eq!(validated.id, RecId::of(&bytes));
            }
            Verdict::Ignore(IgnoreReason::UnknownCritical) => assert!(!accepted, "{key}"),
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn non_canonical_payloads_are_refused() {
    let good = cbor::encode(&wire());
    assert!(matches!(verdict(&seal_payload(&good)), Verdict::Accept(_)));
    // The version in two bytes, trailing bytes, an indefinite map.
    let mut wide = good.clone();
    wide.splice(2..3, [0x18, 1]);
    let trailing = [&good[..], &[0]].concat();
    let mut indefinite = good.clone();
    indefinite[0] = 0xbf;
    indefinite.push(0xff);
    let bomb = vec![0x81; 300];
    for payload in [wide, trailing, indefinite, bomb] {
        let verdict = verdict(&seal_payload(&payload));
        assert!(matches!(verdict, Verdict::Reject(RejectReason::Payload(_))), "{verdict:?}");
    }
}

struct OneChain(KeyState);

impl KeyChains for OneChain {
    fn signing_key(&self, _: &RootId, _: u16, _: u8) -> KeyState {
        self.0
    }
}

#[test]
fn later_epochs_and_devices_need_the_chain() {
    for (key_epoch, dev) in [(1, 0), (0, 1)] {
        let bytes = seal(&WireRecord { key_epoch, dev, next: None, ..wire() });
        let with = |state| validate(&bytes, &network(), &OneChain(state), NOW);
        assert!(matches!(with(KeyState::Unknown), Verdict::NeedChain(root) if root == wire().root));
        assert!(matches!(with(KeyState::Valid(key().public())), Verdict::Accept(_)));
        assert!(matches!(with(KeyState::Revoked), Verdict::Ignore(IgnoreReason::RevokedKey)));
        let other = DeviceKey::from_seed([8; 32]).public();
        assert!(matches!(with(KeyState::Valid(other)), Verdict::Ignore(IgnoreReason::KeyConflict)));
    }
}

#[test]
fn a_chain_overrules_the_genesis() {
    let bytes = seal(&wire());
    let verdict = validate(&bytes, &network(), &OneChain(KeyState::Revoked), NOW);
    assert!(matches!(verdict, Verdict::Ignore(IgnoreReason::RevokedKey)));
}

#[test]
fn nobody_claims_anothers_node() {
    let node = DeviceKey::from_seed([3; 32]);
    let announcement = HostAnnouncement {
        node: NodeId(node.public().0),
        addresses: vec![],
        agent: "homehost/0.1.0".into(),
        capabilities: None,
        // The node signed for another root.
        co_signature: node.co_sign(&RootId([1; 32]), 0, NOW.0, &network()),
    };
    let verdict = verdict(&sealed(Record::HostAnnouncement(announcement)));
    assert!(matches!(verdict, Verdict::Reject(RejectReason::BadSignature)), "{verdict:?}");
}
