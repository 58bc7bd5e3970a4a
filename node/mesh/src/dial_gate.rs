//! The gate that every dial passes, whichever protocol asked for it: how far
//! the address may reach, and how many dials a second.
//!
//! Peers tell us of others, and a liar could name the printer of our own
//! network. It sits below name resolution, so that names do not get around it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use homehost_protocol::Scope;
use libp2p::Multiaddr;
use libp2p::core::transport::{
    DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
};

use crate::scope;
use crate::token_bucket::{Rate, TokenBucket};

/// Dials to global addresses: an idle node does a few a minute, a start or a
/// lookup some dozens at once. More would look like a port scan.
const DIAL_RATE: Rate = Rate { per_second: 4.0, burst: 32.0 };

/// How long a dial waits for its turn before it is refused. A handshake must
/// fit after it, within the transport's ten seconds.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct State {
    loopback: bool,
    on_link: bool,
    typed: BTreeSet<IpAddr>,
    global: TokenBucket,
}

/// What may be dialled at the moment; shared by the transport and the actor.
#[derive(Clone, Debug)]
pub(crate) struct DialRules(Arc<Mutex<State>>);

impl DialRules {
    /// `typed` are the addresses that a person gave; they are always allowed,
    /// and open their own scope.
    pub(crate) fn new<'a>(typed: impl IntoIterator<Item = &'a Multiaddr>, now: Instant) -> Self {
        let mut state = State {
            loopback: false,
            on_link: false,
            typed: BTreeSet::new(),
            global: TokenBucket::full(DIAL_RATE, now),
        };
        for address in typed {
            state.typed.extend(scope::ip_of(address));
            state.open(scope::of(address));
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// Peers of this scope are connected or looked for: they may name others.
    pub(crate) fn open(&self, scope: Scope) {
        self.state().open(scope);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether dials are refused at the moment because there are too many: their
    /// failure then says nothing about those who were dialled.
    pub(crate) fn is_congested(&self, now: Instant) -> bool {
        let mut bucket = self.state().global;
        bucket.reserve(DIAL_RATE, PATIENCE, now).is_none()
    }

    /// How long to wait before dialling an address, or why not to.
    fn permits(&self, address: &Multiaddr, now: Instant) -> Result<Duration, &'static str> {
        let Some(ip) = scope::ip_of(address) else { return Err("not an IP address") };
        let mut state = self.state();
        let allowed = match Scope::of(ip) {
            _ if state.typed.contains(&ip) => true,
            Scope::Loopback => state.loopback,
            Scope::OnLink => state.on_link,
            Scope::Global => {
                let wait = state.global.reserve(DIAL_RATE, PATIENCE, now);
                return wait.ok_or("too many dials");
            }
            Scope::Nowhere => false,
        };
        if allowed { Ok(Duration::ZERO) } else { Err("address is out of scope") }
    }
}

impl State {
    fn open(&mut self, scope: Scope) {
        match scope {
            // Whoever is on this machine may also name its neighbours.
            Scope::Loopback => (self.loopback, self.on_link) = (true, true),
            Scope::OnLink => self.on_link = true,
            Scope::Global | Scope::Nowhere => {}
        }
    }
}

/// A transport behind [`DialRules`].
#[derive(Debug)]
pub(crate) struct DialGate<T> {
    inner: T,
    rules: DialRules,
}

impl<T> DialGate<T> {
    pub(crate) fn new(inner: T, rules: DialRules) -> Self {
        Self { inner, rules }
    }
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
    type Dial = BoxFuture<'static, io::Result<T::Output>>;

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
        mut opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        // Windows refuses a dial from a port that is listened on.
        if cfg!(windows) {
            opts.port_use = PortUse::New;
        }
        match self.rules.permits(&address, Instant::now()) {
            Ok(Duration::ZERO) => self.inner.dial(address, opts).map(FutureExt::boxed),
            // No packet leaves before the future is polled.
            Ok(wait) => self.inner.dial(address, opts).map(|dial| {
                async move {
                    tokio::time::sleep(wait).await;
                    dial.await
                }
                .boxed()
            }),
            Err(reason) => Ok(ready(Err(io::Error::other(reason))).boxed()),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn near_addresses_are_closed_until_someone_near_is_met() {
        let now = Instant::now();
        let rules = DialRules::new([], now);
        let printer = address("/ip4/192.168.1.9/tcp/9100");
        let own = address("/ip4/127.0.0.1/tcp/5432");
        assert!(rules.permits(&printer, now).is_err());
        rules.open(Scope::Global);
        assert!(rules.permits(&printer, now).is_err());
        rules.open(Scope::OnLink);
        assert!(rules.permits(&printer, now).is_ok());
        assert!(rules.permits(&own, now).is_err());
        rules.open(Scope::Loopback);
        assert!(rules.permits(&own, now).is_ok());
        assert!(rules.permits(&address("/ip4/0.0.0.0/tcp/1"), now).is_err());
        assert!(rules.permits(&address("/memory/1"), now).is_err());
    }

    #[test]
    fn dials_afar_have_a_rate_and_what_was_typed_has_none() {
        let now = Instant::now();
        let typed = address("/ip4/8.8.8.8/tcp/4001");
        let rules = DialRules::new([&typed], now);
        let other = address("/ip4/9.9.9.9/tcp/4001");
        let waits: Vec<_> = (0..100).map_while(|_| rules.permits(&other, now).ok()).collect();
        assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), 32);
        assert_eq!(waits.len(), 32 + 12, "three seconds of waiting");
        assert!(rules.is_congested(now));
        assert!((0..100).all(|_| rules.permits(&typed, now) == Ok(Duration::ZERO)));
        let later = now + Duration::from_secs(1);
        assert!(!rules.is_congested(later));
        assert!(rules.permits(&other, later).is_ok());
        let local = DialRules::new([&address("/dns4/localhost/tcp/1")], now);
        assert!(local.permits(&address("/ip4/127.0.0.1/tcp/1"), now).is_ok());
    }
}
