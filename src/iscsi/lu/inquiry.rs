//! INQUIRY: what the unit says it is (SPC-4, 6.6).

use super::atomic::atomic_max;
use super::begin::{Begun, reply};
use super::long::max_transfer;
use super::same::WRITE_SAME_BLOCKS_MAX;
use super::{Cx, Unit};
use crate::mem::Pool;
use crate::wire::scsi::inquiry::{self, BlockLimits, NO_UNIT, STANDARD_LEN, Standard, begin_page, vpd};
use crate::wire::scsi::op::{self, sa};
use crate::wire::scsi::{Cdb, Out, Sense, be16, designator};

/// The VPD pages, ascending.
const PAGES: [u8; 8] = [
    vpd::SUPPORTED,
    vpd::SERIAL,
    vpd::IDENTIFICATION,
    vpd::EXTENDED,
    vpd::THIRD_PARTY,
    vpd::BLOCK_LIMITS,
    vpd::CHARACTERISTICS,
    vpd::PROVISIONING,
];

/// More than any page takes: names of 223 bytes thrice, the serial number, and the short designators.
const PAGE_ROOM: usize = 1500;
/// UNMAP takes as many blocks as there are: it works in pieces.
const UNMAP_BLOCKS_MAX: u32 = u32::MAX;
/// UNMAP descriptors of one command.
pub(super) const UNMAP_DESCRIPTORS_MAX: u32 = 256;
/// What initiators should use for sequential transfers, bytes.
const OPTIMAL_BYTES: u32 = 128 << 10;
/// THRESHOLD EXPONENT: thresholds are in units of 2^n blocks.
const THRESHOLD_EXPONENT: u8 = 11;

pub(super) fn inquiry(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let (page, allocation) = (cdb[2], u32::from(be16(cdb, 3)));
    let unit = cx.unit;
    if cdb[1] & 1 == 0 {
        if page != 0 {
            return Err(Sense::cdb_field(2).into());
        }
        let standard = Standard {
            peripheral: 0,
            // Implicit asymmetric access.
            tpgs: 1,
            vendor: &unit.vendor,
            product: &unit.product,
            revision: &unit.revision,
        };
        return reply(cx.pool, allocation, STANDARD_LEN, |out| standard.put(out));
    }
    if !PAGES.contains(&page) {
        return Err(Sense::cdb_field(2).into());
    }
    let (port, group) = (cx.nexus.who.port, cx.nexus.group);
    reply(cx.pool, allocation, PAGE_ROOM, |out| match page {
        vpd::SUPPORTED => {
            begin_page(out, page);
            out.put(&PAGES);
            out.patch_len16(2);
        }
        vpd::SERIAL => {
            begin_page(out, page);
            out.ascii(unit.serial(), unit.serial().len());
            out.patch_len16(2);
        }
        vpd::IDENTIFICATION => identification(out, unit, port, group),
        vpd::EXTENDED => inquiry::put_extended(out, unit.info.volatile_cache),
        vpd::THIRD_PARTY => inquiry::put_third_party(
            out,
            &[
                (op::THIRD_PARTY_COPY_OUT, &[sa::EXTENDED_COPY_LID1]),
                (op::THIRD_PARTY_COPY_IN, &[sa::COPY_STATUS, sa::COPY_PARAMETERS, sa::COPY_FAILURE_DETAILS]),
            ],
        ),
        vpd::BLOCK_LIMITS => limits(unit).put(out),
        vpd::CHARACTERISTICS => inquiry::put_characteristics(out),
        _ => {
            let exponent = if unit.threshold_percent == 0 { 0 } else { THRESHOLD_EXPONENT };
            inquiry::put_provisioning(out, unit.info.thin, exponent);
        }
    })
}

/// Device Identification (SPC-4, 7.8.6): what multipath software recognises a unit, a port and a device by.
fn identification(out: &mut Out<'_>, unit: &Unit, port: u16, group: u16) {
    begin_page(out, vpd::IDENTIFICATION);
    designator::put_naa(out, unit.naa());
    designator::put_t10(out, &unit.vendor, unit.serial());
    designator::put_uuid(out, &unit.info.uuid);
    designator::put_relative_port(out, port);
    designator::put_port_group(out, group);
    let name = &unit.device.name()[..unit.device.name().floor_char_boundary(designator::ISCSI_NAME_MAX)];
    designator::put_port_name(out, name, group);
    designator::put_device_name(out, name);
    out.patch_len16(2);
}

pub(super) fn limits(unit: &Unit) -> BlockLimits {
    BlockLimits {
        wsnz: true,
        max_compare_write: unit.info.compare_write_blocks(),
        granularity: unit.blocks_per_physical() as u16,
        max_transfer: max_transfer(unit),
        optimal_transfer: OPTIMAL_BYTES / unit.info.block_size,
        max_prefetch: 0,
        max_unmap: UNMAP_BLOCKS_MAX,
        max_unmap_descriptors: UNMAP_DESCRIPTORS_MAX,
        unmap_granularity: 4096u32.div_ceil(unit.info.block_size),
        max_write_same: u64::from(WRITE_SAME_BLOCKS_MAX),
        max_atomic: atomic_max(unit),
        atomic_alignment: atomic_max(unit),
        atomic_granularity: 0,
    }
}

/// INQUIRY to a LUN that does not exist.
pub(super) fn absent(cdb: &Cdb, pool: &mut Pool) -> Begun {
    if cdb[1] & 1 != 0 || cdb[2] != 0 {
        return Err(Sense::cdb_field(if cdb[1] & 1 != 0 { 1 } else { 2 }).into());
    }
    let standard = Standard { peripheral: NO_UNIT, tpgs: 0, vendor: "", product: "", revision: "" };
    reply(pool, u32::from(be16(cdb, 3)), STANDARD_LEN, |out| standard.put(out))
}
