//! Counters: I/O per bdev, buffers per core.

use super::{DONE, Nothing, TICK_RATE, poll_group};
use crate::base::VolumeId;
use crate::cluster::{Bdev, CoreIoStat, IoStat, Node, OpStat, PoolReport};
use crate::rpc::context::{Context, bdev_error};
use crate::rpc::error::RpcError;
use crate::rpc::params::{choice, params};
use crate::rpc::table::{Answer, Method};
use serde_json::{Value, json};
use std::rc::Rc;

choice! {
    /// Which counters are set to 0.
    pub enum Reset {
        /// All of them.
        All = "all",
        /// The largest and smallest latencies.
        MaxMin = "maxmin",
        /// The errors.
        Error = "error",
        /// None.
        Nothing = "none",
    }
}

params! {
    /// Of `bdev_get_iostat`.
    pub struct GetIostat {
        /// Only these bdevs.
        names: Option<Vec<String>>,
        /// Only this one (as before SPDK 26).
        name: Option<String>,
        /// Per core, of one bdev.
        per_channel: Option<bool>,
        /// Counters to set to 0 afterwards.
        reset_mode: Option<Reset>,
    }

    /// Of `bdev_reset_iostat`.
    pub struct ResetIostat {
        /// Only this bdev.
        name: Option<String>,
        /// Which counters; all unless given.
        mode: Option<Reset>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::bdev("bdev_get_iostat", "Operations, bytes and latencies per bdev.", get_iostat),
        Method::bdev("bdev_reset_iostat", "Sets these counters to 0.", reset_iostat),
        Method::core("iobuf_get_stats", "Buffers per core: `cache` are in use, `retry` were missing.", get_pools),
    ]
}

async fn get_iostat<N: Node>(context: Rc<Context<N>>, p: GetIostat) -> Answer {
    let names: Vec<String> = p.names.unwrap_or_default().into_iter().chain(p.name).collect();
    let bdevs = match names.as_slice() {
        [] => context.control.bdevs(),
        names => names.iter().map(|n| context.control.bdev(n)).collect::<Result<_, _>>().map_err(bdev_error)?,
    };
    let per_channel = p.per_channel.unwrap_or(false);
    if per_channel && names.len() != 1 {
        return Err(RpcError::errno(libc::EINVAL, "per_channel needs the name of one bdev"));
    }
    let stats = context.control.node().iostat().await;
    let ticks = context.control.node().now_ns();
    let answer = match bdevs.as_slice() {
        [one] if per_channel => {
            let mine = stats.iter().filter(|s| s.volume == one.id());
            let channels: Vec<Value> = mine.map(channel).collect();
            json!({"tick_rate": TICK_RATE, "ticks": ticks, "name": one.name(), "channels": channels})
        }
        all => {
            let bdevs: Vec<Value> = all.iter().map(|b| whole(&stats, b)).collect();
            json!({"tick_rate": TICK_RATE, "ticks": ticks, "bdevs": bdevs})
        }
    };
    if let Some(mode) = p.reset_mode {
        for bdev in &bdevs {
            reset(&context, mode, Some(bdev.id())).await?;
        }
    }
    Ok(answer)
}

fn channel(stat: &CoreIoStat) -> Value {
    let mut channel = json!({"thread_id": u32::from(stat.core.0) + 1});
    counters(&mut channel, &stat.stat);
    channel
}

fn whole(stats: &[CoreIoStat], bdev: &Bdev) -> Value {
    let mine = stats.iter().filter(|s| s.volume == bdev.id());
    let sum = mine.fold(IoStat::default(), |sum, s| sum.and(s.stat));
    let mut all = json!({"name": bdev.name()});
    counters(&mut all, &sum);
    all
}

fn counters(into: &mut Value, stat: &IoStat) {
    let copy = OpStat::default();
    let ops = [("read", "read", &stat.read), ("write", "written", &stat.write)];
    let more = [("unmap", "unmapped", &stat.unmap), ("copy", "copied", &copy)];
    let ops = ops.into_iter().chain(more);
    for (name, moved, op) in ops.clone() {
        into[format!("bytes_{moved}")] = op.bytes.into();
        into[format!("num_{name}_ops")] = op.ops.into();
    }
    for (name, _, op) in ops {
        into[format!("{name}_latency_ticks")] = op.latency_ns.into();
        into[format!("max_{name}_latency_ticks")] = op.latency_max_ns.into();
        into[format!("min_{name}_latency_ticks")] = op.latency_min_ns.into();
    }
    into["io_error"] = json!({"total": stat.errors});
    into["queue_depth"] = stat.queue_depth.into();
}

async fn reset<N: Node>(context: &Context<N>, mode: Reset, volume: Option<VolumeId>) -> Result<(), RpcError> {
    match mode {
        Reset::Nothing => {}
        Reset::All => context.control.node().reset_iostat(volume).await,
        Reset::MaxMin | Reset::Error => {
            return Err(RpcError::errno(libc::ENOTSUP, "only all counters of a bdev can be reset, not some"));
        }
    }
    Ok(())
}

async fn reset_iostat<N: Node>(context: Rc<Context<N>>, p: ResetIostat) -> Answer {
    let volume = match &p.name {
        None => None,
        Some(name) => Some(context.control.bdev(name).map_err(bdev_error)?.id()),
    };
    reset(&context, p.mode.unwrap_or(Reset::All), volume).await.map(|()| DONE)
}

async fn get_pools<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let pools = context.control.node().pools().await;
    let mut cores: Vec<_> = pools.iter().map(|p| p.core).collect();
    cores.dedup();
    let one = |p: Option<&&PoolReport>| match p {
        None => json!({"cache": 0, "main": 0, "retry": 0, "cache_size": 0}),
        Some(p) => json!({
            "cache": p.buffers - p.free, "main": 0, "retry": p.waits, "cache_size": p.buffers,
            "buffer_bytes": p.buffer_bytes,
        }),
    };
    let module = |core: &crate::base::CoreId| {
        let mut mine: Vec<&PoolReport> = pools.iter().filter(|p| p.core == *core).collect();
        mine.sort_by_key(|p| p.buffer_bytes);
        let large = if mine.len() > 1 { mine.last() } else { None };
        json!({"module": poll_group(*core), "small_pool": one(mine.first()), "large_pool": one(large)})
    };
    Ok(cores.iter().map(module).collect())
}
