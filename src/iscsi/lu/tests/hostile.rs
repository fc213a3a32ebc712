//! Random commands with random data, at every state of the pool, given up at any step: whatever comes, every command ends,
//! no request leaves the unit, and every buffer comes back.

use super::rig::{BLOCKS, Rig};
use crate::base::rng::Rng;
use crate::iscsi::lu::commands::COMMANDS;
use crate::iscsi::lu::{Begin, Event, Step};
use crate::volume::Kind;
use crate::wire::scsi::Cdb;

/// A command: mostly one that exists, with mostly small numbers in it.
fn command(rng: &mut Rng) -> Cdb {
    let mut cdb = [0; 16];
    rng.fill(&mut cdb);
    if rng.chance(95) {
        let known = COMMANDS[rng.below(COMMANDS.len() as u64) as usize];
        for (byte, mask) in cdb.iter_mut().zip(known.usage) {
            *byte &= *mask;
            if rng.chance(60) {
                *byte &= rng.below(4) as u8;
            }
        }
        cdb[0] = known.op;
        if let Some(action) = known.action {
            cdb[1] = cdb[1] & !0x1f | action;
        }
        cdb[known.usage.len() - 1] = 0;
    }
    cdb
}

#[test]
fn every_command_ends_and_brings_its_buffers_back() {
    for seed in 0..5 {
        let mut rng = Rng::new(seed);
        let mut rig = Rig::new(if seed % 2 == 0 { 512 } else { 4096 });
        rig.units[0].info.atomic_blocks = 8;
        rig.units[0].info.thin = seed < 3;
        for round in 0..30_000 {
            let cdb = command(&mut rng);
            rig.host = rng.below(3) as usize;
            rig.announced = None;
            // Some of the pool is taken at times.
            let taken = if rng.chance(20) { rng.below(17) } else { 0 };
            let hoard: Vec<_> = (0..taken).filter_map(|_| rig.pool.get(1)).collect();
            run(&mut rig, &cdb, &mut rng);
            rig.pool.put_all(hoard);
            assert!(rig.pool.stats().all(|s| s.free == s.total), "seed {seed} round {round}: {cdb:02x?}");
            if rng.chance(2) {
                rig.tell(crate::iscsi::lu::LuEvent::Reset);
                rig.reservations = crate::volume::Reservations::default();
                rig.state = crate::iscsi::lu::State::default();
            }
        }
    }
}

fn run(rig: &mut Rig, cdb: &Cdb, rng: &mut Rng) {
    let (mut program, want) = match rig.begin(cdb) {
        Begin::Later => return,
        Begin::End(end) => return rig.pool.put_all(end.data),
        Begin::Io(io) => {
            assert!(io.lba + u64::from(io.blocks) <= BLOCKS, "a plain request stays within the unit");
            assert!(io.bytes <= 1 << 20);
            return;
        }
        Begin::Program(program, want) => (program, want),
    };
    let have = if rng.chance(80) { u64::from(want) } else { rng.below(u64::from(want) + 1) };
    let have = have.min(1 << 20);
    let data = (have > 0).then(|| rig.pool.get(have as usize)).flatten().map(|mut buf| {
        rng.fill(&mut buf);
        if rng.chance(70) {
            buf.iter_mut().for_each(|b| *b = if *b < 200 { 0 } else { *b & 7 });
        }
        buf
    });
    let mut step = rig.with(|cx| program.start(data, cx));
    for _ in 0..20_000 {
        let event = match step {
            Step::End(end) => {
                rig.pool.put_all(end.data);
                return program.cancel(&mut rig.pool);
            }
            Step::Io { kind, lba, blocks, payload, .. } => {
                assert!(lba + u64::from(blocks) <= BLOCKS, "{kind:?} of {cdb:02x?} leaves the unit");
                if kind == Kind::Read && rig.pool.stats().all(|s| s.free < 2) {
                    rig.pool.put_all(payload);
                    return program.cancel(&mut rig.pool);
                }
                let (status, detail, buf) = rig.disk(kind, lba, blocks, payload);
                rig.log.clear();
                Event::Io { status, detail, buf }
            }
            Step::Send { data, .. } => {
                rig.pool.put(data);
                Event::Sent { room: rng.below(4 << 20) as u32 }
            }
            Step::Take(bytes) => match rig.pool.get(bytes as usize) {
                Some(buf) => Event::Data(buf),
                None => return program.cancel(&mut rig.pool),
            },
            Step::Reserve(op) => Event::Reserved(rig.reserve(&op)),
            Step::Lu(event) => {
                rig.tell(event);
                Event::Done
            }
            Step::Detach(end) => {
                rig.pool.put_all(end.and_then(|e| e.data));
                Event::Done
            }
            Step::Pause(_) | Step::Later => Event::Again,
        };
        if rng.chance(1) {
            // Given up: what the last step brought goes back.
            rig.pool.put_all(event.into_buf());
            return program.cancel(&mut rig.pool);
        }
        if matches!(event, Event::Again) && rng.chance(10) {
            return program.cancel(&mut rig.pool);
        }
        step = rig.with(|cx| program.resume(event, cx));
    }
    panic!("{cdb:02x?} does not end");
}
