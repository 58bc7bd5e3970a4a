//! The router: UPnP, PCP and NAT-PMP, by the crates that know them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, VersionCode, natpmp, pcp,
};
use homehost_protocol::{Scope, Transport};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::Tokio;
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use sha2::{Digest as _, Sha256};

use super::{Key, LIFETIME, Mapped, NotMapped, PortWish};
use crate::PortProtocol;
use crate::scope;

/// How long a router may take to answer the call for it.
const SEARCH: Duration = Duration::from_secs(3);
/// How long it may take for anything else.
const ANSWER: Duration = Duration::from_secs(5);
/// PCP and NAT-PMP: 250 ms, then twice that, and so on: two seconds in all.
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_secs(1)),
};

/// Why no router was found, in words for a person.
pub(crate) type NoRouter = String;

/// A router that takes requests.
pub(crate) struct Router {
    way: Way,
    /// This machine, as the router sees it.
    pub(crate) local: Ipv4Addr,
    /// The address that it says it has outside.
    pub(crate) external: Option<IpAddr>,
}

enum Way {
    Upnp(Gateway<Tokio>),
    /// PCP, or NAT-PMP where the router knows only that.
    Pcp {
        gateway: Ipv4Addr,
        nonces: Nonces,
        nat_pmp: bool,
    },
}

/// What shows a router that speaks PCP that a mapping is ours (RFC 6887 §11.2):
/// the same for a port after each start, and nobody else's guess.
#[derive(Clone, Copy)]
pub(crate) struct Nonces([u8; 32]);

impl Nonces {
    /// Those of a node, from the seed of its key.
    pub(crate) fn of(seed: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update("homehost ports at the router").chain_update(seed);
        Self(digest.finalize().into())
    }

    fn of_port(&self, (transport, port): Key) -> pcp::Nonce {
        let digest = Sha256::new().chain_update(self.0).chain_update(transport.to_string());
        let digest = digest.chain_update(port.to_be_bytes()).finalize();
        let mut words = digest.chunks_exact(4).filter_map(|word| word.try_into().ok());
        std::array::from_fn(|_| u32::from_be_bytes(words.next().unwrap_or_default()))
    }
}

/// The machine's way out and its own address on that way, if a router is there
/// that could forward anything: both are of a private network.
pub(crate) async fn way_out() -> Option<(Ipv4Addr, Ipv4Addr)> {
    // It reads the routing table, which is not asynchronous.
    let gateway = tokio::task::spawn_blocking(netdev::get_default_gateway).await.ok()?.ok()?;
    let gateway = *gateway.ipv4.first()?;
    let IpAddr::V4(local) = scope::local_ip_towards(gateway.into())? else { return None };
    let near = |ip: Ipv4Addr| Scope::of(ip.into()) == Scope::OnLink;
    (near(gateway) && near(local)).then_some((gateway, local))
}

impl Router {
    /// Looks for one by UPnP, whose mappings have names, and then by PCP.
    pub(crate) async fn find(
        gateway: Ipv4Addr,
        local: Ipv4Addr,
        nonces: Nonces,
    ) -> Result<Self, NoRouter> {
        match Self::find_upnp(local).await {
            Ok(router) => return Ok(router),
            Err(error) => tracing::debug!(%error, "no UPnP"),
        }
        Self::find_pcp(gateway, local, nonces).await.map_err(|error| {
            tracing::debug!(%error, "no PCP or NAT-PMP");
            "the router answers neither UPnP nor PCP nor NAT-PMP: turn one of them on in its \
             settings"
                .into()
        })
    }

    async fn find_upnp(local: Ipv4Addr) -> Result<Self, String> {
        let options = SearchOptions {
            bind_addr: SocketAddr::new(local.into(), 0),
            timeout: Some(SEARCH),
            single_search_timeout: Some(SEARCH),
            ..SearchOptions::default()
        };
        let search = igd_next::aio::tokio::search_gateway(options);
        let gateway = search.await.map_err(|error| error.to_string())?;
        // Whoever answered may have named anybody.
        if Scope::of(gateway.addr.ip()) != Scope::OnLink {
            return Err(format!("{} is not of this network", gateway.addr));
        }
        let external = within(gateway.get_external_ip()).await.and_then(Result::ok);
        Ok(Self { way: Way::Upnp(gateway), local, external })
    }

    async fn find_pcp(gateway: Ipv4Addr, local: Ipv4Addr, nonces: Nonces) -> Result<Self, String> {
        // There is no question but a mapping; the address tells it by NAT-PMP,
        // which every router that has PCP answers with its version at least.
        let at = GatewayAddress::IpV4(gateway);
        let (nat_pmp, external) = match crab_nat::natpmp::external_address(at, Some(TIMEOUTS)).await
        {
            Ok(ip) => (true, Some(ip.into())),
            Err(crab_nat::natpmp::Failure::UnsupportedVersion(_)) => (false, None),
            Err(error) => return Err(error.to_string()),
        };
        Ok(Self { way: Way::Pcp { gateway, nonces, nat_pmp }, local, external })
    }

    pub(crate) fn protocol(&self) -> PortProtocol {
        match &self.way {
            Way::Upnp(_) => PortProtocol::Upnp,
            Way::Pcp { nat_pmp: true, .. } => PortProtocol::NatPmp,
            Way::Pcp { nat_pmp: false, .. } => PortProtocol::Pcp,
        }
    }

    /// Asks again where the router is outside; it may have a new address.
    pub(crate) async fn refresh(&mut self) {
        let external = match &self.way {
            Way::Upnp(gateway) => within(gateway.get_external_ip()).await.and_then(Result::ok),
            Way::Pcp { gateway, nat_pmp: true, .. } => {
                let at = GatewayAddress::IpV4(*gateway);
                let answer = crab_nat::natpmp::external_address(at, Some(TIMEOUTS)).await;
                answer.ok().map(IpAddr::from)
            }
            // It came with the last mapping.
            Way::Pcp { .. } => return,
        };
        self.external = external.or(self.external);
    }

    pub(crate) async fn map(
        &mut self,
        wish: &PortWish,
        external: u16,
    ) -> Result<Mapped, NotMapped> {
        match &mut self.way {
            Way::Upnp(gateway) => map_upnp(gateway, self.local, wish, external).await,
            Way::Pcp { gateway, nonces, nat_pmp } => {
                let nonce = nonces.of_port(wish.key());
                let mapping = map_pcp(*gateway, self.local, nonce, wish, external).await?;
                if let PortMappingType::Pcp { external_ip, .. } = mapping.mapping_type() {
                    (self.external, *nat_pmp) = (Some(external_ip.to_canonical()), false);
                }
                Ok(Mapped {
                    external: mapping.external_port().get(),
                    lifetime: Some(Duration::from_secs(mapping.lifetime().into())),
                    protocol: match mapping.mapping_type() {
                        PortMappingType::NatPmp => PortProtocol::NatPmp,
                        PortMappingType::Pcp { .. } => PortProtocol::Pcp,
                    },
                })
            }
        }
    }

    /// Takes a mapping back. That it cannot be is no trouble: it ends by itself.
    pub(crate) async fn unmap(&mut self, key: Key, external: u16) {
        match &mut self.way {
            Way::Upnp(gateway) => {
                let removed = within(gateway.remove_port(igd_protocol(key.0), external)).await;
                tracing::debug!(?key, ?removed, "a port is given back");
            }
            Way::Pcp { gateway, nonces, nat_pmp } => {
                let Some(port) = NonZeroU16::new(key.1) else { return };
                let (at, protocol) = (GatewayAddress::IpV4(*gateway), pcp_protocol(key.0));
                let given = if *nat_pmp {
                    let drop = natpmp::try_drop_mapping(at, protocol, Some(port), Some(TIMEOUTS));
                    drop.await.map_err(|error| error.to_string())
                } else {
                    let nonce = nonces.of_port(key);
                    let range = pcp::DropMappingRange::Single { internal_port: port, protocol };
                    let local = self.local.into();
                    let drop = pcp::try_drop_mapping(at, local, nonce, range, Some(TIMEOUTS));
                    drop.await.map_err(|error| error.to_string())
                };
                tracing::debug!(?key, ?given, "a port is given back");
            }
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(ANSWER, work).await.ok()
}

fn igd_protocol(transport: Transport) -> PortMappingProtocol {
    match transport {
        Transport::Udp => PortMappingProtocol::UDP,
        Transport::Tcp => PortMappingProtocol::TCP,
    }
}

async fn map_upnp(
    gateway: &Gateway<Tokio>,
    local: Ipv4Addr,
    wish: &PortWish,
    external: u16,
) -> Result<Mapped, NotMapped> {
    let to = SocketAddr::new(local.into(), wish.port);
    let label = wish.label();
    let mut lifetime = Some(LIFETIME);
    loop {
        let seconds = lifetime.map_or(0, |time| time.as_secs() as u32);
        let transport = igd_protocol(wish.transport);
        let added = within(gateway.add_port(transport, external, to, seconds, &label)).await;
        return match added {
            Some(Ok(())) => Ok(Mapped { external, lifetime, protocol: PortProtocol::Upnp }),
            Some(Err(AddPortError::OnlyPermanentLeasesSupported)) if lifetime.is_some() => {
                lifetime = None;
                continue;
            }
            Some(Err(AddPortError::PortInUse)) => Err(NotMapped::Taken),
            Some(Err(error)) => Err(NotMapped::Refused(format!("the router refused: {error}"))),
            None => Err(NotMapped::Refused("the router did not answer".into())),
        };
    }
}

fn pcp_protocol(transport: Transport) -> InternetProtocol {
    match transport {
        Transport::Udp => InternetProtocol::Udp,
        Transport::Tcp => InternetProtocol::Tcp,
    }
}

/// Asks for a mapping, or for the same one again: to a router both are one.
async fn map_pcp(
    gateway: Ipv4Addr,
    local: Ipv4Addr,
    nonce: pcp::Nonce,
    wish: &PortWish,
    external: u16,
) -> Result<PortMapping, NotMapped> {
    let refused = |error: String| NotMapped::Refused(format!("the router refused: {error}"));
    let port = NonZeroU16::new(wish.port).ok_or_else(|| refused("port 0".into()))?;
    let protocol = pcp_protocol(wish.transport);
    // The router gives another port by itself when this one is taken.
    let options = PortMappingOptions {
        external_port: NonZeroU16::new(external),
        lifetime_seconds: Some(LIFETIME.as_secs() as u32),
        timeout_config: Some(TIMEOUTS),
    };
    let at = GatewayAddress::IpV4(gateway);
    let base = pcp::BaseMapRequest::new(at, local.into(), protocol, port);
    match pcp::port_mapping(base, Some(nonce), None, options).await {
        Err(pcp::Failure::UnsupportedVersion(VersionCode::NatPmp)) => {}
        other => return other.map_err(|error| refused(error.to_string())),
    }
    let mapping = natpmp::port_mapping(at, protocol, port, options).await;
    mapping.map_err(|error| refused(error.to_string()))
}
