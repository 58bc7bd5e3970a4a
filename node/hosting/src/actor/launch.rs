//! Making a game's process: ports, start line, folder, shim.

use std::sync::Arc;

use homehost_runtime::wall_ms;

use super::{Actor, Event};
use crate::account::environment;
use crate::definition::ServerDefinition;
use crate::error::ErrorClass;
use crate::handle::Shared;
use crate::lifecycle::Input;
use crate::link;
use crate::shim::FirstWord;
use crate::shim::files::{self, StartFile};
use crate::shim::platform::Connection;
use crate::shim::wire::Status;
use crate::start_line::{Values, substitute};

/// What became of it.
pub(super) struct Launched {
    /// As it is stored now; a port may have changed.
    definition: ServerDefinition,
    note: Option<String>,
    result: Result<Option<Box<(Connection, Status)>>, Failure>,
}

/// Why there is no process.
struct Failure {
    class: ErrorClass,
    problem: String,
}

impl Failure {
    fn new(class: ErrorClass, problem: impl ToString) -> Self {
        Self { class, problem: problem.to_string() }
    }
}

impl Actor {
    pub(super) fn launch(&mut self) {
        self.note = None;
        let (shared, definition) = (self.shared.clone(), self.definition.clone());
        let next_seq = self.console.latest() + 1;
        self.help(async move {
            Event::Launched(Box::new(launch(&shared, &definition, next_seq).await))
        });
    }

    pub(super) async fn launched(&mut self, launched: Launched) {
        let Launched { definition, note, result } = launched;
        // What is wanted may have changed in the meantime, and is newer here.
        let wanted = self.definition.wanted;
        let definition = ServerDefinition { wanted, ..definition };
        self.note = note;
        if definition != *self.definition {
            if let Err(failure) = self.shared.store.save(&definition).await {
                tracing::error!(server = %definition.name, "{failure}");
            }
            self.definition = Arc::new(definition);
        }
        match result {
            Ok(line) => {
                tracing::info!(server = %self.definition.name, "game started");
                match line {
                    Some(line) => self.connect(line.0, line.1),
                    // It may have ended before it could be talked to.
                    None => self.seek(),
                }
                self.tell(Input::Spawned);
            }
            Err(Failure { class, problem }) => {
                tracing::warn!(server = %self.definition.name, "game not started: {problem}");
                self.failure = Some(class);
                self.tell(Input::SpawnFailed(problem));
                self.failure = None;
            }
        }
    }
}

async fn launch(shared: &Arc<Shared>, definition: &ServerDefinition, next_seq: u64) -> Launched {
    let mut definition = definition.clone();
    let mut note = None;
    let result = match prepare(shared, &mut definition, &mut note, next_seq).await {
        Ok(()) => run(shared, &definition).await,
        Err(failure) => Err(failure),
    };
    Launched { definition, note, result }
}

/// Everything that touches files and ports, on a thread that may block.
async fn prepare(
    shared: &Arc<Shared>,
    definition: &mut ServerDefinition,
    note: &mut Option<String>,
    next_seq: u64,
) -> Result<(), Failure> {
    let (shared, mut changed) = (shared.clone(), definition.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let notes = shared
            .ports
            .settle(&mut changed)
            .map_err(|conflict| Failure::new(ErrorClass::Conflict, conflict))?;
        let folder = shared.folder(&changed);
        let account = shared.run_as.account();
        folder
            .prepare(account.as_ref())
            .map_err(|problem| Failure::new(ErrorClass::Denied, problem))?;
        let data = folder.data();
        let values = Values {
            data: &data,
            name: &changed.name,
            slots: changed.slots,
            ports: &changed.assigned_ports(),
        };
        let argv = substitute(&changed.exec, values)
            .map_err(|error| Failure::new(ErrorClass::BadConfig, error))?;
        let start = StartFile {
            run: wall_ms(),
            argv,
            env: environment(&data, account.as_ref()),
            cwd: data,
            account,
            stop_command: changed.stop_command.clone(),
            stop_step_ms: changed.stop_timeout.as_millis().try_into().unwrap_or(u64::MAX),
            next_seq,
        };
        files::write(&folder.run(files::START), &start).map_err(|error| {
            let folder = folder.path().display();
            Failure::new(
                ErrorClass::Internal,
                format!("cannot write to {folder} ({error}): free some space"),
            )
        })?;
        Ok((changed, notes.into_iter().next()))
    })
    .await;
    match prepared {
        Ok(Ok((changed, changed_note))) => {
            *definition = changed;
            *note = changed_note;
            Ok(())
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::new(ErrorClass::Internal, "the preparation of the start failed")),
    }
}

async fn run(
    shared: &Shared,
    definition: &ServerDefinition,
) -> Result<Option<Box<(Connection, Status)>>, Failure> {
    let folder = shared.folder(definition);
    match link::launch(&shared.shim_exe, &folder, false).await {
        Ok(FirstWord::Runs { .. }) => Ok(link::greet(&folder).await.ok().map(Box::new)),
        // A game that an earlier daemon started in its last moments, for one:
        // whoever looks for it finds it.
        Ok(FirstWord::Ended | FirstWord::Busy(_)) => Ok(None),
        Ok(FirstWord::Failed(problem)) => Err(Failure::new(ErrorClass::BadConfig, problem)),
        Err(problem) => Err(Failure::new(ErrorClass::Internal, problem)),
    }
}
