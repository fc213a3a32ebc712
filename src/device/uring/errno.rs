//! Error numbers of the kernel as device errors.

use crate::device::DeviceError;

/// What an error number of a transfer means. The block layer turns a drive's media errors into `ENODATA`, its
/// integrity errors into `EILSEQ`, unspecified ones into `EIO`, timeouts into `ETIMEDOUT`, and a drive that is gone
/// into `ENODEV` (or `ENXIO`).
pub(super) fn device_error(errno: i32) -> DeviceError {
    match errno {
        libc::EIO
        | libc::ENODATA
        | libc::EILSEQ
        | libc::EBADMSG
        | libc::EUCLEAN
        | libc::EREMOTEIO
        | libc::ETIMEDOUT
        | libc::ENOLINK => DeviceError::Media,
        libc::ENOSPC | libc::EDQUOT => DeviceError::NoSpace,
        libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESHUTDOWN => DeviceError::Dead,
        libc::EOPNOTSUPP => DeviceError::Unsupported,
        other => DeviceError::Os(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_number() {
        assert_eq!(device_error(libc::EIO), DeviceError::Media);
        assert_eq!(device_error(libc::EDQUOT), DeviceError::NoSpace);
        assert_eq!(device_error(libc::ENODEV), DeviceError::Dead);
        assert_eq!(device_error(libc::EOPNOTSUPP), DeviceError::Unsupported);
        assert_eq!(device_error(libc::EPERM), DeviceError::Os(libc::EPERM));
    }
}
