//! The address of a logical unit as people write it: `iscsi://[USER%SECRET@]HOST[:PORT]/IQN/LUN`, the form that
//! libiscsi and QEMU take too.

use crate::initiator::authority;
use crate::wire::iscsi::{Lun, value};
use std::fmt;

/// The port iSCSI listens on unless said otherwise (IANA).
pub const PORT_DEFAULT: u16 = 3260;
/// What an address begins with.
pub const SCHEME: &str = "iscsi://";

/// A parsed address. Its text leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// CHAP name and secret.
    pub user: Option<(String, String)>,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the target.
    pub target: String,
    /// Logical unit.
    pub lun: u16,
}

/// Why a text is not an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    /// It does not begin as it must.
    #[error("an address begins with {SCHEME}")]
    Scheme,
    /// The part before `@` is malformed; it is not shown, since it may hold a secret.
    #[error("what stands before @ is not USER%SECRET")]
    User,
    /// Host or port is missing or malformed.
    #[error("`{0}` is not HOST or HOST:PORT")]
    Host(String),
    /// The part behind the host is not an iSCSI name.
    #[error("`{0}` is not an iSCSI name")]
    Target(String),
    /// No logical unit, or not a number.
    #[error("`{0}` is not a logical unit number in 0..=16383")]
    Lun(String),
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        let rest = text.strip_prefix(SCHEME).ok_or(UrlError::Scheme)?;
        // A secret may hold any character; names and addresses hold no @.
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let user = user.map(|u| parse_user(u).ok_or(UrlError::User)).transpose()?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = authority::split(place, PORT_DEFAULT).ok_or_else(|| UrlError::Host(place.into()))?;
        let (target, lun) = path.rsplit_once('/').unwrap_or((path, ""));
        if !value::is_name(target) {
            return Err(UrlError::Target(target.into()));
        }
        let number = lun.parse().ok().filter(|n| *n <= Lun::MAX).ok_or_else(|| UrlError::Lun(lun.into()))?;
        Ok(Url { user, host: host.into(), port, target: target.into(), lun: number })
    }
}

fn parse_user(text: &str) -> Option<(String, String)> {
    let (name, secret) = text.split_once('%')?;
    (!name.is_empty() && !secret.is_empty()).then(|| (name.to_owned(), secret.to_owned()))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}")?;
        if let Some((name, _)) = &self.user {
            write!(f, "{name}@")?;
        }
        authority::write(f, &self.host, self.port)?;
        write!(f, "/{}/{}", self.target, self.lun)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IQN: &str = "iqn.2016-06.io.spdk:disk1";

    #[test]
    fn round_trips() {
        for (text, host, port, lun) in [
            (format!("iscsi://127.0.0.1:3261/{IQN}/0"), "127.0.0.1", 3261, 0),
            (format!("iscsi://[::1]:9/{IQN}/16383"), "::1", 9, 16383),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, url.lun, url.target.as_str()), (host, port, lun, IQN));
            assert_eq!((url.to_string(), url.user), (text, None));
        }
        let short: Url = format!("iscsi://h/{IQN}/1").parse().unwrap();
        assert_eq!(short.port, PORT_DEFAULT);
    }

    #[test]
    fn secrets_are_taken_and_not_shown() {
        let url: Url = format!("iscsi://user%p@ss/w%rd@h:1/{IQN}/1").parse().unwrap();
        assert_eq!(url.user, Some(("user".into(), "p@ss/w%rd".into())));
        assert_eq!(
            (url.to_string(), format!("{url:?}").contains("w%rd")),
            (format!("iscsi://user@h:1/{IQN}/1"), false)
        );
    }

    #[test]
    fn refusals_name_the_part() {
        let parse = |text: &str| text.parse::<Url>().unwrap_err();
        assert_eq!(parse("nvme+tcp://h/x"), UrlError::Scheme);
        for bad in ["user@h", "%x@h", "user%@h"] {
            assert_eq!(parse(&format!("iscsi://{bad}/{IQN}/0")), UrlError::User);
        }
        for bad in ["", ":1", "h:0", "h:x"] {
            assert_eq!(parse(&format!("iscsi://{bad}/{IQN}/0")), UrlError::Host(bad.into()));
        }
        assert_eq!(parse("iscsi://h/disk1/0"), UrlError::Target("disk1".into()));
        for bad in ["", "x", "16384", "-1"] {
            assert_eq!(parse(&format!("iscsi://h/{IQN}/{bad}")), UrlError::Lun(bad.into()));
        }
    }
}
