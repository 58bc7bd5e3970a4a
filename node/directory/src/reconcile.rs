//! Set reconciliation: which records has a peer that we lack (spec/directory §5).
//!
//! Range-based, by the negentropy protocol, version 1: both sides sort what they
//! hold by date of issue and id, compare fingerprints of ranges, and split the
//! ranges that differ until they are short enough to be listed. The asker keeps
//! a [`Session`]; the asked node keeps nothing but a [`Snapshot`], which may
//! serve any number of askers.
//!
//! Pure: no I/O, no clock, no randomness. Fetching what is missing, and judging
//! it, is the caller's.

mod plan;
mod wire;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use homehost_protocol::limits::{RECONCILE_BYTES_MAX, REPLICA_ROWS_MAX};
use homehost_protocol::{RecId, UnixMillis};
use negentropy::{Error, Id, Negentropy, NegentropyStorageBase as _, NegentropyStorageVector};
use thiserror::Error;

/// Messages that one session sends at most. Two full replicas that share nothing
/// need about twenty; one step costs a round trip and some milliseconds of work.
pub const STEPS_MAX: usize = 64;

/// Records that one session may find missing: two full replicas. A peer that
/// claims more invents them.
pub const NEEDS_MAX: usize = 2 * REPLICA_ROWS_MAX;

/// Ranges that may be left open at one time: 16 for every 32 records of a full
/// replica that share nothing, and a few messages more.
const OPEN_MAX: usize = REPLICA_ROWS_MAX + 4 * RANGES_MAX;

/// Why a message was refused. All but [`Self::Over`] are the peer's fault.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReconcileError {
    /// More bytes than [`RECONCILE_BYTES_MAX`].
    #[error("the peer's message of {0} bytes is too long")]
    TooLong(usize),
    /// Another version of the protocol.
    #[error("the peer's message is not of version 1")]
    Version,
    /// Cut short, out of order, or otherwise not of the protocol.
    #[error("the peer's message is malformed")]
    Malformed,
    /// More ranges than [`RANGES_MAX`].
    #[error("the peer's message has too many ranges")]
    TooManyRanges,
    /// The peer claims to have more records than [`NEEDS_MAX`].
    #[error("the peer claims more records than a directory holds")]
    TooManyNeeds,
    /// Not finished after [`STEPS_MAX`] messages.
    #[error("the peer does not come to an end")]
    TooManySteps,
    /// The peer's answer leads back to the question.
    #[error("the peer's answer makes no progress")]
    NoProgress,
    /// The session has ended already.
    #[error("the reconciliation is over already")]
    Over,
}

pub use plan::{Ended, Plan};
pub use wire::RANGES_MAX;
use wire::{Bound, Range};

/// No limit to a message, in negentropy's words. What it then writes grows with
/// the number of records only: 16 fingerprints for every 32 of them, or their
/// ids, are at most 2 MB for a full replica.
const UNLIMITED: usize = 0;

/// The records that are compared, as they were at one moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    items: Arc<NegentropyStorageVector>,
}

impl Snapshot {
    /// Of records and their dates of issue, in any order. The date is taken from
    /// the record, so that both sides sort alike.
    pub fn new(items: impl IntoIterator<Item = (UnixMillis, RecId)>) -> Self {
        let items = items.into_iter();
        let mut storage = NegentropyStorageVector::with_capacity(items.size_hint().0);
        for (issued, id) in items {
            // The last instant of all stands for infinity on the wire.
            let issued = issued.0.min(u64::MAX - 1);
            storage.insert(issued, Id::from_byte_array(id.0)).expect("it is not sealed yet");
        }
        storage.seal().expect("it is not sealed yet");
        Self { items: Arc::new(storage) }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.items.size().expect("it is sealed")
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Answers a message of an asker, in at most [`RECONCILE_BYTES_MAX`] bytes;
    /// empty when there is nothing more to say. The work grows with the number
    /// of records and the length of the message, never with their product.
    ///
    /// # Errors
    /// See [`ReconcileError`]; the asker is to blame.
    pub fn answer(&self, message: &[u8]) -> Result<Vec<u8>, ReconcileError> {
        self.answer_within(message, RECONCILE_BYTES_MAX)
    }

    fn answer_within(&self, message: &[u8], most: usize) -> Result<Vec<u8>, ReconcileError> {
        wire::check(message)?;
        let mut answer = self.side(most).reconcile(message).map_err(refused)?;
        if answer.len() == 1 {
            answer.clear();
        }
        Ok(answer)
    }

    /// The ids of a range.
    fn ids(&self, lower: Bound, upper: Bound) -> Vec<Id> {
        let lower = self.items.find_lower_bound(0, self.len(), &lower.into());
        let upper = self.items.find_lower_bound(lower, self.len(), &upper.into());
        let at = |at| self.items.get_item(at).ok().flatten();
        (lower..upper).filter_map(at).map(|item| item.id).collect()
    }

    /// One side that writes at most so many bytes at a time.
    fn side(&self, most: usize) -> Negentropy<'_, NegentropyStorageVector> {
        Negentropy::borrowed(&*self.items, most as u64).expect("the limit is above the least")
    }
}

fn refused(_: Error) -> ReconcileError {
    ReconcileError::Malformed
}

/// What one answer has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Records that the peer says it has and that are not in the snapshot, in
    /// the order of ids, none of them twice in a session. A liar may name
    /// records that do not exist, or that we have.
    pub need: Vec<RecId>,
    /// How many records more are known to be here and not there.
    pub have: usize,
    /// What to send next; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// The asking side of one reconciliation.
#[derive(Debug)]
pub struct Session {
    snapshot: Snapshot,
    most: usize,
    /// The message last sent; `None` once the session is over.
    sent: Option<Vec<u8>>,
    /// What is to be compared after that, in order. A message of our own that is
    /// too long is said in several: cut by negentropy, it would throw away what
    /// is known of the ranges behind the cut.
    open: VecDeque<Range>,
    steps: usize,
    needed: HashSet<RecId>,
    had: HashSet<RecId>,
}

impl Session {
    /// Begins; returns the first message as well.
    pub fn begin(snapshot: Snapshot) -> (Self, Vec<u8>) {
        Self::begin_within(snapshot, RECONCILE_BYTES_MAX)
    }

    fn begin_within(snapshot: Snapshot, most: usize) -> (Self, Vec<u8>) {
        let first = snapshot.side(UNLIMITED).initiate().expect("a new side of a sealed set");
        let session = Self {
            snapshot,
            most,
            sent: Some(first.clone()),
            open: VecDeque::new(),
            steps: 1,
            needed: HashSet::new(),
            had: HashSet::new(),
        };
        (session, first)
    }

    /// Takes the peer's answer to the message before.
    ///
    /// # Errors
    /// See [`ReconcileError`]; the session is over then. What earlier steps have
    /// told stays as true as it was.
    pub fn step(&mut self, answer: &[u8]) -> Result<Step, ReconcileError> {
        let sent = self.sent.take().ok_or(ReconcileError::Over)?;
        let mut step = Step::default();
        if !answer.is_empty() {
            self.compare(answer, &sent, &mut step)?;
        }
        if self.open.is_empty() {
            return Ok(step);
        }
        // What differs is answered at greater length than it is asked, and what
        // does not fit the answer is asked once more.
        let (message, ranges) = wire::message(&self.open, self.most / 4 * 3);
        self.open.drain(..ranges);
        if message == sent {
            return Err(ReconcileError::NoProgress);
        }
        if self.steps == STEPS_MAX {
            return Err(ReconcileError::TooManySteps);
        }
        self.steps += 1;
        self.sent = Some(message.clone());
        step.next = Some(message);
        Ok(step)
    }

    /// Finds out what an answer tells, and what it leaves open.
    fn compare(
        &mut self,
        answer: &[u8],
        sent: &[u8],
        step: &mut Step,
    ) -> Result<(), ReconcileError> {
        let rest = wire::check(answer)?;
        let mut answer = answer;
        let mut again = Vec::new();
        if let Some(rest) = rest {
            match self.unanswered(sent, rest.lower) {
                Some(ranges) => {
                    again = ranges;
                    answer = &answer[..rest.at];
                }
                // The peer compares all that is behind, and so do we.
                None => self.open.retain(|range| range.lower.is_below(&rest.lower)),
            }
        }
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let mut side = self.snapshot.side(UNLIMITED);
        side.set_initiator();
        let more = side.reconcile_with_ids(answer, &mut have, &mut need).map_err(refused)?;
        let more = more.map(|more| wire::ranges(&more)).unwrap_or_default();
        for range in more.into_iter().chain(again).rev() {
            self.open.push_front(range);
        }
        if self.open.len() > OPEN_MAX {
            return Err(ReconcileError::TooManyRanges);
        }

        step.need = need.into_iter().map(|id| RecId(id.to_bytes())).collect();
        step.need.retain(|id| self.needed.insert(*id));
        step.need.sort_unstable();
        if self.needed.len() > NEEDS_MAX {
            return Err(ReconcileError::TooManyNeeds);
        }
        let had = self.had.len();
        self.had.extend(have.into_iter().map(|id| RecId(id.to_bytes())));
        step.have = self.had.len() - had;
        Ok(())
    }

    /// The ranges that were asked for and lie behind the place where the answer
    /// was cut for its length: they are asked for again, since the peer's one
    /// fingerprint of them all tells less. `None` if it was not cut there.
    fn unanswered(&self, sent: &[u8], cut: Bound) -> Option<Vec<Range>> {
        let mut ranges = wire::ranges(sent);
        ranges.retain(|range| cut.is_below(&range.upper));
        if let Some(first) = ranges.first_mut()
            && first.lower.is_below(&cut)
        {
            if !first.is_list() {
                // A range without an upper end that was split.
                return None;
            }
            // Cut in the middle of a list: the ids behind are still to be told.
            *first = Range::of_ids(cut, first.upper, &self.snapshot.ids(cut, first.upper));
        }
        Some(ranges)
    }
}

#[cfg(test)]
mod tests;
