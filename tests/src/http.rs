//! HTTP by hand: what a browser or a hostile page could send, byte by byte.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for an answer; it also covers a stop that takes its time.
const ANSWER: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers, as they came.
    pub head: String,
    /// Body.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {self:?}"),
        }
    }
}

/// Sends a request line with headers and a body, and reads until the other side
/// closes: HTTP/1.0, so that nothing is chunked.
///
/// # Panics
/// When nobody answers.
#[track_caller]
pub fn exchange(to: SocketAddr, request: &str, headers: &[(&str, &str)], body: &str) -> Response {
    try_exchange(to, request, headers, body).unwrap_or_else(|error| panic!("{request}: {error}"))
}

pub(crate) fn try_exchange(
    to: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Response> {
    let mut stream = send(to, request, headers, body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Response { status, head: head.to_owned(), body: body.to_owned() })
}

fn send(
    to: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = format!("{request} HTTP/1.0\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes())?;
    Ok(stream)
}

/// An open event stream.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<TcpStream>,
    seen: Vec<Value>,
}

impl Events {
    /// Opens one.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn open(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = send(to, &format!("GET {path}"), headers, "").expect("the node answers");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let n = reader.read_line(&mut head).expect("the node answers");
            assert!(n > 0, "{head}");
        }
        assert!(head.contains(" 200 "), "{head}");
        assert!(head.to_lowercase().contains("text/event-stream"), "{head}");
        Self { reader, seen: Vec::new() }
    }

    /// The next event for whose data `wanted` has a result.
    ///
    /// # Panics
    /// When there is none in time.
    #[track_caller]
    pub fn find<T>(
        &mut self,
        within: Duration,
        what: &str,
        wanted: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: not within {within:?}; events: {:#?}", self.seen);
            let stream = self.reader.get_ref();
            stream.set_read_timeout(Some(left)).expect("the time is not zero");
            let mut line = String::new();
            let read = self.reader.read_line(&mut line);
            assert!(!matches!(read, Ok(0)), "{what}: the stream ended: {:#?}", self.seen);
            let Some(data) = line.trim_end().strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(data).expect("data is JSON");
            let found = wanted(&event);
            self.seen.push(event);
            if let Some(found) = found {
                return found;
            }
        }
    }
}
