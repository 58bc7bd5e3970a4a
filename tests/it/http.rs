//! The API, as programs use it and as hostile pages would like to.

use std::time::Duration;

use homehost_tests::{Game, Test, exchange};
use serde_json::json;

#[test]
fn only_the_owner_gets_in() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let (address, token) = node.http();
    let host = address.to_string();
    let bearer = format!("Bearer {token}");
    let right = [("Host", host.as_str()), ("Authorization", bearer.as_str())];
    for path in ["/api/v1/status", "/api/v1/discover", "/api/v1/servers", "/api/v1/discover/watch"]
    {
        let get = |headers: &[(&str, &str)]| exchange(address, &format!("GET {path}"), headers, "");
        for headers in [
            &[("Host", host.as_str())][..],
            &[("Host", host.as_str()), ("Authorization", "Bearer wrong")],
            &[("Host", host.as_str()), ("Authorization", "Bearer ")],
            &[("Host", host.as_str()), ("Authorization", token)],
        ] {
            let response = get(headers);
            assert_eq!(response.status, 401, "{path} {headers:?}: {response:?}");
            assert_eq!(response.json()["error"]["kind"], "denied");
        }
        for (name, value) in [
            ("Origin", "https://example.com"),
            ("Origin", "null"),
            ("Origin", &format!("https://{host}")),
            ("Host", "example.com"),
            ("Host", &format!("example.com:{}", address.port())),
        ] {
            let mut headers = right.to_vec();
            headers.retain(|(known, _)| *known != name);
            headers.push((name, value));
            let response = get(&headers);
            assert_eq!(response.status, 403, "{path} {name}: {value}: {response:?}");
        }
    }
    let action = json!({ "action": { "do": "node-stop", "games": true } }).to_string();
    let post = |headers: &[(&str, &str)]| {
        exchange(address, "POST /api/v1/actions", headers, &action).status
    };
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(post(&[right[0], ("Content-Type", "application/json")]), 401);
    assert_eq!(post(&[right[0], form]), 401);
    assert_eq!(post(&[right[0], right[1], ("Origin", "http://example.com"), form]), 403);
    let mut local = right.to_vec();
    let origin = format!("http://localhost:{}", address.port());
    local.push(("Origin", &origin));
    assert_eq!(exchange(address, "GET /api/v1/status", &local, "").status, 200);
}

#[test]
fn health_is_open_and_everything_else_has_a_shape() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let (address, _) = node.http();
    let host = address.to_string();
    for path in ["/healthz", "/readyz"] {
        let response = exchange(address, &format!("GET {path}"), &[("Host", &host)], "");
        assert_eq!(response.status, 200, "{path}: {response:?}");
    }
    let metrics = node.get("/metrics");
    assert!(metrics.head.contains("application/openmetrics-text"), "{metrics:?}");
    assert!(metrics.body.ends_with("# EOF\n"), "{metrics:?}");
    assert!(metrics.body.contains("homehost_"), "{metrics:?}");

    let bearer = format!("Bearer {}", node.http().1);
    let headers = [("Host", host.as_str()), ("Authorization", &bearer)];
    let json = [headers[0], headers[1], ("Content-Type", "application/json")];
    for (request, body, status) in [
        ("GET /api/v1/nothing", "", 404),
        ("GET /api/v1/servers/nobody", "", 404),
        ("GET /api/v1/discover?colour=red", "", 400),
        ("GET /api/v1/discover?limit=-1", "", 400),
        ("POST /api/v1/actions", "{", 400),
        ("POST /api/v1/actions", r#"{"action":{"do":"dance"}}"#, 400),
        ("POST /api/v1/actions", r#"{"action":{"do":"server-stop","server":"nobody"}}"#, 404),
    ] {
        let response = exchange(address, request, &json, body);
        assert_eq!(response.status, status, "{request} {body}: {response:?}");
        let message = response.json()["error"]["message"].as_str().map(str::len);
        assert!(message > Some(5), "{request}: {response:?}");
    }
    let long = "x".repeat(1_000_000);
    let response = exchange(address, "POST /api/v1/actions", &json, &long);
    assert!((400..500).contains(&response.status), "{}", response.status);
    assert_eq!(node.get("/api/v1/status").status, 200);
}

#[test]
fn an_action_with_a_key_is_done_once() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let add = |key: &str, name: &str| {
        node.post(&json!({
            "key": key,
            "action": { "do": "server-add", "name": name, "game": "x", "exec": "x" },
        }))
    };
    let first = add("k1", "Once").json();
    assert_eq!(add("k1", "Once").json(), first, "the same receipt");
    assert_eq!(node.ok(&["server", "ls"]).as_array().map(Vec::len), Some(1));
    let second = add("k2", "Once");
    assert_eq!(second.status, 409, "another key is another action: {second:?}");
}

#[test]
fn a_watcher_sees_a_row_come_and_go() {
    let test = Test::new();
    let node = test.node("node", &[]);
    let friend = test.node("friend", &[&node.address()]);
    friend.connected_to(&node);
    let mut events = friend.events("/api/v1/discover/watch?tags=none&game=stand-in");
    drop(events);
    events = friend.events("/api/v1/discover/watch?game=stand-in");
    let server = node.host(&Game::stand_in(&test, "Watched", 0));
    let within = Duration::from_secs(20);
    let row = events.find(within, "the new row", |event| {
        (event["change"] == "put").then(|| event["row"].clone())
    });
    assert_eq!((&row["id"], &row["status"]), (&server["id"], &json!("live")));
    node.ok(&["server", "stop", "Watched"]);
    events.find(Duration::from_secs(5), "its withdrawal", |event| {
        (event["change"] == "gone" && event["id"] == server["id"]).then_some(())
    });
}

/// Any program of this machine may connect to loopback, a game among them.
#[cfg(target_os = "linux")]
#[test]
fn a_crowd_that_says_nothing_does_not_deafen_the_api() {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    const CROWD: usize = 1100;
    const OF_A_SHELL: u64 = 1024;
    homehost_runtime::make_room_for_files(4096);
    let test = Test::new();
    let node = test.node("node", &[]);
    let pid = i32::try_from(node.pid()).ok().and_then(Pid::from_raw);
    // The node has taken what it needs, as the system let it.
    let own = getrlimit(Resource::Nofile).maximum.unwrap_or(4096).min(4096);
    let few = Rlimit { current: Some(OF_A_SHELL), maximum: Some(OF_A_SHELL) };
    let before = prlimit(pid, Resource::Nofile, few).expect("it is ours");
    assert!(before.current.is_none_or(|files| files >= own), "{before:?}");

    let (address, _) = node.http();
    let mut crowd: Vec<_> = (0..CROWD)
        .map(|n| {
            let connected = TcpStream::connect_timeout(&address, Duration::from_secs(5));
            let mut stream = connected.unwrap_or_else(|error| panic!("{n}: {error}"));
            // It may be pushed out already.
            let _ = stream.write_all(b"GET /api/v1/sta");
            stream
        })
        .collect();
    assert_eq!(node.get("/api/v1/status").status, 200);
    assert!(node.ok(&["status"])["pid"].is_u64());
    // Also those that nobody else pushed out go.
    for stream in &mut crowd {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("the time is not zero");
        let ended = match stream.read(&mut [0; 1024]) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(ended, "somebody who says nothing keeps a place");
    }
}
