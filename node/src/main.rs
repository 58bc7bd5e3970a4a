//! `homehost`: one program for the daemon, its command line, and the hidden
//! processes that it starts.

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // Before any runtime, TLS or configuration: a shim outlives many daemons
    // and should carry as little of them as it can.
    match args.nth(1).as_deref().and_then(OsStr::to_str) {
        Some("__shim") => homehost_hosting::shim_main(args),
        Some("__a2s-game") => homehost_hosting::a2s_game_main(args),
        Some("__bootstrap") => {
            let program = std::iter::once("homehost-bootstrap".into());
            homehost_bootstrap::main(homehost_bootstrap::Args::parse_from(program.chain(args)))
        }
        _ => homehost::cli::main(),
    }
}
