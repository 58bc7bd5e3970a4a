//! The shim at work: one loop that owns the game, and one small task for each
//! daemon that is connected.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use homehost_protocol::UnixMillis;
use homehost_runtime::wall_ms;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use super::adopt::{Session, record_exit};
use super::files;
use super::ladder::{Ladder, Rung};
use super::log::Log;
use super::platform::{self, EndSignals, Ended, Listener, Parts};
use super::wire::{self, FromShim, Status, ToShim};
use crate::view::ExitReport;

/// Bytes read from the console at once.
const READ_BYTES: usize = 64 * 1024;

/// Requests that wait for the loop; a daemon sends a handful in its life, and
/// one that sends more waits.
const REQUESTS_MAX: usize = 16;

/// Daemons at once: one, its successor, and room for one that hangs. Another
/// connection is closed.
const CONNECTIONS_MAX: usize = 4;

/// Lines that are copied out of the ring for one connection at once.
const BATCH_LINES: usize = 256;

/// Pause between two such batches. With it a daemon gets some 25,000 lines a
/// second at most: more than anyone reads, and little work for it. What the ring
/// has lost by then is in the files.
const BATCH_PAUSE: Duration = Duration::from_millis(10);

/// How long a shim waits for its daemon to hear of the end: it is written down
/// anyway.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long what a killed group still has in the pipe may take to arrive.
const DRAIN: Duration = Duration::from_millis(500);

/// What a pipe can hold. A process that left the group may print for ever.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// How long to wait between tries to write down the end when the disk is full.
const RECORD_RETRY: Duration = Duration::from_secs(5);

/// What the loop and the connections share, all on one thread.
struct Shared {
    log: RefCell<Log>,
    status: RefCell<Status>,
    exited: RefCell<Option<ExitReport>>,
    /// Counts changes of any of the above.
    version: watch::Sender<u64>,
    connections: Cell<usize>,
}

impl Shared {
    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// What the log has trouble with is part of the status.
    fn note_trouble(&self) {
        let trouble = self.log.borrow().trouble().map(str::to_owned);
        let mut status = self.status.borrow_mut();
        if status.trouble != trouble {
            status.trouble = trouble;
        }
    }
}

/// A request and where its answer goes.
struct Request {
    ask: ToShim,
    answer: mpsc::Sender<FromShim>,
}

/// Looks after the game until it has ended and that is written down.
pub(super) async fn serve(
    session: Session,
    mut listener: Listener,
    mut signals: EndSignals,
) -> ExitCode {
    let Session { start, state, log, parts } = session;
    let shared = Rc::new(Shared {
        log: RefCell::new(log),
        status: RefCell::new(Status {
            run: state.run,
            pid: state.pid,
            started: state.started,
            first_seq: state.first_seq,
            rung: None,
            trouble: None,
        }),
        exited: RefCell::new(None),
        version: watch::Sender::new(0),
        connections: Cell::new(0),
    });
    let (requests_in, mut requests) = mpsc::channel(REQUESTS_MAX);
    let Parts { mut process, mut output, input } = parts;
    let mut game = Game {
        ladder: Ladder::new(start.stop_command.clone(), start.stop_step()),
        state,
        input,
        shared: shared.clone(),
    };
    if let Some(rung) = game.state.rung {
        let rung = game.ladder.resume(rung, Instant::now()).clone();
        game.climb(&rung, &process);
    }
    let mut buffer = vec![0; READ_BYTES];
    let ended = loop {
        let due = game.ladder.due();
        tokio::select! {
            biased;
            ended = process.ended() => break ended,
            Some(Request { ask, answer }) = requests.recv() => game.take(ask, &answer, &process),
            () = sleep_until(due) => {
                let rung = game.ladder.next(Instant::now()).clone();
                game.climb(&rung, &process);
            }
            () = signals.received() => game.stop(&process),
            // Before the console, which can be busy without end.
            stream = listener.accept() => accept(stream, &shared, &requests_in),
            read = output.read(&mut buffer) => {
                game.feed(&buffer[..read]);
                // A game that prints without pause always has more to read:
                // connections, timers and signals get their turn here.
                tokio::task::yield_now().await;
            }
        }
    };
    // Whatever the game left behind in its group goes with it.
    process.gone().await;
    let drain = async {
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX {
            let read = output.read_rest(&mut buffer).await;
            if read == 0 {
                break;
            }
            drained += read;
            game.feed(&buffer[..read]);
        }
    };
    let _ = tokio::time::timeout(DRAIN, drain).await;
    shared.log.borrow_mut().end();
    let ended = process.reap(ended);
    let report = game.report(ended);
    game.record(&report).await;
    *shared.exited.borrow_mut() = Some(report);
    shared.changed();
    farewell(&shared).await;
    ExitCode::SUCCESS
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The game, as the loop handles it.
struct Game {
    state: files::StateFile,
    ladder: Ladder,
    input: super::platform::Input,
    shared: Rc<Shared>,
}

impl Game {
    fn feed(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.shared.log.borrow_mut().feed(bytes, UnixMillis(wall_ms()));
        self.shared.note_trouble();
        self.shared.changed();
    }

    fn take(
        &mut self,
        ask: ToShim,
        answer: &mpsc::Sender<FromShim>,
        process: &super::platform::Process,
    ) {
        match ask {
            ToShim::Stdin { line } => {
                if let Err(why) = self.input.write_line(&line) {
                    // A daemon that does not read its answers does without.
                    let _ = answer.try_send(FromShim::StdinRefused { why });
                }
            }
            ToShim::Stop => self.stop(process),
            ToShim::Kill => {
                let rung = self.ladder.kill(Instant::now()).clone();
                self.climb(&rung, process);
            }
            // Concerns the connection alone, which has seen to it.
            ToShim::Follow { .. } => {}
        }
    }

    fn stop(&mut self, process: &super::platform::Process) {
        if let Some(rung) = self.ladder.begin(Instant::now()).cloned() {
            self.climb(&rung, process);
        }
    }

    /// Tries one rung, and the next ones as long as that is refused.
    fn climb(&mut self, rung: &Rung, process: &super::platform::Process) {
        let mut rung = rung.clone();
        loop {
            self.note_rung();
            let done = match &rung {
                Rung::Command(command) => self.input.write_line(command).is_ok(),
                Rung::Interrupt => process.interrupt(),
                Rung::Terminate => process.terminate(),
                Rung::Kill => {
                    process.kill_group();
                    true
                }
            };
            if done {
                return;
            }
            rung = self.ladder.next(Instant::now()).clone();
        }
    }

    /// Remembers the rung, so that a stop goes on even if this shim dies.
    fn note_rung(&mut self) {
        let Some((at, rung)) = self.ladder.current() else { return };
        self.shared.status.borrow_mut().rung = Some(rung.name());
        self.state.rung = Some(at);
        // A full disk must not keep a game from stopping.
        let _ = files::write(&platform::own(files::STATE), &self.state);
        self.shared.changed();
    }

    fn report(&self, ended: Ended) -> ExitReport {
        let rung = self.ladder.current().map(|(_, rung)| rung.name());
        ExitReport {
            code: ended.code,
            signal: ended.signal,
            asked: rung.is_some(),
            rung,
            at: UnixMillis(wall_ms()),
            last_line: self.shared.log.borrow().last_line().map(str::to_owned),
        }
    }

    /// The end is the one thing that must not get lost: it is tried until the
    /// disk takes it.
    async fn record(&self, report: &ExitReport) {
        while let Err(error) = record_exit(self.state.run, report) {
            if error.kind() == ErrorKind::NotFound {
                // The folder was removed, and with it whoever would read this.
                return;
            }
            let problem = format!("cannot write {} ({error}): free some space", files::EXIT);
            self.shared.status.borrow_mut().trouble = Some(problem);
            // Whoever waits for the end must not wait for space on the disk.
            *self.shared.exited.borrow_mut() = Some(report.clone());
            self.shared.changed();
            tokio::time::sleep(RECORD_RETRY).await;
        }
    }
}

/// Waits until every daemon has heard of the end.
async fn farewell(shared: &Shared) {
    let mut version = shared.version.subscribe();
    let all_gone =
        async { while shared.connections.get() > 0 && version.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(FAREWELL, all_gone).await;
}

fn accept<S>(stream: std::io::Result<S>, shared: &Rc<Shared>, requests: &mpsc::Sender<Request>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Ok(stream) = stream else { return };
    if shared.connections.get() >= CONNECTIONS_MAX {
        return;
    }
    shared.connections.set(shared.connections.get() + 1);
    let (shared, requests) = (shared.clone(), requests.clone());
    spawn_local(async move {
        // However a connection ends, the game goes on.
        let _ = connection(stream, &shared, requests).await;
        shared.connections.set(shared.connections.get() - 1);
        shared.changed();
    });
}

async fn connection<S>(
    mut stream: S,
    shared: &Rc<Shared>,
    requests: mpsc::Sender<Request>,
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    wire::hello(&mut stream).await?;
    let (mut read, mut write) = tokio::io::split(stream);
    let (follow_in, follow) = watch::channel(None);
    let (answer, mut answers) = mpsc::channel(REQUESTS_MAX);
    let reader = async move {
        loop {
            match wire::receive(&mut read).await? {
                Some(ToShim::Follow { after }) => {
                    follow_in.send_replace(Some(after));
                }
                Some(ask) => {
                    let request = Request { ask, answer: answer.clone() };
                    if requests.send(request).await.is_err() {
                        return Ok(());
                    }
                }
                None => {}
            }
        }
    };
    let writer = tell(&mut write, shared, follow, &mut answers);
    tokio::select! {
        result = reader => result,
        result = writer => result,
    }
}

/// Sends the status, then every line that is wanted, then the end.
async fn tell<W: AsyncWrite + Unpin>(
    to: &mut W,
    shared: &Shared,
    mut follow: watch::Receiver<Option<u64>>,
    answers: &mut mpsc::Receiver<FromShim>,
) -> std::io::Result<()> {
    let mut version = shared.version.subscribe();
    let mut told: Option<Status> = None;
    let mut cursor: Option<u64> = None;
    loop {
        version.mark_unchanged();
        if follow.has_changed().unwrap_or(false) {
            cursor = *follow.borrow_and_update();
        }
        let status = shared.status.borrow().clone();
        if told.as_ref() != Some(&status) {
            wire::send(to, &FromShim::Status(status.clone())).await?;
            told = Some(status);
        }
        // Read before the lines: once it is set, no line follows.
        let exited = shared.exited.borrow().clone();
        // One batch at a time: the status must not wait for a busy console.
        let lines = cursor.map(|after| shared.log.borrow().ring().after(after, BATCH_LINES));
        let lines = lines.unwrap_or_default();
        let more = lines.len() == BATCH_LINES;
        for line in lines {
            cursor = Some(line.seq);
            wire::send(to, &FromShim::Line(line)).await?;
        }
        if let Some(report) = exited.filter(|_| !more) {
            return wire::send(to, &FromShim::Exited(report)).await;
        }
        tokio::select! {
            biased;
            Some(answer) = answers.recv() => wire::send(to, &answer).await?,
            () = tokio::time::sleep(BATCH_PAUSE), if more => {}
            _ = follow.changed() => follow.mark_changed(),
            changed = version.changed(), if !more => if changed.is_err() { return Ok(()) },
        }
    }
}
