//! Who our neighbours are is told to the port, not to a core: the answers to "who has this address" are no part of any
//! flow, and the card puts them into one queue. A core that finds one hands copies to the others, whose stacks asked as well.

use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// Longest frame that is shared: a neighbour advertisement with its options and a VLAN tag.
const BYTES: usize = 128;
/// Shared frames that wait for a core; further ones are dropped, and asked for again by whoever misses them.
const WAITING: usize = 64;

/// A small frame on its way to another core.
struct Copied {
    len: u8,
    bytes: [u8; BYTES],
}

/// One core's inbox and its way to those of the others.
pub(super) struct Share {
    own: usize,
    inboxes: Arc<[ArrayQueue<Copied>]>,
}

impl Share {
    /// One for each of `cores` cores.
    pub fn among(cores: usize) -> Vec<Share> {
        let inboxes: Arc<[ArrayQueue<Copied>]> = (0..cores).map(|_| ArrayQueue::new(WAITING)).collect();
        (0..cores).map(|own| Share { own, inboxes: inboxes.clone() }).collect()
    }

    /// True when there is somebody to share with.
    #[inline]
    pub fn is_needed(&self) -> bool {
        self.inboxes.len() > 1
    }

    /// Hands a frame to the other cores when they need it.
    #[inline]
    pub fn offer(&self, frame: &[u8]) {
        if tells_of_a_neighbour(frame) && frame.len() <= BYTES {
            for (core, inbox) in self.inboxes.iter().enumerate() {
                if core != self.own {
                    let mut copy = Copied { len: frame.len() as u8, bytes: [0; BYTES] };
                    copy.bytes[..frame.len()].copy_from_slice(frame);
                    let _ = inbox.push(copy);
                }
            }
        }
    }

    /// A frame that another core has shared, shown to `take`.
    pub fn next<T>(&self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.inboxes[self.own].pop().map(|copy| take(&copy.bytes[..usize::from(copy.len)]))
    }
}

/// An ARP reply (RFC 826), or a neighbour advertisement (RFC 4861, section 4.4).
fn tells_of_a_neighbour(frame: &[u8]) -> bool {
    let Some(ethernet) = super::checksum::ethernet_len(frame) else { return false };
    let packet = &frame[ethernet..];
    match frame[ethernet - 2..ethernet] {
        [0x08, 0x06] => packet.get(6..8) == Some(&[0, 2]),
        [0x86, 0xdd] => packet.get(6) == Some(&58) && packet.get(40) == Some(&136),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arp(operation: u8) -> Vec<u8> {
        let mut frame = vec![0xaa; 12];
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend([7; 20]);
        frame
    }

    #[test]
    fn answers_about_neighbours_reach_every_other_core() {
        let cores = Share::among(3);
        assert!(cores[0].is_needed() && !Share::among(1)[0].is_needed());
        cores[1].offer(&arp(1));
        cores[1].offer(&arp(2));
        cores[1].offer(&[0; 20]);
        assert_eq!(cores[0].next(<[u8]>::to_vec), Some(arp(2)));
        assert_eq!(cores[2].next(<[u8]>::to_vec), Some(arp(2)));
        for core in &cores {
            assert_eq!(core.next(<[u8]>::len), None);
        }
        let mut advertisement = vec![0; 12];
        advertisement.extend([0x81, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
        advertisement.extend([1; 32]);
        advertisement.extend([136, 0, 0, 0]);
        assert!(tells_of_a_neighbour(&advertisement));
        (0..2 * WAITING).for_each(|_| cores[0].offer(&arp(2)));
        let mut got = 0;
        while cores[1].next(|_| ()).is_some() {
            got += 1;
        }
        assert_eq!(got, WAITING);
        for len in 0..advertisement.len() {
            let _ = tells_of_a_neighbour(&advertisement[..len]);
        }
    }
}
