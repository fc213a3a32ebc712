//! From the control plane's state to what the iSCSI target exports.

use crate::cluster::DeviceSpec;
use crate::cluster::State;
use crate::cluster::iscsi as model;
use crate::iscsi::lu::{Access, Device, Group, Unit};
use crate::iscsi::{
    Auth, AuthGroup, InitiatorGroup, Netmask, Options, Pattern, PortalGroup, Redirect, Secret, Snapshot, TargetNode,
};
use crate::repl::Home;
use crate::volume::{Entry, Table};
use std::sync::Arc;

/// What `state` exports over iSCSI of the volumes in `table`. A unit whose volume is not there (its device could not be
/// opened) is left out until it is.
pub fn snapshot(state: &State, table: &Table) -> Snapshot {
    let iscsi = state.iscsi();
    Snapshot {
        generation: iscsi.generation(),
        options: Some(options(&iscsi.options())),
        portal_groups: iscsi.portal_groups().filter(|g| g.started).map(|g| portal_group(g)).collect(),
        initiator_groups: iscsi.initiator_groups().map(|g| initiator_group(g)).collect(),
        auth_groups: iscsi.auth_groups().map(|g| auth_group(g)).collect(),
        targets: iscsi.targets().map(|t| target(state, t, table)).collect(),
    }
}

fn options(o: &model::Options) -> Options {
    Options {
        node_base: o.node_base.clone(),
        max_sessions: o.max_sessions,
        max_connections_per_session: o.max_connections_per_session,
        max_outstanding_r2t: o.max_r2t_per_connection,
        max_queue_depth: o.max_queue_depth,
        first_burst_bytes: o.first_burst_length,
        immediate_data: o.immediate_data,
        time_to_wait_s: o.default_time2wait,
        time_to_retain_s: o.default_time2retain,
        nop_in_interval_s: o.nop_in_interval,
        nop_timeout_s: o.nop_timeout,
        discovery_auth: auth(o.discovery_auth),
        ..Options::default()
    }
    .clamped()
}

fn auth(chap: model::Chap) -> Auth {
    Auth { disabled: chap.disabled, required: chap.required, mutual: chap.mutual, group: chap.group }
}

fn portal_group(g: &model::PortalGroup) -> PortalGroup {
    PortalGroup { tag: g.tag, private: g.private, portals: g.portals.clone(), discovery_auth: g.auth.map(auth) }
}

fn initiator_group(g: &model::InitiatorGroup) -> InitiatorGroup {
    let pattern = |i: &model::Initiator| match i.parts() {
        (None, true) => Pattern::Any,
        (None, false) => Pattern::None,
        (Some(name), true) => Pattern::Name(name.to_owned()),
        (Some(name), false) => Pattern::Not(name.to_owned()),
    };
    let netmask = |n: &model::Netmask| n.network().map_or(Netmask::Any, |(addr, bits)| Netmask::Net { addr, bits });
    InitiatorGroup {
        tag: g.tag,
        initiators: g.initiators.iter().map(pattern).collect(),
        netmasks: g.netmasks.iter().map(netmask).collect(),
    }
}

fn auth_group(g: &model::AuthGroup) -> AuthGroup {
    let secret = |s: &model::Secret| Secret {
        user: s.user.clone(),
        secret: s.secret.clone().into_bytes(),
        mutual: s.mutual.as_ref().map(|(user, secret)| (user.clone(), secret.clone().into_bytes())),
    };
    AuthGroup { tag: g.tag, secrets: g.secrets.iter().map(secret).collect() }
}

fn target(state: &State, t: &model::TargetNode, table: &Table) -> TargetNode {
    let device = Arc::new(device(t));
    let units = t.luns.values().filter_map(|l| Some(unit(state, l.lun, table.get(l.volume)?, &device)));
    let redirect =
        |(tag, r): (&u16, &model::Redirect)| Redirect { portal_group: *tag, addr: r.addr, permanent: r.permanent };
    TargetNode {
        name: t.name.as_str().to_owned(),
        alias: t.alias.clone(),
        index: t.index,
        maps: t.maps.iter().map(|m| (m.portal_group, m.initiator_group)).collect(),
        luns: units.collect(),
        queue_depth: t.queue_depth,
        auth: auth(t.auth),
        header_digest: t.header_digest,
        data_digest: t.data_digest,
        redirects: t.redirects.iter().map(redirect).collect(),
    }
}

/// The SCSI device of a target node: every portal group that some map names is one target port, whose relative
/// identifier is the group's tag.
fn device(t: &model::TargetNode) -> Device {
    let mut tags: Vec<u16> = t.maps.iter().map(|m| m.portal_group).collect();
    tags.sort_unstable();
    tags.dedup();
    let group = |tag: u16| {
        let path = t.paths.get(&tag).copied().unwrap_or_default();
        let access = match path.access {
            model::Access::Optimized => Access::ActiveOptimized,
            model::Access::NonOptimized => Access::ActiveNonOptimized,
            model::Access::Standby => Access::Standby,
            model::Access::Unavailable => Access::Unavailable,
        };
        Group { id: tag, access, preferred: path.preferred, ports: vec![tag] }
    };
    Device::new(t.name.as_str().to_owned(), tags.into_iter().map(group).collect())
}

fn unit(state: &State, lun: u16, entry: &Entry, device: &Arc<Device>) -> Unit {
    let info = &entry.info;
    Unit {
        lun,
        info: info.clone(),
        vendor: "POLLUX".to_owned(),
        product: "Pollux volume".to_owned(),
        revision: super::firmware().chars().take(4).collect(),
        serial: uuid::Uuid::from_bytes(info.uuid).simple().to_string(),
        physical_block: match entry.home {
            // The unit of mapping and checksum, whatever the logical blocks are.
            Home::Log { .. } => crate::base::BLOCK as u32,
            Home::Raw(_) => match state.device(info.id).map(|d| &d.spec) {
                Some(DeviceSpec::Malloc { physical_block: Some(bytes), .. }) => *bytes,
                _ => info.block_size,
            },
        },
        threshold_percent: 0,
        device: device.clone(),
    }
}
