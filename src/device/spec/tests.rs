use super::*;
use crate::device::fault::Action;
use crate::device::{DeviceError, OpKind};

fn bad(text: &str, column: usize, key: &str, problem: Problem) {
    let error = text.parse::<Spec>().expect_err(text);
    assert_eq!(error, SpecError { column, key: key.to_owned(), problem }, "{text}");
}

#[test]
fn canonical_lines_read_back_as_written() {
    for text in [
        "ram:1GiB",
        "ram:1GiB,bs=512",
        "ram:1536KiB,lazy",
        "ram:512,bs=512",
        "null:1TiB",
        "null:1TiB,bs=512,nofill",
        "uring:/dev/nvme0n1",
        "uring:/a b,bs=4096,dsync",
        "uring:/x,buffered,readonly,poll",
        "uring:relative/path",
        "uring:/a%2Cb%28%29%3B%25%0A%FF",
        "uring:/h\u{e4}rte",
        "file:/path,size=10GiB",
        "file:/path,size=10GiB,prealloc,bs=512,dsync",
        "file:/path,size=10GiB,prealloc=fallocate",
        "nvme:0000:02:00.0",
        "nvme:10000:e1:1f.7/4294967294,readonly,nosgl,timeout=5s,unsafe_noiommu",
        "fault(nvme:0000:02:00.0/2;do=eio)",
        "fault(ram:1MiB)",
        "fault(ram:1MiB;do=eio)",
        "fault(uring:/x,bs=512;do=short:512,op=write,offset=1MiB..2MiB,begin=10,end=20,p=0.500000;do=flip;seed=7)",
        "fault(ram:1MiB;do=misdirect:-4KiB,op=read;do=misdirect:8KiB;do=lose,op=flush;do=os:121;do=dead;do=enospc;do=hold,end=3;do=corrupt:4KiB:255)",
        "delay(ram:1MiB)",
        "delay(null:1MiB;read=100us,read_p99=1ms,write=20us,flush=2s,zeroes=5ns,discard_p99=7us;seed=3)",
        "delay(fault(delay(ram:1MiB;read=1us);do=unsupported,op=discard);write=1ms)",
    ] {
        let spec: Spec = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(spec.to_string(), text);
        assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
    }
}

#[test]
fn values_arrive() {
    let Spec::Fault { inner, rules, seed } =
        "fault(aio:/x,bs=512;do=os:5,op=write,offset=1m..2m,begin=10,end=20,p=0.5;seed=7)".parse().unwrap()
    else {
        panic!("not a fault spec")
    };
    assert_eq!(*inner, Spec::File(FileSpec { block: Some(512), ..FileSpec::new("/x") }));
    let rule = FaultRule {
        action: Action::Error(DeviceError::Os(5)),
        op: Some(OpKind::Write),
        offsets: (1 << 20, 2 << 20),
        begin: 10,
        end: 20,
        per_million: 500_000,
    };
    assert_eq!((rules, seed), (vec![rule], 7));
    assert_eq!("nvme:2:0.1,timeout=1500ms".parse::<Spec>().unwrap().to_string(), "nvme:0000:02:00.1,timeout=1500ms");
    let Spec::Delay { latency, .. } = "delay(ram:1m;read=100us,read_p99=1ms)".parse().unwrap() else {
        panic!("not a delay spec")
    };
    assert_eq!((latency.of(OpKind::Read).usual, latency.of(OpKind::Read).p99), (100_000, 1_000_000));
    assert_eq!(latency.of(OpKind::Write).usual, 0);
    assert_eq!("file:/f,prealloc,size=1g".parse::<Spec>().unwrap().to_string(), "file:/f,size=1GiB,prealloc");
}

#[test]
fn mistakes_are_named_with_their_column() {
    bad("", 1, "", Problem::Kind);
    bad("disk:1GiB", 1, "disk", Problem::Kind);
    bad("ram", 4, ":", Problem::End);
    bad("ram(1GiB)", 4, ":", Problem::End);
    bad("ram:", 5, "", Problem::Size);
    bad("ram:1GB", 5, "1GB", Problem::Size);
    bad("ram:99999999999GiB", 5, "99999999999GiB", Problem::Size);
    bad("ram:0", 5, "0", Problem::Multiple);
    bad("ram:1000", 5, "1000", Problem::Multiple);
    bad("ram:512", 5, "512", Problem::Multiple);
    bad("ram:1GiB,bs=1024", 13, "bs", Problem::BlockSize);
    bad("ram:1GiB,bs", 10, "bs", Problem::NeedsValue);
    bad("ram:1GiB,bs=", 10, "bs", Problem::NeedsValue);
    bad("ram:1GiB,bs=512,bs=512", 17, "bs", Problem::Twice);
    bad("ram:1GiB,lazy=1", 10, "lazy", Problem::NoValue);
    bad("ram:1GiB,lazy,lazy", 15, "lazy", Problem::Twice);
    bad("ram:1GiB,dsync", 10, "dsync", Problem::Key);
    bad("ram:1GiB,", 10, "", Problem::Key);
    bad("ram:1GiB;x", 9, ";", Problem::Unexpected);
    bad("null:1GiB,lazy", 11, "lazy", Problem::Key);
    bad("uring:", 7, "", Problem::Path);
    bad("uring:/a%2", 9, "%", Problem::Escape);
    bad("uring:/a%+1b", 9, "%", Problem::Escape);
    bad("uring:/a%00b", 9, "%", Problem::Escape);
    bad("uring:/a,size=1GiB", 10, "size", Problem::Key);
    bad("uring:/a)", 9, ")", Problem::Unexpected);
    bad("file:/a", 6, "size", Problem::Missing);
    bad("file:/a,size=1000", 9, "size", Problem::Multiple);
    bad("file:/a,size=1GiB,prealloc=yes", 28, "prealloc", Problem::Word);
    bad("file:/a,size=1GiB,readonly", 19, "readonly", Problem::Contradiction);
    bad("nvme:", 6, "", Problem::Address);
    bad("nvme:0000:02:00", 6, "0000:02:00", Problem::Address);
    bad("nvme:0000:02:00.0/", 19, "", Problem::Number);
    bad("nvme:0000:02:00.0/0", 19, "0", Problem::Number);
    bad("nvme:0000:02:00.0/4294967295", 19, "4294967295", Problem::Number);
    bad("nvme:0000:02:00.0,bs=512", 19, "bs", Problem::Key);
    bad("nvme:0000:02:00.0,timeout=0", 27, "timeout", Problem::Time);
    bad("nvme:0000:02:00.0,timeout=1s,timeout=1s", 30, "timeout", Problem::Twice);
    bad("fault(ram:1GiB", 15, ")", Problem::End);
    bad("fault ram:1GiB", 1, "fault ram", Problem::Kind);
    bad("fault(ram:1GiB;op=read)", 16, "do", Problem::Missing);
    bad("fault(ram:1GiB;do=explode)", 19, "do", Problem::Word);
    bad("fault(ram:1GiB;do=os:-1)", 19, "do", Problem::Word);
    bad("fault(ram:1GiB;do=misdirect:0)", 19, "do", Problem::Word);
    bad("fault(ram:1GiB;do=eio,op=erase)", 26, "op", Problem::Word);
    bad("fault(ram:1GiB;do=eio,offset=2m..1m)", 30, "offset", Problem::Range);
    bad("fault(ram:1GiB;do=eio,p=1.5)", 25, "p", Problem::Probability);
    bad("fault(ram:1GiB;do=eio,p=.5)", 25, "p", Problem::Probability);
    bad("fault(ram:1GiB;do=eio,p=0.1234567)", 25, "p", Problem::Probability);
    bad("fault(ram:1GiB;do=eio,begin=5,end=5)", 16, "end", Problem::Range);
    bad("fault(ram:1GiB;do=eio,begin=+5)", 29, "begin", Problem::Number);
    bad("fault(ram:1GiB;seed=1;seed=2)", 23, "seed", Problem::Twice);
    bad("fault(ram:1GiB)x", 16, "x", Problem::Unexpected);
    bad("delay(ram:1GiB;read=5)", 21, "read", Problem::Time);
    bad("delay(ram:1GiB;read=1ms,read=2ms)", 25, "read", Problem::Twice);
    bad("delay(ram:1GiB;erase=1ms)", 16, "erase", Problem::Key);
    bad("delay(delay(ram:1GiB,x))", 22, "x", Problem::Key);
    let deep = format!("{}ram:1m{}", "delay(".repeat(9), ")".repeat(9));
    bad(&deep, 6 * 8 + 1, "delay", Problem::Nested);
    let error = "ram:1GiB,size=1".parse::<Spec>().unwrap_err();
    assert_eq!(error.to_string(), "column 10: `size`: unknown key for this device");
}

#[test]
fn any_text_is_an_answer_and_what_parses_reads_back() {
    use proptest::prelude::*;
    let word = prop::sample::select(vec![
        "ram",
        "null",
        "uring",
        "nvme",
        "02:00.0",
        "/7",
        "file",
        "fault",
        "delay",
        ":",
        "(",
        ")",
        ",",
        ";",
        "=",
        "1GiB",
        "512",
        "bs",
        "do",
        "eio",
        "flip",
        "op",
        "read",
        "size",
        "seed",
        "p",
        "0.5",
        "..",
        "%",
        "%41",
        "/x",
        "prealloc",
        "\u{1f980}",
        "-",
    ]);
    proptest!(|(words in prop::collection::vec(word, 0..16))| {
        if let Ok(spec) = words.concat().parse::<Spec>() {
            prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec));
        }
    });
}
