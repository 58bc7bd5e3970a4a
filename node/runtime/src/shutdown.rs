//! Shutdown in two stages under one deadline: first nothing new is accepted,
//! then what is under way is cut off.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The side that tasks hold: tells when to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Shutdown {
    /// Resolves at the first stage: accept nothing new and finish.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the first stage was reached.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Runs `work` unless or until the second stage cuts it off.
    pub async fn until_cut<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => None,
            value = work => Some(value),
        }
    }

    /// The side that begins the shutdown.
    pub fn handle(&self) -> ShutdownHandle {
        ShutdownHandle { shutdown: self.clone() }
    }
}

/// The side that begins a shutdown.
#[derive(Clone, Debug)]
pub struct ShutdownHandle {
    shutdown: Shutdown,
}

impl ShutdownHandle {
    /// First stage. A repeat does nothing.
    pub fn stop(&self) {
        self.shutdown.stop.cancel();
    }

    /// First stage at once, second after `deadline` unless `drained` ends before.
    /// Says whether everything drained in time.
    pub async fn drain(&self, drained: impl Future<Output = ()>, deadline: Duration) -> bool {
        self.stop();
        tokio::pin!(drained);
        if tokio::time::timeout(deadline, &mut drained).await.is_ok() {
            return true;
        }
        self.shutdown.cut.cancel();
        // Tasks that watch the cut end now; one that does not is left behind.
        let _ = tokio::time::timeout(Duration::from_secs(1), drained).await;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_drain_is_cut() {
        let shutdown = Shutdown::default();
        let task = {
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                shutdown.stopping().await;
                shutdown.until_cut(std::future::pending::<()>()).await
            })
        };
        let drained = async { assert!(task.await.expect("the task ran").is_none()) };
        assert!(!shutdown.handle().drain(drained, Duration::from_millis(20)).await);
    }

    #[tokio::test]
    async fn what_cannot_even_be_cut_is_left_behind() {
        let stuck = std::future::pending::<()>();
        let handle = Shutdown::default().handle();
        let drain = handle.drain(stuck, Duration::from_millis(20));
        let drained = tokio::time::timeout(Duration::from_secs(30), drain).await;
        assert!(!drained.expect("it ends all the same"));
    }
}
