//! The internet of a test, and homes of every kind on it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use homehost_tests::{Namespace, Place};

use crate::lab::{End, Lab, ip, nft};
use crate::pmpd::Pmpd;
use crate::router::{MESH_PORT, Nat, Router};
use crate::upnpd::Upnpd;
use crate::wire::Quality;

/// A host's address behind every router: all homes have the same, as in life.
pub(crate) const HOST: &str = "192.168.1.2";

/// A second host of the same home.
pub(crate) const SECOND: &str = "192.168.1.3";

/// How a home is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A global address of its own, of both families.
    Open,
    /// A router that forwards the ports of mesh and game.
    Forwarded,
    /// A router that forwards what hosts ask it to.
    Upnp,
    /// A router that lets in whoever knows a mapping.
    FullCone,
    /// A router as most are.
    PortRestricted,
    /// A router that maps each connection anew.
    Symmetric,
    /// A router as most are, behind one of the carrier.
    Cgnat,
    /// IPv6 alone, without translation; only what goes out, and answers, pass.
    Firewall6,
    /// As port-restricted, 80 ms away and with 2 % of the packets lost.
    Far,
    /// As port-restricted, with 5 Mbit/s to send.
    Slow,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::Open,
        Self::Forwarded,
        Self::Upnp,
        Self::FullCone,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Cgnat,
        Self::Firewall6,
        Self::Far,
        Self::Slow,
    ];

    /// Whether whoever dials its mesh port gets through, once the router was
    /// asked if it can be.
    pub(crate) fn takes_strangers(self) -> bool {
        matches!(self, Self::Open | Self::Forwarded | Self::Upnp)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Forwarded => "forwarded",
            Self::Upnp => "upnp",
            Self::FullCone => "full-cone",
            Self::PortRestricted => "restricted",
            Self::Symmetric => "symmetric",
            Self::Cgnat => "cgnat",
            Self::Firewall6 => "firewall6",
            Self::Far => "far",
            Self::Slow => "slow",
        }
    }

    fn nat(self) -> Nat {
        match self {
            Self::Forwarded => Nat::Forwarded,
            Self::FullCone => Nat::FullCone,
            Self::Symmetric => Nat::Symmetric,
            Self::Upnp => Nat::Asked,
            _ => Nat::PortRestricted,
        }
    }

    fn quality(self) -> Option<Quality> {
        let far = Quality { delay: Duration::from_millis(40), lost_of_100: 2, uplink: None };
        match self {
            Self::Far => Some(far),
            Self::Slow => Some(Quality { uplink: Some(5_000_000), ..Quality::default() }),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a router that forwards on request understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// UPnP first of all.
    Upnp,
    /// PCP, for a minute each time.
    Pcp,
    /// NAT-PMP alone, for a minute each time: an older router.
    NatPmp,
}

/// The internet: one machine that passes packets on between homes, each of
/// which has blocks of addresses of its own. It knows no way to private ones.
#[derive(Debug)]
pub(crate) struct Internet {
    lab: Lab,
    core: Namespace,
    homes: AtomicU8,
}

/// A home with one host; without a router when it is open.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) kind: Kind,
    pub(crate) host: Namespace,
    /// The one to which the host is connected.
    pub(crate) router: Option<Namespace>,
    /// The address that the internet sees, if it has one of IPv4.
    pub(crate) outside4: Option<Ipv4Addr>,
    /// The host's own address of IPv6, if it has a global one.
    pub(crate) host6: Option<Ipv6Addr>,
    number: u8,
    pub(crate) upnpd: Option<Upnpd>,
    pmpd: Option<Pmpd>,
}

impl Internet {
    pub(crate) fn new() -> Self {
        let lab = Lab::new();
        let core = lab.forwarder("internet");
        Self { lab, core, homes: AtomicU8::new(0) }
    }

    /// A home.
    #[track_caller]
    pub(crate) fn home(&self, kind: Kind) -> Home {
        self.home_with(kind, false, Asked::Upnp)
    }

    /// A home whose router forwards what it is asked to in this language.
    #[track_caller]
    pub(crate) fn home_asked_by(&self, asked: Asked) -> Home {
        self.home_with(Kind::Upnp, false, asked)
    }

    /// A home whose router knows its own outside address from within.
    #[track_caller]
    pub(crate) fn home_with_hairpin(&self, kind: Kind) -> Home {
        self.home_with(kind, true, Asked::Upnp)
    }

    #[track_caller]
    fn home_with(&self, kind: Kind, hairpin: bool, asked: Asked) -> Home {
        let number = 1 + self.homes.fetch_add(1, Ordering::Relaxed);
        let outside4 = Ipv4Addr::new(20 + number, number, 0, 2);
        let host = self.lab.machine(&format!("{number}-{kind}"));
        let home = Home {
            kind,
            host,
            router: None,
            outside4: Some(outside4),
            host6: None,
            number,
            upnpd: None,
            pmpd: None,
        };
        match kind {
            Kind::Open => self.open(home),
            Kind::Firewall6 => self.firewall6(home),
            Kind::Cgnat => self.cgnat(home),
            _ => self.behind_router(home, hairpin, asked),
        }
    }

    /// The cable from a home to the internet, and its addresses there.
    #[track_caller]
    fn uplink(&self, home: &Home, end: End<'_>) {
        let name = format!("home{}", home.number);
        let far = End::new(&self.core, &name);
        match home.kind.quality() {
            Some(quality) => self.lab.wire(end, far, quality),
            None => self.lab.cable(end, far),
        }
        let n = home.number;
        if home.outside4.is_some() {
            far.address(&format!("{}.{n}.0.1/24", 20 + n));
            end.address(&format!("{}.{n}.0.2/24", 20 + n));
            ip(end.at, &["route", "add", "default", "via", &format!("{}.{n}.0.1", 20 + n)]);
        }
        if matches!(home.kind, Kind::Open | Kind::Firewall6) {
            far.address(&format!("2a01:{n:x}:0:1::1/64"));
            end.address(&format!("2a01:{n:x}:0:1::2/64"));
            let via = format!("2a01:{n:x}:0:1::1");
            ip(end.at, &["-6", "route", "add", "default", "via", &via]);
        }
    }

    #[track_caller]
    fn open(&self, mut home: Home) -> Home {
        self.uplink(&home, End::new(&home.host, "wan"));
        home.host6 = Some(Ipv6Addr::new(0x2a01, home.number.into(), 0, 1, 0, 0, 0, 2));
        home
    }

    /// A router with a bridge, and the host on it.
    #[track_caller]
    fn router(&self, home: &Home) -> Namespace {
        let router = self.lab.forwarder(&format!("{}-router", home.number));
        self.lab.bridge(&router, "lan");
        self.plug(&router, End::new(&home.host, "lan"), 1);
        router
    }

    #[track_caller]
    fn plug(&self, router: &Namespace, host: End<'_>, port: u8) {
        let port = format!("port{port}");
        self.lab.cable(host, End::new(router, &port));
        End::new(router, &port).joins("lan");
    }

    #[track_caller]
    fn behind_router(&self, mut home: Home, hairpin: bool, asked: Asked) -> Home {
        let router = self.router(&home);
        End::new(&router, "lan").address("192.168.1.1/24");
        inside4(&home.host, HOST);
        self.uplink(&home, End::new(&router, "wan"));
        let outside4 = home.outside4.expect("it was given one");
        let outside = outside4.to_string();
        let rules = Router { nat: home.kind.nat(), outside: &outside, host: HOST, hairpin };
        nft(&router, &rules.rules());
        if home.kind == Kind::Upnp {
            match asked {
                Asked::Upnp | Asked::Pcp => {
                    home.upnpd = Some(Upnpd::start(&router, asked == Asked::Upnp));
                }
                Asked::NatPmp => home.pmpd = Some(Pmpd::start(&router, outside4)),
            }
        }
        home.router = Some(router);
        home
    }

    #[track_caller]
    fn cgnat(&self, mut home: Home) -> Home {
        let (router, carrier) =
            (self.router(&home), self.lab.forwarder(&format!("{}-carrier", home.number)));
        End::new(&router, "lan").address("192.168.1.1/24");
        inside4(&home.host, HOST);
        self.lab.bridge(&carrier, "lan").address("100.64.0.1/10");
        let (down, up) = (End::new(&carrier, "customer"), End::new(&router, "wan"));
        self.lab.cable(down, up);
        down.joins("lan");
        up.address("100.64.0.2/10");
        ip(&router, &["route", "add", "default", "via", "100.64.0.1"]);
        self.uplink(&home, End::new(&carrier, "wan"));
        let outside = home.outside4.expect("it was given one").to_string();
        for (at, outside) in [(&router, "100.64.0.2"), (&carrier, &*outside)] {
            let rules = Router { nat: Nat::PortRestricted, outside, host: HOST, hairpin: false };
            nft(at, &rules.rules());
        }
        home.router = Some(router);
        home
    }

    #[track_caller]
    fn firewall6(&self, mut home: Home) -> Home {
        home.outside4 = None;
        let router = self.router(&home);
        let n = home.number;
        End::new(&router, "lan").address(&format!("2a01:{n:x}:0:2::1/64"));
        End::new(&home.host, "lan").address(&format!("2a01:{n:x}:0:2::2/64"));
        let via = format!("2a01:{n:x}:0:2::1");
        ip(&home.host, &["-6", "route", "add", "default", "via", &via]);
        self.uplink(&home, End::new(&router, "wan"));
        let (lan, via) = (format!("2a01:{n:x}:0:2::/64"), format!("2a01:{n:x}:0:1::2"));
        ip(&self.core, &["-6", "route", "add", &lan, "via", &via]);
        let rules =
            Router { nat: Nat::PortRestricted, outside: "0.0.0.0", host: HOST, hairpin: false };
        nft(&router, &rules.rules());
        home.router = Some(router);
        home.host6 = Some(Ipv6Addr::new(0x2a01, n.into(), 0, 2, 0, 0, 0, 2));
        home
    }

    /// Another host in a home that has a router of IPv4.
    #[track_caller]
    pub(crate) fn second_host(&self, home: &Home) -> Namespace {
        let host = self.lab.machine(&format!("{}-second", home.number));
        self.plug(home.router.as_ref().expect("it has a router"), End::new(&host, "lan"), 2);
        inside4(&host, SECOND);
        host
    }

    /// A second cable of a host, to the router of another home. It is not used
    /// until the host [moves](move_over).
    #[track_caller]
    pub(crate) fn second_cable(&self, host: &Namespace, home: &Home) {
        let end = End::new(host, "other");
        self.plug(home.router.as_ref().expect("it has a router"), end, 3);
        ip(host, &["link", "set", "other", "down"]);
    }
}

#[track_caller]
fn inside4(host: &Namespace, address: &str) {
    End::new(host, "lan").address(&format!("{address}/24"));
    ip(host, &["route", "add", "default", "via", "192.168.1.1"]);
}

/// Takes a host from the home in which it is to that of its second cable.
#[track_caller]
pub(crate) fn move_over(host: &Namespace) {
    ip(host, &["link", "set", "lan", "down"]);
    ip(host, &["link", "set", "other", "up"]);
    End::new(host, "other").address("192.168.1.7/24");
    ip(host, &["route", "add", "default", "via", "192.168.1.1"]);
}

impl Home {
    /// The address at which its host reaches others; what others see of it.
    pub(crate) fn outside(&self) -> IpAddr {
        let v6 = self.host6.map(IpAddr::from);
        self.outside4.map(IpAddr::from).or(v6).expect("a home has an address")
    }

    /// The address that its host has at home, behind a router.
    pub(crate) fn inside(&self) -> IpAddr {
        HOST.parse().expect("it is one")
    }

    /// Where a node with this id is reached, if nothing is in between.
    pub(crate) fn multiaddrs(&self, id: &str) -> Vec<String> {
        let v4 = self.outside4.map(|ip| format!("/ip4/{ip}"));
        let v6 = self.host6.map(|ip| format!("/ip6/{ip}"));
        let of = |ip: String| {
            let ports = [format!("udp/{MESH_PORT}/quic-v1"), format!("tcp/{MESH_PORT}")];
            ports.map(|port| format!("{ip}/{port}/p2p/{id}"))
        };
        v4.into_iter().chain(v6).flat_map(of).collect()
    }

    /// Where its node lives.
    pub(crate) fn place(&self) -> Place {
        place(&self.host)
    }
}

/// Everywhere on a machine, at the port of the mesh.
pub(crate) fn place(host: &Namespace) -> Place {
    let listen: Vec<String> = ["ip4/0.0.0.0", "ip6/::"]
        .iter()
        .flat_map(|ip| [format!("/{ip}/udp/{MESH_PORT}/quic-v1"), format!("/{ip}/tcp/{MESH_PORT}")])
        .collect();
    let listen: Vec<&str> = listen.iter().map(String::as_str).collect();
    Place::new(host, &listen)
}
