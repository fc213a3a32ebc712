//! Strangers' bytes: random headers after a real login, random bytes before one, and sequences of half-right PDUs. Whatever
//! comes, nothing panics, nothing is left behind, and another initiator is served as before.

use super::rig::{HOST, NAME, Rig, Setup, cdb10, names};
use super::volumes::Mood;
use crate::base::rng::Rng;
use crate::net::LoopbackConfig;
use crate::wire::iscsi::pdu::{LoginRequest, WRITE};
use crate::wire::iscsi::{Opcode, Stage};
use zerocopy::IntoBytes;

const TUR: [u8; 16] = [0; 16];
const SEEDS: u64 = 12;

/// Takes what a connection got, so that it does not pile up.
fn drain(rig: &mut Rig, link: &super::rig::Link) {
    while rig.recv_within(link.conn, link.digests, 0).is_some() {}
}

fn rig(seed: u64) -> Rig {
    let loopback = LoopbackConfig { seed, segment: (1, 3000), ..LoopbackConfig::default() };
    let mut rig = Rig::new(Setup { loopback, seed, cores: 1 + (seed % 2) as u16, ..Setup::default() });
    rig.mood(Mood { slow: 30, later: 10, ..Mood::default() });
    rig
}

#[test]
fn random_headers_after_a_login() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut rig = rig(seed);
        let mut good = rig.login(0, "");
        for _ in 0..60 {
            let link = rig.login(0, if rng.chance(50) { "InitialR2T=No\0MaxConnections=2\0" } else { "" });
            for _ in 0..30 {
                let mut bytes = [0; 48];
                rng.fill(&mut bytes);
                // Mostly headers that are taken for what they are.
                if rng.chance(90) {
                    let ops = [0, 1, 1, 1, 2, 2, 4, 5, 5, 6, 0x10, 3];
                    bytes[0] = ops[rng.below(12) as usize] | if rng.chance(60) { 0x40 } else { 0 };
                    bytes[4..6].fill(0);
                    bytes[6] &= 1;
                    bytes[8..16].fill(0);
                    if bytes[0] & 0x3f == 6 && rng.chance(90) {
                        bytes[0] = 0x40;
                    }
                }
                if rng.chance(50) {
                    bytes[24..28].copy_from_slice(&link.cmd_sn.to_be_bytes());
                }
                if rng.chance(40) {
                    bytes[16..20].copy_from_slice(&(rng.below(4) as u32).to_be_bytes());
                }
                if rng.chance(40) {
                    bytes[32..48].copy_from_slice(&cdb10([0x28, 0x2a, 0x12, 0x35][rng.below(4) as usize], 1, 8));
                    bytes[20..24].copy_from_slice(&4096u32.to_be_bytes());
                }
                rig.send(link.conn, &bytes);
                let data = usize::from(bytes[6] & 1) << 8 | usize::from(bytes[7]);
                if bytes[4..6] == [0, 0] {
                    rig.send(link.conn, &vec![0x41; data.next_multiple_of(4)]);
                }
                rig.turn();
                drain(&mut rig, &link);
            }
            rig.turns(6);
            if rig.closed(good.conn) {
                // Only a target cold reset reaches that far.
                good = rig.login(0, "");
            }
            assert_eq!(rig.command(&mut good, &TUR, 0, &[]).sense.map_or(6, |s| s.0), 6);
            if rng.chance(30) {
                rig.hang_up(link.conn);
            }
        }
        rig.finish();
    }
}

#[test]
fn random_bytes_before_a_login() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut rig = rig(seed);
        for _ in 0..80 {
            let conn = rig.dial(0);
            let text = format!("{}AuthMethod=CHAP,None\0MaxBurstLength=4096\0", names(HOST, NAME));
            let mut text = text.into_bytes();
            for _ in 0..rng.below(4) {
                let at = rng.below(text.len() as u64) as usize;
                text[at] = rng.next_u64() as u8;
            }
            let len = text.len() as u32;
            let request = LoginRequest::new([1; 6], 1, Stage::Operational, Some(Stage::FullFeature), len);
            let mut head: [u8; 48] = *request.as_bytes().first_chunk().unwrap();
            for _ in 0..rng.below(3) {
                head[rng.below(48) as usize] = rng.next_u64() as u8;
            }
            rig.send(conn, &head);
            text.resize(text.len().next_multiple_of(4), 0);
            rig.send(conn, &text);
            rig.turns(3);
            let mut junk = vec![0; rng.below(200) as usize];
            rng.fill(&mut junk);
            rig.send(conn, &junk);
            rig.turns(2);
            rig.hang_up(conn);
        }
        // Failed logins of one address are slowed down for a second.
        rig.pass_ms(1_100);
        let mut link = rig.login(0, "");
        assert_eq!(rig.command(&mut link, &TUR, 0, &[]).status, 0);
        rig.finish();
    }
}

#[test]
fn writes_functions_and_hang_ups_in_any_order() {
    use crate::wire::iscsi::pdu::{FINAL, R2t, READ, TaskRequest};
    use crate::wire::iscsi::{Lun, TaskFunction};
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed + 100);
        let mut rig = rig(seed);
        let mut links: Vec<_> =
            (0..4).map(|i| rig.login(i % rig.cores.len(), "InitialR2T=No\0MaxOutstandingR2T=3\0")).collect();
        let data = vec![7; 65536];
        for _ in 0..600 {
            let at = rng.below(4) as usize;
            if rig.closed(links[at].conn) || rng.chance(1) {
                rig.hang_up(links[at].conn);
                let isid = links[at].isid;
                let core = rng.below(rig.cores.len() as u64) as usize;
                links[at] = rig.login_with(core, isid, "InitialR2T=No\0MaxOutstandingR2T=3\0");
                continue;
            }
            let link = &mut links[at];
            let room = !crate::wire::iscsi::sn_before(link.max_cmd_sn, link.cmd_sn);
            match rng.below(6) {
                0 | 1 if room => {
                    let blocks = [1u16, 8, 100][rng.below(3) as usize];
                    let now = (rng.below(2) * 512) as usize;
                    rig.submit(
                        link,
                        WRITE | FINAL,
                        &cdb10(0x2a, rng.below(99) as u32, blocks),
                        u32::from(blocks) * 512,
                        &data[..now],
                    );
                }
                2 if room => {
                    rig.submit(link, READ | FINAL, &cdb10(0x28, rng.below(99) as u32, 64), 32768, &[]);
                }
                3 if rng.chance(20) => {
                    let functions = TaskFunction::ALL;
                    let function = functions[rng.below(functions.len() as u64) as usize];
                    let mut request = TaskRequest::new(function, Lun::of(0), 1, link.itt, link.cmd_sn.wrapping_sub(1));
                    request.cmd_sn.set(link.cmd_sn);
                    let link = link.clone();
                    rig.put(link.conn, link.digests, &request, &[]);
                }
                _ => {}
            }
            let link = links[at].clone();
            while let Some(got) = rig.recv_within(link.conn, link.digests, 0) {
                match got.opcode() {
                    Opcode::R2t if rng.chance(80) => {
                        let r2t: R2t = got.header();
                        let from = r2t.offset.get() as usize;
                        let to = from + r2t.desired.get() as usize;
                        rig.data_out(&link, (r2t.itt.get(), r2t.ttt.get()), &data, (from, to), 4096);
                    }
                    Opcode::DataIn | Opcode::ScsiResponse | Opcode::TaskResponse => {
                        let most = u32::from_be_bytes(*got.bhs[32..].first_chunk().unwrap());
                        links[at].max_cmd_sn = most;
                    }
                    _ => {}
                }
            }
            rig.turn();
        }
        rig.finish();
    }
}
