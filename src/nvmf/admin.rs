//! Commands of the admin queue, and of a connection that has no queue yet: which there are, and who does them.

use super::association::abort_in;
use super::conn::{Conn, State};
use super::message::{ControllerRef, Message};
use super::slots::Stage;
use super::stream::Step;
use super::target::{Env, Target};
use crate::base::VolumeId;
use crate::mem::Buf;
use crate::net::Tx;
use crate::volume::{Kind, Request, Volumes};
use crate::wire::fabrics::{self, Property, fctype};
use crate::wire::nvme::admin::{Abort, Feature, GetLogPage, Identify};
use crate::wire::nvme::log::ErrorEntry;
use crate::wire::nvme::{Sgl, Sqe, StatusCode, admin_op, sc};
use crate::wire::nvme_tcp::pdu::CapsuleCmd;
use crate::wire::nvme_tcp::{Fault, Fes, Frame, digest_ok};
use zerocopy::{FromBytes, FromZeros};

/// What an admin command comes to.
pub(super) enum Reply {
    /// It succeeded, with this result.
    Done(u64),
    /// It succeeded, with this data.
    Data(Buf),
    /// It failed. Errors of the admin queue are of the command, so it must not be retried.
    Fail(StatusCode),
    /// It is answered later, or has been already.
    Held,
    /// No buffer is free: try the same command again next turn.
    Blocked,
    /// The host exceeded its queue.
    Overrun,
}

impl From<StatusCode> for Reply {
    fn from(code: StatusCode) -> Reply {
        Reply::Fail(code)
    }
}

/// A request that is not for a volume.
pub(super) const NO_REQUEST: Request =
    Request { volume: VolumeId(0), kind: Kind::Flush, lba: 0, blocks: 0, fua: false, tag: 0 };

impl Target {
    /// A command capsule of an admin queue or of a connection without a queue.
    pub(super) fn admin_capsule<V: Volumes>(
        &mut self,
        c: &mut Conn,
        rest: &[u8],
        frame: Frame,
        env: &mut Env<'_, V>,
    ) -> Step {
        let (at, end) = (frame.data_at as usize, frame.end as usize);
        let Some(pdu) = rest.get(..end) else { return Step::More };
        let Ok((capsule, _)) = CapsuleCmd::ref_from_prefix(pdu) else { return Step::More };
        let (sqe, data) = (&capsule.sqe, &pdu[at..at + frame.data_len as usize]);
        let cid = sqe.cid.get();
        if frame.data_digest && !digest_ok(data, &pdu[end - 4..]) {
            self.stats.data_digest_errors += 1;
            c.out.advance();
            c.finish(env.tx, cid, sc::TRANSIENT_TRANSPORT, false, 0);
            return Step::Took(end);
        }
        if sqe.opcode == fabrics::OPCODE && fabrics::fctype_of(sqe) == fctype::CONNECT {
            let inline = frame.data_len != 0 && sqe.sgl.kind == Sgl::IN_CAPSULE && sqe.sgl.address.get() == 0;
            let data = if inline { data } else { &[] };
            self.connect(c, sqe, data, env);
            return Step::Took(end);
        }
        let reply = match c.state() {
            State::Admin(controller) => self.admin(c, controller, sqe, env),
            _ => Reply::Fail(sc::SEQUENCE_ERROR),
        };
        match reply {
            Reply::Blocked => return Step::Blocked,
            Reply::Overrun => return self.fault(c, Fault::plain(Fes::SequenceError), rest, env.tx),
            Reply::Held => {}
            Reply::Done(result) => {
                c.out.advance();
                c.finish(env.tx, cid, sc::SUCCESS, false, result);
            }
            Reply::Data(buf) => {
                c.out.advance();
                c.finish_data(env.tx, cid, buf);
            }
            Reply::Fail(code) => {
                c.out.advance();
                self.log_failure(c, sqe, code);
                c.finish(env.tx, cid, code, true, 0);
            }
        }
        Step::Took(end)
    }

    /// A command of an admin queue.
    fn admin<V: Volumes>(&mut self, c: &mut Conn, controller: ControllerRef, sqe: &Sqe, env: &mut Env<'_, V>) -> Reply {
        let cid = sqe.cid.get();
        let Some(owner) = self.controllers.get(controller) else { return sc::INTERNAL_ERROR.into() };
        owner.last_seen = env.now;
        if sqe.fuse() != 0 {
            return sc::INVALID_FIELD.into();
        }
        if let Some(index) = c.slots.find(cid) {
            // A host that uses the identifier of a held event request again has given the request up: SPDK's does so
            // before it shuts a controller down.
            let Some(at) = owner.requests.iter().position(|r| *r == index) else { return sc::CID_CONFLICT.into() };
            owner.requests.remove(at);
            c.slots.free(index);
        }
        if sqe.opcode == fabrics::OPCODE {
            return match fabrics::fctype_of(sqe) {
                fctype::PROPERTY_GET | fctype::PROPERTY_SET => {
                    self.property(c, controller, Property::of(sqe)).map_or_else(Reply::Fail, Reply::Done)
                }
                fctype::DISCONNECT => sc::INVALID_QUEUE_TYPE.into(),
                _ => sc::INVALID_FIELD.into(),
            };
        }
        if !owner.ready() {
            return sc::SEQUENCE_ERROR.into();
        }
        let discovery = owner.discovery;
        match sqe.opcode {
            admin_op::IDENTIFY => self.identify(controller, Identify::of(sqe), &sqe.sgl, env.pool),
            admin_op::GET_LOG_PAGE => self.log_page(c, controller, GetLogPage::of(sqe), &sqe.sgl, env),
            admin_op::SET_FEATURES => self.set_feature(controller, Feature::of(sqe)),
            admin_op::GET_FEATURES => self.get_feature(controller, Feature::of(sqe), &sqe.sgl, env.pool),
            admin_op::ASYNC_EVENT => self.event_request(c, controller, cid, env.tx),
            admin_op::KEEP_ALIVE => Reply::Done(0),
            admin_op::ABORT if !discovery => self.abort(c, controller, cid, Abort::of(sqe), env.tx),
            _ => sc::INVALID_OPCODE.into(),
        }
    }

    /// Abort: commands that have not reached the volumes, and requests for events.
    fn abort(&mut self, c: &mut Conn, controller: ControllerRef, cid: u16, abort: Abort, tx: &mut Tx) -> Reply {
        let Some(owner) = self.controllers.get(controller) else { return sc::INTERNAL_ERROR.into() };
        let not_aborted = |aborted: bool| Reply::Done(u64::from(!aborted));
        if abort.sqid == 0 {
            let slot = c.slots.find(abort.cid);
            let Some(at) = owner.requests.iter().position(|r| Some(*r) == slot) else { return not_aborted(false) };
            let index = owner.requests.remove(at);
            c.slots.free(index);
            c.finish(tx, abort.cid, sc::ABORT_REQUESTED, false, 0);
            return not_aborted(true);
        }
        let Some(queue) = owner.queues.iter().find(|q| q.qid == abort.sqid).copied() else {
            return not_aborted(false);
        };
        if queue.core == self.core {
            return not_aborted(self.conn(queue.conn).is_some_and(|c| abort_in(c, abort.cid)));
        }
        if owner.aborts >= self.config.aborts {
            return sc::ABORT_LIMIT.into();
        }
        let Some(index) = c.slots.peek() else { return Reply::Overrun };
        owner.aborts += 1;
        c.out.advance();
        c.slots.occupy(cid, Stage::Held, NO_REQUEST);
        self.send(queue.core, Message::Abort { conn: queue.conn, cid: abort.cid, reply: (c.id, index) });
        Reply::Held
    }

    /// Adds a failed admin command to its controller's error log.
    fn log_failure(&mut self, c: &Conn, sqe: &Sqe, code: StatusCode) {
        let State::Admin(controller) = c.state() else { return };
        let Some(owner) = self.controllers.get(controller) else { return };
        let mut entry = ErrorEntry::new_zeroed();
        entry.cid = sqe.cid;
        entry.status.set(code.field(true));
        entry.location.set(0xffff);
        entry.nsid = sqe.nsid;
        entry.trtype = crate::wire::discovery::TRTYPE_TCP;
        owner.log_error(entry);
    }
}
