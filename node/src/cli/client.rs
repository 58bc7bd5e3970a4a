//! A client of a running node's HTTP API, over one connection a request.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use homehost_api::{Action, ActionRequest, ApiError, ErrorKind, Receipt};
use homehost_store::DataDir;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::exit::{Failure, failure};
use crate::place;

/// A daemon on this machine accepts at once, or is not there.
const CONNECT: Duration = Duration::from_secs(3);

/// Longest wait for what was asked for to be done: every rung of a stop ladder, and
/// a little more.
const DONE: Duration = Duration::from_secs(150);

/// Longest wait for an answer that the node only has to look up: a node that needs
/// more is stuck, or something else has its port.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for an answer for which the node asks the DHT: a record, the key
/// chains that it needs, and the record again, eight seconds each.
const ASKED_AROUND: Duration = Duration::from_secs(40);

/// Longest wait for a daemon that was asked to end: its drain and a margin.
const GONE: Duration = Duration::from_secs(15);

/// Largest answer: a thousand directory rows and a margin.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest line of an event stream.
const EVENT_BYTES_MAX: usize = 256 * 1024;

/// Access to the node of a data folder.
#[derive(Debug)]
pub(crate) struct Client {
    data_dir: PathBuf,
    address: SocketAddr,
    token: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ApiError,
}

impl Client {
    /// Finds the node that runs in a folder.
    ///
    /// # Errors
    /// When there is none, or its token cannot be read.
    pub(crate) fn find(data_dir: &Path) -> Result<Self, Failure> {
        // A daemon that was killed left its place there, and anybody may have its
        // port by now.
        if !DataDir::is_in_use(data_dir) {
            return Err(nobody(data_dir));
        }
        let place = place::find(data_dir).ok_or_else(|| {
            let text = format!(
                "what has {} serves no commands: it starts or ends just now; try again in a moment",
                data_dir.display()
            );
            failure(ErrorKind::Unavailable, text)
        })?;
        let path = place::token_file(data_dir);
        let token = std::fs::read_to_string(&path).map_err(|error| {
            let text = format!("failed to read {}: {error}; are you its owner?", path.display());
            failure(ErrorKind::Denied, text)
        })?;
        let token = token.trim().to_owned();
        Ok(Self { data_dir: data_dir.to_owned(), address: place.address, token })
    }

    /// Asks for JSON that the node has.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.within(ANSWER, async { self.whole(self.send(path, None).await?).await }).await
    }

    /// Asks for JSON for which the node has to ask others.
    pub(crate) async fn get_from_afar<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, Failure> {
        self.within(ASKED_AROUND, async { self.whole(self.send(path, None).await?).await }).await
    }

    /// Asks for JSON that comes in pages; returns the cursor of the next one as
    /// well.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(T, Option<String>), Failure> {
        let ask = async {
            let response = self.send(path, None).await?;
            let next = response.headers().get("x-next-cursor").and_then(|next| next.to_str().ok());
            let next = next.map(str::to_owned);
            Ok((self.whole(response).await?, next))
        };
        self.within(ANSWER, ask).await
    }

    /// Does something.
    pub(crate) async fn act(&self, action: Action) -> Result<Receipt, Failure> {
        let request = ActionRequest { key: None, action };
        let body = serde_json::to_vec(&request).map_err(not_understood)?;
        let act = async { self.whole(self.send("/api/v1/actions", Some(body)).await?).await };
        self.within(DONE, act).await
    }

    /// Reads an event stream until it ends or `each` says stop.
    pub(crate) async fn events<T: DeserializeOwned>(
        &self,
        path: &str,
        mut each: impl FnMut(T),
    ) -> Result<(), Failure> {
        let begin = async {
            let response = self.send(path, None).await?;
            if response.status() == StatusCode::OK {
                return Ok(response);
            }
            self.whole::<()>(response).await?;
            Err(not_understood("no stream"))
        };
        let response = self.within(ANSWER, begin).await?;
        let mut body = response.into_body();
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { break };
            let Some(data) = frame.data_ref() else { continue };
            buffer.extend_from_slice(data);
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = buffer.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&event);
                if text.lines().any(|line| line == "event: end") {
                    return Ok(());
                }
                if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")) {
                    each(serde_json::from_str(data).map_err(not_understood)?);
                }
            }
            if buffer.len() > EVENT_BYTES_MAX {
                return Err(not_understood("an event without end"));
            }
        }
        Err(failure(ErrorKind::Unavailable, "the node has ended"))
    }

    /// Waits until the daemon has let go of its folder, so that a next one can
    /// start.
    pub(crate) async fn wait_until_gone(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + GONE;
        while DataDir::is_in_use(&self.data_dir) {
            if Instant::now() > deadline {
                let text = "the node was asked to stop but is still there: see its log";
                return Err(failure(ErrorKind::Timeout, text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// What comes of a question or an action in time.
    async fn within<T>(
        &self,
        limit: Duration,
        ask: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout(limit, ask).await.unwrap_or_else(|_| {
            let text = format!(
                "the node did not answer at {} within {} s: see its log; if it stays so, end its \
                 process and start it again with `homehost up`, which leaves the games alone",
                self.address,
                limit.as_secs()
            );
            Err(failure(ErrorKind::Timeout, text))
        })
    }

    async fn send(&self, path: &str, body: Option<Vec<u8>>) -> Result<Response<Incoming>, Failure> {
        let connected = timeout(CONNECT, TcpStream::connect(self.address)).await;
        let Ok(Ok(stream)) = connected else {
            // It may have ended since it was found.
            if !DataDir::is_in_use(&self.data_dir) {
                return Err(nobody(&self.data_dir));
            }
            let text = format!(
                "the node in {} takes no connection at {}: it starts or ends just now; try again \
                 in a moment, and see its log",
                self.data_dir.display(),
                self.address
            );
            return Err(failure(ErrorKind::Unavailable, text));
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(not_understood)?;
        // It ends with the response's body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(not_understood)?;
        sender.send_request(request).await.map_err(|error| {
            let text = format!(
                "the node went away before it answered ({error}): `homehost status` says whether \
                 it still runs"
            );
            failure(ErrorKind::Unavailable, text)
        })
    }

    async fn whole<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(not_understood)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(not_understood);
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => Err(body.error),
            Err(_) => Err(not_understood(format!("status {status}"))),
        }
    }
}

fn nobody(data_dir: &Path) -> Failure {
    let text =
        format!("no node is running in {}: start one with `homehost up`", data_dir.display());
    failure(ErrorKind::Unavailable, text)
}

fn not_understood(error: impl std::fmt::Display) -> Failure {
    let text = format!("the node's answer was not understood ({error}): is it another version?");
    failure(ErrorKind::Internal, text)
}

/// A query string, with its question mark.
pub(crate) fn query_string(query: &impl Serialize) -> Result<String, Failure> {
    serde_urlencoded::to_string(query).map(|text| format!("?{text}")).map_err(not_understood)
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut segment = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            segment.push(byte.into());
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}
