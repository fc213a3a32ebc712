//! `pollux serve`: a node in the foreground.

use crate::app::{self, Options};
use crate::reactor::{Poll, parse_cpus};
use crate::rpc::{Logging, Settings};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

/// Arguments of `pollux serve`. Without any, the node is empty and is set up by RPC; what it is told is kept in the
/// state directory and is there again at the next start.
#[derive(clap::Args)]
pub struct Args {
    /// CPUs to run a reactor on, one each: `0`, `0-3`, `1,3`. An idle reactor sleeps. Default: the first CPU this
    /// process may use
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// Unix socket for JSON-RPC
    #[arg(long, value_name = "PATH")]
    rpc_socket: Option<PathBuf>,
    /// Directory of the node's configuration journal. Default: /var/lib/pollux as root, ./pollux-state otherwise
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Whether idle reactors sleep
    #[arg(long, value_enum)]
    poll: Option<PollArg>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum PollArg {
    /// Never sleep
    Always,
    /// Sleep after a short while without work
    Adaptive,
}

/// Runs the node to its end.
pub fn run(args: Args) -> ExitCode {
    let logging = start_log();
    let options = match options(args) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("pollux serve: {why}");
            return ExitCode::from(2);
        }
    };
    let ready = || {
        tracing::info!(
            "ready: cores {:?}, RPC at {}, state in {}",
            options.cpus,
            options.rpc_socket.display(),
            options.state_dir.display()
        );
    };
    match app::serve(&options, logging, ready) {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("pollux serve: {why}");
            ExitCode::from(1)
        }
    }
}

/// The log goes to stderr; what of it can be changed by RPC.
fn start_log() -> Logging {
    let settings = Settings::default();
    let (filter, handle) = reload::Layer::new(EnvFilter::new(settings.directives()));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    Logging::new(settings, move |settings| {
        // The subscriber lives as long as the process, so that it can always be told.
        let _ = handle.reload(EnvFilter::new(settings.directives()));
    })
}

/// The options that the arguments name, on top of the defaults.
fn options(args: Args) -> Result<Options, String> {
    let mut options = Options::default();
    if let Some(list) = &args.cores {
        options.cpus = parse_cpus(list).map_err(|e| format!("--cores {list}: {e}"))?;
    }
    if let Some(path) = args.rpc_socket {
        options.rpc_socket = path;
    }
    if let Some(path) = args.state_dir {
        options.state_dir = path;
    }
    match args.poll {
        Some(PollArg::Always) => options.poll = Poll::Always,
        Some(PollArg::Adaptive) => options.poll = Poll::Adaptive,
        None => {}
    }
    Ok(options)
}
