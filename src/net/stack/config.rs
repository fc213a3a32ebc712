//! What an operator chooses about the stack of one core, and the bounds of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of ours with the length of its network's prefix: `10.0.0.2/24`, `2001:db8::2/64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    /// The host's address.
    pub address: IpAddr,
    /// Bits of it that name the network: at most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

impl Prefix {
    /// True when `other` is in the same network, and so reached without a gateway.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (a.to_bits() ^ b.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

/// The text is not an address with a prefix length.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is not an address with a prefix length, such as 10.0.0.2/24 or 2001:db8::2/64")]
pub struct NotAPrefix(Box<str>);

impl std::str::FromStr for Prefix {
    type Err = NotAPrefix;
    fn from_str(text: &str) -> Result<Prefix, NotAPrefix> {
        let parse = || {
            let (address, bits) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            let host = match address {
                IpAddr::V4(ip) => bits <= 32 && !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST,
                IpAddr::V6(ip) => bits <= 128 && ip != Ipv6Addr::UNSPECIFIED && !ip.is_multicast(),
            };
            host.then_some(Prefix { address, bits })
        };
        parse().ok_or_else(|| NotAPrefix(text.into()))
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// How a sender finds out how much the path carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681.
    Reno,
    /// No limit but the peer's window: only for a link that nobody else uses.
    Off,
}

/// Addresses at most.
pub const ADDRESSES_MAX: usize = 8;
/// Smallest and largest MTU. IPv6 needs 1280 (RFC 8200 section 5).
pub const MTU: std::ops::RangeInclusive<usize> = 1280..=9216;
/// Bytes of one of a connection's two buffers: a partial PDU fits several times, and the window's scale reaches it.
pub const BUFFER: std::ops::RangeInclusive<usize> = 64 << 10..=16 << 20;

/// What an operator may choose. A connection slot takes `receive_bytes + send_bytes` and 8 KiB; there are
/// `conns + backlog` of them, reserved at the start and touched by the system when first used. The default is 1152
/// slots of 520 KiB: 585 MiB of address space, of which an idle node touches 9 MiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackConfig {
    /// Our addresses; at least one, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Prefix>,
    /// Routers for everything outside our networks: at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Bytes of the largest IP packet; in [`MTU`] and no larger than the port's.
    pub mtu: usize,
    /// Identifier of the VLAN that all frames carry, 1..=4094.
    pub vlan: Option<u16>,
    /// Connections at most; further ones are refused. With `backlog` at most
    /// [`crate::base::limits::CONNS_PER_CORE`].
    pub conns: usize,
    /// Handshakes under way at most; one more takes the place of another.
    pub backlog: usize,
    /// Bytes of a connection's receive buffer, which is its window; in [`BUFFER`].
    pub receive_bytes: usize,
    /// Bytes of a connection's send buffer: what may be under way to the peer; in [`BUFFER`].
    pub send_bytes: usize,
    /// Seconds of silence between two probes of an idle peer.
    pub keepalive_s: u16,
    /// Milliseconds without a sign of life after which a connection ends.
    pub silent_ms: u32,
    /// Least time, ms, until a segment is sent again; the peer's delayed acknowledgements must be faster. 10..=1000.
    /// TIME-WAIT is ten times this.
    pub again_ms: u32,
    /// Microseconds an acknowledgement waits for an answer to travel with; at most half of `again_ms`.
    pub ack_us: u32,
    /// Congestion control.
    pub congestion: Congestion,
    /// Determines sequence numbers, ports and hash keys: from the system's randomness in production.
    pub seed: u64,
}

impl StackConfig {
    /// The defaults around one address.
    pub fn new(address: Prefix, seed: u64) -> StackConfig {
        StackConfig {
            addresses: vec![address],
            gateways: Vec::new(),
            mtu: 1500,
            vlan: None,
            conns: 1024,
            backlog: 128,
            receive_bytes: 256 << 10,
            send_bytes: 256 << 10,
            keepalive_s: 10,
            silent_ms: 30_000,
            again_ms: 50,
            ack_us: 1000,
            congestion: Congestion::Cubic,
            seed,
        }
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The first value that is out of its bounds, in words for an operator.
    pub fn check(&self, port_mtu: usize) -> Result<(), &'static str> {
        let families = |v4: bool| self.gateways.iter().filter(|g| g.is_ipv4() == v4).count();
        let rules = [
            ((1..=ADDRESSES_MAX).contains(&self.addresses.len()), "a stack has 1 to 8 addresses"),
            (families(true) <= 1 && families(false) <= 1, "there is at most one gateway of each family"),
            (
                self.gateways.iter().all(|g| self.addresses.iter().any(|a| a.contains(*g))),
                "a gateway is in the network of one of our addresses",
            ),
            (MTU.contains(&self.mtu), "the MTU is 1280 to 9216"),
            (self.mtu <= port_mtu, "the MTU is larger than the port's"),
            (self.vlan.is_none_or(|id| (1..=4094).contains(&id)), "a VLAN identifier is 1 to 4094"),
            (self.conns >= 1 && self.backlog >= 1, "at least one connection and one handshake"),
            (
                self.conns + self.backlog <= crate::base::limits::CONNS_PER_CORE,
                "connections and handshakes are at most 4096 together",
            ),
            (
                BUFFER.contains(&self.receive_bytes) && BUFFER.contains(&self.send_bytes),
                "a connection's buffers are 64 KiB to 16 MiB each",
            ),
            ((10..=1000).contains(&self.again_ms), "the least time until a segment is sent again is 10 to 1000 ms"),
            (self.ack_us / 500 <= self.again_ms, "acknowledgements wait at most half of that"),
            (
                self.keepalive_s >= 1 && u64::from(self.keepalive_s) * 2000 <= u64::from(self.silent_ms),
                "an idle peer is probed at least twice before it counts as dead",
            ),
        ];
        rules.into_iter().find_map(|(holds, what)| (!holds).then_some(what)).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_parse_and_know_their_network() {
        let p: Prefix = "10.1.2.3/20".parse().unwrap();
        assert_eq!(p.to_string(), "10.1.2.3/20");
        assert!(p.contains("10.1.15.255".parse().unwrap()) && !p.contains("10.1.16.0".parse().unwrap()));
        let p: Prefix = "2001:db8::7/64".parse().unwrap();
        assert!(p.contains("2001:db8::ffff:1".parse().unwrap()) && !p.contains("2001:db8:0:1::1".parse().unwrap()));
        assert!(!p.contains("10.0.0.1".parse().unwrap()));
        let all: Prefix = "10.0.0.1/0".parse().unwrap();
        assert!(all.contains("200.1.1.1".parse().unwrap()));
        for bad in ["10.0.0.1", "10.0.0.1/33", "0.0.0.0/8", "224.0.0.1/4", "::/0", "ff02::1/64", "x/24", "fe80::1/129"]
        {
            assert_eq!(bad.parse::<Prefix>(), Err(NotAPrefix(bad.into())));
        }
    }

    #[test]
    fn every_rule_is_checked() {
        let good = StackConfig::new("10.0.0.1/24".parse().unwrap(), 1);
        assert_eq!(good.check(1500), Ok(()));
        let bad: [fn(&mut StackConfig); 11] = [
            |c| c.addresses.clear(),
            |c| c.gateways = vec!["10.0.0.9".parse().unwrap(), "10.0.0.8".parse().unwrap()],
            |c| c.gateways = vec!["10.0.1.9".parse().unwrap()],
            |c| c.mtu = 9000,
            |c| c.mtu = 576,
            |c| c.vlan = Some(4095),
            |c| c.conns = 4096,
            |c| c.receive_bytes = 1000,
            |c| c.again_ms = 5,
            |c| c.ack_us = 150_000,
            |c| c.keepalive_s = 20,
        ];
        let mut seen = std::collections::HashSet::new();
        for spoil in bad {
            let mut config = good.clone();
            spoil(&mut config);
            seen.insert(config.check(1500).unwrap_err());
        }
        assert_eq!(seen.len(), 11, "each has its own words");
    }
}
