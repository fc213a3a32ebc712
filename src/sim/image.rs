//! The bytes of a medium as copy-on-write pages, so that a crash image costs the pages that differ and a thousand of
//! them fit in memory. Pages that were never written are zeroes and take no space.

use std::sync::Arc;

const PAGE: usize = 4096;

type Page = [u8; PAGE];

/// The whole content of a medium. Cloning shares every page until it is written.
#[derive(Clone)]
pub struct Image {
    pages: Vec<Option<Arc<Page>>>,
    size: u64,
}

impl Image {
    /// `size` bytes of zeroes; `size` is a multiple of 4096.
    pub fn new(size: u64) -> Image {
        assert!(size.is_multiple_of(PAGE as u64), "an image is whole pages");
        Image { pages: vec![None; (size / PAGE as u64) as usize], size }
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies `into.len()` bytes from `offset` on.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        self.bounds(offset, into.len() as u64);
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let (page, within) = split(at);
            let n = rest.len().min(PAGE - within);
            let (part, tail) = rest.split_at_mut(n);
            match &self.pages[page] {
                Some(p) => part.copy_from_slice(&p[within..within + n]),
                None => part.fill(0),
            }
            rest = tail;
            at += n as u64;
        }
    }

    /// Puts `from` at `offset`.
    pub fn write(&mut self, offset: u64, from: &[u8]) {
        self.bounds(offset, from.len() as u64);
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            let (page, within) = split(at);
            let n = rest.len().min(PAGE - within);
            self.page_mut(page)[within..within + n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            at += n as u64;
        }
    }

    /// Makes `len` bytes from `offset` on zeroes; whole pages are let go.
    pub fn zero(&mut self, offset: u64, len: u64) {
        self.bounds(offset, len);
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let (page, within) = split(at);
            let n = (end - at).min((PAGE - within) as u64) as usize;
            if n == PAGE {
                self.pages[page] = None;
            } else if self.pages[page].is_some() {
                self.page_mut(page)[within..within + n].fill(0);
            }
            at += n as u64;
        }
    }

    /// Inverts the bits of `mask` in the byte at `offset`.
    pub fn flip(&mut self, offset: u64, mask: u8) {
        self.bounds(offset, 1);
        let (page, within) = split(offset);
        self.page_mut(page)[within] ^= mask;
    }

    /// True when both hold the same bytes.
    pub fn same(&self, other: &Image) -> bool {
        let zero = [0u8; PAGE];
        self.size == other.size
            && self.pages.iter().zip(&other.pages).all(|(a, b)| match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
                (Some(x), None) | (None, Some(x)) => **x == zero,
                (None, None) => true,
            })
    }

    fn page_mut(&mut self, page: usize) -> &mut Page {
        Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE])))
    }

    fn bounds(&self, offset: u64, len: u64) {
        let end = offset.checked_add(len).expect("an offset near 2^64 is a bug of the caller");
        assert!(end <= self.size, "{offset}+{len} is past the medium's {} bytes", self.size);
    }
}

fn split(offset: u64) -> (usize, usize) {
    ((offset / PAGE as u64) as usize, (offset % PAGE as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_cross_pages_and_clones_do_not_see_them() {
        let mut a = Image::new(3 * PAGE as u64);
        a.write(4000, &[7; 5000]);
        let mut b = a.clone();
        b.zero(4096, 4096);
        b.flip(0, 0x80);
        let mut got = vec![0u8; 3 * PAGE];
        a.read(0, &mut got);
        assert!(got[..4000].iter().all(|x| *x == 0) && got[4000..9000].iter().all(|x| *x == 7));
        b.read(0, &mut got);
        assert_eq!((got[0], got[4000], got[4096], got[8191], got[8192]), (0x80, 7, 0, 0, 7));
        assert!(!a.same(&b));
        b.write(4096, &[7; 4096]);
        b.flip(0, 0x80);
        assert!(a.same(&b), "equal bytes in different pages are equal");
    }
}
