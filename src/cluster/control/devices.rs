//! Raw devices: create, delete, resize, and the knobs of the wrappers.

use super::{Control, EventKind, Problem};
use crate::base::VolumeId;
use crate::cluster::command::Command;
use crate::cluster::error::Error;
use crate::cluster::model::{DelayTimes, Device, DeviceSpec, range};
use crate::cluster::names::BdevName;
use crate::cluster::node::{FaultOrder, Node};
use std::sync::Arc;
use uuid::Uuid;

/// Largest raw device that is made of a number, bytes (8 EiB less a bit: offsets fit an i64).
const BYTES_MAX: u64 = i64::MAX as u64;
/// Longest delay, microseconds: an hour.
const DELAY_MAX_US: u64 = 3_600_000_000;

impl<N: Node> Control<N> {
    /// Opens a new raw device and remembers it; a store found on it is opened too. Returns its name.
    ///
    /// Asking again for a device that is configured just so but could not be opened at start opens it under its old
    /// identity, so that its exports work again.
    pub async fn create_device(&self, name: BdevName, uuid: Option<Uuid>, spec: DeviceSpec) -> Result<BdevName, Error> {
        let _turn = self.turn.lock().await;
        check_spec(&spec)?;
        let state = self.state();
        if let Some(old) = state.device_named(name.as_str()) {
            let down = !self.devices.borrow().contains_key(&old.id);
            if down && old.spec == spec && uuid.is_none_or(|u| u == old.uuid) {
                return self.reopen(&old.clone()).await.map(|()| name);
            }
        }
        if self.bdev(name.as_str()).is_ok() {
            return Err(Error::BdevExists(name.to_string()));
        }
        if uuid.is_some_and(|u| self.bdev(&u.to_string()).is_ok()) {
            return Err(Error::BdevExists(uuid.unwrap_or_default().to_string()));
        }
        let uuid = uuid.unwrap_or_else(Uuid::new_v4);
        let device = Device { id: state.next_id(), name: name.clone(), uuid, spec };
        let command = Command::AddDevice(device.clone());
        // Refusals that need no device come first.
        state.apply(&command)?;
        if device.spec.base().is_some_and(|base| !self.devices.borrow().contains_key(&base)) {
            return Err(Error::Conflict { field: "base_bdev_name", why: "names a bdev that could not be opened" });
        }
        self.open(&device).await?;
        if let Err(e) = self.commit(&command).await {
            self.devices.borrow_mut().remove(&device.id);
            let closed = self.node.close_device(device.id).await;
            tracing::debug!("closed '{name}' after the journal refused it: {closed:?}");
            return Err(e);
        }
        self.note(EventKind::Register, name.to_string());
        self.examine(device.id).await;
        Ok(name)
    }

    /// Opens a device that is configured.
    pub(super) async fn open(&self, device: &Device) -> Result<(), Error> {
        let opened = self.node.open_device(device.id, device.uuid, &device.spec).await;
        let failed = |source| Error::Node { what: "open bdev", object: device.name.to_string(), source };
        let report = opened.map_err(failed)?;
        self.devices.borrow_mut().insert(device.id, (device.name.clone(), report));
        Ok(())
    }

    async fn reopen(&self, device: &Arc<Device>) -> Result<(), Error> {
        self.open(device).await?;
        self.problems.borrow_mut().remove(&Problem::Device(device.id));
        self.note(EventKind::Register, device.name.to_string());
        self.examine(device.id).await;
        self.node.publish(self.state()).await;
        Ok(())
    }

    /// Forgets a raw device, and what is built on it: wrappers, the store on it (the data stays on the medium),
    /// namespaces. `is` says whether it is of the kind that the caller means.
    pub async fn delete_device(
        &self,
        name: &str,
        wanted: &'static str,
        is: impl Fn(&DeviceSpec) -> bool,
    ) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let device = self.device(name)?;
        if !is(&device.spec) {
            return Err(Error::WrongKind { name: name.to_owned(), wanted });
        }
        self.commit(&Command::RemoveDevice(device.id)).await
    }

    /// Closes what the state no longer has.
    pub(super) async fn shut_device(&self, id: VolumeId) {
        self.problems.borrow_mut().remove(&Problem::Device(id));
        let gone = self.devices.borrow_mut().remove(&id);
        if let Some((name, _)) = gone {
            if let Err(e) = self.node.close_device(id).await {
                tracing::warn!("closing bdev '{name}': {e}");
            }
            self.note(EventKind::Unregister, name.to_string());
        }
    }

    /// Gives a RAM or null device another number of blocks.
    pub async fn resize_null(&self, name: &str, bytes: u64) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let device = self.device(name)?;
        let DeviceSpec::Null { block_size, .. } = device.spec else {
            return Err(Error::WrongKind { name: name.to_owned(), wanted: "a null bdev" });
        };
        range("new_size", bytes, u64::from(block_size), BYTES_MAX)?;
        let blocks = bytes / u64::from(block_size);
        let report = self.node.resize_device(device.id, Some(blocks)).await.map_err(|source| Error::Node {
            what: "resize bdev",
            object: name.to_owned(),
            source,
        })?;
        self.record(&Command::SetSpec(device.id, DeviceSpec::Null { block_size, blocks }))?;
        self.resized(&device, report).await;
        Ok(())
    }

    /// Looks at the size of a file or block device again.
    pub async fn rescan(&self, name: &str) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let device = self.device(name)?;
        if !matches!(device.spec, DeviceSpec::File(_) | DeviceSpec::Nvme(_)) {
            return Err(Error::WrongKind { name: name.to_owned(), wanted: "a file or block device" });
        }
        let report = self.node.resize_device(device.id, None).await.map_err(|source| Error::Node {
            what: "rescan bdev",
            object: name.to_owned(),
            source,
        })?;
        self.resized(&device, report).await;
        Ok(())
    }

    async fn resized(&self, device: &Device, report: crate::cluster::node::DeviceReport) {
        let old = self.devices.borrow_mut().insert(device.id, (device.name.clone(), report.clone()));
        if old.is_some_and(|(_, o)| o.blocks != report.blocks) {
            self.note(EventKind::Resize, device.name.to_string());
            self.node.publish(self.state()).await;
        }
    }

    /// Changes the latencies of a delay device, as `edit` says.
    pub async fn update_delay(&self, name: &str, edit: impl Fn(&mut DelayTimes)) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let device = self.device(name)?;
        let DeviceSpec::Delay { base, mut times } = device.spec else {
            return Err(Error::WrongKind { name: name.to_owned(), wanted: "a delay bdev" });
        };
        edit(&mut times);
        check_delay(times)?;
        let failed = |source| Error::Node { what: "set latency", object: name.to_owned(), source };
        self.node.set_delay(device.id, times).await.map_err(failed)?;
        self.record(&Command::SetSpec(device.id, DeviceSpec::Delay { base, times })).map(drop)
    }

    /// Gives an error-injecting device an order. Orders are not remembered over a restart; they do not wait for other
    /// calls, as one of those may be waiting for an operation that the device holds.
    pub async fn inject(&self, name: &str, order: FaultOrder) -> Result<(), Error> {
        let id = self.fault_device(name)?;
        let failed = |source| Error::Node { what: "inject error", object: name.to_owned(), source };
        self.node.set_fault(id, order).await.map_err(failed)
    }

    /// Lets operations that an error-injecting device holds go on, without waiting for other calls.
    pub async fn release_pending(&self, name: &str) -> Result<(), Error> {
        let id = self.fault_device(name)?;
        let failed = |source| Error::Node { what: "resume", object: name.to_owned(), source };
        self.node.release_pending(id).await.map_err(failed)
    }

    fn fault_device(&self, name: &str) -> Result<VolumeId, Error> {
        let device = self.device(name)?;
        let wrong = || Error::WrongKind { name: name.to_owned(), wanted: "an error bdev" };
        if matches!(device.spec, DeviceSpec::Fault { .. }) { Ok(device.id) } else { Err(wrong()) }
    }
}

fn check_spec(spec: &DeviceSpec) -> Result<(), Error> {
    match spec {
        DeviceSpec::Malloc { block_size, blocks } | DeviceSpec::Null { block_size, blocks } => {
            check_block_size(*block_size)?;
            range("num_blocks", *blocks, 1, BYTES_MAX / u64::from(*block_size))
        }
        DeviceSpec::File(file) => {
            if file.path.is_empty() {
                return Err(Error::Conflict { field: "filename", why: "is empty" });
            }
            file.block_size.map_or(Ok(()), check_block_size)
        }
        DeviceSpec::Delay { times, .. } => check_delay(*times),
        DeviceSpec::Nvme(nvme) if nvme.address.is_empty() => Err(Error::Conflict { field: "traddr", why: "is empty" }),
        DeviceSpec::Fault { .. } | DeviceSpec::Nvme(_) => Ok(()),
    }
}

fn check_block_size(bytes: u32) -> Result<(), Error> {
    if matches!(bytes, 512 | 4096) {
        Ok(())
    } else {
        Err(Error::Conflict { field: "block_size", why: "must be 512 or 4096" })
    }
}

fn check_delay(times: DelayTimes) -> Result<(), Error> {
    range("avg_read_latency", times.read_avg_us, 0, DELAY_MAX_US)?;
    range("p99_read_latency", times.read_p99_us, times.read_avg_us, DELAY_MAX_US)?;
    range("avg_write_latency", times.write_avg_us, 0, DELAY_MAX_US)?;
    range("p99_write_latency", times.write_p99_us, times.write_avg_us, DELAY_MAX_US)
}
