//! What people ask of one server.

use std::sync::Arc;

use super::{Actor, Command, Reply};
use crate::definition::{ServerDefinition, Wanted};
use crate::error::{PowerError, RemoveError};
use crate::lifecycle::{Input, Origin, Phase};
use crate::shim::wire::ToShim;

impl Actor {
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::Start(reply) => {
                if let Some(reply) = self.want(Wanted::Running, reply).await {
                    self.starts.push(reply);
                    self.tell_for_start(Input::Start(Origin::Person));
                }
            }
            Command::Restart(reply) => {
                if let Some(reply) = self.want(Wanted::Running, reply).await {
                    self.tell_for_start(Input::Restart);
                    // After the input: the starts that it cuts short are earlier ones.
                    self.starts.push(reply);
                }
            }
            Command::Stop { forget: true, reply } => {
                if let Some(reply) = self.want(Wanted::Stopped, reply).await {
                    if let Some(error) = self.unreachable() {
                        let _ = reply.send(Err(error));
                        return;
                    }
                    self.stops.push(reply);
                    self.tell(Input::Stop);
                }
            }
            Command::Stop { forget: false, reply } => {
                self.stops.push(reply);
                self.tell(Input::Stop);
            }
            Command::Stdin { line, reply } => {
                let sent = match &self.asks {
                    Some(asks) => asks.try_send(ToShim::Stdin { line }).is_ok(),
                    None => false,
                };
                let _ = reply.send(if sent {
                    Ok(())
                } else {
                    Err(PowerError::WrongState(format!(
                        "the server {} is {} and reads nothing: start it first",
                        self.definition.name, self.state
                    )))
                });
            }
            Command::SetVisibility { visibility, reply } => {
                let mut definition = ServerDefinition::clone(&self.definition);
                definition.visibility = visibility;
                let saved = self.shared.store.save(&definition).await;
                if saved.is_ok() {
                    self.definition = Arc::new(definition);
                }
                let _ = reply.send(saved.map_err(PowerError::from));
            }
            Command::Remove(_) => {}
        }
    }

    /// Stores what a person wants before it is done, so that a daemon that dies
    /// in between goes by it. Hands the reply back if that worked.
    async fn want(
        &mut self,
        wanted: Wanted,
        reply: Reply<PowerError>,
    ) -> Option<Reply<PowerError>> {
        if self.definition.wanted == wanted {
            return Some(reply);
        }
        let mut definition = ServerDefinition::clone(&self.definition);
        definition.wanted = wanted;
        match self.shared.store.save(&definition).await {
            Ok(()) => {
                self.definition = Arc::new(definition);
                Some(reply)
            }
            // A game that is to stop stops, whatever the disk says.
            Err(_) if wanted == Wanted::Stopped => Some(reply),
            Err(failure) => {
                let _ = reply.send(Err(failure.into()));
                None
            }
        }
    }

    /// A server that crashed for good, or that a person tried to start in vain,
    /// waits for a person, also after the next start of the daemon.
    pub(super) async fn give_up(&mut self) {
        let in_vain = std::mem::take(&mut self.in_vain) && self.core.phase() == Phase::Offline;
        let waits = in_vain || self.core.phase() == Phase::Crashed;
        if !waits || self.definition.wanted == Wanted::Stopped {
            return;
        }
        let mut definition = ServerDefinition::clone(&self.definition);
        definition.wanted = Wanted::Stopped;
        // A disk that refuses costs another try at the next start, no more.
        if let Err(error) = self.shared.store.save(&definition).await {
            tracing::warn!(server = %definition.name, "failed to note the crash: {error}");
        }
        self.definition = Arc::new(definition);
    }

    pub(super) fn kill(&mut self, reply: Reply<PowerError>) {
        if self.unreachable().is_some() {
            // Past whatever is in the way; the end shows when it is sought again.
            self.kill_without_shim();
            self.kill_at = None;
        }
        self.stops.push(reply);
        self.tell(Input::Kill);
    }

    /// Whether the server was removed and the actor is to end.
    pub(super) async fn remove(&mut self, reply: Reply<RemoveError>) -> bool {
        let idle =
            matches!(self.core.phase(), Phase::Offline | Phase::Crashed | Phase::Backoff { .. });
        let result = if !idle || self.reattach_at.is_some() {
            Err(RemoveError::Running(self.definition.name.clone()))
        } else {
            self.shared.store.remove(&self.definition.id).await.map_err(RemoveError::from)
        };
        let removed = result.is_ok();
        if removed {
            self.shared.forget(&self.definition.id);
        }
        let _ = reply.send(result);
        removed
    }
}
