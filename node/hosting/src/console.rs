//! The daemon's side of a console: what the shim sent, for whoever reads along.
//!
//! The files are the whole truth; the ring in memory spares reading them. A
//! reader that is slow is fed from the files once the ring has moved on. Only a
//! game that prints more than anyone reads loses lines on the way to a reader,
//! and a line that says how many stands in for them; the files have them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::shim::log::{self, RING_LINES_MAX, Ring};
use crate::view::LogLine;

/// The longest tail that can be asked for; more is read from the files.
pub const TAIL_MAX: usize = 10_000;

/// Lines that wait for one reader; then it is waited for.
const WAITING_MAX: usize = 256;

/// Lines taken from the ring at once.
const BATCH: usize = 256;

/// A reader that is further behind than this is not fed from the files line by
/// line: it would never catch up with a game that goes on like that.
const BEHIND_MAX: u64 = TAIL_MAX as u64;

/// How often a gap in what the shim sends is filled from the files, which may
/// mean to read 20 MiB.
const FILL_PAUSE: Duration = Duration::from_secs(5);

/// One server's console.
#[derive(Debug)]
pub(crate) struct Console {
    logs: PathBuf,
    /// Locked to copy lines in or out, never over an `.await`.
    ring: Mutex<Ring>,
    /// When a gap was filled last.
    filled: Mutex<Option<Instant>>,
    /// Number of the newest line.
    latest: watch::Sender<u64>,
}

impl Console {
    /// Begins with what the files have.
    pub(crate) async fn open(logs: PathBuf) -> Arc<Self> {
        let dir = logs.clone();
        let lines = tokio::task::spawn_blocking(move || log::tail(&dir, RING_LINES_MAX)).await;
        let console = Self {
            logs,
            ring: Mutex::default(),
            filled: Mutex::default(),
            latest: watch::Sender::new(0),
        };
        for line in lines.unwrap_or_default() {
            console.push(line);
        }
        Arc::new(console)
    }

    /// Number of the newest line; 0 before the first.
    pub(crate) fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// Takes in a line, unless it is known already.
    pub(crate) fn push(&self, line: LogLine) {
        let seq = line.seq;
        if seq > self.latest() {
            self.lock().push(line);
            self.latest.send_replace(seq);
        }
    }

    /// The lines after `seq` that are in memory, and whether those are all.
    pub(crate) fn in_memory_after(&self, seq: u64) -> (Vec<LogLine>, bool) {
        let ring = self.lock();
        let all = ring.lines().front().is_none_or(|first| first.seq <= seq.saturating_add(1));
        (ring.after(seq, usize::MAX), all)
    }

    /// The last `tail` lines, then, if wanted, each new one.
    pub(crate) async fn read(
        self: Arc<Self>,
        tail: usize,
        follow: bool,
    ) -> mpsc::Receiver<LogLine> {
        let tail = tail.min(TAIL_MAX);
        let (to, from) = mpsc::channel(WAITING_MAX);
        let until = self.latest();
        let begin = self.tail(tail, until).await;
        tokio::spawn(async move {
            let mut latest = self.latest.subscribe();
            let mut cursor = begin.last().map_or(until, |line| line.seq.max(until));
            for line in begin {
                if to.send(line).await.is_err() {
                    return;
                }
            }
            if !follow {
                return;
            }
            loop {
                let lines = self.next(cursor).await;
                for line in lines {
                    cursor = line.seq;
                    if to.send(line).await.is_err() {
                        return;
                    }
                }
                if self.latest() > cursor {
                    continue;
                }
                tokio::select! {
                    () = to.closed() => return,
                    changed = latest.changed() => if changed.is_err() { return },
                }
            }
        });
        from
    }

    /// The last `most` lines up to `until`.
    async fn tail(&self, most: usize, until: u64) -> Vec<LogLine> {
        let mut lines: Vec<LogLine> = {
            let ring = self.lock();
            let skip = ring.lines().len().saturating_sub(most);
            ring.lines().range(skip..).cloned().collect()
        };
        if lines.len() < most {
            // Only as much is asked of the files as may follow the newest here.
            let dir = self.logs.clone();
            let older = tokio::task::spawn_blocking(move || log::tail(&dir, most)).await;
            let older = older.unwrap_or_default();
            if older.len() > lines.len() {
                lines = older;
            }
        }
        lines.retain(|line| line.seq <= until);
        lines
    }

    async fn next(&self, after: u64) -> Vec<LogLine> {
        {
            let ring = self.lock();
            let Some(first) = ring.lines().front() else { return Vec::new() };
            if first.seq <= after.saturating_add(1) {
                return ring.after(after, BATCH);
            }
            if first.seq - after > BEHIND_MAX {
                return vec![left_out(after, first)];
            }
        }
        // As many as the ring has: the files are not read again for the next few.
        let dir = self.logs.clone();
        let lines =
            tokio::task::spawn_blocking(move || log::after(&dir, after, RING_LINES_MAX)).await;
        let lines = lines.unwrap_or_default();
        // What has been rotated away is gone; go on with what there is.
        if lines.is_empty() { self.lock().after(after, BATCH) } else { lines }
    }

    /// Deals with lines that the shim's ring no longer had when `next` came.
    pub(crate) async fn bridge_gap(&self, next: &LogLine) {
        let fill = {
            let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
            let due = filled.is_none_or(|at| at.elapsed() >= FILL_PAUSE);
            if due {
                *filled = Some(Instant::now());
            }
            due
        };
        if fill {
            self.fill_gap(next.seq).await;
        }
        let latest = self.latest();
        if next.seq > latest.saturating_add(1) {
            self.push(left_out(latest, next));
        }
    }

    /// Reads from the files what came since, as far as memory has room for it.
    async fn fill_gap(&self, until: u64) {
        let (dir, after) = (self.logs.clone(), self.latest());
        let lines = tokio::task::spawn_blocking(move || log::tail(&dir, RING_LINES_MAX)).await;
        let mut lines = lines.unwrap_or_default();
        lines.retain(|line| line.seq > after && line.seq < until);
        if let Some(first) = lines.first()
            && first.seq > after.saturating_add(1)
        {
            self.push(left_out(after, first));
        }
        for line in lines {
            self.push(line);
        }
    }

    /// Reads from the files whatever came since, once a game has ended: its last
    /// lines may not have been sent.
    pub(crate) async fn catch_up(&self) {
        self.fill_gap(u64::MAX).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands in for the lines between the number `after` and `next`.
fn left_out(after: u64, next: &LogLine) -> LogLine {
    let (seq, count) = (next.seq - 1, next.seq - 1 - after);
    let text =
        format!("[{count} lines are left out here: the game prints faster than they are read]");
    LogLine { seq, at: next.at, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homehost_protocol::UnixMillis;

    fn line(seq: u64) -> LogLine {
        LogLine { seq, at: UnixMillis(0), text: seq.to_string() }
    }

    #[tokio::test]
    async fn a_reader_gets_every_line_once() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::open(dir.path().to_owned()).await;
        (1..=5).for_each(|seq| console.push(line(seq)));
        console.push(line(5));
        let mut lines = console.clone().read(2, true).await;
        (6..=600).for_each(|seq| console.push(line(seq)));
        for seq in 4..=600 {
            assert_eq!(lines.recv().await, Some(line(seq)));
        }
        let mut lines = console.read(3, false).await;
        for seq in 598..=600 {
            assert_eq!(lines.recv().await, Some(line(seq)));
        }
        assert_eq!(lines.recv().await, None);
    }

    #[tokio::test]
    async fn what_memory_has_lost_comes_from_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let count = RING_LINES_MAX as u64 + 500;
        let text: String = (1..=count).map(|seq| format!("{seq} 0 {seq}\n")).collect();
        std::fs::write(dir.path().join("console.log"), text).unwrap();
        let console = Console::open(dir.path().to_owned()).await;
        assert_eq!(console.latest(), count);
        assert_eq!(console.next(10).await.first(), Some(&line(11)));
        let mut lines = console.clone().read(RING_LINES_MAX + 100, false).await;
        assert_eq!(lines.recv().await, Some(line(401)));
        let other = Console::open(dir.path().join("none")).await;
        assert!(other.read(9, false).await.recv().await.is_none());
    }
}
