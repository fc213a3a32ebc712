//! Identify (base specification, "Identify Command"; NVM command set specification, "Identify"): what a controller and a
//! namespace say of themselves.

use super::admin::Reply;
use super::config::{Namespace, Subsystem};
use super::controller::{Controller, ERROR_LOG};
use super::message::ControllerRef;
use super::target::Target;
use crate::mem::{Buf, Pool};
use crate::wire::fabrics::DISCOVERY_NQN;
use crate::wire::nvme::admin::Identify;
use crate::wire::nvme::feature::event_config;
use crate::wire::nvme::identify::{self as id, cns, nidt, put_descriptor};
use crate::wire::nvme::{IDENTIFY_LEN, NSID_ALL, Sgl, VERSION, put_ascii, put_str, sc};
use zerocopy::FromBytes;

impl Target {
    /// The data structure that a host asks for.
    pub(super) fn identify(&mut self, controller: ControllerRef, ask: Identify, sgl: &Sgl, pool: &mut Pool) -> Reply {
        if (sgl.length.get() as usize) < IDENTIFY_LEN {
            return sc::SGL_LENGTH_INVALID.into();
        }
        let Some(mut buf) = pool.get(IDENTIFY_LEN) else { return Reply::Blocked };
        buf.fill(0);
        match self.fill_identify(controller, ask, &mut buf) {
            Ok(()) => Reply::Data(buf),
            Err(code) => {
                pool.put(buf);
                code.into()
            }
        }
    }

    fn fill_identify(
        &mut self,
        controller: ControllerRef,
        ask: Identify,
        buf: &mut Buf,
    ) -> Result<(), crate::wire::nvme::StatusCode> {
        let events = self.config.events;
        let aborts = self.config.aborts;
        let Some(owner) = self.controllers.get(controller) else { return Err(sc::INTERNAL_ERROR) };
        let sub = owner.sub;
        if ask.cns == cns::CONTROLLER {
            let out = id::Controller::mut_from_bytes(buf).map_err(|_| sc::INTERNAL_ERROR)?;
            fill_common(owner, out);
            (out.aerl, out.acl) = (events - 1, aborts - 1);
            if owner.discovery {
                fill_discovery(out);
            } else if let Some(subsystem) = self.subsystem(sub) {
                fill_subsystem(subsystem, out);
            }
            return Ok(());
        }
        if owner.discovery {
            return Err(sc::INVALID_FIELD);
        }
        let (own, host) = (owner.cntlid, owner.hostnqn.clone());
        let subsystem = self.subsystem(sub).ok_or(sc::INTERNAL_ERROR)?;
        let seen = Seen { subsystem, host: &host };
        let nvm = ask.csi == 0;
        match ask.cns {
            cns::NAMESPACE | cns::ALLOCATED_NAMESPACE => fill_namespace(seen, ask.nsid, buf),
            cns::ACTIVE_LIST | cns::ALLOCATED_LIST => fill_list(seen, ask.nsid, buf),
            cns::ACTIVE_LIST_CSI if nvm => fill_list(seen, ask.nsid, buf),
            cns::DESCRIPTORS => {
                fill_descriptors(seen.find(ask.nsid)?, buf);
                Ok(())
            }
            // The NVM command set has nothing to add without protection information.
            cns::NAMESPACE_CSI if nvm => seen.find(ask.nsid).map(|_| ()),
            cns::CONTROLLER_CSI if nvm => fill_nvm_controller(buf),
            cns::NAMESPACE_INDEPENDENT => fill_independent(seen.find(ask.nsid)?, buf),
            cns::ATTACHED_CONTROLLERS | cns::CONTROLLER_LIST => {
                if ask.cns == cns::ATTACHED_CONTROLLERS {
                    seen.find(ask.nsid)?;
                }
                fill_controllers(own, ask.cntid, buf)
            }
            cns::COMMAND_SETS => {
                // One combination: the NVM command set alone.
                buf[0] = 1;
                Ok(())
            }
            _ => Err(sc::INVALID_FIELD),
        }
    }
}

type Filled = Result<(), crate::wire::nvme::StatusCode>;

/// A subsystem as one host sees it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    subsystem: &'a Subsystem,
    host: &'a str,
}

impl<'a> Seen<'a> {
    fn namespaces(self) -> impl Iterator<Item = &'a Namespace> {
        self.subsystem.shown_to(self.host)
    }
    fn find(self, nsid: u32) -> Result<&'a Namespace, crate::wire::nvme::StatusCode> {
        self.namespaces().find(|n| n.nsid == nsid).ok_or(sc::INVALID_NAMESPACE)
    }
}

/// What discovery and I/O controllers share.
fn fill_common(owner: &Controller, out: &mut id::Controller) {
    out.rab = 6;
    out.mdts = (owner.io_max / 4096).ilog2() as u8;
    out.cntlid.set(owner.cntlid);
    out.version.set(VERSION);
    // 128-bit host identifiers, traffic based keep alive.
    out.ctratt.set(1 << 0 | 1 << 6);
    out.lpa = 1 << 2;
    out.elpe = (ERROR_LOG - 1) as u8;
    // Keep alive in steps of a second.
    out.kas.set(10);
    out.sqes = 0x66;
    out.cqes = 0x44;
    out.maxcmd.set(owner.mqes + 1);
    // SGLs, with offsets for in-capsule data and transport data blocks.
    out.sgls.set(1 << 0 | 1 << 20 | 1 << 21);
    out.ioccsz.set((64 + owner.in_capsule) / 16);
    out.iorcsz.set(1);
    out.msdbd = 1;
    out.frmw = 1 << 0 | 1 << 1;
    put_ascii(&mut out.firmware, env!("CARGO_PKG_VERSION"));
}

fn fill_discovery(out: &mut id::Controller) {
    out.controller_type = 2;
    out.oaes.set(event_config::DISCOVERY);
    put_ascii(&mut out.serial, "");
    put_ascii(&mut out.model, "Pollux discovery");
    put_str(&mut out.subnqn, DISCOVERY_NQN);
}

fn fill_subsystem(subsystem: &Subsystem, out: &mut id::Controller) {
    put_ascii(&mut out.serial, &subsystem.serial);
    put_ascii(&mut out.model, &subsystem.model);
    if !subsystem.firmware.is_empty() {
        put_ascii(&mut out.firmware, &subsystem.firmware);
    }
    put_str(&mut out.subnqn, &subsystem.nqn);
    out.controller_type = 1;
    // Several ports, several controllers.
    out.cmic = 0b11;
    out.oaes.set(event_config::NAMESPACE);
    // Commands supported and effects log too.
    out.lpa |= 1 << 1;
    out.nn.set(subsystem.max_namespaces);
    out.mnan.set(subsystem.max_namespaces);
    // Compare, Dataset Management, Write Zeroes.
    out.oncs.set(1 << 0 | 1 << 2 | 1 << 3);
    // Disconnect deletes one I/O queue.
    out.ofcs.set(1);
    // Flush is per namespace; a cache is there only when a volume says so.
    let cache = subsystem.namespaces.iter().any(|n| n.info.volatile_cache);
    out.vwc = u8::from(cache) | 0b10 << 1;
    // Temperature thresholds that a host may look at: the values the specification recommends.
    out.wctemp.set(0x157);
    out.cctemp.set(0x175);
}

/// Identify Namespace; all zeroes for an NSID that is legal but without a namespace.
fn fill_namespace(seen: Seen<'_>, nsid: u32, buf: &mut Buf) -> Filled {
    if nsid == 0 || nsid > seen.subsystem.max_namespaces {
        // NSID FFFFFFFFh asks for what all have in common, which only namespace management needs.
        return Err(if nsid == NSID_ALL { sc::INVALID_FIELD } else { sc::INVALID_NAMESPACE });
    }
    let Ok(ns) = seen.find(nsid) else { return Ok(()) };
    let out = id::Namespace::mut_from_bytes(buf).map_err(|_| sc::INTERNAL_ERROR)?;
    let info = &ns.info;
    out.nsze.set(info.blocks);
    out.ncap.set(info.blocks);
    out.nuse.set(info.blocks);
    // Thin provisioning; preferred granularities are valid.
    out.nsfeat = u8::from(info.thin) | 1 << 4;
    out.nmic = 1;
    // Deallocated blocks read as zeroes, and Write Zeroes may deallocate.
    out.dlfeat = 0b1001;
    let blocks_per_4k = (crate::base::BLOCK as u32 / info.block_size).max(1) as u16;
    for granularity in [&mut out.npwg, &mut out.npwa, &mut out.npdg, &mut out.npda] {
        granularity.set(blocks_per_4k - 1);
    }
    out.nsattr = u8::from(info.read_only);
    out.nguid = ns.nguid;
    out.eui64 = ns.eui64;
    out.lbaf[0].data_shift = info.block_size.ilog2() as u8;
    Ok(())
}

/// Active namespaces above `after`, ascending.
fn fill_list(seen: Seen<'_>, after: u32, buf: &mut Buf) -> Filled {
    if after >= NSID_ALL - 1 {
        return Err(sc::INVALID_NAMESPACE);
    }
    let out = id::NamespaceList::mut_from_bytes(buf).map_err(|_| sc::INTERNAL_ERROR)?;
    let nsids = seen.namespaces().map(|n| n.nsid).filter(|n| *n > after);
    for (place, nsid) in out.nsids.iter_mut().zip(nsids) {
        place.set(nsid);
    }
    Ok(())
}

fn fill_descriptors(ns: &Namespace, buf: &mut Buf) {
    let mut rest: Option<&mut [u8]> = Some(buf);
    let mut put = |kind, identifier: &[u8]| {
        rest = rest.take().and_then(|list| put_descriptor(list, kind, identifier));
    };
    if ns.eui64 != [0; 8] {
        put(nidt::EUI64, &ns.eui64);
    }
    if ns.nguid != [0; 16] {
        put(nidt::NGUID, &ns.nguid);
    }
    if ns.uuid != [0; 16] {
        put(nidt::UUID, &ns.uuid);
    }
    put(nidt::CSI, &[0]);
}

fn fill_nvm_controller(buf: &mut Buf) -> Filled {
    let out = id::NvmController::mut_from_bytes(buf).map_err(|_| sc::INTERNAL_ERROR)?;
    // As many ranges as a command can name, each as long as it can say; Write Zeroes without a limit of its own.
    out.dmrl = 255;
    out.dmrsl.set(u32::MAX);
    Ok(())
}

fn fill_independent(ns: &Namespace, buf: &mut Buf) -> Filled {
    let out = id::NamespaceIndependent::mut_from_bytes(buf).map_err(|_| sc::INTERNAL_ERROR)?;
    out.nsfeat = u8::from(ns.info.thin);
    out.nmic = 1;
    out.nsattr = u8::from(ns.info.read_only);
    out.nstat = 1;
    Ok(())
}

/// In the dynamic model a host knows one controller: the one it made.
fn fill_controllers(own: u16, from: u16, buf: &mut Buf) -> Filled {
    let out = id::ControllerList::mut_from_bytes(buf).map_err(|_| sc::INTERNAL_ERROR)?;
    if own >= from {
        out.count.set(1);
        out.cntlids[0].set(own);
    }
    Ok(())
}
