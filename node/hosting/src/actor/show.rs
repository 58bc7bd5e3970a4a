//! What readers see of one server.

use std::time::Instant;

use homehost_protocol::UnixMillis;
use homehost_runtime::wall_ms;

use super::Actor;
use crate::lifecycle::Phase;
use crate::view::{ServerView, State};

impl Actor {
    /// Shows readers the server as it is now.
    pub(super) fn publish(&mut self) {
        let state = match self.core.phase() {
            Phase::Offline => State::Offline,
            Phase::Starting => State::Starting,
            Phase::Running => State::Running,
            Phase::Stopping => State::Stopping,
            Phase::Crashed => State::Crashed,
            Phase::Backoff { until } => match self.state {
                // Computed once, or it would tremble with the clock.
                State::Backoff { until } => State::Backoff { until },
                _ => {
                    let left = until.saturating_duration_since(Instant::now());
                    State::Backoff { until: UnixMillis(wall_ms()).plus(left) }
                }
            },
        };
        if state != self.state {
            self.state = state;
            self.since = UnixMillis(wall_ms());
        }
        let polled = self.polls.seen();
        let problem = self.core.problem().map(str::to_owned);
        let problem = problem.or_else(|| self.trouble.clone()).or_else(|| self.polls.problem());
        self.shared.publish(ServerView {
            state,
            since: self.since,
            pid: self.status.as_ref().map(|status| status.pid),
            ports: self.definition.assigned_ports(),
            players: polled.players,
            slots: polled.slots.or(self.definition.slots),
            ready: self.ready_at.is_some(),
            ready_at: self.ready_at,
            restarts: self.core.restarts(),
            last_exit: self.last_exit.clone(),
            problem,
            note: self.note.clone(),
            stopping_by: self.status.as_ref().and_then(|status| status.rung.clone()),
            answered: polled.answered,
            definition: self.definition.clone(),
        });
    }
}
