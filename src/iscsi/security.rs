//! The security stage of a login (RFC 7143 chapter 12): which method, and the proof. What fails is told as one thing,
//! authentication failure, whatever it was.

use super::identify::Who;
use super::login::{Login, Stop};
use super::target::Target;
use crate::auth::chap;
use crate::wire::iscsi::text::{Pairs, TextWriter};
use crate::wire::iscsi::value::{self, NONE, NOT_UNDERSTOOD};
use crate::wire::iscsi::{Key, LoginStatus};

/// How far the proof is.
#[derive(Debug, Default)]
pub(super) enum Security {
    /// No method agreed on.
    #[default]
    Open,
    /// CHAP, under way.
    Chap(Box<chap::Target>),
    /// Nothing (more) to prove.
    Done,
}

impl Security {
    /// True when the login may leave the security stage.
    pub fn is_done(&self) -> bool {
        matches!(self, Security::Done)
    }

    /// The initiator goes on without security negotiation.
    pub fn skip(&mut self, who: &Who) -> Result<(), Stop> {
        let open = matches!(self, Security::Open) && !who.auth.required && !who.auth.mutual;
        if !open {
            return Err(LoginStatus::AuthenticationFailed.into());
        }
        *self = Security::Done;
        Ok(())
    }
}

/// `AuthMethod` of CHAP.
const CHAP: &str = "CHAP";

/// The keys of one text of the security stage.
#[derive(Default)]
struct Keys<'a> {
    method: Option<&'a str>,
    algorithms: Option<&'a str>,
    id: Option<&'a str>,
    challenge: Option<&'a str>,
    name: Option<&'a str>,
    response: Option<&'a str>,
}

impl<'a> Keys<'a> {
    fn read(text: &'a [u8], answer: &mut TextWriter<'_>) -> Result<Keys<'a>, Stop> {
        let mut keys = Keys::default();
        for pair in Pairs::new(text) {
            let (name, value) = pair?;
            let place = match Key::of(name) {
                Some(Key::AuthMethod) => &mut keys.method,
                Some(Key::ChapA) => &mut keys.algorithms,
                Some(Key::ChapI) => &mut keys.id,
                Some(Key::ChapC) => &mut keys.challenge,
                Some(Key::ChapN) => &mut keys.name,
                Some(Key::ChapR) => &mut keys.response,
                Some(key) if super::login::declares(key) => continue,
                // Operational parameters have no place here (6.3.2).
                Some(_) => return Err(LoginStatus::InitiatorError.into()),
                None => {
                    answer.push(name, NOT_UNDERSTOOD)?;
                    continue;
                }
            };
            if place.replace(value).is_some() {
                return Err(LoginStatus::AuthenticationFailed.into());
            }
        }
        Ok(keys)
    }

    /// True when a key of CHAP is there.
    fn any_chap(&self) -> bool {
        let all = [self.algorithms, self.id, self.challenge, self.name, self.response];
        all.iter().any(Option::is_some)
    }
}

const FAILED: Stop = Stop::Failed(LoginStatus::AuthenticationFailed);

impl Target {
    /// A text of the security stage.
    pub(super) fn secure(&mut self, login: &mut Login, text: &[u8], answer: &mut TextWriter<'_>) -> Result<(), Stop> {
        let who = login.who.as_ref().expect("identified in the first request");
        let keys = Keys::read(text, answer)?;
        match &mut login.security {
            Security::Open => self.choose(who, &keys, answer).map(|security| login.security = security),
            Security::Done if keys.method.is_none() && !keys.any_chap() => Ok(()),
            Security::Done => Err(FAILED),
            Security::Chap(chap) => {
                if keys.method.is_some() {
                    return Err(FAILED);
                }
                if let Some(offered) = keys.algorithms {
                    if keys.name.is_some() || keys.response.is_some() {
                        return Err(FAILED);
                    }
                    return self.challenge(chap, offered, answer);
                }
                let (Some(name), Some(response)) = (keys.name, keys.response) else {
                    // A request without any key is only the wish to go on, which is not granted.
                    return if keys.any_chap() { Err(FAILED) } else { Ok(()) };
                };
                let group = self.snapshot.auth_group(who.auth.group);
                let found = group.and_then(|g| g.secrets.iter().find(|s| s.user == name));
                let secrets = found.map(|s| chap::Secrets {
                    secret: &s.secret,
                    mutual: s.mutual.as_ref().map(|(name, secret)| (name.as_str(), secret.as_slice())),
                });
                prove(chap, name, response, (keys.id, keys.challenge), secrets, answer)?;
                login.security = Security::Done;
                Ok(())
            }
        }
    }

    /// The method: the first of the initiator's that will do.
    fn choose(&self, who: &Who, keys: &Keys<'_>, answer: &mut TextWriter<'_>) -> Result<Security, Stop> {
        if keys.any_chap() {
            return Err(FAILED);
        }
        let must = who.auth.required || who.auth.mutual;
        let Some(offer) = keys.method else {
            // No method at all is the offer of none.
            return if must { Err(FAILED) } else { Ok(Security::Done) };
        };
        let able =
            !who.auth.disabled && self.snapshot.auth_group(who.auth.group).is_some_and(|g| !g.secrets.is_empty());
        let mut methods = value::list(offer).flatten();
        match methods.find(|m| (*m == NONE && !must) || (*m == CHAP && able)) {
            Some(CHAP) => {
                answer.push(Key::AuthMethod.name(), CHAP)?;
                let numbers = self.options.chap_algorithms.iter().map(|n| u64::from(*n));
                let algorithms = numbers.filter_map(chap::Algorithm::of);
                let algorithms = algorithms.fold(chap::Algorithms::default(), chap::Algorithms::with);
                let direction = if who.auth.mutual { chap::Direction::Mutual } else { chap::Direction::OneWay };
                Ok(Security::Chap(Box::new(chap::Target::new(chap::Policy { algorithms, direction }))))
            }
            Some(_) => {
                answer.push(Key::AuthMethod.name(), NONE)?;
                Ok(Security::Done)
            }
            None => Err(FAILED),
        }
    }

    fn challenge(&mut self, chap: &mut chap::Target, offered: &str, answer: &mut TextWriter<'_>) -> Result<(), Stop> {
        let (challenge, [id, ..]) = (self.random.bytes(), self.random.bytes());
        let numbers = value::list(offered).flatten().filter_map(value::number);
        let sent = chap.algorithms(numbers, id, challenge).map_err(|_| FAILED)?;
        answer.push(Key::ChapA.name(), sent.algorithm as u8)?;
        answer.push(Key::ChapI.name(), sent.id)?;
        answer.push_binary(Key::ChapC.name(), &sent.challenge)?;
        Ok(())
    }
}

/// The initiator's response, and this side's own proof when it asked for one.
fn prove(
    chap: &mut chap::Target,
    name: &str,
    response: &str,
    (id, challenge): (Option<&str>, Option<&str>),
    secrets: Option<chap::Secrets<'_>>,
    answer: &mut TextWriter<'_>,
) -> Result<(), Stop> {
    let (mut digest, mut theirs) = ([0; chap::DIGEST_MAX], [0; chap::CHALLENGE_MAX]);
    let len = value::binary(response, &mut digest).ok_or(FAILED)?;
    let mutual = match (id, challenge) {
        (None, None) => None,
        (Some(id), Some(challenge)) => {
            let id = value::number_within(id, 0, 255).ok_or(FAILED)? as u8;
            let len = value::binary(challenge, &mut theirs).ok_or(FAILED)?;
            Some((id, &theirs[..len]))
        }
        _ => return Err(FAILED),
    };
    let given = chap::Answer { name, response: &digest[..len], mutual };
    if let Some(proof) = chap.answer(&given, secrets).map_err(|_| FAILED)? {
        answer.push(Key::ChapN.name(), proof.name)?;
        answer.push_binary(Key::ChapR.name(), proof.response.bytes())?;
    }
    Ok(())
}
