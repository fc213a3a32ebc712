//! Commands of several steps. A program holds what it needs between two of them; it is moved into the task's slot and
//! allocates nothing.

use super::atomic::{CompareWrite, OrWrite};
use super::begin::check;
use super::copy::Copy;
use super::lba_status::LbaStatus;
use super::long::Long;
use super::mode::{Select, StartStop};
use super::partial::Partial;
use super::reserve::{Change, Legacy};
use super::same::WriteSame;
use super::sanitize::Sanitize;
use super::unmap::Unmap;
use super::verify::{Check, Same, WriteVerify};
use super::{Cx, End, LuEvent};
use crate::base::{Status, VolumeId};
use crate::mem::{Buf, Pool};
use crate::volume::reserve::{Op, Refused};
use crate::volume::{Detail, Kind};
use crate::wire::scsi::{Key, Sense, asc};

/// What a program wants next.
#[derive(Debug)]
pub enum Step {
    /// One block request; its end comes back as [`Event::Io`].
    Io {
        /// The volume: the unit's own, or the other one of a copy.
        volume: VolumeId,
        /// What to do.
        kind: Kind,
        /// First block.
        lba: u64,
        /// Blocks; of a `CompareWrite` those that are compared.
        blocks: u32,
        /// FUA.
        fua: bool,
        /// Exactly the blocks' bytes for Write and Compare, twice that for `CompareWrite`; consumed.
        payload: Option<Buf>,
    },
    /// A part of the command's data, which goes to the initiator at once; [`Event::Sent`] when there is room for more.
    Send {
        /// As many bytes, behind those that were sent before.
        data: Buf,
        /// Bytes that the command has for the initiator in all, for the residual count.
        total: u32,
    },
    /// The next so many bytes of the command's data are asked for, at most one request's; [`Event::Data`].
    Take(u32),
    /// A change of the volume's reservations, for the control plane; [`Event::Reserved`] once every core has it, or
    /// [`Event::Done`] once the tasks that it aborted are over, too.
    Reserve(Op),
    /// A change that every core must see; [`Event::Done`] once all have it.
    Lu(LuEvent),
    /// From now on the program goes on without its command: neither task management nor the end of the session ends it.
    /// The caller keeps it in a list of its own and resumes it with [`Event::Done`]. An end given here is the command's;
    /// without one the command ends with the program, if it is still there.
    Detach(Option<End>),
    /// [`Event::Again`] after this many milliseconds.
    Pause(u32),
    /// Buffers are short: [`Event::Again`] next turn.
    Later,
    /// The end.
    End(End),
}

/// What a program waited for.
#[derive(Debug)]
pub enum Event {
    /// A block request ended.
    Io {
        /// How.
        status: Status,
        /// What the kind says besides.
        detail: Detail,
        /// A Read's data.
        buf: Option<Buf>,
    },
    /// A part of the data is on its way.
    Sent {
        /// Bytes that the initiator still takes.
        room: u32,
    },
    /// The data that was asked for.
    Data(Buf),
    /// A change of reservations was applied and is known to all cores, or was refused.
    Reserved(Result<(), Refused>),
    /// A change is known to all cores; the program was detached.
    Done,
    /// Time to try again.
    Again,
}

impl Event {
    /// The buffer that it brings.
    pub fn into_buf(self) -> Option<Buf> {
        match self {
            Event::Io { buf, .. } => buf,
            Event::Data(buf) => Some(buf),
            Event::Sent { .. } | Event::Reserved(_) | Event::Done | Event::Again => None,
        }
    }
}

/// What every kind of program does.
pub(super) trait Run {
    /// With the data of the command.
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step;
    /// With what it waited for.
    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step;
    /// Its buffers go back.
    fn cancel(self, pool: &mut Pool);
}

/// A command under way. It belongs to the volume that its unit had when it began: should the unit get another one, the
/// program ends.
#[derive(Debug)]
pub struct Program {
    steps: Steps,
    volume: VolumeId,
}

/// Names every kind once.
macro_rules! programs {
    ($($kind:ident),* $(,)?) => {
        #[derive(Debug)]
        pub(super) enum Steps {
            $($kind($kind),)*
            /// It has been given up; its buffers are back.
            Over,
        }

        $(impl From<$kind> for Steps {
            fn from(program: $kind) -> Steps {
                Steps::$kind(program)
            }
        })*

        impl Program {
            /// Starts, with the data that came from the initiator: as many bytes as [`super::Begin::Program`] asked
            /// for, or fewer.
            pub fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
                if cx.unit.volume() != self.volume {
                    return self.strand(data, cx);
                }
                match &mut self.steps {
                    $(Steps::$kind(program) => program.start(data, cx),)*
                    Steps::Over => panic!("a program starts once"),
                }
            }

            /// Goes on after what the last step asked for.
            pub fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
                if cx.unit.volume() != self.volume {
                    return self.strand(event.into_buf(), cx);
                }
                match &mut self.steps {
                    $(Steps::$kind(program) => program.resume(event, cx),)*
                    Steps::Over => panic!("a program that has ended has no steps"),
                }
            }

            /// Gives the program up: its buffers go back. Nothing that it asked for may be under way any more.
            pub fn cancel(self, pool: &mut Pool) {
                match self.steps {
                    $(Steps::$kind(program) => program.cancel(pool),)*
                    Steps::Over => {}
                }
            }
        }
    };
}

programs!(
    Change,
    Check,
    CompareWrite,
    Copy,
    LbaStatus,
    Legacy,
    Long,
    OrWrite,
    Partial,
    Same,
    Sanitize,
    Select,
    StartStop,
    Unmap,
    WriteSame,
    WriteVerify,
);

impl Program {
    /// A program that is not bound to a volume yet.
    pub(super) fn new(program: impl Into<Steps>) -> Program {
        Program { steps: program.into(), volume: VolumeId(0) }
    }

    /// Binds it to the volume of its unit.
    pub(super) fn bind(&mut self, volume: VolumeId) {
        self.volume = volume;
    }

    /// The unit has another volume now: nothing of the command must reach that one.
    fn strand(&mut self, brought: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        cx.pool.put_all(brought);
        let steps = core::mem::replace(&mut self.steps, Steps::Over);
        Program { steps, volume: self.volume }.cancel(cx.pool);
        Step::End(check(cx, Sense::new(Key::AbortedCommand, asc::INQUIRY_CHANGED)))
    }
}

/// A request of the unit's own volume without payload.
pub(super) fn access(cx: &Cx<'_>, kind: Kind, lba: u64, blocks: u32) -> Step {
    Step::Io { volume: cx.unit.volume(), kind, lba, blocks, fua: false, payload: None }
}

/// The end of the request that a program waited for.
pub(super) fn io(event: Event) -> (Status, Detail, Option<Buf>) {
    match event {
        Event::Io { status, detail, buf } => (status, detail, buf),
        other => panic!("a request's end was due, not {other:?}"),
    }
}
