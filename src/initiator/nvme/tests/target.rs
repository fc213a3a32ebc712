//! A scripted NVMe/TCP target in memory: honest by default, with one [`Vice`] on request.

use crate::base::Time;
use crate::mem::Pool;
use crate::net::{Closed, ConnId, Ends, Handler, ListenerId, Tx};
use crate::wire::fabrics::{self, Connect, ConnectData, Property, fctype, property};
use crate::wire::nvme::admin::Identify;
use crate::wire::nvme::identify::{self, cns, nidt, put_descriptor};
use crate::wire::nvme::{Cqe, DsmRange, Sgl, Sqe, StatusCode, admin_op, io_op, sc};
use crate::wire::nvme_tcp::pdu::{CapsuleCmd, CapsuleResp, Data, Head, IcReq, IcResp, LAST_PDU, R2t, SUCCESS, TermReq};
use crate::wire::nvme_tcp::{Digests, Fault, Fes, Kind, Receiver, Side};
use std::collections::HashMap;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

pub const BLOCK: usize = 4096;
pub const BLOCKS: u64 = 64;
pub const UUID: [u8; 16] = [7; 16];

/// What the target does wrong, or differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vice {
    None,
    RefuseConnect(StatusCode),
    WantAuthentication,
    NeverReady,
    NoNamespace,
    OneQueue,
    OtherBlockSize,
    /// C2HData at an offset other than the next.
    WrongOffset,
    /// One C2HData more than the command has bytes.
    TooMuchData,
    /// SUCCESS before all bytes have come.
    EarlySuccess,
    /// A response for a command that is not under way.
    UnknownCid,
    /// An R2T beyond the payload.
    R2tTooLong,
    /// A second R2T for the same bytes.
    R2tTwice,
    /// A PDU type that hosts send.
    AlienPdu,
    BadHeaderDigest,
    BadDataDigest,
    SecondIcResp,
    Terminate,
    /// Reads are never answered.
    Silent,
    /// Keep Alive is never answered.
    DeafToKeepAlive,
    /// Connections are closed at the first read.
    Hangup,
}

/// Sizes the target offers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub vice: Vice,
    pub in_capsule: u32,
    pub r2t_bytes: u32,
    pub c2h_bytes: u32,
    pub maxh2c: u32,
    pub cpda: u8,
    pub mqes: u16,
    pub success: bool,
    pub digests: Digests,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            vice: Vice::None,
            in_capsule: 8192,
            r2t_bytes: 1 << 20,
            c2h_bytes: 1 << 20,
            maxh2c: 131_072,
            cpda: 0,
            mqes: 127,
            success: true,
            digests: Digests { header: true, data: true },
        }
    }
}

struct Transfer {
    sqe: Sqe,
    data: Vec<u8>,
    asked: u32,
    got: u32,
}

struct Peer {
    receiver: Receiver,
    align: u32,
    qid: Option<u16>,
    transfers: HashMap<u16, Transfer>,
}

/// The target; the handler of its own net.
pub struct Target {
    pub shape: Shape,
    pub disk: Vec<u8>,
    pub blocks: u64,
    peers: HashMap<ConnId, Peer>,
    cc: u32,
    looked_ready: u32,
    /// FES and FEI of termination requests received.
    pub terminated: Vec<(u16, u32)>,
    /// Connections accepted in all.
    pub accepted: usize,
    pub keep_alives: usize,
    pub shutdown: bool,
    pub now: Time,
    pub sqsizes: Vec<(u16, u16)>,
    /// Commands whose payload came in the capsule, and by R2T.
    pub in_capsule: usize,
    pub by_r2t: usize,
    pub hang_up: Vec<ConnId>,
}

impl Target {
    pub fn new(shape: Shape) -> Target {
        Target {
            shape,
            disk: vec![0; BLOCK * BLOCKS as usize],
            blocks: BLOCKS,
            peers: HashMap::new(),
            cc: 0,
            looked_ready: 0,
            terminated: Vec::new(),
            accepted: 0,
            keep_alives: 0,
            shutdown: false,
            now: Time(0),
            sqsizes: Vec::new(),
            in_capsule: 0,
            by_r2t: 0,
            hang_up: Vec::new(),
        }
    }

    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    /// Connections without a Connect so far.
    pub fn unassociated(&self) -> usize {
        self.peers.values().filter(|p| p.qid.is_none()).count()
    }

    /// One whole PDU.
    fn pdu(&mut self, conn: ConnId, kind: Kind, head: &[u8], data: &[u8], tx: &mut Tx) {
        match kind {
            Kind::IcReq => self.icreq(conn, IcReq::ref_from_prefix(head).unwrap().0, tx),
            Kind::CapsuleCmd => {
                let sqe = CapsuleCmd::ref_from_prefix(head).unwrap().0.sqe;
                self.command(conn, sqe, data, tx);
            }
            Kind::H2cData => {
                let h = Data::ref_from_prefix(head).unwrap().0;
                self.h2c(conn, h, data, tx);
            }
            Kind::H2cTermReq => {
                let t = TermReq::ref_from_prefix(head).unwrap().0;
                self.terminated.push((t.fes.get(), t.fei.get()));
            }
            kind => panic!("a host sent {kind:?}"),
        }
    }

    fn icreq(&mut self, conn: ConnId, req: &IcReq, tx: &mut Tx) {
        assert_eq!((req.pfv.get(), req.hpda), (0, 0));
        let digests = self.shape.digests.both(Digests::from_bits(req.dgst));
        let peer = self.peers.get_mut(&conn).unwrap();
        peer.align = (u32::from(self.shape.cpda) + 1) * 4;
        let icd = self.shape.in_capsule.max(8192);
        peer.receiver = Receiver::agreed(Side::Controller, digests, self.shape.cpda, icd, self.shape.maxh2c);
        tx.head(IcResp::new(self.shape.cpda, digests, self.shape.maxh2c).as_bytes());
    }

    fn digests(&self, conn: ConnId) -> Digests {
        self.peers[&conn].receiver.digests()
    }

    fn respond(&mut self, conn: ConnId, cid: u16, status: StatusCode, value: u64, tx: &mut Tx) {
        let resp = CapsuleResp::new(Cqe::new(cid, 0, status.field(true), value), self.digests(conn));
        let mut bytes = Head::of(&resp).bytes().to_vec();
        let io = self.peers[&conn].qid.is_some_and(|q| q > 0);
        if self.shape.vice == Vice::BadHeaderDigest && io {
            *bytes.last_mut().unwrap() ^= 1;
        }
        tx.head(&bytes);
    }

    /// Data to the host and the end of the command.
    fn answer(&mut self, conn: ConnId, cid: u16, data: &[u8], tx: &mut Tx) {
        let io = self.peers[&conn].qid.is_some_and(|q| q > 0);
        let vice = if io { self.shape.vice } else { Vice::None };
        let digests = self.digests(conn);
        let step = (self.shape.c2h_bytes as usize).min(data.len());
        let mut at = 0;
        while at < data.len() {
            let n = step.min(data.len() - at);
            let last = at + n == data.len();
            let mut flags = if last { LAST_PDU } else { 0 };
            if last && self.shape.success || vice == Vice::EarlySuccess {
                flags |= SUCCESS | LAST_PDU;
            }
            let offset = if vice == Vice::WrongOffset { at as u32 + 512 } else { at as u32 };
            let head = Data::c2h(cid, offset, n as u32, flags, 4, digests);
            tx.head(Head::of(&head).bytes());
            tx.head(&data[at..at + n]);
            if digests.data {
                let bad = u32::from(vice == Vice::BadDataDigest);
                tx.head(&(crate::base::crc::crc32c(&data[at..at + n]) ^ bad).to_le_bytes());
            }
            at += n;
        }
        if vice == Vice::TooMuchData {
            let head = Data::c2h(cid, data.len() as u32, 512, LAST_PDU, 4, digests);
            tx.head(Head::of(&head).bytes());
        }
        if !self.shape.success {
            self.respond(conn, cid, sc::SUCCESS, 0, tx);
        }
    }

    fn command(&mut self, conn: ConnId, sqe: Sqe, data: &[u8], tx: &mut Tx) {
        let cid = sqe.cid.get();
        if sqe.opcode == fabrics::OPCODE {
            return self.fabrics(conn, &sqe, data, tx);
        }
        match self.peers[&conn].qid.expect("a command before Connect") {
            0 => self.admin(conn, &sqe, tx),
            _ if sqe.sgl.kind == Sgl::IN_CAPSULE || sqe.sgl.length.get() == 0 || sqe.opcode == io_op::READ => {
                self.in_capsule += usize::from(!data.is_empty());
                self.io(conn, &sqe, data, tx);
            }
            _ => {
                self.by_r2t += 1;
                let len = sqe.sgl.length.get();
                let transfer = Transfer { sqe, data: vec![0; len as usize], asked: 0, got: 0 };
                self.peers.get_mut(&conn).unwrap().transfers.insert(cid, transfer);
                self.ask(conn, cid, tx);
            }
        }
    }

    /// R2Ts for everything not yet asked for: several may be outstanding.
    fn ask(&mut self, conn: ConnId, cid: u16, tx: &mut Tx) {
        let (digests, shape) = (self.digests(conn), self.shape);
        let t = self.peers.get_mut(&conn).unwrap().transfers.get_mut(&cid).unwrap();
        while t.asked < t.data.len() as u32 {
            let n = shape.r2t_bytes.min(t.data.len() as u32 - t.asked);
            let extra = if shape.vice == Vice::R2tTooLong { 4 } else { 0 };
            let r2t = R2t::new(cid, t.asked as u16 ^ 0x55aa, t.asked, n + extra, digests);
            for _ in 0..if shape.vice == Vice::R2tTwice { 2 } else { 1 } {
                tx.head(Head::of(&r2t).bytes());
            }
            t.asked += n;
        }
    }

    fn h2c(&mut self, conn: ConnId, head: &Data, data: &[u8], tx: &mut Tx) {
        let cid = head.cccid.get();
        let peer = self.peers.get_mut(&conn).unwrap();
        let t = peer.transfers.get_mut(&cid).expect("data for a command that asked for it");
        assert_eq!(head.datao.get(), t.got, "payload comes in order");
        t.data[t.got as usize..][..data.len()].copy_from_slice(data);
        t.got += data.len() as u32;
        let last_of_r2t = t.got.is_multiple_of(self.shape.r2t_bytes) || t.got == t.data.len() as u32;
        assert_eq!(head.ch.flags & LAST_PDU != 0, last_of_r2t, "LAST exactly at the end of an R2T");
        if t.got == t.data.len() as u32 {
            let t = peer.transfers.remove(&cid).unwrap();
            self.io(conn, &t.sqe, &t.data, tx);
        }
    }

    fn fabrics(&mut self, conn: ConnId, sqe: &Sqe, data: &[u8], tx: &mut Tx) {
        let cid = sqe.cid.get();
        match fabrics::fctype_of(sqe) {
            fctype::CONNECT => {
                let c = Connect::of(sqe);
                let d = ConnectData::ref_from_bytes(data).unwrap();
                assert_eq!(d.subnqn(), Some("nqn.2024-01.test:sub"));
                assert_eq!(d.cntlid.get(), if c.qid == 0 { 0xffff } else { 5 });
                self.sqsizes.push((c.qid, c.sqsize));
                self.peers.get_mut(&conn).unwrap().qid = Some(c.qid);
                let (status, value) = match self.shape.vice {
                    Vice::RefuseConnect(status) => (status, 0),
                    Vice::WantAuthentication => (sc::SUCCESS, 2 << 16 | 5),
                    _ => (sc::SUCCESS, 5),
                };
                self.respond(conn, cid, status, value, tx);
                if self.shape.vice == Vice::SecondIcResp {
                    tx.head(IcResp::new(0, Digests::default(), 8192).as_bytes());
                }
            }
            fctype::PROPERTY_SET => {
                let p = Property::of(sqe);
                assert_eq!(p.offset, property::CC);
                self.cc = p.value.unwrap() as u32;
                self.shutdown |= property::cc_shn(self.cc) == 1;
                self.respond(conn, cid, sc::SUCCESS, 0, tx);
            }
            fctype::PROPERTY_GET => {
                let value = if Property::of(sqe).offset == property::CAP {
                    property::cap(self.shape.mqes, 10)
                } else {
                    self.looked_ready += 1;
                    let ready = self.looked_ready.is_multiple_of(3) && self.shape.vice != Vice::NeverReady;
                    u64::from(self.cc & u32::from(ready))
                };
                self.respond(conn, cid, sc::SUCCESS, value, tx);
            }
            other => panic!("fabrics type {other}"),
        }
    }

    fn admin(&mut self, conn: ConnId, sqe: &Sqe, tx: &mut Tx) {
        let cid = sqe.cid.get();
        match sqe.opcode {
            admin_op::KEEP_ALIVE => {
                self.keep_alives += 1;
                if self.shape.vice != Vice::DeafToKeepAlive {
                    self.respond(conn, cid, sc::SUCCESS, 0, tx);
                }
            }
            admin_op::SET_FEATURES => {
                let n = if self.shape.vice == Vice::OneQueue { 0 } else { 7 };
                self.respond(conn, cid, sc::SUCCESS, n << 16 | n, tx);
            }
            admin_op::IDENTIFY => {
                let id = Identify::of(sqe);
                match self.identify(&id) {
                    Some(page) => self.answer(conn, cid, &page, tx),
                    None => self.respond(conn, cid, sc::INVALID_FIELD, 0, tx),
                }
            }
            other => panic!("admin opcode {other:#x}"),
        }
    }

    fn identify(&self, id: &Identify) -> Option<Vec<u8>> {
        let mut page = vec![0; 4096];
        let none = self.shape.vice == Vice::NoNamespace;
        match id.cns {
            cns::CONTROLLER => {
                let c = identify::Controller::mut_from_bytes(&mut page).unwrap();
                c.mdts = 5;
                c.vwc = 1;
                c.ioccsz.set((64 + self.shape.in_capsule) / 16);
                c.model.fill(b' ');
                c.model[..4].copy_from_slice(b"fake");
            }
            cns::ACTIVE_LIST if none => {}
            cns::ACTIVE_LIST => page[0] = 3,
            cns::NAMESPACE if none || id.nsid != 3 => {}
            cns::NAMESPACE => {
                let ns = identify::Namespace::mut_from_bytes(&mut page).unwrap();
                ns.nsze.set(self.blocks);
                ns.nguid = [9; 16];
                ns.lbaf[0].data_shift = if self.shape.vice == Vice::OtherBlockSize { 13 } else { 12 };
            }
            cns::DESCRIPTORS => {
                put_descriptor(&mut page, nidt::UUID, &UUID);
            }
            _ => return None,
        }
        Some(page)
    }

    fn io(&mut self, conn: ConnId, sqe: &Sqe, data: &[u8], tx: &mut Tx) {
        let cid = sqe.cid.get();
        assert_eq!(sqe.nsid.get(), 3);
        match self.shape.vice {
            Vice::Silent if sqe.opcode == io_op::READ => return,
            Vice::Hangup if sqe.opcode == io_op::READ => return self.hang_up.push(conn),
            Vice::UnknownCid => return self.respond(conn, cid + 1, sc::SUCCESS, 0, tx),
            Vice::AlienPdu => return tx.head(CapsuleCmd::new(Sqe::new_zeroed(), Digests::default()).as_bytes()),
            Vice::Terminate => {
                let fault = Fault { fes: Fes::OutOfRange, fei: 77 };
                return tx.head(TermReq::new(Kind::C2hTermReq, fault, 0).as_bytes());
            }
            _ => {}
        }
        let range = |lba: u64, blocks: u32| lba as usize * BLOCK..(lba as usize + blocks as usize) * BLOCK;
        let whole = range(sqe.slba(), sqe.blocks());
        let has_range = !matches!(sqe.opcode, io_op::FLUSH | io_op::DSM);
        if has_range && whole.end > self.disk.len() {
            return self.respond(conn, cid, sc::LBA_OUT_OF_RANGE, 0, tx);
        }
        let status = match sqe.opcode {
            io_op::READ => {
                let bytes = self.disk[whole].to_vec();
                return self.answer(conn, cid, &bytes, tx);
            }
            io_op::WRITE => {
                self.disk[whole].copy_from_slice(data);
                sc::SUCCESS
            }
            io_op::COMPARE if self.disk[whole.clone()] != *data => sc::COMPARE_FAILURE,
            io_op::COMPARE | io_op::FLUSH => sc::SUCCESS,
            io_op::WRITE_ZEROES => {
                self.disk[whole].fill(0);
                sc::SUCCESS
            }
            io_op::DSM => {
                assert_eq!(sqe.cdw11.get(), 4);
                let r = DsmRange::ref_from_bytes(data).unwrap();
                self.disk[range(r.lba.get(), r.blocks.get())].fill(0);
                sc::SUCCESS
            }
            other => panic!("opcode {other:#x}"),
        };
        self.respond(conn, cid, status, 0, tx);
    }
}

impl Handler for Target {
    fn accepted(&mut self, conn: ConnId, _: ListenerId, _: Ends, _: &mut Tx) -> bool {
        self.accepted += 1;
        let receiver = Receiver::new(Side::Controller);
        self.peers.insert(conn, Peer { receiver, align: 4, qid: None, transfers: HashMap::new() });
        true
    }

    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, _: &mut Pool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let Some(frame) = self.peers[&conn].receiver.frame(rest).expect("the host keeps to the protocol") else {
                break;
            };
            // The largest payload of these tests fits the carry.
            let Some(pdu) = rest.get(..frame.end as usize) else { break };
            let data = &pdu[frame.data_at as usize..][..frame.data_len as usize];
            if frame.data_digest {
                assert_eq!(pdu[pdu.len() - 4..], crate::base::crc::crc32c(data).to_le_bytes(), "data digest");
            }
            assert!(frame.data_len == 0 || frame.data_at.is_multiple_of(self.peers[&conn].align));
            self.pdu(conn, frame.kind, pdu, data, tx);
            at += pdu.len();
        }
        at
    }

    fn closed(&mut self, conn: ConnId, _: Closed) {
        self.peers.remove(&conn);
    }
}
