//! Answers to SCSI commands (RFC 7143 11.4, 11.7): data, status and residual counts, the status of a good command in its
//! last Data-In.

use super::conn::Conn;
use super::lu::End;
use super::session::Session;
use super::tasks::{Asked, Outflow};
use crate::mem::Pool;
use crate::net::Tx;
use crate::wire::iscsi::pdu::{DataIn, Residual, ScsiResponse, Tail};
use crate::wire::scsi::{SENSE_MAX, Sense, status};

/// Answers a command that has ended. `wants`: bytes that its CDB says come from the initiator.
#[inline]
pub(super) fn answer(
    c: &mut Conn,
    session: &mut Session,
    asked: &Asked,
    wants: u32,
    end: End,
    tx: &mut Tx,
    pool: &mut Pool,
) {
    if !asked.immediate {
        session.ended();
    }
    c.done.commands += 1;
    c.done.errors += u64::from(end.status != status::GOOD);
    let residual = match &end.data {
        Some(buf) => Residual::between(asked.room(), buf.len() as u64),
        None if wants > 0 => Residual::between(asked.offered(), u64::from(wants)),
        None => Residual::between(asked.expected, 0),
    };
    if wants > 0 && asked.write && end.status == status::GOOD {
        c.done.writes += 1;
        c.done.write_bytes += u64::from(wants.min(asked.offered()));
    }
    let mut pdus = 0;
    if let Some(buf) = end.data {
        let len = (buf.len() as u32).min(asked.room());
        if len == 0 {
            pool.put(buf);
        } else {
            c.done.reads += 1;
            c.done.read_bytes += u64::from(len);
            // Status with sense data does not fit a Data-In.
            let collapse = end.sense.is_none().then_some((end.status, residual));
            if len <= c.out.send_max && len <= session.params.max_burst {
                one(c, session, asked.itt, buf, len, collapse, tx);
                pdus = 1;
            } else {
                let part = Part { itt: asked.itt, base: 0, sn: 0, len, goes_on: false };
                pdus = several(c, session, part, buf, collapse, tx);
            }
            if collapse.is_some() {
                return;
            }
        }
    }
    respond(c, session, asked.itt, (end.status, end.sense), residual, pdus, tx);
}

/// Sends a part of a command's data; the command goes on. Returns the bytes that the initiator still takes.
pub(super) fn send(
    c: &mut Conn,
    session: &Session,
    place: u16,
    buf: crate::mem::Buf,
    total: u32,
    tx: &mut Tx,
    pool: &mut Pool,
) -> u32 {
    let task = c.tasks.at(place);
    let (asked, mut flow) = (task.asked, task.outflow);
    let left = asked.room() - flow.sent;
    let len = (buf.len() as u32).min(left);
    let goes_on = left > len && total > flow.sent + len;
    flow.total = total;
    if len == 0 {
        pool.put(buf);
    } else {
        let part = Part { itt: asked.itt, base: flow.sent, sn: flow.pdus, len, goes_on };
        flow.pdus += several(c, session, part, buf, None, tx);
        flow.sent += len;
    }
    c.tasks.at(place).outflow = flow;
    asked.room() - flow.sent
}

/// Ends a command that sent data before: what is left of it, and the status.
#[cold]
pub(super) fn answer_rest(
    c: &mut Conn,
    session: &mut Session,
    asked: &Asked,
    mut flow: Outflow,
    end: End,
    tx: &mut Tx,
    pool: &mut Pool,
) {
    if !asked.immediate {
        session.ended();
    }
    let good = end.status == status::GOOD;
    c.done.commands += 1;
    c.done.errors += u64::from(!good);
    // A command that failed has moved what it has moved.
    let residual = Residual::between(asked.room(), u64::from(if good { flow.total } else { flow.sent }));
    let mut collapsed = false;
    if let Some(buf) = end.data {
        let len = (buf.len() as u32).min(asked.room() - flow.sent);
        if len == 0 {
            pool.put(buf);
        } else {
            let part = Part { itt: asked.itt, base: flow.sent, sn: flow.pdus, len, goes_on: false };
            flow.pdus += several(c, session, part, buf, Some((end.status, residual)), tx);
            flow.sent += len;
            collapsed = true;
        }
    }
    c.done.reads += 1;
    c.done.read_bytes += u64::from(flow.sent);
    if !collapsed {
        respond(c, session, asked.itt, (end.status, end.sense), residual, flow.pdus, tx);
    }
}

/// The response of a command whose status is in no Data-In.
fn respond(
    c: &mut Conn,
    session: &Session,
    itt: u32,
    (status, sense): (u8, Option<Sense>),
    residual: Residual,
    pdus: u32,
    tx: &mut Tx,
) {
    let mut data = [0; 2 + SENSE_MAX];
    let len = sense.map_or(0, |sense| {
        let mut bytes = [0; SENSE_MAX];
        let len = sense.encode(&mut bytes);
        data[..2].copy_from_slice(&(len as u16).to_be_bytes());
        data[2..].copy_from_slice(&bytes);
        2 + len
    });
    let numbers = c.out.status(session);
    let response = ScsiResponse::new(itt, status, residual, numbers, pdus, len as u32);
    if len == 0 {
        c.out.put(tx, &response);
    } else {
        c.out.put_data(tx, &response, &data[..len]);
    }
}

/// All data of a command in one Data-In.
#[inline]
fn one(
    c: &mut Conn,
    session: &Session,
    itt: u32,
    buf: crate::mem::Buf,
    len: u32,
    collapse: Option<(u8, Residual)>,
    tx: &mut Tx,
) {
    let pdu = if let Some((status, residual)) = collapse {
        DataIn::new(itt, 0, 0, len, true, c.out.status(session)).with_status(status, residual)
    } else {
        DataIn::new(itt, 0, 0, len, true, c.out.numbers(session))
    };
    c.out.put(tx, &pdu);
    if len.is_multiple_of(4) && !c.out.digests.data {
        tx.buf(buf, 0, len as usize);
        return;
    }
    let tail = Tail::of(&buf[..len as usize], c.out.digests);
    tx.buf(buf, 0, len as usize);
    tx.head(tail.bytes());
}

/// Which data of a command a buffer holds.
#[derive(Clone, Copy)]
struct Part {
    itt: u32,
    /// Its place in the data.
    base: u32,
    /// PDUs sent before it.
    sn: u32,
    /// Bytes of the buffer that the initiator takes; more than 0.
    len: u32,
    /// More follows, behind this in the same sequence unless a burst ends here.
    goes_on: bool,
}

/// Data that needs several PDUs: the initiator's segments and bursts are smaller. Returns how many there were.
#[inline(never)]
fn several(
    c: &mut Conn,
    session: &Session,
    part: Part,
    buf: crate::mem::Buf,
    collapse: Option<(u8, Residual)>,
    tx: &mut Tx,
) -> u32 {
    let Part { itt, base, sn: first, len, goes_on } = part;
    let (mut at, mut sn) = (0, first);
    let mut buf = Some(buf);
    while at < len {
        let burst = session.params.max_burst - (base + at) % session.params.max_burst;
        let part = (len - at).min(c.out.send_max).min(burst);
        let last = at + part == len;
        let bytes = &buf.as_ref().expect("kept until the last part")[at as usize..(at + part) as usize];
        let tail = Tail::of(bytes, c.out.digests);
        let pdu = match collapse {
            Some((status, residual)) if last => {
                DataIn::new(itt, sn, base + at, part, true, c.out.status(session)).with_status(status, residual)
            }
            _ => {
                let ends = (last && !goes_on) || part == burst;
                DataIn::new(itt, sn, base + at, part, ends, c.out.numbers(session))
            }
        };
        c.out.put(tx, &pdu);
        if last {
            tx.buf(buf.take().expect("kept until the last part"), at as usize, len as usize);
        } else {
            tx.part(buf.as_ref().expect("kept until the last part"), at as usize, (at + part) as usize);
        }
        tx.head(tail.bytes());
        (at, sn) = (at + part, sn + 1);
    }
    sn - first
}
