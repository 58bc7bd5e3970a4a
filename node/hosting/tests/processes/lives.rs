//! The lives of servers under one daemon.

use std::time::Duration;

use homehost_hosting::{ErrorClass, KeepData, QueryKind, State, Wanted};

use crate::Test;
use crate::bench::{Bench, block_on, expect_ticks, line_with, within};

pub(crate) const TESTS: &[Test] = &[
    ("a_game_starts_answers_and_stops_by_its_command", starts_answers_stops),
    ("a_game_without_a_command_stops_by_a_signal", stops_by_signal),
    ("a_log_is_followed_and_read_after_the_end", log_is_followed),
    ("a_crash_leads_to_a_restart", crash_leads_to_restart),
    ("a_game_that_dies_at_once_is_explained", dies_at_once),
    ("a_missing_program_is_explained", missing_program),
    ("a_port_in_use_is_explained", port_in_use),
    ("an_automatic_port_in_use_is_replaced", automatic_port_in_use),
    ("a_port_that_another_program_was_quicker_to_take_is_replaced", outrun),
    ("a_restart_makes_another_process", restart),
    ("a_daemon_that_returns_misses_and_repeats_nothing", daemon_returns),
    ("names_are_unique_and_running_servers_stay", names_and_removal),
    ("a_name_is_no_part_of_the_start_line", no_shell),
];

const A2S: &str = "__a2s-game --port {port.game} --name {name} --slots 7 --players 2";

fn starts_answers_stops() {
    block_on(async {
        let bench = Bench::new().await;
        let mut definition = bench.definition("alpha", A2S, &["game=auto/udp"]);
        definition.query.kind = QueryKind::A2s;
        definition.stop_command = Some("quit".into());
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        assert_eq!(bench.view(&id).state, State::Offline);
        bench.hosting.start(&id).await.unwrap();
        bench.hosting.start(&id).await.unwrap();
        let view = bench.until(&id, "players", |view| view.players == Some(2)).await;
        assert_eq!((view.state, view.slots, view.ready), (State::Running, Some(7), true));
        assert!(view.pid.is_some() && view.answered.is_some() && view.problem.is_none());
        bench.hosting.send_stdin(&id, "join eve".into()).await.unwrap();
        bench.until(&id, "a third player", |view| view.players == Some(3)).await;
        bench.hosting.stop(&id).await.unwrap();
        bench.hosting.stop(&id).await.unwrap();
        let view = bench.view(&id);
        assert_eq!((view.state, view.players, view.pid), (State::Offline, None, None));
        let exit = view.last_exit.unwrap();
        assert_eq!((exit.code, exit.asked), (Some(0), true));
        assert_eq!(exit.rung.as_deref(), Some("console command \"quit\""));
        let error = bench.hosting.send_stdin(&id, "x".into()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::WrongState);
    });
}

fn stops_by_signal() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", A2S, &["game=auto/udp"]).await;
        bench.hosting.start(&id).await.unwrap();
        let mut log = bench.follow(&id, 10).await;
        line_with(&mut log, "listens").await;
        bench.hosting.stop(&id).await.unwrap();
        let exit = bench.view(&id).last_exit.unwrap();
        assert!(exit.asked && exit.code == Some(0), "{exit:?}");
        let rung = if cfg!(windows) { "Ctrl-C" } else { "SIGINT" };
        assert_eq!(exit.rung.as_deref(), Some(rung));
        assert!(exit.last_line.unwrap().contains("shutting down"));
    });
}

fn log_is_followed() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", A2S, &["game=auto/udp"]).await;
        let mut log = bench.follow(&id, 10).await;
        bench.hosting.start(&id).await.unwrap();
        let first = line_with(&mut log, "alpha listens").await;
        assert_eq!(first.seq, 1);
        bench.hosting.send_stdin(&id, "say hello".into()).await.unwrap();
        line_with(&mut log, "hello").await;
        bench.hosting.stop(&id).await.unwrap();
        let last = line_with(&mut log, "shutting down").await;
        let mut after = bench.hosting.logs(&id, 1, false).await.unwrap();
        assert_eq!(after.recv().await, Some(last.clone()));
        assert_eq!(after.recv().await, None);
        // The next run counts on.
        bench.hosting.start(&id).await.unwrap();
        assert!(line_with(&mut log, "alpha listens").await.seq > last.seq);
        bench.hosting.stop(&id).await.unwrap();
    });
}

fn crash_leads_to_restart() {
    block_on(async {
        let bench = Bench::new().await;
        let game = format!("{A2S} --exit-after 1");
        let mut definition = bench.definition("alpha", &game, &["game=auto/udp"]);
        definition.query.kind = QueryKind::A2s;
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        bench.hosting.start(&id).await.unwrap();
        let first = bench.until(&id, "running", |view| view.state == State::Running).await;
        let backoff =
            |view: &homehost_hosting::ServerView| matches!(view.state, State::Backoff { .. });
        let view = bench.until(&id, "the crash", backoff).await;
        let problem = view.problem.unwrap();
        assert!(problem.contains("exit code 0") && problem.contains("time is up"), "{problem}");
        let again = bench
            .until(&id, "the restart", |view| view.state == State::Running && view.restarts == 1)
            .await;
        assert_ne!(first.pid, again.pid);
        bench.until(&id, "the second crash", backoff).await;
        // A removal ends the waiting.
        bench.hosting.remove(&id, KeepData::No).await.unwrap();
        assert!(bench.hosting.servers().borrow().is_empty());
    });
}

fn dies_at_once() {
    block_on(async {
        let mut bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game dies 3", &[]).await;
        let error = bench.hosting.start(&id).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit code 3") && text.contains("\"the map is missing\""), "{text}");
        assert_eq!(error.class(), ErrorClass::BadConfig);
        let view = bench.view(&id);
        assert_eq!((view.state, view.problem), (State::Crashed, Some(text)));
        // However fast it was, its last lines are there.
        let mut log = bench.hosting.logs(&id, 10, false).await.unwrap();
        assert_eq!(log.recv().await.unwrap().text, "loading");
        assert!(log.recv().await.unwrap().text.contains("the map is missing"));
        assert_eq!(log.recv().await, None);
        // It waits for a person, whoever is the daemon.
        bench.leave().await;
        bench.come_back().await;
        assert_eq!(bench.view(&id).definition.wanted, Wanted::Stopped);
    });
}

fn missing_program() {
    block_on(async {
        let bench = Bench::new().await;
        let definition = bench.definition_of("alpha", "no-such-program-anywhere", &[]);
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        let error = bench.hosting.start(&id).await.unwrap_err();
        assert!(error.to_string().contains("no-such-program-anywhere"), "{error}");
        assert_eq!(bench.view(&id).state, State::Offline);
        assert!(bench.view(&id).problem.is_some());
        bench.until(&id, "rest", |view| view.definition.wanted == Wanted::Stopped).await;
    });
}

fn port_in_use() {
    block_on(async {
        let bench = Bench::new().await;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let request = format!("game={port}/udp");
        let error =
            bench.hosting.add(bench.definition("alpha", A2S, &[&request])).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Conflict);
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        drop(socket);
        // Free when it is added, taken when it is started.
        let id = bench.add("alpha", A2S, &[&request]).await;
        let _socket = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let error = bench.hosting.start(&id).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Conflict);
        if cfg!(target_os = "linux") {
            let text = error.to_string();
            assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        }
        let error =
            bench.hosting.add(bench.definition("beta", A2S, &[&request])).await.unwrap_err();
        assert!(error.to_string().contains("the server alpha"), "{error}");
    });
}

fn automatic_port_in_use() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", A2S, &["game=auto/udp"]).await;
        let before = bench.view(&id).ports["game"];
        let _socket = std::net::UdpSocket::bind(("127.0.0.1", before)).unwrap();
        bench.hosting.start(&id).await.unwrap();
        let view = bench.view(&id);
        assert_ne!(view.ports["game"], before);
        assert!(view.note.unwrap().contains(&before.to_string()));
        bench.hosting.stop(&id).await.unwrap();
    });
}

fn outrun() {
    block_on(async {
        let bench = Bench::new().await;
        let game = "__test-game outrun {port.game} {data}/lock";
        let mut definition = bench.definition("alpha", game, &["game=auto/udp"]);
        definition.stop_command = Some("quit".into());
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        let before = bench.view(&id).ports["game"];
        bench.hosting.start(&id).await.unwrap();
        let view = bench.view(&id);
        assert_ne!(view.ports["game"], before);
        assert_eq!((view.restarts, view.problem), (0, None));
        let mut log = bench.follow(&id, 10).await;
        line_with(&mut log, &format!("got {}", view.ports["game"])).await;
        bench.hosting.stop(&id).await.unwrap();
    });
}

fn restart() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", A2S, &["game=auto/udp"]).await;
        bench.hosting.restart(&id).await.unwrap();
        let mut last = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid;
        for _ in 0..5 {
            bench.hosting.restart(&id).await.unwrap();
            let view =
                bench.until(&id, "a process", |view| view.pid.is_some() && view.pid != last).await;
            assert_eq!(view.restarts, 0);
            last = view.pid;
        }
        bench.hosting.kill(&id).await.unwrap();
    });
}

fn names_and_removal() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", A2S, &["game=auto/udp"]).await;
        let error = bench.hosting.add(bench.definition("alpha", A2S, &[])).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Conflict);
        bench.hosting.start(&id).await.unwrap();
        let error = bench.hosting.remove(&id, KeepData::Yes).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::WrongState);
        bench.hosting.stop(&id).await.unwrap();
        let folder = bench.folder(&id);
        std::fs::write(folder.join("data/world"), "w").unwrap();
        bench.hosting.remove(&id, KeepData::Yes).await.unwrap();
        assert!(bench.hosting.servers().borrow().is_empty());
        assert!(folder.join("data/world").exists() && !folder.join("logs").exists());
        // The next one does not get the world of that one, and goes for good.
        let id = bench.add("alpha", A2S, &["game=auto/udp"]).await;
        let other = bench.folder(&id);
        assert!(other != folder && !other.join("data/world").exists());
        bench.hosting.remove(&id, KeepData::No).await.unwrap();
        assert!(folder.join("data/world").exists() && !other.exists());
        assert_eq!(bench.hosting.start(&id).await.unwrap_err().class(), ErrorClass::NotFound);
    });
}

fn no_shell() {
    block_on(async {
        let bench = Bench::new().await;
        let name = "a 'b' \"c\"; d $E `f` |";
        let id = bench.add(name, A2S, &["game=auto/udp"]).await;
        bench.hosting.start(&id).await.unwrap();
        let mut log = bench.follow(&id, 10).await;
        line_with(&mut log, &format!("{name} listens")).await;
        within("the stop", bench.hosting.stop(&id)).await.unwrap();
        assert!(bench.view(&id).definition.stop_timeout > Duration::from_secs(1));
    });
}

fn daemon_returns() {
    block_on(async {
        let mut bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid;
        let mut next = 1;
        for _ in 0..3 {
            let mut log = bench.follow(&id, 10_000).await;
            let mut from_begin = 1;
            expect_ticks(&mut log, &mut from_begin, next + 200).await;
            next = from_begin;
            bench.leave().await;
            bench.come_back().await;
            let view = bench.until(&id, "the same process", |view| view.pid.is_some()).await;
            assert_eq!((view.pid, view.restarts), (pid, 0));
        }
        bench.hosting.kill(&id).await.unwrap();
    });
}
