//! What can be said, what is refused and in which words.

use super::file::{keep_invitation, parse, with};
use super::*;

fn problems(text: &str) -> Vec<String> {
    let problems = parse("config.toml", text).expect_err("it is refused");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_wrong_key_is_told_with_its_line_and_the_right_one() {
    for (text, said) in [
        (
            "# mine\n\n[mesh]\nmdns = true\n\n\nbootstap = []\n",
            "config.toml:7: mesh.bootstap is not a setting; did you mean mesh.bootstrap?",
        ),
        (
            "bootstrap = []\n",
            "config.toml:1: bootstrap is not a setting; did you mean mesh.bootstrap?",
        ),
        (
            "[mehs]\nnetwork = \"a\"\n",
            "config.toml:2: mehs.network is not a setting; did you mean mesh.network?",
        ),
        (
            "mesh.netwrok = \"a\"\n",
            "config.toml:1: mesh.netwrok is not a setting; did you mean mesh.network?",
        ),
        (
            "\nentirely = 1\n",
            "config.toml:2: entirely is not a setting; `homehost config show` lists them all",
        ),
        ("mesh = 3\n", "config.toml:1: mesh is a section: expected [mesh] on a line of its own"),
    ] {
        assert_eq!(problems(text), [said], "{text}");
    }
}

#[test]
fn a_wrong_value_is_told_with_its_line_and_what_is_right() {
    for (text, line, words) in [
        (
            "[mesh]\nlisten = 4011\n",
            2,
            &["mesh.listen", "a list of multiaddrs", "found a number"][..],
        ),
        ("[mesh]\nlisten = \"/ip4/0.0.0.0/tcp/1\"\n", 2, &["a list", "found a text"]),
        ("[mesh]\nlisten = [\n  \"/ip4/0.0.0.0/tcp/1\",\n  \"nowhere\"\n]\n", 2, &["\"nowhere\""]),
        (
            "[mesh]\nlisten = [\"/dns4/localhost/tcp/4001\"]\n",
            2,
            &["/dns4/localhost/tcp/4001 cannot be listened on", "as in /ip4/0.0.0.0/tcp/4011"],
        ),
        ("[mesh]\nlisten = [\"/ip4/0.0.0.0/udp/4001\"]\n", 2, &["cannot be listened on"]),
        ("[mesh]\nbootstrap = [\"/ip4/8.8.8.8/udp/1\"]\n", 2, &["cannot be dialled", "as in"]),
        ("[mesh]\nlisten = [4]\n", 2, &["other things in the list"]),
        ("[mesh]\n\nmdns = \"no\"\n", 3, &["true or false", "found a text"]),
        ("[mesh]\nnetwork = \"No Spaces\"\n", 2, &["No Spaces", "a-z"]),
        ("[http]\nlisten = \"0.0.0.0:80\"\n", 2, &["loopback"]),
        ("log = \"homehost=loud\"\n", 1, &["filter", "homehost=loud", "loud is no level"]),
        ("log = \"debgu\"\n", 1, &["did you mean debug?"]),
        ("\"mesh.mdns\" = true\n[mesh]\nmdns = true\n", 3, &["mesh.mdns is set twice"]),
        ("log = \n", 1, &["not TOML"]),
        ("log = \"warn\"\nlog = \"info\"\n", 2, &["not TOML", "duplicate"]),
        ("[mesh]\nmdns = true\n[mesh]\n", 3, &["not TOML", "duplicate"]),
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let place = format!("config.toml:{line}: ");
        assert!(problems[0].starts_with(&place), "{text}: {problems:?}");
        for word in words {
            assert!(problems[0].contains(word), "{word} in {problems:?}");
        }
    }
    let several = problems("[mesh]\nmdns = 1\nlisten = 1\nno = 1\n");
    let lines: Vec<_> = several.iter().map(|text| text.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["config.toml:2:", "config.toml:3:", "config.toml:4:"]);
}

#[test]
fn hostile_text_is_refused_and_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    let whole = docs().replace("\n#", "\n");
    for _ in 0..2000 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..random.usize(1..20) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        if let Ok(text) = String::from_utf8(bytes) {
            drop(parse("config.toml", &text));
        }
    }
}

#[test]
fn the_documented_file_is_sound_with_and_without_its_examples() {
    let text = docs();
    assert_eq!(parse("config.toml", &text), Ok(Layer::new()), "nothing is set");
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(set) if !set.starts_with(' ') && set.contains('=') => set.to_owned(),
        _ => line.to_owned(),
    });
    let set = lines.collect::<Vec<_>>().join("\n");
    let layer = parse("config.toml", &set).expect("every example is sound");
    let keys: Vec<_> = layer.keys().copied().collect();
    let mut known: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    known.sort_unstable();
    assert_eq!(keys, known);
}

#[test]
fn a_variable_with_one_underscore_is_named() {
    let names = ["HOMEHOST_MESH_PORT_MAPPING", "HOMEHOST_LOG", "HOMEHOST_DATA_DIR", "MESH_NETWORK"];
    let said: Vec<_> = mistaken(names.map(str::to_owned)).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["HOMEHOST_MESH_PORT_MAPPING: this is no setting and counts nothing; \
          did you mean HOMEHOST__MESH__PORT_MAPPING?"]
    );
    let mixed = mistaken(["HOMEHOST_MESH__NETWORK".to_owned(), "HOMEHOST__LOG".to_owned()]);
    assert_eq!(mixed.len(), 1, "{mixed:?}");
}

#[test]
fn later_layers_count_and_each_value_knows_its_own() {
    let file = parse("c.toml", "log = \"warn\"\n[mesh]\nnetwork = \"a\"\nmdns = false\n").unwrap();
    let variable = |name: &str, value: &str| (name.into(), value.into());
    let environment = environment([
        variable("HOMEHOST__MESH__NETWORK", "b"),
        variable("HOMEHOST__MESH__BOOTSTRAP", "/ip4/8.8.8.8/tcp/1, /ip4/8.8.4.4/tcp/2"),
        variable("HOMEHOST_LOG", "info"),
        variable("HOMEHOST_DATA_DIR", "/x"),
        variable("PATH", "/bin"),
    ])
    .unwrap();
    let flag =
        Given { value: Value::Network("c".parse().unwrap()), origin: Origin::Flag("--network") };
    let config = Config::of([file, environment, Layer::from([(NETWORK, flag)])]);
    assert_eq!(config.network().unwrap().as_str(), "c");
    assert_eq!(config.bootstrap().len(), 2);
    assert_eq!(config.log(), Some("info"));
    let view = config.view();
    let from = |key: &str| view.iter().find(|of| of.key == key).unwrap().from.clone();
    assert_eq!(from(NETWORK), "--network");
    assert_eq!(from(BOOTSTRAP), "HOMEHOST__MESH__BOOTSTRAP");
    assert_eq!(from(LOG), "HOMEHOST_LOG");
    assert_eq!(from(MDNS), "c.toml:4");
    assert_eq!(from(LISTEN), "default");
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, said) in [
        (
            "HOMEHOST__MESH__BOOTSTAP",
            "x",
            "HOMEHOST__MESH__BOOTSTAP: no setting is called so; did you mean HOMEHOST__MESH__BOOTSTRAP?",
        ),
        (
            "HOMEHOST__MESH__MDNS",
            "maybe",
            "HOMEHOST__MESH__MDNS: expected true or false, found \"maybe\"",
        ),
    ] {
        let problems = environment([(name.into(), value.into())]).unwrap_err();
        assert_eq!(problems[0].to_string(), said);
    }
    let both = [("HOMEHOST__LOG", "debug"), ("HOMEHOST_LOG", "info")];
    let layer = environment(both.map(|(name, value)| (name.into(), value.into()))).unwrap();
    assert_eq!(Config::of([layer]).log(), Some("debug"));
}

#[test]
fn a_value_is_set_and_all_else_stays() {
    let text = "# mine\nlog = \"warn\" # quiet\n\n[mesh] # the mesh\n# friends\nbootstrap = [ \"/ip4/8.8.8.8/tcp/1\" ]\n";
    let set = |text: &str, key: &str, words: &[&str]| {
        let value = setting(key).unwrap().kind.read_text(words).unwrap();
        with("config.toml", text, key, &value).unwrap()
    };
    assert_eq!(set(text, LOG, &["info"]), text.replace("\"warn\"", "\"info\""));
    let more = set(text, HTTP, &["127.0.0.1:7781"]);
    assert!(more.starts_with(text), "{more}");
    assert!(more.ends_with("[http]\nlisten = \"127.0.0.1:7781\"\n"), "{more}");
    let new = set("", NETWORK, &["club"]);
    assert_eq!(new, "[mesh]\nnetwork = \"club\"\n");
    let list = set(&new, BOOTSTRAP, &["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.4.4/tcp/1"]);
    assert!(
        list.contains("bootstrap = [\"/ip4/8.8.8.8/tcp/1\", \"/ip4/8.8.4.4/tcp/1\"]"),
        "{list}"
    );
    assert_eq!(set(&list, BOOTSTRAP, &[]).lines().last(), Some("bootstrap = []"));
    // Into the documented file, where every setting is a comment.
    for setting in SETTINGS {
        let value = setting.kind.read_text(&[&setting.example.replace('"', "")]).unwrap();
        let set = with("config.toml", &docs(), setting.key, &value).unwrap();
        assert_eq!(Config::of([parse("c", &set).unwrap()]).value(setting.key), Some(&value));
        for line in docs().lines() {
            assert!(set.contains(line), "{line:?} is gone from {set}");
        }
    }
    assert!(with("c", "broken", LOG, &Value::Log("info".into())).is_err());
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    for (name, value, said) in [
        (
            &b"HOMEHOST__LOG"[..],
            &b"in\xfffo"[..],
            "HOMEHOST__LOG: its value \"in\u{fffd}fo\" is not",
        ),
        (b"HOMEHOST_LOG", b"\xff", "HOMEHOST_LOG: its value"),
        (b"HOMEHOST__\xffLOG", b"info", "HOMEHOST__\u{fffd}LOG: its name is not UTF-8"),
    ] {
        let problems = environment([(bytes(name), bytes(value))]).unwrap_err();
        assert!(problems[0].to_string().starts_with(said), "{problems:?}");
    }
    let others = [(bytes(b"PATH"), bytes(b"\xff")), (bytes(b"\xff"), bytes(b"x"))];
    assert_eq!(environment(others), Ok(Layer::new()));
}

#[test]
fn line_ends_stay_as_they_are_and_quoted_keys_are_found() {
    let set = |text: &str, key: &str| {
        let value = setting(key).unwrap().kind.read_text(&["false"]).unwrap();
        with("config.toml", text, key, &value).unwrap()
    };
    let windows = "# mine\r\n[mesh]\r\nmdns = true # so\r\n\r\n[http]\r\n";
    assert_eq!(set(windows, MDNS), windows.replace("true", "false"));
    let more = set(windows, PORT_MAPPING);
    assert_eq!(more.matches('\n').count(), more.matches("\r\n").count(), "{more:?}");
    for (before, after) in [
        ("[\"mesh\"]\n\"mdns\" = true\n", "[\"mesh\"]\n\"mdns\" = false\n"),
        ("\"mesh.mdns\" = true\n", "\"mesh.mdns\" = false\n"),
        ("mesh.'mdns' = true\n", "mesh.'mdns' = false\n"),
        ("mesh = { mdns = true }\n", "mesh = { mdns = false }\n"),
    ] {
        assert_eq!(set(before, MDNS), after);
    }
}

#[test]
fn an_invitation_writes_down_the_network_that_has_to_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = ["/ip4/127.0.0.1/tcp/4001".parse().unwrap()];
    let keep = |name: &str, network: Option<&str>| {
        let path = folder.path().join(name);
        let network = network.map(|network| network.parse().unwrap());
        let another = keep_invitation(&path, network.as_ref(), &at).unwrap();
        (another.is_some(), std::fs::read_to_string(&path).unwrap())
    };
    // Also that of nodes on loopback: whoever is invited may listen everywhere.
    for network in ["local", "friends"] {
        let (another, text) = keep(network, Some(network));
        assert!(!another && text.contains(&format!("network = \"{network}\"")), "{text}");
    }
    let (another, text) = keep("by-itself", None);
    assert!(!another && text.contains("/ip4/127.0.0.1/tcp/4001"), "{text}");
    assert!(!text.contains("network"), "{text}");
    let (another, text) = keep("friends", Some("local"));
    assert!(another && text.contains("\"friends\"") && !text.contains("\"local\""), "{text}");
}
