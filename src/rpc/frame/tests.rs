//! The framer against every cut of a stream, against the parser, and against noise.

use super::*;
use crate::base::rng::Rng;
use crate::rpc::json::Json;

/// Every value of the stream, pushed in pieces of at most `piece` bytes, and how it ended.
fn cut(stream: &[u8], piece: usize, max: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut framer, mut values) = (Framer::new(max), Vec::new());
    for part in stream.chunks(piece.max(1)) {
        framer.push(part);
        loop {
            match framer.next_value() {
                Ok(Some(value)) => values.push(value.to_vec()),
                Ok(None) => break,
                Err(e) => return (values, Some(e)),
            }
        }
    }
    (values, None)
}

const STREAM: &str = "\n\t {\"a\": [1, {\"b\": \"}]{[ \\\" \\\\\"}], \"c\": -1.5e+3}[{}][]  {\n  \"é\": null\n}";

#[test]
fn values_are_the_same_however_the_stream_is_cut() {
    let whole = cut(STREAM.as_bytes(), usize::MAX, 1 << 20);
    assert_eq!(whole.0.len(), 4);
    assert_eq!(whole.0[1], b"[{}]");
    assert_eq!(whole.0[3], "{\n  \"é\": null\n}".as_bytes());
    for piece in 1..STREAM.len() {
        assert_eq!(cut(STREAM.as_bytes(), piece, 1 << 20), whole, "pieces of {piece}");
    }
    let mut held = Framer::new(64);
    held.push(b"  {}   ");
    held.next_value().unwrap();
    assert_eq!(held.next_value(), Ok(None));
    assert!(!held.partial());
    assert_eq!(held.held(), 0, "white space is not kept");
    held.push(b" {\"a\"");
    assert_eq!(held.next_value(), Ok(None));
    assert!(held.partial());
}

#[test]
fn what_can_not_become_json_is_refused_at_once_and_for_ever() {
    let deep = "[".repeat(10_000);
    for (stream, error) in [
        ("x", FrameError::Start),
        ("{} 1", FrameError::Start),
        ("\"text\"", FrameError::Start),
        ("{]", FrameError::Bracket),
        ("[}", FrameError::Bracket),
        ("{\"a\"\u{0}", FrameError::Byte(0)),
        ("{\"a\nb\"}", FrameError::Byte(b'\n')),
        ("{'a': 1}", FrameError::Byte(b'\'')),
        (deep.as_str(), FrameError::Depth),
    ] {
        let (values, ended) = cut(stream.as_bytes(), 1, 1 << 20);
        assert_eq!(ended, Some(error), "{}", &stream[..stream.len().min(20)]);
        assert!(values.len() <= 1);
    }
    let mut framer = Framer::new(16);
    framer.push(b"{\"a\": \"0123456789");
    assert_eq!(framer.next_value(), Err(FrameError::Size(16)));
    framer.push(b"{}");
    assert_eq!(framer.next_value(), Err(FrameError::Size(16)), "there is no way back");
    assert!(framer.held() <= 2 && !framer.partial());
}

#[test]
fn depth_and_size_have_exact_limits() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(cut(nested(32).as_bytes(), 7, 1 << 20).1, None);
    assert_eq!(cut(nested(33).as_bytes(), 7, 1 << 20).1, Some(FrameError::Depth));
    assert_eq!(cut(b"{\"a\":1}", 2, 7).0.len(), 1);
    assert_eq!(cut(b"{\"a\":11}", 2, 7).1, Some(FrameError::Size(7)));
}

/// Memory held does not depend on what is claimed, only on what is sent: an endless request ends at its limit.
#[test]
fn an_endless_request_is_cut_off_at_the_limit() {
    let mut framer = Framer::new(1 << 20);
    framer.push(b"{\"a\":\"");
    let mut sent = 0;
    while framer.next_value() == Ok(None) {
        framer.push(&[b'x'; 4096]);
        sent += 4096;
        assert!(sent <= 2 << 20, "it goes on for ever");
    }
    assert_eq!(framer.held(), 0);
}

/// One random value in JSON or something that resembles it.
fn noise(rng: &mut Rng, out: &mut Vec<u8>, depth: u64) {
    const PIECES: &[&str] =
        &["1", "-0.5e9", "true", "null", "\"\"", "\"a\\\"b\"", "\"\\\\\"", "\"é\"", "{}", "[]", "\"\\u00e9\""];
    match rng.below(if depth > 3 { 6 } else { 10 }) {
        6 | 7 => {
            out.push(b'[');
            for i in 0..rng.below(3) {
                if i > 0 {
                    out.push(b',');
                }
                noise(rng, out, depth + 1);
            }
            out.push(b']');
        }
        8 | 9 => {
            out.push(b'{');
            for i in 0..rng.below(3) {
                if i > 0 {
                    out.extend(b" , ");
                }
                out.extend(format!("\"k{i}\":\t").bytes());
                noise(rng, out, depth + 1);
            }
            out.push(b'}');
        }
        _ => out.extend(PIECES[rng.below(PIECES.len() as u64) as usize].bytes()),
    }
}

/// A million streams of JSON, half of them damaged: no panic, no hang, the same values however they are cut, and every
/// value that the parser takes comes out whole.
#[test]
fn a_million_streams() {
    let mut rng = Rng::new(19);
    let (mut clean, mut refused, mut bytes) = (0u64, 0u64, Vec::new());
    for _ in 0..1_000_000 {
        bytes.clear();
        let mut values = 0;
        for _ in 0..=rng.below(2) {
            let from = bytes.len();
            noise(&mut rng, &mut bytes, 0);
            if !matches!(bytes[from], b'{' | b'[') {
                bytes.truncate(from);
                bytes.extend(b"{}");
            }
            values += 1;
        }
        let damaged = rng.chance(50);
        if damaged {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, rng.next_u64() as u8),
            }
        }
        let (whole, ended) = cut(&bytes, usize::MAX, 64);
        assert_eq!(cut(&bytes, 1 + rng.below(5) as usize, 64), (whole.clone(), ended), "{bytes:?}");
        if !damaged && bytes.len() <= 64 {
            clean += 1;
            assert_eq!((whole.len(), ended), (values, None), "{}", String::from_utf8_lossy(&bytes));
            assert!(whole.iter().all(|v| Json::parse(v).is_ok()));
        }
        refused += u64::from(ended.is_some());
    }
    assert!(clean > 300_000 && refused > 50_000, "{clean} clean, {refused} refused: the mix is off");
}
