//! When this node speaks of its own servers: a core without I/O.
//!
//! It is told what runs here and proposes what should be said now. Signing,
//! sequence numbers and sending are the caller's, who reports back what was
//! said; what could not be said is proposed again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use homehost_protocol::limits::{LISTING_TTL_MAX, TOMBSTONE_TTL};
use homehost_protocol::record::listing::{ListingState, Visibility};
use homehost_protocol::record::presence::ServerPresence;
use homehost_protocol::{Presence, Scope, ServerId, ServerListing};

use crate::core::Moment;

/// A listing that changed is said again at most this often, so that a server
/// that flaps does not fill everybody's disk. What failed is tried again after
/// the same time.
const CHANGE_PAUSE: Duration = Duration::from_secs(5);

/// A live listing is refreshed at half of its life.
const REFRESH: Duration = Duration::from_secs(LISTING_TTL_MAX.as_secs() / 2);

/// After nobody could hear this node, everything is said anew at most this
/// often: one peer on a bad link may come and go all day.
const REJOIN_PAUSE: Duration = Duration::from_secs(30);

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

/// What should be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// A listing or tombstone.
    Listing(ServerId, Box<ServerListing>),
    /// Who is playing. It comes after the listings that it names.
    Presence(Presence),
}

/// What was said of a server last.
#[derive(Clone, Debug)]
struct Said {
    listing: ServerListing,
    at: Duration,
    /// Said when nobody may have heard it.
    again: bool,
}

/// Decides when to speak.
#[derive(Debug, Default)]
pub struct Publisher {
    running: BTreeMap<ServerId, OwnServer>,
    undecided: BTreeSet<ServerId>,
    said: BTreeMap<ServerId, Said>,
    /// What failed is not tried again before this time.
    paused: BTreeMap<Option<ServerId>, Duration>,
    presence_said: Vec<ServerPresence>,
    presence_at: Option<Duration>,
    rejoin: bool,
    rejoined_at: Option<Duration>,
}

impl Publisher {
    /// Remembers what was said before a restart, so that nothing is said twice
    /// and what stopped meanwhile is taken back.
    pub fn remember(&mut self, id: ServerId, listing: ServerListing, age: Duration, now: Moment) {
        let at = now.mono.saturating_sub(age);
        self.said.insert(id, Said { listing, at, again: false });
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

    /// Others can hear this node again: everything that still holds is said
    /// anew, tombstones too, because one that nobody heard would leave the row
    /// to the others.
    pub fn rejoined(&mut self) {
        self.rejoin = true;
    }

    /// A proposal was said.
    pub fn said(&mut self, proposal: Proposal, now: Moment) {
        match proposal {
            Proposal::Listing(id, listing) => {
                self.paused.remove(&Some(id));
                self.said.insert(id, Said { listing: *listing, at: now.mono, again: false });
            }
            Proposal::Presence(presence) => {
                self.paused.remove(&None);
                self.presence_at = Some(now.mono);
                self.presence_said = presence.servers;
            }
        }
    }

    /// A proposal could not be said; it will be due again.
    pub fn failed(&mut self, proposal: &Proposal, now: Moment) {
        let what = match proposal {
            Proposal::Listing(id, _) => Some(*id),
            Proposal::Presence(_) => None,
        };
        self.paused.insert(what, now.mono + CHANGE_PAUSE);
    }

    /// The listings that should be said now.
    pub fn listings(&mut self, now: Moment) -> Vec<Proposal> {
        self.said.retain(|_, said| {
            !said.listing.is_withdrawn() || now.mono.saturating_sub(said.at) < TOMBSTONE_TTL
        });
        let may_rejoin =
            self.rejoined_at.is_none_or(|at| now.mono.saturating_sub(at) >= REJOIN_PAUSE);
        if self.rejoin && may_rejoin {
            self.rejoin = false;
            self.rejoined_at = Some(now.mono);
            self.said.values_mut().for_each(|said| said.again = true);
            self.presence_at = None;
        }
        let wanted = self.running.iter().filter(|(id, server)| self.is_due(id, server, now));
        let mut due: BTreeMap<ServerId, ServerListing> =
            wanted.map(|(id, server)| (*id, self.next_of(id, server))).collect();
        for (id, said) in &self.said {
            let runs = self.running.contains_key(id);
            let gone = !runs && !self.undecided.contains(id) && !said.listing.is_withdrawn();
            if gone {
                due.insert(*id, tombstone(&said.listing));
            } else if said.again && !runs {
                due.insert(*id, said.listing.clone());
            }
        }
        due.retain(|id, _| self.paused.get(&Some(*id)).is_none_or(|until| *until <= now.mono));
        due.into_iter().map(|(id, listing)| Proposal::Listing(id, Box::new(listing))).collect()
    }

    /// The presence that should be said now, given the interval of the network
    /// and whether a listing has just been said.
    pub fn presence(&self, interval: Duration, spoke: bool, now: Moment) -> Option<Proposal> {
        let servers = self.servers();
        // After the last server is gone, silence says enough.
        if servers.is_empty() && self.presence_said.is_empty() {
            return None;
        }
        if self.paused.get(&None).is_some_and(|until| *until > now.mono) {
            return None;
        }
        let due = self.presence_at.is_none_or(|at| {
            let age = now.mono.saturating_sub(at);
            age >= interval || spoke || (age >= CHANGE_PAUSE && self.presence_said != servers)
        });
        due.then_some(Proposal::Presence(Presence { servers }))
    }

    /// What to say of a running server. Whoever learned of it and is to do so no
    /// longer is told that it is gone, before others learn of it.
    fn next_of(&self, id: &ServerId, server: &OwnServer) -> ServerListing {
        match self.said.get(id) {
            Some(Said { listing, .. })
                if !listing.is_withdrawn() && listing.visibility != server.listing.visibility =>
            {
                tombstone(listing)
            }
            _ => server.listing.clone(),
        }
    }

    fn is_due(&self, id: &ServerId, server: &OwnServer, now: Moment) -> bool {
        self.said.get(id).is_none_or(|said| {
            let age = now.mono.saturating_sub(said.at);
            said.again
                || age >= REFRESH
                || said.listing.is_withdrawn()
                || (said.listing != server.listing
                    && (age >= CHANGE_PAUSE || comes_into_the_world(&said.listing, server)))
        })
    }

    fn servers(&self) -> Vec<ServerPresence> {
        let told = |(id, said): (&ServerId, &Said)| {
            let server = self.running.get(id);
            let here = server.is_some() || self.undecided.contains(id);
            // Who has the id of an unlisted server asks the DHT, which has no
            // presences; to all others it would tell that there is one.
            let told = said.listing.visibility != Some(Visibility::Unlisted);
            (here && told && !said.listing.is_withdrawn()).then(|| ServerPresence {
                id: *id,
                players: server.and_then(|server| server.players),
                slots: server.and_then(|server| server.slots),
            })
        };
        self.said.iter().filter_map(told).collect()
    }
}

/// Whether players from afar can join it from now on: a node that is connected
/// again learns its address a moment after a server came up. To be seen no more
/// waits, so that even this has a pace.
fn comes_into_the_world(said: &ServerListing, server: &OwnServer) -> bool {
    let is_far = |listing: &ServerListing| {
        listing.addresses.iter().any(|address| address.scope() == Scope::Global)
    };
    is_far(&server.listing) && !is_far(said)
}

fn tombstone(listing: &ServerListing) -> ServerListing {
    ServerListing { state: ListingState::Withdrawn, addresses: Vec::new(), ..listing.clone() }
}

#[cfg(test)]
mod tests;
