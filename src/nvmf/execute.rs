//! Commands that outlive the parse loop: giving collected data to the volumes, trying again what they had no room for,
//! and turning their completions into answers.

use super::conn::Conn;
use super::slots::{Stage, Tag};
use super::status;
use super::target::{Env, Target};
use crate::base::{Status, Time};
use crate::mem::{Buf, Pool};
use crate::net::{Net, Tx};
use crate::volume::{Completion, Kind, Payload, Request, Submit, Volumes};
use crate::wire::nvme::DsmRange;
use zerocopy::FromBytes;

impl Target {
    /// Answers a request of `bytes` that ended.
    #[allow(clippy::too_many_arguments)] // the hot path: every one of them is in a register or on the caller's stack
    #[inline]
    pub(super) fn finish_request(
        c: &mut Conn,
        cid: u16,
        request: &Request,
        bytes: u32,
        status: Status,
        buf: Option<Buf>,
        tx: &mut Tx,
        pool: &mut Pool,
    ) {
        match (buf, status) {
            (Some(buf), Status::Ok) if request.kind == Kind::Read => {
                assert_eq!(buf.len(), bytes as usize, "a read brings exactly what was asked for");
                c.work.reads += 1;
                c.work.read_bytes += u64::from(bytes);
                c.finish_data(tx, cid, buf);
                return;
            }
            (Some(buf), _) => pool.put(buf),
            (None, _) => assert!(request.kind != Kind::Read || !status.is_ok(), "a read brings its data"),
        }
        if status.is_ok() && request.kind == Kind::Write {
            c.work.writes += 1;
            c.work.write_bytes += u64::from(bytes);
        }
        c.finish_word(tx, cid, status::word(request.kind, status), 0);
    }

    /// Gives a slot that has all it needs to the volumes; a command that has failed by now is answered. False: the
    /// volumes have no room now, and the slot is in stage `Queued`.
    pub(super) fn execute<V: Volumes>(&mut self, c: &mut Conn, index: u16, env: &mut Env<'_, V>) -> bool {
        let slot = c.landing_slot(index);
        assert!(slot.pending == 0 && matches!(slot.stage, Stage::Data | Stage::Queued), "executed once");
        if slot.status != 0 {
            let (cid, word) = (slot.cid, slot.status);
            put_back(slot.buf.take(), env.pool);
            c.slots.free(index);
            c.finish_word(env.tx, cid, word, 0);
            return true;
        }
        if slot.ranges {
            (slot.len, slot.got) = (slot.bytes / size_of::<DsmRange>() as u32, 0);
            return !Self::ranges_fit(c, index, env) || self.run_ranges(c, index, env);
        }
        let (cid, request, bytes) = (slot.cid, slot.request, slot.bytes);
        let payload = match slot.buf.take() {
            None => Payload::None,
            Some(mut buf) => {
                buf.set_len(bytes as usize);
                Payload::Owned(buf)
            }
        };
        match env.volumes.submit(request, payload, env.pool) {
            Submit::Done(done) => {
                c.slots.free(index);
                Self::finish_request(c, cid, &request, bytes, done.status, done.buf, env.tx, env.pool);
            }
            Submit::Pending => {
                let slot = c.landing_slot(index);
                (slot.stage, slot.pending, slot.since) = (Stage::Volume, 1, env.now);
                self.pending += 1;
            }
            Submit::Later(back) => {
                let slot = c.landing_slot(index);
                (slot.buf, slot.stage) = (back, Stage::Queued);
                return false;
            }
        }
        true
    }

    /// Puts a slot on its connection's list of requests to try again.
    pub(super) fn queue(&mut self, c: &mut Conn, index: u16) {
        if c.queued.is_empty() {
            self.retry.push_back(c.id);
        }
        assert!(c.queued.len() < c.queued.capacity(), "the list has a place for every slot");
        c.queued.push_back(index);
        self.stats.waits += 1;
    }

    /// True when every range of a Dataset Management command lies within its volume; else answers the command.
    fn ranges_fit<V: Volumes>(c: &mut Conn, index: u16, env: &mut Env<'_, V>) -> bool {
        let slot = c.landing_slot(index);
        let buf = slot.buf.as_ref().expect("ranges are in a buffer");
        let status = match env.volumes.info(slot.request.volume) {
            None => Status::Gone,
            Some(info) if info.read_only => Status::ReadOnly,
            Some(info) => {
                let past = |r: &DsmRange| {
                    r.lba.get().checked_add(u64::from(r.blocks.get())).is_none_or(|end| end > info.blocks)
                };
                let (list, _) = <[DsmRange]>::ref_from_prefix_with_elems(buf, slot.len as usize)
                    .expect("the buffer holds as many ranges as were announced");
                if list.iter().any(past) { Status::OutOfRange } else { Status::Ok }
            }
        };
        if !status.is_ok() {
            slot.status = status::word(Kind::Deallocate, status);
            Self::end_ranges(c, index, env.tx, env.pool);
        }
        status.is_ok()
    }

    /// Gives the ranges from `got` on to the volumes. False: as far as they have room, and the slot is in stage `Queued`.
    fn run_ranges<V: Volumes>(&mut self, c: &mut Conn, index: u16, env: &mut Env<'_, V>) -> bool {
        let slot = c.landing_slot(index);
        (slot.stage, slot.since) = (Stage::Volume, env.now);
        // A range that failed, or a namespace that was taken away meanwhile, ends the command.
        while slot.got < slot.len && slot.status == 0 {
            let buf = slot.buf.as_ref().expect("ranges are in a buffer");
            let at = slot.got as usize * size_of::<DsmRange>();
            let (range, _) = DsmRange::ref_from_prefix(&buf[at..]).expect("the buffer holds every range");
            let (lba, blocks) = (range.lba.get(), range.blocks.get());
            let request = Request { lba, blocks, ..slot.request };
            slot.got += 1;
            if blocks == 0 {
                continue;
            }
            match env.volumes.submit(request, Payload::None, env.pool) {
                Submit::Done(done) => {
                    if slot.status == 0 {
                        slot.status = status::word(Kind::Deallocate, done.status);
                    }
                }
                Submit::Pending => {
                    slot.pending += 1;
                    self.pending += 1;
                }
                Submit::Later(_) => {
                    slot.got -= 1;
                    slot.stage = Stage::Queued;
                    return false;
                }
            }
        }
        if slot.pending == 0 {
            Self::end_ranges(c, index, env.tx, env.pool);
        }
        true
    }

    /// Answers a Dataset Management command.
    fn end_ranges(c: &mut Conn, index: u16, tx: &mut Tx, pool: &mut Pool) {
        let slot = c.landing_slot(index);
        let (cid, word) = (slot.cid, slot.status);
        put_back(slot.buf.take(), pool);
        c.slots.free(index);
        c.finish_word(tx, cid, word, 0);
    }

    /// A request ended. Those of connections that are gone only bring their buffer back.
    pub(super) fn completed<N: Net>(&mut self, now: Time, done: Completion, net: &mut N, pool: &mut Pool) {
        self.pending = self.pending.checked_sub(1).expect("a request ends once");
        let tag = Tag(done.tag);
        let place = self.conns.get_mut(tag.conn() as usize).and_then(Option::take);
        let Some(mut c) = place else { return put_back(done.buf, pool) };
        let known = c.id.generation & 0x7fff_ffff == tag.generation();
        match (net.tx(c.id), c.slots.get(tag.slot())) {
            (Some(tx), Some(slot)) if known && slot.pending > 0 => {
                slot.pending -= 1;
                c.work.pending_ns += now.since(slot.since);
                if slot.ranges {
                    if slot.status == 0 {
                        slot.status = status::word(Kind::Deallocate, done.status);
                    }
                    if slot.pending == 0 && slot.stage == Stage::Volume {
                        Self::end_ranges(&mut c, tag.slot(), tx, pool);
                    }
                    put_back(done.buf, pool);
                } else {
                    let (cid, request, bytes) = (slot.cid, slot.request, slot.bytes);
                    c.slots.free(tag.slot());
                    Self::finish_request(&mut c, cid, &request, bytes, done.status, done.buf, tx, pool);
                }
            }
            _ => put_back(done.buf, pool),
        }
        self.put(c);
    }

    /// Tries the requests again that had to wait, in order; what the volumes still have no room for ends a connection's
    /// turn, what only lacks a buffer does not.
    pub(super) fn retry_queued<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        for _ in 0..self.retry.len() {
            let Some(id) = self.retry.pop_front() else { break };
            let Some(mut c) = self.take(id) else { continue };
            if let Some(tx) = net.tx(id) {
                let mut env = Env { now, volumes: &mut *volumes, tx, pool: &mut *pool };
                for _ in 0..c.queued.len() {
                    let Some(index) = c.queued.pop_front() else { break };
                    if c.landing_slot(index).stage == Stage::Buffer {
                        if !Self::solicit(&mut c, index, env.tx, env.pool) {
                            c.queued.push_back(index);
                        }
                    } else if !self.resume(&mut c, index, &mut env) {
                        c.queued.push_front(index);
                        break;
                    }
                }
                if !c.queued.is_empty() {
                    self.retry.push_back(id);
                }
            }
            self.put(c);
        }
    }

    /// Goes on with a request in stage `Queued`.
    fn resume<V: Volumes>(&mut self, c: &mut Conn, index: u16, env: &mut Env<'_, V>) -> bool {
        let slot = c.landing_slot(index);
        if slot.ranges && (slot.got > 0 || slot.pending > 0) {
            return self.run_ranges(c, index, env);
        }
        self.execute(c, index, env)
    }
}

fn put_back(buf: Option<Buf>, pool: &mut Pool) {
    if let Some(buf) = buf {
        pool.put(buf);
    }
}
