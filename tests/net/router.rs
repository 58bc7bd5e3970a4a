//! What a home's router does with packets, as rules of nftables.
//!
//! What `masquerade` of Linux is, by itself: a socket keeps its port, whoever it
//! talks to (RFC 4787: endpoint-independent mapping), unless two sockets behind
//! the router want the same one; and only whoever was written to may answer
//! (address- and port-dependent filtering). That is a port-restricted cone.

/// The port of the mesh in all homes.
pub(crate) const MESH_PORT: u16 = 4001;

/// The port of the game in all homes.
pub(crate) const GAME_PORT: u16 = 30_000;

/// How a router translates addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// One mapping for a socket, and only whoever was written to may answer.
    PortRestricted,
    /// One mapping for a socket, and whoever knows it may use it.
    FullCone,
    /// Another port for each that is written to.
    Symmetric,
    /// As port-restricted, with the ports of mesh and game forwarded to a host.
    Forwarded,
    /// As port-restricted, with room for what `miniupnpd` is asked to forward.
    Asked,
}

/// A router with a WAN and a LAN side, `wan` and `lan`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Router<'a> {
    pub(crate) nat: Nat,
    /// Its address on the outside.
    pub(crate) outside: &'a str,
    /// To which host ports are forwarded.
    pub(crate) host: &'a str,
    /// Whether hosts behind it reach one another by its outside address.
    pub(crate) hairpin: bool,
}

impl Router<'_> {
    /// Its rules.
    ///
    /// What comes from outside and belongs to nothing is dropped before the
    /// router itself takes it: had it been answered, conntrack would remember
    /// it, and a host that writes to the same peer afterwards would get another
    /// port. Punching holes would then depend on who knocks first.
    ///
    /// Nothing of IPv6 is translated; only what goes out, and answers, pass.
    pub(crate) fn rules(self) -> String {
        let Self { outside, host, .. } = self;
        let random = if self.nat == Nat::Symmetric { "random,fully-random" } else { "" };
        // A host that knocks at the router's outside address from within: with
        // hairpin it is taken for one from outside, and comes back with the
        // router's address, or else the answer would go past the router.
        let knock = match self.hairpin {
            true => format!("ip daddr {outside}"),
            false => format!("iifname \"wan\" ip daddr {outside}"),
        };
        let inward = match self.nat {
            Nat::Forwarded => format!(
                "{knock} udp dport {{ {MESH_PORT}, {GAME_PORT} }} dnat ip to {host}\n\
                 {knock} tcp dport {{ {MESH_PORT}, {GAME_PORT} }} dnat ip to {host}"
            ),
            Nat::FullCone => format!("{knock} dnat ip to udp dport map @cone"),
            Nat::Asked => "jump asked_in".to_owned(),
            Nat::PortRestricted | Nat::Symmetric => String::new(),
        };
        let reflect = match self.hairpin {
            true => format!(
                "oifname \"lan\" ip saddr 192.168.0.0/16 ct status dnat snat ip to {outside}"
            ),
            false => String::new(),
        };
        // A full cone is a table of the sockets that have written to someone
        // lately; they keep their ports, so a port is enough of a key.
        let remember = match self.nat {
            Nat::FullCone => {
                "iifname \"lan\" oifname \"wan\" update @cone { udp sport : ip saddr }"
            }
            _ => "",
        };
        format!(
            r#"
table inet home {{
    map cone {{
        type inet_service : ipv4_addr
        flags dynamic,timeout
        timeout 2m
        size 4096
    }}
    chain asked {{ }}
    chain asked_in {{ }}
    chain asked_out {{ }}
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname != "wan" accept
        meta l4proto {{ icmp, ipv6-icmp }} accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        {remember}
        ct state established,related accept
        iifname "lan" accept
        ct status dnat accept
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {inward}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "wan" meta nfproto ipv4 masquerade {random}
        {reflect}
    }}
}}
"#
        )
    }
}
