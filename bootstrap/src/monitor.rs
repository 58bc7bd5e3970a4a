//! `/metrics` and `/healthz` on loopback, for the operator's own monitoring.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use homehost_mesh::MeshStatus;
use homehost_runtime::Shutdown;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What OpenMetrics 1.0 asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) registry: Arc<Registry>,
    pub(crate) status: watch::Receiver<Arc<MeshStatus>>,
}

/// A port for the pages.
///
/// # Errors
/// What the system said.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves the pages until the shutdown.
///
/// # Errors
/// What the system said.
pub(crate) async fn serve(
    listener: TcpListener,
    sources: Sources,
    shutdown: Shutdown,
) -> io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .with_state(sources);
    let cut = shutdown.clone();
    let stopping = async move { shutdown.stopping().await };
    let serving = axum::serve(listener, pages).with_graceful_shutdown(stopping).into_future();
    cut.until_cut(serving).await.unwrap_or(Ok(()))
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &sources.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Healthy is a node that listens: whether hosts come is not in its hands.
async fn health(State(sources): State<Sources>) -> (StatusCode, &'static str) {
    if sources.status.borrow().listening.is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, "not listening\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}
