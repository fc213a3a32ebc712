//! Stores and their volumes: create, find, rename, resize, delete.

use super::{Control, EventKind, Problem};
use crate::base::{BLOCK, VolumeId};
use crate::cluster::command::Command;
use crate::cluster::error::Error;
use crate::cluster::model::{Intent, Store, Volume, range};
use crate::cluster::names::{StoreName, VolumeName};
use crate::cluster::node::{Node, NodeError, ScrubReport, StoreUsage};
use crate::cluster::state::State;
use std::sync::Arc;
use uuid::Uuid;

/// Largest volume, bytes (1 PiB).
pub const VOLUME_BYTES_MAX: u64 = 1 << 50;

/// What a store has promised and what is left, in blocks of 4096 bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Room {
    /// Blocks that volumes can hold together.
    pub total: u64,
    /// Of those, neither mapped by thin volumes nor kept for thick ones.
    pub free: u64,
    /// What the data path reported.
    pub usage: StoreUsage,
}

impl<N: Node> Control<N> {
    /// The store of that UUID or name, open or not.
    pub fn store(&self, name: &str) -> Result<Arc<Store>, Error> {
        let state = self.state();
        let found = match Uuid::try_parse(name) {
            Ok(uuid) => state.store(uuid),
            Err(_) => state.store_named(name),
        };
        found.cloned().ok_or_else(|| Error::NoStore(name.to_owned()))
    }

    /// Formats a store on a raw device that nobody uses; returns its UUID.
    pub async fn create_store(&self, bdev: &str, name: StoreName) -> Result<Uuid, Error> {
        let _turn = self.turn.lock().await;
        let device = self.device(bdev)?;
        if !self.devices.borrow().contains_key(&device.id) {
            return Err(Error::NoBdev(bdev.to_owned()));
        }
        let uuid = Uuid::new_v4();
        let state = self.state();
        let command =
            Command::AddStore { store: Store { uuid, name: name.clone(), device: device.id }, floor: state.next_id() };
        state.apply(&command)?;
        let failed = |source| Error::Node { what: "format store", object: name.to_string(), source };
        self.node.format_store(device.id, uuid, &name).await.map_err(failed)?;
        if let Err(e) = self.commit(&command).await {
            let closed = self.node.close_store(uuid).await;
            let wiped = self.node.wipe_store(device.id, uuid).await;
            tracing::debug!("undid store '{name}' after the journal refused it: {closed:?} {wiped:?}");
            return Err(e);
        }
        Ok(uuid)
    }

    /// Looks for a store on a raw device now (it may have been written by another node since it was opened).
    pub async fn examine_device(&self, name: &str) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let device = self.device(name)?;
        let open = self.state().store_on(device.id).is_some_and(|s| self.up(s).is_ok());
        if self.devices.borrow().contains_key(&device.id) && !open {
            self.examine(device.id).await;
        }
        Ok(())
    }

    /// Looks for a store on an open device: opens the one that the journal has there, takes over one that it does not
    /// know, wipes one that was deleted. Failures are remembered as problems.
    pub(super) async fn examine(&self, device: VolumeId) {
        let state = self.state();
        if let Some(store) = state.store_on(device).cloned() {
            match self.open_store(&state, device, store.uuid).await {
                Ok(_) => drop(self.problems.borrow_mut().remove(&Problem::Store(store.uuid))),
                Err(e) => self.complain(Problem::Store(store.uuid), e),
            }
            return;
        }
        if state.claim(device).is_some() || state.exporter(device).is_some() {
            return;
        }
        match self.node.probe_store(device).await {
            Ok(None) => {}
            Ok(Some(found)) if state.intends(Intent::WipeStore { store: found.uuid }) => {
                self.carry(Intent::WipeStore { store: found.uuid }).await;
            }
            Ok(Some(found)) => {
                if let Err(e) = self.adopt(&state, device, found.uuid, &found.name).await {
                    self.complain(Problem::Store(found.uuid), e);
                }
            }
            Err(source) => {
                let object = format!("#{}", device.0);
                self.complain(Problem::Device(device), Error::Node { what: "examine bdev", object, source });
            }
        }
    }

    /// Makes a store that was found on a device one of this node's.
    async fn adopt(&self, state: &State, device: VolumeId, uuid: Uuid, name: &StoreName) -> Result<(), Error> {
        if state.store(uuid).is_some() {
            return Err(Error::StoreExists(uuid.to_string()));
        }
        let floor = self.open_store(state, device, uuid).await?;
        let store = Store { uuid, name: state.free_store_name(name), device };
        tracing::info!("found store '{}' ({uuid}) on bdev #{}", store.name, device.0);
        let added = self.commit(&Command::AddStore { store, floor }).await;
        if added.is_err() {
            self.shut_store(uuid).await;
        }
        added
    }

    /// Opens a store and lists its volumes; returns the smallest id above theirs. Deletions that are still to be done
    /// are done.
    async fn open_store(&self, state: &State, device: VolumeId, uuid: Uuid) -> Result<VolumeId, Error> {
        let failed = |source| Error::Node { what: "open store", object: uuid.to_string(), source };
        let mut found = self.node.open_store(device, uuid).await.map_err(failed)?;
        found.retain(|v| !state.intends(Intent::DeleteVolume { store: uuid, id: v.id }));
        let taken = |v: &Volume| {
            let volumes = self.volumes.borrow();
            state.device(v.id).is_some()
                || volumes.contains_key(&v.id)
                || volumes.values().any(|(_, o)| o.uuid == v.uuid)
        };
        if let Some(volume) = found.iter().find(|v| taken(v)) {
            let id = volume.id.0;
            let closed = self.node.close_store(uuid).await;
            tracing::debug!("closed store {uuid}: {closed:?}");
            return Err(Error::IdCollision { store: uuid, id });
        }
        let floor = found.iter().map(|v| v.id.0.saturating_add(1)).max().unwrap_or(1);
        for volume in found {
            self.note(EventKind::Register, volume.uuid.to_string());
            self.volumes.borrow_mut().insert(volume.id, (uuid, volume));
        }
        let mine = |i: &&Intent| matches!(i, Intent::DeleteVolume { store, .. } if *store == uuid);
        for intent in state.intents().filter(mine) {
            self.carry(*intent).await;
        }
        Ok(VolumeId(floor))
    }

    /// Closes a store if it is open, and forgets its volumes.
    pub(super) async fn shut_store(&self, uuid: Uuid) {
        let down = self.problems.borrow_mut().remove(&Problem::Store(uuid)).is_some();
        let gone: Vec<Volume> =
            self.volumes.borrow().values().filter(|(s, _)| *s == uuid).map(|(_, v)| v.clone()).collect();
        for volume in gone {
            self.volumes.borrow_mut().remove(&volume.id);
            self.note(EventKind::Unregister, volume.uuid.to_string());
        }
        if !down && let Err(e) = self.node.close_store(uuid).await {
            tracing::warn!("closing store {uuid}: {e}");
        }
    }

    /// Does the last step of a deletion; it stays to be done when it fails.
    pub(super) async fn carry(&self, intent: Intent) {
        let done = match intent {
            Intent::WipeStore { store } => self.wipe(store).await,
            Intent::DeleteVolume { store, id } => self.node.delete_volume(store, id).await.map(|()| true),
        };
        let (what, object) = match intent {
            Intent::WipeStore { store } => ("wipe store", store.to_string()),
            Intent::DeleteVolume { id, .. } => ("delete volume", format!("#{}", id.0)),
        };
        match done {
            Ok(false) => {}
            Ok(true) => match self.record(&Command::Finish(intent)) {
                Ok(_) => drop(self.problems.borrow_mut().remove(&Problem::Intent(intent))),
                Err(e) => self.complain(Problem::Intent(intent), e),
            },
            Err(source) => self.complain(Problem::Intent(intent), Error::Node { what, object, source }),
        }
    }

    /// Wipes the open device that carries the store; false when none does.
    async fn wipe(&self, store: Uuid) -> Result<bool, NodeError> {
        let state = self.state();
        let open: Vec<VolumeId> = self.devices.borrow().keys().copied().collect();
        let mut unread = None;
        for device in open.into_iter().filter(|d| state.claim(*d).is_none()) {
            match self.node.probe_store(device).await {
                Ok(Some(found)) if found.uuid == store => {
                    self.node.wipe_store(device, store).await?;
                    return Ok(true);
                }
                // What can not be told to be this store is not; a device that failed may carry it.
                Ok(_) | Err(NodeError::Newer { .. } | NodeError::Damaged(_)) => {}
                Err(e) => unread = Some(e),
            }
        }
        unread.map_or(Ok(false), Err)
    }

    /// Deletes a store, its volumes and their namespaces, and wipes its device.
    pub async fn delete_store(&self, name: &str) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let store = self.store(name)?;
        self.commit(&Command::RemoveStore(store.uuid)).await
    }

    /// Gives a store another name.
    pub async fn rename_store(&self, old: &str, new: StoreName) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let store = self.store(old)?;
        self.commit(&Command::RenameStore(store.uuid, new)).await
    }

    /// Volumes of the open stores, by age, with their store.
    pub fn volumes(&self) -> Vec<(Uuid, Volume)> {
        self.volumes.borrow().values().cloned().collect()
    }

    /// A store's room.
    pub async fn room(&self, store: &Store) -> Result<Room, Error> {
        self.up(store)?;
        let failed = |source| Error::Node { what: "store usage", object: store.name.to_string(), source };
        let usage = self.node.store_usage(store.uuid).await.map_err(failed)?;
        let mapped = |id| usage.mapped.iter().find(|(v, _)| *v == id).map_or(0, |(_, blocks)| *blocks);
        let volumes = self.volumes.borrow();
        let mine = volumes.values().filter(|(s, _)| *s == store.uuid);
        let promised = mine.map(|(_, v)| if v.thin { mapped(v.id) } else { v.bytes.div_ceil(BLOCK as u64) });
        let free = usage.total_blocks.saturating_sub(promised.sum::<u64>());
        Ok(Room { total: usage.total_blocks, free, usage })
    }

    /// Starts verifying every live block of the store.
    pub async fn scrub_start(&self, store: &Store) -> Result<(), Error> {
        self.up(store)?;
        let failed = |source| Error::Node { what: "scrub store", object: store.name.to_string(), source };
        self.node.scrub_start(store.uuid).await.map_err(failed)
    }

    /// The running or the last scrub of the store.
    pub async fn scrub_status(&self, store: &Store) -> Result<ScrubReport, Error> {
        self.up(store)?;
        let failed = |source| Error::Node { what: "scrub of store", object: store.name.to_string(), source };
        self.node.scrub_status(store.uuid).await.map_err(failed)
    }

    /// Fails when the store is not open.
    fn up(&self, store: &Store) -> Result<(), Error> {
        let open = self.devices.borrow().contains_key(&store.device);
        if open && !self.problems.borrow().contains_key(&Problem::Store(store.uuid)) {
            Ok(())
        } else {
            Err(Error::StoreDown(store.name.to_string()))
        }
    }

    /// Fails unless `more` bytes can be kept free for a thick volume.
    async fn afford(&self, store: &Store, more: u64) -> Result<(), Error> {
        let free = self.room(store).await?.free * BLOCK as u64;
        if more <= free { Ok(()) } else { Err(Error::NoSpace { store: store.name.to_string(), free, asked: more }) }
    }

    /// Makes a volume of `bytes` in the store; returns it.
    pub async fn create_volume(&self, store: &str, name: VolumeName, bytes: u64, thin: bool) -> Result<Volume, Error> {
        let _turn = self.turn.lock().await;
        let store = self.store(store)?;
        self.up(&store)?;
        range("size", bytes, 1, VOLUME_BYTES_MAX)?;
        self.name_free(&store, &name)?;
        if !thin {
            self.afford(&store, bytes).await?;
        }
        let block_size = self.devices.borrow().get(&store.device).map_or(BLOCK as u32, |(_, d)| d.block_size);
        let id = self.state().next_id();
        let volume = Volume { id, uuid: Uuid::new_v4(), name, bytes, block_size, thin, read_only: false };
        check_size(&volume)?;
        self.record(&Command::TakeId)?;
        let failed = |source| Error::Node { what: "create volume", object: volume.name.to_string(), source };
        self.node.create_volume(store.uuid, &volume).await.map_err(failed)?;
        self.volumes.borrow_mut().insert(id, (store.uuid, volume.clone()));
        self.note(EventKind::Register, volume.uuid.to_string());
        Ok(volume)
    }

    fn name_free(&self, store: &Store, name: &VolumeName) -> Result<(), Error> {
        let volumes = self.volumes.borrow();
        let taken = volumes.values().any(|(s, v)| *s == store.uuid && v.name == *name);
        if taken { Err(Error::VolumeExists(format!("{}/{name}", store.name))) } else { Ok(()) }
    }

    /// Deletes a volume and its namespaces.
    pub async fn delete_volume(&self, name: &str) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let (store, volume) = self.volume(name)?;
        // Hosts lose it first (publish), then the store forgets it.
        let effects = self.record(&Command::RemoveVolume { store: store.uuid, id: volume.id })?;
        self.volumes.borrow_mut().remove(&volume.id);
        self.note(EventKind::Unregister, volume.uuid.to_string());
        for effect in effects {
            self.run(effect).await;
        }
        Ok(())
    }

    /// Gives a volume another size; a smaller one drops the blocks behind it.
    pub async fn resize_volume(&self, name: &str, bytes: u64) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let (store, volume) = self.volume(name)?;
        range("size", bytes, 1, VOLUME_BYTES_MAX)?;
        if !volume.thin && bytes > volume.bytes {
            self.afford(&store, bytes - volume.bytes).await?;
        }
        let resized = bytes != volume.bytes;
        self.update(&store, Volume { bytes, ..volume.clone() }).await?;
        if resized {
            self.note(EventKind::Resize, volume.uuid.to_string());
        }
        Ok(())
    }

    /// Gives a volume another name in its store.
    pub async fn rename_volume(&self, old: &str, new: VolumeName) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let (store, volume) = self.volume(old)?;
        if volume.name != new {
            self.name_free(&store, &new)?;
        }
        self.update(&store, Volume { name: new, ..volume }).await
    }

    /// Write-protects a volume.
    pub async fn set_read_only(&self, name: &str) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let (store, volume) = self.volume(name)?;
        self.update(&store, Volume { read_only: true, ..volume }).await
    }

    async fn update(&self, store: &Store, volume: Volume) -> Result<(), Error> {
        self.up(store)?;
        check_size(&volume)?;
        let failed = |source| Error::Node { what: "change volume", object: volume.name.to_string(), source };
        self.node.update_volume(store.uuid, &volume).await.map_err(failed)?;
        self.volumes.borrow_mut().insert(volume.id, (store.uuid, volume));
        Ok(())
    }
}

fn check_size(volume: &Volume) -> Result<(), Error> {
    if volume.bytes.is_multiple_of(u64::from(volume.block_size)) {
        Ok(())
    } else {
        Err(Error::Conflict { field: "size", why: "must be a multiple of the store's block size" })
    }
}
