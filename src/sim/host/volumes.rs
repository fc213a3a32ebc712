//! The host's requests about volumes themselves: create, rename, resize, delete; and what recovery made of them.

use super::{Host, Node, OpId, Open, Volume};
use crate::base::{BLOCK, CHUNK_BLOCKS, Status, VolumeId};
use crate::sim::Shape;
use crate::sim::failure::Failure;
use crate::store::{StoreName, VolumeMeta};
use std::collections::BTreeMap;

/// The description of a volume that a shape stands for.
fn meta(id: VolumeId, shape: Shape) -> VolumeMeta {
    let mut uuid = [0x5a; 16];
    uuid[..4].copy_from_slice(&id.0.to_le_bytes());
    VolumeMeta {
        id,
        uuid,
        name: StoreName::new(&format!("v{}r{}", id.0, shape.revision)).expect("a short name"),
        bytes: shape.bytes,
        lba_bytes: shape.lba,
        thin: true,
        read_only: false,
        created: u64::from(id.0),
    }
}

/// The shape a found description stands for; `None` when any field is not what the host once gave it.
fn shape(found: &VolumeMeta) -> Option<Shape> {
    let revision = found.name.as_str().split('r').nth(1)?.parse().ok()?;
    let shape = Shape { bytes: found.bytes, lba: found.lba_bytes, revision };
    (meta(found.id, shape) == *found).then_some(shape)
}

impl Host {
    /// Creates a volume, or renames, resizes or deletes one.
    pub(super) fn change_volume(&mut self, node: &mut Node) -> Result<(), Failure> {
        let room = self.volumes.len() < self.swarm.volumes as usize;
        if self.volumes.is_empty() || (room && self.rng.chance(50)) {
            return self.create(node);
        }
        let at = self.rng.below(self.volumes.len() as u64) as usize;
        let Volume { id, shape, busy, changing } = self.volumes[at];
        if changing || busy > 0 {
            return Ok(());
        }
        if self.rng.chance(30) {
            return self.delete(node, id);
        }
        let bytes = if self.rng.chance(30) { shape.bytes } else { self.size() };
        let shape = Shape { bytes, revision: shape.revision + 1, ..shape };
        self.set(node, id, shape)
    }

    fn create(&mut self, node: &mut Node) -> Result<(), Failure> {
        let id = VolumeId(self.next_volume);
        self.next_volume += 1;
        let lba = if self.rng.chance(self.swarm.large_lba) { 4096 } else { 512 };
        let shape = Shape { bytes: self.size(), lba, revision: 0 };
        self.volumes.push(Volume { id, shape, busy: 0, changing: true });
        self.set(node, id, shape)
    }

    /// A size such that the blocks requests may reach in all volumes come to about [`super::Swarm::space`] percent.
    fn size(&mut self) -> u64 {
        let blocks = self.swarm.slice_bytes * self.swarm.space / 100 / BLOCK as u64;
        let share = (blocks / u64::from(self.swarm.volumes)).max(8);
        let reach = share / 2 + self.rng.below(share);
        let window = self.swarm.window;
        (reach / window * CHUNK_BLOCKS + reach % window) * BLOCK as u64
    }

    fn set(&mut self, node: &mut Node, id: VolumeId, shape: Shape) -> Result<(), Failure> {
        let tag = self.next_tag();
        let op = self.oracle.shape(node.disk.events(), id, shape);
        self.changing(id, true);
        self.open.insert(tag, Open::Volume { volume: id, op, shape: Some(shape) });
        let slice = self.slice_of(id);
        let outcome = node.slices[slice].set_volume(meta(id, shape), tag, &mut node.disk, &mut node.pool);
        self.outcome(node, tag, outcome)
    }

    fn delete(&mut self, node: &mut Node, id: VolumeId) -> Result<(), Failure> {
        let tag = self.next_tag();
        let op = self.oracle.delete(node.disk.events(), id);
        self.changing(id, true);
        self.open.insert(tag, Open::Volume { volume: id, op, shape: None });
        let slice = self.slice_of(id);
        let outcome = node.slices[slice].delete_volume(id, tag, &mut node.disk, &mut node.pool);
        self.outcome(node, tag, outcome)
    }

    fn changing(&mut self, id: VolumeId, is: bool) {
        if let Some(v) = self.volumes.iter_mut().find(|v| v.id == id) {
            v.changing = is;
        }
    }

    /// The request about this volume was put off: the volume is as before, or never came to be.
    pub(super) fn volume_unchanged(&mut self, id: VolumeId) {
        self.changing(id, false);
        let exists = self.oracle.volumes().any(|(v, _)| v == id);
        self.volumes.retain(|v| v.id != id || exists);
    }

    pub(super) fn ended_volume(
        &mut self,
        node: &Node,
        id: VolumeId,
        op: OpId,
        shape: Option<Shape>,
        status: Status,
    ) -> Result<(), Failure> {
        if status == Status::CapacityExceeded && shape.is_some() {
            self.answers.full += 1;
            // It must not have happened, unlike a large write of which a part may have found room.
            self.oracle.refuse(node.disk.events(), op);
            self.volume_unchanged(id);
            return Ok(());
        }
        self.allowed("volume request", status)?;
        if status.is_ok() {
            self.answers.acked += 1;
            self.oracle.ack(node.disk.events(), op);
            self.changing(id, false);
            match shape {
                Some(shape) => self.volumes.iter_mut().filter(|v| v.id == id).for_each(|v| v.shape = shape),
                None => self.volumes.retain(|v| v.id != id),
            }
        }
        Ok(())
    }

    /// Compares the volumes that recovery found with those that must or may be there, and goes on with them.
    pub(super) fn find_volumes(&mut self, node: &Node) -> Result<(), Failure> {
        let mut found = BTreeMap::new();
        for (number, slice) in node.slices.iter().enumerate() {
            for one in slice.volumes() {
                let right = shape(one).filter(|_| self.slice_of(one.id) == number);
                // A description nobody gave can not be right; size 1 is no size of any volume.
                found.insert(one.id, right.unwrap_or(Shape { bytes: 1, lba: one.lba_bytes, revision: u32::MAX }));
            }
        }
        self.oracle.recovered_volumes(node.disk.events(), &found, self.tolerance.trust)?;
        let volume = |(id, shape)| Volume { id, shape, busy: 0, changing: false };
        self.volumes = self.oracle.volumes().map(volume).collect();
        Ok(())
    }
}
