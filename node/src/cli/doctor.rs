//! `homehost doctor`: what may be wrong and what to do, for a person and for a
//! program.

use std::path::{Path, PathBuf};

use clap::Args;
use homehost_api::ErrorKind;
use serde::Serialize;

use super::output::{Cell, Colour};
use super::{Output, usage};
use crate::control::count;
use crate::doctor::{self, Finding, Level, bundle, gather, worst};
use crate::exit::{Failure, failure};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Also write a file for whoever helps you; secrets and addresses are left out
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// File of the settings, if `up` is given one [default: config.toml in the data folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    worst: Level,
    findings: &'a [Finding],
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
}

pub(crate) async fn run(args: DoctorArgs, data_dir: &Path, output: &Output) -> Result<(), Failure> {
    let named = args.config.as_ref().map(std::path::absolute).transpose();
    let named = named.map_err(|error| usage(format!("--config: {error}")))?;
    let (facts, answers) = gather::gather(data_dir, named.as_deref()).await;
    let findings = doctor::judge(&facts);
    let mut written = None;
    if let Some(path) = &args.bundle {
        bundle::write(path, data_dir, &findings, answers).await?;
        written = Some(path.display().to_string());
    }
    let report = Report { worst: worst(&findings), findings: &findings, bundle: written };
    output.show(&report, || text(&report, output));
    let red = findings.iter().filter(|finding| finding.level == Level::Red).count();
    if red == 0 {
        return Ok(());
    }
    let text = format!("{red} of {} red: do what stands there", count(findings.len(), "check"));
    Err(failure(ErrorKind::Unhealthy, text))
}

fn text(report: &Report<'_>, output: &Output) -> String {
    let rows: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            let (word, colour) = match finding.level {
                Level::Green => ("ok", Colour::Good),
                Level::Amber => ("look", Colour::Bold),
                Level::Red => ("RED", Colour::Bad),
            };
            let mut said = finding.said.clone();
            if let Some(next) = &finding.next {
                said.push_str(&format!(" → {next}"));
            }
            vec![Cell::of(word).colour(colour), Cell::of(&finding.check), Cell::of(said)]
        })
        .collect();
    let mut text = output.always_tables().table(&["", "CHECK", "FINDING"], &rows);
    if let Some(bundle) = &report.bundle {
        text.push_str(&format!(
            "\n{bundle} is for whoever helps you: read it before you give it away; what players \
             wrote in consoles is in it\n"
        ));
    }
    text
}
