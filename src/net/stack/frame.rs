//! What a received frame is, before TCP looks at it: Ethernet with or without a VLAN tag (IEEE 802.1Q), IPv4 or IPv6,
//! and of TCP as much as is needed to find the connection. Checksums that the port has not verified are verified here.
//! Nothing is copied; a frame that is cut, padded, damaged or for somebody else is told apart by its [`Drop`].

use super::checksum;
use super::flow::Flow;
use super::neighbour::Mac;
use super::port::PortFacts;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header without a tag.
pub(super) const ETHERNET: usize = 14;
/// Bytes a VLAN tag adds.
pub(super) const TAG: usize = 4;
pub(super) const TYPE_IPV4: u16 = 0x0800;
pub(super) const TYPE_ARP: u16 = 0x0806;
pub(super) const TYPE_IPV6: u16 = 0x86dd;
pub(super) const TYPE_VLAN: u16 = 0x8100;
pub(super) const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// TCP flags (RFC 9293 section 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// Why a frame is not looked at further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drop {
    /// Another host's, another VLAN's, or a protocol nobody here speaks.
    NotOurs,
    /// Cut or with impossible lengths.
    Malformed,
    /// A checksum does not fit.
    Damaged,
    /// A piece of a fragmented IP packet: TCP never needs them.
    Fragment,
}

/// A TCP segment in the IP packet around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// The IP packet, without padding behind it.
    pub(super) packet: &'a [u8],
    /// Where the TCP header begins in it.
    pub(super) at: usize,
    pub(super) flow: Flow,
    pub(super) source: Mac,
}

impl Segment<'_> {
    pub(super) fn flags(&self) -> u8 {
        self.packet[self.at + 13]
    }
    pub(super) fn acknowledged(&self) -> u32 {
        let b = &self.packet[self.at + 8..self.at + 12];
        u32::from_be_bytes([b[0], b[1], b[2], b[3]])
    }
    pub(super) fn window(&self) -> u16 {
        u16::from_be_bytes([self.packet[self.at + 14], self.packet[self.at + 15]])
    }
    /// Bytes of the stream it carries.
    pub(super) fn payload(&self) -> usize {
        payload(self.packet, self.at)
    }
}

/// Bytes of the stream in an IP packet whose TCP header begins at `at`.
fn payload(packet: &[u8], at: usize) -> usize {
    packet.len().saturating_sub(at + usize::from(packet[at + 12] >> 4) * 4)
}

/// The sequence number behind a segment that this side sent, and the one it begins with: `packet` is an IP packet.
pub(super) fn sent(packet: &[u8]) -> Option<(u32, u32, u8)> {
    let at = match packet[0] >> 4 {
        4 if packet[9] == TCP => 20,
        6 if packet[6] == TCP => 40,
        _ => return None,
    };
    let b = &packet[at + 4..at + 8];
    let sequence = u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
    let flags = packet[at + 13];
    let marks = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    Some((sequence, sequence.wrapping_add(payload(packet, at) as u32 + marks), flags))
}

/// A frame by what is to be done with it.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    Arp(&'a [u8]),
    /// An `ICMPv6` packet with its IPv6 header: discovery or echo.
    Icmpv6(&'a [u8], Mac),
    /// An `ICMPv4` packet with its IPv4 header.
    Icmpv4(&'a [u8], Mac),
    Tcp(Segment<'a>),
    Nothing(Drop),
}

/// What is ours on the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    pub(super) mac: Mac,
    pub(super) vlan: Option<u16>,
    pub(super) check_ip: bool,
    pub(super) check_tcp: bool,
}

impl Filter {
    pub(super) fn new(facts: &PortFacts, vlan: Option<u16>) -> Filter {
        Filter { mac: facts.mac, vlan, check_ip: !facts.receive_checks_ip, check_tcp: !facts.receive_checks_tcp }
    }

    /// Sorts one frame.
    pub(super) fn sort<'a>(&self, frame: &'a [u8]) -> Seen<'a> {
        self.ethernet(frame).unwrap_or_else(Seen::Nothing)
    }

    fn ethernet<'a>(&self, frame: &'a [u8]) -> Result<Seen<'a>, Drop> {
        let (header, mut rest) = frame.split_first_chunk::<ETHERNET>().ok_or(Drop::Malformed)?;
        let to: Mac = header[..6].try_into().expect("six bytes");
        let source: Mac = header[6..12].try_into().expect("six bytes");
        if (to != self.mac && to[0] & 1 == 0) || source[0] & 1 != 0 {
            return Err(Drop::NotOurs);
        }
        let mut kind = u16::from_be_bytes([header[12], header[13]]);
        let mut tag = None;
        if kind == TYPE_VLAN {
            let (bytes, behind) = rest.split_first_chunk::<TAG>().ok_or(Drop::Malformed)?;
            // Identifier 0 only carries a priority.
            tag = Some(u16::from_be_bytes([bytes[0], bytes[1]]) & 0xfff).filter(|id| *id != 0);
            kind = u16::from_be_bytes([bytes[2], bytes[3]]);
            rest = behind;
        }
        if tag != self.vlan {
            return Err(Drop::NotOurs);
        }
        match kind {
            TYPE_ARP => Ok(Seen::Arp(rest)),
            TYPE_IPV4 => self.ipv4(rest, source),
            TYPE_IPV6 => self.ipv6(rest, source),
            _ => Err(Drop::NotOurs),
        }
    }

    fn ipv4<'a>(&self, bytes: &'a [u8], source: Mac) -> Result<Seen<'a>, Drop> {
        let header: &[u8; 20] = bytes.first_chunk().ok_or(Drop::Malformed)?;
        let at = usize::from(header[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || at < 20 || total < at || total > bytes.len() {
            return Err(Drop::Malformed);
        }
        let packet = &bytes[..total];
        if self.check_ip && !checksum::valid(checksum::add(0, &packet[..at])) {
            return Err(Drop::Damaged);
        }
        // More fragments, or an offset.
        if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
            return Err(Drop::Fragment);
        }
        match header[9] {
            TCP => {
                let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
                let number = |at| Ipv4Addr::from(word(at)).to_ipv6_mapped().to_bits();
                self.tcp(packet, at, &packet[12..20], [number(12), number(16)], source)
            }
            ICMP => Ok(Seen::Icmpv4(packet, source)),
            _ => Err(Drop::NotOurs),
        }
    }

    fn ipv6<'a>(&self, bytes: &'a [u8], source: Mac) -> Result<Seen<'a>, Drop> {
        let header: &[u8; 40] = bytes.first_chunk().ok_or(Drop::Malformed)?;
        let total = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 || total > bytes.len() {
            return Err(Drop::Malformed);
        }
        let packet = &bytes[..total];
        match header[6] {
            TCP => {
                let number = |at: usize| {
                    let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes");
                    Ipv6Addr::from(octets).to_bits()
                };
                self.tcp(packet, 40, &packet[8..40], [number(8), number(24)], source)
            }
            ICMPV6 => Ok(Seen::Icmpv6(packet, source)),
            // Extension headers before TCP are not used by any host that speaks to a storage target.
            _ => Err(Drop::NotOurs),
        }
    }

    fn tcp<'a>(
        &self,
        packet: &'a [u8],
        at: usize,
        addresses: &[u8],
        [remote, local]: [u128; 2],
        source: Mac,
    ) -> Result<Seen<'a>, Drop> {
        let segment = &packet[at..];
        if segment.len() < 20 || !(20..=segment.len()).contains(&(usize::from(segment[12] >> 4) * 4)) {
            return Err(Drop::Malformed);
        }
        if self.check_tcp {
            let sum = checksum::add(checksum::pseudo(addresses, TCP, segment.len()), segment);
            if !checksum::valid(sum) {
                return Err(Drop::Damaged);
            }
        }
        let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let flow = Flow { local, remote, local_port: port(2), remote_port: port(0) };
        Ok(Seen::Tcp(Segment { packet, at, flow, source }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const ME: Mac = [2, 0, 0, 0, 0, 9];

    fn filter(vlan: Option<u16>) -> Filter {
        Filter { mac: ME, vlan, check_ip: true, check_tcp: true }
    }

    /// 10.0.0.1:4096 to 10.0.0.2:80, "hello" with ACK, then padding to 60 bytes.
    fn golden(vlan: Option<u16>) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 45, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = checksum::field(checksum::add(0, &ip));
        ip[10..12].copy_from_slice(&sum);
        let mut tcp = vec![0x10, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 7, 0x50, ACK, 1, 0, 0, 0, 0, 0];
        tcp.extend(b"hello");
        let sum = checksum::field(checksum::add(checksum::pseudo(&ip[12..20], TCP, tcp.len()), &tcp));
        tcp[16..18].copy_from_slice(&sum);
        let mut frame = ME.to_vec();
        frame.extend([2, 0, 0, 0, 0, 1]);
        if let Some(id) = vlan {
            frame.extend([0x81, 0]);
            frame.extend((id | 0xa000).to_be_bytes());
        }
        frame.extend([8, 0]);
        frame.extend(ip);
        frame.extend(tcp);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    #[test]
    fn a_segment_is_found_with_and_without_a_tag() {
        for vlan in [None, Some(77)] {
            let frame = golden(vlan);
            let Seen::Tcp(segment) = filter(vlan).sort(&frame) else { panic!() };
            assert_eq!(segment.flow, Flow::new("10.0.0.2:80".parse().unwrap(), "10.0.0.1:4096".parse().unwrap()));
            assert_eq!((segment.flags(), segment.acknowledged(), segment.window()), (ACK, 7, 256));
            assert_eq!((segment.payload(), segment.packet.len()), (5, 45));
            assert_eq!(sent(segment.packet), Some((1, 6, ACK)));
            let other = filter(if vlan.is_some() { None } else { Some(77) });
            assert!(matches!(other.sort(&frame), Seen::Nothing(Drop::NotOurs)));
        }
        let Seen::Tcp(_) = filter(None).sort(&golden(Some(0))) else { panic!("a priority tag is no VLAN") };
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let frame = golden(None);
        let end = ETHERNET + 45;
        for cut in 0..end {
            assert!(matches!(filter(None).sort(&frame[..cut]), Seen::Nothing(_)), "cut at {cut}");
        }
        for bit in ETHERNET * 8..end * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(filter(None).sort(&damaged), Seen::Nothing(_)), "bit {bit}");
        }
        let trusting = Filter { check_ip: false, check_tcp: false, ..filter(None) };
        let mut unsummed = frame.clone();
        unsummed[ETHERNET + 10..ETHERNET + 12].fill(0);
        unsummed[ETHERNET + 36..ETHERNET + 38].fill(0);
        assert!(matches!(trusting.sort(&unsummed), Seen::Tcp(_)));
        assert!(matches!(filter(None).sort(&unsummed), Seen::Nothing(Drop::Damaged)));
    }

    #[test]
    fn fragments_are_told_apart() {
        let mut frame = golden(None);
        frame[ETHERNET + 6] = 0x20;
        frame[ETHERNET + 10..ETHERNET + 12].fill(0);
        let sum = checksum::field(checksum::add(0, &frame[ETHERNET..ETHERNET + 20]));
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum);
        assert!(matches!(filter(None).sort(&frame), Seen::Nothing(Drop::Fragment)));
    }

    #[test]
    fn strange_frames_never_panic() {
        let mut rng = Rng::new(8);
        let trusting = Filter { check_ip: false, check_tcp: false, ..filter(None) };
        for _ in 0..100_000 {
            let mut frame = golden(None);
            for _ in 0..=rng.below(6) {
                let at = rng.below(frame.len() as u64) as usize;
                frame[at] = rng.next_u64() as u8;
            }
            frame.truncate(rng.below(frame.len() as u64 + 1) as usize);
            for filter in [filter(None), trusting] {
                if let Seen::Tcp(s) = filter.sort(&frame) {
                    assert!(s.payload() + s.at + 20 <= s.packet.len());
                    let _ = (s.flags(), s.window(), s.acknowledged());
                }
            }
        }
    }
}
