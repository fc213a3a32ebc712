//! What a command's status means for the operation behind it (NVMe base specification 2.0, figures 93 to 98).

use crate::device::DeviceError;

/// What becomes of an operation whose command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is done.
    Done,
    /// The command did not get through, or was given up with its queue: it is sent again.
    Again,
    /// It failed.
    Failed(DeviceError),
    /// The device does not take this command, or not of this size.
    Refused,
}

/// "Do not retry" in a status of the shim.
const DNR: u16 = 1 << 11;

const GENERIC: u16 = 0;
const SPECIFIC: u16 = 1;
const MEDIA: u16 = 2;
const PATH: u16 = 3;

/// Reads a status as the shim writes it: type in bits 8 to 10, code in bits 0 to 7, [`DNR`].
pub(super) fn verdict(status: u16) -> Verdict {
    let (kind, code) = (status >> 8 & 7, status & 0xff);
    let again = status & DNR == 0;
    match (kind, code) {
        (GENERIC, 0x00) => Verdict::Done,
        // Invalid opcode, invalid field; command size limits exceeded.
        (GENERIC, 0x01 | 0x02) | (SPECIFIC, 0x83) => Verdict::Refused,
        // Aborted with its queue, or for the asking: nothing is known of the device itself. What we told SPDK to give
        // up carries no "do not retry" whatever the bit says, so it is not looked at.
        (GENERIC, 0x07 | 0x08) => Verdict::Again,
        // Namespace not ready, command interrupted, transient transport error.
        (GENERIC, 0x82 | 0x21 | 0x22) if again => Verdict::Again,
        // Invalid namespace.
        (GENERIC, 0x0b) => Verdict::Failed(DeviceError::Dead),
        // Write-protected: the namespace, or the range.
        (GENERIC, 0x20) | (SPECIFIC, 0x82) => Verdict::Failed(DeviceError::Unsupported),
        // Capacity exceeded.
        (GENERIC, 0x81) => Verdict::Failed(DeviceError::NoSpace),
        // Data transfer error, internal error.
        (GENERIC, 0x04 | 0x06) | (MEDIA, _) => Verdict::Failed(DeviceError::Media),
        // Asymmetric access: persistent loss.
        (PATH, 0x01) => Verdict::Failed(DeviceError::Dead),
        (PATH, _) if again => Verdict::Again,
        _ => Verdict::Failed(DeviceError::Os(libc::EIO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_status() {
        for (status, want) in [
            (0x000, Verdict::Done),
            (0x001, Verdict::Refused),
            (0x802, Verdict::Refused),
            (0x008, Verdict::Again),
            (0x808, Verdict::Again),
            (0x082, Verdict::Again),
            (0x882, Verdict::Failed(DeviceError::Os(libc::EIO))),
            (0x80b, Verdict::Failed(DeviceError::Dead)),
            (0x020, Verdict::Failed(DeviceError::Unsupported)),
            (0x881, Verdict::Failed(DeviceError::NoSpace)),
            (0x006, Verdict::Failed(DeviceError::Media)),
            (0x281, Verdict::Failed(DeviceError::Media)),
            (0xa80, Verdict::Failed(DeviceError::Media)),
            (0x301, Verdict::Failed(DeviceError::Dead)),
            (0x302, Verdict::Again),
            (0xb02, Verdict::Failed(DeviceError::Os(libc::EIO))),
            (0x380, Verdict::Again),
            (0x183, Verdict::Refused),
            (0x018, Verdict::Failed(DeviceError::Os(libc::EIO))),
        ] {
            assert_eq!(verdict(status), want, "{status:#x}");
        }
    }
}
