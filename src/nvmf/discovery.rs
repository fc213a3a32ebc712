//! The discovery log (base specification, "Discovery Log Page"): what a host may reach, and where. Every listener answers
//! for the discovery subsystem; a host sees only the subsystems that admit it.

use super::conn::Conn;
use super::logs::Part;
use super::target::Target;
use crate::wire::discovery::{
    EFLAGS_DUPRETINFO, EFLAGS_EPCSD, LogEntry, LogHeader, SUBTYPE_CURRENT, SUBTYPE_NVM, SUBTYPE_REFERRAL,
};
use crate::wire::fabrics::DISCOVERY_NQN;
use core::net::SocketAddr;
use zerocopy::IntoBytes;

/// One entry before it is encoded.
#[derive(Clone, Copy)]
struct Way<'a> {
    subtype: u8,
    nqn: &'a str,
    /// The listener.
    addr: SocketAddr,
    /// What the host is told: where it reaches the listener.
    shown: SocketAddr,
}

impl Target {
    /// The part of the log that the host of `c` asks for; returns the length of the whole.
    pub(super) fn fill_discovery_log(&self, c: &Conn, mut part: Part<'_>) -> usize {
        let host = c.identity.as_deref().map_or("", |i| i.hostnqn.as_str());
        let depth = self.transport.map_or(32, |t| t.admin_depth);
        let size = size_of::<LogEntry>() as u64;
        let mut records = 0;
        for way in self.ways(host, c) {
            let at = size_of::<LogHeader>() as u64 + records * size;
            records += 1;
            if !part.wants(at, size) {
                continue;
            }
            let portid = self.listeners.iter().position(|(_, a)| *a == way.addr).map_or(0, |i| i as u16 + 1);
            let mut entry = LogEntry::tcp(way.subtype, portid, depth, way.nqn, way.shown);
            if way.subtype == SUBTYPE_CURRENT {
                entry.eflags.set(EFLAGS_DUPRETINFO | EFLAGS_EPCSD);
            }
            part.put(at, entry.as_bytes());
        }
        part.put(0, LogHeader::new(self.snapshot.generation, records).as_bytes());
        (size_of::<LogHeader>() as u64 + records * size) as usize
    }

    /// Every way open to `host`, who asks through `c`: this discovery service at the address it was reached, the
    /// subsystems that admit the host at each of their listeners, and referrals. A listener on every address is shown at
    /// the one that the host came to; one that the host cannot reach is left out.
    fn ways<'a>(&'a self, host: &'a str, c: &Conn) -> impl Iterator<Item = Way<'a>> {
        let ends = c.ends;
        let here = ends.reach(c.listener).unwrap_or(ends.local);
        let current = Way { subtype: SUBTYPE_CURRENT, nqn: DISCOVERY_NQN, addr: c.listener, shown: here };
        let admitting = self.snapshot.subsystems.iter().filter(move |s| s.admits(host));
        let nvm = admitting
            .flat_map(|s| s.listeners.iter().map(move |a| (s.nqn.as_str(), *a)))
            .filter_map(move |(nqn, addr)| Some(Way { subtype: SUBTYPE_NVM, nqn, addr, shown: ends.reach(addr)? }));
        let referrals = self.snapshot.referrals.iter();
        let referrals = referrals.map(|r| Way { subtype: SUBTYPE_REFERRAL, nqn: &r.nqn, addr: r.addr, shown: r.addr });
        std::iter::once(current).chain(nvm).chain(referrals)
    }
}
