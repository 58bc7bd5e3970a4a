//! A cable with a delay, losses and a narrow way out.
//!
//! Both ends are TAP devices, and this process carries the frames between them:
//! not every kernel has `tc netem`, and what is lost here is lost by a seed.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl, opcode};

use crate::lab::End;

/// Frames that wait at a narrow place, as in a cheap router: at 5 Mbit/s an
/// eighth of a second of full frames. What comes then is lost.
const QUEUE_MAX: usize = 50;

/// Frames that are on their way while they are delayed.
const FLYING_MAX: usize = 4096;

/// How often a thread looks whether it is still wanted.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What is wrong with a cable.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quality {
    /// Of each direction: half of what a ping takes.
    pub(crate) delay: Duration,
    /// Of a hundred frames, in each direction.
    pub(crate) lost_of_100: u8,
    /// Bits a second that the customer can send; `None` is as fast as it goes.
    pub(crate) uplink: Option<u32>,
}

/// A running one.
#[derive(Debug)]
pub(crate) struct Wire {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    #[track_caller]
    pub(crate) fn new(customer: End<'_>, network: End<'_>, quality: Quality) -> Self {
        let (a, b) = (tap(customer), tap(network));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let clone = |file: &File| file.try_clone().expect("a file has two handles");
        let down = Quality { uplink: None, ..quality };
        for (seed, from, to, quality) in [(1, clone(&a), clone(&b), quality), (2, b, a, down)] {
            let (sender, receiver) = mpsc::sync_channel(FLYING_MAX);
            let stop = stop.clone();
            let take = move || take(from, &sender, quality, &stop, fastrand::Rng::with_seed(seed));
            threads.push(thread::spawn(take));
            threads.push(thread::spawn(move || give(to, &receiver)));
        }
        Self { stop, threads }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked carries nothing either.
            let _ = thread.join();
        }
    }
}

type Frame = (Instant, Vec<u8>);

/// Reads frames and says when each arrives; ends when it is told to, or when
/// the interface is gone.
fn take(
    mut from: File,
    to: &SyncSender<Frame>,
    quality: Quality,
    stop: &AtomicBool,
    mut random: fastrand::Rng,
) {
    let mut buffer = vec![0; 65_536];
    let mut sent = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
        match poll(&mut ready, Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        let length = match from.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        if random.u8(0..100) < quality.lost_of_100 {
            continue;
        }
        let now = Instant::now();
        if let Some(bits) = quality.uplink {
            let one = Duration::from_secs_f64(8.0 * length as f64 / f64::from(bits));
            let full = Duration::from_secs_f64(8.0 * 1514.0 / f64::from(bits));
            let waiting = sent.saturating_duration_since(now);
            if waiting > full * QUEUE_MAX as u32 {
                continue;
            }
            sent = sent.max(now) + one;
        } else {
            sent = now;
        }
        let frame = (sent + quality.delay, buffer[..length].to_vec());
        match to.try_send(frame) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}

/// Writes each frame when its time has come.
fn give(mut to: File, from: &Receiver<Frame>) {
    for (when, frame) in from {
        thread::sleep(when.saturating_duration_since(Instant::now()));
        // An interface that is down takes nothing.
        let _ = to.write(&frame);
    }
}

/// `struct ifreq` as far as it matters here.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Ethernet, without a header of the driver's own (`linux/if_tun.h`).
const TAP_WITHOUT_HEADER: u16 = 0x0002 | 0x1000;

/// `_IOW('T', 202, int)`, which takes a `struct ifreq` all the same.
const SET_INTERFACE: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);

/// Makes an interface whose cable is this file.
#[track_caller]
fn tap(end: End<'_>) -> File {
    let mut request = Request { name: [0; 16], flags: TAP_WITHOUT_HEADER, rest: [0; 22] };
    request.name[..end.name.len()].copy_from_slice(end.name.as_bytes());
    end.at.enter(|| {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags);
        let file = options.open("/dev/net/tun").expect("root may make interfaces");
        #[expect(unsafe_code, reason = "nothing else makes a TAP device; the request is an ifreq")]
        let made = unsafe { ioctl(&file, Setter::<SET_INTERFACE, Request>::new(request)) };
        made.unwrap_or_else(|error| panic!("{end:?}: {error}"));
        file
    })
}
