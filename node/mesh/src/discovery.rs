//! When to look for peers: a core without clock or socket.
//!
//! It decides *when* to dial the bootstrap nodes, to walk the DHT, and to dial
//! peers that the routing table knows or that are remembered from before;
//! `actor/routing.rs` and `actor/memory.rs` do it.

use std::time::{Duration, Instant};

use homehost_runtime::Backoff;

use crate::Role;

/// Host peers with which a node stops looking for more: the degree of the
/// gossip mesh. Others still find it.
pub(crate) const HOSTS_ENOUGH: usize = 8;

/// First pause between two walks. Two hosts that start together see each other
/// only after the bootstrap node has heard of both, some ten milliseconds later.
const WALK_FIRST: Duration = Duration::from_millis(250);
/// Longest pause between two walks: a small network that stays small costs
/// each node a few packets a minute.
const WALK_MOST: Duration = Duration::from_secs(60);
/// First pause between two rounds of dialling when nobody is connected.
const DIAL_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause: a bootstrap node that returns is found within a minute.
const DIAL_MOST: Duration = Duration::from_secs(60);
/// How long a node that knows somebody, but not enough hosts, dials the
/// bootstrap nodes at that pace. Its network may just be small.
const DIAL_EAGERLY: Duration = Duration::from_secs(1800);
/// The pause after that: two islands that are given a bridge are one network
/// some minutes later.
const DIAL_PATIENT: Duration = Duration::from_secs(600);
/// How often a bootstrap node sees whether those whom it names still answer: a
/// newcomer that is given dead addresses waits for nothing.
const FEEL_EVERY: Duration = Duration::from_secs(15);
/// Remembered peers that are dialled in one round while nobody is connected:
/// within the burst of dials that is allowed, with two addresses each.
const REMEMBERED_ALONE: usize = 8;
/// The same while somebody is.
const REMEMBERED_FEW: usize = 4;
/// How often one remembered peer is dialled when there is no need: so that those
/// who are remembered are those who are there, and that whoever surrounds a
/// node has to do so for ever.
const REMIND_EVERY: Duration = Duration::from_secs(900);
/// Longest sleep when there is nothing to do.
const IDLE: Duration = Duration::from_secs(300);

/// How many peers are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Peers of our network, of any role.
    pub(crate) peers: usize,
    /// Those of them that are hosts.
    pub(crate) hosts: usize,
}

/// How the peers of a node may have been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// By memory alone: whoever got into it could be all that the node knows.
    Memory,
    /// Also by what a person said, or by mDNS; or there was no memory.
    Others,
}

/// Something to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Dial those of the configured addresses that are not connected.
    DialBootstrap,
    /// Dial a few peers of the routing table that are not connected.
    DialKnown,
    /// Ask the DHT who is near us and who is near a random id.
    Walk,
    /// Dial those remembered peers with whom the node was connected longest.
    DialAnchors,
    /// Dial up to `most` remembered peers that are not connected.
    DialRemembered { most: usize },
}

/// Decides when to look for peers.
#[derive(Debug)]
pub(crate) struct Discovery {
    counts: Counts,
    walk: Backoff,
    walk_at: Instant,
    walked_at: Option<Instant>,
    dial: Backoff,
    dial_at: Instant,
    dialled_at: Option<Instant>,
    /// When the last of the peers left or the first of them came.
    dial_since: Instant,
    /// Whether the known peers are dialled with the next bootstrap nodes.
    dial_known: bool,
    /// Only of a bootstrap node.
    feel_at: Option<Instant>,
    source: Source,
    anchors_due: bool,
    remind_at: Instant,
}

impl Discovery {
    /// Begins with everything due. `source` is [`Source::Memory`] if there are
    /// remembered peers.
    pub(crate) fn new(role: Role, source: Source, now: Instant) -> Self {
        Self {
            counts: Counts::default(),
            walk: Backoff::new(WALK_FIRST, WALK_MOST),
            walk_at: now,
            walked_at: None,
            dial: Backoff::new(DIAL_FIRST, DIAL_MOST),
            dial_at: now,
            dialled_at: None,
            dial_since: now,
            dial_known: false,
            feel_at: match role {
                Role::Host => None,
                Role::Bootstrap => Some(now + FEEL_EVERY),
            },
            source,
            anchors_due: source == Source::Memory,
            remind_at: now + REMIND_EVERY,
        }
    }

    /// A peer has joined that was not found by memory.
    pub(crate) fn met_by_other_means(&mut self) {
        self.source = Source::Others;
    }

    /// Peers came or went.
    pub(crate) fn changed(&mut self, counts: Counts, now: Instant) {
        let grown = counts.peers > self.counts.peers || counts.hosts > self.counts.hosts;
        if grown || (counts.hosts < HOSTS_ENOUGH && self.counts.hosts >= HOSTS_ENOUGH) {
            self.walk.reset();
            // A peer that comes and goes must not make us walk all the time.
            self.walk_at = self.walked_at.map_or(now, |at| (at + WALK_FIRST).max(now));
        }
        if (counts.peers == 0) != self.alone() {
            self.dial_since = now;
        }
        if counts.peers == 0 && self.counts.peers > 0 {
            self.dial.reset();
            self.dial_at = self.dialled_at.map_or(now, |at| (at + DIAL_FIRST).max(now));
        }
        self.counts = counts;
    }

    /// The machine slept or changed its network: whoever was dialled in vain may
    /// answer now.
    pub(crate) fn shaken(&mut self, now: Instant) {
        self.dial.reset();
        self.walk.reset();
        (self.dial_at, self.walk_at, self.dial_since) = (now, now, now);
        self.dial_known = true;
    }

    /// What is due. `jitter` in 0..1 spreads nodes that failed together.
    pub(crate) fn due(&mut self, now: Instant, jitter: f64) -> Vec<Step> {
        let mut steps = Vec::new();
        if std::mem::take(&mut self.anchors_due) {
            steps.push(Step::DialAnchors);
        }
        if self.lacking() && now >= self.dial_at {
            let first = self.dialled_at.is_none();
            self.dialled_at = Some(now);
            self.dial_at = now + self.dial_pause(now, jitter);
            // Knowing one peer is not enough: it may be all that an island has,
            // or someone who would like to be all that we know.
            steps.push(Step::DialBootstrap);
            if self.alone() || std::mem::take(&mut self.dial_known) {
                steps.push(Step::DialKnown);
            }
            // The first turn is the anchors'.
            if !first {
                let most = if self.alone() { REMEMBERED_ALONE } else { REMEMBERED_FEW };
                steps.push(Step::DialRemembered { most });
                self.remind_at = now + REMIND_EVERY;
            }
        }
        if now >= self.remind_at {
            self.remind_at = now + REMIND_EVERY;
            steps.push(Step::DialRemembered { most: 1 });
        }
        if self.looking() && now >= self.walk_at {
            self.walked_at = Some(now);
            self.walk_at = now + self.walk.next_delay(jitter);
            steps.extend([Step::Walk, Step::DialKnown]);
        }
        if let Some(at) = &mut self.feel_at
            && now >= *at
        {
            *at = now + FEEL_EVERY;
            steps.push(Step::DialKnown);
        }
        steps
    }

    /// When [`Self::due`] wants to be asked next.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        if self.anchors_due {
            return now;
        }
        let mut next = (now + IDLE).min(self.remind_at);
        if self.lacking() {
            next = next.min(self.dial_at);
        }
        if self.looking() {
            next = next.min(self.walk_at);
        }
        if let Some(at) = self.feel_at {
            next = next.min(at);
        }
        next
    }

    fn dial_pause(&mut self, now: Instant, jitter: f64) -> Duration {
        let eager = self.dial.next_delay(jitter);
        if self.alone() || now.saturating_duration_since(self.dial_since) < DIAL_EAGERLY {
            eager
        } else {
            DIAL_PATIENT + DIAL_PATIENT.mul_f64(jitter.clamp(0.0, 1.0) / 4.0)
        }
    }

    /// Those whom memory found may all be one.
    fn lacking(&self) -> bool {
        self.counts.hosts < HOSTS_ENOUGH || self.source == Source::Memory
    }

    fn alone(&self) -> bool {
        self.counts.peers == 0
    }

    /// With nobody connected, there is nobody to ask. Once is never too often.
    fn looking(&self) -> bool {
        let few = self.counts.hosts < HOSTS_ENOUGH || self.walked_at.is_none();
        self.counts.peers > 0 && few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs until `end`, noting when each step was due.
    fn run(discovery: &mut Discovery, mut now: Instant, end: Instant) -> Vec<(Instant, Step)> {
        let mut steps = Vec::new();
        while now < end {
            steps.extend(discovery.due(now, 0.0).into_iter().map(|step| (now, step)));
            let next = discovery.next(now);
            assert!(next > now, "it would spin");
            now = next;
        }
        steps
    }

    /// What is done beside the search for those who are remembered.
    fn without_memory(steps: Vec<(Instant, Step)>) -> Vec<(Instant, Step)> {
        let others = |step: &Step| !matches!(step, Step::DialRemembered { .. });
        steps.into_iter().filter(|(_, step)| others(step)).collect()
    }

    fn count(steps: &[(Instant, Step)], step: Step) -> usize {
        steps.iter().filter(|(_, s)| *s == step).count()
    }

    #[test]
    fn a_lone_node_dials_ever_more_rarely_and_never_walks() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        let steps = run(&mut discovery, start, start + Duration::from_secs(600));
        // 0, 1, 3, 7, 15, 31, 63 seconds, and once a minute after that.
        assert_eq!(count(&steps, Step::DialBootstrap), 7 + 8);
        assert_eq!(count(&steps, Step::Walk), 0);
        assert_eq!(steps[0], (start, Step::DialBootstrap));
    }

    #[test]
    fn the_first_peer_starts_a_walk_at_once_and_it_is_repeated_soon() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        discovery.due(start, 0.0);
        let met = start + Duration::from_millis(20);
        discovery.changed(Counts { peers: 1, hosts: 0 }, met);
        let steps = run(&mut discovery, met, met + Duration::from_secs(1));
        assert_eq!(steps[0], (met, Step::Walk));
        assert_eq!(count(&steps, Step::Walk), 3, "0, 250 and 750 ms");
        assert!(count(&steps, Step::DialBootstrap) <= 1);
    }

    #[test]
    fn a_node_with_few_hosts_dials_the_bootstrap_nodes_for_ever() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        discovery.due(start, 0.0);
        let met = start + Duration::from_millis(20);
        discovery.changed(Counts { peers: 1, hosts: 1 }, met);
        let end = met + Duration::from_secs(4 * 3600);
        let steps = run(&mut discovery, met, end);
        let mut times = vec![start];
        times.extend(steps.iter().filter(|(_, s)| *s == Step::DialBootstrap).map(|(at, _)| *at));
        times.push(end);
        for pair in times.windows(2) {
            let eager = pair[0] < start + DIAL_EAGERLY;
            let most = if eager { DIAL_MOST } else { DIAL_PATIENT };
            assert!(pair[1] - pair[0] <= most, "after {:?}", pair[0] - start);
        }
        assert!(times.len() < 70, "{} dials in four hours", times.len());
    }

    #[test]
    fn with_enough_hosts_it_rests_until_one_leaves() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        discovery.changed(Counts { peers: 9, hosts: 8 }, start);
        let steps = run(&mut discovery, start, start + Duration::from_secs(1000));
        let once = [(start, Step::Walk), (start, Step::DialKnown)];
        assert_eq!(without_memory(steps), once, "one walk is never too many");
        let later = start + Duration::from_secs(1000);
        discovery.changed(Counts { peers: 8, hosts: 7 }, later);
        let due = [Step::DialBootstrap, Step::Walk, Step::DialKnown];
        assert_eq!(discovery.due(later, 0.0), due);
    }

    #[test]
    fn a_bootstrap_node_keeps_feeling_for_those_it_names() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Bootstrap, Source::Others, start);
        discovery.changed(Counts { peers: 9, hosts: 9 }, start);
        let steps = run(&mut discovery, start, start + Duration::from_secs(61));
        assert_eq!(count(&steps, Step::DialKnown), 4 + 1, "and once with its only walk");
        assert_eq!(steps.len(), 4 + 2);
    }

    #[test]
    fn a_restarted_node_dials_its_anchors_before_anybody_else() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Memory, start);
        assert_eq!(discovery.next(start), start);
        assert_eq!(
            discovery.due(start, 0.0),
            [Step::DialAnchors, Step::DialBootstrap, Step::DialKnown]
        );
        let steps = run(&mut discovery, start, start + Duration::from_secs(60));
        assert_eq!(count(&steps, Step::DialAnchors), 0, "once");
        assert_eq!(count(&steps, Step::DialRemembered { most: REMEMBERED_ALONE }), 5);
        assert_eq!(count(&steps, Step::DialBootstrap), 5);
    }

    #[test]
    fn those_whom_memory_found_do_not_stop_the_search_for_others() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Memory, start);
        discovery.due(start, 0.0);
        // All that it remembers is there at once, and may be one adversary.
        let met = start + Duration::from_millis(20);
        discovery.changed(Counts { peers: 40, hosts: 40 }, met);
        let steps = run(&mut discovery, met, met + Duration::from_secs(24 * 3600));
        assert_eq!(count(&steps, Step::Walk), 1);
        let dials = count(&steps, Step::DialBootstrap);
        assert!((24 * 4..24 * 8).contains(&dials), "{dials} in a day");
        discovery.met_by_other_means();
        let later = met + Duration::from_secs(24 * 3600);
        let steps = run(&mut discovery, later, later + Duration::from_secs(24 * 3600));
        assert_eq!(without_memory(steps.clone()), []);
        assert_eq!(steps.len(), 24 * 4, "one of those who are remembered every quarter");
    }

    #[test]
    fn losing_all_bootstrap_nodes_for_a_day_costs_a_few_dials() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        discovery.changed(Counts { peers: 12, hosts: 9 }, start);
        run(&mut discovery, start, start + Duration::from_secs(3600));
        let gone = start + Duration::from_secs(3600);
        discovery.changed(Counts { peers: 9, hosts: 9 }, gone);
        let steps = run(&mut discovery, gone, gone + Duration::from_secs(24 * 3600));
        assert_eq!(without_memory(steps), [], "it has enough hosts, and does not miss them");
    }

    #[test]
    fn losing_everybody_dials_at_once() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        run(&mut discovery, start, start + Duration::from_secs(100));
        let later = start + Duration::from_secs(200);
        discovery.changed(Counts { peers: 1, hosts: 1 }, later);
        discovery.changed(Counts::default(), later);
        let remembered = Step::DialRemembered { most: REMEMBERED_ALONE };
        let all = [Step::DialBootstrap, Step::DialKnown, remembered];
        assert_eq!(discovery.due(later, 0.0), all);
    }

    #[test]
    fn a_new_network_is_searched_at_once_however_long_it_was_waited_for() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        run(&mut discovery, start, start + Duration::from_secs(600));
        let later = start + Duration::from_secs(601);
        discovery.shaken(later);
        assert_eq!(discovery.next(later), later);
        let remembered = Step::DialRemembered { most: REMEMBERED_ALONE };
        let all = [Step::DialBootstrap, Step::DialKnown, remembered];
        assert_eq!(discovery.due(later, 0.0), all);
        assert_eq!(discovery.next(later), later + DIAL_FIRST);
    }

    #[test]
    fn a_flapping_peer_causes_four_walks_a_second_at_most() {
        let start = Instant::now();
        let mut discovery = Discovery::new(Role::Host, Source::Others, start);
        let (mut now, mut walks) = (start, 0);
        discovery.changed(Counts { peers: 1, hosts: 1 }, now);
        for _ in 0..1000 {
            now += Duration::from_millis(5);
            discovery.changed(Counts { peers: 2, hosts: 1 }, now);
            walks += discovery.due(now, 0.0).iter().filter(|s| **s == Step::Walk).count();
            discovery.changed(Counts { peers: 1, hosts: 1 }, now);
        }
        assert!(walks <= 21, "{walks} walks in five seconds");
    }
}
