//! The side that wants in: answers the challenge, and has the target prove itself where a secret for that is given.

use super::{Algorithm, CHALLENGE_LEN, CHALLENGE_MAX, Refused, Response};
use core::fmt;
use subtle::ConstantTimeEq;

/// What an initiator proves itself with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `CHAP_N`.
    pub name: String,
    /// The secret behind it.
    pub secret: Vec<u8>,
    /// Name and secret that the target must prove itself with; `None`: it need not.
    pub mutual: Option<(String, Vec<u8>)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = self.mutual.as_ref().map(|(name, _)| name);
        f.debug_struct("Credentials").field("name", &self.name).field("mutual", &mutual).finish_non_exhaustive()
    }
}

/// What an initiator sends to a challenge.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// `CHAP_R`.
    pub response: Response,
    /// `CHAP_I` and `CHAP_C`, when the target is to prove itself.
    pub mutual: Option<(u8, [u8; CHALLENGE_LEN])>,
}

#[derive(Debug)]
enum State {
    Offered,
    Replied(Option<Response>),
    Done,
    Refused,
}

/// One login at the side that wants in.
#[derive(Debug)]
pub struct Initiator {
    credentials: Credentials,
    state: State,
}

impl Initiator {
    /// A login that has offered [`Algorithm::ALL`].
    pub fn new(credentials: Credentials) -> Initiator {
        Initiator { credentials, state: State::Offered }
    }

    /// True once everything that had to be proved is.
    pub fn done(&self) -> bool {
        matches!(self.state, State::Done | State::Replied(None))
    }

    /// The target chose `algorithm` and sent `id` and `challenge`; `own_id` and `own` are fresh random bytes.
    ///
    /// # Errors
    /// Why this target is not to be answered.
    pub fn challenged(
        &mut self,
        algorithm: u64,
        id: u8,
        challenge: &[u8],
        own_id: u8,
        own: [u8; CHALLENGE_LEN],
    ) -> Result<Reply, Refused> {
        let outcome = match self.state {
            State::Offered => self.reply(algorithm, id, challenge, own_id, own),
            _ => Err(Refused::Order),
        };
        self.state = outcome.as_ref().map_or(State::Refused, |(_, expected)| State::Replied(*expected));
        outcome.map(|(reply, _)| reply)
    }

    fn reply(
        &self,
        algorithm: u64,
        id: u8,
        challenge: &[u8],
        own_id: u8,
        own: [u8; CHALLENGE_LEN],
    ) -> Result<(Reply, Option<Response>), Refused> {
        let algorithm = Algorithm::of(algorithm).ok_or(Refused::Algorithm)?;
        if challenge.is_empty() || challenge.len() > CHALLENGE_MAX {
            return Err(Refused::Challenge);
        }
        let Credentials { secret, mutual, .. } = &self.credentials;
        let response = algorithm.response(id, secret, challenge);
        let Some((_, theirs)) = mutual else { return Ok((Reply { response, mutual: None }, None)) };
        if theirs.ct_eq(secret).into() {
            return Err(Refused::SameSecret);
        }
        let expected = algorithm.response(own_id, theirs, &own);
        Ok((Reply { response, mutual: Some((own_id, own)) }, Some(expected)))
    }

    /// The target's `CHAP_N` and `CHAP_R`.
    ///
    /// # Errors
    /// The target is not who it should be.
    pub fn proved(&mut self, name: &str, response: &[u8]) -> Result<(), Refused> {
        let State::Replied(Some(expected)) = &self.state else {
            self.state = State::Refused;
            return Err(Refused::Order);
        };
        let named = self.credentials.mutual.as_ref().is_some_and(|(wanted, _)| wanted == name);
        let right = expected.matches(response) && named;
        self.state = if right { State::Done } else { State::Refused };
        if right { Ok(()) } else { Err(Refused::Failed) }
    }
}
