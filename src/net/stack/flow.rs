//! Which connection a segment belongs to: the four numbers that name a flow, and a bounded hash table from them to the
//! connection's slot. A look-up costs the same with one connection as with thousands.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address of either family as one number; IPv4 in its mapped form (RFC 4291 section 2.5.5.2).
pub(super) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address of a number.
pub(super) fn address(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(number).to_canonical()
}

/// A TCP connection's name, seen from this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) local: u128,
    pub(super) remote: u128,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
}

impl Flow {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Flow {
        Flow {
            local: number(local.ip()),
            remote: number(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
        }
    }
    pub(super) fn local(&self) -> SocketAddr {
        SocketAddr::new(address(self.local), self.local_port)
    }
    pub(super) fn remote(&self) -> SocketAddr {
        SocketAddr::new(address(self.remote), self.remote_port)
    }
}

#[derive(Clone, Copy)]
struct Entry {
    flow: Flow,
    slot: u32,
}

/// Flows to slots: open addressing with linear probing, at most half full, keyed so that a peer cannot choose
/// collisions. Memory is taken once.
pub(super) struct Flows {
    entries: Box<[Option<Entry>]>,
    mask: usize,
    key: [u64; 2],
    used: usize,
    max: usize,
}

impl Flows {
    /// A table for `max` flows.
    pub(super) fn new(max: usize, key: [u64; 2]) -> Flows {
        let size = (max * 2).next_power_of_two().max(16);
        Flows { entries: vec![None; size].into_boxed_slice(), mask: size - 1, key: [key[0], key[1] | 1], used: 0, max }
    }

    fn home(&self, flow: &Flow) -> usize {
        let ports = u64::from(flow.local_port) << 16 | u64::from(flow.remote_port);
        let a = (flow.remote as u64 ^ self.key[0]) ^ ports.rotate_left(32);
        let b = (flow.remote >> 64) as u64 ^ flow.local as u64 ^ self.key[1];
        let wide = u128::from(a) * u128::from(b.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mixed = (wide as u64 ^ (wide >> 64) as u64).wrapping_mul(self.key[1]);
        (mixed >> 32) as usize & self.mask
    }

    /// The slot of `flow`.
    pub(super) fn find(&self, flow: &Flow) -> Option<u32> {
        let mut at = self.home(flow);
        while let Some(entry) = &self.entries[at] {
            if entry.flow == *flow {
                return Some(entry.slot);
            }
            at = (at + 1) & self.mask;
        }
        None
    }

    /// Enters a flow that is not there yet.
    pub(super) fn insert(&mut self, flow: Flow, slot: u32) {
        assert!(self.used < self.max, "every slot has at most one flow");
        let mut at = self.home(&flow);
        while let Some(entry) = &self.entries[at] {
            assert!(entry.flow != flow, "a flow has one connection");
            at = (at + 1) & self.mask;
        }
        self.entries[at] = Some(Entry { flow, slot });
        self.used += 1;
    }

    /// Takes a flow out; what was pushed behind it by a collision moves up.
    pub(super) fn remove(&mut self, flow: &Flow) {
        let mut at = self.home(flow);
        loop {
            match &self.entries[at] {
                Some(entry) if entry.flow == *flow => break,
                Some(_) => at = (at + 1) & self.mask,
                None => panic!("only flows that were entered are removed"),
            }
        }
        self.used -= 1;
        let mut hole = at;
        let mut next = (at + 1) & self.mask;
        while let Some(entry) = self.entries[next] {
            let home = self.home(&entry.flow);
            // The entry may move when its home is not between the hole and where it is.
            if next.wrapping_sub(home) & self.mask >= next.wrapping_sub(hole) & self.mask {
                self.entries[hole] = Some(entry);
                hole = next;
            }
            next = (next + 1) & self.mask;
        }
        self.entries[hole] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use std::collections::HashMap;

    #[test]
    fn addresses_survive_the_way_through_a_number() {
        for text in ["10.1.2.3:80", "[fe80::1]:443", "[2001:db8::77]:1"] {
            let there: SocketAddr = text.parse().unwrap();
            let flow = Flow::new(there, "192.0.2.9:5000".parse().unwrap());
            assert_eq!(flow.local(), there);
            assert_eq!(flow.remote().to_string(), "192.0.2.9:5000");
        }
    }

    #[test]
    fn behaves_like_a_map_at_its_limit() {
        let mut rng = Rng::new(11);
        let mut flows = Flows::new(64, [rng.next_u64(), rng.next_u64()]);
        let mut model: HashMap<(u16, u16), u32> = HashMap::new();
        for step in 0..20_000u32 {
            let (local_port, remote_port) = (rng.below(4) as u16, rng.below(40) as u16);
            let flow = Flow { local: 1, remote: 2, local_port, remote_port };
            let known = model.get(&(local_port, remote_port)).copied();
            assert_eq!(flows.find(&flow), known);
            if known.is_some() {
                flows.remove(&flow);
                model.remove(&(local_port, remote_port));
            } else if model.len() < 64 {
                flows.insert(flow, step);
                model.insert((local_port, remote_port), step);
            }
        }
        assert!(model.len() > 20, "the table was well filled");
    }
}
