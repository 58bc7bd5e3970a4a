//! What passes a cable, as `tcpdump` writes it down, counted by where it goes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use homehost_protocol::Scope;
use homehost_tests::eventually;
use tempfile::TempDir;

use crate::lab::End;

/// A running one.
#[derive(Debug)]
pub(crate) struct Capture {
    child: Child,
    folder: TempDir,
}

/// What one kind of packet is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    /// `udp`, `tcp`, or the number of another protocol over IP.
    pub(crate) protocol: u8,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
}

/// Packets, and bytes with all headers of the cable.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

pub(crate) const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;

impl Flow {
    /// How far the packet goes.
    pub(crate) fn scope(&self) -> Scope {
        Scope::of(self.to)
    }
}

impl Capture {
    /// Writes down what passes one end of a cable, from now on.
    #[track_caller]
    pub(crate) fn start(end: End<'_>) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let log = fs::File::create(folder.path().join("log")).expect("the folder is ours");
        let mut command = end.at.command("tcpdump");
        // Headers are enough; each packet is written at once, by root.
        command.args(["-i", end.name, "-s", "96", "-U", "-Z", "root", "-w"]);
        command.arg(folder.path().join("packets")).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let child = child.expect("tcpdump is installed by `cargo xtask test --only setup`");
        let capture = Self { child, folder };
        eventually(Duration::from_secs(20), "tcpdump listens", || {
            let said = fs::read_to_string(capture.folder.path().join("log")).unwrap_or_default();
            if said.contains("listening on") { Ok(()) } else { Err(said) }
        });
        capture
    }

    /// What passed since its start, without what is no IP.
    pub(crate) fn so_far(&self) -> BTreeMap<Flow, Amount> {
        let mut flows = BTreeMap::<Flow, Amount>::new();
        let bytes = fs::read(self.path()).expect("tcpdump has begun it");
        for (length, frame) in packets(&bytes) {
            if let Some(flow) = flow(frame) {
                let amount = flows.entry(flow).or_default();
                amount.packets += 1;
                amount.bytes += u64::from(length);
            }
        }
        flows
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("packets")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Length on the cable and first bytes of each packet of a file of libpcap, in
/// the byte order of this machine. The last may be half written.
fn packets(file: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = file.get(24..).unwrap_or_default();
    std::iter::from_fn(move || {
        let number = |at: usize| {
            let bytes = rest.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().expect("four")))
        };
        let (kept, length) = (number(8)?, number(12)?);
        let end = 16 + kept as usize;
        let frame = rest.get(16..end)?;
        rest = &rest[end..];
        Some((length, frame))
    })
}

/// Where an Ethernet frame goes, if it carries IP.
fn flow(frame: &[u8]) -> Option<Flow> {
    let packet = frame.get(14..)?;
    let ip4 = |at: usize| -> Option<IpAddr> {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?).into())
    };
    let ip6 = |at: usize| -> Option<IpAddr> {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).into())
    };
    let (protocol, from, to, ports) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            (*packet.get(9)?, ip4(12)?, ip4(16)?, header)
        }
        [0x86, 0xdd] => (*packet.get(6)?, ip6(8)?, ip6(24)?, 40),
        _ => return None,
    };
    let port = |at: usize| match protocol {
        TCP | UDP => Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?)),
        _ => Some(0),
    };
    Some(Flow { protocol, from, to, from_port: port(ports)?, to_port: port(ports + 2)? })
}
