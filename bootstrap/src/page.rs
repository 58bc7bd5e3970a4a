//! The page for a person: what the metrics say, in tables. It is made here and
//! needs no script.

use std::fmt::Write as _;

use crate::views::{StatusView, bytes, count, duration};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #888; --warn: #b00020; }
@media (prefers-color-scheme: dark) { :root { --warn: #ff8a8a; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); } code { overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.5rem 0 0; padding: 0; }
.figures div { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
.figures dt { color: var(--soft); font-size: .85rem; } .figures dd { margin: 0; font-size: 1.4rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; font-size: .85rem; color: var(--soft); } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.warn { color: var(--warn); font-weight: 600; }
";

/// One line of metrics.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// Our labels have neither quotes nor commas in them; a line that cannot be
    /// read is left out.
    fn of(line: &'a str) -> Option<Self> {
        let (what, value) = line.rsplit_once(' ')?;
        let (name, labels) = what.split_once('{').unwrap_or((what, "}"));
        let labels = labels.strip_suffix('}')?.split(',').filter_map(|label| {
            let (key, value) = label.split_once('=')?;
            Some((key, value.trim_matches('"')))
        });
        let value = value.parse().ok()?;
        Some(Self { name, labels: labels.collect(), value })
    }

    fn label(&self, key: &str) -> &'a str {
        self.labels.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value)
    }
}

/// The page.
pub(crate) fn render(status: &StatusView, metrics: &str) -> String {
    let samples: Vec<_> =
        metrics.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::of).collect();
    let mut page = String::with_capacity(8 * 1024);
    head(&mut page, status);
    figures(&mut page, status, &samples);
    traffic(&mut page, &samples);
    turned_away(&mut page, &samples);
    deny(&mut page, status);
    page.push_str(
        "<p class=soft>The same as numbers: <a href=/metrics>metrics</a>. This page names no \
         peer; <code>homehost-bootstrap peers</code> does.</p>\n</main></body></html>\n",
    );
    page
}

fn head(page: &mut String, status: &StatusView) {
    let (network, node) = (escaped(&status.network), escaped(&status.node));
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=10><title>Bootstrap node of {network}</title>\
         <style>{STYLE}</style></head>\n<body><main><h1>Bootstrap node of <em>{network}</em></h1>\n\
         <p class=soft><code>{node}</code><br>version {}, up for {}</p>\n",
        escaped(&status.version),
        duration(status.uptime_s),
    );
    if status.listening.is_empty() {
        page.push_str("<p class=warn>It does not listen: nobody can reach it.</p>\n");
    }
}

fn figures(page: &mut String, status: &StatusView, samples: &[Sample<'_>]) {
    let sum = |name: &str| -> f64 {
        samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    };
    let join = match status.joins {
        0 => "–".to_owned(),
        _ => format!("{} ms", status.join_ms_p99),
    };
    page.push_str("<dl class=figures>\n");
    for (what, value) in [
        ("hosts", status.hosts.to_string()),
        ("bootstrap nodes", status.bootstrap_nodes.to_string()),
        ("clients", status.clients.to_string()),
        ("join, 99 in 100", join),
        ("relay reservations", sum("homehost_mesh_relay_reservations").to_string()),
        ("relayed connections", sum("homehost_mesh_relay_circuits").to_string()),
        ("came", bytes(status.received_bytes)),
        ("went", bytes(status.sent_bytes)),
    ] {
        let _ = writeln!(page, "<div><dt>{what}</dt><dd>{value}</dd></div>");
    }
    page.push_str("</dl>\n");
}

fn traffic(page: &mut String, samples: &[Sample<'_>]) {
    let of = |protocol: &str, direction: &str| {
        let found = samples.iter().find(|sample| {
            sample.name == "homehost_mesh_traffic_bytes_total"
                && sample.label("protocol") == protocol
                && sample.label("direction") == direction
        });
        found.map_or(0, |sample| sample.value as u64)
    };
    let mut rows = Vec::new();
    for protocol in homehost_mesh::Protocol::ALL.map(homehost_mesh::Protocol::label) {
        let (came, went) = (of(protocol, "received"), of(protocol, "sent"));
        if came + went > 0 {
            rows.push((came + went, [protocol.to_owned(), bytes(came), bytes(went)]));
        }
    }
    rows.sort_by_key(|(all, _)| std::cmp::Reverse(*all));
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    table(page, "Traffic by protocol", ["protocol", "came", "went"], &rows, "Nothing yet.");
}

fn turned_away(page: &mut String, samples: &[Sample<'_>]) {
    let mut rows = Vec::new();
    for sample in samples.iter().filter(|sample| sample.value > 0.0) {
        let what = match sample.name {
            "homehost_mesh_connections_refused_total" => "connection".to_owned(),
            "homehost_mesh_rpc_refused_total" => format!("question ({})", sample.label("rpc")),
            "homehost_mesh_misdeeds_total" => "misdeed".to_owned(),
            "homehost_mesh_relay_refused_total" => "relay".to_owned(),
            _ => continue,
        };
        let reason = sample.labels.iter().rev().find(|(key, _)| *key != "rpc");
        let reason = reason.map_or("", |(_, value)| value).to_owned();
        rows.push((sample.value, [what, reason, format!("{}", sample.value)]));
    }
    rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    table(page, "Turned away", ["what", "why", "times"], &rows, "Nobody.");
}

fn deny(page: &mut String, status: &StatusView) {
    let entries = count(status.deny.entries, "entry holds", "entries hold");
    let _ = writeln!(page, "<h2>Deny list</h2>\n<p>{entries}.</p>");
    if status.deny.problem.is_some() {
        page.push_str(
            "<p class=warn>The file as it is now has a mistake in it and does not hold; \
             <code>homehost-bootstrap status</code> says where.</p>\n",
        );
    }
}

fn table<const N: usize>(
    page: &mut String,
    title: &str,
    heads: [&str; N],
    rows: &[[String; N]],
    none: &str,
) {
    let _ = writeln!(page, "<h2>{title}</h2>");
    if rows.is_empty() {
        let _ = writeln!(page, "<p class=soft>{none}</p>");
        return;
    }
    let is_number = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit());
    let class = |at: usize| if is_number(&rows[0][at]) { " class=n" } else { "" };
    page.push_str("<table><tr>");
    for (at, head) in heads.iter().enumerate() {
        let _ = write!(page, "<th{}>{head}</th>", class(at));
    }
    page.push_str("</tr>\n");
    for row in rows {
        page.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let _ = write!(page, "<td{}>{}</td>", class(at), escaped(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::DenyView;

    fn status() -> StatusView {
        StatusView {
            version: "0.1.0".into(),
            network: "main".into(),
            node: "12D3".into(),
            uptime_s: 61,
            listening: vec!["/ip4/198.51.100.7/tcp/4001".into()],
            hosts: 3,
            bootstrap_nodes: 1,
            clients: 2,
            joins: 9,
            join_ms_p50: 5,
            join_ms_p99: 77,
            received_bytes: 2_000_000,
            sent_bytes: 10,
            deny: DenyView { file: "/x/deny.txt".into(), entries: 4, problem: None },
        }
    }

    #[test]
    fn it_shows_what_the_metrics_say_and_no_address() {
        let metrics = "# HELP x y\n\
            homehost_mesh_traffic_bytes_total{protocol=\"dht\",direction=\"received\"} 1500000\n\
            homehost_mesh_traffic_bytes_total{protocol=\"dht\",direction=\"sent\"} 2500\n\
            homehost_mesh_connections_refused_total{reason=\"denied\"} 17\n\
            homehost_mesh_rpc_refused_total{rpc=\"query\",reason=\"budget\"} 3\n\
            homehost_mesh_relay_reservations 6\nbroken\n# EOF\n";
        let page = render(&status(), metrics);
        for part in [
            "<td>dht</td><td class=n>1.5 MB</td><td class=n>2.5 kB</td>",
            "<td>connection</td><td>denied</td><td class=n>17</td>",
            "<td>question (query)</td><td>budget</td><td class=n>3</td>",
            "<dt>relay reservations</dt><dd>6</dd>",
            "<dd>77 ms</dd>",
            "4 entries hold",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("198.51.100.7") && !page.contains("class=warn"), "{page}");
    }

    #[test]
    fn trouble_is_said_and_text_is_text() {
        let mut status = status();
        status.network = "<script>\"&".into();
        status.listening.clear();
        status.deny.problem = Some("line 3: 198.51.100.7x".into());
        let page = render(&status, "");
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;&quot;&amp;"));
        assert_eq!(page.matches("class=warn").count(), 2, "{page}");
        assert!(!page.contains("198.51.100.7"), "{page}");
    }
}
