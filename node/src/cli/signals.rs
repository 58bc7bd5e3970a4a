//! What asks a process to end: a person, a terminal that closes, the system.

use homehost_api::ErrorKind;

use crate::exit::{Failure, failure};

/// What is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The node alone: its games go on.
    Node,
    /// The machine, and the games with it. Only Windows tells; elsewhere the
    /// service manager stops the games first (docs/hosts.md).
    #[cfg_attr(unix, expect(dead_code, reason = "a signal does not say why"))]
    Machine,
}

/// Ctrl-C, and everything else that would end the process unheard.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
    #[cfg(windows)]
    break_: tokio::signal::windows::CtrlBreak,
    #[cfg(windows)]
    close: tokio::signal::windows::CtrlClose,
    #[cfg(windows)]
    logoff: tokio::signal::windows::CtrlLogoff,
    #[cfg(windows)]
    shutdown: tokio::signal::windows::CtrlShutdown,
}

impl Signals {
    /// From now on no signal finds the default handler.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn new() -> Result<Self, Failure> {
        Self::listen().map_err(|error| {
            failure(ErrorKind::Internal, format!("failed to listen for signals: {error}"))
        })
    }

    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    #[cfg(windows)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown};
        Ok(Self {
            interrupt: ctrl_c()?,
            break_: ctrl_break()?,
            close: ctrl_close()?,
            logoff: ctrl_logoff()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Resolves at the next one.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
        Ending::Node
    }

    /// Resolves at the next one.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    #[cfg(windows)]
    pub(crate) async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Node,
            _ = self.break_.recv() => Ending::Node,
            _ = self.close.recv() => Ending::Node,
            _ = self.logoff.recv() => Ending::Node,
            _ = self.shutdown.recv() => Ending::Machine,
        }
    }
}
