//! INQUIRY data (SPC-4, 6.6.2) and the vital product data pages of a block device (SPC-4, 7.8; SBC-3, 6.6).

use super::Out;

/// Bytes of standard INQUIRY data: up to the last version descriptor.
pub const STANDARD_LEN: usize = 96;

/// Page codes of vital product data.
pub mod vpd {
    /// Supported VPD Pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Unit Serial Number.
    pub const SERIAL: u8 = 0x80;
    /// Device Identification.
    pub const IDENTIFICATION: u8 = 0x83;
    /// Extended INQUIRY Data.
    pub const EXTENDED: u8 = 0x86;
    /// Third-Party Copy.
    pub const THIRD_PARTY: u8 = 0x8f;
    /// Block Limits.
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// Block Device Characteristics.
    pub const CHARACTERISTICS: u8 = 0xb1;
    /// Logical Block Provisioning.
    pub const PROVISIONING: u8 = 0xb2;
}

/// Version descriptors (SPC-4, annex D.6): SAM-5, SPC-4, SBC-3, iSCSI.
const VERSIONS: [u16; 4] = [0x00a0, 0x0460, 0x04c0, 0x0960];

/// PERIPHERAL QUALIFIER 011b and type 1Fh: there is no logical unit of this number.
pub const NO_UNIT: u8 = 0x7f;

/// What differs between devices in standard INQUIRY data.
#[derive(Clone, Copy, Debug)]
pub struct Standard<'a> {
    /// Qualifier and peripheral device type: 0 for a disk that is there, [`NO_UNIT`].
    pub peripheral: u8,
    /// TPGS: bit 0 implicit, bit 1 explicit asymmetric access.
    pub tpgs: u8,
    /// T10 vendor identification, 8 characters.
    pub vendor: &'a str,
    /// Product identification, 16 characters.
    pub product: &'a str,
    /// Product revision level, 4 characters.
    pub revision: &'a str,
}

impl Standard<'_> {
    /// Emits the data.
    pub fn put(&self, out: &mut Out<'_>) {
        out.u8(self.peripheral);
        out.u8(0);
        // SPC-4; HISUP and response data format 2.
        out.put(&[6, 0x12, (STANDARD_LEN - 5) as u8]);
        // TPGS and 3PC; MULTIP; CMDQUE.
        out.put(&[self.tpgs << 4 | 0x08, 0x10, 0x02]);
        out.ascii(self.vendor, 8);
        out.ascii(self.product, 16);
        out.ascii(self.revision, 4);
        out.zeroes(58 - 36);
        for version in VERSIONS {
            out.u16(version);
        }
        out.zeroes(STANDARD_LEN - 58 - 2 * VERSIONS.len());
    }
}

/// Begins a page; end it with `out.patch_len16(2)`.
pub fn begin_page(out: &mut Out<'_>, page: u8) {
    out.put(&[0, page, 0, 0]);
}

/// Extended INQUIRY Data (SPC-4, 7.8.7).
pub fn put_extended(out: &mut Out<'_>, volatile_cache: bool) {
    begin_page(out, vpd::EXTENDED);
    // No protection; simple, ordered, head of queue; V_SUP where there is a volatile cache; LUICLR: a unit attention of
    // a nexus is cleared for that nexus alone.
    out.put(&[0, 0x07, u8::from(volatile_cache), 0x01]);
    out.zeroes(64 - 8);
    out.patch_len16(2);
}

/// Block Limits (SBC-3, 6.6.4; SBC-4 for atomic writes). Lengths in blocks; 0: not reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockLimits {
    /// WSNZ: a WRITE SAME of 0 blocks is refused.
    pub wsnz: bool,
    /// Of COMPARE AND WRITE.
    pub max_compare_write: u8,
    /// Optimal granularity and length of transfers.
    pub granularity: u16,
    /// Of one command that transfers data.
    pub max_transfer: u32,
    /// Optimal.
    pub optimal_transfer: u32,
    /// Of PRE-FETCH and the like.
    pub max_prefetch: u32,
    /// UNMAP: blocks of one command.
    pub max_unmap: u32,
    /// UNMAP: descriptors of one command.
    pub max_unmap_descriptors: u32,
    /// UNMAP: where it frees space.
    pub unmap_granularity: u32,
    /// WRITE SAME.
    pub max_write_same: u64,
    /// WRITE ATOMIC without boundary.
    pub max_atomic: u32,
    /// WRITE ATOMIC: alignment of the first block.
    pub atomic_alignment: u32,
    /// WRITE ATOMIC: granularity.
    pub atomic_granularity: u32,
}

impl BlockLimits {
    /// Emits the page: 64 bytes.
    pub fn put(&self, out: &mut Out<'_>) {
        begin_page(out, vpd::BLOCK_LIMITS);
        out.u8(u8::from(self.wsnz));
        out.u8(self.max_compare_write);
        out.u16(self.granularity);
        out.u32(self.max_transfer);
        out.u32(self.optimal_transfer);
        out.u32(self.max_prefetch);
        out.u32(self.max_unmap);
        out.u32(self.max_unmap_descriptors);
        out.u32(self.unmap_granularity);
        // UGAVALID with alignment 0.
        out.u32(if self.unmap_granularity == 0 { 0 } else { 1 << 31 });
        out.u64(self.max_write_same);
        out.u32(self.max_atomic);
        out.u32(self.atomic_alignment);
        out.u32(self.atomic_granularity);
        // No atomic boundaries.
        out.zeroes(8);
        out.patch_len16(2);
    }
}

/// Block Device Characteristics (SBC-3, 6.6.3): a medium that does not rotate.
pub fn put_characteristics(out: &mut Out<'_>) {
    begin_page(out, vpd::CHARACTERISTICS);
    out.u16(1);
    // WABEREQ 01b: after an erase blocks can be read (there is no cryptographic one); no form factor.
    out.put(&[0, 0x40]);
    // FUAB and VBULS: VERIFY reaches unmapped blocks.
    out.u8(0x03);
    out.zeroes(64 - 9);
    out.patch_len16(2);
}

/// Third-Party Copy (SPC-4, 7.8.17): the commands of third-party copy with their service actions.
pub fn put_third_party(out: &mut Out<'_>, commands: &[(u8, &[u8])]) {
    begin_page(out, vpd::THIRD_PARTY);
    // Supported Commands descriptor (0001h).
    out.u16(1);
    let at = out.len();
    out.u16(0);
    let list: usize = commands.iter().map(|(_, actions)| 2 + actions.len()).sum();
    out.u8(list as u8);
    for (opcode, actions) in commands {
        out.put(&[*opcode, actions.len() as u8]);
        out.put(actions);
    }
    // The descriptor is a multiple of four bytes long.
    out.zeroes((4 - (out.len() - at - 2) % 4) % 4);
    out.patch_len16(at);
    out.patch_len16(2);
}

/// Logical Block Provisioning (SBC-3, 6.6.5).
pub fn put_provisioning(out: &mut Out<'_>, thin: bool, threshold_exponent: u8) {
    begin_page(out, vpd::PROVISIONING);
    // LBPU, LBPWS, LBPWS10, LBPRZ (001b); no anchors.
    out.put(&[threshold_exponent, 0xe4]);
    // Thin (2) or resource provisioned (1).
    out.put(&[if thin { 2 } else { 1 }, 0]);
    out.patch_len16(2);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::scsi::{be16, be32, be64};

    fn emitted(f: impl Fn(&mut Out<'_>)) -> Vec<u8> {
        let mut bytes = [0xee; 300];
        let mut out = Out::new(&mut bytes);
        f(&mut out);
        let len = out.len();
        bytes[..len].to_vec()
    }

    #[test]
    fn standard_data_is_what_spc_4_says() {
        let standard = Standard { peripheral: 0, tpgs: 1, vendor: "Pollux", product: "Volume", revision: "0001" };
        let data = emitted(|o| standard.put(o));
        assert_eq!(data[..8], [0, 0, 6, 0x12, 91, 0x18, 0x10, 2]);
        assert_eq!(&data[8..36], b"Pollux  Volume          0001");
        assert_eq!((data.len(), data[4] as usize + 5), (STANDARD_LEN, STANDARD_LEN));
        let versions: Vec<u16> = (58..74).step_by(2).map(|at| be16(&data, at)).collect();
        assert_eq!(versions, [0xa0, 0x460, 0x4c0, 0x960, 0, 0, 0, 0]);
    }

    #[test]
    fn pages_have_their_lengths_and_fields() {
        let limits = BlockLimits {
            wsnz: true,
            max_compare_write: 2,
            granularity: 3,
            max_transfer: 4,
            optimal_transfer: 5,
            max_prefetch: 6,
            max_unmap: 7,
            max_unmap_descriptors: 8,
            unmap_granularity: 9,
            max_write_same: 10,
            max_atomic: 11,
            atomic_alignment: 13,
            atomic_granularity: 12,
        };
        let page = emitted(|o| limits.put(o));
        assert_eq!((page[1], be16(&page, 2), page.len()), (0xb0, 60, 64));
        assert_eq!((page[4], page[5], be16(&page, 6)), (1, 2, 3));
        let words: Vec<u32> = (8..36).step_by(4).map(|at| be32(&page, at)).collect();
        assert_eq!(words, [4, 5, 6, 7, 8, 9, 0x8000_0000]);
        assert_eq!((be64(&page, 36), be32(&page, 44), be32(&page, 48), be32(&page, 52)), (10, 11, 13, 12));
        let page = emitted(put_characteristics);
        assert_eq!((be16(&page, 2), be16(&page, 4), page[7], page.len()), (60, 1, 0x40, 64));
        let page = emitted(|o| put_third_party(o, &[(0x83, &[0]), (0x84, &[0, 3, 4])]));
        assert_eq!(page, [0, 0x8f, 0, 16, 0, 1, 0, 12, 8, 0x83, 1, 0, 0x84, 3, 0, 3, 4, 0, 0, 0]);
        assert_eq!(emitted(|o| put_provisioning(o, true, 3)), [0, 0xb2, 0, 4, 3, 0xe4, 2, 0]);
        let page = emitted(|o| put_extended(o, true));
        assert_eq!((page[1], be16(&page, 2), page.len()), (0x86, 60, 64));
    }
}
