//! Dials from the port that is listened on, where the system lets them.
//!
//! Such a dial shows the far end, and every router on the way, the port at which
//! we can be reached; hole punching needs it. Some systems refuse it, as Wine
//! does (`WSAEACCES`, 10013), or a firewall that goes by ports. Then the same
//! dial is made from a new port, and so are all later ones. A port that is in
//! use for one far end only, as by a connection that lingers, says nothing of
//! later dials.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::Multiaddr;
use libp2p::core::transport::{
    DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
};

/// A transport that falls back to new ports.
#[derive(Debug)]
pub(crate) struct ReuseOrNew<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    /// Locked for single calls, never over an `.await`.
    transport: Mutex<T>,
    /// Whether reuse was refused once: it is said once, too.
    refused: AtomicBool,
}

impl<T> Shared<T> {
    fn transport(&self) -> MutexGuard<'_, T> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> ReuseOrNew<T> {
    pub(crate) fn new(transport: T) -> Self {
        let transport = Mutex::new(transport);
        Self { shared: Arc::new(Shared { transport, refused: AtomicBool::new(false) }) }
    }
}

/// Whether a dial failed for the port that it was to come from: nobody may have
/// it twice, or not for this. A far end that refuses has other errors.
fn is_refused_here(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse)
}

impl<T> Transport for ReuseOrNew<T>
where
    T: Transport<Error = io::Error> + Unpin + Send + 'static,
    T::Dial: Send + 'static,
    T::Output: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<T::Output>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.shared.transport().listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.shared.transport().remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        mut opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        if self.shared.refused.load(Ordering::Relaxed) {
            opts.port_use = PortUse::New;
        }
        let first = self.shared.transport().dial(address.clone(), opts)?;
        if opts.port_use == PortUse::New {
            return Ok(first.boxed());
        }
        let shared = self.shared.clone();
        Ok(async move {
            let error = match first.await {
                Err(error) if is_refused_here(&error) => error,
                done => return done,
            };
            let anew = DialOpts { port_use: PortUse::New, ..opts };
            let second = shared.transport().dial(address, anew);
            let second = second.map_err(|error| match error {
                TransportError::Other(error) => error,
                TransportError::MultiaddrNotSupported(_) => io::ErrorKind::Unsupported.into(),
            })?;
            let stream = second.await?;
            // Only now is it known that it was for the port.
            let for_good = error.kind() == io::ErrorKind::PermissionDenied;
            if for_good && !shared.refused.swap(true, Ordering::Relaxed) {
                tracing::info!(%error, "dials leave from new ports: this system refuses others");
            }
            Ok(stream)
        }
        .boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let mut transport = self.shared.transport();
        Pin::new(&mut *transport).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use libp2p::core::Endpoint;

    use super::*;

    /// Refuses reuse with a kind of error, and counts what is dialled.
    #[derive(Default)]
    struct Refuses {
        reuse: Option<io::ErrorKind>,
        new: Option<io::ErrorKind>,
        dials: Vec<PortUse>,
    }

    impl Transport for Refuses {
        type Output = PortUse;
        type Error = io::Error;
        type ListenerUpgrade = Ready<io::Result<PortUse>>;
        type Dial = Ready<io::Result<PortUse>>;

        fn listen_on(
            &mut self,
            _: ListenerId,
            _: Multiaddr,
        ) -> Result<(), TransportError<io::Error>> {
            Ok(())
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(
            &mut self,
            _: Multiaddr,
            opts: DialOpts,
        ) -> Result<Self::Dial, TransportError<io::Error>> {
            self.dials.push(opts.port_use);
            let refusal = if opts.port_use == PortUse::Reuse { self.reuse } else { self.new };
            Ok(ready(refusal.map_or(Ok(opts.port_use), |kind| Err(kind.into()))))
        }

        fn poll(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
            Poll::Pending
        }
    }

    const REUSE: DialOpts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };

    async fn dial(transport: &mut ReuseOrNew<Refuses>) -> io::Result<PortUse> {
        transport.dial("/ip4/127.0.0.1/tcp/1".parse().unwrap(), REUSE).unwrap().await
    }

    fn dials(transport: &ReuseOrNew<Refuses>) -> Vec<PortUse> {
        std::mem::take(&mut transport.shared.transport().dials)
    }

    #[tokio::test]
    async fn a_refused_port_is_replaced_at_once_and_for_good() {
        let refuses = Some(io::ErrorKind::PermissionDenied);
        let mut transport = ReuseOrNew::new(Refuses { reuse: refuses, ..Refuses::default() });
        assert_eq!(dial(&mut transport).await.unwrap(), PortUse::New);
        assert_eq!(dials(&transport), [PortUse::Reuse, PortUse::New]);
        assert_eq!(dial(&mut transport).await.unwrap(), PortUse::New);
        assert_eq!(dials(&transport), [PortUse::New]);
    }

    #[tokio::test]
    async fn a_port_that_lingers_is_tried_again_next_time() {
        let refuses = Some(io::ErrorKind::AddrInUse);
        let mut transport = ReuseOrNew::new(Refuses { reuse: refuses, ..Refuses::default() });
        for _ in 0..2 {
            assert_eq!(dial(&mut transport).await.unwrap(), PortUse::New);
            assert_eq!(dials(&transport), [PortUse::Reuse, PortUse::New]);
        }
    }

    #[tokio::test]
    async fn a_far_end_that_refuses_says_nothing_of_the_port() {
        let refuses = Some(io::ErrorKind::ConnectionRefused);
        let mut transport = ReuseOrNew::new(Refuses { reuse: refuses, ..Refuses::default() });
        for _ in 0..2 {
            assert_eq!(
                dial(&mut transport).await.unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused
            );
            assert_eq!(dials(&transport), [PortUse::Reuse]);
        }
    }

    #[tokio::test]
    async fn a_place_that_may_not_be_dialled_at_all_costs_no_reuse() {
        let refuses = Some(io::ErrorKind::PermissionDenied);
        let mut transport =
            ReuseOrNew::new(Refuses { reuse: refuses, new: refuses, ..Refuses::default() });
        for _ in 0..2 {
            assert!(dial(&mut transport).await.is_err());
            assert_eq!(dials(&transport), [PortUse::Reuse, PortUse::New]);
        }
    }
}
