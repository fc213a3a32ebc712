//! The address of a volume as people write it, of either protocol.

use super::{iscsi, nvme};
use std::fmt;

/// A parsed address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Url {
    /// `nvme+tcp://HOST[:PORT]/NQN[?nsid=N]`
    Nvme(nvme::url::Url),
    /// `iscsi://[USER%SECRET@]HOST[:PORT]/IQN/LUN`
    Iscsi(iscsi::url::Url),
}

/// Why a text is not an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    /// It names no protocol that is spoken here.
    #[error("an address begins with {} or {}", nvme::url::SCHEME, iscsi::url::SCHEME)]
    Scheme,
    /// Not one of NVMe/TCP.
    #[error(transparent)]
    Nvme(#[from] nvme::url::UrlError),
    /// Not one of iSCSI.
    #[error(transparent)]
    Iscsi(#[from] iscsi::url::UrlError),
}

impl Url {
    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        match self {
            Url::Nvme(url) => &url.host,
            Url::Iscsi(url) => &url.host,
        }
    }
    /// TCP port.
    pub fn port(&self) -> u16 {
        match self {
            Url::Nvme(url) => url.port,
            Url::Iscsi(url) => url.port,
        }
    }
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        if text.starts_with(nvme::url::SCHEME) {
            Ok(Url::Nvme(text.parse()?))
        } else if text.starts_with(iscsi::url::SCHEME) {
            Ok(Url::Iscsi(text.parse()?))
        } else {
            Err(UrlError::Scheme)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Nvme(url) => url.fmt(f),
            Url::Iscsi(url) => url.fmt(f),
        }
    }
}
