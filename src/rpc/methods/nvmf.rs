//! The NVMe/TCP target: transport, subsystems, namespaces, listeners.

use super::{DONE, TICK_RATE, poll_group};
use crate::base::CoreId;
use crate::cluster::{
    Command, Error, Inert, Namespace, NamespaceSpec, Node, Nqn, PollGroupReport, Referral, Subsystem, Transport,
    Visibility,
};
use crate::rpc::context::{Context, nvmf_error};
use crate::rpc::error::{Dialect, INTERNAL_ERROR, RpcError};
use crate::rpc::json::Json;
use crate::rpc::params::{Field, Members, Params, Problem, choice, params};
use crate::rpc::table::{Answer, Method, When};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use uuid::Uuid;

choice! {
    /// A transport; the only one there is.
    pub enum Trtype {
        /// NVMe/TCP.
        Tcp = "TCP",
    }
}

choice! {
    /// An address family.
    pub enum Adrfam {
        /// IP version 4.
        V4 = "IPv4",
        /// IP version 6.
        V6 = "IPv6",
    }
}

choice! {
    /// How good a path is; a node alone is the best there is.
    pub enum AnaState {
        /// The best.
        Optimized = "optimized",
    }
}

params! {
    /// The options of `nvmf_create_transport` that do something.
    pub struct TransportOptions {
        /// The transport.
        trtype: Trtype,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
        /// Most commands outstanding per I/O queue, 2 to 1024; 128 unless given.
        max_queue_depth: Option<u32>,
        /// I/O queues per controller, 1 to 128; 64 unless given.
        max_io_qpairs_per_ctrlr: Option<u32>,
        /// The same and the admin queue (older clients).
        max_qpairs_per_ctrlr: Option<u32>,
        /// In-capsule data, bytes, 0 to 65536; 16384 unless given.
        in_capsule_data_size: Option<u32>,
        /// Largest host I/O, bytes, 4096 to 1048576, a power of two; 1048576 unless given.
        max_io_size: Option<u32>,
        /// Admin queue entries, 32 to 4096; 128 unless given.
        max_aq_depth: Option<u32>,
        /// Let data PDUs carry the status where the host allows it; true unless given.
        c2h_success: Option<bool>,
        /// Protection information: refused.
        dif_insert_or_strip: Option<bool>,
    }

    /// Of `nvmf_get_transports`.
    pub struct GetTransports {
        /// Only this one.
        trtype: Option<Trtype>,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
    }

    /// Of `nvmf_create_subsystem`.
    pub struct CreateSubsystem {
        /// Its name.
        nqn: String,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
        /// Serial number, at most 20 characters.
        serial_number: Option<String>,
        /// Model number, at most 40 characters.
        model_number: Option<String>,
        /// Largest NSID, 1 to 1024; 32 unless given or 0.
        max_namespaces: Option<u32>,
        /// Let hosts connect that are not on the list; false unless given.
        allow_any_host: Option<bool>,
        /// Report ANA states; false unless given.
        ana_reporting: Option<bool>,
        /// Smallest controller id, 1 to 65519; 1 unless given.
        min_cntlid: Option<u16>,
        /// Largest controller id, 1 to 65519; 65519 unless given.
        max_cntlid: Option<u16>,
        /// Remembered, without effect: the target announces its own limits.
        dmrsl: Option<u64>,
        /// Remembered, without effect: the target announces its own limits.
        wzsl: Option<u64>,
        /// Pass commands through: refused.
        passthrough: Option<bool>,
        /// Subsystem reset: refused.
        enable_nssr: Option<bool>,
        /// Label in the extended discovery log: refused.
        admin_label: Option<String>,
    }

    /// Which subsystem.
    pub struct Which {
        /// Its name.
        nqn: String,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
    }

    /// Of `nvmf_get_subsystems`.
    pub struct GetSubsystems {
        /// Only this one.
        nqn: Option<String>,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
    }

    /// A namespace to be.
    pub struct NamespaceParams {
        /// The bdev, by name, alias or UUID.
        bdev_name: String,
        /// Its number; the first free one unless given.
        nsid: Option<u32>,
        /// Its NGUID; made of the UUID unless given.
        nguid: Option<[u8; 16]>,
        /// Its EUI-64; none unless given.
        eui64: Option<[u8; 8]>,
        /// Its UUID; the bdev's unless given.
        uuid: Option<Uuid>,
        /// Its ANA group; the NSID unless given.
        anagrpid: Option<u32>,
        /// A file for reservations: refused.
        ptpl_file: Option<String>,
        /// Show it only to hosts that `nvmf_ns_add_host` names; false unless given.
        no_auto_visible: Option<bool>,
    }

    /// Of `nvmf_subsystem_remove_ns`.
    pub struct RemoveNs {
        /// The subsystem.
        nqn: String,
        /// The namespace.
        nsid: u32,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
    }

    /// Of `nvmf_ns_add_host` and `nvmf_ns_remove_host`.
    pub struct NsHost {
        /// The subsystem.
        nqn: String,
        /// The namespace; it was added with `no_auto_visible`.
        nsid: u32,
        /// The host's NQN.
        host: Nqn,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
    }

    /// An address.
    pub struct Address {
        /// The transport.
        trtype: Trtype,
        /// IP address.
        traddr: String,
        /// Port, as a string; 4420 unless given.
        trsvcid: Option<String>,
        /// The kind of address; seen from the address unless given.
        adrfam: Option<Adrfam>,
    }

    /// Of `nvmf_discovery_add_referral` and `nvmf_discovery_remove_referral`.
    pub struct ReferralParams {
        /// Where the other discovery service is.
        address: Address,
        /// Its name; the discovery NQN unless given.
        subnqn: Option<Nqn>,
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
        /// TLS: refused.
        secure_channel: Option<bool>,
    }

    /// Of `nvmf_discovery_get_referrals` and `nvmf_get_stats`.
    pub struct Target {
        /// Another target than the only one: refused.
        tgt_name: Option<String>,
    }
}

/// Of `nvmf_create_transport`: whatever is not an option of ours is remembered and reported.
pub struct CreateTransport {
    options: TransportOptions,
    inert: BTreeMap<String, Inert>,
}

impl Params for CreateTransport {
    const FIELDS: &'static [Field] = TransportOptions::FIELDS;
    fn take(members: &mut Members) -> Result<CreateTransport, Problem> {
        let options = TransportOptions::take(members)?;
        Ok(CreateTransport { options, inert: inert(members.0.drain(..)) })
    }
}

/// Of `nvmf_subsystem_add_ns`: relaxed outside, strict inside.
pub struct AddNs {
    nqn: String,
    namespace: NamespaceParams,
    tgt_name: Option<String>,
}

impl Params for AddNs {
    const FIELDS: &'static [Field] = &[
        Field { name: "nqn", kind: "string: NQN", required: true, doc: " The subsystem.", inner: &[] },
        Field {
            name: "namespace",
            kind: "object",
            required: true,
            doc: " The namespace.",
            inner: NamespaceParams::FIELDS,
        },
    ];
    fn take(members: &mut Members) -> Result<AddNs, Problem> {
        let (nqn, namespace) = (members.field("nqn")?, members.field("namespace")?);
        Ok(AddNs { nqn, namespace, tgt_name: members.field("tgt_name")? })
    }
}

/// Numbers, flags and words that are remembered without effect.
fn inert(members: impl Iterator<Item = (String, Json)>) -> BTreeMap<String, Inert> {
    let one = |(name, json)| {
        let value = match json {
            Json::Bool(flag) => Inert::Flag(flag),
            Json::Number(n) => Inert::Number(n.as_u64()?),
            Json::Text(text) => Inert::Text(text),
            _ => return None,
        };
        Some((name, value))
    };
    members.filter_map(one).take(64).collect()
}

/// An inert value as it was given.
pub(super) fn inert_json(inert: &Inert) -> Value {
    match inert {
        Inert::Flag(flag) => (*flag).into(),
        Inert::Number(number) => (*number).into(),
        Inert::Text(text) => text.as_str().into(),
    }
}

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    let relaxed = |name, doc| (name, doc, When::Runtime, Dialect::Nvmf, true);
    let (name, doc, when, dialect, yes) =
        relaxed("nvmf_create_transport", "Makes the NVMe/TCP transport; options it does not know are remembered.");
    let create_transport = Method::new(name, doc, when, dialect, yes, create_transport);
    let (name, doc, when, dialect, yes) = relaxed("nvmf_subsystem_add_ns", "Exports a bdev; returns its NSID.");
    let add_ns = Method::new(name, doc, when, dialect, yes, add_ns);
    vec![
        create_transport,
        add_ns,
        Method::nvmf("nvmf_get_transports", "The transport and its options.", get_transports),
        Method::nvmf("nvmf_create_subsystem", "Makes a subsystem, closed to all hosts.", create_subsystem),
        Method::nvmf("nvmf_delete_subsystem", "Deletes a subsystem with all it has.", delete_subsystem),
        Method::nvmf("nvmf_get_subsystems", "Subsystems; the discovery subsystem first.", get_subsystems),
        Method::nvmf("nvmf_subsystem_remove_ns", "Removes a namespace; the bdev stays.", remove_ns),
        Method::nvmf("nvmf_ns_add_host", "Shows a namespace to a host.", ns_add_host),
        Method::nvmf("nvmf_ns_remove_host", "No longer shows a namespace to a host.", ns_remove_host),
        Method::nvmf("nvmf_subsystem_get_controllers", "Controllers of a subsystem.", get_controllers),
        Method::nvmf("nvmf_subsystem_get_qpairs", "Queue pairs of a subsystem.", get_qpairs),
        Method::nvmf("nvmf_get_stats", "Connections and commands per core.", get_stats),
        Method::nvmf("nvmf_discovery_add_referral", "Refers hosts to another discovery service.", add_referral),
        Method::nvmf("nvmf_discovery_remove_referral", "Takes that back.", remove_referral),
        Method::nvmf("nvmf_discovery_get_referrals", "Referrals to other discovery services.", get_referrals),
    ]
}

/// There is one target, whose name is never needed.
pub(super) fn only_target(name: Option<&str>) -> Result<(), RpcError> {
    match name {
        None | Some("nvmf_tgt") => Ok(()),
        Some(other) => Err(RpcError::params(format!("Unable to find a target named '{other}'"))),
    }
}

/// Refuses what is asked for and not there, so that nobody relies on it.
pub(super) fn without(asked: bool, what: &str) -> Result<(), RpcError> {
    if asked { Err(RpcError::params(format!("{what} is not supported"))) } else { Ok(()) }
}

/// The name of a subsystem that must exist; `discovery` stands for the discovery subsystem.
pub(super) fn existing<N: Node>(context: &Context<N>, nqn: &str) -> Result<Nqn, RpcError> {
    let missing = || nvmf_error(Error::NoSubsystem(nqn.chars().take(256).collect()));
    let state = context.control.state();
    state.subsystem(nqn).map(|s| s.nqn.clone()).ok_or_else(missing)
}

/// The socket address of a transport address.
pub(super) fn socket(address: &Address) -> Result<SocketAddr, RpcError> {
    let wrong = |name: &str, why: String| RpcError {
        data: Some(json!({"parameter": name, "reason": why})),
        ..RpcError::params(format!("parameter '{name}' {why}"))
    };
    let ip: IpAddr = address
        .traddr
        .parse()
        .map_err(|_| wrong("traddr", format!("must be an IP address, not '{}'", address.traddr)))?;
    let port = address.trsvcid.as_deref().unwrap_or("4420");
    let number = port.parse::<u16>().ok().filter(|p| *p != 0);
    let number = number.ok_or_else(|| wrong("trsvcid", format!("must be a port from 1 to 65535, not '{port}'")))?;
    match (address.adrfam, ip) {
        (Some(Adrfam::V4), IpAddr::V6(_)) | (Some(Adrfam::V6), IpAddr::V4(_)) => {
            Err(wrong("adrfam", format!("does not fit '{}'", address.traddr)))
        }
        _ => Ok(SocketAddr::new(ip, number)),
    }
}

/// A socket address as clients compare it: `trtype` upper case, `trsvcid` a string.
pub(super) fn address_json(addr: SocketAddr) -> Value {
    let adrfam = if addr.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "trtype": "TCP", "adrfam": adrfam, "traddr": addr.ip().to_string(), "trsvcid": addr.port().to_string(),
    })
}

async fn create_transport<N: Node>(context: Rc<Context<N>>, p: CreateTransport) -> Answer {
    let o = p.options;
    only_target(o.tgt_name.as_deref())?;
    without(o.dif_insert_or_strip == Some(true), "dif_insert_or_strip")?;
    let d = Transport::default();
    let transport = Transport {
        max_queue_depth: o.max_queue_depth.unwrap_or(d.max_queue_depth),
        max_io_qpairs_per_ctrlr: o
            .max_io_qpairs_per_ctrlr
            .or(o.max_qpairs_per_ctrlr.map(|n| n.saturating_sub(1)))
            .unwrap_or(d.max_io_qpairs_per_ctrlr),
        in_capsule_data_size: o.in_capsule_data_size.unwrap_or(d.in_capsule_data_size),
        max_io_size: o.max_io_size.unwrap_or(d.max_io_size),
        max_aq_depth: o.max_aq_depth.unwrap_or(d.max_aq_depth),
        c2h_success: o.c2h_success.unwrap_or(d.c2h_success),
        inert: p.inert,
    };
    context.control.change(Command::CreateTransport(transport)).await.map(|()| DONE).map_err(nvmf_error)
}

/// The options of the transport, as `nvmf_get_transports` and the saved configuration show them.
pub(super) fn transport_json(t: &Transport) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in [
        ("max_queue_depth", t.max_queue_depth),
        ("max_io_qpairs_per_ctrlr", t.max_io_qpairs_per_ctrlr),
        ("in_capsule_data_size", t.in_capsule_data_size),
        ("max_io_size", t.max_io_size),
        ("max_aq_depth", t.max_aq_depth),
    ] {
        all.insert(name.to_owned(), value.into());
    }
    all.insert("c2h_success".to_owned(), t.c2h_success.into());
    for (name, value) in &t.inert {
        all.insert(name.clone(), inert_json(value));
    }
    all
}

async fn get_transports<N: Node>(context: Rc<Context<N>>, p: GetTransports) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let state = context.control.state();
    let one = |t: &Transport| {
        let mut all = Map::from_iter([("trtype".to_owned(), Value::from("TCP"))]);
        all.extend(transport_json(t));
        Value::Object(all)
    };
    match state.transport() {
        Some(transport) => Ok(json!([one(transport)])),
        None if p.trtype.is_some() => Err(RpcError::params("Transport 'TCP' does not exist")),
        None => Ok(json!([])),
    }
}

async fn create_subsystem<N: Node>(context: Rc<Context<N>>, p: CreateSubsystem) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    without(p.passthrough == Some(true), "passthrough")?;
    without(p.enable_nssr == Some(true), "enable_nssr")?;
    without(p.admin_label.is_some(), "admin_label")?;
    let unable = |e: &Error| RpcError::new(INTERNAL_ERROR, format!("Unable to create subsystem {}: {e}", p.nqn));
    let d = Subsystem::new(Nqn::new(&p.nqn).map_err(|e| unable(&e))?);
    let limits = [("dmrsl", p.dmrsl), ("wzsl", p.wzsl)];
    let subsystem = Subsystem {
        serial: p.serial_number.unwrap_or(d.serial),
        model: p.model_number.unwrap_or(d.model),
        max_namespaces: p.max_namespaces.filter(|n| *n != 0).unwrap_or(d.max_namespaces),
        allow_any_host: p.allow_any_host.unwrap_or(d.allow_any_host),
        ana_reporting: p.ana_reporting.unwrap_or(d.ana_reporting),
        min_cntlid: p.min_cntlid.unwrap_or(d.min_cntlid),
        max_cntlid: p.max_cntlid.unwrap_or(d.max_cntlid),
        inert: limits.into_iter().filter_map(|(n, v)| Some((n.to_owned(), Inert::Number(v?)))).collect(),
        ..Subsystem::new(d.nqn)
    };
    context.control.change(Command::CreateSubsystem(subsystem)).await.map(|()| DONE).map_err(nvmf_error)
}

async fn delete_subsystem<N: Node>(context: Rc<Context<N>>, p: Which) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    context.control.change(Command::DeleteSubsystem(nqn)).await.map(|()| DONE).map_err(nvmf_error)
}

async fn get_subsystems<N: Node>(context: Rc<Context<N>>, p: GetSubsystems) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let state = context.control.state();
    match p.nqn {
        None => Ok(state.subsystems().map(|s| subsystem_json(s)).collect()),
        Some(nqn) => {
            let nqn = existing(&context, &nqn)?;
            Ok(state.subsystem(nqn.as_str()).map(|s| subsystem_json(s)).into_iter().collect())
        }
    }
}

fn subsystem_json(s: &Subsystem) -> Value {
    let hosts: Vec<Value> = s.hosts.iter().map(|nqn| json!({"nqn": nqn.as_str()})).collect();
    let listeners: Vec<Value> = s.listeners.iter().map(|l| address_json(l.addr)).collect();
    let subtype = if s.nqn.is_discovery() { "Discovery" } else { "NVMe" };
    let mut all = json!({
        "nqn": s.nqn.as_str(), "subtype": subtype, "listen_addresses": listeners,
        "allow_any_host": s.allow_any_host, "hosts": hosts,
    });
    if s.nqn.is_discovery() {
        return all;
    }
    all["serial_number"] = s.serial.as_str().into();
    all["model_number"] = s.model.as_str().into();
    all["max_namespaces"] = s.max_namespaces.into();
    all["passthrough"] = false.into();
    all["min_cntlid"] = s.min_cntlid.into();
    all["max_cntlid"] = s.max_cntlid.into();
    for (name, value) in &s.inert {
        all[name] = inert_json(value);
    }
    all["namespaces"] = s.namespaces.values().map(|n| namespace_json(n, s.ana_reporting)).collect();
    all
}

fn namespace_json(n: &Namespace, ana: bool) -> Value {
    let mut all = json!({"nsid": n.nsid, "bdev_name": n.bdev, "name": n.bdev});
    for (name, value) in identity_json(n) {
        all[name] = value;
    }
    if ana {
        all["anagrpid"] = n.anagrpid.into();
    }
    if let Visibility::Only(hosts) = &n.visible {
        all["no_auto_visible"] = true.into();
        all["hosts"] = hosts.iter().map(|nqn| json!({"nqn": nqn.as_str()})).collect();
    }
    all
}

/// The identifiers of a namespace that are there.
pub(super) fn identity_json(n: &Namespace) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    if n.nguid != [0; 16] {
        all.push(("nguid", hex(&n.nguid).into()));
    }
    if n.eui64 != [0; 8] {
        all.push(("eui64", hex(&n.eui64).into()));
    }
    all.push(("uuid", json!(n.uuid)));
    all
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

async fn add_ns<N: Node>(context: Rc<Context<N>>, p: AddNs) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    without(p.namespace.ptpl_file.is_some(), "ptpl_file")?;
    let nqn = existing(&context, &p.nqn)?;
    let spec = NamespaceSpec {
        bdev: p.namespace.bdev_name,
        nsid: p.namespace.nsid,
        nguid: p.namespace.nguid,
        eui64: p.namespace.eui64,
        uuid: p.namespace.uuid,
        anagrpid: p.namespace.anagrpid,
        visible: match p.namespace.no_auto_visible {
            Some(true) => Visibility::Only(BTreeSet::new()),
            _ => Visibility::All,
        },
    };
    context.control.add_namespace(&nqn, &spec).await.map(Value::from).map_err(nvmf_error)
}

async fn remove_ns<N: Node>(context: Rc<Context<N>>, p: RemoveNs) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    context.control.change(Command::RemoveNamespace(nqn, p.nsid)).await.map(|()| DONE).map_err(nvmf_error)
}

async fn ns_add_host<N: Node>(context: Rc<Context<N>>, p: NsHost) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    let command = Command::ShowNamespace(nqn, p.nsid, p.host);
    context.control.change(command).await.map(|()| DONE).map_err(nvmf_error)
}

async fn ns_remove_host<N: Node>(context: Rc<Context<N>>, p: NsHost) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    let command = Command::HideNamespace(nqn, p.nsid, p.host);
    context.control.change(command).await.map(|()| DONE).map_err(nvmf_error)
}

async fn get_controllers<N: Node>(context: Rc<Context<N>>, p: Which) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    let controllers = context.control.node().controllers(&nqn).await;
    let one = |c: &crate::cluster::ControllerReport| {
        let kind = if c.discovery { "discovery" } else { "io" };
        json!({
            "cntlid": c.cntlid, "cntrltype": kind, "hostnqn": c.host, "hostid": Uuid::from_bytes(c.host_id),
            "num_io_qpairs": c.io_qpairs,
        })
    };
    Ok(controllers.iter().map(one).collect())
}

async fn get_qpairs<N: Node>(context: Rc<Context<N>>, p: Which) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let nqn = existing(&context, &p.nqn)?;
    let qpairs = context.control.node().qpairs(&nqn).await;
    let one = |q: &crate::cluster::QpairReport| {
        json!({
            "cntlid": q.cntlid, "qid": q.qid, "state": "enabled", "thread": poll_group(q.core), "hostnqn": q.host,
            "listen_address": address_json(q.local), "peer_address": address_json(q.peer),
        })
    };
    Ok(qpairs.iter().map(one).collect())
}

async fn get_stats<N: Node>(context: Rc<Context<N>>, p: Target) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let transports = match context.control.state().transport() {
        Some(_) => json!([{"trtype": "TCP"}]),
        None => json!([]),
    };
    let groups = context.control.node().poll_groups().await;
    let one = |(core, g): (usize, &PollGroupReport)| {
        json!({
            "name": poll_group(CoreId(core as u16)), "admin_qpairs": g.admin_qpairs, "io_qpairs": g.io_qpairs,
            "current_admin_qpairs": g.current_admin_qpairs, "current_io_qpairs": g.current_io_qpairs,
            "current_unassociated_qpairs": g.current_unassociated_qpairs, "pending_bdev_io": g.pending_io,
            "completed_nvme_io": g.completed_io, "transports": transports,
        })
    };
    let groups: Vec<Value> = groups.iter().enumerate().map(one).collect();
    Ok(json!({"tick_rate": TICK_RATE, "poll_groups": groups}))
}

async fn add_referral<N: Node>(context: Rc<Context<N>>, p: ReferralParams) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    without(p.secure_channel == Some(true), "secure_channel")?;
    let referral = Referral { addr: socket(&p.address)?, nqn: p.subnqn.unwrap_or_else(Nqn::discovery) };
    context.control.change(Command::AddReferral(referral)).await.map(|()| DONE).map_err(nvmf_error)
}

async fn remove_referral<N: Node>(context: Rc<Context<N>>, p: ReferralParams) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    let addr = socket(&p.address)?;
    context.control.change(Command::RemoveReferral(addr)).await.map(|()| DONE).map_err(nvmf_error)
}

/// A referral as it is shown and saved.
pub(super) fn referral_json(r: &Referral) -> Value {
    json!({"address": address_json(r.addr), "secure_channel": false, "subnqn": r.nqn.as_str()})
}

async fn get_referrals<N: Node>(context: Rc<Context<N>>, p: Target) -> Answer {
    only_target(p.tgt_name.as_deref())?;
    Ok(context.control.state().referrals().map(|r| referral_json(r)).collect())
}
