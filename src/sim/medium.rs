//! What a power cut can do to a medium: an image that is durable for certain and the writes that are not yet.
//!
//! A write passes three points: submitted (from here on any part of it may be on the medium), executed (readers see
//! it), completed (its submitter was told). None of them is durability: that comes with a flush submitted after the
//! completion, or with the completion itself on a medium without a volatile cache. Order among unflushed writes means
//! nothing; only where two of them overlap does the one executed later stay on top.

use super::{Image, SECTOR};
use std::sync::Arc;

/// What a write puts down.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes, from `start` on, `len` of them.
    Bytes {
        /// The bytes of the whole operation.
        of: Arc<[u8]>,
        /// The first one meant.
        start: usize,
        /// How many.
        len: usize,
    },
    /// So many zeroes.
    Zeroes(u64),
}

impl Content {
    /// All of `bytes`.
    pub fn all(bytes: &[u8]) -> Content {
        Content::Bytes { of: Arc::from(bytes), start: 0, len: bytes.len() }
    }
    /// Bytes put down.
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes { len, .. } => *len as u64,
            Content::Zeroes(len) => *len,
        }
    }
    /// True when nothing is put down.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The `len` bytes from `at` on.
    #[must_use]
    pub fn part(&self, at: u64, len: u64) -> Content {
        assert!(at + len <= self.len(), "a part of a content lies inside it");
        match self {
            Content::Bytes { of, start, .. } => {
                Content::Bytes { of: of.clone(), start: start + at as usize, len: len as usize }
            }
            Content::Zeroes(_) => Content::Zeroes(len),
        }
    }
    /// Puts it into `image` at `offset`.
    pub fn put(&self, image: &mut Image, offset: u64) {
        match self {
            Content::Bytes { of, start, len } => image.write(offset, &of[*start..start + len]),
            Content::Zeroes(len) => image.zero(offset, *len),
        }
    }
}

/// One contiguous part of what a write does to the medium.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Byte offset on the medium.
    pub offset: u64,
    /// What goes there.
    pub content: Content,
}

/// A write on its way to being durable. It usually is one piece; a fault may have moved it, cut a hole into it or
/// left nothing of it.
#[derive(Clone, Debug)]
pub struct Write {
    /// The number of the operation, in order of submission.
    pub seq: u64,
    /// What it does.
    pub pieces: Vec<Piece>,
    executed: Option<u64>,
    completed: Option<u64>,
    doomed: bool,
}

impl Write {
    /// 512-byte sectors it touches; a piece that starts or ends inside one counts it.
    pub fn sectors(&self) -> usize {
        self.pieces.iter().map(|p| p.content.len().div_ceil(SECTOR as u64) as usize).sum()
    }

    /// True when it or a flush over it failed: no later flush makes it durable, only a power cut decides what is left.
    pub fn doomed(&self) -> bool {
        self.doomed
    }

    /// Puts down those of its sectors (counted through all pieces) for which `keep` says so.
    pub fn put(&self, image: &mut Image, keep: impl Fn(usize) -> bool) {
        let mut sector = 0;
        for piece in &self.pieces {
            let mut at = 0;
            while at < piece.content.len() {
                let n = (piece.content.len() - at).min(SECTOR as u64);
                if keep(sector) {
                    piece.content.part(at, n).put(image, piece.offset + at);
                }
                at += n;
                sector += 1;
            }
        }
    }

    /// Puts down all of it.
    pub fn put_all(&self, image: &mut Image) {
        for piece in &self.pieces {
            piece.content.put(image, piece.offset);
        }
    }

    fn overlaps(&self, other: &Write) -> bool {
        let meet =
            |a: &Piece, b: &Piece| a.offset < b.offset + b.content.len() && b.offset < a.offset + a.content.len();
        self.pieces.iter().any(|a| other.pieces.iter().any(|b| meet(a, b)))
    }
}

/// A durable image and the writes that may or may not survive a power cut now.
#[derive(Clone)]
pub struct Medium {
    durable: Image,
    unflushed: Vec<Write>,
    write_through: bool,
    executions: u64,
    completions: u64,
}

impl Medium {
    /// A medium that holds `image`, all of it durable. With `write_through` a completed write is durable.
    pub fn new(image: Image, write_through: bool) -> Medium {
        Medium { durable: image, unflushed: Vec::new(), write_through, executions: 0, completions: 0 }
    }

    /// What is durable for certain.
    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// The writes a power cut may take back, in the order in which their effects lie on top of each other.
    pub fn unflushed(&self) -> impl Iterator<Item = &Write> {
        let mut order: Vec<&Write> = self.unflushed.iter().collect();
        order.sort_by_key(|w| (w.executed.unwrap_or(u64::MAX), w.seq));
        order.into_iter()
    }

    /// How many of them there are.
    pub fn unflushed_len(&self) -> usize {
        self.unflushed.len()
    }

    /// A write was handed to the medium.
    pub fn submit(&mut self, seq: u64, pieces: Vec<Piece>) {
        debug_assert!(self.unflushed.iter().all(|w| w.seq != seq), "an operation is submitted once");
        self.unflushed.push(Write { seq, pieces, executed: None, completed: None, doomed: false });
    }

    /// Its effect becomes visible: readers of `cache` see it from now on.
    pub fn execute(&mut self, seq: u64, cache: &mut Image) {
        let number = self.executions;
        self.executions += 1;
        let write = self.unflushed.iter_mut().find(|w| w.seq == seq).expect("a write is submitted before it executes");
        assert!(write.executed.replace(number).is_none(), "a write is executed once");
        write.put_all(cache);
    }

    /// Its submitter has been told that it is done.
    pub fn complete(&mut self, seq: u64) {
        let number = self.completions;
        self.completions += 1;
        // A flush of a write that lies on top of this one may have made it durable before its submitter heard of it.
        let Some(write) = self.unflushed.iter_mut().find(|w| w.seq == seq) else { return };
        assert!(write.executed.is_some(), "a write completes after it was executed");
        assert!(write.completed.replace(number).is_none(), "a write completes once");
        if self.write_through {
            self.settle(|w| w.seq == seq);
        }
    }

    /// Its submitter has been told that it failed; what it left on the medium stays open until a power cut decides.
    pub fn fail(&mut self, seq: u64) {
        if let Some(write) = self.unflushed.iter_mut().find(|w| w.seq == seq) {
            write.doomed = true;
        }
    }

    /// What a flush submitted now covers: every write completed so far.
    pub fn barrier(&self) -> u64 {
        self.completions
    }

    /// A flush with this barrier took effect.
    pub fn flush(&mut self, barrier: u64) {
        self.settle(|w| w.completed.is_some_and(|c| c < barrier));
    }

    /// A flush with this barrier failed: as on Linux, the writes it covered count as clean although they never
    /// reached the medium, so no later flush makes them durable.
    pub fn doom(&mut self, barrier: u64) {
        for write in &mut self.unflushed {
            write.doomed |= write.completed.is_some_and(|c| c < barrier);
        }
    }

    /// Makes the covered writes durable, and with them every earlier write that one of them lies on top of: otherwise
    /// a power cut could bring the lower one up.
    fn settle(&mut self, covered: impl Fn(&Write) -> bool) {
        let mut pick: Vec<bool> = self.unflushed.iter().map(|w| !w.doomed && covered(w)).collect();
        let mut grown = pick.iter().any(|p| *p) && pick.iter().any(|p| !*p);
        while grown {
            grown = false;
            for low in 0..self.unflushed.len() {
                let under = |high: usize| {
                    let (low, high) = (&self.unflushed[low], &self.unflushed[high]);
                    low.executed.is_some() && low.executed < high.executed && low.overlaps(high)
                };
                if !pick[low] && (0..pick.len()).any(|high| pick[high] && under(high)) {
                    pick[low] = true;
                    grown = true;
                }
            }
        }
        let mut now: Vec<Write> = Vec::new();
        let mut at = 0;
        self.unflushed.retain(|w| {
            at += 1;
            if pick[at - 1] {
                now.push(w.clone());
            }
            !pick[at - 1]
        });
        now.sort_by_key(|w| w.executed);
        for write in now.iter().filter(|w| !w.doomed) {
            write.put_all(&mut self.durable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(m: &mut Medium, seq: u64, offset: u64, byte: u8, cache: &mut Image) {
        m.submit(seq, vec![Piece { offset, content: Content::all(&[byte; 1024]) }]);
        m.execute(seq, cache);
        m.complete(seq);
    }

    fn at(image: &Image, offset: u64) -> u8 {
        let mut b = [0];
        image.read(offset, &mut b);
        b[0]
    }

    #[test]
    fn only_a_flush_submitted_after_completion_makes_a_write_durable() {
        let mut cache = Image::new(8192);
        let mut m = Medium::new(cache.clone(), false);
        write(&mut m, 1, 0, 1, &mut cache);
        let early = m.barrier();
        write(&mut m, 2, 4096, 2, &mut cache);
        m.flush(early);
        assert_eq!((at(m.durable(), 0), at(m.durable(), 4096), m.unflushed_len()), (1, 0, 1));
        assert_eq!(at(&cache, 4096), 2);
        m.flush(m.barrier());
        assert_eq!((at(m.durable(), 4096), m.unflushed_len()), (2, 0));
    }

    #[test]
    fn a_failed_flush_dooms_what_it_covered() {
        let mut cache = Image::new(8192);
        let mut m = Medium::new(cache.clone(), false);
        write(&mut m, 1, 0, 1, &mut cache);
        m.doom(m.barrier());
        m.flush(m.barrier());
        assert_eq!((at(m.durable(), 0), at(&cache, 0)), (0, 1));
    }

    #[test]
    fn a_durable_write_never_comes_under_an_older_one_again() {
        let mut cache = Image::new(8192);
        let mut m = Medium::new(cache.clone(), false);
        m.submit(1, vec![Piece { offset: 0, content: Content::all(&[1; 512]) }]);
        m.execute(1, &mut cache);
        write(&mut m, 2, 0, 2, &mut cache);
        m.flush(m.barrier());
        assert_eq!((at(m.durable(), 0), m.unflushed_len()), (2, 0), "write 1 went down under write 2");
    }

    #[test]
    fn write_through_means_durable_on_completion() {
        let mut cache = Image::new(8192);
        let mut m = Medium::new(cache.clone(), true);
        m.submit(1, vec![Piece { offset: 0, content: Content::all(&[1; 512]) }]);
        m.execute(1, &mut cache);
        assert_eq!(at(m.durable(), 0), 0, "in flight is open");
        m.complete(1);
        assert_eq!((at(m.durable(), 0), m.unflushed_len()), (1, 0));
    }
}
