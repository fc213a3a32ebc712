//! Making, changing and deleting raw devices.

use super::{DONE, Named};
use crate::base::VolumeId;
use crate::cluster::{BdevName, DelayTimes, DeviceSpec, FaultKind, FaultOn, FaultOrder, FileEngine, FileSpec, Node};
use crate::rpc::context::{Context, bdev_error};
use crate::rpc::error::RpcError;
use crate::rpc::params::{choice, params};
use crate::rpc::table::{Answer, Method};
use serde_json::Value;
use std::rc::Rc;
use uuid::Uuid;

choice! {
    /// A latency of a delay bdev.
    pub enum LatencyType {
        /// Most reads.
        AvgRead = "avg_read",
        /// One read of a hundred.
        P99Read = "p99_read",
        /// Most writes.
        AvgWrite = "avg_write",
        /// One write of a hundred.
        P99Write = "p99_write",
    }
}

choice! {
    /// Operations an error is injected into.
    pub enum IoType {
        /// None: removes what was injected.
        Clear = "clear",
        /// Reads.
        Read = "read",
        /// Writes.
        Write = "write",
        /// Discards.
        Unmap = "unmap",
        /// Flushes.
        Flush = "flush",
        /// Write Zeroes.
        WriteZeroes = "write_zeroes",
        /// All.
        All = "all",
    }
}

choice! {
    /// What an injected error does.
    pub enum ErrorType {
        /// The operation fails.
        Failure = "failure",
        /// The operation is held.
        Pending = "pending",
        /// A byte of the data changes.
        CorruptData = "corrupt_data",
    }
}

params! {
    /// Of `bdev_malloc_create`.
    pub struct Malloc {
        /// Its name; `Malloc` and a number unless given.
        name: Option<BdevName>,
        /// Bytes per block: 512 or 4096.
        block_size: u32,
        /// Blocks.
        num_blocks: u64,
        /// Its UUID; random unless given.
        uuid: Option<Uuid>,
        /// Bytes of a physical block, as hosts are told; the block size unless given.
        physical_block_size: Option<u32>,
        /// Ignored.
        optimal_io_boundary: Option<u32>,
        /// Metadata is not supported: 0.
        md_size: Option<u32>,
        /// Ignored without metadata.
        md_interleave: Option<bool>,
        /// Protection information is not supported: 0.
        dif_type: Option<u32>,
        /// Ignored without protection information.
        dif_is_head_of_md: Option<bool>,
        /// Ignored without protection information.
        dif_pi_format: Option<u32>,
        /// Ignored: memory comes from the node's arena.
        numa_id: Option<i64>,
    }

    /// Of `bdev_null_create`.
    pub struct Null {
        /// Its name.
        name: BdevName,
        /// Bytes per block: 512 or 4096.
        block_size: u32,
        /// Blocks.
        num_blocks: u64,
        /// Its UUID; random unless given.
        uuid: Option<Uuid>,
        /// Ignored.
        physical_block_size: Option<u32>,
        /// Metadata is not supported: 0.
        md_size: Option<u32>,
        /// Protection information is not supported: 0.
        dif_type: Option<u32>,
        /// Ignored without protection information.
        dif_is_head_of_md: Option<bool>,
        /// Ignored without protection information.
        dif_pi_format: Option<u32>,
        /// Ignored.
        preferred_write_granularity: Option<u32>,
        /// Ignored.
        preferred_write_alignment: Option<u32>,
        /// Ignored.
        optimal_write_size: Option<u32>,
        /// Ignored.
        preferred_unmap_granularity: Option<u32>,
        /// Ignored.
        preferred_unmap_alignment: Option<u32>,
    }

    /// Of `bdev_null_resize`.
    pub struct NullResize {
        /// Which bdev.
        name: String,
        /// Its new size, MiB.
        new_size: u64,
    }

    /// Of `bdev_aio_create`.
    pub struct Aio {
        /// Its name.
        name: BdevName,
        /// The file or block device.
        filename: String,
        /// Bytes per block: 512 or 4096; the medium's unless given.
        block_size: Option<u32>,
        /// Refuse writes.
        readonly: Option<bool>,
        /// Ignored: discards always punch holes where the file can.
        fallocate: Option<bool>,
        /// Its UUID; random unless given.
        uuid: Option<Uuid>,
        /// Ignored: submission never waits.
        nowait: Option<bool>,
    }

    /// Of `bdev_uring_create`.
    pub struct Uring {
        /// The file or block device.
        filename: String,
        /// Its name.
        name: BdevName,
        /// Bytes per block: 512 or 4096; the medium's unless given.
        block_size: Option<u32>,
        /// Its UUID; random unless given.
        uuid: Option<Uuid>,
    }

    /// Of `bdev_delay_create`.
    pub struct Delay {
        /// The bdev below.
        base_bdev_name: String,
        /// Its name.
        name: BdevName,
        /// Its UUID; random unless given.
        uuid: Option<Uuid>,
        /// Added to most reads, microseconds.
        avg_read_latency: u64,
        /// Added to one read of a hundred, microseconds.
        p99_read_latency: u64,
        /// Added to most writes, microseconds.
        avg_write_latency: u64,
        /// Added to one write of a hundred, microseconds.
        p99_write_latency: u64,
    }

    /// Of `bdev_delay_update_latency`.
    pub struct UpdateLatency {
        /// Which bdev.
        delay_bdev_name: String,
        /// Which latency.
        latency_type: LatencyType,
        /// Its new value, microseconds.
        latency_us: u64,
    }

    /// Of `bdev_error_create`.
    pub struct ErrorBdev {
        /// The bdev below; the new one is called `EE_` and its name.
        base_name: String,
        /// Its UUID; random unless given.
        uuid: Option<Uuid>,
    }

    /// Of `bdev_error_inject_error`.
    pub struct Inject {
        /// Which error bdev.
        name: String,
        /// Into which operations.
        io_type: IoType,
        /// What happens to them.
        error_type: ErrorType,
        /// To how many; 1 unless given.
        num: Option<u64>,
        /// With `corrupt_data`: which byte of the transfer; 0 unless given.
        corrupt_offset: Option<u64>,
        /// With `corrupt_data`: what is exclusive-ored onto it, 1 to 255.
        corrupt_value: Option<u8>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::bdev("bdev_malloc_create", "Makes a RAM disk; it is empty after a restart.", malloc_create),
        Method::bdev("bdev_malloc_delete", "Deletes a RAM disk and what is built on it.", malloc_delete),
        Method::bdev("bdev_null_create", "Makes a disk that reads as zeroes and forgets writes.", null_create),
        Method::bdev("bdev_null_delete", "Deletes a null disk and what is built on it.", null_delete),
        Method::bdev("bdev_null_resize", "Changes the size of a null disk.", null_resize),
        Method::bdev("bdev_aio_create", "Opens a file or block device.", aio_create),
        Method::bdev("bdev_aio_delete", "Closes it; its data, and a store on it, stay.", aio_delete),
        Method::bdev("bdev_aio_rescan", "Looks at its size again.", rescan),
        Method::bdev("bdev_uring_create", "Opens a file or block device.", uring_create),
        Method::bdev("bdev_uring_delete", "Closes it; its data, and a store on it, stay.", uring_delete),
        Method::bdev("bdev_uring_rescan", "Looks at its size again.", rescan),
        Method::bdev("bdev_delay_create", "Puts added latency before a bdev.", delay_create),
        Method::bdev("bdev_delay_delete", "Removes it; the bdev below stays.", delay_delete),
        Method::bdev("bdev_delay_update_latency", "Changes an added latency.", update_latency),
        Method::bdev("bdev_error_create", "Puts an error injector before a bdev.", error_create),
        Method::bdev("bdev_error_delete", "Removes it; the bdev below stays.", error_delete),
        Method::bdev("bdev_error_inject_error", "Makes operations fail, hang or change data.", inject),
        Method::bdev("bdev_error_resume_pending", "Lets held operations go on.", resume_pending),
    ]
}

async fn create<N: Node>(
    context: &Context<N>,
    name: BdevName,
    uuid: Option<Uuid>,
    spec: DeviceSpec,
) -> Result<BdevName, RpcError> {
    context.control.create_device(name, uuid, spec).await.map_err(bdev_error)
}

fn name(name: BdevName) -> Value {
    Value::from(String::from(name))
}

/// Refuses what a bdev without metadata can not be.
fn plain(md_size: Option<u32>, dif_type: Option<u32>) -> Result<(), RpcError> {
    if md_size.unwrap_or(0) == 0 && dif_type.unwrap_or(0) == 0 {
        Ok(())
    } else {
        Err(RpcError::errno(libc::ENOTSUP, "md_size and dif_type must be 0: metadata is not supported"))
    }
}

async fn malloc_create<N: Node>(context: Rc<Context<N>>, p: Malloc) -> Answer {
    plain(p.md_size, p.dif_type)?;
    let called = p.name.unwrap_or_else(|| context.control.state().free_name("Malloc"));
    let (block_size, blocks) = (p.block_size, p.num_blocks);
    // 0 is the client's default.
    let physical_block = p.physical_block_size.filter(|b| *b != 0);
    let spec = DeviceSpec::Malloc { block_size, blocks, physical_block };
    create(&context, called, p.uuid, spec).await.map(name)
}

async fn null_create<N: Node>(context: Rc<Context<N>>, p: Null) -> Answer {
    plain(p.md_size, p.dif_type)?;
    let spec = DeviceSpec::Null { block_size: p.block_size, blocks: p.num_blocks };
    create(&context, p.name, p.uuid, spec).await.map(name)
}

async fn aio_create<N: Node>(context: Rc<Context<N>>, p: Aio) -> Answer {
    let spec = DeviceSpec::File(FileSpec {
        engine: FileEngine::Aio,
        path: p.filename,
        block_size: p.block_size.filter(|b| *b != 0),
        read_only: p.readonly.unwrap_or(false),
    });
    create(&context, p.name, p.uuid, spec).await.map(name)
}

async fn uring_create<N: Node>(context: Rc<Context<N>>, p: Uring) -> Answer {
    let spec = DeviceSpec::File(FileSpec {
        engine: FileEngine::Uring,
        path: p.filename,
        block_size: p.block_size.filter(|b| *b != 0),
        read_only: false,
    });
    create(&context, p.name, p.uuid, spec).await.map(name)
}

/// The raw device that a wrapper is to be put before.
fn base<N: Node>(context: &Context<N>, base: &str) -> Result<(VolumeId, String), RpcError> {
    match context.control.bdev(base).map_err(bdev_error)? {
        crate::cluster::Bdev::Device { device, .. } => Ok((device.id, device.name.to_string())),
        crate::cluster::Bdev::Volume { .. } => {
            Err(RpcError::errno(libc::ENOTSUP, format!("bdev '{base}' is a logical volume, not a raw device")))
        }
    }
}

async fn delay_create<N: Node>(context: Rc<Context<N>>, p: Delay) -> Answer {
    let (base, _) = base(&context, &p.base_bdev_name)?;
    let times = DelayTimes {
        read_avg_us: p.avg_read_latency,
        read_p99_us: p.p99_read_latency,
        write_avg_us: p.avg_write_latency,
        write_p99_us: p.p99_write_latency,
    };
    let spec = DeviceSpec::Delay { base, times };
    create(&context, p.name, p.uuid, spec).await.map(name)
}

async fn error_create<N: Node>(context: Rc<Context<N>>, p: ErrorBdev) -> Answer {
    let (base, below) = base(&context, &p.base_name)?;
    let called = BdevName::new(&format!("EE_{below}")).map_err(bdev_error)?;
    create(&context, called, p.uuid, DeviceSpec::Fault { base }).await.map(|_| DONE)
}

async fn delete<N: Node>(
    context: &Context<N>,
    p: &Named,
    wanted: &'static str,
    is: impl Fn(&DeviceSpec) -> bool,
) -> Answer {
    context.control.delete_device(&p.name, wanted, is).await.map(|()| DONE).map_err(bdev_error)
}

async fn malloc_delete<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    delete(&context, &p, "a malloc bdev", |s| matches!(s, DeviceSpec::Malloc { .. })).await
}

async fn null_delete<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    delete(&context, &p, "a null bdev", |s| matches!(s, DeviceSpec::Null { .. })).await
}

async fn aio_delete<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    let is = |s: &DeviceSpec| matches!(s, DeviceSpec::File(f) if f.engine == FileEngine::Aio);
    delete(&context, &p, "an aio bdev", is).await
}

async fn uring_delete<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    let is = |s: &DeviceSpec| matches!(s, DeviceSpec::File(f) if f.engine == FileEngine::Uring);
    delete(&context, &p, "a uring bdev", is).await
}

async fn delay_delete<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    delete(&context, &p, "a delay bdev", |s| matches!(s, DeviceSpec::Delay { .. })).await
}

async fn error_delete<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    delete(&context, &p, "an error bdev", |s| matches!(s, DeviceSpec::Fault { .. })).await
}

async fn null_resize<N: Node>(context: Rc<Context<N>>, p: NullResize) -> Answer {
    let bytes = p.new_size.saturating_mul(1 << 20);
    context.control.resize_null(&p.name, bytes).await.map(|()| DONE).map_err(bdev_error)
}

async fn rescan<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    context.control.rescan(&p.name).await.map(|()| DONE).map_err(bdev_error)
}

async fn update_latency<N: Node>(context: Rc<Context<N>>, p: UpdateLatency) -> Answer {
    let edit = |times: &mut DelayTimes| {
        let which = match p.latency_type {
            LatencyType::AvgRead => &mut times.read_avg_us,
            LatencyType::P99Read => &mut times.read_p99_us,
            LatencyType::AvgWrite => &mut times.write_avg_us,
            LatencyType::P99Write => &mut times.write_p99_us,
        };
        *which = p.latency_us;
    };
    context.control.update_delay(&p.delay_bdev_name, edit).await.map(|()| DONE).map_err(bdev_error)
}

async fn inject<N: Node>(context: Rc<Context<N>>, p: Inject) -> Answer {
    let on = match p.io_type {
        IoType::Read => FaultOn::Read,
        IoType::Write => FaultOn::Write,
        IoType::Unmap => FaultOn::Discard,
        IoType::Flush => FaultOn::Flush,
        IoType::WriteZeroes => FaultOn::WriteZeroes,
        IoType::All | IoType::Clear => FaultOn::All,
    };
    let corrupt = |value: Option<u8>| match value.unwrap_or(0) {
        0 => Err(RpcError::errno(libc::EINVAL, "corrupt_value must be 1 to 255")),
        value => Ok(FaultKind::Corrupt { offset: p.corrupt_offset.unwrap_or(0), value }),
    };
    let kind = match (p.io_type, p.error_type) {
        (IoType::Clear, _) => FaultKind::Clear,
        (_, ErrorType::Failure) => FaultKind::Fail,
        (_, ErrorType::Pending) => FaultKind::Hang,
        (_, ErrorType::CorruptData) => corrupt(p.corrupt_value)?,
    };
    let order = FaultOrder { on, kind, count: p.num.unwrap_or(1).max(1) };
    context.control.inject(&p.name, order).await.map(|()| DONE).map_err(bdev_error)
}

async fn resume_pending<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    context.control.release_pending(&p.name).await.map(|()| DONE).map_err(bdev_error)
}
