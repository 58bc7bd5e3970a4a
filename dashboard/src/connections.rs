//! Connections: how many there are at one time, and who has to go when there
//! are too many.
//!
//! Any program of this machine may connect to loopback, a game among them, and
//! say nothing. So a connection on which nobody has shown the owner's token
//! keeps its place only while nobody else wants it: the oldest of these is
//! closed for a newcomer. Whoever has the token is never pushed out.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt as _;

/// Connections at one time: all event streams ([`crate::STREAMS_MAX`]), and as
/// many for single questions, each of which takes milliseconds.
pub(crate) const CONNECTIONS_MAX: usize = 128;

/// Time within which the head of a request is there, the next one on a
/// connection that is kept open included. A client on this machine sends it at
/// once; a person who types it into a terminal has this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest head of a request in bytes, and what is read ahead on a connection.
/// A browser's cookies of all of localhost fit.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Pause after the system refused a connection, as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Whether the owner's token was shown on a connection; goes with its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owner(Arc<AtomicBool>);

impl Owner {
    /// Somebody has shown the token.
    pub(crate) fn shown(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_shown(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until `stop` resolves, then lets open requests finish.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    let (ending, ended) = watch::channel(false);
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = open.tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection to the API was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = open.make_room() => {}
        }
        open.add(stream, &router, ended.clone());
    }
    // Nobody new meanwhile.
    drop(listener);
    ending.send_replace(true);
    while open.tasks.join_next().await.is_some() {}
}

/// Whether only the one who connected is concerned, who went away again.
fn is_of_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The connections there are, in the order in which they came.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    places: VecDeque<(AbortHandle, Owner)>,
}

impl Open {
    /// Waits until there is a place for a newcomer: a free one, or else that of
    /// the oldest on which nobody has shown the token. When all are the owner's,
    /// one of these has to end.
    async fn make_room(&mut self) {
        loop {
            self.places.retain(|(task, _)| !task.is_finished());
            if self.places.len() < CONNECTIONS_MAX {
                return;
            }
            if let Some(oldest) = self.places.iter().position(|(_, of)| !of.is_shown())
                && let Some((task, _)) = self.places.remove(oldest)
            {
                task.abort();
                return;
            }
            self.tasks.join_next().await;
        }
    }

    fn add(&mut self, stream: TcpStream, router: &Router, ended: watch::Receiver<bool>) {
        let owner = Owner::default();
        let task = self.tasks.spawn(connection(stream, router.clone(), owner.clone(), ended));
        self.places.push_back((task, owner));
    }
}

/// One connection, to its end.
async fn connection(
    stream: TcpStream,
    router: Router,
    owner: Owner,
    mut ended: watch::Receiver<bool>,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(owner.clone());
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => Some(served),
        // A sender that is gone means the same.
        _ = ended.wait_for(|ended| *ended) => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the API ended");
    }
}
