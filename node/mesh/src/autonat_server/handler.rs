//! One connection of the answering side: hears requests, or says the number for
//! which it was made.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use either::Either;
use futures::channel::{mpsc, oneshot};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{AsyncWriteExt, FutureExt, SinkExt, StreamExt};
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};

use crate::autonat::{self, Answer, DIAL_BACK, DIAL_REQUEST, Request};

/// Requests of one connection that are under way: its peer makes two at a time.
const REQUESTS_MAX: usize = 4;
/// A whole request: a dial waits three seconds for its turn and takes ten.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Saying the number and hearing that it was right.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer asks to be dialled.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What a dial has to say, and who waits for what comes of it.
#[derive(Debug)]
pub(crate) struct Back {
    pub(crate) nonce: u64,
    pub(crate) index: u32,
    pub(crate) answer: oneshot::Sender<Answer>,
}

pub(crate) struct Handler {
    /// Whether requests are heard at the moment; none where they never are.
    serves: Option<Arc<AtomicBool>>,
    requests: FuturesUnordered<BoxFuture<'static, ()>>,
    asked: (mpsc::Sender<Asked>, mpsc::Receiver<Asked>),
    /// The number that has to be said, until there is a stream for it.
    back: Option<Back>,
    opening: Option<Back>,
    saying: Option<BoxFuture<'static, ()>>,
}

impl Handler {
    fn new(serves: Option<Arc<AtomicBool>>, back: Option<Back>) -> Self {
        Self {
            serves,
            requests: FuturesUnordered::new(),
            asked: mpsc::channel(1),
            back,
            opening: None,
            saying: None,
        }
    }

    /// Of a connection whose peer may not ask.
    pub(crate) fn idle() -> Self {
        Self::new(None, None)
    }

    /// Of one whose peer may, while `serves`.
    pub(crate) fn serving(serves: Arc<AtomicBool>) -> Self {
        Self::new(Some(serves), None)
    }

    /// Of one that was made to say a number.
    pub(crate) fn dialling_back(back: Back) -> Self {
        Self::new(None, Some(back))
    }
}

/// Hears a request and tells what came of it.
async fn serve(mut stream: Stream, mut asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let request = Request::decode(&autonat::read_message(&mut stream).await?)?;
    let (answer, said) = oneshot::channel();
    // The node ends.
    asked.send(Asked { request, answer }).await.map_err(io::Error::other)?;
    // A connection that ended before it said anything said nothing of the address.
    let answer = said.await.unwrap_or(Answer::Failed);
    autonat::write_message(&mut stream, &answer.encode()).await?;
    stream.close().await
}

async fn say(mut stream: Stream, nonce: u64) -> io::Result<()> {
    autonat::write_message(&mut stream, &autonat::encode_dial_back(nonce)).await?;
    // What is written there is OK, the only status that there is.
    autonat::read_message(&mut stream).await?;
    stream.close().await
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Asked;
    type InboundProtocol = Either<ReadyUpgrade<StreamProtocol>, DeniedUpgrade>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let serves = self.serves.as_ref().is_some_and(|serves| serves.load(Ordering::Relaxed));
        let protocol = if serves {
            Either::Left(ReadyUpgrade::new(DIAL_REQUEST))
        } else {
            Either::Right(DeniedUpgrade)
        };
        SubstreamProtocol::new(protocol, ())
    }

    fn connection_keep_alive(&self) -> bool {
        !self.requests.is_empty()
            || self.back.is_some()
            || self.opening.is_some()
            || self.saying.is_some()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Asked>> {
        while let Poll::Ready(Some(())) = self.requests.poll_next_unpin(cx) {}
        if let Poll::Ready(Some(asked)) = self.asked.1.poll_next_unpin(cx) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(asked));
        }
        if let Some(saying) = &mut self.saying
            && saying.poll_unpin(cx).is_ready()
        {
            self.saying = None;
        }
        if let Some(back) = self.back.take() {
            self.opening = Some(back);
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(DIAL_BACK), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: futures::future::Either::Left(stream),
                ..
                // One more is closed without a word.
            }) if self.requests.len() < REQUESTS_MAX => {
                let served = serve(stream, self.asked.0.clone());
                let served = tokio::time::timeout(REQUEST_TIMEOUT, served);
                self.requests.push(served.map(|_| ()).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                ..
            }) => {
                let Some(Back { nonce, index, answer }) = self.opening.take() else { return };
                let said = tokio::time::timeout(DIAL_BACK_TIMEOUT, say(stream, nonce));
                let tell = said.map(move |said| {
                    let heard = matches!(said, Ok(Ok(())));
                    let reached = Answer::Reached { index };
                    let _ = answer.send(if heard { reached } else { Answer::Unheard { index } });
                });
                self.saying = Some(tell.boxed());
            }
            ConnectionEvent::DialUpgradeError(_) => {
                if let Some(Back { index, answer, .. }) = self.opening.take() {
                    let _ = answer.send(Answer::Unheard { index });
                }
            }
            _ => {}
        }
    }
}
