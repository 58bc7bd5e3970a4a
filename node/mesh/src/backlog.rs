//! What was written to connections and has not left this machine yet.
//!
//! Yamux queues up to 176 KiB of each stream and calls them written, whether the
//! far end reads or not: the answers to a peer that asks and does not read pile
//! up, unseen by whoever wrote them. [`Backlog`] counts them, from the streams'
//! side as they are queued and from the socket's as they leave.
//!
//! Of QUIC connections nothing is known here; QUIC bounds what is not
//! acknowledged itself, by ten megabytes a connection.

use std::collections::HashMap;
use std::future::Ready;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{PeerId, yamux};

/// Bytes of streams that wait to be sent, by peer; cheap to clone.
///
/// Bounded by the connections: a peer without bytes is not remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    of: HashMap<PeerId, usize>,
    total: usize,
}

impl Backlog {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that wait for a peer, and for all.
    pub(crate) fn of(&self, peer: &PeerId) -> (usize, usize) {
        let counts = self.counts();
        (counts.of.get(peer).copied().unwrap_or_default(), counts.total)
    }

    /// Yamux for a connection with a peer.
    pub(crate) fn yamux(&self, peer: PeerId) -> Yamux {
        Yamux { peer, backlog: self.clone() }
    }
}

/// The share of one connection; given back when that is gone.
#[derive(Debug)]
struct Gauge {
    peer: PeerId,
    backlog: Backlog,
    waiting: Mutex<usize>,
}

impl Gauge {
    fn change(&self, change: impl Fn(usize) -> usize) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, after) = (*waiting, change(*waiting));
        *waiting = after;
        let mut counts = self.backlog.counts();
        counts.total = counts.total + after - before;
        let of = counts.of.entry(self.peer).or_default();
        *of = *of + after - before;
        if *of == 0 {
            counts.of.remove(&self.peer);
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.change(|_| 0);
    }
}

/// Finds the bytes of streams among what Yamux sends: each frame has a header
/// of 12 bytes, and those of data as many more as its last four say.
#[derive(Debug, Default)]
struct Frames {
    header: Vec<u8>,
    body: usize,
}

impl Frames {
    /// How many of the next bytes are those of streams.
    fn data_in(&mut self, mut bytes: &[u8]) -> usize {
        const HEADER: usize = 12;
        const DATA: u8 = 0;
        let mut data = 0;
        while !bytes.is_empty() {
            let (of_body, rest) = bytes.split_at(self.body.min(bytes.len()));
            data += of_body.len();
            self.body -= of_body.len();
            let (of_header, rest) = rest.split_at((HEADER - self.header.len()).min(rest.len()));
            self.header.extend_from_slice(of_header);
            bytes = rest;
            if let [_, tag, _, _, _, _, _, _, length @ ..] = self.header.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.body = if *tag == DATA { u32::from_be_bytes(length) as usize } else { 0 };
                self.header.clear();
            }
        }
        data
    }
}

/// The upgrade of a secured connection to one with streams.
#[derive(Clone, Debug)]
pub(crate) struct Yamux {
    peer: PeerId,
    backlog: Backlog,
}

impl Yamux {
    fn metered<C>(&self, io: C) -> Metered<C> {
        let (peer, backlog) = (self.peer, self.backlog.clone());
        let gauge = Gauge { peer, backlog, waiting: Mutex::new(0) };
        Metered { io, frames: Frames::default(), gauge: Arc::new(gauge) }
    }
}

impl UpgradeInfo for Yamux {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        yamux::Config::default().protocol_info()
    }
}

impl<C> InboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        let io = self.metered(io);
        let gauge = Arc::clone(&io.gauge);
        let made = yamux::Config::default().upgrade_inbound(io, info).into_inner();
        std::future::ready(made.map(|inner| Muxer { inner, gauge }))
    }
}

impl<C> OutboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        let io = self.metered(io);
        let gauge = Arc::clone(&io.gauge);
        let made = yamux::Config::default().upgrade_outbound(io, info).into_inner();
        std::future::ready(made.map(|inner| Muxer { inner, gauge }))
    }
}

/// A connection below Yamux, on which bytes of streams leave.
pub(crate) struct Metered<C> {
    io: C,
    frames: Frames,
    gauge: Arc<Gauge>,
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        let data = self.frames.data_in(&bytes[..length]);
        if data > 0 {
            self.gauge.change(|waiting| waiting.saturating_sub(data));
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// A Yamux connection whose queues are counted.
pub(crate) struct Muxer<C> {
    inner: yamux::Muxer<Metered<C>>,
    gauge: Arc<Gauge>,
}

impl<C> Muxer<C> {
    fn stream(&self, inner: yamux::Stream) -> Stream {
        Stream { inner, gauge: Arc::clone(&self.gauge) }
    }
}

impl<C> StreamMuxer for Muxer<C>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Substream = Stream;
    type Error = yamux::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, yamux::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, yamux::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), yamux::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, yamux::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A stream whose bytes wait to be sent.
pub(crate) struct Stream {
    inner: yamux::Stream,
    gauge: Arc<Gauge>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.gauge.change(|waiting| waiting + length);
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

    fn frame(tag: u8, length: u32, body: usize) -> Vec<u8> {
        let header = [&[0, tag, 0, 1, 0, 0, 0, 7][..], &length.to_be_bytes()].concat();
        [header, vec![0xff; body]].concat()
    }

    #[test]
    fn only_the_bytes_of_streams_count_however_they_are_cut() {
        // A window update and a ping have a number where data has its length.
        let sent = [
            frame(0, 300, 300),
            frame(1, 262_144, 0),
            frame(0, 0, 0),
            frame(2, 77, 0),
            frame(0, 16_384, 16_384),
        ]
        .concat();
        for piece in [1, 5, 12, 13, 1000, sent.len()] {
            let mut frames = Frames::default();
            let data: usize = sent.chunks(piece).map(|bytes| frames.data_in(bytes)).sum();
            assert_eq!(data, 300 + 16_384, "in {piece}s");
        }
    }

    #[test]
    fn what_a_connection_had_is_given_back_when_it_is_gone() {
        let backlog = Backlog::default();
        let peers = [PeerId::random(), PeerId::random()];
        let connections = peers.map(|peer| backlog.yamux(peer).metered(()).gauge);
        connections[0].change(|waiting| waiting + 100);
        connections[1].change(|waiting| waiting + 10);
        connections[0].change(|waiting| waiting - 30);
        assert_eq!(backlog.of(&peers[0]), (70, 80));
        let [first, second] = connections;
        drop(first);
        assert_eq!(backlog.of(&peers[0]), (0, 10));
        drop(second);
        assert_eq!(backlog.of(&peers[1]), (0, 0));
        assert!(backlog.counts().of.is_empty());
    }
}
