//! One run: a seed's workload on a seed's machine, power cuts at random, recoveries that are cut off themselves, and
//! the oracle over everything.

use super::crash::{Fates, Toll};
use super::drive::{Drive, Ending};
use super::failure::Failure;
use super::host::{Answers, Host};
use super::node::{Node, Remains, at_memory_speed, buffers_out, pool};
use super::swarm::Swarm;
use super::{DiskOptions, Image, Trace};
use crate::base::rng::Rng;
use crate::mem::Pool;
use crate::store::StoreError;
use crate::store::fsck::{self, Finding, NoStore};

/// Power cuts in a row before a recovery is left alone.
pub const DEPTH_MAX: u32 = 3;

/// What happened in one or many runs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Crash points: images left by a power cut that were recovered and read back.
    pub points: u64,
    /// Of those, ones in which a write was torn.
    pub torn: u64,
    /// Of those, ones in which a write survived an earlier one that did not.
    pub reordered: u64,
    /// Of those, ones whose recovery was cut off by another power cut.
    pub doubles: u64,
    /// Of those, ones whose second recovery was cut off too.
    pub triples: u64,
    /// Orderly stops.
    pub stops: u64,
    /// Offline checks.
    pub checks: u64,
    /// Unflushed writes by fate.
    pub toll: Toll,
    /// What the hosts saw.
    pub answers: Answers,
}

impl Tally {
    /// Adds the counts of another.
    pub fn add(&mut self, o: &Tally) {
        self.points += o.points;
        self.torn += o.torn;
        self.reordered += o.reordered;
        self.doubles += o.doubles;
        self.triples += o.triples;
        self.stops += o.stops;
        self.checks += o.checks;
        self.toll.add(o.toll);
        self.answers.add(o.answers);
    }
}

/// A workshop: the pool that goes from machine to machine, and the counts.
pub struct Bench {
    pool: Option<Pool>,
    /// Counts of all runs.
    pub tally: Tally,
    /// Everything that happened, in order.
    pub trace: Trace,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// An empty one.
    pub fn new() -> Bench {
        Bench { pool: None, tally: Tally::default(), trace: Trace::new() }
    }

    fn pool(&mut self) -> Pool {
        // A run that panicked took its pool with it.
        self.pool.take().unwrap_or_else(pool)
    }

    /// A machine whose disk is being formatted.
    pub fn format(&mut self, swarm: &Swarm, seed: u64) -> Node {
        Node::format(swarm, self.pool(), seed)
    }

    /// A machine that recovers from `image`.
    pub fn open(&mut self, swarm: &Swarm, image: Image, options: DiskOptions, seed: u64) -> Node {
        Node::open(swarm, image, options, self.pool(), seed)
    }

    /// Switches a machine off: folds what happened into the trace, takes its buffers back, gives the rest.
    pub fn off(&mut self, node: Node, host: &mut Host) -> Result<Remains, Failure> {
        let (remains, pool) = node.off();
        self.trace.all(&[remains.trace, host.trace(), remains.events]);
        host.lost_power();
        let buffers = buffers_out(&pool);
        if buffers > 0 {
            return Err(Failure::Leak { buffers });
        }
        self.pool = Some(pool);
        Ok(remains)
    }

    /// The offline checker finds nothing on `image`.
    pub fn check(&mut self, image: &Image) -> Result<(), Failure> {
        match self.findings(image).map(|findings| findings.first().copied()) {
            Ok(None) => Ok(()),
            Ok(Some(finding)) => Err(Failure::Fsck(finding)),
            Err(why) => Err(Failure::NoStore(why)),
        }
    }

    /// What the offline checker finds on `image`.
    pub fn findings(&mut self, image: &Image) -> Result<Vec<Finding>, NoStore> {
        self.tally.checks += 1;
        let read = |offset: u64, into: &mut [u8]| {
            image.read(offset, into);
            Ok(())
        };
        fsck::check(image.size(), read, |_, _| {}).map(|report| report.findings)
    }

    /// The offline checker must not call an image clean on which the store refused (`error`) or could not read
    /// something.
    pub fn check_sees(&mut self, image: &Image, error: Option<StoreError>) -> Result<(), Failure> {
        let clean = self.findings(image).is_ok_and(|findings| findings.is_empty());
        if clean { Err(Failure::FsckBlind(error)) } else { Ok(()) }
    }

    /// Takes a machine through recovery of `image`, with up to [`DEPTH_MAX`] power cuts on the way, and reads
    /// everything back. Gives the machine, serving.
    pub fn recover(
        &mut self,
        swarm: &Swarm,
        mut image: Image,
        host: &mut Host,
        rng: &mut Rng,
    ) -> Result<Node, Failure> {
        let mut cuts = 0;
        loop {
            let options = if rng.chance(60) { at_memory_speed(swarm.disk) } else { swarm.disk };
            let mut node = self.open(swarm, image, options, rng.next_u64());
            let again = cuts + 1 < DEPTH_MAX && rng.chance(35);
            let power_until = if again { 1 + rng.below(12) } else { u64::MAX };
            let mut drive = Drive { node: &mut node, host, power_until };
            let ending = drive.start()?;
            if ending == Ending::PowerCut {
                cuts += 1;
                image = self.cut(node, host, rng)?.0;
                continue;
            }
            self.tally.doubles += u64::from(cuts >= 1);
            self.tally.triples += u64::from(cuts >= 2);
            drive = Drive { node: &mut node, host, power_until: u64::MAX };
            drive.verify()?;
            return Ok(node);
        }
    }

    /// Pulls the plug: what is left on the disk is drawn.
    pub fn cut(&mut self, node: Node, host: &mut Host, rng: &mut Rng) -> Result<(Image, Toll), Failure> {
        let medium = self.off(node, host)?.medium;
        let (image, toll) = Fates::draw(&medium, rng).cut(&medium);
        self.trace.all(&[toll.kept, toll.dropped, toll.torn]);
        self.tally.toll.add(toll);
        Ok((image, toll))
    }

    /// Counts a crash point.
    pub fn point(&mut self, toll: Toll) {
        self.tally.points += 1;
        self.tally.torn += toll.torn_cuts;
        self.tally.reordered += toll.reordered;
    }

    /// Does `work` and makes a panic of it a failure.
    pub fn guard(&mut self, work: impl FnOnce(&mut Bench) -> Result<(), Failure>) -> Result<(), Failure> {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self)));
        caught.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            Err(Failure::Panic(text.unwrap_or("of unknown kind").to_owned()))
        })
    }

    /// The whole run of a seed.
    pub fn run(&mut self, seed: u64) -> Result<(), Failure> {
        let swarm = Swarm::draw(seed);
        self.run_swarm(&swarm)
    }

    /// The whole run of a swarm.
    pub fn run_swarm(&mut self, swarm: &Swarm) -> Result<(), Failure> {
        let mut rng = Rng::new(swarm.seed ^ 0x7275_6e21);
        let mut host = Host::new(swarm);
        let mut node = self.format(swarm, rng.next_u64());
        Drive { node: &mut node, host: &mut host, power_until: u64::MAX }.start()?;
        let rounds = 1 + rng.below(6) as u32;
        for _ in 0..rounds {
            let power_until = node.disk.events() + 1 + rng.below(u64::from(swarm.requests) * 4);
            let mut drive = Drive { node: &mut node, host: &mut host, power_until };
            let ending = drive.load(swarm.requests / rounds, swarm.depth, &mut rng)?;
            node = self.next_life(swarm, node, &mut host, ending, &mut rng)?;
        }
        self.finish(swarm, node, &mut host)
    }

    /// An orderly stop or a power cut, then recovery.
    fn next_life(
        &mut self,
        swarm: &Swarm,
        mut node: Node,
        host: &mut Host,
        ending: Ending,
        rng: &mut Rng,
    ) -> Result<Node, Failure> {
        let image = if ending == Ending::Reached && rng.chance(30) {
            self.tally.stops += 1;
            Drive { node: &mut node, host, power_until: u64::MAX }.stop()?;
            let remains = self.off(node, host)?;
            // Everything acknowledged is durable already; the cache may or may not go the same way.
            if rng.chance(50) { remains.cache } else { remains.medium.durable().clone() }
        } else {
            let (image, toll) = self.cut(node, host, rng)?;
            self.point(toll);
            image
        };
        if rng.chance(25) {
            self.check(&image)?;
        }
        self.recover(swarm, image, host, rng)
    }

    /// Quiet, checkpoint, off, offline check, and one last look at everything.
    fn finish(&mut self, swarm: &Swarm, mut node: Node, host: &mut Host) -> Result<(), Failure> {
        let mut drive = Drive { node: &mut node, host, power_until: u64::MAX };
        drive.stop()?;
        drive.verify()?;
        let image = self.off(node, host)?.cache;
        self.check(&image)?;
        let mut node = self.open(swarm, image, at_memory_speed(swarm.disk), swarm.seed);
        let mut drive = Drive { node: &mut node, host, power_until: u64::MAX };
        drive.start()?;
        drive.verify()?;
        self.off(node, host)?;
        self.tally.answers.add(host.answers());
        Ok(())
    }
}

/// What of a store error an offline check must confirm: damage, not a limit or a device error.
pub fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged { .. } | StoreError::Hole { .. } | StoreError::Superblock(_))
}
