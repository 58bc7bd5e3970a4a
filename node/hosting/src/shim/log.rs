//! The console of a game on its way to the log: lines with numbers, a bounded
//! ring in memory, and files that are rotated.
//!
//! A line in a file is `<number> <milliseconds> <text>`. What was read from the
//! game is written before anything else is done with it, unfinished lines
//! included, so that a shim that dies leaves nothing behind that only it knew.
//! Numbers count up over the whole life of a server.

mod reader;
mod text;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use homehost_protocol::UnixMillis;

use super::files::private;
use crate::view::LogLine;

pub(crate) use reader::{after, tail};
pub(crate) use text::{shown, stripped};

/// A line longer than this is cut: no console is read in such lines.
pub(crate) const LINE_BYTES_MAX: usize = 8 * 1024;

/// What marks a line that was cut.
const CUT: &[u8] = b" [cut]";

/// Bytes of one log file. Five files bound a server's log to 20 MiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Rotated files that are kept beside the current one.
const ROTATED_MAX: usize = 4;

/// Lines that are kept in memory for a daemon that re-attaches. A busy console
/// prints some ten lines a second: that is three minutes, and the files have more.
pub(crate) const RING_LINES_MAX: usize = 2_000;

/// Bytes that the ring may take.
pub(crate) const RING_BYTES_MAX: usize = 512 * 1024;

/// Path of the n-th newest log file; 0 is the current one.
fn file_path(dir: &Path, age: usize) -> PathBuf {
    match age {
        0 => dir.join("console.log"),
        _ => dir.join(format!("console.{age}.log")),
    }
}

/// The newest lines, bounded by count and bytes.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

impl Ring {
    pub(crate) fn push(&mut self, line: LogLine) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > RING_LINES_MAX || self.bytes > RING_BYTES_MAX {
            match self.lines.pop_front() {
                Some(line) => self.bytes -= line.text.len(),
                None => break,
            }
        }
    }

    pub(crate) fn lines(&self) -> &VecDeque<LogLine> {
        &self.lines
    }

    /// Up to `most` lines after `seq`.
    pub(crate) fn after(&self, seq: u64, most: usize) -> Vec<LogLine> {
        let from = self.lines.partition_point(|line| line.seq <= seq);
        self.lines.range(from..).take(most).cloned().collect()
    }
}

/// Where a game's output ends up.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    file: Option<File>,
    file_bytes: u64,
    ring: Ring,
    next_seq: u64,
    /// The line that has no end yet: when it began and what it has.
    partial: Option<(UnixMillis, Vec<u8>)>,
    last_line: Option<String>,
    /// The last write failed, perhaps in the middle of a line.
    torn: bool,
    trouble: Option<String>,
}

impl Log {
    /// Goes on where the files end.
    pub(super) fn open(dir: &Path) -> Self {
        let mut ring = Ring::default();
        let (lines, partial) = reader::resume(dir, RING_LINES_MAX);
        let last = lines.last().map(|line| line.seq);
        // An unfinished line of an earlier run or shim has a number already.
        let next_seq = partial.as_ref().map_or(last.map_or(1, |seq| seq + 1), |part| part.seq);
        let last_line = lines.iter().rev().find_map(|line| last_words(&line.text));
        lines.into_iter().for_each(|line| ring.push(line));
        let mut log = Self {
            dir: dir.to_owned(),
            file: None,
            file_bytes: 0,
            ring,
            next_seq,
            partial: partial.map(|part| (part.at, part.bytes)),
            last_line,
            torn: false,
            trouble: None,
        };
        log.reopen();
        log
    }

    /// Ends an unfinished line and forgets the last words: a new run begins.
    /// Says the number that its first line will have.
    pub(super) fn begin_run(&mut self, least: u64) -> u64 {
        self.end();
        self.begin_at(least);
        self.last_line = None;
        self.next_seq
    }

    /// Gives no line a number below this one, whatever became of the files: who
    /// has seen a number takes a second line with it for a repeat.
    pub(super) fn begin_at(&mut self, least: u64) {
        if self.partial.is_none() {
            self.next_seq = self.next_seq.max(least);
        }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The last line of this run that says anything.
    pub(super) fn last_line(&self) -> Option<&str> {
        self.last_line.as_deref()
    }

    /// Why lines are not being written, if they are not.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Takes in what the game printed.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: UnixMillis) {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (piece, rest) = match end {
                Some(end) => (&bytes[..end], &bytes[end + 1..]),
                None => (bytes, &bytes[..0]),
            };
            bytes = rest;
            self.take_piece(piece, now, &mut out);
            if end.is_some() {
                out.push(b'\n');
                self.finish_line();
                // Once for all lines, unless the file is full.
                if self.file_bytes + out.len() as u64 >= FILE_BYTES_MAX {
                    self.write(&out);
                    out.clear();
                    self.rotate();
                }
            }
        }
        self.write(&out);
    }

    /// Ends an unfinished line.
    pub(super) fn end(&mut self) {
        if self.partial.is_some() {
            self.finish_line();
            self.write(b"\n");
        }
    }

    fn take_piece(&mut self, piece: &[u8], now: UnixMillis, out: &mut Vec<u8>) {
        let seq = self.next_seq;
        let (_, partial) = self.partial.get_or_insert_with(|| {
            out.extend_from_slice(format!("{seq} {} ", now.0).as_bytes());
            (now, Vec::new())
        });
        let room = LINE_BYTES_MAX.saturating_sub(partial.len());
        if piece.len() <= room {
            partial.extend_from_slice(piece);
            out.extend_from_slice(piece);
        } else if partial.len() < LINE_BYTES_MAX + CUT.len() {
            for part in [&piece[..room], CUT] {
                partial.extend_from_slice(part);
                out.extend_from_slice(part);
            }
        }
    }

    fn finish_line(&mut self) {
        let Some((at, bytes)) = self.partial.take() else { return };
        let text = shown(&bytes);
        if let Some(words) = last_words(&text) {
            self.last_line = Some(words);
        }
        self.ring.push(LogLine { seq: self.next_seq, at, text });
        self.next_seq += 1;
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.reopen();
        }
        let Some(file) = &mut self.file else { return };
        // What could not be written whole must not swallow the next line.
        let written = if self.torn { file.write_all(b"\n") } else { Ok(()) };
        match written.and_then(|()| file.write_all(bytes)) {
            Ok(()) => {
                self.file_bytes += bytes.len() as u64;
                self.trouble = None;
                self.torn = false;
            }
            Err(error) => {
                self.torn = true;
                self.failed(&error);
            }
        }
    }

    fn reopen(&mut self) {
        let path = file_path(&self.dir, 0);
        match private().create(true).append(true).open(path) {
            Ok(file) => {
                self.file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
                self.file = Some(file);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.trouble = Some(format!(
            "the console cannot be written to {} ({error}): free some space or correct its rights",
            self.dir.display()
        ));
    }

    fn rotate(&mut self) {
        self.file = None;
        for age in (0..ROTATED_MAX).rev() {
            // A file that is missing or cannot be moved costs old lines only.
            let _ = std::fs::rename(file_path(&self.dir, age), file_path(&self.dir, age + 1));
        }
        self.reopen();
    }
}

/// A line as part of a sentence; `None` when it is blank.
fn last_words(text: &str) -> Option<String> {
    /// What fits a sentence that a person reads.
    const WORDS_MAX: usize = 200;
    let plain = stripped(text);
    let plain = plain.trim();
    (!plain.is_empty())
        .then(|| plain.chars().filter(|char| !char.is_control()).take(WORDS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000);

    fn texts(log: &Log) -> Vec<String> {
        log.ring().lines().iter().map(|line| line.text.clone()).collect()
    }

    #[test]
    fn lines_are_numbered_across_pieces_and_runs() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        for piece in ["on", "e\r\ntwo\n\nfo", "ur"] {
            log.feed(piece.as_bytes(), NOW);
        }
        assert_eq!(texts(&log), ["one", "two", ""]);
        drop(log);
        // The next shim finds the unfinished line and goes on with it.
        let mut log = Log::open(dir.path());
        log.feed(b"th\nfive\n", NOW);
        assert_eq!(texts(&log), ["one", "two", "", "fourth", "five"]);
        let seqs: Vec<_> = log.ring().lines().iter().map(|line| line.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5]);
        assert_eq!(tail(dir.path(), 2), log.ring().after(3, 9));
        assert_eq!(log.begin_run(0), 6);
        assert_eq!(log.last_line(), None);
    }

    #[test]
    fn numbers_go_on_without_the_files_and_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        assert_eq!(log.begin_run(41), 41);
        log.feed(b"one\n", NOW);
        // A disk that is full in the middle of a line.
        log.write(b"42 1000 to");
        log.torn = true;
        log.feed(b"two\n", NOW);
        let last = tail(dir.path(), 1).remove(0);
        assert_eq!((last.seq, last.text.as_str()), (42, "two"));
    }

    #[test]
    fn long_lines_are_cut_with_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        for _ in 0..20 {
            log.feed(&[b'x'; 1_000], NOW);
        }
        log.feed(b"\nnext\n", NOW);
        let texts = texts(&log);
        assert_eq!(texts[0].len(), LINE_BYTES_MAX + CUT.len());
        assert!(texts[0].ends_with("x [cut]") && texts[1] == "next");
        assert_eq!(tail(dir.path(), 9).len(), 2);
    }

    #[test]
    fn hostile_bytes_are_survived() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut log = Log::open(dir.path());
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..rng.usize(..3_000)).map(|_| rng.u8(..)).collect();
            log.feed(&bytes, NOW);
        }
        log.end();
        let expected: Vec<_> = log.ring().lines().iter().cloned().collect();
        drop(log);
        assert_eq!(tail(dir.path(), expected.len()), expected);
        // And files that are anything at all.
        let bytes: Vec<u8> = (0..100_000).map(|_| rng.u8(..)).collect();
        std::fs::write(file_path(dir.path(), 0), bytes).unwrap();
        let mut log = Log::open(dir.path());
        log.feed(b"still works\n", NOW);
    }

    #[test]
    fn files_are_rotated_and_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        let line = [&[b'y'; 4_000][..], b"\n"].concat();
        let count = FILE_BYTES_MAX / 4_000 * 3 / 2;
        for _ in 0..count {
            log.feed(&line, NOW);
        }
        assert!(file_path(dir.path(), 1).exists());
        let lines = tail(dir.path(), usize::MAX);
        assert_eq!(lines.len() as u64, count);
        assert!(lines.iter().zip(1..).all(|(line, seq)| line.seq == seq));
        let gap = after(dir.path(), 3, 2);
        assert_eq!(gap.iter().map(|line| line.seq).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut ring = Ring::default();
        for seq in 0..5_000 {
            ring.push(LogLine { seq, at: NOW, text: "z".repeat(300) });
        }
        assert!(ring.bytes <= RING_BYTES_MAX && ring.lines.len() <= RING_LINES_MAX);
        assert_eq!(ring.after(4_997, 9).len(), 2);
        assert_eq!(ring.after(4_999, 9).len(), 0);
    }
}
