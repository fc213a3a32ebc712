//! Sense data (SPC-4, 4.5): why a command ended with CHECK CONDITION, in fixed or descriptor format.

/// Bytes of the longest sense data that is built here.
pub const SENSE_MAX: usize = 32;

/// Sense keys (SPC-4, table 48).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Key {
    /// Nothing to report.
    NoSense = 0x0,
    /// Done, with a remark.
    RecoveredError = 0x1,
    /// The logical unit is not accessible now.
    NotReady = 0x2,
    /// The medium failed.
    MediumError = 0x3,
    /// The device failed.
    HardwareError = 0x4,
    /// A field of the command or of its parameters is wrong.
    IllegalRequest = 0x5,
    /// Something changed since the last command.
    UnitAttention = 0x6,
    /// The block is protected from what was asked.
    DataProtect = 0x7,
    /// EXTENDED COPY failed.
    CopyAborted = 0xa,
    /// The target aborted the command.
    AbortedCommand = 0xb,
    /// Compared data differs.
    Miscompare = 0xe,
}

/// Additional sense code and its qualifier: `ASC << 8 | ASCQ`.
pub type Asc = u16;

/// The additional sense codes in use (SPC-4 annex F.2).
pub mod asc {
    use super::Asc;
    /// No additional information.
    pub const NONE: Asc = 0x0000;
    /// Sanitize in progress.
    pub const SANITIZE_IN_PROGRESS: Asc = 0x041b;
    /// Logical unit not ready, initializing command required: it was stopped.
    pub const INITIALIZING_REQUIRED: Asc = 0x0402;
    /// Asymmetric access state transition.
    pub const ALUA_TRANSITION: Asc = 0x040a;
    /// Target port in standby state.
    pub const ALUA_STANDBY: Asc = 0x040b;
    /// Target port in unavailable state.
    pub const ALUA_UNAVAILABLE: Asc = 0x040c;
    /// Write error.
    pub const WRITE_ERROR: Asc = 0x0c00;
    /// Unreachable copy target.
    pub const UNREACHABLE_COPY_TARGET: Asc = 0x0804;
    /// Information unit too short: the data ended early.
    pub const IU_TOO_SHORT: Asc = 0x0e01;
    /// Information unit too long.
    pub const IU_TOO_LONG: Asc = 0x0e02;
    /// Unrecovered read error.
    pub const UNRECOVERED_READ: Asc = 0x1100;
    /// Parameter list length error.
    pub const PARAMETER_LIST_LENGTH: Asc = 0x1a00;
    /// Miscompare during verify operation.
    pub const MISCOMPARE: Asc = 0x1d00;
    /// Invalid command operation code.
    pub const INVALID_OPCODE: Asc = 0x2000;
    /// Logical block address out of range.
    pub const LBA_OUT_OF_RANGE: Asc = 0x2100;
    /// Invalid field in CDB.
    pub const INVALID_FIELD_IN_IU: Asc = 0x0e03;
    pub const INVALID_FIELD_IN_CDB: Asc = 0x2400;
    /// Logical unit not supported.
    pub const LUN_NOT_SUPPORTED: Asc = 0x2500;
    /// Invalid field in parameter list.
    pub const INVALID_FIELD_IN_PARAMETERS: Asc = 0x2600;
    /// Invalid release of persistent reservation.
    pub const INVALID_RELEASE: Asc = 0x2604;
    /// Too many target descriptors.
    pub const TOO_MANY_TARGETS: Asc = 0x2606;
    /// Unsupported target descriptor type code.
    pub const UNSUPPORTED_TARGET: Asc = 0x2607;
    /// Too many segment descriptors.
    pub const TOO_MANY_SEGMENTS: Asc = 0x2608;
    /// Unsupported segment descriptor type code.
    pub const UNSUPPORTED_SEGMENT: Asc = 0x2609;
    /// Write protected.
    pub const WRITE_PROTECTED: Asc = 0x2700;
    /// Software write protected (SWP).
    pub const SOFTWARE_WRITE_PROTECTED: Asc = 0x2702;
    /// Space allocation failed, write protect.
    pub const SPACE_ALLOCATION_FAILED: Asc = 0x2707;
    /// Power on, reset, or bus device reset occurred.
    pub const POWER_ON: Asc = 0x2900;
    /// Bus device reset function occurred.
    pub const DEVICE_RESET: Asc = 0x2903;
    /// Nexus loss occurred.
    pub const NEXUS_LOSS: Asc = 0x2907;
    /// Mode parameters changed.
    pub const MODE_CHANGED: Asc = 0x2a01;
    /// Reservations preempted.
    pub const RESERVATIONS_PREEMPTED: Asc = 0x2a03;
    /// Reservations released.
    pub const RESERVATIONS_RELEASED: Asc = 0x2a04;
    /// Registrations preempted.
    pub const REGISTRATIONS_PREEMPTED: Asc = 0x2a05;
    /// Asymmetric access state changed.
    pub const ALUA_CHANGED: Asc = 0x2a06;
    /// Capacity data has changed.
    pub const CAPACITY_CHANGED: Asc = 0x2a09;
    /// Command sequence error.
    pub const SEQUENCE_ERROR: Asc = 0x2c00;
    /// Commands cleared by another initiator.
    pub const COMMANDS_CLEARED: Asc = 0x2f00;
    /// Thin provisioning soft threshold reached.
    pub const SOFT_THRESHOLD: Asc = 0x3807;
    /// Saving parameters not supported.
    pub const SAVING_NOT_SUPPORTED: Asc = 0x3900;
    /// Inquiry data has changed.
    pub const INQUIRY_CHANGED: Asc = 0x3f03;
    /// Reported LUNs data has changed.
    pub const LUNS_CHANGED: Asc = 0x3f0e;
    /// Internal target failure.
    pub const INTERNAL_FAILURE: Asc = 0x4400;
    /// Data phase CRC error.
    pub const DATA_CRC_ERROR: Asc = 0x4705;
    /// Sanitize command failed.
    pub const SANITIZE_FAILED: Asc = 0x3103;
    /// Insufficient registration resources.
    pub const INSUFFICIENT_REGISTRATIONS: Asc = 0x5504;
}

/// Sense-key specific information (SPC-4, 4.5.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sks {
    /// None.
    None,
    /// The byte of the CDB that is wrong.
    Cdb(u16),
    /// The byte of the parameter list that is wrong.
    Parameter(u16),
    /// How far an operation is, of 65536.
    Progress(u16),
}

/// Sense data as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// Sense key.
    pub key: Key,
    /// Additional sense code and qualifier.
    pub asc: Asc,
    /// INFORMATION: an LBA, or an offset of a miscompare.
    pub info: Option<u64>,
    /// Sense-key specific.
    pub sks: Sks,
    /// Descriptor format, as the `D_SENSE` bit of the control mode page asked for; else fixed.
    pub descriptor: bool,
}

impl Sense {
    /// Sense data of a key and code, nothing else, in fixed format.
    pub const fn new(key: Key, asc: Asc) -> Sense {
        Sense { key, asc, info: None, sks: Sks::None, descriptor: false }
    }

    /// ILLEGAL REQUEST with a code.
    pub const fn illegal(asc: Asc) -> Sense {
        Sense::new(Key::IllegalRequest, asc)
    }

    /// INVALID FIELD IN CDB at a byte.
    pub const fn cdb_field(byte: u16) -> Sense {
        Sense { sks: Sks::Cdb(byte), ..Sense::illegal(asc::INVALID_FIELD_IN_CDB) }
    }

    /// INVALID FIELD IN PARAMETER LIST at a byte.
    pub const fn parameter_field(byte: u16) -> Sense {
        Sense { sks: Sks::Parameter(byte), ..Sense::illegal(asc::INVALID_FIELD_IN_PARAMETERS) }
    }

    /// The same with INFORMATION.
    #[must_use]
    pub const fn with_info(self, info: u64) -> Sense {
        Sense { info: Some(info), ..self }
    }

    fn sks_bytes(self) -> Option<[u8; 3]> {
        let (first, value) = match self.sks {
            Sks::None => return None,
            Sks::Cdb(at) => (0xc0, at),
            Sks::Parameter(at) => (0x80, at),
            Sks::Progress(part) => (0x80, part),
        };
        let [high, low] = value.to_be_bytes();
        Some([first, high, low])
    }

    /// Writes the sense data in its format; returns its length.
    pub fn encode(self, out: &mut [u8; SENSE_MAX]) -> usize {
        out.fill(0);
        let asc = self.asc.to_be_bytes();
        if !self.descriptor {
            // SPC-4, 4.5.3: 18 bytes.
            out[0] = 0x70;
            if let Some(info) = self.info
                && let Ok(info) = u32::try_from(info)
            {
                out[0] |= 0x80;
                out[3..7].copy_from_slice(&info.to_be_bytes());
            }
            out[2] = self.key as u8;
            out[7] = 10;
            out[12..14].copy_from_slice(&asc);
            out[15..18].copy_from_slice(&self.sks_bytes().unwrap_or_default());
            return 18;
        }
        (out[0], out[1]) = (0x72, self.key as u8);
        out[2..4].copy_from_slice(&asc);
        let mut len = 8;
        if let Some(info) = self.info {
            // Information descriptor: VALID.
            out[len..len + 4].copy_from_slice(&[0x00, 0x0a, 0x80, 0]);
            out[len + 4..len + 12].copy_from_slice(&info.to_be_bytes());
            len += 12;
        }
        if let Some(sks) = self.sks_bytes() {
            out[len..len + 2].copy_from_slice(&[0x02, 0x06]);
            out[len + 4..len + 7].copy_from_slice(&sks);
            len += 8;
        }
        out[7] = (len - 8) as u8;
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mutate::hex;

    fn bytes(sense: Sense) -> Vec<u8> {
        let mut out = [0xee; SENSE_MAX];
        let len = sense.encode(&mut out);
        out[..len].to_vec()
    }

    #[test]
    fn fixed_and_descriptor_format_carry_the_same() {
        let plain = Sense::illegal(asc::INVALID_OPCODE);
        assert_eq!(bytes(plain), hex("70 00 05 00000000 0a 00000000 20 00 00 000000"));
        let field = Sense::cdb_field(0x0102);
        assert_eq!(bytes(field), hex("70 00 05 00000000 0a 00000000 24 00 00 c00102"));
        let miscompare = Sense::new(Key::Miscompare, asc::MISCOMPARE).with_info(0x0a0b_0c0d);
        assert_eq!(bytes(miscompare), hex("f0 00 0e 0a0b0c0d 0a 00000000 1d 00 00 000000"));
        let far = Sense::illegal(asc::LBA_OUT_OF_RANGE).with_info(1 << 40);
        assert_eq!(bytes(far)[0], 0x70, "an address that does not fit is left out");
        let both = Sense { descriptor: true, sks: Sks::Parameter(7), ..far };
        assert_eq!(bytes(both), hex("72 05 21 00 000000 14 00 0a 80 00 0000010000000000 02 06 0000 80 0007 00"));
        let progress = Sense { sks: Sks::Progress(0x8000), ..Sense::new(Key::NotReady, asc::SANITIZE_IN_PROGRESS) };
        assert_eq!(bytes(progress), hex("70 00 02 00000000 0a 00000000 04 1b 00 808000"));
    }
}
