//! Connect (base specification, "Connect Command"): what makes a connection a queue.

use super::config::Transport;
use super::conn::{Conn, Identity, State};
use super::controller::NewController;
use super::message::{Attach, ControllerRef, Message};
use super::slots::Slots;
use super::stream::ADMIN_CAPSULE;
use super::subs::DISCOVERY;
use super::target::{Env, Target};
use crate::net::Tx;
use crate::wire::fabrics::{
    CATTR_DISABLE_SQFC, CNTLID_DYNAMIC, Connect, ConnectData, connect_at as at, connect_result, invalid_result,
};
use crate::wire::nvme::{Sqe, StatusCode, sc};
use crate::wire::nvme_tcp::{Receiver, Side};
use std::collections::VecDeque;
use zerocopy::FromBytes;

/// Why a Connect failed: status and result.
type Refused = (StatusCode, u64);

fn invalid(offset: u16, in_data: bool) -> Refused {
    (sc::CONNECT_INVALID, invalid_result(offset, in_data))
}

/// Header bytes and stretches that one command can have in the send queue: data header and digest, response, and the
/// padding of a host that asks for it.
const TX_BYTES: usize = 96;
const TX_PIECES: usize = 3;

impl Target {
    /// A Connect command with its data. It is answered here unless another core has to be asked.
    pub(super) fn connect<V>(&mut self, c: &mut Conn, sqe: &Sqe, data: &[u8], env: &mut Env<'_, V>) {
        let cid = sqe.cid.get();
        if c.state() != State::Ready {
            c.out.advance();
            c.finish(env.tx, cid, sc::SEQUENCE_ERROR, true, 0);
            return;
        }
        let params = Connect::of(sqe);
        let outcome = self.check_connect(c, params, data).and_then(|sub| {
            let Ok((data, _)) = ConnectData::ref_from_prefix(data) else { return Err(invalid(at::RECFMT, false)) };
            let identity = Identity {
                hostnqn: data.hostnqn().unwrap_or_default().to_owned(),
                hostid: data.hostid,
                cntlid: data.cntlid.get(),
                qid: params.qid,
            };
            c.sub = sub;
            c.view = self.join_subsystem(sub, &identity.hostnqn);
            c.identity = Some(Box::new(identity));
            c.out.entries = params.sqsize + 1;
            c.out.flow = params.cattr & CATTR_DISABLE_SQFC == 0;
            c.out.success = !c.out.flow && self.transport.is_some_and(|t| t.c2h_success);
            if params.qid == 0 { self.connect_admin(c, params, env).map(Some) } else { self.connect_io(c, cid, env) }
        });
        match outcome {
            Ok(Some(controller)) => self.connected_as(c, cid, Ok(controller), env.tx),
            Ok(None) => {}
            Err(refused) => self.connected_as(c, cid, Err(refused), env.tx),
        }
    }

    /// What every Connect must satisfy; the subsystem's place in the table.
    fn check_connect(&self, c: &Conn, params: Connect, data: &[u8]) -> Result<u32, Refused> {
        let Some(transport) = self.transport else { return Err((sc::CONNECT_BUSY, 0)) };
        if params.format != 0 {
            return Err((sc::CONNECT_FORMAT, 0));
        }
        let Ok((data, _)) = ConnectData::ref_from_prefix(data) else {
            return Err((sc::SGL_LENGTH_INVALID, 0));
        };
        let subnqn = data.subnqn().ok_or(invalid(at::SUBNQN, true))?;
        let hostnqn = data.hostnqn().ok_or(invalid(at::HOSTNQN, true))?;
        let sub = self.subs.find(subnqn).ok_or(invalid(at::SUBNQN, true))?;
        if sub != DISCOVERY {
            let subsystem = self.subsystem(sub).ok_or(invalid(at::SUBNQN, true))?;
            if !subsystem.admits(hostnqn) {
                return Err((sc::CONNECT_INVALID_HOST, 0));
            }
            if !subsystem.listeners.contains(&c.listener) {
                return Err(invalid(at::SUBNQN, true));
            }
        }
        let depth = if params.qid == 0 { transport.admin_depth } else { transport.queue_depth };
        if params.sqsize == 0 || params.sqsize >= depth {
            return Err(invalid(at::SQSIZE, false));
        }
        let of_host = |o: &&Conn| o.identity.as_ref().is_some_and(|i| i.hostnqn == hostnqn);
        if self.live().filter(of_host).count() >= self.config.connections_per_host {
            return Err((sc::CONNECT_BUSY, 0));
        }
        Ok(sub)
    }

    /// An admin queue makes a controller on this core.
    fn connect_admin<V>(
        &mut self,
        c: &mut Conn,
        params: Connect,
        env: &mut Env<'_, V>,
    ) -> Result<ControllerRef, Refused> {
        let identity = c.identity.as_mut().expect("set by the caller");
        if identity.cntlid != CNTLID_DYNAMIC {
            return Err(invalid(at::CNTLID, true));
        }
        let kato = keep_alive(&self.config, params.kato)?;
        let transport = self.transport.unwrap_or_default();
        let discovery = c.sub == DISCOVERY;
        let full = || self.controllers.iter().filter(|c| c.discovery).count() >= self.config.discovery_controllers;
        if discovery && full() {
            return Err((sc::CONNECT_BUSY, 0));
        }
        let (min, max) = self.snapshot_range(c.sub);
        let cntlid = self.controllers.free_id(c.sub, min, max).ok_or((sc::CONNECT_BUSY, 0))?;
        let new = NewController {
            cntlid,
            admin: c.id,
            sub: c.sub,
            hostnqn: identity.hostnqn.clone(),
            hostid: identity.hostid,
            discovery,
            mqes: transport.queue_depth - 1,
            io_max: transport.io_bytes_max,
            in_capsule: if discovery { 0 } else { transport.in_capsule_bytes },
            queues_max: if discovery { 0 } else { transport.io_queues },
            kato,
        };
        let controller = self.controllers.add(new, env.now).ok_or((sc::CONNECT_BUSY, 0))?;
        identity.cntlid = cntlid;
        Ok(controller.own)
    }

    fn snapshot_range(&self, sub: u32) -> (u16, u16) {
        self.subsystem(sub).map_or((1, 0xffef), |s| (s.cntlid_min.max(1), s.cntlid_max.min(0xffef)))
    }

    /// An I/O queue joins a controller, which may live on another core.
    fn connect_io<V>(
        &mut self,
        c: &mut Conn,
        cid: u16,
        env: &mut Env<'_, V>,
    ) -> Result<Option<ControllerRef>, Refused> {
        let identity = c.identity.as_ref().expect("set by the caller");
        let subnqn = self.subs.get(c.sub).map_or_else(String::new, |s| s.nqn.clone());
        let attach = Attach {
            conn: c.id,
            cntlid: identity.cntlid,
            qid: identity.qid,
            subnqn,
            hostnqn: identity.hostnqn.clone(),
            hostid: identity.hostid,
        };
        let owner = self.controllers.owner(identity.cntlid);
        if owner == self.core {
            return self.judge(env.now, owner, &attach).map(Some);
        }
        c.enter(State::Attaching { cid });
        self.send(owner, Message::Attach(Box::new(attach)));
        Ok(None)
    }

    /// The owner's answer for a connection that waited for it.
    pub(super) fn connected(&mut self, c: &mut Conn, answer: Result<ControllerRef, Refused>, tx: &mut Tx) {
        let State::Attaching { cid } = c.state() else { return };
        self.connected_as(c, cid, answer, tx);
    }

    /// Ends a Connect: the connection becomes a queue, or stays what it was.
    fn connected_as(&mut self, c: &mut Conn, cid: u16, answer: Result<ControllerRef, Refused>, tx: &mut Tx) {
        let transport = self.transport.unwrap_or_default();
        match answer {
            Ok(controller) => {
                let identity = c.identity.as_ref().expect("a queue has an identity");
                let (admin, cntlid) = (identity.qid == 0, identity.cntlid);
                self.become_queue(c, admin, transport, tx);
                c.enter(if admin { State::Admin(controller) } else { State::Io(controller) });
                self.unassociated -= 1;
                let count = if admin { &mut self.stats.admin_queues } else { &mut self.stats.io_queues };
                *count += 1;
                c.out.sqhd = 0;
                c.out.advance();
                c.finish(tx, cid, sc::SUCCESS, false, connect_result(cntlid));
            }
            Err((code, result)) => {
                self.stats.connects_refused += 1;
                self.leave_subsystem(c);
                c.identity = None;
                c.out.entries = u16::MAX;
                (c.out.flow, c.out.success) = (true, false);
                if c.state() != State::Ready {
                    c.enter(State::Ready);
                }
                c.out.advance();
                c.finish(tx, cid, code, true, result);
            }
        }
    }

    /// Allocates what a queue needs, once and for all.
    fn become_queue(&mut self, c: &mut Conn, admin: bool, transport: Transport, tx: &mut Tx) {
        let depth = c.out.entries;
        c.slots = Slots::new(depth);
        c.queued = VecDeque::with_capacity(usize::from(depth));
        c.io_max = transport.io_bytes_max;
        tx.reserve(usize::from(depth) * TX_BYTES, usize::from(depth) * TX_PIECES);
        if admin {
            assert!(ADMIN_CAPSULE as usize + 512 < crate::net::CARRY_MAX, "an admin capsule always fits the carry");
        } else {
            let (digests, cpda) = (c.rules.digests(), self.config.cpda);
            let most = self.config.h2c_data_bytes;
            c.rules = Receiver::agreed(Side::Controller, digests, cpda, transport.in_capsule_bytes, most);
        }
    }
}

/// The keep alive timeout a host gets for the one it asked for, ms.
pub(super) fn keep_alive(config: &super::Config, asked: u32) -> Result<u32, Refused> {
    match asked {
        0 => Ok(0),
        ms if ms > config.keep_alive_max_ms => Err((sc::KEEP_ALIVE_INVALID, 0)),
        ms => Ok(ms.max(config.keep_alive_min_ms)),
    }
}
