//! Commands and their numbers: windows, order, immediate delivery, pings, texts, logout.

use super::rig::{Link, Rig, Setup, cdb10, names, pattern};
use super::volumes::Mood;
use crate::iscsi::tests::rig::HOST;
use crate::net::ListenerId;
use crate::volume::reserve::Op;
use crate::wire::iscsi::pdu::{
    AsyncMessage, FINAL, Lengths, LogoutRequest, LogoutResponse, NopIn, NopOut, READ, Reject, ScsiCommand,
    ScsiResponse, Snack, TextRequest, TextResponse, WRITE,
};
use crate::wire::iscsi::{
    AsyncEvent, Digests, LogoutAnswer, LogoutReason, Lun, NO_TAG, Opcode, RejectReason, SnackType,
};
use zerocopy::IntoBytes;

const TUR: [u8; 16] = [0; 16];

#[test]
fn reads_and_writes_of_every_size_come_back() {
    for (keys, seed) in [
        ("", 1),
        ("HeaderDigest=CRC32C\0DataDigest=CRC32C\0", 2),
        ("InitialR2T=No\0MaxRecvDataSegmentLength=512\0MaxBurstLength=4096\0", 3),
        ("DataDigest=CRC32C\0MaxRecvDataSegmentLength=4097\0MaxOutstandingR2T=4\0MaxBurstLength=8192\0", 4),
    ] {
        let mut rig = Rig::new(Setup { seed, ..Setup::default() });
        let mut link = rig.login(0, keys);
        for (i, blocks) in [1u16, 8, 9, 128, 129, 1000, 2048].into_iter().enumerate() {
            rig.mood(Mood { slow: 30 * (i as u64 % 3), later: 20, ..Mood::default() });
            let data = pattern(usize::from(blocks) * 512, i as u8);
            let lba = 7 + i as u32;
            assert_eq!(rig.command(&mut link, &cdb10(0x2a, lba, blocks), 0, &data).status, 0);
            let read = rig.command(&mut link, &cdb10(0x28, lba, blocks), data.len() as u32, &[]);
            assert_eq!((read.status, read.residual), (0, (0, 0)));
            assert!(read.data == data, "{blocks} blocks, {keys}");
        }
        rig.finish();
    }
}

#[test]
fn residual_counts_tell_what_did_not_fit() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    let data = pattern(1024, 9);
    assert_eq!(rig.command(&mut link, &cdb10(0x2a, 0, 2), 0, &data).status, 0);
    // (room, bits, count)
    for (room, bits, count) in [(0, 4, 1024), (200, 4, 824), (512, 4, 512), (1024, 0, 0), (10_000, 2, 8976)] {
        let itt = rig.submit(&mut link, FINAL | READ, &cdb10(0x28, 0, 2), room, &[]);
        let read = rig.complete(&mut link, itt, &[]);
        assert_eq!((read.status, read.residual), (0, (bits, count)), "room for {room}");
        assert_eq!(read.data, data[..(room as usize).min(1024)]);
    }
    // Writes: less than was announced, more, and an end within a block.
    let new = pattern(2048, 1);
    let more = rig.command(&mut link, &cdb10(0x2a, 0, 2), 0, &new[..1536]);
    assert_eq!((more.status, more.residual), (0, (2, 512)));
    let less = rig.command(&mut link, &cdb10(0x2a, 0, 4), 0, &new[..512]);
    assert_eq!((less.status, less.residual), (0, (4, 1536)));
    assert_eq!(rig.disk.borrow().bytes[..2048], [&new[..1024], &[0; 1024]].concat());
    // An end within a block: what came is written, whether it is here or is asked for, and nothing else is.
    let itt = rig.submit(&mut link, FINAL | WRITE, &cdb10(0x2a, 0, 1), 200, &[7; 200]);
    let cut = rig.complete(&mut link, itt, &[]);
    assert_eq!((cut.status, cut.residual), (0, (4, 312)));
    let itt = rig.submit(&mut link, FINAL | WRITE, &cdb10(0x2a, 1, 2), 712, &[]);
    let cut = rig.complete(&mut link, itt, &[8; 712]);
    assert_eq!((cut.status, cut.residual), (0, (4, 312)));
    let want = [&[7; 200][..], &new[200..512], &[8; 712], &[0; 824]].concat();
    assert_eq!(rig.disk.borrow().bytes[..2048], want);
    let itt = rig.submit(&mut link, FINAL | WRITE, &cdb10(0x2a, 0, 1), 0, &[]);
    let none = rig.complete(&mut link, itt, &[]);
    assert_eq!((none.status, none.residual), (0, (4, 512)));
    assert_eq!(rig.disk.borrow().bytes[..2048], want);
    // A command that moves nothing although something was expected; one against its direction.
    let itt = rig.submit(&mut link, FINAL | READ, &TUR, 100, &[]);
    assert_eq!(rig.complete(&mut link, itt, &[]).residual, (2, 100));
    let itt = rig.submit(&mut link, FINAL | WRITE, &cdb10(0x28, 0, 1), 512, &[]);
    assert_eq!(rig.complete(&mut link, itt, &[]).residual, (4, 512));
    rig.finish();
}

#[test]
fn commands_outside_the_window_are_ignored_without_a_word() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "ImmediateData=Yes\0");
    let next = link.cmd_sn;
    for sn in [next.wrapping_sub(1), next.wrapping_sub(1000), link.max_cmd_sn.wrapping_add(1), next ^ 0x8000_0000] {
        link.cmd_sn = sn;
        rig.submit(&mut link, FINAL | WRITE, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
        assert!(rig.recv_within(link.conn, link.digests, 20).is_none(), "{sn} has an answer");
    }
    assert_eq!(rig.cores[0].target.stats().out_of_window, 4);
    assert_eq!(rig.disk.borrow().bytes[0], 0);
    link.cmd_sn = next;
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
    rig.finish();
}

#[test]
fn the_window_closes_when_it_is_full_and_opens_with_every_answer() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    rig.mood(Mood { stuck: true, ..Mood::default() });
    let first = link.cmd_sn;
    assert_eq!(link.max_cmd_sn, first + 31, "32 commands");
    for _ in 0..40 {
        rig.submit(&mut link, FINAL | READ, &cdb10(0x28, 0, 1), 512, &[]);
    }
    rig.turns(10);
    assert_eq!(rig.cores[0].volumes.waiting.len(), 32);
    assert_eq!(rig.cores[0].target.stats().out_of_window, 8);
    // Immediate commands come through, but not without end.
    for n in 0..20u32 {
        let mut cmd = ScsiCommand::new(FINAL | READ | 1, Lun::of(0), 5000 + n, 512, 0, cdb10(0x28, 0, 1));
        cmd.opcode |= Opcode::IMMEDIATE;
        cmd.cmd_sn.set(first + 32);
        rig.put(link.conn, link.digests, &cmd, &[]);
    }
    for _ in 0..4 {
        let reject = rig.recv_within(link.conn, link.digests, 20).unwrap().header::<Reject>();
        assert_eq!(reject.reason, RejectReason::TooManyImmediate as u8);
    }
    assert_eq!(rig.cores[0].volumes.waiting.len(), 48);
    rig.mood(Mood::default());
    let mut ended = 0;
    let mut most = 0;
    while let Some(got) = rig.recv_within(link.conn, link.digests, 100) {
        most = got.header::<crate::wire::iscsi::pdu::DataIn>().numbers.max_cmd_sn.get();
        ended += 1;
    }
    assert_eq!((ended, most), (48, first + 63), "immediate ones make no room");
    rig.finish();
}

#[test]
fn a_command_waits_for_its_predecessor_on_another_connection() {
    let mut rig = Rig::plain();
    let mut one = rig.login(0, "MaxConnections=2\0");
    let mut two = join(&mut rig, &one, 1);
    // The second command comes first.
    two.cmd_sn = one.cmd_sn + 1;
    let late = rig.submit(&mut two, FINAL | WRITE, &cdb10(0x2a, 0, 1), 512, &[2; 512]);
    assert!(rig.recv_within(two.conn, two.digests, 30).is_none());
    let first = rig.submit(&mut one, FINAL | WRITE, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
    assert_eq!(rig.complete(&mut one, first, &[]).status, 0);
    assert_eq!(rig.complete(&mut two, late, &[]).status, 0);
    assert_eq!(rig.disk.borrow().bytes[0], 2);
    // Tasks belong to their connection: the session goes on with the other one.
    rig.hang_up(two.conn);
    one.cmd_sn += 1;
    assert_eq!(rig.command(&mut one, &TUR, 0, &[]).status, 0);
    rig.finish();
}

/// A further connection of a session.
pub fn join(rig: &mut Rig, link: &Link, cid: u16) -> Link {
    use crate::wire::iscsi::pdu::LoginRequest;
    use crate::wire::iscsi::{LoginStatus, Stage};
    let conn = rig.dial(0);
    let mut request = LoginRequest::new(link.isid, 1, Stage::Operational, Some(Stage::FullFeature), 0);
    request.tsih.set(link.tsih);
    request.cid.set(cid);
    let (response, _) = rig.ask(conn, &request, &names(HOST, super::rig::NAME)).unwrap();
    assert_eq!(response.status(), Some(LoginStatus::Success));
    assert_eq!(response.tsih.get(), link.tsih);
    Link { conn, digests: Digests::NONE, ..link.clone() }
}

#[test]
fn pings_are_answered_with_their_data() {
    for keys in ["", "HeaderDigest=CRC32C\0DataDigest=CRC32C\0"] {
        let mut rig = Rig::plain();
        let mut link = rig.login(0, keys);
        for (len, immediate) in [(0, true), (1, false), (7, true), (8192, false), (40_000, true), (200_000, false)] {
            let data = pattern(len, 5);
            let mut nop = NopOut::new(Lun::of(0), 77, NO_TAG, len as u32);
            nop.cmd_sn.set(link.cmd_sn);
            if !immediate {
                nop.opcode &= !Opcode::IMMEDIATE;
                link.cmd_sn += 1;
            }
            rig.put(link.conn, link.digests, &nop, &data);
            let got = rig.recv_within(link.conn, link.digests, 100).unwrap();
            let head: NopIn = got.header();
            assert_eq!((got.opcode(), head.itt.get(), head.ttt.get()), (Opcode::NopIn, 77, NO_TAG));
            assert_eq!(head.numbers.exp_cmd_sn.get(), link.cmd_sn);
            // No more than the initiator takes in one PDU: 8 KiB, as it did not say otherwise.
            assert_eq!(got.data, data[..len.min(8192)]);
        }
        assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
        rig.finish();
    }
}

#[test]
fn a_silent_initiator_is_pinged_and_a_dead_one_dropped() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    for _ in 0..3 {
        rig.pass_ms(5_500);
        let got = rig.recv_within(link.conn, link.digests, 10).expect("a ping");
        let head: NopIn = got.header();
        assert_eq!((got.opcode(), head.itt.get()), (Opcode::NopIn, NO_TAG));
        assert_ne!(head.ttt.get(), NO_TAG);
        let mut answer = NopOut::new(head.lun, NO_TAG, head.ttt.get(), 0);
        answer.cmd_sn.set(link.cmd_sn);
        rig.put(link.conn, link.digests, &answer, &[]);
    }
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
    rig.pass_ms(11_000);
    assert!(rig.closed(link.conn));
    assert_eq!((rig.cores[0].target.stats().dead_peers, rig.cores[0].target.stats().sessions_now), (1, 0));
    rig.finish();
}

fn text(rig: &mut Rig, link: &mut Link, ttt: u32, flags: u8, keys: &str) -> (TextResponse, String) {
    let mut request = TextRequest::new(55, ttt, keys.len() as u32);
    request.flags = flags;
    request.cmd_sn.set(link.cmd_sn);
    link.cmd_sn += 1;
    rig.put(link.conn, link.digests, &request, keys.as_bytes());
    let got = rig.recv_within(link.conn, link.digests, 50).expect("an answer");
    assert_eq!(got.opcode(), Opcode::TextResponse, "{got:?}");
    (got.header(), String::from_utf8(got.data).unwrap().replace('\0', ";"))
}

#[test]
fn targets_are_listed_to_those_who_may_use_them() {
    let mut rig = Rig::plain();
    // Two more targets: one for others, one behind a private portal group.
    let mut other = rig.snapshot.targets[0].clone();
    (other.name, other.index, other.maps) = ("iqn.2024-01.io.pollux:other".into(), 18, vec![(1, 2)]);
    let mut hidden = other.clone();
    (hidden.name, hidden.index, hidden.maps) = ("iqn.2024-01.io.pollux:hidden".into(), 19, vec![(2, 1)]);
    rig.snapshot.targets.extend([other, hidden]);
    let mut private = rig.snapshot.portal_groups[0].clone();
    (private.tag, private.private, private.portals) = (2, true, vec!["10.9.9.9:3260".parse().unwrap()]);
    rig.snapshot.portal_groups.push(private);
    rig.configure();
    let mut link = rig.login(0, "");
    let addr = rig.cores[0].addr;
    let want = format!("TargetName={};TargetAddress={addr},1;", super::rig::NAME);
    for which in ["All", super::rig::NAME, ""] {
        let (head, answer) = text(&mut rig, &mut link, NO_TAG, FINAL, &format!("SendTargets={which}\0"));
        assert_eq!((head.flags, head.ttt.get(), answer), (FINAL, NO_TAG, want.clone()), "{which}");
    }
    assert_eq!(text(&mut rig, &mut link, NO_TAG, FINAL, "SendTargets=iqn.2024-01.io.pollux:other\0").1, "");
    for (ask, answer) in [
        ("SendTargets=Alle\0", "SendTargets=Reject;"),
        ("SendTargets=A\0", "SendTargets=Reject;"),
        ("sENDtARGETS=aLL\0", "sENDtARGETS=NotUnderstood;"),
        ("SendTargetsPlease=All\0", "SendTargetsPlease=NotUnderstood;"),
        ("MaxBurstLength=512\0", "MaxBurstLength=Reject;"),
        ("MaxRecvDataSegmentLength=4096\0", ""),
    ] {
        assert_eq!(text(&mut rig, &mut link, NO_TAG, FINAL, ask).1, answer);
    }
    rig.finish();
}

#[test]
fn a_portal_on_every_address_is_named_by_the_one_the_initiator_came_to() {
    let mut rig = Rig::plain();
    let came_to = rig.cores[0].addr;
    let everywhere = "0.0.0.0:3260".parse().unwrap();
    rig.cores[0].target.listen(ListenerId(0), everywhere);
    rig.snapshot.portal_groups[0].portals = vec![everywhere, "[::]:3261".parse().unwrap(), came_to];
    rig.configure();
    let mut link = rig.login(0, "");
    let want =
        format!("TargetName={};TargetAddress={came_to},1;TargetAddress={}:3261,1;", super::rig::NAME, came_to.ip());
    assert_eq!(text(&mut rig, &mut link, NO_TAG, FINAL, "SendTargets=All\0").1, want);
    let portals: Vec<_> = rig.cores[0].target.connections().map(|c| c.portal).collect();
    assert_eq!(portals, [came_to], "reports name the address, too");
    rig.finish();
}

#[test]
fn long_texts_go_on_in_further_pdus_both_ways() {
    let mut rig = Rig::plain();
    for i in 0..20 {
        let mut more = rig.snapshot.targets[0].clone();
        (more.name, more.index) = (format!("iqn.2024-01.io.pollux:{i:0>100}"), 100 + i);
        rig.snapshot.targets.push(more);
    }
    rig.configure();
    let mut link = rig.login(0, "MaxRecvDataSegmentLength=512\0");
    // The request in two parts.
    let (head, answer) = text(&mut rig, &mut link, NO_TAG, 0x40, "SendTar");
    assert_eq!((head.flags, answer.as_str()), (0, ""));
    let mut ttt = head.ttt.get();
    let mut whole = String::new();
    let mut keys = "gets=All\0";
    loop {
        let (head, part) = text(&mut rig, &mut link, ttt, FINAL, keys);
        assert!(part.len() <= 512);
        whole += &part;
        (ttt, keys) = (head.ttt.get(), "");
        if head.flags & FINAL != 0 {
            assert_eq!(ttt, NO_TAG);
            break;
        }
        assert_eq!(head.flags, 0x40);
    }
    assert_eq!(whole.matches("TargetName=").count(), 21);
    assert_eq!(whole.matches("TargetAddress=").count(), 21);
    // A tag that was never given.
    let mut request = TextRequest::new(55, 12345, 0);
    request.cmd_sn.set(link.cmd_sn);
    rig.put(link.conn, link.digests, &request, &[]);
    let reject: Reject = rig.recv_within(link.conn, link.digests, 50).unwrap().header();
    assert_eq!(reject.reason, RejectReason::Protocol as u8);
    rig.finish();
}

#[test]
fn a_text_without_end_ends_the_connection() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    let mut ttt = NO_TAG;
    let part = "a".repeat(3000);
    for _ in 0..2 {
        ttt = text(&mut rig, &mut link, ttt, 0x40, &part).0.ttt.get();
    }
    let mut request = TextRequest::new(55, ttt, 3000);
    request.flags = 0x40;
    request.cmd_sn.set(link.cmd_sn);
    rig.put(link.conn, link.digests, &request, part.as_bytes());
    assert_eq!(rig.recv_within(link.conn, link.digests, 50).unwrap().opcode(), Opcode::Reject);
    rig.turns(10);
    assert!(rig.closed(link.conn));
    rig.finish();
}

fn logout(rig: &mut Rig, link: &mut Link, reason: LogoutReason, cid: u16) -> LogoutResponse {
    let mut request = LogoutRequest::new(reason, 66, cid);
    request.cmd_sn.set(link.cmd_sn);
    link.cmd_sn += 1;
    rig.put(link.conn, link.digests, &request, &[]);
    let got = rig.recv_within(link.conn, link.digests, 100).expect("an answer");
    assert_eq!(got.opcode(), Opcode::LogoutResponse);
    got.header()
}

#[test]
fn logout_closes_what_it_names() {
    let mut rig = Rig::plain();
    let mut one = rig.login(0, "MaxConnections=2\0");
    let two = join(&mut rig, &one, 1);
    for (reason, cid, answer) in [
        (LogoutReason::CloseConnection, 9, LogoutAnswer::NoConnection),
        (LogoutReason::RemoveForRecovery, 1, LogoutAnswer::NoRecovery),
    ] {
        assert_eq!(logout(&mut rig, &mut one, reason, cid).response, answer as u8);
    }
    assert_eq!(logout(&mut rig, &mut one, LogoutReason::CloseConnection, 1).response, 0);
    rig.turns(10);
    assert!(rig.closed(two.conn) && !rig.closed(one.conn));
    let mut two = join(&mut rig, &one, 1);
    two.cmd_sn = one.cmd_sn;
    assert_eq!(logout(&mut rig, &mut two, LogoutReason::CloseSession, 0).response, 0);
    rig.turns(10);
    assert!(rig.closed(one.conn) && rig.closed(two.conn));
    assert_eq!(rig.cores[0].target.stats().sessions_now, 0);
    rig.finish();
}

#[test]
fn a_logout_is_answered_when_the_reservations_are_gone_and_gives_them_back_once() {
    for reason in [LogoutReason::CloseSession, LogoutReason::CloseConnection] {
        let mut rig = Rig::plain();
        let link = rig.login(0, "");
        rig.cores[0].orders.clear();
        rig.control_silent = true;
        let mut request = LogoutRequest::new(reason, 66, 0);
        request.cmd_sn.set(link.cmd_sn);
        rig.put(link.conn, link.digests, &request, &[]);
        assert!(rig.recv_within(link.conn, link.digests, 30).is_none(), "the next session may still meet them");
        rig.control_silent = false;
        let got = rig.recv_within(link.conn, link.digests, 30).unwrap();
        assert_eq!(got.opcode(), Opcode::LogoutResponse);
        rig.turns(10);
        assert!(rig.closed(link.conn));
        let orders: Vec<_> = rig.cores[0].orders.iter().map(|o| &o.op).collect();
        assert!(
            matches!(orders[..], [Op::NexusLost]),
            "a later session of the nexus keeps what it reserves: {orders:?}"
        );
        rig.finish();
    }
}

#[test]
fn logout_is_answered_when_no_write_is_left() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    rig.mood(Mood { stuck: true, ..Mood::default() });
    rig.submit(&mut link, FINAL | WRITE, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
    rig.submit(&mut link, FINAL | WRITE, &cdb10(0x2a, 1, 8), 4096, &[]);
    rig.turns(10);
    let r2t = rig.recv_within(link.conn, link.digests, 10).unwrap();
    assert_eq!(r2t.opcode(), Opcode::R2t);
    let mut request = LogoutRequest::new(LogoutReason::CloseSession, 66, 0);
    request.cmd_sn.set(link.cmd_sn);
    rig.put(link.conn, link.digests, &request, &[]);
    assert!(rig.recv_within(link.conn, link.digests, 30).is_none());
    assert!(!rig.closed(link.conn));
    rig.mood(Mood::default());
    let got = rig.recv_within(link.conn, link.digests, 30).unwrap();
    assert_eq!(got.opcode(), Opcode::LogoutResponse);
    assert_eq!(rig.disk.borrow().log.len(), 1, "what the volumes had is done, the other write never was");
    rig.turns(10);
    assert!(rig.closed(link.conn));
    rig.finish();
}

#[test]
fn a_target_asks_for_logout_and_ends_who_does_not() {
    let mut rig = Rig::plain();
    let link = rig.login(0, "");
    let other = rig.login(0, "");
    let core = &mut rig.cores[0];
    assert_eq!(core.target.request_logout(rig.now, super::rig::INDEX, Some(9), &mut core.net), 0);
    assert_eq!(core.target.request_logout(rig.now, super::rig::INDEX, Some(1), &mut core.net), 2);
    let mut obedient = link.clone();
    for l in [&link, &other] {
        let got = rig.recv_within(l.conn, l.digests, 10).unwrap();
        let head: AsyncMessage = got.header();
        assert_eq!((head.event, head.parameter3.get()), (AsyncEvent::LogoutRequested as u8, 10));
    }
    assert_eq!(logout(&mut rig, &mut obedient, LogoutReason::CloseSession, 0).response, 0);
    rig.pass_ms(10_500);
    assert!(rig.closed(other.conn));
    rig.finish();
}

#[test]
fn what_may_not_come_is_rejected_with_its_header() {
    let mut rig = Rig::plain();
    let link = rig.login(0, "");
    let mut expect = |bytes: &[u8; 48], reason: RejectReason| {
        rig.send(link.conn, bytes);
        let got = rig.recv_within(link.conn, link.digests, 50).expect("an answer");
        let reject: Reject = got.header();
        assert_eq!((got.opcode(), reject.reason, &got.data[..]), (Opcode::Reject, reason as u8, &bytes[..]));
    };
    for opcode in 0..64u8 {
        let mut bytes = [0; 48];
        bytes[0] = opcode;
        bytes[16..20].copy_from_slice(&77u32.to_be_bytes());
        match Opcode::of(opcode) {
            None => expect(&bytes, RejectReason::NotSupported),
            Some(o) if !o.from_initiator() => expect(&bytes, RejectReason::Protocol),
            Some(_) => {}
        }
    }
    let snack = Snack::new(SnackType::DataOrR2t, 1, NO_TAG, 0, 0);
    expect(snack.as_bytes().first_chunk().unwrap(), RejectReason::Snack);
    let mut nameless = ScsiCommand::new(FINAL | 1, Lun::of(0), NO_TAG, 0, 0, TUR);
    nameless.cmd_sn.set(link.cmd_sn);
    expect(nameless.as_bytes().first_chunk().unwrap(), RejectReason::Protocol);
    // More data than was declared, and more headers than are taken: the stream can not be followed.
    let mut long = NopOut::new(Lun::of(0), 1, NO_TAG, 0);
    long.lengths = Lengths::data((1 << 24) - 1);
    expect(long.as_bytes().first_chunk().unwrap(), RejectReason::InvalidField);
    rig.turns(10);
    assert!(rig.closed(link.conn));
    rig.finish();
}

#[test]
fn a_duplicate_task_tag_is_rejected_and_harms_nobody() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    rig.mood(Mood { stuck: true, ..Mood::default() });
    let itt = rig.submit(&mut link, FINAL | READ, &cdb10(0x28, 0, 1), 512, &[]);
    link.itt -= 1;
    rig.submit(&mut link, FINAL | READ, &cdb10(0x28, 0, 1), 512, &[]);
    let reject: Reject = rig.recv_within(link.conn, link.digests, 50).unwrap().header();
    assert_eq!(reject.reason, RejectReason::TaskInProgress as u8);
    rig.mood(Mood::default());
    assert_eq!(rig.complete(&mut link, itt, &[]).data, [0; 512]);
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
    rig.finish();
}

#[test]
fn units_that_do_not_exist_answer_as_the_standard_says() {
    let mut rig = Rig::plain();
    let link = rig.login(0, "");
    for (sn, lun) in (link.cmd_sn..).zip([Lun::of(5), Lun([0xc1, 1, 0, 0, 0, 0, 0, 0])]) {
        let mut cmd = ScsiCommand::new(FINAL | 1, lun, 9, 0, 0, TUR);
        cmd.cmd_sn.set(sn);
        rig.put(link.conn, link.digests, &cmd, &[]);
        let got = rig.recv_within(link.conn, link.digests, 50).unwrap();
        assert_eq!((got.opcode(), got.header::<ScsiResponse>().status), (Opcode::ScsiResponse, 2));
        assert_eq!((got.data[4] & 15, got.data[14], got.data[15]), (5, 0x25, 0));
    }
    rig.finish();
}
