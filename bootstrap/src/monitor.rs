//! Pages for the operator's own monitoring: `/metrics`, `/healthz`, and one for
//! a person at `/`. None of them names a peer or an address.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use homehost_mesh::{MeshHandle, Role};
use homehost_protocol::NetworkName;
use homehost_runtime::Shutdown;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::deny_file::{DenyState, Reload};
use crate::page;
use crate::views::{DenyView, PeerView, StatusView};

/// What OpenMetrics 1.0 asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) registry: Arc<Registry>,
    pub(crate) mesh: MeshHandle,
    pub(crate) network: NetworkName,
    pub(crate) started: Instant,
    pub(crate) deny: watch::Receiver<DenyState>,
    pub(crate) deny_list: PathBuf,
    pub(crate) reload: mpsc::Sender<Reload>,
}

impl Sources {
    pub(crate) fn status_view(&self) -> StatusView {
        let status = self.mesh.status().borrow().clone();
        let traffic = self.mesh.traffic();
        let hosts = status.peers.iter().filter(|peer| peer.role == Role::Host).count();
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        StatusView {
            version: env!("CARGO_PKG_VERSION").into(),
            network: self.network.to_string(),
            node: self.mesh.node().to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            listening: status.listening.iter().map(ToString::to_string).collect(),
            hosts,
            bootstrap_nodes: status.peers.len() - hosts,
            clients: status.clients,
            joins: status.joins.count,
            join_ms_p50: ms(status.joins.p50),
            join_ms_p99: ms(status.joins.p99),
            received_bytes: traffic.received(),
            sent_bytes: traffic.sent(),
            deny: self.deny_view(&self.deny.borrow()),
        }
    }

    pub(crate) fn deny_view(&self, state: &DenyState) -> DenyView {
        DenyView {
            file: self.deny_list.to_string_lossy().into_owned(),
            entries: state.entries,
            problem: state.problem.clone(),
        }
    }

    pub(crate) fn peer_views(&self) -> Vec<PeerView> {
        let status = self.mesh.status().borrow().clone();
        let view = |peer: &homehost_mesh::PeerInfo| PeerView {
            node: peer.node.to_string(),
            address: peer.address.to_string(),
            role: peer.role.to_string(),
            agent: peer.agent.clone(),
            dialled: peer.outgoing,
            rtt_ms: peer.rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
            connected_s: peer.since.elapsed().as_secs(),
        };
        status.peers.iter().map(view).collect()
    }

    fn metrics_text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A port for the pages.
///
/// # Errors
/// What the system said.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves pages until the shutdown.
///
/// # Errors
/// What the system said.
pub(crate) async fn serve(
    listener: TcpListener,
    pages: Router,
    shutdown: Shutdown,
) -> io::Result<()> {
    let cut = shutdown.clone();
    let stopping = async move { shutdown.stopping().await };
    let serving = axum::serve(listener, pages).with_graceful_shutdown(stopping).into_future();
    cut.until_cut(serving).await.unwrap_or(Ok(()))
}

/// The pages that anyone who reaches the port may see.
pub(crate) fn router(sources: Sources) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .with_state(sources)
}

async fn overview(State(sources): State<Sources>) -> Response {
    match sources.metrics_text() {
        Ok(metrics) => {
            let page = page::render(&sources.status_view(), &metrics);
            let headers = [
                (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, Html(page)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics(State(sources): State<Sources>) -> Response {
    match sources.metrics_text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Healthy is a node that listens: whether hosts come is not in its hands.
async fn health(State(sources): State<Sources>) -> (StatusCode, &'static str) {
    if sources.mesh.status().borrow().listening.is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, "not listening\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}
