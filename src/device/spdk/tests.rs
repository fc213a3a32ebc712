//! Against a live namespace, whose content they destroy: `POLLUX_TEST_SPDK` holds its spec. tests/node/spdk-device.sh starts
//! targets and runs them.

use crate::base::CoreId;
use crate::base::rng::Rng;
use crate::device::testing::{drain, one, open, plain, read, write};
use crate::device::{AnyQueue, DeviceError, Medium, Op, OpKind, Queue};
use crate::mem::{Class, Pool};

const LARGE: usize = 1 << 20;
/// Bytes of the medium that are used.
const AREA: usize = 4 << 20;
const DEPTH: u32 = 48;

fn medium() -> Medium {
    let spec = std::env::var("POLLUX_TEST_SPDK").expect("POLLUX_TEST_SPDK holds a spec");
    // It may be told again by whoever runs this.
    let _ = tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).try_init();
    open(&spec).unwrap()
}

fn pool() -> Pool {
    let classes = [Class { size: 64 << 10, count: DEPTH as usize }, Class { size: LARGE, count: 8 }];
    Pool::standalone(CoreId(0), &classes).unwrap()
}

fn queue(medium: &Medium, core: u16) -> AnyQueue {
    medium.queue(CoreId(core), DEPTH, &[]).unwrap()
}

/// Random operations in stripes of their own, against a model of the medium.
fn agree(q: &mut AnyQueue, pool: &mut Pool, seed: u64) {
    const STRIPE: usize = 64 << 10;
    let block = q.caps().block_size as usize;
    let (mut model, mut rng) = (vec![0u8; AREA], Rng::new(seed));
    assert_eq!(one(q, plain(OpKind::WriteZeroes, 0, AREA as u64, 0)).result, Ok(()));
    for _ in 0..40 {
        let mut expected = Vec::new();
        for lane in 0..DEPTH as usize {
            let len = block * (1 + rng.below((16384 / block) as u64)) as usize;
            let offset = lane * STRIPE + rng.below(((STRIPE - len) / block) as u64 + 1) as usize * block;
            let (token, place) = (lane as u64, &mut model[offset..offset + len]);
            let op = match rng.below(5) {
                0 | 1 => {
                    let mut buf = pool.get(len).unwrap();
                    rng.fill(&mut buf);
                    place.copy_from_slice(&buf);
                    write(buf, offset as u64, token)
                }
                2 => {
                    place.fill(0);
                    plain(OpKind::WriteZeroes, offset as u64, len as u64, token)
                }
                3 => plain(OpKind::Flush, 0, 0, token),
                _ => read(pool.get(len).unwrap(), offset as u64, token),
            };
            expected.push((offset, len));
            q.submit(op).unwrap();
        }
        let extra = q.submit(plain(OpKind::Flush, 0, 0, 99)).unwrap_err();
        assert_eq!(extra.token, 99, "a full queue gives the operation back");
        let dones = drain(q);
        assert_eq!(dones.len(), DEPTH as usize);
        for done in dones {
            assert_eq!(done.result, Ok(()), "{:?}", done.kind);
            let (offset, len) = expected[done.token as usize];
            if let Some(buf) = done.buf {
                assert!(buf[..] == model[offset..][..len], "{:?} of {len} at {offset}", done.kind);
                pool.put(buf);
            }
        }
    }
}

#[test]
#[ignore = "needs a target that POLLUX_TEST_SPDK names; tests/node/spdk-device.sh starts some"]
fn a_live_namespace_does_what_a_device_does() {
    let medium = medium();
    let mut pool = pool();
    let mut q = queue(&medium, 0);
    let caps = q.caps().clone();
    assert!(caps.size > 3 * AREA as u64 && caps.io_bytes_max as usize >= LARGE && caps.depth == DEPTH);
    agree(&mut q, &mut pool, 1);

    // Transfers that take several commands, and one from the middle of a buffer.
    let mut rng = Rng::new(2);
    let mut sent = Vec::new();
    for n in 0..4u64 {
        let mut buf = pool.get(LARGE).unwrap();
        rng.fill(&mut buf);
        sent.push(buf.to_vec());
        q.submit(write(buf, n * LARGE as u64, n)).unwrap();
    }
    drain(&mut q).into_iter().for_each(|done| {
        assert_eq!(done.result, Ok(()));
        pool.put_all(done.buf);
    });
    let at = caps.block_size;
    let op = Op { kind: OpKind::Read, offset: 0, len: LARGE as u64 - 4096, buf: pool.get(LARGE), at, token: 5 };
    let done = one(&mut q, op);
    let buf = done.buf.unwrap();
    assert!(done.result == Ok(()) && buf[at as usize..][..LARGE - 4096] == sent[0][..LARGE - 4096]);
    pool.put(buf);

    // Another core sees it, and both work at once.
    let mut other = queue(&medium, 1);
    for n in 0..4u64 {
        let done = one(&mut other, read(pool.get(LARGE).unwrap(), n * LARGE as u64, n));
        let buf = done.buf.unwrap();
        assert!(done.result == Ok(()) && buf[..] == sent[n as usize][..]);
        pool.put(buf);
    }
    drop(q);

    // A range longer than one command, whichever way the device zeroes.
    let long = caps.size.min(80 << 20);
    assert_eq!(one(&mut other, plain(OpKind::WriteZeroes, 0, long, 1)).result, Ok(()));
    let done = one(&mut other, read(pool.get(LARGE).unwrap(), long - LARGE as u64, 1));
    let buf = done.buf.unwrap();
    assert!(done.result == Ok(()) && buf.iter().all(|b| *b == 0));
    pool.put(buf);
    let discarded = one(&mut other, plain(OpKind::Discard, 0, AREA as u64, 1)).result;
    assert_eq!(discarded, if caps.discard { Ok(()) } else { Err(DeviceError::Unsupported) });
    assert_eq!(one(&mut other, plain(OpKind::Flush, 0, 0, 1)).result, Ok(()));
    assert!(!medium.is_dead() && medium.rescan().unwrap() == caps.size);

    // The same namespace once more shares the controller, which outlives the medium that opened it.
    let again = open(&medium.spec().to_string()).unwrap();
    drop((other, medium));
    agree(&mut queue(&again, 0), &mut pool, 3);
}

#[test]
#[ignore = "needs a target that POLLUX_TEST_SPDK names; tests/node/spdk-device.sh starts some"]
fn a_namespace_that_is_not_there_is_an_error() {
    let medium = medium();
    let there = medium.spec().to_string();
    let error = open(&format!("{there} nsid:4000")).unwrap_err();
    assert!(error.to_string().contains("4000"), "{error}");
    // The controller is still good for the one that is.
    assert_eq!(one(&mut queue(&medium, 0), plain(OpKind::Flush, 0, 0, 1)).result, Ok(()));
}
