//! The witness RPC, asked from JavaScript (spec/mesh §9).

use std::net::TcpListener;

use homehost_tests::Test;
use serde_json::json;

use crate::hex;
use crate::js::Js;

/// A TCP handshake is all that is looked for.
const TCP: u8 = 5;

#[test]
fn a_port_is_witnessed_once_and_nobody_elses_is() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let js = Js::start(&test);
    let peer = js.peer("peer");
    peer.join(&node);
    let port = js.ask("listen", json!({}));
    let subject = json!({"server": hex(&[7; 32]), "port": port, "way": TCP});

    let said = peer.ask("attest", subject.clone());
    assert_eq!(said["holds"], true, "{said}");
    assert_eq!(said["holds_of_another"], false, "{said}");
    assert_eq!(said["by_whom_was_asked"], true, "{said}");
    assert_eq!(said["ip"], "127.0.0.1", "where it sees us");
    assert_eq!(said["port"], port);
    let now = crate::author::now().0;
    let at = said["at"].as_u64().expect("a time");
    assert!(at <= now && now - at < 20_000, "{at} is not just now");

    assert_eq!(peer.ask("attest", subject)["refusal"], 2, "a moment ago");
    let of = |port: u16| json!({"server": hex(&[7; 32]), "port": port, "way": TCP});
    assert_eq!(peer.ask("attest", of(80))["refusal"], 5, "not a port of a game");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        listener.local_addr().expect("it is bound").port()
    };
    assert_eq!(peer.ask("attest", of(closed))["refusal"], 1, "nobody answers there");

    // Not a request, an unknown way, a port that is none, a request with more
    // behind it, and one that is too long.
    for (name, bytes) in [
        ("noise", vec![0xff; 40]),
        ("nothing", vec![]),
        ("another way", request(port.as_u64().expect("a port"), 77)),
        ("no port", request(70_000, u64::from(TCP))),
        ("more", [request(30_000, u64::from(TCP)), vec![0]].concat()),
        ("too long", vec![0xa3; 600]),
    ] {
        let args = json!({"door": "witnesses", "data": hex(&bytes)});
        let refused = peer.refusal("ask_raw", args);
        println!("{name}: {refused}");
    }
    assert!(peer.is_connected());
}

/// A request in CBOR.
fn request(port: u64, way: u64) -> Vec<u8> {
    let number = |value: u64| match value {
        0..24 => vec![u8::try_from(value).expect("small")],
        24..256 => vec![0x18, u8::try_from(value).expect("small")],
        256..65_536 => [&[0x19], &u16::try_from(value).expect("short").to_be_bytes()[..]].concat(),
        _ => [&[0x1a], &u32::try_from(value).expect("a port").to_be_bytes()[..]].concat(),
    };
    let head = [0xa3, 1, 0x58, 32];
    [&head[..], &[7; 32], &[2], &number(port), &[3], &number(way)].concat()
}
