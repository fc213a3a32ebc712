//! The side that lets in: challenges, checks the response, and proves itself when asked to and able to.
//!
//! ```text
//! Start -- CHAP_A --> Challenged -- CHAP_N, CHAP_R [, CHAP_I, CHAP_C] --> Done
//!   \____________________\__________________________ any refusal ------> Refused
//! ```

use super::{Algorithm, Algorithms, CHALLENGE_LEN, CHALLENGE_MAX, NAME_MAX, Refused, Response};
use core::fmt;
use subtle::ConstantTimeEq;

/// Which directions a target wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The initiator proves itself; the target does too when asked to.
    OneWay,
    /// Both prove themselves; an initiator that does not ask is refused.
    Mutual,
}

/// What a target takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Algorithms taken; the initiator's order of preference decides among them.
    pub algorithms: Algorithms,
    /// Directions wanted.
    pub direction: Direction,
}

/// Secrets of one user, as looked up.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    /// The user's secret.
    pub secret: &'a [u8],
    /// Name and secret with which the target proves itself to this user.
    pub mutual: Option<(&'a str, &'a [u8])>,
}

impl fmt::Debug for Secrets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("mutual", &self.mutual.map(|(name, _)| name)).finish_non_exhaustive()
    }
}

/// What a target sends back to `CHAP_A`.
#[derive(Clone, Copy, Debug)]
pub struct Challenge {
    /// `CHAP_A`.
    pub algorithm: Algorithm,
    /// `CHAP_I`.
    pub id: u8,
    /// `CHAP_C`.
    pub challenge: [u8; CHALLENGE_LEN],
}

/// What an initiator sends to a challenge.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// `CHAP_N`.
    pub name: &'a str,
    /// `CHAP_R`.
    pub response: &'a [u8],
    /// `CHAP_I` and `CHAP_C`: the target is to prove itself too.
    pub mutual: Option<(u8, &'a [u8])>,
}

/// What a target sends to an answer that asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// `CHAP_N`.
    pub name: &'a str,
    /// `CHAP_R`.
    pub response: Response,
}

#[derive(Debug)]
enum State {
    Start,
    Challenged(Challenge),
    Done,
    Refused(Refused),
}

/// One login at the side that lets in.
#[derive(Debug)]
pub struct Target {
    policy: Policy,
    state: State,
}

impl Target {
    /// A login that begins.
    pub fn new(policy: Policy) -> Target {
        Target { policy, state: State::Start }
    }

    /// True once the initiator has proved itself.
    pub fn done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// `CHAP_A` came with these algorithm numbers, in the initiator's order of preference. `id` and `challenge` are
    /// fresh random bytes.
    ///
    /// # Errors
    /// [`Refused::Order`], [`Refused::Algorithm`].
    pub fn algorithms(
        &mut self,
        offered: impl IntoIterator<Item = u64>,
        id: u8,
        challenge: [u8; CHALLENGE_LEN],
    ) -> Result<Challenge, Refused> {
        if !matches!(self.state, State::Start) {
            return Err(self.refuse(Refused::Order));
        }
        let taken = offered.into_iter().filter_map(Algorithm::of).find(|a| self.policy.algorithms.contains(*a));
        let Some(algorithm) = taken else { return Err(self.refuse(Refused::Algorithm)) };
        let challenge = Challenge { algorithm, id, challenge };
        self.state = State::Challenged(challenge);
        Ok(challenge)
    }

    /// The initiator's answer; `secrets` has those of `answer.name` when that user is known. Some proof: to be sent in
    /// the same step.
    ///
    /// # Errors
    /// Why the login is refused.
    pub fn answer<'s>(
        &mut self,
        answer: &Answer<'_>,
        secrets: Option<Secrets<'s>>,
    ) -> Result<Option<Proof<'s>>, Refused> {
        let State::Challenged(sent) = &self.state else { return Err(self.refuse(Refused::Order)) };
        match check(self.policy.direction, sent, answer, secrets) {
            Ok(proof) => {
                self.state = State::Done;
                Ok(proof)
            }
            Err(why) => Err(self.refuse(why)),
        }
    }

    fn refuse(&mut self, why: Refused) -> Refused {
        if let State::Refused(first) = self.state {
            return first;
        }
        self.state = State::Refused(why);
        why
    }
}

fn check<'s>(
    direction: Direction,
    sent: &Challenge,
    answer: &Answer<'_>,
    secrets: Option<Secrets<'s>>,
) -> Result<Option<Proof<'s>>, Refused> {
    if answer.name.is_empty() || answer.name.len() > NAME_MAX {
        return Err(Refused::Name);
    }
    if answer.response.len() != sent.algorithm.digest_len() {
        return Err(Refused::Length);
    }
    if let Some((_, challenge)) = answer.mutual {
        if challenge.is_empty() || challenge.len() > CHALLENGE_MAX {
            return Err(Refused::Challenge);
        }
        // Who sends our own challenge back wants us to make the response that it can not make itself.
        if challenge == sent.challenge {
            return Err(Refused::Reflected);
        }
    }
    // An unknown user costs the same digest as a known one.
    let known = secrets.unwrap_or(Secrets { secret: &[0; super::SECRET_MIN], mutual: None });
    let right = sent.algorithm.response(sent.id, known.secret, &sent.challenge).matches(answer.response);
    if !right || secrets.is_none() {
        return Err(Refused::Failed);
    }
    let Some((id, challenge)) = answer.mutual else {
        return if direction == Direction::Mutual { Err(Refused::OneWay) } else { Ok(None) };
    };
    let (name, secret) = known.mutual.ok_or(Refused::NoMutual)?;
    if secret.ct_eq(known.secret).into() {
        return Err(Refused::SameSecret);
    }
    Ok(Some(Proof { name, response: sent.algorithm.response(id, secret, challenge) }))
}
