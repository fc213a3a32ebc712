//! A scripted iSCSI target in memory: honest by default, with one [`Vice`] on request. It asserts what an initiator owes
//! it: sequence numbers, bursts, digests.

use crate::auth::chap::{Algorithms, Answer, Direction, Policy, Secrets, Target as Chap};
use crate::mem::Pool;
use crate::net::{Closed, ConnId, Ends, Handler, ListenerId, Tx};
use crate::wire::iscsi::pdu::*;
use crate::wire::iscsi::text::{Pairs, TextWriter};
use crate::wire::iscsi::value::{binary, number};
use crate::wire::iscsi::*;
use crate::wire::scsi::op;
use std::collections::HashMap;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const BLOCK: usize = 512;
pub const BLOCKS: u64 = 1024;
pub const UUID: [u8; 16] = [9; 16];
pub const NAME: &str = "iqn.2024-01.test:target";
pub const USER: (&str, &[u8]) = ("user", b"user's secret 16");
pub const OWN: (&str, &[u8]) = ("target", b"target's secret!");

/// What the target does wrong, or differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vice {
    None,
    Refuse(LoginStatus),
    Move,
    EndlessLogin,
    UnaskedTransit,
    ForeignTag,
    LoginValue,
    NotADisk,
    NoLun,
    /// Reads: data at another offset, with another number, for another tag, less than asked for, more than asked for.
    Offset,
    DataSn,
    Tag,
    Short,
    Long,
    StatSn,
    HeaderDigest,
    DataDigest,
    R2tBeyond,
    R2tSn,
    Reject,
    AskForLogout,
    Silent,
    Opcode,
    HangUp,
}

/// How an honest target is made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub vice: Vice,
    pub chap: bool,
    pub mutual: bool,
    pub digests: bool,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    pub first_burst: u32,
    pub max_burst: u32,
    /// `MaxRecvDataSegmentLength` of the target.
    pub segment: u32,
    /// Commands taken at once.
    pub window: u32,
    /// Status in the last Data-In.
    pub collapse: bool,
    /// Login answers come in two parts.
    pub split: bool,
    /// UNIT ATTENTIONs before a session's unit is ready.
    pub attentions: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            vice: Vice::None,
            chap: false,
            mutual: false,
            digests: true,
            initial_r2t: false,
            immediate_data: true,
            first_burst: 65536,
            max_burst: 262_144,
            segment: 65536,
            window: 16,
            collapse: true,
            split: false,
            attentions: 1,
        }
    }
}

/// A write whose data is arriving.
struct Write {
    cdb: [u8; 16],
    data: Vec<u8>,
    got: usize,
    /// Where the unsolicited burst or the R2T under way ends.
    burst: usize,
    data_sn: u32,
    r2t_sn: u32,
}

struct Conn {
    bytes: Vec<u8>,
    receiver: Receiver,
    digests: Digests,
    stat_sn: u32,
    exp_cmd_sn: u32,
    /// Largest Data-In.
    send_max: u32,
    open: bool,
    /// The rest of an answer that was split.
    rest: Option<Vec<u8>>,
    chap: Chap,
    writes: HashMap<u32, Write>,
    attentions: u32,
}

pub struct Target {
    pub shape: Shape,
    pub disk: Vec<u8>,
    pub blocks: u64,
    conns: HashMap<ConnId, Conn>,
    pub hang_up: Vec<ConnId>,
    /// ISIDs that logged in, NOP-Outs, Logouts, R2Ts sent, unsolicited Data-Outs taken.
    pub isids: Vec<[u8; 6]>,
    pub pongs: u32,
    pub logouts: u32,
    pub r2ts: u32,
    pub unsolicited: u32,
    /// Ping every connection at the next PDU.
    pub ping: bool,
}

impl Target {
    pub fn new(shape: Shape) -> Target {
        Target {
            shape,
            disk: vec![0; BLOCKS as usize * BLOCK],
            blocks: BLOCKS,
            conns: HashMap::new(),
            hang_up: Vec::new(),
            isids: Vec::new(),
            pongs: 0,
            logouts: 0,
            r2ts: 0,
            unsolicited: 0,
            ping: false,
        }
    }
}

impl Conn {
    fn numbers(&self, shape: &Shape) -> Numbers {
        Numbers::new(self.stat_sn, self.exp_cmd_sn, self.exp_cmd_sn.wrapping_add(shape.window - 1))
    }
    /// Numbers of a PDU that carries status.
    fn status(&mut self, shape: &Shape) -> Numbers {
        let numbers = self.numbers(shape);
        self.stat_sn = self.stat_sn.wrapping_add(1 + u32::from(shape.vice == Vice::StatSn && self.open));
        numbers
    }
    fn send<T: IntoBytes + Immutable>(&self, pdu: &T, data: &[u8], vice: Vice, tx: &mut Tx) {
        let mut head = Head::of(pdu, self.digests).bytes().to_vec();
        if vice == Vice::HeaderDigest {
            *head.last_mut().unwrap() ^= 1;
        }
        tx.head(&head);
        tx.head(data);
        let mut tail = Tail::of(data, self.digests).bytes().to_vec();
        if vice == Vice::DataDigest
            && let Some(last) = tail.last_mut()
        {
            *last ^= 1;
        }
        tx.head(&tail);
    }
    /// Ends a command with sense data.
    fn refuse(&mut self, itt: u32, key: u8, asc: u16, shape: &Shape, tx: &mut Tx) {
        let mut data = vec![0, 18, 0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0];
        data.extend(asc.to_be_bytes());
        data.extend([0; 4]);
        let numbers = self.status(shape);
        let response = ScsiResponse::new(itt, 2, Residual::None, numbers, 0, data.len() as u32);
        self.send(&response, &data, Vice::None, tx);
    }
    /// Returns data, then GOOD.
    fn give(&mut self, itt: u32, expected: u32, mut data: Vec<u8>, shape: &Shape, tx: &mut Tx) {
        let bulk = expected as usize == data.len() && expected as usize >= BLOCK;
        let vice = if bulk { shape.vice } else { Vice::None };
        match vice {
            Vice::Short => data.truncate(expected as usize - 1),
            Vice::Long => data.push(0),
            _ => {}
        }
        let residual = if vice == Vice::None { Residual::between(expected, data.len() as u64) } else { Residual::None };
        data.truncate(if vice == Vice::Long { data.len() } else { expected as usize });
        let (mut at, mut sn) = (0, 0);
        while at < data.len() {
            let n = (data.len() - at).min(self.send_max as usize);
            let last = at + n == data.len();
            let tag = if vice == Vice::Tag { itt ^ 7 } else { itt };
            let offset = at as u32 + u32::from(vice == Vice::Offset);
            let data_sn = sn + u32::from(vice == Vice::DataSn);
            let mut numbers = self.numbers(shape);
            if last && shape.collapse {
                numbers = self.status(shape);
            }
            let mut pdu = DataIn::new(tag, data_sn, offset, n as u32, last, numbers);
            if last && shape.collapse {
                pdu = pdu.with_status(0, residual);
            }
            self.send(&pdu, &data[at..at + n], vice, tx);
            at += n;
            sn += 1;
        }
        if !shape.collapse || data.is_empty() {
            let numbers = self.status(shape);
            self.send(&ScsiResponse::new(itt, 0, residual, numbers, sn, 0), &[], Vice::None, tx);
        }
    }
}

fn lba_of(cdb: &[u8; 16]) -> (u64, u32) {
    if cdb[0] < 0x60 {
        let lba = u32::from_be_bytes(*cdb[2..].first_chunk().unwrap());
        (u64::from(lba), u32::from(u16::from_be_bytes([cdb[7], cdb[8]])))
    } else {
        (u64::from_be_bytes(*cdb[2..].first_chunk().unwrap()), u32::from_be_bytes(*cdb[10..].first_chunk().unwrap()))
    }
}

fn range(lba: u64, blocks: u32) -> std::ops::Range<usize> {
    lba as usize * BLOCK..(lba as usize + blocks as usize) * BLOCK
}

/// What a command without data from the initiator returns.
fn answer(cdb: &[u8; 16], shape: &Shape, blocks: u64) -> Vec<u8> {
    match (cdb[0], cdb[1] & 1, cdb[2]) {
        (op::INQUIRY, 0, _) => {
            let mut data = vec![if shape.vice == Vice::NotADisk { 5 } else { 0 }, 0, 6, 2, 31];
            data.resize(36, b' ');
            data
        }
        (op::INQUIRY, 1, 0x83) => {
            let mut data = vec![0, 0x83, 0, 22, 1, 0xa, 0, 18, 0x10, 0];
            data.extend(UUID);
            data
        }
        (op::SERVICE_ACTION_IN_16, ..) => {
            let mut data = (blocks - 1).to_be_bytes().to_vec();
            data.extend((BLOCK as u32).to_be_bytes());
            data.resize(32, 0);
            data
        }
        (op::REPORT_LUNS, ..) => {
            let mut data = vec![0, 0, 0, 16, 0, 0, 0, 0];
            data.extend(Lun::of(0).0);
            data.extend(Lun::of(if shape.vice == Vice::NoLun { 9 } else { 3 }).0);
            data
        }
        other => panic!("unexpected CDB {other:x?}"),
    }
}

impl Target {
    fn login(&mut self, id: ConnId, pdu: &[u8], text: &[u8], tx: &mut Tx) {
        let (request, _) = LoginRequest::ref_from_prefix(pdu).unwrap();
        let shape = self.shape;
        let conn = self.conns.get_mut(&id).unwrap();
        let (stage, wanted) = (request.current().unwrap(), request.transit().then(|| request.next().unwrap()));
        let keys: HashMap<String, String> =
            Pairs::new(text).map(|p| p.unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let (mut buffer, mut next) = ([0; 4096], wanted);
        let mut out = TextWriter::new(&mut buffer);
        let mut refused = None;
        if let Vice::Refuse(status) = shape.vice {
            refused = Some(status);
        }
        let mut raw = None;
        if let Some(rest) = conn.rest.take() {
            assert!(keys.is_empty() && wanted.is_none(), "an empty request asks for the rest");
            raw = Some(rest);
        } else if stage == Stage::Security {
            if let Some(name) = keys.get("TargetName") {
                assert_eq!((name.as_str(), keys["SessionType"].as_str()), (NAME, "Normal"));
            }
            if let Some(method) = keys.get("AuthMethod") {
                if shape.chap && !method.contains("CHAP") {
                    refused = Some(LoginStatus::AuthenticationFailed);
                } else {
                    let chosen = if shape.chap { "CHAP" } else { method.rsplit(',').next().unwrap() };
                    out.push("AuthMethod", chosen).unwrap();
                }
            } else if let Some(list) = keys.get("CHAP_A") {
                let sent = conn.chap.algorithms(list.split(',').filter_map(number), 5, [0x33; 32]).unwrap();
                out.push("CHAP_A", sent.algorithm as u8).unwrap();
                out.push("CHAP_I", sent.id).unwrap();
                out.push_binary("CHAP_C", &sent.challenge).unwrap();
            } else if let Some(name) = keys.get("CHAP_N") {
                let (mut r, mut c) = ([0; 64], [0; 64]);
                let r = binary(&keys["CHAP_R"], &mut r).map(|n| r[..n].to_vec()).unwrap();
                let c = keys.get("CHAP_C").map(|c_| binary(c_, &mut c).map(|n| c[..n].to_vec()).unwrap());
                let asked = c.as_deref().map(|c| (number(&keys["CHAP_I"]).unwrap() as u8, c));
                let secrets = Secrets { secret: USER.1, mutual: Some(OWN) };
                let known = (name == USER.0).then_some(secrets);
                match conn.chap.answer(&Answer { name, response: &r, mutual: asked }, known) {
                    Err(_) => refused = Some(LoginStatus::AuthenticationFailed),
                    Ok(proof) => {
                        if let Some(proof) = proof {
                            out.push("CHAP_N", proof.name).unwrap();
                            out.push_binary("CHAP_R", proof.response.bytes()).unwrap();
                        }
                    }
                }
            }
        } else if !keys.is_empty() {
            let min = |key: &str, own: u32| keys.get(key).map(|v| own.min(number(v).unwrap() as u32));
            conn.send_max = min("MaxRecvDataSegmentLength", u32::MAX).unwrap();
            let wants = |key: &str| keys[key].starts_with("CRC32C") && shape.digests;
            for key in ["HeaderDigest", "DataDigest"] {
                out.push(key, if wants(key) { "CRC32C" } else { "None" }).unwrap();
            }
            conn.digests = Digests { header: wants("HeaderDigest"), data: wants("DataDigest") };
            out.push("MaxRecvDataSegmentLength", shape.segment).unwrap();
            if let Some(burst) = min("MaxBurstLength", shape.max_burst) {
                out.push_bool("InitialR2T", shape.initial_r2t || keys["InitialR2T"] == "Yes").unwrap();
                out.push_bool("ImmediateData", shape.immediate_data && keys["ImmediateData"] == "Yes").unwrap();
                out.push("MaxBurstLength", burst + u32::from(shape.vice == Vice::LoginValue) * (1 << 23)).unwrap();
                out.push("FirstBurstLength", min("FirstBurstLength", shape.first_burst).unwrap()).unwrap();
                out.push("MaxConnections", 1).unwrap();
            }
        }
        let mut text = raw.unwrap_or_else(|| out.text().to_vec());
        let mut more = false;
        if shape.split && !keys.is_empty() && stage == Stage::Operational {
            let rest = text.split_off(11);
            // The cut is in the middle of a pair: the parts only make sense joined.
            conn.rest = Some(rest);
            (next, more) = (None, true);
        }
        match shape.vice {
            Vice::UnaskedTransit if !shape.chap => next = Some(Stage::FullFeature),
            Vice::EndlessLogin => next = None,
            _ => {}
        }
        let numbers = conn.status(&shape);
        let mut response = LoginResponse::new(request, stage, next, more, numbers, text.len() as u32);
        if let Some(status) = refused {
            response = LoginResponse::failed(request, status, numbers, 0);
            text.clear();
        }
        if shape.vice == Vice::Move {
            text = b"TargetAddress=192.0.2.1:3260,1\0".to_vec();
            response = LoginResponse::failed(request, LoginStatus::MovedTemporarily, numbers, text.len() as u32);
        }
        if shape.vice == Vice::ForeignTag {
            response.itt = U32::new(99);
        }
        let done = next == Some(Stage::FullFeature) && refused.is_none();
        if done {
            response.tsih = U16::new(7);
            self.isids.push(request.isid);
        }
        tx.head(response.as_bytes());
        tx.head(&text);
        tx.head(&[0; 3][..padding(text.len() as u32) as usize]);
        if done {
            conn.open = true;
            conn.receiver = Receiver::agreed(conn.digests, shape.segment, 0);
        }
    }

    fn command(&mut self, id: ConnId, pdu: &[u8], data: &[u8], tx: &mut Tx) {
        let (command, _) = ScsiCommand::ref_from_prefix(pdu).unwrap();
        let (shape, blocks_all) = (self.shape, self.blocks);
        let conn = self.conns.get_mut(&id).unwrap();
        assert_eq!(command.cmd_sn.get(), conn.exp_cmd_sn, "commands come in order, without gaps");
        conn.exp_cmd_sn = conn.exp_cmd_sn.wrapping_add(1);
        let (itt, expected, cdb) = (command.itt.get(), command.expected.get(), command.cdb);
        match shape.vice {
            Vice::Silent if cdb[0] == op::READ_10 => return,
            Vice::Reject if cdb[0] == op::READ_10 => {
                let numbers = conn.status(&shape);
                return conn.send(&Reject::new(RejectReason::Protocol, numbers, 48), &pdu[..48], Vice::None, tx);
            }
            Vice::AskForLogout if cdb[0] == op::READ_10 => {
                let numbers = conn.status(&shape);
                let told = AsyncMessage::new(AsyncEvent::LogoutRequested, Lun::of(0), [0, 0, 1], numbers, 0);
                return conn.send(&told, &[], Vice::None, tx);
            }
            Vice::Opcode if cdb[0] == op::READ_10 => {
                return conn.send(&NopOut::new(Lun::of(0), 0, 0, 0), &[], Vice::None, tx);
            }
            Vice::HangUp if cdb[0] == op::READ_10 => return self.hang_up.push(id),
            _ => {}
        }
        if command.flags & WRITE != 0 {
            let unsolicited =
                if command.flags & FINAL == 0 { shape.first_burst.min(expected) as usize } else { data.len() };
            assert!(shape.immediate_data || data.is_empty(), "immediate data was not agreed on");
            assert!(!shape.initial_r2t || command.flags & FINAL != 0, "unsolicited data was not agreed on");
            assert!(data.len() as u32 <= shape.first_burst.min(expected) && data.len() as u32 <= shape.segment);
            let mut whole = vec![0; expected as usize];
            whole[..data.len()].copy_from_slice(data);
            let write = Write { cdb, data: whole, got: data.len(), burst: unsolicited, data_sn: 0, r2t_sn: 0 };
            conn.writes.insert(itt, write);
            return self.go_on(id, itt, tx);
        }
        assert!(command.flags & FINAL != 0 && data.is_empty());
        if matches!(cdb[0], op::REPORT_LUNS) {
            assert_eq!(command.lun, Lun::of(0));
        } else {
            assert_eq!(command.lun, Lun::of(3));
        }
        let (lba, blocks) = lba_of(&cdb);
        match cdb[0] {
            op::TEST_UNIT_READY if conn.attentions > 0 => {
                conn.attentions -= 1;
                conn.refuse(itt, 6, 0x2900, &shape, tx);
            }
            op::READ_10 | op::READ_16 if lba + u64::from(blocks) > blocks_all => {
                conn.refuse(itt, 5, 0x2100, &shape, tx);
            }
            op::READ_10 | op::READ_16 => {
                let data = self.disk[range(lba, blocks)].to_vec();
                conn.give(itt, expected, data, &shape, tx);
            }
            op::INQUIRY if cdb[1] == 1 && cdb[2] == 0xb0 => conn.refuse(itt, 5, 0x2400, &shape, tx),
            op::WRITE_SAME_16 => {
                assert_eq!(cdb[1], 1);
                self.disk[range(lba, blocks)].fill(0);
                conn.give(itt, 0, Vec::new(), &shape, tx);
            }
            op::TEST_UNIT_READY | op::SYNC_CACHE_10 => conn.give(itt, 0, Vec::new(), &shape, tx),
            _ => conn.give(itt, expected, answer(&cdb, &shape, blocks_all), &shape, tx),
        }
    }

    /// More of a write came: the next R2T, or its end.
    fn go_on(&mut self, id: ConnId, itt: u32, tx: &mut Tx) {
        let shape = self.shape;
        let conn = self.conns.get_mut(&id).unwrap();
        let numbers = conn.numbers(&shape);
        let write = conn.writes.get_mut(&itt).unwrap();
        if write.got < write.burst {
            return;
        }
        if write.got < write.data.len() {
            let len = (write.data.len() - write.got).min(shape.max_burst as usize);
            write.burst = write.got + len;
            write.data_sn = 0;
            let ttt = 1000 + itt;
            let sn = write.r2t_sn + u32::from(shape.vice == Vice::R2tSn);
            let desired = len as u32 + u32::from(shape.vice == Vice::R2tBeyond);
            let r2t = R2t::new(Lun::of(3), itt, ttt, sn, write.got as u32, desired, numbers);
            write.r2t_sn += 1;
            self.r2ts += 1;
            return conn.send(&r2t, &[], Vice::None, tx);
        }
        let write = conn.writes.remove(&itt).unwrap();
        let (lba, blocks) = lba_of(&write.cdb);
        match write.cdb[0] {
            op::WRITE_10 | op::WRITE_16 => self.disk[range(lba, blocks)].copy_from_slice(&write.data),
            op::VERIFY_16 => {
                if self.disk[range(lba, blocks)] != write.data {
                    return conn.refuse(itt, 0xe, 0x1d00, &shape, tx);
                }
            }
            op::UNMAP => {
                let lba = u64::from_be_bytes(*write.data[8..].first_chunk().unwrap());
                let blocks = u32::from_be_bytes(*write.data[16..].first_chunk().unwrap());
                self.disk[range(lba, blocks)].fill(0);
            }
            other => panic!("unexpected write {other:x}"),
        }
        conn.give(itt, 0, Vec::new(), &shape, tx);
    }

    fn data_out(&mut self, id: ConnId, pdu: &[u8], data: &[u8], tx: &mut Tx) {
        let (out, _) = DataOut::ref_from_prefix(pdu).unwrap();
        let itt = out.itt.get();
        let conn = self.conns.get_mut(&id).unwrap();
        let write = conn.writes.get_mut(&itt).expect("data of a write under way");
        let at = out.offset.get() as usize;
        assert_eq!((at, out.data_sn.get()), (write.got, write.data_sn), "data comes in order");
        assert!(at + data.len() <= write.burst && data.len() as u32 <= self.shape.segment, "within what was asked for");
        let asked = if write.r2t_sn == 0 { NO_TAG } else { 1000 + itt };
        assert_eq!(out.ttt.get(), asked);
        self.unsolicited += u32::from(asked == NO_TAG);
        write.data[at..at + data.len()].copy_from_slice(data);
        write.got += data.len();
        write.data_sn += 1;
        assert_eq!(out.flags & FINAL != 0, write.got == write.burst, "F ends the burst");
        self.go_on(id, itt, tx);
    }

    fn text(&mut self, id: ConnId, pdu: &[u8], text: &[u8], tx: &mut Tx) {
        let (request, _) = TextRequest::ref_from_prefix(pdu).unwrap();
        let shape = self.shape;
        let conn = self.conns.get_mut(&id).unwrap();
        let whole = format!(
            "TargetName={NAME}\0TargetAddress=10.0.0.2:3260,1\0TargetAddress=[::1]:3260,2\0TargetName=iqn.2024-01.test:b\0"
        );
        let (first, second) = whole.as_bytes().split_at(30);
        let numbers = conn.status(&shape);
        let itt = request.itt.get();
        if request.ttt.get() == NO_TAG {
            assert_eq!(text, b"SendTargets=All\0");
            conn.send(&TextResponse::new(itt, 77, CONTINUE, numbers, first.len() as u32), first, Vice::None, tx);
        } else {
            assert_eq!((request.ttt.get(), text.len()), (77, 0));
            conn.send(&TextResponse::new(itt, NO_TAG, FINAL, numbers, second.len() as u32), second, Vice::None, tx);
        }
    }
}

impl Handler for Target {
    fn accepted(&mut self, conn: ConnId, _: ListenerId, _: Ends, _: &mut Tx) -> bool {
        let direction = if self.shape.mutual { Direction::Mutual } else { Direction::OneWay };
        let fresh = Conn {
            bytes: Vec::new(),
            receiver: Receiver::login(),
            digests: Digests::NONE,
            stat_sn: 0xffff_fffd,
            exp_cmd_sn: 1,
            send_max: LOGIN_DATA_MAX,
            open: false,
            rest: None,
            chap: Chap::new(Policy { algorithms: Algorithms::ALL, direction }),
            writes: HashMap::new(),
            attentions: self.shape.attentions,
        };
        self.conns.insert(conn, fresh);
        true
    }

    fn data(&mut self, id: ConnId, bytes: &[u8], tx: &mut Tx, _: &mut Pool) -> usize {
        self.conns.get_mut(&id).unwrap().bytes.extend_from_slice(bytes);
        loop {
            let conn = self.conns.get_mut(&id).unwrap();
            let Some(frame) = conn.receiver.frame(&conn.bytes).expect("an honest initiator") else { break };
            if conn.bytes.len() < frame.end as usize {
                break;
            }
            let pdu: Vec<u8> = conn.bytes.drain(..frame.end as usize).collect();
            let padded = &pdu[frame.head_len()..frame.head_len() + frame.padded_len()];
            assert!(!frame.data_digest || data_digest_ok(padded, &pdu[frame.head_len() + frame.padded_len()..]));
            let data = &padded[..frame.data_len as usize];
            match frame.opcode.unwrap() {
                Opcode::LoginRequest if !conn.open => self.login(id, &pdu, data, tx),
                Opcode::ScsiCommand => self.command(id, &pdu, data, tx),
                Opcode::DataOut => self.data_out(id, &pdu, data, tx),
                Opcode::TextRequest => self.text(id, &pdu, data, tx),
                Opcode::LogoutRequest => self.logouts += 1,
                Opcode::NopOut => {
                    let (nop, _) = NopOut::ref_from_prefix(&pdu).unwrap();
                    let shape = self.shape;
                    if nop.itt.get() == NO_TAG {
                        assert_eq!((nop.ttt.get(), nop.lun), (0x99, Lun::of(3)), "the tag is echoed");
                        self.pongs += 1;
                    } else if shape.vice != Vice::Silent {
                        let numbers = conn.status(&shape);
                        conn.send(&NopIn::new(Lun::of(0), nop.itt.get(), NO_TAG, numbers, 0), &[], Vice::None, tx);
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
            if std::mem::take(&mut self.ping) {
                let conn = self.conns.get_mut(&id).unwrap();
                let numbers = conn.numbers(&self.shape);
                conn.send(&NopIn::new(Lun::of(3), NO_TAG, 0x99, numbers, 0), &[], Vice::None, tx);
            }
        }
        bytes.len()
    }

    fn closed(&mut self, conn: ConnId, _: Closed) {
        self.conns.remove(&conn);
    }
}
