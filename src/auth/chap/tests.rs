//! Digests against known values, whole logins of both ends against each other, and every way to be refused.

use super::*;
use crate::base::rng::Rng;

const SECRET: &[u8] = b"a secret of 16+ b";
const OTHER: &[u8] = b"the other direction";
const OURS: [u8; CHALLENGE_LEN] = [0x11; CHALLENGE_LEN];
const THEIRS: [u8; CHALLENGE_LEN] = [0x22; CHALLENGE_LEN];
const ONE_WAY: Policy = Policy { algorithms: Algorithms::ALL, direction: Direction::OneWay };
const MUTUAL: Policy = Policy { algorithms: Algorithms::ALL, direction: Direction::Mutual };
const SECRETS: Secrets<'static> = Secrets { secret: SECRET, mutual: Some(("target", OTHER)) };

fn user(mutual: Option<(&str, &[u8])>) -> Credentials {
    let mutual = mutual.map(|(name, secret)| (name.to_owned(), secret.to_vec()));
    Credentials { name: "user".into(), secret: SECRET.to_vec(), mutual }
}

/// A target that has sent its challenge for `algorithm`.
fn challenged(policy: Policy, algorithm: Algorithm) -> (Target, Challenge) {
    let mut target = Target::new(policy);
    let sent = target.algorithms([99, algorithm as u64], 7, OURS).unwrap();
    assert_eq!((sent.algorithm, sent.id, sent.challenge), (algorithm, 7, OURS));
    (target, sent)
}

/// Digests of 07, `SECRET` and the bytes 00 to 1f, made with another implementation.
#[test]
fn digests() {
    let challenge: Vec<u8> = (0..32).collect();
    let hex = |a: Algorithm| -> String {
        let digits = |b: &u8| [b >> 4, b & 15].map(|n| char::from_digit(u32::from(n), 16).unwrap());
        a.response(7, SECRET, &challenge).bytes().iter().flat_map(digits).collect()
    };
    assert_eq!(hex(Algorithm::Md5), "f64c7d24a4ced9241e5a45c64bf63b3f");
    assert_eq!(hex(Algorithm::Sha1), "2418230d182ec1cc7fff91795db4efd3e9c04979");
    assert_eq!(hex(Algorithm::Sha256), "973dcfec4f60b08d3436c5dbc17136ae875d1a1e8ee05972bfb44835a7e6e8da");
    assert_eq!(hex(Algorithm::Sha3_256), "c5b8ae573c5d8efc9a3fcdac24e803a0df8a020c4fe3d4c2d97712b9cf875d05");
    for a in Algorithm::ALL {
        assert_eq!((Algorithm::of(a as u64), hex(a).len()), (Some(a), 2 * a.digest_len()));
    }
}

#[test]
fn both_ends_agree_one_way_and_mutual() {
    for algorithm in Algorithm::ALL {
        for (policy, mutual) in [(ONE_WAY, None), (ONE_WAY, Some(("target", OTHER))), (MUTUAL, Some(("target", OTHER)))]
        {
            let credentials = user(mutual);
            let mut initiator = Initiator::new(credentials.clone());
            let (mut target, sent) = challenged(policy, algorithm);
            let reply = initiator.challenged(sent.algorithm as u64, sent.id, &sent.challenge, 9, THEIRS).unwrap();
            let asked = reply.mutual.as_ref().map(|(id, challenge)| (*id, &challenge[..]));
            let answer = Answer { name: &credentials.name, response: reply.response.bytes(), mutual: asked };
            let proof = target.answer(&answer, Some(SECRETS)).unwrap();
            assert!(target.done());
            assert_eq!(proof.is_some(), mutual.is_some());
            if let Some(proof) = proof {
                assert!(!initiator.done(), "the target has still to prove itself");
                initiator.proved(proof.name, proof.response.bytes()).unwrap();
            }
            assert!(initiator.done());
        }
    }
}

/// What the target says to an answer that differs in one thing from the right one.
fn said(policy: Policy, secrets: Option<Secrets<'_>>, change: impl Fn(&mut Answer<'_>)) -> Result<bool, Refused> {
    let (mut target, sent) = challenged(policy, Algorithm::Sha256);
    let response = sent.algorithm.response(sent.id, SECRET, &sent.challenge);
    let mut answer = Answer { name: "user", response: response.bytes(), mutual: Some((9, &THEIRS)) };
    change(&mut answer);
    let outcome = target.answer(&answer, secrets).map(|proof| proof.is_some());
    assert_eq!(target.done(), outcome.is_ok());
    if let Err(why) = outcome {
        let right = Answer { name: "user", response: response.bytes(), mutual: Some((9, &THEIRS)) };
        assert_eq!(target.answer(&right, Some(SECRETS)).err(), Some(why), "refused once, refused for good");
        assert_eq!(target.algorithms([7], 1, OURS).err(), Some(why), "and no second challenge");
    }
    outcome
}

#[test]
fn refusals_of_the_target() {
    assert_eq!(said(MUTUAL, Some(SECRETS), |_| ()), Ok(true));
    assert_eq!(said(MUTUAL, Some(SECRETS), |a| a.mutual = None), Err(Refused::OneWay));
    assert_eq!(said(ONE_WAY, Some(SECRETS), |a| a.mutual = None), Ok(false));
    assert_eq!(said(ONE_WAY, Some(SECRETS), |a| a.mutual = Some((9, &OURS))), Err(Refused::Reflected));
    assert_eq!(said(ONE_WAY, Some(SECRETS), |a| a.mutual = Some((9, &[]))), Err(Refused::Challenge));
    assert_eq!(said(ONE_WAY, Some(SECRETS), |a| a.mutual = Some((9, &[7; 1024]))), Ok(true));
    assert_eq!(said(ONE_WAY, Some(SECRETS), |a| a.mutual = Some((9, &[7; 1025]))), Err(Refused::Challenge));
    assert_eq!(said(ONE_WAY, Some(SECRETS), |a| a.name = ""), Err(Refused::Name));
    let long = "n".repeat(NAME_MAX + 1);
    assert_eq!(said(ONE_WAY, Some(SECRETS), |a| a.name = if a.name.is_empty() { "" } else { "u" }), Ok(true));
    let (mut target, sent) = challenged(ONE_WAY, Algorithm::Md5);
    let right = sent.algorithm.response(sent.id, SECRET, &sent.challenge);
    let answer = Answer { name: &long, response: right.bytes(), mutual: None };
    assert_eq!(target.answer(&answer, Some(SECRETS)).err(), Some(Refused::Name));
    for len in [0, 16, 31, 33, 64] {
        let response = vec![0; len];
        let (mut target, _) = challenged(ONE_WAY, Algorithm::Sha256);
        let answer = Answer { name: "user", response: &response, mutual: None };
        assert_eq!(target.answer(&answer, Some(SECRETS)).err(), Some(Refused::Length), "response of {len} bytes");
    }
    let one_way = Secrets { secret: SECRET, mutual: None };
    assert_eq!(said(ONE_WAY, Some(one_way), |_| ()), Err(Refused::NoMutual));
    let same = Secrets { secret: SECRET, mutual: Some(("target", SECRET)) };
    assert_eq!(said(ONE_WAY, Some(same), |_| ()), Err(Refused::SameSecret));
}

/// An unknown name and a wrong secret are told apart by nothing, whatever else is asked for.
#[test]
fn a_wrong_name_looks_like_a_wrong_secret() {
    let wrong = Secrets { secret: b"another secret!!", mutual: Some(("target", OTHER)) };
    for mutual in [None, Some((9, &THEIRS[..]))] {
        assert_eq!(said(MUTUAL, None, |a| a.mutual = mutual), Err(Refused::Failed));
        assert_eq!(said(MUTUAL, Some(wrong), |a| a.mutual = mutual), Err(Refused::Failed));
    }
    // Not even the secret that stands in for an unknown user's opens anything.
    let (mut target, sent) = challenged(ONE_WAY, Algorithm::Sha256);
    let stand_in = sent.algorithm.response(sent.id, &[0; SECRET_MIN], &sent.challenge);
    let answer = Answer { name: "nobody", response: stand_in.bytes(), mutual: None };
    assert_eq!(target.answer(&answer, None).err(), Some(Refused::Failed));
}

#[test]
fn order_and_algorithms() {
    let mut target = Target::new(ONE_WAY);
    let answer = Answer { name: "user", response: &[0; 16], mutual: None };
    assert_eq!(target.answer(&answer, Some(SECRETS)).err(), Some(Refused::Order), "no challenge was sent");
    let (mut target, _) = challenged(ONE_WAY, Algorithm::Md5);
    assert_eq!(target.algorithms([5], 1, OURS).err(), Some(Refused::Order), "a second CHAP_A");
    let algorithms = Algorithms::default().with(Algorithm::Sha256).with(Algorithm::Sha3_256);
    let strong = Policy { algorithms, direction: Direction::OneWay };
    for (offered, want) in [
        (&[5, 6][..], Err(Refused::Algorithm)),
        (&[], Err(Refused::Algorithm)),
        (&[0, 4, 9, 255, 263, u64::MAX], Err(Refused::Algorithm)),
        (&[5, 7, 8], Ok(Algorithm::Sha256)),
        (&[8, 7], Ok(Algorithm::Sha3_256)),
    ] {
        let got = Target::new(strong).algorithms(offered.iter().copied(), 1, OURS).map(|c| c.algorithm);
        assert_eq!(got, want, "{offered:?}");
    }
    assert!(Refused::Order.is_protocol() && !Refused::Failed.is_protocol());
}

#[test]
fn refusals_of_the_initiator() {
    let credentials = user(Some(("target", OTHER)));
    let begin = || Initiator::new(credentials.clone());
    let challenge = |i: &mut Initiator, a: u64, c: &[u8]| i.challenged(a, 7, c, 9, THEIRS).map(|_| ());
    assert_eq!(challenge(&mut begin(), 4, &OURS), Err(Refused::Algorithm));
    assert_eq!(challenge(&mut begin(), 5, &[]), Err(Refused::Challenge));
    assert_eq!(challenge(&mut begin(), 5, &[0; CHALLENGE_MAX + 1]), Err(Refused::Challenge));
    let mut twice = begin();
    challenge(&mut twice, 5, &OURS).unwrap();
    assert_eq!(challenge(&mut twice, 5, &OURS), Err(Refused::Order));
    assert_eq!(begin().proved("target", &[0; 16]), Err(Refused::Order), "before it was asked");
    let right = Algorithm::Md5.response(9, OTHER, &THEIRS);
    for (name, response, want) in [
        ("target", right.bytes(), Ok(())),
        ("Target", right.bytes(), Err(Refused::Failed)),
        ("target", &right.bytes()[..15], Err(Refused::Failed)),
        ("target", &[0; 16], Err(Refused::Failed)),
    ] {
        let mut initiator = begin();
        challenge(&mut initiator, 5, &OURS).unwrap();
        assert_eq!(initiator.proved(name, response), want);
        assert_eq!(initiator.done(), want.is_ok());
        if want.is_err() {
            assert_eq!(initiator.proved("target", right.bytes()), Err(Refused::Order), "no second try");
        }
    }
    let same = user(Some(("target", SECRET)));
    assert_eq!(challenge(&mut Initiator::new(same), 5, &OURS), Err(Refused::SameSecret));
}

/// Every single flipped bit of a response, and 10,000 random ones, are refused.
#[test]
fn no_other_response_is_right() {
    let (_, sent) = challenged(ONE_WAY, Algorithm::Sha256);
    let right = sent.algorithm.response(sent.id, SECRET, &sent.challenge);
    let mut rng = Rng::new(5);
    for round in 0..10_000usize {
        let mut response = right.bytes().to_vec();
        if round < 256 {
            response[round / 8] ^= 1 << (round % 8);
        } else {
            rng.fill(&mut response);
        }
        let (mut target, _) = challenged(ONE_WAY, Algorithm::Sha256);
        let answer = Answer { name: "user", response: &response, mutual: None };
        assert_eq!(target.answer(&answer, Some(SECRETS)).err(), Some(Refused::Failed));
    }
}

#[test]
fn secrets_stay_out_of_debug_text() {
    let credentials = user(Some(("target", OTHER)));
    let shown = format!("{credentials:?} {SECRETS:?} {:?}", Initiator::new(credentials.clone()));
    for secret in [SECRET, OTHER] {
        assert!(!shown.contains(core::str::from_utf8(secret).unwrap()), "{shown}");
        assert!(!shown.contains(&format!("{secret:?}")), "{shown}");
    }
    assert!(shown.contains("user") && shown.contains("target"));
    assert!(secret_valid(&[0; 12]) && secret_valid(&[0; 255]) && !secret_valid(&[0; 11]) && !secret_valid(&[0; 256]));
}
