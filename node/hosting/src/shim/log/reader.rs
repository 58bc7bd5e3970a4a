//! Reading the log files back, whatever is in them.

use std::path::Path;

use homehost_protocol::UnixMillis;

use super::{ROTATED_MAX, file_path, shown};
use crate::view::LogLine;

/// A line at the end of the newest file that has no end yet.
pub(super) struct Partial {
    pub(super) seq: u64,
    pub(super) at: UnixMillis,
    pub(super) bytes: Vec<u8>,
}

/// The newest `most` lines, oldest first.
pub(crate) fn tail(dir: &Path, most: usize) -> Vec<LogLine> {
    resume(dir, most).0
}

/// Up to `most` lines after `seq`, oldest first.
pub(crate) fn after(dir: &Path, seq: u64, most: usize) -> Vec<LogLine> {
    let mut lines = Vec::new();
    // Newest file first, until one begins at or before what is wanted.
    for age in 0..=ROTATED_MAX {
        let (mut older, _) = read_file(dir, age);
        let enough = older.first().is_some_and(|line| line.seq <= seq.saturating_add(1));
        older.retain(|line| line.seq > seq);
        older.append(&mut lines);
        lines = older;
        if enough {
            break;
        }
    }
    lines.truncate(most);
    lines
}

/// The newest lines and what follows them.
pub(super) fn resume(dir: &Path, most: usize) -> (Vec<LogLine>, Option<Partial>) {
    let (mut lines, partial) = read_file(dir, 0);
    for age in 1..=ROTATED_MAX {
        if lines.len() >= most {
            break;
        }
        let (mut older, _) = read_file(dir, age);
        older.append(&mut lines);
        lines = older;
    }
    let surplus = lines.len().saturating_sub(most);
    lines.drain(..surplus);
    (lines, partial)
}

fn read_file(dir: &Path, age: usize) -> (Vec<LogLine>, Option<Partial>) {
    let bytes = std::fs::read(file_path(dir, age)).unwrap_or_default();
    let mut pieces: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let rest = pieces.pop().and_then(parse);
    let lines = pieces.into_iter().filter_map(parse);
    let lines = lines.map(|part| LogLine { seq: part.seq, at: part.at, text: shown(&part.bytes) });
    (lines.collect(), rest)
}

/// `<number> <milliseconds> <text>`; anything else is not a line of ours.
fn parse(line: &[u8]) -> Option<Partial> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (seq, at) = (number()?, number()?);
    // A number at the end of the range would leave no room for the next line.
    (seq < u64::MAX / 2).then_some(())?;
    Some(Partial { seq, at: UnixMillis(at), bytes: parts.next()?.to_vec() })
}
