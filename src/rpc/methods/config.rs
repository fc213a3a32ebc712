//! The configuration as calls that make it again: `spdk-rpc save_config` and `load_config` are built on these methods.
//! Stores and volumes are not in it, as with SPDK: they are on their devices and are found there.

use super::Nothing;
use super::iscsi_options::options_json;
use super::nvme::attach_params;
use super::nvmf::{address_json, identity_json, inert_json, referral_json, transport_json};
use super::{iscsi, iscsi_groups};
use crate::cluster::iscsi::Iscsi;
use crate::cluster::{Device, DeviceSpec, FileEngine, Namespace, Node, Nqn, State, Subsystem, Visibility};
use crate::rpc::context::{Caller, Context};
use crate::rpc::error::{INVALID_PARAMS, RpcError};
use crate::rpc::params::params;
use crate::rpc::table::{Answer, Method, When};
use serde_json::{Map, Value, json};
use std::rc::Rc;

/// Parts of the configuration in the order they are made, with the parts they need.
const SUBSYSTEMS: &[(&str, &[&str])] = &[
    ("sock", &[]),
    ("iobuf", &[]),
    ("bdev", &["sock", "iobuf"]),
    ("nvmf", &["bdev", "sock", "iobuf"]),
    ("scsi", &["bdev"]),
    ("iscsi", &["scsi", "sock"]),
];

params! {
    /// Of `framework_get_config`.
    pub struct GetConfig {
        /// Which part.
        name: String,
        /// Let calls that may be sent together stand in arrays; none of ours must be.
        with_batches: Option<bool>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::core("framework_get_subsystems", "Parts of the configuration in their order.", get_subsystems)
            .when(When::Always),
        Method::for_caller("framework_get_config", "The calls that make a part of the configuration.", get_config),
    ]
}

async fn get_subsystems<N: Node>(_: Rc<Context<N>>, _: Nothing) -> Answer {
    let one = |(name, needs): &(&str, &[&str])| json!({"subsystem": name, "depends_on": needs});
    Ok(SUBSYSTEMS.iter().map(one).collect())
}

async fn get_config<N: Node>(context: Rc<Context<N>>, caller: Caller, p: GetConfig) -> Answer {
    let state = context.control.state();
    match p.name.as_str() {
        "bdev" => Ok(bdev_config(&state).into()),
        "nvmf" => Ok(nvmf_config(&state).into()),
        "iscsi" => Ok(iscsi_config(state.iscsi(), caller).into()),
        name if SUBSYSTEMS.iter().any(|(known, _)| *known == name) => Ok(json!([])),
        name => Err(RpcError::new(INVALID_PARAMS, format!("Invalid parameters: Subsystem '{name}' not found"))),
    }
}

fn call(method: &str, params: impl Into<Value>) -> Value {
    json!({"method": method, "params": params.into()})
}

fn bdev_config(state: &State) -> Vec<Value> {
    let mut calls: Vec<Value> = state.devices().map(|d| device_config(state, d)).collect();
    // One call attaches all namespaces of a controller.
    let mut seen = Vec::new();
    calls.retain(|call| {
        !seen.contains(call) && {
            seen.push(call.clone());
            true
        }
    });
    calls.push(json!({"method": "bdev_wait_for_examine"}));
    calls
}

fn device_config(state: &State, device: &Device) -> Value {
    let (name, uuid) = (device.name.as_str(), device.uuid);
    let below = |id| state.device(id).map(|d| d.name.to_string());
    match &device.spec {
        DeviceSpec::Malloc { block_size, blocks } => call(
            "bdev_malloc_create",
            json!({"name": name, "num_blocks": blocks, "block_size": block_size, "uuid": uuid}),
        ),
        DeviceSpec::Null { block_size, blocks } => call(
            "bdev_null_create",
            json!({"name": name, "num_blocks": blocks, "block_size": block_size, "uuid": uuid}),
        ),
        DeviceSpec::File(file) => {
            let mut params = json!({"name": name, "filename": file.path, "uuid": uuid});
            if let Some(block_size) = file.block_size {
                params["block_size"] = block_size.into();
            }
            match file.engine {
                FileEngine::Uring => call("bdev_uring_create", params),
                FileEngine::Aio => {
                    params["readonly"] = file.read_only.into();
                    call("bdev_aio_create", params)
                }
            }
        }
        DeviceSpec::Delay { base, times } => call(
            "bdev_delay_create",
            json!({
                "name": name, "base_bdev_name": below(*base), "uuid": uuid,
                "avg_read_latency": times.read_avg_us, "p99_read_latency": times.read_p99_us,
                "avg_write_latency": times.write_avg_us, "p99_write_latency": times.write_p99_us,
            }),
        ),
        DeviceSpec::Nvme(nvme) => call("bdev_nvme_attach_controller", attach_params(device, nvme)),
        DeviceSpec::Fault { base } => call("bdev_error_create", json!({"base_name": below(*base), "uuid": uuid})),
    }
}

fn nvmf_config(state: &State) -> Vec<Value> {
    let mut calls = Vec::new();
    if let Some(transport) = state.transport() {
        let mut params = Map::from_iter([("trtype".to_owned(), Value::from("TCP"))]);
        params.extend(transport_json(transport));
        calls.push(call("nvmf_create_transport", params));
    }
    calls.extend(state.referrals().map(|r| call("nvmf_discovery_add_referral", referral_json(r))));
    for subsystem in state.subsystems() {
        subsystem_config(subsystem, &mut calls);
    }
    calls
}

fn iscsi_config(iscsi: &Iscsi, caller: Caller) -> Vec<Value> {
    let mut calls = vec![call("iscsi_set_options", options_json(&iscsi.options()))];
    calls.extend(iscsi_groups::config(iscsi, caller));
    calls.extend(iscsi::config(iscsi));
    calls
}

fn subsystem_config(s: &Subsystem, calls: &mut Vec<Value>) {
    let nqn = s.nqn.as_str();
    if !s.nqn.is_discovery() {
        let mut params = json!({
            "nqn": nqn, "allow_any_host": s.allow_any_host, "serial_number": s.serial, "model_number": s.model,
            "max_namespaces": s.max_namespaces, "min_cntlid": s.min_cntlid, "max_cntlid": s.max_cntlid,
            "ana_reporting": s.ana_reporting,
        });
        for (name, value) in &s.inert {
            params[name] = inert_json(value);
        }
        calls.push(call("nvmf_create_subsystem", params));
    }
    for host in &s.hosts {
        calls.push(call("nvmf_subsystem_add_host", json!({"nqn": nqn, "host": host.as_str()})));
    }
    for namespace in s.namespaces.values() {
        calls.push(call("nvmf_subsystem_add_ns", json!({"nqn": nqn, "namespace": namespace_config(namespace)})));
        if let Visibility::Only(hosts) = &namespace.visible {
            let show = |host: &Nqn| json!({"nqn": nqn, "nsid": namespace.nsid, "host": host.as_str()});
            calls.extend(hosts.iter().map(|host| call("nvmf_ns_add_host", show(host))));
        }
    }
    for listener in &s.listeners {
        let params = json!({"nqn": nqn, "listen_address": address_json(listener.addr), "secure_channel": false});
        calls.push(call("nvmf_subsystem_add_listener", params));
    }
}

fn namespace_config(n: &Namespace) -> Value {
    let mut params = json!({"nsid": n.nsid, "bdev_name": n.bdev});
    for (name, value) in identity_json(n) {
        params[name] = value;
    }
    params["anagrpid"] = n.anagrpid.into();
    params["no_auto_visible"] = matches!(n.visible, Visibility::Only(_)).into();
    params
}
