//! The command line: `pollux serve | rpc | bench | fsck`.

pub mod bench;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "pollux", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Offer load to a volume, a device or a store, and measure or verify it
    Bench(Box<bench::Args>),
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(*args),
    }
}
