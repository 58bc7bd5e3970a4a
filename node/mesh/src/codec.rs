//! Bytes of the RPCs (spec/mesh §4, §9, §10): a 32-bit big-endian length and
//! that many bytes, then the end of the stream.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use homehost_protocol::NetworkName;
use homehost_protocol::limits::{RPC_REQUEST_BYTES_MAX, RPC_RESPONSE_BYTES_MAX};
use homehost_protocol::rpc::attest::{ATTEST_BYTES_MAX, AttestRequest};
use homehost_protocol::rpc::px::{
    PX_REQUEST_BYTES_MAX, PX_RESPONSE_BYTES_MAX, PxRequest, PxResponse,
};
use homehost_protocol::rpc::{Request, Response, RpcError};
use libp2p::{StreamProtocol, request_response};

/// What is set aside before any byte of the message has come. A peer that
/// announces the longest message and sends none of it costs no more than this.
const READ_AHEAD_BYTES: usize = 4 * 1024;

/// The protocol's name on a network.
///
/// A network's name is a slug, so the result always begins with `/`.
pub(crate) fn protocol(network: &NetworkName) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/homehost/{network}/directory/1"))
        .expect("the name begins with a slash")
}

/// The directory RPC's name for clients, which need not know the network.
pub(crate) const QUERY_PROTOCOL: StreamProtocol = StreamProtocol::new("/homehost/query/1");

/// A client's question: 64 ids of servers and their framing are 2,300 bytes.
const QUERY_BYTES_MAX: usize = 4 * 1024;

/// The witness RPC's name on a network.
pub(crate) fn attest_protocol(network: &NetworkName) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/homehost/{network}/attest/1"))
        .expect("the name begins with a slash")
}

/// By which name a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// That of peers.
    Directory,
    /// That of clients.
    Query,
}

/// A request and how it came in; ours goes out by the one name that is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) door: Door,
}

impl Asked {
    /// A request of ours.
    pub(crate) fn ours(request: Request) -> Self {
        Self { request, door: Door::Directory }
    }
}

/// Whether a client may ask this.
pub(crate) fn is_for_clients(request: &Request) -> bool {
    match request {
        Request::Query { .. } | Request::Get { .. } | Request::Chains { .. } => true,
        Request::Offer { .. } | Request::Reconcile { .. } | Request::Records { .. } => false,
    }
}

/// Reads and writes [`Request`] and [`Response`] within their limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirectoryCodec;

fn invalid(error: RpcError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn read_frame<T: AsyncRead + Unpin>(io: &mut T, most: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > most {
        return Err(invalid(RpcError::TooLong(length)));
    }
    let mut bytes = Vec::with_capacity(length.min(READ_AHEAD_BYTES));
    // `read_to_end` grows as bytes come, and `take` stops it at the length.
    (&mut *io).take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if io.read(&mut [0]).await? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the message"));
    }
    Ok(bytes)
}

async fn write_frame<T>(io: &mut T, bytes: &[u8], most: usize) -> io::Result<()>
where
    T: AsyncWrite + Unpin,
{
    if bytes.len() > most {
        let error = RpcError::TooLong(bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(bytes).await
}

impl request_response::Codec for DirectoryCodec {
    type Protocol = StreamProtocol;
    type Request = Asked;
    type Response = Response;

    async fn read_request<T>(&mut self, name: &StreamProtocol, io: &mut T) -> io::Result<Asked>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (door, most) = if *name == QUERY_PROTOCOL {
            (Door::Query, QUERY_BYTES_MAX)
        } else {
            (Door::Directory, RPC_REQUEST_BYTES_MAX)
        };
        let bytes = read_frame(io, most).await?;
        let request = Request::decode(&bytes).map_err(invalid)?;
        if door == Door::Query && !is_for_clients(&request) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not for clients to ask"));
        }
        Ok(Asked { request, door })
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, RPC_RESPONSE_BYTES_MAX).await?;
        Response::decode(&bytes).map_err(invalid)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        asked: Asked,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &asked.request.encode(), RPC_REQUEST_BYTES_MAX).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &response.encode(), RPC_RESPONSE_BYTES_MAX).await
    }
}

/// Reads and writes [`AttestRequest`] and the bytes of its response, which
/// cannot be read or written without the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttestCodec;

impl request_response::Codec for AttestCodec {
    type Protocol = StreamProtocol;
    type Request = AttestRequest;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<AttestRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, ATTEST_BYTES_MAX).await?;
        AttestRequest::decode(&bytes).map_err(invalid)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, ATTEST_BYTES_MAX).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: AttestRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &request.encode(), ATTEST_BYTES_MAX).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &response, ATTEST_BYTES_MAX).await
    }
}

/// Peer exchange's name on a network.
pub(crate) fn px_protocol(network: &NetworkName) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/homehost/{network}/px/1"))
        .expect("the name begins with a slash")
}

/// Reads and writes [`PxRequest`] and [`PxResponse`].
#[derive(Clone, Debug, Default)]
pub(crate) struct PxCodec;

impl request_response::Codec for PxCodec {
    type Protocol = StreamProtocol;
    type Request = PxRequest;
    type Response = PxResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<PxRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        PxRequest::decode(&read_frame(io, PX_REQUEST_BYTES_MAX).await?).map_err(invalid)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<PxResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        PxResponse::decode(&read_frame(io, PX_RESPONSE_BYTES_MAX).await?).map_err(invalid)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: PxRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &request.encode(), PX_REQUEST_BYTES_MAX).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: PxResponse,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &response.encode(), PX_RESPONSE_BYTES_MAX).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    fn read(bytes: &[u8], most: usize) -> io::Result<Vec<u8>> {
        block_on(read_frame(&mut Cursor::new(bytes), most))
    }

    #[test]
    fn frames_survive_the_wire() {
        for length in [0, 1, 5000, 16 * 1024] {
            let body = vec![7; length];
            let mut wire = Vec::new();
            block_on(write_frame(&mut wire, &body, 16 * 1024)).unwrap();
            assert_eq!(wire.len(), length + 4);
            assert_eq!(read(&wire, 16 * 1024).unwrap(), body);
            for end in [0, 3, wire.len() - 1] {
                assert!(read(&wire[..end], 16 * 1024).is_err() || end == wire.len());
            }
            wire.push(0);
            assert_eq!(read(&wire, 16 * 1024).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn oversize_is_refused_before_the_body_is_read() {
        let wire = [&u32::MAX.to_be_bytes()[..], &[0; 64]].concat();
        let mut cursor = Cursor::new(&wire);
        let error = block_on(read_frame(&mut cursor, 1024)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(cursor.position(), 4);
        assert!(block_on(write_frame(&mut Vec::new(), &[0; 5], 4)).is_err());
    }
}
