//! `pollux bench`: its arguments, and from them to a run.

use crate::auth::chap::Algorithm;
use crate::bench::echo;
use crate::bench::report::{Report, Setting};
use crate::bench::run::{self, Ending, Options, Source, StoreRun, Verify};
use crate::bench::store::VolumeSize;
use crate::bench::units::{ByteRange, parse_count, parse_duration, parse_range, parse_size};
use crate::bench::worker::Results;
use crate::bench::workload::{Pattern, Skew};
use crate::initiator::url::Url;
use crate::store::Limits;
use crate::wire::iscsi::value::is_name;
use clap::{ArgGroup, ValueEnum};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Exit codes, in the order of what hides what: damage is reported even when requests failed as well.
mod code {
    pub const COULD_NOT_RUN: u8 = 1;
    pub const IO_ERRORS: u8 = 3;
    pub const VERIFY_ERRORS: u8 = 4;
    pub const INTERRUPTED: u8 = 130;
}

/// Measured time when neither --time nor --count is given.
const DEFAULT_TIME: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "\
Exit codes:
  0    the run took place; no request failed and nothing was damaged
  1    the run could not take place: target, log or file not usable (or the verify log could not be written)
  2    wrong usage
  3    requests failed, or the target went away before the end
  4    verify errors: data was not what it must be (also when requests failed as well)
  130  interrupted; the figures up to then are printed

Verify mode (--verify) stamps every 512 bytes written with volume, LBA, operation, generation, writer and a CRC32C, checks
every block it reads, and reads everything written back at the end. Wrong, lost, stale, misdirected or torn blocks are
explained on stderr, one line each. With --verify-log FILE it remembers across runs what was sent, acknowledged and seen:
kill the target, start it again, run again with the same file, and every block ever written is checked first. A block may
hold the newest acknowledged generation or a later one that was sent, never an older one, and never go back.

Examples:
  pollux bench --url nvme+tcp://127.0.0.1:4420/nqn.2024-01.io.pollux:vol1 --rw randread --qd 32 --time 10
  pollux bench --url ... --rw randrw --rwmix 70 --bs 8k --qd 16 --conns 4 --verify --verify-log /tmp/v --json
  pollux bench --url iscsi://user%secret@127.0.0.1:3260/iqn.2024-01.io.pollux:t1/0 --rw randread --qd 32
  pollux bench --device ram:1g --rw randwrite --qd 32 --count 1m
  pollux bench --store file:/data/disk,size=8g --rw randwrite --qd 32 --verify
  pollux bench --store ram:1g --fill 70,80,90 --skew 80/20 --overwrites 5
  pollux bench --store file:/data/disk,size=48g --volume 40g --blocks 10m
  pollux bench --echo-server 127.0.0.1:9000 --cores 0 &  pollux bench --echo 127.0.0.1:9000 --cores 1 --qd 32";

/// `--rw`
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Rw {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Random reads.
    RandRead,
    /// Random writes.
    RandWrite,
    /// Sequential reads and writes, by --rwmix.
    Rw,
    /// Random reads and writes, by --rwmix.
    RandRw,
}

impl Rw {
    fn name(self) -> &'static str {
        match self {
            Rw::Read => "read",
            Rw::Write => "write",
            Rw::RandRead => "randread",
            Rw::RandWrite => "randwrite",
            Rw::Rw => "rw",
            Rw::RandRw => "randrw",
        }
    }
    fn pattern(self) -> Pattern {
        match self {
            Rw::Read | Rw::Write | Rw::Rw => Pattern::Sequential,
            Rw::RandRead | Rw::RandWrite | Rw::RandRw => Pattern::Random,
        }
    }
    fn read_percent(self, mix: u8) -> u8 {
        match self {
            Rw::Read | Rw::RandRead => 100,
            Rw::Write | Rw::RandWrite => 0,
            Rw::Rw | Rw::RandRw => mix,
        }
    }
}

/// Offer load to a volume, a device or a store, and measure or verify it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
#[command(group = ArgGroup::new("what").required(true).args(["url", "device", "store", "echo", "echo_server"]))]
pub struct Args {
    /// A volume behind NVMe/TCP, nvme+tcp://HOST:PORT/NQN[?nsid=N], or iSCSI, iscsi://[USER%SECRET@]HOST:PORT/IQN/LUN
    #[arg(long, value_name = "URL")]
    pub url: Option<Url>,
    /// A device by its spec: ram:SIZE, uring:PATH, ...
    #[arg(long, value_name = "SPEC")]
    pub device: Option<crate::device::Spec>,
    /// A log store on a device by its spec, opened, or formatted where there is none
    #[arg(long, value_name = "SPEC")]
    pub store: Option<crate::device::Spec>,
    /// Measure the raw limit of TCP against an --echo-server
    #[arg(long, value_name = "HOST:PORT")]
    pub echo: Option<String>,
    /// Answer --echo clients until interrupted
    #[arg(long, value_name = "ADDR:PORT")]
    pub echo_server: Option<SocketAddr>,

    /// Order and direction of accesses
    #[arg(long, value_enum, default_value = "randread")]
    pub rw: Rw,
    /// Percent of reads in rw and randrw
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmix: u8,
    /// Bytes per access
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = parse_size)]
    pub bs: u64,
    /// Requests under way per connection
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub qd: u16,
    /// Connections (or device queues' worth of depth), spread over the workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub conns: u16,
    /// Measure for so long [default: 10s, unless --count is given]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub time: Option<Duration>,
    /// Measure so many accesses
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub count: Option<u64>,
    /// Offer load for so long before measuring
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Offer so many accesses per second; latency then counts from when each was due
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub rate: Option<u64>,
    /// CPUs to pin workers to, one worker each: 1 or 0,2-3 [default: one worker, not pinned]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<Cores>,
    /// Repeat the same sequence of accesses
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Use a part of the target: LEN or OFFSET+LEN
    #[arg(long, value_name = "RANGE", value_parser = parse_range)]
    pub range: Option<ByteRange>,
    /// Distribution of random accesses: uniform, A/S (A % of accesses to S % of the range) or zipf:THETA
    #[arg(long, value_name = "SKEW", default_value = "uniform", value_parser = parse_skew)]
    pub skew: Skew,
    /// Flush after so many writes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub flush: u32,

    /// Write the whole range once before measuring, so that reads find data
    #[arg(long)]
    pub prefill: bool,

    /// Verify: recognise everything written, check everything read
    #[arg(long)]
    pub verify: bool,
    /// Verify across runs: keep what was sent, acknowledged and seen in FILE (implies --verify)
    #[arg(long, value_name = "FILE")]
    pub verify_log: Option<PathBuf>,
    /// Read back and check what --verify-log knows, and end
    #[arg(long, requires = "verify_log")]
    pub verify_only: bool,
    /// Do not read everything back at the end of a verify run
    #[arg(long)]
    pub no_read_back: bool,

    /// --store: make a new, empty store even where there is one
    #[arg(long)]
    pub format: bool,
    /// --store: bytes of the volume [default: the one that is there, or 3/4 of the store]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub volume: Option<u64>,
    /// --store: bytes per logical block of a new volume
    #[arg(long, value_name = "512|4096", default_value = "4096", value_parser = parse_lba)]
    pub lba: u32,
    /// --store: on a fresh store for each PERCENT, fill that part of it, overwrite it, and report the write amplification
    /// of cleaning (takes --overwrites, --skew, --qd)
    #[arg(long, value_name = "PERCENT,..", value_delimiter = ',', conflicts_with = "blocks",
          value_parser = clap::value_parser!(u8).range(1..=95))]
    pub fill: Vec<u8>,
    /// --store --fill: overwrite the volume so often; the last time counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub overwrites: u32,
    /// --store: on a fresh store, map N blocks in random order and report memory per block and restart time
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub blocks: Option<u64>,
    /// --store: bytes of a segment of a new store
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub segment: Option<u64>,

    /// Ask for header digests
    #[arg(long)]
    pub hdgst: bool,
    /// Ask for data digests
    #[arg(long)]
    pub ddgst: bool,
    /// NQN of this host [default: /etc/nvme/hostnqn, else made from the machine id]
    #[arg(long, value_name = "NQN", value_parser = parse_nqn)]
    pub hostnqn: Option<String>,
    /// iSCSI name of this host [default: /etc/iscsi/initiatorname.iscsi, else made from the machine id]
    #[arg(long, value_name = "IQN", value_parser = parse_iscsi_name)]
    pub initiator: Option<String>,
    /// Have an iSCSI target prove itself too (mutual CHAP)
    #[arg(long, value_name = "USER%SECRET", value_parser = parse_chap)]
    pub chap_target: Option<(String, String)>,
    /// CHAP algorithms to offer, best first: md5, sha1, sha256, sha3-256 [default: all, the strongest first]
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = parse_algorithm)]
    pub chap_algorithms: Vec<Algorithm>,
    /// Give up on a request after so long
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// After a lost connection, connect again for so long instead of ending
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
    pub reconnect: Duration,

    /// Print one line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Draw the latencies into FILE
    #[arg(long, value_name = "FILE.svg")]
    pub histogram: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

/// A list of CPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cores(pub Vec<usize>);

fn parse_cores(text: &str) -> Result<Cores, String> {
    let number = |t: &str| t.trim().parse::<usize>().map_err(|_| format!("`{t}` is not a CPU number"));
    let mut out = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((from, to)) => {
                let (from, to) = (number(from)?, number(to)?);
                if from > to || to - from >= 1024 {
                    return Err(format!("`{part}` is not a range of CPUs"));
                }
                out.extend(from..=to);
            }
            None => out.push(number(part)?),
        }
    }
    Ok(Cores(out))
}

fn parse_skew(text: &str) -> Result<Skew, String> {
    let wanted = || format!("`{text}` is not uniform, A/S in percent such as 80/20, or zipf:THETA with 0 < THETA < 5");
    if text == "uniform" {
        return Ok(Skew::Uniform);
    }
    if let Some(theta) = text.strip_prefix("zipf:") {
        let theta: f64 = theta.parse().map_err(|_| wanted())?;
        return if theta > 0.0 && theta < 5.0 { Ok(Skew::Zipf(theta)) } else { Err(wanted()) };
    }
    let percent = |t: &str| t.parse::<u8>().ok().filter(|p| (1..=99).contains(p));
    let (access, space) = text.split_once('/').ok_or_else(wanted)?;
    match (percent(access), percent(space)) {
        (Some(access), Some(space)) => Ok(Skew::Hot { access, space }),
        _ => Err(wanted()),
    }
}

fn parse_lba(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" | "4k" => Ok(4096),
        _ => Err(format!("`{text}` is not 512 or 4096")),
    }
}

fn parse_nqn(text: &str) -> Result<String, String> {
    let valid = crate::wire::fabrics::nqn_valid(text);
    if valid { Ok(text.to_owned()) } else { Err(format!("`{text}` is not an NQN")) }
}

fn parse_iscsi_name(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("`{text}` is not an iSCSI name")) }
}

fn parse_chap(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('%').filter(|(user, secret)| !user.is_empty() && !secret.is_empty());
    parts.map(|(user, secret)| (user.into(), secret.into())).ok_or_else(|| "this is not USER%SECRET".into())
}

fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    match text {
        "md5" => Ok(Algorithm::Md5),
        "sha1" => Ok(Algorithm::Sha1),
        "sha256" => Ok(Algorithm::Sha256),
        "sha3-256" => Ok(Algorithm::Sha3_256),
        _ => Err(format!("`{text}` is not md5, sha1, sha256 or sha3-256")),
    }
}

/// Runs `pollux bench`.
pub fn run(args: Args) -> ExitCode {
    let outcome = match (&args.echo_server, &args.echo) {
        (Some(addr), _) => echo_server(*addr, &args),
        (None, Some(addr)) => echo_client(addr, &args),
        (None, None) => load(args),
    };
    match outcome {
        Ok(code) => code,
        Err(why) => {
            eprintln!("pollux bench: {why}");
            ExitCode::from(code::COULD_NOT_RUN)
        }
    }
}

fn options(args: Args) -> Result<Options, String> {
    // Clap's `requires` does not look at what a group excludes.
    let for_store = [
        ("--format", args.format),
        ("--volume", args.volume.is_some()),
        ("--fill", !args.fill.is_empty()),
        ("--blocks", args.blocks.is_some()),
        ("--segment", args.segment.is_some()),
    ];
    if let (None, Some((name, _))) = (&args.store, for_store.iter().find(|(_, given)| *given)) {
        return Err(format!("{name} is for --store"));
    }
    let mut limits = Limits::default();
    if let Some(bytes) = args.segment {
        limits.segment_bytes = u32::try_from(bytes).map_err(|_| format!("--segment {bytes} is too large"))?;
    }
    let source = match (args.url, args.device, args.store) {
        (Some(url), _, _) => Source::Url(url),
        (None, Some(spec), _) => Source::Device(spec),
        (None, None, Some(spec)) => {
            let volume = args.volume.map_or(VolumeSize::Default, VolumeSize::Bytes);
            let (fill, overwrites, blocks) = (args.fill, args.overwrites, args.blocks);
            let store = StoreRun { format: args.format, volume, lba_bytes: args.lba, fill, overwrites, blocks, limits };
            Source::Store(spec, store)
        }
        (None, None, None) => return Err("nothing to drive".into()),
    };
    if args.chap_target.is_some() && !matches!(&source, Source::Url(Url::Iscsi(url)) if url.user.is_some()) {
        return Err("--chap-target goes with an address of iscsi://USER%SECRET@...".into());
    }
    let verify = args.verify || args.verify_log.is_some();
    let time = match (args.time, args.count) {
        (None, None) => Some(DEFAULT_TIME),
        (time, _) => time,
    };
    if args.rate == Some(0) || args.count == Some(0) {
        return Err("--rate and --count must be more than 0".into());
    }
    Ok(Options {
        source,
        pattern: args.rw.pattern(),
        read_percent: args.rw.read_percent(args.rwmix),
        rw: args.rw.name().into(),
        block_bytes: u32::try_from(args.bs).map_err(|_| format!("--bs {} is too large", args.bs))?,
        depth: args.qd,
        conns: args.conns,
        warmup: args.warmup,
        time,
        count: args.count,
        rate: args.rate,
        cores: args.cores.map_or_else(Vec::new, |c| c.0),
        seed: args.seed,
        range: args.range,
        skew: args.skew,
        flush_every: args.flush,
        prefill: args.prefill,
        verify: verify.then_some(Verify {
            log: args.verify_log,
            only: args.verify_only,
            no_read_back: args.no_read_back,
        }),
        header_digest: args.hdgst,
        data_digest: args.ddgst,
        hostnqn: args.hostnqn,
        initiator: args.initiator,
        chap_target: args.chap_target,
        chap_algorithms: args.chap_algorithms,
        timeout: args.timeout,
        reconnect: args.reconnect,
        histogram: args.histogram,
        progress: !args.quiet,
    })
}

fn load(args: Args) -> Result<ExitCode, String> {
    let json = args.json;
    let options = options(args)?;
    let (report, ending) = run::run(&options).map_err(|e| e.to_string())?;
    print(&report, json);
    Ok(match ending {
        Ending::Whole => ExitCode::SUCCESS,
        Ending::Interrupted => ExitCode::from(code::INTERRUPTED),
        Ending::IoErrors => ExitCode::from(code::IO_ERRORS),
        Ending::VerifyErrors => ExitCode::from(code::VERIFY_ERRORS),
        Ending::LogFailed => ExitCode::from(code::COULD_NOT_RUN),
    })
}

/// Figures to stdout, damage to stderr.
fn print(report: &Report, json: bool) {
    if let Some(verify) = &report.verify {
        for line in &verify.damage {
            eprintln!("{line}");
        }
        let more = report.verify_errors.saturating_sub(verify.damage.len() as u64);
        if more > 0 {
            eprintln!("... and {more} more damaged blocks");
        }
    }
    if json {
        println!("{}", report.json());
        if let Some(why) = &report.stopped {
            eprintln!("pollux bench: ended early: {why}");
        }
    } else {
        print!("{}", report.table());
    }
}

fn pin(args: &Args) {
    if let Some(id) = args.cores.as_ref().and_then(|c| c.0.first().copied()) {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

fn echo_server(addr: SocketAddr, args: &Args) -> Result<ExitCode, String> {
    let listener = TcpListener::bind(addr).map_err(|e| format!("listen on {addr}: {e}"))?;
    pin(args);
    eprintln!("echo server on {}", listener.local_addr().map_err(|e| e.to_string())?);
    echo::serve(&listener, &AtomicBool::new(false)).map_err(|e| e.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn echo_client(addr: &str, args: &Args) -> Result<ExitCode, String> {
    let read_percent = args.rw.read_percent(args.rwmix);
    if !matches!(read_percent, 0 | 100) {
        return Err("an echo is either all reads or all writes".into());
    }
    if args.bs > echo::PAYLOAD_MAX as u64 {
        return Err(format!("--bs is at most {} for an echo", echo::PAYLOAD_MAX));
    }
    let failed = |e: std::io::Error| format!("echo {addr}: {e}");
    let to = addr.to_socket_addrs().map_err(failed)?.next().ok_or_else(|| format!("{addr} has no address"))?;
    pin(args);
    let load = echo::Load {
        write: read_percent == 0,
        payload: args.bs as usize,
        depth: usize::from(args.qd),
        conns: usize::from(args.conns),
        warmup_ns: args.warmup.as_nanos() as u64,
        time_ns: args
            .time
            .or(args.count.is_none().then_some(DEFAULT_TIME))
            .map_or(u64::MAX >> 1, |t| t.as_nanos() as u64),
        count: args.count.unwrap_or(u64::MAX),
    };
    let measured = echo::load(to, &load, &AtomicBool::new(false)).map_err(failed)?;
    let mut results = Results { window_ns: measured.window_ns, turns_ns: measured.window_ns, ..Results::default() };
    results.busy_ns = measured.busy_ns;
    *(if load.write { &mut results.write } else { &mut results.read }) = measured.recorder;
    let setting = Setting {
        target: format!("echo://{to}"),
        rw: args.rw.name().into(),
        read_percent,
        block_bytes: args.bs as u32,
        queue_depth: u32::from(args.qd),
        connections: u32::from(args.conns),
        workers: 1,
        seed: 0,
    };
    print(&Report::new(&results, setting, false), args.json);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        options(Cli::try_parse_from(words).map_err(|e| e.to_string())?.args)
    }

    #[test]
    fn the_contract_of_the_acceptance_checks() {
        let o = parse("--url nvme+tcp://10.77.0.2:4420/nqn.2016-06.io.spdk:cnode1 --rw randrw --bs 4096 --qd 16 --conns 4 --time 8 --verify --json").unwrap();
        assert_eq!((o.rw.as_str(), o.block_bytes, o.depth, o.conns, o.read_percent), ("randrw", 4096, 16, 4, 50));
        assert_eq!((o.time, o.count), (Some(Duration::from_secs(8)), None));
        assert!(o.verify.is_some_and(|v| v.log.is_none()));
    }

    #[test]
    fn defaults_and_implications() {
        let o = parse("--device ram:1g").unwrap();
        assert_eq!((o.rw.as_str(), o.block_bytes, o.depth, o.read_percent), ("randread", 4096, 32, 100));
        assert_eq!(o.time, Some(Duration::from_secs(10)));
        assert!(o.verify.is_none() && o.cores.is_empty() && o.progress);
        let o = parse("--device ram:1g --count 5k --verify-log /tmp/x --cores 0,2-3 --skew 80/20 --rw write").unwrap();
        assert_eq!((o.time, o.count, o.read_percent), (None, Some(5000), 0));
        assert_eq!((o.cores, o.skew), (vec![0, 2, 3], Skew::Hot { access: 80, space: 20 }));
        assert!(o.verify.is_some_and(|v| v.log.is_some() && !v.only));
    }

    #[test]
    fn refusals_say_what_is_wanted() {
        for (line, part) in [
            ("", "required"),
            ("--device ram:1g --url nvme+tcp://h/nqn.2016-06.io.spdk:a", "cannot be used with"),
            ("--url http://x", "begins with nvme+tcp:// or iscsi://"),
            ("--device ram:1g --bs 4q", "is not a size"),
            ("--device ram:1g --skew 0/20", "80/20"),
            ("--device ram:1g --cores 3-1", "not a range of CPUs"),
            ("--device ram:1g --verify-only", "--verify-log"),
            ("--device ram:1g --rate 0", "more than 0"),
            ("--device ram:1g --rwmix 101", "101"),
            ("--device ram:1g --hostnqn foo", "not an NQN"),
            ("--device ram:1g --initiator foo", "not an iSCSI name"),
            ("--device ram:1g --chap-target foo", "not USER%SECRET"),
            ("--url iscsi://h/iqn.2024-01.io.pollux:t/0 --chap-target a%b", "goes with an address"),
            ("--url iscsi://h/iqn.2024-01.io.pollux:t", "is not a logical unit number"),
            ("--device ram:1g --fill 70", "--store"),
            ("--store ram:1g --fill 70 --blocks 5", "cannot be used with"),
            ("--store ram:1g --lba 520", "not 512 or 4096"),
        ] {
            let Err(error) = parse(line) else { panic!("`{line}` was accepted") };
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
