//! Data from the initiator: bursts, R2Ts, digests, and everything that can be wrong with a Data-Out.

use super::rig::{Link, Rig, Setup, cdb10, pattern};
use super::volumes::Mood;
use crate::base::Status;
use crate::base::rng::Rng;
use crate::net::LoopbackConfig;
use crate::wire::iscsi::pdu::{DataOut, FINAL, Head, R2t, Reject, ScsiCommand, Tail, WRITE};
use crate::wire::iscsi::{Lun, NO_TAG, Opcode, RejectReason};
use zerocopy::IntoBytes;

const TUR: [u8; 16] = [0; 16];

/// What is left of a rig after something went wrong on a connection: it still serves.
fn serves(rig: &mut Rig, link: &mut Link) {
    assert_eq!(rig.command(link, &TUR, 0, &[]).status, 0, "the connection goes on");
}

#[test]
fn writes_arrive_whole_however_they_are_cut() {
    let all = [
        ("InitialR2T=Yes\0ImmediateData=No\0", false, false),
        ("InitialR2T=Yes\0ImmediateData=Yes\0", true, false),
        ("InitialR2T=No\0ImmediateData=No\0", false, true),
        ("InitialR2T=No\0ImmediateData=Yes\0DataDigest=CRC32C\0HeaderDigest=CRC32C\0", true, true),
        (
            "InitialR2T=No\0ImmediateData=Yes\0FirstBurstLength=4096\0MaxBurstLength=8192\0MaxOutstandingR2T=3\0",
            true,
            true,
        ),
    ];
    for (at, (keys, immediate, unsolicited)) in all.into_iter().enumerate() {
        for segment in [(1, 64), (100, 5000), (1 << 18, 1 << 18)] {
            let seed = at as u64 + 1;
            let loopback = LoopbackConfig { seed, segment, ..LoopbackConfig::default() };
            let mut rig = Rig::new(Setup { loopback, seed, ..Setup::default() });
            let mut rng = Rng::new(seed);
            let mut link = rig.login(0, keys);
            rig.mood(Mood { slow: 30, later: 30, ..Mood::default() });
            let first = if keys.contains("FirstBurstLength") { 4096 } else { 65536 };
            for i in 0..6u8 {
                let blocks = [1, 3, 8, 60, 129, 200][usize::from(i)];
                let data = pattern(blocks * 512, i);
                let burst = first.min(data.len());
                let now = match (immediate, rng.below(3)) {
                    (false, _) | (_, 0) => 0,
                    (_, 1) => burst,
                    _ => rng.below(burst as u64 + 1) as usize,
                };
                let follows = unsolicited && now < burst && rng.chance(60);
                let flags = if follows { WRITE } else { WRITE | FINAL };
                let cdb = cdb10(0x2a, u32::from(i) * 256, blocks as u16);
                let itt = rig.submit(&mut link, flags, &cdb, data.len() as u32, &data[..now]);
                if follows {
                    let most = 512 + rng.below(4096) as usize;
                    rig.data_out(&link, (itt, NO_TAG), &data, (now, burst), most);
                }
                let ended = rig.complete(&mut link, itt, &data);
                assert_eq!((ended.status, ended.residual), (0, (0, 0)), "{keys} {blocks} {now} {follows}");
                let from = usize::from(i) * 256 * 512;
                assert!(rig.disk.borrow().bytes[from..from + data.len()] == data[..]);
            }
            rig.finish();
        }
    }
}

#[test]
fn transfers_of_more_than_a_buffer_come_and_go_in_parts() {
    let all = [
        "InitialR2T=Yes\0ImmediateData=No\0",
        "InitialR2T=No\0ImmediateData=Yes\0DataDigest=CRC32C\0HeaderDigest=CRC32C\0",
        "InitialR2T=No\0ImmediateData=Yes\0FirstBurstLength=4096\0MaxBurstLength=49152\0MaxOutstandingR2T=3\0",
    ];
    for (at, keys) in all.into_iter().enumerate() {
        let seed = at as u64 + 1;
        let loopback = LoopbackConfig { seed, segment: (100, 1 << 18), ..LoopbackConfig::default() };
        let mut rig = Rig::new(Setup { loopback, seed, ..Setup::default() });
        let mut link = rig.login(0, keys);
        rig.mood(Mood { slow: 30, later: 30, ..Mood::default() });
        let blocks = 5000u16;
        let data = pattern(usize::from(blocks) * 512, 3);
        let now = if keys.contains("ImmediateData=Yes") { 4096 } else { 0 };
        let itt = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 7, blocks), data.len() as u32, &data[..now]);
        let wrote = rig.complete(&mut link, itt, &data);
        assert_eq!((wrote.status, wrote.residual), (0, (0, 0)), "{keys}");
        assert!(rig.disk.borrow().bytes[7 * 512..][..data.len()] == data[..]);
        // Less room than the CDB asks for, more, and as much.
        let len = data.len() as u32;
        for (room, residual) in
            [(len, (0, 0)), (len + 10, (2, 10)), (len - 1000, (4, 1000)), (1 << 20, (4, len - (1 << 20)))]
        {
            let read = rig.command(&mut link, &cdb10(0x28, 7, blocks), room, &[]);
            assert_eq!((read.status, read.residual), (0, residual), "{keys} {room}");
            assert!(read.data == data[..(len.min(room)) as usize], "{keys} {room}");
        }
        // Less data than the CDB asks for.
        let less = rig.command(&mut link, &cdb10(0x2a, 0, blocks), 0, &data[..3 << 19]);
        assert_eq!((less.status, less.residual), (0, (4, len - (3 << 19))));
        rig.mood(Mood { fail: Some(Status::MediaError), ..Mood::default() });
        let bad = rig.command(&mut link, &cdb10(0x28, 7, blocks), len, &[]);
        assert_eq!((bad.status, bad.residual), (2, (2, len)));
        serves(&mut rig, &mut link);
        rig.finish();
    }
}

/// The R2Ts that are there.
fn r2ts(rig: &mut Rig, link: &Link) -> Vec<R2t> {
    let mut all = Vec::new();
    while let Some(got) = rig.recv_within(link.conn, link.digests, 10) {
        assert_eq!(got.opcode(), Opcode::R2t);
        all.push(got.header());
    }
    all
}

#[test]
fn as_many_r2ts_are_out_as_were_agreed_on() {
    for most in [1usize, 2, 4] {
        let mut rig = Rig::plain();
        let keys = format!("MaxOutstandingR2T={most}\0MaxBurstLength=4096\0");
        let mut link = rig.login(0, &keys);
        let data = pattern(8 * 4096, 3);
        let itt = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 64), data.len() as u32, &[]);
        let mut asked = 0;
        let mut open = r2ts(&mut rig, &link);
        assert_eq!(open.len(), most);
        while asked < 8 {
            let r2t = open.remove(0);
            assert_eq!((r2t.r2t_sn.get(), r2t.offset.get(), r2t.desired.get()), (asked, asked * 4096, 4096));
            let from = r2t.offset.get() as usize;
            rig.data_out(&link, (itt, r2t.ttt.get()), &data, (from, from + 4096), 1000);
            asked += 1;
            if asked < 8 {
                open.extend(r2ts(&mut rig, &link));
                assert_eq!(open.len(), most.min(8 - asked as usize));
            }
        }
        assert_eq!(rig.complete(&mut link, itt, &[]).status, 0);
        assert!(rig.disk.borrow().bytes[..data.len()] == data[..]);
        rig.finish();
    }
}

/// A write of 8 KiB by R2T whose first Data-Out is bent by `bend`; the sense of its end.
fn bent(bend: impl FnOnce(&mut DataOut)) -> Option<(u8, u16)> {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    let data = pattern(8192, 3);
    let itt = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 16), 8192, &[]);
    let r2t = r2ts(&mut rig, &link).remove(0);
    let mut one = DataOut::new(Lun::of(0), itt, r2t.ttt.get(), 0, 0, 4096, false);
    bend(&mut one);
    let ended_early = one.flags & FINAL != 0;
    let len = one.lengths.data_len() as usize;
    rig.put(link.conn, link.digests, &one, &pattern(len, 3));
    if !ended_early {
        let two = DataOut::new(Lun::of(0), itt, r2t.ttt.get(), 1, 4096, 4096, true);
        rig.put(link.conn, link.digests, &two, &data[4096..]);
    }
    let ended = rig.complete(&mut link, itt, &data);
    let wrote = rig.disk.borrow().bytes[..8192] == data[..];
    assert_eq!(wrote, ended.sense.is_none(), "a wrong write leaves nothing behind");
    serves(&mut rig, &mut link);
    rig.finish();
    ended.sense
}

#[test]
fn a_wrong_data_out_costs_its_command_only() {
    use crate::wire::iscsi::pdu::Lengths;
    assert_eq!(bent(|_| {}), None);
    for sn in [1, 27, u32::MAX] {
        assert_eq!(bent(|d| d.data_sn.set(sn)), Some((0xb, 0x4705)), "DataSN {sn}");
    }
    for offset in [1, 4096, 8192, u32::MAX] {
        assert_eq!(bent(|d| d.offset.set(offset)), Some((0xb, 0x0c0d)), "offset {offset}");
    }
    assert_eq!(bent(|d| d.flags |= FINAL), Some((0xb, 0x0c0d)), "ended early");
    // Overrun of the burst, in one PDU and in the second.
    assert_eq!(bent(|d| d.lengths = Lengths::data(8196)), Some((0xb, 0x0c0d)));
    assert_eq!(bent(|d| d.lengths = Lengths::data(4100)), Some((0xb, 0x0c0d)));
    assert_eq!(bent(|d| d.lengths = Lengths::data(4095)), Some((0xb, 0x0c0d)), "a gap");
}

#[test]
fn data_for_no_task_is_passed_over() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "InitialR2T=No\0");
    let data = pattern(4096, 1);
    for (itt, ttt) in [(1, NO_TAG), (1, 0), (1, 0x7fff_ffff), (u32::MAX, NO_TAG), (1, 5)] {
        rig.put(link.conn, link.digests, &DataOut::new(Lun::of(0), itt, ttt, 0, 0, 4096, true), &data);
        // Larger than any window.
        rig.put(link.conn, link.digests, &DataOut::new(Lun::of(0), itt, ttt, 0, 0, 200_000, true), &vec![1; 200_000]);
    }
    serves(&mut rig, &mut link);
    assert_eq!(rig.cores[0].target.stats().stray_data, 10);
    // The right task, another's transfer tag.
    let one = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 8), 4096, &[]);
    let two = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 8, 8), 4096, &[]);
    let open = r2ts(&mut rig, &link);
    rig.put(link.conn, link.digests, &DataOut::new(Lun::of(0), two, open[0].ttt.get(), 0, 0, 4096, true), &data);
    assert!(rig.recv_within(link.conn, link.digests, 10).is_none());
    rig.data_out(&link, (two, open[1].ttt.get()), &data, (0, 4096), 4096);
    assert_eq!(rig.complete(&mut link, two, &[]).status, 0);
    rig.data_out(&link, (one, open[0].ttt.get()), &data, (0, 4096), 4096);
    assert_eq!(rig.complete(&mut link, one, &[]).status, 0);
    rig.finish();
}

#[test]
fn unsolicited_data_that_was_not_agreed_on_fails_its_command() {
    let all: [(&str, usize, bool, u16); 6] = [
        ("ImmediateData=No\0", 512, false, 0x0c0c),
        ("InitialR2T=Yes\0", 512, true, 0x0c0c),
        ("InitialR2T=Yes\0", 0, true, 0x0c0c),
        ("FirstBurstLength=512\0", 1024, false, 0x0c0d),
        ("InitialR2T=No\0FirstBurstLength=1024\0", 1536, true, 0x0c0d),
        ("InitialR2T=No\0ImmediateData=No\0", 512, true, 0x0c0c),
    ];
    for (keys, now, follows, asc) in all {
        let mut rig = Rig::plain();
        let mut link = rig.login(0, keys);
        let data = pattern(4096, 1);
        let flags = if follows { WRITE } else { WRITE | FINAL };
        let itt = rig.submit(&mut link, flags, &cdb10(0x2a, 0, 8), 4096, &data[..now]);
        if follows {
            assert!(rig.recv_within(link.conn, link.digests, 10).is_none(), "the rest of the data comes first");
            rig.data_out(&link, (itt, NO_TAG), &data, (now, 4096), 1024);
        }
        assert_eq!(rig.complete(&mut link, itt, &[]).sense, Some((0xb, asc)), "{keys}");
        // More than was expected at all.
        let itt = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &data[..1024]);
        assert_eq!(rig.complete(&mut link, itt, &[]).sense.map(|s| s.0), Some(0xb));
        // Data of a command that takes none.
        let itt = rig.submit(&mut link, FINAL, &TUR, 512, &data[..512]);
        assert_eq!(rig.complete(&mut link, itt, &[]).sense, Some((0xb, 0x0c0c)));
        assert_eq!(rig.disk.borrow().bytes[..4096], [0; 4096]);
        serves(&mut rig, &mut link);
        rig.finish();
    }
}

#[test]
fn an_unsolicited_burst_may_not_be_too_long() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "InitialR2T=No\0FirstBurstLength=1024\0");
    let data = pattern(4096, 1);
    let itt = rig.submit(&mut link, WRITE, &cdb10(0x2a, 0, 8), 4096, &[]);
    rig.data_out(&link, (itt, NO_TAG), &data, (0, 2048), 512);
    assert_eq!(rig.complete(&mut link, itt, &[]).sense, Some((0xb, 0x0c0d)));
    // Shorter than it could be is fine: the rest is asked for.
    let itt = rig.submit(&mut link, WRITE, &cdb10(0x2a, 0, 8), 4096, &data[..100]);
    rig.data_out(&link, (itt, NO_TAG), &data, (100, 612), 512);
    assert_eq!(rig.complete(&mut link, itt, &data).status, 0);
    assert_eq!(rig.disk.borrow().bytes[..4096], data[..]);
    // More than the command takes: what is too much is dropped.
    let itt = rig.submit(&mut link, WRITE, &cdb10(0x2a, 8, 1), 1024, &[]);
    rig.data_out(&link, (itt, NO_TAG), &data, (0, 1024), 300);
    let ended = rig.complete(&mut link, itt, &[]);
    assert_eq!((ended.status, ended.residual), (0, (2, 512)));
    assert_eq!(rig.disk.borrow().bytes[4096..5120], [&data[..512], &[0; 512]].concat());
    rig.finish();
}

#[test]
fn a_wrong_data_digest_rejects_the_pdu_and_fails_the_command() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "DataDigest=CRC32C\0");
    let data = pattern(4096, 1);
    for wrong in 0..3 {
        let itt = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 8), 4096, &[]);
        let r2t: R2t = rig.recv_within(link.conn, link.digests, 20).unwrap().header();
        for sn in 0..3u32 {
            let (from, to) = ([0, 1001, 2000][sn as usize], [1001, 2000, 4096][sn as usize]);
            let pdu = DataOut::new(Lun::of(0), itt, r2t.ttt.get(), sn, from, to - from, sn == 2);
            let part = &data[from as usize..to as usize];
            let mut tail = Tail::of(part, link.digests).bytes().to_vec();
            if sn == wrong {
                *tail.last_mut().unwrap() ^= 1;
            }
            rig.send(link.conn, Head::of(&pdu, link.digests).bytes());
            rig.send(link.conn, part);
            rig.send(link.conn, &tail);
            if sn == wrong {
                let got = rig.recv_within(link.conn, link.digests, 20).unwrap();
                let reject: Reject = got.header();
                assert_eq!((got.opcode(), reject.reason), (Opcode::Reject, RejectReason::DataDigest as u8));
                assert_eq!(got.data, pdu.as_bytes());
            }
        }
        assert_eq!(rig.complete(&mut link, itt, &[]).sense, Some((0xb, 0x4705)));
    }
    assert_eq!(rig.disk.borrow().log.len(), 0);
    // Immediate data: the command is not taken, and may be sent again.
    for len in [512usize, 40_000] {
        let blocks = len.div_ceil(512);
        let data = pattern(blocks * 512, 7);
        let mut cmd = ScsiCommand::new(
            FINAL | WRITE | 1,
            Lun::of(0),
            9000,
            data.len() as u32,
            data.len() as u32,
            cdb10(0x2a, 0, blocks as u16),
        );
        cmd.cmd_sn.set(link.cmd_sn);
        for right in [false, true] {
            let mut tail = Tail::of(&data, link.digests).bytes().to_vec();
            tail[0] ^= u8::from(!right);
            rig.send(link.conn, Head::of(&cmd, link.digests).bytes());
            rig.send(link.conn, &data);
            rig.send(link.conn, &tail);
            if !right {
                let reject: Reject = rig.recv_within(link.conn, link.digests, 20).unwrap().header();
                assert_eq!(reject.reason, RejectReason::DataDigest as u8);
                assert_eq!(reject.numbers.exp_cmd_sn.get(), link.cmd_sn);
            }
        }
        assert_eq!(rig.complete(&mut link, 9000, &[]).status, 0);
        link.cmd_sn += 1;
    }
    serves(&mut rig, &mut link);
    assert_eq!(rig.cores[0].target.stats().data_digest_errors, 5);
    rig.finish();
}

#[test]
fn a_wrong_header_digest_ends_the_connection() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "HeaderDigest=CRC32C\0");
    let mut cmd = ScsiCommand::new(FINAL | 1, Lun::of(0), 9, 0, 0, TUR);
    cmd.cmd_sn.set(link.cmd_sn);
    let mut head = Head::of(&cmd, link.digests).bytes().to_vec();
    head[50] ^= 0x10;
    rig.send(link.conn, &head);
    rig.turns(10);
    assert!(rig.closed(link.conn));
    assert_eq!(rig.cores[0].target.stats().header_digest_errors, 1);
    link = rig.login(0, "");
    serves(&mut rig, &mut link);
    rig.finish();
}

#[test]
fn writes_without_end_share_few_buffers() {
    let mut rig = Rig::new(Setup { buffers: 4, ..Setup::default() });
    let mut links: Vec<Link> = (0..3).map(|_| rig.login(0, "")).collect();
    rig.mood(Mood { slow: 40, later: 40, ..Mood::default() });
    let data = pattern(4096, 1);
    let mut left = 0;
    for round in 0..20u32 {
        for link in &mut links {
            rig.submit(link, WRITE | FINAL, &cdb10(0x2a, round * 8, 8), 4096, &[]);
            left += 1;
        }
    }
    let mut idle = 0;
    while left > 0 {
        idle += 1;
        assert!(idle < 20_000, "{left} writes never ended");
        for link in links.clone() {
            let Some(got) = rig.recv_within(link.conn, link.digests, 1) else { continue };
            idle = 0;
            match got.opcode() {
                Opcode::R2t => {
                    let r2t: R2t = got.header();
                    rig.data_out(&link, (r2t.itt.get(), r2t.ttt.get()), &data, (0, 4096), 4096);
                }
                Opcode::ScsiResponse => {
                    assert_eq!(got.bhs[3], 0);
                    left -= 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    rig.finish();
}

#[test]
fn an_initiator_that_does_not_read_holds_up_nobody() {
    let mut setup = Setup::default();
    setup.config.unsent_bytes = 64 * 1024;
    setup.loopback.window = 16 * 1024;
    let mut rig = Rig::new(setup);
    let mut deaf = rig.login(0, "");
    let mut other = rig.login(0, "");
    rig.deaf = Some(deaf.conn);
    let first = deaf.itt + 1;
    for _ in 0..30 {
        rig.submit(&mut deaf, FINAL | 0x40, &cdb10(0x28, 0, 64), 32768, &[]);
    }
    rig.turns(20);
    for _ in 0..20 {
        assert_eq!(rig.command(&mut other, &cdb10(0x28, 0, 8), 4096, &[]).data.len(), 4096);
    }
    rig.deaf = None;
    for itt in first..first + 30 {
        assert_eq!(rig.complete(&mut deaf, itt, &[]).data.len(), 32768);
    }
    rig.finish();
}
