//! The threads of the data path. One reactor per CPU, pinned; each owns a [`Core`] and calls its `tick` for ever. Cores
//! exchange messages through bounded rings, and nothing else is shared. The control thread takes part in the exchange,
//! starts and stops the reactors, and reads their clocks.
//!
//! A reactor that finds no work spins for a while, then sleeps on everything that could bring work: the core's file
//! descriptors, its mailbox, its next deadline. A busy one never sleeps.

mod clock;
mod control;
mod cpus;
mod idle;
mod mailbox;
mod rest;
mod run;
mod stage;
#[cfg(test)]
mod tests;
mod wheel;

pub use clock::Clock;
pub use control::{ControlReceiver, ControlSender, CoreStats, Reactors, StageTime, Stuck};
pub use cpus::{CpuListError, check_cpus, parse_cpus};
pub use idle::{SPIN_MAX_NS, SPIN_MIN_NS};
pub use mailbox::{BATCH, Peer};
pub use run::{Builder, StartError, Started, Turn, start};
pub use stage::{STAGES_MAX, Stall};
pub use wheel::{TICK_NS, TimerId, Wheel};

use crate::base::Time;
use std::os::fd::RawFd;

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Nothing to do was found.
    Idle,
    /// Something was done; the next turn follows at once.
    Busy,
    /// Asked to stop ([`Turn::stopping`]), and nothing of this core's own is left to finish. It is still ticked, because
    /// others may need its answers, until all cores have said so and no message is under way. After that a core must
    /// not begin anything by itself.
    Finished,
}

/// What runs on a reactor. It is built and dropped on the reactor's own thread and needs not be `Send`.
pub trait Core {
    /// What cores and the control thread tell each other.
    type Message: Send + 'static;
    /// The stages of a tick, for [`Turn::stage`] and the stall detector; 1..=[`STAGES_MAX`]. Every turn begins in the
    /// first.
    const STAGES: &'static [&'static str];
    /// One turn: receive, do, send; bounded in time.
    fn tick(&mut self, turn: &mut Turn<'_, Self::Message>) -> Work;
    /// Adds the file descriptors whose readability ends a sleep. False when something has to be polled, so that the
    /// core must not sleep at all.
    fn wait_fds(&self, fds: &mut Vec<RawFd>) -> bool;
    /// When `tick` has something to do without any outside event: the earliest of its timers, delays and bounds.
    fn next_deadline(&self) -> Option<Time>;
}

/// Whether an idle reactor sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Poll {
    /// Never.
    Always,
    /// After a spin that adapts to how soon work comes back: [`SPIN_MIN_NS`]..=[`SPIN_MAX_NS`].
    #[default]
    Adaptive,
}

/// How the reactors run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The CPU of each reactor ([`parse_cpus`]).
    pub cpus: Vec<usize>,
    /// Whether they sleep.
    pub poll: Poll,
    /// Nanoseconds a stage may hold its core before it counts as a stall.
    pub stall_ns: u64,
    /// Messages each ring between two participants holds.
    pub mailbox: usize,
}

impl Config {
    /// The defaults, on these CPUs.
    pub fn new(cpus: Vec<usize>) -> Config {
        Config { cpus, poll: Poll::Adaptive, stall_ns: 10_000_000, mailbox: crate::base::limits::MAILBOX }
    }
}
