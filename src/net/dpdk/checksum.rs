//! Checksums of received frames that the hardware has not verified: a frame that leaves this file as good has a right IPv4
//! header, and right TCP bytes if it carries TCP. Other protocols are left to the stack, which sees them seldom.

/// What is wrong with a frame, if anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// To be handed up.
    Good,
    /// To be dropped and counted.
    Bad,
}

/// What need not be looked at again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Known {
    /// The IPv4 header is right.
    pub ip: bool,
    /// The TCP bytes are right.
    pub tcp: bool,
    /// The frames may come from a kernel that leaves the TCP checksum to the hardware, and no hardware is in between: the field then
    /// holds the sum of the pseudo header alone. To take it for that costs no more safety than a checksum of 16 bits has
    /// anyway: a damaged frame passes with a probability of one in 65536.
    pub unfinished: bool,
}

const ETHERNET: usize = 14;
const TCP: u8 = 6;
/// Headers in front of an IPv6 payload that are skipped at most.
const EXTENSIONS: usize = 8;

/// Where the parts of a frame that carries TCP are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Bytes before the IP header.
    pub ethernet: usize,
    /// Bytes of IP headers.
    pub ip: usize,
    /// IPv6, not IPv4.
    pub v6: bool,
    /// The end of the IP packet: frames may be padded.
    pub end: usize,
}

enum Found {
    /// TCP, whole.
    Tcp(Layout),
    /// Something else, or a fragment.
    Other,
    /// Lengths that contradict the frame.
    Broken,
}

/// The layout of a frame that carries a whole TCP segment.
pub(super) fn tcp_layout(frame: &[u8]) -> Option<Layout> {
    match find(frame, false) {
        Found::Tcp(layout) => Some(layout),
        Found::Other | Found::Broken => None,
    }
}

/// Judges a received frame.
pub(super) fn judge(frame: &[u8], known: Known) -> Verdict {
    if known.ip && known.tcp {
        return Verdict::Good;
    }
    match find(frame, !known.ip) {
        Found::Other => Verdict::Good,
        Found::Broken => Verdict::Bad,
        Found::Tcp(_) if known.tcp => Verdict::Good,
        Found::Tcp(layout) => {
            let pseudo = pseudo_sum(frame, &layout);
            let segment = &frame[layout.ethernet + layout.ip..layout.end];
            if segment.len() < 20 {
                return Verdict::Bad;
            }
            let field = u16::from_ne_bytes([segment[16], segment[17]]);
            let unfinished = known.unfinished && field == pseudo;
            if unfinished || fold(u64::from(pseudo) + sum(segment)) == 0xffff { Verdict::Good } else { Verdict::Bad }
        }
    }
}

/// Finds TCP; verifies the sum of an IPv4 header on the way when asked to.
fn find(frame: &[u8], verify: bool) -> Found {
    let Some(ethernet) = ethernet_len(frame) else { return Found::Other };
    let kind = u16::from_be_bytes([frame[ethernet - 2], frame[ethernet - 1]]);
    let packet = &frame[ethernet..];
    match kind {
        0x0800 => {
            let Some(first) = packet.first() else { return Found::Broken };
            let header = usize::from(first & 15) * 4;
            if first >> 4 != 4 || header < 20 || packet.len() < header {
                return Found::Broken;
            }
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            if total < header || total > packet.len() || (verify && fold(sum(&packet[..header])) != 0xffff) {
                return Found::Broken;
            }
            // "More fragments", or an offset.
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
            let layout = Layout { ethernet, ip: header, v6: false, end: ethernet + total };
            if packet[9] == TCP && !fragment { Found::Tcp(layout) } else { Found::Other }
        }
        0x86dd => v6(packet, ethernet),
        _ => Found::Other,
    }
}

fn v6(packet: &[u8], ethernet: usize) -> Found {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return Found::Broken;
    }
    let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    if total > packet.len() {
        return Found::Broken;
    }
    let (mut next, mut at) = (packet[6], 40);
    for _ in 0..EXTENSIONS {
        match next {
            TCP => return Found::Tcp(Layout { ethernet, ip: at, v6: true, end: ethernet + total }),
            // Hop by hop, routing, destination options: 8 bytes and as many more as the second one says.
            0 | 43 | 60 if at + 8 <= total => {
                next = packet[at];
                at += 8 + usize::from(packet[at + 1]) * 8;
                if at > total {
                    return Found::Broken;
                }
            }
            0 | 43 | 60 => return Found::Broken,
            _ => return Found::Other,
        }
    }
    Found::Broken
}

/// Bytes of the Ethernet header with a VLAN tag, if there is one; `None` for a frame that is too short for it.
pub(super) fn ethernet_len(frame: &[u8]) -> Option<usize> {
    let tagged = frame.len() >= ETHERNET && frame[12..14] == [0x81, 0x00];
    let len = if tagged { ETHERNET + 4 } else { ETHERNET };
    (frame.len() >= len).then_some(len)
}

/// The folded sum of the addresses, the protocol and the length that TCP's checksum covers besides its own bytes.
fn pseudo_sum(frame: &[u8], layout: &Layout) -> u16 {
    let packet = &frame[layout.ethernet..];
    let addresses = if layout.v6 { &packet[8..40] } else { &packet[12..20] };
    let len = (layout.end - layout.ethernet - layout.ip) as u16;
    fold(sum(addresses) + u64::from(u16::from(TCP).to_be()) + u64::from(len.to_be()))
}

/// Writes what hardware that sums TCP itself wants to find: the sum of the pseudo header.
pub(super) fn prepare(frame: &mut [u8], layout: &Layout) {
    let pseudo = pseudo_sum(frame, layout);
    let tcp = layout.ethernet + layout.ip;
    frame[tcp + 16..tcp + 18].copy_from_slice(&pseudo.to_ne_bytes());
}

/// The sum of all 16-bit words in native order, an odd byte padded with zero. Sums of 32-bit words are the same once folded
/// (RFC 1071, section 2), and are what the compiler makes vectors of.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The textbook way, word by word in network order.
    fn textbook(parts: &[&[u8]]) -> u16 {
        let bytes: Vec<u8> = parts.concat();
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        !(total as u16)
    }

    /// A frame with right sums.
    fn frame(v6: bool, tagged: bool, payload: usize) -> Vec<u8> {
        let mut f = vec![2; 12];
        if tagged {
            f.extend([0x81, 0, 0, 7]);
        }
        let mut tcp: Vec<u8> = (0..20 + payload).map(|i| (i * 31 + 7) as u8).collect();
        tcp[12] = 5 << 4;
        tcp[16..18].fill(0);
        let len = (tcp.len() as u16).to_be_bytes();
        let mut ip;
        if v6 {
            f.extend([0x86, 0xdd]);
            ip = vec![0x60, 0, 0, 0, len[0], len[1], 6, 64];
            ip.extend((0..32).map(|i| (i * 5) as u8));
            let sum = textbook(&[&ip[8..40], &[0, 0, len[0], len[1], 0, 0, 0, 6], &tcp]);
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        } else {
            f.extend([8, 0]);
            let total = (tcp.len() as u16 + 20).to_be_bytes();
            ip = vec![0x45, 0, total[0], total[1], 1, 2, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2];
            let sum = textbook(&[&ip]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            let sum = textbook(&[&ip[12..20], &[0, 6, len[0], len[1]], &tcp]);
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        f.extend(ip);
        f.extend(tcp);
        f
    }

    #[test]
    fn right_sums_are_good_and_any_flipped_bit_is_bad() {
        for (v6, tagged, payload) in
            [(false, false, 0), (false, true, 1), (true, false, 3), (true, true, 1000), (false, false, 8948)]
        {
            let mut f = frame(v6, tagged, payload);
            f.extend([0; 5]);
            let end = f.len() - 5;
            assert_eq!(judge(&f, Known::default()), Verdict::Good);
            let ip = ethernet_len(&f).unwrap();
            let from = if v6 { ip + 8 } else { ip };
            for bit in (from * 8..end * 8).step_by(if payload > 100 { 37 } else { 1 }) {
                // The protocol number alone decides whether there is a sum at all.
                if !v6 && bit / 8 == ip + 9 {
                    continue;
                }
                f[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(judge(&f, Known::default()), Verdict::Bad, "v6 {v6} bit {bit}");
                f[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_sum_left_to_the_hardware_is_known_where_it_may_come() {
        for v6 in [false, true] {
            let mut f = frame(v6, false, 65_000);
            let layout = tcp_layout(&f).unwrap();
            let tcp = layout.ethernet + layout.ip;
            let pseudo = pseudo_sum(&f, &layout);
            f[tcp + 16..tcp + 18].copy_from_slice(&pseudo.to_ne_bytes());
            assert_eq!(judge(&f, Known::default()), Verdict::Bad);
            assert_eq!(judge(&f, Known { unfinished: true, ..Known::default() }), Verdict::Good);
            assert_eq!(judge(&f, Known { ip: true, tcp: true, ..Known::default() }), Verdict::Good);
            f[tcp + 16] ^= 1;
            assert_eq!(judge(&f, Known { unfinished: true, ..Known::default() }), Verdict::Bad);
        }
    }

    #[test]
    fn prepared_frames_hold_the_pseudo_header() {
        let mut f = frame(false, true, 100);
        let layout = tcp_layout(&f).unwrap();
        assert_eq!(layout, Layout { ethernet: 18, ip: 20, v6: false, end: f.len() });
        prepare(&mut f, &layout);
        assert_eq!(judge(&f, Known { unfinished: true, ..Known::default() }), Verdict::Good);
    }

    #[test]
    fn cut_and_random_frames_are_judged_without_a_panic() {
        let mut rng = crate::base::rng::Rng::new(11);
        for v6 in [false, true] {
            let whole = frame(v6, false, 64);
            for len in 0..whole.len() {
                let known = Known { unfinished: rng.below(2) == 0, ..Known::default() };
                let verdict = judge(&whole[..len], known);
                assert!(len < ETHERNET || verdict == Verdict::Bad, "a cut frame of {len} bytes passed");
            }
            for _ in 0..100_000 {
                let mut f = whole.clone();
                for _ in 0..=rng.below(4) {
                    let at = rng.below(f.len() as u64) as usize;
                    f[at] = rng.below(256) as u8;
                }
                f.truncate(rng.below(f.len() as u64 + 1) as usize);
                let _ = judge(&f, Known::default());
                let _ = tcp_layout(&f);
            }
        }
    }
}
