//! How the operator's commands reach the running node: a port on loopback, and
//! a file in the node's folder that says which, with a token that only those who
//! may read the folder know.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use homehost_runtime::files::write_private;
use serde::{Deserialize, Serialize};

use crate::deny_file::Reload;
use crate::monitor::Sources;
use crate::views::{DenyView, PeerView, StatusView};

/// The file's name in the node's folder.
const PLACE_FILE: &str = "control.json";

/// Bytes of a token: not to be guessed.
const TOKEN_BYTES: usize = 32;

/// Where the running node listens for its operator.
#[derive(Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    /// The deny list that it reads.
    pub(crate) deny_list: PathBuf,
}

impl Place {
    /// With a new token.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn new(address: SocketAddr, deny_list: PathBuf) -> anyhow::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        let token = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { address, token, deny_list })
    }

    /// Tells commands where the node is.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn publish(&self, folder: &Path) -> std::io::Result<()> {
        let json = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        write_private(&folder.join(PLACE_FILE), &json)
    }

    /// Where the node of a folder is, if one said so; it may have ended since.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(PLACE_FILE)).ok()?).ok()
    }

    /// Takes back what [`Self::publish`] said.
    pub(crate) fn withdraw(folder: &Path) {
        // For tidiness; a command finds out by itself.
        let _ = std::fs::remove_file(folder.join(PLACE_FILE));
    }
}

/// What may be asked with the token.
pub(crate) fn router(sources: Sources, token: String) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/peers", get(peers))
        .route("/reload", post(reload))
        .layer(middleware::from_fn_with_state(format!("Bearer {token}"), only_with_token))
        .with_state(sources)
}

async fn only_with_token(State(expected): State<String>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if given.is_some_and(|given| equal(given, expected.as_bytes())) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Takes as long for a wrong token that begins rightly as for any other.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn status(State(sources): State<Sources>) -> Json<StatusView> {
    Json(sources.status_view())
}

async fn peers(State(sources): State<Sources>) -> Json<Vec<PeerView>> {
    Json(sources.peer_views())
}

/// Reads the deny list now, and says what holds after that.
async fn reload(State(sources): State<Sources>) -> Result<Json<DenyView>, StatusCode> {
    let (reply, read) = tokio::sync::oneshot::channel::<crate::deny_file::DenyState>();
    let asked: Result<(), tokio::sync::mpsc::error::SendError<Reload>> =
        sources.reload.send(reply).await;
    asked.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let state = read.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(sources.deny_view(&state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_whole_token() {
        assert!(equal(b"Bearer 12", b"Bearer 12"));
        for wrong in ["", "Bearer 1", "Bearer 13", "Bearer 123", "bearer 12"] {
            assert!(!equal(wrong.as_bytes(), b"Bearer 12"), "{wrong}");
        }
    }

    #[test]
    fn a_place_is_found_as_it_was_published_and_private() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Place::find(folder.path()).is_none());
        let place = Place::new(([127, 0, 0, 1], 7).into(), "deny.txt".into()).unwrap();
        place.publish(folder.path()).unwrap();
        let found = Place::find(folder.path()).unwrap();
        assert_eq!((found.address, &found.token), (place.address, &place.token));
        assert_eq!(found.token.len(), 2 * TOKEN_BYTES);
        std::fs::write(folder.path().join(PLACE_FILE), "{").unwrap();
        assert!(Place::find(folder.path()).is_none());
        Place::withdraw(folder.path());
        assert!(!folder.path().join(PLACE_FILE).exists());
    }
}
