//! Questions that have one answer.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use homehost_api::{
    ActionRequest, ConfigView, DiscoverQuery, ErrorKind, Identity, Invitation, Lookup, MeshStats,
    NetworkFacts, NodeStatus, Peer, Principal, Receipt, Server, ServerReach,
};

use crate::App;
use crate::problem::Problem;

type Answer<T> = Result<Json<T>, Problem>;

pub(crate) async fn act(
    State(app): State<App>,
    request: Result<Json<ActionRequest>, JsonRejection>,
) -> Answer<Receipt> {
    let Json(request) =
        request.map_err(|error| Problem::new(ErrorKind::Usage, error.body_text()))?;
    Ok(Json(app.api.act(request, Principal::LocalOwner).await?))
}

pub(crate) async fn status(State(app): State<App>) -> Answer<NodeStatus> {
    Ok(Json(app.api.status().await?))
}

pub(crate) async fn identity(State(app): State<App>) -> Answer<Identity> {
    Ok(Json(app.api.identity().await?))
}

pub(crate) async fn peers(State(app): State<App>) -> Answer<Vec<Peer>> {
    Ok(Json(app.api.peers().await?))
}

pub(crate) async fn servers(State(app): State<App>) -> Answer<Vec<Server>> {
    Ok(Json(app.api.servers().await?))
}

pub(crate) async fn server(State(app): State<App>, Segment(server): Segment) -> Answer<Server> {
    Ok(Json(app.api.server(&server).await?))
}

pub(crate) async fn reach(State(app): State<App>, Segment(server): Segment) -> Answer<ServerReach> {
    Ok(Json(app.api.reach(&server).await?))
}

pub(crate) async fn lookup(State(app): State<App>, Segment(id): Segment) -> Answer<Lookup> {
    Ok(Json(app.api.lookup(&id).await?))
}

pub(crate) async fn mesh_stats(State(app): State<App>) -> Answer<MeshStats> {
    Ok(Json(app.api.mesh_stats().await?))
}

pub(crate) async fn network_facts(State(app): State<App>) -> Answer<NetworkFacts> {
    Ok(Json(app.api.network_facts().await?))
}

pub(crate) async fn invitation(State(app): State<App>) -> Answer<Invitation> {
    Ok(Json(app.api.invitation().await?))
}

pub(crate) async fn config(State(app): State<App>) -> Answer<ConfigView> {
    Ok(Json(app.api.config().await?))
}

pub(crate) async fn discover(
    State(app): State<App>,
    query: Result<Query<DiscoverQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let page = app.api.discover(query_of(query)?).await?;
    // The rows are the body, whole; how they go on is beside them.
    let matching = [(MATCHING_ROWS, page.matching.to_string())];
    let next = page.next.map(|cursor| [(NEXT_CURSOR, cursor)]);
    Ok(match next {
        Some(next) => (matching, next, Json(page.rows)).into_response(),
        None => (matching, Json(page.rows)).into_response(),
    })
}

/// Header with the cursor of the next page; left out on the last.
const NEXT_CURSOR: &str = "x-next-cursor";

/// Header with the number of rows that match in all.
const MATCHING_ROWS: &str = "x-matching-rows";

/// The part of a path that names something.
#[derive(Debug)]
pub(crate) struct Segment(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(error) => {
                let text = format!("this address cannot be read: {}", error.body_text());
                Err(Problem::new(ErrorKind::Usage, text))
            }
        }
    }
}

/// A query string that could be read, or a problem that says why not.
pub(crate) fn query_of<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query
        .map(|Query(query)| query)
        .map_err(|error| Problem::new(ErrorKind::Usage, error.body_text()))
}

pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

pub(crate) async fn readyz(State(app): State<App>) -> Response {
    if app.api.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
    }
}

pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = app.api.metrics().await?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

pub(crate) async fn nowhere() -> Problem {
    Problem::new(ErrorKind::NotFound, "nothing is served here; the API is under /api/v1")
}

pub(crate) async fn not_so() -> Response {
    let problem = Problem::new(ErrorKind::Usage, "this address takes another method");
    (StatusCode::METHOD_NOT_ALLOWED, problem).into_response()
}
