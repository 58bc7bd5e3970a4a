//! What an invitation says of its maker, and with how much certainty.

use homehost_mesh::{
    MappingFacts, NetworkFacts, ObservedAddress, OwnAddress, RelayFacts, RelayState, RouterFacts,
};

use super::*;

const OWN: NodeId = NodeId([1; 32]);

const HOME: [&str; 3] = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.9/tcp/1", "/ip6/fe80::1/tcp/1"];

fn status(listening: &[&str], observed: &[&str]) -> MeshStatus {
    let seen = |ip: &&str| ObservedAddress { ip: ip.parse().unwrap(), peers: 2, voices: 2 };
    MeshStatus {
        listening: listening.iter().map(|text| text.parse().unwrap()).collect(),
        observed: observed.iter().map(seen).collect(),
        ..MeshStatus::default()
    }
}

fn with(mut mesh: MeshStatus, own: &[(&str, AddressSource, AddressState)]) -> MeshStatus {
    let own = own.iter().map(|(address, source, state)| OwnAddress {
        address: address.parse().unwrap(),
        source: *source,
        state: *state,
        voices: 1,
        at: None,
    });
    mesh.network.addresses.extend(own);
    mesh
}

fn made(mesh: &MeshStatus) -> Vec<Entry> {
    entries(&NetworkName::main(), OWN, mesh).unwrap()
}

/// The own addresses and how each is reached, and the note.
fn said(mesh: &MeshStatus) -> (Vec<(String, Reached)>, String) {
    let entries = made(mesh);
    let own = entries.iter().find(|entry| entry.by == By::Own).unwrap();
    let ways = own.ways.iter().map(|way| (way.address.to_string(), way.reached));
    (ways.collect(), note(&entries, mesh).unwrap_or_default())
}

fn addresses(mesh: &MeshStatus) -> Vec<String> {
    said(mesh).0.into_iter().map(|(address, _)| address).collect()
}

#[test]
fn the_widest_addresses_come_first_and_loopback_only_alone() {
    assert_eq!(addresses(&status(&HOME, &[])), ["/ip4/192.168.0.9/tcp/1"]);
    assert_eq!(
        addresses(&status(&HOME, &["8.8.8.8"])),
        ["/ip4/8.8.8.8/tcp/1", "/ip4/192.168.0.9/tcp/1"]
    );
    let loopback = ["/ip4/127.0.0.1/udp/1/quic-v1"];
    assert_eq!(addresses(&status(&loopback, &[])), loopback);
    let both = ["/ip4/8.8.8.8/tcp/1", "/ip6/2a01:4f8::1/tcp/1", "/ip4/10.0.0.1/tcp/1"];
    assert_eq!(addresses(&status(&both, &[])), both);
    let error = entries(&NetworkName::main(), OWN, &status(&[], &[])).unwrap_err();
    assert!(error.message.contains("listens nowhere"), "{error}");
}

#[test]
fn only_what_somebody_got_through_to_is_reached_from_anywhere() {
    use AddressSource::{Listen, Mapped, Observed};
    use AddressState::{Confirmed, Refuted, Unknown};
    let (home, seen) = (status(&HOME, &[]), status(&HOME, &["8.8.8.8"]));
    let server = status(&["/ip4/8.8.8.8/tcp/1"], &[]);
    let at = "/ip4/8.8.8.8/tcp/1";
    for (mesh, best, words) in [
        (seen.clone(), Reached::IfForwarded, "only if your router forwards the port"),
        (with(seen.clone(), &[(at, Observed, Confirmed)]), Reached::Anywhere, ""),
        (with(home.clone(), &[(at, Observed, Unknown)]), Reached::Lan, "only nodes on your LAN"),
        (with(home.clone(), &[(at, Mapped, Confirmed)]), Reached::Anywhere, ""),
        (with(home, &[(at, Mapped, Unknown)]), Reached::Mapped, "your router says"),
        (with(seen, &[(at, Observed, Refuted)]), Reached::Lan, "in vain; forward 1/tcp"),
        (server.clone(), Reached::Interface, "nobody outside has tried"),
        (with(server.clone(), &[(at, Listen, Refuted)]), Reached::InVain, "in vain; forward 1/tcp"),
        (with(server, &[(at, Listen, Confirmed)]), Reached::Anywhere, ""),
    ] {
        let (ways, note) = said(&mesh);
        assert_eq!(ways[0].1, best, "{ways:?}");
        assert!(note.contains(words) && note.is_empty() == words.is_empty(), "{ways:?}: {note}");
    }
}

#[test]
fn what_was_tried_in_vain_gives_way_to_what_was_not() {
    use AddressSource::Listen;
    use AddressState::{Confirmed, Refuted};
    let both = ["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1"];
    let mesh =
        with(status(&both, &[]), &[(both[0], Listen, Refuted), (both[1], Listen, Confirmed)]);
    assert_eq!(addresses(&mesh), [both[1], both[2]]);
    let alone = with(status(&both[..1], &[]), &[(both[0], Listen, Refuted)]);
    assert_eq!(addresses(&alone), [both[0]]);
}

#[test]
fn the_port_of_the_router_is_told_where_it_forwards_another() {
    let mut mesh = status(&HOME, &[]);
    mesh.network = NetworkFacts {
        router: Some(RouterFacts {
            external: Some("8.8.8.8".parse().unwrap()),
            ..RouterFacts::default()
        }),
        mappings: vec![MappingFacts {
            name: "HomeHost mesh 1/tcp".into(),
            transport: Transport::Tcp,
            internal: 1,
            external: Some(7),
            protocol: None,
            expires: None,
            problem: None,
        }],
        ..NetworkFacts::default()
    };
    let at = "/ip4/8.8.8.8/tcp/7";
    let mesh = with(mesh, &[(at, AddressSource::Mapped, AddressState::Confirmed)]);
    assert_eq!(addresses(&mesh), [at, "/ip4/192.168.0.9/tcp/1"]);
}

#[test]
fn a_node_that_nobody_gets_through_to_is_joined_by_its_relay() {
    let relay = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let mut mesh = status(&HOME, &["8.8.8.8"]);
    let whole = format!("/ip4/9.9.9.9/tcp/4001/p2p/{relay}/p2p-circuit");
    mesh.network.relays.push(RelayFacts {
        node: NodeId([2; 32]),
        address: Some(whole.parse().unwrap()),
        state: RelayState::Reserved,
        expires: None,
        problem: None,
    });
    let entries = made(&mesh);
    let by: Vec<_> = entries.iter().map(|entry| (entry.by, entry.best())).collect();
    assert_eq!(by, [(By::Relay, Reached::Anywhere), (By::Own, Reached::IfForwarded)]);
    assert_eq!(entries[0].ways[0].address.to_string(), "/ip4/9.9.9.9/tcp/4001");
    let note = note(&entries, &mesh).unwrap();
    assert!(note.contains("joins by the other node"), "{note}");
}

#[test]
fn a_node_does_not_join_itself() {
    let node = |node| InviteNode {
        node,
        addresses: vec![InviteAddress::of_multiaddr("/ip4/8.8.8.8/tcp/1").unwrap()],
    };
    let invite = Invite { network: NetworkName::main(), nodes: vec![node(OWN)] };
    assert!(others(&invite, OWN).unwrap_err().message.contains("own"));
    assert_eq!(others(&invite, NodeId([2; 32])).unwrap().len(), 1);
}

#[test]
fn the_way_to_another_network_goes_by_what_put_the_node_on_its_own() {
    let club = "club".parse().unwrap();
    let how = |origin: Option<&Origin>| how_to_move(origin, &club);
    assert_eq!(how(None), "`homehost down`, then `homehost up --invite STRING`");
    let file = Origin::File("config.toml".into(), 2);
    assert!(how(Some(&file)).contains("config set mesh.network club`"), "{}", how(Some(&file)));
    assert!(how(Some(&Origin::Flag("--network"))).ends_with("` without --network"));
}
