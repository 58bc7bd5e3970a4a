//! Ports that the router should forward to us: what is asked for when. A core
//! without clock or socket (spec/mesh §14); `ports/router.rs` speaks to the
//! router, `ports/task.rs` brings both together.

pub(crate) mod router;
pub(crate) mod task;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use homehost_protocol::Transport;

use crate::{MappingFacts, PortProtocol};

/// For how long a mapping is asked. A node that crashes leaves none for longer.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);
/// Shortest time between two renewals, whatever the router says.
const RENEW_LEAST: Duration = Duration::from_secs(30);
/// Longest: a router that was switched off and on has forgotten all, and says
/// nothing of it.
const RENEW_MOST: Duration = Duration::from_secs(600);
/// First and longest pause after a refusal.
const AGAIN_FIRST: Duration = Duration::from_secs(10);
const AGAIN_MOST: Duration = Duration::from_secs(900);
/// Outside ports that are tried for one of ours, the same number first.
const PORTS_TRIED: u16 = 12;
/// Mappings in all: the mesh's two, and a port or two of each server.
pub(crate) const WISHES_MAX: usize = 64;
/// Longest name; some routers refuse more.
const NAME_MAX: usize = 48;

/// A port of this machine that the router should forward to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortWish {
    /// For whom, as in `mesh` or a server's name; the router shows it.
    pub name: String,
    /// Transport of the port.
    pub transport: Transport,
    /// The port.
    pub port: u16,
}

impl PortWish {
    /// What the router shows a person.
    pub(crate) fn label(&self) -> String {
        // It goes into a text of the router's, whose escaping nobody tested.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
        let name: String =
            self.name.chars().map(|c| if plain(c) { c } else { '_' }).take(NAME_MAX / 2).collect();
        format!("HomeHost {} {}/{}", name.trim(), self.port, self.transport)
    }

    fn key(&self) -> Key {
        (self.transport, self.port)
    }
}

/// A port here.
pub(crate) type Key = (Transport, u16);

/// Something to ask of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Forward this port, or go on forwarding it.
    Map {
        /// What for.
        wish: PortWish,
        /// The port outside.
        external: u16,
        /// Whether it is forwarded already.
        renew: bool,
    },
    /// Forward it no longer.
    Unmap {
        /// The port here.
        key: Key,
        /// The port outside.
        external: u16,
    },
}

/// What the router promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) external: u16,
    /// `None` when it has no end.
    pub(crate) lifetime: Option<Duration>,
    pub(crate) protocol: PortProtocol,
}

/// Why it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotMapped {
    /// Another machine has the port.
    Taken,
    /// Something else.
    Refused(String),
}

#[derive(Clone, Debug)]
struct Entry {
    wish: PortWish,
    mapped: Option<(Mapped, Instant)>,
    /// How many outside ports were taken.
    taken: u16,
    failures: u32,
    problem: Option<String>,
    due: Instant,
    /// Whether it is to be taken back.
    ends: bool,
}

/// Decides what is asked of the router.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    entries: BTreeMap<Key, Entry>,
}

impl Plan {
    /// These ports are to be forwarded, and no others.
    pub(crate) fn want(&mut self, wishes: &[PortWish], now: Instant) {
        for entry in self.entries.values_mut() {
            let ends = !wishes.iter().any(|wish| wish.key() == entry.wish.key());
            if ends != entry.ends {
                (entry.ends, entry.due) = (ends, now);
            }
        }
        self.entries.retain(|_, entry| !entry.ends || entry.mapped.is_some());
        for wish in wishes.iter().take(WISHES_MAX) {
            self.entries.entry(wish.key()).or_insert_with(|| Entry {
                wish: wish.clone(),
                mapped: None,
                taken: 0,
                failures: 0,
                problem: None,
                due: now,
                ends: false,
            });
        }
    }

    /// The router is another one, or has forgotten all.
    pub(crate) fn start_over(&mut self, now: Instant) {
        self.entries.retain(|_, entry| !entry.ends);
        for entry in self.entries.values_mut() {
            (entry.mapped, entry.taken, entry.failures) = (None, 0, 0);
            (entry.problem, entry.due) = (None, now);
        }
    }

    /// The next thing to ask, one at a time: home routers are slow.
    pub(crate) fn due(&self, now: Instant) -> Option<Job> {
        let entry = self.entries.values().filter(|entry| entry.due <= now).min_by_key(|e| e.due)?;
        Some(entry.job())
    }

    /// When [`Self::due`] wants to be asked next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// What came of a [`Job::Map`].
    pub(crate) fn mapped(&mut self, key: Key, result: Result<Mapped, NotMapped>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match result {
            Ok(mapped) => {
                // Half of it, so that one lost answer is no hole.
                let half = mapped.lifetime.unwrap_or(LIFETIME) / 2;
                let renew = half.clamp(RENEW_LEAST, RENEW_MOST);
                entry.mapped = Some((mapped, now));
                (entry.failures, entry.problem, entry.due) = (0, None, now + renew);
            }
            Err(NotMapped::Taken) => {
                entry.mapped = None;
                entry.taken += 1;
                entry.problem = Some("another machine has the port at the router".into());
                entry.due = now;
                if entry.taken >= PORTS_TRIED {
                    (entry.taken, entry.due) = (0, now + AGAIN_MOST);
                }
            }
            Err(NotMapped::Refused(problem)) => {
                let over = |(mapped, at): (Mapped, Instant)| {
                    mapped.lifetime.is_some_and(|time| now >= at + time)
                };
                if entry.mapped.is_some_and(over) {
                    entry.mapped = None;
                }
                entry.failures = entry.failures.saturating_add(1);
                let times = 1 << entry.failures.saturating_sub(1).min(8);
                entry.due = now + (AGAIN_FIRST * times).min(AGAIN_MOST);
                entry.problem = Some(problem);
            }
        }
    }

    /// A [`Job::Unmap`] was done, or cannot be.
    pub(crate) fn unmapped(&mut self, key: Key, now: Instant) {
        match self.entries.get_mut(&key) {
            Some(entry) if entry.ends => {
                self.entries.remove(&key);
            }
            // It was wished for again meanwhile.
            Some(entry) => (entry.mapped, entry.due) = (None, now),
            None => {}
        }
    }

    /// How many failed for another reason than that the port is taken.
    pub(crate) fn failing(&self) -> usize {
        self.entries.values().filter(|entry| entry.failures >= 2).count()
    }

    /// Whether the router goes on refusing what it forwards already.
    pub(crate) fn is_refused_again(&self) -> bool {
        self.entries.values().any(|entry| entry.mapped.is_some() && entry.failures >= 2)
    }

    /// What a node that stops takes back: all but the ports of games, which may
    /// go on and are forgotten within the hour; and those that would be never.
    pub(crate) fn last_jobs(&self, mesh: &[PortWish]) -> Vec<Job> {
        let ours = |entry: &&Entry| {
            let (mapped, _) = entry.mapped?;
            let of_mesh = mesh.iter().any(|wish| wish.key() == entry.wish.key());
            (entry.ends || of_mesh || mapped.lifetime.is_none())
                .then_some(Job::Unmap { key: entry.wish.key(), external: mapped.external })
        };
        self.entries.values().filter_map(|entry| ours(&entry)).collect()
    }

    /// For readers.
    pub(crate) fn facts(&self) -> Vec<MappingFacts> {
        let live = self.entries.values().filter(|entry| !entry.ends);
        live.map(|entry| MappingFacts {
            name: entry.wish.label(),
            transport: entry.wish.transport,
            internal: entry.wish.port,
            external: entry.mapped.map(|(mapped, _)| mapped.external),
            protocol: entry.mapped.map(|(mapped, _)| mapped.protocol),
            expires: entry.mapped.and_then(|(mapped, at)| Some(at + mapped.lifetime?)),
            problem: entry.problem.clone(),
        })
        .collect()
    }
}

impl Entry {
    fn job(&self) -> Job {
        match self.mapped {
            Some((mapped, _)) if self.ends => {
                Job::Unmap { key: self.wish.key(), external: mapped.external }
            }
            Some((mapped, _)) => {
                Job::Map { wish: self.wish.clone(), external: mapped.external, renew: true }
            }
            None => Job::Map { wish: self.wish.clone(), external: self.external(), renew: false },
        }
    }

    /// The same number, then those after it; 1024 follows the last.
    fn external(&self) -> u16 {
        self.wish.port.checked_add(self.taken).unwrap_or(1024 + self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(port: u16) -> PortWish {
        PortWish { name: "mesh".into(), transport: Transport::Udp, port }
    }

    fn mapped(external: u16) -> Mapped {
        Mapped { external, lifetime: Some(LIFETIME), protocol: PortProtocol::Upnp }
    }

    /// A router that forgets, is busy, and has tenants of its own.
    struct Router {
        random: fastrand::Rng,
        taken: Vec<u16>,
        held: BTreeMap<u16, (Key, Instant)>,
        works: bool,
    }

    impl Router {
        fn serve(&mut self, plan: &mut Plan, now: Instant) {
            while let Some(job) = plan.due(now) {
                match job {
                    Job::Map { wish, external, .. } => {
                        let key = wish.key();
                        let result = if !self.works || self.random.u8(0..10) == 0 {
                            Err(NotMapped::Refused("busy".into()))
                        } else if self.taken.contains(&external)
                            || self.held.get(&external).is_some_and(|(held, _)| *held != key)
                        {
                            Err(NotMapped::Taken)
                        } else {
                            self.held.insert(external, (key, now + LIFETIME));
                            Ok(mapped(external))
                        };
                        plan.mapped(key, result, now);
                    }
                    Job::Unmap { key, external } => {
                        self.held.remove(&external);
                        plan.unmapped(key, now);
                    }
                }
            }
            self.held.retain(|_, (_, until)| *until > now);
        }
    }

    #[test]
    fn seeded_routers_hold_exactly_what_is_wished_for_and_never_let_it_lapse() {
        for seed in 0..200 {
            let mut now = Instant::now();
            let random = fastrand::Rng::with_seed(seed);
            let mut router =
                Router { random, taken: vec![4011], held: BTreeMap::new(), works: true };
            let mut plan = Plan::default();
            let mut wishes = vec![wish(4011), wish(4012)];
            for _ in 0..200 {
                match router.random.u8(0..8) {
                    0 if wishes.len() < 8 => wishes.push(wish(router.random.u16(30000..30020))),
                    1 => drop(wishes.pop()),
                    // Somebody pulled its plug.
                    2 => router.held.clear(),
                    _ => {}
                }
                wishes.sort();
                wishes.dedup();
                plan.want(&wishes, now);
                router.serve(&mut plan, now);
                // Time enough to notice, and for some refusals in a row.
                let end = now + RENEW_MOST + Duration::from_secs(300);
                while let Some(next) = plan.next().filter(|next| *next < end) {
                    now = now.max(next);
                    router.serve(&mut plan, now);
                }
                now = end;
                let held: Vec<Key> = router.held.values().map(|(key, _)| *key).collect();
                for wish in &wishes {
                    assert!(held.contains(&wish.key()), "seed {seed}: {wish:?}");
                }
                assert_eq!(held.len(), wishes.len(), "seed {seed}");
                assert!(!router.held.contains_key(&4011), "seed {seed}: a neighbour's");
            }
        }
    }

    #[test]
    fn a_router_that_refuses_is_asked_ever_more_rarely_and_gives_a_reason() {
        let mut now = Instant::now();
        let mut plan = Plan::default();
        plan.want(&[wish(4011)], now);
        let mut asked = 0;
        let end = now + Duration::from_secs(3600);
        while now < end {
            while plan.due(now).is_some() {
                asked += 1;
                let refused = NotMapped::Refused("not authorised".into());
                plan.mapped(wish(4011).key(), Err(refused), now);
            }
            now = plan.next().unwrap();
        }
        assert!(asked < 12, "{asked} times an hour");
        assert_eq!(plan.facts()[0].problem.as_deref(), Some("not authorised"));
    }

    #[test]
    fn when_the_node_stops_games_keep_their_ports_for_the_hour() {
        let now = Instant::now();
        let game = PortWish { name: "Friday".into(), transport: Transport::Udp, port: 30000 };
        let for_ever = PortWish { port: 30001, ..game.clone() };
        let mut plan = Plan::default();
        plan.want(&[wish(4011), game.clone(), for_ever.clone()], now);
        plan.mapped(wish(4011).key(), Ok(mapped(4011)), now);
        plan.mapped(game.key(), Ok(mapped(30000)), now);
        plan.mapped(for_ever.key(), Ok(Mapped { lifetime: None, ..mapped(30001) }), now);
        let jobs = plan.last_jobs(&[wish(4011)]);
        let unmap = |key, external| Job::Unmap { key, external };
        assert_eq!(jobs, [unmap(wish(4011).key(), 4011), unmap(for_ever.key(), 30001)]);
    }

    #[test]
    fn names_are_plain_and_short() {
        let wish = PortWish {
            name: "<b>Ünser & Server</b>".repeat(4),
            transport: Transport::Tcp,
            port: 25565,
        };
        let label = wish.label();
        assert!(label.len() <= NAME_MAX && label.ends_with(" 25565/tcp"), "{label}");
        assert!(!label.contains(['<', '&', 'Ü']), "{label}");
        assert_eq!(super::tests::wish(4011).label(), "HomeHost mesh 4011/udp");
    }
}
