//! Questions whose answer goes on: server-sent events, one JSON object each.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, KeepAliveStream, Sse};
use futures::stream::{BoxStream, Stream, StreamExt as _};
use homehost_api::{DiscoverQuery, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::App;
use crate::problem::Problem;
use crate::routes::{Segment, query_of};

/// A comment line this often keeps a silent stream open through any proxy, and
/// lets us notice that the reader is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Lines of a console that one request may ask for from the past.
const TAIL_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogQuery {
    tail: usize,
    follow: bool,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self { tail: 100, follow: false }
    }
}

type Events = BoxStream<'static, Result<Event, Infallible>>;

pub(crate) async fn logs(
    State(app): State<App>,
    Segment(server): Segment,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Sse<KeepAliveStream<Events>>, Problem> {
    let query = query_of(query)?;
    let lines = app.api.logs(&server, query.tail.min(TAIL_MAX), query.follow).await?;
    events(&app, "line", lines)
}

pub(crate) async fn watch(
    State(app): State<App>,
    query: Result<Query<DiscoverQuery>, QueryRejection>,
) -> Result<Sse<KeepAliveStream<Events>>, Problem> {
    let changes = app.api.watch(query_of(query)?).await?;
    events(&app, "row", changes)
}

/// Turns items into events. When the source ends, an `end` event says so:
/// without it a reader could not tell an end from a broken connection.
fn events<T: Serialize + Send + 'static>(
    app: &App,
    name: &'static str,
    items: impl Stream<Item = T> + Send + 'static,
) -> Result<Sse<KeepAliveStream<Events>>, Problem> {
    let permit = app.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(ErrorKind::Unavailable, "too many open streams: close one and try again")
    })?;
    let items = items.map(move |item| {
        let _held = &permit;
        Event::default().event(name).json_data(item).unwrap_or_default()
    });
    let end = futures::stream::once(async { Event::default().event("end").data("{}") });
    let events = items.chain(end).map(Ok).boxed();
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
