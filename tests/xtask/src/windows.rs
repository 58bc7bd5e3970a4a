//! The Windows programs: cross-built with mingw, and run under Wine. On Windows
//! itself cargo does both by itself.
//!
//! Wine has a prefix of its own below `target`, which is made once.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Done, Failed, cargo, command, fail, output, root, run, target, works};

/// The target of the cross build.
pub(crate) const TARGET: &str = "x86_64-pc-windows-gnu";

/// Its C compiler, which also links.
pub(crate) const CC: &str = "x86_64-w64-mingw32-gcc-posix";

/// Where Wine is: Debian keeps the 64-bit one apart.
const WINE: [&str; 2] = ["/usr/lib/wine/wine64", "wine64"];

/// The server of a prefix.
const WINE_SERVER: [&str; 2] = ["/usr/lib/wine/wineserver64", "wineserver"];

/// How long, in seconds, a prefix stays up with nobody in it: between two tests.
const LINGER: &str = "-p60";

/// What runs on Windows: unit tests, and those with processes of their own, which
/// also make cargo build both programs.
const TESTS: &str = "test --workspace --lib --test processes --test process --test console";

/// Tests that Wine cannot pass, each with its reason; real Windows runs them.
const NOT_UNDER_WINE: &[(&str, &str)] = &[
    ("ctrl_break_ends_a_daemon_in_order", "Wine raises no Ctrl-Break"),
    (
        "owner_only::tests::what_is_closed_is_known_as_closed_and_other_files_are_not",
        "Wine keeps no lists of permissions, only what Linux can say of them",
    ),
    ("a_crash_leads_to_a_restart", SLOW_STARTS),
    ("a_game_that_dies_at_once_is_explained", SLOW_STARTS),
    ("a_port_that_another_program_was_quicker_to_take_is_replaced", SLOW_STARTS),
];

/// These tests are about games that end within a second.
const SLOW_STARTS: &str = "on a busy machine Wine takes longer to begin and end a process";

/// What the programs are called.
const PROGRAMS: [&str; 2] = ["homehost.exe", "homehost-bootstrap.exe"];

/// Adds the standard library of the target.
pub(crate) fn std_library() -> Done {
    let libraries = output("rustc", &["--print", "target-libdir", "--target", TARGET]);
    if !libraries.is_empty() && Path::new(&libraries).exists() {
        return Ok(());
    }
    if !works("rustup", &["--version"]) {
        return fail(format!("install the standard library of Rust for {TARGET}"));
    }
    run(&mut command("rustup", &["target", "add", TARGET]))
}

/// Builds both programs and says where they are.
pub(crate) fn build() -> Done {
    run(&mut cross("build --workspace --bins")?)?;
    programs().map(drop)
}

/// Runs on Windows what can be run there: unit tests, real processes, and both
/// programs among nodes of Linux.
pub(crate) fn test() -> Done {
    if cfg!(windows) {
        // The other steps do it; the journey needs both systems on one machine.
        return build();
    }
    // Everything in one go, and more than is run: all tests are to compile. By
    // themselves the programs would have other features, and all that they
    // depend on would be built twice.
    run(&mut cross("test --workspace --tests --no-run")?)?;
    programs()?;
    let wine = Wine::find()?;
    wine.start()?;
    let done = wine.tests();
    // Whatever a failed test left in the prefix goes with it.
    wine.stop();
    done
}

/// Says where the programs are; their folder.
fn programs() -> Result<PathBuf, Failed> {
    let target = target()?;
    let folder = if cfg!(windows) { target } else { target.join(TARGET) }.join("debug");
    for program in PROGRAMS {
        let path = folder.join(program);
        if !path.is_file() {
            return fail(format!("cargo built no {}", path.display()));
        }
        println!("  {}", path.display());
    }
    Ok(folder)
}

/// A cargo command for Windows.
fn cross(line: &str) -> Result<Command, Failed> {
    let mut command = cargo(line);
    if !cfg!(windows) {
        command.args(["--target", TARGET]).envs([
            ("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", CC),
            ("CC_x86_64_pc_windows_gnu", CC),
            ("AR_x86_64_pc_windows_gnu", "x86_64-w64-mingw32-ar"),
        ]);
    }
    // `target` as this program knows it, wherever cargo would put it otherwise.
    command.arg("--target-dir").arg(target()?);
    Ok(command)
}

/// Whether there is a Wine for programs of 64 bits.
pub(crate) fn has_wine() -> bool {
    first(&WINE).is_some() && first(&WINE_SERVER).is_some()
}

/// The first of several programs that works.
fn first(programs: &[&'static str]) -> Option<&'static str> {
    programs.iter().copied().find(|program| works(program, &["--version"]))
}

/// A Wine and its prefix.
struct Wine {
    program: &'static str,
    server: &'static str,
    prefix: PathBuf,
}

impl Wine {
    fn find() -> Result<Self, Failed> {
        match (first(&WINE), first(&WINE_SERVER)) {
            (Some(program), Some(server)) => {
                Ok(Self { program, server, prefix: target()?.join("wine") })
            }
            _ => fail("there is no Wine: run `cargo xtask test --only setup`"),
        }
    }

    fn env<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("WINEPREFIX", &self.prefix).env("WINEDEBUG", "-all");
        // Neither .NET nor a browser is asked for, nor a display.
        command.env("WINEDLLOVERRIDES", "mscoree,mshtml=").env_remove("DISPLAY")
    }

    /// Makes the prefix.
    fn fill(&self, prefix: &Path) -> Done {
        run(self.env(&mut command(self.program, &["wineboot", "--init"])))?;
        // Windows without a graphics card: windows open, and nobody sees them.
        let key = ["reg", "add", r"HKCU\Software\Wine\Drivers", "/v", "Graphics", "/d", "null"];
        run(self.env(&mut command(self.program, &key)).arg("/f"))?;
        run(self.env(&mut command(self.server, &["--wait"])))?;
        let library = prefix.join("drive_c/windows/system32/bcryptprimitives.dll");
        let source = root().join(RECIPE);
        let mut compile = command(CC, &["-shared", "-O1", "-s", "-o"]);
        run(compile.arg(&library).arg(&source).arg("-ladvapi32"))
    }

    /// Brings the prefix up and keeps it so: a program that had to do it by
    /// itself would leave services behind which hold its output open.
    fn start(&self) -> Done {
        // A run that was cut off may have left it up, with whatever was in it.
        self.stop();
        run(self.env(&mut command(self.server, &[LINGER])))?;
        run(self.env(&mut command(self.program, &["wineboot"])))
    }

    fn stop(&self) {
        // Nobody may be there any more.
        for ask in ["--kill", "--wait"] {
            let _ = run(self.env(&mut command(self.server, &[ask])));
        }
    }

    fn tests(&self) -> Done {
        let mut here = cross(TESTS)?;
        here.args(["--no-fail-fast", "--"]);
        for (test, reason) in NOT_UNDER_WINE {
            println!("  without {test}: {reason}");
            here.args(["--skip", test]);
        }
        run(self.env(&mut here).env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", self.program))?;
        let mut journey = cargo("test --workspace --test windows --no-fail-fast");
        let journey = self.env(&mut journey).env("HOMEHOST_TEST_WINE", self.program);
        run(journey.env("HOMEHOST_TEST_WINDOWS_PROGRAMS", programs()?))
    }
}

/// What the prefix is made of, besides Wine; below the checkout.
const RECIPE: &str = "tests/windows/bcryptprimitives.c";

/// Makes the prefix; called once for each [`RECIPE`].
pub(crate) fn prefix(folder: &Path) -> Done {
    Wine::find()?.fill(folder)
}
