//! SANITIZE (SBC-3, 5.24 and 4.11): the whole medium is made unreadable. Once it has begun it goes on without its
//! command, through task management and the end of the session, until the last block is done; every other access to the
//! medium fails meanwhile. Overwriting is paced, so that it leaves the core and the medium to the other units.

use super::begin::{Begun, check, writable};
use super::finish::{SHORT_DATA, failed};
use super::program::{Program, Run, access};
use super::same::pattern;
use super::state::Obstacle;
use super::{Begin, Cx, End, Event, LuEvent, Step, Unit};
use crate::base::Status;
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::op::sa;
use crate::wire::scsi::{Cdb, Key, Sense, asc, be16};

/// Bytes of one piece of an overwrite.
const PIECE_BYTES: u32 = 128 << 10;
/// Pieces between two pauses, and the length of a pause, ms: at most 64 MiB a second.
const PIECES_PER_PAUSE: u32 = 8;
const PAUSE_MS: u32 = 16;
/// Bytes of one piece of an erase.
const ERASE_BYTES: u64 = 256 << 20;
/// Pieces between two reports of progress to the cores.
const PIECES_PER_REPORT: u32 = 64;

/// Bytes before the initialization pattern.
const HEADER: usize = 4;

/// True when a write takes the place of the old data, so that overwriting makes it unreadable. Where space is allocated on
/// write the new data goes elsewhere: such a volume can only be erased.
pub(super) fn overwrites(unit: &Unit) -> bool {
    !unit.info.thin
}

/// Begins a SANITIZE.
pub(super) fn sanitize(cx: &Cx<'_>, cdb: &Cdb) -> Begun {
    // Reserved: bit 6 of byte 1 and bytes 2 to 6.
    if cdb[1] & 0x40 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    if let Some(at) = cdb[2..7].iter().position(|b| *b != 0) {
        return Err(Sense::cdb_field(2 + at as u16).into());
    }
    let (action, len) = (cdb[1] & 0x1f, be16(cdb, 7));
    if action == sa::OVERWRITE && !overwrites(cx.unit) {
        return Err(Sense::cdb_field(1).into());
    }
    let size = cx.unit.info.block_size as usize;
    let fits = match action {
        sa::OVERWRITE => (HEADER + 1..=HEADER + size).contains(&usize::from(len)),
        _ => len == 0,
    };
    if !fits {
        return Err(Sense::cdb_field(7).into());
    }
    if action == sa::EXIT_FAILURE {
        return match cx.state.obstacle() {
            Some(Obstacle::SanitizeFailed(true)) => Ok(Begin::Program(Program::new(Sanitize::LEAVE), 0)),
            Some(_) => Err(Sense::cdb_field(1).into()),
            None => Ok(Begin::End(End::GOOD)),
        };
    }
    writable(cx)?;
    let program = Sanitize {
        overwrite: action == sa::OVERWRITE,
        want: len,
        immediate: cdb[1] & 0x80 != 0,
        may_exit: cdb[1] & 0x20 != 0,
        stage: Stage::Begun,
        ..Sanitize::LEAVE
    };
    Ok(Begin::Program(Program::new(program), u32::from(len)))
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The cores are told.
    Begun,
    /// It is taken off its command.
    Detaching,
    /// Blocks are done.
    Working,
    /// Everything reaches the medium.
    Flushing,
    /// The cores are told that it ended.
    Ending,
}

/// A SANITIZE under way.
#[derive(Debug)]
pub(super) struct Sanitize {
    overwrite: bool,
    want: u16,
    immediate: bool,
    /// AUSE.
    may_exit: bool,
    /// One block of the pattern.
    block: Option<Buf>,
    /// INVERT: every second pass writes the complement.
    invert: bool,
    stage: Stage,
    /// OVERWRITE COUNT, and passes done.
    passes: u8,
    pass: u8,
    lba: u64,
    /// Blocks of the request under way.
    blocks: u32,
    pieces: u32,
    failure: Option<Status>,
}

impl Sanitize {
    /// EXIT FAILURE MODE: nothing but the end.
    const LEAVE: Sanitize = Sanitize {
        overwrite: false,
        want: 0,
        immediate: false,
        may_exit: false,
        block: None,
        invert: false,
        stage: Stage::Ending,
        passes: 1,
        pass: 0,
        lba: 0,
        blocks: 0,
        pieces: 0,
        failure: None,
    };

    /// Reads the parameter list of an overwrite: one block of the pattern.
    fn read(&mut self, list: &[u8], cx: &mut Cx<'_>) -> Result<Option<Buf>, Sense> {
        let bad = Sense::illegal(asc::INVALID_FIELD_IN_PARAMETERS);
        if list.len() != usize::from(self.want) {
            return Err(SHORT_DATA);
        }
        self.passes = list[0] & 0x1f;
        self.invert = list[0] & 0x80 != 0;
        let len = usize::from(be16(list, 2));
        let size = cx.unit.info.block_size as usize;
        if self.passes == 0 || len == 0 || len > size || len + HEADER > list.len() {
            return Err(bad);
        }
        Ok(pattern(cx.pool, &list[HEADER..HEADER + len], size))
    }

    fn progress(&self, cx: &Cx<'_>) -> LuEvent {
        let all = u128::from(cx.unit.info.blocks.max(1)) * u128::from(self.passes);
        let done = u128::from(self.pass) * u128::from(cx.unit.info.blocks) + u128::from(self.lba);
        LuEvent::Sanitizing(Some((done * 65535 / all) as u16))
    }

    fn work(&mut self, cx: &mut Cx<'_>) -> Step {
        let left = cx.unit.info.blocks - self.lba.min(cx.unit.info.blocks);
        if left == 0 {
            (self.pass, self.lba) = (self.pass + 1, 0);
            if self.pass >= self.passes {
                self.stage = Stage::Flushing;
                return access(cx, Kind::Flush, 0, 0);
            }
            if self.invert
                && let Some(block) = &mut self.block
            {
                block.iter_mut().for_each(|b| *b = !*b);
            }
            return self.work(cx);
        }
        let size = cx.unit.info.block_size;
        let Some(block) = &self.block else {
            self.blocks = left.min(ERASE_BYTES / u64::from(size)) as u32;
            return access(cx, Kind::Deallocate, self.lba, self.blocks);
        };
        self.blocks = left.min(u64::from(PIECE_BYTES / size)) as u32;
        let Some(buf) = pattern(cx.pool, block, (self.blocks * size) as usize) else { return Step::Later };
        let (volume, kind, lba) = (cx.unit.volume(), Kind::Write, self.lba);
        Step::Io { volume, kind, lba, blocks: self.blocks, fua: false, payload: Some(buf) }
    }

    fn ended(&mut self, cx: &mut Cx<'_>) -> Step {
        cx.pool.put_all(self.block.take());
        self.stage = Stage::Ending;
        Step::Lu(match self.failure {
            None => LuEvent::Sanitizing(None),
            Some(_) => LuEvent::SanitizeFailed { may_exit: self.may_exit },
        })
    }
}

impl Run for Sanitize {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        if self.overwrite {
            let read = self.read(data.as_deref().unwrap_or_default(), cx);
            cx.pool.put_all(data);
            match read {
                Ok(Some(block)) => self.block = Some(block),
                Ok(None) => return Step::End(End::BUSY),
                Err(sense) => return Step::End(check(cx, sense)),
            }
        } else {
            cx.pool.put_all(data);
        }
        Step::Lu(LuEvent::Sanitizing((self.stage == Stage::Begun).then_some(0)))
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        match (self.stage, event) {
            (Stage::Begun, _) => {
                self.stage = Stage::Detaching;
                Step::Detach(self.immediate.then_some(End::GOOD))
            }
            (Stage::Detaching, _) => {
                self.stage = Stage::Working;
                self.work(cx)
            }
            (Stage::Working | Stage::Flushing, Event::Io { status, buf, .. }) if !status.is_ok() => {
                cx.pool.put_all(buf);
                if status == Status::Busy {
                    return Step::Pause(PAUSE_MS);
                }
                self.failure = Some(status);
                self.ended(cx)
            }
            (Stage::Working, Event::Io { .. }) => {
                self.lba += u64::from(self.blocks);
                self.pieces += 1;
                if self.pieces.is_multiple_of(PIECES_PER_REPORT) {
                    return Step::Lu(self.progress(cx));
                }
                if self.overwrite && self.pieces.is_multiple_of(PIECES_PER_PAUSE) {
                    return Step::Pause(PAUSE_MS);
                }
                self.work(cx)
            }
            (Stage::Working, Event::Done) if self.overwrite => Step::Pause(PAUSE_MS),
            (Stage::Working, _) => self.work(cx),
            (Stage::Flushing, Event::Io { .. }) => self.ended(cx),
            (Stage::Flushing, _) => access(cx, Kind::Flush, 0, 0),
            (Stage::Ending, _) => Step::End(match self.failure {
                None => End::GOOD,
                Some(status) => match failed(cx.state, Kind::Write, status, crate::volume::Detail::NONE) {
                    End { sense: Some(sense), .. } if sense.key == Key::DataProtect => End::check(sense),
                    _ => check(cx, Sense::new(Key::MediumError, asc::SANITIZE_FAILED)),
                },
            }),
        }
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.block);
    }
}
