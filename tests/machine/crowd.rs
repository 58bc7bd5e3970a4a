//! More peers than a home router has room for.

use std::sync::Arc;
use std::time::Duration;

use homehost_tests::{FastClock, Place, Test, eventually};

use crate::peer::{Held, Peer};

/// Those who come.
const CROWD: u8 = 60;

/// Connections of an idle host (spec/mesh §15).
const KEPT: usize = 40;

/// It is looked at every minute, and who is new is left alone for a while.
const CUT: Duration = Duration::from_secs(4 * 60);

/// How fast the clock of the host under test is; the crowd has the real one.
const SPEED: u32 = 10;

#[test]
fn an_idle_host_keeps_forty_connections_of_a_crowd() {
    let test = Test::new();
    let clock = FastClock::new(SPEED);
    let mut node = test.stopped_node("node", &[]);
    node.set_place(clock.at(Place::default()));
    node.start();
    let (address, held) = (node.address(), Arc::new(Held::new(vec![])));
    let count = || node.get("/api/v1/peers").json().as_array().map_or(0, Vec::len);
    let mut most = 0;
    let crowd: Vec<Peer> = (1..=CROWD)
        .map(|number| {
            let peer = Peer::join(&test, number, &[&address], held.clone());
            most = count().max(most);
            peer
        })
        .collect();
    assert!(most > KEPT, "{most} came at once");
    // Twice, so that who is left does not come back at once.
    for _ in 0..2 {
        eventually(clock.real(CUT) + Duration::from_secs(20), "it is cut down", || {
            let count = count();
            if count <= KEPT { Ok(()) } else { Err(format!("{count} peers")) }
        });
        std::thread::sleep(clock.real(Duration::from_secs(60)));
    }
    assert!(count() > KEPT / 2, "and not to nothing");
    drop(crowd);
}
