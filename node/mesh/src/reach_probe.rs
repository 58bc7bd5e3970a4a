//! The asking side of AutoNAT v2: a peer dials an address of ours and says what
//! came of it (spec/mesh §12).
//!
//! libp2p has one too, but that one tries an address once and never again, and
//! asks anybody; here the actor decides what is asked of whom, and when.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};

/// Where an address of ours is asked about.
pub(crate) const DIAL_REQUEST: StreamProtocol =
    StreamProtocol::new("/libp2p/autonat/2/dial-request");
/// Where the answering dial says why it came.
const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

/// A whole probe: the other side dials for ten seconds at most.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long libp2p's answering side dials; then it ends the stream without a
/// word. A little less, for the clocks.
const DIALS_FOR: Duration = Duration::from_secs(9);
/// Reading and answering what came with a dial.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Dials that are heard at once.
const DIAL_BACKS_MAX: usize = 8;
/// Longest message: an address, or a few numbers.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The most that a peer may ask us to send before it dials (the specification
/// has 30,000 to 100,000 bytes), and how much of it is in one message.
const DATA_BYTES_MAX: u64 = 100_000;
const DATA_BYTES_EACH: usize = 4096;

/// What a peer said of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tested {
    /// It got through, and we saw that it did.
    Reached,
    /// It did not get through.
    Unreached,
    /// It would not try, or the question went astray: that says nothing.
    Unsaid,
}

/// Numbers of the probes that are under way, and whether their dial came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nonces(Arc<Mutex<BTreeMap<u64, bool>>>);

impl Nonces {
    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is one of ours.
    fn came(&self, nonce: u64) -> bool {
        self.table().get_mut(&nonce).map(|came| *came = true).is_some()
    }
}

/// Asks a peer to dial an address of ours. Takes twenty seconds at most.
pub(crate) async fn probe(
    mut streams: libp2p_stream::Control,
    peer: PeerId,
    address: Multiaddr,
    nonces: Nonces,
    nonce: u64,
) -> Tested {
    nonces.table().insert(nonce, false);
    let ask = async {
        let stream = streams.open_stream(peer, DIAL_REQUEST).await.ok()?;
        let begun = Instant::now();
        let said = ask(stream, &address, nonce).await;
        match said {
            Ok(said) => Some(said),
            // It dialled for as long as it answers, and nobody was there: a router
            // that drops what it does not know refuses nothing either.
            Err(_) if begun.elapsed() >= DIALS_FOR => Some(Said::Unreached),
            Err(error) => {
                tracing::debug!(%error, "a probe went astray");
                None
            }
        }
    };
    let said = tokio::time::timeout(PROBE_TIMEOUT, ask).await.ok().flatten();
    let came = nonces.table().remove(&nonce).unwrap_or(false);
    match said {
        // Nobody's word is taken for it.
        Some(Said::Reached) if came => Tested::Reached,
        Some(Said::Unreached) => Tested::Unreached,
        Some(Said::Reached | Said::Refused) | None => Tested::Unsaid,
    }
}

/// Hears the dials that answer our probes, for as long as the node runs.
pub(crate) async fn hear(mut streams: libp2p_stream::Control, nonces: Nonces) {
    let Ok(incoming) = streams.accept(DIAL_BACK) else { return };
    incoming
        .for_each_concurrent(DIAL_BACKS_MAX, |(peer, stream)| {
            let nonces = nonces.clone();
            async move {
                let heard = tokio::time::timeout(DIAL_BACK_TIMEOUT, dialled(stream, &nonces)).await;
                tracing::debug!(%peer, ?heard, "dialled back");
            }
        })
        .await;
}

async fn dialled(mut stream: Stream, nonces: &Nonces) -> io::Result<bool> {
    let message = read_message(&mut stream).await?;
    let nonce = fields(&message)
        .find_map(|field| match field {
            Ok((1, Value::Fixed(nonce))) => Some(nonce),
            _ => None,
        })
        .ok_or(io::ErrorKind::InvalidData)?;
    let ours = nonces.came(nonce);
    if ours {
        // The status OK is 0, which is not written.
        write_message(&mut stream, &[]).await?;
    }
    stream.close().await?;
    Ok(ours)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Reached,
    Unreached,
    Refused,
}

async fn ask<S>(mut stream: S, address: &Multiaddr, nonce: u64) -> io::Result<Said>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &address.to_vec());
    put_varint(&mut request, (2 << 3) | 1);
    request.extend(nonce.to_le_bytes());
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &request);
    write_message(&mut stream, &message).await?;
    let mut sent_data = false;
    loop {
        let message = read_message(&mut stream).await?;
        let Some(Ok((kind, Value::Bytes(body)))) = fields(&message).next() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match kind {
            2 => return said(body),
            3 if !sent_data => {
                sent_data = true;
                let bytes = number(body, 2)?.unwrap_or(0);
                if bytes > DATA_BYTES_MAX {
                    return Err(io::Error::other("it wants too much data"));
                }
                send_data(&mut stream, bytes as usize).await?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Pays for the dial, so that nobody has others dialled for less than it costs
/// himself.
async fn send_data<S: AsyncWrite + Unpin>(stream: &mut S, bytes: usize) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let now = left.min(DATA_BYTES_EACH);
        let mut data = Vec::new();
        put_bytes(&mut data, 1, &vec![0; now]);
        let mut message = Vec::new();
        put_bytes(&mut message, 4, &data);
        write_message(stream, &message).await?;
        left -= now;
    }
    Ok(())
}

fn said(response: &[u8]) -> io::Result<Said> {
    const OK: u64 = 200;
    const DIAL_ERROR: u64 = 100;
    let (status, dial) = (number(response, 1)?, number(response, 3)?);
    Ok(match (status, dial) {
        (Some(OK), Some(OK)) => Said::Reached,
        (Some(OK), Some(DIAL_ERROR)) => Said::Unreached,
        // It connected but could not speak: that is nothing about the address.
        _ => Said::Refused,
    })
}

/// The value of a number field, which is absent when it is 0.
fn number(message: &[u8], wanted: u64) -> io::Result<Option<u64>> {
    for field in fields(message) {
        if let (field, Value::Varint(value)) = field?
            && field == wanted
        {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A protobuf value of the types that occur here.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, up to the first fault.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = io::Result<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest).ok_or_else(|| io::ErrorKind::InvalidData.into());
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => {
            let (bytes, after) = rest.split_first_chunk::<8>()?;
            *rest = after;
            Value::Fixed(u64::from_le_bytes(*bytes))
        }
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value as u8) | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_bytes(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(to, (field << 3) | 2);
    put_varint(to, bytes.len() as u64);
    to.extend(bytes);
}

async fn write_message<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(message.len() + 4);
    put_varint(&mut frame, message.len() as u64);
    frame.extend(message);
    stream.write_all(&frame).await?;
    stream.flush().await
}

async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut length = 0_usize;
    for shift in [0, 7] {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            if length > MESSAGE_BYTES_MAX {
                break;
            }
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await?;
            return Ok(message);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says, as a frame.
    fn response(status: u64, dial: u64) -> Vec<u8> {
        let mut body = Vec::new();
        for (field, value) in [(1, status), (3, dial)] {
            if value != 0 {
                put_varint(&mut body, field << 3);
                put_varint(&mut body, value);
            }
        }
        let mut message = Vec::new();
        put_bytes(&mut message, 2, &body);
        frame(&message)
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put_varint(&mut frame, message.len() as u64);
        frame.extend(message);
        frame
    }

    async fn answered(bytes: Vec<u8>) -> io::Result<Said> {
        let address: Multiaddr = "/ip4/8.8.8.8/tcp/4011".parse().unwrap();
        let mut written = futures::io::Cursor::new(Vec::new());
        let io = Both { from: &bytes[..], to: &mut written };
        ask(io, &address, 7).await
    }

    struct Both<'a> {
        from: &'a [u8],
        to: &'a mut futures::io::Cursor<Vec<u8>>,
    }

    impl AsyncRead for Both<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::pin::Pin::new(&mut self.from).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Both<'_> {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::pin::Pin::new(&mut *self.to).poll_write(cx, buffer)
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_close(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn answers_mean_what_the_specification_says() {
        for (status, dial, expected) in [
            (200, 200, Said::Reached),
            (200, 100, Said::Unreached),
            (200, 101, Said::Refused),
            (200, 0, Said::Refused),
            (101, 0, Said::Refused),
            (0, 0, Said::Refused),
        ] {
            assert_eq!(answered(response(status, dial)).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn data_is_paid_once_and_not_more_than_may_be_asked() {
        let want = |bytes: u64| {
            let mut body = Vec::new();
            put_varint(&mut body, 2 << 3);
            put_varint(&mut body, bytes);
            let mut message = Vec::new();
            put_bytes(&mut message, 3, &body);
            frame(&message)
        };
        let then = |mut first: Vec<u8>, second: Vec<u8>| {
            first.extend(second);
            first
        };
        let paid = answered(then(want(30_000), response(200, 200))).await;
        assert_eq!(paid.unwrap(), Said::Reached);
        assert!(answered(then(want(30_000), want(30_000))).await.is_err());
        assert!(answered(want(100_001)).await.is_err());
    }

    #[tokio::test]
    async fn hostile_bytes_are_errors() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2000 {
            let length = random.usize(0..40);
            let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _ = answered(bytes).await;
        }
        let whole = response(200, 200);
        for end in 0..whole.len() {
            assert!(answered(whole[..end].to_vec()).await.is_err(), "{end}");
        }
        assert!(answered(vec![0xff, 0xff, 0xff, 0x7f]).await.is_err());
    }

    #[test]
    fn only_numbers_of_ours_are_heard() {
        let nonces = Nonces::default();
        nonces.table().insert(7, false);
        assert!(nonces.came(7) && !nonces.came(8));
        assert_eq!(nonces.table().get(&7), Some(&true));
    }
}
