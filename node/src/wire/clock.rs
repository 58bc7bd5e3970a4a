//! Whether this machine's clock is right, by what others say now: a core
//! without I/O, and a handle on it.
//!
//! Every record carries a date, so a clock that is far off makes a node deaf
//! (what others say seems to be of the future) or mute (what it says does, to
//! others). It cannot set the clock; it says so, and when the clock was set
//! it says everything anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use homehost_api::ClockView;
use homehost_protocol::limits::AHEAD_MAX;
use homehost_protocol::validate::{KeyChains, Verdict, claimed_issue, validate};
use homehost_protocol::{NetworkName, RootId, UnixMillis};
use homehost_runtime::wall_ms;
use homehost_store::{Ledger, StoreError};

/// What is worth speaking of: half of what others put up with.
const OFF: Duration = Duration::from_secs(300);

/// Owners whose word is kept. The median of a few is enough.
const HEARD_MAX: usize = 32;

/// How long a word counts: two of the longest intervals at which hosts speak.
const HEARD_FOR: Duration = Duration::from_secs(20 * 60);

/// A clock that was set, or a machine that slept: by how much the two clocks
/// of a machine part otherwise, in the seconds between two looks.
const JUMP: Duration = Duration::from_secs(60);

/// Both clocks of this machine.
#[derive(Clone, Copy, Debug)]
struct Now {
    at: Instant,
    wall: UnixMillis,
}

impl Now {
    fn read() -> Self {
        Self { at: Instant::now(), wall: UnixMillis(wall_ms()) }
    }
}

/// What is known of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// Nobody said anything.
    Unknown,
    /// As others have it.
    Right,
    /// It goes ahead of others.
    Ahead { by: Duration, owners: usize },
    /// It is behind others.
    Behind { by: Duration, owners: usize },
}

/// What others' dates say.
#[derive(Debug)]
struct Watch {
    last: Now,
    jumps: u64,
    /// By how many milliseconds our clock was ahead of each owner's. Words take
    /// time to come, and old ones may be repeated, so the least counts.
    heard: BTreeMap<RootId, (Instant, i64)>,
}

impl Watch {
    fn new(now: Now) -> Self {
        Self { last: now, jumps: 0, heard: BTreeMap::new() }
    }

    /// How often the clock was set, or the machine slept, until now.
    fn jumps(&mut self, now: Now) -> u64 {
        let awake = now.at.saturating_duration_since(self.last.at);
        let should = self.last.wall.plus(awake);
        if now.wall.since(should).max(should.since(now.wall)) > JUMP {
            self.jumps += 1;
            self.heard.clear();
        }
        self.last = now;
        self.jumps
    }

    fn heard(&mut self, root: RootId, issued: UnixMillis, now: Now) {
        self.jumps(now);
        self.heard.retain(|_, (at, _)| now.at.saturating_duration_since(*at) < HEARD_FOR);
        let ahead = ahead_ms(now.wall, issued);
        if let Some((at, least)) = self.heard.get_mut(&root) {
            (*at, *least) = (now.at, ahead.min(*least));
            return;
        }
        if self.heard.len() >= HEARD_MAX
            && let Some(oldest) =
                self.heard.iter().min_by_key(|(_, (at, _))| *at).map(|(root, _)| *root)
        {
            self.heard.remove(&oldest);
        }
        self.heard.insert(root, (now.at, ahead));
    }

    fn opinion(&mut self, now: Now) -> Opinion {
        self.jumps(now);
        let fresh = |at: &Instant| now.at.saturating_duration_since(*at) < HEARD_FOR;
        let mut ahead: Vec<i64> =
            self.heard.values().filter(|(at, _)| fresh(at)).map(|(_, ahead)| *ahead).collect();
        ahead.sort_unstable();
        // Of two in the middle, the one that has less against this clock.
        let middle = ahead.len().saturating_sub(1) / 2..=ahead.len() / 2;
        let of_middle = middle.filter_map(|at| ahead.get(at));
        let Some(median) = of_middle.min_by_key(|ahead| ahead.unsigned_abs()) else {
            return Opinion::Unknown;
        };
        let (by, owners) = (Duration::from_millis(median.unsigned_abs()), ahead.len());
        match median {
            _ if by <= OFF => Opinion::Right,
            0.. => Opinion::Ahead { by, owners },
            _ => Opinion::Behind { by, owners },
        }
    }
}

fn ahead_ms(wall: UnixMillis, issued: UnixMillis) -> i64 {
    let ms = |time: UnixMillis| i64::try_from(time.0).unwrap_or(i64::MAX);
    ms(wall).saturating_sub(ms(issued))
}

/// What this node knows of its clock. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ClockHandle(Arc<Mutex<Watch>>);

impl ClockHandle {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Watch::new(Now::read()))))
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Presences came by gossip, and so were signed just now. Whoever says that
    /// our clock is wrong must have signed that.
    pub(crate) fn presences(
        &self,
        envelopes: &[Vec<u8>],
        network: &NetworkName,
        chains: &dyn KeyChains,
    ) {
        // All of one message are of one owner.
        let Some(first) = envelopes.first() else { return };
        let Some((root, issued)) = claimed_issue(first) else { return };
        let now = Now::read();
        let off = Duration::from_millis(ahead_ms(now.wall, issued).unsigned_abs()) > OFF;
        let signed = || matches!(validate(first, network, chains, issued), Verdict::Accept(_));
        if !off || signed() {
            self.watch().heard(root, issued, now);
        }
    }

    /// How often the clock was set, or the machine slept, until now.
    pub(crate) fn jumps(&self) -> u64 {
        self.watch().jumps(Now::read())
    }

    pub(crate) fn opinion(&self) -> Opinion {
        self.watch().opinion(Now::read())
    }

    /// What is known of it, for whoever asks; nothing while nobody spoke.
    pub(crate) fn view(&self) -> Option<ClockView> {
        let opinion = self.opinion();
        let owners = match opinion {
            Opinion::Unknown => return None,
            Opinion::Right => 0,
            Opinion::Ahead { owners, .. } | Opinion::Behind { owners, .. } => owners,
        };
        Some(ClockView { problem: problem(opinion), owners })
    }

    /// A sentence when the clock is wrong.
    pub(crate) fn attention(&self) -> Option<String> {
        let problem = problem(self.opinion())?;
        Some(format!(
            "this machine's clock is {problem}: set it (on Linux `timedatectl set-ntp true`), \
             and all goes on by itself"
        ))
    }

    /// The next sequence number of an own record.
    ///
    /// Numbers are dates. Those that were given out while the clock was far
    /// ahead were taken by nobody, so that once others agree with the clock
    /// they begin at it again: the node would otherwise be mute until it has
    /// caught up with them.
    pub(crate) async fn next_seq(
        &self,
        ledger: &Ledger,
        key: &[u8],
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let seq = ledger.next_seq(key, now_ms).await?;
        let ahead = UnixMillis(seq) > UnixMillis(now_ms).plus(AHEAD_MAX);
        if ahead && self.opinion() == Opinion::Right {
            tracing::info!("numbers from when the clock was ahead are given up");
            return ledger.restart_seq(key, now_ms).await;
        }
        Ok(seq)
    }
}

/// How far it is off, and what that means; nothing when it is not.
fn problem(opinion: Opinion) -> Option<String> {
    let (by, way, owners, so) = match opinion {
        Opinion::Unknown | Opinion::Right => return None,
        Opinion::Ahead { by, owners } => {
            (by, "ahead of", owners, "others ignore what this node says")
        }
        Opinion::Behind { by, owners } => {
            (by, "behind", owners, "this node ignores what others say")
        }
    };
    let of = if owners == 1 { "that of another host" } else { "those of other hosts" };
    let by = match by.as_secs() {
        seconds @ 0..7200 => format!("{} minutes", (seconds + 30) / 60),
        seconds @ 7200..172_800 => format!("{} hours", (seconds + 1800) / 3600),
        seconds => format!("{} days", (seconds + 43_200) / 86_400),
    };
    Some(format!("{by} {way} {of}, so {so}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn root(n: u8) -> RootId {
        RootId([n; 32])
    }

    fn later(now: Now, time: Duration) -> Now {
        Now { at: now.at + time, wall: now.wall.plus(time) }
    }

    fn begin() -> (Watch, Now) {
        let now = Now { at: Instant::now(), wall: UnixMillis(1_700_000_000_000) };
        (Watch::new(now), now)
    }

    #[test]
    fn a_day_off_is_seen_either_way_and_forgotten_when_it_is_set_right() {
        let (mut watch, now) = begin();
        assert_eq!(watch.opinion(now), Opinion::Unknown);
        let true_time = UnixMillis(now.wall.0 - 86_400_000);
        watch.heard(root(1), true_time, now);
        watch.heard(root(2), true_time, now);
        assert_eq!(watch.opinion(now), Opinion::Ahead { by: DAY, owners: 2 });
        let set = Now { wall: true_time, ..later(now, Duration::from_secs(1)) };
        assert_eq!(watch.opinion(set), Opinion::Unknown);
        assert_eq!(watch.jumps(set), 1);
        watch.heard(root(1), true_time, set);
        assert_eq!(watch.opinion(set), Opinion::Right);
        assert_eq!(watch.jumps(later(set, DAY)), 1, "time that passes is no jump");
        watch.heard(root(1), later(set, DAY + DAY).wall, later(set, DAY));
        assert_eq!(watch.opinion(later(set, DAY)), Opinion::Behind { by: DAY, owners: 1 });
    }

    #[test]
    fn of_two_who_disagree_the_one_counts_that_is_nearer_to_this_clock() {
        let (mut watch, now) = begin();
        watch.heard(root(1), UnixMillis(now.wall.0 - 86_400_000), now);
        watch.heard(root(2), now.wall, now);
        assert_eq!(watch.opinion(now), Opinion::Right);
    }

    #[test]
    fn one_who_is_wrong_does_not_outvote_the_others_nor_do_repeats() {
        let (mut watch, now) = begin();
        for n in 1..=3 {
            watch.heard(root(n), now.wall, now);
        }
        watch.heard(root(9), now.wall.plus(DAY), now);
        assert_eq!(watch.opinion(now), Opinion::Right);
        // Somebody repeats what all said an hour ago.
        let now = later(now, Duration::from_secs(600));
        for n in 1..=3 {
            watch.heard(root(n), UnixMillis(now.wall.0 - 3_600_000), now);
        }
        assert_eq!(watch.opinion(now), Opinion::Right);
        for n in 0..=255 {
            watch.heard(root(n), now.wall, now);
        }
        assert!(watch.heard.len() <= HEARD_MAX);
        assert_eq!(watch.opinion(later(now, HEARD_FOR)), Opinion::Unknown);
    }
}
