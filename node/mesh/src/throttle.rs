//! How many bytes a second may pass, in all and for one block of addresses
//! (spec/mesh §7): what an operator pays for, and what one party may have of it.
//!
//! [`Bandwidth`] counts, without socket or clock; [`ThrottledMuxer`] makes the
//! streams of a connection wait for it. A stream that waits does not read, so
//! that its far end stops sending. Nothing is dropped.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};
use libp2p::Multiaddr;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Sleep;

use crate::crowd::{Block, Source};
use crate::scope;

/// Bytes that pass at once: less would make many small waits of one.
const STEP_BYTES: usize = 1024;

/// Blocks that are remembered. A block whose budget is full again is forgotten;
/// beyond this, newcomers share only what is for all.
const BLOCKS_MAX: usize = 8192;

/// Bytes a second, each way. A second's worth may pass at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandwidthLimits {
    /// Of all connections together.
    pub total: u32,
    /// Of those of one /24 of IPv4 or /48 of IPv6; loopback is exempt.
    pub per_block: u32,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// Bytes that may pass; below zero when some passed that nobody asked for.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bytes: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Self {
        Self { bytes: f64::from(rate), at: now }
    }

    fn level(&self, rate: u32, now: Instant) -> f64 {
        let rate = f64::from(rate);
        let grown = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        (self.bytes + grown).min(rate)
    }

    /// How many of `wanted` bytes may pass, or when some may.
    fn room(&self, rate: u32, wanted: usize, now: Instant) -> Result<usize, Duration> {
        let level = self.level(rate, now);
        let step = wanted.min(STEP_BYTES).min(rate as usize).max(1) as f64;
        if level >= step {
            // A level is at most a second's worth.
            return Ok(wanted.min(level as usize));
        }
        Err(Duration::from_secs_f64((step - level) / f64::from(rate)))
    }

    fn spend(&mut self, rate: u32, bytes: usize, now: Instant) {
        self.bytes = self.level(rate, now) - bytes as f64;
        self.at = self.at.max(now);
    }
}

/// The budgets of all and of each block; bounded.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    limits: BandwidthLimits,
    total: [Bucket; 2],
    blocks: HashMap<Block, [Bucket; 2]>,
}

impl Bandwidth {
    pub(crate) fn new(limits: BandwidthLimits, now: Instant) -> Self {
        // Nothing would ever pass through nothing.
        let limits =
            BandwidthLimits { total: limits.total.max(1), per_block: limits.per_block.max(1) };
        let total = [Bucket::full(limits.total, now); 2];
        Self { limits, total, blocks: HashMap::new() }
    }

    /// How many of `wanted` bytes may pass now, or how long to wait for some.
    pub(crate) fn room(
        &self,
        block: Option<Block>,
        way: Way,
        wanted: usize,
        now: Instant,
    ) -> Result<usize, Duration> {
        let of = block.and_then(|block| self.blocks.get(&block));
        let own = of.map_or(Ok(wanted.min(self.limits.per_block as usize)), |of| {
            of[way as usize].room(self.limits.per_block, wanted, now)
        });
        let own = if block.is_some() { own } else { Ok(wanted) };
        match (own, self.total[way as usize].room(self.limits.total, wanted, now)) {
            (Ok(own), Ok(all)) => Ok(own.min(all)),
            (Err(wait), Ok(_)) | (Ok(_), Err(wait)) => Err(wait),
            (Err(one), Err(other)) => Err(one.max(other)),
        }
    }

    /// Bytes have passed.
    pub(crate) fn spend(&mut self, block: Option<Block>, way: Way, bytes: usize, now: Instant) {
        self.total[way as usize].spend(self.limits.total, bytes, now);
        let Some(block) = block else { return };
        let rate = self.limits.per_block;
        if self.blocks.len() >= BLOCKS_MAX && !self.blocks.contains_key(&block) {
            let is_full = |bucket: &Bucket| bucket.level(rate, now) >= f64::from(rate);
            self.blocks.retain(|_, of| !of.iter().all(is_full));
            if self.blocks.len() >= BLOCKS_MAX {
                return;
            }
        }
        let of = self.blocks.entry(block).or_insert_with(|| [Bucket::full(rate, now); 2]);
        of[way as usize].spend(rate, bytes, now);
    }
}

#[derive(Debug)]
struct Shared {
    bandwidth: Mutex<Bandwidth>,
    waits: [Counter; 2],
}

/// Limits that all connections share, or none; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throttle(Option<Arc<Shared>>);

impl Throttle {
    /// Counts how often somebody had to wait as
    /// `homehost_mesh_bandwidth_waits_total`.
    pub(crate) fn new(limits: Option<BandwidthLimits>, registry: &mut Registry) -> Self {
        let Some(limits) = limits else { return Self(None) };
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let waits = ["received", "sent"]
            .map(|direction| family.get_or_create(&[("direction", direction)]).clone());
        registry.sub_registry_with_prefix("homehost_mesh").register(
            "bandwidth_waits",
            "How often a stream had to wait for bandwidth",
            family,
        );
        let bandwidth = Mutex::new(Bandwidth::new(limits, Instant::now()));
        Self(Some(Arc::new(Shared { bandwidth, waits })))
    }

    /// A connection whose streams wait.
    pub(crate) fn muxer(&self, inner: StreamMuxerBox, far_end: &Multiaddr) -> StreamMuxerBox {
        let Some(shared) = &self.0 else { return inner };
        let block = scope::ip_of(far_end).and_then(Source::of).map(Source::block);
        StreamMuxerBox::new(ThrottledMuxer { inner, shared: Arc::clone(shared), block })
    }
}

impl Shared {
    fn bandwidth(&self) -> std::sync::MutexGuard<'_, Bandwidth> {
        self.bandwidth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection whose streams wait for their share.
struct ThrottledMuxer {
    inner: StreamMuxerBox,
    shared: Arc<Shared>,
    block: Option<Block>,
}

impl ThrottledMuxer {
    fn stream(&self, inner: SubstreamBox) -> ThrottledStream<SubstreamBox> {
        ThrottledStream {
            inner,
            shared: Arc::clone(&self.shared),
            block: self.block,
            waits: [None, None],
        }
    }
}

impl StreamMuxer for ThrottledMuxer {
    type Substream = ThrottledStream<SubstreamBox>;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A stream that waits for its share.
struct ThrottledStream<S> {
    inner: S,
    shared: Arc<Shared>,
    block: Option<Block>,
    /// Waits that are under way, each way. Most streams never wait.
    waits: [Option<Pin<Box<Sleep>>>; 2],
}

impl<S> ThrottledStream<S> {
    /// How many of `wanted` bytes may pass.
    fn poll_room(&mut self, way: Way, wanted: usize, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            if let Some(wait) = &mut self.waits[way as usize] {
                ready!(wait.as_mut().poll(cx));
                self.waits[way as usize] = None;
            }
            let room = self.shared.bandwidth().room(self.block, way, wanted, Instant::now());
            match room {
                Ok(bytes) => return Poll::Ready(bytes),
                Err(wait) => {
                    self.shared.waits[way as usize].inc();
                    self.waits[way as usize] = Some(Box::pin(tokio::time::sleep(wait)));
                }
            }
        }
    }

    fn spend(&self, way: Way, bytes: usize) {
        self.shared.bandwidth().spend(self.block, way, bytes, Instant::now());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ThrottledStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(Way::In, buffer.len(), cx));
        let length = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer[..room]))?;
        self.spend(Way::In, length);
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ThrottledStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(Way::Out, bytes.len(), cx));
        let length = ready!(Pin::new(&mut self.inner).poll_write(cx, &bytes[..room]))?;
        self.spend(Way::Out, length);
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
mod tests;
