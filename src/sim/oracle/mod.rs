//! What a reader of the store may see: a register for every logical block and every volume, told of each request and
//! of each answer, and asked about each read.
//!
//! The host calls [`Oracle::write`] and its like when it submits, [`Oracle::ack`] when it is answered. Each call is
//! one tick and carries the number of medium events so far, so that [`Oracle::at`] can say what was promised at any
//! crash point of a recorded run. Registers are per logical block of the volume, so a block that holds sectors of two
//! writes is torn, whatever the writes were.

mod register;

pub use register::{Register, Tick};

use super::SECTOR;
use super::pattern::{Found, Pattern};
use crate::base::VolumeId;
use std::collections::BTreeMap;
use std::fmt;

/// What a volume looks like from outside, as far as it must survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Size, bytes.
    pub bytes: u64,
    /// Bytes per logical block: 512 or 4096.
    pub lba: u32,
    /// Stands for everything else that may be changed (the name); counts changes.
    pub revision: u32,
}

/// The number of a request that changes something; 1 or more.
pub type OpId = u32;

#[derive(Clone, Copy, Debug)]
enum Ask {
    /// `blocks` logical blocks from `first` on.
    Blocks { volume: VolumeId, first: u64, blocks: u64 },
    /// The volume itself; with a shrink, the blocks from `cut_off` on.
    Volume { volume: VolumeId, cut_off: u64 },
}

#[derive(Clone)]
struct Volume {
    lba: u32,
    shape: Register<Option<Shape>>,
    blocks: BTreeMap<u64, Register<u32>>,
}

/// What was read where it could not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// A value that is not possible (any more, or yet); `known` says that it once was.
    Value {
        /// The write found, 0 for zeroes.
        found: u32,
        /// Whether it was ever written there.
        known: bool,
    },
    /// Sectors of different writes in one logical block.
    Torn(Vec<Found>),
    /// Data of another place, or of nobody.
    Foreign(Found),
    /// The volume is not what it may be.
    Shape(Option<Shape>),
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Where.
    pub volume: VolumeId,
    /// The logical block; 0 for a shape.
    pub block: u64,
    /// What was found.
    pub wrong: Wrong,
    /// The writes that would have been right (0 stands for zeroes), or the shapes as text.
    pub possible: Vec<String>,
    /// [`Register::history`] of the block or volume.
    pub history: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {} block {}: ", self.volume.0, self.block)?;
        match &self.wrong {
            Wrong::Value { found, known: true } => write!(f, "holds write {found}, which went away")?,
            Wrong::Value { found, known: false } => write!(f, "holds write {found}, which was never asked for here")?,
            Wrong::Torn(sectors) => write!(f, "is torn: {sectors:?}")?,
            Wrong::Foreign(found) => write!(f, "holds {found:?}")?,
            Wrong::Shape(shape) => write!(f, "has shape {shape:?}")?,
        }
        write!(f, "; possible: {}; history: {}", self.possible.join(", "), self.history)
    }
}

impl std::error::Error for Violation {}

/// How exact a reader's data must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// One of the possible values.
    Exact,
    /// Any value the block ever was given: the medium lied about a flush, and nothing on it can tell.
    EverWritten,
}

/// The memory of everything promised.
#[derive(Clone)]
pub struct Oracle {
    pattern: Pattern,
    volumes: BTreeMap<VolumeId, Volume>,
    asks: Vec<Ask>,
    stamps: Vec<u64>,
}

impl Oracle {
    /// Nothing exists.
    pub fn new(pattern: Pattern) -> Oracle {
        Oracle { pattern, volumes: BTreeMap::new(), asks: Vec::new(), stamps: vec![0] }
    }

    /// The tick of the next call; `stamp` is the number of medium events so far.
    fn tick(&mut self, stamp: u64) -> Tick {
        assert!(self.stamps.last().is_some_and(|last| *last <= stamp), "medium events are only ever added");
        self.stamps.push(stamp);
        self.stamps.len() as Tick - 1
    }

    fn ask(&mut self, ask: Ask) -> OpId {
        self.asks.push(ask);
        self.asks.len() as OpId
    }

    /// A volume is asked to be: created, renamed or resized. Blocks past a smaller end become zeroes.
    pub fn shape(&mut self, stamp: u64, volume: VolumeId, shape: Shape) -> OpId {
        let now = self.tick(stamp);
        let cut_off = shape.bytes / u64::from(shape.lba);
        let op = self.ask(Ask::Volume { volume, cut_off });
        let book = self.volumes.entry(volume).or_insert_with(|| Volume {
            lba: shape.lba,
            shape: Register::new(None),
            blocks: BTreeMap::new(),
        });
        assert_eq!(book.lba, shape.lba, "the logical block size of a volume never changes");
        book.shape.submit(op, Some(shape), now);
        for register in book.blocks.range_mut(cut_off..).map(|(_, r)| r) {
            register.submit(op, 0, now);
        }
        op
    }

    /// A volume is asked to be deleted.
    pub fn delete(&mut self, stamp: u64, volume: VolumeId) -> OpId {
        let now = self.tick(stamp);
        let op = self.ask(Ask::Volume { volume, cut_off: u64::MAX });
        self.book(volume).shape.submit(op, None, now);
        op
    }

    /// `blocks` logical blocks from `first` on are asked to hold this operation's pattern.
    pub fn write(&mut self, stamp: u64, volume: VolumeId, first: u64, blocks: u64) -> OpId {
        let now = self.tick(stamp);
        let op = self.ask(Ask::Blocks { volume, first, blocks });
        let book = self.book(volume);
        for block in first..first + blocks {
            book.blocks.entry(block).or_insert_with(|| Register::new(0)).submit(op, op, now);
        }
        op
    }

    /// They are asked to be zeroes (a zero payload, write-zeroes, unmap).
    pub fn zero(&mut self, stamp: u64, volume: VolumeId, first: u64, blocks: u64) -> OpId {
        let now = self.tick(stamp);
        let op = self.ask(Ask::Blocks { volume, first, blocks });
        for register in self.book(volume).blocks.range_mut(first..first + blocks).map(|(_, r)| r) {
            register.submit(op, 0, now);
        }
        op
    }

    /// The operation was answered with success.
    pub fn ack(&mut self, stamp: u64, op: OpId) {
        let now = self.tick(stamp);
        self.each(op, |register| register.ack(op, now), |register| register.ack(op, now));
    }

    /// The operation was refused and certainly changes nothing. One that merely failed is left open instead.
    pub fn refuse(&mut self, stamp: u64, op: OpId) {
        let now = self.tick(stamp);
        self.each(op, |register| register.refuse(op, now), |register| register.refuse(op, now));
    }

    fn each(
        &mut self,
        op: OpId,
        on_block: impl Fn(&mut Register<u32>),
        on_shape: impl FnOnce(&mut Register<Option<Shape>>),
    ) {
        match self.asks[op as usize - 1] {
            Ask::Blocks { volume, first, blocks } => {
                self.book(volume).blocks.range_mut(first..first + blocks).for_each(|(_, r)| on_block(r));
            }
            Ask::Volume { volume, cut_off } => {
                let book = self.book(volume);
                on_shape(&mut book.shape);
                book.blocks.range_mut(cut_off..).for_each(|(_, r)| on_block(r));
            }
        }
    }

    /// A reader asks now; pass the tick to [`Oracle::read`] with what it got.
    pub fn reader(&mut self, stamp: u64) -> Tick {
        self.tick(stamp)
    }

    /// Checks what a reader that asked at `since` got from sector `sector` on, in whole logical blocks, and learns
    /// from it.
    pub fn read(
        &mut self,
        stamp: u64,
        volume: VolumeId,
        sector: u64,
        data: &[u8],
        since: Tick,
        trust: Trust,
    ) -> Result<(), Violation> {
        let now = self.tick(stamp);
        self.scan(volume, sector, data, |register, found| {
            let right = match trust {
                Trust::Exact => register.may_be(&found, since),
                Trust::EverWritten => register.ever_was(&found),
            };
            if right {
                register.seen(&found, since, now);
            }
            right
        })
    }

    /// Checks what recovery made of the blocks from `sector` on; from now on nothing else is possible there.
    pub fn recovered(
        &mut self,
        stamp: u64,
        volume: VolumeId,
        sector: u64,
        data: &[u8],
        trust: Trust,
    ) -> Result<(), Violation> {
        let now = self.tick(stamp);
        self.scan(volume, sector, data, |register, found| {
            let right = match trust {
                Trust::Exact => register.may_be(&found, now),
                Trust::EverWritten => register.ever_was(&found),
            };
            match trust {
                Trust::Exact if right => register.settle(&found, now),
                Trust::EverWritten if right => *register = Register::new(found),
                _ => {}
            }
            right
        })
    }

    fn scan(
        &mut self,
        volume: VolumeId,
        sector: u64,
        data: &[u8],
        mut right: impl FnMut(&mut Register<u32>, u32) -> bool,
    ) -> Result<(), Violation> {
        let pattern = self.pattern;
        let book = self.volumes.get_mut(&volume).expect("only volumes that were created are read");
        let per_block = book.lba as usize / SECTOR;
        assert!(data.len().is_multiple_of(book.lba as usize), "reads are whole logical blocks");
        for (i, bytes) in data.chunks_exact(book.lba as usize).enumerate() {
            let block = sector / per_block as u64 + i as u64;
            let found = match value(pattern, volume, block * per_block as u64, bytes) {
                Ok(found) => found,
                Err(wrong) => return Err(violation(volume, block, wrong, book.blocks.get(&block))),
            };
            match book.blocks.get_mut(&block) {
                Some(register) => {
                    if !right(register, found) {
                        let wrong = Wrong::Value { found, known: register.ever_was(&found) };
                        return Err(violation(volume, block, wrong, Some(register)));
                    }
                }
                None if found == 0 => {}
                None => return Err(violation(volume, block, Wrong::Value { found, known: false }, None)),
            }
        }
        Ok(())
    }

    /// Checks which volumes recovery found, and in which shape; from now on nothing else is possible.
    pub fn recovered_volumes(
        &mut self,
        stamp: u64,
        found: &BTreeMap<VolumeId, Shape>,
        trust: Trust,
    ) -> Result<(), Violation> {
        let now = self.tick(stamp);
        for (id, shape) in found {
            if !self.volumes.contains_key(id) {
                let (volume, wrong) = (*id, Wrong::Shape(Some(*shape)));
                return Err(Violation { volume, block: 0, wrong, possible: Vec::new(), history: String::new() });
            }
        }
        for (id, book) in &mut self.volumes {
            let shape = found.get(id).copied();
            if trust == Trust::EverWritten && book.shape.ever_was(&shape) {
                book.shape = Register::new(shape);
                continue;
            }
            if !book.shape.may_be(&shape, now) {
                let possible = book.shape.possible().map(|s| format!("{s:?}")).collect();
                let (wrong, history) = (Wrong::Shape(shape), book.shape.history());
                return Err(Violation { volume: *id, block: 0, wrong, possible, history });
            }
            let undecided: Vec<OpId> = book.shape.open().collect();
            book.shape.settle(&shape, now);
            // An open resize has now happened or not, and its effect on the blocks with it: all or nothing.
            let happened = book.shape.last_op();
            for register in book.blocks.values_mut() {
                for op in &undecided {
                    if happened < *op { register.refuse(*op, now) } else { register.ack(*op, now) }
                }
            }
        }
        Ok(())
    }

    /// The volumes that certainly exist, with their shapes. Volumes with an open request are left out.
    pub fn volumes(&self) -> impl Iterator<Item = (VolumeId, Shape)> {
        self.volumes.iter().filter(|(_, book)| book.shape.settled()).filter_map(|(id, book)| {
            let shape = (*book.shape.possible().next()?)?;
            Some((*id, shape))
        })
    }

    /// The logical blocks of a volume that were ever written, ascending.
    pub fn touched(&self, volume: VolumeId) -> impl Iterator<Item = u64> {
        self.volumes.get(&volume).into_iter().flat_map(|book| book.blocks.keys().copied())
    }

    /// What was promised when `cut` medium events had happened: requests and answers that came later are forgotten.
    #[must_use]
    pub fn at(&self, cut: u64) -> Oracle {
        let ticks = self.stamps.partition_point(|stamp| *stamp <= cut);
        let last = ticks as Tick - 1;
        let volumes = self.volumes.iter().map(|(id, book)| {
            let blocks = book.blocks.iter().map(|(block, register)| (*block, register.at(last))).collect();
            (*id, Volume { lba: book.lba, shape: book.shape.at(last), blocks })
        });
        Oracle {
            pattern: self.pattern,
            volumes: volumes.collect(),
            asks: self.asks.clone(),
            stamps: self.stamps[..ticks].to_vec(),
        }
    }

    /// Medium events start again at 0: a new disk holds what recovery found.
    pub fn restart(&mut self) {
        self.stamps.fill(0);
    }

    fn book(&mut self, volume: VolumeId) -> &mut Volume {
        self.volumes.get_mut(&volume).expect("a volume is created before it is used")
    }
}

/// The one write all sectors of a logical block are of.
fn value(pattern: Pattern, volume: VolumeId, first: u64, bytes: &[u8]) -> Result<u32, Wrong> {
    let sectors = || bytes.chunks_exact(SECTOR).enumerate().map(|(i, s)| pattern.find(volume.0, first + i as u64, s));
    let one = sectors().next().expect("a block has a sector");
    if !sectors().enumerate().all(|(i, s)| s.back(i as u64) == one) {
        return Err(Wrong::Torn(sectors().collect()));
    }
    match one {
        Found::Zero => Ok(0),
        Found::Write(write) => Ok(write),
        foreign => Err(Wrong::Foreign(foreign)),
    }
}

fn violation(volume: VolumeId, block: u64, wrong: Wrong, register: Option<&Register<u32>>) -> Violation {
    let possible = register.map_or(vec!["0".into()], |r| r.possible().map(u32::to_string).collect());
    Violation { volume, block, wrong, possible, history: register.map_or(String::new(), Register::history) }
}

#[cfg(test)]
mod tests;
