//! `HOST[:PORT]` in the addresses of both protocols.

use std::fmt;

/// Host (without brackets) and port of `HOST[:PORT]`; `default` where no port is given.
pub(super) fn split(text: &str, default: u16) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default), |p| p.parse().ok().filter(|p| *p != 0))?;
    (!host.is_empty()).then_some((host, port))
}

/// Writes `HOST:PORT`, an IPv6 address in brackets.
pub(super) fn write(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}
