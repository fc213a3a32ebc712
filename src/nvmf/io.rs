//! I/O commands (NVM command set): from the capsule to the volumes, and the answer when it is there at once. This is the
//! hot path: no lookup but one array index, no allocation, no copy of payload.

use super::conn::{Conn, Rx};
use super::slots::Stage;
use super::stream::Step;
use super::subs::Space;
use super::target::{Env, Target};
use crate::mem::Pool;
use crate::net::{CARRY_MAX, Close, Tx};
use crate::volume::{Kind, Payload, Request, Submit, Volumes};
use crate::wire::fabrics::{self, fctype};
use crate::wire::nvme::{DsmRange, Sgl, Sqe, StatusCode, io_op, sc};
use crate::wire::nvme_tcp::pdu::CapsuleCmd;
use crate::wire::nvme_tcp::{Fault, Fes, Frame, digest_ok};
use zerocopy::FromBytes;

/// Data that comes with or after a command.
#[derive(Clone, Copy, Debug)]
enum Inline<'a> {
    /// None in the capsule.
    None,
    /// All of it, in the receive window.
    Here(&'a [u8]),
    /// In the capsule, but not all of it has been received.
    Partly,
}

/// Why a command does not go to the volumes now.
enum Refuse {
    /// It failed.
    Status(StatusCode),
    /// Its data was damaged on the way.
    Damaged,
    /// The host exceeded its queue.
    Fault(Fault),
    /// Buffers or room are short.
    Blocked,
}

impl From<StatusCode> for Refuse {
    fn from(code: StatusCode) -> Refuse {
        Refuse::Status(code)
    }
}

impl Target {
    /// A command capsule of an I/O queue.
    #[inline]
    pub(super) fn io_capsule<V: Volumes>(
        &mut self,
        c: &mut Conn,
        rest: &[u8],
        frame: Frame,
        env: &mut Env<'_, V>,
    ) -> Step {
        let Ok((capsule, _)) = CapsuleCmd::ref_from_prefix(rest) else { return Step::More };
        let (at, end) = (frame.data_at as usize, frame.end as usize);
        let inline = if frame.data_len == 0 {
            Inline::None
        } else if rest.len() >= end {
            Inline::Here(&rest[at..at + frame.data_len as usize])
        } else if end <= CARRY_MAX {
            return Step::More;
        } else {
            Inline::Partly
        };
        let sqe = &capsule.sqe;
        let outcome = match (sqe.opcode, inline) {
            (io_op::READ, Inline::None) => self.read(c, sqe, env),
            (_, Inline::Here(data)) if frame.data_digest && !digest_ok(data, &rest[end - 4..end]) => {
                Err(Refuse::Damaged)
            }
            (io_op::WRITE, inline) => self.host_data(c, sqe, Kind::Write, inline, frame, env),
            (io_op::COMPARE, inline) => self.host_data(c, sqe, Kind::Compare, inline, frame, env),
            (io_op::DSM, inline) => self.host_data(c, sqe, Kind::Deallocate, inline, frame, env),
            (fabrics::OPCODE, Inline::None | Inline::Here(_)) => self.io_fabrics(c, sqe, env),
            (_, Inline::Here(_) | Inline::Partly) => Err(sc::SGL_TYPE_INVALID.into()),
            (io_op::FLUSH | io_op::WRITE_ZEROES, Inline::None) => self.no_data(c, sqe, env),
            _ => Err(sc::INVALID_OPCODE.into()),
        };
        let cid = sqe.cid.get();
        match outcome {
            Ok(()) => {}
            Err(Refuse::Blocked) => return Step::Blocked,
            Err(Refuse::Fault(fault)) => return self.fault(c, fault, rest, env.tx),
            Err(Refuse::Status(code)) => {
                c.out.advance();
                c.finish(env.tx, cid, code, true, 0);
            }
            Err(Refuse::Damaged) => {
                self.stats.data_digest_errors += 1;
                c.out.advance();
                c.finish(env.tx, cid, sc::TRANSIENT_TRANSPORT, false, 0);
            }
        }
        if !matches!(inline, Inline::Partly) {
            return Step::Took(end);
        }
        if c.rx == Rx::Header {
            // The command failed before its data came.
            c.rx = Rx::Skip { left: frame.tail_len() as u32 };
        }
        Step::Took(at)
    }

    /// The namespace of a command.
    #[inline]
    fn space(&self, c: &Conn, sqe: &Sqe) -> Result<Space, StatusCode> {
        let spaces = self.subs.spaces(c.view);
        let space = spaces.get(sqe.nsid.get().wrapping_sub(1) as usize);
        space.copied().filter(|s| s.shift != 0).ok_or(sc::INVALID_NAMESPACE)
    }

    /// The slot a command may use: the queue has one and no other command has this CID.
    #[inline]
    fn slot(c: &Conn, sqe: &Sqe) -> Result<u16, Refuse> {
        if sqe.fuse() != 0 {
            return Err(sc::INVALID_FIELD.into());
        }
        if c.slots.has(sqe.cid.get()) {
            return Err(sc::CID_CONFLICT.into());
        }
        c.slots.peek().ok_or(Refuse::Fault(Fault::plain(Fes::SequenceError)))
    }

    /// Read.
    #[inline]
    fn read<V: Volumes>(&mut self, c: &mut Conn, sqe: &Sqe, env: &mut Env<'_, V>) -> Result<(), Refuse> {
        let space = self.space(c, sqe)?;
        let slot = Self::slot(c, sqe)?;
        let (blocks, cid) = (sqe.blocks(), sqe.cid.get());
        let bytes = blocks << space.shift;
        if bytes > c.io_max {
            return Err(sc::INVALID_FIELD.into());
        }
        if sqe.sgl.length.get() < bytes {
            return Err(sc::SGL_LENGTH_INVALID.into());
        }
        if sqe.sgl.kind != Sgl::TRANSPORT {
            return Err(sc::SGL_TYPE_INVALID.into());
        }
        let request = Request {
            volume: space.volume,
            kind: Kind::Read,
            lba: sqe.slba(),
            blocks,
            fua: false,
            tag: c.tag + u64::from(slot),
        };
        match env.volumes.submit(request, Payload::None, env.pool) {
            Submit::Done(done) => {
                c.out.advance();
                Self::finish_request(c, cid, &request, bytes, done.status, done.buf, env.tx, env.pool);
            }
            Submit::Pending => self.pend(c, cid, request, bytes, env.now),
            Submit::Later(_) => self.postpone(c, slot, cid, request, bytes),
        }
        Ok(())
    }

    /// Has a command without data wait for room in the volumes. It does not hold up the stream: data that frees room
    /// may be behind it.
    fn postpone(&mut self, c: &mut Conn, index: u16, cid: u16, request: Request, bytes: u32) {
        c.out.advance();
        c.slots.occupy(cid, Stage::Queued, request).bytes = bytes;
        self.queue(c, index);
    }

    /// Occupies the slot of a request that the volumes have.
    fn pend(&mut self, c: &mut Conn, cid: u16, request: Request, bytes: u32, now: crate::base::Time) {
        c.out.advance();
        let slot = c.slots.occupy(cid, Stage::Volume, request);
        (slot.pending, slot.bytes, slot.since) = (1, bytes, now);
        self.pending += 1;
    }

    /// Flush, Write Zeroes.
    fn no_data<V: Volumes>(&mut self, c: &mut Conn, sqe: &Sqe, env: &mut Env<'_, V>) -> Result<(), Refuse> {
        let space = self.space(c, sqe)?;
        let slot = Self::slot(c, sqe)?;
        let cid = sqe.cid.get();
        let tag = c.tag + u64::from(slot);
        let request = if sqe.opcode == io_op::FLUSH {
            Request { volume: space.volume, kind: Kind::Flush, lba: 0, blocks: 0, fua: false, tag }
        } else {
            let (lba, blocks) = (sqe.slba(), sqe.blocks());
            Request { volume: space.volume, kind: Kind::WriteZeroes, lba, blocks, fua: fua(sqe), tag }
        };
        match env.volumes.submit(request, Payload::None, env.pool) {
            Submit::Done(done) => {
                c.out.advance();
                Self::finish_request(c, cid, &request, 0, done.status, done.buf, env.tx, env.pool);
            }
            Submit::Pending => self.pend(c, cid, request, 0, env.now),
            Submit::Later(_) => self.postpone(c, slot, cid, request, 0),
        }
        Ok(())
    }

    /// Write, Compare, Dataset Management: commands whose data comes from the host.
    #[inline]
    fn host_data<V: Volumes>(
        &mut self,
        c: &mut Conn,
        sqe: &Sqe,
        kind: Kind,
        inline: Inline<'_>,
        frame: Frame,
        env: &mut Env<'_, V>,
    ) -> Result<(), Refuse> {
        let space = self.space(c, sqe)?;
        let slot = Self::slot(c, sqe)?;
        let (cid, tag) = (sqe.cid.get(), c.tag + u64::from(slot));
        let (mut request, bytes) = host_request(sqe, kind, space, tag);
        if bytes > c.io_max {
            return Err(sc::INVALID_FIELD.into());
        }
        check_sgl(&sqe.sgl, inline, frame.data_len, bytes)?;
        if kind == Kind::Deallocate {
            if sqe.cdw11.get() & 4 == 0 {
                // Only hints, which are not used: nothing to do, and no data to ask for.
                c.out.advance();
                c.finish(env.tx, cid, sc::SUCCESS, false, 0);
                return Ok(());
            }
            request.blocks = 0;
        } else if let Inline::Here(data) = inline {
            return match env.volumes.submit(request, Payload::Borrowed(&data[..bytes as usize]), env.pool) {
                Submit::Done(done) => {
                    c.out.advance();
                    Self::finish_request(c, cid, &request, bytes, done.status, done.buf, env.tx, env.pool);
                    Ok(())
                }
                Submit::Pending => {
                    self.pend(c, cid, request, bytes, env.now);
                    Ok(())
                }
                Submit::Later(_) => Err(Refuse::Blocked),
            };
        }
        self.collect(c, slot, (cid, request, bytes), sqe.sgl.length.get(), inline, env)
    }

    /// Has the data of a command brought into a buffer: copied, landing, or asked for by R2T.
    fn collect<V: Volumes>(
        &mut self,
        c: &mut Conn,
        index: u16,
        (cid, request, bytes): (u16, Request, u32),
        offered: u32,
        inline: Inline<'_>,
        env: &mut Env<'_, V>,
    ) -> Result<(), Refuse> {
        // The whole of what the host offers is moved, as hosts expect, but only `bytes` of it are used.
        let asked = matches!(inline, Inline::None);
        let moved = if asked && offered > c.io_max { bytes } else { offered };
        // Data that has only begun to come may never come whole, as that which is asked for.
        if matches!(inline, Inline::Partly) && !spare(env.pool, moved as usize) {
            return Err(Refuse::Blocked);
        }
        let buf = if asked { None } else { Some(env.pool.get(moved as usize).ok_or(Refuse::Blocked)?) };
        c.out.advance();
        let slot = c.slots.occupy(cid, Stage::Data, request);
        (slot.buf, slot.len, slot.bytes) = (buf, moved, bytes);
        slot.ranges = request.kind == Kind::Deallocate;
        match inline {
            Inline::Here(data) => {
                slot.buf.as_mut().expect("taken above").copy_from_slice(data);
                slot.got = moved;
                if !self.execute(c, index, env) {
                    self.queue(c, index);
                }
            }
            Inline::Partly => c.rx = Rx::Land { slot: index, from: 0, at: 0, to: moved },
            Inline::None => {
                slot.stage = Stage::Buffer;
                if !Self::solicit(c, index, env.tx, env.pool) {
                    self.queue(c, index);
                }
            }
        }
        Ok(())
    }

    /// Asks the host for all data of a slot, if there is a buffer for it (a command that was aborted meanwhile is
    /// answered instead). False: not now.
    pub(super) fn solicit(c: &mut Conn, index: u16, tx: &mut Tx, pool: &mut Pool) -> bool {
        let slot = c.landing_slot(index);
        let (cid, word) = (slot.cid, slot.status);
        if word != 0 {
            c.slots.free(index);
            c.finish_word(tx, cid, word, 0);
            return true;
        }
        let len = slot.len;
        if !spare(pool, len as usize) {
            return false;
        }
        let Some(buf) = pool.get(len as usize) else { return false };
        (slot.buf, slot.stage, slot.solicited) = (Some(buf), Stage::Data, true);
        let ttag = slot.ttag(index);
        c.out.r2t(tx, cid, ttag, len);
        true
    }

    /// Fabrics commands on an I/O queue.
    fn io_fabrics<V: Volumes>(&mut self, c: &mut Conn, sqe: &Sqe, env: &mut Env<'_, V>) -> Result<(), Refuse> {
        match fabrics::fctype_of(sqe) {
            fctype::DISCONNECT => {
                c.out.advance();
                c.finish(env.tx, sqe.cid.get(), sc::SUCCESS, false, 0);
                self.end(c, Close::AfterSend);
                Ok(())
            }
            fctype::CONNECT => Err(sc::SEQUENCE_ERROR.into()),
            _ => Err(sc::INVALID_FIELD.into()),
        }
    }
}

/// True when a buffer of `len` bytes may be set aside for data that is still to come. A quarter of each class is kept for
/// requests that can go on by themselves: buffers that wait for a host must not be what that host's other requests
/// wait for.
fn spare(pool: &Pool, len: usize) -> bool {
    let fit = pool.stats().find(|class| class.size >= len && class.free > 0);
    fit.is_some_and(|class| (class.free - 1) * 4 >= class.total)
}

/// FUA bit of Write and Write Zeroes.
fn fua(sqe: &Sqe) -> bool {
    sqe.cdw12.get() & 1 << 30 != 0
}

/// The request of a command with host data, and how many bytes of data it uses.
#[inline]
fn host_request(sqe: &Sqe, kind: Kind, space: Space, tag: u64) -> (Request, u32) {
    if kind == Kind::Deallocate {
        let ranges = (sqe.cdw10.get() & 0xff) + 1;
        let request = Request { volume: space.volume, kind, lba: 0, blocks: 0, fua: false, tag };
        return (request, ranges * size_of::<DsmRange>() as u32);
    }
    let blocks = sqe.blocks();
    let request = Request { volume: space.volume, kind, lba: sqe.slba(), blocks, fua: fua(sqe), tag };
    (request, blocks << space.shift)
}

/// The data descriptor against what came and what is needed (transport specification, section 3.3.2).
#[inline]
fn check_sgl(sgl: &Sgl, inline: Inline<'_>, inline_len: u32, need: u32) -> Result<(), StatusCode> {
    let len = sgl.length.get();
    match inline {
        Inline::None if sgl.kind != Sgl::TRANSPORT => Err(sc::SGL_TYPE_INVALID),
        Inline::Here(_) | Inline::Partly if sgl.kind != Sgl::IN_CAPSULE => Err(sc::SGL_TYPE_INVALID),
        Inline::Here(_) | Inline::Partly if sgl.address.get() != 0 => Err(sc::SGL_OFFSET_INVALID),
        Inline::Here(_) | Inline::Partly if len != inline_len => Err(sc::SGL_LENGTH_INVALID),
        _ if len < need => Err(sc::SGL_LENGTH_INVALID),
        _ => Ok(()),
    }
}
