//! Looking at bdevs.

use super::nvme::trid;
use super::{DONE, Named, Nothing};
use crate::cluster::{Bdev, DeviceSpec, FileEngine, FileSpec, Node, Room, State};
use crate::rpc::context::{Context, bdev_error};
use crate::rpc::error::RpcError;
use crate::rpc::params::params;
use crate::rpc::table::{Answer, Method};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

params! {
    /// Of `bdev_get_bdevs`.
    pub struct Get {
        /// Only the one of this name, alias or UUID.
        name: Option<String>,
        /// Milliseconds to wait for it to appear; 0 unless given.
        timeout: Option<u64>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::bdev("bdev_get_bdevs", "Raw devices and volumes.", get_bdevs),
        Method::bdev("bdev_wait_for_examine", "Returns when every bdev was searched for a store.", wait_for_examine),
        Method::bdev("bdev_examine", "Searches a bdev for a store.", examine),
    ]
}

async fn get_bdevs<N: Node>(context: Rc<Context<N>>, p: Get) -> Answer {
    let rooms = rooms(&context).await;
    let state = context.control.state();
    match p.name {
        None => Ok(context.control.bdevs().iter().map(|b| describe(&state, &rooms, b)).collect()),
        Some(name) => {
            let bdev = wait_for(&context, &name, p.timeout.unwrap_or(0)).await?;
            Ok(json!([describe(&context.control.state(), &rooms, &bdev)]))
        }
    }
}

async fn wait_for<N: Node>(context: &Context<N>, name: &str, timeout_ms: u64) -> Result<Bdev, RpcError> {
    let until = tokio::time::Instant::now() + Duration::from_millis(timeout_ms.min(3_600_000));
    loop {
        match context.control.bdev(name) {
            Ok(bdev) => return Ok(bdev),
            Err(e) if timeout_ms == 0 => return Err(bdev_error(e)),
            Err(_) if tokio::time::Instant::now() >= until => {
                return Err(RpcError::errno(libc::ETIMEDOUT, format!("bdev '{name}' has not appeared")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The room of every open store.
pub(super) async fn rooms<N: Node>(context: &Context<N>) -> BTreeMap<Uuid, Room> {
    let mut rooms = BTreeMap::new();
    for store in context.control.state().stores() {
        if let Ok(room) = context.control.room(store).await {
            rooms.insert(store.uuid, room);
        }
    }
    rooms
}

/// Blocks (4096 bytes) that a volume has mapped.
pub(super) fn mapped(rooms: &BTreeMap<Uuid, Room>, store: Uuid, volume: crate::base::VolumeId) -> u64 {
    let usage = rooms.get(&store).map(|r| &r.usage.mapped);
    usage.and_then(|all| all.iter().find(|(v, _)| *v == volume)).map_or(0, |(_, blocks)| *blocks)
}

fn describe(state: &State, rooms: &BTreeMap<Uuid, Room>, bdev: &Bdev) -> Value {
    let alias = bdev.alias().unwrap_or_else(|| bdev.uuid().to_string());
    let claim = match bdev {
        Bdev::Device { claim, .. } => claim.is_some(),
        Bdev::Volume { .. } => false,
    };
    let claimed = claim || state.exporter(bdev.id()).is_some();
    let mut all = json!({
        "name": bdev.name(), "aliases": [alias], "product_name": product(bdev),
        "block_size": bdev.block_size(), "num_blocks": bdev.blocks(), "uuid": bdev.uuid(),
        "preferred_write_alignment": 0, "preferred_write_granularity": 0, "optimal_write_size": 0,
        "preferred_unmap_alignment": 0, "preferred_unmap_granularity": 0,
        "assigned_rate_limits": {
            "rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0,
        },
        "claimed": claimed,
    });
    if claimed {
        all["claim_type"] = "exclusive_write".into();
    }
    all["zoned"] = false.into();
    all["supported_io_types"] = io_types(bdev);
    all["driver_specific"] = specific(state, rooms, bdev);
    all
}

/// SPDK's product names, which clients take for the kind of the bdev.
fn product(bdev: &Bdev) -> &'static str {
    match bdev {
        Bdev::Volume { .. } => "Logical Volume",
        Bdev::Device { device, .. } => match &device.spec {
            DeviceSpec::Malloc { .. } => "Malloc disk",
            DeviceSpec::Null { .. } => "Null disk",
            DeviceSpec::File(FileSpec { engine: FileEngine::Aio, .. }) => "AIO disk",
            DeviceSpec::File(FileSpec { engine: FileEngine::Uring, .. }) => "URING bdev",
            DeviceSpec::Nvme(_) => "NVMe disk",
            DeviceSpec::Delay { .. } => "delay",
            DeviceSpec::Fault { .. } => "Error Injection Disk",
        },
    }
}

/// What hosts may ask of it. Unmap, write-zeroes and compare are served for every bdev, natively or not.
fn io_types(bdev: &Bdev) -> Value {
    let writable = !bdev.read_only();
    let mut types = Map::new();
    for (name, yes) in [
        ("read", true),
        ("write", writable),
        ("unmap", writable),
        ("flush", true),
        ("reset", true),
        ("nvme_admin", false),
        ("nvme_io", false),
        ("nvme_io_md", false),
        ("write_zeroes", writable),
        ("zcopy", false),
        ("get_zone_info", false),
        ("zone_management", false),
        ("zone_append", false),
        ("compare", true),
        ("compare_and_write", false),
        ("abort", false),
        ("seek_hole", false),
        ("seek_data", false),
        ("copy", false),
        ("nvme_iov_md", false),
        ("nvme_nssr", false),
        ("write_uncorrectable", false),
    ] {
        types.insert(name.to_owned(), yes.into());
    }
    Value::Object(types)
}

fn specific(state: &State, rooms: &BTreeMap<Uuid, Room>, bdev: &Bdev) -> Value {
    let name_of = |id| state.device(id).map(|d| d.name.to_string());
    match bdev {
        Bdev::Volume { store, volume } => json!({"lvol": {
            "lvol_store_uuid": store.uuid, "base_bdev": name_of(store.device), "thin_provision": volume.thin,
            "num_allocated_clusters": mapped(rooms, store.uuid, volume.id), "snapshot": false, "clone": false,
            "esnap_clone": false,
        }}),
        Bdev::Device { device, .. } => match &device.spec {
            DeviceSpec::File(file) if file.engine == FileEngine::Aio => json!({"aio": {
                "filename": file.path, "block_size_override": file.block_size.is_some(),
                "readonly": file.read_only, "fallocate": true,
            }}),
            DeviceSpec::File(file) => json!({"uring": {"filename": file.path}}),
            DeviceSpec::Delay { base, times } => json!({"delay": {
                "name": device.name.as_str(), "base_bdev_name": name_of(*base), "uuid": device.uuid,
                "avg_read_latency": times.read_avg_us, "p99_read_latency": times.read_p99_us,
                "avg_write_latency": times.write_avg_us, "p99_write_latency": times.write_p99_us,
            }}),
            DeviceSpec::Nvme(nvme) => json!({"nvme": [{
                "pci_address": nvme.address, "trid": trid(nvme), "ns_data": {"id": nvme.nsid.unwrap_or(1)},
            }]}),
            DeviceSpec::Fault { base } => json!({"error": {"base_bdev": name_of(*base)}}),
            DeviceSpec::Malloc { .. } | DeviceSpec::Null { .. } => json!({}),
        },
    }
}

async fn wait_for_examine<N: Node>(_: Rc<Context<N>>, _: Nothing) -> Answer {
    // Creating a bdev is answered only after it was examined, and start-up examines before runtime methods work.
    Ok(DONE)
}

async fn examine<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    context.control.examine_device(&p.name).await.map(|()| DONE).map_err(bdev_error)
}
