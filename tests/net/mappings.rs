//! Ports that a router forwards on request: named, kept, renewed and given back,
//! in each language that routers speak.

use std::collections::BTreeSet;
use std::time::Duration;

use homehost_tests::{FastClock, Namespace, Node, Test, eventually, exchange, run};
use serde_json::Value;

use crate::home::{Asked, Home, Internet, Kind};
use crate::lab::nft;
use crate::mesh::Mesh;
use crate::reach::game;
use crate::router::{GAME_PORT, MESH_PORT};
use crate::upnpd::{SHORT, Upnpd};

/// Longest wait for a router to be found and asked, on a busy machine.
const ASKED: Duration = Duration::from_secs(120);

/// By when a router is asked again at least, to find out that it has forgotten
/// (spec/mesh §14); what it takes to find it elsewhere; and a margin.
const RENEWED: Duration = Duration::from_secs(15 * 60);

type Ports = BTreeSet<(String, u16)>;

/// What a router forwards now, as its own rules have it.
fn forwarded(router: &Namespace) -> Ports {
    let mut list = router.command("nft");
    let answer = run(list.args(["list", "chain", "inet", "home", "asked_in"]), ASKED);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let rules = answer.stdout.lines().filter(|line| line.contains("dnat"));
    rules
        .map(|rule| {
            let words: Vec<&str> = rule.split_ascii_whitespace().collect();
            let after = |name: &str| {
                let at = words.iter().position(|word| *word == name)?;
                words.get(at + 1).copied()
            };
            // Of ours; and of miniupnpd's, which names the number of the protocol.
            let ours = ["udp", "tcp"].into_iter().find(|name| after(name) == Some("dport"));
            let transport = ours.or(match after("@nh,72,8") {
                Some("0x11") => Some("udp"),
                Some("0x6" | "0x06") => Some("tcp"),
                _ => None,
            });
            let transport = transport.unwrap_or_else(|| panic!("no rule of a port: {rule}"));
            (transport.to_owned(), after("dport").expect("a port").parse().expect("a number"))
        })
        .collect()
}

/// One mapping in the words of UPnP (WANIPConnection), as a router's page has it.
fn listed(index: usize) -> String {
    let service = "urn:schemas-upnp-org:service:WANIPConnection:1";
    let body = format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
         <u:GetGenericPortMappingEntry xmlns:u=\"{service}\">\
         <NewPortMappingIndex>{index}</NewPortMappingIndex>\
         </u:GetGenericPortMappingEntry></s:Body></s:Envelope>"
    );
    let action = format!("\"{service}#GetGenericPortMappingEntry\"");
    let headers =
        [("Host", "192.168.1.1:5000"), ("Content-Type", "text/xml"), ("SOAPAction", &action)];
    let router = "192.168.1.1:5000".parse().expect("an address");
    exchange(router, "POST /ctl/IPConn", &headers, &body).body
}

#[track_caller]
fn forwards(router: &Namespace, wanted: &Ports, within: Duration) {
    eventually(within, "the router forwards what is wished for, and no more", || {
        let now = forwarded(router);
        if now == *wanted { Ok(()) } else { Err(format!("{now:?}")) }
    });
}

/// What the node says of its router, once it has all of these ports.
#[track_caller]
fn mapped(node: &Node<'_>, names: &[&str], protocol: &str) -> Value {
    eventually(ASKED, "all ports are mapped", || {
        let facts = node.get("/api/v1/mesh/network").json();
        let rows = facts["mappings"].as_array().cloned().unwrap_or_default();
        let is_right = |name: &&str| {
            rows.iter().any(|row| {
                row["name"] == *name && row["external"].is_u64() && row["protocol"] == protocol
            })
        };
        let all = rows.len() == names.len() && names.iter().all(is_right);
        if all { Ok(facts) } else { Err(format!("{facts:#}")) }
    })
}

fn kept_and_given_back(asked: Asked, protocol: &str) {
    let test = Test::new();
    let internet = Internet::new();
    let open: [Home; 2] = [(); 2].map(|()| internet.home(Kind::Open));
    let home = internet.home_asked_by(asked);
    let router = home.router.as_ref().expect("it has one");
    let mesh = Mesh::new(&test, &[&open[0]]);
    let friend = mesh.node("friend", open[1].place());
    let mut node = mesh.node("node", home.place());
    node.connected_to(&friend);

    let ports = |list: &[(&str, u16)]| -> Ports {
        list.iter().map(|(transport, port)| ((*transport).to_owned(), *port)).collect()
    };
    let of_mesh = [("udp", MESH_PORT), ("tcp", MESH_PORT)];
    let with_game = ports(&[of_mesh[0], of_mesh[1], ("udp", GAME_PORT)]);
    let of_mesh = ports(&of_mesh);
    node.host(&game(&test, "Castle"));
    node.running("Castle");
    let names = ["HomeHost mesh 4001/udp", "HomeHost mesh 4001/tcp", "HomeHost Castle 30000/udp"];
    let facts = mapped(&node, &names, protocol);
    let outside = home.outside().to_string();
    assert_eq!(facts["router"]["external_ip"], *outside, "{facts:#}");
    forwards(router, &with_game, Duration::ZERO);
    if asked == Asked::Upnp {
        // A person who looks at the router's page sees whose they are.
        let listed = home.host.enter(|| (0..3).map(listed).collect::<String>());
        for name in names {
            assert!(listed.contains(&format!(">{name}<")), "{listed}");
        }
    } else {
        // The router promised a minute; after two it forwards them still.
        std::thread::sleep(SHORT * 2);
        forwards(router, &with_game, Duration::ZERO);
    }

    node.ok(&["server", "stop", "Castle"]);
    forwards(router, &of_mesh, ASKED);
    node.start_server("Castle");
    forwards(router, &with_game, ASKED);
    // A game goes on without its node, and so does its port, for the hour.
    node.down();
    forwards(router, &ports(&[("udp", GAME_PORT)]), ASKED);
    node.start();
    mapped(&node, &names, protocol);
    node.down_with_games();
    forwards(router, &Ports::new(), ASKED);
}

#[test]
fn ports_are_mapped_by_upnp_and_given_back() {
    kept_and_given_back(Asked::Upnp, "upnp");
}

#[test]
fn ports_are_mapped_by_pcp_renewed_and_given_back() {
    kept_and_given_back(Asked::Pcp, "pcp");
}

#[test]
fn ports_are_mapped_by_nat_pmp_renewed_and_given_back() {
    kept_and_given_back(Asked::NatPmp, "nat-pmp");
}

#[test]
fn a_router_that_forgot_what_it_promised_is_asked_again() {
    let test = Test::new();
    let internet = Internet::new();
    let open = internet.home(Kind::Open);
    let mut home = internet.home(Kind::Upnp);
    let mesh = Mesh::new(&test, &[&open]);
    let clock = FastClock::new(6);
    let node = mesh.node("node", clock.at(home.place()));
    mapped(&node, &["HomeHost mesh 4001/udp", "HomeHost mesh 4001/tcp"], "upnp");
    let router = home.router.clone().expect("it has one");
    let before = forwarded(&router);
    assert_eq!(before.len(), 2, "{before:?}");
    // It is switched off and on, and its service is at another port than before.
    home.upnpd = None;
    nft(&router, "flush chain inet home asked_in");
    home.upnpd = Some(Upnpd::start_at(&router, true, 5001));
    forwards(&router, &before, clock.real(RENEWED));
}
