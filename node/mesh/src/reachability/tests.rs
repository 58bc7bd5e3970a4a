use super::*;

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn server(ip: &str, over_udp: bool) -> Server {
    Server { peer: PeerId::random(), ip: ip.parse().unwrap(), over_udp }
}

fn link(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

const HOME: &str = "/ip4/192.168.1.2/tcp/4011";
const HOME_UDP: &str = "/ip4/192.168.1.2/udp/4011/quic-v1";

/// A node behind a router that two peers see.
fn home(seen: [&str; 2], now: Instant) -> Reachability {
    let mut reach = Reachability::default();
    reach.listens(&address(HOME), true, now);
    reach.listens(&address(HOME_UDP), true, now);
    for (number, (by, seen)) in ["9.9.9.9", "8.8.4.4"].into_iter().zip(seen).enumerate() {
        reach.seen(link(number), by.parse().unwrap(), &address(seen), true, now);
    }
    reach
}

/// Asks until nothing is due, and answers by `reached`.
fn judge(
    reach: &mut Reachability,
    servers: &[Server],
    mut now: Instant,
    reached: impl Fn(&Multiaddr) -> bool,
) -> Instant {
    for _ in 0..60 {
        for probe in reach.due(servers, now, |_| 0) {
            let by = servers.iter().find(|s| s.peer == probe.server).map(|s| s.ip);
            let tested = if reached(&probe.address) { Tested::Reached } else { Tested::Unreached };
            reach.tested(&probe.address, by, tested, now);
        }
        now += SOON;
    }
    now
}

#[test]
fn the_kind_of_nat_follows_from_what_peers_of_different_networks_see() {
    let now = Instant::now();
    let one = "/ip4/7.7.7.7/udp/5000/quic-v1";
    let two = "/ip4/7.7.7.7/udp/5001/quic-v1";
    assert_eq!(home([one, one], now).nat(), NatKind::EndpointIndependent);
    assert_eq!(home([one, two], now).nat(), NatKind::EndpointDependent);
    let mut alone = home([one, one], now);
    alone.link_closed(link(1));
    assert_eq!(alone.nat(), NatKind::Unknown, "one voice proves nothing");
    let mut double = home([one, one], now);
    double.mapped(Some("100.64.0.9".parse().unwrap()), &[], now);
    assert_eq!(double.nat(), NatKind::Double);
    double.mapped(Some("6.6.6.6".parse().unwrap()), &[], now);
    assert_eq!(double.nat(), NatKind::Double, "nobody sees the router's address");
}

#[test]
fn a_forwarded_port_is_confirmed_and_one_that_is_not_is_refuted() {
    let now = Instant::now();
    let seen = "/ip4/7.7.7.7/tcp/4011";
    let servers = [server("9.9.9.9", false), server("8.8.4.4", false)];
    let mut reach = home([seen, seen], now);
    judge(&mut reach, &servers, now, |_| true);
    assert_eq!(reach.nat(), NatKind::Mapped);
    let udp = address("/ip4/7.7.7.7/udp/4011/quic-v1");
    assert_eq!(reach.confirmed(), BTreeSet::from([address(seen), udp]));
    assert!(!reach.wants_relays(now + UNSAID_FOR * 2));

    let mut reach = home([seen, seen], now);
    assert!(!reach.wants_relays(now), "it was not tried yet");
    assert!(reach.wants_relays(now + UNSAID_FOR), "nobody says anything");
    judge(&mut reach, &servers, now, |_| false);
    assert!(reach.confirmed().is_empty() && reach.wants_relays(now));
    assert_eq!(reach.nat(), NatKind::EndpointIndependent);
}

#[test]
fn nobody_near_of_the_same_network_or_through_an_open_hole_makes_us_public() {
    let now = Instant::now();
    let (tcp, udp) = ("/ip4/7.7.7.7/tcp/4011", "/ip4/7.7.7.7/udp/4011/quic-v1");
    for bad in [
        server("127.0.0.1", false),
        server("192.168.1.9", false),
        server("100.64.0.3", false),
        server("7.7.7.7", false),
        server("7.7.8.8", false),
        server("2a01:4f8::1", false),
    ] {
        let mut reach = home([tcp, tcp], now);
        judge(&mut reach, std::slice::from_ref(&bad), now, |_| true);
        assert!(reach.confirmed().is_empty(), "{bad:?}");
    }
    let mut reach = home([udp, udp], now);
    judge(&mut reach, &[server("9.9.9.9", true)], now, |_| true);
    assert_eq!(reach.confirmed(), BTreeSet::from([address(tcp)]), "UDP has a hole to it");
    let mut mapped = home([udp, udp], now);
    mapped.mapped(Some("7.7.7.7".parse().unwrap()), &[address(udp)], now);
    judge(&mut mapped, &[server("9.9.9.9", true)], now, |_| true);
    assert!(mapped.confirmed().contains(&address(udp)), "the router says that it forwards");
}

#[test]
fn what_changes_outside_is_noticed_both_ways() {
    let now = Instant::now();
    let seen = "/ip4/7.7.7.7/tcp/4011";
    let servers = [server("9.9.9.9", false), server("8.8.4.4", false)];
    let mut reach = home([seen, seen], now);
    let later = judge(&mut reach, &servers, now, |_| false);
    assert!(reach.confirmed().is_empty());
    // Somebody forwards the port.
    let mut at = later;
    while at < later + REFUTED_MOST + SOON {
        at = judge(&mut reach, &servers, at, |_| true);
    }
    assert!(!reach.confirmed().is_empty());
    // And takes it back.
    let end = at + CONFIRMED_EVERY + SOON * 10;
    while at < end {
        at = judge(&mut reach, &servers, at, |_| false);
    }
    assert!(reach.confirmed().is_empty());
}

#[test]
fn a_confirmation_that_nobody_renews_ends() {
    let now = Instant::now();
    let seen = "/ip4/7.7.7.7/tcp/4011";
    let mut reach = home([seen, seen], now);
    judge(&mut reach, &[server("9.9.9.9", false)], now, |_| true);
    reach.due(&[], now + CONFIRMED_FOR / 2, |_| 0);
    assert!(!reach.confirmed().is_empty());
    reach.due(&[], now + CONFIRMED_FOR + SOON * 100, |_| 0);
    assert!(reach.confirmed().is_empty());
    assert_eq!(reach.nat(), NatKind::EndpointIndependent);
}

#[test]
fn a_global_interface_is_public_or_blocked() {
    let now = Instant::now();
    let mut reach = Reachability::default();
    reach.listens(&address("/ip4/7.7.7.7/tcp/4011"), true, now);
    assert_eq!(reach.nat(), NatKind::Unknown);
    judge(&mut reach, &[server("9.9.9.9", false)], now, |_| false);
    assert_eq!(reach.nat(), NatKind::Blocked);
    let mut reach = Reachability::default();
    reach.listens(&address("/ip4/7.7.7.7/tcp/4011"), true, now);
    judge(&mut reach, &[server("9.9.9.9", false)], now, |_| true);
    assert_eq!(reach.nat(), NatKind::None);
    reach.listens(&address("/ip4/7.7.7.7/tcp/4011"), false, now);
    assert!(reach.confirmed().is_empty(), "the interface is gone");
}

#[test]
fn seeded_strangers_keep_it_within_bounds_and_never_make_it_public() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut reach = Reachability::default();
        reach.listens(&address(HOME), true, now);
        reach.listens(&address(HOME_UDP), true, now);
        let servers: Vec<_> =
            (0..6).map(|_| server(&format!("7.{}.1.1", random.u8(6..9)), random.bool())).collect();
        for _ in 0..300 {
            now += Duration::from_millis(random.u64(0..20_000));
            let by = format!("{}.{}.1.1", random.u8(1..9), random.u8(..)).parse().unwrap();
            let udp = if random.bool() { "udp" } else { "tcp" };
            let tail = if udp == "udp" { "/quic-v1" } else { "" };
            let port = random.u16(1..2000);
            let seen = address(&format!("/ip4/7.7.{}.7/{udp}/{port}{tail}", random.u8(..)));
            reach.seen(link(random.usize(0..50)), by, &seen, random.bool(), now);
            if random.u8(0..4) == 0 {
                reach.link_closed(link(random.usize(0..50)));
            }
            for probe in reach.due(&servers, now, |n| random.usize(0..n)) {
                let server = servers.iter().find(|s| s.peer == probe.server).unwrap();
                let ip = scope::ip_of(&probe.address).unwrap();
                assert_ne!(AddressBlock::of(server.ip), AddressBlock::of(ip), "seed {seed}");
                let tested = match random.u8(0..2) {
                    0 => Tested::Unsaid,
                    _ => Tested::Unreached,
                };
                reach.tested(&probe.address, Some(server.ip), tested, now);
            }
            assert!(reach.candidates.len() <= CANDIDATES_MAX, "seed {seed}");
            assert!(reach.confirmed().is_empty(), "seed {seed}");
        }
    }
}

/// A clock that is always due would keep the node from everything else.
#[test]
fn once_asked_it_is_never_due_at_once_however_long_probes_take() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut reach = Reachability::default();
        let servers = [server("9.9.9.9", false), server("8.8.4.4", random.bool())];
        let mut under_way: Vec<Probe> = Vec::new();
        for step in 0..400_u32 {
            match random.u8(0..6) {
                0 => {
                    let ip = random.u8(1..20);
                    let at = address(&format!("/ip4/7.7.7.{ip}/tcp/4011"));
                    reach.listens(&at, random.bool(), now);
                }
                1 => reach.shaken(now),
                2 | 3 if !under_way.is_empty() => {
                    let probe = under_way.swap_remove(random.usize(0..under_way.len()));
                    let tested = [Tested::Reached, Tested::Unreached, Tested::Unsaid];
                    let by = servers.iter().find(|s| s.peer == probe.server).map(|s| s.ip);
                    reach.tested(&probe.address, by, tested[random.usize(0..3)], now);
                }
                _ => {}
            }
            let servers = if random.u8(0..4) == 0 { &[][..] } else { &servers };
            under_way.extend(reach.due(servers, now, |n| n - 1));
            let next = reach.next(now);
            assert!(next.is_none_or(|next| next > now), "seed {seed}, step {step}");
            now = next.unwrap_or(now + SOON).min(now + Duration::from_secs(1));
        }
    }
}
