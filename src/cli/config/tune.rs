//! The sections that tune a node: `[node]`, `[rpc]`, `[memory]`, `[tcp]`, `[nvmf]`, `[store]`.

use super::Loaded;
use super::read::{ConfigError, Section};
use crate::app::Options;
use crate::mem::{CLASSES_MAX, Class, Sizing};
use crate::net::Engine;
use crate::reactor::{Poll, parse_cpus};
use crate::rpc::Level;
use crate::{base, iscsi, nvmf, store};
use std::path::PathBuf;

type Done = Result<(), ConfigError>;

/// Sets `to` when the file says.
fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

/// Sets a field of any width to a number that fits it.
macro_rules! numbers {
    ($section:ident, $to:expr, { $($key:ident: $range:expr,)+ }) => {$(
        if let Some(n) = $section.number(stringify!($key), $range)? {
            $to.$key = n.try_into().map_err(|_| $section.wrong(stringify!($key), "is too large"))?;
        }
    )+};
}

/// The same for sizes, which may have a unit.
macro_rules! sizes {
    ($section:ident, $to:expr, { $($key:ident: $range:expr,)+ }) => {$(
        if let Some(n) = $section.bytes(stringify!($key), $range)? {
            $to.$key = n.try_into().map_err(|_| $section.wrong(stringify!($key), "is too large"))?;
        }
    )+};
}

/// `[node]`
pub fn node(s: Section<'_>, to: &mut Loaded) -> Done {
    let levels = [
        ("error", Level::Error),
        ("warning", Level::Warning),
        ("notice", Level::Notice),
        ("info", Level::Info),
        ("debug", Level::Debug),
    ];
    set(&mut to.options.cpus, s.parsed("cores", parse_cpus)?);
    set(&mut to.options.poll, s.word("poll", &[("adaptive", Poll::Adaptive), ("always", Poll::Always)])?);
    set(&mut to.options.stall_ns, s.number("stall_us", 100..=60_000_000)?.map(|us| us * 1000));
    set(&mut to.options.state_dir, path(&s, "state_dir")?);
    to.log = s.word("log", &levels)?;
    s.finish()
}

fn path(s: &Section<'_>, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
    s.parsed(key, |text| if text.is_empty() { Err("is empty") } else { Ok(PathBuf::from(text)) })
}

/// `[rpc]`
pub fn rpc(s: Section<'_>, to: &mut Options) -> Done {
    set(&mut to.rpc_socket, path(&s, "socket")?);
    sizes!(s, to.rpc, { body_bytes: 4096..=64 << 20, });
    numbers!(s, to.rpc, {
        clients: 1..=1024,
        rate_per_s: 1..=1_000_000,
        burst: 1..=1_000_000,
        stall_ms: 100..=3_600_000,
    });
    s.finish()
}

/// `[memory]`
pub fn memory(s: Section<'_>, to: &mut Options) -> Done {
    let sections = s.sections("buffers")?;
    let mut classes = Vec::new();
    for class in sections {
        let size = class.bytes("size", 4096..=crate::mem::SIZE_MAX as u64)?;
        let count = class.number("count", 1..=1 << 24)?;
        classes.push(Class {
            size: class.required("size", size)? as usize,
            count: class.required("count", count)? as usize,
        });
        class.finish()?;
    }
    if s.has("buffers") {
        if classes.len() > CLASSES_MAX {
            return Err(s.wrong("buffers", format!("there may be at most {CLASSES_MAX} sizes")));
        }
        to.buffers = Sizing::new(classes).map_err(|e| s.wrong("buffers", e.to_string()))?;
    }
    s.finish()
}

/// `[tcp]`
pub fn tcp(s: Section<'_>, options: &mut Options) -> Done {
    set(&mut options.engine, s.parsed("engine", str::parse::<Engine>)?);
    let to = &mut options.tcp;
    numbers!(s, to, {
        conns_max: 1..=base::limits::CONNS_PER_CORE as u64,
        backlog: 1..=65535,
        busy_poll_us: 0..=1000,
        keepalive_s: 1..=3600,
        unacked_ms: 0..=600_000,
    });
    if let Some(bytes) = s.bytes("kernel_buffer", 4096..=1 << 30)? {
        to.kernel_buffer = Some(bytes as usize);
    }
    s.finish()
}

/// `[nvmf]`
pub fn nvmf(s: Section<'_>, to: &mut nvmf::Config) -> Done {
    numbers!(s, to, {
        connections: 1..=base::limits::CONNS_PER_CORE as u64,
        connections_per_host: 1..=base::limits::CONNS_PER_CORE as u64,
        unassociated: 1..=base::limits::CONNS_PER_CORE as u64,
        unassociated_per_address: 1..=base::limits::CONNS_PER_CORE as u64,
        connect_ms: 100..=600_000,
        controllers: 1..=base::limits::CONNS_PER_CORE as u64,
        discovery_controllers: 1..=base::limits::CONNS_PER_CORE as u64,
        keep_alive_min_ms: 100..=600_000,
        keep_alive_max_ms: 1000..=86_400_000,
        discovery_idle_ms: 1000..=86_400_000,
        events: 1..=255,
        aborts: 1..=255,
        cpda: 0..=31,
    });
    sizes!(s, to, {
        log_page_bytes: 4096..=1 << 20,
        unsent_bytes: 64 << 10..=1 << 30,
        h2c_data_bytes: 4096..=1 << 20,
    });
    set(&mut to.header_digest, s.flag("header_digest")?);
    set(&mut to.data_digest, s.flag("data_digest")?);
    if to.keep_alive_min_ms > to.keep_alive_max_ms {
        return Err(s.wrong("keep_alive_min_ms", "must not be more than keep_alive_max_ms"));
    }
    if !to.h2c_data_bytes.is_multiple_of(4) {
        return Err(s.wrong("h2c_data_bytes", "must be a multiple of 4"));
    }
    s.finish()
}

/// `[iscsi]`, but for what it declares
pub fn iscsi(s: &Section<'_>, to: &mut iscsi::Config) -> Done {
    numbers!(s, to, {
        connections: 1..=base::limits::CONNS_PER_CORE as u64,
        connections_per_initiator: 1..=base::limits::CONNS_PER_CORE as u64,
        unauthenticated: 1..=base::limits::CONNS_PER_CORE as u64,
        unauthenticated_per_address: 1..=base::limits::CONNS_PER_CORE as u64,
        login_ms: 100..=600_000,
        login_pdus: 4..=1024,
        login_failures: 1..=65535,
        failure_window_ms: 1..=3_600_000,
        sessions: 1..=base::limits::CONNS_PER_CORE as u64,
        discovery_sessions: 1..=base::limits::CONNS_PER_CORE as u64,
        discovery_idle_ms: 1000..=86_400_000,
        immediates: 1..=256,
        logout_s: 1..=3600,
    });
    sizes!(s, to, {
        text_bytes: 8192..=16 << 20,
        unsent_bytes: 64 << 10..=1 << 30,
    });
    Ok(())
}

/// `[store]`
pub fn store(s: Section<'_>, to: &mut store::Limits) -> Done {
    sizes!(s, to, {
        segment_bytes: 64 << 10..=64 << 20,
        batch_bytes: 8 << 10..=2 << 20,
        index_bytes: 0..=1 << 40,
        checkpoint_bytes: 0..=1 << 40,
        scrub_bytes_per_sec: 0..=1 << 40,
    });
    numbers!(s, to, {
        batches: 1..=64,
        reads: 1..=65535,
        partials: 1..=65535,
        volumes: 1..=65535,
        fill_percent: 50..=95,
        checkpoint_pages: 1..=65535,
    });
    if !to.segment_bytes.is_power_of_two() {
        return Err(s.wrong("segment_bytes", "must be a power of two"));
    }
    if !to.batch_bytes.is_multiple_of(4096) {
        return Err(s.wrong("batch_bytes", "must be a multiple of 4096"));
    }
    s.finish()
}
