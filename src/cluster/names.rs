//! Names that operators choose, checked once where they enter. A value of these types is always legal, in memory and
//! in the journal (decoding checks again), so nothing below asks twice.

use super::error::{Error, NameKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most bytes of a bdev name.
pub const BDEV_NAME_MAX: usize = 255;
/// Most bytes of a store or volume name (64 bytes on the media, the last one 0).
pub const STORE_NAME_MAX: usize = 63;
/// Most bytes of an NQN (NVMe Base 2.1, section 4.7).
pub const NQN_MAX: usize = 223;
/// The discovery subsystem's well-known name (NVMe Base 2.1, section 3.1.3.3).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:expr, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and wraps `text`; the error says which kind of name it was meant to be and what is wrong with it.
            pub fn new(text: &str) -> Result<$type, Error> {
                match $check(text) {
                    Ok(()) => Ok($type(text.to_owned())),
                    Err(why) => Err(Error::Name { kind: $kind, name: text.chars().take(256).collect(), why }),
                }
            }
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;
            fn try_from(text: String) -> Result<$type, Error> {
                $type::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A raw device's name: 1 to [`BDEV_NAME_MAX`] bytes, no control characters, no `/` (which separates a store's
    /// name from a volume's).
    BdevName,
    NameKind::Bdev,
    check_bdev
);
name!(
    /// A store's name: 1 to [`STORE_NAME_MAX`] bytes, no control characters, no `/`.
    StoreName,
    NameKind::Store,
    check_store
);
name!(
    /// A volume's name inside its store: 1 to [`STORE_NAME_MAX`] bytes, no control characters, no `/`.
    VolumeName,
    NameKind::Volume,
    check_store
);
name!(
    /// An NVMe qualified name of a subsystem or host (NVMe Base 2.1, section 4.7): `nqn.YYYY-MM.DOMAIN:STRING`, at most
    /// [`NQN_MAX`] bytes; `nqn.2014-08.org.nvmexpress:uuid:UUID` with a well-formed UUID; or the discovery name.
    Nqn,
    NameKind::Nqn,
    check_nqn
);

name!(
    /// An iSCSI name of a target (RFC 7143 4.2.7): `iqn.YYYY-MM.DOMAIN[:STRING]`, `eui.` and 16 or `naa.` and 16 or 32
    /// hexadecimal digits; at most [`NQN_MAX`] bytes, of letters, digits, '-', '.', ':' and '_'.
    IscsiName,
    NameKind::Iscsi,
    check_iscsi
);

impl Nqn {
    /// The discovery subsystem's.
    pub fn discovery() -> Nqn {
        Nqn(DISCOVERY_NQN.to_owned())
    }
    /// True for the discovery subsystem's.
    pub fn is_discovery(&self) -> bool {
        self.0 == DISCOVERY_NQN
    }
}

fn check_plain(text: &str, max: usize) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > max {
        return Err("is too long");
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    if text.contains('/') {
        return Err("contains '/'");
    }
    Ok(())
}

fn check_bdev(text: &str) -> Result<(), &'static str> {
    check_plain(text, BDEV_NAME_MAX)
}

fn check_store(text: &str) -> Result<(), &'static str> {
    check_plain(text, STORE_NAME_MAX)
}

fn check_nqn(text: &str) -> Result<(), &'static str> {
    if text == DISCOVERY_NQN {
        return Ok(());
    }
    if text.len() > NQN_MAX {
        return Err("is longer than 223 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    let rest = text.strip_prefix("nqn.").ok_or("does not begin with 'nqn.'")?;
    let bytes = rest.as_bytes();
    let dated = bytes.len() > 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..7].iter().all(u8::is_ascii_digit)
        && bytes[7] == b'.';
    if !dated {
        return Err("has no date 'YYYY-MM.' after 'nqn.'");
    }
    let (domain, own) = rest[8..].split_once(':').ok_or("has no ':' after the domain")?;
    if own.is_empty() {
        return Err("has nothing after ':'");
    }
    if !domain.split('.').all(is_label) {
        return Err("has a malformed reverse domain name");
    }
    match own.strip_prefix("uuid:") {
        Some(id) if rest.starts_with("2014-08.org.nvmexpress:") && uuid::Uuid::try_parse(id).is_err() => {
            Err("has a malformed UUID")
        }
        _ => Ok(()),
    }
}

fn check_iscsi(text: &str) -> Result<(), &'static str> {
    if text.len() > NQN_MAX {
        return Err("is longer than 223 bytes");
    }
    if text.bytes().any(|b| !b.is_ascii_alphanumeric() && !b"-.:_".contains(&b)) {
        return Err("contains a character other than letters, digits, '-', '.', ':', '_'");
    }
    let (kind, rest) = text.split_at_checked(4).ok_or("does not begin with 'iqn.', 'eui.' or 'naa.'")?;
    let hex = |lengths: &[usize]| lengths.contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit());
    match kind.to_ascii_lowercase().as_str() {
        "iqn." => {
            let bytes = rest.as_bytes();
            let dated = bytes.len() > 8
                && bytes[..4].iter().all(u8::is_ascii_digit)
                && bytes[4] == b'-'
                && bytes[5..7].iter().all(u8::is_ascii_digit)
                && bytes[7] == b'.';
            if dated { Ok(()) } else { Err("has no date 'YYYY-MM.' and domain after 'iqn.'") }
        }
        "eui." if hex(&[16]) => Ok(()),
        "eui." => Err("has not 16 hexadecimal digits after 'eui.'"),
        "naa." if hex(&[16, 32]) => Ok(()),
        "naa." => Err("has not 16 or 32 hexadecimal digits after 'naa.'"),
        _ => Err("does not begin with 'iqn.', 'eui.' or 'naa.'"),
    }
}

/// One label of a domain name (RFC 1034 section 3.5, digits first allowed by RFC 1123).
fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nqns_of_real_products_pass_and_malformed_ones_say_why() {
        for good in [
            DISCOVERY_NQN,
            "nqn.2016-06.io.spdk:cnode1",
            "nqn.2014-08.org.nvmexpress:uuid:7a1f2b9e-1c1d-4a55-9a52-0b1c2d3e4f50",
            "nqn.2020-04.csi.spdk.io:uuid:x",
            "nqn.2014-08.com.example:nvme:nvm-subsystem-sn-d78432",
        ] {
            assert_eq!(Nqn::new(good).expect(good).as_str(), good);
        }
        for (bad, why) in [
            ("", "does not begin"),
            ("iqn.2016-06.io.spdk:x", "does not begin"),
            ("nqn.16-06.io.spdk:x", "no date"),
            ("nqn.2016-06.io.spdk", "no ':'"),
            ("nqn.2016-06.io.spdk:", "nothing after"),
            ("nqn.2016-06.io..spdk:x", "domain"),
            ("nqn.2016-06.-io.spdk:x", "domain"),
            ("nqn.2014-08.org.nvmexpress:uuid:123", "UUID"),
            ("nqn.2016-06.io.spdk:a\nb", "control"),
        ] {
            let text = Nqn::new(bad).expect_err(bad).to_string();
            assert!(text.contains(why), "{bad:?}: {text}");
        }
        let long = format!("nqn.2016-06.io.spdk:{}", "x".repeat(NQN_MAX));
        assert!(Nqn::new(&long).is_err());
        assert!(Nqn::new(&long[..NQN_MAX]).is_ok());
    }

    #[test]
    fn iscsi_names_are_of_the_three_kinds() {
        for good in ["iqn.2016-06.io.spdk:disk1", "IQN.2016-06.io.spdk:Disk_1", "iqn.2001-04.com.acme"] {
            assert!(IscsiName::new(good).is_ok(), "{good}");
        }
        for good in ["eui.0123456789abcDEF", "naa.0123456789abcdef", "naa.0123456789abcdef0123456789abcdef"] {
            assert!(IscsiName::new(good).is_ok(), "{good}");
        }
        let long = format!("iqn.2016-06.io:{}", "x".repeat(NQN_MAX));
        for (bad, why) in [
            ("", "begin"),
            ("iqn", "begin"),
            ("nqn.2016-06.io.spdk:x", "begin"),
            ("iqn.t:1", "date"),
            ("iqn.2016-06.", "date"),
            ("iqn.2016-06.io.spdk:a b", "character"),
            ("iqn.2016-06.io.spdk:a/b", "character"),
            ("eui.0123", "16"),
            ("eui.0123456789abcdeg", "16"),
            ("naa.0123456789abcdef0", "16 or 32"),
            (&long, "longer"),
        ] {
            let text = IscsiName::new(bad).expect_err(bad).to_string();
            assert!(text.contains(why), "{bad:?}: {text}");
        }
    }

    #[test]
    fn names_keep_slashes_and_length_out() {
        assert!(BdevName::new("Malloc0").is_ok());
        assert!(BdevName::new("lvs/vol").is_err());
        assert!(BdevName::new("").is_err());
        assert!(StoreName::new(&"s".repeat(63)).is_ok());
        assert!(StoreName::new(&"s".repeat(64)).is_err());
    }
}
