//! A router that speaks NAT-PMP (RFC 6886) and nothing newer. It is our own:
//! the one of Debian answers PCP as well, and whoever knows both asks by that.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use homehost_tests::Namespace;

use crate::lab::nft;
use crate::upnpd::SHORT;

/// The port of NAT-PMP and PCP.
const PORT: u16 = 5351;

/// How often it looks whether a mapping is over, or it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// A running one.
#[derive(Debug)]
pub(crate) struct Pmpd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Who has a port outside: `udp` or `tcp`, and the port.
type Outside = (&'static str, u16);

/// What it forwards, and until when.
type Held = BTreeMap<Outside, (SocketAddr, Instant)>;

impl Pmpd {
    /// Starts it on a router, whose rules have the chains for it.
    #[track_caller]
    pub(crate) fn start(router: &Namespace, outside: Ipv4Addr) -> Self {
        let socket = router.enter(|| UdpSocket::bind(("192.168.1.1", PORT)));
        let socket = socket.expect("the port is free");
        socket.set_read_timeout(Some(LOOK)).expect("it is not zero");
        let stop = Arc::new(AtomicBool::new(false));
        let (router, ended) = (router.clone(), stop.clone());
        let thread = thread::spawn(move || serve(&socket, &router, outside, &ended));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Pmpd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked forwards nothing either.
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, router: &Namespace, outside: Ipv4Addr, stop: &AtomicBool) {
    let (begun, mut held) = (Instant::now(), Held::new());
    let mut buffer = [0; 1100];
    while !stop.load(Ordering::Relaxed) {
        let before = held.clone();
        let now = Instant::now();
        held.retain(|_, (_, until)| *until > now);
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let age = u32::try_from(begun.elapsed().as_secs()).expect("a test is short");
            if let Some(answer) = answer(&buffer[..length], from, outside, age, &mut held) {
                forward(router, &held);
                // Whoever asked may have gone.
                let _ = socket.send_to(&answer, from);
                continue;
            }
        }
        if before != held {
            forward(router, &held);
        }
    }
}

/// What it says to a request, if it says anything.
fn answer(
    request: &[u8],
    from: SocketAddr,
    outside: Ipv4Addr,
    age: u32,
    held: &mut Held,
) -> Option<Vec<u8>> {
    let (version, operation) = (*request.first()?, *request.get(1)?);
    let head = |result: u16| {
        let mut head = vec![0, operation | 128];
        head.extend(result.to_be_bytes());
        head.extend(age.to_be_bytes());
        head
    };
    if version != 0 {
        return Some(head(1));
    }
    let number = |at: usize| Some(u16::from_be_bytes(request.get(at..at + 2)?.try_into().ok()?));
    let transport = match operation {
        0 => {
            let mut answer = head(0);
            answer.extend(outside.octets());
            return Some(answer);
        }
        1 => "udp",
        2 => "tcp",
        _ => return Some(head(5)),
    };
    let (inner, wanted) = (number(4)?, number(6)?);
    let wish = Duration::from_secs(u64::from(u32::from(number(8)?) << 16 | u32::from(number(10)?)));
    let host = SocketAddr::new(from.ip(), inner);
    held.retain(|(of, _), (to, _)| *of != transport || *to != host || !wish.is_zero());
    let granted = wish.min(SHORT);
    if !granted.is_zero() {
        held.insert((transport, wanted), (host, Instant::now() + granted));
    }
    let mut answer = head(0);
    answer.extend(inner.to_be_bytes());
    answer.extend(if granted.is_zero() { 0 } else { wanted }.to_be_bytes());
    answer.extend(u32::try_from(granted.as_secs()).expect("a minute").to_be_bytes());
    Some(answer)
}

/// Puts all of it into the router's rules.
fn forward(router: &Namespace, held: &Held) {
    let rules = held.iter().map(|((transport, port), (host, _))| {
        format!("iifname \"wan\" {transport} dport {port} dnat ip to {host}\n")
    });
    let rules: String = rules.collect();
    nft(
        router,
        &format!(
            "flush chain inet home asked_in\ntable inet home {{ chain asked_in {{\n{rules}}}\n}}\n"
        ),
    );
}
