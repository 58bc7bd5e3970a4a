//! The network as a person sees it: lookups, reach, and what it costs.

use std::sync::atomic::Ordering;
use std::time::Instant;

use homehost_api::{
    ApiError, DirectoryRow, ErrorKind, Lookup, MeshStats, Repairs, ServerReach, Traffic, Witness,
};
use homehost_hosting::ServerView;
use homehost_protocol::{ServerId, UnixMillis, Verdict, validate};
use homehost_runtime::wall_ms;

use super::{Control, closed, views};
use crate::wire::phone_book;
use crate::wire::prove::{ReachReport, WitnessReport};

impl Control {
    pub(super) async fn look_up(&self, id: &str) -> Result<Lookup, ApiError> {
        let id: ServerId = id.parse().map_err(|error| {
            ApiError::new(ErrorKind::Usage, format!("{error}; `homehost discover --json` has ids"))
        })?;
        let began = Instant::now();
        let known = self.directory.view(id).await.map_err(closed)?.is_some();
        let answer = phone_book::look_up(&self.mesh, &self.directory, id).await;
        let answer = answer
            .map_err(|error| ApiError::new(ErrorKind::Unavailable, format!("not now: {error}")))?;
        let row = self.directory.view(id).await.map_err(closed)?.map(views::directory_row);
        let unlisted = self.unlisted(id, answer.best.as_deref());
        // The directory may remember it from when it was public.
        let row = match (row, unlisted) {
            (Some(row), Some(unlisted)) if row.issued > unlisted.issued => Some(row),
            (row, unlisted) => unlisted.or(row),
        };
        if row.is_none() && answer.best.is_none() {
            let text = if answer.answers.is_empty() {
                "nobody could be asked: this node has no peer that keeps records".to_owned()
            } else {
                let asked = super::count(answer.answers.len(), "peer");
                format!(
                    "{asked} answered, and none knows this server: check the id, or search with \
                     `homehost discover --all`"
                )
            };
            return Err(ApiError::new(ErrorKind::NotFound, text));
        }
        Ok(Lookup {
            id: id.to_string(),
            row,
            answers: answer.answers.len(),
            agree: answer.answers.iter().filter(|vote| vote.agrees).count(),
            voices: answer.voices(),
            known,
            took_ms: began.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
        })
    }

    /// An unlisted server, which is in no directory, as the DHT has it.
    fn unlisted(&self, id: ServerId, found: Option<&[u8]>) -> Option<DirectoryRow> {
        let keys = self.directory.keys();
        let verdict = validate(found?, self.keys.network(), &keys, UnixMillis(wall_ms()));
        let Verdict::Accept(record) = verdict else { return None };
        views::unlisted_row(*record).filter(|row| row.id == id.to_string())
    }

    pub(super) fn reach_of(&self, server: &str) -> Result<ServerReach, ApiError> {
        let server = self.find(server)?;
        let id = server.definition.id;
        let report = self.reports.borrow().get(&id).cloned().unwrap_or_default();
        Ok(ServerReach {
            id: id.to_string(),
            name: server.definition.name.clone(),
            at: report.at.map(|at| at.to_string()),
            asked: report.asked.clone(),
            summary: self.summary(&report, &server),
            witnesses: report.witnesses.into_iter().map(witness).collect(),
        })
    }

    pub(super) fn stats(&self) -> MeshStats {
        let stats = self.directory.stats();
        let traffic = self.mesh.traffic().by_protocol.into_iter().map(|of| Traffic {
            protocol: of.protocol.label().into(),
            received: of.received,
            sent: of.sent,
        });
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        MeshStats {
            seconds: self.started.elapsed().as_secs(),
            traffic: traffic.collect(),
            listings: stats.listings,
            tombstones: stats.tombstones,
            proved: stats.proved,
            hosts: stats.hosts,
            key_chains: stats.chains,
            key_conflicts: stats.conflicts,
            penned: stats.penned,
            admitted: stats.admitted,
            refused: stats.refused.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect(),
            counted: super::metrics::counted(&self.registry),
            repairs: Repairs {
                done: count(&self.repairs.done),
                failed: count(&self.repairs.failed),
                rounds: count(&self.repairs.rounds),
                records: count(&self.repairs.records),
                withheld: count(&self.repairs.withheld),
            },
        }
    }
}

fn witness(report: WitnessReport) -> Witness {
    let (reached, players, problem) = match report.result {
        Ok((ip, players)) => (Some(ip.to_string()), players, None),
        Err(problem) => (None, None, Some(problem)),
    };
    Witness {
        node: report.node.to_string(),
        from: report.ip.map(|ip| ip.to_string()),
        reached,
        players,
        problem,
    }
}

impl Control {
    /// How it stands, with what keeps it from being listed and what nobody can
    /// say at the moment.
    fn summary(&self, report: &ReachReport, server: &ServerView) -> String {
        let mut text = summary(report, server.state == homehost_hosting::State::Running);
        if let Some(problem) = self.announcer.problems().get(&server.definition.id) {
            text.push_str(&format!("; {problem}"));
        }
        let alone = !self.mesh.status().borrow().peers.iter().any(|peer| peer.holds_replica);
        if let Some(at) = report.at.filter(|_| alone) {
            let minutes = UnixMillis(wall_ms()).since(at).as_secs() / 60;
            let ago = super::count(usize::try_from(minutes).unwrap_or(usize::MAX), "minute");
            text.push_str(&format!("; that was {ago} ago, and no host is connected now"));
        }
        text
    }
}

fn summary(report: &ReachReport, running: bool) -> String {
    if !running {
        return "it is not running, so nobody is asked: start it first".into();
    }
    if let Some(note) = &report.note {
        return note.clone();
    }
    if report.at.is_none() {
        return "nobody was asked yet: that happens within seconds of its start".into();
    }
    let asked = super::count(report.witnesses.len(), "peer");
    match report.witnesses.iter().filter(|witness| witness.result.is_ok()).count() {
        0 => format!(
            "none of {asked} got through: forward its port on the router to this machine, and \
             let the firewall pass it; the next try follows by itself"
        ),
        n => format!("{n} of {asked} got through; they are asked again every hour"),
    }
}
