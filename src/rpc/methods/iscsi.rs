//! iSCSI target nodes: their units, who may come where, how they prove themselves, where they are sent.

use super::{DONE, Nothing};
use crate::cluster::iscsi::{Access, Change, Chap, Iscsi, Map, Path, Redirect, TargetNode, parse_host};
use crate::cluster::{Error, IscsiName, LunSpec, Node, TargetSpec};
use crate::rpc::context::{Context, nvmf_error};
use crate::rpc::error::RpcError;
use crate::rpc::params::{choice, params};
use crate::rpc::table::{Answer, Method};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

choice! {
    /// How good a way to a target is.
    pub enum AccessState {
        /// Nothing is better.
        Optimized = "optimized",
        /// Others are better.
        NonOptimized = "non_optimized",
        /// The medium is out of reach.
        Standby = "standby",
        /// Nothing but this is told.
        Unavailable = "unavailable",
    }
}

params! {
    /// Who may come where.
    pub struct MapParams {
        /// The portal group.
        pg_tag: u16,
        /// The initiator group.
        ig_tag: u32,
    }

    /// A unit.
    pub struct LunParams {
        /// The bdev, by name, alias or UUID.
        bdev_name: String,
        /// Its LUN, 0 to 255.
        lun_id: u16,
    }

    /// Of `iscsi_create_target_node`.
    pub struct CreateTarget {
        /// Its name; without `iqn.`, `eui.` or `naa.` in front the node base is put there.
        name: String,
        /// Its alias; none unless given.
        alias_name: Option<String>,
        /// Who may come where.
        pg_ig_maps: Vec<MapParams>,
        /// Its units.
        luns: Vec<LunParams>,
        /// Commands of one session under way, 1 to 1024; 0: as the options say.
        queue_depth: u32,
        /// CHAP is not offered; false unless given.
        disable_chap: Option<bool>,
        /// CHAP is required; false unless given.
        require_chap: Option<bool>,
        /// The target proves itself, too; false unless given.
        mutual_chap: Option<bool>,
        /// The auth group with the secrets; 0, none, unless given.
        chap_group: Option<u32>,
        /// Insist on header digests; false unless given.
        header_digest: Option<bool>,
        /// Insist on data digests; false unless given.
        data_digest: Option<bool>,
    }

    /// Which target node.
    pub struct WhichTarget {
        /// By its full or short name.
        name: String,
    }

    /// Of `iscsi_target_node_add_lun`.
    pub struct AddLun {
        /// The target node.
        name: String,
        /// The bdev, by name, alias or UUID.
        bdev_name: String,
        /// Its LUN, 0 to 255; the first free one unless given or -1.
        lun_id: Option<i64>,
    }

    /// Of `pollux_iscsi_target_node_remove_lun`.
    pub struct RemoveLun {
        /// The target node.
        name: String,
        /// The unit.
        lun_id: u16,
    }

    /// Of `iscsi_target_node_add_pg_ig_maps` and `iscsi_target_node_remove_pg_ig_maps`.
    pub struct Maps {
        /// The target node.
        name: String,
        /// Who may come where.
        pg_ig_maps: Vec<MapParams>,
    }

    /// Of `iscsi_target_node_set_auth`.
    pub struct SetAuth {
        /// The target node.
        name: String,
        /// CHAP is not offered; false unless given.
        disable_chap: Option<bool>,
        /// CHAP is required; false unless given.
        require_chap: Option<bool>,
        /// The target proves itself, too; false unless given.
        mutual_chap: Option<bool>,
        /// The auth group with the secrets; 0, none, unless given.
        chap_group: Option<u32>,
    }

    /// Of `iscsi_target_node_set_redirect`.
    pub struct SetRedirect {
        /// The target node.
        name: String,
        /// The portal group whose logins are sent elsewhere.
        pg_tag: u16,
        /// The other portal's IP address; without it nobody is sent anywhere.
        redirect_host: Option<String>,
        /// The other portal's port.
        redirect_port: Option<String>,
        /// The target has moved for good; false unless given.
        permanent: Option<bool>,
    }

    /// Of `iscsi_target_node_request_logout`.
    pub struct RequestLogout {
        /// The target node.
        name: String,
        /// Only those that came through this portal group; all unless given or -1.
        pg_tag: Option<i64>,
    }

    /// Of `pollux_iscsi_target_node_set_access_state`.
    pub struct SetAccess {
        /// The target node.
        name: String,
        /// The portal group.
        pg_tag: u16,
        /// The state of the way through it.
        access_state: AccessState,
        /// Initiators should prefer it; false unless given.
        preferred: Option<bool>,
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    vec![
        Method::nvmf("iscsi_create_target_node", "Makes a target node.", create),
        Method::nvmf("iscsi_delete_target_node", "Deletes a target node; its bdevs stay.", delete),
        Method::nvmf("iscsi_get_target_nodes", "Target nodes by age.", get),
        Method::nvmf("iscsi_target_node_add_lun", "Exports a bdev as a unit of a target node.", add_lun),
        Method::nvmf("pollux_iscsi_target_node_remove_lun", "Removes a unit; its bdev stays.", remove_lun),
        Method::nvmf("iscsi_target_node_add_pg_ig_maps", "Lets initiators come through portals.", add_maps),
        Method::nvmf("iscsi_target_node_remove_pg_ig_maps", "Takes that back; their sessions end.", remove_maps),
        Method::nvmf("iscsi_target_node_set_auth", "How initiators prove themselves.", set_auth),
        Method::nvmf("iscsi_target_node_set_redirect", "Sends logins to another portal.", set_redirect),
        Method::nvmf("iscsi_target_node_request_logout", "Asks initiators to log out.", request_logout),
        Method::nvmf("pollux_iscsi_target_node_set_access_state", "Sets the ALUA state of a way.", set_access),
        Method::nvmf("scsi_get_devices", "SCSI target devices: one per target node.", scsi_devices),
    ]
}

/// The name of a target node that must exist; a short one gets the node base in front.
pub(super) fn existing<N: Node>(context: &Context<N>, name: &str) -> Result<(IscsiName, u32), RpcError> {
    let state = context.control.state();
    let iscsi = state.iscsi();
    let full = || iscsi.options().full_name(name).ok();
    let found = iscsi.target(name).or_else(|| iscsi.target(full()?.as_str()));
    let missing = || nvmf_error(Error::Missing { what: "target", name: name.chars().take(256).collect() });
    found.map(|t| (t.name.clone(), t.index)).ok_or_else(missing)
}

/// What the four parameters of CHAP say.
pub(super) fn chap(disabled: Option<bool>, required: Option<bool>, mutual: Option<bool>, group: Option<u32>) -> Chap {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    Chap { disabled: on(disabled), required: on(required), mutual: on(mutual), group: group.unwrap_or(0) }
}

/// The four parameters, as they are shown and saved.
pub(super) fn chap_json(chap: Chap) -> [(&'static str, Value); 4] {
    [
        ("disable_chap", chap.disabled.into()),
        ("require_chap", chap.required.into()),
        ("mutual_chap", chap.mutual.into()),
        ("chap_group", chap.group.into()),
    ]
}

/// An IP address in front of a port, as SPDK writes it.
pub(super) fn host_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The address of host and port.
pub(super) fn portal(host: &str, port: &str) -> Result<SocketAddr, RpcError> {
    let ip = parse_host(host).ok_or_else(|| RpcError::params(format!("host must be an IP address, not '{host}'")))?;
    let number = port.parse::<u16>().ok().filter(|p| *p != 0);
    let wrong = || RpcError::params(format!("port must be a number from 1 to 65535, not '{port}'"));
    Ok(SocketAddr::new(ip, number.ok_or_else(wrong)?))
}

fn maps(params: &[MapParams]) -> Vec<Map> {
    params.iter().map(|m| Map { portal_group: m.pg_tag, initiator_group: m.ig_tag }).collect()
}

async fn change<N: Node>(context: &Context<N>, change: Change) -> Answer {
    context.control.change_iscsi(change).await.map(|()| DONE).map_err(nvmf_error)
}

async fn create<N: Node>(context: Rc<Context<N>>, p: CreateTarget) -> Answer {
    let spec = TargetSpec {
        name: p.name,
        alias: p.alias_name.unwrap_or_default(),
        maps: maps(&p.pg_ig_maps),
        luns: p.luns.into_iter().map(|l| LunSpec { bdev: l.bdev_name, lun: Some(l.lun_id) }).collect(),
        queue_depth: p.queue_depth,
        auth: chap(p.disable_chap, p.require_chap, p.mutual_chap, p.chap_group),
        header_digest: p.header_digest.unwrap_or(false),
        data_digest: p.data_digest.unwrap_or(false),
    };
    context.control.create_target(&spec).await.map(|_| DONE).map_err(nvmf_error)
}

async fn delete<N: Node>(context: Rc<Context<N>>, p: WhichTarget) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    change(&context, Change::DeleteTarget(name)).await
}

async fn get<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(context.control.state().iscsi().targets().map(|t| target_json(t)).collect())
}

/// A target node as it is shown and saved.
fn target_json(t: &TargetNode) -> Value {
    let map = |m: &Map| json!({"pg_tag": m.portal_group, "ig_tag": m.initiator_group});
    let luns: Vec<Value> = t.luns.values().map(|l| json!({"bdev_name": l.bdev, "lun_id": l.lun})).collect();
    let mut all = json!({"name": t.name.as_str()});
    if !t.alias.is_empty() {
        all["alias_name"] = t.alias.as_str().into();
    }
    all["pg_ig_maps"] = t.maps.iter().map(map).collect();
    all["luns"] = luns.into();
    all["queue_depth"] = t.queue_depth.into();
    for (name, value) in chap_json(t.auth) {
        all[name] = value;
    }
    all["header_digest"] = t.header_digest.into();
    all["data_digest"] = t.data_digest.into();
    all
}

/// The calls that make the target nodes again.
pub(super) fn config(iscsi: &Iscsi) -> Vec<Value> {
    let call = |method: &str, params: Value| json!({"method": method, "params": params});
    let mut calls = Vec::new();
    // A node whose units went with their bdevs cannot be made as it is, and has nothing to be kept but its name.
    for t in iscsi.targets().filter(|t| !t.luns.is_empty()) {
        calls.push(call("iscsi_create_target_node", target_json(t)));
        for (tag, to) in &t.redirects {
            let (host, port) = (host_text(to.addr.ip()), to.addr.port().to_string());
            let params = json!({
                "name": t.name.as_str(), "pg_tag": tag, "redirect_host": host, "redirect_port": port,
                "permanent": to.permanent,
            });
            calls.push(call("iscsi_target_node_set_redirect", params));
        }
        for (tag, path) in &t.paths {
            let state = match path.access {
                Access::Optimized => "optimized",
                Access::NonOptimized => "non_optimized",
                Access::Standby => "standby",
                Access::Unavailable => "unavailable",
            };
            let params =
                json!({"name": t.name.as_str(), "pg_tag": tag, "access_state": state, "preferred": path.preferred});
            calls.push(call("pollux_iscsi_target_node_set_access_state", params));
        }
    }
    calls
}

async fn add_lun<N: Node>(context: Rc<Context<N>>, p: AddLun) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    let lun = match p.lun_id {
        None | Some(-1) => None,
        Some(lun) => {
            Some(u16::try_from(lun).map_err(|_| RpcError::params(format!("lun_id must be 0 to 255, not {lun}")))?)
        }
    };
    let spec = LunSpec { bdev: p.bdev_name, lun };
    context.control.add_lun(&name, &spec).await.map(|_| DONE).map_err(nvmf_error)
}

async fn remove_lun<N: Node>(context: Rc<Context<N>>, p: RemoveLun) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    change(&context, Change::RemoveLun(name, p.lun_id)).await
}

async fn add_maps<N: Node>(context: Rc<Context<N>>, p: Maps) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    change(&context, Change::AddMaps(name, maps(&p.pg_ig_maps))).await
}

async fn remove_maps<N: Node>(context: Rc<Context<N>>, p: Maps) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    change(&context, Change::RemoveMaps(name, maps(&p.pg_ig_maps))).await
}

async fn set_auth<N: Node>(context: Rc<Context<N>>, p: SetAuth) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    let auth = chap(p.disable_chap, p.require_chap, p.mutual_chap, p.chap_group);
    change(&context, Change::SetAuth(name, auth)).await
}

async fn set_redirect<N: Node>(context: Rc<Context<N>>, p: SetRedirect) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    let redirect = match (&p.redirect_host, &p.redirect_port) {
        (Some(host), Some(port)) => {
            Some(Redirect { addr: portal(host, port)?, permanent: p.permanent.unwrap_or(false) })
        }
        (None, None) => None,
        _ => return Err(RpcError::params("redirect_host and redirect_port go together")),
    };
    change(&context, Change::SetRedirect(name, p.pg_tag, redirect)).await
}

async fn request_logout<N: Node>(context: Rc<Context<N>>, p: RequestLogout) -> Answer {
    let (_, index) = existing(&context, &p.name)?;
    let tag = match p.pg_tag {
        None | Some(-1) => None,
        Some(tag) => {
            Some(u16::try_from(tag).map_err(|_| RpcError::params(format!("pg_tag must be 1 to 65535, not {tag}")))?)
        }
    };
    context.control.node().request_logout(index, tag).await;
    Ok(DONE)
}

async fn set_access<N: Node>(context: Rc<Context<N>>, p: SetAccess) -> Answer {
    let (name, _) = existing(&context, &p.name)?;
    let access = match p.access_state {
        AccessState::Optimized => Access::Optimized,
        AccessState::NonOptimized => Access::NonOptimized,
        AccessState::Standby => Access::Standby,
        AccessState::Unavailable => Access::Unavailable,
    };
    let path = Path { access, preferred: p.preferred.unwrap_or(false) };
    change(&context, Change::SetPath(name, p.pg_tag, path)).await
}

async fn scsi_devices<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let one = |t: &TargetNode| json!({"id": t.index, "device_name": t.name.as_str()});
    Ok(context.control.state().iscsi().targets().map(|t| one(t)).collect())
}
