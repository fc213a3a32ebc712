//! Parameter data on its way out: written in order into a buffer that may be too small for it, because the initiator
//! said how much it takes (allocation length) and that must not change the length fields inside (SPC-4, 4.2.5.6).

/// A bounded writer that knows how long the whole would be.
#[derive(Debug)]
pub struct Out<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Out<'a> {
    /// Writes into `bytes` from its start.
    pub fn new(bytes: &'a mut [u8]) -> Out<'a> {
        Out { bytes, at: 0 }
    }

    /// Length of everything written so far, cut off or not.
    pub fn len(&self) -> usize {
        self.at
    }

    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Bytes that are in the buffer.
    pub fn kept(&self) -> usize {
        self.at.min(self.bytes.len())
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.at..) {
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
        }
        self.at += bytes.len();
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Appends two bytes, most significant first.
    pub fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Appends four bytes, most significant first.
    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Appends eight bytes, most significant first.
    pub fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// Appends `n` zeroes.
    pub fn zeroes(&mut self, n: usize) {
        let end = (self.at + n).min(self.bytes.len());
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.fill(0);
        }
        self.at += n;
    }

    /// Appends text cut to `n` bytes and padded with spaces (SPC-4, 4.3.1: left-aligned ASCII).
    pub fn ascii(&mut self, text: &str, n: usize) {
        for at in 0..n {
            let byte = text.as_bytes().get(at).copied().unwrap_or(b' ');
            self.u8(if (0x20..0x7f).contains(&byte) { byte } else { b'?' });
        }
    }

    /// Replaces what was written at `at`.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.at, "only what was written is patched");
        if let Some(room) = self.bytes.get_mut(at..) {
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
        }
    }

    /// Puts into the two bytes at `at` how many bytes follow them.
    pub fn patch_len16(&mut self, at: usize) {
        let len = u16::try_from(self.at - at - 2).expect("parameter data of this kind is short");
        self.patch(at, &len.to_be_bytes());
    }

    /// Puts into the four bytes at `at` how many bytes follow them.
    pub fn patch_len32(&mut self, at: usize) {
        let len = u32::try_from(self.at - at - 4).expect("parameter data is bounded");
        self.patch(at, &len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_buffer_cuts_the_data_and_not_the_lengths_in_it() {
        let write = |room: usize| {
            let mut bytes = vec![0xee; room];
            let mut out = Out::new(&mut bytes);
            out.u8(1);
            out.u16(0);
            out.u32(0x0203_0405);
            out.zeroes(2);
            out.ascii("a\u{e9}", 4);
            out.u64(7);
            out.patch_len16(1);
            let (len, kept) = (out.len(), out.kept());
            assert_eq!((len, kept), (21, room.min(21)));
            bytes
        };
        let whole = write(30);
        assert_eq!(whole[..13], [1, 0, 18, 2, 3, 4, 5, 0, 0, b'a', b'?', b'?', b' ']);
        assert_eq!(whole[21..], [0xee; 9]);
        for room in 0..21 {
            assert_eq!(write(room), whole[..room], "room for {room}");
        }
    }
}
