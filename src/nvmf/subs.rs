//! This core's table of subsystems: the part of the snapshot that commands look up, flat and by number. A subsystem keeps
//! its place as long as it exists or a connection refers to it, whatever happens to the order of the snapshot.

use super::config::{Namespace, Snapshot, Subsystem};
use crate::base::VolumeId;
use crate::wire::fabrics::DISCOVERY_NQN;

/// What an I/O command needs of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Space {
    /// The volume behind it.
    pub volume: VolumeId,
    /// log2 of the block size; 0 marks an NSID without a namespace.
    pub shift: u8,
}

impl Space {
    const NONE: Space = Space { volume: VolumeId(0), shift: 0 };

    fn of(ns: &Namespace) -> Space {
        assert!(ns.info.block_size.is_power_of_two(), "block sizes are 512 or 4096");
        Space { volume: ns.info.id, shift: ns.info.block_size.ilog2() as u8 }
    }
}

/// One subsystem.
#[derive(Debug)]
pub(super) struct Sub {
    /// Its NQN.
    pub nqn: String,
    /// Place in the snapshot's list; `None` for the discovery subsystem and for one that is gone.
    pub index: Option<usize>,
    /// By NSID - 1.
    pub spaces: Vec<Space>,
    /// Connections that refer to it.
    pub users: usize,
    /// False once it was removed: its connections are being ended.
    pub present: bool,
}

impl Sub {
    fn fill(&mut self, index: usize, subsystem: &Subsystem) {
        self.index = Some(index);
        self.present = true;
        self.spaces.clear();
        self.spaces.resize(subsystem.max_namespaces as usize, Space::NONE);
        for ns in &subsystem.namespaces {
            if let Some(space) = ns.nsid.checked_sub(1).and_then(|i| self.spaces.get_mut(i as usize)) {
                *space = Space::of(ns);
            }
        }
    }
    fn empty(&mut self) {
        self.index = None;
        self.present = false;
        self.spaces.clear();
    }
}

/// The table. Place 0 is the discovery subsystem.
#[derive(Debug)]
pub(super) struct Subs(Vec<Sub>);

/// Place of the discovery subsystem.
pub(super) const DISCOVERY: u32 = 0;

impl Subs {
    /// A table with only the discovery subsystem.
    pub fn new() -> Subs {
        let nqn = DISCOVERY_NQN.to_owned();
        Subs(vec![Sub { nqn, index: None, spaces: Vec::new(), users: 0, present: true }])
    }

    /// Takes over a snapshot.
    pub fn configure(&mut self, snapshot: &Snapshot) {
        for sub in &mut self.0[1..] {
            sub.empty();
        }
        for (index, subsystem) in snapshot.subsystems.iter().enumerate() {
            let known = self.0.iter().position(|s| s.nqn == subsystem.nqn);
            let free = || self.0.iter().position(|s| s.nqn.is_empty());
            let at = known.or_else(free).unwrap_or(self.0.len());
            if at == self.0.len() {
                self.0.push(Sub { nqn: String::new(), index: None, spaces: Vec::new(), users: 0, present: false });
            }
            let sub = &mut self.0[at];
            sub.nqn.clone_from(&subsystem.nqn);
            sub.fill(index, subsystem);
        }
        for sub in &mut self.0[1..] {
            if !sub.present && sub.users == 0 {
                sub.nqn.clear();
            }
        }
    }

    /// A subsystem that is there, by NQN.
    pub fn find(&self, nqn: &str) -> Option<u32> {
        self.0.iter().position(|s| s.present && s.nqn == nqn).map(|i| i as u32)
    }

    /// A place; empty for a connection that has none yet.
    pub fn get(&self, at: u32) -> Option<&Sub> {
        self.0.get(at as usize)
    }

    /// The namespaces of a place.
    #[inline]
    pub fn spaces(&self, at: u32) -> &[Space] {
        self.0.get(at as usize).map_or(&[], |s| &s.spaces)
    }

    /// A connection begins to refer to a place.
    pub fn join(&mut self, at: u32) {
        self.0[at as usize].users += 1;
    }

    /// A connection no longer refers to a place; one that is gone and unused is free for another subsystem.
    pub fn leave(&mut self, at: u32) {
        if let Some(sub) = self.0.get_mut(at as usize) {
            assert!(sub.users > 0, "a place is left as often as it was joined");
            sub.users -= 1;
            if sub.users == 0 && !sub.present {
                sub.nqn.clear();
            }
        }
    }
}

/// NSIDs whose namespace came, went or changed between two versions of a subsystem, ascending.
pub(super) fn changed(old: &[Namespace], new: &[Namespace]) -> Vec<u32> {
    let mut nsids: Vec<u32> = Vec::new();
    let differs = |a: &Namespace, others: &[Namespace]| others.iter().find(|b| b.nsid == a.nsid) != Some(a);
    nsids.extend(old.iter().filter(|a| differs(a, new)).map(|a| a.nsid));
    nsids.extend(new.iter().filter(|b| differs(b, old)).map(|b| b.nsid));
    nsids.sort_unstable();
    nsids.dedup();
    nsids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Info;

    fn ns(nsid: u32, blocks: u64) -> Namespace {
        let info = Info {
            id: VolumeId(nsid),
            block_size: 4096,
            blocks,
            uuid: [0; 16],
            thin: true,
            read_only: false,
            volatile_cache: false,
        };
        Namespace { nsid, info, nguid: [0; 16], eui64: [0; 8], uuid: [0; 16], anagrpid: 1 }
    }

    fn sub(nqn: &str, namespaces: Vec<Namespace>) -> Subsystem {
        Subsystem {
            nqn: nqn.into(),
            serial: String::new(),
            model: String::new(),
            firmware: String::new(),
            allow_any_host: true,
            hosts: Vec::new(),
            namespaces,
            listeners: Vec::new(),
            cntlid_min: 1,
            cntlid_max: 0xffef,
            max_namespaces: 4,
        }
    }

    #[test]
    fn places_last_as_long_as_somebody_uses_them() {
        let mut subs = Subs::new();
        let snap = |subsystems| Snapshot { subsystems, ..Snapshot::default() };
        subs.configure(&snap(vec![sub("a", vec![ns(2, 10)]), sub("b", vec![])]));
        let (a, b) = (subs.find("a").unwrap(), subs.find("b").unwrap());
        assert_eq!((a, b, subs.find(DISCOVERY_NQN)), (1, 2, Some(DISCOVERY)));
        let s = subs.spaces(a);
        assert_eq!((s.len(), s[0].shift, s[1].shift, s[1].volume), (4, 0, 12, VolumeId(2)));
        subs.join(a);
        subs.configure(&snap(vec![sub("c", vec![]), sub("b", vec![])]));
        assert_eq!((subs.find("a"), subs.spaces(a).len(), subs.find("b")), (None, 0, Some(b)));
        assert_eq!(subs.find("c"), Some(3), "the place of a is in use");
        subs.leave(a);
        subs.configure(&snap(vec![sub("d", vec![]), sub("b", vec![])]));
        assert_eq!(subs.find("d"), Some(a), "and free once nobody uses it");
    }

    #[test]
    fn changes_are_found_in_both_directions() {
        let old = [ns(1, 10), ns(2, 10), ns(3, 10)];
        let new = [ns(1, 10), ns(2, 20), ns(4, 1)];
        assert_eq!(changed(&old, &new), [2, 3, 4]);
        assert!(changed(&old, &old).is_empty());
    }
}
