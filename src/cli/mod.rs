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
    Serve {
        #[arg(long, default_value = "0")]
        cores: String,
        #[arg(long, default_value = "/var/tmp/pollux.sock")]
        rpc_socket: std::path::PathBuf,
        #[arg(long, default_value = "pollux-state")]
        state_dir: std::path::PathBuf,
    },
    Rpc {
        method: String,
        params: Option<String>,
        #[arg(long, default_value = "/var/tmp/pollux.sock")]
        rpc_socket: std::path::PathBuf,
    },
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(*args),
        Command::Serve { cores, rpc_socket, state_dir } => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            let options = crate::app::Options {
                cpus: crate::reactor::parse_cpus(&cores).unwrap(),
                poll: crate::reactor::Poll::Adaptive,
                stall_ns: 10_000_000,
                state_dir,
                rpc_socket,
                rpc: Default::default(),
                classes: vec![
                    crate::mem::Class { size: 4096, count: 4096 },
                    crate::mem::Class { size: 32768, count: 512 },
                    crate::mem::Class { size: 131072, count: 512 },
                    crate::mem::Class { size: 1 << 20, count: 128 },
                ],
                tcp: Default::default(),
                nvmf: Default::default(),
            };
            let logging = crate::rpc::Logging::new(crate::rpc::Settings::default(), |_| {});
            match crate::app::serve(&options, logging, || eprintln!("ready")) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("{e}");
                    ExitCode::from(1)
                }
            }
        }
        Command::Rpc { method, params, rpc_socket } => {
            use std::io::{Read, Write};
            let mut s = std::os::unix::net::UnixStream::connect(rpc_socket).unwrap();
            let p = params.unwrap_or("{}".into());
            write!(s, "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{p}}}").unwrap();
            let mut out = vec![];
            let mut b = [0u8; 65536];
            loop {
                let n = s.read(&mut b).unwrap();
                out.extend_from_slice(&b[..n]);
                if n == 0 || b[n - 1] == b'\n' {
                    break;
                }
            }
            print!("{}", String::from_utf8_lossy(&out));
            if out.windows(8).any(|w| w == b"\"error\":") { ExitCode::from(1) } else { ExitCode::SUCCESS }
        }
    }
}
