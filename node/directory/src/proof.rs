//! When servers are proved, and how often anybody's port may be knocked at.
//!
//! Cores: time and chance are passed in. Who asks and who answers is the
//! composition root's business (spec/mesh §9).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use homehost_protocol::limits::WITNESSES_MAX;
use homehost_protocol::record::reach::ProbeProtocol;
use homehost_protocol::{ServerId, UnixMillis};

/// How often a server is proved anew: its proof holds for six hours, and a
/// player should not meet a door that closed five hours ago.
const EVERY: Duration = Duration::from_secs(3600);

/// How soon after a change, or when more witnesses are here.
const SOON: Duration = Duration::from_secs(12);

/// How soon after nobody got through; twice as long each time.
const RETRY: Duration = Duration::from_secs(60);

/// What decides whether an old proof still says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Port of its query.
    pub port: u16,
    /// Protocol of its query.
    pub protocol: ProbeProtocol,
    /// Own addresses.
    pub ips: Vec<IpAddr>,
    /// When this run of the game answered first.
    pub ready: Option<UnixMillis>,
}

#[derive(Debug)]
struct Last {
    subject: Subject,
    at: Instant,
    next: Instant,
    /// How many could be asked.
    witnesses: usize,
    failures: u32,
}

/// When which server is proved.
#[derive(Debug, Default)]
pub struct ProofPlan(BTreeMap<ServerId, Last>);

impl ProofPlan {
    /// Forgets the servers that are gone.
    pub fn retain(&mut self, mut is_here: impl FnMut(&ServerId) -> bool) {
        self.0.retain(|id, _| is_here(id));
    }

    /// Whether a server should be proved now, by so many witnesses.
    pub fn is_due(&self, id: &ServerId, subject: &Subject, witnesses: usize, now: Instant) -> bool {
        let Some(last) = self.0.get(id) else { return true };
        let soon = now >= last.at + SOON;
        let changed = last.subject != *subject;
        let more = last.witnesses < WITNESSES_MAX && witnesses > last.witnesses;
        now >= last.next || (soon && (changed || more))
    }

    /// A server was asked for; `ok` when somebody got through. `random` is from
    /// 0 to 1, and spreads what began together.
    pub fn done(
        &mut self,
        id: ServerId,
        subject: Subject,
        witnesses: usize,
        ok: bool,
        (now, random): (Instant, f64),
    ) {
        let failures = match self.0.get(&id) {
            Some(last) if !ok => last.failures + 1,
            _ => u32::from(!ok),
        };
        let pause = if ok { EVERY } else { (RETRY * 2_u32.pow(failures.min(7) - 1)).min(EVERY) };
        let next = now + pause.mul_f64(0.9 + 0.2 * random);
        self.0.insert(id, Last { subject, at: now, next, witnesses, failures });
    }
}

/// Ports and addresses that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// How many of them at once.
const ADDRESS_BURST: u32 = 16;

/// Questions to one address: a host of many servers may ask for all of them in
/// a minute or two.
const ADDRESS_PAUSE: Duration = Duration::from_secs(1);

/// How often one port of one address is asked.
const PORT_PAUSE: Duration = Duration::from_secs(10);

/// When a target may be asked again, whoever wants it.
#[derive(Debug, Default)]
pub struct TargetPace {
    /// When each port was asked last.
    ports: BTreeMap<SocketAddr, Instant>,
    /// When each address will have been left alone for long enough.
    addresses: BTreeMap<IpAddr, Instant>,
}

impl TargetPace {
    /// Whether a target may be asked now; if so, it is counted as asked.
    pub fn take(&mut self, target: SocketAddr, now: Instant) -> bool {
        if self.ports.len() >= REMEMBERED_MAX || self.addresses.len() >= REMEMBERED_MAX {
            self.ports.retain(|_, at| *at + PORT_PAUSE > now);
            self.addresses.retain(|_, rested| *rested > now);
            if self.ports.len() >= REMEMBERED_MAX || self.addresses.len() >= REMEMBERED_MAX {
                return false;
            }
        }
        if self.ports.get(&target).is_some_and(|at| *at + PORT_PAUSE > now) {
            return false;
        }
        let rested = self.addresses.entry(target.ip()).or_insert(now);
        let begin = (*rested).max(now);
        if begin > now + ADDRESS_PAUSE * (ADDRESS_BURST - 1) {
            return false;
        }
        *rested = begin + ADDRESS_PAUSE;
        self.ports.insert(target, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(port: u16) -> Subject {
        Subject { port, protocol: ProbeProtocol::Tcp, ips: vec![], ready: None }
    }

    #[test]
    fn a_server_is_proved_hourly_and_soon_after_a_change() {
        let (id, start) = (ServerId([1; 32]), Instant::now());
        let mut plan = ProofPlan::default();
        assert!(plan.is_due(&id, &subject(1), 3, start));
        plan.done(id, subject(1), 3, true, (start, 0.5));
        assert!(!plan.is_due(&id, &subject(1), 3, start + EVERY.mul_f64(0.89)));
        assert!(plan.is_due(&id, &subject(1), 3, start + EVERY.mul_f64(1.1)));
        for (subject, witnesses) in [(subject(2), 3), (subject(1), 4)] {
            assert!(!plan.is_due(&id, &subject, witnesses, start + SOON / 2));
            assert!(plan.is_due(&id, &subject, witnesses, start + SOON));
        }
        // Enough witnesses are enough.
        plan.done(id, subject(1), WITNESSES_MAX, true, (start, 0.5));
        assert!(!plan.is_due(&id, &subject(1), WITNESSES_MAX + 1, start + SOON));
    }

    #[test]
    fn who_is_not_reached_tries_again_ever_more_rarely() {
        let (id, mut now) = (ServerId([1; 32]), Instant::now());
        let mut plan = ProofPlan::default();
        let mut tries = 0;
        let end = now + Duration::from_secs(24 * 3600);
        while now < end {
            if plan.is_due(&id, &subject(1), 3, now) {
                tries += 1;
                plan.done(id, subject(1), 3, false, (now, 0.5));
            }
            now += Duration::from_secs(10);
        }
        assert!((28..40).contains(&tries), "{tries} tries a day");
    }

    #[test]
    fn a_target_is_left_alone_whoever_asks() {
        let start = Instant::now();
        for seed in 0..1000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pace = TargetPace::default();
            let mut now = start;
            let mut asked = BTreeMap::<SocketAddr, Vec<Instant>>::new();
            for _ in 0..200 {
                now += Duration::from_millis(random.u64(0..2000));
                let ip = IpAddr::from([8, 8, 8, random.u8(0..3)]);
                let target = SocketAddr::new(ip, 2000 + random.u16(0..40));
                if pace.take(target, now) {
                    asked.entry(target).or_default().push(now);
                }
            }
            for times in asked.values() {
                assert!(times.windows(2).all(|two| two[1] - two[0] >= PORT_PAUSE), "seed {seed}");
            }
            for last in 0..3 {
                let ip = IpAddr::from([8, 8, 8, last]);
                let mut times: Vec<_> =
                    asked.iter().filter(|(at, _)| at.ip() == ip).flat_map(|(_, t)| t).collect();
                times.sort();
                let burst = ADDRESS_BURST as usize;
                let over =
                    times.windows(burst + 1).any(|many| *many[burst] - *many[0] < ADDRESS_PAUSE);
                assert!(!over, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_host_of_many_servers_is_served_at_once() {
        let mut pace = TargetPace::default();
        let now = Instant::now();
        let ip = IpAddr::from([8, 8, 8, 8]);
        let taken = (0..64).filter(|n| pace.take(SocketAddr::new(ip, 2000 + n), now));
        assert_eq!(taken.count(), ADDRESS_BURST as usize);
    }
}
