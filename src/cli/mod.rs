//! The command line: `pollux serve | rpc | bench | fsck`.

use std::process::ExitCode;

/// Entry point of the binary.
pub fn main() -> ExitCode {
    eprintln!("pollux: no subcommand is wired yet");
    ExitCode::from(2)
}
