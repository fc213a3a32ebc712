//! From the control plane's state to what the targets export: one immutable snapshot each per change.

mod iscsi;

pub use iscsi::snapshot as iscsi;

use crate::cluster::{self, State};
use crate::nvmf::{Namespace, Referral, Snapshot, Subsystem, Transport, Visibility};
use crate::volume::Table;

/// Firmware revision hosts see: this build's version, cut to the field's 8 characters.
fn firmware() -> String {
    env!("CARGO_PKG_VERSION").chars().take(8).collect()
}

/// What `state` exports over NVMe/TCP of the volumes in `table`. A namespace whose volume is not there (its device could not be
/// opened) is left out until it is.
pub fn nvmf(state: &State, table: &Table) -> Snapshot {
    let subsystems = state.subsystems().filter(|s| !s.nqn.is_discovery()).map(|s| subsystem(s, table)).collect();
    Snapshot {
        generation: state.generation(),
        transport: state.transport().map(|t| transport(t)),
        subsystems,
        referrals: state.referrals().map(|r| Referral { nqn: r.nqn.as_str().to_owned(), addr: r.addr }).collect(),
    }
}

fn transport(t: &cluster::Transport) -> Transport {
    Transport {
        queue_depth: t.max_queue_depth as u16,
        admin_depth: t.max_aq_depth as u16,
        io_queues: t.max_io_qpairs_per_ctrlr as u16,
        in_capsule_bytes: t.in_capsule_data_size,
        io_bytes_max: t.max_io_size,
        c2h_success: t.c2h_success,
    }
    .clamped()
}

fn subsystem(s: &cluster::Subsystem, table: &Table) -> Subsystem {
    let namespaces = s.namespaces.values().filter_map(|n| {
        let info = table.get(n.volume)?.info.clone();
        Some(Namespace {
            nsid: n.nsid,
            info,
            nguid: n.nguid,
            eui64: n.eui64,
            uuid: n.uuid.into_bytes(),
            anagrpid: n.anagrpid,
            visible: match &n.visible {
                cluster::Visibility::All => Visibility::All,
                cluster::Visibility::Only(hosts) => {
                    Visibility::Only(hosts.iter().map(|h| h.as_str().to_owned()).collect())
                }
            },
        })
    });
    Subsystem {
        nqn: s.nqn.as_str().to_owned(),
        serial: s.serial.clone(),
        model: s.model.clone(),
        firmware: firmware(),
        allow_any_host: s.allow_any_host,
        hosts: s.hosts.iter().map(|h| h.as_str().to_owned()).collect(),
        namespaces: namespaces.collect(),
        listeners: s.listeners.iter().map(|l| l.addr).collect(),
        cntlid_min: s.min_cntlid,
        cntlid_max: s.max_cntlid,
        max_namespaces: s.max_namespaces,
    }
}
