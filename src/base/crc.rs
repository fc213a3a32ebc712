//! CRC32C (Castagnoli): NVMe/TCP and iSCSI digests, and every checksum of the store.

use crc_fast::{CrcAlgorithm, Digest, checksum};

/// CRC32C of `data` (initial value and final XOR 0xFFFFFFFF, reflected), as in RFC 3720 appendix B.4.
pub fn crc32c(data: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, data) as u32
}

/// CRC32C over several pieces.
pub struct Crc32c(Digest);

impl Crc32c {
    /// Nothing hashed yet.
    pub fn new() -> Crc32c {
        Crc32c(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
    /// Adds the next piece.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    /// The checksum of all pieces so far.
    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3720_vectors() {
        assert_eq!(crc32c(&[0u8; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xffu8; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
        let mut c = Crc32c::new();
        c.update(&ascending[..5]);
        c.update(&ascending[5..]);
        assert_eq!(c.finish(), 0x46dd_794e);
    }
}
