//! Taking a machine and its host from one state to the next: until it serves, until so many requests were made, until
//! everything is quiet, until everything was read back. Each stops early when the medium has seen so many events, which
//! is where the power goes.

use super::failure::Failure;
use super::host::Host;
use super::node::Node;
use crate::base::rng::Rng;
use crate::device::Queue;
use crate::store::{Ended, Phase, StoreError};

/// Turns in a row in which nothing happens although something waits, until a run counts as stuck: a second of
/// simulated time, fifty times the longest wait of the store for anything but the device.
const IDLE_MAX: u32 = 1_100;
/// Turns in which background work alone may keep a quiet machine busy.
const QUIET_MAX: u32 = 20_000;

/// Why a stage ended.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Ending {
    /// What was wanted is reached.
    Reached,
    /// The medium has seen the number of events at which the power goes.
    PowerCut,
    /// A slice failed or died, and that is tolerated.
    Broken(StoreError),
}

/// A machine, its host, and the end of its power.
pub struct Drive<'a> {
    /// The machine.
    pub node: &'a mut Node,
    /// Its host.
    pub host: &'a mut Host,
    /// The number of medium events at which the power goes; `u64::MAX` is never.
    pub power_until: u64,
}

impl Drive<'_> {
    fn turn(&mut self, ended: &mut Vec<Ended>) -> Result<(), Failure> {
        self.node.turn(ended);
        for end in ended.drain(..) {
            self.host.ended(self.node, end)?;
        }
        Ok(())
    }

    /// How the stage ends now, if it does for other reasons than its own.
    fn early(&self) -> Result<Option<Ending>, Failure> {
        if self.node.disk.events() >= self.power_until {
            return Ok(Some(Ending::PowerCut));
        }
        if let Some(error) = self.node.broken() {
            if self.host.tolerance().death {
                return Ok(Some(Ending::Broken(error)));
            }
            let failed = matches!(self.node.phase(), Phase::Failed(_));
            return Err(if failed { Failure::Refused(error) } else { Failure::Died(error) });
        }
        if self.node.idle_turns() > IDLE_MAX {
            return Err(self.stuck());
        }
        Ok(None)
    }

    fn stuck(&self) -> Failure {
        let state = self.node.slices.iter().map(|s| format!("{:?} {:?}", s.phase(), s.usage())).collect();
        Failure::Stuck { requests: self.host.open(), operations: self.node.disk.inflight(), state }
    }

    /// Until every slice serves.
    pub fn start(&mut self) -> Result<Ending, Failure> {
        let mut ended = Vec::new();
        while self.node.phase() != Phase::Ready {
            self.turn(&mut ended)?;
            if let Some(ending) = self.early()? {
                return Ok(ending);
            }
        }
        Ok(Ending::Reached)
    }

    /// Until `requests` more requests were made, at most `depth` at once.
    pub fn load(&mut self, requests: u32, depth: u32, rng: &mut Rng) -> Result<Ending, Failure> {
        let mut ended = Vec::new();
        let mut made = 0;
        while made < requests {
            let room = u64::from(depth).saturating_sub(self.host.open() as u64);
            for _ in 0..rng.below(room + 1) {
                self.host.request(self.node)?;
                made += 1;
            }
            self.turn(&mut ended)?;
            if let Some(ending) = self.early()? {
                return Ok(ending);
            }
            if self.host.later_streak() > 50_000 {
                return Err(self.stuck());
            }
        }
        Ok(Ending::Reached)
    }

    /// Until every request has ended and the slices have nothing left to do.
    pub fn settle(&mut self) -> Result<Ending, Failure> {
        let mut ended = Vec::new();
        let mut turns = 0;
        while self.host.open() > 0 || (self.node.idle_turns() < 40 && turns < QUIET_MAX) {
            self.turn(&mut ended)?;
            if let Some(ending) = self.early()? {
                return Ok(ending);
            }
            turns += 1;
        }
        Ok(Ending::Reached)
    }

    /// Until everything under way has ended and everything was read back and found as promised.
    pub fn verify(&mut self) -> Result<Ending, Failure> {
        let mut ended = Vec::new();
        while self.host.open() > 0 {
            self.turn(&mut ended)?;
            if let Some(ending) = self.early()? {
                return Ok(ending);
            }
        }
        let mut survey = self.host.survey(self.node)?;
        while !survey.is_done() || self.host.open() > 0 {
            self.host.survey_step(self.node, &mut survey)?;
            self.turn(&mut ended)?;
            if let Some(ending) = self.early()? {
                return Ok(ending);
            }
        }
        Ok(Ending::Reached)
    }

    /// An orderly stop: quiet, then a checkpoint on every slice.
    pub fn stop(&mut self) -> Result<Ending, Failure> {
        let ending = self.settle()?;
        if ending != Ending::Reached {
            return Ok(ending);
        }
        self.host.checkpoint_all(self.node)?;
        self.settle()
    }
}
