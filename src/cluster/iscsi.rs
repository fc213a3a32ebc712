//! The iSCSI objects of the state, in SPDK's model: portal groups (addresses), initiator groups (who), auth groups (CHAP
//! secrets), and target nodes that map initiator groups to portal groups and bdevs to LUNs. Plain data; every one of
//! them is what the journal holds and what reactors are told of. [`Change`]s make the next [`Iscsi`].

mod change;
mod options;

use super::error::{Error, NameKind};
use super::names::IscsiName;
use crate::base::VolumeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use uuid::Uuid;

pub use change::Change;
pub use options::{FIRST_BURST_MAX, Options};

/// Portal groups of a node.
pub const PORTAL_GROUPS_MAX: usize = 256;
/// Portals of one group.
pub const PORTALS_MAX: usize = 64;
/// Initiator groups of a node.
pub const INITIATOR_GROUPS_MAX: usize = 1024;
/// Names of one initiator group, and networks (as SPDK).
pub const INITIATORS_MAX: usize = 256;
/// Auth groups of a node.
pub const AUTH_GROUPS_MAX: usize = 1024;
/// Secrets of one auth group.
pub const SECRETS_MAX: usize = 256;
/// Target nodes of a node.
pub const TARGETS_MAX: usize = 1024;
/// Maps of one target node (as SPDK).
pub const MAPS_MAX: usize = 256;
/// Largest LUN and one: what a single-level LUN of 8 bits names (as SPDK).
pub const LUNS_MAX: u16 = 256;
/// Largest queue of a session.
pub const QUEUE_DEPTH_MAX: u16 = 1024;
/// Bytes of an initiator's name in a group (RFC 7143 4.2.7.1).
const INITIATOR_NAME_MAX: usize = 223;
/// Bytes of a target's alias (a text value, RFC 7143 6.1).
const ALIAS_MAX: usize = 255;
/// Bytes of a CHAP secret: 96 bits at least (RFC 7143 9.2.1).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 12..=128;
/// Bytes of a CHAP user name.
const USER_MAX: usize = 128;

/// Who must prove who they are. Four of the combinations mean something: [`Chap::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Chap {
    /// CHAP is not offered.
    pub disabled: bool,
    /// CHAP is required of the initiator.
    pub required: bool,
    /// And the target proves itself, too.
    pub mutual: bool,
    /// Tag of the auth group with the secrets; 0: none.
    pub group: u32,
}

impl Chap {
    /// Either of: whatever the initiator offers; none; required; required both ways.
    pub fn check(&self) -> Result<(), Error> {
        let why = match (self.disabled, self.required, self.mutual) {
            (true, true, _) => "excludes disable_chap",
            (_, false, true) => "is needed for mutual_chap",
            _ => return Ok(()),
        };
        Err(Error::Conflict { field: "require_chap", why })
    }
}

/// Addresses under one tag.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortalGroup {
    /// Its tag, not 0 (`TargetPortalGroupTag`).
    pub tag: u16,
    /// Where; at least one address.
    pub portals: Vec<SocketAddr>,
    /// Discovery does not show it.
    pub private: bool,
    /// Hosts may connect; otherwise nobody listens yet.
    pub started: bool,
    /// CHAP for discovery through the group; `None`: as the options say.
    pub auth: Option<Chap>,
}

/// Names and networks under one tag.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InitiatorGroup {
    /// Its tag, not 0.
    pub tag: u32,
    /// Names in order; the first that matches decides.
    pub initiators: Vec<Initiator>,
    /// Networks.
    pub netmasks: Vec<Netmask>,
}

/// An entry of an initiator group: `ANY`, an initiator's name, or either behind a `!`, which shuts out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Initiator(String);

impl Initiator {
    /// Checks and wraps an entry. SPDK's older word `ALL` is `ANY`.
    pub fn new(text: &str) -> Result<Initiator, Error> {
        let refused = |why| Error::Name { kind: NameKind::Initiator, name: text.chars().take(256).collect(), why };
        let name = text.strip_prefix('!').unwrap_or(text);
        if name.is_empty() {
            return Err(refused("is empty"));
        }
        if name.len() > INITIATOR_NAME_MAX {
            return Err(refused("is longer than 223 bytes"));
        }
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refused("contains a control character or a space"));
        }
        Ok(Initiator(text.to_owned()))
    }
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The name it speaks of, `None` for any; and whether it lets in.
    pub fn parts(&self) -> (Option<&str>, bool) {
        let (name, admits) = self.0.strip_prefix('!').map_or((self.0.as_str(), true), |name| (name, false));
        ((name != "ANY" && name != "ALL").then_some(name), admits)
    }
}

impl TryFrom<String> for Initiator {
    type Error = Error;
    fn try_from(text: String) -> Result<Initiator, Error> {
        Initiator::new(&text)
    }
}

impl From<Initiator> for String {
    fn from(initiator: Initiator) -> String {
        initiator.0
    }
}

/// A network: `ANY`, an address, or an address and the count of its leading bits that count (`10.0.0.0/8`,
/// `[fe80::]/10`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Netmask(String);

impl Netmask {
    /// Checks and wraps a network. SPDK's older word `ALL` is `ANY`.
    pub fn new(text: &str) -> Result<Netmask, Error> {
        let why = "must be ANY, an IP address, or an address and a count of bits like 10.0.0.0/8 or [fe80::]/10";
        let refused = || Error::Name { kind: NameKind::Netmask, name: text.chars().take(256).collect(), why };
        parse_netmask(text).map(|_| Netmask(text.to_owned())).ok_or_else(refused)
    }
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// An address of the network and the bits that count; `None`: any address.
    pub fn network(&self) -> Option<(IpAddr, u8)> {
        parse_netmask(&self.0).expect("checked when it was made")
    }
}

impl TryFrom<String> for Netmask {
    type Error = Error;
    fn try_from(text: String) -> Result<Netmask, Error> {
        Netmask::new(&text)
    }
}

impl From<Netmask> for String {
    fn from(netmask: Netmask) -> String {
        netmask.0
    }
}

/// The outer `None`: not a network; the inner one: any address.
#[allow(clippy::option_option)] // two different absences, both named above
fn parse_netmask(text: &str) -> Option<Option<(IpAddr, u8)>> {
    if text == "ANY" || text == "ALL" {
        return Some(None);
    }
    let (host, bits) = text.split_once('/').map_or((text, None), |(host, bits)| (host, Some(bits)));
    let addr = parse_host(host).filter(|_| !host.contains('*'))?;
    let all = if addr.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(all), |bits| bits.parse().ok().filter(|bits| *bits <= all))?;
    Some(Some((addr, bits)))
}

/// An IP address as operators write it in front of a port: IPv6 in brackets or without, `*` for every address.
pub fn parse_host(text: &str) -> Option<IpAddr> {
    match text {
        "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        "[*]" => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => text.parse().ok(),
        },
    }
}

/// CHAP secrets under one tag.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuthGroup {
    /// Its tag, not 0.
    pub tag: u32,
    /// One per user.
    pub secrets: Vec<Secret>,
}

/// A user and what it proves itself with. Printing one shows names only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The initiator's CHAP name.
    pub user: String,
    /// Its secret.
    pub secret: String,
    /// The target's CHAP name and secret, for mutual CHAP.
    pub mutual: Option<(String, String)>,
}

impl Secret {
    /// Names and lengths; both directions must not share a secret (RFC 7143 9.2.1).
    pub fn check(&self) -> Result<(), Error> {
        let own = [("user", "secret", &self.user, &self.secret)];
        let both = own.into_iter().chain(self.mutual.iter().map(|(user, secret)| ("muser", "msecret", user, secret)));
        for (user_field, secret_field, user, secret) in both {
            if user.is_empty() || user.len() > USER_MAX || user.chars().any(char::is_control) {
                return Err(Error::Conflict {
                    field: user_field,
                    why: "must have 1 to 128 bytes, no control characters",
                });
            }
            if !SECRET_BYTES.contains(&secret.len()) || secret.contains('\0') {
                return Err(Error::Conflict { field: secret_field, why: "must have 12 to 128 bytes" });
            }
        }
        match &self.mutual {
            Some((_, secret)) if *secret == self.secret => {
                Err(Error::Conflict { field: "msecret", why: "must differ from the initiator's secret" })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = self.mutual.as_ref().map(|(user, _)| user);
        f.debug_struct("Secret").field("user", &self.user).field("mutual", &mutual).finish_non_exhaustive()
    }
}

/// A bdev under a LUN.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lun {
    /// 0 to [`LUNS_MAX`] - 1.
    pub lun: u16,
    /// The raw device or volume behind it.
    #[serde(with = "super::model::volume_id")]
    pub volume: VolumeId,
    /// The store of the volume; `None` for a raw device.
    pub store: Option<Uuid>,
    /// The bdev's name: a device's name, a volume's UUID.
    pub bdev: String,
}

/// An initiator group that may come through a portal group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Map {
    /// The portal group's tag.
    pub portal_group: u16,
    /// The initiator group's tag.
    pub initiator_group: u32,
}

/// Where logins through a portal group are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Redirect {
    /// The other portal.
    pub addr: SocketAddr,
    /// The target moved for good.
    pub permanent: bool,
}

/// How good the way through a portal group is (ALUA, SPC-4 5.15.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Access {
    /// Active/optimized.
    #[default]
    Optimized,
    /// Active/non-optimized.
    NonOptimized,
    /// Standby: the medium is out of reach.
    Standby,
    /// Unavailable.
    Unavailable,
}

/// A way through a portal group that is not as ways usually are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Path {
    /// Its state.
    pub access: Access,
    /// Initiators should prefer it.
    pub preferred: bool,
}

/// A target node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TargetNode {
    /// Counts target nodes up from 1, never reused: what persistent reservations know the node by.
    pub index: u32,
    /// Its name.
    pub name: IscsiName,
    /// Its alias; empty: none.
    pub alias: String,
    /// Who may come through which portals, in the order given; the first that speaks of an initiator decides.
    pub maps: Vec<Map>,
    /// Its units by LUN.
    pub luns: BTreeMap<u16, Lun>,
    /// Commands of one session under way, 1..=[`QUEUE_DEPTH_MAX`].
    pub queue_depth: u16,
    /// CHAP for sessions.
    pub auth: Chap,
    /// Insist on header digests.
    pub header_digest: bool,
    /// Insist on data digests.
    pub data_digest: bool,
    /// Logins through these portal groups go elsewhere.
    pub redirects: BTreeMap<u16, Redirect>,
    /// Ways that are not simply active and optimized, by portal group.
    pub paths: BTreeMap<u16, Path>,
}

impl TargetNode {
    /// A node without maps and units, which nobody reaches. Its index is given when it is made.
    pub fn new(name: IscsiName) -> TargetNode {
        TargetNode {
            index: 0,
            name,
            alias: String::new(),
            maps: Vec::new(),
            luns: BTreeMap::new(),
            queue_depth: 64,
            auth: Chap::default(),
            header_digest: false,
            data_digest: false,
            redirects: BTreeMap::new(),
            paths: BTreeMap::new(),
        }
    }
}

/// All iSCSI objects of the state.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Iscsi {
    /// Grows with every change of the objects.
    pub(super) generation: u64,
    /// Target nodes ever made.
    pub(super) targets_made: u32,
    pub(super) options: Option<Arc<Options>>,
    pub(super) portal_groups: BTreeMap<u16, Arc<PortalGroup>>,
    pub(super) initiator_groups: BTreeMap<u32, Arc<InitiatorGroup>>,
    pub(super) auth_groups: BTreeMap<u32, Arc<AuthGroup>>,
    pub(super) targets: BTreeMap<u32, Arc<TargetNode>>,
}

impl Iscsi {
    /// Counts changes.
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// The options, as they were set or by default.
    pub fn options(&self) -> Options {
        self.options.as_deref().cloned().unwrap_or_default()
    }
    /// True when they were set.
    pub fn has_options(&self) -> bool {
        self.options.is_some()
    }
    /// Portal groups by tag.
    pub fn portal_groups(&self) -> impl Iterator<Item = &Arc<PortalGroup>> {
        self.portal_groups.values()
    }
    /// A portal group.
    pub fn portal_group(&self, tag: u16) -> Option<&Arc<PortalGroup>> {
        self.portal_groups.get(&tag)
    }
    /// Initiator groups by tag.
    pub fn initiator_groups(&self) -> impl Iterator<Item = &Arc<InitiatorGroup>> {
        self.initiator_groups.values()
    }
    /// Auth groups by tag.
    pub fn auth_groups(&self) -> impl Iterator<Item = &Arc<AuthGroup>> {
        self.auth_groups.values()
    }
    /// Target nodes by age.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<TargetNode>> {
        self.targets.values()
    }
    /// A target node by its full name; letters' case does not matter (RFC 3722).
    pub fn target(&self, name: &str) -> Option<&Arc<TargetNode>> {
        self.targets.values().find(|t| t.name.as_str().eq_ignore_ascii_case(name))
    }
    /// The address of every portal that is started.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.portal_groups.values().filter(|g| g.started).flat_map(|g| g.portals.iter().copied())
    }
    /// Target node and LUN of every unit of `volume`.
    pub fn units_of(&self, volume: VolumeId) -> impl Iterator<Item = (&IscsiName, u16)> {
        let units = self.targets.values().flat_map(|t| t.luns.values().map(move |l| (&t.name, l)));
        units.filter(move |(_, l)| l.volume == volume).map(|(name, l)| (name, l.lun))
    }
    /// True when nothing but the count of changes differs.
    pub(super) fn same_objects(&self, other: &Iscsi) -> bool {
        Iscsi { generation: 0, ..self.clone() } == Iscsi { generation: 0, ..other.clone() }
    }
    /// Takes away every unit that `gone` says.
    pub(super) fn drop_units(&mut self, gone: impl Fn(&Lun) -> bool) {
        for target in self.targets.values_mut() {
            if target.luns.values().any(&gone) {
                Arc::make_mut(target).luns.retain(|_, l| !gone(l));
            }
        }
    }
    /// True when every map names groups that are there, no portal is there twice, and indices were handed out.
    pub(super) fn is_sound(&self) -> bool {
        let mapped = |m: &Map| {
            self.portal_groups.contains_key(&m.portal_group) && self.initiator_groups.contains_key(&m.initiator_group)
        };
        let portals: Vec<SocketAddr> = self.portal_groups.values().flat_map(|g| g.portals.iter().copied()).collect();
        let distinct = portals.iter().collect::<std::collections::BTreeSet<_>>().len() == portals.len();
        let targets = self.targets.values().all(|t| t.index <= self.targets_made && t.maps.iter().all(mapped));
        distinct && targets
    }
}

#[cfg(test)]
mod tests;
