//! The messages of AutoNAT v2, as both sides write and read them.
//!
//! They are protobuf of three types of fields, in frames of at most 4 KiB. The
//! format is that of libp2p's specification `autonat/autonat-v2.md`.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{Multiaddr, StreamProtocol};

/// Where somebody asks to have an address of his dialled.
pub(crate) const DIAL_REQUEST: StreamProtocol =
    StreamProtocol::new("/libp2p/autonat/2/dial-request");
/// Where the answering dial says why it came.
pub(crate) const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

/// Longest message: some addresses, or a few numbers.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Addresses of a request that are read.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// How much of the data that a server may ask for is in one message.
const DATA_BYTES_EACH: usize = 4000;

/// A request to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// What may be dialled, the most wanted first, by its place in the request.
    /// What cannot be read is left out.
    pub(crate) addresses: Vec<(u32, Multiaddr)>,
    /// What the dial has to say.
    pub(crate) nonce: u64,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The dial got through and said its number.
    Reached {
        /// Which address was dialled.
        index: u32,
    },
    /// Nobody is reached there.
    Unreached {
        /// Which address was dialled.
        index: u32,
    },
    /// Somebody is reached there, who did not take the number.
    Unheard {
        /// Which address was dialled.
        index: u32,
    },
    /// There is no address that would be dialled.
    Refused,
    /// Not now.
    Rejected,
    /// Something went wrong at the server.
    Failed,
}

const OK: u64 = 200;
const REJECTED: u64 = 100;
const REFUSED: u64 = 101;
const DIAL_ERROR: u64 = 100;
const DIAL_BACK_ERROR: u64 = 101;

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// It has tried, or will not.
    Answer(Answer),
    /// So many bytes are to be sent before it does.
    WantsData(u64),
}

impl Request {
    pub(crate) fn encode(address: &Multiaddr, nonce: u64) -> Vec<u8> {
        let mut request = Vec::new();
        put_bytes(&mut request, 1, &address.to_vec());
        put_fixed(&mut request, 2, nonce);
        message(1, &request)
    }

    /// # Errors
    /// When it is no request.
    pub(crate) fn decode(message: &[u8]) -> io::Result<Self> {
        let Some(Ok((1, Value::Bytes(body)))) = fields(message).next() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (mut addresses, mut nonce, mut index) = (Vec::new(), 0, 0);
        for field in fields(body) {
            match field? {
                (1, Value::Bytes(bytes)) => {
                    if let Ok(address) = Multiaddr::try_from(bytes.to_vec())
                        && addresses.len() < ADDRESSES_MAX
                    {
                        addresses.push((index, address));
                    }
                    index += 1;
                }
                (2, Value::Fixed(value)) => nonce = value,
                _ => {}
            }
        }
        Ok(Self { addresses, nonce })
    }
}

impl Answer {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (status, index, dial) = match self {
            Self::Reached { index } => (OK, index, OK),
            Self::Unreached { index } => (OK, index, DIAL_ERROR),
            Self::Unheard { index } => (OK, index, DIAL_BACK_ERROR),
            Self::Refused => (REFUSED, 0, 0),
            Self::Rejected => (REJECTED, 0, 0),
            Self::Failed => (0, 0, 0),
        };
        let mut body = Vec::new();
        for (field, value) in [(1, status), (2, u64::from(index)), (3, dial)] {
            put_number(&mut body, field, value);
        }
        message(2, &body)
    }
}

impl Response {
    /// # Errors
    /// When it is no response.
    pub(crate) fn decode(message: &[u8]) -> io::Result<Self> {
        let Some(Ok((kind, Value::Bytes(body)))) = fields(message).next() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let number = |field| number(body, field);
        match kind {
            2 => {
                let index = u32::try_from(number(2)?).map_err(|_| io::ErrorKind::InvalidData)?;
                Ok(Self::Answer(match (number(1)?, number(3)?) {
                    (OK, OK) => Answer::Reached { index },
                    (OK, DIAL_ERROR) => Answer::Unreached { index },
                    (OK, DIAL_BACK_ERROR) => Answer::Unheard { index },
                    (REFUSED, _) => Answer::Refused,
                    (REJECTED, _) => Answer::Rejected,
                    _ => Answer::Failed,
                }))
            }
            3 => Ok(Self::WantsData(number(2)?)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The number that a dial says, as a message of its own.
pub(crate) fn encode_dial_back(nonce: u64) -> Vec<u8> {
    let mut message = Vec::new();
    put_fixed(&mut message, 1, nonce);
    message
}

/// # Errors
/// When there is no number.
pub(crate) fn decode_dial_back(message: &[u8]) -> io::Result<u64> {
    let nonce = fields(message).find_map(|field| match field {
        Ok((1, Value::Fixed(nonce))) => Some(nonce),
        _ => None,
    });
    nonce.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What is said to a number that is known: the status OK is 0, which is not
/// written.
pub(crate) const HEARD: &[u8] = &[];

/// The data that a server wants, in messages.
pub(crate) fn data(bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    let sizes = (0..bytes).step_by(DATA_BYTES_EACH).map(move |at| DATA_BYTES_EACH.min(bytes - at));
    sizes.map(|size| {
        let mut body = Vec::new();
        put_bytes(&mut body, 1, &vec![0; size]);
        message(4, &body)
    })
}

fn message(kind: u64, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(&mut message, kind, body);
    message
}

/// The value of a number field; 0 is not written.
fn number(message: &[u8], wanted: u64) -> io::Result<u64> {
    for field in fields(message) {
        if let (field, Value::Varint(value)) = field?
            && field == wanted
        {
            return Ok(value);
        }
    }
    Ok(0)
}

/// A protobuf value of the types that occur here.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, up to the first fault.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = io::Result<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest).ok_or_else(|| io::ErrorKind::InvalidData.into());
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => {
            let (bytes, after) = rest.split_first_chunk::<8>()?;
            *rest = after;
            Value::Fixed(u64::from_le_bytes(*bytes))
        }
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value as u8) | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_number(to: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        put_varint(to, field << 3);
        put_varint(to, value);
    }
}

fn put_fixed(to: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(to, (field << 3) | 1);
    to.extend(value.to_le_bytes());
}

fn put_bytes(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(to, (field << 3) | 2);
    put_varint(to, bytes.len() as u64);
    to.extend(bytes);
}

/// # Errors
/// When the stream fails.
pub(crate) async fn write_message<S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &[u8],
) -> io::Result<()> {
    let mut frame = Vec::with_capacity(message.len() + 4);
    put_varint(&mut frame, message.len() as u64);
    frame.extend(message);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// # Errors
/// When the stream fails or ends, or the message is too long.
pub(crate) async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut length = 0_usize;
    for shift in [0, 7] {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            if length > MESSAGE_BYTES_MAX {
                break;
            }
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await?;
            return Ok(message);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let at = address("/ip4/8.8.8.8/tcp/4011");
        let request = Request::decode(&Request::encode(&at, 7)).unwrap();
        assert_eq!(request, Request { addresses: vec![(0, at)], nonce: 7 });
        let index = 3;
        for answer in [
            Answer::Reached { index },
            Answer::Unreached { index },
            Answer::Unheard { index },
            Answer::Refused,
            Answer::Rejected,
            Answer::Failed,
        ] {
            assert_eq!(Response::decode(&answer.encode()).unwrap(), Response::Answer(answer));
        }
        assert_eq!(decode_dial_back(&encode_dial_back(u64::MAX)).unwrap(), u64::MAX);
        let sent: usize = data(30_000).map(|message| message.len()).sum();
        assert!((30_000..31_000).contains(&sent) && data(0).count() == 0, "{sent}");
        assert!(data(30_000).all(|message| message.len() <= MESSAGE_BYTES_MAX));
    }

    /// The bytes of libp2p's own encoding, field by field.
    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let at = address("/ip4/1.2.3.4/tcp/5");
        let bytes = [4, 1, 2, 3, 4, 6, 0, 5];
        let mut wanted = vec![0x0a, 19, 0x0a, 8];
        wanted.extend(bytes);
        wanted.extend([0x11, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Request::encode(&at, 9), wanted);
        let reached = [0x12, 6, 0x08, 0xc8, 0x01, 0x18, 0xc8, 0x01];
        assert_eq!(Answer::Reached { index: 0 }.encode(), reached);
        assert_eq!(Answer::Failed.encode(), [0x12, 0]);
    }

    #[test]
    fn of_a_request_only_so_much_is_read_and_what_is_no_address_keeps_its_place() {
        let mut body = Vec::new();
        put_bytes(&mut body, 1, b"\xff\xff");
        for _ in 0..100 {
            put_bytes(&mut body, 1, &address("/ip4/1.2.3.4/tcp/5").to_vec());
        }
        let request = Request::decode(&message(1, &body)).unwrap();
        assert_eq!((request.addresses.len(), request.addresses[0].0), (ADDRESSES_MAX, 1));
    }

    #[tokio::test]
    async fn hostile_bytes_are_errors() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5000 {
            let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            let _ = (Request::decode(&bytes), Response::decode(&bytes), decode_dial_back(&bytes));
            let _ = read_message(&mut &bytes[..]).await;
        }
        assert!(read_message(&mut &[0xff, 0xff, 0xff, 0x7f][..]).await.is_err());
        assert!(read_message(&mut &[5, 1, 2][..]).await.is_err(), "cut off");
        assert!(Response::decode(&Request::encode(&address("/ip4/1.2.3.4/tcp/5"), 1)).is_err());
    }
}
