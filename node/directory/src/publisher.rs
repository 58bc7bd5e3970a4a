//! When this node speaks of its own servers: a core without I/O.
//!
//! It is told what runs here and answers with what should be said now. Signing,
//! sequence numbers and sending are the caller's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use homehost_protocol::limits::{LISTING_TTL_MAX, TOMBSTONE_TTL};
use homehost_protocol::record::listing::ListingState;
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::{Presence, Record, ServerId, ServerListing};

use crate::core::Moment;

/// A listing that changed is said again at most this often, so that a server
/// that flaps does not fill everybody's disk.
const CHANGE_PAUSE: Duration = Duration::from_secs(5);

/// A live listing is refreshed at half of its life.
const REFRESH: Duration = Duration::from_secs(LISTING_TTL_MAX.as_secs() / 2);

/// What runs here, as the rest of the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnServer {
    /// The listing, in state live and with the addresses of now.
    pub listing: ServerListing,
    /// Players now, if that is known.
    pub players: Option<u16>,
    /// Places, if the game says so.
    pub slots: Option<u16>,
}

/// What was said of a server last.
#[derive(Clone, Debug)]
struct Said {
    listing: ServerListing,
    at: Duration,
}

/// Decides when to speak.
#[derive(Debug, Default)]
pub struct Publisher {
    running: BTreeMap<ServerId, OwnServer>,
    undecided: BTreeSet<ServerId>,
    said: BTreeMap<ServerId, Said>,
    presence_at: Option<Duration>,
    presence_said: Vec<ServerPresence>,
}

impl Publisher {
    /// Remembers what was said before a restart, so that nothing is said twice
    /// and what stopped meanwhile is taken back.
    pub fn remember(&mut self, id: ServerId, listing: ServerListing, age: Duration, now: Moment) {
        self.said.insert(id, Said { listing, at: now.mono.saturating_sub(age) });
    }

    /// Replaces what runs here and can be joined. What was said of the
    /// `undecided` stands for now: they are coming up, and whether they can be
    /// joined will show in a moment.
    pub fn set_running(
        &mut self,
        running: BTreeMap<ServerId, OwnServer>,
        undecided: BTreeSet<ServerId>,
    ) {
        self.running = running;
        self.undecided = undecided;
    }

    /// Whether others have been told of a server that has not been taken back.
    pub fn says_anything(&self) -> bool {
        self.said.values().any(|said| !said.listing.is_withdrawn())
    }

    /// Others can hear this node again: everything that still holds is said anew.
    pub fn rejoined(&mut self, now: Moment) -> Vec<Record> {
        let mut records = Vec::new();
        for said in self.said.values_mut() {
            // A tombstone that nobody heard would leave the row to the others.
            said.at = now.mono;
            records.push(Record::ServerListing(said.listing.clone()));
        }
        if !records.is_empty() {
            records.push(self.presence(now));
        }
        records
    }

    /// What should be said now, given the presence interval of the network.
    pub fn tick(&mut self, interval: Duration, now: Moment) -> Vec<Record> {
        let mut records = Vec::new();
        for (id, server) in &self.running {
            let due = match self.said.get(id) {
                None => true,
                Some(said) => {
                    let age = now.mono.saturating_sub(said.at);
                    age >= REFRESH
                        || said.listing.is_withdrawn()
                        || (said.listing != server.listing && age >= CHANGE_PAUSE)
                }
            };
            if due {
                let listing = server.listing.clone();
                self.said.insert(*id, Said { listing: listing.clone(), at: now.mono });
                records.push(Record::ServerListing(listing));
            }
        }
        for (id, said) in &mut self.said {
            let runs = self.running.contains_key(id) || self.undecided.contains(id);
            if !runs && !said.listing.is_withdrawn() {
                said.listing.state = ListingState::Withdrawn;
                said.listing.addresses.clear();
                said.at = now.mono;
                records.push(Record::ServerListing(said.listing.clone()));
            }
        }
        self.said.retain(|_, said| {
            !said.listing.is_withdrawn() || now.mono.saturating_sub(said.at) < TOMBSTONE_TTL
        });
        if self.presence_is_due(interval, !records.is_empty(), now) {
            records.push(self.presence(now));
        }
        records
    }

    fn presence_is_due(&self, interval: Duration, spoke: bool, now: Moment) -> bool {
        let servers = self.servers();
        // After the last server is gone, silence says enough.
        if servers.is_empty() && self.presence_said.is_empty() {
            return false;
        }
        let Some(at) = self.presence_at else { return true };
        let age = now.mono.saturating_sub(at);
        age >= interval || spoke || (age >= CHANGE_PAUSE && self.presence_said != servers)
    }

    fn servers(&self) -> Vec<ServerPresence> {
        let told = |(id, said): (&ServerId, &Said)| {
            let server = self.running.get(id);
            let here = server.is_some() || self.undecided.contains(id);
            (here && !said.listing.is_withdrawn()).then(|| ServerPresence {
                id: *id,
                players: server.and_then(|server| server.players),
                slots: server.and_then(|server| server.slots),
            })
        };
        self.said.iter().filter_map(told).collect()
    }

    fn presence(&mut self, now: Moment) -> Record {
        self.presence_at = Some(now.mono);
        self.presence_said = self.servers();
        Record::Presence(Presence { servers: self.presence_said.clone() })
    }
}

#[cfg(test)]
mod tests {
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
        };
        (ServerId([n; 32]), OwnServer { listing, players: Some(players), slots: None })
    }

    fn kinds(records: &[Record]) -> String {
        let name = |record: &Record| match record {
            Record::ServerListing(listing) if listing.is_withdrawn() => 'w',
            Record::ServerListing(_) => 'l',
            Record::Presence(_) => 'p',
            Record::HostAnnouncement(_) => 'h',
        };
        records.iter().map(name).collect()
    }

    #[test]
    fn a_server_is_announced_kept_alive_and_taken_back() {
        let mut publisher = Publisher::default();
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(0))), "");
        publisher.set_running(BTreeMap::from([server(1, 0)]), BTreeSet::new());
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(1))), "lp");
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(30))), "");
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(31))), "p");
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(12 * 3600 + 1))), "lp");
        publisher.set_running(BTreeMap::new(), BTreeSet::new());
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(50_000))), "wp");
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(50_031))), "");
        assert!(!publisher.says_anything());
    }

    #[test]
    fn a_change_of_players_is_said_soon_but_not_at_once() {
        let mut publisher = Publisher::default();
        publisher.set_running(BTreeMap::from([server(1, 0)]), BTreeSet::new());
        publisher.tick(INTERVAL, moment(0));
        publisher.set_running(BTreeMap::from([server(1, 1)]), BTreeSet::new());
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(1))), "");
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(5))), "p");
    }

    #[test]
    fn a_changed_listing_waits_for_its_pause() {
        let mut publisher = Publisher::default();
        let (id, mut changed) = server(1, 0);
        publisher.set_running(BTreeMap::from([(id, changed.clone())]), BTreeSet::new());
        publisher.tick(INTERVAL, moment(0));
        changed.listing.name = "renamed".into();
        publisher.set_running(BTreeMap::from([(id, changed)]), BTreeSet::new());
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(2))), "");
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(6))), "lp");
    }

    #[test]
    fn after_a_restart_nothing_is_said_twice_and_what_stopped_is_taken_back() {
        let mut publisher = Publisher::default();
        let (one, two) = (server(1, 0), server(2, 0));
        for (id, server) in [&one, &two] {
            let age = Duration::from_secs(60);
            publisher.remember(*id, server.listing.clone(), age, moment(0));
        }
        publisher.set_running(BTreeMap::from([one]), BTreeSet::new());
        let records = publisher.tick(INTERVAL, moment(0));
        assert_eq!(kinds(&records), "wp");
        assert!(matches!(&records[0], Record::ServerListing(l) if l.name == "server 2"));
        // Others join later and must hear of both.
        assert_eq!(kinds(&publisher.rejoined(moment(1))), "lwp");
    }

    #[test]
    fn a_server_that_is_coming_up_keeps_its_listing_as_it_was() {
        let mut publisher = Publisher::default();
        let (id, own) = server(1, 3);
        publisher.set_running(BTreeMap::new(), BTreeSet::from([id]));
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(0))), "");
        publisher.set_running(BTreeMap::from([(id, own)]), BTreeSet::new());
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(1))), "lp");
        // It crashed and is being started again.
        publisher.set_running(BTreeMap::new(), BTreeSet::from([id]));
        let records = publisher.tick(INTERVAL, moment(7));
        assert!(matches!(&records[..], [Record::Presence(p)] if p.servers[0].players.is_none()));
        // It crashed too often.
        publisher.set_running(BTreeMap::new(), BTreeSet::new());
        assert_eq!(kinds(&publisher.tick(INTERVAL, moment(8))), "wp");
        assert!(!publisher.says_anything());
    }
}
