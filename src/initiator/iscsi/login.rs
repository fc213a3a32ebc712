//! One login: text out, text in, until full feature phase (RFC 7143 chapter 6 and 12.1.3).
//!
//! ```text
//! Method -> (CHAP: Challenge -> Proof) -> Operational -> done
//! ```
//! Each exchange is a whole text: parts that the C bit spreads over PDUs are joined first.

use super::Config;
use crate::auth::chap::{self, CHALLENGE_LEN, CHALLENGE_MAX, DIGEST_MAX};
use crate::base::rng::Rng;
use crate::wire::iscsi::pdu::{LoginRequest, LoginResponse};
use crate::wire::iscsi::text::{Full, Pairs, TextError, TextWriter};
use crate::wire::iscsi::value::{self, CRC32C, IRRELEVANT, NONE, REJECT};
use crate::wire::iscsi::{DATA_LIMIT, Digests, Key, LOGIN_DATA_MAX, LoginStatus, Stage};
use zerocopy::big_endian::{U16, U32};

/// Longest text of the target in one exchange, bytes.
const TEXT_MAX: usize = 32 * 1024;
/// Most Login Responses of one login.
const RESPONSES_MAX: u32 = 32;
/// Initiator Task Tag of every Login Request.
const LOGIN_TAG: u32 = 0;

/// Why a login fails.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoginError {
    /// The target says so.
    #[error("refused: {0:?}")]
    Refused(LoginStatus),
    /// With a status that RFC 7143 does not know.
    #[error("refused: status {0:#06x}")]
    Status(u16),
    /// The target is elsewhere.
    #[error("the target is at {0}")]
    Moved(String),
    /// The target wants an authentication that was not offered.
    #[error("the target wants authentication, and there are no credentials")]
    NoCredentials,
    /// Authentication failed on this side.
    #[error(transparent)]
    Chap(#[from] chap::Refused),
    /// The target's text is malformed.
    #[error("malformed text: {0:?}")]
    Text(TextError),
    /// A key has a value that was not offered or is not in its range.
    #[error("{} has an impossible value", .0.name())]
    Value(Key),
    /// The text of this side does not fit a Login Request.
    #[error("the names are too long for a login request")]
    TooLong,
    /// Stages, tags or lengths of a response are not what they must be.
    #[error("the response does not belong to the request")]
    Sequence,
    /// The login takes too many exchanges, or too much text.
    #[error("the login does not come to an end")]
    Endless,
}

impl From<Full> for LoginError {
    fn from(Full: Full) -> LoginError {
        LoginError::TooLong
    }
}

/// What both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Params {
    pub digests: Digests,
    /// The target's `MaxRecvDataSegmentLength`, bytes.
    pub send_max: u32,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    pub max_burst: u32,
    pub first_burst: u32,
}

impl Params {
    /// Before anything is agreed on (RFC 7143 chapter 13).
    pub const DEFAULT: Params = Params {
        digests: Digests::NONE,
        send_max: LOGIN_DATA_MAX,
        initial_r2t: true,
        immediate_data: true,
        max_burst: 262_144,
        first_burst: 65_536,
    };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// `AuthMethod` was sent.
    Method,
    /// `CHAP_A` was sent.
    Challenge,
    /// `CHAP_R` was sent.
    Proof,
    /// Operational keys were sent.
    Operational,
}

/// What to do after a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Send [`Login::request`].
    Send,
    /// Full feature phase.
    Done,
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    phase: Phase,
    chap: Option<chap::Initiator>,
    /// The target must prove itself too.
    mutual: bool,
    rng: Rng,
    params: Params,
    isid: [u8; 6],
    tsih: u16,
    exp_stat_sn: Option<u32>,
    stage: Stage,
    next: Option<Stage>,
    /// What is sent next.
    out: Vec<u8>,
    /// What came so far of the target's text.
    received: Vec<u8>,
    responses: u32,
}

impl Login {
    /// The login of session number `index`, with its first request ready.
    pub fn new(config: &Config, index: u16) -> Result<Login, LoginError> {
        let mut isid = config.isid;
        let qualifier = u16::from_be_bytes([isid[4], isid[5]]).wrapping_add(index);
        isid[4..].copy_from_slice(&qualifier.to_be_bytes());
        let mutual = config.credentials.as_ref().is_some_and(|c| c.mutual.is_some());
        let mut login = Login {
            phase: Phase::Method,
            chap: config.credentials.clone().map(chap::Initiator::new),
            mutual,
            rng: Rng::new(config.seed ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            params: Params::DEFAULT,
            isid,
            tsih: 0,
            exp_stat_sn: None,
            stage: Stage::Security,
            next: None,
            out: Vec::with_capacity(LOGIN_DATA_MAX as usize),
            received: Vec::new(),
            responses: 0,
        };
        let method = match &config.credentials {
            None => NONE,
            Some(_) if mutual => "CHAP",
            Some(_) => "CHAP,None",
        };
        login.next = config.credentials.is_none().then_some(Stage::Operational);
        login.write(|text| {
            text.push(Key::InitiatorName.name(), &config.name)?;
            match &config.target {
                Some(target) => {
                    text.push(Key::SessionType.name(), "Normal")?;
                    text.push(Key::TargetName.name(), target)?;
                }
                None => text.push(Key::SessionType.name(), "Discovery")?,
            }
            text.push(Key::AuthMethod.name(), method)
        })?;
        Ok(login)
    }

    /// The next request and its text.
    pub fn request(&self) -> (LoginRequest, &[u8]) {
        let mut request = LoginRequest::new(self.isid, LOGIN_TAG, self.stage, self.next, self.out.len() as u32);
        request.tsih = U16::new(self.tsih);
        request.cmd_sn = U32::new(1);
        request.exp_stat_sn = U32::new(self.exp_stat_sn.unwrap_or(0));
        (request, &self.out)
    }

    /// What was agreed on.
    pub fn params(&self) -> Params {
        self.params
    }

    /// The `StatSN` of the next status.
    pub fn exp_stat_sn(&self) -> u32 {
        self.exp_stat_sn.unwrap_or(0)
    }

    /// A response with its text came.
    pub fn response(&mut self, head: &LoginResponse, text: &[u8], config: &Config) -> Result<Next, LoginError> {
        match head.status() {
            Some(LoginStatus::Success) => {}
            Some(LoginStatus::MovedTemporarily | LoginStatus::MovedPermanently) => {
                let place = Pairs::new(text).flatten().find(|(key, _)| Key::of(key) == Some(Key::TargetAddress));
                return Err(LoginError::Moved(place.map_or_else(String::new, |(_, value)| value.to_owned())));
            }
            Some(LoginStatus::AuthenticationFailed) if config.credentials.is_none() => {
                return Err(LoginError::NoCredentials);
            }
            Some(status) => return Err(LoginError::Refused(status)),
            None => return Err(LoginError::Status(head.status.get())),
        }
        let stat_sn = head.numbers.stat_sn.get();
        let in_order = self.exp_stat_sn.is_none_or(|expected| expected == stat_sn);
        if head.itt.get() != LOGIN_TAG || head.isid != self.isid || head.current() != Some(self.stage) || !in_order {
            return Err(LoginError::Sequence);
        }
        self.exp_stat_sn = Some(stat_sn.wrapping_add(1));
        self.responses += 1;
        if self.responses > RESPONSES_MAX || self.received.len() + text.len() > TEXT_MAX {
            return Err(LoginError::Endless);
        }
        self.received.extend_from_slice(text);
        if head.more() {
            if head.transit() {
                return Err(LoginError::Sequence);
            }
            // An empty request asks for the rest.
            self.out.clear();
            self.next = None;
            return Ok(Next::Send);
        }
        let text = std::mem::take(&mut self.received);
        let moved = if head.transit() { Some(head.next().ok_or(LoginError::Sequence)?) } else { None };
        // A target may go on only where the request asked for it.
        if moved.is_some_and(|to| self.next.is_none() || to as u8 <= self.stage as u8) {
            return Err(LoginError::Sequence);
        }
        self.out.clear();
        match self.phase {
            Phase::Method => self.method(&text, config)?,
            Phase::Challenge => self.challenge(&text, config)?,
            Phase::Proof => self.proof(&text)?,
            Phase::Operational => self.operational(&text, config)?,
        }
        self.go_on(moved, head, config)
    }

    /// After the keys of a response: which request follows.
    fn go_on(&mut self, moved: Option<Stage>, head: &LoginResponse, config: &Config) -> Result<Next, LoginError> {
        match moved {
            Some(Stage::FullFeature) => {
                let proved = self.chap.as_ref().is_none_or(chap::Initiator::done);
                if !proved || head.tsih.get() == 0 {
                    return Err(LoginError::Sequence);
                }
                self.tsih = head.tsih.get();
                Ok(Next::Done)
            }
            Some(Stage::Operational) => {
                if !self.chap.as_ref().is_none_or(chap::Initiator::done) {
                    return Err(LoginError::Sequence);
                }
                (self.stage, self.phase) = (Stage::Operational, Phase::Operational);
                self.next = Some(Stage::FullFeature);
                self.offer(config)?;
                Ok(Next::Send)
            }
            Some(Stage::Security) => Err(LoginError::Sequence),
            None => {
                // The stage goes on: with the next step of CHAP, or with nothing but the wish to leave it.
                self.next = match self.phase {
                    Phase::Challenge => None,
                    Phase::Operational => Some(Stage::FullFeature),
                    Phase::Method | Phase::Proof => Some(Stage::Operational),
                };
                Ok(Next::Send)
            }
        }
    }

    fn write(&mut self, keys: impl FnOnce(&mut TextWriter<'_>) -> Result<(), Full>) -> Result<(), LoginError> {
        self.out.resize(LOGIN_DATA_MAX as usize, 0);
        let mut writer = TextWriter::new(&mut self.out);
        keys(&mut writer)?;
        let len = writer.len();
        self.out.truncate(len);
        Ok(())
    }

    /// The target chose a method.
    fn method(&mut self, text: &[u8], config: &Config) -> Result<(), LoginError> {
        let mut method = None;
        for pair in Pairs::new(text) {
            let (key, value) = pair.map_err(LoginError::Text)?;
            if Key::of(key) == Some(Key::AuthMethod) {
                method = Some(value);
            }
        }
        match (method, &self.chap) {
            (Some("CHAP"), Some(_)) => {
                self.phase = Phase::Challenge;
                let list: Vec<String> = config.algorithms.iter().map(|a| (*a as u8).to_string()).collect();
                self.write(|text| text.push(Key::ChapA.name(), list.join(",")))
            }
            (Some("CHAP"), None) => Err(LoginError::NoCredentials),
            (Some(NONE) | None, None) => Ok(()),
            // None was offered only where the target need not prove itself.
            (Some(NONE), Some(_)) if !self.mutual => {
                self.chap = None;
                Ok(())
            }
            _ => Err(LoginError::Value(Key::AuthMethod)),
        }
    }

    /// `CHAP_A`, `CHAP_I` and `CHAP_C` came.
    fn challenge(&mut self, text: &[u8], config: &Config) -> Result<(), LoginError> {
        let (mut algorithm, mut id, mut challenge) = (None, None, None);
        let mut bytes = [0; CHALLENGE_MAX];
        for pair in Pairs::new(text) {
            let (key, value) = pair.map_err(LoginError::Text)?;
            match Key::of(key) {
                Some(Key::ChapA) => algorithm = value::number(value),
                Some(Key::ChapI) => id = value::number_within(value, 0, 255),
                Some(Key::ChapC) => challenge = value::binary(value, &mut bytes),
                _ => {}
            }
        }
        let offered = |a: &u64| config.algorithms.iter().any(|known| *known as u64 == *a);
        let algorithm = algorithm.filter(offered).ok_or(LoginError::Value(Key::ChapA))?;
        let id = id.ok_or(LoginError::Value(Key::ChapI))?;
        let len = challenge.ok_or(LoginError::Value(Key::ChapC))?;
        let mut own = [0; CHALLENGE_LEN];
        self.rng.fill(&mut own);
        let own_id = self.rng.next_u64() as u8;
        let chap = self.chap.as_mut().expect("only who has credentials offered CHAP");
        let reply = chap.challenged(algorithm, id as u8, &bytes[..len], own_id, own)?;
        let name = config.credentials.as_ref().map_or("", |c| c.name.as_str());
        self.phase = Phase::Proof;
        self.write(|text| {
            text.push(Key::ChapN.name(), name)?;
            text.push_binary(Key::ChapR.name(), reply.response.bytes())?;
            let Some((id, challenge)) = reply.mutual else { return Ok(()) };
            text.push(Key::ChapI.name(), id)?;
            text.push_binary(Key::ChapC.name(), &challenge)
        })
    }

    /// The target let us in; its own proof comes with that where it was asked for.
    fn proof(&mut self, text: &[u8]) -> Result<(), LoginError> {
        let chap = self.chap.as_mut().expect("only who has credentials proved itself");
        if chap.done() {
            return Ok(());
        }
        let (mut name, mut response) = (None, None);
        let mut bytes = [0; DIGEST_MAX];
        for pair in Pairs::new(text) {
            let (key, value) = pair.map_err(LoginError::Text)?;
            match Key::of(key) {
                Some(Key::ChapN) => name = Some(value),
                Some(Key::ChapR) => response = value::binary(value, &mut bytes),
                _ => {}
            }
        }
        let name = name.ok_or(LoginError::Value(Key::ChapN))?;
        let len = response.ok_or(LoginError::Value(Key::ChapR))?;
        Ok(chap.proved(name, &bytes[..len])?)
    }

    /// Writes the operational keys.
    fn offer(&mut self, config: &Config) -> Result<(), LoginError> {
        let digest = |wanted: bool| if wanted { "CRC32C,None" } else { NONE };
        let normal = config.target.is_some();
        self.write(|text| {
            text.push(Key::HeaderDigest.name(), digest(config.digests.header))?;
            text.push(Key::DataDigest.name(), digest(config.digests.data))?;
            text.push(Key::MaxRecvDataSegmentLength.name(), config.max_data)?;
            text.push(Key::DefaultTime2Wait.name(), 0)?;
            text.push(Key::DefaultTime2Retain.name(), 0)?;
            text.push(Key::ErrorRecoveryLevel.name(), 0)?;
            if !normal {
                return Ok(());
            }
            text.push(Key::MaxConnections.name(), 1)?;
            text.push_bool(Key::InitialR2t.name(), config.initial_r2t)?;
            text.push_bool(Key::ImmediateData.name(), config.immediate_data)?;
            text.push(Key::MaxBurstLength.name(), config.max_burst)?;
            text.push(Key::FirstBurstLength.name(), config.first_burst)?;
            text.push(Key::MaxOutstandingR2t.name(), config.max_r2t)?;
            text.push_bool(Key::DataPduInOrder.name(), true)?;
            text.push_bool(Key::DataSequenceInOrder.name(), true)
        })
    }

    /// The target's answers to the operational keys, and its declarations.
    fn operational(&mut self, text: &[u8], config: &Config) -> Result<(), LoginError> {
        let digest = |value: &str, offered: bool| match value {
            CRC32C if offered => Some(true),
            NONE | REJECT => Some(false),
            _ => None,
        };
        let p = &mut self.params;
        for pair in Pairs::new(text) {
            let (name, value) = pair.map_err(LoginError::Text)?;
            let Some(key) = Key::of(name).filter(|_| value != IRRELEVANT) else { continue };
            let bad = LoginError::Value(key);
            match key {
                Key::HeaderDigest => p.digests.header = digest(value, config.digests.header).ok_or(bad)?,
                Key::DataDigest => p.digests.data = digest(value, config.digests.data).ok_or(bad)?,
                Key::MaxRecvDataSegmentLength => {
                    p.send_max = value::number_within(value, 512, DATA_LIMIT).ok_or(bad)?;
                }
                // A side that says Yes gets it; what is left is No only when both say No.
                Key::InitialR2t => {
                    p.initial_r2t = value::boolean(value).filter(|r2t| *r2t || !config.initial_r2t).ok_or(bad)?;
                }
                Key::ImmediateData => {
                    let both = |yes: &bool| !*yes || config.immediate_data;
                    p.immediate_data = value::boolean(value).filter(both).ok_or(bad)?;
                }
                Key::MaxBurstLength => p.max_burst = value::number_within(value, 512, config.max_burst).ok_or(bad)?,
                Key::FirstBurstLength => {
                    p.first_burst = value::number_within(value, 512, config.first_burst).ok_or(bad)?;
                }
                Key::MaxConnections => drop(value::number_within(value, 1, 1).ok_or(bad)?),
                Key::ErrorRecoveryLevel => drop(value::number_within(value, 0, 0).ok_or(bad)?),
                Key::DataPduInOrder | Key::DataSequenceInOrder => {
                    value::boolean(value).filter(|yes| *yes).ok_or(bad)?;
                }
                _ => {}
            }
        }
        p.first_burst = p.first_burst.min(p.max_burst);
        Ok(())
    }
}
