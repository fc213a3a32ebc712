//! Short answers about a unit or its target: READ CAPACITY, REPORT LUNS, REQUEST SENSE, LOG SENSE, READ DEFECT DATA.

use super::begin::{Begun, not_ready, reply};
use super::{Cx, Unit};
use crate::mem::Pool;
use crate::wire::scsi::{Cdb, Key, SENSE_MAX, Sense, asc, be16, be32, op};

/// READ CAPACITY(10) (SBC-3, 5.10).
pub(super) fn read_capacity_10(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    // Without PMI the address must be 0; PMI asks for where the next delay is, and there is none before the end.
    if cdb[8] & 1 == 0 && be32(cdb, 2) != 0 {
        return Err(Sense::cdb_field(2).into());
    }
    let info = &cx.unit.info;
    let last = u32::try_from(info.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    let size = info.block_size;
    reply(cx.pool, 8, 8, |out| {
        out.u32(last);
        out.u32(size);
    })
}

/// READ CAPACITY(16) (SBC-3, 5.11).
pub(super) fn read_capacity_16(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let info = &cx.unit.info;
    let per_physical = cx.unit.blocks_per_physical().ilog2() as u8;
    reply(cx.pool, be32(cdb, 10), 32, |out| {
        out.u64(info.blocks.saturating_sub(1));
        out.u32(info.block_size);
        // No protection; logical blocks per physical block.
        out.put(&[0, per_physical]);
        // LBPME and LBPRZ: space can be given back, and reads as zeroes then.
        out.u16(0xc000);
        out.zeroes(16);
    })
}

/// REPORT LUNS (SPC-4, 6.33).
pub(super) fn report_luns(units: &[Unit], cdb: &Cdb, pool: &mut Pool) -> Begun {
    let allocation = be32(cdb, 6);
    let shown = match cdb[2] {
        // Units with the usual addressing, all of them.
        0 | 2 => units,
        // Well-known units; administrative units: there are none.
        1 | 0x10..=0x12 => &[],
        _ => return Err(Sense::cdb_field(2).into()),
    };
    if allocation < 16 {
        return Err(Sense::cdb_field(6).into());
    }
    reply(pool, allocation, 8 + 8 * shown.len(), |out| {
        out.u32(8 * shown.len() as u32);
        out.u32(0);
        for unit in shown {
            // Peripheral addressing up to 255, flat space addressing above (SAM-5, 4.7.7).
            let flat = if unit.lun < 256 { 0 } else { 0x4000 };
            out.u16(flat | unit.lun & 0x3fff);
            out.zeroes(6);
        }
    })
}

/// REQUEST SENSE (SPC-4, 6.39): a pending unit attention, or what keeps the unit from being ready.
pub(super) fn request_sense(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let first = cx.attentions.first();
    let sense = match first {
        Some(attention) => Sense::new(Key::UnitAttention, attention.asc()),
        None => not_ready(cx).unwrap_or(Sense::new(Key::NoSense, asc::NONE)),
    };
    let begun = sense_data(sense, cdb, cx.pool)?;
    if let Some(attention) = first {
        cx.attentions.clear(attention);
    }
    Ok(begun)
}

/// Sense data as the parameter data of REQUEST SENSE, in the format that DESC asks for.
pub(super) fn sense_data(sense: Sense, cdb: &Cdb, pool: &mut Pool) -> Begun {
    let mut bytes = [0; SENSE_MAX];
    let len = Sense { descriptor: cdb[1] & 1 != 0, ..sense }.encode(&mut bytes);
    reply(pool, u32::from(cdb[4]), SENSE_MAX, |out| out.put(&bytes[..len]))
}

/// Log pages that there are: the list of them, temperature (of which nothing is known), informational exceptions.
const LOG_PAGES: [u8; 3] = [0x00, 0x0d, 0x2f];

/// LOG SENSE (SPC-4, 6.8).
pub(super) fn log_sense(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let (page, subpage, allocation) = (cdb[2] & 0x3f, cdb[3], u32::from(be16(cdb, 7)));
    if cdb[1] & 1 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    if !LOG_PAGES.contains(&page) {
        return Err(Sense::cdb_field(2).into());
    }
    if subpage != 0 {
        return Err(Sense::cdb_field(3).into());
    }
    reply(cx.pool, allocation, 32, |out| {
        out.put(&[page, 0, 0, 0]);
        match page {
            0x00 => out.put(&LOG_PAGES),
            // Parameter 0: FFh, no temperature is available.
            0x0d => out.put(&[0, 0, 0x03, 2, 0, 0xff]),
            // Parameter 0: no exception, no temperature.
            _ => out.put(&[0, 0, 0x03, 4, 0, 0, 0xff, 0]),
        }
        out.patch_len16(2);
    })
}

/// READ DEFECT DATA(10) and (12) (SBC-3, 5.13 and 5.14): the medium has no defects that an initiator could know of.
pub(super) fn read_defects(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let ten = cdb[0] == op::READ_DEFECT_10;
    // REQ_PLIST, REQ_GLIST and the format asked for are told back.
    let asked = if ten { cdb[2] } else { cdb[1] } & 0x1f;
    let allocation = if ten { u32::from(be16(cdb, 7)) } else { be32(cdb, 6) };
    reply(cx.pool, allocation, 8, |out| {
        out.put(&[0, asked, 0, 0]);
        if !ten {
            out.u32(0);
        }
    })
}
