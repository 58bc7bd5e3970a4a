//! What a game survives, and what it does not: daemons that leave, shims that
//! are killed, signals that are ignored.

use std::path::Path;
use std::time::Duration;

use homehost_hosting::{QueryKind, RunAs, State};
use rustix::process::Signal;

use crate::Test;
use crate::bench::{Bench, block_on, expect_ticks, line_with, within};

pub(crate) const TESTS: &[Test] = &[
    ("a_game_survives_its_shim", game_survives_its_shim),
    ("a_stop_survives_its_shim", stop_survives_its_shim),
    ("a_game_that_prints_without_pause_is_still_heard_and_stopped", flood),
    ("a_shim_that_hangs_does_not_save_its_game", hanging_shim),
    ("an_end_without_a_daemon_is_noticed_once", end_without_daemon),
    ("a_game_stopped_by_the_system_comes_back", stopped_by_the_system),
    ("a_shim_ignores_a_hangup", hangup),
    ("a_shim_whose_folder_is_gone_ends_with_its_game", folder_gone),
    ("a_game_that_ignores_every_request_is_killed", stubborn_game),
    ("an_interrupt_ends_a_game_that_does_not_handle_it", interrupt),
    ("a_daemon_that_ignores_interrupts_has_games_that_do_not", interrupt_ignored),
    ("the_whole_group_ends_with_its_leader", group_ends),
    ("a_game_that_leaves_its_group_is_stopped_and_killed", wanderer),
    ("a_shim_that_runs_already_is_found_instead_of_a_crash", shim_runs_already),
    ("a_shim_that_is_starting_is_waited_for", shim_is_starting),
    ("a_shim_that_dies_before_it_noted_its_game_leaves_none", shim_dies_early),
    ("a_stop_that_nobody_carried_out_is_carried_out", stop_is_not_lost),
    ("a_game_whose_console_was_removed_is_adopted", console_removed),
    ("a_game_inherits_no_open_file", no_open_file),
    ("servers_stopped_with_the_node_start_with_it", stopped_with_the_node),
    ("the_games_of_root_are_not_root", games_of_root),
    ("a_deep_folder_is_no_hindrance", deep_folder),
    ("a_real_luanti_server_is_supervised", luanti),
];

/// Kills what a failed test left behind.
pub(crate) fn kill_group(pid: i64) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn until_gone(pid: u32) {
    within("the end of a process", async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// The shim of the server with this folder.
fn shim_of(folder: &Path) -> u32 {
    let dir = folder.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find(|process| {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<&str> = line.split('\0').collect();
            words.get(1) == Some(&"__shim") && words.contains(&dir)
        })
        .and_then(|process| process.file_name().to_str()?.parse().ok())
        .expect("a shim runs")
}

fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

fn send(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn game_survives_its_shim() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid.unwrap();
        let mut log = bench.follow(&id, 10_000).await;
        let mut next = 1;
        for _ in 0..3 {
            expect_ticks(&mut log, &mut next, 200).await;
            let shim = shim_of(&bench.folder(&id));
            kill(shim);
            until_gone(shim).await;
            expect_ticks(&mut log, &mut next, 300).await;
            assert!(is_alive(pid));
            assert_ne!(shim_of(&bench.folder(&id)), shim);
        }
        let view = bench.view(&id);
        assert_eq!((view.pid, view.restarts), (Some(pid), 0));
        // The new shim can stop it.
        bench.hosting.stop(&id).await.unwrap();
        until_gone(pid).await;
        let exit = bench.view(&id).last_exit.unwrap();
        assert_eq!((exit.asked, exit.code, exit.signal), (true, None, None));
        assert_eq!(bench.view(&id).state, State::Offline);
    });
}

fn stop_survives_its_shim() {
    block_on(async {
        let mut bench = Bench::new().await;
        let mut definition = bench.definition("alpha", "__test-game stubborn", &[]);
        definition.stop_timeout = Duration::from_millis(500);
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        bench.hosting.start(&id).await.unwrap();
        let mut log = bench.follow(&id, 10).await;
        line_with(&mut log, "deaf").await;
        let stop = bench.hosting.clone();
        tokio::spawn(async move { stop.stop(&id).await });
        bench.until(&id, "a rung", |view| view.stopping_by.is_some()).await;
        let pid = bench.view(&id).pid.unwrap();
        // Neither daemon nor shim see the stop through.
        bench.leave().await;
        kill(shim_of(&bench.folder(&id)));
        bench.come_back().await;
        bench
            .until(&id, "offline", |view| view.state == State::Offline && view.last_exit.is_some())
            .await;
        until_gone(pid).await;
        assert_eq!(bench.view(&id).restarts, 0);
    });
}

fn flood() {
    block_on(async {
        let bench = Bench::new().await;
        let definition = bench.definition_of("alpha", "yes", &[]);
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        for by_kill in [false, true] {
            bench.hosting.start(&id).await.unwrap();
            let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid.unwrap();
            let mut log = bench.follow(&id, 10).await;
            for _ in 0..1_000 {
                within("a line", log.recv()).await.unwrap();
            }
            // What nobody could read is not kept for anyone, and that shows.
            line_with(&mut log, "lines are left out").await;
            let begin = std::time::Instant::now();
            if by_kill {
                bench.hosting.kill(&id).await.unwrap();
            } else {
                bench.hosting.stop(&id).await.unwrap();
            }
            assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
            until_gone(pid).await;
            let exit = bench.view(&id).last_exit.unwrap();
            assert_eq!(exit.signal, Some(if by_kill { 9 } else { 2 }));
        }
    });
}

fn hanging_shim() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid.unwrap();
        let shim = shim_of(&bench.folder(&id));
        send(shim, Signal::STOP);
        let hosting = bench.hosting.clone();
        let killed = tokio::spawn(async move { hosting.kill(&id).await });
        until_gone(pid).await;
        send(shim, Signal::CONT);
        within("the answer", killed).await.unwrap().unwrap();
        assert!(bench.view(&id).last_exit.unwrap().asked);
    });
}

fn end_without_daemon() {
    block_on(async {
        let mut bench = Bench::new().await;
        let id = bench.add("alpha", "__a2s-game --port {port.game}", &["game=auto/udp"]).await;
        bench.hosting.start(&id).await.unwrap();
        let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid.unwrap();
        let (folder, mut log) = (bench.folder(&id), bench.follow(&id, 9).await);
        line_with(&mut log, "listens").await;
        bench.leave().await;
        let shim = shim_of(&folder);
        kill(pid);
        until_gone(shim).await;
        bench.come_back().await;
        // It was wanted, so it is a crash, and it comes back.
        let view =
            bench.until(&id, "the restart", |view| view.restarts == 1 && view.pid.is_some()).await;
        assert_ne!(view.pid, Some(pid));
        let mut log = bench.hosting.logs(&id, 99, true).await.unwrap();
        let [first, second] =
            [line_with(&mut log, "listens").await.seq, line_with(&mut log, "listens").await.seq];
        assert!(first < second, "one run after the other");
        bench.hosting.stop(&id).await.unwrap();
        assert!(!folder.join("run/state.json").exists(), "the end was taken note of");
        // Once stopped by a person, it stays so.
        bench.leave().await;
        bench.come_back().await;
        let view = bench.until(&id, "its last end", |view| view.last_exit.is_some()).await;
        assert_eq!((view.state, view.restarts), (State::Offline, 0));
    });
}

fn stopped_by_the_system() {
    block_on(async {
        let mut bench = Bench::new().await;
        let id = bench.add("alpha", "__a2s-game --port {port.game}", &["game=auto/udp"]).await;
        bench.hosting.start(&id).await.unwrap();
        let (folder, mut log) = (bench.folder(&id), bench.follow(&id, 9).await);
        line_with(&mut log, "listens").await;
        bench.leave().await;
        // As when the machine shuts down.
        let shim = shim_of(&folder);
        send(shim, Signal::TERM);
        until_gone(shim).await;
        bench.come_back().await;
        let view = bench.until(&id, "the start", |view| view.pid.is_some()).await;
        assert_eq!((view.restarts, view.problem), (0, None), "that was no crash");
        let mut log = bench.follow(&id, 9).await;
        line_with(&mut log, "SIGINT received").await;
        bench.hosting.stop(&id).await.unwrap();
    });
}

fn hangup() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let mut log = bench.follow(&id, 10_000).await;
        let mut next = 1;
        expect_ticks(&mut log, &mut next, 100).await;
        let shim = shim_of(&bench.folder(&id));
        send(shim, Signal::HUP);
        expect_ticks(&mut log, &mut next, 100).await;
        assert_eq!(shim_of(&bench.folder(&id)), shim);
        bench.hosting.kill(&id).await.unwrap();
    });
}

fn folder_gone() {
    block_on(async {
        let mut bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let (folder, view) = (bench.folder(&id), bench.view(&id));
        let shim = shim_of(&folder);
        bench.leave().await;
        std::fs::remove_dir_all(folder).unwrap();
        kill(view.pid.unwrap());
        until_gone(shim).await;
    });
}

fn stubborn_game() {
    block_on(async {
        let bench = Bench::new().await;
        for by_kill in [true, false] {
            let name = if by_kill { "alpha" } else { "beta" };
            let mut definition = bench.definition(name, "__test-game stubborn", &[]);
            if !by_kill {
                definition.stop_timeout = Duration::from_millis(100);
            }
            definition.stop_command = Some("please".into());
            let id = definition.id;
            bench.hosting.add(definition).await.unwrap();
            bench.hosting.start(&id).await.unwrap();
            let mut log = bench.follow(&id, 10).await;
            line_with(&mut log, "deaf").await;
            let pid = bench.view(&id).pid.unwrap();
            if by_kill {
                bench.hosting.kill(&id).await.unwrap();
            } else {
                bench.hosting.stop(&id).await.unwrap();
            }
            until_gone(pid).await;
            let exit = bench.view(&id).last_exit.unwrap();
            assert_eq!((exit.asked, exit.signal), (true, Some(9)));
            assert_eq!(exit.rung.as_deref(), Some("kill"));
        }
    });
}

fn interrupt() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        bench.hosting.stop(&id).await.unwrap();
        let exit = bench.view(&id).last_exit.unwrap();
        assert_eq!((exit.signal, exit.rung.as_deref()), (Some(2), Some("SIGINT")));
    });
}

/// Shells start background programs of a script that way.
fn interrupt_ignored() {
    let exe = std::env::current_exe().unwrap();
    let script =
        "trap '' INT; exec \"$0\" --exact an_interrupt_ends_a_game_that_does_not_handle_it";
    let status = std::process::Command::new("/bin/sh").arg("-c").arg(script).arg(exe).status();
    assert!(status.unwrap().success());
}

fn group_ends() {
    block_on(async {
        let bench = Bench::new().await;
        let mut definition = bench.definition("alpha", "__test-game family", &[]);
        definition.stop_command = Some("quit".into());
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        bench.hosting.start(&id).await.unwrap();
        let mut log = bench.follow(&id, 10).await;
        let deaf = line_with(&mut log, "deaf ").await.text;
        let child: u32 = deaf.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(is_alive(child));
        bench.hosting.stop(&id).await.unwrap();
        let exit = bench.view(&id).last_exit.unwrap();
        assert_eq!((exit.code, exit.asked), (Some(0), true));
        until_gone(child).await;
    });
}

fn wanderer() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game wanders", &[]).await;
        for by_kill in [true, false] {
            bench.hosting.start(&id).await.unwrap();
            let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid.unwrap();
            let mut log = bench.follow(&id, 2).await;
            let deaf = line_with(&mut log, "deaf ").await.text;
            let child: u32 = deaf.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(is_alive(child));
            if by_kill {
                within("the kill", bench.hosting.kill(&id)).await.unwrap();
            } else {
                within("the stop", bench.hosting.stop(&id)).await.unwrap();
            }
            assert!(!is_alive(pid) && !is_alive(child), "all are gone before the end is told");
        }
    });
}

/// A shim as a daemon makes it.
fn shim_for(folder: &Path) -> std::process::Child {
    // The run that is repeated here has ended once.
    std::fs::remove_file(folder.join("run/exit.json")).unwrap();
    let mut shim = std::process::Command::new(std::env::current_exe().unwrap());
    shim.arg("__shim").arg("--dir").arg(folder);
    shim.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
}

fn shim_runs_already() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        bench.hosting.kill(&id).await.unwrap();
        let folder = bench.folder(&id);
        let mut shim = shim_for(&folder);
        within("a game", async {
            while !folder.join("run/state.json").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        bench.hosting.start(&id).await.unwrap();
        let view = bench.until(&id, "the game", |view| view.pid.is_some()).await;
        assert_eq!((view.restarts, shim_of(&folder)), (0, shim.id()));
        bench.hosting.kill(&id).await.unwrap();
        shim.wait().unwrap();
    });
}

fn shim_is_starting() {
    block_on(async {
        let mut bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let folder = bench.folder(&id);
        bench.hosting.stop_all().await;
        bench.leave().await;
        // A shim that its daemon did not live to hear of; it is slow.
        let lock = std::fs::File::options().write(true).open(folder.join("run/lock")).unwrap();
        lock.lock().unwrap();
        bench.come_back().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!folder.join("run/state.json").exists());
        assert_eq!(bench.view(&id).state, State::Offline);
        let mut shim = shim_for(&folder);
        drop(lock);
        let view = bench.until(&id, "the game", |view| view.pid.is_some()).await;
        assert_eq!((view.restarts, view.problem), (0, None));
        bench.hosting.kill(&id).await.unwrap();
        shim.wait().unwrap();
    });
}

fn shim_dies_early() {
    block_on(async {
        let bench = Bench::new().await;
        let definition =
            bench.definition_of("alpha", "/bin/sh -c 'touch ran; exec sleep 1000'", &[]);
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        let folder = bench.folder(&id);
        // To write there is to wait for someone who reads.
        let slow = folder.join("run/state.new");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &slow, kind, mode, 0).unwrap();
        let hosting = bench.hosting.clone();
        let start = tokio::spawn(async move { hosting.start(&id).await });
        within("a console", async {
            while !folder.join("run/stdin").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::remove_file(&slow).unwrap();
        kill(shim_of(&folder));
        assert!(within("the answer", start).await.unwrap().is_err());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!folder.join("data/ran").exists(), "a game ran that nobody knew of");
    });
}

fn stop_is_not_lost() {
    block_on(async {
        let mut bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid.unwrap();
        bench.leave().await;
        // Stored, and then the daemon died before it could ask for it.
        bench.store_wanted(&id, homehost_hosting::Wanted::Stopped).await;
        bench.come_back().await;
        until_gone(pid).await;
        let view = bench.until(&id, "its end", |view| view.last_exit.is_some()).await;
        assert!(view.last_exit.unwrap().asked);
    });
}

fn console_removed() {
    block_on(async {
        let bench = Bench::new().await;
        let id = bench.add("alpha", "__test-game counts", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid;
        let (folder, mut log) = (bench.folder(&id), bench.follow(&id, 10_000).await);
        let mut next = 1;
        expect_ticks(&mut log, &mut next, 100).await;
        for name in ["console", "stdin"] {
            std::fs::remove_file(folder.join("run").join(name)).unwrap();
        }
        kill(shim_of(&folder));
        expect_ticks(&mut log, &mut next, 300).await;
        assert_eq!((bench.view(&id).pid, bench.view(&id).restarts), (pid, 0));
        bench.hosting.kill(&id).await.unwrap();
    });
}

fn no_open_file() {
    block_on(async {
        let bench = Bench::new().await;
        let secret = std::fs::File::open("/proc/self/status").unwrap();
        // A copy that a new program would inherit.
        let copy = rustix::io::dup(&secret).unwrap();
        let id = bench.add("alpha", "__test-game family", &[]).await;
        bench.hosting.start(&id).await.unwrap();
        let mut log = bench.follow(&id, 10).await;
        line_with(&mut log, "child").await;
        let pid = bench.until(&id, "a process", |view| view.pid.is_some()).await.pid.unwrap();
        let mut open = Vec::new();
        for file in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            open.push(std::fs::read_link(file.path()).unwrap_or_default());
        }
        let run = bench.folder(&id).join("run");
        let ours = |path: &std::path::PathBuf| path.starts_with(&run);
        assert!(open.len() == 3 && open.iter().all(ours), "{open:?}");
        drop(copy);
        bench.hosting.kill(&id).await.unwrap();
    });
}

fn stopped_with_the_node() {
    block_on(async {
        let mut bench = Bench::new().await;
        let game = "__a2s-game --port {port.game}";
        let up = bench.add("alpha", game, &["game=auto/udp"]).await;
        let down = bench.add("beta", game, &["game=auto/udp"]).await;
        bench.hosting.start(&up).await.unwrap();
        bench.hosting.start(&down).await.unwrap();
        bench.hosting.stop(&down).await.unwrap();
        bench.hosting.stop_all().await;
        assert_eq!(bench.view(&up).state, State::Offline);
        bench.leave().await;
        bench.come_back().await;
        bench.until(&up, "the start", |view| view.pid.is_some()).await;
        assert_eq!(bench.view(&down).state, State::Offline);
        bench.hosting.stop_all().await;
    });
}

fn games_of_root() {
    if !rustix::process::geteuid().is_root() {
        println!("  skipped: only root can give games to someone else");
        return;
    }
    block_on(async {
        let bench = Bench::as_user(RunAs::Auto).await;
        let script = "'id -u; id -G; echo $HOME; pwd; umask; touch x && echo wrote; \
                      ls ../run 2>&1; env; grep NoNewPrivs /proc/self/status; echo over; echo out > /dev/stdout; exec sleep 1000'";
        let definition = bench.definition_of("alpha", &format!("/bin/sh -c {script}"), &[]);
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        bench.hosting.start(&id).await.unwrap();
        let mut log = bench.follow(&id, 100).await;
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "out") {
            lines.push(within("the script", log.recv()).await.unwrap().text);
        }
        assert!(lines[0] != "0" && !lines[1].split(' ').any(|group| group == "0"), "{lines:?}");
        let data = bench.folder(&id).join("data");
        assert_eq!([&lines[2], &lines[3]], [data.to_str().unwrap(); 2]);
        assert_eq!(lines[4], "0027");
        assert!(lines.iter().any(|line| line == "wrote"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("Permission denied")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("CARGO")), "{lines:?}");
        assert!(lines.iter().any(|line| line == "NoNewPrivs:\t1"), "{lines:?}");
        bench.hosting.stop(&id).await.unwrap();
    });
}

fn deep_folder() {
    block_on(async {
        let bench = Bench::new().await;
        // With the folder of the test, far beyond the 107 bytes of a socket's path.
        let name = "a-name-of-forty-eight-bytes-that-makes-it-long";
        let mut definition = bench.definition("x", "__test-game counts", &[]);
        definition.name = name.into();
        definition.folder = None;
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        bench.hosting.start(&id).await.unwrap();
        bench.until(&id, "a process", |view| view.pid.is_some()).await;
        bench.hosting.kill(&id).await.unwrap();
    });
}

fn luanti() {
    let program = "/usr/lib/minetest/minetestserver";
    if !Path::new(program).exists() {
        println!("  skipped: {program} is not installed");
        return;
    }
    block_on(async {
        let bench = Bench::as_user(RunAs::Auto).await;
        let line = format!(
            "{program} --world {{data}}/world --gameid minetest --port {{port.game}} --logfile {{data}}/log"
        );
        let mut definition = bench.definition_of("alpha", &line, &["game=auto/udp"]);
        definition.query.kind = QueryKind::Luanti;
        definition.slots = Some(15);
        let id = definition.id;
        bench.hosting.add(definition).await.unwrap();
        bench.hosting.start(&id).await.unwrap();
        let view = bench.until(&id, "ready", |view| view.ready).await;
        assert_eq!((view.players, view.slots), (Some(0), Some(15)));
        bench.hosting.stop(&id).await.unwrap();
        let exit = bench.view(&id).last_exit.unwrap();
        assert_eq!((exit.code, exit.rung.as_deref()), (Some(0), Some("SIGINT")));
    });
}
