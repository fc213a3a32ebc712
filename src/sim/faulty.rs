//! Runs on a disk that does not only forget: errors, stalls and death, wrong bytes on the way up, wrong bytes behind an
//! acknowledgement, and flushes that lie. What may be expected differs: after errors nothing acknowledged is lost;
//! after corruption it may be unreadable, never wrong; after a lie it may be old, never invented.

use super::drive::{Drive, Ending};
use super::failure::Failure;
use super::fault::{Fault, Faults};
use super::host::{Host, Tolerance};
use super::node::Node;
use super::run::{Bench, is_damage};
use super::swarm::Swarm;
use super::{Image, Trust};
use crate::base::rng::Rng;

/// What is wrong with the disk of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ailment {
    /// Operations fail, hang for a while, or the device dies.
    Errors,
    /// Reads bring wrong bytes; the medium itself is sound.
    BadReads,
    /// One acknowledged write is not where or what it should be.
    BadWrite,
    /// Flushes are acknowledged and do nothing.
    LyingFlushes,
}

impl Ailment {
    /// All of them.
    pub const ALL: [Ailment; 4] = [Ailment::Errors, Ailment::BadReads, Ailment::BadWrite, Ailment::LyingFlushes];
}

const MEDIA: Tolerance = Tolerance { media: true, ..Tolerance::NONE };
const MEDIA_AND_DEATH: Tolerance = Tolerance { death: true, ..MEDIA };
const LIED_TO: Tolerance = Tolerance { trust: Trust::EverWritten, ..MEDIA_AND_DEATH };

impl Bench {
    /// The run of a seed on an ailing disk.
    pub fn faulty(&mut self, seed: u64) -> Result<(), Failure> {
        let ailment = Ailment::ALL[(seed % 4) as usize];
        self.faulty_swarm(&Swarm::draw(seed), ailment)
    }

    /// The run of a swarm on an ailing disk.
    pub fn faulty_swarm(&mut self, swarm: &Swarm, ailment: Ailment) -> Result<(), Failure> {
        let mut swarm = swarm.clone();
        // Evidence of what was durable is what tells damage from a torn tail; these runs need it written.
        swarm.limits.mark_idle_ns = swarm.limits.mark_idle_ns.max(500_000);
        let mut rng = Rng::new(swarm.seed ^ 0xfa17);
        let mut host = Host::new(&swarm);
        let mut node = self.format(&swarm, rng.next_u64());
        Drive { node: &mut node, host: &mut host, power_until: u64::MAX }.start()?;
        Drive { node: &mut node, host: &mut host, power_until: u64::MAX }.load(
            swarm.requests / 4,
            swarm.depth,
            &mut rng,
        )?;
        match ailment {
            Ailment::Errors => self.errors(&swarm, node, host, &mut rng),
            Ailment::BadReads => self.bad_reads(&swarm, node, host, &mut rng),
            Ailment::BadWrite => self.bad_write(&swarm, node, host, &mut rng),
            Ailment::LyingFlushes => self.lying_flushes(&swarm, node, host, &mut rng),
        }
    }

    /// Whatever fails, the slice goes on or stops; with a healthy disk everything acknowledged is there again.
    fn errors(&mut self, swarm: &Swarm, mut node: Node, mut host: Host, rng: &mut Rng) -> Result<(), Failure> {
        for _ in 0..3 {
            host.tolerate(MEDIA_AND_DEATH);
            node.disk.set_faults(errors(rng));
            Drive { node: &mut node, host: &mut host, power_until: u64::MAX }.load(
                swarm.requests / 4,
                swarm.depth,
                rng,
            )?;
            let (image, toll) = self.cut(node, &mut host, rng)?;
            self.point(toll);
            // A recovery that meets errors gives up or comes through; either way it must not make things worse.
            let mut ill = self.open(swarm, image, swarm.disk, rng.next_u64());
            ill.disk.set_faults(errors(rng));
            Drive { node: &mut ill, host: &mut host, power_until: u64::MAX }.start()?;
            let (image, toll) = self.cut(ill, &mut host, rng)?;
            self.point(toll);
            host.tolerate(Tolerance::NONE);
            node = self.recover(swarm, image, &mut host, rng)?;
        }
        self.off(node, &mut host)?;
        self.tally.answers.add(host.answers());
        Ok(())
    }

    /// Wrong bytes on the way up are noticed, in reads, in cleaning and in recovery.
    fn bad_reads(&mut self, swarm: &Swarm, mut node: Node, mut host: Host, rng: &mut Rng) -> Result<(), Failure> {
        let share = [2_000, 20_000, 100_000][rng.below(3) as usize];
        let faults = Faults { read_flip: share, read_misdirected: share, ..Faults::default() };
        host.tolerate(MEDIA_AND_DEATH);
        node.disk.set_faults(faults);
        let mut drive = Drive { node: &mut node, host: &mut host, power_until: u64::MAX };
        if drive.load(swarm.requests, swarm.depth, rng)? == Ending::Reached {
            drive.verify()?;
        }
        let (image, toll) = self.cut(node, &mut host, rng)?;
        self.point(toll);
        // A recovery that is shown wrong bytes refuses or sees through them.
        let mut node = self.open(swarm, image.clone(), swarm.disk, rng.next_u64());
        node.disk.set_faults(faults);
        let mut drive = Drive { node: &mut node, host: &mut host, power_until: u64::MAX };
        let ending = drive.start()?;
        if ending == Ending::Reached {
            drive.verify()?;
        }
        self.off(node, &mut host)?;
        if ending == Ending::Reached {
            return Ok(());
        }
        // It refused, so it changed nothing: on a good day it opens.
        host.tolerate(MEDIA);
        let node = self.recover(swarm, image, &mut host, rng)?;
        self.off(node, &mut host)?;
        Ok(())
    }

    /// One write is lost, moved, holed or bent after being acknowledged, and later ones go well: what it carried is
    /// refused or right, never old.
    fn bad_write(&mut self, swarm: &Swarm, mut node: Node, mut host: Host, rng: &mut Rng) -> Result<(), Failure> {
        let fault = match rng.below(4) {
            0 => Fault::BitFlip(rng.next_u64()),
            1 => Fault::Misdirected(rng.next_u64()),
            2 => Fault::Phantom,
            _ => Fault::StaleSector(rng.next_u64()),
        };
        node.disk.plan_write(node.disk.stats().writes + rng.below(u64::from(swarm.requests)), fault);
        host.tolerate(MEDIA_AND_DEATH);
        let mut drive = Drive { node: &mut node, host: &mut host, power_until: u64::MAX };
        drive.load(swarm.requests / 2, swarm.depth, rng)?;
        drive.node.disk.forget_plans();
        drive.load(20, swarm.depth, rng)?;
        if rng.chance(50) {
            drive.stop()?;
        } else {
            drive.settle()?;
        }
        drive.verify()?;
        let (image, toll) = self.cut(node, &mut host, rng)?;
        self.point(toll);
        self.reopen_damaged(swarm, image, &mut host)
    }

    /// After lies about durability an old state may come back, but no mixture and nothing invented.
    fn lying_flushes(&mut self, swarm: &Swarm, mut node: Node, mut host: Host, rng: &mut Rng) -> Result<(), Failure> {
        node.disk.set_faults(Faults { lying_flush: 1_000_000, ..Faults::default() });
        Drive { node: &mut node, host: &mut host, power_until: u64::MAX }.load(swarm.requests / 2, swarm.depth, rng)?;
        let (image, toll) = self.cut(node, &mut host, rng)?;
        self.point(toll);
        host.tolerate(LIED_TO);
        self.reopen_damaged(swarm, image, &mut host)
    }

    /// Opens what may be damaged: it is refused, or everything read is right or refused. The offline checker sees
    /// the damage that the store sees.
    pub fn reopen_damaged(&mut self, swarm: &Swarm, image: Image, host: &mut Host) -> Result<(), Failure> {
        let before = host.answers().media_errors;
        let mut node = self.open(swarm, image.clone(), swarm.disk, swarm.seed);
        let mut drive = Drive { node: &mut node, host, power_until: u64::MAX };
        let ending = match drive.start()? {
            Ending::Reached => drive.verify()?,
            other => other,
        };
        self.off(node, host)?;
        match ending {
            Ending::Broken(error) if is_damage(&error) => self.check_sees(&image, Some(error)),
            _ if host.answers().media_errors > before => self.check_sees(&image, None),
            _ => Ok(()),
        }
    }
}

fn errors(rng: &mut Rng) -> Faults {
    let mut rate = |most: u64| if rng.chance(40) { 0 } else { rng.below(most) as u32 };
    Faults {
        read_error: rate(50_000),
        write_error: rate(20_000),
        flush_error: rate(20_000),
        stall: rate(20_000),
        death: rate(3_000),
        ..Faults::default()
    }
}
