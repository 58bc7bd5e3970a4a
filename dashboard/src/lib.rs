//! The HTTP face of a node: REST under `/api/v1`, event streams, health and
//! metrics. It knows `homehost-api` and nothing else of the node.
//!
//! The listener is on loopback. That alone keeps nobody out: any web page that
//! the owner visits can send requests to loopback. So every request must name
//! this server in `Host` (against DNS rebinding), must not come from another
//! origin, and everything but health and metrics needs the bearer token that
//! only the owner can read. And any program of this machine can connect and say
//! nothing, so connections are bounded and those without the token give way.

mod connections;
mod guard;
mod problem;
mod routes;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use homehost_api::NodeApi;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Longest request body in bytes; the largest action has a start line and a
/// handful of names.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Event streams at one time: a few terminals and pages of one owner.
const STREAMS_MAX: usize = 64;

/// Secret that a client shows as `Authorization: Bearer …`. Never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token as it stands in its file.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Compares in time that depends on the lengths alone.
    fn matches(&self, shown: &str) -> bool {
        let (own, shown) = (self.0.as_bytes(), shown.as_bytes());
        let difference = own.iter().zip(shown).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == shown.len() && difference == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// What handlers share.
#[derive(Clone)]
struct App {
    api: Arc<dyn NodeApi>,
    streams: Arc<Semaphore>,
}

/// Serves until `stop` resolves, then lets open requests finish. Event streams
/// end when the node ends them.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    api: Arc<dyn NodeApi>,
    token: Token,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    connections::serve(listener, router(api, token, address), stop).await;
    Ok(())
}

fn router(api: Arc<dyn NodeApi>, token: Token, address: SocketAddr) -> Router {
    let app = App { api, streams: Arc::new(Semaphore::new(STREAMS_MAX)) };
    let v1 = Router::new()
        .route("/actions", post(routes::act))
        .route("/status", get(routes::status))
        .route("/identity", get(routes::identity))
        .route("/peers", get(routes::peers))
        .route("/servers", get(routes::servers))
        .route("/servers/{server}", get(routes::server))
        .route("/servers/{server}/logs", get(stream::logs))
        .route("/servers/{server}/reach", get(routes::reach))
        .route("/lookup/{id}", get(routes::lookup))
        .route("/mesh/stats", get(routes::mesh_stats))
        .route("/mesh/network", get(routes::network_facts))
        .route("/mesh/invite", get(routes::invitation))
        .route("/config", get(routes::config))
        .route("/discover", get(routes::discover))
        .route("/discover/watch", get(stream::watch))
        .layer(middleware::from_fn_with_state(token, guard::bearer));
    Router::new()
        .nest("/api/v1", v1)
        .route("/healthz", get(routes::healthz))
        .route("/readyz", get(routes::readyz))
        .route("/metrics", get(routes::metrics))
        .fallback(routes::nowhere)
        .method_not_allowed_fallback(routes::not_so)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(guard::Origins::of(address), guard::origin))
        .with_state(app)
}

#[cfg(test)]
mod tests;
