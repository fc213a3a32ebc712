//! What a target is told from above: its limits, fixed at start ([`Config`]), and what it exports, replaced as a whole
//! whenever the control plane changes something ([`Snapshot`]).

use super::lu::Unit;
use crate::base::limits::IO_BYTES_MAX;
use core::net::{IpAddr, SocketAddr};

/// Limits of one core's target. The defaults are the product's; each is enforced where its comment says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Connections on this core at most; more are refused at accept.
    pub connections: usize,
    /// Connections of one initiator name on this core at most; more are refused at login (Too many connections).
    pub connections_per_initiator: usize,
    /// Connections that have not finished their login at most; more are refused at accept.
    pub unauthenticated: usize,
    /// The same per peer address; loopback addresses are exempt.
    pub unauthenticated_per_address: usize,
    /// Time from accept to the end of the login phase, ms.
    pub login_ms: u64,
    /// Login requests of one connection at most, continuations included.
    pub login_pdus: u32,
    /// Failed logins of one peer address within [`Config::failure_window_ms`] after which its next ones are refused.
    pub login_failures: u32,
    /// How long failed logins count, ms.
    pub failure_window_ms: u64,
    /// Sessions on this core at most; more are refused at login (Out of resources).
    pub sessions: usize,
    /// Of them, discovery sessions at most.
    pub discovery_sessions: usize,
    /// Discovery sessions end after this long without a request, ms.
    pub discovery_idle_ms: u64,
    /// Immediate SCSI commands and task management functions of one connection at once; more are rejected.
    pub immediates: u16,
    /// Bytes of one text response sequence at most (`SendTargets` of many targets needs several PDUs).
    pub text_bytes: usize,
    /// Bytes waiting to be sent on one connection above which its commands are not read.
    pub unsent_bytes: usize,
    /// How long a session that was asked to log out has for it, seconds.
    pub logout_s: u16,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            connections: crate::base::limits::CONNS_PER_CORE,
            connections_per_initiator: 256,
            unauthenticated: 64,
            unauthenticated_per_address: 8,
            login_ms: 15_000,
            login_pdus: 16,
            login_failures: 32,
            failure_window_ms: 1_000,
            sessions: 1024,
            discovery_sessions: 256,
            discovery_idle_ms: 120_000,
            immediates: 16,
            text_bytes: 256 * 1024,
            unsent_bytes: 4 << 20,
            logout_s: 10,
        }
    }
}

/// What the node exports over iSCSI. Immutable; a change is a new value with a higher generation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change.
    pub generation: u64,
    /// Options of the protocol; `None` refuses every connection.
    pub options: Option<Options>,
    /// Portal groups, by ascending tag.
    pub portal_groups: Vec<PortalGroup>,
    /// Initiator groups, by ascending tag.
    pub initiator_groups: Vec<InitiatorGroup>,
    /// CHAP secrets, by ascending tag.
    pub auth_groups: Vec<AuthGroup>,
    /// Target nodes, in the order of discovery.
    pub targets: Vec<TargetNode>,
}

impl Snapshot {
    /// The portal group with this tag.
    pub fn portal_group(&self, tag: u16) -> Option<&PortalGroup> {
        self.portal_groups.iter().find(|g| g.tag == tag)
    }
    /// The initiator group with this tag.
    pub fn initiator_group(&self, tag: u32) -> Option<&InitiatorGroup> {
        self.initiator_groups.iter().find(|g| g.tag == tag)
    }
    /// The auth group with this tag.
    pub fn auth_group(&self, tag: u32) -> Option<&AuthGroup> {
        self.auth_groups.iter().find(|g| g.tag == tag)
    }
    /// The target with this name; names compare without regard to case (RFC 3722).
    pub fn target(&self, name: &str) -> Option<&TargetNode> {
        self.targets.iter().find(|t| t.name.eq_ignore_ascii_case(name))
    }
}

/// Options of the protocol. They hold for connections made after they changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Prefix of short target names; what hosts see is the full name in [`TargetNode::name`].
    pub node_base: String,
    /// Sessions of one initiator with one target at most, 1..=1024.
    pub max_sessions: u32,
    /// `MaxConnections`, 1..=16.
    pub max_connections_per_session: u16,
    /// `MaxOutstandingR2T`, 1..=65535.
    pub max_outstanding_r2t: u16,
    /// Commands of one session under way, 2..=1024; [`TargetNode::queue_depth`] may lower it.
    pub max_queue_depth: u16,
    /// `FirstBurstLength`, bytes, 512..=1 MiB.
    pub first_burst_bytes: u32,
    /// `MaxBurstLength`, bytes, 512..=1 MiB; not below the first burst.
    pub max_burst_bytes: u32,
    /// `MaxRecvDataSegmentLength` that this side declares, bytes, 512..=1 MiB.
    pub max_recv_data_segment_bytes: u32,
    /// Insist on `InitialR2T=Yes`.
    pub initial_r2t: bool,
    /// Allow `ImmediateData=Yes`.
    pub immediate_data: bool,
    /// `DefaultTime2Wait`, seconds, 0..=3600.
    pub time_to_wait_s: u16,
    /// `DefaultTime2Retain`, seconds, 0..=3600. Tasks are not kept at error recovery level 0: 0 is what it amounts to.
    pub time_to_retain_s: u16,
    /// A session that has been silent this long is pinged with a NOP-In, seconds; 0: never.
    pub nop_in_interval_s: u16,
    /// A connection whose ping is not answered for this long is dead, seconds; not 0.
    pub nop_timeout_s: u16,
    /// Authentication of discovery sessions.
    pub discovery_auth: Auth,
    /// CHAP algorithms that are accepted, as their numbers in `CHAP_A`, best first.
    pub chap_algorithms: Vec<u8>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            node_base: "iqn.2016-06.io.spdk".into(),
            max_sessions: 128,
            max_connections_per_session: 2,
            max_outstanding_r2t: 4,
            max_queue_depth: 128,
            first_burst_bytes: 64 << 10,
            max_burst_bytes: 1 << 20,
            max_recv_data_segment_bytes: 256 << 10,
            initial_r2t: false,
            immediate_data: true,
            time_to_wait_s: 2,
            time_to_retain_s: 0,
            nop_in_interval_s: 5,
            nop_timeout_s: 5,
            discovery_auth: Auth::default(),
            chap_algorithms: vec![8, 7, 6, 5],
        }
    }
}

/// Largest queue, entries: a request's tag has 12 bits for its task, immediate ones included.
pub(super) const QUEUE_DEPTH_MAX: u16 = 1024;

impl Options {
    /// Every option moved into its range: what comes from above was checked there, and a target must not fail on it.
    #[must_use]
    pub fn clamped(&self) -> Options {
        // What is set aside for a burst is one buffer.
        let bytes = |n: u32| n.clamp(512, IO_BYTES_MAX as u32) & !3;
        let max_burst_bytes = bytes(self.max_burst_bytes);
        Options {
            node_base: self.node_base.clone(),
            max_sessions: self.max_sessions.clamp(1, 1024),
            max_connections_per_session: self.max_connections_per_session.clamp(1, 16),
            max_outstanding_r2t: self.max_outstanding_r2t.max(1),
            max_queue_depth: self.max_queue_depth.clamp(2, QUEUE_DEPTH_MAX),
            first_burst_bytes: bytes(self.first_burst_bytes).min(max_burst_bytes),
            max_burst_bytes,
            max_recv_data_segment_bytes: bytes(self.max_recv_data_segment_bytes),
            time_to_wait_s: self.time_to_wait_s.min(3600),
            time_to_retain_s: self.time_to_retain_s.min(3600),
            nop_timeout_s: self.nop_timeout_s.max(1),
            ..self.clone()
        }
    }
}

/// Who must prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Auth {
    /// CHAP is never used, even when the initiator offers it.
    pub disabled: bool,
    /// The initiator must use CHAP.
    pub required: bool,
    /// The initiator must have this side prove itself too.
    pub mutual: bool,
    /// Tag of the auth group with the secrets; 0: none.
    pub group: u32,
}

/// Addresses that form one iSCSI portal group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortalGroup {
    /// `TargetPortalGroupTag`, 1..=65535.
    pub tag: u16,
    /// Discovery does not show it; logins redirected to it find its targets.
    pub private: bool,
    /// Its addresses, as the listeners were opened (never port 0).
    pub portals: Vec<SocketAddr>,
    /// Authentication of discovery sessions through this group; `None`: [`Options::discovery_auth`].
    pub discovery_auth: Option<Auth>,
}

/// Initiators, by name and address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitiatorGroup {
    /// Its tag, not 0.
    pub tag: u32,
    /// Names, in order: the first that matches decides.
    pub initiators: Vec<Pattern>,
    /// Networks an initiator may come from.
    pub netmasks: Vec<Netmask>,
}

impl InitiatorGroup {
    /// Whether an initiator is in the group: `None` when no name matches or its address is not covered, `Some(false)` when
    /// the name is shut out.
    pub fn admits(&self, initiator: &str, from: IpAddr) -> Option<bool> {
        let verdict = self.initiators.iter().find_map(|p| p.judge(initiator))?;
        if !verdict {
            return Some(false);
        }
        self.netmasks.iter().any(|m| m.covers(from)).then_some(true)
    }
}

/// One entry of a group's names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// `ANY`.
    Any,
    /// `!ANY`.
    None,
    /// A name.
    Name(String),
    /// `!name`.
    Not(String),
}

impl Pattern {
    /// What the entry says of an initiator, if it speaks of it.
    fn judge(&self, initiator: &str) -> Option<bool> {
        match self {
            Pattern::Any => Some(true),
            Pattern::None => Some(false),
            Pattern::Name(name) => name.eq_ignore_ascii_case(initiator).then_some(true),
            Pattern::Not(name) => name.eq_ignore_ascii_case(initiator).then_some(false),
        }
    }
}

/// A network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Netmask {
    /// `ANY`.
    Any,
    /// Addresses whose first `bits` are those of `addr`.
    Net {
        /// An address of the network.
        addr: IpAddr,
        /// Significant bits; more than the address has mean all of them.
        bits: u8,
    },
}

impl Netmask {
    /// True when `from` lies in the network. An IPv4 address that came in over IPv6 counts as what it is.
    pub fn covers(&self, from: IpAddr) -> bool {
        let Netmask::Net { addr, bits } = *self else { return true };
        let top = |all: u32| u32::from(bits).min(all);
        match (addr.to_canonical(), from.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - top(32);
                (u64::from(a.to_bits()) >> shift) == (u64::from(b.to_bits()) >> shift)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - top(128);
                shift == 128 || (a.to_bits() >> shift) == (b.to_bits() >> shift)
            }
            _ => false,
        }
    }
}

/// CHAP secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthGroup {
    /// Its tag, not 0.
    pub tag: u32,
    /// Secrets, one per user at most.
    pub secrets: Vec<Secret>,
}

/// One user's secrets. Printing it shows names only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// `CHAP_N` of the initiator.
    pub user: String,
    /// Its secret.
    pub secret: Vec<u8>,
    /// `CHAP_N` and secret of this side, for mutual CHAP.
    pub mutual: Option<(String, Vec<u8>)>,
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mutual = self.mutual.as_ref().map(|(user, _)| user);
        f.debug_struct("Secret").field("user", &self.user).field("mutual", &mutual).finish_non_exhaustive()
    }
}

/// A target node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetNode {
    /// iSCSI name (iqn., eui. or naa.), at most 223 bytes.
    pub name: String,
    /// `TargetAlias`; empty: none.
    pub alias: String,
    /// Number of the node, never reused in the life of the node's state; names the target between cores.
    pub index: u32,
    /// Through which portal group (tag) which initiator group (tag) may come.
    pub maps: Vec<(u16, u32)>,
    /// Logical units, by ascending LUN.
    pub luns: Vec<Unit>,
    /// Commands of one session under way; [`Options::max_queue_depth`] bounds it.
    pub queue_depth: u16,
    /// Authentication of sessions.
    pub auth: Auth,
    /// Insist on header digests.
    pub header_digest: bool,
    /// Insist on data digests.
    pub data_digest: bool,
    /// Logins through these portal groups are sent elsewhere.
    pub redirects: Vec<Redirect>,
}

/// Where a login through a portal group is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The portal group of the login.
    pub portal_group: u16,
    /// Where to go instead.
    pub addr: SocketAddr,
    /// The target has moved for good (status 0102h), not for now (0101h).
    pub permanent: bool,
}

impl TargetNode {
    /// True when `initiator` at address `from` may come through portal group `tag`.
    pub fn admits(&self, snapshot: &Snapshot, tag: u16, initiator: &str, from: IpAddr) -> bool {
        let groups = self.maps.iter().filter(|(pg, _)| *pg == tag);
        let mut verdicts =
            groups.filter_map(|(_, ig)| snapshot.initiator_group(*ig)).filter_map(|g| g.admits(initiator, from));
        verdicts.next().unwrap_or(false)
    }
    /// True when some map names portal group `tag`.
    pub fn reached_by(&self, tag: u16) -> bool {
        self.maps.iter().any(|(pg, _)| *pg == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_admit_by_name_and_network_and_the_first_match_decides() {
        let net = |s: &str, bits| Netmask::Net { addr: s.parse().unwrap(), bits };
        let group = InitiatorGroup {
            tag: 1,
            initiators: vec![Pattern::Not("iqn.b".into()), Pattern::Name("iqn.a".into()), Pattern::None],
            netmasks: vec![net("10.1.0.0", 16), net("fe80::", 10)],
        };
        let at = |s: &str| s.parse::<IpAddr>().unwrap();
        assert_eq!(group.admits("IQN.A", at("10.1.2.3")), Some(true));
        assert_eq!(group.admits("iqn.a", at("::ffff:10.1.2.3")), Some(true));
        assert_eq!(group.admits("iqn.a", at("10.2.2.3")), None);
        assert_eq!(group.admits("iqn.a", at("febf::1")), Some(true));
        assert_eq!(group.admits("iqn.b", at("10.1.2.3")), Some(false));
        assert_eq!(group.admits("iqn.c", at("10.1.2.3")), Some(false));
        assert!(net("1.2.3.4", 0).covers(at("9.9.9.9")) && net("::", 0).covers(at("1::")));
        assert!(net("1.2.3.4", 32).covers(at("1.2.3.4")) && !net("1.2.3.4", 255).covers(at("1.2.3.5")));
        assert!(!net("1.2.3.4", 0).covers(at("1::")));
    }

    #[test]
    fn options_are_moved_into_their_ranges_and_secrets_are_not_printed() {
        let odd = Options { first_burst_bytes: 1, max_burst_bytes: u32::MAX, nop_timeout_s: 0, ..Options::default() };
        let good = odd.clamped();
        assert_eq!((good.first_burst_bytes, good.max_burst_bytes, good.nop_timeout_s), (512, 1 << 20, 1));
        let secret =
            Secret { user: "u".into(), secret: b"hush".to_vec(), mutual: Some(("m".into(), b"hush".to_vec())) };
        assert!(!format!("{secret:?}").contains("hush") && !format!("{secret:?}").contains("104"));
    }
}
