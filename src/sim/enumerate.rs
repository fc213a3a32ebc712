//! Crash-point enumeration: a workload runs once with its record kept; then the power goes at every interesting point
//! of the record, with every choice of what is left, and each image is recovered and held to what was promised by then.

use super::crash::Fates;
use super::drive::Drive;
use super::failure::Failure;
use super::host::Host;
use super::record::{Event, Replay};
use super::run::Bench;
use super::swarm::Swarm;
use super::{Image, Medium};
use crate::base::rng::Rng;

/// Points of one record that are tried.
const CUTS_MAX: u64 = 48;
/// Choices tried at one of them.
const FATES_MAX: usize = 48;

impl Bench {
    /// Enumerates crash points of the workload of `seed`, about a thousand.
    pub fn enumerate(&mut self, seed: u64) -> Result<(), Failure> {
        let mut swarm = Swarm::draw(seed);
        swarm.requests = swarm.requests.min(400);
        self.enumerate_swarm(&swarm)
    }

    /// Enumerates crash points of a swarm's workload.
    pub fn enumerate_swarm(&mut self, swarm: &Swarm) -> Result<(), Failure> {
        let mut rng = Rng::new(swarm.seed ^ 0xe9a3);
        let mut host = Host::new(swarm);
        let mut node = self.format(swarm, rng.next_u64());
        node.disk.keep_record();
        let mut drive = Drive { node: &mut node, host: &mut host, power_until: u64::MAX };
        drive.start()?;
        let formatted = drive.node.disk.events();
        drive.load(swarm.requests, swarm.depth, &mut rng)?;
        let record = node.disk.take_record();
        let mut after = host.fork(u64::MAX, 0);
        self.off(node, &mut after)?;
        let medium = Medium::new(Image::new(swarm.device_bytes()), !swarm.disk.volatile_cache);
        let candidates =
            (formatted..record.len() as u64).filter(|at| telling(&record[*at as usize], swarm)).count() as u64;
        let mut replay = Replay::new(medium, &record);
        let mut left = candidates;
        let mut cuts = CUTS_MAX.min(candidates);
        loop {
            let next_tells = replay.next().is_none_or(|event| telling(event, swarm));
            if replay.at() as u64 >= formatted && next_tells && left > 0 {
                // Selection sampling: every candidate is as likely as any other.
                if rng.below(left) < cuts {
                    cuts -= 1;
                    self.cut_here(swarm, &replay, &host, &mut rng)?;
                }
                left -= 1;
            }
            if !replay.step() {
                break;
            }
        }
        self.tally.answers.add(host.answers());
        Ok(())
    }

    /// Tries the choices at one point of the record.
    fn cut_here(&mut self, swarm: &Swarm, replay: &Replay<'_>, host: &Host, rng: &mut Rng) -> Result<(), Failure> {
        let mut choices = Fates::all(replay.medium(), rng);
        while choices.len() > FATES_MAX {
            let at = rng.below(choices.len() as u64) as usize;
            choices.swap_remove(at);
        }
        for fates in choices {
            let (image, toll) = fates.cut(replay.medium());
            let mut fork = host.fork(replay.at() as u64, rng.next_u64());
            fork.lost_power();
            self.tally.toll.add(toll);
            self.point(toll);
            self.trace.all(&[replay.at() as u64, toll.kept, toll.dropped, toll.torn]);
            self.survive(swarm, image, &mut fork, rng)?;
            self.tally.answers.add(fork.answers());
        }
        Ok(())
    }

    /// Recovers from `image` and sometimes goes on and crashes again: what was seen must stay.
    fn survive(&mut self, swarm: &Swarm, image: Image, host: &mut Host, rng: &mut Rng) -> Result<(), Failure> {
        if rng.chance(10) {
            self.check(&image)?;
        }
        let mut node = self.recover(swarm, image, host, rng)?;
        if rng.chance(15) {
            let power_until = if rng.chance(50) { node.disk.events() + 1 + rng.below(60) } else { u64::MAX };
            let mut drive = Drive { node: &mut node, host, power_until };
            drive.load(rng.below(20) as u32, swarm.depth, rng)?;
            let (image, toll) = self.cut(node, host, rng)?;
            self.point(toll);
            node = self.recover(swarm, image, host, rng)?;
        }
        self.off(node, host)?;
        Ok(())
    }
}

/// True when the crash states before `event` are not all crash states after it: only then is a cut before it new.
fn telling(event: &Event, swarm: &Swarm) -> bool {
    match event {
        Event::Submit(_, pieces) => !pieces.is_empty(),
        Event::Flush(_) => swarm.disk.volatile_cache,
        Event::Complete(_) => !swarm.disk.volatile_cache,
        Event::Execute(_) | Event::Fail(_) | Event::Doom(_) => false,
    }
}
