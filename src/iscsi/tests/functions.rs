//! Task management at each stage of a command: what is answered, what still happens, and what the others are told.

use super::rig::{Ended, INDEX, Link, Rig, Setup, cdb10, pattern};
use super::volumes::{Mood, VOLUME};
use crate::volume::reserve::{Notice, Op, Told};
use crate::wire::iscsi::pdu::{FINAL, R2t, READ, TaskRequest, TaskResponse, WRITE};
use crate::wire::iscsi::{Lun, NO_TAG, Opcode, TaskAnswer, TaskFunction};

const TUR: [u8; 16] = [0; 16];

fn send(rig: &mut Rig, link: &Link, function: TaskFunction, lun: Lun, (ref_itt, ref_sn): (u32, u32)) {
    let mut request = TaskRequest::new(function, lun, 4444, ref_itt, ref_sn);
    request.cmd_sn.set(link.cmd_sn);
    rig.put(link.conn, link.digests, &request, &[]);
}

fn answer(rig: &mut Rig, link: &Link) -> u8 {
    let got = rig.recv_within(link.conn, link.digests, 200).expect("an answer to a function");
    assert_eq!(got.opcode(), Opcode::TaskResponse, "{got:?}");
    let head: TaskResponse = got.header();
    assert_eq!(head.itt.get(), 4444);
    head.response
}

/// Where a write is when the function comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// It waits for a buffer.
    Buffer,
    /// It was asked for data, and none has come.
    Asked,
    /// Half a Data-Out has come.
    Landing,
    /// The volumes have no room for it.
    Room,
    /// The volumes have it.
    Volume,
    /// It has ended.
    Ended,
}

const STAGES: [At; 6] = [At::Buffer, At::Asked, At::Landing, At::Room, At::Volume, At::Ended];

#[test]
fn after_the_answer_no_older_write_lands() {
    let functions = [
        TaskFunction::AbortTask,
        TaskFunction::AbortTaskSet,
        TaskFunction::ClearTaskSet,
        TaskFunction::LogicalUnitReset,
        TaskFunction::TargetWarmReset,
    ];
    for cores in [1, 2] {
        for function in functions {
            for at in STAGES {
                one(cores, function, at);
            }
        }
    }
}

fn one(cores: u16, function: TaskFunction, at: At) {
    let name = format!("{function:?} at {at:?} on {cores} cores");
    let mut rig = Rig::new(Setup { cores, buffers: if at == At::Buffer { 1 } else { 64 }, ..Setup::default() });
    let mut link = rig.login(0, "");
    let data = pattern(8192, 9);
    let sn = link.cmd_sn;
    match at {
        At::Room => rig.mood(Mood { later: 100, ..Mood::default() }),
        At::Volume => rig.mood(Mood { stuck: true, ..Mood::default() }),
        _ => {}
    }
    let itt = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 16), 8192, &[]);
    rig.turns(10);
    let mut tag = 0;
    if at != At::Buffer {
        let r2t: R2t = rig.recv_within(link.conn, link.digests, 20).expect("an R2T").header();
        tag = r2t.ttt.get();
        match at {
            At::Asked => {}
            At::Landing => {
                let pdu = crate::wire::iscsi::pdu::DataOut::new(Lun::of(0), itt, tag, 0, 0, 8192, true);
                rig.send(link.conn, zerocopy::IntoBytes::as_bytes(&pdu));
                rig.send(link.conn, &data[..5000]);
                rig.turns(10);
                rig.send(link.conn, &data[5000..]);
            }
            _ => rig.data_out(&link, (itt, tag), &data, (0, 8192), 4096),
        }
        rig.turns(if at == At::Landing { 0 } else { 10 });
        if at == At::Ended {
            assert_eq!(rig.complete(&mut link, itt, &[]).status, 0);
        }
    }
    let on_disk = at == At::Ended;
    send(&mut rig, &link, function, Lun::of(0), (itt, sn));
    if at == At::Volume {
        assert!(rig.recv_within(link.conn, link.digests, 40).is_none(), "{name}: the volumes still have it");
        rig.mood(Mood::default());
    }
    let landed = at == At::Landing;
    let mut done = false;
    let response = loop {
        let got = rig.recv_within(link.conn, link.digests, 200).expect("an answer to a function");
        if got.opcode() == Opcode::TaskResponse {
            break got.header::<TaskResponse>().response;
        }
        // The data came whole before the function did.
        assert!(landed && got.opcode() == Opcode::ScsiResponse, "{name}: {got:?}");
        done = true;
    };
    let gone = matches!(function, TaskFunction::AbortTask) && (on_disk || done);
    let want = if gone { TaskAnswer::NoTask } else { TaskAnswer::Complete };
    assert_eq!(response, want as u8, "{name}");
    // What was there when the answer came stays; nothing of the old write comes later.
    let before = rig.disk.borrow().bytes[..8192].to_vec();
    rig.mood(Mood::default());
    if matches!(at, At::Asked) {
        rig.data_out(&link, (itt, tag), &data, (0, 8192), 4096);
    }
    assert!(rig.recv_within(link.conn, link.digests, 40).is_none(), "{name}: an ended task has no answer");
    assert!(rig.disk.borrow().bytes[..8192] == before, "{name}: an older write landed");
    if matches!(at, At::Buffer | At::Asked | At::Room) {
        assert_eq!(rig.disk.borrow().log.len(), 0, "{name}");
    }
    let reset = matches!(function, TaskFunction::LogicalUnitReset | TaskFunction::TargetWarmReset);
    if reset {
        assert_eq!(rig.command(&mut link, &TUR, 0, &[]).sense, Some((6, 0x2903)), "{name}");
    }
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0, "{name}: the connection goes on");
    // The window is what it was: no ended command holds its place.
    assert_eq!(link.max_cmd_sn.wrapping_sub(link.cmd_sn), 31, "{name}");
    // With a single buffer none is ever spared for data to come.
    if at != At::Buffer {
        assert_eq!(rig.command(&mut link, &cdb10(0x2a, 0, 16), 0, &data).status, 0);
    }
    rig.finish();
}

#[test]
fn functions_reach_the_tasks_of_other_sessions_on_every_core() {
    for (function, ends, told) in [
        (TaskFunction::AbortTaskSet, false, None),
        (TaskFunction::ClearTaskSet, true, Some(0x2f00)),
        (TaskFunction::LogicalUnitReset, true, Some(0x2903)),
        (TaskFunction::TargetWarmReset, true, Some(0x2903)),
    ] {
        let mut rig = Rig::new(Setup { cores: 2, ..Setup::default() });
        let one = rig.login(0, "");
        let mut same = rig.login(0, "");
        let mut far = rig.login(1, "");
        rig.mood(Mood { stuck: true, ..Mood::default() });
        let mut itts = Vec::new();
        for link in [&mut same, &mut far] {
            itts.push(rig.submit(link, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &[1; 512]));
        }
        rig.turns(10);
        send(&mut rig, &one, function, Lun::of(0), (NO_TAG, 0));
        assert_eq!(rig.recv_within(one.conn, one.digests, 40).is_none(), ends);
        rig.mood(Mood::default());
        if ends {
            assert_eq!(answer(&mut rig, &one), 0);
        }
        for (link, itt) in [&mut same, &mut far].into_iter().zip(itts) {
            if ends {
                assert!(rig.recv_within(link.conn, link.digests, 30).is_none());
            } else {
                assert_eq!(rig.complete(link, itt, &[]).status, 0);
            }
            if let Some(asc) = told {
                assert_eq!(rig.command(link, &TUR, 0, &[]).sense, Some((6, asc)), "{function:?}");
            }
            assert_eq!(rig.command(link, &TUR, 0, &[]), Ended::default());
        }
        rig.finish();
    }
}

#[test]
fn a_cold_reset_ends_every_connection_of_the_target() {
    let mut rig = Rig::new(Setup { cores: 2, ..Setup::default() });
    let one = rig.login(0, "");
    let others = [rig.login(0, ""), rig.login(1, "")];
    send(&mut rig, &one, TaskFunction::TargetColdReset, Lun::of(0), (NO_TAG, 0));
    assert_eq!(answer(&mut rig, &one), 0);
    rig.turns(20);
    assert!(rig.closed(one.conn) && others.iter().all(|l| rig.closed(l.conn)));
    rig.finish();
}

#[test]
fn functions_that_can_not_be_done_say_so() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    let none = (NO_TAG, link.cmd_sn.wrapping_sub(5));
    for (function, lun, want) in [
        (TaskFunction::ClearAca, Lun::of(0), TaskAnswer::NotSupported),
        (TaskFunction::TaskReassign, Lun::of(0), TaskAnswer::NoReassign),
        (TaskFunction::AbortTask, Lun::of(0), TaskAnswer::NoTask),
        (TaskFunction::AbortTaskSet, Lun::of(7), TaskAnswer::NoLun),
        (TaskFunction::LogicalUnitReset, Lun([0xff; 8]), TaskAnswer::NoLun),
    ] {
        send(&mut rig, &link, function, lun, none);
        assert_eq!(answer(&mut rig, &link), want as u8, "{function:?}");
    }
    // What is not of RFC 7143, also QUERY TASK, QUERY TASK SET, I_T NEXUS RESET and QUERY ASYNCHRONOUS EVENT (9 to 12): they
    // come with iSCSIProtocolLevel 2 (RFC 7144), which is not agreed on.
    for function in [0].into_iter().chain(9..128) {
        let mut unknown = TaskRequest::new(TaskFunction::ClearAca, Lun::of(0), 4444, NO_TAG, 0);
        unknown.function = 0x80 | function;
        rig.put(link.conn, link.digests, &unknown, &[]);
        assert_eq!(answer(&mut rig, &link), TaskAnswer::NotSupported as u8, "{function}");
    }
    // A command that has not come yet counts as received and ended: the next one may come.
    let missing = link.cmd_sn;
    send(&mut rig, &link, TaskFunction::AbortTask, Lun::of(0), (777, missing));
    assert_eq!(answer(&mut rig, &link), 0);
    link.cmd_sn += 1;
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
    rig.finish();
}

#[test]
fn resets_release_old_style_reservations_and_reads_are_aborted_too() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    rig.mood(Mood { stuck: true, ..Mood::default() });
    for lba in 0..5 {
        rig.submit(&mut link, READ | FINAL, &cdb10(0x28, lba, 8), 4096, &[]);
    }
    rig.turns(5);
    rig.control_silent = true;
    send(&mut rig, &link, TaskFunction::LogicalUnitReset, Lun::of(0), (NO_TAG, 0));
    rig.turns(5);
    rig.mood(Mood::default());
    assert!(rig.recv_within(link.conn, link.digests, 30).is_none(), "others may still meet the old reservation");
    rig.control_silent = false;
    assert_eq!(answer(&mut rig, &link), 0);
    assert!(rig.recv_within(link.conn, link.digests, 30).is_none());
    let orders = core::mem::take(&mut rig.cores[0].orders);
    assert!(matches!(orders[..], [ref o] if o.op == Op::Reset && o.who.target == INDEX));
    rig.hang_up(link.conn);
    let orders = core::mem::take(&mut rig.cores[0].orders);
    assert!(matches!(orders[..], [ref o] if o.op == Op::NexusLost));
    rig.finish();
}

#[test]
fn a_flood_of_functions_is_rejected_at_its_limit() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    rig.mood(Mood { stuck: true, ..Mood::default() });
    rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
    for _ in 0..40 {
        send(&mut rig, &link, TaskFunction::AbortTaskSet, Lun::of(0), (NO_TAG, 0));
    }
    let mut rejects = 0;
    while let Some(got) = rig.recv_within(link.conn, link.digests, 20) {
        assert_eq!(got.opcode(), Opcode::Reject);
        rejects += 1;
    }
    assert_eq!(rejects, 24);
    rig.mood(Mood::default());
    for _ in 0..16 {
        assert_eq!(answer(&mut rig, &link), 0);
    }
    rig.finish();
}

#[test]
fn preempt_and_abort_is_answered_when_the_aborted_writes_are_over() {
    for cores in [1u16, 2] {
        let mut rig = Rig::new(Setup { cores, ..Setup::default() });
        let far = usize::from(cores) - 1;
        let (mut one, mut two) = (rig.login(0, ""), rig.login(far, ""));
        let out = |action: u8| {
            let mut cdb = [0; 16];
            (cdb[0], cdb[1], cdb[8]) = (0x5f, action, 24);
            cdb
        };
        let keys = |own: u8, other: u8| {
            let mut list = [0; 24];
            (list[7], list[15]) = (own, other);
            list
        };
        assert_eq!(rig.command(&mut two, &out(6), 0, &keys(0, 2)).status, 0);
        let victim = rig.cores[far].orders.last().expect("it registered").who.clone();
        rig.mood(Mood { stuck: true, ..Mood::default() });
        rig.submit(&mut two, FINAL | WRITE, &cdb10(0x2a, 0, 1), 512, &[7; 512]);
        rig.turns(5);
        rig.control_silent = true;
        let itt = rig.submit(&mut one, FINAL | WRITE, &out(5), 24, &keys(1, 2));
        rig.turns(5);
        let op = rig.cores[0].orders.last().map(|o| o.op.clone());
        assert_eq!(op, Some(Op::Preempt { key: 1, victim: 2, kind: None, abort: true }));
        // Every core has the next value.
        let told = [Told { nexus: victim, notice: Some(Notice::RegistrationsPreempted), abort: true }];
        rig.cores.iter_mut().for_each(|core| core.target.told(VOLUME, &told));
        rig.control_silent = false;
        assert!(rig.recv_within(one.conn, one.digests, 30).is_none(), "a write is still under way");
        rig.mood(Mood::default());
        assert_eq!(rig.complete(&mut one, itt, &[]).status, 0);
        assert_eq!(rig.disk.borrow().log.len(), 1, "the write was over before the answer");
        assert!(rig.recv_within(two.conn, two.digests, 10).is_none(), "nobody is told of an aborted write's end");
        rig.finish();
    }
}
