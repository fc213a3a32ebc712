//! PERSISTENT RESERVE IN and OUT (SPC-4, 6.15 and 6.16), RESERVE and RELEASE(6), (10) (SPC-2, 7.21 on). The rules are in
//! `volume::reserve`; here their commands are read and their answers written.

use super::begin::{Begun, Stop, check, reply};
use super::program::{Program, Run};
use super::{Begin, Cx, End, Event, Step};
use crate::mem::{Buf, Pool};
use crate::volume::reserve::{Nexus, Op, REGISTRANTS_MAX, Refused, Reservations, Type};
use crate::wire::scsi::designator::{self, ISCSI_NAME_MAX};
use crate::wire::scsi::op::{self, sa};
use crate::wire::scsi::{Cdb, Key, Out, Sense, asc, be16, be32, be64};
use std::sync::Arc;

/// Bytes of a parameter list without `TransportID`s.
const LIST: usize = 24;
/// Bytes of a parameter list at most: as many `TransportID`s as registrants.
const LIST_MAX: u32 = (LIST + 4 + REGISTRANTS_MAX * ID_MAX) as u32;
/// Bytes of a `TransportID` at most.
const ID_MAX: usize = 4 + (ISCSI_NAME_MAX + 18).next_multiple_of(4);
/// Bytes of READ FULL STATUS at most.
const FULL_MAX: usize = 8 + REGISTRANTS_MAX * (24 + ID_MAX);

/// PERSISTENT RESERVE IN.
pub(super) fn report(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let allocation = u32::from(be16(cdb, 7));
    let all = cx.reservations;
    let registrants = all.registrants();
    match cdb[1] & 0x1f {
        sa::READ_KEYS => reply(cx.pool, allocation, 8 + 8 * registrants.len(), |out| {
            out.u32(all.generation());
            out.u32(8 * registrants.len() as u32);
            for r in registrants {
                out.u64(r.key);
            }
        }),
        sa::READ_RESERVATION => reply(cx.pool, allocation, 24, |out| {
            out.u32(all.generation());
            let Some(held) = all.reservation() else {
                out.u32(0);
                return;
            };
            out.u32(16);
            out.u64(held.holder.as_ref().and_then(|h| all.key(h)).unwrap_or(0));
            out.u32(0);
            out.put(&[0, held.kind.scsi(), 0, 0]);
        }),
        sa::REPORT_CAPABILITIES => reply(cx.pool, allocation, 8, |out| capabilities(out, all)),
        sa::READ_FULL_STATUS => reply(cx.pool, allocation, FULL_MAX, |out| full_status(out, all)),
        _ => Err(Sense::cdb_field(1).into()),
    }
}

fn capabilities(out: &mut Out<'_>, all: &Reservations) {
    out.u16(8);
    // CRH, SIP_C, ATP_C, PTPL_C.
    out.u8(0x10 | 0x08 | 0x04 | 0x01);
    // TMV; ALLOW COMMANDS 001b (TEST UNIT READY is allowed); PTPL_A.
    out.u8(0x80 | 0x10 | u8::from(all.aptpl()));
    // All six types.
    out.u16(0xea01);
    out.u16(0);
}

fn full_status(out: &mut Out<'_>, all: &Reservations) {
    out.u32(all.generation());
    out.u32(0);
    for r in all.registrants() {
        out.u64(r.key);
        out.u32(0);
        let holder = all.holds(&r.nexus);
        // R_HOLDER; scope (logical unit) and type.
        let kind = all.reservation().map_or(0, |held| held.kind.scsi());
        out.put(&[u8::from(holder), if holder { kind } else { 0 }, 0, 0, 0, 0]);
        out.u16(r.nexus.port);
        out.u32(r.nexus.initiator.len() as u32);
        out.put(&r.nexus.initiator);
    }
    out.patch_len32(4);
}

/// PERSISTENT RESERVE OUT.
pub(super) fn change(_: &Cx<'_>, cdb: &Cdb) -> Begun {
    let (action, len) = (cdb[1] & 0x1f, be32(cdb, 5));
    // The scope must be the logical unit where there is one.
    let scoped = !matches!(action, sa::REGISTER | sa::REGISTER_AND_IGNORE | sa::REGISTER_AND_MOVE | sa::CLEAR);
    if scoped && cdb[2] >> 4 != 0 {
        return Err(Sense::cdb_field(2).into());
    }
    if (len as usize) < LIST || len > LIST_MAX {
        return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH).into());
    }
    Ok(Begin::Program(Program::new(Change { action, kind: cdb[2] & 0x0f, want: len }), len))
}

/// A PERSISTENT RESERVE OUT under way.
#[derive(Debug)]
pub(super) struct Change {
    action: u8,
    kind: u8,
    want: u32,
}

impl Change {
    fn read(&self, list: &[u8], cx: &Cx<'_>) -> Result<Op, Stop> {
        let length = || Stop::Sense(Sense::illegal(asc::PARAMETER_LIST_LENGTH));
        let (key, new_key) = (be64(list, 0), be64(list, 8));
        let kind = Type::from_scsi(self.kind);
        if self.action == sa::REGISTER_AND_MOVE {
            return move_to(list, key, new_key, cx);
        }
        let (spec, all_ports, aptpl) = (list[20] & 0x08 != 0, list[20] & 0x04 != 0, list[20] & 0x01 != 0);
        if spec && self.action != sa::REGISTER {
            return Err(Sense::parameter_field(20).into());
        }
        if !spec && list.len() != LIST {
            return Err(length());
        }
        let ports = all_ports.then(|| {
            let groups = cx.unit.device.groups().iter();
            groups.flat_map(|g| g.ports.iter().copied()).collect()
        });
        Ok(match self.action {
            sa::REGISTER => {
                let initiators = if spec { Some(transport_ids(list)?) } else { None };
                Op::Register { key, new_key, aptpl, initiators, ports }
            }
            sa::REGISTER_AND_IGNORE => Op::RegisterIgnore { new_key, aptpl, ports },
            sa::RESERVE => {
                let kind = kind.ok_or_else(|| Sense::cdb_field(2))?;
                Op::Reserve { key, kind }
            }
            sa::RELEASE => Op::Release { key, kind },
            sa::CLEAR => Op::Clear { key },
            sa::PREEMPT => Op::Preempt { key, victim: new_key, kind, abort: false },
            _ => Op::Preempt { key, victim: new_key, kind, abort: true },
        })
    }
}

/// The additional `TransportID`s of a REGISTER with `SPEC_I_PT` (SPC-4, 6.16.3).
fn transport_ids(list: &[u8]) -> Result<Vec<Arc<[u8]>>, Stop> {
    let length = || Stop::Sense(Sense::illegal(asc::PARAMETER_LIST_LENGTH));
    let len = list.get(LIST..LIST + 4).map(|b| be32(b, 0) as usize).ok_or_else(length)?;
    let mut ids = list.get(LIST + 4..).filter(|ids| ids.len() == len).ok_or_else(length)?;
    let mut all: Vec<Arc<[u8]>> = Vec::new();
    while !ids.is_empty() {
        let at = (list.len() - ids.len()) as u16;
        let id = designator::transport_id(ids).map_err(|bad| Sense::parameter_field(at + bad.0))?;
        if all.len() == REGISTRANTS_MAX {
            return Err(Sense::illegal(asc::INSUFFICIENT_REGISTRATIONS).into());
        }
        all.push(normal(&id).ok_or_else(|| Sense::parameter_field(at))?);
        ids = &ids[id.len..];
    }
    Ok(all)
}

/// The `TransportID` of a port as sessions have it, its name in lower case (names compare without regard to case); `None` for the ID of a device, whose ports are not known.
fn normal(id: &designator::TransportId<'_>) -> Option<Arc<[u8]>> {
    let mut room = [0; ID_MAX];
    let mut out = Out::new(&mut room);
    designator::put_transport_id(&mut out, &id.name.to_ascii_lowercase(), id.isid?);
    let len = out.len();
    Some(Arc::from(&room[..len]))
}

/// REGISTER AND MOVE (SPC-4, 6.16.4).
fn move_to(list: &[u8], key: u64, new_key: u64, cx: &Cx<'_>) -> Result<Op, Stop> {
    let length = || Stop::Sense(Sense::illegal(asc::PARAMETER_LIST_LENGTH));
    let (unregister, aptpl) = (list[17] & 0x02 != 0, list[17] & 0x01 != 0);
    let (port, len) = (be16(list, 18), be32(list, 20) as usize);
    let bytes = list.get(LIST..).filter(|b| b.len() == len).ok_or_else(length)?;
    let id = designator::transport_id(bytes).map_err(|bad| Sense::parameter_field(LIST as u16 + bad.0))?;
    if id.len != bytes.len() {
        return Err(length());
    }
    let initiator = normal(&id).ok_or_else(|| Sense::parameter_field(LIST as u16))?;
    if !cx.unit.device.groups().iter().any(|g| g.ports.contains(&port)) {
        return Err(Sense::parameter_field(18).into());
    }
    let to = Nexus { initiator, target: cx.nexus.who.target, port };
    Ok(Op::RegisterMove { key, new_key, aptpl, unregister, to })
}

impl Run for Change {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let op = match data.as_deref() {
            Some(list) if list.len() == self.want as usize => self.read(list, cx),
            _ => Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH).into()),
        };
        cx.pool.put_all(data);
        match op {
            Ok(op) => Step::Reserve(op),
            Err(Stop::Sense(sense)) => Step::End(check(cx, sense)),
            Err(Stop::Conflict) => Step::End(End::CONFLICT),
            Err(Stop::Later) => Step::End(End::BUSY),
        }
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        Step::End(reserved(&event, cx))
    }

    fn cancel(self, _: &mut Pool) {}
}

/// The end of a change of reservations.
fn reserved(event: &Event, cx: &Cx<'_>) -> End {
    let result = match event {
        Event::Reserved(result) => result,
        // Done, and what it aborted is over.
        Event::Done => &Ok(()),
        other => panic!("only a change of reservations was asked for, not {other:?}"),
    };
    let Err(refused) = result else { return End::GOOD };
    match refused {
        Refused::Conflict => End::CONFLICT,
        Refused::InvalidField => check(cx, Sense::illegal(asc::INVALID_FIELD_IN_PARAMETERS)),
        Refused::InvalidType => check(cx, Sense::cdb_field(2)),
        Refused::InvalidRelease => check(cx, Sense::illegal(asc::INVALID_RELEASE)),
        Refused::NoResources => check(cx, Sense::illegal(asc::INSUFFICIENT_REGISTRATIONS)),
        Refused::Gone | Refused::Unavailable => check(cx, Sense::new(Key::HardwareError, asc::INTERNAL_FAILURE)),
    }
}

/// RESERVE and RELEASE of the whole unit for the asking nexus; third parties and extents are obsolete.
pub(super) fn legacy(cdb: &Cdb) -> Begun {
    if cdb[1] & 0x13 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    let reserve = matches!(cdb[0], op::RESERVE_6 | op::RESERVE_10);
    Ok(Begin::Program(Program::new(Legacy { reserve }), 0))
}

/// A RESERVE or RELEASE under way.
#[derive(Debug)]
pub(super) struct Legacy {
    reserve: bool,
}

impl Run for Legacy {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        cx.pool.put_all(data);
        Step::Reserve(if self.reserve { Op::Reserve6 } else { Op::Release6 })
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        Step::End(reserved(&event, cx))
    }

    fn cancel(self, _: &mut Pool) {}
}
