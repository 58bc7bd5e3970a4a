//! When this node speaks, and that it never forgets to.

use super::*;
use homehost_protocol::{ServerNonce, UnixMillis};

const INTERVAL: Duration = Duration::from_secs(30);

fn moment(seconds: u64) -> Moment {
    Moment {
        wall: UnixMillis(1_795_168_800_000 + seconds * 1000),
        mono: Duration::from_secs(1_000_000 + seconds),
    }
}

fn server(n: u8, players: u16) -> (ServerId, OwnServer) {
    let listing = ServerListing {
        nonce: ServerNonce([n; 16]),
        state: ListingState::Live,
        game: "luanti".into(),
        name: format!("server {n}"),
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
    (ServerId([n; 32]), OwnServer { listing, players: Some(players), slots: None })
}

fn run(publisher: &mut Publisher, servers: &[(ServerId, OwnServer)]) {
    publisher.set_running(servers.iter().cloned().collect(), BTreeSet::new());
}

/// Says everything that is due; `l`, `w` and `p` for listing, withdrawal, presence.
fn tick(publisher: &mut Publisher, seconds: u64) -> String {
    let now = moment(seconds);
    let mut kinds = String::new();
    for proposal in publisher.listings(now) {
        let withdrawn = matches!(&proposal, Proposal::Listing(_, l) if l.is_withdrawn());
        kinds.push(if withdrawn { 'w' } else { 'l' });
        publisher.said(proposal, now);
    }
    if let Some(proposal) = publisher.presence(INTERVAL, !kinds.is_empty(), now) {
        kinds.push('p');
        publisher.said(proposal, now);
    }
    kinds
}

#[test]
fn a_server_is_announced_kept_alive_and_taken_back() {
    let mut publisher = Publisher::default();
    assert_eq!(tick(&mut publisher, 0), "");
    run(&mut publisher, &[server(1, 0)]);
    assert_eq!(tick(&mut publisher, 1), "lp");
    assert_eq!(tick(&mut publisher, 30), "");
    assert_eq!(tick(&mut publisher, 31), "p");
    assert_eq!(tick(&mut publisher, 12 * 3600 + 1), "lp");
    run(&mut publisher, &[]);
    assert_eq!(tick(&mut publisher, 50_000), "wp");
    assert_eq!(tick(&mut publisher, 50_031), "");
    assert!(!publisher.says_anything());
}

#[test]
fn a_change_of_players_is_said_soon_but_not_at_once() {
    let mut publisher = Publisher::default();
    run(&mut publisher, &[server(1, 0)]);
    tick(&mut publisher, 0);
    run(&mut publisher, &[server(1, 1)]);
    assert_eq!(tick(&mut publisher, 1), "");
    assert_eq!(tick(&mut publisher, 5), "p");
}

#[test]
fn a_changed_listing_waits_for_its_pause() {
    let mut publisher = Publisher::default();
    let (id, mut changed) = server(1, 0);
    run(&mut publisher, &[(id, changed.clone())]);
    tick(&mut publisher, 0);
    changed.listing.name = "renamed".into();
    run(&mut publisher, &[(id, changed)]);
    assert_eq!(tick(&mut publisher, 2), "");
    assert_eq!(tick(&mut publisher, 6), "lp");
}

#[test]
fn an_address_for_everybody_is_said_at_once_and_its_loss_is_not() {
    let mut publisher = Publisher::default();
    let (id, open) = server(1, 0);
    let mut near = open.clone();
    near.listing.addresses = vec!["192.168.1.2:30000/udp".parse().expect("an address")];
    for (second, server, said) in [
        // It came up before anybody told the node where it is.
        (0, &near, "lp"),
        (1, &open, "lp"),
        (2, &near, ""),
        (6, &near, "lp"),
        (7, &open, "lp"),
    ] {
        run(&mut publisher, &[(id, server.clone())]);
        assert_eq!(tick(&mut publisher, second), said, "at {second} s");
    }
}

#[test]
fn what_could_not_be_said_is_due_again() {
    let mut publisher = Publisher::default();
    run(&mut publisher, &[server(1, 0)]);
    tick(&mut publisher, 0);
    run(&mut publisher, &[]);
    // The disk is full: no sequence number, no tombstone.
    let withdrawal = publisher.listings(moment(1)).remove(0);
    publisher.failed(&withdrawal, moment(1));
    assert!(publisher.says_anything());
    assert_eq!(tick(&mut publisher, 2), "");
    assert_eq!(tick(&mut publisher, 6), "wp");
    assert!(!publisher.says_anything());
}

#[test]
fn after_a_restart_nothing_is_said_twice_and_what_stopped_is_taken_back() {
    let mut publisher = Publisher::default();
    let (one, two) = (server(1, 0), server(2, 0));
    for (id, server) in [&one, &two] {
        publisher.remember(*id, server.listing.clone(), Duration::from_secs(60), moment(0));
    }
    run(&mut publisher, &[one]);
    let due = publisher.listings(moment(0));
    assert!(matches!(&due[..], [Proposal::Listing(_, l)] if l.name == "server 2"));
    assert_eq!(tick(&mut publisher, 0), "wp");
    // Others join later and must hear of both, but not with every coming and going.
    publisher.rejoined();
    assert_eq!(tick(&mut publisher, 1), "lwp");
    publisher.rejoined();
    assert_eq!(tick(&mut publisher, 2), "");
    assert_eq!(tick(&mut publisher, 31), "lwp");
}

#[test]
fn a_server_that_is_coming_up_keeps_its_listing_as_it_was() {
    let mut publisher = Publisher::default();
    let (id, own) = server(1, 3);
    publisher.set_running(BTreeMap::new(), BTreeSet::from([id]));
    assert_eq!(tick(&mut publisher, 0), "");
    publisher.set_running(BTreeMap::from([(id, own)]), BTreeSet::new());
    assert_eq!(tick(&mut publisher, 1), "lp");
    // It crashed and is being started again.
    publisher.set_running(BTreeMap::new(), BTreeSet::from([id]));
    let Some(Proposal::Presence(presence)) = publisher.presence(INTERVAL, false, moment(7)) else {
        panic!("a presence")
    };
    assert_eq!(presence.servers[0].players, None);
    // It crashed too often.
    publisher.set_running(BTreeMap::new(), BTreeSet::new());
    assert_eq!(tick(&mut publisher, 8), "wp");
}

#[test]
fn whatever_happens_the_network_ends_up_knowing_what_runs() {
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut publisher = Publisher::default();
        // What others have heard, by id.
        let mut heard: BTreeMap<ServerId, ServerListing> = BTreeMap::new();
        let mut presence: Vec<ServerPresence> = vec![];
        let mut second = 0;
        for _ in 0..rng.usize(1..40) {
            let mut running = BTreeMap::new();
            let mut undecided = BTreeSet::new();
            for n in 1..=3 {
                let (id, own) = server(n, rng.u16(..2));
                match rng.u8(..8) {
                    0..4 => drop(running.insert(id, own)),
                    4 => drop(undecided.insert(id)),
                    _ => {}
                }
            }
            publisher.set_running(running, undecided);
            if rng.u8(..8) == 0 {
                publisher.rejoined();
            }
            for _ in 0..rng.u8(..4) {
                second += rng.u64(..20);
                let now = moment(second);
                let mut spoke = false;
                for proposal in publisher.listings(now) {
                    if rng.u8(..4) == 0 {
                        publisher.failed(&proposal, now);
                        continue;
                    }
                    if let Proposal::Listing(id, listing) = &proposal {
                        heard.insert(*id, (**listing).clone());
                    }
                    spoke = true;
                    publisher.said(proposal, now);
                }
                if let Some(proposal) = publisher.presence(INTERVAL, spoke, now) {
                    if let Proposal::Presence(said) = &proposal {
                        said.check().unwrap();
                        presence.clone_from(&said.servers);
                    }
                    publisher.said(proposal, now);
                }
            }
        }
        // Then it is quiet, and the disk has room.
        let running: BTreeMap<_, _> =
            (1..=3).filter(|_| rng.bool()).map(|n| server(n, 0)).collect();
        publisher.set_running(running.clone(), BTreeSet::new());
        for _ in 0..10 {
            second += 10;
            let now = moment(second);
            for proposal in publisher.listings(now) {
                if let Proposal::Listing(id, listing) = &proposal {
                    heard.insert(*id, (**listing).clone());
                }
                publisher.said(proposal, now);
            }
            if let Some(proposal) = publisher.presence(INTERVAL, false, now) {
                if let Proposal::Presence(said) = &proposal {
                    presence.clone_from(&said.servers);
                }
                publisher.said(proposal, now);
            }
        }
        let live: Vec<_> =
            heard.iter().filter(|(_, l)| !l.is_withdrawn()).map(|(id, _)| *id).collect();
        assert_eq!(live, running.keys().copied().collect::<Vec<_>>(), "seed {seed}");
        let named: Vec<_> = presence.iter().map(|server| server.id).collect();
        assert_eq!(named, live, "seed {seed}");
    }
}
