//! This core's table of subsystems: the part of the snapshot that commands look up, flat and by number. A subsystem keeps
//! its place as long as it exists or a connection refers to it, whatever happens to the order of the snapshot. What a
//! connection may name is not the subsystem but its host's view of it: namespaces are shown to hosts one by one.

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

/// True when one of the namespaces is made of `volume`.
pub(super) fn reaches(spaces: &[Space], volume: VolumeId) -> bool {
    spaces.iter().any(|s| s.shift != 0 && s.volume == volume)
}

/// One subsystem.
#[derive(Debug)]
pub(super) struct Sub {
    /// Its NQN.
    pub nqn: String,
    /// Place in the snapshot's list; `None` for the discovery subsystem and for one that is gone.
    pub index: Option<usize>,
    /// Connections that refer to it.
    pub users: usize,
    /// False once it was removed: its connections are being ended.
    pub present: bool,
}

/// What one host sees of one subsystem. All connections of the host to the subsystem share it.
#[derive(Debug)]
struct View {
    /// Place of the subsystem.
    sub: u32,
    /// HOSTNQN.
    host: String,
    /// Connections that refer to it; 0: free for another host.
    users: usize,
    /// By NSID - 1.
    spaces: Vec<Space>,
    /// The last snapshot took a namespace away, or put another volume in its place.
    lost: bool,
}

impl View {
    /// Takes over what `subsystem` (`None`: it is gone) shows to the host.
    fn fill(&mut self, subsystem: Option<&Subsystem>) {
        let before = std::mem::take(&mut self.spaces);
        if let Some(subsystem) = subsystem {
            self.spaces.resize(subsystem.max_namespaces as usize, Space::NONE);
            for ns in subsystem.shown_to(&self.host) {
                if let Some(space) = ns.nsid.checked_sub(1).and_then(|i| self.spaces.get_mut(i as usize)) {
                    *space = Space::of(ns);
                }
            }
        }
        self.lost = before.iter().any(|s| s.shift != 0 && !reaches(&self.spaces, s.volume));
    }
}

/// The table. Place 0 is the discovery subsystem.
#[derive(Debug)]
pub(super) struct Subs {
    places: Vec<Sub>,
    views: Vec<View>,
}

/// Place of the discovery subsystem.
pub(super) const DISCOVERY: u32 = 0;

/// No subsystem, and no view of one: a connection that is not a queue.
pub(super) const NOWHERE: u32 = u32::MAX;

impl Subs {
    /// A table with only the discovery subsystem.
    pub fn new() -> Subs {
        let nqn = DISCOVERY_NQN.to_owned();
        Subs { places: vec![Sub { nqn, index: None, users: 0, present: true }], views: Vec::new() }
    }

    /// Takes over a snapshot.
    pub fn configure(&mut self, snapshot: &Snapshot) {
        for sub in &mut self.places[1..] {
            (sub.index, sub.present) = (None, false);
        }
        for (index, subsystem) in snapshot.subsystems.iter().enumerate() {
            let known = self.places.iter().position(|s| s.nqn == subsystem.nqn);
            let free = || self.places.iter().position(|s| s.nqn.is_empty());
            let at = known.or_else(free).unwrap_or(self.places.len());
            if at == self.places.len() {
                self.places.push(Sub { nqn: String::new(), index: None, users: 0, present: false });
            }
            let sub = &mut self.places[at];
            sub.nqn.clone_from(&subsystem.nqn);
            (sub.index, sub.present) = (Some(index), true);
        }
        for view in self.views.iter_mut().filter(|v| v.users > 0) {
            let index = self.places[view.sub as usize].index;
            view.fill(index.and_then(|i| snapshot.subsystems.get(i)));
        }
        for sub in &mut self.places[1..] {
            if !sub.present && sub.users == 0 {
                sub.nqn.clear();
            }
        }
    }

    /// A subsystem that is there, by NQN.
    pub fn find(&self, nqn: &str) -> Option<u32> {
        self.places.iter().position(|s| s.present && s.nqn == nqn).map(|i| i as u32)
    }

    /// A place; empty for a connection that has none yet.
    pub fn get(&self, at: u32) -> Option<&Sub> {
        self.places.get(at as usize)
    }

    /// The namespaces of a view.
    #[inline]
    pub fn spaces(&self, view: u32) -> &[Space] {
        self.views.get(view as usize).map_or(&[], |v| &v.spaces)
    }

    /// True when the last snapshot took a namespace out of a view.
    pub fn lost(&self, view: u32) -> bool {
        self.views.get(view as usize).is_some_and(|v| v.lost)
    }

    /// A connection of `host` begins to refer to the subsystem at a place, of which `subsystem` is the present version
    /// (`None` for discovery). Returns its view.
    pub fn join(&mut self, at: u32, host: &str, subsystem: Option<&Subsystem>) -> u32 {
        self.places[at as usize].users += 1;
        let same = |v: &View| v.users > 0 && v.sub == at && v.host == host;
        if let Some(known) = self.views.iter().position(same) {
            self.views[known].users += 1;
            return known as u32;
        }
        let mut view = View { sub: at, host: host.to_owned(), users: 1, spaces: Vec::new(), lost: false };
        view.fill(subsystem);
        match self.views.iter().position(|v| v.users == 0) {
            Some(free) => {
                self.views[free] = view;
                free as u32
            }
            None => {
                self.views.push(view);
                self.views.len() as u32 - 1
            }
        }
    }

    /// A connection no longer refers to a view and its subsystem; one that is gone and unused is free for another
    /// subsystem. Nothing happens to a connection that is [`NOWHERE`].
    pub fn leave(&mut self, view: u32) {
        let Some(view) = self.views.get_mut(view as usize) else { return };
        let sub = &mut self.places[view.sub as usize];
        assert!(view.users > 0 && sub.users > 0, "a place is left as often as it was joined");
        view.users -= 1;
        sub.users -= 1;
        if view.users == 0 {
            (view.host, view.spaces) = (String::new(), Vec::new());
        }
        if sub.users == 0 && !sub.present {
            sub.nqn.clear();
        }
    }
}

/// NSIDs whose namespace came, went or changed for `host` between two versions of a subsystem, ascending.
pub(super) fn changed(old: Option<&Subsystem>, new: &Subsystem, host: &str) -> Vec<u32> {
    let old: Vec<&Namespace> = old.into_iter().flat_map(|s| s.shown_to(host)).collect();
    let new: Vec<&Namespace> = new.shown_to(host).collect();
    let same = |a: &Namespace, b: &Namespace| a.facts() == b.facts();
    let differs = |a: &Namespace, others: &[&Namespace]| !others.iter().any(|b| same(a, b));
    let mut nsids: Vec<u32> = old.iter().filter(|a| differs(a, &new)).map(|a| a.nsid).collect();
    nsids.extend(new.iter().filter(|b| differs(b, &old)).map(|b| b.nsid));
    nsids.sort_unstable();
    nsids.dedup();
    nsids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvmf::Visibility;
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
            atomic_blocks: 1,
        };
        Namespace { nsid, info, nguid: [0; 16], eui64: [0; 8], uuid: [0; 16], anagrpid: 1, visible: Visibility::All }
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
        let view = subs.join(a, "host", Some(&sub("a", vec![ns(2, 10)])));
        let s = subs.spaces(view);
        assert_eq!((s.len(), s[0].shift, s[1].shift, s[1].volume), (4, 0, 12, VolumeId(2)));
        subs.configure(&snap(vec![sub("c", vec![]), sub("b", vec![])]));
        assert_eq!((subs.find("a"), subs.spaces(view).len(), subs.find("b")), (None, 0, Some(b)));
        assert!(subs.lost(view));
        assert_eq!(subs.find("c"), Some(3), "the place of a is in use");
        subs.leave(view);
        subs.configure(&snap(vec![sub("d", vec![]), sub("b", vec![])]));
        assert_eq!(subs.find("d"), Some(a), "and free once nobody uses it");
        subs.leave(NOWHERE);
    }

    #[test]
    fn each_host_has_its_own_view_and_its_connections_share_it() {
        let mut subs = Subs::new();
        let shown = |hosts: &[&str]| {
            let only = Visibility::Only(hosts.iter().map(|h| (*h).to_owned()).collect());
            sub("a", vec![ns(1, 10), Namespace { visible: only, ..ns(2, 10) }])
        };
        let snap = |s: Subsystem| Snapshot { subsystems: vec![s], ..Snapshot::default() };
        let nsids = |subs: &Subs, view| {
            let spaces = subs.spaces(view).iter().zip(1u32..);
            spaces.filter(|(s, _)| s.shift != 0).map(|(_, n)| n).collect::<Vec<_>>()
        };
        subs.configure(&snap(shown(&["x"])));
        let [x, y, again] = ["x", "y", "x"].map(|host| subs.join(1, host, Some(&shown(&["x"]))));
        assert_eq!((x == again, x == y), (true, false));
        assert_eq!((nsids(&subs, x), nsids(&subs, y)), (vec![1, 2], vec![1]));
        subs.configure(&snap(shown(&["y"])));
        assert_eq!((nsids(&subs, x), nsids(&subs, y)), (vec![1], vec![1, 2]));
        assert_eq!((subs.lost(x), subs.lost(y)), (true, false));
        subs.leave(x);
        assert_eq!(nsids(&subs, again), [1], "the other connection of the host keeps it");
        subs.leave(again);
        assert!(subs.spaces(x).is_empty());
        assert_eq!(subs.join(1, "z", Some(&shown(&["y"]))), x, "a view nobody uses is used again");
        assert_eq!(nsids(&subs, x), [1]);
    }

    #[test]
    fn changes_are_found_in_both_directions() {
        let old = sub("a", vec![ns(1, 10), ns(2, 10), ns(3, 10)]);
        let new = sub("a", vec![ns(1, 10), ns(2, 20), ns(4, 1)]);
        assert_eq!(changed(Some(&old), &new, "x"), [2, 3, 4]);
        assert!(changed(Some(&old), &old, "x").is_empty());
        assert_eq!(changed(None, &old, "x"), [1, 2, 3]);
        let only = |host: &str| Namespace { visible: Visibility::Only(vec![host.into()]), ..ns(1, 10) };
        let (x, y, all) = (sub("a", vec![only("x")]), sub("a", vec![only("y")]), sub("a", vec![ns(1, 10)]));
        assert_eq!((changed(Some(&x), &y, "x"), changed(Some(&x), &y, "y")), (vec![1], vec![1]));
        assert!(changed(Some(&x), &y, "z").is_empty(), "nothing changed for a host that sees neither");
        assert!(changed(Some(&x), &all, "x").is_empty(), "others see it too now: no change for this host");
    }
}
