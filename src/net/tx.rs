//! The send queue of one connection: small headers are copied into one ring of bytes, payload buffers are owned until
//! their last byte has left. The engine gathers both into one send per turn.

use crate::mem::{Buf, Pool};
use std::collections::VecDeque;

/// One stretch of the stream to be sent.
#[derive(Debug)]
pub enum Piece {
    /// The next `n` bytes of the header ring.
    Head(usize),
    /// `buf[at..end]`.
    Buf {
        /// The payload's owner.
        buf: Buf,
        /// First byte not yet sent.
        at: u32,
        /// One past the last byte to send.
        end: u32,
    },
    /// `[at..end]` of the next [`Piece::Buf`] behind it, which keeps the buffer: a payload that is cut by headers.
    Part {
        /// First byte not yet sent.
        at: u32,
        /// One past the last byte to send.
        end: u32,
    },
}

/// Queue of bytes to send on one connection, in order. Capacity is set when the connection learns its queue depth, and
/// is never exceeded: a target queues at most a fixed number of bytes per command it accepted.
#[derive(Debug)]
pub struct Tx {
    heads: VecDeque<u8>,
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl Tx {
    /// An empty queue with room for `head_bytes` of headers in `pieces` stretches before it must allocate.
    pub fn new(head_bytes: usize, pieces: usize) -> Tx {
        Tx { heads: VecDeque::with_capacity(head_bytes), pieces: VecDeque::with_capacity(pieces), bytes: 0 }
    }
    /// Makes room for `head_bytes` and `pieces` in all; called when a queue's depth becomes known.
    pub fn reserve(&mut self, head_bytes: usize, pieces: usize) {
        self.heads.reserve(head_bytes.saturating_sub(self.heads.len()));
        self.pieces.reserve(pieces.saturating_sub(self.pieces.len()));
    }
    /// Queues a copy of `bytes`.
    pub fn head(&mut self, bytes: &[u8]) {
        self.heads.extend(bytes);
        self.bytes += bytes.len();
        if let Some(Piece::Head(n)) = self.pieces.back_mut() {
            *n += bytes.len();
        } else {
            self.pieces.push_back(Piece::Head(bytes.len()));
        }
    }
    /// Queues `buf[at..end]`; the buffer returns to the pool once sent.
    pub fn buf(&mut self, buf: Buf, at: usize, end: usize) {
        assert!(at <= end && end <= buf.len(), "range outside the buffer");
        self.bytes += end - at;
        self.pieces.push_back(Piece::Buf { buf, at: at as u32, end: end as u32 });
    }
    /// Queues `[at..end]` of a buffer whose last stretch is queued, with the buffer itself, before any other buffer: headers
    /// may come between.
    pub fn part(&mut self, buf: &Buf, at: usize, end: usize) {
        assert!(at <= end && end <= buf.len(), "range outside the buffer");
        self.bytes += end - at;
        self.pieces.push_back(Piece::Part { at: at as u32, end: end as u32 });
    }
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes
    }
    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
    /// Calls `each` with the waiting stretches in order until it returns false.
    pub fn gather<'a>(&'a self, mut each: impl FnMut(&'a [u8]) -> bool) {
        let (front, back) = self.heads.as_slices();
        let mut head = 0;
        for (place, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Head(n) => {
                    let (from, to) = (head, head + n);
                    head = to;
                    let first = &front[from.min(front.len())..to.min(front.len())];
                    let second = &back[from.saturating_sub(front.len())..to.saturating_sub(front.len())];
                    if (!first.is_empty() && !each(first)) || (!second.is_empty() && !each(second)) {
                        return;
                    }
                }
                Piece::Buf { buf, at, end } => {
                    if at < end && !each(&buf[*at as usize..*end as usize]) {
                        return;
                    }
                }
                Piece::Part { at, end } => {
                    if at < end && !each(&self.owner(place)[*at as usize..*end as usize]) {
                        return;
                    }
                }
            }
        }
    }
    /// The buffer that the part in `place` is of.
    fn owner(&self, place: usize) -> &Buf {
        let behind =
            self.pieces.iter().skip(place).find_map(|p| if let Piece::Buf { buf, .. } = p { Some(buf) } else { None });
        behind.expect("the last stretch of a buffer is queued behind its parts")
    }
    /// The first `n` waiting bytes have left; finished buffers go back to `pool`.
    pub fn sent(&mut self, mut n: usize, pool: &mut Pool) {
        assert!(n <= self.bytes, "more bytes sent than queued");
        self.bytes -= n;
        while let Some(piece) = self.pieces.front_mut() {
            let left = match piece {
                Piece::Head(len) => {
                    let take = n.min(*len);
                    self.heads.drain(..take);
                    *len -= take;
                    n -= take;
                    *len
                }
                Piece::Buf { at, end, .. } | Piece::Part { at, end } => {
                    let take = n.min((*end - *at) as usize);
                    *at += take as u32;
                    n -= take;
                    (*end - *at) as usize
                }
            };
            if left != 0 {
                return;
            }
            if let Some(Piece::Buf { buf, .. }) = self.pieces.pop_front() {
                pool.put(buf);
            }
        }
    }
    /// Drops everything; buffers go back to `pool`.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.sent(self.bytes, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::CoreId;
    use crate::mem::Class;

    #[test]
    fn any_split_of_sends_yields_the_same_stream() {
        for step in 1..40 {
            let mut pool = Pool::standalone(CoreId(0), &[Class { size: 4096, count: 4 }]).unwrap();
            let mut tx = Tx::new(64, 16);
            let mut want = Vec::new();
            for i in 0..4u8 {
                tx.head(&[i; 24]);
                want.extend([i; 24]);
                let mut b = pool.get(50).unwrap();
                b.fill(100 + i);
                tx.buf(b, 10, 40);
                want.extend([100 + i; 30]);
            }
            let mut got = Vec::new();
            while !tx.is_empty() {
                let mut now = Vec::new();
                tx.gather(|s| {
                    now.extend_from_slice(s);
                    true
                });
                let n = step.min(now.len());
                got.extend_from_slice(&now[..n]);
                tx.sent(n, &mut pool);
            }
            assert_eq!(got, want);
            assert!(pool.stats().all(|s| s.free == s.total));
        }
    }
}
