//! `homehost config …`: what the node is told, from where, and how to change it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use homehost_api::{ConfigView, ErrorKind};
use homehost_runtime::files::{Access, make_folder, write_private};
use serde::Serialize;

use super::output::{Cell, Colour};
use super::{Client, Output, usage};
use crate::config::{self, Problem, file};
use crate::exit::{self, Failure, failure};

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// File of the settings [default: config.toml in the data folder, or the one that the node runs with]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting, its value and from where that came
    Show {
        /// Print a whole file instead, in which every setting is explained
        #[arg(long)]
        docs: bool,
    },
    /// Check a file and the variables HOMEHOST__…: every mistake with its place
    Check {
        /// The file [default: the one of the node]
        file: Option<PathBuf>,
    },
    /// Change one setting in the file; comments stay
    Set {
        /// Setting, as in mesh.bootstrap
        key: String,
        /// Value; of a list, all that it shall hold
        #[arg(value_name = "VALUE", num_args = 0..)]
        values: Vec<String>,
    },
    /// Open the file in your editor; what does not check is not saved
    Edit,
}

/// What `config check` found.
#[derive(Serialize)]
struct Checked {
    file: String,
    problems: Vec<String>,
}

/// What `config set` and `config edit` did.
#[derive(Serialize)]
struct Changed {
    file: String,
    message: String,
}

pub(crate) async fn run(args: ConfigArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let given = args.config.map(|path| absolute(&path)).transpose()?;
    match args.command {
        ConfigCommand::Show { docs: true } => {
            output.line(config::docs().trim_end());
            Ok(())
        }
        ConfigCommand::Show { docs: false } => {
            let view = match (running(data_dir).await, given) {
                (Some(view), None) => view,
                (_, given) => at_rest(given.as_deref(), data_dir)?,
            };
            output.show(&view, || table(&view, output));
            Ok(())
        }
        ConfigCommand::Check { file } => {
            let file = file.map(|path| absolute(&path)).transpose()?;
            let named = file.is_some() || given.is_some();
            let path = file.or(given).unwrap_or(used(data_dir).await);
            check(&path, named, output)
        }
        ConfigCommand::Set { key, values } => {
            let path = given.unwrap_or(used(data_dir).await);
            let setting = config::setting(&key).ok_or_else(|| usage(file::unknown(&key)))?;
            let words: Vec<&str> = values.iter().map(String::as_str).collect();
            let value =
                setting.kind.read_text(&words).map_err(|text| usage(format!("{key}: {text}")))?;
            file::set(&path, setting.key, &value)?;
            changed(&path, format!("{key} = {value}"), data_dir, output).await
        }
        ConfigCommand::Edit => {
            let path = given.unwrap_or(used(data_dir).await);
            let message = tokio::task::block_in_place(|| edit(&path, output))?;
            changed(&path, message, data_dir, output).await
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| usage(format!("{}: {error}", path.display())))
}

/// What the running node was told; nothing when none runs.
async fn running(data_dir: &Path) -> Option<ConfigView> {
    Client::find(data_dir).ok()?.get("/api/v1/config").await.ok()
}

/// The file that the running node follows, or that the next one will read.
async fn used(data_dir: &Path) -> PathBuf {
    match running(data_dir).await {
        Some(view) => PathBuf::from(view.file),
        None => config::default_file(data_dir),
    }
}

/// What a node would be told that is started now, without options.
fn at_rest(given: Option<&Path>, data_dir: &Path) -> Result<ConfigView, Failure> {
    let path = config::file_of(given, data_dir);
    Ok(ConfigView {
        file: path.display().to_string(),
        exists: path.exists(),
        settings: config::at_rest(given, data_dir)?.view(),
        ..ConfigView::default()
    })
}

fn table(view: &ConfigView, output: &Output) -> String {
    let rows: Vec<_> = view
        .settings
        .iter()
        .map(|setting| {
            let value = match &setting.value {
                Some(value) => Cell::of(value),
                None => Cell::of(&setting.default).colour(Colour::Dim),
            };
            vec![Cell::of(&setting.key).colour(Colour::Bold), value, Cell::of(&setting.from)]
        })
        .collect();
    let mut text = output.table(&["SETTING", "VALUE", "FROM"], &rows);
    let there = if view.exists { "" } else { " (not there yet)" };
    text.push_str(&output.nothing(&format!("\nfile: {}{there}\n", view.file)));
    if !view.waiting.is_empty() {
        text.push_str(&format!("after a restart: {}\n", view.waiting.join(", ")));
    }
    if let Some(problem) = &view.problem {
        text.push_str(&format!("not taken: {problem}\n"));
    }
    text
}

fn check(path: &Path, named: bool, output: &Output) -> Result<(), Failure> {
    let read = file::read(path)?;
    let sound = if read.is_some() { "is sound" } else { "is not there, and need not be" };
    let text = match read {
        Some(text) => text,
        None if named => {
            let text = format!("there is no {}", path.display());
            return Err(failure(ErrorKind::NotFound, text));
        }
        None => String::new(),
    };
    let name = path.display().to_string();
    let (below, above) = (file::parse(&name, &text), config::own_environment());
    if let (Ok(below), Ok(above)) = (&below, &above)
        && config::own_mistaken().is_empty()
    {
        let checked = Checked { file: name.clone(), problems: Vec::new() };
        let count = crate::control::count;
        let settings = count(below.len(), "setting");
        let also = match above.len() {
            0 => String::new(),
            n => format!(", and {} by variables", count(n, "setting")),
        };
        output.show(&checked, || format!("{name} {sound}: {settings}{also}"));
        return Ok(());
    }
    let mut problems = below.err().unwrap_or_default();
    problems.extend(above.err().unwrap_or_default());
    problems.extend(config::own_mistaken());
    Err(failure(ErrorKind::Usage, lines(&problems)))
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

async fn changed(
    path: &Path,
    message: String,
    data_dir: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let next = match running(data_dir).await {
        Some(view) if Path::new(&view.file) == path => {
            "the running node takes within seconds what needs no restart; `homehost config show` \
             says what waits for one"
        }
        _ => "the next `homehost up` takes it",
    };
    let changed = Changed { file: path.display().to_string(), message };
    output.show(&changed, || format!("{} in {}; {next}", changed.message, changed.file));
    Ok(())
}

/// Lets a person edit the file, beside it; it takes the old one's place once it
/// checks.
fn edit(path: &Path, output: &Output) -> Result<String, Failure> {
    let beside = path.with_extension("edited.toml");
    let refused = |error: std::io::Error| {
        let text = format!("failed to write {}: {error}; {}", beside.display(), exit::next(&error));
        failure(exit::of_io(&error), text)
    };
    let before = file::read(path)?;
    let begun = match file::read(&beside)? {
        Some(text) => {
            output.hint(&format!(
                "going on with {}, which was not saved the last time; delete it to begin anew",
                beside.display()
            ));
            text
        }
        None => {
            let text = before.clone().unwrap_or_else(config::docs);
            if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
                make_folder(folder, Access::Passage).map_err(refused)?;
            }
            write_private(&beside, text.as_bytes()).map_err(refused)?;
            text
        }
    };
    run_editor(&beside)?;
    // An editor that left no file changed nothing.
    let Some(edited) = file::read(&beside)? else { return Ok("nothing changed".to_owned()) };
    if before.as_ref() == Some(&edited) || (before.is_none() && edited == begun) {
        // It says what stands already.
        let _ = fs::remove_file(&beside);
        return Ok("nothing changed".to_owned());
    }
    if let Err(problems) = file::parse(&file::name(path), &edited) {
        let text = format!(
            "{}\nnothing was saved: {} is as it was, and your text is in {}; `homehost config \
             edit` goes on with it",
            lines(&problems),
            path.display(),
            beside.display()
        );
        return Err(failure(ErrorKind::Usage, text));
    }
    file::write(path, &edited)?;
    let _ = fs::remove_file(&beside);
    Ok("saved".to_owned())
}

/// A variable that says something.
fn named(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(usage(format!("${name} is not UTF-8: set it to the command of your editor")))
        }
    }
}

fn run_editor(path: &Path) -> Result<(), Failure> {
    let fallback = if cfg!(windows) { "notepad" } else { "vi" };
    let editor = match named("VISUAL")? {
        Some(editor) => editor,
        None => named("EDITOR")?.unwrap_or_else(|| fallback.into()),
    };
    // Windows paths have backslashes, which would be taken for escapes.
    let words = if cfg!(windows) && Path::new(&editor).exists() {
        vec![editor.clone()]
    } else {
        homehost_hosting::parse_exec(&editor)
            .map_err(|error| usage(format!("$VISUAL or $EDITOR ({editor}): {error}")))?
    };
    let (program, args) = words.split_first().ok_or_else(|| usage("$EDITOR is empty"))?;
    let kept = format!("your text is in {}", path.display());
    let status = Command::new(program).args(args).arg(path).status().map_err(|error| {
        let text = format!("failed to run the editor {program}: {error}; set $EDITOR; {kept}");
        failure(exit::of_io(&error), text)
    })?;
    if status.success() {
        Ok(())
    } else {
        let text = format!("the editor {program} ended with {status}, nothing was saved; {kept}");
        Err(failure(ErrorKind::Internal, text))
    }
}
