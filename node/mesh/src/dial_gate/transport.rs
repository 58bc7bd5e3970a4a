//! The rules of the gate around a transport.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;

use super::{DialRules, TYPED_NAME, has_name};
use crate::scope;

/// Within what time all addresses of a peer are dialled, one after another.
const TOGETHER: Duration = Duration::from_millis(5);

/// The same where each is a name that is looked up by itself.
const LOOKED_UP: Duration = Duration::from_millis(100);

/// Which addresses a transport is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Those of peers themselves.
    Direct,
    /// Those that lead through a relay.
    Relayed,
    /// Those with names as well, which are looked up. What a name leads to
    /// passes a gate of [`Way::Direct`] within: names do not get around it.
    Named,
}

/// A transport behind [`DialRules`].
#[derive(Debug)]
pub(crate) struct DialGate<T> {
    inner: T,
    way: Way,
    rules: DialRules,
}

impl<T> DialGate<T> {
    pub(crate) fn new(inner: T, way: Way, rules: DialRules) -> Self {
        Self { inner, way, rules }
    }
}

impl<T> DialGate<T>
where
    T: Transport<Error = io::Error>,
    T::Dial: Send + 'static,
    T::Output: Send + 'static,
{
    fn dial_at_once(&mut self, address: Multiaddr, opts: DialOpts) -> Dialled<T> {
        self.inner.dial(address, opts).map(FutureExt::boxed)
    }

    /// Dials as soon as the rates allow it, or not at all.
    fn dial_in_turn(&mut self, address: Multiaddr, opts: DialOpts) -> Dialled<T> {
        let now = Instant::now();
        let wait = match self.rules.permits(&address, now) {
            Ok(wait) => wait,
            Err(reason) => return Ok(refused(reason)),
        };
        // On one machine nothing is between the two, and a circuit is neither.
        let far = |ip: &IpAddr| self.way == Way::Direct && !ip.is_loopback();
        let ip = scope::ip_of(&address).filter(far);
        let by_quic = address.iter().any(|part| part == Protocol::QuicV1);
        if let Some(ip) = ip.filter(|_| by_quic) {
            self.rules.dialled_by_quic(ip, now + wait);
        }
        let second = ip.filter(|_| !by_quic);
        if wait.is_zero() && second.is_none() {
            return self.dial_at_once(address, opts);
        }
        let rules = self.rules.clone();
        let named = TYPED_NAME.try_with(|()| ()).is_ok();
        let together = if named { LOOKED_UP } else { TOGETHER };
        // No packet leaves before the future is polled.
        self.inner.dial(address, opts).map(|dial| {
            async move {
                tokio::time::sleep(wait).await;
                if let Some(ip) = second {
                    tokio::time::sleep(together).await;
                    tokio::time::sleep(rules.gives_way(ip, Instant::now())).await;
                }
                dial.await
            }
            .boxed()
        })
    }

    /// Looks up only names that a person typed, and lets them lead where they
    /// will.
    fn dial_name(&mut self, address: Multiaddr, opts: DialOpts) -> Dialled<T> {
        if !self.rules.permits_name(address.clone()) {
            return Ok(refused("nobody here gave this name"));
        }
        // The dials below happen while this future is polled.
        self.inner.dial(address, opts).map(|dial| TYPED_NAME.scope((), dial).boxed())
    }
}

type Dialling<T> = BoxFuture<'static, io::Result<<T as Transport>::Output>>;
type Dialled<T> = Result<Dialling<T>, TransportError<io::Error>>;

fn refused<T: Send + 'static>(reason: &'static str) -> BoxFuture<'static, io::Result<T>> {
    ready(Err(io::Error::other(reason))).boxed()
}

impl<T> Transport for DialGate<T>
where
    T: Transport<Error = io::Error> + Unpin,
    T::Dial: Send + 'static,
    T::Output: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = Dialling<T>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        match self.way {
            Way::Named if has_name(&address) => self.dial_name(address, opts),
            Way::Named => self.dial_at_once(address, opts),
            way if (way == Way::Relayed) != scope::is_relayed(&address) => {
                Err(TransportError::MultiaddrNotSupported(address))
            }
            _ => self.dial_in_turn(address, opts),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
