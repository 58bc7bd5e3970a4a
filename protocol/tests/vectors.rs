//! Golden vectors, both ways: what is in `testdata/vectors/records.json` is what
//! this crate signs, byte for byte, and what it reads.
//!
//! `HOMEHOST_WRITE_VECTORS=1 cargo test -p homehost-protocol --test vectors`
//! writes the file anew. A difference in an old vector is a change of the wire.

use std::path::PathBuf;

use homehost_protocol::chain::{Chain, SignedKeyEvent};
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_protocol::record::host::{HostAnnouncement, capabilities};
use homehost_protocol::record::listing::{
    ListingState, PluginSet, ServerListing, Visibility, flags,
};
use homehost_protocol::record::presence::{Presence, ServerPresence};
use homehost_protocol::record::reach::{Probe, ProbeProtocol, ReachAttest};
use homehost_protocol::record::{Record, RecordSigner};
use homehost_protocol::validate::NoChains;
use homehost_protocol::{NetworkName, NodeId, RecId, ServerNonce, UnixMillis, Verdict, validate};
use serde_json::{Value, json};

const ISSUED: UnixMillis = UnixMillis(1_795_168_800_000);
const DEVICE_SEED: [u8; 32] = [1; 32];
const NEXT_SEED: [u8; 32] = [2; 32];
const NODE_SEED: [u8; 32] = [3; 32];

fn signer() -> RecordSigner {
    let next = KeyDigest::of(&DeviceKey::from_seed(NEXT_SEED).public());
    let network: NetworkName = "vectors".parse().expect("a name");
    RecordSigner::genesis(DeviceKey::from_seed(DEVICE_SEED), next, network)
}

/// The chain of [`signer`]'s root after one rotation and one added device, and
/// device 0's key of epoch 1.
fn rotated() -> (Chain, DeviceKey) {
    let recovery = DeviceKey::from_seed(NEXT_SEED);
    let next = |n| KeyDigest::of(&DeviceKey::from_seed([n; 32]).public());
    let mut chain = Chain::genesis(
        DeviceKey::from_seed(DEVICE_SEED).public(),
        KeyDigest::of(&recovery.public()),
    );
    let key = DeviceKey::from_seed([8; 32]);
    let event = chain.rotation(key.public(), recovery.public(), next(9));
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &recovery)).expect("a rotation");
    let event = chain.addition(1, DeviceKey::from_seed([10; 32]).public());
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &key)).expect("an addition");
    (chain, key)
}

/// Who signs a record.
fn signer_of(record: &Record) -> RecordSigner {
    let (chain, key) = rotated();
    match record {
        Record::KeyChain(body) if *body == chain.to_body() => {
            RecordSigner::carrier_of(key, &chain, signer().network().clone()).expect("its carrier")
        }
        _ => signer(),
    }
}

fn records() -> Vec<(&'static str, Record)> {
    let small = ServerListing {
        nonce: ServerNonce([5; 16]),
        state: ListingState::Live,
        game: "luanti".into(),
        name: "Sunday Luanti".into(),
        description: None,
        tags: vec![],
        region: None,
        language: None,
        game_version: None,
        addresses: vec!["8.8.8.8:30000/udp".parse().expect("an address")],
        slots: None,
        flags: None,
        plugin_set: None,
        visibility: None,
    };
    let full = ServerListing {
        description: Some("Bauen bei Kaffee und Kuchen ☕".into()),
        tags: vec!["creative".into(), "peaceful".into()],
        region: Some("eu".into()),
        language: Some("de".into()),
        game_version: Some("5.6".into()),
        addresses: vec![
            "8.8.8.8:30000/udp".parse().expect("an address"),
            "[2a01:4f8::1]:30001/tcp".parse().expect("an address"),
        ],
        slots: Some(20),
        flags: Some(flags::PASSWORD | flags::MODDED),
        plugin_set: Some(PluginSet([6; 32])),
        ..small.clone()
    };
    let unlisted = ServerListing { visibility: Some(Visibility::Unlisted), ..small.clone() };
    let lan = ServerListing {
        visibility: Some(Visibility::Lan),
        addresses: vec!["192.168.0.9:30000/udp".parse().expect("an address")],
        ..small.clone()
    };
    let withdrawn =
        ServerListing { state: ListingState::Withdrawn, addresses: vec![], ..small.clone() };
    let root = signer().root();
    let presence = Presence {
        servers: vec![ServerPresence { id: small.id(&root), players: None, slots: Some(20) }],
    };
    let node = DeviceKey::from_seed(NODE_SEED);
    let next = KeyDigest::of(&DeviceKey::from_seed(NEXT_SEED).public());
    let born = Chain::genesis(DeviceKey::from_seed(DEVICE_SEED).public(), next);
    let probe = Probe {
        server: small.id(&root),
        address: small.addresses[0],
        protocol: ProbeProtocol::Luanti,
    };
    let reach = ReachAttest {
        nonce: small.nonce,
        address: probe.address,
        protocol: probe.protocol,
        asked: 2,
        attests: vec![probe.attest(signer().network(), ISSUED, Some(3), &node)],
    };
    let unreached = ReachAttest { attests: vec![], ..reach.clone() };
    let host = HostAnnouncement {
        node: NodeId(node.public().0),
        addresses: vec!["/ip4/8.8.8.8/tcp/4001".into()],
        agent: "homehost/0.1.0".into(),
        capabilities: Some(capabilities::WITNESS),
        co_signature: node.co_sign(&root, 0, ISSUED.0 + 5, signer().network()),
    };
    vec![
        ("listing, only what is required", Record::ServerListing(small)),
        ("listing, every field", Record::ServerListing(full)),
        ("tombstone", Record::ServerListing(withdrawn)),
        ("presence, players unknown", Record::Presence(presence)),
        ("presence, nothing runs", Record::Presence(Presence { servers: vec![] })),
        ("host announcement", Record::HostAnnouncement(host)),
        ("key chain, just born", Record::KeyChain(born.to_body())),
        ("key chain, rotated, with a second device", Record::KeyChain(rotated().0.to_body())),
        ("reach, one of two witnesses", Record::ReachAttest(reach)),
        ("reach, nobody got through", Record::ReachAttest(unreached)),
        ("listing, unlisted", Record::ServerListing(unlisted)),
        ("listing, for the LAN", Record::ServerListing(lan)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex in the vectors"))
        .collect()
}

fn vectors() -> Value {
    let signer = signer();
    let rows: Vec<Value> = records()
        .into_iter()
        .enumerate()
        .map(|(at, (name, record))| {
            let seq = ISSUED.0 + at as u64;
            let signer = signer_of(&record);
            let envelope = signer.sign(&record, seq, ISSUED).expect("a record that holds");
            let server_id = match &record {
                Record::ServerListing(listing) => json!(listing.id(&signer.root()).to_string()),
                _ => Value::Null,
            };
            json!({
                "name": name,
                "seq": seq,
                "server_id": server_id,
                "record_id": RecId::of(&envelope).to_string(),
                "envelope": hex(&envelope),
            })
        })
        .collect();
    json!({
        "network": signer.network().as_str(),
        "issued": ISSUED.0,
        "device_seed": hex(&DEVICE_SEED),
        "next_key_seed": hex(&NEXT_SEED),
        "node_seed": hex(&NODE_SEED),
        "root": signer.root().to_string(),
        "node": NodeId(DeviceKey::from_seed(NODE_SEED).public().0).to_string(),
        "records": rows,
    })
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/vectors/records.json")
}

#[test]
fn what_is_signed_is_what_the_vectors_say() {
    let made = vectors();
    if std::env::var_os("HOMEHOST_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("JSON") + "\n";
        std::fs::write(path(), text).expect("the vectors can be written");
    }
    let text = std::fs::read_to_string(path()).expect("the vectors are in the tree");
    let stored: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(made, stored);
}

#[test]
fn what_the_vectors_say_is_what_is_read() {
    let text = std::fs::read_to_string(path()).expect("the vectors are in the tree");
    let stored: Value = serde_json::from_str(&text).expect("JSON");
    let rows = stored["records"].as_array().expect("a list of records");
    let expected = records();
    assert_eq!(rows.len(), expected.len());
    for (row, (name, record)) in rows.iter().zip(expected) {
        let envelope = unhex(row["envelope"].as_str().expect("hex"));
        match validate(&envelope, signer().network(), &NoChains, ISSUED) {
            Verdict::Accept(validated) => {
                assert_eq!(validated.record, record, "{name}");
                assert_eq!(validated.id.to_string(), row["record_id"], "{name}");
                assert_eq!(validated.header.seq, row["seq"].as_u64().expect("a number"), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
