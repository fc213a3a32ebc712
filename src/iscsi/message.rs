//! What the targets of different cores tell each other. A session lives on the core that accepted its leading connection
//! (its TSIH names the core); its further connections are handed to that core. What ends tasks or changes a unit for
//! everybody goes to all cores and is answered by each. The application moves each message from
//! [`Target::outbox`](super::Target::outbox) to [`Target::message`](super::Target::message) of the core it is for, in order
//! per pair of cores.

use super::lu::LuEvent;
use super::session::Nexus;
use crate::base::VolumeId;
use crate::net::{Ends, Loose};
use core::net::SocketAddr;

/// What one core's target tells another's.
#[derive(Debug)]
pub enum Message {
    /// End the tasks in `scope`; answered once none of them can reach a volume any more.
    Clear {
        /// The asking core's name for it.
        token: u32,
        /// Which tasks.
        scope: Scope,
        /// Why.
        why: Why,
    },
    /// A unit was changed by a command; answered once the change is taken over.
    Change {
        /// The asking core's name for it.
        token: u32,
        /// Index of the target node.
        target: u32,
        /// The unit.
        lun: u16,
        /// What happened.
        event: LuEvent,
    },
    /// A connection whose first login request names a session of the other core. Not answered.
    Connection(Box<Moved>),
    /// The answer to `Clear` and `Change`.
    Cleared {
        /// As it was asked with.
        token: u32,
    },
}

/// A connection on its way to the core of its session.
#[derive(Debug)]
pub struct Moved {
    pub(super) loose: Loose,
    /// Where it was accepted.
    pub(super) listener: SocketAddr,
    pub(super) ends: Ends,
}

/// Tasks that are ended together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those of every session of this name.
    Nexus(SessionName),
    /// Those of every session at a unit.
    Unit {
        /// Index of the target node.
        target: u32,
        /// The unit.
        lun: u16,
    },
    /// Those that have been ended already and had a request of this volume under way.
    Aborted {
        /// The volume.
        volume: VolumeId,
    },
    /// Those of every session with a target.
    Target {
        /// Index of the target node.
        target: u32,
    },
}

/// The name of a session, closed to other parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionName(pub(super) Nexus);

/// Why tasks are ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Their session was made anew.
    Reinstated,
    /// PREEMPT AND ABORT.
    Preempted,
    /// CLEAR TASK SET.
    TaskSetCleared,
    /// LOGICAL UNIT RESET or TARGET WARM RESET.
    Reset,
    /// TARGET COLD RESET: connections end, too.
    ColdReset,
}
