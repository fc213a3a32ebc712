//! Text: what the RFC allows, what it does not, the borders of every limit, fuzz of everything that reads text.

use crate::base::rng::Rng;
use crate::wire::iscsi::Key;
use crate::wire::iscsi::text::{Full, KEY_MAX, Pairs, TextError, TextWriter, VALUE_MAX};
use crate::wire::iscsi::value::{self, binary, boolean, is_name, list, number, number_within, range};
use crate::wire::mutate::Mutator;

fn walk(text: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    Pairs::new(text).collect()
}

#[test]
fn pairs() {
    assert_eq!(walk(b""), Ok(vec![]));
    assert_eq!(walk(b"\0\0\0"), Ok(vec![]), "padding that was left on");
    assert_eq!(walk(b"a=b\0"), Ok(vec![("a", "b")]));
    assert_eq!(walk(b"a=\0\0X-x.y=1,2=3\0\0"), Ok(vec![("a", ""), ("X-x.y", "1,2=3")]));
    assert_eq!(walk("TargetAlias=Gr\u{fc}n\0".as_bytes()), Ok(vec![("TargetAlias", "Gr\u{fc}n")]));
    assert_eq!(walk(b"a=b"), Err(TextError::NoEnd));
    assert_eq!(walk(b"a=b\0cd"), Err(TextError::NoEquals));
    assert_eq!(walk(b"ab\0c=d\0"), Err(TextError::NoEquals));
    assert_eq!(walk(b"=b\0"), Err(TextError::Key));
    assert_eq!(walk(b"a b=c\0"), Err(TextError::Key));
    assert_eq!(walk(b"a\x80=c\0"), Err(TextError::Key));
    assert_eq!(walk(b"a=\xff\0"), Err(TextError::NotUtf8));
    let mut after_an_error = Pairs::new(b"ab\0c=d\0");
    assert!(after_an_error.next().unwrap().is_err());
    assert!(after_an_error.next().is_none(), "the walk ends there");
}

#[test]
fn limits_of_keys_and_values() {
    for (len, want) in [(KEY_MAX, None), (KEY_MAX + 1, Some(TextError::Key)), (9000, Some(TextError::Key))] {
        let text = [vec![b'k'; len], b"=v\0".to_vec()].concat();
        assert_eq!(walk(&text).err(), want, "key of {len}");
    }
    for (len, want) in [(VALUE_MAX, None), (VALUE_MAX + 1, Some(TextError::ValueTooLong))] {
        let text = [b"k=".to_vec(), vec![b'v'; len], vec![0]].concat();
        assert_eq!(walk(&text).err(), want, "value of {len}");
    }
    assert_eq!(value::simple(&"v".repeat(255)).map(str::len), Some(255));
    assert_eq!(value::simple(&"v".repeat(256)), None);
}

/// A whole text cut anywhere is either shorter by pairs or malformed: no pair is ever made up.
#[test]
fn every_cut_of_a_text() {
    let text = b"InitiatorName=iqn.2016-06.io.spdk:h\0AuthMethod=CHAP,None\0MaxRecvDataSegmentLength=262144\0";
    let whole = walk(text).unwrap();
    for cut in 0..text.len() {
        let got: Vec<_> = Pairs::new(&text[..cut]).map_while(Result::ok).collect();
        assert_eq!(got, whole[..got.len()], "cut at {cut}");
        assert_eq!(walk(&text[..cut]).is_ok(), cut == 0 || text[cut - 1] == 0, "cut at {cut}");
    }
}

#[test]
fn numbers_ranges_booleans_lists() {
    let good = [
        ("0", 0),
        ("1", 1),
        ("262144", 262_144),
        ("0x0", 0),
        ("0xFf", 255),
        ("0X10", 16),
        ("0x00000001", 1),
        ("18446744073709551615", u64::MAX),
        ("0xffffffffffffffff", u64::MAX),
    ];
    for (text, want) in good {
        assert_eq!(number(text), Some(want), "{text}");
    }
    for bad in
        ["", "-1", "+1", "01", "1 ", " 1", "0x", "0xg", "x1", "18446744073709551616", "0x10000000000000000", "1.0"]
    {
        assert_eq!(number(bad), None, "{bad}");
    }
    assert_eq!((number_within("512", 512, 1024), number_within("511", 512, 1024)), (Some(512), None));
    assert_eq!((number_within("1025", 512, 1024), number_within("4294967808", 512, 1024)), (None, None));
    assert_eq!(range("1~0x10"), Some((1, 16)));
    for bad in ["1", "2~1", "~1", "1~", "1~2~3"] {
        assert_eq!(range(bad), None, "{bad}");
    }
    assert_eq!((boolean("Yes"), boolean("No"), boolean("yes"), boolean("")), (Some(true), Some(false), None, None));
    assert_eq!(list("CRC32C,None").collect::<Vec<_>>(), [Some("CRC32C"), Some("None")]);
    assert_eq!(list("a,,b").collect::<Vec<_>>(), [Some("a"), None, Some("b")]);
}

#[test]
fn binary_strings() {
    let decode = |text: &str, room: usize| {
        let mut out = vec![0xee; room];
        binary(text, &mut out).map(|len| out[..len].to_vec())
    };
    assert_eq!(decode("0x0102fF", 3), Some(vec![1, 2, 255]));
    assert_eq!(decode("0X102", 2), Some(vec![1, 2]), "n digits are (n+1)/2 bytes");
    assert_eq!(decode("0x000", 2), Some(vec![0, 0]), "leading zeros count");
    assert_eq!(decode("0x010203", 2), None, "does not fit");
    // RFC 4648 section 10.
    for (text, want) in [("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")] {
        assert_eq!(decode(&format!("0b{text}"), 6), Some(want.as_bytes().to_vec()));
        assert_eq!(decode(&format!("0B{}", text.trim_end_matches('=')), 6), Some(want.as_bytes().to_vec()));
    }
    for bad in [
        "",
        "0x",
        "0b",
        "01",
        "ab",
        "0xag",
        "0b=",
        "0bZ",
        "0bZg=",
        "0bZg===",
        "0bZ===",
        "0bZ*==",
        "0bZg==Zg==",
        "0x0 1",
    ] {
        assert_eq!(decode(bad, 99), None, "{bad}");
    }
}

#[test]
fn writer_keeps_whole_pairs_within_its_buffer() {
    let mut buffer = [0xee; 64];
    let mut writer = TextWriter::new(&mut buffer);
    writer.push("MaxBurstLength", 262_144).unwrap();
    writer.push_bool("InitialR2T", false).unwrap();
    writer.push_binary("CHAP_C", &[0, 0xab, 0x10]).unwrap();
    assert_eq!(writer.text(), b"MaxBurstLength=262144\0InitialR2T=No\0CHAP_C=0x00ab10\0");
    let before = writer.len();
    assert_eq!(writer.push("Key", "longer than the rest"), Err(Full));
    assert_eq!((writer.len(), writer.is_empty()), (before, false));
    // Exactly to the end, and not a byte further.
    let room = 64 - before;
    writer.push("k", "v".repeat(room - 3)).unwrap();
    assert_eq!((writer.len(), writer.push("", "")), (64, Err(Full)));
    assert_eq!(walk(&buffer).unwrap().len(), 4);
    for room in 0..8 {
        let mut small = vec![0xee; room];
        let mut writer = TextWriter::new(&mut small);
        assert_eq!(writer.push("ab", "cd").is_ok(), room >= 6);
    }
}

#[test]
fn names() {
    for good in [
        "iqn.2016-06.io.spdk:disk1",
        "iqn.1993-08.org.debian:01:abc",
        "eui.02004567A425678D",
        "naa.52004567BA64678D",
        "naa.62004567BA64678D0123456789ABCDEF",
    ] {
        assert!(is_name(good), "{good}");
    }
    let long = format!("iqn.2016-06.io.spdk:{}", "x".repeat(223 - 20));
    assert!(is_name(&long) && !is_name(&format!("{long}x")));
    for bad in [
        "",
        "iqn.",
        "iqn.2016-06",
        "iqn.2016-06.",
        "iqn.201606.io.spdk",
        "iqn.2016-06.io spdk",
        "iqn.2016-06.a\tb",
        "eui.0200",
        "naa.5200",
        "eui.02004567A425678G",
        "nqn.2016-06.io.spdk:a",
        "iqn.2016-06.a,b",
    ] {
        assert!(!is_name(bad), "{bad}");
    }
}

#[test]
fn keys_round_trip() {
    for key in Key::ALL {
        assert_eq!(Key::of(key.name()), Some(*key));
        assert!(key.name().len() <= KEY_MAX);
    }
    assert_eq!((Key::of("maxconnections"), Key::of("")), (None, None));
}

/// A million mutated texts through the walk, and each value through every reader.
#[test]
fn fuzz_text() {
    let corpus = [
        &b"InitiatorName=iqn.2016-06.io.spdk:h\0SessionType=Normal\0AuthMethod=CHAP,None\0"[..],
        b"CHAP_A=5,7\0CHAP_I=12\0CHAP_C=0x0123456789abcdef0123456789abcdef\0",
        b"CHAP_N=user\0CHAP_R=0bZm9vYmFyZm9vYmFyZm9vYg==\0",
        b"HeaderDigest=CRC32C,None\0IFMarkInt=1~0xffff\0ImmediateData=Yes\0\0\0",
    ];
    let mut source = Mutator::new(0x7e87, corpus.iter().map(|t| t.to_vec()).collect());
    let (mut pairs, mut errors, mut binaries) = (0u32, 0u32, 0u32);
    let mut out = [0; 64];
    for _ in 0..1_000_000 {
        let text = source.next();
        for item in Pairs::new(text) {
            let Ok((key, value)) = item else {
                errors += 1;
                continue;
            };
            pairs += 1;
            assert!(!key.is_empty() && key.len() <= KEY_MAX && value.len() <= VALUE_MAX && !value.contains('\0'));
            binaries += u32::from(binary(value, &mut out).is_some());
            let low = range(value).map_or(0, |(low, high)| high - low);
            let _ = (number(value).unwrap_or(low), boolean(value), is_name(value), Key::of(key));
            assert_eq!(list(value).count(), value.matches(',').count() + 1);
        }
    }
    assert!(pairs > 1_000_000 && errors > 100_000 && binaries > 100_000, "{pairs} {errors} {binaries}");
}

#[test]
fn binary_round_trips() {
    let mut rng = Rng::new(77);
    for len in 1..200 {
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        let mut buffer = [0; 1024];
        let mut writer = TextWriter::new(&mut buffer);
        writer.push_binary("CHAP_C", &bytes).unwrap();
        let text = writer.text().to_vec();
        let pairs = walk(&text).unwrap();
        let mut out = [0; 200];
        assert_eq!(binary(pairs[0].1, &mut out).map(|len| &out[..len]), Some(&bytes[..]));
    }
}
