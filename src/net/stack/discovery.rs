//! The packets by which hosts on a link find each other: ARP for IPv4 (RFC 826), Neighbour Solicitation and
//! Advertisement for IPv6 (RFC 4861 sections 4.3 and 4.4).

use super::checksum;
use super::neighbour::Mac;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub(super) const ARP_BYTES: usize = 28;
/// Bytes of a solicitation or advertisement with the option that says the sender's address, IPv6 header included.
pub(super) const ND_BYTES: usize = 40 + 32;

const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
/// The fixed start of ARP for IPv4 over Ethernet.
const ARP_START: [u8; 6] = [0, 1, 8, 0, 6, 4];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ICMPV6: u8 = 58;
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;
/// Advertisement flags: the answer to a question; replaces what is known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// What a host asked or said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arp {
    pub(super) reply: bool,
    pub(super) sender: (Mac, Ipv4Addr),
    pub(super) target: (Mac, Ipv4Addr),
}

impl Arp {
    /// `None` for anything but a request or reply for IPv4 over Ethernet from an ordinary host.
    pub(super) fn parse(bytes: &[u8]) -> Option<Arp> {
        let bytes: &[u8; ARP_BYTES] = bytes.first_chunk()?;
        let reply = match u16::from_be_bytes([bytes[6], bytes[7]]) {
            ARP_REQUEST => false,
            ARP_REPLY => true,
            _ => return None,
        };
        let host = |at: usize| {
            let mac: Mac = bytes[at..at + 6].try_into().expect("six bytes");
            let ip: [u8; 4] = bytes[at + 6..at + 10].try_into().expect("four bytes");
            (mac, Ipv4Addr::from(ip))
        };
        let arp = Arp { reply, sender: host(8), target: host(18) };
        (bytes[..6] == ARP_START && unicast(arp.sender.0)).then_some(arp)
    }

    /// Writes the packet into `out`, of [`ARP_BYTES`].
    pub(super) fn write(&self, out: &mut [u8]) {
        out[..6].copy_from_slice(&ARP_START);
        out[6..8].copy_from_slice(&if self.reply { ARP_REPLY } else { ARP_REQUEST }.to_be_bytes());
        for (at, (mac, ip)) in [(8, self.sender), (18, self.target)] {
            out[at..at + 6].copy_from_slice(&mac);
            out[at + 6..at + 10].copy_from_slice(&ip.octets());
        }
    }
}

/// True for the address of one host.
pub(super) fn unicast(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// What a host asked or said of IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Neighbour {
    pub(super) advertisement: bool,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) target: Ipv6Addr,
    /// The sender's (of a solicitation) or the target's address on the link.
    pub(super) mac: Option<Mac>,
    /// Of an advertisement: it answers a question.
    pub(super) solicited: bool,
}

impl Neighbour {
    /// `packet` is an IPv6 packet whose header was checked. `None` for anything that is not a valid solicitation or
    /// advertisement (RFC 4861 sections 7.1.1 and 7.1.2).
    pub(super) fn parse(packet: &[u8]) -> Option<Neighbour> {
        let (header, body) = packet.split_first_chunk::<40>()?;
        let kind = *body.first()?;
        let valid = header[6] == ICMPV6 && header[7] == 255 && body.len() >= 24 && body[1] == 0;
        if !valid || (kind != SOLICITATION && kind != ADVERTISEMENT) {
            return None;
        }
        if !checksum::valid(checksum::add(checksum::pseudo(&header[8..40], ICMPV6, body.len()), body)) {
            return None;
        }
        let ip = |bytes: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes"));
        let advertisement = kind == ADVERTISEMENT;
        let (source, destination, target) = (ip(&header[8..24]), ip(&header[24..40]), ip(&body[8..24]));
        let solicited = advertisement && body[4] & SOLICITED != 0;
        if target.is_multicast() || (solicited && destination.is_multicast()) {
            return None;
        }
        let wanted = if advertisement { TARGET_OPTION } else { SOURCE_OPTION };
        let mac = option(&body[24..], wanted).ok()?;
        Some(Neighbour { advertisement, source, destination, target, mac, solicited })
    }

    /// Writes the whole packet into `out`, of [`ND_BYTES`]; `mac` must be known.
    pub(super) fn write(&self, out: &mut [u8]) {
        let mac = self.mac.expect("a host says its own address");
        out[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..40].copy_from_slice(&self.destination.octets());
        let body = &mut out[40..ND_BYTES];
        body.fill(0);
        body[0] = if self.advertisement { ADVERTISEMENT } else { SOLICITATION };
        if self.advertisement {
            body[4] = OVERRIDE | if self.solicited { SOLICITED } else { 0 };
        }
        body[8..24].copy_from_slice(&self.target.octets());
        body[24..26].copy_from_slice(&[if self.advertisement { TARGET_OPTION } else { SOURCE_OPTION }, 1]);
        body[26..32].copy_from_slice(&mac);
        let sum = checksum::add(checksum::pseudo(&out[8..40], ICMPV6, 32), &out[40..ND_BYTES]);
        out[42..44].copy_from_slice(&checksum::field(sum));
    }
}

/// Options whose lengths do not add up.
#[derive(Debug)]
struct Damaged;

/// The link-layer address option `wanted` among the options, if it is there.
fn option(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, Damaged> {
    let mut found = None;
    while !options.is_empty() {
        let bytes = usize::from(*options.get(1).ok_or(Damaged)?) * 8;
        if bytes == 0 || bytes > options.len() {
            return Err(Damaged);
        }
        if options[0] == wanted && bytes == 8 {
            let mac: Mac = options[2..8].try_into().expect("six bytes");
            found = unicast(mac).then_some(mac);
        }
        options = &options[bytes..];
    }
    Ok(found)
}

/// The group that the owner of `ip` listens to for questions about it (RFC 4291 section 2.7.1).
pub(super) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | (ip.to_bits() & 0xff_ffff))
}

/// The Ethernet address of an IPv6 group (RFC 2464 section 7).
pub(super) fn group_mac(ip: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = ip.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn arp_golden_bytes_and_every_cut() {
        let arp =
            Arp { reply: false, sender: (A, Ipv4Addr::new(10, 0, 0, 1)), target: ([0; 6], Ipv4Addr::new(10, 0, 0, 2)) };
        let mut bytes = [0; ARP_BYTES];
        arp.write(&mut bytes);
        let golden = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
        assert_eq!(bytes, golden);
        assert_eq!(Arp::parse(&bytes), Some(arp));
        assert!((0..ARP_BYTES).all(|n| Arp::parse(&bytes[..n]).is_none()));
        bytes[8] = 1;
        assert_eq!(Arp::parse(&bytes), None, "a group is not a host");
    }

    #[test]
    fn neighbours_survive_the_wire_and_damage_is_noticed() {
        let ip: Ipv6Addr = "2001:db8::12:3456".parse().unwrap();
        let me: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(solicited_node(ip).to_string(), "ff02::1:ff12:3456");
        assert_eq!(group_mac(solicited_node(ip)), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        for advertisement in [false, true] {
            let n = Neighbour {
                advertisement,
                source: me,
                destination: if advertisement { ip } else { solicited_node(ip) },
                target: ip,
                mac: Some(A),
                solicited: advertisement,
            };
            let mut bytes = [0xee; ND_BYTES];
            n.write(&mut bytes);
            assert_eq!(Neighbour::parse(&bytes), Some(n));
            assert!((0..ND_BYTES).all(|cut| Neighbour::parse(&bytes[..cut]).is_none()));
            for bit in (7 * 8)..ND_BYTES * 8 {
                let mut damaged = bytes;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Neighbour::parse(&damaged), None, "bit {bit}");
            }
        }
    }
}
