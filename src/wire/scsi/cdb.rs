//! Command descriptor blocks. A CDB is always the 16 bytes that an iSCSI command carries: shorter ones are followed by
//! whatever the initiator left there.

use super::op;

/// The 16 bytes of a command.
pub type Cdb = [u8; 16];

/// Big-endian number at `at`; the caller's index is a constant inside the block.
#[inline]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// As [`be16`], 24 bits.
#[inline]
pub fn be24(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]])
}

/// As [`be16`], 32 bits.
#[inline]
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// As [`be16`], 64 bits.
#[inline]
pub fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

/// Which way the blocks of an [`Rw`] go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// To the initiator.
    Read,
    /// From the initiator.
    Write,
}

/// READ and WRITE of 6, 10, 12 and 16 bytes (SBC-3, 5.15 to 5.18 and 5.33 to 5.36).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rw {
    /// READ or WRITE.
    pub direction: Direction,
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// Byte 1 as it is: RDPROTECT or WRPROTECT in bits 7:5, DPO bit 4, FUA bit 3; 0 for 6-byte commands.
    pub flags: u8,
    /// The control byte: NACA in bit 2.
    pub control: u8,
}

impl Rw {
    /// RDPROTECT or WRPROTECT.
    #[inline]
    pub fn protect(self) -> u8 {
        self.flags >> 5
    }

    /// FUA: the medium, not a volatile cache, has the blocks before the command ends.
    #[inline]
    pub fn fua(self) -> bool {
        self.flags & 0x08 != 0
    }
}

/// The read or write that a CDB asks for; `None` when it is another command.
#[inline]
pub fn rw(cdb: &Cdb) -> Option<Rw> {
    // Bit 1 of the operation code tells WRITE (0Ah, 2Ah, AAh, 8Ah) from READ (08h, 28h, A8h, 88h).
    let direction = if cdb[0] & 2 == 0 { Direction::Read } else { Direction::Write };
    let (lba, blocks, flags, control) = match cdb[0] {
        op::READ_10 | op::WRITE_10 => (u64::from(be32(cdb, 2)), u32::from(be16(cdb, 7)), cdb[1], cdb[9]),
        op::READ_16 | op::WRITE_16 => (be64(cdb, 2), be32(cdb, 10), cdb[1], cdb[15]),
        op::READ_12 | op::WRITE_12 => (u64::from(be32(cdb, 2)), be32(cdb, 6), cdb[1], cdb[11]),
        op::READ_6 | op::WRITE_6 => {
            let blocks = if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) };
            (u64::from(be24(cdb, 1) & 0x1f_ffff), blocks, 0, cdb[5])
        }
        _ => return None,
    };
    Some(Rw { direction, lba, blocks, flags, control })
}

/// The allocation length of commands that have one and return parameter data, bytes; `None` for all others.
pub fn allocation(cdb: &Cdb) -> Option<u32> {
    Some(match cdb[0] {
        op::REQUEST_SENSE | op::MODE_SENSE_6 => u32::from(cdb[4]),
        op::INQUIRY => u32::from(be16(cdb, 3)),
        op::READ_CAPACITY_10 => 8,
        op::LOG_SENSE | op::MODE_SENSE_10 | op::PERSISTENT_RESERVE_IN | op::READ_DEFECT_10 => u32::from(be16(cdb, 7)),
        op::THIRD_PARTY_COPY_IN | op::SERVICE_ACTION_IN_16 => be32(cdb, 10),
        op::REPORT_LUNS | op::MAINTENANCE_IN | op::READ_DEFECT_12 => be32(cdb, 6),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mutate::hex;

    fn cdb(text: &str) -> Cdb {
        let mut cdb = [0xee; 16];
        let bytes = hex(text);
        cdb[..bytes.len()].copy_from_slice(&bytes);
        cdb
    }

    #[test]
    fn reads_and_writes_of_all_sizes_are_decoded() {
        let want = |direction, lba, blocks, flags| Some(Rw { direction, lba, blocks, flags, control: 0 });
        let (r, w) = (Direction::Read, Direction::Write);
        assert_eq!(rw(&cdb("08 ff 02 03 04 00")), want(r, 0x1f_0203, 4, 0));
        assert_eq!(rw(&cdb("0a 01 02 03 00 00")), want(w, 0x1_0203, 256, 0));
        assert_eq!(rw(&cdb("28 f8 01020304 00 0506 00")), want(r, 0x0102_0304, 0x506, 0xf8));
        assert_eq!(rw(&cdb("2a 08 01020304 00 0506 00")), want(w, 0x0102_0304, 0x506, 8));
        assert_eq!(rw(&cdb("a8 10 01020304 05060708 00 00")), want(r, 0x0102_0304, 0x0506_0708, 0x10));
        assert_eq!(rw(&cdb("aa 00 01020304 05060708 00 00")), want(w, 0x0102_0304, 0x0506_0708, 0));
        assert_eq!(
            rw(&cdb("88 20 0102030405060708 090a0b0c 00 00")),
            want(r, 0x0102_0304_0506_0708, 0x090a_0b0c, 0x20)
        );
        assert_eq!(rw(&cdb("8a 00 0102030405060708 090a0b0c 00 00")), want(w, 0x0102_0304_0506_0708, 0x090a_0b0c, 0));
        let read = rw(&cdb("28 e8 00000000 00 0000 00")).unwrap();
        assert!(read.protect() == 7 && read.fua());
        assert_eq!((0..=255u8).filter(|o| rw(&cdb(&format!("{o:02x}"))).is_some()).count(), 8);
    }
}
