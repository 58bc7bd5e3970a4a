//! Bytes by protocol: what the mesh costs, and for what.
//!
//! A stream says which protocol it is of while it is agreed upon
//! (multistream-select): the listening end names it back to the other. So all
//! protocols are counted in one place, without their knowing. What is counted is
//! the content of streams; Yamux, Noise, TCP and QUIC add some percent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

/// Bytes of the agreement that are looked at. Names have at most 50; a peer
/// that offers some in vain stays within it.
const AGREEMENT_BYTES_MAX: usize = 512;

/// What streams are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The directory RPC between peers.
    Directory,
    /// The directory RPC of clients.
    Query,
    /// The witness RPC.
    Attest,
    /// Peer exchange.
    Px,
    /// Connections of others that are relayed, and the asking for it.
    Relay,
    /// Whether the world reaches somebody.
    Reach,
    /// Gossip, of records and of who has which.
    Gossip,
    /// Finding peers and records.
    Dht,
    /// Who a peer is.
    Identify,
    /// Whether it is still there.
    Ping,
    /// Streams on which nothing was agreed, or something else.
    Other,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Directory,
        Self::Query,
        Self::Attest,
        Self::Px,
        Self::Relay,
        Self::Reach,
        Self::Gossip,
        Self::Dht,
        Self::Identify,
        Self::Ping,
        Self::Other,
    ];

    /// The word for it in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Query => "query",
            Self::Attest => "attest",
            Self::Px => "px",
            Self::Relay => "relay",
            Self::Reach => "reach",
            Self::Gossip => "gossip",
            Self::Dht => "dht",
            Self::Identify => "identify",
            Self::Ping => "ping",
            Self::Other => "other",
        }
    }

    fn of_name(name: &str) -> Self {
        match name {
            "/homehost/query/1" => Self::Query,
            _ if name.ends_with("/directory/1") => Self::Directory,
            _ if name.ends_with("/attest/1") => Self::Attest,
            _ if name.ends_with("/px/1") => Self::Px,
            _ if name.starts_with("/libp2p/circuit/relay/") || name == "/libp2p/dcutr" => {
                Self::Relay
            }
            _ if name.starts_with("/libp2p/autonat/") => Self::Reach,
            _ if name.ends_with("/kad/1.0.0") => Self::Dht,
            _ if name.starts_with("/meshsub/") || name.starts_with("/floodsub/") => Self::Gossip,
            _ if name.starts_with("/ipfs/id/") => Self::Identify,
            _ if name.starts_with("/ipfs/ping/") => Self::Ping,
            _ => Self::Other,
        }
    }
}

/// Bytes of one protocol since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolTraffic {
    /// Which.
    pub protocol: Protocol,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
}

/// Bytes since the start, by protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshTraffic {
    /// Each protocol once.
    pub by_protocol: Vec<ProtocolTraffic>,
}

impl MeshTraffic {
    /// Bytes that came.
    pub fn received(&self) -> u64 {
        self.by_protocol.iter().map(|of| of.received).sum()
    }

    /// Bytes that went.
    pub fn sent(&self) -> u64 {
        self.by_protocol.iter().map(|of| of.sent).sum()
    }

    /// Bytes of one protocol, that came and that went.
    pub fn of(&self, protocol: Protocol) -> (u64, u64) {
        let found = self.by_protocol.iter().find(|of| of.protocol == protocol);
        found.map_or((0, 0), |of| (of.received, of.sent))
    }
}

#[derive(Clone, Debug, Default)]
struct Pair {
    received: Counter,
    sent: Counter,
}

/// The counts; shared by all streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic([Pair; Protocol::ALL.len()]);

impl Traffic {
    /// Counts that are told as `homehost_mesh_traffic_bytes_total`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let family = Family::<[(&'static str, &'static str); 2], Counter>::default();
        let counter = |protocol: Protocol, direction| {
            family
                .get_or_create(&[("protocol", protocol.label()), ("direction", direction)])
                .clone()
        };
        let pairs = Protocol::ALL.map(|protocol| Pair {
            received: counter(protocol, "received"),
            sent: counter(protocol, "sent"),
        });
        registry.sub_registry_with_prefix("homehost_mesh").register_with_unit(
            "traffic",
            "Content of streams by protocol",
            Unit::Bytes,
            family,
        );
        Self(pairs)
    }

    fn of(&self, protocol: Protocol) -> &Pair {
        &self.0[protocol as usize]
    }

    /// The counts as they stand.
    pub(crate) fn snapshot(&self) -> MeshTraffic {
        let by_protocol = Protocol::ALL.map(|protocol| {
            let pair = self.of(protocol);
            ProtocolTraffic { protocol, received: pair.received.get(), sent: pair.sent.get() }
        });
        MeshTraffic { by_protocol: by_protocol.to_vec() }
    }

    /// A connection whose streams are counted.
    pub(crate) fn muxer(&self, inner: StreamMuxerBox) -> CountedMuxer {
        CountedMuxer { inner, traffic: self.clone() }
    }
}

/// Reads the agreement on a protocol as it passes.
#[derive(Debug, Default)]
struct Agreement(Vec<u8>);

impl Agreement {
    /// Takes what the listening end says; the protocol once that is decided.
    fn hear(&mut self, bytes: &[u8]) -> Option<Protocol> {
        let room = AGREEMENT_BYTES_MAX.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let mut rest = self.0.as_slice();
        // Messages are a length of one or two bytes, and text that ends a line.
        loop {
            let (length, after) = match rest {
                [low, after @ ..] if *low < 0x80 => (usize::from(*low), after),
                [low, high, after @ ..] if *high < 0x80 => {
                    (usize::from(low & 0x7f) | usize::from(*high) << 7, after)
                }
                [_, _, ..] => return Some(Protocol::Other),
                _ => break,
            };
            let Some(message) = after.get(..length) else { break };
            rest = &after[length..];
            match std::str::from_utf8(message).ok().and_then(|text| text.strip_suffix('\n')) {
                Some("na" | "/multistream/1.0.0") => {}
                Some(name) => return Some(Protocol::of_name(name)),
                None => return Some(Protocol::Other),
            }
        }
        (self.0.len() >= AGREEMENT_BYTES_MAX).then_some(Protocol::Other)
    }
}

/// Which end of a stream we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Dialer,
    Listener,
}

/// A connection whose streams are counted.
pub(crate) struct CountedMuxer {
    inner: StreamMuxerBox,
    traffic: Traffic,
}

impl CountedMuxer {
    fn stream(&self, inner: SubstreamBox, end: End) -> CountedStream<SubstreamBox> {
        CountedStream::new(inner, end, self.traffic.clone())
    }
}

impl StreamMuxer for CountedMuxer {
    type Substream = CountedStream<SubstreamBox>;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(self.stream(stream, End::Listener)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.stream(stream, End::Dialer)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A stream whose bytes are counted.
pub(crate) struct CountedStream<S> {
    inner: S,
    end: End,
    traffic: Traffic,
    /// What it is for, or what is known of that.
    is: Result<Protocol, Agreement>,
    /// Bytes that came and went before that was known.
    before: (u64, u64),
}

impl<S> CountedStream<S> {
    fn new(inner: S, end: End, traffic: Traffic) -> Self {
        Self { inner, end, traffic, is: Err(Agreement::default()), before: (0, 0) }
    }

    fn count(&mut self, received: &[u8], sent: &[u8]) {
        let (came, went) = (received.len() as u64, sent.len() as u64);
        let decided = match &mut self.is {
            Ok(protocol) => {
                let pair = self.traffic.of(*protocol);
                pair.received.inc_by(came);
                pair.sent.inc_by(went);
                return;
            }
            Err(agreement) => agreement.hear(match self.end {
                End::Dialer => received,
                End::Listener => sent,
            }),
        };
        self.before.0 += came;
        self.before.1 += went;
        if let Some(protocol) = decided {
            self.decide(protocol);
        }
    }

    fn decide(&mut self, protocol: Protocol) {
        self.is = Ok(protocol);
        let (received, sent) = std::mem::take(&mut self.before);
        let pair = self.traffic.of(protocol);
        pair.received.inc_by(received);
        pair.sent.inc_by(sent);
    }
}

impl<S> Drop for CountedStream<S> {
    fn drop(&mut self) {
        if self.is.is_err() {
            self.decide(Protocol::Other);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let length = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        self.count(&buffer[..length], &[]);
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.count(&[], &bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::{AsyncReadExt as _, AsyncWriteExt as _, Cursor};

    fn message(text: &str) -> Vec<u8> {
        let mut message = vec![u8::try_from(text.len() + 1).unwrap()];
        message.extend(text.as_bytes());
        message.push(b'\n');
        message
    }

    fn agreement(names: &[&str]) -> Vec<u8> {
        names.iter().flat_map(|name| message(name)).collect()
    }

    #[test]
    fn protocols_are_known_by_their_names_however_the_bytes_come() {
        for (name, protocol) in [
            ("/homehost/main/directory/1", Protocol::Directory),
            ("/homehost/query/1", Protocol::Query),
            ("/homehost/main/attest/1", Protocol::Attest),
            ("/homehost/main/kad/1.0.0", Protocol::Dht),
            ("/meshsub/1.2.0", Protocol::Gossip),
            ("/ipfs/id/push/1.0.0", Protocol::Identify),
            ("/ipfs/ping/1.0.0", Protocol::Ping),
            ("/other/1", Protocol::Other),
        ] {
            let said = agreement(&["/multistream/1.0.0", "na", name]);
            for piece in [1, 3, 7, said.len()] {
                let mut heard = Agreement::default();
                let decided = said.chunks(piece).filter_map(|bytes| heard.hear(bytes));
                assert_eq!(decided.collect::<Vec<_>>(), [protocol], "{name} in {piece}s");
            }
        }
    }

    #[test]
    fn rubbish_is_other_and_is_not_kept() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut heard = Agreement::default();
            let mut decided = None;
            for _ in 0..2000 {
                let bytes: Vec<u8> = (0..random.usize(0..9)).map(|_| random.u8(..)).collect();
                decided = heard.hear(&bytes);
                assert!(heard.0.len() <= AGREEMENT_BYTES_MAX);
                if decided.is_some() {
                    break;
                }
            }
            assert_eq!(decided, Some(Protocol::Other), "seed {seed}");
        }
    }

    #[test]
    fn every_byte_is_counted_once_also_those_before_the_agreement() {
        let traffic = Traffic::default();
        let said = [agreement(&["/multistream/1.0.0", "/ipfs/ping/1.0.0"]), vec![7; 100]].concat();
        let mut stream = CountedStream::new(Cursor::new(&said), End::Dialer, traffic.clone());
        let mut read = Vec::new();
        block_on(stream.read_to_end(&mut read)).unwrap();
        assert_eq!(traffic.snapshot().of(Protocol::Ping), (said.len() as u64, 0));

        let mut stream =
            CountedStream::new(Cursor::new(Vec::new()), End::Listener, traffic.clone());
        block_on(stream.write_all(&said)).unwrap();
        assert_eq!(traffic.snapshot().of(Protocol::Ping), (said.len() as u64, said.len() as u64));

        let mut stream = CountedStream::new(Cursor::new(&said), End::Listener, traffic.clone());
        block_on(stream.read_to_end(&mut read)).unwrap();
        drop(stream);
        let snapshot = traffic.snapshot();
        assert_eq!(snapshot.of(Protocol::Other), (said.len() as u64, 0), "nothing was agreed");
        assert_eq!(
            (snapshot.received(), snapshot.sent()),
            (2 * said.len() as u64, said.len() as u64)
        );
    }
}
