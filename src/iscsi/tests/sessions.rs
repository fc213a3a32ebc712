//! Sessions as a whole: taking each other's place, on one core and on several, the end of rights, and timers.

use super::commands::join;
use super::rig::{HOST, Link, NAME, Rig, Setup, cdb10, names};
use super::volumes::Mood;
use crate::iscsi::Options;
use crate::net::Net;
use crate::wire::iscsi::pdu::{AsyncMessage, FINAL, LoginRequest, WRITE};
use crate::wire::iscsi::{AsyncEvent, Digests, LoginStatus, NO_TAG, Opcode, Stage};

const TUR: [u8; 16] = [0; 16];

/// Sends a login of a known initiator port without waiting for its answer.
fn begin(rig: &mut Rig, core: usize, isid: [u8; 6]) -> crate::net::ConnId {
    let conn = rig.dial(core);
    let text = names(HOST, NAME);
    let request = LoginRequest::new(isid, 1, Stage::Operational, Some(Stage::FullFeature), text.len() as u32);
    rig.put(conn, Digests::NONE, &request, text.as_bytes());
    conn
}

fn finish(rig: &mut Rig, conn: crate::net::ConnId, isid: [u8; 6]) -> Link {
    let got = rig.recv_within(conn, Digests::NONE, 200).expect("an answer to a login");
    assert_eq!(got.opcode(), Opcode::LoginResponse);
    let head: crate::wire::iscsi::pdu::LoginResponse = got.header();
    assert_eq!(head.status(), Some(LoginStatus::Success));
    let mut link =
        Link { conn, isid, tsih: head.tsih.get(), digests: Digests::NONE, cmd_sn: 0, itt: 9000, max_cmd_sn: 0 };
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).sense, Some((6, 0x2900)), "a new session knows nothing");
    link
}

#[test]
fn a_new_session_waits_for_the_writes_of_the_one_it_takes_the_place_of() {
    for (cores, from, to) in [(1, 0, 0), (2, 0, 0), (2, 0, 1), (3, 2, 1)] {
        let mut rig = Rig::new(Setup { cores, ..Setup::default() });
        let mut old = rig.login(from, "");
        rig.mood(Mood { stuck: true, ..Mood::default() });
        // One in the volumes, one whose data has not come.
        rig.submit(&mut old, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
        rig.submit(&mut old, WRITE | FINAL, &cdb10(0x2a, 1, 1), 512, &[]);
        rig.turns(10);
        let conn = begin(&mut rig, to, old.isid);
        assert!(rig.recv_within(conn, Digests::NONE, 50).is_none(), "the old write is still under way");
        assert!(rig.closed(old.conn));
        rig.mood(Mood::default());
        let mut new = finish(&mut rig, conn, old.isid);
        let log = rig.disk.borrow().log.len();
        assert_eq!(log, 1);
        assert_eq!(rig.command(&mut new, &cdb10(0x2a, 0, 1), 0, &[2; 512]).status, 0);
        rig.turns(30);
        assert_eq!((rig.disk.borrow().bytes[0], rig.disk.borrow().bytes[512]), (2, 0));
        let stats: u64 = rig.cores.iter().map(|c| c.target.stats().reinstatements).sum();
        assert_eq!(stats, 1);
        rig.finish();
    }
}

#[test]
fn a_connection_that_broke_under_writes_is_waited_for() {
    let mut rig = Rig::plain();
    let mut old = rig.login(0, "");
    rig.mood(Mood { stuck: true, ..Mood::default() });
    rig.submit(&mut old, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
    rig.turns(10);
    rig.hang_up(old.conn);
    assert!(!rig.cores[0].target.quiet(super::volumes::VOLUME) && !rig.cores[0].target.settled());
    let conn = begin(&mut rig, 0, old.isid);
    assert!(rig.recv_within(conn, Digests::NONE, 50).is_none(), "its write is still under way");
    // Other initiator ports do not wait.
    let other = rig.isid();
    let free = begin(&mut rig, 0, other);
    assert!(rig.recv_within(free, Digests::NONE, 50).is_some());
    rig.mood(Mood::default());
    finish(&mut rig, conn, old.isid);
    rig.finish();
}

#[test]
fn of_logins_that_race_for_one_name_one_remains() {
    for cores in [1, 2, 4] {
        let mut rig = Rig::new(Setup { cores, ..Setup::default() });
        let isid = rig.isid();
        let conns: Vec<_> = (0..4).map(|i| begin(&mut rig, i % usize::from(cores), isid)).collect();
        rig.turns(60);
        let sessions: u64 = rig.cores.iter().map(|c| c.target.stats().sessions_now).sum();
        assert_eq!(sessions, 1, "{cores} cores");
        assert_eq!(conns.iter().filter(|c| !rig.closed(**c)).count(), 1);
        rig.finish();
    }
}

#[test]
fn a_connection_may_be_made_anew_within_its_session() {
    let mut rig = Rig::plain();
    let mut one = rig.login(0, "MaxConnections=2\0");
    rig.mood(Mood { stuck: true, ..Mood::default() });
    rig.submit(&mut one, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
    rig.turns(10);
    let conn = rig.dial(0);
    let mut request = LoginRequest::new(one.isid, 1, Stage::Operational, Some(Stage::FullFeature), 0);
    request.tsih.set(one.tsih);
    let text = names(HOST, NAME);
    request.lengths = crate::wire::iscsi::pdu::Lengths::data(text.len() as u32);
    rig.put(conn, Digests::NONE, &request, text.as_bytes());
    assert!(rig.recv_within(conn, Digests::NONE, 40).is_none(), "the old connection's write is still under way");
    rig.mood(Mood::default());
    assert!(rig.recv_within(conn, Digests::NONE, 40).is_some());
    assert!(rig.closed(one.conn));
    let mut two = Link { conn, ..one.clone() };
    assert_eq!(rig.command(&mut two, &TUR, 0, &[]).status, 0, "the same session: nothing new to tell");
    let three = join(&mut rig, &two, 5);
    rig.hang_up(two.conn);
    assert_eq!(rig.cores[0].target.stats().sessions_now, 1);
    rig.hang_up(three.conn);
    assert_eq!(rig.cores[0].target.stats().sessions_now, 0);
    rig.finish();
}

#[test]
fn a_connection_that_another_core_accepted_goes_to_the_core_of_its_session() {
    for (seed, digests) in [(1, ""), (2, "HeaderDigest=CRC32C\0DataDigest=CRC32C\0")] {
        let setup = Setup::default();
        let options = Options { max_connections_per_session: 4, ..setup.options };
        let mut rig = Rig::new(Setup { cores: 3, seed, options, ..setup });
        let mut links = vec![rig.login(1, &format!("MaxConnections=4\0{digests}"))];
        let addrs: Vec<_> = rig.cores.iter().map(|c| c.addr).collect();
        for (cid, core) in [(1, 0), (2, 1), (3, 2)] {
            // `join` dials the first core.
            rig.cores[0].addr = addrs[core];
            let link = join(&mut rig, &links[0], cid);
            links.push(link);
        }
        rig.cores[0].addr = addrs[0];
        let here: Vec<_> = rig.cores.iter().map(|c| (c.target.stats().moved, c.target.connections().count())).collect();
        assert_eq!(here, [(1, 0), (0, 4), (1, 0)]);
        // The commands of all of them are one sequence, whichever core accepted the connection.
        let mut cmd_sn = links[0].cmd_sn;
        for round in 0..3u8 {
            for (at, link) in links.iter_mut().enumerate() {
                link.cmd_sn = cmd_sn;
                let data = super::rig::pattern(4096, round * 4 + at as u8);
                assert_eq!(rig.command(link, &cdb10(0x2a, at as u32 * 8, 8), 0, &data).status, 0);
                let back = rig.command(link, &cdb10(0x28, at as u32 * 8, 8), 4096, &[]);
                assert_eq!((back.status, back.data == data), (0, true));
                cmd_sn = link.cmd_sn;
            }
        }
        rig.hang_up(links[0].conn);
        links[3].cmd_sn = cmd_sn;
        assert_eq!(rig.command(&mut links[3], &TUR, 0, &[]).status, 0, "the session outlives its leading connection");
        rig.finish();
    }
}

#[test]
fn a_session_takes_no_more_connections_than_agreed_on_and_only_its_own() {
    let mut rig = Rig::new(Setup { cores: 2, ..Setup::default() });
    let one = rig.login(0, "MaxConnections=2\0");
    let two = join(&mut rig, &one, 1);
    let mut refused = |core: usize, isid: [u8; 6], tsih: u16, want: LoginStatus| {
        let conn = rig.dial(core);
        let mut request = LoginRequest::new(isid, 1, Stage::Operational, Some(Stage::FullFeature), 0);
        request.tsih.set(tsih);
        request.cid.set(9);
        let (response, _) = rig.ask(conn, &request, &names(HOST, NAME)).unwrap();
        assert_eq!(response.status(), Some(want));
        rig.turns(10);
        assert!(rig.closed(conn));
    };
    refused(0, one.isid, one.tsih, LoginStatus::TooManyConnections);
    refused(0, [9; 6], one.tsih, LoginStatus::NoSession);
    refused(0, one.isid, one.tsih + 2, LoginStatus::NoSession);
    refused(1, one.isid, one.tsih, LoginStatus::TooManyConnections);
    refused(1, [9; 6], one.tsih, LoginStatus::NoSession);
    rig.hang_up(two.conn);
    join(&mut rig, &one, 3);
    rig.finish();
}

#[test]
fn what_configuration_takes_away_ends_and_what_it_changes_is_told() {
    let mut rig = Rig::plain();
    let mut link = rig.login(0, "");
    rig.snapshot.targets[0].luns[0].info.blocks /= 2;
    rig.configure();
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).sense, Some((6, 0x2a09)));
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
    let mut second = rig.snapshot.targets[0].luns[0].clone();
    second.lun = 3;
    rig.snapshot.targets[0].luns.push(second);
    rig.configure();
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).sense, Some((6, 0x3f0e)));
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
    // The unit goes while a write to it waits for data.
    let itt = rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &[]);
    let r2t: crate::wire::iscsi::pdu::R2t = rig.recv_within(link.conn, link.digests, 20).unwrap().header();
    let units = core::mem::take(&mut rig.snapshot.targets[0].luns);
    rig.configure();
    rig.data_out(&link, (itt, r2t.ttt.get()), &[1; 512], (0, 512), 512);
    assert_eq!(rig.complete(&mut link, itt, &[]).sense, Some((5, 0x2500)));
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).sense, Some((5, 0x2500)));
    rig.snapshot.targets[0].luns = units;
    rig.configure();
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).sense, Some((6, 0x2900)), "a unit that is new again");
    assert_eq!(rig.disk.borrow().log.len(), 0);
    // The right goes.
    rig.snapshot.initiator_groups[0].initiators.clear();
    rig.configure();
    rig.turns(10);
    assert_eq!(farewell(&mut rig, &link), (AsyncEvent::SessionDropped as u8, 0));
    assert!(rig.closed(link.conn) && rig.cores[0].target.settled());
    rig.finish();
}

/// The asynchronous message that a connection got last, and its first parameter.
fn farewell(rig: &mut Rig, link: &Link) -> (u8, u16) {
    let got = rig.recv_within(link.conn, link.digests, 10).expect("a message before the end");
    assert_eq!(got.opcode(), Opcode::AsyncMessage);
    let head: AsyncMessage = got.header();
    assert_eq!((head.itt.get(), head.parameter2.get(), head.parameter3.get()), (NO_TAG, 0, 0));
    (head.event, head.parameter1.get())
}

#[test]
fn a_portal_that_goes_takes_its_connections_along_and_says_whether_the_session_stays() {
    let mut rig = Rig::plain();
    let core = &mut rig.cores[0];
    let first = core.addr;
    let (listener, second) = core.net.listen("0.0.0.0:3261".parse().unwrap(), false).unwrap();
    core.target.listen(listener, second);
    rig.snapshot.portal_groups[0].portals.push(second);
    rig.configure();
    let mut one = rig.login(0, "MaxConnections=3\0HeaderDigest=CRC32C\0");
    rig.cores[0].addr = second;
    let two = join(&mut rig, &one, 7);
    let alone = rig.login(0, "");
    rig.cores[0].addr = first;
    rig.cores[0].target.unlisten(listener);
    rig.turns(10);
    assert_eq!(farewell(&mut rig, &two), (AsyncEvent::ConnectionDropped as u8, 7));
    assert_eq!(farewell(&mut rig, &alone), (AsyncEvent::SessionDropped as u8, 0));
    assert!(rig.closed(two.conn) && rig.closed(alone.conn));
    assert_eq!(rig.command(&mut one, &TUR, 0, &[]).status, 0, "the session goes on");
    rig.finish();
}

#[test]
fn a_stalled_login_is_cut_and_junk_does_not_keep_others_out() {
    let mut setup = Setup::default();
    setup.config.unauthenticated = 6;
    let mut rig = Rig::new(setup);
    let stalled: Vec<_> = (0..6).map(|_| rig.dial(0)).collect();
    let refused = rig.dial(0);
    rig.turns(10);
    assert!(rig.closed(refused), "no more than six strangers at once");
    // One of them has begun, and goes no further.
    let request = LoginRequest::new([1; 6], 1, Stage::Security, None, 0);
    rig.ask(stalled[0], &request, &format!("{}AuthMethod=None\0", names(HOST, NAME))).unwrap();
    rig.pass_ms(14_000);
    assert!(stalled.iter().all(|c| !rig.closed(*c)));
    rig.pass_ms(1_500);
    assert!(stalled.iter().all(|c| rig.closed(*c)));
    assert_eq!(rig.cores[0].target.stats().login_timeouts, 6);
    let mut link = rig.login(0, "");
    assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
    rig.finish();
}

#[test]
fn connections_come_and_go_and_leave_nothing() {
    let mut rig = Rig::new(Setup { cores: 2, ..Setup::default() });
    for i in 0..200 {
        let mut link = rig.login(i % 2, "");
        rig.mood(Mood { slow: 50, ..Mood::default() });
        rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 8), 4096, &[]);
        rig.submit(&mut link, WRITE | FINAL, &cdb10(0x2a, 0, 1), 512, &[1; 512]);
        rig.turns(i % 5);
        rig.hang_up(link.conn);
    }
    rig.finish();
}
