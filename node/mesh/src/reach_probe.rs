//! The asking side of AutoNAT v2: a peer dials an address of ours and says what
//! came of it (spec/mesh §12).
//!
//! libp2p has one too, but that one tries an address once and never again, and
//! asks anybody; here the actor decides what is asked of whom, and when.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{Multiaddr, PeerId, Stream};

use crate::autonat::{self, Answer, DIAL_BACK, DIAL_REQUEST, Request, Response};

/// A whole probe: the other side dials for ten seconds at most.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long libp2p's answering side dials; then it ends the stream without a
/// word. A little less, for the clocks.
const DIALS_FOR: Duration = Duration::from_secs(9);
/// Reading and answering what came with a dial.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Dials that are heard at once.
const DIAL_BACKS_MAX: usize = 8;
/// The most that a peer may ask us to send before it dials; the specification
/// has 30,000 to 100,000 bytes.
const DATA_BYTES_MAX: u64 = 100_000;

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
            Err(_) if begun.elapsed() >= DIALS_FOR => Some(Answer::Unreached { index: 0 }),
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
        Some(Answer::Reached { .. }) if came => Tested::Reached,
        Some(Answer::Unreached { .. }) => Tested::Unreached,
        _ => Tested::Unsaid,
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
    let nonce = autonat::decode_dial_back(&autonat::read_message(&mut stream).await?)?;
    let ours = nonces.came(nonce);
    if ours {
        autonat::write_message(&mut stream, autonat::HEARD).await?;
    }
    stream.close().await?;
    Ok(ours)
}

async fn ask<S>(mut stream: S, address: &Multiaddr, nonce: u64) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    autonat::write_message(&mut stream, &Request::encode(address, nonce)).await?;
    let mut paid = false;
    loop {
        match Response::decode(&autonat::read_message(&mut stream).await?)? {
            Response::Answer(answer) => return Ok(answer),
            Response::WantsData(bytes) if !paid && bytes <= DATA_BYTES_MAX => {
                // Ours ask for none, as they dial nobody else; others may.
                paid = true;
                for message in autonat::data(bytes as usize) {
                    autonat::write_message(&mut stream, &message).await?;
                }
            }
            Response::WantsData(_) => return Err(io::Error::other("it wants too much data")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says, as a frame.
    fn response(status: u8, dial: u8) -> Vec<u8> {
        // Each number takes two bytes.
        let number = |n: u8| [(n & 0x7f) | 0x80, n >> 7];
        let [[a, b], [c, d]] = [status, dial].map(number);
        frame(&[0x12, 6, 0x08, a, b, 0x18, c, d])
    }

    fn wants(bytes: u32) -> Vec<u8> {
        let [a, b, c] = [0, 7, 14].map(|shift| (bytes >> shift) as u8 & 0x7f);
        frame(&[0x1a, 4, 0x10, a | 0x80, b | 0x80, c])
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        [&[u8::try_from(message.len()).unwrap()], message].concat()
    }

    async fn answered(bytes: Vec<u8>) -> io::Result<Answer> {
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
        let index = 0;
        for (status, dial, expected) in [
            (200, 200, Answer::Reached { index }),
            (200, 100, Answer::Unreached { index }),
            (200, 101, Answer::Unheard { index }),
            (200, 0, Answer::Failed),
            (101, 0, Answer::Refused),
            (100, 0, Answer::Rejected),
            (0, 0, Answer::Failed),
        ] {
            assert_eq!(answered(response(status, dial)).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn data_is_paid_once_and_not_more_than_may_be_asked() {
        let then = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
        let paid = answered(then(wants(30_000), response(200, 200))).await;
        assert_eq!(paid.unwrap(), Answer::Reached { index: 0 });
        assert!(answered(then(wants(30_000), wants(30_000))).await.is_err());
        assert!(answered(wants(100_001)).await.is_err());
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
    }

    #[test]
    fn only_numbers_of_ours_are_heard() {
        let nonces = Nonces::default();
        nonces.table().insert(7, false);
        assert!(nonces.came(7) && !nonces.came(8));
        assert_eq!(nonces.table().get(&7), Some(&true));
    }
}
