//! Who gets in, and what errors look like from outside.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use futures::stream::{self, BoxStream, StreamExt as _};
use homehost_api::{
    ActionRequest, ApiError, ConfigView, DirectoryChange, DirectoryPage, DiscoverQuery, ErrorKind,
    Identity, Invitation, LogLine, Lookup, MeshStats, NetworkFacts, NodeApi, NodeStatus, Peer,
    Principal, Receipt, Server, ServerReach,
};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::*;

/// A node that has nothing and refuses everything: these tests are about the
/// way in, whole nodes are tested as processes.
struct Nobody;

fn no<T>() -> Result<T, ApiError> {
    Err(ApiError::new(ErrorKind::NotFound, "there is no such server"))
}

#[async_trait]
impl NodeApi for Nobody {
    async fn act(&self, _: ActionRequest, _: Principal) -> Result<Receipt, ApiError> {
        no()
    }
    async fn status(&self) -> Result<NodeStatus, ApiError> {
        no()
    }
    async fn identity(&self) -> Result<Identity, ApiError> {
        no()
    }
    async fn lookup(&self, _: &str) -> Result<Lookup, ApiError> {
        no()
    }
    async fn reach(&self, _: &str) -> Result<ServerReach, ApiError> {
        Err(ApiError::new(ErrorKind::NotFound, "there is no such server"))
    }
    async fn mesh_stats(&self) -> Result<MeshStats, ApiError> {
        Ok(MeshStats::default())
    }
    async fn network_facts(&self) -> Result<NetworkFacts, ApiError> {
        Ok(NetworkFacts::default())
    }
    async fn peers(&self) -> Result<Vec<Peer>, ApiError> {
        Ok(vec![])
    }
    async fn servers(&self) -> Result<Vec<Server>, ApiError> {
        no()
    }
    async fn server(&self, _: &str) -> Result<Server, ApiError> {
        no()
    }
    async fn logs(
        &self,
        _: &str,
        _: usize,
        _: bool,
    ) -> Result<BoxStream<'static, LogLine>, ApiError> {
        let line = LogLine { seq: 1, at: "now".into(), text: "hello".into() };
        Ok(stream::iter([line]).boxed())
    }
    async fn discover(&self, query: DiscoverQuery) -> Result<DirectoryPage, ApiError> {
        let next = query.limit.map(|limit| format!("cursor{limit}"));
        Ok(DirectoryPage { rows: vec![], next, matching: 7 })
    }
    async fn watch(
        &self,
        _: DiscoverQuery,
    ) -> Result<BoxStream<'static, DirectoryChange>, ApiError> {
        no()
    }
    async fn invitation(&self) -> Result<Invitation, ApiError> {
        no()
    }
    async fn config(&self) -> Result<ConfigView, ApiError> {
        no()
    }
    fn is_ready(&self) -> bool {
        false
    }
    async fn metrics(&self) -> Result<String, ApiError> {
        Ok("# EOF\n".into())
    }
}

async fn answer(request: axum::http::request::Builder, body: &str) -> Response<Body> {
    let address = "127.0.0.1:7780".parse().unwrap();
    let router = router(Arc::new(Nobody), Token::new("secret".into()), address);
    let request = request.body(Body::from(body.to_owned())).unwrap();
    router.oneshot(request).await.unwrap()
}

async fn ask(request: axum::http::request::Builder, body: &str) -> (StatusCode, String) {
    let response = answer(request, body).await;
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn get(path: &str) -> axum::http::request::Builder {
    Request::get(path).header("host", "localhost:7780").header("authorization", "Bearer secret")
}

#[tokio::test]
async fn only_the_token_opens_the_api() {
    assert_eq!(ask(get("/api/v1/peers"), "").await, (StatusCode::OK, "[]".into()));
    for header in
        [None, Some("Bearer"), Some("Bearer wrong!"), Some("Bearer secre"), Some("secret")]
    {
        let mut request = Request::get("/api/v1/peers").header("host", "localhost:7780");
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        assert_eq!(ask(request, "").await.0, StatusCode::UNAUTHORIZED, "{header:?}");
    }
}

#[tokio::test]
async fn other_names_and_other_pages_are_refused() {
    for host in ["localhost:7780", "127.0.0.1:7780", "[::1]:7780", "LOCALHOST:7780"] {
        let request = Request::get("/healthz").header("host", host);
        assert_eq!(ask(request, "").await.0, StatusCode::OK, "{host}");
    }
    for host in ["evil.example:7780", "localhost", "localhost:80", "localhost:7780.evil.example"] {
        let request = Request::get("/healthz").header("host", host);
        assert_eq!(ask(request, "").await.0, StatusCode::FORBIDDEN, "{host}");
    }
    assert_eq!(ask(Request::get("/healthz"), "").await.0, StatusCode::FORBIDDEN);
    for (origin, status) in [
        ("http://localhost:7780", StatusCode::OK),
        ("http://evil.example", StatusCode::FORBIDDEN),
        ("https://localhost:7780", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
    ] {
        let request = get("/api/v1/peers").header("origin", origin);
        assert_eq!(ask(request, "").await.0, status, "{origin}");
    }
}

#[tokio::test]
async fn how_a_result_goes_on_is_told_beside_the_rows() {
    let ask = async |path| {
        let response = answer(get(path), "").await;
        ["x-next-cursor", "x-matching-rows"]
            .map(|name| response.headers().get(name).map(|text| text.to_str().unwrap().to_owned()))
    };
    let seven = Some("7".to_owned());
    assert_eq!(ask("/api/v1/discover?limit=3").await, [Some("cursor3".into()), seven.clone()]);
    assert_eq!(ask("/api/v1/discover?pvp=false&cursor=abc").await, [None, seven]);
}

#[tokio::test]
async fn errors_have_a_kind_and_a_sentence() {
    let (status, body) = ask(get("/api/v1/servers/none"), "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body, r#"{"error":{"kind":"not-found","message":"there is no such server"}}"#);
    let (status, body) = ask(get("/api/v1/discover?colour=red"), "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("unknown field") && body.contains("colour"), "{body}");
    let (status, body) = ask(get("/api/v1/discover?sort=luck"), "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("`players`, `name`, `new`, `proved`"), "{body}");
    for path in ["/servers/%ff", "/servers/%ff/logs", "/servers/%ff/reach", "/lookup/%ff"] {
        let (status, body) = ask(get(&format!("/api/v1{path}")), "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(body.starts_with(r#"{"error":{"kind":"usage","message":"this address"#), "{body}");
    }
    assert_eq!(ask(get("/elsewhere"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(get("/readyz"), "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let post = || {
        Request::post("/api/v1/actions")
            .header("host", "localhost:7780")
            .header("authorization", "Bearer secret")
            .header("content-type", "application/json")
    };
    for body in ["", "{", r#"{"action":{"do":"fly"}}"#, &"x".repeat(100_000)] {
        let (status, _) = ask(post(), body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    let (status, body) =
        ask(Request::delete("/healthz").header("host", "localhost:7780"), "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(body.contains("another method"), "{body}");
    let extra = r#"{"action":{"do":"server-start","server":"x","force":true}}"#;
    assert_eq!(ask(post(), extra).await.0, StatusCode::BAD_REQUEST);
    let known = r#"{"action":{"do":"server-start","server":"x"}}"#;
    assert_eq!(ask(post(), known).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stream_says_that_it_ended() {
    let (status, body) = ask(get("/api/v1/servers/x/logs?tail=5"), "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("event: line\ndata: {\"seq\":1"), "{body}");
    assert!(body.ends_with("event: end\ndata: {}\n\n"), "{body}");
}

/// A listener of its own that is served, and where it is.
async fn served() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = Token::new("secret".into());
    tokio::spawn(serve(listener, Arc::new(Nobody), token, std::future::pending()));
    address
}

/// The status of an answer on a connection that stays open.
async fn ask_on(stream: &mut TcpStream, address: SocketAddr, token: &str) -> Option<String> {
    let request = format!(
        "GET /api/v1/peers HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut bytes = [0; 4096];
    let n = stream.read(&mut bytes).await.ok()?;
    let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
    text.split(' ').nth(1).map(str::to_owned)
}

#[tokio::test]
async fn strangers_give_way_and_the_owner_stays() {
    let address = served().await;
    let mut owner = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask_on(&mut owner, address, "secret").await.as_deref(), Some("200"));
    let mut strangers = Vec::new();
    for n in 0..2 * connections::CONNECTIONS_MAX {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        // Half of them say something, and have no token.
        if n % 2 == 0 {
            assert_eq!(ask_on(&mut stranger, address, "wrong").await.as_deref(), Some("401"));
        }
        strangers.push(stranger);
    }
    assert_eq!(ask_on(&mut owner, address, "secret").await.as_deref(), Some("200"));
    let mut another = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask_on(&mut another, address, "secret").await.as_deref(), Some("200"));
    // The first are those that went.
    assert_eq!(ask_on(&mut strangers[0], address, "wrong").await, None);
    let last = strangers.last_mut().unwrap();
    assert_eq!(ask_on(last, address, "wrong").await.as_deref(), Some("401"));
}

#[tokio::test]
async fn the_owner_alone_cannot_have_more_than_there_is_place_for() {
    let address = served().await;
    let mut owners = Vec::new();
    for _ in 0..connections::CONNECTIONS_MAX {
        let mut owner = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask_on(&mut owner, address, "secret").await.as_deref(), Some("200"));
        owners.push(owner);
    }
    let mut late = TcpStream::connect(address).await.unwrap();
    let mut waits = std::pin::pin!(ask_on(&mut late, address, "secret"));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    assert_eq!(ask_on(&mut owners[0], address, "secret").await.as_deref(), Some("200"));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    owners.pop();
    assert_eq!(waits.await.as_deref(), Some("200"));
}
