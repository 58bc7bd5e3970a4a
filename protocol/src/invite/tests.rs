//! Invitations survive every way in which people copy, and nothing else does.

use super::*;

fn node(n: u8, addresses: &[&str]) -> InviteNode {
    let addresses = addresses.iter().map(|text| InviteAddress::of_multiaddr(text).unwrap());
    InviteNode { node: NodeId([n; 32]), addresses: addresses.collect() }
}

fn invite() -> Invite {
    Invite {
        network: "my-club".parse().unwrap(),
        nodes: vec![
            node(1, &["/ip4/8.8.8.8/udp/4011/quic-v1", "/ip6/2a01:4f8::1/tcp/4011"]),
            node(2, &["/dns4/Boot.example.org/tcp/4001", "/ip4/192.168.0.9/tcp/4001"]),
        ],
    }
}

fn with_checksum(payload: &[u8]) -> String {
    let bytes = [payload, &checksum(payload)].concat();
    PREFIX.to_owned() + &BASE32_NOPAD.encode(&bytes)
}

fn payload(text: &str) -> Vec<u8> {
    let body = text.strip_prefix(PREFIX).unwrap().to_ascii_uppercase();
    let mut bytes = BASE32_NOPAD.decode(body.as_bytes()).unwrap();
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    bytes
}

#[test]
fn an_invitation_is_read_as_it_was_made_however_it_was_pasted() {
    let text = invite().to_text().unwrap();
    assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{text}");
    let broken: String = text.as_bytes().chunks(40).fold(String::new(), |mut lines, chunk| {
        lines.push_str(std::str::from_utf8(chunk).unwrap());
        lines.push_str("\r\n  ");
        lines
    });
    for pasted in [text.clone(), text.to_ascii_uppercase(), format!("  {text}\n"), broken] {
        assert_eq!(pasted.parse(), Ok(invite()), "{pasted}");
    }
    let id = NodeId([2; 32]);
    let multiaddrs = invite().multiaddrs();
    assert_eq!(multiaddrs.len(), 4);
    assert_eq!(multiaddrs[2], format!("/dns/boot.example.org/tcp/4001/p2p/{id}"));
    assert_eq!(multiaddrs[0], format!("/ip4/8.8.8.8/udp/4011/quic-v1/p2p/{}", NodeId([1; 32])));
}

#[test]
fn every_wrong_letter_and_every_loss_is_seen() {
    let text = invite().to_text().unwrap();
    for end in 0..text.len() {
        assert!(text[..end].parse::<Invite>().is_err(), "cut at {end}");
    }
    for at in 0..text.len() {
        let mut wrong = text.clone().into_bytes();
        wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
        let wrong = String::from_utf8(wrong).unwrap();
        assert!(wrong.parse::<Invite>().is_err(), "wrong at {at}");
    }
    assert!(format!("{text}a").parse::<Invite>().is_err());
    assert!(format!("{text}aaaaaaaa").parse::<Invite>().is_err());
}

#[test]
fn each_failure_has_its_own_sentence() {
    for (text, error) in [
        ("", InviteError::NotOne),
        ("homehost", InviteError::NotOne),
        ("/ip4/8.8.8.8/tcp/1", InviteError::NotOne),
        ("homehost2abc", InviteError::Newer),
        ("homehost1", InviteError::Damaged),
        ("homehost1abc", InviteError::Damaged),
        ("homehost1äöü", InviteError::Damaged),
        (&"x".repeat(5000), InviteError::TooLong),
        (&format!("homehost1{}", "a".repeat(INVITE_CHARS_MAX)), InviteError::TooLong),
    ] {
        assert_eq!(text.parse::<Invite>(), Err(error), "{text:.40}");
    }
}

#[test]
fn what_has_a_right_checksum_and_is_no_invitation_is_refused() {
    let good = payload(&invite().to_text().unwrap());
    assert_eq!(with_checksum(&good).parse(), Ok(invite()));
    for end in 0..good.len() {
        assert!(with_checksum(&good[..end]).parse::<Invite>().is_err(), "cut at {end}");
    }
    assert!(with_checksum(&[&good[..], &[0]].concat()).parse::<Invite>().is_err(), "a byte more");
    let one = |address: &[u8]| {
        let head = [&[1, b'a', 1][..], &[7; 32], &[1]].concat();
        with_checksum(&[&head[..], address].concat()).parse::<Invite>()
    };
    assert!(one(&[0, 8, 8, 8, 8, 0, 1]).is_ok());
    for (why, address) in [
        ("port 0", &[0, 8, 8, 8, 8, 0, 0][..]),
        ("an unknown kind", &[6, 8, 8, 8, 8, 0, 1]),
        ("an unknown kind", &[8, 8, 8, 8, 8, 0, 1]),
        ("IPv4 in IPv6 clothing", &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 8, 8, 8, 8, 0, 1]),
        ("an empty name", &[4, 0, 0, 1]),
        ("a name with a slash", &[4, 3, b'a', b'/', b'b', 0, 1]),
        ("a name in capitals", &[4, 1, b'A', 0, 1]),
        ("a number", &[4, 3, b'1', b'.', b'2', 0, 1]),
        ("a name that is no text", &[4, 1, 255, 0, 1]),
    ] {
        assert_eq!(one(address), Err(InviteError::Damaged), "{why}");
    }
    for (why, bytes) in [
        ("nobody", vec![1, b'a', 0]),
        ("a wrong network", [vec![1, b'A', 1], vec![7; 32], vec![1, 0, 8, 8, 8, 8, 0, 1]].concat()),
        ("too many nodes", vec![1, b'a', 255]),
        ("no address", [vec![1, b'a', 1], vec![7; 32], vec![0]].concat()),
        ("too many addresses", [vec![1, b'a', 1], vec![7; 32], vec![255]].concat()),
    ] {
        assert_eq!(with_checksum(&bytes).parse::<Invite>(), Err(InviteError::Damaged), "{why}");
    }
}

#[test]
fn random_text_is_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(3);
    let good = payload(&invite().to_text().unwrap());
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        if let Ok(read) = with_checksum(&bytes).parse::<Invite>() {
            // Whatever is read is written in the same way.
            let again = read.to_text().unwrap();
            assert_eq!(payload(&again), bytes);
        }
    }
}

#[test]
fn what_cannot_be_said_is_not_made() {
    let full = |nodes: usize, addresses: usize| Invite {
        network: "main".parse().unwrap(),
        nodes: (0..nodes)
            .map(|n| InviteNode {
                node: NodeId([n as u8; 32]),
                addresses: (0..addresses)
                    .map(|port| InviteAddress {
                        place: Place::Ip(Ipv6Addr::from(n as u128 + 1).into()),
                        port: port as u16 + 1,
                        carrier: Carrier::Tcp,
                    })
                    .collect(),
            })
            .collect(),
    };
    assert!(full(INVITE_NODES_MAX, INVITE_ADDRESSES_MAX).to_text().is_ok(), "the most fits");
    for (nodes, addresses) in
        [(0, 1), (1, 0), (INVITE_NODES_MAX + 1, 1), (1, INVITE_ADDRESSES_MAX + 1)]
    {
        assert!(full(nodes, addresses).to_text().is_err(), "{nodes} {addresses}");
    }
    let mut twice = invite();
    twice.nodes[1].node = twice.nodes[0].node;
    assert_eq!(twice.to_text(), Err(InviteError::Damaged));
    for text in [
        "/ip4/8.8.8.8",
        "/ip4/8.8.8.8/tcp/0",
        "/ip4/8.8.8.8/tcp/99999",
        "/ip4/8.8.8.8/udp/1",
        "/ip4/8.8.8.8/tcp/1/ws",
        "/ip4/8.8.8.8/tcp/1/p2p/x/p2p-circuit/p2p/y",
        "/dnsaddr/example.org",
        "/dns4/no_good/tcp/1",
        "",
        "/",
    ] {
        assert_eq!(InviteAddress::of_multiaddr(text), None, "{text}");
    }
}
