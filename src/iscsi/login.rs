//! The login phase of a connection (RFC 7143 chapter 6): requests in, responses out, stage by stage. Who the initiator is
//! and what it may use is decided in [`super::identify`], how it proves that in [`super::security`]; what follows the last
//! request is [`super::enter`]'s.

use super::conn::{Conn, State};
use super::identify::Who;
use super::params::{Answer, Params, Rules};
use super::security::Security;
use super::target::{Env, Target};
use crate::net::{Close, Tx};
use crate::wire::iscsi::pdu::{LoginRequest, LoginResponse, Numbers};
use crate::wire::iscsi::text::{Full, Pairs, TextError, TextWriter};
use crate::wire::iscsi::value::{NOT_UNDERSTOOD, REJECT};
use crate::wire::iscsi::{Key, LOGIN_DATA_MAX, LoginStatus, Stage};

/// Bytes of one text, joined over its requests, and of one answer.
pub(super) const TEXT_MAX: usize = LOGIN_DATA_MAX as usize;

/// Why a login ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// It failed.
    Failed(LoginStatus),
    /// It goes on elsewhere: `TargetAddress`.
    Moved(LoginStatus, String),
}

impl From<LoginStatus> for Stop {
    fn from(status: LoginStatus) -> Stop {
        Stop::Failed(status)
    }
}

impl From<Full> for Stop {
    fn from(_: Full) -> Stop {
        Stop::Failed(LoginStatus::InitiatorError)
    }
}

impl From<TextError> for Stop {
    fn from(_: TextError) -> Stop {
        Stop::Failed(LoginStatus::InitiatorError)
    }
}

/// The state of a login.
#[derive(Debug, Default)]
pub(super) struct Login {
    /// The first request: its fields must not change.
    pub first: Option<LoginRequest>,
    /// The stage that the next request must be of.
    stage: Option<Stage>,
    /// Requests so far.
    requests: u32,
    /// The text so far of a text that goes over several requests.
    text: Vec<u8>,
    /// Keys negotiated so far, as bits.
    spoken: u64,
    /// Who it is and where to; from the first whole text on.
    pub who: Option<Who>,
    pub security: Security,
    pub params: Params,
    /// `TargetPortalGroupTag` and the alias have been told.
    introduced: bool,
    /// `MaxRecvDataSegmentLength` has been told.
    declared: bool,
    /// The last response, while older sessions come to their end: request and text.
    pub last: Option<(LoginRequest, Vec<u8>)>,
}

impl Target {
    /// A login request with its whole data.
    pub(super) fn login_request<V>(&mut self, c: &mut Conn, request: &LoginRequest, data: &[u8], env: &mut Env<'_, V>) {
        let mut login = c.login.take().expect("a connection in login phase has a login");
        let mut buffer = [0; TEXT_MAX];
        let mut answer = TextWriter::new(&mut buffer);
        let outcome = self.negotiate(c, &mut login, request, data, &mut answer, env);
        let text = answer.text();
        match outcome {
            Ok(Go::On { stage, next }) => {
                let more = request.more();
                let response = LoginResponse::new(request, stage, next, false, login.numbers(c), text.len() as u32);
                debug_assert!(!more || next.is_none());
                c.out.put_data(env.tx, &response, text);
                c.login = Some(login);
            }
            Ok(Go::Full) => {
                login.last = Some((*request, text.to_vec()));
                c.login = Some(login);
                if let Err(stop) = self.enter(c, env.now, env.tx) {
                    self.refuse(c, request, &stop, env.tx);
                }
            }
            Err(stop) => {
                c.login = Some(login);
                self.refuse(c, request, &stop, env.tx);
            }
        }
    }

    /// Ends a login.
    pub(super) fn refuse(&mut self, c: &mut Conn, request: &LoginRequest, stop: &Stop, tx: &mut Tx) {
        let numbers = Numbers::new(c.out.stat_sn, request.cmd_sn.get(), request.cmd_sn.get());
        let mut buffer = [0; 512];
        let mut text = TextWriter::new(&mut buffer);
        let status = match stop {
            Stop::Failed(status) => {
                self.stats.login_failures += 1;
                if *status == LoginStatus::AuthenticationFailed {
                    self.stats.authentication_failures += 1;
                }
                self.note_failure(c.ends.peer.ip(), c.heard);
                *status
            }
            Stop::Moved(status, to) => {
                self.stats.redirections += 1;
                text.push(Key::TargetAddress.name(), to).expect("an address is short");
                *status
            }
        };
        let response = LoginResponse::failed(request, status, numbers, text.len() as u32);
        c.out.put_data(tx, &response, text.text());
        self.end(c, Close::AfterSend);
    }

    /// Another PDU than a login request in login phase.
    pub(super) fn not_a_login(&mut self, c: &mut Conn, bhs: &LoginRequest, tx: &mut Tx) {
        self.stats.protocol_errors += 1;
        if c.state() == State::Login && c.login.as_ref().is_some_and(|l| l.first.is_some()) {
            self.refuse(c, bhs, &Stop::Failed(LoginStatus::InvalidRequest), tx);
        } else {
            self.end(c, Close::Now);
        }
    }

    fn negotiate<V>(
        &mut self,
        c: &Conn,
        login: &mut Login,
        request: &LoginRequest,
        data: &[u8],
        answer: &mut TextWriter<'_>,
        env: &mut Env<'_, V>,
    ) -> Result<Go, Stop> {
        login.requests += 1;
        if login.requests > self.config.login_pdus {
            return Err(LoginStatus::InitiatorError.into());
        }
        let stage = login.header(request)?;
        if login.text.len() + data.len() > TEXT_MAX {
            return Err(LoginStatus::InitiatorError.into());
        }
        login.text.extend_from_slice(data);
        if request.more() {
            return Ok(Go::On { stage, next: None });
        }
        let text = core::mem::take(&mut login.text);
        if login.who.is_none() {
            login.who = Some(self.identify(c, request, &text, env.now)?);
        }
        self.introduce(login, answer)?;
        match stage {
            Stage::Security => self.secure(login, &text, answer)?,
            _ if login.security.is_done() => {}
            // Straight to the operational stage: nobody has proved anything.
            _ => {
                let who = login.who.as_ref().expect("identified above");
                login.security.skip(who)?;
            }
        }
        if stage == Stage::Operational {
            self.operate(login, &text, answer)?;
        }
        let wants = request.transit().then(|| request.next()).flatten();
        let next = wants.filter(|_| stage == Stage::Operational || login.security.is_done());
        if next == Some(Stage::FullFeature) || (stage == Stage::Operational && !login.declared) {
            self.declare(login, answer)?;
        }
        if let Some(next) = next {
            login.stage = Some(next);
        }
        if next == Some(Stage::FullFeature) {
            let insist = login.who.as_ref().expect("identified above").insist;
            let agreed = login.params.digests;
            if (insist.header && !agreed.header) || (insist.data && !agreed.data) {
                return Err(LoginStatus::MissingParameter.into());
            }
            return Ok(Go::Full);
        }
        Ok(Go::On { stage, next })
    }

    /// Portal group and alias, in the first answer.
    fn introduce(&self, login: &mut Login, answer: &mut TextWriter<'_>) -> Result<(), Full> {
        let who = login.who.as_ref().expect("introduced after identification");
        if core::mem::replace(&mut login.introduced, true) {
            return Ok(());
        }
        let Some(node) = who.node.and_then(|n| self.snapshot.targets.get(n)) else { return Ok(()) };
        answer.push(Key::TargetPortalGroupTag.name(), who.nexus.tag)?;
        if !node.alias.is_empty() {
            answer.push(Key::TargetAlias.name(), &node.alias)?;
        }
        Ok(())
    }

    fn declare(&self, login: &mut Login, answer: &mut TextWriter<'_>) -> Result<(), Full> {
        if core::mem::replace(&mut login.declared, true) {
            return Ok(());
        }
        answer.push(Key::MaxRecvDataSegmentLength.name(), self.options.max_recv_data_segment_bytes)
    }

    /// The operational stage: every key is answered.
    fn operate(&self, login: &mut Login, text: &[u8], answer: &mut TextWriter<'_>) -> Result<(), Stop> {
        let who = login.who.as_ref().expect("identified in the first request");
        let rules = Rules {
            options: &self.options,
            insist: who.insist,
            discovery: who.nexus.target.is_none(),
            leading: login.first.is_some_and(|f| f.tsih.get() == 0),
        };
        for pair in Pairs::new(text) {
            let (name, offer) = pair?;
            let Some(key) = Key::of(name) else {
                answer.push(name, NOT_UNDERSTOOD)?;
                continue;
            };
            let bit = 1 << key as u8;
            if login.spoken & bit != 0 {
                return Err(LoginStatus::InitiatorError.into());
            }
            login.spoken |= bit;
            match login.params.offer(key, offer, &rules) {
                Some(Answer::None) => {}
                Some(Answer::Word(word)) => answer.push(name, word)?,
                Some(Answer::Number(number)) => answer.push(name, number)?,
                None if declares(key) => {}
                None => answer.push(name, REJECT)?,
            }
        }
        Ok(())
    }
}

/// Keys that an initiator says and nobody answers.
pub(super) fn declares(key: Key) -> bool {
    matches!(
        key,
        Key::InitiatorName
            | Key::InitiatorAlias
            | Key::TargetName
            | Key::SessionType
            | Key::MaxRecvDataSegmentLength
            | Key::NodeArchitecture
    )
}

/// How a login goes on.
enum Go {
    /// With a response of `stage`, going to `next`.
    On { stage: Stage, next: Option<Stage> },
    /// It is done.
    Full,
}

impl Login {
    /// True before its first request.
    pub(super) fn is_new(&self) -> bool {
        self.first.is_none()
    }

    /// Checks what a request's header says; returns its stage.
    fn header(&mut self, request: &LoginRequest) -> Result<Stage, LoginStatus> {
        if request.version_min != 0 {
            return Err(LoginStatus::Version);
        }
        let wrong = Err(LoginStatus::InitiatorError);
        let Some(stage @ (Stage::Security | Stage::Operational)) = request.current() else { return wrong };
        if request.transit() {
            let forward = request.next().is_some_and(|next| next as u8 > stage as u8);
            if request.more() || !forward {
                return wrong;
            }
        }
        let Some(first) = &self.first else {
            self.first = Some(*request);
            self.stage = Some(stage);
            return Ok(stage);
        };
        let same =
            (first.isid, first.tsih, first.itt, first.cid) == (request.isid, request.tsih, request.itt, request.cid);
        if same && self.stage == Some(stage) { Ok(stage) } else { wrong }
    }

    /// The sequence numbers of a response.
    fn numbers(&self, c: &mut Conn) -> Numbers {
        let sn = c.out.stat_sn;
        c.out.stat_sn = sn.wrapping_add(1);
        let cmd_sn = self.first.map_or(0, |f| f.cmd_sn.get());
        Numbers::new(sn, cmd_sn, cmd_sn)
    }
}
