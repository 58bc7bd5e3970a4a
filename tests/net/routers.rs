//! Each router does what its name says. Everything else rests on this.

use std::net::{IpAddr, SocketAddr};

use crate::home::{Home, Internet, Kind};
use crate::probe::Probe;
use crate::router::GAME_PORT;

/// What a home lets through to a socket of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Character {
    /// The socket has the same address and port for everybody.
    one_mapping: bool,
    /// Who was written to may answer from another port.
    other_port: bool,
    /// A stranger who learns of the mapping may write.
    stranger: bool,
    /// A stranger may write before the socket has written to anybody.
    unasked: bool,
}

const CLOSED: Character =
    Character { one_mapping: true, other_port: false, stranger: false, unasked: false };
const OPEN: Character =
    Character { one_mapping: true, other_port: true, stranger: true, unasked: true };

fn character(kind: Kind) -> Character {
    match kind {
        Kind::Open | Kind::Forwarded => OPEN,
        Kind::FullCone => Character { unasked: false, ..OPEN },
        Kind::Symmetric => Character { one_mapping: false, ..CLOSED },
        // A router with UPnP was asked for nothing yet.
        Kind::Upnp
        | Kind::PortRestricted
        | Kind::Cgnat
        | Kind::Firewall6
        | Kind::Far
        | Kind::Slow => CLOSED,
    }
}

/// The address of an open machine, in the family that the home speaks.
fn reachable(open: &Home, home: &Home) -> IpAddr {
    match home.outside() {
        IpAddr::V4(_) => open.outside4.expect("it has both").into(),
        IpAddr::V6(_) => open.host6.expect("it has both").into(),
    }
}

#[test]
fn each_router_does_what_its_name_says() {
    let internet = Internet::new();
    let (friend, stranger) = (internet.home(Kind::Open), internet.home(Kind::Open));
    // Lost packets would look as if they had been refused.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Far) {
        let home = internet.home(kind);
        assert_eq!(observe(&home, &friend, &stranger), character(kind), "{kind}");
    }
}

fn observe(home: &Home, friend: &Home, stranger: &Home) -> Character {
    let family = home.outside();
    let probe = |at: &Home, port| Probe::new(&at.host, port, family);
    let (inner, inner_port) = (probe(home, GAME_PORT), GAME_PORT);
    let (first, second, other) = (probe(friend, 7001), probe(friend, 7002), probe(stranger, 7001));
    let friend = |port| SocketAddr::new(reachable(friend, home), port);
    let stranger = SocketAddr::new(reachable(stranger, home), 7001);

    other.says("unasked", SocketAddr::new(family, inner_port));
    inner.says("1", friend(7001));
    let mapped = first.hears("1").0;
    // What the router lets in is known to be in when this one is.
    first.says("answer", mapped);
    let unasked = inner.hears("answer").1.contains(&"unasked".to_owned());

    second.says("other port", mapped);
    other.says("stranger", mapped);
    first.says("again", mapped);
    let (_, let_in) = inner.hears("again");

    // A knock that was refused must not change what comes after it.
    inner.says("2", friend(7002));
    inner.says("3", stranger);
    let seen = [second.hears("2").0, other.hears("3").0];
    other.says("now", seen[1]);
    assert_eq!(inner.hears("now").0, stranger, "who was written to may answer");
    Character {
        one_mapping: seen == [mapped; 2],
        other_port: let_in.contains(&"other port".to_owned()),
        stranger: let_in.contains(&"stranger".to_owned()),
        unasked,
    }
}

#[test]
fn hosts_of_one_home_meet_at_its_outside_address_only_with_hairpin() {
    let internet = Internet::new();
    for (hairpin, home) in [
        (true, internet.home_with_hairpin(Kind::Forwarded)),
        (false, internet.home(Kind::Forwarded)),
    ] {
        let second = internet.second_host(&home);
        let family = home.outside();
        let (game, player) =
            (Probe::new(&home.host, GAME_PORT, family), Probe::new(&second, 7001, family));
        player.says("outside", SocketAddr::new(family, GAME_PORT));
        player
            .says("inside", SocketAddr::new(crate::home::HOST.parse().expect("it is"), GAME_PORT));
        let heard = game.hears("inside").1;
        assert_eq!(heard.contains(&"outside".to_owned()), hairpin, "{heard:?}");
        if hairpin {
            player.says("again", SocketAddr::new(family, GAME_PORT));
            let seen = game.hears("again").0;
            assert_eq!(seen.ip(), home.outside(), "the router has put its own address");
            game.says("answer", seen);
            let (from, _) = player.hears("answer");
            assert_eq!(from, SocketAddr::new(family, GAME_PORT), "whom it wrote to answers");
        }
    }
}
