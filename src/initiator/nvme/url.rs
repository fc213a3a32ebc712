//! The address of a namespace as people write it: `nvme+tcp://HOST[:PORT]/NQN[?nsid=N]`.

use crate::initiator::authority;
use crate::wire::fabrics::nqn_valid;
use std::fmt;

/// The port NVMe/TCP listens on unless said otherwise (IANA).
pub const PORT_DEFAULT: u16 = 4420;
/// What an address begins with.
pub const SCHEME: &str = "nvme+tcp://";

/// A parsed address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Subsystem NQN.
    pub nqn: String,
    /// Namespace; `None`: the first active one.
    pub nsid: Option<u32>,
}

/// Why a text is not an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    /// It does not begin as it must.
    #[error("an address begins with {SCHEME}")]
    Scheme,
    /// Host or port is missing or malformed.
    #[error("`{0}` is not HOST or HOST:PORT")]
    Host(String),
    /// The part behind the host is not an NQN.
    #[error("`{0}` is not an NQN")]
    Nqn(String),
    /// A query other than `nsid=N`.
    #[error("`{0}` is not nsid=N with N in 1..=4294967294")]
    Query(String),
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        let rest = text.strip_prefix(SCHEME).ok_or(UrlError::Scheme)?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (nqn, query) = path.split_once('?').map_or((path, None), |(nqn, query)| (nqn, Some(query)));
        let (host, port) = authority::split(place, PORT_DEFAULT).ok_or_else(|| UrlError::Host(place.into()))?;
        if !nqn_valid(nqn) {
            return Err(UrlError::Nqn(nqn.into()));
        }
        let nsid = query.map(|q| parse_nsid(q).ok_or_else(|| UrlError::Query(q.into()))).transpose()?;
        Ok(Url { host: host.into(), port, nqn: nqn.into(), nsid })
    }
}

fn parse_nsid(query: &str) -> Option<u32> {
    query.strip_prefix("nsid=")?.parse().ok().filter(|n| *n != 0 && *n != u32::MAX)
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Url { host, port, nqn, nsid } = self;
        write!(f, "{SCHEME}")?;
        authority::write(f, host, *port)?;
        write!(f, "/{nqn}")?;
        nsid.map_or(Ok(()), |n| write!(f, "?nsid={n}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NQN: &str = "nqn.2016-06.io.spdk:cnode1";

    #[test]
    fn round_trips() {
        for (text, host, port, nsid) in [
            (format!("nvme+tcp://127.0.0.1:4421/{NQN}"), "127.0.0.1", 4421, None),
            (format!("nvme+tcp://[::1]:9/{NQN}?nsid=3"), "::1", 9, Some(3)),
            (format!("nvme+tcp://node7.lab:4420/{NQN}"), "node7.lab", 4420, None),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, url.nsid, url.nqn.as_str()), (host, port, nsid, NQN));
            assert_eq!(url.to_string(), text);
        }
        let short: Url = format!("nvme+tcp://h/{NQN}").parse().unwrap();
        assert_eq!(short.port, PORT_DEFAULT);
    }

    #[test]
    fn refusals_name_the_part() {
        let parse = |text: &str| text.parse::<Url>().unwrap_err();
        assert_eq!(parse("nvme://h/x"), UrlError::Scheme);
        for bad in ["", ":1", "h:0", "h:x", "[::1", "[::1]x", "h:70000"] {
            assert_eq!(parse(&format!("nvme+tcp://{bad}/{NQN}")), UrlError::Host(bad.into()), "{bad}");
        }
        assert_eq!(parse("nvme+tcp://h"), UrlError::Nqn(String::new()));
        assert_eq!(parse("nvme+tcp://h/cnode1"), UrlError::Nqn("cnode1".into()));
        for bad in ["nsid=0", "nsid=4294967295", "nsid=", "n=1"] {
            assert_eq!(parse(&format!("nvme+tcp://h/{NQN}?{bad}")), UrlError::Query(bad.into()));
        }
    }
}
