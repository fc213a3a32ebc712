//! REPORT TARGET PORT GROUPS (SPC-4, 6.37): which ways to the unit there are and how each serves (ALUA).

use super::Cx;
use super::begin::{Begun, reply};
use crate::wire::scsi::{Cdb, Sense, be32};

/// States that a group can have: transitioning, unavailable, standby, active/non-optimized, active/optimized.
const STATES: u8 = 0x80 | 0x08 | 0x04 | 0x02 | 0x01;

/// REPORT TARGET PORT GROUPS.
pub(super) fn report_groups(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let extended = match cdb[1] >> 5 {
        0 => false,
        1 => true,
        _ => return Err(Sense::cdb_field(1).into()),
    };
    let groups = cx.unit.device.groups();
    let ports: usize = groups.iter().map(|g| g.ports.len()).sum();
    let room = 8 + 8 * groups.len() + 4 * ports;
    reply(cx.pool, be32(cdb, 6), room, |out| {
        out.u32(0);
        if extended {
            // The length, and an implicit transition time of which nothing is known.
            out.put(&[0x10, 0, 0, 0]);
        }
        for group in groups {
            out.u8(u8::from(group.preferred) << 7 | group.access as u8);
            out.u8(STATES);
            out.u16(group.id);
            // Status: by implicit management; reserved; count.
            out.put(&[0, 2, 0, group.ports.len() as u8]);
            for port in &group.ports {
                out.u16(0);
                out.u16(*port);
            }
        }
        out.patch_len32(0);
    })
}
