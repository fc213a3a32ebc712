//! A unit, its state, one initiator, and a disk in memory that does what programs ask for.

use crate::base::limits::IO_BYTES_MAX;
use crate::base::{CoreId, Status, VolumeId};
use crate::iscsi::lu::{
    Access, Attention, Attentions, Begin, Cx, Device, End, Event, Group, LuEvent, Nexus, Program, State, Step, Unit,
    begin, finish,
};
use crate::mem::{Buf, Class, Pool};
use crate::volume::reserve::{self, Notice, Told};
use crate::volume::{Detail, Info, Kind, Reservations, Run};
use crate::wire::mutate::hex;
use crate::wire::scsi::Out;
use crate::wire::scsi::designator::put_transport_id;
use crate::wire::scsi::{Asc, Cdb, Key};
use std::sync::Arc;

pub const VOLUME: VolumeId = VolumeId(4);
pub const UUID: [u8; 16] = *b"0123456789abcdef";
/// Blocks of the unit in tests.
pub const BLOCKS: u64 = 5000;

/// Initiators of the rig.
pub const HOSTS: usize = 3;

pub struct Rig {
    pub units: Vec<Unit>,
    pub state: State,
    /// What each initiator has not been told yet.
    pub attentions: [Attentions; HOSTS],
    pub who: [reserve::Nexus; HOSTS],
    /// Which of them asks.
    pub host: usize,
    /// Port group it comes in by.
    pub group: u16,
    pub reservations: Reservations,
    /// Reservations of all other volumes.
    pub others: Reservations,
    /// Which of the disk's blocks are mapped.
    pub mapped: Vec<bool>,
    /// A program that goes on without its command.
    pub detached: Option<Program>,
    /// Milliseconds that programs paused.
    pub paused: u64,
    /// Data of the command that a program has not asked for yet, and what it has sent so far.
    pub feed: Vec<u8>,
    pub sent: Vec<u8>,
    /// Bytes that the initiator takes.
    pub room: usize,
    /// Bytes that the initiator announced.
    pub announced: Option<u32>,
    /// Requests until somebody else writes a byte of the disk, and where.
    pub race: Option<(u32, usize)>,
    pub pool: Pool,
    pub disk: Vec<u8>,
    /// Every request that was made.
    pub log: Vec<(Kind, u64, u32)>,
    /// How the next requests fail.
    pub fail: Option<Status>,
}

/// A command's end, its buffer copied and returned.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: u8,
    pub sense: Option<(Key, Asc)>,
    pub data: Vec<u8>,
    pub info: Option<u64>,
}

pub fn device() -> Arc<Device> {
    let group = |id, ports| Group { id, access: Access::ActiveOptimized, preferred: false, ports };
    Arc::new(Device::new("iqn.2024-01.io.pollux:t".into(), vec![group(1, vec![1]), group(2, vec![2])]))
}

pub fn unit(lun: u16, block_size: u32) -> Unit {
    Unit {
        lun,
        info: Info {
            id: VOLUME,
            block_size,
            blocks: BLOCKS,
            uuid: UUID,
            thin: true,
            read_only: false,
            volatile_cache: false,
            atomic_blocks: 1,
        },
        physical_block: 4096,
        threshold_percent: 0,
        vendor: "Pollux".into(),
        product: "Volume".into(),
        revision: "0001".into(),
        serial: "SN1".into(),
        device: device(),
    }
}

fn who(host: usize) -> reserve::Nexus {
    let mut room = [0; 64];
    let mut out = Out::new(&mut room);
    put_transport_id(&mut out, "iqn.2024-01.io.pollux:host", [0x80, 0, 0, 0, 0, host as u8]);
    let len = out.len();
    reserve::Nexus { initiator: room[..len].into(), target: 0, port: 1 }
}

impl Rig {
    pub fn new(block_size: u32) -> Rig {
        let classes =
            [Class { size: 4096, count: 8 }, Class { size: 64 << 10, count: 4 }, Class { size: 1 << 20, count: 4 }];
        Rig {
            units: vec![unit(0, block_size)],
            state: State::default(),
            attentions: [Attentions::default(); HOSTS],
            who: core::array::from_fn(who),
            host: 0,
            group: 1,
            reservations: Reservations::default(),
            others: Reservations::default(),
            mapped: vec![false; BLOCKS as usize],
            detached: None,
            paused: 0,
            feed: vec![],
            sent: vec![],
            room: usize::MAX,
            announced: None,
            race: None,
            pool: Pool::standalone(CoreId(0), &classes).unwrap(),
            disk: vec![0; BLOCKS as usize * block_size as usize],
            log: vec![],
            fail: None,
        }
    }

    fn size(&self) -> usize {
        self.units[0].info.block_size as usize
    }

    pub fn with<T>(&mut self, f: impl FnOnce(&mut Cx<'_>) -> T) -> T {
        let others = &self.others;
        let mut cx = Cx {
            unit: &self.units[0],
            units: &self.units,
            nexus: Nexus { who: &self.who[self.host], group: self.group },
            data_out: self.announced,
            reservations: &self.reservations,
            elsewhere: &|_| others,
            state: &mut self.state,
            attentions: &mut self.attentions[self.host],
            pool: &mut self.pool,
        };
        f(&mut cx)
    }

    pub fn begin(&mut self, cdb: &Cdb) -> Begin {
        self.with(|cx| begin(cx, cdb))
    }

    /// Does a block request.
    pub fn disk(&mut self, kind: Kind, lba: u64, blocks: u32, payload: Option<Buf>) -> (Status, Detail, Option<Buf>) {
        self.log.push((kind, lba, blocks));
        let bytes = payload.as_ref().map(|b| b.to_vec()).unwrap_or_default();
        self.pool.put_all(payload);
        if let Some(status) = self.fail {
            return (status, Detail::NONE, None);
        }
        if let Some((left, at)) = &mut self.race {
            match left {
                0 => {
                    self.disk[*at] |= 1;
                    self.race = None;
                }
                _ => *left -= 1,
            }
        }
        let size = self.size();
        let (from, to) = (lba as usize, lba as usize + blocks as usize);
        if to * size > self.disk.len() {
            return (Status::OutOfRange, Detail::NONE, None);
        }
        let range = from * size..to * size;
        let differs = |disk: &[u8], data: &[u8]| disk.iter().zip(data).position(|(a, b)| a != b);
        let want = match kind {
            Kind::Write | Kind::Compare => range.len(),
            Kind::CompareWrite => 2 * range.len(),
            _ => 0,
        };
        assert_eq!(bytes.len(), want, "{kind:?} brings its blocks");
        match kind {
            Kind::Read => {
                let mut buf = self.pool.get(range.len()).expect("a buffer");
                buf.copy_from_slice(&self.disk[range]);
                return (Status::Ok, Detail::NONE, Some(buf));
            }
            Kind::Write => {
                self.disk[range].copy_from_slice(&bytes);
                self.mapped[from..to].fill(true);
            }
            Kind::Compare | Kind::CompareWrite => {
                if let Some(at) = differs(&self.disk[range.clone()], &bytes) {
                    return (Status::CompareMismatch, Detail::differing(at as u32), None);
                }
                if kind == Kind::CompareWrite {
                    let len = range.len();
                    self.disk[range].copy_from_slice(&bytes[len..]);
                    self.mapped[from..to].fill(true);
                }
            }
            Kind::WriteZeroes | Kind::Deallocate => {
                self.disk[range].fill(0);
                self.mapped[from..to].fill(kind == Kind::WriteZeroes);
            }
            Kind::BlockStatus => {
                // As the volumes do: no more than it is cheap to tell.
                let mapped = self.mapped[from];
                let run = self.mapped[from..to.min(from + 100)].iter().take_while(|m| **m == mapped).count();
                return (Status::Ok, Detail::of_run(Run { mapped, len: (run * size) as u32 }), None);
            }
            Kind::Flush => {}
        }
        (Status::Ok, Detail::NONE, None)
    }

    /// A buffer with these bytes.
    pub fn buf(&mut self, bytes: &[u8]) -> Buf {
        let mut buf = self.pool.get(bytes.len()).expect("a buffer");
        buf.copy_from_slice(bytes);
        buf
    }

    fn ended(&mut self, end: End) -> Ended {
        let mut data = core::mem::take(&mut self.sent);
        data.extend(end.data.iter().flat_map(|b| b.iter()));
        self.pool.put_all(end.data);
        assert_eq!(end.sense.is_some(), end.status == 2, "sense data comes with CHECK CONDITION");
        let info = end.sense.and_then(|s| s.info);
        Ended { status: end.status, sense: end.sense.map(|s| (s.key, s.asc)), data, info }
    }

    /// Runs a command to its end.
    pub fn run(&mut self, cdb: &str, data: &[u8]) -> Ended {
        self.announced = (!data.is_empty()).then_some(data.len() as u32);
        let bytes = hex(cdb);
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(&bytes);
        let ended = match self.begin(&cdb) {
            Begin::End(end) => self.ended(end),
            Begin::Later => panic!("the pool is large enough"),
            Begin::Io(io) => {
                let payload = if io.kind == Kind::Read || io.bytes == 0 {
                    None
                } else {
                    assert!(data.len() <= io.bytes as usize, "at most what the CDB says");
                    Some(self.buf(data))
                };
                let (status, detail, buf) = self.disk(io.kind, io.lba, io.blocks, payload);
                let end = finish(&self.state, &io, status, detail, buf, &mut self.pool);
                self.ended(end)
            }
            Begin::Program(mut program, want) => {
                let data = &data[..data.len().min(want as usize)];
                let (data, rest) = data.split_at(data.len().min(IO_BYTES_MAX));
                self.feed = rest.to_vec();
                let data = if data.is_empty() { None } else { Some(self.buf(data)) };
                let step = self.with(|cx| program.start(data, cx));
                match self.drive(program, step) {
                    Ok(end) => self.ended(end),
                    Err(program) => {
                        self.detached = Some(program);
                        return Ended { status: 0xff, sense: None, data: vec![], info: None };
                    }
                }
            }
        };
        // A SANITIZE that goes on keeps its pattern.
        let kept = self.detached.is_some();
        assert!(kept || self.pool.stats().all(|s| s.free == s.total), "{cdb:02x?} keeps a buffer");
        ended
    }

    /// Runs a program until it ends, or leaves its command.
    fn drive(&mut self, mut program: Program, mut step: Step) -> Result<End, Program> {
        loop {
            let event = match step {
                Step::End(end) => {
                    program.cancel(&mut self.pool);
                    return Ok(end);
                }
                Step::Later => panic!("the pool is large enough"),
                Step::Pause(ms) => {
                    self.paused += u64::from(ms);
                    Event::Again
                }
                Step::Detach(end) => {
                    assert!(end.is_none(), "no test asks for IMMED");
                    return Err(program);
                }
                Step::Io { volume, kind, lba, blocks, payload, .. } => {
                    assert!(self.units.iter().any(|u| u.info.id == volume));
                    let (status, detail, buf) = self.disk(kind, lba, blocks, payload);
                    Event::Io { status, detail, buf }
                }
                Step::Send { data, total } => {
                    assert!(self.sent.len() + data.len() < total as usize, "the last part comes with the end");
                    self.sent.extend(data.iter());
                    self.pool.put(data);
                    Event::Sent { room: self.room.saturating_sub(self.sent.len()).min(u32::MAX as usize) as u32 }
                }
                Step::Take(bytes) => {
                    let rest = self.feed.split_off(bytes as usize);
                    let part = core::mem::replace(&mut self.feed, rest);
                    Event::Data(self.buf(&part))
                }
                Step::Reserve(op) => Event::Reserved(self.reserve(&op)),
                Step::Lu(event) => {
                    self.tell(event);
                    Event::Done
                }
            };
            step = self.with(|cx| program.resume(event, cx));
        }
    }

    /// A change of the unit reaches everybody.
    pub fn tell(&mut self, event: LuEvent) {
        self.state.told(event);
        for (host, attentions) in self.attentions.iter_mut().enumerate() {
            if host != self.host
                && let Some(attention) = event.attention()
            {
                attentions.raise(attention);
            }
        }
    }

    pub fn reserve(&mut self, op: &reserve::Op) -> Result<(), reserve::Refused> {
        let applied = self.reservations.apply(&self.who[self.host], op)?;
        self.reservations = applied.next;
        for Told { nexus, notice, .. } in applied.told {
            let Some(host) = self.who.iter().position(|w| *w == nexus) else { continue };
            match notice {
                None => {}
                Some(Notice::ReservationsPreempted) => self.attentions[host].raise(Attention::ReservationsPreempted),
                Some(Notice::ReservationsReleased) => self.attentions[host].raise(Attention::ReservationsReleased),
                Some(Notice::RegistrationsPreempted) => self.attentions[host].raise(Attention::RegistrationsPreempted),
            }
        }
        Ok(())
    }

    /// Lets the detached program run to its end.
    pub fn finish_detached(&mut self) -> Ended {
        let mut program = self.detached.take().expect("a program is detached");
        let step = self.with(|cx| program.resume(Event::Done, cx));
        let end = self.drive(program, step).expect("it leaves once");
        self.ended(end)
    }

    /// As the other initiator.
    pub fn other<T>(&mut self, host: usize, f: impl FnOnce(&mut Rig) -> T) -> T {
        let before = core::mem::replace(&mut self.host, host);
        let result = f(self);
        self.host = before;
        result
    }

    /// Runs a command that must end GOOD; its data.
    pub fn good(&mut self, cdb: &str, data: &[u8]) -> Vec<u8> {
        let ended = self.run(cdb, data);
        assert_eq!((ended.status, ended.sense), (0, None), "{cdb}");
        ended.data
    }

    /// Runs a command that must end with CHECK CONDITION.
    pub fn fails(&mut self, cdb: &str, data: &[u8], key: Key, asc: Asc) {
        let ended = self.run(cdb, data);
        assert_eq!((ended.status, ended.sense), (2, Some((key, asc))), "{cdb}");
    }
}
