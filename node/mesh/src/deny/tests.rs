use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const NODE: &str = "12D3KooWHsTDTjGQPoupTMu5nQzaKzdLF2QqwqG2mBrS5HxKoDHM";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_list_is_nodes_addresses_and_prefixes_with_words_beside_them() {
    let text = format!(
        "\u{feff}# floods since May\r\n\r\n{NODE}  # the same one again\r\n 8.8.8.8\n\
         9.9.0.0/16\n9.9.7.7/16\n2a01:4f8::/32 # rented\n::ffff:7.7.7.7"
    );
    let list = DenyList::parse(&text).unwrap();
    assert_eq!(list.len(), 5, "9.9.7.7/16 is 9.9.0.0/16");
    assert!(list.denies_node(NODE.parse().unwrap()));
    assert!(!list.denies_node(NodeId([1; 32])));
    for denied in ["8.8.8.8", "::ffff:8.8.8.8", "9.9.255.1", "2a01:4f8:1::1", "7.7.7.7"] {
        assert!(list.denies_ip(ip(denied)), "{denied}");
    }
    for free in ["8.8.8.9", "9.10.0.0", "2a01:4f9::1", "::ffff:8.8.8.9", "127.0.0.1"] {
        assert!(!list.denies_ip(ip(free)), "{free}");
    }
    assert!(DenyList::parse("# nobody\n\n").unwrap().is_empty());
}

#[test]
fn a_broken_line_is_named_and_nothing_of_the_list_holds() {
    let long = "x".repeat(5000);
    for (entry, word) in [
        ("8.8.8.256", "no IP address"),
        ("8.8.8.0/33", "prefix"),
        ("12D3KooW", "node id"),
        ("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "12D3KooW"),
        ("/ip4/8.8.8.8/tcp/4001", "no IP address"),
        ("boot.example.org", "no IP address"),
        ("8.8.8.8 9.9.9.9", "no IP address"),
        ("0.0.0.0/0", "everybody"),
        ("::/0", "everybody"),
        ("ä\u{0}\u{1b}[31m", "no IP address"),
        (long.as_str(), "no IP address"),
    ] {
        let error = DenyList::parse(&format!("# one\n1.1.1.1\n{entry}\n")).unwrap_err();
        assert!(matches!(error, DenyError::Line { line: 3, .. }), "{error}");
        let shown = error.to_string();
        assert!(shown.contains(word) && shown.len() < 400, "{shown}");
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{0}'), "{shown}");
    }
    let many: String =
        (0..=ENTRIES_MAX as u32).map(|n| format!("{}\n", Ipv4Addr::from(n + (1 << 24)))).collect();
    assert_eq!(DenyList::parse(&many), Err(DenyError::TooMany));
}

#[test]
fn seeded_lists_deny_what_a_plain_look_through_them_denies() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let some_ip = |random: &mut fastrand::Rng| -> IpAddr {
            match random.bool() {
                true => Ipv4Addr::new(8, random.u8(0..3), random.u8(0..3), random.u8(..)).into(),
                false => {
                    Ipv6Addr::new(0x2a01, random.u16(0..3), 0, random.u16(..), 0, 0, 0, 1).into()
                }
            }
        };
        let blocks: Vec<IpNet> = (0..random.usize(0..12))
            .map(|_| {
                let ip = some_ip(&mut random);
                let most = if ip.is_ipv4() { 32 } else { 128 };
                IpNet::new(ip, random.u8(8..=most)).unwrap()
            })
            .collect();
        let text: String = blocks.iter().map(|block| format!("{block}\n")).collect();
        let list = DenyList::parse(&text).unwrap();
        for _ in 0..200 {
            let ip = some_ip(&mut random);
            let plain = blocks.iter().any(|block| block.contains(&ip));
            assert_eq!(list.denies_ip(ip), plain, "seed {seed}: {ip}");
        }
    }
}

#[test]
fn entries_come_and_go_and_the_rest_stays_as_it_was_written() {
    let denied: Denied = "9.9.0.0/16".parse().unwrap();
    assert_eq!(with_entry("", denied), "9.9.0.0/16\n");
    let text = with_entry("# mine\n8.8.8.8 # why", denied);
    assert_eq!(text, "# mine\n8.8.8.8 # why\n9.9.0.0/16\n");
    assert_eq!(without_entry(&text, denied), ("# mine\n8.8.8.8 # why\n".to_owned(), 1));
    let single: Denied = "8.8.8.8/32".parse().unwrap();
    assert_eq!(single.to_string(), "8.8.8.8");
    assert_eq!(without_entry(&text, single), ("# mine\n9.9.0.0/16\n".to_owned(), 1));
    assert_eq!(without_entry(&text, "1.1.1.1".parse().unwrap()).1, 0);
    assert_eq!(without_entry("broken\n8.8.8.8", single), ("broken\n".to_owned(), 1));
}
