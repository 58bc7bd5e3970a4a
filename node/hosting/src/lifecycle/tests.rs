//! Facts about the core, and thousands of random lives held against what must
//! never happen.

use std::collections::BTreeMap;

use homehost_protocol::UnixMillis;

use super::*;

fn exit(code: i32) -> ExitReport {
    ExitReport {
        code: Some(code),
        signal: None,
        asked: false,
        rung: None,
        at: UnixMillis(0),
        last_line: Some("the last line".into()),
    }
}

/// A core with a clock that only the test moves.
struct Bench {
    core: Lifecycle,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { core: Lifecycle::default(), now: Instant::now() }
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.core.handle(input, self.now).unwrap()
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
    }

    fn run(&mut self) {
        self.tell(Input::Start(Origin::Person));
        self.tell(Input::Spawned);
        self.tell(Input::Ready);
        assert_eq!(self.core.phase(), Phase::Running);
    }

    fn restart_after_crash(&mut self) {
        self.tell(Input::Timer(Timer::Restart));
        self.tell(Input::Spawned);
        self.tell(Input::Ready);
    }
}

#[test]
fn repeats_do_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.tell(Input::Stop), [Output::Stopped]);
    bench.run();
    assert_eq!(bench.tell(Input::Start(Origin::Person)), [Output::Started(Ok(()))]);
    assert_eq!(bench.tell(Input::Ready), []);
    assert!(bench.tell(Input::Stop).contains(&Output::Stop));
    assert_eq!(bench.tell(Input::Stop), []);
    assert_eq!(bench.tell(Input::Kill), [Output::Kill]);
}

#[test]
fn what_cannot_have_happened_is_refused() {
    let mut bench = Bench::new();
    for input in [Input::Spawned, Input::SpawnFailed("x".into()), Input::Exited(exit(0))] {
        assert!(bench.core.handle(input, bench.now).is_err());
    }
    bench.run();
    bench.tell(Input::Stop);
    let refused = bench.core.handle(Input::Start(Origin::Person), bench.now);
    assert_eq!(refused, Err(Refused::Stopping));
}

#[test]
fn delays_grow_and_the_budget_ends_it() {
    let mut bench = Bench::new();
    bench.run();
    for delay in &RESTART_DELAYS[..CRASHES_MAX - 1] {
        let until = bench.now + *delay;
        assert!(bench.tell(Input::Exited(exit(1))).contains(&Output::Set(Timer::Restart, until)));
        bench.pass(*delay);
        bench.restart_after_crash();
    }
    bench.tell(Input::Exited(exit(1)));
    assert_eq!(bench.core.phase(), Phase::Crashed);
    let problem = bench.core.problem().unwrap();
    assert!(problem.contains("exit code 1") && problem.contains("the last line"), "{problem}");
    assert_eq!(bench.core.restarts(), 4);
}

#[test]
fn a_healthy_while_or_a_person_forgets_the_crashes() {
    for person in [false, true] {
        let mut bench = Bench::new();
        bench.run();
        for _ in 0..3 {
            bench.tell(Input::Exited(exit(1)));
            bench.restart_after_crash();
        }
        if person {
            bench.tell(Input::Stop);
            bench.tell(Input::Exited(exit(0)));
            bench.run();
        } else {
            bench.tell(Input::Timer(Timer::Healthy));
        }
        let until = bench.now + RESTART_DELAYS[0];
        assert!(bench.tell(Input::Exited(exit(1))).contains(&Output::Set(Timer::Restart, until)));
    }
}

#[test]
fn an_unasked_end_is_a_crash_even_with_code_0() {
    let mut bench = Bench::new();
    bench.run();
    bench.tell(Input::Exited(exit(0)));
    assert!(matches!(bench.core.phase(), Phase::Backoff { .. }));
}

#[test]
fn an_asked_end_is_none() {
    let mut bench = Bench::new();
    bench.run();
    bench.tell(Input::Stop);
    assert!(bench.tell(Input::Exited(exit(137))).contains(&Output::Stopped));
    assert_eq!((bench.core.phase(), bench.core.problem()), (Phase::Offline, None));
    // Asked for by an earlier daemon.
    bench.run();
    bench.tell(Input::Exited(ExitReport { asked: true, ..exit(0) }));
    assert_eq!(bench.core.phase(), Phase::Offline);
}

#[test]
fn a_game_that_dies_at_once_is_explained_and_left_alone() {
    let mut bench = Bench::new();
    bench.tell(Input::Start(Origin::Person));
    bench.tell(Input::Spawned);
    bench.pass(Duration::from_millis(100));
    let out = bench.tell(Input::Exited(exit(3)));
    let error = out.iter().find_map(|output| match output {
        Output::Started(Err(error)) => Some(error.clone()),
        _ => None,
    });
    let error = error.expect("the start call hears of it");
    assert!(error.contains("exit code 3") && error.contains("the last line"), "{error}");
    assert_eq!(bench.core.phase(), Phase::Crashed);
    // Without a person, the same is a crash like others.
    let mut bench = Bench::new();
    bench.tell(Input::Start(Origin::Daemon));
    bench.tell(Input::Spawned);
    bench.tell(Input::Exited(exit(3)));
    assert!(matches!(bench.core.phase(), Phase::Backoff { .. }));
}

#[test]
fn a_stop_waits_for_the_process_to_exist() {
    let mut bench = Bench::new();
    bench.tell(Input::Start(Origin::Person));
    assert!(!bench.tell(Input::Stop).contains(&Output::Stop));
    bench.tell(Input::Kill);
    assert_eq!(bench.tell(Input::Spawned), [Output::Kill]);
}

#[test]
fn a_second_try_is_part_of_the_same_start() {
    let mut bench = Bench::new();
    bench.tell(Input::Start(Origin::Person));
    bench.tell(Input::Spawned);
    assert!(bench.tell(Input::TryAgain).contains(&Output::Spawn));
    assert_eq!(bench.core.phase(), Phase::Starting);
    bench.tell(Input::Spawned);
    bench.tell(Input::Ready);
    assert!(bench.core.handle(Input::TryAgain, bench.now).is_err());
    assert_eq!(bench.core.restarts(), 0);
}

#[test]
fn restart_stops_and_starts() {
    let mut bench = Bench::new();
    bench.run();
    assert!(bench.tell(Input::Restart).contains(&Output::Stop));
    assert!(bench.tell(Input::Exited(exit(0))).contains(&Output::Spawn));
    assert_eq!(bench.core.phase(), Phase::Starting);
}

/// The world around a core: one process at most, timers, and a person.
struct World {
    bench: Bench,
    timers: BTreeMap<Timer, Instant>,
    spawning: bool,
    alive: bool,
    /// A person asked for it to end and for nothing since.
    ended: bool,
    /// A kill that must show as an output or be pending.
    automatic: VecDeque<Instant>,
}

impl World {
    fn apply(&mut self, input: Input) {
        match &input {
            Input::Start(_) | Input::Restart => self.automatic.clear(),
            Input::Stop | Input::Kill => self.ended = true,
            _ => {}
        }
        let by_timer = matches!(input, Input::Timer(Timer::Restart));
        let may_start = matches!(input, Input::Start(_) | Input::Restart);
        let kill = matches!(input, Input::Kill);
        let Ok(out) = self.bench.core.handle(input, self.bench.now) else { return };
        if may_start {
            self.ended = false;
        }
        if kill && self.alive {
            assert!(out.contains(&Output::Kill), "a kill is never queued");
        }
        for output in out {
            match output {
                Output::Spawn => {
                    assert!(!self.spawning && !self.alive, "two processes");
                    assert!(!self.ended, "a spawn after a stop");
                    if by_timer {
                        self.count_automatic();
                    }
                    self.spawning = true;
                }
                Output::Stop | Output::Kill => assert!(self.alive, "nothing to end"),
                Output::Set(timer, at) => {
                    self.timers.insert(timer, at);
                }
                Output::Clear(timer) => {
                    self.timers.remove(&timer);
                }
                Output::Started(_) | Output::Stopped => {}
            }
        }
        self.check();
    }

    /// Restarts on its own account stay within the budget, unless a person or
    /// ten healthy minutes came between.
    fn count_automatic(&mut self) {
        let now = self.bench.now;
        self.automatic.retain(|at| now.duration_since(*at) < CRASH_WINDOW);
        self.automatic.push_back(now);
        assert!(self.automatic.len() < CRASHES_MAX, "the budget was exceeded");
    }

    fn check(&self) {
        let core = &self.bench.core;
        assert_eq!(core.has_process(), self.spawning || self.alive);
        match core.phase() {
            Phase::Running => assert!(self.alive),
            Phase::Starting | Phase::Stopping => assert!(self.spawning || self.alive),
            Phase::Backoff { .. } => {
                assert!(!self.alive && self.timers.contains_key(&Timer::Restart));
            }
            Phase::Offline | Phase::Crashed => assert!(!self.alive && !self.spawning),
        }
        if core.phase() == Phase::Crashed {
            assert!(core.problem().is_some());
        }
    }

    fn step(&mut self, rng: &mut fastrand::Rng) {
        match rng.u8(..100) {
            0..8 => self.apply(Input::Start(Origin::Person)),
            8..12 => self.apply(Input::Start(Origin::Daemon)),
            12..16 => self.apply(Input::Stop),
            16..18 => self.apply(Input::Kill),
            18..21 => self.apply(Input::Restart),
            // A late answer can come at any time.
            21..35 => self.apply(Input::Ready),
            35..75 if self.spawning => {
                self.spawning = false;
                if rng.u8(..10) == 0 {
                    self.apply(Input::SpawnFailed("no such file".into()));
                } else {
                    self.alive = true;
                    self.apply(Input::Spawned);
                }
            }
            35..60 if self.alive => {
                self.alive = false;
                if rng.u8(..10) == 0 && self.bench.core.phase() == Phase::Starting {
                    self.apply(Input::TryAgain);
                } else {
                    self.apply(Input::Exited(exit(rng.i32(0..3))));
                }
            }
            60..62 => {
                let stale = [Timer::Restart, Timer::Healthy, Timer::Settle][rng.usize(..3)];
                if stale != Timer::Restart && stale != Timer::Healthy {
                    self.apply(Input::Timer(stale));
                }
            }
            _ => self.next_timer(rng),
        }
    }

    fn next_timer(&mut self, rng: &mut fastrand::Rng) {
        let next = self.timers.iter().map(|(timer, at)| (*at, *timer)).min();
        match next {
            Some((at, timer)) => {
                self.bench.now = self.bench.now.max(at);
                self.timers.remove(&timer);
                if timer == Timer::Healthy {
                    self.automatic.clear();
                }
                self.apply(Input::Timer(timer));
            }
            None => self.bench.now += Duration::from_millis(rng.u64(..5_000)),
        }
    }
}

#[test]
fn random_lives_keep_every_promise() {
    for seed in 0..4_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World {
            bench: Bench::new(),
            timers: BTreeMap::new(),
            spawning: false,
            alive: false,
            ended: true,
            automatic: VecDeque::new(),
        };
        for _ in 0..200 {
            world.step(&mut rng);
        }
    }
}
