//! Text requests of full feature phase (RFC 7143 11.10, appendix C): `SendTargets`, and texts that go over several PDUs in
//! either direction.

use super::conn::Conn;
use super::login::{TEXT_MAX, declares};
use super::params::{Answer, Params, Rules};
use super::session::{Nexus, Turn};
use super::target::Target;
use crate::net::{Close, Ends, Tx};
use crate::wire::iscsi::pdu::{CONTINUE, FINAL, TextRequest, TextResponse};
use crate::wire::iscsi::text::{Pairs, TextWriter};
use crate::wire::iscsi::value::{NOT_UNDERSTOOD, REJECT};
use crate::wire::iscsi::{Digests, Key, NO_TAG, Opcode, RejectReason};
use zerocopy::IntoBytes;

/// A text exchange that goes over several PDUs.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Initiator task tag.
    itt: u32,
    /// Target transfer tag of the last response.
    ttt: u32,
    /// The request so far.
    request: Vec<u8>,
    /// The response.
    response: Vec<u8>,
    /// Bytes of it that are sent.
    sent: usize,
}

/// `SendTargets` with this value asks for all of them.
const ALL: &str = "All";

/// Why a text has no answer.
struct Malformed;

impl Target {
    /// A Text Request with its data. False: not its turn yet.
    pub(super) fn text_request(&mut self, c: &mut Conn, request: &TextRequest, data: &[u8], tx: &mut Tx) -> bool {
        let immediate = request.opcode & Opcode::IMMEDIATE != 0;
        match self.in_turn(c, immediate, request.cmd_sn.get()) {
            Turn::Now => {}
            Turn::Later => return false,
            Turn::Never => return true,
        }
        let own = c.session.expect("full feature phase has a session");
        self.took(own, immediate);
        self.ended(own, immediate);
        let (itt, ttt) = (request.itt.get(), request.ttt.get());
        let (more, last) = (request.flags & CONTINUE != 0, request.flags & FINAL != 0);
        let mut exchange = match c.exchange.take() {
            // A new exchange resets the one before (11.10.4).
            _ if ttt == NO_TAG => Box::new(Exchange { itt, ttt: NO_TAG, ..Exchange::default() }),
            Some(exchange) if exchange.itt == itt && exchange.ttt == ttt => exchange,
            _ => {
                self.reject(c, RejectReason::Protocol, request.as_bytes(), tx);
                return true;
            }
        };
        if (more && last) || exchange.request.len() + data.len() > TEXT_MAX || itt == NO_TAG {
            self.stats.protocol_errors += 1;
            self.reject(c, RejectReason::Protocol, request.as_bytes(), tx);
            self.end(c, Close::AfterSend);
            return true;
        }
        if exchange.response.is_empty() {
            exchange.request.extend_from_slice(data);
            if !more {
                let text = core::mem::take(&mut exchange.request);
                match self.answer_text(c, &text) {
                    Ok(response) => exchange.response = response,
                    Err(Malformed) => {
                        self.reject(c, RejectReason::Protocol, request.as_bytes(), tx);
                        return true;
                    }
                }
            }
        }
        let session = self.sessions.get(own).expect("a connection's session outlives it");
        let rest = exchange.response.len() - exchange.sent;
        let part = rest.min(c.out.send_max as usize);
        let goes_on = more || part < rest;
        let flags = match (goes_on, part < rest) {
            (true, true) => CONTINUE,
            (false, _) if last => FINAL,
            // The initiator has not said that it is done: nor is this side.
            _ => 0,
        };
        let tag = if flags & FINAL != 0 { NO_TAG } else { exchange.ttt.wrapping_add(1) & 0x7fff_ffff };
        let numbers = c.out.status(session);
        let bytes = &exchange.response[exchange.sent..exchange.sent + part];
        c.out.put_data(tx, &TextResponse::new(itt, tag, flags, numbers, part as u32), bytes);
        exchange.sent += part;
        if flags & FINAL == 0 {
            exchange.ttt = tag;
            if exchange.sent == exchange.response.len() {
                (exchange.response, exchange.sent) = (Vec::new(), 0);
            }
            c.exchange = Some(exchange);
        }
        true
    }

    /// The answer to a whole text.
    fn answer_text(&mut self, c: &mut Conn, text: &[u8]) -> Result<Vec<u8>, Malformed> {
        let session = c.session.and_then(|s| self.sessions.get(s)).ok_or(Malformed)?;
        let nexus = session.nexus.clone();
        let mut buffer = vec![0; self.config.text_bytes];
        let mut answer = TextWriter::new(&mut buffer);
        let mut spoken = 0u64;
        for pair in Pairs::new(text) {
            let (name, value) = pair.map_err(|_| Malformed)?;
            let Some(key) = Key::of(name) else {
                answer.push(name, NOT_UNDERSTOOD).map_err(|_| Malformed)?;
                continue;
            };
            if spoken & 1 << key as u8 != 0 {
                return Err(Malformed);
            }
            spoken |= 1 << key as u8;
            match key {
                Key::SendTargets if !self.send_targets(&nexus, c.ends, value, &mut answer) => {
                    answer.push(name, REJECT).map_err(|_| Malformed)?;
                }
                Key::SendTargets => {}
                Key::MaxRecvDataSegmentLength => {
                    let mut params = Params { send_max: c.out.send_max, ..Params::default() };
                    let rules =
                        Rules { options: &self.options, insist: Digests::NONE, discovery: false, leading: false };
                    if params.offer(key, value, &rules) == Some(Answer::None) {
                        c.out.send_max = params.send_max;
                    } else {
                        answer.push(name, REJECT).map_err(|_| Malformed)?;
                    }
                }
                key if declares(key) => {}
                _ => answer.push(name, REJECT).map_err(|_| Malformed)?,
            }
        }
        let len = answer.len();
        buffer.truncate(len);
        Ok(buffer)
    }

    /// The targets that an initiator may reach: all, the one named, or (in a normal session, without a value) its own. False
    /// for a value that asks for none of these. A list that does not fit ends with its last whole target.
    fn send_targets(&self, nexus: &Nexus, ends: Ends, which: &str, answer: &mut TextWriter<'_>) -> bool {
        let own = |index| nexus.target == Some(index);
        let known =
            which == ALL || (which.is_empty() && nexus.target.is_some()) || crate::wire::iscsi::value::is_name(which);
        if !known {
            return false;
        }
        for target in &self.snapshot.targets {
            let meant = match which {
                ALL => true,
                "" => own(target.index),
                name => target.name.eq_ignore_ascii_case(name),
            };
            let mut groups = target.maps.iter().map(|(tag, _)| *tag).collect::<Vec<_>>();
            groups.sort_unstable();
            groups.dedup();
            groups.retain(|tag| target.admits(&self.snapshot, *tag, &nexus.initiator, ends.peer.ip()));
            if !meant || groups.is_empty() {
                continue;
            }
            let shown = groups.iter().filter_map(|tag| self.snapshot.portal_group(*tag)).filter(|g| !g.private);
            // A portal on every address is named by the one that the initiator came to: that it can reach.
            let reached = shown.flat_map(|g| g.portals.iter().filter_map(|p| Some((ends.reach(*p)?, g.tag))));
            let mut portals = Vec::new();
            for portal in reached {
                if !portals.contains(&portal) {
                    portals.push(portal);
                }
            }
            if portals.is_empty() && !own(target.index) {
                continue;
            }
            let size = 512 + portals.len() * 80;
            if answer.len() + size > self.config.text_bytes {
                break;
            }
            let mut put = || {
                answer.push(Key::TargetName.name(), &target.name)?;
                for (portal, tag) in &portals {
                    answer.push(Key::TargetAddress.name(), format_args!("{portal},{tag}"))?;
                }
                Ok::<(), crate::wire::iscsi::text::Full>(())
            };
            put().expect("its room was computed");
        }
        true
    }
}
