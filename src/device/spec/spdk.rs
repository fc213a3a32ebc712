//! `spdk:` specs: SPDK's own transport id, `key:value` words with spaces between, so that what its tools take after `-r`
//! can be given here too. Read without SPDK, so that a build that has none can name and refuse them.
//!
//! ```text
//! spdk:trtype:PCIe traddr:0000:02:00.0 [nsid:N]
//! spdk:trtype:TCP [adrfam:IPv4|IPv6] traddr:ADDRESS [trsvcid:PORT] subnqn:NQN [hostnqn:NQN] [nsid:N]
//! spdk:trtype:VFIOUSER traddr:FOLDER [nsid:N]
//! ```

use super::{Problem, units};
use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

/// Longest NQN, bytes (NVMe base specification 2.0, 4.5).
const NQN_MAX: usize = 223;
/// Longest folder of a vfio-user endpoint, bytes: a unix socket in it must have a name of at most 107.
const FOLDER_MAX: usize = 100;
/// The port of NVMe/TCP (IANA: nvme-tcp).
const PORT: u16 = 4420;

/// A namespace that SPDK's NVMe driver reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpdkSpec {
    /// Where its controller is.
    pub place: SpdkPlace,
    /// Which of its namespaces, from 1; the first active one when not given.
    pub nsid: Option<u32>,
}

/// Where a controller is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SpdkPlace {
    /// A PCI function, `dddd:bb:dd.f` in lower case.
    Pcie(String),
    /// A subsystem of an NVMe/TCP target.
    Tcp {
        /// The target's address.
        address: IpAddr,
        /// Its port.
        port: u16,
        /// The subsystem.
        subnqn: String,
        /// The name this host gives itself; one that SPDK makes up when not given.
        hostnqn: Option<String>,
    },
    /// A vfio-user endpoint: the folder with the socket `cntrl` in it.
    VfioUser(String),
}

impl SpdkPlace {
    /// The transport id in the form that `spdk_nvme_transport_id_parse` reads.
    pub fn trid(&self) -> String {
        match self {
            SpdkPlace::Pcie(function) => format!("trtype:PCIe traddr:{function}"),
            SpdkPlace::Tcp { address, port, subnqn, .. } => {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                format!("trtype:TCP adrfam:{family} traddr:{address} trsvcid:{port} subnqn:{subnqn}")
            }
            SpdkPlace::VfioUser(folder) => format!("trtype:VFIOUSER traddr:{folder}"),
        }
    }
}

impl fmt::Display for SpdkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("spdk:")?;
        match &self.place {
            SpdkPlace::Tcp { address, port, subnqn, hostnqn } => {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(f, "trtype:TCP adrfam:{family} traddr:{address} trsvcid:{port} subnqn:")?;
                word(f, subnqn)?;
                if let Some(name) = hostnqn {
                    f.write_str(" hostnqn:")?;
                    word(f, name)?;
                }
            }
            SpdkPlace::Pcie(function) => write!(f, "trtype:PCIe traddr:{function}")?,
            SpdkPlace::VfioUser(folder) => {
                f.write_str("trtype:VFIOUSER traddr:")?;
                word(f, folder)?;
            }
        }
        self.nsid.map_or(Ok(()), |nsid| write!(f, " nsid:{nsid}"))
    }
}

/// Writes a value: what means something in a spec as `%XX`. [`one_word`] let no space in.
fn word(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    units::write_path(f, Path::new(value))
}

/// A mistake: its byte offset in the text, the key it is about, what is wrong.
pub(super) type Mistake<'a> = (usize, &'a str, Problem);

/// The words of a transport id, each with its byte offset.
#[derive(Default)]
struct Words<'a> {
    trtype: Option<(usize, &'a str)>,
    adrfam: Option<(usize, &'a str)>,
    traddr: Option<(usize, &'a str)>,
    trsvcid: Option<(usize, &'a str)>,
    subnqn: Option<(usize, &'a str)>,
    hostnqn: Option<(usize, &'a str)>,
    nsid: Option<(usize, &'a str)>,
}

/// Parses what stands behind `spdk:`.
pub(super) fn parse(text: &str) -> Result<SpdkSpec, Mistake<'_>> {
    let words = words(text)?;
    let (at, trtype) = words.trtype.ok_or((0, "trtype", Problem::Missing))?;
    let (place_at, traddr) = words.traddr.ok_or((0, "traddr", Problem::Missing))?;
    let nsid = words.nsid.map(|w| number(w, "nsid")).transpose()?;
    let tcp = trtype.eq_ignore_ascii_case("tcp");
    // What only a fabric has.
    let fabric = [("adrfam", words.adrfam), ("trsvcid", words.trsvcid), ("subnqn", words.subnqn)];
    let stray = fabric.into_iter().chain([("hostnqn", words.hostnqn)]).find_map(|(key, w)| Some((w?.0, key)));
    if let Some((at, key)) = stray.filter(|_| !tcp) {
        return Err((at, key, Problem::Contradiction));
    }
    let place = if tcp {
        let address: IpAddr = traddr.parse().map_err(|_| (place_at, "traddr", Problem::Name))?;
        if let Some((at, family)) = words.adrfam
            && !family.eq_ignore_ascii_case(if address.is_ipv4() { "ipv4" } else { "ipv6" })
        {
            return Err((at, "adrfam", Problem::Contradiction));
        }
        let port = match words.trsvcid {
            None => PORT,
            Some(w) => u16::try_from(number(w, "trsvcid")?).map_err(|_| (w.0, "trsvcid", Problem::Number))?,
        };
        let subnqn = nqn(words.subnqn.ok_or((0, "subnqn", Problem::Missing))?, "subnqn")?;
        let hostnqn = words.hostnqn.map(|w| nqn(w, "hostnqn")).transpose()?;
        SpdkPlace::Tcp { address, port, subnqn, hostnqn }
    } else if trtype.eq_ignore_ascii_case("pcie") {
        SpdkPlace::Pcie(function(traddr).ok_or((place_at, "traddr", Problem::Name))?)
    } else if trtype.eq_ignore_ascii_case("vfiouser") {
        let folder = one_word((place_at, traddr), "traddr")?;
        let fits = folder.starts_with('/') && folder.len() <= FOLDER_MAX;
        SpdkPlace::VfioUser(Some(folder).filter(|_| fits).ok_or((place_at, "traddr", Problem::Name))?)
    } else {
        return Err((at, "trtype", Problem::Word));
    };
    Ok(SpdkSpec { place, nsid })
}

fn words(text: &str) -> Result<Words<'_>, Mistake<'_>> {
    let mut words = Words::default();
    let mut at = 0;
    for pair in text.split(' ') {
        let start = at;
        at += pair.len() + 1;
        if pair.is_empty() {
            continue;
        }
        let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
        let slot = match key {
            "trtype" => &mut words.trtype,
            "adrfam" => &mut words.adrfam,
            "traddr" => &mut words.traddr,
            "trsvcid" => &mut words.trsvcid,
            "subnqn" => &mut words.subnqn,
            "hostnqn" => &mut words.hostnqn,
            "nsid" => &mut words.nsid,
            _ => return Err((start, key, Problem::Key)),
        };
        if value.is_empty() {
            return Err((start, key, Problem::NeedsValue));
        }
        if slot.replace((start + key.len() + 1, value)).is_some() {
            return Err((start, key, Problem::Twice));
        }
    }
    Ok(words)
}

fn number<'a>((at, text): (usize, &str), key: &'a str) -> Result<u32, Mistake<'a>> {
    let number: Option<u32> = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    // 0 is no port, and 0 and 0xFFFFFFFF are no namespaces.
    number.filter(|n| !matches!(*n, 0 | u32::MAX)).ok_or((at, key, Problem::Number))
}

/// A value that SPDK can be given: no blank, nothing unprintable, since those end a word there.
fn one_word<'a>((at, text): (usize, &str), key: &'a str) -> Result<String, Mistake<'a>> {
    let value = units::parse_path(text).map_err(|offset| (at + offset, key, Problem::Escape))?;
    let value = OsStr::to_str(value.as_os_str()).filter(|v| !v.chars().any(|c| c.is_whitespace() || c.is_control()));
    value.map(str::to_owned).ok_or((at, key, Problem::Name))
}

fn nqn<'a>(word: (usize, &str), key: &'a str) -> Result<String, Mistake<'a>> {
    let name = one_word(word, key)?;
    let good = name.starts_with("nqn.") && name.len() <= NQN_MAX;
    Some(name).filter(|_| good).ok_or((word.0, key, Problem::Name))
}

/// A PCI function with its domain, in lower case: `0000:02:00.0`.
fn function(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let parts: Vec<&str> = text.split([':', '.']).collect();
    let (domain, rest) = match parts.as_slice() {
        [domain, rest @ ..] if rest.len() == 3 => (*domain, rest),
        rest if rest.len() == 3 => ("0000", rest),
        _ => return None,
    };
    let hex = |t: &str, width: usize, max: u32| {
        let good = t.len() == width && t.bytes().all(|b| b.is_ascii_hexdigit());
        good.then(|| u32::from_str_radix(t, 16).ok().filter(|n| *n <= max)).flatten()
    };
    let (bus, device, function) = (hex(rest[0], 2, 0xff)?, hex(rest[1], 2, 0x1f)?, hex(rest[2], 1, 7)?);
    let written = format!("{:04x}:{bus:02x}:{device:02x}.{function}", hex(domain, 4, 0xffff)?);
    // The dots and colons stand where they belong.
    written.ends_with(&text).then_some(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Spec, SpecError};

    fn bad(text: &str, column: usize, key: &str, problem: Problem) {
        let error = text.parse::<Spec>().expect_err(text);
        assert_eq!(error, SpecError { column, key: key.to_owned(), problem }, "{text}");
    }

    #[test]
    fn canonical_lines_read_back_as_written() {
        for text in [
            "spdk:trtype:PCIe traddr:0000:02:00.0",
            "spdk:trtype:PCIe traddr:10ab:ff:1f.7 nsid:3",
            "spdk:trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420 subnqn:nqn.2016-06.io.spdk:cnode1",
            "spdk:trtype:TCP adrfam:IPv6 traddr:::1 trsvcid:8009 subnqn:nqn.2016-06.io.spdk:a%2Cb hostnqn:nqn.2014-08.org.nvmexpress:uuid:1 nsid:2",
            "spdk:trtype:VFIOUSER traddr:/run/a%28b%29/0 nsid:4294967294",
            "fault(spdk:trtype:PCIe traddr:0000:02:00.0;do=eio)",
        ] {
            let spec: Spec = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(spec.to_string(), text);
            assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
        }
    }

    #[test]
    fn what_may_be_left_out_and_case_and_order() {
        let same = |a: &str, b: &str| assert_eq!(a.parse::<Spec>().unwrap().to_string(), b, "{a}");
        same(
            "spdk:traddr:10.0.0.1 trtype:tcp subnqn:nqn.a",
            "spdk:trtype:TCP adrfam:IPv4 traddr:10.0.0.1 trsvcid:4420 subnqn:nqn.a",
        );
        same("spdk: traddr:A2:00.0 nsid:1  trtype:pcie", "spdk:trtype:PCIe traddr:0000:a2:00.0 nsid:1");
    }

    #[test]
    fn mistakes_are_named_with_their_column() {
        bad("spdk", 5, ":", Problem::End);
        bad("spdk:", 6, "trtype", Problem::Missing);
        bad("spdk:trtype:TCP", 6, "traddr", Problem::Missing);
        bad("spdk:trtype:RDMA traddr:10.0.0.1", 13, "trtype", Problem::Word);
        bad("spdk:trtype:TCP traddr:10.0.0.1", 6, "subnqn", Problem::Missing);
        bad("spdk:trtype:TCP traddr:host subnqn:nqn.a", 24, "traddr", Problem::Name);
        bad("spdk:trtype:TCP adrfam:IPv6 traddr:10.0.0.1 subnqn:nqn.a", 24, "adrfam", Problem::Contradiction);
        bad("spdk:trtype:TCP traddr:10.0.0.1 subnqn:volume", 40, "subnqn", Problem::Name);
        bad("spdk:trtype:TCP traddr:10.0.0.1 trsvcid:65536 subnqn:nqn.a", 41, "trsvcid", Problem::Number);
        bad("spdk:trtype:TCP traddr:10.0.0.1 trsvcid:0 subnqn:nqn.a", 41, "trsvcid", Problem::Number);
        bad("spdk:trtype:TCP traddr:10.0.0.1 subnqn:nqn.a%2", 45, "subnqn", Problem::Escape);
        bad("spdk:trtype:TCP traddr:10.0.0.1 subnqn:nqn.a%20b", 40, "subnqn", Problem::Name);
        bad("spdk:trtype:PCIe traddr:0000:02:00.0 subnqn:nqn.a", 45, "subnqn", Problem::Contradiction);
        bad("spdk:trtype:PCIe traddr:02:00", 25, "traddr", Problem::Name);
        bad("spdk:trtype:PCIe traddr:0000:02:20.0", 25, "traddr", Problem::Name);
        bad("spdk:trtype:PCIe traddr:0000.02:00:0", 25, "traddr", Problem::Name);
        bad("spdk:trtype:PCIe traddr:0000:02:00.0 nsid:0", 43, "nsid", Problem::Number);
        bad("spdk:trtype:PCIe traddr:0000:02:00.0 ns:1", 38, "ns", Problem::Key);
        bad("spdk:trtype:PCIe traddr:0000:02:00.0 nsid:", 38, "nsid", Problem::NeedsValue);
        bad("spdk:trtype:PCIe traddr:0000:02:00.0 nsid:1 nsid:2", 45, "nsid", Problem::Twice);
        bad("spdk:trtype:VFIOUSER traddr:run", 29, "traddr", Problem::Name);
        bad("spdk:trtype:PCIe traddr:0000:02:00.0,bs=512", 37, ",", Problem::Unexpected);
    }
}
