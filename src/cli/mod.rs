//! The command line: `pollux serve | rpc | bench | fsck | device | doctor`. Each subcommand is a file; errors end on stderr in one line
//! that starts with `pollux`, and with a status other than 0.

pub mod bench;
mod config;
mod device;
mod doctor;
mod fsck;
mod rpc;
mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Shared block storage from polled NVMe drives.
#[derive(Parser)]
#[command(name = "pollux", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node in the foreground until SIGTERM or SIGINT
    Serve(serve::Args),
    /// Call one JSON-RPC method of a running node and print its result
    Rpc(rpc::Args),
    /// Offer load to a volume, a device or a store, and measure or verify it
    Bench(Box<bench::Args>),
    /// Check a store that is not in use for damage; changes nothing
    Fsck(fsck::Args),
    /// Give NVMe and network devices to Pollux (VFIO), and back to the kernel
    Device(device::Args),
    /// Tell what this machine offers Pollux, what could be better, and the commands that make it so
    Doctor(doctor::Args),
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Rpc(args) => rpc::run(&args),
        Command::Bench(args) => bench::run(*args),
        Command::Fsck(args) => fsck::run(&args),
        Command::Device(args) => device::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Where a node listens for JSON-RPC unless told otherwise.
pub const RPC_SOCKET: &str = "/var/tmp/pollux.sock";
