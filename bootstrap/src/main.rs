//! The program `homehost-bootstrap`; all of it is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    homehost_bootstrap::main(homehost_bootstrap::Args::parse())
}
