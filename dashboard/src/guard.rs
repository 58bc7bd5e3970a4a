//! Who may ask: the right `Host`, no foreign `Origin`, the owner's token.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use homehost_api::ErrorKind;

use crate::Token;
use crate::connections::Owner;
use crate::problem::Problem;

/// The names under which this server may be addressed.
#[derive(Clone, Debug)]
pub(crate) struct Origins(Arc<[String]>);

impl Origins {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let port = address.port();
        let mut hosts = vec![format!("localhost:{port}"), address.to_string()];
        hosts.push(format!("127.0.0.1:{port}"));
        hosts.push(format!("[::1]:{port}"));
        Self(hosts.into())
    }

    fn is_host(&self, host: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(host))
    }

    fn is_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|host| self.is_host(host))
    }
}

/// Refuses requests for another host name or from another origin.
pub(crate) async fn origin(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(&origins, request.headers()) {
        Some(reason) => Problem::new(ErrorKind::Denied, reason).into_response(),
        None => next.run(request).await,
    }
}

fn refusal(origins: &Origins, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if !text(header::HOST).is_some_and(|host| origins.is_host(host)) {
        return Some("this address is served under localhost only: open http://localhost:PORT");
    }
    if text(header::ORIGIN).is_some_and(|origin| !origins.is_origin(origin)) {
        return Some("requests from other web pages are refused");
    }
    None
}

/// Refuses requests without the owner's token.
pub(crate) async fn bearer(State(token): State<Token>, request: Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if shown.is_some_and(|shown| token.matches(shown)) {
        if let Some(owner) = request.extensions().get::<Owner>() {
            owner.shown();
        }
        return next.run(request).await;
    }
    let problem = Problem::new(
        ErrorKind::Denied,
        "send the token of the node's file api.token as `Authorization: Bearer …`",
    );
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}
