//! The command descriptor blocks that this client sends (SBC-3, SPC-4), shorter ones padded with zeros.

use crate::wire::scsi::op;

/// A CDB as it lies in a SCSI Command PDU.
pub(super) type Cdb = [u8; 16];

/// READ(10) or WRITE(10) where address and length fit, else the 16-byte form.
#[inline]
fn rw(ten: u8, sixteen: u8, lba: u64, blocks: u32) -> Cdb {
    let mut cdb = [0; 16];
    if let (Ok(lba), Ok(blocks)) = (u32::try_from(lba), u16::try_from(blocks)) {
        cdb[0] = ten;
        cdb[2..6].copy_from_slice(&lba.to_be_bytes());
        cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    } else {
        cdb = long(sixteen, 0, lba, blocks);
    }
    cdb
}

/// A 16-byte CDB with address and length at their usual places; `bits` is byte 1.
#[inline]
fn long(code: u8, bits: u8, lba: u64, blocks: u32) -> Cdb {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (code, bits);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

#[inline]
pub(super) fn read(lba: u64, blocks: u32) -> Cdb {
    rw(op::READ_10, op::READ_16, lba, blocks)
}

#[inline]
pub(super) fn write(lba: u64, blocks: u32) -> Cdb {
    rw(op::WRITE_10, op::WRITE_16, lba, blocks)
}

/// VERIFY(16) with BYTCHK 01b: the medium against the payload.
pub(super) fn compare(lba: u64, blocks: u32) -> Cdb {
    long(op::VERIFY_16, 1 << 1, lba, blocks)
}

/// WRITE SAME(16) with NDOB: zeros, without a payload.
pub(super) fn write_zeroes(lba: u64, blocks: u32) -> Cdb {
    long(op::WRITE_SAME_16, 1, lba, blocks)
}

/// SYNCHRONIZE CACHE(10) of the whole unit.
pub(super) fn flush() -> Cdb {
    rw(op::SYNC_CACHE_10, op::SYNC_CACHE_16, 0, 0)
}

/// Bytes of the parameter list of an UNMAP with one descriptor.
pub(super) const UNMAP_LEN: usize = 24;

/// UNMAP with one descriptor, and its parameter list.
pub(super) fn unmap(lba: u64, blocks: u32) -> (Cdb, [u8; UNMAP_LEN]) {
    let mut cdb = [0; 16];
    (cdb[0], cdb[8]) = (op::UNMAP, UNMAP_LEN as u8);
    let mut list = [0; UNMAP_LEN];
    (list[1], list[3]) = (UNMAP_LEN as u8 - 2, 16);
    list[8..16].copy_from_slice(&lba.to_be_bytes());
    list[16..20].copy_from_slice(&blocks.to_be_bytes());
    (cdb, list)
}

pub(super) fn test_unit_ready() -> Cdb {
    [0; 16]
}

/// INQUIRY for `len` bytes: standard data, or the vital product data page `page`.
pub(super) fn inquiry(page: Option<u8>, len: u16) -> Cdb {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[2]) = (op::INQUIRY, u8::from(page.is_some()), page.unwrap_or(0));
    cdb[3..5].copy_from_slice(&len.to_be_bytes());
    cdb
}

/// READ CAPACITY(16) for `len` bytes.
pub(super) fn read_capacity(len: u32) -> Cdb {
    long(op::SERVICE_ACTION_IN_16, op::sa::READ_CAPACITY_16, 0, len)
}

/// REPORT LUNS for `len` bytes.
pub(super) fn report_luns(len: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = op::REPORT_LUNS;
    cdb[6..10].copy_from_slice(&len.to_be_bytes());
    cdb
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mutate::hex;

    #[test]
    fn cdbs_byte_by_byte() {
        let same = |cdb: Cdb, text: &str| {
            let mut want = hex(text);
            want.resize(16, 0);
            assert_eq!(cdb.to_vec(), want, "{text}");
        };
        same(read(0x0102_0304, 0x0506), "28 00 01020304 00 0506 00");
        same(read(0x1_0000_0000, 8), "88 00 0000000100000000 00000008 00 00");
        same(read(5, 0x10000), "88 00 0000000000000005 00010000 00 00");
        same(write(7, 1), "2a 00 00000007 00 0001 00");
        same(write(u64::MAX, 1), "8a 00 ffffffffffffffff 00000001 00 00");
        same(compare(7, 1), "8f 02 0000000000000007 00000001 00 00");
        same(write_zeroes(7, 1), "93 01 0000000000000007 00000001 00 00");
        same(flush(), "35 00 00000000 00 0000 00");
        same(test_unit_ready(), "00 00 00 00 00 00");
        same(inquiry(None, 96), "12 00 00 0060 00");
        same(inquiry(Some(0x83), 4096), "12 01 83 1000 00");
        same(read_capacity(32), "9e 10 0000000000000000 00000020 00 00");
        same(report_luns(4096), "a0 00 00 000000 00001000 00 00");
        let (cdb, list) = unmap(0x10, 3);
        same(cdb, "42 00 00000000 00 0018 00");
        assert_eq!(list.to_vec(), hex("0016 0010 00000000 0000000000000010 00000003 00000000"));
    }
}
