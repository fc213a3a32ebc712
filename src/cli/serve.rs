//! `pollux serve`: a node in the foreground.

use super::config::{self, Loaded};
use crate::app::{self, Options};
use crate::reactor::{Poll, parse_cpus};
use crate::rpc::{Level, Logging, Settings};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

/// Arguments of `pollux serve`. Without any, the node is empty and is set up by RPC; what it is told is kept in the
/// state directory and is there again at the next start.
#[derive(clap::Args)]
pub struct Args {
    /// TOML configuration; config/reference.toml shows every key. Flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    /// Open nothing before `framework_start_init` is called
    #[arg(long)]
    wait_for_rpc: bool,
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
    let Loaded { options, log } = match options(args) {
        Ok(loaded) => loaded,
        Err(why) => {
            eprintln!("pollux serve: {why}");
            return ExitCode::from(2);
        }
    };
    let logging = start_log(log);
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
fn start_log(level: Option<Level>) -> Logging {
    let mut settings = Settings::default();
    if let Some(level) = level {
        (settings.level, settings.print_level) = (level, level);
    }
    let (filter, handle) = reload::Layer::new(EnvFilter::new(settings.directives()));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    Logging::new(settings, move |settings| {
        // The subscriber lives as long as the process, so that it can always be told.
        let _ = handle.reload(EnvFilter::new(settings.directives()));
    })
}

/// The options that the arguments name, on top of the file's, on top of the defaults.
fn options(args: Args) -> Result<Loaded, String> {
    let mut loaded = match &args.config {
        Some(file) => config::load(file)?,
        None => Loaded { options: Options::default(), log: None },
    };
    let options = &mut loaded.options;
    options.wait_for_rpc = args.wait_for_rpc;
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
    Ok(loaded)
}
