//! Named tasks whose end is never unseen.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::{Shutdown, ShutdownHandle};

/// A task that panicked or returned an error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task {name} failed: {reason}")]
pub struct TaskFailure {
    /// The task's name.
    pub name: &'static str,
    /// What it said.
    pub reason: String,
}

/// The tasks of one process. When one fails, the whole process shuts down in
/// order: half a node is worse than none, and its supervisor starts it anew.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    failure: Arc<Mutex<Option<TaskFailure>>>,
}

impl Tasks {
    /// Tells tasks when to stop.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Begins the shutdown.
    pub fn handle(&self) -> ShutdownHandle {
        self.shutdown.handle()
    }

    /// Runs a task under a name, in a span of that name.
    pub fn spawn<E: std::fmt::Display>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let inner: JoinHandle<Result<(), String>> = tokio::spawn(
            async move { task.await.map_err(|error| error.to_string()) }
                .instrument(tracing::info_span!("task", name)),
        );
        let this = self.clone();
        self.tracker.spawn(async move {
            let reason = match inner.await {
                Ok(Ok(())) => return,
                Ok(Err(reason)) => reason,
                Err(error) if error.is_panic() => "panicked".to_owned(),
                Err(_) => return,
            };
            let failure = TaskFailure { name, reason };
            tracing::error!("{failure}");
            this.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            this.shutdown.handle().stop();
        });
    }

    /// Waits until every task has ended; call it after the stop.
    pub async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<TaskFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_panic_stops_the_others_and_is_remembered() {
        let tasks = Tasks::default();
        let shutdown = tasks.shutdown();
        tasks.spawn("waits", async move {
            shutdown.stopping().await;
            Ok::<_, Infallible>(())
        });
        tasks.spawn("breaks", async {
            if true {
                panic!("on purpose");
            }
            Ok::<_, Infallible>(())
        });
        tasks.drained().await;
        assert_eq!(tasks.failure().expect("a failure").name, "breaks");
    }
}
