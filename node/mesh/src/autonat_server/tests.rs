use std::time::Duration;

use super::*;

fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// A server that sees a peer at some addresses.
fn seeing(peer: PeerId, ips: &[&str]) -> Behaviour {
    let rules = DialRules::new(&[], &[at("/ip4/0.0.0.0/tcp/4001")], Instant::now());
    let mut server = Behaviour::new(true, rules);
    let link = |(n, ip): (usize, &&str)| (ConnectionId::new_unchecked(n), ip.parse().unwrap());
    server.seen.insert(peer, ips.iter().enumerate().map(link).collect());
    server
}

/// Asks, and says what was answered at once, if anything was.
fn ask(
    server: &mut Behaviour,
    peer: PeerId,
    addresses: &[&str],
    now: Instant,
) -> oneshot::Receiver<Answer> {
    let addresses = addresses.iter().enumerate().map(|(n, text)| (n as u32, at(text))).collect();
    let (answer, said) = oneshot::channel();
    server.asked(peer, Asked { request: Request { addresses, nonce: 7 }, answer }, now);
    said
}

fn said(mut answer: oneshot::Receiver<Answer>) -> Option<Answer> {
    answer.try_recv().expect("it is not dropped")
}

#[test]
fn nobody_is_dialled_but_who_asks() {
    let peer = PeerId::random();
    let server = seeing(peer, &["7.7.7.7", "192.168.1.2", "2a01:4f8:0:1::5"]);
    for (address, may) in [
        ("/ip4/7.7.7.7/tcp/4011", true),
        ("/ip4/7.7.7.8/tcp/4011", false),
        ("/ip6/2a01:4f8:0:1::9/udp/1/quic-v1", true),
        ("/ip6/2a01:4f8:0:2::5/tcp/1", false),
        ("/ip4/192.168.1.2/tcp/80", false),
        ("/ip4/127.0.0.1/tcp/80", false),
        ("/ip4/7.7.7.7/tcp/0", false),
        ("/ip4/7.7.7.7/udp/53", false),
        ("/ip4/7.7.7.7/tcp/80/ws", false),
        ("/dns4/example.org/tcp/80", false),
    ] {
        assert_eq!(server.may_dial(peer, &at(address)), may, "{address}");
    }
    assert!(!server.may_dial(PeerId::random(), &at("/ip4/7.7.7.7/tcp/1")));
}

#[test]
fn the_first_address_that_may_be_is_dialled_from_a_new_port() {
    let peer = PeerId::random();
    let mut server = seeing(peer, &["7.7.7.7"]);
    let now = Instant::now();
    let two = ["/ip4/7.7.7.8/tcp/1", "/ip4/7.7.7.7/tcp/2"];
    assert_eq!(said(ask(&mut server, peer, &two, now)), None, "it is being dialled");
    let opts = server.todo.pop_front().unwrap();
    assert_eq!(opts.get_peer_id(), Some(peer));
    let back = &server.dials[&opts.connection_id()];
    assert_eq!((back.nonce, back.index), (7, 1));
    let none = ask(&mut server, peer, &two[..1], now);
    assert_eq!(said(none), Some(Answer::Refused));
    assert!(server.todo.is_empty());
}

#[test]
fn a_dial_that_fails_says_so_and_one_that_we_kept_back_does_not() {
    let peer = PeerId::random();
    let mut server = seeing(peer, &["7.7.7.7"]);
    let now = Instant::now();
    for (error, answer) in [
        (DialError::Transport(Vec::new()), Answer::Unreached { index: 0 }),
        (DialError::Aborted, Answer::Failed),
        (DialError::NoAddresses, Answer::Failed),
    ] {
        let waiting = ask(&mut server, peer, &["/ip4/7.7.7.7/tcp/2"], now);
        let opts = server.todo.pop_front().unwrap();
        server.dial_failed(opts.connection_id(), &error, now);
        assert_eq!(said(waiting), Some(answer), "{error}");
    }
    assert!(server.dials.is_empty());
}

#[test]
fn nobody_makes_us_dial_all_day_nor_everybody_at_once() {
    let peers: Vec<_> = (0..8).map(|_| PeerId::random()).collect();
    let mut server = seeing(peers[0], &["7.7.7.7"]);
    for peer in &peers {
        let seen = [(ConnectionId::new_unchecked(9), "7.7.7.7".parse().unwrap())];
        server.seen.insert(*peer, seen.into_iter().collect());
    }
    let now = Instant::now();
    let mut waiting = Vec::new();
    for n in 0..DIALS_MAX {
        let peer = peers[n % peers.len()];
        waiting.push(ask(&mut server, peer, &["/ip4/7.7.7.7/tcp/2"], now));
    }
    assert_eq!(server.todo.len(), DIALS_MAX);
    let more = ask(&mut server, peers[0], &["/ip4/7.7.7.7/tcp/2"], now);
    assert_eq!(said(more), Some(Answer::Rejected));
    server.dials.clear();
    // One peer, for an hour, as fast as it can.
    let mut dialled = 0;
    for second in 0..3600 {
        let now = now + Duration::from_secs(second);
        drop(ask(&mut server, peers[1], &["/ip4/7.7.7.7/tcp/2"], now));
        dialled += server.dials.len();
        server.dials.clear();
    }
    assert!((700..=740).contains(&dialled), "{dialled}");
    server.enable(false);
    let later = now + Duration::from_secs(9_999);
    let off = ask(&mut server, peers[2], &["/ip4/7.7.7.7/tcp/2"], later);
    assert_eq!(said(off), Some(Answer::Rejected));
}
