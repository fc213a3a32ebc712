//! CHAP as iSCSI uses it (RFC 7143 section 12.1.3, RFC 1994): one side proves that it knows a secret by the digest of
//! an identifier, the secret and a random challenge of the other side; mutual CHAP does the same in both directions.
//!
//! [`Target`] and [`Initiator`] are the two ends of one login. The caller turns text keys into arguments and answers
//! into text keys; it brings random bytes and looks secrets up. What stays true: a login that was refused once stays
//! refused; an answer never tells whether the name or the secret was wrong, nor by the time it takes; a challenge that
//! comes back to who made it is refused; secrets are in no `Debug` text.

mod initiator;
mod target;

#[cfg(test)]
mod tests;

pub use initiator::{Credentials, Initiator, Reply};
pub use target::{Answer, Challenge, Direction, Policy, Proof, Secrets, Target};

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;

/// Bytes of the challenges made here; at least the 16 of the weakest algorithm's digest.
pub const CHALLENGE_LEN: usize = 32;
/// Longest challenge taken from the other side, bytes (12.1.3).
pub const CHALLENGE_MAX: usize = 1024;
/// Longest name, bytes.
pub const NAME_MAX: usize = 255;
/// Shortest secret that may be configured, bytes: 96 bits, as 9.2.1 demands where no `IPsec` protects the connection.
pub const SECRET_MIN: usize = 12;
/// Longest secret, bytes.
pub const SECRET_MAX: usize = 255;
/// Bytes of the longest digest.
pub const DIGEST_MAX: usize = 32;

/// True for a secret of a length that may be configured.
pub fn secret_valid(secret: &[u8]) -> bool {
    (SECRET_MIN..=SECRET_MAX).contains(&secret.len())
}

/// Algorithms of `CHAP_A`, by their IANA numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Algorithm {
    /// MD5: what every initiator knows.
    Md5 = 5,
    /// SHA-1.
    Sha1 = 6,
    /// SHA-256.
    Sha256 = 7,
    /// SHA3-256.
    Sha3_256 = 8,
}

impl Algorithm {
    /// Every algorithm, strongest first.
    pub const ALL: [Algorithm; 4] = [Algorithm::Sha3_256, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];

    /// The algorithm with this number.
    pub fn of(number: u64) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| *a as u64 == number)
    }

    /// Bytes of its digest.
    pub const fn digest_len(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 | Algorithm::Sha3_256 => 32,
        }
    }

    /// The response to `challenge` of identifier `id` with `secret`.
    pub fn response(self, id: u8, secret: &[u8], challenge: &[u8]) -> Response {
        fn hash<D: Digest>(id: u8, secret: &[u8], challenge: &[u8]) -> Response {
            let mut digest = D::new();
            digest.update([id]);
            digest.update(secret);
            digest.update(challenge);
            let out = digest.finalize();
            let mut bytes = [0; DIGEST_MAX];
            bytes[..out.len()].copy_from_slice(&out);
            Response { bytes, len: out.len() as u8 }
        }
        match self {
            Algorithm::Md5 => hash::<Md5>(id, secret, challenge),
            Algorithm::Sha1 => hash::<Sha1>(id, secret, challenge),
            Algorithm::Sha256 => hash::<Sha256>(id, secret, challenge),
            Algorithm::Sha3_256 => hash::<Sha3_256>(id, secret, challenge),
        }
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Algorithms(u8);

impl Algorithms {
    /// All of [`Algorithm::ALL`].
    pub const ALL: Algorithms = Algorithms::of(&Algorithm::ALL);

    /// Those of `list`.
    pub const fn of(list: &[Algorithm]) -> Algorithms {
        let (mut bits, mut at) = (0, 0);
        while at < list.len() {
            bits |= Algorithms::bit(list[at]);
            at += 1;
        }
        Algorithms(bits)
    }
    const fn bit(algorithm: Algorithm) -> u8 {
        1 << (algorithm as u8 - Algorithm::Md5 as u8)
    }
    /// With `algorithm` too.
    #[must_use]
    pub const fn with(self, algorithm: Algorithm) -> Algorithms {
        Algorithms(self.0 | Algorithms::bit(algorithm))
    }
    /// True when `algorithm` is one of them.
    pub const fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & Algorithms::bit(algorithm) != 0
    }
}

/// What goes into `CHAP_R`.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    bytes: [u8; DIGEST_MAX],
    len: u8,
}

impl Response {
    /// The digest.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
    /// Compares with what came from the other side in a time that does not depend on where they differ.
    fn matches(&self, received: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.bytes().ct_eq(received).into()
    }
}

/// Why a login is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The keys of this step did not come when they should.
    #[error("CHAP keys out of order")]
    Order,
    /// No algorithm that both sides take.
    #[error("no common CHAP algorithm")]
    Algorithm,
    /// A name that is empty or longer than [`NAME_MAX`].
    #[error("CHAP name of a wrong length")]
    Name,
    /// A response whose length is not the digest's.
    #[error("CHAP response of a wrong length")]
    Length,
    /// A challenge that is empty or longer than [`CHALLENGE_MAX`].
    #[error("CHAP challenge of a wrong length")]
    Challenge,
    /// The other side's challenge is the one it was sent.
    #[error("CHAP challenge reflected")]
    Reflected,
    /// The name is not known, or the response is not right.
    #[error("CHAP authentication failed")]
    Failed,
    /// Mutual authentication is required, and the other side does not do its part.
    #[error("mutual CHAP required")]
    OneWay,
    /// Mutual authentication was asked for, and there is no secret for it.
    #[error("no secret for mutual CHAP")]
    NoMutual,
    /// The secrets of both directions are the same, which 9.2.1 forbids.
    #[error("CHAP secrets of both directions are the same")]
    SameSecret,
}

impl Refused {
    /// True when the other side broke the protocol; false when it could not prove who it is.
    pub fn is_protocol(self) -> bool {
        matches!(self, Refused::Order | Refused::Name | Refused::Length | Refused::Challenge)
    }
}
