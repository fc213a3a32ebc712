//! Who logs in, and to what: the names of the first login text against portal groups, initiator groups, redirections and
//! the sessions there are. Everything is closed that the snapshot does not open.

use super::config::{Auth, TargetNode};
use super::conn::Conn;
use super::login::Stop;
use super::session::Nexus;
use super::target::Target;
use crate::base::Time;
use crate::wire::iscsi::pdu::LoginRequest;
use crate::wire::iscsi::text::Pairs;
use crate::wire::iscsi::value::is_name;
use crate::wire::iscsi::{Digests, Key, LoginStatus};
use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a login is about.
#[derive(Clone, Debug)]
pub(super) struct Who {
    /// The name of the session it makes or joins.
    pub nexus: Nexus,
    /// `InitiatorAlias`.
    pub alias: String,
    /// Place of the target in the snapshot; `None` for discovery.
    pub node: Option<usize>,
    /// What it must prove.
    pub auth: Auth,
    /// Digests that the target insists on.
    pub insist: Digests,
}

/// Longest `InitiatorAlias` kept, bytes.
const ALIAS_MAX: usize = 255;

impl Target {
    /// Reads the first text of a login.
    pub(super) fn identify(&self, c: &Conn, request: &LoginRequest, text: &[u8], now: Time) -> Result<Who, Stop> {
        let (mut initiator, mut target, mut kind, mut alias) = (None, None, None, String::new());
        for pair in Pairs::new(text) {
            let (name, value) = pair?;
            let place = match Key::of(name) {
                Some(Key::InitiatorName) => &mut initiator,
                Some(Key::TargetName) => &mut target,
                Some(Key::SessionType) => &mut kind,
                Some(Key::InitiatorAlias) => {
                    value[..value.floor_char_boundary(ALIAS_MAX)].clone_into(&mut alias);
                    continue;
                }
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(LoginStatus::InitiatorError.into());
            }
        }
        let initiator = initiator.ok_or(LoginStatus::MissingParameter)?;
        if !is_name(initiator) {
            return Err(LoginStatus::InitiatorError.into());
        }
        let discovery = match kind {
            None | Some("Normal") => false,
            Some("Discovery") => true,
            Some(_) => return Err(LoginStatus::SessionType.into()),
        };
        let Some(group) = self.portal_group_of(c.listener) else { return Err(LoginStatus::Unavailable.into()) };
        let (tag, discovery_auth) = (group.tag, group.discovery_auth);
        self.check_connections(initiator)?;
        let mut who = Who {
            nexus: Nexus { initiator: Arc::from(initiator), isid: request.isid, target: None, tag },
            alias,
            node: None,
            auth: discovery_auth.unwrap_or(self.options.discovery_auth),
            insist: Digests::NONE,
        };
        if discovery {
            if request.tsih.get() != 0 {
                return Err(LoginStatus::NoSession.into());
            }
            return Ok(who);
        }
        let name = target.ok_or(LoginStatus::MissingParameter)?;
        let found = self.snapshot.targets.iter().position(|t| t.name.eq_ignore_ascii_case(name));
        let place = found.ok_or(LoginStatus::NotFound)?;
        let node = &self.snapshot.targets[place];
        self.access(node, tag, initiator, c.ends.peer.ip())?;
        who.nexus.target = Some(node.index);
        who.node = Some(place);
        who.auth = node.auth;
        who.insist = Digests { header: node.header_digest, data: node.data_digest };
        if let Some(to) = node.redirects.iter().find(|r| r.portal_group == tag) {
            let status = if to.permanent { LoginStatus::MovedPermanently } else { LoginStatus::MovedTemporarily };
            return Err(Stop::Moved(status, address(to.addr)));
        }
        let _ = now;
        Ok(who)
    }

    /// Whether an initiator may use a target through a portal group.
    fn access(&self, node: &TargetNode, tag: u16, initiator: &str, from: IpAddr) -> Result<(), LoginStatus> {
        if !node.reached_by(tag) {
            return Err(LoginStatus::NotFound);
        }
        if node.admits(&self.snapshot, tag, initiator, from) { Ok(()) } else { Err(LoginStatus::AuthorizationFailed) }
    }

    fn check_connections(&self, initiator: &str) -> Result<(), LoginStatus> {
        let of = |n: &Nexus| n.initiator.eq_ignore_ascii_case(initiator);
        let open: usize = self.sessions.iter().filter(|s| of(&s.nexus)).map(|s| s.conns.len()).sum();
        if open >= self.config.connections_per_initiator { Err(LoginStatus::TooManyConnections) } else { Ok(()) }
    }

    /// True while the snapshot grants a connection's session what it has.
    pub(super) fn entitled(&self, nexus: &Nexus, listener: SocketAddr, from: IpAddr) -> bool {
        let here = self.portal_group_of(listener).is_some_and(|g| g.tag == nexus.tag);
        let Some(index) = nexus.target else { return here };
        let node = self.snapshot.targets.iter().find(|t| t.index == index);
        here && node.is_some_and(|n| n.admits(&self.snapshot, nexus.tag, &nexus.initiator, from))
    }
}

/// An address as `TargetAddress` has it.
pub(super) fn address(addr: SocketAddr) -> String {
    addr.to_string()
}
