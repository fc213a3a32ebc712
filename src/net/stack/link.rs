//! The way out: one frame at a time into the port, with its Ethernet header, tag and checksums, and the adapter by which
//! smoltcp receives and sends IP packets. smoltcp knows neither Ethernet nor checksums: it sees one packet of one
//! connection, already verified, and what it sends gets the address of that connection's next hop.
//!
//! What stays true: smoltcp is never told that a packet left which did not. When the port has no buffer the packet goes
//! into the one spill buffer, and until that has left smoltcp is told that there is no room.

use super::checksum;
use super::frame::{self, ETHERNET, TAG, TCP, TYPE_IPV4, TYPE_IPV6, TYPE_VLAN};
use super::neighbour::Mac;
use super::port::Port;
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// The port and what goes around every packet.
pub(super) struct Link<P> {
    pub(super) port: P,
    mac: Mac,
    vlan: Option<u16>,
    sum_ip: bool,
    sum_tcp: bool,
    mtu: usize,
    spill: Box<[u8]>,
    /// Bytes waiting in the spill buffer.
    spilled: usize,
    /// Where a packet is written that cannot leave.
    waste: Box<[u8]>,
    /// Packets that found neither a transmit buffer nor the spill buffer free.
    pub(super) lost: u64,
}

impl<P: Port> Link<P> {
    pub(super) fn new(port: P, vlan: Option<u16>, mtu: usize) -> Link<P> {
        let facts = *port.facts();
        Link {
            port,
            mac: facts.mac,
            vlan,
            sum_ip: !facts.transmit_sums_ip,
            sum_tcp: !facts.transmit_sums_tcp,
            mtu,
            spill: vec![0; ETHERNET + TAG + mtu].into_boxed_slice(),
            spilled: 0,
            waste: vec![0; ETHERNET + TAG + mtu].into_boxed_slice(),
            lost: 0,
        }
    }

    /// True when a packet that is sent now gets a buffer.
    pub(super) fn room(&self) -> bool {
        self.spilled == 0
    }

    /// Tries again to pass on what found no buffer.
    pub(super) fn unspill(&mut self) {
        let bytes = &self.spill[..self.spilled];
        if self.spilled != 0 && self.port.transmit(bytes.len(), |out| out.copy_from_slice(bytes)) {
            self.spilled = 0;
        }
    }

    /// Sends one packet of `len` bytes and Ethernet type `kind`, which `fill` writes, to `to`.
    pub(super) fn output<R>(&mut self, to: Mac, kind: u16, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let head = if self.vlan.is_some() { ETHERNET + TAG } else { ETHERNET };
        let (mac, vlan) = (self.mac, self.vlan);
        let mut fill = Some(fill);
        let mut result = None;
        let mut write = |out: &mut [u8]| {
            let (header, packet) = out.split_at_mut(head);
            header[..6].copy_from_slice(&to);
            header[6..12].copy_from_slice(&mac);
            if let Some(id) = vlan {
                header[12..14].copy_from_slice(&TYPE_VLAN.to_be_bytes());
                header[14..16].copy_from_slice(&id.to_be_bytes());
            }
            header[head - 2..].copy_from_slice(&kind.to_be_bytes());
            let fill = fill.take().expect("written once");
            result = Some(fill(packet));
        };
        if self.spilled != 0 || !self.port.transmit(head + len, &mut write) {
            if self.spilled == 0 {
                write(&mut self.spill[..head + len]);
                self.spilled = head + len;
            } else {
                // Only answers to what was just received come here; the peer asks again.
                write(&mut self.waste[..head + len]);
                self.lost += 1;
            }
        }
        result.expect("the packet was written")
    }

    /// Sends one IP packet, completing its checksums.
    fn packet<R>(&mut self, to: Mac, len: usize, sent: &mut Sent, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let (sum_ip, sum_tcp) = (self.sum_ip, self.sum_tcp);
        let kind = if sent.v6 { TYPE_IPV6 } else { TYPE_IPV4 };
        self.output(to, kind, len, |packet| {
            let result = fill(packet);
            complete(packet, sum_ip, sum_tcp);
            sent.note(packet);
            result
        })
    }
}

/// Fills in the checksums of an IP packet that the port does not compute.
fn complete(packet: &mut [u8], sum_ip: bool, sum_tcp: bool) {
    let (at, addresses, protocol) = match packet[0] >> 4 {
        4 => (20, 12..20, packet[9]),
        _ => (40, 8..40, packet[6]),
    };
    if sum_ip && at == 20 {
        packet[10..12].fill(0);
        let sum = checksum::field(checksum::add(0, &packet[..20]));
        packet[10..12].copy_from_slice(&sum);
    }
    if sum_tcp && protocol == TCP {
        let sum = checksum::pseudo(&packet[addresses], TCP, packet.len() - at);
        let sum = checksum::field(checksum::add(sum, &packet[at..]));
        packet[at + 16..at + 18].copy_from_slice(&sum);
    }
}

/// What this side has sent and the peer acknowledged, read off the segments: smoltcp keeps it to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sent {
    /// The connection speaks IPv6.
    pub(super) v6: bool,
    /// A SYN was sent: the numbers below mean something.
    pub(super) begun: bool,
    /// The newest acknowledgement, and the window that came with it.
    pub(super) acknowledged: u32,
    pub(super) window: u16,
    /// The sequence number behind the last byte sent.
    pub(super) next: u32,
}

impl Sent {
    fn note(&mut self, packet: &[u8]) {
        let Some((sequence, end, flags)) = frame::sent(packet) else { return };
        if flags & frame::SYN != 0 {
            let window = 0;
            *self = Sent { v6: self.v6, begun: true, acknowledged: sequence, window, next: end };
        } else if self.begun && end.wrapping_sub(self.next).cast_signed() > 0 && flags & frame::RST == 0 {
            self.next = end;
        }
    }

    /// Notes the acknowledgement of a received segment. True when it is older than one that was seen before.
    pub(super) fn heard(&mut self, acknowledged: u32, window: u16) -> bool {
        if !self.begun {
            return false;
        }
        let ahead = acknowledged.wrapping_sub(self.acknowledged);
        if ahead <= self.next.wrapping_sub(self.acknowledged) {
            (self.acknowledged, self.window) = (acknowledged, window);
            return false;
        }
        ahead.cast_signed() < 0
    }
}

/// One connection's turn on the link: at most one packet in, any number out.
pub(super) struct Turn<'a, P> {
    pub(super) link: &'a mut Link<P>,
    /// The packet to be received.
    pub(super) packet: Option<&'a [u8]>,
    /// Where packets go; nowhere while the next hop is not known.
    pub(super) to: Option<Mac>,
    pub(super) sent: &'a mut Sent,
}

pub(super) struct Receive<'a>(&'a [u8]);

pub(super) struct Transmit<'a, P> {
    link: &'a mut Link<P>,
    to: Mac,
    sent: &'a mut Sent,
}

impl<P: Port> phy::Device for Turn<'_, P> {
    type RxToken<'b>
        = Receive<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Transmit<'b, P>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Receive<'_>, Transmit<'_, P>)> {
        let packet = self.packet.take()?;
        let to = self.to.expect("an answer to a packet goes where it came from");
        Some((Receive(packet), Transmit { link: self.link, to, sent: self.sent }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_, P>> {
        let to = self.to.filter(|_| self.link.room())?;
        Some(Transmit { link: self.link, to, sent: self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.link.mtu)
    }
}

/// What smoltcp is told of the link.
fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut sums = ChecksumCapabilities::default();
    (sums.ipv4, sums.tcp) = (Checksum::None, Checksum::None);
    let mut caps = DeviceCapabilities::default();
    caps.medium = Medium::Ip;
    caps.max_transmission_unit = mtu;
    caps.checksum = sums;
    caps
}

impl phy::RxToken for Receive<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<P: Port> phy::TxToken for Transmit<'_, P> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.link.packet(self.to, len, self.sent, f)
    }
}
