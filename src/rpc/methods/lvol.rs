//! Stores and their volumes (SPDK: lvstores and lvols). A volume's bdev name is its UUID, its alias `store/volume`.
//! Our unit of allocation, and so the `cluster` of these replies, is a block of 4096 bytes.

use super::bdev::{mapped, rooms};
use super::{DONE, Named};
use crate::base::BLOCK;
use crate::cluster::{Node, StoreName, VolumeName};
use crate::rpc::context::{Context, bdev_error};
use crate::rpc::error::RpcError;
use crate::rpc::params::{choice, params};
use crate::rpc::table::{Answer, Method};
use serde_json::{Value, json};
use std::rc::Rc;

const MIB: u64 = 1 << 20;

choice! {
    /// What becomes of the space: nothing of it matters here, as unwritten blocks of a volume always read as zeroes.
    pub enum ClearMethod {
        /// As the default.
        Default = "default",
        /// Leave it.
        Nothing = "none",
        /// Discard it.
        Unmap = "unmap",
        /// Overwrite it.
        WriteZeroes = "write_zeroes",
    }
}

params! {
    /// Of `bdev_lvol_create_lvstore`.
    pub struct CreateStore {
        /// The raw device; everything on it is lost.
        bdev_name: String,
        /// The store's name.
        lvs_name: StoreName,
        /// Ignored: the unit of allocation is 4096 bytes.
        cluster_sz: Option<u32>,
        /// Ignored.
        clear_method: Option<ClearMethod>,
        /// Ignored: there is no reserved metadata area.
        num_md_pages_per_cluster_ratio: Option<u32>,
        /// Ignored: there is no reserved metadata area.
        md_page_size: Option<u32>,
    }

    /// Which store.
    pub struct WhichStore {
        /// By UUID.
        uuid: Option<String>,
        /// By name.
        lvs_name: Option<String>,
    }

    /// Of `bdev_lvol_rename_lvstore`.
    pub struct RenameStore {
        /// The store.
        old_name: String,
        /// Its new name.
        new_name: StoreName,
    }

    /// Of `bdev_lvol_create`.
    pub struct Create {
        /// The volume's name in its store.
        lvol_name: VolumeName,
        /// Its size, MiB.
        size_in_mib: Option<u64>,
        /// Its size, bytes, rounded up to MiB (as before SPDK 24.05).
        size: Option<u64>,
        /// Take space on first write; otherwise all of it is kept free from the start.
        thin_provision: Option<bool>,
        /// The store, by UUID.
        uuid: Option<String>,
        /// The store, by name.
        lvs_name: Option<String>,
        /// Ignored.
        clear_method: Option<ClearMethod>,
    }

    /// Of `bdev_lvol_resize`.
    pub struct Resize {
        /// The volume, by UUID or alias.
        name: String,
        /// Its new size, MiB.
        size_in_mib: Option<u64>,
        /// Its new size, bytes, rounded up to MiB (as before SPDK 24.05).
        size: Option<u64>,
    }

    /// Of `bdev_lvol_rename`.
    pub struct Rename {
        /// The volume, by UUID or alias.
        old_name: String,
        /// Its new name in its store.
        new_name: VolumeName,
    }

    /// Of `bdev_lvol_get_lvols`.
    pub struct GetVolumes {
        /// Only of this store, by UUID.
        lvs_uuid: Option<String>,
        /// Only of this store, by name.
        lvs_name: Option<String>,
        /// Only of this store, by UUID (as Longhorn says it).
        uuid: Option<String>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::bdev("bdev_lvol_create_lvstore", "Formats a log store over a raw device.", create_store),
        Method::bdev("bdev_lvol_delete_lvstore", "Deletes a store with its volumes.", delete_store),
        Method::bdev("bdev_lvol_rename_lvstore", "Renames a store.", rename_store),
        Method::bdev("bdev_lvol_get_lvstores", "Stores and their room.", get_stores),
        Method::bdev("bdev_lvol_create", "Makes a volume in a store.", create),
        Method::bdev("bdev_lvol_delete", "Deletes a volume and its namespaces.", delete),
        Method::bdev("bdev_lvol_resize", "Grows or shrinks a volume.", resize),
        Method::bdev("bdev_lvol_rename", "Renames a volume in its store.", rename),
        Method::bdev("bdev_lvol_set_read_only", "Write-protects a volume.", set_read_only),
        Method::bdev("bdev_lvol_get_lvols", "Volumes.", get_volumes),
    ]
}

/// One of the two ways to name a store.
fn one_of(uuid: Option<String>, name: Option<String>) -> Result<String, RpcError> {
    match (uuid, name) {
        (Some(store), None) | (None, Some(store)) => Ok(store),
        _ => Err(RpcError::errno(libc::EINVAL, "give either uuid or lvs_name")),
    }
}

/// One of the two ways to give a size; bytes, a multiple of 1 MiB.
fn size_of(mib: Option<u64>, bytes: Option<u64>) -> Result<u64, RpcError> {
    match (mib, bytes) {
        (Some(mib), None) => Ok(mib.saturating_mul(MIB)),
        (None, Some(bytes)) => Ok(bytes.checked_next_multiple_of(MIB).unwrap_or(u64::MAX)),
        _ => Err(RpcError::errno(libc::EINVAL, "give either size_in_mib or size")),
    }
}

async fn create_store<N: Node>(context: Rc<Context<N>>, p: CreateStore) -> Answer {
    let made = context.control.create_store(&p.bdev_name, p.lvs_name).await;
    made.map(|uuid| json!(uuid)).map_err(bdev_error)
}

async fn delete_store<N: Node>(context: Rc<Context<N>>, p: WhichStore) -> Answer {
    let store = one_of(p.uuid, p.lvs_name)?;
    context.control.delete_store(&store).await.map(|()| DONE).map_err(bdev_error)
}

async fn rename_store<N: Node>(context: Rc<Context<N>>, p: RenameStore) -> Answer {
    if context.control.store(&p.old_name).is_err() {
        return Err(RpcError::new(-libc::ENOENT, format!("Lvol store {} not found", p.old_name)));
    }
    context.control.rename_store(&p.old_name, p.new_name).await.map(|()| DONE).map_err(bdev_error)
}

async fn get_stores<N: Node>(context: Rc<Context<N>>, p: WhichStore) -> Answer {
    let state = context.control.state();
    let wanted = match (p.uuid, p.lvs_name) {
        (None, None) => None,
        (uuid, name) => Some(context.control.store(&one_of(uuid, name)?).map_err(bdev_error)?.uuid),
    };
    let rooms = rooms(&context).await;
    let mut stores = Vec::new();
    for store in state.stores().filter(|s| wanted.is_none_or(|w| w == s.uuid)) {
        // A store that is not open has no room to report; pollux_get_problems says why.
        let Some(room) = rooms.get(&store.uuid) else { continue };
        let device = context.control.bdevs().into_iter().find(|b| b.id() == store.device);
        stores.push(json!({
            "uuid": store.uuid, "name": store.name.as_str(), "base_bdev": device.as_ref().map(crate::cluster::Bdev::name),
            "total_data_clusters": room.total, "free_clusters": room.free,
            "block_size": device.as_ref().map(crate::cluster::Bdev::block_size), "cluster_size": BLOCK,
            "max_growable_size": room.total * BLOCK as u64,
        }));
    }
    Ok(Value::Array(stores))
}

async fn create<N: Node>(context: Rc<Context<N>>, p: Create) -> Answer {
    let store = one_of(p.uuid, p.lvs_name)?;
    let bytes = size_of(p.size_in_mib, p.size)?;
    let thin = p.thin_provision.unwrap_or(false);
    let made = context.control.create_volume(&store, p.lvol_name, bytes, thin).await;
    made.map(|volume| json!(volume.uuid)).map_err(bdev_error)
}

async fn delete<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    context.control.delete_volume(&p.name).await.map(|()| DONE).map_err(bdev_error)
}

async fn resize<N: Node>(context: Rc<Context<N>>, p: Resize) -> Answer {
    let bytes = size_of(p.size_in_mib, p.size)?;
    context.control.resize_volume(&p.name, bytes).await.map(|()| DONE).map_err(bdev_error)
}

async fn rename<N: Node>(context: Rc<Context<N>>, p: Rename) -> Answer {
    context.control.rename_volume(&p.old_name, p.new_name).await.map(|()| DONE).map_err(bdev_error)
}

async fn set_read_only<N: Node>(context: Rc<Context<N>>, p: Named) -> Answer {
    context.control.set_read_only(&p.name).await.map(|()| DONE).map_err(bdev_error)
}

async fn get_volumes<N: Node>(context: Rc<Context<N>>, p: GetVolumes) -> Answer {
    let wanted = match (p.lvs_uuid.or(p.uuid), p.lvs_name) {
        (None, None) => None,
        (uuid, name) => Some(context.control.store(&one_of(uuid, name)?).map_err(bdev_error)?.uuid),
    };
    let (state, rooms) = (context.control.state(), rooms(&context).await);
    let volumes = context.control.volumes().into_iter().filter(|(s, _)| wanted.is_none_or(|w| w == *s));
    let one = |(uuid, v): (uuid::Uuid, crate::cluster::Volume)| {
        let store = state.store(uuid)?;
        Some(json!({
            "alias": format!("{}/{}", store.name, v.name), "uuid": v.uuid, "name": v.name.as_str(),
            "is_thin_provisioned": v.thin, "is_snapshot": false, "is_clone": false, "is_esnap_clone": false,
            "is_degraded": false, "num_allocated_clusters": mapped(&rooms, uuid, v.id),
            "lvs": {"name": store.name.as_str(), "uuid": uuid},
        }))
    };
    Ok(volumes.filter_map(one).collect())
}
