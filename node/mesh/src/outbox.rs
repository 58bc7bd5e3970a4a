//! The way of events to their reader: nothing here ever waits for a slow reader,
//! and what it must not miss is kept for it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::MeshEvent;

/// Events on their way. A burst of a few seconds of gossip fits.
const EVENTS_MAX: usize = 512;

/// Part of the channel that gossip and requests leave to what must not be lost.
const RESERVED: usize = 64;

/// The reader of events is behind, or gone.
#[derive(Debug)]
pub(crate) struct Behind;

/// Queue in front of the event channel.
///
/// Bounded without a constant: it holds at most one `PeerLeft` and one
/// `PeerJoined` for each peer (a newer pair replaces the older), one
/// `GossipJoined`, and the few events of our own listeners.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<MeshEvent>,
    waiting: VecDeque<MeshEvent>,
}

impl Outbox {
    /// An outbox and the end that reads it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<MeshEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { sender, waiting: VecDeque::new() }, receiver)
    }

    /// Queues an event that must arrive.
    pub(crate) fn keep(&mut self, event: MeshEvent) {
        match &event {
            MeshEvent::PeerLeft { node } => {
                let joined = self.waiting.iter().rposition(
                    |w| matches!(w, MeshEvent::PeerJoined { node: other, .. } if other == node),
                );
                // The reader never hears of a peer that came and went meanwhile.
                if let Some(index) = joined {
                    self.waiting.remove(index);
                    return;
                }
            }
            MeshEvent::GossipJoined => {
                self.waiting.retain(|w| !matches!(w, MeshEvent::GossipJoined));
            }
            _ => {}
        }
        self.waiting.push_back(event);
        self.flush();
    }

    /// Sends an event unless the reader is behind; drops it then.
    ///
    /// # Errors
    /// [`Behind`] when it was dropped.
    pub(crate) fn offer(&mut self, event: MeshEvent) -> Result<(), Behind> {
        if !self.waiting.is_empty() || self.sender.capacity() <= RESERVED {
            return Err(Behind);
        }
        self.sender.try_send(event).map_err(|_| Behind)
    }

    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            let Ok(permit) = self.sender.try_reserve() else { return };
            if let Some(event) = self.waiting.pop_front() {
                permit.send(event);
            }
        }
    }

    /// Moves one waiting event on when the reader has room; pends for ever when
    /// nothing waits or nobody reads.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    pub(crate) async fn drive(&mut self) {
        if self.waiting.is_empty() {
            return std::future::pending().await;
        }
        match self.sender.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.waiting.pop_front() {
                    permit.send(event);
                }
            }
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homehost_protocol::{NodeId, Scope};

    fn joined(n: u8) -> MeshEvent {
        MeshEvent::PeerJoined { node: NodeId([n; 32]), scope: Scope::Loopback, holds_replica: true }
    }

    fn left(n: u8) -> MeshEvent {
        MeshEvent::PeerLeft { node: NodeId([n; 32]) }
    }

    #[tokio::test]
    async fn joins_and_leaves_are_never_lost_and_never_pile_up() {
        let (mut outbox, mut reader) = Outbox::new();
        let mut offered = 0;
        while outbox.offer(MeshEvent::GossipJoined).is_ok() {
            offered += 1;
        }
        assert_eq!(offered, EVENTS_MAX - RESERVED);
        for n in 0..=u8::MAX {
            outbox.keep(joined(n));
        }
        // Those that are still waiting come and go a hundred times.
        for _ in 0..100 {
            for n in 100..=u8::MAX {
                outbox.keep(left(n));
                outbox.keep(joined(n));
            }
        }
        assert!(outbox.waiting.len() <= 2 * 256, "{}", outbox.waiting.len());
        assert!(outbox.offer(MeshEvent::GossipJoined).is_err(), "order would be lost");
        let mut alive = std::collections::BTreeSet::new();
        let mut left_to_read = EVENTS_MAX + outbox.waiting.len();
        while left_to_read > 0 {
            left_to_read -= 1;
            match reader.recv().await.unwrap() {
                MeshEvent::PeerJoined { node, .. } => assert!(alive.insert(node)),
                MeshEvent::PeerLeft { node } => assert!(alive.remove(&node)),
                _ => {}
            }
            if !outbox.waiting.is_empty() {
                outbox.drive().await;
            }
        }
        assert_eq!(alive.len(), 256);
    }
}
