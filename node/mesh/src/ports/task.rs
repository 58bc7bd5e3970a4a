//! The task that keeps ports forwarded, and gives them back.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homehost_runtime::Shutdown;
use tokio::sync::watch;

use super::router::{Nonces, Router, way_out};
use super::{Job, Plan, PortWish};
use crate::{MappingFacts, RouterFacts};

/// How often a router is looked for that was not there.
const SEARCH_AGAIN: Duration = Duration::from_secs(600);
/// How often the router is asked for its address outside.
const REFRESH: Duration = Duration::from_secs(300);
/// What a stopping node takes for giving ports back.
const LAST: Duration = Duration::from_secs(2);

/// What the mesh wants, and where it listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MeshPorts {
    /// Its own ports.
    pub(crate) wishes: Vec<PortWish>,
    /// Addresses of interfaces that it listens on. Others are not asked about.
    pub(crate) interfaces: BTreeSet<Ipv4Addr>,
    /// How often the machine slept: mappings may be gone after it.
    pub(crate) slept: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortFacts {
    /// The router, once it was looked for.
    pub(crate) router: Option<RouterFacts>,
    /// The ports.
    pub(crate) mappings: Vec<MappingFacts>,
}

/// What the task is made of.
pub(crate) struct Ports {
    pub(crate) mesh: watch::Receiver<MeshPorts>,
    pub(crate) games: watch::Receiver<Vec<PortWish>>,
    pub(crate) facts: watch::Sender<PortFacts>,
    pub(crate) nonces: Nonces,
    pub(crate) shutdown: Shutdown,
}

struct Keeper {
    nonces: Nonces,
    plan: Plan,
    router: Option<Router>,
    problem: Option<String>,
    search_at: Instant,
    refresh_at: Instant,
}

impl Ports {
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        let now = Instant::now();
        let mut keeper = Keeper {
            nonces: self.nonces,
            plan: Plan::default(),
            router: None,
            problem: None,
            search_at: now,
            refresh_at: now + REFRESH,
        };
        let mut before = MeshPorts::default();
        let shutdown = self.shutdown.clone();
        loop {
            let mesh = self.mesh.borrow_and_update().clone();
            let wishes = [mesh.wishes.clone(), self.games.borrow_and_update().clone()].concat();
            let now = Instant::now();
            if (&mesh.interfaces, mesh.slept) != (&before.interfaces, before.slept) {
                keeper.anew(now);
            }
            keeper.plan.want(&wishes, now);
            before = mesh;
            let wake = keeper.wake(&before, now);
            self.publish(&keeper);
            tokio::select! {
                biased;
                () = shutdown.stopping() => break,
                // Whoever has gone wants nothing new.
                Ok(()) = self.mesh.changed() => {}
                Ok(()) = self.games.changed() => {}
                () = tokio::time::sleep_until(wake.into()) => {
                    tokio::select! {
                        biased;
                        () = shutdown.stopping() => break,
                        () = keeper.work(&before) => {}
                    }
                }
            }
        }
        let last = keeper.give_back(&before.wishes);
        if tokio::time::timeout(LAST, last).await.is_err() {
            tracing::debug!("the router did not take all ports back in time");
        }
        Ok(())
    }

    fn publish(&self, keeper: &Keeper) {
        let searched = keeper.router.is_some() || keeper.problem.is_some();
        let router = searched.then(|| RouterFacts {
            protocol: keeper.router.as_ref().map(Router::protocol),
            external: keeper.router.as_ref().and_then(|router| router.external),
            problem: keeper.problem.clone(),
        });
        let facts = PortFacts { router, mappings: keeper.plan.facts() };
        self.facts.send_if_modified(|old| {
            let changed = *old != facts;
            *old = facts;
            changed
        });
    }
}

impl Keeper {
    /// The machine is in another network, or slept.
    fn anew(&mut self, now: Instant) {
        self.router = None;
        self.problem = None;
        self.search_at = now;
        self.plan.start_over(now);
    }

    fn wake(&self, mesh: &MeshPorts, now: Instant) -> Instant {
        let never = now + SEARCH_AGAIN;
        if mesh.interfaces.is_empty() {
            return never;
        }
        match &self.router {
            None => self.search_at,
            Some(_) => self.plan.next().map_or(never, |next| next.min(self.refresh_at)),
        }
    }

    /// Looks for a router, or asks it for one thing.
    async fn work(&mut self, mesh: &MeshPorts) {
        if mesh.interfaces.is_empty() {
            return;
        }
        let Some(router) = &mut self.router else {
            self.search(mesh).await;
            return;
        };
        let now = Instant::now();
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH;
            router.refresh().await;
            return;
        }
        match self.plan.due(now) {
            Some(Job::Map { wish, external, .. }) => {
                let result = router.map(&wish, external).await;
                if let Ok(mapped) = &result {
                    tracing::debug!(name = %wish.label(), ?mapped, "the router forwards");
                }
                self.plan.mapped(wish.key(), result, Instant::now());
            }
            Some(Job::Unmap { key, external }) => {
                router.unmap(key, external).await;
                self.plan.unmapped(key, Instant::now());
            }
            None => {}
        }
        // One that answered once and now refuses all may be another one.
        if self.plan.failing() > 0 && self.plan.facts().iter().all(|of| of.external.is_none()) {
            self.router = None;
            self.search_at = Instant::now() + SEARCH_AGAIN / 10;
            self.problem = self.plan.facts().into_iter().find_map(|of| of.problem);
        } else if self.plan.is_refused_again() {
            // Switched off and on, it may be found elsewhere than before.
            (self.router, self.search_at) = (None, Instant::now());
        }
    }

    async fn search(&mut self, mesh: &MeshPorts) {
        self.search_at = Instant::now() + SEARCH_AGAIN;
        let Some((gateway, local)) = way_out().await else {
            self.problem = Some("this machine has no router of a private network".into());
            return;
        };
        if !mesh.interfaces.contains(&local) {
            self.problem = Some("the mesh does not listen towards the router".into());
            return;
        }
        match Router::find(gateway, local, self.nonces).await {
            Ok(router) => {
                tracing::info!(protocol = ?router.protocol(), "a router was found");
                tracing::debug!(outside = ?router.external, "it has an address outside");
                (self.router, self.problem) = (Some(router), None);
                self.refresh_at = Instant::now() + REFRESH;
                self.plan.start_over(Instant::now());
            }
            Err(problem) => {
                self.problem = Some(problem);
                // Whatever was promised, nobody can be asked to keep it.
                self.plan.start_over(Instant::now());
            }
        }
    }

    async fn give_back(&mut self, mesh: &[PortWish]) {
        let Some(router) = &mut self.router else { return };
        for job in self.plan.last_jobs(mesh) {
            if let Job::Unmap { key, external } = job {
                router.unmap(key, external).await;
            }
        }
    }
}
