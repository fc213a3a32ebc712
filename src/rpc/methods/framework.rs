//! The node itself: version, methods, start, stop, reactors, threads.

use super::{DONE, Nothing, TICK_RATE, poll_group};
use crate::cluster::{Bdev, Node, ReactorReport};
use crate::rpc::context::Context;
use crate::rpc::error::RpcError;
use crate::rpc::params::{choice, params};
use crate::rpc::table::{Answer, Method, When};
use serde_json::{Value, json};
use std::rc::Rc;

/// The level of SPDK's RPC that we answer like.
const SPDK_LEVEL: (u32, u32, u32) = (26, 9, 0);

choice! {
    /// A signal.
    pub enum Signal {
        /// Stop cleanly.
        Interrupt = "SIGINT",
        /// Stop cleanly.
        Terminate = "SIGTERM",
        /// Stop cleanly.
        Quit = "SIGQUIT",
        /// Stop at once.
        Kill = "SIGKILL",
        /// Nothing waits for it.
        Hangup = "SIGHUP",
        /// Nothing waits for it.
        User1 = "SIGUSR1",
    }
}

params! {
    /// Of `rpc_get_methods`.
    pub struct GetMethods {
        /// Only those that can be called now.
        current: Option<bool>,
        /// Also other names of methods (there are none).
        include_aliases: Option<bool>,
    }

    /// Of `spdk_kill_instance`.
    pub struct KillInstance {
        /// Which signal.
        sig_name: Signal,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::core("spdk_get_version", "Which SPDK level is emulated, and which Pollux this is.", version)
            .when(When::Always),
        Method::core("rpc_get_methods", "The names of the methods.", get_methods).when(When::Always),
        Method::core("spdk_kill_instance", "Stops the node.", kill_instance).when(When::Always),
        Method::core("framework_start_init", "Starts a node that waits for it.", start_init).when(When::Startup),
        Method::core("framework_wait_init", "Returns when the node has started.", wait_init).when(When::Always),
        Method::core("framework_get_reactors", "Reactors, with their busy and idle time.", get_reactors),
        Method::core("thread_get_stats", "Busy and idle time of the reactors' threads.", thread_stats),
        Method::core("thread_get_pollers", "What each reactor polls, and how often it found work.", thread_pollers),
        Method::core("thread_get_io_channels", "What each reactor has open.", thread_channels),
        Method::core("framework_get_pci_devices", "PCI devices driven from user space (none).", pci_devices),
    ]
}

async fn version<N: Node>(_: Rc<Context<N>>, _: Nothing) -> Answer {
    let (major, minor, patch) = SPDK_LEVEL;
    Ok(json!({
        "version": format!("SPDK v{major}.{minor:02} (Pollux {})", env!("CARGO_PKG_VERSION")),
        "fields": {"major": major, "minor": minor, "patch": patch, "suffix": ""},
    }))
}

async fn get_methods<N: Node + 'static>(context: Rc<Context<N>>, p: GetMethods) -> Answer {
    let current = p.current.unwrap_or(false);
    let running = context.running();
    let shown = context.table.iter().filter(|m| !current || m.allowed(running));
    Ok(shown.map(|m| Value::from(m.name)).collect())
}

async fn kill_instance<N: Node>(context: Rc<Context<N>>, p: KillInstance) -> Answer {
    match p.sig_name {
        Signal::Interrupt | Signal::Terminate | Signal::Quit => {
            context.control.node().stop();
            Ok(DONE)
        }
        Signal::Kill => {
            let sent = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            sent.map(|()| DONE).map_err(|e| RpcError::errno(e.raw_os_error(), "SIGKILL"))
        }
        Signal::Hangup | Signal::User1 => Err(RpcError::params("nothing waits for this signal")),
    }
}

async fn start_init<N: Node + 'static>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    context.start().await;
    Ok(DONE)
}

async fn wait_init<N: Node + 'static>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    context.started().await;
    Ok(DONE)
}

async fn get_reactors<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let reactors = context.control.node().reactors().await;
    let times = cpu_times();
    let one = |r: &ReactorReport| {
        let name = format!("cpu{}", r.cpu);
        let [usr, sys, irq] = times.iter().find(|(cpu, _)| *cpu == name).map_or([0; 3], |(_, t)| *t);
        json!({
            "lcore": r.cpu, "numa_id": numa_node(r.cpu), "tid": r.tid, "busy": r.busy_ns, "idle": r.idle_ns, "in_interrupt": r.adaptive,
            "irq": irq, "sys": sys, "usr": usr,
            "lw_threads": [{
                "name": poll_group(r.core), "id": thread_id(r), "cpumask": cpumask(r.cpu), "elapsed": r.elapsed_ns,
            }],
        })
    };
    let pid = std::process::id();
    Ok(json!({"tick_rate": TICK_RATE, "pid": pid, "reactors": reactors.iter().map(one).collect::<Vec<_>>()}))
}

/// User, system and interrupt time of every CPU, in ticks of the kernel (`/proc/stat`); none where there is no such file.
fn cpu_times() -> Vec<(String, [u64; 3])> {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.to_owned();
        let ticks: Vec<u64> = words.filter_map(|w| w.parse().ok()).collect();
        // user nice system idle iowait irq softirq ...
        Some((name, [*ticks.first()? + *ticks.get(1)?, *ticks.get(2)?, *ticks.get(5)? + *ticks.get(6)?]))
    };
    text.lines().filter(|l| l.starts_with("cpu")).filter_map(line).collect()
}

/// The CPU's memory node (`/sys`), -1 where the kernel has none.
fn numa_node(cpu: u32) -> i64 {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).into_iter().flatten().flatten();
    let number = |e: std::fs::DirEntry| e.file_name().to_str()?.strip_prefix("node")?.parse().ok();
    entries.into_iter().find_map(number).unwrap_or(-1)
}

fn thread_id(r: &ReactorReport) -> u32 {
    u32::from(r.core.0) + 1
}

/// A mask with one CPU set, in hexadecimal without a prefix, as SPDK prints it.
fn cpumask(cpu: u32) -> String {
    let digit = 1u32 << (cpu % 4);
    format!("{digit:x}{}", "0".repeat(cpu as usize / 4))
}

async fn thread_stats<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let one = |r: &ReactorReport| {
        json!({
            "name": poll_group(r.core), "id": thread_id(r), "cpumask": cpumask(r.cpu), "busy": r.busy_ns,
            "idle": r.idle_ns, "active_pollers_count": 1, "timed_pollers_count": 0, "paused_pollers_count": 0,
        })
    };
    let reactors = context.control.node().reactors().await;
    Ok(json!({"tick_rate": TICK_RATE, "threads": reactors.iter().map(one).collect::<Vec<_>>()}))
}

async fn thread_pollers<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let one = |r: &ReactorReport| {
        let tick = json!({
            "name": "tick", "id": 1, "state": "waiting", "run_count": r.ticks, "busy_count": r.busy_ticks,
        });
        json!({
            "name": poll_group(r.core), "id": thread_id(r), "active_pollers": [tick], "timed_pollers": [],
            "paused_pollers": [],
        })
    };
    let reactors = context.control.node().reactors().await;
    Ok(json!({"tick_rate": TICK_RATE, "threads": reactors.iter().map(one).collect::<Vec<_>>()}))
}

async fn thread_channels<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let bdevs = context.control.bdevs();
    let names = bdevs.iter().map(Bdev::name).map(|name| format!("bdev_{name}"));
    let channels: Vec<Value> = names.map(|name| json!({"name": name, "ref": 1})).collect();
    let reactors = context.control.node().reactors().await;
    let one = |r: &ReactorReport| json!({"name": poll_group(r.core), "io_channels": channels});
    Ok(json!({"tick_rate": TICK_RATE, "threads": reactors.iter().map(one).collect::<Vec<_>>()}))
}

async fn pci_devices<N: Node>(_: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(Value::Array(Vec::new()))
}
