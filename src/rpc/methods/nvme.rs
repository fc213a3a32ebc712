//! NVMe controllers that the node drives itself: attach (a bdev per namespace), detach, list, health.

use super::DONE;
use crate::cluster::{BdevName, Device, DeviceSpec, Error, Node, NvmeReport, NvmeSpec};
use crate::rpc::context::{Context, bdev_error};
use crate::rpc::error::RpcError;
use crate::rpc::params::params;
use crate::rpc::table::{Answer, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

params! {
    /// Of `bdev_nvme_attach_controller`.
    pub struct Attach {
        /// What the controller is called; its bdevs are called so with `n` and the number of their namespace.
        name: String,
        /// `PCIe`.
        trtype: String,
        /// Its PCI address: `0000:02:00.0`.
        traddr: String,
        /// Ignored: for fabrics.
        adrfam: Option<String>,
        /// Ignored: for fabrics.
        trsvcid: Option<String>,
        /// Ignored: for fabrics.
        priority: Option<String>,
        /// Ignored: for fabrics.
        subnqn: Option<String>,
        /// Ignored: for fabrics.
        hostnqn: Option<String>,
        /// Ignored: for fabrics.
        hostaddr: Option<String>,
        /// Ignored: for fabrics.
        hostsvcid: Option<String>,
        /// Ignored: protection information is not supported.
        prchk_reftag: Option<bool>,
        /// Ignored: protection information is not supported.
        prchk_guard: Option<bool>,
        /// Ignored: for fabrics.
        hdgst: Option<bool>,
        /// Ignored: for fabrics.
        ddgst: Option<bool>,
        /// Ignored: for fabrics.
        fabrics_connect_timeout_us: Option<u64>,
        /// Ignored: a `PCIe` controller has one path.
        multipath: Option<String>,
        /// Ignored: each core has a queue.
        num_io_queues: Option<u32>,
        /// Ignored: a controller that does not come back is dead.
        ctrlr_loss_timeout_sec: Option<i64>,
        /// Ignored, likewise.
        reconnect_delay_sec: Option<u64>,
        /// Ignored, likewise.
        fast_io_fail_timeout_sec: Option<u64>,
        /// Ignored: for fabrics.
        psk: Option<String>,
        /// Ignored: for fabrics.
        dhchap_key: Option<String>,
        /// Ignored: for fabrics.
        dhchap_ctrlr_key: Option<String>,
        /// Ignored: namespaces of other command sets are never attached.
        allow_unrecognized_csi: Option<bool>,
        /// Ignored: as many bdevs as namespaces.
        max_bdevs: Option<u32>,
        /// Ignored: for fabrics.
        disable_sq_flow_control: Option<bool>,
        /// Ours: only this namespace (0: the only one there is); its bdev has the controller's name as it is.
        nsid: Option<u32>,
        /// Ours: drive it without an IOMMU, whatever it then may overwrite.
        unsafe_noiommu: Option<bool>,
    }

    /// Of `bdev_nvme_detach_controller`.
    pub struct Detach {
        /// The controller's name.
        name: String,
        /// Only if it is of this transport.
        trtype: Option<String>,
        /// Only if it has this address.
        traddr: Option<String>,
        /// Ignored: for fabrics.
        adrfam: Option<String>,
        /// Ignored: for fabrics.
        trsvcid: Option<String>,
        /// Ignored: for fabrics.
        subnqn: Option<String>,
        /// Ignored: for fabrics.
        hostaddr: Option<String>,
        /// Ignored: for fabrics.
        hostsvcid: Option<String>,
    }

    /// Of `bdev_nvme_get_controllers` and `bdev_nvme_get_controller_health_info`.
    pub struct Which {
        /// The controller's name.
        name: Option<String>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::bdev("bdev_nvme_attach_controller", "Drives an NVMe controller; a bdev per namespace.", attach),
        Method::bdev("bdev_nvme_detach_controller", "Lets a controller go, with its bdevs; data stays.", detach),
        Method::bdev("bdev_nvme_get_controllers", "The controllers that the node drives.", controllers),
        Method::bdev("bdev_nvme_get_controller_health_info", "What a controller says of its health.", health),
    ]
}

/// The controller's name in a device's: what stands before `n` and the namespace.
fn controller_of(device: &Device, spec: &NvmeSpec) -> String {
    let name = device.name.as_str();
    let number = spec.nsid.map(|n| format!("n{n}"));
    number.and_then(|n| name.strip_suffix(&n)).filter(|n| !n.is_empty()).unwrap_or(name).to_owned()
}

/// The devices of each controller, by its name.
fn by_controller<N: Node>(context: &Context<N>) -> BTreeMap<String, Vec<(Arc<Device>, NvmeSpec)>> {
    let mut found: BTreeMap<String, Vec<(Arc<Device>, NvmeSpec)>> = BTreeMap::new();
    for device in context.control.state().devices() {
        if let DeviceSpec::Nvme(spec) = &device.spec {
            found.entry(controller_of(device, spec)).or_default().push((device.clone(), spec.clone()));
        }
    }
    found
}

/// SPDK's transport identifier.
pub fn trid(spec: &NvmeSpec) -> Value {
    json!({"trtype": "PCIe", "traddr": spec.address})
}

/// The call that attaches a device again, and others of its controller with it.
pub fn attach_params(device: &Device, spec: &NvmeSpec) -> Value {
    let mut params = trid(spec);
    let controller = controller_of(device, spec);
    if controller == device.name.as_str() {
        params["nsid"] = spec.nsid.unwrap_or(0).into();
    }
    params["name"] = controller.into();
    if spec.unsafe_noiommu {
        params["unsafe_noiommu"] = true.into();
    }
    params
}

fn pcie(trtype: &str) -> Result<(), RpcError> {
    if trtype.eq_ignore_ascii_case("pcie") {
        Ok(())
    } else {
        Err(RpcError::errno(libc::ENOTSUP, format!("trtype '{trtype}' is not supported; PCIe is")))
    }
}

async fn attach<N: Node>(context: Rc<Context<N>>, p: Attach) -> Answer {
    pcie(&p.trtype)?;
    if by_controller(&context).contains_key(&p.name) {
        return Err(RpcError::errno(libc::EALREADY, format!("A controller named {} already exists", p.name)));
    }
    let controller =
        NvmeSpec { address: p.traddr.clone(), nsid: None, unsafe_noiommu: p.unsafe_noiommu.unwrap_or(false) };
    let failed = |source| bdev_error(Error::Node { what: "attach controller", object: p.traddr.clone(), source });
    if let Some(nsid) = p.nsid {
        let name = BdevName::new(&p.name).map_err(bdev_error)?;
        let spec = NvmeSpec { nsid: Some(nsid).filter(|n| *n != 0), ..controller };
        let made = context.control.create_device(name, None, DeviceSpec::Nvme(spec)).await.map_err(bdev_error)?;
        return Ok(json!([String::from(made)]));
    }
    let nsids = context.control.node().nvme_namespaces(&controller).await.map_err(failed)?;
    let (mut made, mut first_refusal) = (Vec::new(), None);
    for nsid in nsids {
        let name = BdevName::new(&format!("{}n{nsid}", p.name)).map_err(bdev_error)?;
        let spec = NvmeSpec { nsid: Some(nsid), ..controller.clone() };
        match context.control.create_device(name, None, DeviceSpec::Nvme(spec)).await {
            Ok(name) => made.push(Value::from(String::from(name))),
            // One that can not be used (its format) leaves the others.
            Err(e) => {
                tracing::warn!("namespace {nsid} of {}: {e}", p.traddr);
                first_refusal.get_or_insert(e);
            }
        }
    }
    match first_refusal {
        Some(e) if made.is_empty() => Err(bdev_error(e)),
        _ => Ok(made.into()),
    }
}

/// The devices of a controller that must be there.
fn devices_of<N: Node>(context: &Context<N>, name: &str) -> Result<Vec<(Arc<Device>, NvmeSpec)>, RpcError> {
    by_controller(context)
        .remove(name)
        .ok_or_else(|| RpcError::errno(libc::ENODEV, format!("No such device: controller '{name}'")))
}

async fn detach<N: Node>(context: Rc<Context<N>>, p: Detach) -> Answer {
    p.trtype.as_deref().map_or(Ok(()), pcie)?;
    let devices = devices_of(&context, &p.name)?;
    if p.traddr.is_some_and(|a| devices.iter().any(|(_, spec)| spec.address != a)) {
        return Err(RpcError::errno(libc::ENODEV, format!("No such device: controller '{}' at that address", p.name)));
    }
    for (device, _) in devices {
        let is = |s: &DeviceSpec| matches!(s, DeviceSpec::Nvme(_));
        context.control.delete_device(device.name.as_str(), "an NVMe bdev", is).await.map_err(bdev_error)?;
    }
    Ok(DONE)
}

async fn controllers<N: Node>(context: Rc<Context<N>>, p: Which) -> Answer {
    let mut all = by_controller(&context);
    if let Some(name) = &p.name {
        devices_of(&context, name)?;
        all.retain(|n, _| n == name);
    }
    let mut answer = Vec::new();
    for (name, devices) in all {
        let (device, spec) = &devices[0];
        // One that could not be opened is configured all the same.
        let enabled = context.control.node().nvme_report(device.id).await.is_ok_and(|r| r.enabled);
        let state = if enabled { "enabled" } else { "failed" };
        answer.push(json!({"name": name, "ctrlrs": [{"state": state, "trid": trid(spec), "cntlid": 0}]}));
    }
    Ok(answer.into())
}

async fn health<N: Node>(context: Rc<Context<N>>, p: Which) -> Answer {
    let name = p.name.ok_or_else(|| RpcError::errno(libc::EINVAL, "parameter 'name' is missing"))?;
    let (device, spec) = devices_of(&context, &name)?.swap_remove(0);
    let failed = |source| bdev_error(Error::Node { what: "read health log", object: name.clone(), source });
    let r: NvmeReport = context.control.node().nvme_report(device.id).await.map_err(failed)?;
    Ok(json!({
        "model_number": r.model, "serial_number": r.serial, "firmware_revision": r.firmware, "traddr": spec.address,
        "critical_warning": r.critical_warning, "temperature_celsius": i32::from(r.temperature) - 273,
        "available_spare_percentage": r.spare.0, "available_spare_threshold_percentage": r.spare.1,
        "percentage_used": r.used, "data_units_read": r.units.0, "data_units_written": r.units.1,
        "host_read_commands": r.commands.0, "host_write_commands": r.commands.1,
        "controller_busy_time": r.busy_minutes, "power_cycles": r.power.0, "power_on_hours": r.power.1,
        "unsafe_shutdowns": r.unsafe_shutdowns, "media_errors": r.media_errors,
        "num_err_log_entries": r.error_entries,
    }))
}
