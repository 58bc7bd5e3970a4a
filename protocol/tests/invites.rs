//! Golden vectors of invitations, both ways. How the file is written anew is
//! said in `vectors.rs`.

use std::path::PathBuf;

use homehost_protocol::invite::{Invite, InviteAddress, InviteNode};
use homehost_protocol::{DeviceKey, NodeId};
use serde_json::{Value, json};

fn invites() -> Vec<(&'static str, Invite)> {
    let node = |seed: u8, addresses: &[&str]| InviteNode {
        node: NodeId(DeviceKey::from_seed([seed; 32]).public().0),
        addresses: addresses
            .iter()
            .map(|text| InviteAddress::of_multiaddr(text).expect("an address"))
            .collect(),
    };
    let invite = |network: &str, nodes| Invite { network: network.parse().expect("a name"), nodes };
    vec![
        ("one node, one address", invite("main", vec![node(3, &["/ip4/8.8.8.8/tcp/4011"])])),
        (
            "every kind of address",
            invite(
                "my-club",
                vec![
                    node(
                        3,
                        &[
                            "/ip4/8.8.8.8/udp/4011/quic-v1",
                            "/ip4/8.8.8.8/tcp/4011",
                            "/ip6/2a01:4f8::1/udp/4011/quic-v1",
                            "/ip6/2a01:4f8::1/tcp/4011",
                            "/ip4/192.168.0.9/tcp/4011",
                        ],
                    ),
                    node(
                        4,
                        &[
                            "/dns/boot.example.org/udp/4001/quic-v1",
                            "/dns/boot.example.org/tcp/4001",
                        ],
                    ),
                ],
            ),
        ),
    ]
}

fn vectors() -> Value {
    let rows: Vec<Value> = invites()
        .into_iter()
        .map(|(name, invite)| {
            json!({
                "name": name,
                "network": invite.network.as_str(),
                "multiaddrs": invite.multiaddrs(),
                "text": invite.to_text().expect("it can be said"),
            })
        })
        .collect();
    Value::Array(rows)
}

#[test]
fn invitations_are_what_the_vectors_say_and_are_read_so() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/vectors/invites.json");
    if std::env::var_os("HOMEHOST_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&vectors()).expect("JSON") + "\n";
        std::fs::write(&path, text).expect("the vectors can be written");
    }
    let text = std::fs::read_to_string(&path).expect("the vectors are in the tree");
    let stored: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(vectors(), stored);
    for ((name, invite), row) in invites().into_iter().zip(stored.as_array().expect("a list")) {
        let text = row["text"].as_str().expect("a text");
        assert_eq!(text.parse(), Ok(invite), "{name}");
    }
}
