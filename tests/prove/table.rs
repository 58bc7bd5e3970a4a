//! Figures, the goals beside them, and what a process has in memory.

use std::fs;
use std::time::Duration;

/// Figures that were measured, printed as they come, with the goals that were
/// set.
pub(crate) struct Table {
    missed: usize,
}

impl Table {
    pub(crate) fn new(title: &str) -> Self {
        println!("\n{title}");
        Self { missed: 0 }
    }

    /// A figure without a goal.
    pub(crate) fn figure(&self, what: &str, figure: &str) {
        println!("  {what:<60} {figure:>12}");
    }

    /// A figure that should be `most` at most, in the same unit.
    pub(crate) fn at_most(&mut self, what: &str, (figure, most): (f64, f64), unit: &str) {
        let is_met = figure <= most;
        self.missed += usize::from(!is_met);
        let verdict = if is_met { "met" } else { "GOAL MISSED" };
        let figure = format!("{figure:.1} {unit}");
        println!("  {what:<60} {figure:>12}  goal {most} {unit}: {verdict}");
    }

    /// Times, of which all but one in a hundred should be `most` at most.
    pub(crate) fn times(&mut self, what: &str, times: &mut [Duration], most: Duration) {
        self.percentile(what, times, (99, most));
    }

    /// Times, of which so many per cent should be `most` at most.
    pub(crate) fn percentile(
        &mut self,
        what: &str,
        times: &mut [Duration],
        (percent, most): (u8, Duration),
    ) {
        self.figure(&format!("{what}: how many"), &times.len().to_string());
        self.figure(&format!("{what}: p50"), &format!("{:.1} ms", ms(percentile(times, 50))));
        let at = ms(percentile(times, percent));
        self.at_most(&format!("{what}: p{percent}"), (at, ms(most)), "ms");
        self.figure(&format!("{what}: most"), &format!("{:.1} ms", ms(percentile(times, 100))));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        println!("  {} goals missed", self.missed);
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The time below which so many per cent of them lie.
fn percentile(times: &mut [Duration], percent: u8) -> Duration {
    times.sort_unstable();
    let at = times.len().saturating_sub(1) as f64 * f64::from(percent) / 100.0;
    times.get(at.round() as usize).copied().unwrap_or_default()
}

/// What a process has in memory now, in MB.
pub(crate) fn memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kb: f64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kb * 1024.0 / 1e6
}
