//! Peer exchange (spec/mesh §16): hosts at a bootstrap node, and a peer that
//! says whatever bytes it likes.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use homehost_mesh::{Multiaddr, Protocol, Role};
use homehost_protocol::rpc::px::{PX_RECORDS_MAX, PxRequest, PxResponse};
use libp2p::core::{PeerRecord, SignedEnvelope, upgrade::Version};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Message, OutboundFailure, ProtocolSupport};
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{PeerId, StreamProtocol, Transport as _, identify, noise, tcp, yamux};
use tokio::time::timeout;

use crate::node::{Node, PATIENCE, config};

/// Frames of any bytes.
#[derive(Clone, Debug, Default)]
struct Bytes;

impl request_response::Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut frame = Vec::new();
        io.read_to_end(&mut frame).await?;
        // A refusal is a stream that ends without a frame.
        frame.get(4..).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).await?;
        io.write_all(&request).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(NetworkBehaviour)]
struct Speech {
    identify: identify::Behaviour,
    px: request_response::Behaviour<Bytes>,
}

/// A peer that looks like a host until it speaks.
struct Stranger {
    swarm: Swarm<Speech>,
    at: PeerId,
    key: Keypair,
}

impl Stranger {
    async fn join(seed: u8, at: &Multiaddr) -> Self {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let transport = tcp::tokio::Transport::default()
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let version = "/homehost/1/mesh-test".to_owned();
        let px = StreamProtocol::new("/homehost/mesh-test/px/1");
        let speech = Speech {
            identify: identify::Behaviour::new(identify::Config::new(version, key.public())),
            px: request_response::Behaviour::new(
                [(px, ProtocolSupport::Outbound)],
                request_response::Config::default(),
            ),
        };
        let own = key.public().to_peer_id();
        let config = swarm::Config::with_tokio_executor();
        let mut swarm = Swarm::new(transport, speech, own, config);
        swarm.dial(at.clone()).unwrap();
        let wait = async {
            loop {
                // Who was told of us knows that we are of its network.
                let event = swarm.select_next_some().await;
                if let SwarmEvent::Behaviour(SpeechEvent::Identify(identify::Event::Sent {
                    peer_id,
                    ..
                })) = event
                {
                    return peer_id;
                }
            }
        };
        let at = timeout(PATIENCE, wait).await.expect("it connects");
        Self { swarm, at, key }
    }

    /// The answer to any bytes; none when they are refused.
    async fn ask(&mut self, request: Vec<u8>) -> Option<Vec<Vec<u8>>> {
        self.swarm.behaviour_mut().px.send_request(&self.at, request);
        let wait = async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(SpeechEvent::Px(request_response::Event::Message {
                        message: Message::Response { response, .. },
                        ..
                    })) => return Some(PxResponse::decode(&response).unwrap().records),
                    SwarmEvent::Behaviour(SpeechEvent::Px(
                        request_response::Event::OutboundFailure { error, .. },
                    )) => {
                        assert!(!matches!(error, OutboundFailure::Timeout), "{error}");
                        return None;
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("an answer or a refusal")
    }

    fn record(&self, address: &str) -> Vec<u8> {
        let record = PeerRecord::new_interop(&self.key, vec![address.parse().unwrap()]).unwrap();
        record.into_signed_envelope().into_protobuf_encoding()
    }
}

fn read(record: &[u8]) -> PeerRecord {
    let envelope = SignedEnvelope::from_protobuf_encoding(record).unwrap();
    PeerRecord::from_signed_envelope_interop(envelope).unwrap()
}

fn request(record: Vec<u8>) -> Vec<u8> {
    PxRequest { record: Some(record) }.encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_tell_where_they_are_and_a_newcomer_is_told() {
    let boot = Node::start(config(100, Role::Bootstrap, &[]));
    let at = boot.address().await;
    let hosts = [1, 2, 3].map(|seed| Node::host(seed, std::slice::from_ref(&at)));
    for host in &hosts {
        host.knows([boot.id()]).await;
    }
    let mut stranger = Stranger::join(50, &at).await;
    // Records come a moment after who sent them has joined.
    let begun = std::time::Instant::now();
    while boot.metric("homehost_mesh_px_records") != "3" {
        assert!(begun.elapsed() < PATIENCE, "{}", boot.metric("homehost_mesh_px_records"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let records = stranger.ask(PxRequest::default().encode()).await.unwrap();
    let mut named: Vec<_> = records.iter().map(|record| read(record).peer_id()).collect();
    let mut expected: Vec<_> = hosts.iter().map(|host| host.id().to_string()).collect();
    expected.sort();
    named.sort_by_key(ToString::to_string);
    assert_eq!(named.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    for record in &records {
        let addresses = read(record).addresses().to_vec();
        assert!(addresses[0].to_string().starts_with("/ip4/127.0.0.1/tcp/"), "{addresses:?}");
    }
    let (received, sent) = boot.handle.traffic().of(Protocol::Px);
    assert!(received > 300 && sent > 300, "{received} {sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_put_into_the_book_by_others_or_at_others_addresses() {
    let boot = Node::start(config(100, Role::Bootstrap, &[]));
    let at = boot.address().await;
    let mut liar = Stranger::join(50, &at).await;
    let honest = liar.record("/ip4/127.0.0.1/tcp/7");
    let elsewhere = Stranger::join(51, &at).await.record("/ip4/127.0.0.1/tcp/8");
    // A place of nowhere is none that it could be at.
    let nowhere = liar.record("/ip4/192.0.2.7/tcp/7");
    assert_eq!(liar.ask(request(nowhere)).await, Some(vec![]));
    assert_eq!(boot.metric("homehost_mesh_px_records"), "0");
    assert_eq!(liar.ask(request(elsewhere)).await, None, "another's record");
    let mut bent = honest.clone();
    *bent.last_mut().unwrap() ^= 1;
    assert_eq!(liar.ask(request(bent)).await, None, "a broken signature");
    assert_eq!(boot.metric("homehost_mesh_px_records"), "0");
    assert_eq!(liar.ask(request(honest)).await, Some(vec![]), "it is not told of itself");
    assert_eq!(boot.metric("homehost_mesh_px_records"), "1");
    let refused = "homehost_mesh_rpc_refused_total{rpc=\"px\",reason=\"malformed\"}";
    assert_eq!(boot.metric(refused), "2");
    assert_eq!(liar.ask(PxRequest::default().encode()).await, None, "it has asked enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_question_are_refused_and_cost_nothing() {
    let boot = Node::start(config(100, Role::Bootstrap, &[]));
    let at = boot.address().await;
    let mut rude = Stranger::join(50, &at).await;
    for bytes in [vec![], vec![0xff; 40], vec![0xa1, 0x02, 0x00], vec![0; 4096], vec![0xa0, 0]] {
        assert_eq!(rude.ask(bytes.clone()).await, None, "{bytes:?}");
    }
    // None of them was a question, so that it may still ask.
    assert_eq!(rude.ask(PxRequest::default().encode()).await, Some(vec![]));
    const { assert!(PX_RECORDS_MAX == 16) };
}
